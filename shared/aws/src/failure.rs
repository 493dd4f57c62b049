//! What the SDK's errors become.

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_types::request_id::RequestId;
use carillon_engine::ports::PortError;
use std::error::Error;

/// Why a call to a service did not do its work: as much as a log needs, without the request's or the answer's body.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The service refused.
    #[error("the service answered {status} {code}: {message} (request {request_id})")]
    Answered { status: u16, code: String, message: String, request_id: String },
    /// No answer came in time.
    #[error("no answer came in time")]
    TimedOut(#[source] Box<dyn Error + Send + Sync>),
    /// The request did not get there, or the connection broke.
    #[error("the service could not be reached")]
    Unreachable(#[source] Box<dyn Error + Send + Sync>),
    /// The request or its answer made no sense to the SDK.
    #[error("the call could not be made")]
    Malformed(#[source] Box<dyn Error + Send + Sync>),
}

/// The failure of `operation` for this reason.
pub(crate) fn failed<E>(operation: &'static str, error: SdkError<E, HttpResponse>) -> PortError
where
    E: Error + Send + Sync + ProvideErrorMetadata + 'static,
{
    PortError::new(operation, call_error(error))
}

fn call_error<E>(error: SdkError<E, HttpResponse>) -> CallError
where
    E: Error + Send + Sync + ProvideErrorMetadata + 'static,
{
    if let SdkError::ServiceError(refusal) = &error {
        let meta = refusal.err().meta();
        return CallError::Answered {
            status: refusal.raw().status().as_u16(),
            code: meta.code().unwrap_or("without a code").to_owned(),
            message: meta.message().unwrap_or("without a message").to_owned(),
            request_id: error.request_id().unwrap_or("without an id").to_owned(),
        };
    }
    let timed_out = is_timeout(&error);
    let unreachable = matches!(error, SdkError::DispatchFailure(_));
    let source = error.into_source().unwrap_or_else(Into::into);
    match (timed_out, unreachable) {
        (true, _) => CallError::TimedOut(source),
        (false, true) => CallError::Unreachable(source),
        (false, false) => CallError::Malformed(source),
    }
}

/// Whether no answer came in time.
pub(crate) fn is_timeout<E>(error: &SdkError<E, HttpResponse>) -> bool {
    match error {
        SdkError::TimeoutError(_) => true,
        SdkError::DispatchFailure(failure) => failure.is_timeout(),
        _ => false,
    }
}
