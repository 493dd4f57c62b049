//! The Runtime API: what a function's process talks to (AWS Lambda Developer Guide, "Using the Lambda runtime API for custom
//! runtimes", version 2018-06-01).

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http_body_util::BodyExt;

use super::body::{self, BodyError};
use super::environment::Environment;
use super::failure::Failure;
use super::invocation::Invocation;
use super::limits::MAX_RESPONSE_BYTES;

const RESPONSE_MODE: &str = "lambda-runtime-function-response-mode";
const ERROR_TYPE: &str = "lambda-runtime-function-error-type";
const ERROR_BODY: &str = "lambda-runtime-function-error-body";

/// How long the death of a process is waited for when its answer breaks off, because the way it died says more.
const EXIT_PATIENCE: Duration = Duration::from_secs(1);

/// The routes for one environment.
pub(crate) fn router(environment: Arc<Environment>) -> Router {
    Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route("/2018-06-01/runtime/invocation/{id}/response", post(response))
        .route("/2018-06-01/runtime/invocation/{id}/error", post(error))
        .route("/2018-06-01/runtime/init/error", post(init_error))
        .fallback(unknown)
        .with_state(environment)
}

/// Holds the request until there is an invocation.
async fn next(State(environment): State<Arc<Environment>>) -> Response {
    let Some((invocation, deadline)) = environment.next().await else {
        return problem(StatusCode::GONE, "EnvironmentEnded", "the environment has ended");
    };
    let mut response = Response::new(Body::from(invocation.call.payload.clone()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let values = [
        ("lambda-runtime-aws-request-id", invocation.call.request_id.clone()),
        ("lambda-runtime-deadline-ms", deadline.epoch_ms.to_string()),
        ("lambda-runtime-invoked-function-arn", environment.traits.function_arn.clone()),
        ("lambda-runtime-trace-id", invocation.trace_id.clone()),
    ];
    for (name, value) in values {
        insert(headers, name, &value);
    }
    if let Some(context) = &invocation.call.client_context {
        insert(headers, "lambda-runtime-client-context", context);
    }
    response
}

/// Takes an answer. It is acknowledged when it is complete: the process asks for its next invocation right after.
async fn response(
    State(environment): State<Arc<Environment>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let Some(invocation) = environment.running(&id) else {
        return unknown_request_id();
    };
    let content_type = text(&headers, header::CONTENT_TYPE.as_str());
    let streams = text(&headers, RESPONSE_MODE).is_some_and(|mode| mode.eq_ignore_ascii_case("streaming"));
    if streams {
        return stream(&environment, &invocation, content_type, body).await;
    }
    match body::read(body, MAX_RESPONSE_BYTES).await {
        Ok(payload) => {
            environment.finish(&id);
            invocation.succeed(payload, content_type);
            accepted()
        }
        Err(BodyError::TooLarge { .. }) => {
            environment.finish(&id);
            invocation.fail(Failure::response_too_large());
            too_large()
        }
        Err(BodyError::Broken(_)) => broke_off(&environment, &invocation).await,
    }
}

/// Passes the chunks on as they come.
async fn stream(
    environment: &Arc<Environment>,
    invocation: &Arc<Invocation>,
    content_type: Option<&str>,
    mut body: Body,
) -> Response {
    invocation.begin_stream(content_type);
    let mut failure = None;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return broke_off(environment, invocation).await;
        };
        match frame.into_data() {
            // The rest of an answer over the limit is read and dropped, so that the process is not cut off.
            Ok(_) if failure.is_some() => {}
            Ok(chunk) => failure = invocation.push(chunk).err(),
            Err(frame) => failure = failure.or_else(|| frame.trailers_ref().and_then(failure_in_trailers)),
        }
    }
    environment.finish(&invocation.call.request_id);
    match failure {
        None => {
            invocation.end_stream();
            accepted()
        }
        Some(failure) => {
            invocation.fail(failure);
            too_large()
        }
    }
}

/// The function failed.
async fn error(State(environment): State<Arc<Environment>>, Path(id): Path<String>, headers: HeaderMap, body: Body) -> Response {
    let Some(invocation) = environment.running(&id) else {
        return unknown_request_id();
    };
    let Ok(body) = body::read(body, MAX_RESPONSE_BYTES).await else {
        return broke_off(&environment, &invocation).await;
    };
    environment.finish(&id);
    invocation.fail(Failure::reported(body, text(&headers, ERROR_TYPE)));
    accepted()
}

/// The process cannot start.
async fn init_error(State(environment): State<Arc<Environment>>, headers: HeaderMap, body: Body) -> Response {
    let Ok(body) = body::read(body, MAX_RESPONSE_BYTES).await else {
        return too_large();
    };
    environment.fail_to_start(&Failure::reported(body, text(&headers, ERROR_TYPE)));
    accepted()
}

async fn unknown() -> Response {
    problem(StatusCode::NOT_FOUND, "NotFound", "the Runtime API has no such path; extensions and telemetry are not emulated")
}

/// An answer broke off: mostly because the process died, which then is the better reason.
async fn broke_off(environment: &Arc<Environment>, invocation: &Arc<Invocation>) -> Response {
    if tokio::time::timeout(EXIT_PATIENCE, environment.ended()).await.is_err() {
        environment.finish(&invocation.call.request_id);
        invocation.fail(Failure::truncated(&invocation.call.request_id));
    }
    problem(StatusCode::BAD_REQUEST, "TruncatedResponse", "the response broke off")
}

/// The error that a runtime may send after its last chunk: the type, and the error in base64.
fn failure_in_trailers(trailers: &HeaderMap) -> Option<Failure> {
    let error_type = text(trailers, ERROR_TYPE)?;
    let body = text(trailers, ERROR_BODY).and_then(|body| BASE64.decode(body).ok()).unwrap_or_default();
    Some(Failure::reported(body.into(), Some(error_type)))
}

fn accepted() -> Response {
    (StatusCode::ACCEPTED, [(header::CONTENT_TYPE, "application/json")], r#"{"status":"OK"}"#).into_response()
}

fn too_large() -> Response {
    let message = format!("Exceeded maximum allowed payload size ({MAX_RESPONSE_BYTES} bytes).");
    problem(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", &message)
}

fn unknown_request_id() -> Response {
    problem(StatusCode::BAD_REQUEST, "InvalidRequestID", "Invalid request ID")
}

fn problem(status: StatusCode, error_type: &str, message: &str) -> Response {
    let failure = Failure::new(error_type, message.to_owned());
    (status, [(header::CONTENT_TYPE, "application/json")], failure.json).into_response()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// A client context may hold characters that no header can; nothing else that comes here does.
fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => {
            headers.insert(name, value);
        }
        Err(_) => {
            tracing::warn!(header.name = name, "a header for the function was left out: it has characters that HTTP forbids");
        }
    }
}
