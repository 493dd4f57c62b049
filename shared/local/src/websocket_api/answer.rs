//! HTTP answers in the forms of API Gateway.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderName, UPGRADE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;
use uuid::Uuid;

/// An answer whose body is known.
pub(super) type Answer = Response<Full<Bytes>>;

const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    let request_id = HeaderValue::from_str(&Uuid::new_v4().to_string()).expect("a UUID is letters, digits and dashes");
    answer.headers_mut().insert(REQUEST_ID, request_id);
    answer
}

/// An answer with a JSON body.
pub(super) fn json_text(status: StatusCode, text: String) -> Answer {
    let mut answer = empty(status);
    *answer.body_mut() = Full::new(text.into());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// An error of a named type, which SDKs read from the header `x-amzn-ErrorType`.
pub(super) fn error(status: StatusCode, error_type: &'static str, message: &str) -> Answer {
    let mut answer = json_text(status, json!({ "message": message }).to_string());
    answer.headers_mut().insert(ERROR_TYPE, HeaderValue::from_static(error_type));
    answer
}

/// A stage or a path that the API does not have.
pub(super) fn forbidden() -> Answer {
    error(StatusCode::FORBIDDEN, "ForbiddenException", "Forbidden")
}

/// A call of `@connections` without a signature, or with a method it does not have.
pub(super) fn missing_authentication_token() -> Answer {
    error(StatusCode::FORBIDDEN, "MissingAuthenticationTokenException", "Missing Authentication Token")
}

/// A connection that is not open. Its body is empty on AWS, so the header alone tells SDKs what it is.
pub(super) fn gone() -> Answer {
    let mut answer = empty(StatusCode::GONE);
    answer.headers_mut().insert(ERROR_TYPE, HeaderValue::from_static("GoneException"));
    answer
}

/// A plain HTTP request where a WebSocket is served; RFC 9110, section 15.5.22, asks for the header `Upgrade`.
pub(super) fn upgrade_required() -> Answer {
    let mut answer = json_text(StatusCode::UPGRADE_REQUIRED, json!({ "message": "Upgrade Required" }).to_string());
    answer.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    answer
}
