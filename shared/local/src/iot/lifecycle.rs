//! Lifecycle events: what the service publishes when clients come, go, subscribe and unsubscribe (AWS IoT Core Developer Guide,
//! "Lifecycle events").
//!
//! They are in order here and come once, where AWS promises neither. `connect_failed` events are not published.

use serde::Serialize;

use super::message::{Message, Now};
use super::topic::Topic;

/// Who a connection is, in every event of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) client_id: String,
    pub(super) principal_id: String,
    /// One for each connection.
    pub(super) session_id: String,
    /// Rises with each connection of the client.
    pub(super) version_number: u64,
}

/// Why a connection ended, in the words of the events' `disconnectReason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    AuthorizationError,
    ClientInitiated,
    ClientError,
    ConnectionLost,
    DuplicateClientId,
    KeepAliveTimeout,
    ServerInitiated,
    WebSocketLifeOver,
    AuthorizationOver,
    ApiInitiated,
}

impl Identity {
    pub(super) fn new(client_id: &str, principal_id: &str, version_number: u64) -> Self {
        Self {
            client_id: client_id.to_owned(),
            principal_id: principal_id.to_owned(),
            session_id: uuid::Uuid::new_v4().simple().to_string(),
            version_number,
        }
    }
}

impl Reason {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::AuthorizationError => "AUTH_ERROR",
            Self::ClientInitiated => "CLIENT_INITIATED_DISCONNECT",
            Self::ClientError => "CLIENT_ERROR",
            Self::ConnectionLost => "CONNECTION_LOST",
            Self::DuplicateClientId => "DUPLICATE_CLIENTID",
            Self::KeepAliveTimeout => "MQTT_KEEP_ALIVE_TIMEOUT",
            Self::ServerInitiated => "SERVER_INITIATED_DISCONNECT",
            Self::WebSocketLifeOver => "WEBSOCKET_TTL_EXPIRATION",
            Self::AuthorizationOver => "CUSTOMAUTH_TTL_EXPIRATION",
            Self::ApiInitiated => "API_INITIATED_DISCONNECT",
        }
    }

    /// Whether the client's will is said (the guide's table of reasons): always but after an end that the client chose.
    pub(super) fn says_will(self) -> bool {
        self != Self::ClientInitiated
    }
}

/// The members in the order of the guide's examples.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    client_id: &'a str,
    timestamp: u64,
    event_type: &'a str,
    session_identifier: &'a str,
    principal_identifier: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_initiated_disconnect: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnect_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_number: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topics: Option<&'a [String]>,
}

/// `$aws/events/presence/connected/<client id>`.
pub(super) fn connected(identity: &Identity, address: std::net::IpAddr, now: Now) -> Option<Message> {
    let mut event = event(identity, "connected", now);
    event.ip_address = Some(address.to_string());
    event.version_number = Some(identity.version_number);
    message("presence/connected", &event)
}

/// `$aws/events/presence/disconnected/<client id>`.
pub(super) fn disconnected(identity: &Identity, reason: Reason, now: Now) -> Option<Message> {
    let mut event = event(identity, "disconnected", now);
    event.client_initiated_disconnect = Some(reason == Reason::ClientInitiated);
    event.disconnect_reason = Some(reason.text());
    event.version_number = Some(identity.version_number);
    message("presence/disconnected", &event)
}

/// `$aws/events/subscriptions/subscribed/<client id>`.
pub(super) fn subscribed(identity: &Identity, filters: &[String], now: Now) -> Option<Message> {
    let event = Event { topics: Some(filters), ..event(identity, "subscribed", now) };
    message("subscriptions/subscribed", &event)
}

/// `$aws/events/subscriptions/unsubscribed/<client id>`.
pub(super) fn unsubscribed(identity: &Identity, filters: &[String], now: Now) -> Option<Message> {
    let event = Event { topics: Some(filters), ..event(identity, "unsubscribed", now) };
    message("subscriptions/unsubscribed", &event)
}

fn event<'a>(identity: &'a Identity, kind: &'a str, now: Now) -> Event<'a> {
    Event {
        client_id: &identity.client_id,
        timestamp: now.unix_ms,
        event_type: kind,
        session_identifier: &identity.session_id,
        principal_identifier: &identity.principal_id,
        ip_address: None,
        client_initiated_disconnect: None,
        disconnect_reason: None,
        version_number: None,
        topics: None,
    }
}

/// Nothing for a client id that no topic can hold: "Client IDs that contain # or + do not receive lifecycle events."
fn message(kind: &str, event: &Event<'_>) -> Option<Message> {
    let topic = Topic::parse(&format!("$aws/events/{kind}/{}", event.client_id)).ok()?;
    Some(Message::new(topic, serde_json::to_vec(event).expect("texts and numbers are always JSON")))
}
