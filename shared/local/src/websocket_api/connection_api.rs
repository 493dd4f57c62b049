//! `@connections`: the calls by which a backend reaches its clients (PostToConnection, GetConnection, DeleteConnection of the
//! Amazon API Gateway Management API).

use bytes::{Bytes, BytesMut};
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use serde::Serialize;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::Shared;
use super::answer::{self, Answer};
use super::event::Identity;
use super::id::ConnectionId;
use super::limits::{BODY_TIME, DISCARDED_BODY_BYTES, MESSAGE_BYTES};
use super::registry::{Connection, OfferRefused};

/// How an `Authorization` header of Signature Version 4 begins.
const SIGNATURE_ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Answers a call for the connection of an id as it is in the path, decoded. That a signature is there is checked, the
/// signature itself is not: the stack has no real credentials.
pub(super) async fn serve(shared: &Shared, id: &str, request: Request<Incoming>) -> Answer {
    let method = request.method().clone();
    if !is_signed(request.headers(), request.uri().query()) || ![Method::POST, Method::GET, Method::DELETE].contains(&method) {
        return answer::missing_authentication_token();
    }
    let Ok(id) = ConnectionId::parse(id) else {
        return answer::error(StatusCode::BAD_REQUEST, "BadRequestException", &format!("Invalid connectionId: {id}"));
    };
    let operation = match method {
        Method::POST => "PostToConnection",
        Method::GET => "GetConnection",
        _ => "DeleteConnection",
    };
    shared.calls.record("execute-api", operation, &shared.spec.logical_id);
    match method {
        Method::POST => post(shared, &id, request.into_body()).await,
        Method::GET => shared.registry.get(&id).map_or_else(answer::gone, |connection| describe(&connection)),
        _ => delete(shared, &id),
    }
}

fn is_signed(headers: &HeaderMap, query: Option<&str>) -> bool {
    let in_header = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_whitespace().next())
        .is_some_and(|algorithm| algorithm == SIGNATURE_ALGORITHM);
    in_header || query.is_some_and(|query| query.split('&').any(|parameter| parameter.starts_with("X-Amz-Signature=")))
}

/// Answers when the message is in the connection's queue, which is no receipt of its delivery, as on AWS.
async fn post(shared: &Shared, id: &ConnectionId, body: Incoming) -> Answer {
    let data = match timeout(BODY_TIME, read_body(body)).await {
        Ok(Ok(data)) => data,
        Ok(Err(BodyRefused::TooLarge)) => {
            return answer::error(StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLargeException", "Message too long");
        }
        Ok(Err(BodyRefused::Broken)) => {
            return answer::error(StatusCode::BAD_REQUEST, "BadRequestException", "The body ended before its end");
        }
        Err(_) => return answer::error(StatusCode::REQUEST_TIMEOUT, "RequestTimeoutException", "The body took too long"),
    };
    let Some(connection) = shared.registry.get(id) else {
        return answer::gone();
    };
    // API Gateway sends text frames, and no client takes one that is not UTF-8. What AWS does with such data is not
    // documented; refusing it shows the mistake where it is made.
    let Ok(text) = Utf8Bytes::try_from(data) else {
        return answer::error(StatusCode::BAD_REQUEST, "BadRequestException", "Data is not UTF-8");
    };
    match connection.offer(text) {
        Ok(()) => answer::empty(StatusCode::OK),
        Err(OfferRefused::Gone) => answer::gone(),
        Err(OfferRefused::Full) => {
            answer::error(StatusCode::TOO_MANY_REQUESTS, "LimitExceededException", "WebSocket client side buffer is full")
        }
    }
}

enum BodyRefused {
    TooLarge,
    Broken,
}

/// Reads a body up to the message limit. A larger one is read on for a while, so that the client has sent it and reads the answer.
async fn read_body(mut body: Incoming) -> Result<Bytes, BodyRefused> {
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX).min(MESSAGE_BYTES);
    let mut data = BytesMut::with_capacity(expected);
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(part) = frame.map_err(|_| BodyRefused::Broken)?.into_data() else {
            continue;
        };
        length += part.len();
        if length <= MESSAGE_BYTES {
            data.extend_from_slice(&part);
        } else if length > DISCARDED_BODY_BYTES {
            break;
        }
    }
    if length > MESSAGE_BYTES { Err(BodyRefused::TooLarge) } else { Ok(data.freeze()) }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Description<'a> {
    connected_at: String,
    identity: DescribedIdentity<'a>,
    last_active_at: String,
}

/// The identity in the order of GetConnection.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DescribedIdentity<'a> {
    source_ip: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
}

fn describe(connection: &Connection) -> Answer {
    let Identity { user_agent, source_ip } = &connection.facts.identity;
    let description = Description {
        connected_at: connection.facts.connected_at.iso_8601(),
        identity: DescribedIdentity { source_ip, user_agent: user_agent.as_deref() },
        last_active_at: connection.last_active().iso_8601(),
    };
    let text = serde_json::to_string(&description).expect("texts under text keys are always JSON");
    answer::json_text(StatusCode::OK, text)
}

/// The connection is unknown from now on; its session sends what is queued, closes the socket and runs `$disconnect`.
fn delete(shared: &Shared, id: &ConnectionId) -> Answer {
    match shared.registry.remove(id) {
        Some(connection) => {
            connection.request_close();
            answer::empty(StatusCode::NO_CONTENT)
        }
        None => answer::gone(),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_signature_is_looked_for_in_the_header_and_in_the_query() {
        let with = |value: &'static str| HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))]);
        assert!(is_signed(&with("AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=c"), None));
        assert!(is_signed(&HeaderMap::new(), Some("X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=c")));
        assert!(!is_signed(&HeaderMap::new(), None));
        assert!(!is_signed(&HeaderMap::new(), Some("a=b")));
        assert!(!is_signed(&with("Bearer secret"), None));
    }
}
