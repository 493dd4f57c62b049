//! The HTTP client of posts: one pool of connections, one try, and what came of it.

use crate::config::CONNECT_TIMEOUT;
use crate::failure::CallError;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, Error as ClientError, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::error::Error;
use std::io;
use std::time::Duration;

/// How long a connection waits for its next post until it is closed. API Gateway keeps one a while longer ("idle connection
/// timeout" of 60 s and more at AWS's load balancers), so that a post seldom meets one that was closed at the other end.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// How much is read of an answer that refuses a post: API Gateway's are below 200 bytes, and nothing longer belongs in a log.
const MAX_REFUSAL_BYTES: usize = 4 * 1024;

/// The pooled client. HTTP/1.1, because over HTTP/2 every post of a drain would wait in one connection's queue, and because one
/// request at a time costs the least CPU.
#[derive(Debug)]
pub(super) struct HttpClient(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

/// An answer.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) status: StatusCode,
    headers: HeaderMap,
    /// The body of a refusal, as much of it as is read; nothing of other answers.
    body: Bytes,
}

/// There was no answer.
#[derive(Debug)]
pub(super) enum Failed {
    /// The connection could not be made, and that was said at once: nobody is at the address, or it is not who it should be.
    Unreachable(Box<dyn Error + Send + Sync>),
    /// A connection broke that had been made, or could not be made in time.
    Broken,
}

impl HttpClient {
    /// A client with these authorities and no connections.
    pub(super) fn new(tls: rustls::ClientConfig) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        let client =
            Client::builder(TokioExecutor::new()).pool_idle_timeout(IDLE_TIMEOUT).pool_timer(TokioTimer::new()).build(connector);
        Self(client)
    }

    /// Sends a request once. Only a request that a closing connection took none of is sent again, on another one.
    pub(super) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Received, Failed> {
        let (head, body) = self.0.request(request).await.map_err(failed)?.into_parts();
        let mut received = Received { status: head.status, headers: head.headers, body: Bytes::new() };
        if received.is_refusal() {
            // What cannot be read of it is missing in the log alone.
            received.body = Limited::new(body, MAX_REFUSAL_BYTES).collect().await.map(Collected::to_bytes).unwrap_or_default();
        }
        Ok(received)
    }
}

impl Received {
    /// Whether somebody will want to know why: a 4xx that is neither a connection's end nor its limit, or what no API answers.
    fn is_refusal(&self) -> bool {
        !self.status.is_success() && !self.status.is_server_error() && !matches!(self.status.as_u16(), 410 | 429)
    }

    /// A refusal with its reason: the header x-amzn-errortype, or `__type` or `code` of the JSON body, and the body's `message`
    /// (Smithy 2.0, "AWS restJson1 protocol", "Operation error serialization").
    pub(super) fn refusal(&self) -> CallError {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let header = |name| self.headers.get(name).and_then(|value| value.to_str().ok());
        let member = |names: [&str; 2]| names.into_iter().find_map(|name| body.get(name)?.as_str());
        let code = header("x-amzn-errortype").or_else(|| member(["__type", "code"])).map(error_code);
        let request_id = header("x-amzn-requestid").or_else(|| header("x-amz-apigw-id"));
        CallError::Answered {
            status: self.status.as_u16(),
            code: code.unwrap_or("without a code").to_owned(),
            message: member(["message", "Message"]).unwrap_or("without a message").to_owned(),
            request_id: request_id.unwrap_or("without an id").to_owned(),
        }
    }
}

/// The name alone of `aws.api#Name:http://…`.
fn error_code(text: &str) -> &str {
    let before = text.split_once(':').map_or(text, |(before, _)| before);
    before.split_once('#').map_or(before, |(_, name)| name)
}

fn failed(error: ClientError) -> Failed {
    if error.is_connect() && !timed_out(&error) { Failed::Unreachable(error.into()) } else { Failed::Broken }
}

fn timed_out(error: &ClientError) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(headers: &[(&'static str, &'static str)], body: &str, expected: &str) {
        let mut answer =
            Received { status: StatusCode::FORBIDDEN, headers: HeaderMap::new(), body: Bytes::from(body.to_owned()) };
        for (name, value) in headers {
            answer.headers.insert(*name, http::HeaderValue::from_static(value));
        }
        assert_eq!(answer.refusal().to_string(), format!("the service answered 403 {expected}"));
    }

    #[test]
    fn a_refusal_is_told_from_header_and_body() {
        let typed = [("x-amzn-errortype", "ForbiddenException:http://internal.amazon.com/"), ("x-amzn-requestid", "r")];
        check(&typed, r#"{"message":"no"}"#, "ForbiddenException: no (request r)");
        check(&[], r#"{"__type":"aws.api#AccessDenied","Message":"no"}"#, "AccessDenied: no (request without an id)");
        check(&[("x-amz-apigw-id", "g")], r#"{"code":"X","message":1}"#, "X: without a message (request g)");
        for body in ["", "<html>", "[]", "null"] {
            check(&[], body, "without a code: without a message (request without an id)");
        }
    }

    #[test]
    fn only_refusals_are_read() {
        let refusals = [300, 400, 403, 404, 413];
        for status in [200, 204, 410, 429, 500, 503].into_iter().chain(refusals) {
            let status_code = StatusCode::from_u16(status).expect("a status");
            let answer = Received { status: status_code, headers: HeaderMap::new(), body: Bytes::new() };
            assert_eq!(answer.is_refusal(), refusals.contains(&status), "{status}");
        }
    }
}
