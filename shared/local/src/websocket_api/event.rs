//! The events that functions get, in the keys and the order of those that AWS sends.
//!
//! Sources: CONNECT and DISCONNECT events captured from a real WebSocket API in February 2024 (they are the golden files of the
//! tests), and "Set up a WebSocket API integration request", Amazon API Gateway Developer Guide.

use bytes::Bytes;
use http::{HeaderMap, header};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::{Map, Value};

use super::clock::Moment;
use super::id::{ConnectionId, random_id};
use super::route::{CONNECT, DISCONNECT};

/// What stays the same over the life of a connection and is in every event of it.
#[derive(Debug)]
pub(super) struct ConnectionFacts {
    /// Its id.
    pub(super) id: ConnectionId,
    /// When the handshake came.
    pub(super) connected_at: Moment,
    /// Who it is.
    pub(super) identity: Identity,
    /// The host, with its port, to which the client connected.
    pub(super) domain_name: String,
    /// The physical id of the API.
    pub(super) api_id: String,
    /// The stage.
    pub(super) stage: String,
}

/// Who a client is, as far as API Gateway knows.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Identity {
    /// The header `User-Agent` of the handshake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user_agent: Option<String>,
    /// The address of the client.
    pub(super) source_ip: String,
}

/// What is new with each event.
#[derive(Debug)]
pub(super) struct EventFacts {
    /// The id of the request.
    pub(super) request_id: String,
    /// When it came.
    pub(super) requested_at: Moment,
}

impl EventFacts {
    /// Those of an event that comes now.
    pub(super) fn now() -> Self {
        Self { request_id: random_id(), requested_at: Moment::now() }
    }
}

/// How a handshake came, beside its headers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forwarding<'a> {
    /// The address of the client.
    pub(super) source_ip: &'a str,
    /// The port that took the connection.
    pub(super) port: u16,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    multi_value_headers: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query_string_parameters: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    multi_value_query_string_parameters: Option<Map<String, Value>>,
    request_context: RequestContext<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    is_base64_encoded: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestContext<'a> {
    route_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnect_status_code: Option<u16>,
    event_type: &'a str,
    extended_request_id: &'a str,
    request_time: String,
    message_direction: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnect_reason: Option<&'a str>,
    stage: &'a str,
    connected_at: i64,
    request_time_epoch: i64,
    identity: &'a Identity,
    request_id: &'a str,
    domain_name: &'a str,
    connection_id: &'a str,
    api_id: &'a str,
}

/// The event of the `$connect` route: the headers and the query of the handshake.
pub(super) fn connect_event(
    connection: &ConnectionFacts,
    event: &EventFacts,
    headers: &HeaderMap,
    query: Option<&str>,
    forwarding: Forwarding<'_>,
) -> Bytes {
    let headers = header_values(headers, event.requested_at, forwarding);
    let query = query_values(query.unwrap_or_default());
    write(&Event {
        headers: Some(last_values(&headers)),
        multi_value_headers: Some(all_values(&headers)),
        query_string_parameters: (!query.is_empty()).then(|| last_values(&query)),
        multi_value_query_string_parameters: (!query.is_empty()).then(|| all_values(&query)),
        request_context: request_context(connection, event, CONNECT, "CONNECT"),
        body: None,
        is_base64_encoded: false,
    })
}

/// The event of a message: neither headers nor query.
pub(super) fn message_event(connection: &ConnectionFacts, event: &EventFacts, route_key: &str, body: &str) -> Bytes {
    let message_id = random_id();
    write(&Event {
        headers: None,
        multi_value_headers: None,
        query_string_parameters: None,
        multi_value_query_string_parameters: None,
        request_context: RequestContext {
            message_id: Some(&message_id),
            ..request_context(connection, event, route_key, "MESSAGE")
        },
        body: Some(body),
        is_base64_encoded: false,
    })
}

/// The event of the `$disconnect` route, with the code and the reason of the close. Its headers are the four of the capture,
/// all but `Host` empty.
pub(super) fn disconnect_event(connection: &ConnectionFacts, event: &EventFacts, code: u16, reason: &str) -> Bytes {
    let headers = [("Host", connection.domain_name.as_str()), ("x-api-key", ""), ("X-Forwarded-For", ""), ("x-restapi", "")]
        .map(|(name, value)| (name.to_owned(), vec![value.to_owned()]));
    write(&Event {
        headers: Some(last_values(&headers)),
        multi_value_headers: Some(all_values(&headers)),
        query_string_parameters: None,
        multi_value_query_string_parameters: None,
        request_context: RequestContext {
            disconnect_status_code: Some(code),
            disconnect_reason: Some(reason),
            ..request_context(connection, event, DISCONNECT, "DISCONNECT")
        },
        body: None,
        is_base64_encoded: false,
    })
}

fn request_context<'a>(
    connection: &'a ConnectionFacts,
    event: &'a EventFacts,
    route_key: &'a str,
    event_type: &'a str,
) -> RequestContext<'a> {
    RequestContext {
        route_key,
        message_id: None,
        disconnect_status_code: None,
        event_type,
        // The same as the request id in every capture.
        extended_request_id: &event.request_id,
        request_time: event.requested_at.common_log(),
        message_direction: "IN",
        disconnect_reason: None,
        stage: &connection.stage,
        connected_at: connection.connected_at.epoch_milliseconds(),
        request_time_epoch: event.requested_at.epoch_milliseconds(),
        identity: &connection.identity,
        request_id: &event.request_id,
        domain_name: &connection.domain_name,
        connection_id: connection.id.as_str(),
        api_id: &connection.api_id,
    }
}

fn write(event: &Event<'_>) -> Bytes {
    serde_json::to_vec(event).expect("texts and numbers under text keys are always JSON").into()
}

/// Names with all their values, in the order in which they are written.
type Values = [(String, Vec<String>)];

fn last_values(values: &Values) -> Map<String, Value> {
    values.iter().map(|(name, all)| (name.clone(), all.last().cloned().unwrap_or_default().into())).collect()
}

fn all_values(values: &Values) -> Map<String, Value> {
    values.iter().map(|(name, all)| (name.clone(), all.clone().into())).collect()
}

/// The headers of a handshake as the function sees them: sorted by name, `Connection` and `Upgrade` left out, and what the
/// front door adds put in.
fn header_values(headers: &HeaderMap, now: Moment, forwarding: Forwarding<'_>) -> Vec<(String, Vec<String>)> {
    const TRACE_ID: &str = "x-amzn-trace-id";
    const FORWARDED_FOR: &str = "x-forwarded-for";
    let text = |value: &header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut values: Vec<(String, Vec<String>)> = headers
        .keys()
        .filter(|name| {
            ![header::CONNECTION, header::UPGRADE].contains(name)
                && ![TRACE_ID, FORWARDED_FOR, "x-forwarded-port", "x-forwarded-proto"].contains(&name.as_str())
        })
        .map(|name| (canonical_name(name.as_str()), headers.get_all(name).iter().map(text).collect()))
        .collect();
    let trace_id = headers.get(TRACE_ID).map_or_else(|| new_trace_id(now), text);
    let forwarded_for = match headers.get(FORWARDED_FOR).map(text) {
        Some(before) => format!("{before}, {}", forwarding.source_ip),
        None => forwarding.source_ip.to_owned(),
    };
    values.extend([
        ("X-Amzn-Trace-Id".to_owned(), vec![trace_id]),
        ("X-Forwarded-For".to_owned(), vec![forwarded_for]),
        ("X-Forwarded-Port".to_owned(), vec![forwarding.port.to_string()]),
        ("X-Forwarded-Proto".to_owned(), vec!["http".to_owned()]),
    ]);
    values.sort_by_cached_key(|(name, _)| name.to_ascii_lowercase());
    values
}

/// AWS X-Ray's `Root`: version, seconds in hexadecimal, 96 random bits.
fn new_trace_id(now: Moment) -> String {
    let seconds = now.epoch_milliseconds() / 1000;
    let random = rand::random::<u128>() >> 32;
    format!("Root=1-{seconds:08x}-{random:024x}")
}

/// A header's name as clients and API Gateway write it. Hyper reads names in lower case, so the spelling of the client is lost.
fn canonical_name(name: &str) -> String {
    let capitalise = |segment: &str| match segment {
        "websocket" => "WebSocket".to_owned(),
        "dnt" | "te" => segment.to_ascii_uppercase(),
        _ => {
            let mut characters = segment.chars();
            characters.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + characters.as_str())
        }
    };
    name.split('-').map(capitalise).collect::<Vec<_>>().join("-")
}

/// The parameters of a query, decoded, in the order of their first appearance. The length of the URL bounds their number.
fn query_values(query: &str) -> Vec<(String, Vec<String>)> {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let mut values: Vec<(String, Vec<String>)> = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let (name, value) = (decode(name), decode(value));
        match values.iter_mut().find(|(known, _)| *known == name) {
            Some((_, all)) => all.push(value),
            None => values.push((name, vec![value])),
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn connection() -> ConnectionFacts {
        ConnectionFacts {
            id: ConnectionId::parse("TXzPWdnOjoECGjA=").expect("an id seen on AWS"),
            connected_at: Moment::from_epoch_milliseconds(1_708_326_702_789),
            identity: Identity { user_agent: None, source_ip: "127.0.0.1".to_owned() },
            domain_name: "127.0.0.1:4000".to_owned(),
            api_id: "nn27okk1we".to_owned(),
            stage: "prod".to_owned(),
        }
    }

    fn connect(headers: &HeaderMap, query: Option<&str>) -> Value {
        let forwarding = Forwarding { source_ip: "127.0.0.1", port: 4000 };
        let bytes = connect_event(&connection(), &EventFacts::now(), headers, query, forwarding);
        serde_json::from_slice(&bytes).expect("an event is JSON")
    }

    #[test]
    fn header_names_are_written_as_clients_write_them() {
        for (read, written) in [
            ("sec-websocket-key", "Sec-WebSocket-Key"),
            ("user-agent", "User-Agent"),
            ("x-amzn-trace-id", "X-Amzn-Trace-Id"),
            ("host", "Host"),
            ("dnt", "DNT"),
            ("x--odd-", "X--Odd-"),
        ] {
            assert_eq!(canonical_name(read), written);
        }
    }

    #[test]
    fn a_repeated_header_has_its_last_value_and_all_of_them() {
        let mut headers = HeaderMap::new();
        headers.append("x-kind", HeaderValue::from_static("first"));
        headers.append("x-kind", HeaderValue::from_static("second"));
        let event = connect(&headers, None);
        assert_eq!(event["headers"]["X-Kind"], "second");
        assert_eq!(event["multiValueHeaders"]["X-Kind"], serde_json::json!(["first", "second"]));
    }

    #[test]
    fn a_proxy_before_the_front_door_is_kept() {
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", HeaderValue::from_static("192.0.2.7"));
        headers.append("x-amzn-trace-id", HeaderValue::from_static("Root=1-65d2ff2e-718990494fd688f062bf1571"));
        let event = connect(&headers, None);
        assert_eq!(event["headers"]["X-Forwarded-For"], "192.0.2.7, 127.0.0.1");
        assert_eq!(event["headers"]["X-Amzn-Trace-Id"], "Root=1-65d2ff2e-718990494fd688f062bf1571");
    }

    #[test]
    fn a_query_is_decoded_and_repeated_parameters_are_kept() {
        let event = connect(&HeaderMap::new(), Some("token=a%2Bb+c&room=1&room=2&flag&&"));
        assert_eq!(event["queryStringParameters"], serde_json::json!({"token": "a+b c", "room": "2", "flag": ""}));
        assert_eq!(
            event["multiValueQueryStringParameters"],
            serde_json::json!({"token": ["a+b c"], "room": ["1", "2"], "flag": [""]})
        );
    }

    #[test]
    fn without_a_query_its_keys_are_absent() {
        for query in [None, Some("")] {
            let event = connect(&HeaderMap::new(), query);
            assert!(event.get("queryStringParameters").is_none());
            assert!(event.get("multiValueQueryStringParameters").is_none());
        }
    }

    #[test]
    fn without_a_user_agent_the_identity_has_none() {
        let event = connect(&HeaderMap::new(), None);
        assert_eq!(event["requestContext"]["identity"], serde_json::json!({"sourceIp": "127.0.0.1"}));
    }

    #[test]
    fn a_trace_id_has_the_form_of_xray() {
        let id = new_trace_id(Moment::from_epoch_milliseconds(1_708_326_702_789));
        let random = id.strip_prefix("Root=1-65d2ff2e-").expect("the seconds in hexadecimal");
        assert_eq!(random.len(), 24);
        assert!(random.chars().all(|digit| digit.is_ascii_hexdigit()));
    }
}
