//! The HTTP data plane (AWS IoT Core Data Plane API Reference; botocore's model `iot-data/2015-05-28`).
//!
//! Calls must be signed, as `Missing Authentication Token` says; the signature is not verified. Custom authentication over HTTP is
//! not emulated.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::broker::{Description, DirectError, Retained};
use super::limits::{MAXIMUM_PAYLOAD_BYTES, MESSAGE_EXPIRY_SECONDS};
use super::message::{Message, MessageProperties, Now, Quality};
use super::topic::Topic;
use super::{Shared, rules, signature};

/// The page sizes of the lists (the models of ListRetainedMessages and ListSubscriptions).
const PAGE_SIZES: std::ops::RangeInclusive<usize> = 1..=200;

/// How long SendDirectMessage waits for the PUBACK, in seconds (its model: 1 to 15, 5 by default).
const CONFIRMATION_SECONDS: std::ops::RangeInclusive<u64> = 1..=15;
const DEFAULT_CONFIRMATION_SECONDS: u64 = 5;

/// A call is refused.
struct Fault {
    status: StatusCode,
    kind: &'static str,
    message: String,
}

/// A call that the data plane has.
enum Call {
    Publish(String),
    GetRetainedMessage(String),
    ListRetainedMessages,
    GetConnection(String),
    DeleteConnection(String),
    ListSubscriptions(String),
    SendDirectMessage(String),
}

/// The parameters of a query, decoded.
struct Query(Vec<(String, String)>);

/// Whether a path is one of the data plane.
pub(crate) fn has_path(path: &str) -> bool {
    ["/topics/", "/retainedMessage", "/connections/", "/things/"].iter().any(|prefix| path.starts_with(prefix))
}

/// Answers a call.
pub(super) async fn respond(shared: &Shared, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if !signature::is_signed(&parts.headers, parts.uri.query()) {
        return error(StatusCode::FORBIDDEN, "ForbiddenException", "Missing Authentication Token");
    }
    let answer = match Call::of(&parts) {
        Ok(call) => {
            let (operation, target) = call.name_and_target();
            shared.calls.record("iotdata", operation, target);
            match call.answer(shared, &parts, body).await {
                Ok(answer) => return answer,
                Err(fault) => fault,
            }
        }
        Err(fault) => fault,
    };
    error(answer.status, answer.kind, &answer.message)
}

/// An error as the service writes it.
pub(super) fn error(status: StatusCode, kind: &'static str, message: &str) -> Response {
    let mut response = answer(status, &json!({"message": message, "traceId": trace_id()}));
    response.headers_mut().insert("x-amzn-errortype", HeaderValue::from_static(kind));
    response
}

fn answer(status: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("x-amzn-requestid", HeaderValue::from_str(&trace_id()).expect("a UUID is ASCII"));
    response
}

fn trace_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

impl Fault {
    fn invalid(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, kind: "InvalidRequestException", message: message.into() }
    }

    fn not_found(message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, kind: "ResourceNotFoundException", message: message.into() }
    }

    fn too_large() -> Self {
        Self {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            kind: "RequestEntityTooLargeException",
            message: format!("The payload is over the limit of {MAXIMUM_PAYLOAD_BYTES} bytes."),
        }
    }
}

impl Call {
    fn of(parts: &Parts) -> Result<Self, Fault> {
        let (method, path) = (&parts.method, parts.uri.path());
        let segments = path.strip_prefix('/').unwrap_or(path).split_once('/');
        match (method, segments) {
            // A topic's slashes are %2F in SDKs; as they are, they mean the same.
            (&Method::POST, Some(("topics", topic))) => Ok(Self::Publish(decoded(topic)?)),
            (&Method::GET, None) if path == "/retainedMessage" => Ok(Self::ListRetainedMessages),
            (&Method::GET, Some(("retainedMessage", topic))) => Ok(Self::GetRetainedMessage(decoded(topic)?)),
            (method, Some(("connections", rest))) => match (method, rest.split_once('/')) {
                (&Method::GET, None) => Ok(Self::GetConnection(decoded(rest)?)),
                (&Method::DELETE, None) => Ok(Self::DeleteConnection(decoded(rest)?)),
                (&Method::GET, Some((client_id, "subscriptions"))) => Ok(Self::ListSubscriptions(decoded(client_id)?)),
                (&Method::POST, Some((client_id, "messages"))) => Ok(Self::SendDirectMessage(decoded(client_id)?)),
                _ => Err(unknown(method, path)),
            },
            _ => Err(unknown(method, path)),
        }
    }

    fn name_and_target(&self) -> (&'static str, &str) {
        match self {
            Self::Publish(topic) => ("Publish", topic),
            Self::GetRetainedMessage(topic) => ("GetRetainedMessage", topic),
            Self::ListRetainedMessages => ("ListRetainedMessages", ""),
            Self::GetConnection(client_id) => ("GetConnection", client_id),
            Self::DeleteConnection(client_id) => ("DeleteConnection", client_id),
            Self::ListSubscriptions(client_id) => ("ListSubscriptions", client_id),
            Self::SendDirectMessage(client_id) => ("SendDirectMessage", client_id),
        }
    }

    async fn answer(self, shared: &Shared, parts: &Parts, body: Body) -> Result<Response, Fault> {
        let query = Query::of(parts.uri.query().unwrap_or_default());
        match self {
            Self::Publish(topic) => {
                let topic = published_topic(&topic)?;
                publish(shared, topic, &query, &parts.headers, read(body).await?)
            }
            Self::GetRetainedMessage(topic) => get_retained(shared, &topic),
            Self::ListRetainedMessages => list_retained(shared, &query),
            Self::GetConnection(client_id) => get_connection(shared, &client_id, &query),
            Self::DeleteConnection(client_id) => delete_connection(shared, &client_id, &query),
            Self::ListSubscriptions(client_id) => list_subscriptions(shared, &client_id, &query),
            Self::SendDirectMessage(client_id) => {
                let payload = read(body).await?;
                send_directly(shared, &client_id, &query, &parts.headers, payload).await
            }
        }
    }
}

fn unknown(method: &Method, path: &str) -> Fault {
    let first = path.split('/').nth(1).unwrap_or_default();
    let mut message = format!(
        "The local stack's IoT data plane has no {method} {path}. It has Publish, GetRetainedMessage, ListRetainedMessages, \
         GetConnection, ListSubscriptions, DeleteConnection and SendDirectMessage"
    );
    let rest = if first == "things" { "; shadows are not emulated." } else { "." };
    message.push_str(rest);
    Fault { status: StatusCode::NOT_FOUND, kind: "UnknownOperationException", message }
}

fn decoded(text: &str) -> Result<String, Fault> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(std::borrow::Cow::into_owned).map_err(|_| Fault::invalid("The path is not UTF-8."))
}

async fn read(body: Body) -> Result<Bytes, Fault> {
    axum::body::to_bytes(body, MAXIMUM_PAYLOAD_BYTES).await.map_err(|_| Fault::too_large())
}

fn published_topic(text: &str) -> Result<Topic, Fault> {
    let topic = Topic::parse(text).map_err(|error| Fault::invalid(format!("The topic is not valid: {error}.")))?;
    if topic.is_reserved() && topic.basic_ingest().is_none() {
        return Err(Fault::invalid(format!("{topic} is reserved; of the reserved topics only $aws/rules/… is emulated.")));
    }
    Ok(topic)
}

fn publish(shared: &Shared, topic: Topic, query: &Query, headers: &HeaderMap, payload: Bytes) -> Result<Response, Fault> {
    let quality = match query.get("qos") {
        None | Some("0") => Quality::AtMostOnce,
        Some("1") => Quality::AtLeastOnce,
        Some(other) => return Err(Fault::invalid(format!("qos is {other} and must be 0 or 1."))),
    };
    let message = Message {
        topic,
        payload,
        quality,
        retain: query.boolean("retain")?,
        properties: properties(query, headers)?,
        expires_at: expiry(query)?.map(|time| Instant::now() + time),
    };
    shared.publish(&Arc::new(message), rules::Origin { client_id: None, trace_id: None });
    Ok(answer(StatusCode::OK, &json!({"message": "OK", "traceId": trace_id()})))
}

fn expiry(query: &Query) -> Result<Option<Duration>, Fault> {
    let Some(text) = query.get("messageExpiry") else { return Ok(None) };
    let (lowest, highest) = (MESSAGE_EXPIRY_SECONDS.start(), MESSAGE_EXPIRY_SECONDS.end());
    let seconds = text.parse::<u32>().ok().filter(|seconds| *seconds == 0 || MESSAGE_EXPIRY_SECONDS.contains(seconds));
    let fault = || Fault::invalid(format!("messageExpiry is {text} and must be 0 for never, or from {lowest} to {highest}."));
    let seconds = seconds.ok_or_else(fault)?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds.into())))
}

fn properties(query: &Query, headers: &HeaderMap) -> Result<MessageProperties, Fault> {
    let text = |name: &'static str| {
        let value = headers.get(name).map(HeaderValue::to_str).transpose();
        value.map_err(|_| Fault::invalid(format!("The header {name} is no text.")))
    };
    let decode = |name: &'static str| {
        let decoded = text(name)?.map(|value| BASE64.decode(value)).transpose();
        decoded.map_err(|_| Fault::invalid(format!("The header {name} is no base64.")))
    };
    let response_topic = query.get("responseTopic");
    if let Some(Err(error)) = response_topic.map(Topic::parse) {
        return Err(Fault::invalid(format!("responseTopic is not valid: {error}.")));
    }
    let user = decode("x-amz-mqtt5-user-properties")?;
    Ok(MessageProperties {
        content_type: query.get("contentType").map(str::to_owned),
        response_topic: response_topic.map(str::to_owned),
        correlation_data: decode("x-amz-mqtt5-correlation-data")?.map(Bytes::from),
        payload_is_text: match text("x-amz-mqtt5-payload-format-indicator")? {
            None => None,
            Some("UTF8_DATA") => Some(true),
            Some("UNSPECIFIED_BYTES") => Some(false),
            Some(other) => {
                let fault = format!("The payload format indicator {other} is neither UTF8_DATA nor UNSPECIFIED_BYTES.");
                return Err(Fault::invalid(fault));
            }
        },
        user: user.map(|json| user_properties(&json)).transpose()?.unwrap_or_default(),
    })
}

/// A JSON array of objects with one member each: `[{"deviceName":"alpha"},{"deviceCnt":"45"}]`. The aws CLI, and whoever gives
/// boto3 a text, writes that array as a JSON text.
fn user_properties(json: &[u8]) -> Result<Vec<(String, String)>, Fault> {
    let malformed = || Fault::invalid("User properties must be a JSON array of objects with one name and its text.");
    let text = serde_json::from_slice::<String>(json);
    let json = text.as_ref().map_or(json, String::as_bytes);
    let objects: Vec<Map<String, Value>> = serde_json::from_slice(json).map_err(|_| malformed())?;
    let pairs = objects.into_iter().map(|object| {
        let mut members = object.into_iter();
        match (members.next(), members.next()) {
            (Some((name, Value::String(value))), None) => Ok((name, value)),
            _ => Err(malformed()),
        }
    });
    pairs.collect()
}

fn get_retained(shared: &Shared, topic: &str) -> Result<Response, Fault> {
    let topic = Topic::parse(topic).map_err(|error| Fault::invalid(format!("The topic is not valid: {error}.")))?;
    let broker = shared.broker();
    let Some(Retained { message, stored_ms }) = broker.retained(&topic, Now::read()) else {
        return Err(Fault::not_found(format!("The topic {topic} has no retained message.")));
    };
    let mut body = json!({
        "topic": topic.as_str(),
        "payload": BASE64.encode(&message.payload),
        "qos": message.quality.number(),
        "lastModifiedTime": stored_ms,
    });
    if !message.properties.user.is_empty() {
        let pairs = message.properties.user.iter().map(|(name, value)| json!({name: value}));
        let pairs = Value::Array(pairs.collect()).to_string();
        body["userProperties"] = BASE64.encode(pairs).into();
    }
    Ok(answer(StatusCode::OK, &body))
}

fn list_retained(shared: &Shared, query: &Query) -> Result<Response, Fault> {
    let size = query.page_size()?;
    let after = query.token()?.map(|text| Topic::parse(&text)).transpose().map_err(|_| invalid_token())?;
    let (broker, now) = (shared.broker(), Now::read());
    let mut page = broker.retained_after(after.as_ref(), now).take(size + 1).collect::<Vec<_>>();
    let has_more = page.len() > size;
    page.truncate(size);
    let summaries = page.iter().map(|Retained { message, stored_ms }| {
        json!({
            "topic": message.topic.as_str(),
            "payloadSize": message.payload.len(),
            "qos": message.quality.number(),
            "lastModifiedTime": stored_ms,
        })
    });
    let mut body = json!({"retainedTopics": summaries.collect::<Vec<_>>()});
    if let (true, Some(last)) = (has_more, page.last()) {
        body["nextToken"] = URL_SAFE_NO_PAD.encode(last.message.topic.as_str()).into();
    }
    Ok(answer(StatusCode::OK, &body))
}

fn get_connection(shared: &Shared, client_id: &str, query: &Query) -> Result<Response, Fault> {
    let with_sockets = query.boolean("includeSocketInformation")?;
    let description = shared.broker().describe(client_id);
    let Description { facts, clean, expiry, ended } =
        description.ok_or_else(|| Fault::not_found(format!("The client {client_id} is not known.")))?;
    let mut body = json!({
        "clientId": client_id,
        "connected": ended.is_none(),
        "cleanSession": clean,
        "keepAliveDuration": facts.keep_alive,
        "sessionExpiry": expiry.as_secs(),
    });
    match ended {
        None => body["connectedSince"] = facts.since_ms.into(),
        Some((ended_ms, reason)) => {
            body["disconnectedSince"] = ended_ms.into();
            body["disconnectReason"] = reason.text().into();
        }
    }
    if with_sockets && ended.is_none() {
        body["sourceIp"] = facts.peer.ip().to_string().into();
        body["sourcePort"] = facts.peer.port().into();
        body["targetIp"] = facts.local.ip().to_string().into();
        body["targetPort"] = facts.local.port().into();
    }
    Ok(answer(StatusCode::OK, &body))
}

fn delete_connection(shared: &Shared, client_id: &str, query: &Query) -> Result<Response, Fault> {
    let (end_session, without_will) = (query.boolean("cleanSession")?, query.boolean("preventWillMessage")?);
    if !shared.broker().evict(client_id, end_session, without_will) {
        return Err(Fault::not_found(format!("The client {client_id} is not connected.")));
    }
    Ok(answer(StatusCode::OK, &json!({})))
}

fn list_subscriptions(shared: &Shared, client_id: &str, query: &Query) -> Result<Response, Fault> {
    let size = query.page_size()?;
    let start = match query.token()? {
        None => 0,
        Some(text) => text.parse::<usize>().map_err(|_| invalid_token())?,
    };
    let broker = shared.broker();
    let subscriptions = broker.subscriptions(client_id);
    let subscriptions = subscriptions.ok_or_else(|| Fault::not_found(format!("The client {client_id} has no session.")))?;
    let page =
        subscriptions.iter().skip(start).take(size).map(
            |subscription| json!({"topicFilter": subscription.filter.as_str(), "qos": subscription.options.quality.number()}),
        );
    let mut body = json!({"subscriptions": page.collect::<Vec<_>>()});
    if start.saturating_add(size) < subscriptions.len() {
        body["nextToken"] = URL_SAFE_NO_PAD.encode((start + size).to_string()).into();
    }
    Ok(answer(StatusCode::OK, &body))
}

async fn send_directly(
    shared: &Shared,
    client_id: &str,
    query: &Query,
    headers: &HeaderMap,
    payload: Bytes,
) -> Result<Response, Fault> {
    let topic = query.get("topic").ok_or_else(|| Fault::invalid("topic is missing."))?;
    let topic = Topic::parse(topic).map_err(|error| Fault::invalid(format!("topic is not valid: {error}.")))?;
    let confirmation = query.boolean("confirmation")?;
    let seconds = match query.get("timeout") {
        None => DEFAULT_CONFIRMATION_SECONDS,
        Some(text) => {
            let seconds = text.parse().ok().filter(|seconds| CONFIRMATION_SECONDS.contains(seconds));
            let (lowest, highest) = (CONFIRMATION_SECONDS.start(), CONFIRMATION_SECONDS.end());
            seconds.ok_or_else(|| Fault::invalid(format!("timeout is {text} and must be from {lowest} to {highest}.")))?
        }
    };
    let properties = properties(query, headers)?;
    let message = Arc::new(Message { properties, ..Message::new(topic, payload) });
    let (receipt, heard) = confirmation.then(oneshot::channel).unzip();
    shared.broker().send_directly(client_id, message, receipt).map_err(|error| match error {
        DirectError::Offline => Fault::not_found(format!("The client {client_id} is not connected.")),
        DirectError::NotAllowed => Fault {
            status: StatusCode::FORBIDDEN,
            kind: "ForbiddenException",
            message: format!("No policy of the client {client_id} allows iot:Receive on the topic."),
        },
        DirectError::Full => Fault {
            status: StatusCode::TOO_MANY_REQUESTS,
            kind: "ThrottlingException",
            message: format!("The client {client_id} has as many unacknowledged messages as it may."),
        },
    })?;
    if let Some(heard) = heard {
        let confirmed = tokio::time::timeout(Duration::from_secs(seconds), heard).await;
        if !matches!(confirmed, Ok(Ok(()))) {
            return Err(Fault {
                status: StatusCode::GATEWAY_TIMEOUT,
                kind: "GatewayTimeoutException",
                message: format!("The client {client_id} did not confirm the message."),
            });
        }
    }
    Ok(answer(StatusCode::OK, &json!({"message": "OK", "traceId": trace_id()})))
}

fn invalid_token() -> Fault {
    Fault::invalid("nextToken is not one of this list.")
}

impl Query {
    fn of(query: &str) -> Self {
        let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Self(pairs.map(|(name, value)| (decode(name), decode(value))).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    fn boolean(&self, name: &str) -> Result<bool, Fault> {
        match self.get(name) {
            None => Ok(false),
            Some(text) => text.parse().map_err(|_| Fault::invalid(format!("{name} is {text} and must be true or false."))),
        }
    }

    fn page_size(&self) -> Result<usize, Fault> {
        let Some(text) = self.get("maxResults") else { return Ok(*PAGE_SIZES.end()) };
        let size = text.parse().ok().filter(|size| PAGE_SIZES.contains(size));
        let (lowest, highest) = (PAGE_SIZES.start(), PAGE_SIZES.end());
        size.ok_or_else(|| Fault::invalid(format!("maxResults is {text} and must be from {lowest} to {highest}.")))
    }

    fn token(&self) -> Result<Option<String>, Fault> {
        let decode = |text: &str| String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok();
        self.get("nextToken").map(|text| decode(text).ok_or_else(invalid_token)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::{Query, has_path, user_properties};

    #[test]
    fn queries_are_decoded() {
        let query = Query::of("contentType=application%2Fjson&retain=true&empty&a=b+c");
        assert_eq!(query.get("contentType"), Some("application/json"));
        assert_eq!((query.get("a"), query.get("empty"), query.get("none")), (Some("b c"), Some(""), None));
        assert!(query.boolean("retain").is_ok_and(|retain| retain));
        assert!(query.boolean("a").is_err());
    }

    #[test]
    fn user_properties_have_one_member_each() {
        let pairs = user_properties(br#"[{"b":"2"},{"a":"1"},{"b":"3"}]"#).ok().expect("well formed");
        let expected = [("b", "2"), ("a", "1"), ("b", "3")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(pairs, expected);
        let text = user_properties(br#""[{\"a\":\"1\"}]""#).ok().expect("well formed");
        assert_eq!(text, [("a".to_owned(), "1".to_owned())]);
        for json in [r#"{"a":"1"}"#, r#"[{"a":1}]"#, r#"[{}]"#, r#"[{"a":"1","b":"2"}]"#, "["] {
            assert!(user_properties(json.as_bytes()).is_err(), "{json}");
        }
    }

    #[test]
    fn the_data_plane_knows_its_paths() {
        assert!(has_path("/topics/a%2Fb") && has_path("/retainedMessage") && has_path("/things/x/shadow"));
        assert!(!has_path("/2015-03-31/functions/f/invocations"));
    }
}
