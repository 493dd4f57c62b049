//! The part of Lambda's API that invokes functions: Invoke and InvokeWithResponseStream.
//!
//! Requests are not authenticated: the stack listens for its own user. Statuses, headers and errors are those of the AWS
//! Lambda API Reference.

use std::convert::Infallible;
use std::sync::Arc;

use super::body::{self, BodyError};
use super::failure::ErrorFields;
use super::function::Pending;
use super::invocation::{Invocation, Mode};
use super::limits::{MAX_ASYNCHRONOUS_PAYLOAD_BYTES, MAX_SYNCHRONOUS_PAYLOAD_BYTES};
use super::{Functions, Request};
use crate::invoker::{InvokeError, Outcome, StreamingOutcome};
use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue as EventHeader, Message};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use serde_json::json;

const REQUEST_ID: &str = "x-amzn-requestid";
const ERROR_TYPE: &str = "x-amzn-errortype";
const EVENT_STREAM: &str = "application/vnd.amazon.eventstream";

/// The account of the local stack, for functions that do not exist and so have no ARN.
const LOCAL_ACCOUNT: &str = "000000000000";

/// The routes of the API.
pub fn router(functions: Functions) -> Router {
    Router::new()
        .route("/2015-03-31/functions/{name}/invocations", post(invoke))
        .route("/2021-11-15/functions/{name}/response-streaming-invocations", post(invoke_with_response_stream))
        .with_state(functions)
}

/// How the caller wants to hear of the outcome (`X-Amz-Invocation-Type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InvocationType {
    RequestResponse,
    Event,
    DryRun,
}

/// `POST /2015-03-31/functions/{FunctionName}/invocations`.
async fn invoke(State(functions): State<Functions>, Path(name): Path<String>, headers: HeaderMap, body: Body) -> Response {
    let request_id = uuid::Uuid::new_v4().to_string();
    let answer = answer_invoke(&functions, name, &request_id, &headers, body).await;
    finish(answer.unwrap_or_else(ApiError::into_response), &request_id)
}

async fn answer_invoke(
    functions: &Functions,
    name: String,
    request_id: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let kind = invocation_type(headers)?;
    let limit = if kind == InvocationType::Event { MAX_ASYNCHRONOUS_PAYLOAD_BYTES } else { MAX_SYNCHRONOUS_PAYLOAD_BYTES };
    let request = read_request(functions, name, request_id, headers, body, limit).await?;
    let api_error = |error| ApiError::from_invoke(error, functions.region());
    match kind {
        InvocationType::DryRun => Ok(StatusCode::NO_CONTENT.into_response()),
        InvocationType::Event => {
            functions.enqueue(request).map_err(api_error)?;
            Ok(StatusCode::ACCEPTED.into_response())
        }
        InvocationType::RequestResponse => {
            let wants_tail = wants_tail(headers);
            let pending = functions.begin(request, Mode::Buffered, wants_tail).map_err(api_error)?;
            let invocation = pending.invocation.clone();
            let outcome = pending.outcome().await.map_err(api_error)?;
            let mut response = match outcome {
                Outcome::Success(payload) => Response::new(Body::from(payload)),
                Outcome::FunctionError(json) => {
                    let mut response = Response::new(Body::from(json));
                    set(&mut response, "x-amz-function-error", "Unhandled");
                    response
                }
            };
            set(&mut response, header::CONTENT_TYPE.as_str(), "application/json");
            set(&mut response, "x-amz-executed-version", "$LATEST");
            if wants_tail {
                set(&mut response, "x-amz-log-result", &BASE64.encode(invocation.tail().await));
            }
            Ok(response)
        }
    }
}

/// `POST /2021-11-15/functions/{FunctionName}/response-streaming-invocations`.
async fn invoke_with_response_stream(
    State(functions): State<Functions>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let request_id = uuid::Uuid::new_v4().to_string();
    let answer = answer_stream(&functions, name, &request_id, &headers, body).await;
    finish(answer.unwrap_or_else(ApiError::into_response), &request_id)
}

async fn answer_stream(
    functions: &Functions,
    name: String,
    request_id: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let kind = invocation_type(headers)?;
    if kind == InvocationType::Event {
        return Err(ApiError::invalid_invocation_type("Event", "[RequestResponse, DryRun]"));
    }
    let request = read_request(functions, name, request_id, headers, body, MAX_SYNCHRONOUS_PAYLOAD_BYTES).await?;
    if kind == InvocationType::DryRun {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let wants_tail = wants_tail(headers);
    let api_error = |error| ApiError::from_invoke(error, functions.region());
    let pending: Pending = functions.begin(request, Mode::Streaming, wants_tail).map_err(api_error)?;
    let invocation = pending.invocation.clone();
    let state = match pending.streaming_outcome().await.map_err(api_error)? {
        StreamingOutcome::Started { body, .. } => Frames::Chunks(body),
        StreamingOutcome::FunctionError(json) => Frames::Complete(Some(error_fields(&json))),
    };
    let tail_of = wants_tail.then_some(invocation);
    let frames = stream::unfold((state, tail_of), |(state, tail_of)| async move { next_frame(state, tail_of).await });
    let mut response = Response::new(Body::from_stream(frames));
    set(&mut response, header::CONTENT_TYPE.as_str(), EVENT_STREAM);
    set(&mut response, "x-amz-executed-version", "$LATEST");
    Ok(response)
}

/// Where the event stream stands.
enum Frames {
    Chunks(tokio::sync::mpsc::UnboundedReceiver<Result<Bytes, crate::invoker::StreamBroken>>),
    /// The last event is due: with an error, or without.
    Complete(Option<ErrorFields>),
    Over,
}

type FrameState = (Frames, Option<Arc<Invocation>>);

async fn next_frame(state: Frames, tail_of: Option<Arc<Invocation>>) -> Option<(Result<Bytes, Infallible>, FrameState)> {
    let (frame, next) = match state {
        Frames::Over => return None,
        Frames::Complete(error) => (complete_frame(error, tail_of.as_deref()).await, Frames::Over),
        Frames::Chunks(mut chunks) => match chunks.recv().await {
            Some(Ok(chunk)) => (frame("PayloadChunk", "application/octet-stream", chunk), Frames::Chunks(chunks)),
            Some(Err(broken)) => {
                let (error_type, error_message) = broken.0.split_once(": ").unwrap_or(("Runtime.Unknown", broken.0.as_str()));
                let error = ErrorFields { error_type: error_type.to_owned(), error_message: error_message.to_owned() };
                (complete_frame(Some(error), tail_of.as_deref()).await, Frames::Over)
            }
            None => (complete_frame(None, tail_of.as_deref()).await, Frames::Over),
        },
    };
    Some((Ok(frame), (next, tail_of)))
}

async fn complete_frame(error: Option<ErrorFields>, tail_of: Option<&Invocation>) -> Bytes {
    let mut complete = serde_json::Map::new();
    if let Some(error) = error {
        complete.insert("ErrorCode".to_owned(), error.error_type.into());
        complete.insert("ErrorDetails".to_owned(), error.error_message.into());
    }
    if let Some(invocation) = tail_of {
        complete.insert("LogResult".to_owned(), BASE64.encode(invocation.tail().await).into());
    }
    frame("InvokeComplete", "application/json", serde_json::Value::Object(complete).to_string().into())
}

/// One event of the stream in its frame.
fn frame(event_type: &'static str, content_type: &'static str, payload: Bytes) -> Bytes {
    let message = Message::new(payload)
        .add_header(Header::new(":message-type", EventHeader::String("event".into())))
        .add_header(Header::new(":event-type", EventHeader::String(event_type.into())))
        .add_header(Header::new(":content-type", EventHeader::String(content_type.into())));
    let mut frame = BytesMut::new();
    write_message_to(&message, &mut frame).expect("three short headers and a chunk of at most 200 MB fit into a frame");
    frame.freeze()
}

/// Reads what the two operations have in common.
async fn read_request(
    functions: &Functions,
    function: String,
    request_id: &str,
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<Request, ApiError> {
    let payload = match body::read(body, limit).await {
        Ok(payload) => payload,
        Err(BodyError::TooLarge { limit }) => return Err(ApiError::too_large(limit)),
        Err(BodyError::Broken(_)) => return Err(ApiError::invalid_content("the request body broke off")),
    };
    functions.exists(&function).map_err(|error| ApiError::from_invoke(error, functions.region()))?;
    // A function that is invoked with nothing gets an empty object.
    let payload = if payload.is_empty() { Bytes::from_static(b"{}") } else { payload };
    if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&payload) {
        return Err(ApiError::invalid_content(&format!(
            "Could not parse request body into json: Could not parse payload into json: {error}"
        )));
    }
    let client_context = client_context(headers)?;
    Ok(Request { function, request_id: request_id.to_owned(), payload, client_context })
}

fn invocation_type(headers: &HeaderMap) -> Result<InvocationType, ApiError> {
    match headers.get("x-amz-invocation-type").map(|value| value.to_str().unwrap_or_default()) {
        None | Some("RequestResponse") => Ok(InvocationType::RequestResponse),
        Some("Event") => Ok(InvocationType::Event),
        Some("DryRun") => Ok(InvocationType::DryRun),
        Some(other) => Err(ApiError::invalid_invocation_type(other, "[RequestResponse, Event, DryRun]")),
    }
}

fn wants_tail(headers: &HeaderMap) -> bool {
    headers.get("x-amz-log-type").is_some_and(|value| value == "Tail")
}

fn client_context(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get("x-amz-client-context") else {
        return Ok(None);
    };
    let decoded = BASE64.decode(value.as_bytes()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    // Written anew, because the Runtime API takes it as a header, where line breaks have no place.
    let context = decoded.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    context
        .map(|context| Some(context.to_string()))
        .ok_or_else(|| ApiError::invalid_content("Client context must be a valid Base64-encoded JSON object."))
}

fn error_fields(json: &[u8]) -> ErrorFields {
    serde_json::from_slice(json).unwrap_or_default()
}

/// An error of the API.
#[derive(Debug, PartialEq)]
struct ApiError {
    status: StatusCode,
    error_type: &'static str,
    body: serde_json::Value,
}

impl ApiError {
    fn from_invoke(error: InvokeError, region: &str) -> Self {
        match error {
            InvokeError::NotFound(name) => {
                let arn = if name.starts_with("arn:") {
                    name
                } else {
                    let qualified = if name.contains(':') { name } else { format!("{name}:$LATEST") };
                    format!("arn:aws:lambda:{region}:{LOCAL_ACCOUNT}:function:{qualified}")
                };
                Self {
                    status: StatusCode::NOT_FOUND,
                    error_type: "ResourceNotFoundException",
                    body: json!({ "Message": format!("Function not found: {arn}"), "Type": "User" }),
                }
            }
            InvokeError::Throttled => Self {
                status: StatusCode::TOO_MANY_REQUESTS,
                error_type: "TooManyRequestsException",
                body: json!({
                    "Reason": "ReservedFunctionConcurrentInvocationLimitExceeded",
                    "Type": "User",
                    "message": "Rate Exceeded.",
                }),
            },
            InvokeError::TooLarge { limit, .. } => Self::too_large(limit),
            InvokeError::ShuttingDown => Self {
                status: StatusCode::SERVICE_UNAVAILABLE,
                error_type: "ServiceException",
                body: json!({ "Type": "Service", "Message": error.to_string() }),
            },
        }
    }

    fn too_large(limit: usize) -> Self {
        Self {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            error_type: "RequestTooLargeException",
            body: json!({
                "Type": "User",
                "message": format!("Request must be smaller than {limit} bytes for the InvokeFunction operation"),
            }),
        }
    }

    fn invalid_content(message: &str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            error_type: "InvalidRequestContentException",
            body: json!({ "Type": "User", "message": message }),
        }
    }

    fn invalid_invocation_type(value: &str, allowed: &str) -> Self {
        let message = format!(
            "1 validation error detected: Value '{value}' at 'invocationType' failed to satisfy constraint: \
             Member must satisfy enum value set: {allowed}"
        );
        Self {
            status: StatusCode::BAD_REQUEST,
            error_type: "InvalidParameterValueException",
            body: json!({ "Type": "User", "message": message }),
        }
    }

    fn into_response(self) -> Response {
        let mut response = (self.status, self.body.to_string()).into_response();
        set(&mut response, header::CONTENT_TYPE.as_str(), "application/json");
        set(&mut response, ERROR_TYPE, self.error_type);
        response
    }
}

fn finish(mut response: Response, request_id: &str) -> Response {
    set(&mut response, REQUEST_ID, request_id);
    response
}

/// Sets a header whose value is ASCII by its making.
fn set(response: &mut Response, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
}

#[cfg(test)]
mod tests {
    use aws_smithy_eventstream::frame::read_message_from;
    use aws_smithy_types::str_bytes::StrBytes;

    use super::*;

    fn check(error: ApiError, golden: &str) {
        let golden: serde_json::Value = serde_json::from_str(golden).expect("the golden file is JSON");
        assert_eq!(error.status.as_u16(), golden["status"]);
        assert_eq!(error.error_type, golden["x-amzn-errortype"]);
        assert_eq!(error.body, golden["body"]);
    }

    #[test]
    fn errors_read_as_those_of_aws() {
        check(
            ApiError::from_invoke(InvokeError::NotFound("doesnotexist".to_owned()), "us-east-1"),
            include_str!("../../tests/golden/lambda/not_found.json"),
        );
        check(
            ApiError::from_invoke(InvokeError::Throttled, "us-east-1"),
            include_str!("../../tests/golden/lambda/throttled.json"),
        );
        check(
            ApiError::too_large(MAX_SYNCHRONOUS_PAYLOAD_BYTES),
            include_str!("../../tests/golden/lambda/request_too_large.json"),
        );
    }

    #[test]
    fn a_frame_can_be_read_back() {
        let frame = frame("PayloadChunk", "application/octet-stream", Bytes::from_static(b"hello"));
        let message = read_message_from(&frame[..]).expect("our own frame");
        assert_eq!(&message.payload()[..], b"hello");
        let event_type = message.headers().iter().find(|header| header.name().as_str() == ":event-type").expect("a header");
        assert_eq!(event_type.value().as_string().map(StrBytes::as_str), Ok("PayloadChunk"));
    }
}
