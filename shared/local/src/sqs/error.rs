//! SQS's errors on the wire.

use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::aws_json;

/// An error as SQS answers it: the JSON protocol's type, and the code of the old query protocol in `x-amzn-query-error`, which
/// SDKs still show (botocore's model of SQS has the trait `awsQueryCompatible`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SqsError {
    kind: &'static str,
    query_code: &'static str,
    message: String,
}

/// A code of the model, whose query code has the prefix of SQS.
const PREFIXED: &[(&str, &str)] = &[
    ("BatchEntryIdsNotDistinct", "AWS.SimpleQueueService.BatchEntryIdsNotDistinct"),
    ("BatchRequestTooLong", "AWS.SimpleQueueService.BatchRequestTooLong"),
    ("EmptyBatchRequest", "AWS.SimpleQueueService.EmptyBatchRequest"),
    ("InvalidBatchEntryId", "AWS.SimpleQueueService.InvalidBatchEntryId"),
    ("MessageNotInflight", "AWS.SimpleQueueService.MessageNotInflight"),
    ("QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"),
    ("TooManyEntriesInBatchRequest", "AWS.SimpleQueueService.TooManyEntriesInBatchRequest"),
    ("UnsupportedOperation", "AWS.SimpleQueueService.UnsupportedOperation"),
];

impl SqsError {
    /// An error of SQS's model.
    pub fn modelled(kind: &'static str, message: impl Into<String>) -> Self {
        let query_code = PREFIXED.iter().find(|(name, _)| *name == kind).map_or(kind, |(_, code)| code);
        Self { kind, query_code, message: message.into() }
    }

    /// `InvalidParameterValue`, which the model does not have.
    pub fn invalid_parameter(message: impl Into<String>) -> Self {
        Self { kind: "InvalidParameterValueException", query_code: "InvalidParameterValue", message: message.into() }
    }

    /// `MissingParameter`, which the model does not have.
    #[must_use]
    pub fn missing_parameter(name: &str) -> Self {
        Self {
            kind: "MissingRequiredParameterException",
            query_code: "MissingParameter",
            message: format!("The request must contain the parameter {name}."),
        }
    }

    /// The body is not what the action takes.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self { kind: "SerializationException", query_code: "MalformedInput", message: message.into() }
    }

    /// No queue has the URL's name.
    #[must_use]
    pub fn no_such_queue() -> Self {
        Self::modelled("QueueDoesNotExist", "The specified queue does not exist.")
    }

    /// The code as the entries of a batch's answer have it.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.query_code
    }
}

impl IntoResponse for SqsError {
    fn into_response(self) -> Response {
        let namespace = match self.kind {
            "InvalidParameterValueException" | "MissingRequiredParameterException" | "SerializationException" => {
                "com.amazon.coral.service"
            }
            _ => "com.amazonaws.sqs",
        };
        let body = json!({"__type": format!("{namespace}#{}", self.kind), "message": self.message});
        let mut response = aws_json::response(StatusCode::BAD_REQUEST, aws_json::VERSION_1_0, &body);
        let query_error = HeaderValue::from_str(&format!("{};Sender", self.query_code)).expect("codes are ASCII");
        response.headers_mut().insert("x-amzn-query-error", query_error);
        response
    }
}
