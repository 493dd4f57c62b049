//! A function's process, with what Lambda would set around it, at a Runtime API of its own.

use super::process;
use super::runtime_api::{Invoked, RuntimeApi};
use crate::exit::Exit;
use crate::failure::{Context, Failure, Outcome};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// How long a process may take to ask for work: Lambda's own limit (AWS Lambda Developer Guide, "Lambda execution environment
/// lifecycle", Init phase).
const START_LIMIT: Duration = Duration::from_secs(10);

/// Beyond the time that an invocation was given: a process that is later than this is stuck.
const PATIENCE: Duration = Duration::from_secs(5);

/// A process that has asked for work.
#[derive(Debug)]
pub(super) struct FunctionProcess {
    api: RuntimeApi,
    child: Child,
    id: u32,
    timeout: Duration,
    started_in: Duration,
}

impl FunctionProcess {
    /// Starts the executable with these variables and none of ours, and waits until it asks for work. An invocation may last `timeout`.
    ///
    /// # Errors
    /// When it cannot be started, ends, or asks for nothing within 10 seconds.
    pub(super) async fn start(executable: &Path, variables: &BTreeMap<String, String>, timeout: Duration) -> Outcome<Self> {
        let failed = |what: &str, error: io::Error| {
            Failure::new(Exit::Failed, Context::new(format!("{what} {}", executable.display()), error))
        };
        let api = RuntimeApi::start(timeout).await.map_err(|error| failed("no Runtime API for", error))?;
        let mut command = Command::new(executable);
        command.env_clear().envs(lambda_variables(api.address().to_string())).envs(variables);
        // What it logs is in the way of the figures; errors are seen by what does not arrive.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
        let began = Instant::now();
        let mut child = command.spawn().map_err(|error| failed("cannot start", error))?;
        let asked = tokio::select! {
            asked = tokio::time::timeout(START_LIMIT, api.first_asked()) => asked.ok(),
            status = child.wait() => {
                let status = status.map_err(|error| failed("cannot wait for", error))?;
                return Err(Failure::new(Exit::Failed, format!("{} ended with {status} before it asked for work", executable.display())));
            }
        };
        let Some(asked) = asked else {
            let seconds = START_LIMIT.as_secs();
            return Err(Failure::new(Exit::Failed, format!("{} did not ask for work within {seconds} s", executable.display())));
        };
        let id = child.id().ok_or_else(|| failed("cannot watch", io::Error::other("it has ended")))?;
        Ok(Self { api, child, id, timeout, started_in: asked.duration_since(began) })
    }

    /// From the start of the process to its first request for work.
    pub(super) fn started_in(&self) -> Duration {
        self.started_in
    }

    /// Hands it one invocation and waits for the answer.
    ///
    /// # Errors
    /// When it fails, ends, or is late.
    pub(super) async fn invoke(&mut self, payload: Bytes) -> Outcome<Bytes> {
        tokio::select! {
            invoked = tokio::time::timeout(self.timeout + PATIENCE, self.api.invoke(payload)) => match invoked {
                Ok(Invoked::Answered(body)) => Ok(body),
                Ok(Invoked::Failed(body)) => {
                    let text = String::from_utf8_lossy(&body).into_owned();
                    Err(Failure::new(Exit::Failed, format!("the function failed: {text}")))
                }
                Err(_) => Err(Failure::new(Exit::Failed, "the function did not answer in time")),
            },
            status = self.child.wait() => {
                let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                Err(Failure::new(Exit::Failed, format!("the function ended with {status} in an invocation")))
            }
        }
    }

    /// The CPU time that it has used so far.
    ///
    /// # Errors
    /// When it has ended.
    pub(super) fn cpu_time(&self) -> Outcome<Duration> {
        process::cpu_time(self.id).map_err(unwatched)
    }

    /// The most memory that it has had in use so far, in bytes.
    ///
    /// # Errors
    /// When it has ended.
    pub(super) fn peak_memory(&self) -> Outcome<u64> {
        process::peak_memory(self.id).map_err(unwatched)
    }
}

/// A process whose figures cannot be read.
pub(super) fn unwatched(error: io::Error) -> Failure {
    Failure::new(Exit::Failed, Context::new("cannot see what a process has used", error))
}

/// What every program that posts gets for region and credentials: temporary ones, as every function has them, and nobody's.
pub(super) const IDENTITY: [(&str, &str); 5] = [
    ("AWS_REGION", "us-east-1"),
    ("AWS_DEFAULT_REGION", "us-east-1"),
    ("AWS_ACCESS_KEY_ID", "ASIABENCHMARKEXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY", "benchmark"),
    ("AWS_SESSION_TOKEN", TOKEN),
];

/// About as long as a real one, because it is signed and sent with every request.
const TOKEN: &str = match std::str::from_utf8(&[b'A'; 900]) {
    Ok(text) => text,
    Err(_) => panic!("A is text"),
};

/// What Lambda sets (AWS Lambda Developer Guide, "Working with Lambda environment variables", "Defined runtime environment variables").
fn lambda_variables(runtime_api: String) -> BTreeMap<&'static str, String> {
    let fixed = [
        ("AWS_LAMBDA_FUNCTION_NAME", "benchmark"),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512"),
        ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/benchmark"),
        ("AWS_LAMBDA_LOG_STREAM_NAME", "2026/01/01/[$LATEST]0"),
    ];
    let variables = IDENTITY.into_iter().chain(fixed).map(|(name, value)| (name, value.to_owned()));
    variables.chain([("AWS_LAMBDA_RUNTIME_API", runtime_api)]).collect()
}
