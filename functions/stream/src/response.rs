//! What goes back through the runtime: a head, and a body that is sent piece by piece.

use carillon_core::fault::Fault;
use carillon_wire::{http as wire, sse};
use futures_util::stream::{self, BoxStream, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use lambda_runtime::{MetadataPrelude, StreamResponse};
use std::convert::Infallible;

/// The body of a response. It never fails: the runtime would write the error as text into it and go on.
pub type Body = BoxStream<'static, Result<String, Infallible>>;

/// nginx's word for "do not buffer this", which other proxies know too.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// A response.
pub struct Response {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers, each once: whether a function URL takes several of one name is not documented.
    pub headers: HeaderMap,
    /// The body, of one byte at least: Lambda may lose the head of an empty one.
    pub body: Body,
}

impl Response {
    /// A stream of events.
    pub(crate) fn events(body: Body) -> Self {
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static(sse::CONTENT_TYPE)),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            (X_ACCEL_BUFFERING, HeaderValue::from_static("no")),
        ];
        Self { status: StatusCode::OK, headers: headers.into_iter().collect(), body }
    }

    /// What is wrong with a request, under the status that goes with it.
    pub(crate) fn refusal(fault: &Fault) -> Self {
        let answer = wire::refusal(fault);
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static(wire::ANSWER_TYPE)),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        Self {
            status: StatusCode::from_u16(answer.status).expect("an error's status is one of HTTP's"),
            headers: headers.into_iter().collect(),
            body: stream::iter([Ok(answer.body)]).boxed(),
        }
    }

    pub(crate) fn under(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    pub(crate) fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }
}

impl From<Response> for StreamResponse<Body> {
    fn from(response: Response) -> Self {
        let Response { status, headers, body } = response;
        Self { metadata_prelude: MetadataPrelude { status_code: status, headers, cookies: Vec::new() }, stream: body }
    }
}
