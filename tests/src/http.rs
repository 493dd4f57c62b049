//! HTTP by hand, for what a client library would not send.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::wait::within;

/// An answer, read whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{}: {error}: {}", self.status, String::from_utf8_lossy(&self.body)))
    }
}

/// Sends a request on a connection of its own and reads the answer.
///
/// # Panics
/// When there is no answer within the patience.
pub async fn send(method: Method, url: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).expect("the test makes a valid request");
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answer = within(url, client.request(request)).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    let (parts, body) = answer.into_parts();
    let body = within(url, body.collect()).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() }
}
