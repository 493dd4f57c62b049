//! The native protocol's frames as this client writes and reads them (docs/protocol.md).
//!
//! Reading is lenient: members and types of frames that this version does not know are passed over.

use super::{HistoryPage, Published, RequestError, Subscribed};
use crate::rule::Frame;
use carillon_core::channel::Channel;
use carillon_core::event::EventJson;
use carillon_core::fault::{ErrorCode, Fault};
use carillon_core::position::{Epoch, Position};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use std::time::Duration;

/// A frame of the server.
#[derive(Debug)]
pub(super) enum ServerFrame {
    /// The answer to the request with this reference.
    Reply { reference: Option<u64>, answer: Result<Answer, Fault> },
    /// Something of a channel.
    Channel { channel: Channel, frame: Frame<EventJson> },
    /// The connection will be cut; connect anew after this time.
    Reconnect { after: Duration },
    /// The server closes the connection.
    Bye { code: ErrorCode, reconnect: bool },
    /// An error of API Gateway itself, which knows nothing of references.
    Gateway { message: String },
    /// A frame that asks for nothing.
    Other,
}

/// A good reply; the request says what is in it.
#[derive(Debug)]
pub(super) struct Answer(Box<RawValue>);

pub(super) fn subscribe(reference: u64, channel: &Channel, since: Option<Position>) -> String {
    encode(&ClientFrame {
        channel: Some(channel.as_str()),
        since: since.map(Into::into),
        ..ClientFrame::new("subscribe", reference)
    })
}

pub(super) fn unsubscribe(reference: u64, channel: &Channel) -> String {
    encode(&ClientFrame { channel: Some(channel.as_str()), ..ClientFrame::new("unsubscribe", reference) })
}

pub(super) fn publish(reference: u64, channel: &Channel, event: &RawValue) -> String {
    encode(&ClientFrame { channel: Some(channel.as_str()), event: Some(event), ..ClientFrame::new("publish", reference) })
}

pub(super) fn history(reference: u64, channel: &Channel, from: Option<Position>, limit: Option<usize>) -> String {
    let frame = ClientFrame::new("history", reference);
    encode(&ClientFrame { channel: Some(channel.as_str()), from: from.map(Into::into), limit, ..frame })
}

pub(super) fn ping(reference: u64) -> String {
    encode(&ClientFrame::new("ping", reference))
}

/// Reads a frame of the server.
pub(super) fn decode(text: &str) -> Result<ServerFrame, serde_json::Error> {
    let head: Head = serde_json::from_str(text)?;
    Ok(match (head.kind.as_deref(), head.message) {
        (Some("reply"), _) => {
            let reply: Reply = serde_json::from_str(text)?;
            // A reference that is none of ours belongs to nobody here.
            let reference = reply.reference.and_then(|reference| reference.parse().ok());
            let answer = match reply.error {
                Some(error) if !reply.ok => Err(error.into()),
                _ if reply.ok => Ok(Answer(RawValue::from_string(text.to_owned())?)),
                _ => return Err(serde_json::Error::custom("a reply that is not ok has no error")),
            };
            ServerFrame::Reply { reference, answer }
        }
        (Some("events"), _) => {
            let events: Events = serde_json::from_str(text)?;
            let messages = events.events.into_iter().map(WireMessage::into_pair).collect();
            let frame = Frame::Events { epoch: events.epoch, prev: events.prev.map(Into::into), messages };
            ServerFrame::Channel { channel: events.channel, frame }
        }
        (Some("gap"), _) => {
            let gap: Gap = serde_json::from_str(text)?;
            let frame = Frame::Gap { after: gap.after.into(), to: Position::new(gap.epoch, gap.offset) };
            ServerFrame::Channel { channel: gap.channel, frame }
        }
        (Some("reconnect"), _) => {
            let reconnect: Reconnect = serde_json::from_str(text)?;
            ServerFrame::Reconnect { after: Duration::from_millis(reconnect.after_ms) }
        }
        (Some("bye"), _) => {
            let bye: Bye = serde_json::from_str(text)?;
            ServerFrame::Bye { code: code(&bye.code), reconnect: bye.reconnect }
        }
        (None, Some(message)) => ServerFrame::Gateway { message },
        _ => ServerFrame::Other,
    })
}

impl Answer {
    pub(super) fn subscribed(&self) -> Result<Subscribed, RequestError> {
        let body: SubscribedBody = self.read()?;
        Ok(Subscribed { position: Position::new(body.epoch, body.offset), recovered: body.recovered })
    }

    pub(super) fn published(&self) -> Result<Published, RequestError> {
        let body: PublishedBody = self.read()?;
        Ok(Published { position: Position::new(body.epoch, body.offset), duplicate: body.duplicate })
    }

    pub(super) fn history(&self) -> Result<HistoryPage, RequestError> {
        let body: HistoryBody = self.read()?;
        Ok(HistoryPage {
            epoch: body.epoch,
            events: body.events.into_iter().map(WireMessage::into_pair).collect(),
            next: body.next.map(Into::into),
            recovered: body.recovered,
        })
    }

    fn read<'text, T: Deserialize<'text>>(&'text self) -> Result<T, RequestError> {
        serde_json::from_str(self.0.get()).map_err(|error| RequestError::Unreadable(error.to_string()))
    }
}

fn encode(frame: &ClientFrame<'_>) -> String {
    serde_json::to_string(frame).expect("a frame has string keys and plain values")
}

/// The code of that name; one of a newer server counts as its own fault.
pub(crate) fn code(name: &str) -> ErrorCode {
    ErrorCode::ALL.into_iter().find(|code| code.as_str() == name).unwrap_or(ErrorCode::Internal)
}

#[derive(Serialize)]
struct ClientFrame<'text> {
    action: &'static str,
    #[serde(rename = "ref")]
    reference: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'text str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<WirePosition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<WirePosition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'text RawValue>,
}

impl ClientFrame<'_> {
    fn new(action: &'static str, reference: u64) -> Self {
        Self { action, reference: reference.to_string(), channel: None, since: None, from: None, limit: None, event: None }
    }
}

#[derive(Deserialize)]
struct Head {
    #[serde(rename = "type")]
    kind: Option<String>,
    message: Option<String>,
}

#[derive(Deserialize)]
struct Reply {
    #[serde(rename = "ref")]
    reference: Option<String>,
    ok: bool,
    error: Option<WireFault>,
}

/// An error as replies and HTTP answers carry it.
#[derive(Deserialize)]
pub(crate) struct WireFault {
    code: String,
    message: String,
    retry_after_ms: Option<u32>,
}

impl From<WireFault> for Fault {
    fn from(fault: WireFault) -> Self {
        Self { retry_after_ms: fault.retry_after_ms, ..Self::new(code(&fault.code), fault.message) }
    }
}

#[derive(Deserialize)]
struct Events {
    #[serde(deserialize_with = "channel")]
    channel: Channel,
    #[serde(deserialize_with = "epoch")]
    epoch: Epoch,
    prev: Option<WirePosition>,
    events: Vec<WireMessage>,
}

#[derive(Deserialize)]
struct WireMessage {
    offset: u64,
    event: Box<RawValue>,
}

impl WireMessage {
    fn into_pair(self) -> (u64, EventJson) {
        (self.offset, EventJson::from_log(self.event.get()))
    }
}

#[derive(Deserialize)]
struct Gap {
    #[serde(deserialize_with = "channel")]
    channel: Channel,
    after: WirePosition,
    #[serde(deserialize_with = "epoch")]
    epoch: Epoch,
    offset: u64,
}

#[derive(Deserialize)]
struct Reconnect {
    after_ms: u64,
}

#[derive(Deserialize)]
struct Bye {
    code: String,
    reconnect: bool,
}

#[derive(Deserialize)]
struct SubscribedBody {
    #[serde(deserialize_with = "epoch")]
    epoch: Epoch,
    offset: u64,
    recovered: Option<bool>,
}

#[derive(Deserialize)]
struct PublishedBody {
    #[serde(deserialize_with = "epoch")]
    epoch: Epoch,
    offset: u64,
    #[serde(default)]
    duplicate: bool,
}

#[derive(Deserialize)]
struct HistoryBody {
    #[serde(deserialize_with = "epoch")]
    epoch: Epoch,
    events: Vec<WireMessage>,
    next: Option<WirePosition>,
    #[serde(default = "yes")]
    recovered: bool,
}

const fn yes() -> bool {
    true
}

#[derive(Clone, Copy, Deserialize, Serialize)]
struct WirePosition {
    #[serde(deserialize_with = "epoch", serialize_with = "epoch_text")]
    epoch: Epoch,
    offset: u64,
}

impl From<Position> for WirePosition {
    fn from(position: Position) -> Self {
        Self { epoch: position.epoch, offset: position.offset }
    }
}

impl From<WirePosition> for Position {
    fn from(position: WirePosition) -> Self {
        Self::new(position.epoch, position.offset)
    }
}

fn epoch<'text, D: Deserializer<'text>>(deserializer: D) -> Result<Epoch, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

fn epoch_text<S: serde::Serializer>(epoch: &Epoch, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(epoch)
}

fn channel<'text, D: Deserializer<'text>>(deserializer: D) -> Result<Channel, D::Error> {
    Channel::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}
