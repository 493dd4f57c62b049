//! Function URLs: HTTP in front of a function, its answer in one piece (`BUFFERED`) or as it comes (`RESPONSE_STREAM`).
//!
//! | module | is |
//! |---|---|
//! | `event` | the request as the event of payload format 2.0 |
//! | `response` | the function's JSON as an HTTP response |
//! | `prelude` | the beginning of a stream: status and headers, then eight NUL |
//! | `cors` | what the URL itself answers to browsers |
//!
//! # As on AWS
//! A client that leaves does not stop the function, which is not told either (AWS Lambda Developer Guide, "Response
//! streaming for Lambda functions"). A function error is a 502 whose body says nothing of it.
//!
//! # Not as on AWS
//! Plain HTTP, and the headers `x-forwarded-proto` and `x-forwarded-port` say so; hence there are no `x-amzn-tls-*` headers.
//! `AuthType: AWS_IAM` is not checked. A stream's bandwidth is not limited. The id in `requestContext.requestId` and
//! `x-amzn-RequestId` is the request's own, where AWS has that of the invocation.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::invoker::{InvokeError, Invoker, Outcome, StreamBroken, StreamingOutcome};
use crate::lambda::body::{self, BodyError};
use crate::lambda::limits::MAX_SYNCHRONOUS_PAYLOAD_BYTES;
use crate::spec::FunctionUrlSpec;

use cors::Cors;
use event::{Arrival, RequestIds};
use prelude::{Prelude, PreludeError, PreludeParser};
use response::Parts;

mod cors;
mod event;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod prelude;
mod response;

/// The content type by which a runtime says that its stream begins with a prelude.
const WITH_PRELUDE: &str = "application/vnd.awslambda.http-integration-response";

/// What a URL says of itself in its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlInfo {
    /// The URL's id: `apiId` and `domainPrefix`.
    pub url_id: String,
    /// The region, for the domain's name where a request names no host.
    pub region: String,
    /// The port that the URL listens on.
    pub port: u16,
}

/// The service behind one function URL. Every path and method is the function's, but for CORS preflights.
///
/// Serve it with `into_make_service_with_connect_info::<SocketAddr>()`, so that events have the client's address.
pub fn router(spec: &FunctionUrlSpec, function: impl Into<String>, invoker: Arc<dyn Invoker>, info: UrlInfo) -> Router {
    let url = Url { function: function.into(), streaming: spec.streaming, cors: spec.cors.clone().map(Cors::new), invoker, info };
    Router::new().fallback(serve).with_state(Arc::new(url))
}

struct Url {
    function: String,
    streaming: bool,
    cors: Option<Cors>,
    invoker: Arc<dyn Invoker>,
    info: UrlInfo,
}

async fn serve(State(url): State<Arc<Url>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if let Some(response) = url.cors.as_ref().and_then(|cors| cors.preflight(&parts.method, &parts.headers)) {
        return response;
    }
    let ids = RequestIds::new();
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| *address);
    let origin = parts.headers.get(header::ORIGIN).cloned();
    let answer = match body::read(body, MAX_SYNCHRONOUS_PAYLOAD_BYTES).await {
        Ok(body) => {
            let arrival = Arrival { method: &parts.method, uri: &parts.uri, headers: &parts.headers, body: &body, peer };
            url.answer(arrival.event(&url.info, &ids)).await
        }
        Err(BodyError::TooLarge { limit }) => Err(Refusal::TooLarge { limit }),
        Err(BodyError::Broken(_)) => Err(Refusal::BadRequest),
    };
    let mut response = answer.unwrap_or_else(Refusal::into_response);
    let headers = response.headers_mut();
    insert(headers, HeaderName::from_static("x-amzn-requestid"), &ids.request_id);
    insert(headers, HeaderName::from_static("x-amzn-trace-id"), &ids.trace_root);
    if let (Some(cors), Some(origin)) = (&url.cors, origin) {
        cors.expose(headers, &origin);
    }
    response
}

impl Url {
    async fn answer(&self, event: Bytes) -> Result<Response, Refusal> {
        if self.streaming { self.answer_streaming(event).await } else { self.answer_buffered(event).await }
    }

    async fn answer_buffered(&self, event: Bytes) -> Result<Response, Refusal> {
        match self.invoker.invoke(&self.function, event).await? {
            Outcome::FunctionError(_) => Err(Refusal::FunctionFailed),
            Outcome::Success(payload) => match Parts::of_payload(&payload) {
                Ok(parts) => Ok(parts.into_response()),
                Err(error) => {
                    tracing::warn!(
                        function.id = %self.function,
                        error = &error as &dyn std::error::Error,
                        "the function's answer is no response of a function URL; does it stream while its URL is BUFFERED?",
                    );
                    Err(Refusal::FunctionFailed)
                }
            },
        }
    }

    async fn answer_streaming(&self, event: Bytes) -> Result<Response, Refusal> {
        let (content_type, mut chunks) = match self.invoker.invoke_streaming(&self.function, event).await? {
            StreamingOutcome::FunctionError(_) => return Err(Refusal::FunctionFailed),
            StreamingOutcome::Started { content_type, body } => (content_type, body),
        };
        if !is_with_prelude(&content_type) {
            let mut response = Response::new(self.stream(Bytes::new(), chunks));
            insert(response.headers_mut(), header::CONTENT_TYPE, &content_type);
            return Ok(response);
        }
        match read_prelude(&mut chunks).await {
            Ok((prelude, first)) => {
                let body = self.stream(first, chunks);
                Ok(Parts::of_prelude(prelude).into_response_with(body))
            }
            Err(error) => {
                tracing::warn!(
                    function.id = %self.function,
                    error = &error as &dyn std::error::Error,
                    "the function's stream has no prelude that can be read",
                );
                Err(Refusal::FunctionFailed)
            }
        }
    }

    /// The body as it comes. Where the function breaks off, the connection does too.
    fn stream(&self, first: Bytes, chunks: UnboundedReceiver<Result<Bytes, StreamBroken>>) -> Body {
        let state = Streaming { function: self.function.clone(), first: Some(first), chunks, empty: true };
        Body::from_stream(stream::unfold(state, |mut state| async move {
            let chunk = state.next().await?;
            Some((chunk, state))
        }))
    }
}

/// A body under way.
struct Streaming {
    function: String,
    /// What came with the prelude.
    first: Option<Bytes>,
    chunks: UnboundedReceiver<Result<Bytes, StreamBroken>>,
    empty: bool,
}

impl Streaming {
    async fn next(&mut self) -> Option<Result<Bytes, StreamBroken>> {
        if let Some(first) = self.first.take().filter(|first| !first.is_empty()) {
            self.empty = false;
            return Some(Ok(first));
        }
        let chunk = self.chunks.recv().await;
        match &chunk {
            Some(Ok(_)) => self.empty = false,
            Some(Err(broken)) => {
                tracing::warn!(function.id = %self.function, error = broken as &dyn std::error::Error, "a streamed answer broke off");
            }
            None if self.empty => tracing::warn!(
                function.id = %self.function,
                "a streamed answer had no body: on AWS its status and headers may be lost, so stream at least one byte",
            ),
            None => {}
        }
        chunk
    }
}

/// Reads chunks until the prelude is whole; what follows it in the same chunk comes with it.
async fn read_prelude(chunks: &mut UnboundedReceiver<Result<Bytes, StreamBroken>>) -> Result<(Prelude, Bytes), PreludeError> {
    let mut parser = PreludeParser::default();
    while let Some(chunk) = chunks.recv().await {
        if let Some(whole) = parser.push(&chunk.map_err(PreludeError::Broken)?)? {
            return Ok(whole);
        }
    }
    Err(PreludeError::Unfinished)
}

fn is_with_prelude(content_type: &str) -> bool {
    content_type.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case(WITH_PRELUDE))
}

/// Why there is no answer of the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    BadRequest,
    TooLarge { limit: usize },
    NoSuchFunction,
    Throttled,
    FunctionFailed,
    ShuttingDown,
}

impl From<InvokeError> for Refusal {
    fn from(error: InvokeError) -> Self {
        match error {
            InvokeError::NotFound(_) => Self::NoSuchFunction,
            InvokeError::Throttled => Self::Throttled,
            InvokeError::TooLarge { limit, .. } => Self::TooLarge { limit },
            InvokeError::ShuttingDown => Self::ShuttingDown,
        }
    }
}

impl Refusal {
    fn into_response(self) -> Response {
        let (status, error_type, body) = match self {
            Self::BadRequest => (StatusCode::BAD_REQUEST, "BadRequestException", r#"{"Message":"Bad Request"}"#.to_owned()),
            Self::TooLarge { limit } => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "RequestEntityTooLargeException",
                format!(r#"{{"Message":"Request must be smaller than {limit} bytes for the InvokeFunction operation"}}"#),
            ),
            Self::NoSuchFunction => (StatusCode::FORBIDDEN, "AccessDeniedException", r#"{"Message":null}"#.to_owned()),
            Self::Throttled => (
                StatusCode::TOO_MANY_REQUESTS,
                "TooManyRequestsException",
                r#"{"Reason":"ReservedFunctionConcurrentInvocationLimitExceeded","Type":"User","message":"Rate Exceeded."}"#
                    .to_owned(),
            ),
            Self::FunctionFailed => return (StatusCode::BAD_GATEWAY, "Internal Server Error").into_response(),
            Self::ShuttingDown => (
                StatusCode::SERVICE_UNAVAILABLE,
                "ServiceException",
                r#"{"Message":"the local stack is shutting down"}"#.to_owned(),
            ),
        };
        let headers = [(header::CONTENT_TYPE, "application/json"), (HeaderName::from_static("x-amzn-errortype"), error_type)];
        (status, headers, body).into_response()
    }
}

/// Sets a header, unless the value has characters that HTTP forbids.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_of_a_prelude_may_have_parameters() {
        assert!(is_with_prelude("application/vnd.awslambda.http-integration-response"));
        assert!(is_with_prelude("Application/Vnd.AwsLambda.Http-Integration-Response; charset=utf-8"));
        assert!(!is_with_prelude("application/octet-stream"));
    }
}
