//! Lambda's limits, and those of a laptop.

use std::time::Duration;

/// The payload of a synchronous invocation: 6 MB (AWS Lambda Developer Guide, "Lambda quotas"; the error that AWS sends
/// names this number).
pub const MAX_SYNCHRONOUS_PAYLOAD_BYTES: usize = 6_291_456;

/// The payload of an asynchronous invocation: 1 MB (AWS Lambda Developer Guide, "Lambda quotas", since October 2025).
pub const MAX_ASYNCHRONOUS_PAYLOAD_BYTES: usize = 1_048_576;

/// A buffered answer: 6 MB and 100 bytes, the number that AWS names in `Function.ResponseSizeTooLarge`.
pub const MAX_RESPONSE_BYTES: usize = 6_291_556;

/// A streamed answer: 200 MB (AWS Lambda Developer Guide, "Response streaming for Lambda functions").
pub const MAX_STREAM_BYTES: usize = 200 * 1024 * 1024;

/// How long a process may take until it first asks for an invocation: 10 s (AWS Lambda Developer Guide, "Lambda execution
/// environment lifecycle", Init phase). Lambda then tries again within the function's time-out, so a start that never ends
/// is reported after this and the time-out.
pub(crate) const INIT_LIMIT: Duration = Duration::from_secs(10);

/// The most invocations at a time that `AWS_LAMBDA_MAX_CONCURRENCY` may ask of one environment: 1,600 (CloudFormation,
/// `PerExecutionEnvironmentMaxConcurrency`).
pub(crate) const MAX_CONCURRENCY_PER_ENVIRONMENT: usize = 1_600;

/// How many asynchronous events of one function may wait. AWS states no number; this one keeps a runaway loop from eating
/// the laptop's memory.
pub(crate) const MAX_QUEUED_EVENTS: usize = 10_000;

/// What is read and thrown away of a body that is over its limit, so that the sender sees the answer and not a broken
/// connection.
pub(crate) const MAX_DRAINED_BYTES: usize = 64 * 1024 * 1024;

/// Lines kept for each function.
pub(crate) const MAX_LOG_LINES: usize = 1_000;

/// A longer line is cut into several.
pub(crate) const MAX_LOG_LINE_BYTES: usize = 256 * 1024;

/// What `X-Amz-Log-Type: Tail` returns: the last 4 KB (AWS Lambda API Reference, "Invoke").
pub(crate) const MAX_TAIL_BYTES: usize = 4 * 1024;
