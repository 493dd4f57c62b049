//! The one thing the emulated services know of Lambda: how to invoke a function.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

/// Invokes functions by logical id, name or ARN.
pub trait Invoker: Send + Sync + 'static {
    /// A synchronous invocation (`RequestResponse`) that waits for the buffered answer.
    fn invoke(&self, function: &str, payload: Bytes) -> BoxFuture<'static, Result<Outcome, InvokeError>>;

    /// A synchronous invocation whose answer is streamed as the function writes it.
    fn invoke_streaming(&self, function: &str, payload: Bytes) -> BoxFuture<'static, Result<StreamingOutcome, InvokeError>>;

    /// An asynchronous invocation (`Event`): returns when it is queued; Lambda tries again twice when it fails.
    fn invoke_later(&self, function: &str, payload: Bytes) -> Result<(), InvokeError>;
}

/// What a function answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The function's answer.
    Success(Bytes),
    /// The function failed, crashed or timed out: the JSON `{"errorType","errorMessage"}` as Lambda reports it, which comes
    /// with the header `X-Amz-Function-Error: Unhandled`.
    FunctionError(Bytes),
}

/// A streamed answer.
#[derive(Debug)]
pub enum StreamingOutcome {
    /// The answer began.
    Started {
        /// The function's `content-type` towards the Runtime API: `application/vnd.awslambda.http-integration-response`
        /// where the bytes begin with a prelude.
        content_type: String,
        /// The raw bytes as they come, prelude and eight NUL included. The channel closes at the end of the answer;
        /// dropping the receiver does not stop the function.
        body: mpsc::UnboundedReceiver<Result<Bytes, StreamBroken>>,
    },
    /// As [`Outcome::FunctionError`].
    FunctionError(Bytes),
}

/// The function crashed or timed out in the middle of its stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the function ended in the middle of its stream: {0}")]
pub struct StreamBroken(pub String);

/// The invocation did not reach a function.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvokeError {
    /// No function has that name.
    #[error("function not found: {0}")]
    NotFound(String),
    /// The concurrency limit is reached (HTTP 429, `TooManyRequestsException`).
    #[error("rate exceeded")]
    Throttled,
    /// The payload is over the limit (6 MB synchronous, 1 MB asynchronous; HTTP 413, `RequestTooLargeException`).
    #[error("payload of {size} bytes is over the limit of {limit} bytes")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The stack is shutting down.
    #[error("the local stack is shutting down")]
    ShuttingDown,
}
