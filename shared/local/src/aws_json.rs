//! The AWS JSON protocols' answers (Smithy, "AWS JSON 1.0 protocol" and "AWS JSON 1.1 protocol").

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};

/// The content type of SQS and DynamoDB.
pub(crate) const VERSION_1_0: &str = "application/x-amz-json-1.0";

/// The content type of EventBridge.
pub(crate) const VERSION_1_1: &str = "application/x-amz-json-1.1";

/// An answer with a request id.
pub(crate) fn response(status: StatusCode, content_type: &'static str, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let request_id = HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).expect("a UUID is ASCII");
    response.headers_mut().insert("x-amzn-requestid", request_id);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An error, its type in the body and in a header as AWS has it.
pub(crate) fn error(status: StatusCode, content_type: &'static str, kind: &'static str, message: &str) -> Response {
    let mut response = response(status, content_type, &json!({"__type": kind, "message": message}));
    response.headers_mut().insert("x-amzn-errortype", HeaderValue::from_static(kind));
    response
}
