//! The JSON by which Lambda itself, and not the function's code, reports that an invocation failed.
//!
//! The texts are those that AWS sent in November 2025, as recorded by the AWS-validated snapshots of LocalStack
//! (`tests/aws/services/lambda_/test_lambda.snapshot.json`); golden files in `tests/golden/lambda` hold them.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::limits::MAX_RESPONSE_BYTES;

/// Why an invocation failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What the caller of Invoke gets as payload.
    pub(crate) json: Bytes,
    /// The same in one line, for logs and for streams that broke off.
    pub(crate) summary: String,
}

/// The two fields of an error that callers rely on.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ErrorFields {
    pub(crate) error_type: String,
    pub(crate) error_message: String,
}

impl Failure {
    /// The function did not answer before its deadline.
    pub(crate) fn timed_out(request_id: &str, timeout: Duration) -> Self {
        let seconds = timeout.as_secs_f64();
        Self::new("Sandbox.Timedout", format!("RequestId: {request_id} Error: Task timed out after {seconds:.2} seconds"))
    }

    /// The process ended before it answered.
    pub(crate) fn exited(request_id: &str, status: ExitStatus) -> Self {
        let reason = describe_exit(status);
        Self::new("Runtime.ExitError", format!("RequestId: {request_id} Error: {reason}"))
    }

    /// The process could not be started.
    pub(crate) fn invalid_entrypoint(request_id: &str, reason: &str) -> Self {
        Self::new("Runtime.InvalidEntrypoint", format!("RequestId: {request_id} Error: {reason}"))
    }

    /// The answer is over the limit of a buffered response.
    pub(crate) fn response_too_large() -> Self {
        Self::new(
            "Function.ResponseSizeTooLarge",
            format!("Response payload size exceeded maximum allowed payload size ({MAX_RESPONSE_BYTES} bytes)."),
        )
    }

    /// The streamed answer is over the limit of a stream.
    pub(crate) fn stream_too_large(limit: usize) -> Self {
        Self::new(
            "Function.ResponseSizeTooLarge",
            format!("Response payload size exceeded maximum allowed payload size ({limit} bytes)."),
        )
    }

    /// The process broke its answer off and lives on.
    pub(crate) fn truncated(request_id: &str) -> Self {
        Self::new("Runtime.TruncatedResponse", format!("RequestId: {request_id} Error: Response was truncated"))
    }

    /// What the process itself posted to the Runtime API; `error_type` is the header that came with it.
    ///
    /// Lambda hands the JSON on as it is. A body that is no JSON is put into one.
    pub(crate) fn reported(body: Bytes, error_type: Option<&str>) -> Self {
        match serde_json::from_slice::<ErrorFields>(&body) {
            Ok(fields) => {
                let kind = if fields.error_type.is_empty() { error_type.unwrap_or("Unhandled") } else { &fields.error_type };
                Self { summary: format!("{kind}: {}", fields.error_message), json: body }
            }
            Err(_) => Self::new(error_type.unwrap_or("Runtime.Unknown"), String::from_utf8_lossy(&body).into_owned()),
        }
    }

    pub(crate) fn new(error_type: &str, error_message: String) -> Self {
        let summary = format!("{error_type}: {error_message}");
        let fields = ErrorFields { error_type: error_type.to_owned(), error_message };
        let json = serde_json::to_vec(&fields).expect("two strings are always JSON");
        Self { json: json.into(), summary }
    }
}

/// How Lambda words the end of a process: as Go's `os.ProcessState` does, whose `exec` starts it there.
fn describe_exit(status: ExitStatus) -> String {
    if status.success() {
        return "Runtime exited without providing a reason".to_owned();
    }
    if let Some(code) = status.code() {
        return format!("Runtime exited with error: exit status {code}");
    }
    let number = status.signal().unwrap_or_default();
    let name = match number {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        5 => "trace/breakpoint trap",
        6 => "aborted",
        8 => "floating point exception",
        9 => "killed",
        11 => "segmentation fault",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        _ => return format!("Runtime exited with error: signal: signal {number}"),
    };
    let core = if status.core_dumped() { " (core dumped)" } else { "" };
    format!("Runtime exited with error: signal: {name}{core}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST_ID: &str = "59f8af4e-3e1c-4ad1-b6b9-a220f7fceb05";

    fn check(failure: &Failure, golden: &str) {
        let expected: serde_json::Value = serde_json::from_str(golden).expect("the golden file is JSON");
        let actual: serde_json::Value = serde_json::from_slice(&failure.json).expect("a failure is JSON");
        assert_eq!(actual, expected);
    }

    #[test]
    fn failures_read_as_those_of_aws() {
        check(&Failure::timed_out(REQUEST_ID, Duration::from_secs(1)), include_str!("../../tests/golden/lambda/timed_out.json"));
        check(
            &Failure::exited(REQUEST_ID, ExitStatus::from_raw(1 << 8)),
            include_str!("../../tests/golden/lambda/exit_status_1.json"),
        );
        check(
            &Failure::exited(REQUEST_ID, ExitStatus::from_raw(0)),
            include_str!("../../tests/golden/lambda/exit_without_reason.json"),
        );
        check(
            &Failure::exited(REQUEST_ID, ExitStatus::from_raw(9)),
            include_str!("../../tests/golden/lambda/exit_signal_killed.json"),
        );
        check(&Failure::response_too_large(), include_str!("../../tests/golden/lambda/response_too_large.json"));
    }

    #[test]
    fn json_of_the_function_is_handed_on_as_it_is() {
        let body = Bytes::from_static(br#"{"errorType":"Oops","errorMessage":"no luck","stackTrace":[]}"#);
        let failure = Failure::reported(body.clone(), Some("unhandled"));
        assert_eq!(failure.json, body);
        assert_eq!(failure.summary, "Oops: no luck");
    }

    #[test]
    fn a_report_that_is_no_json_becomes_json() {
        let failure = Failure::reported(Bytes::from_static(b"boom"), Some("Runtime.Odd"));
        assert_eq!(&failure.json[..], br#"{"errorType":"Runtime.Odd","errorMessage":"boom"}"#);
    }
}
