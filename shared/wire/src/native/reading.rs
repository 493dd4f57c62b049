//! The server's frames of the native WebSocket protocol (`carillon.v1`), as a client reads them. Specified in docs/protocol.md.
//!
//! Reading is lenient: members and types of frames that this version does not know are passed over, so that a server may be newer
//! than its clients.

use crate::fault::{self, FaultBody};
use carillon_core::channel::Channel;
use carillon_core::event::EventJson;
use carillon_core::fault::{ErrorCode, Fault};
use carillon_core::position::{Epoch, Position};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A frame of the server.
#[derive(Debug)]
pub enum ServerFrame {
    /// The answer to the request with this reference.
    Reply {
        /// The request's reference.
        reference: Option<String>,
        /// What the request came to.
        outcome: Result<Answer, Fault>,
    },
    /// Messages of one epoch, in their order.
    Events {
        /// The channel.
        channel: Channel,
        /// The epoch of the offsets.
        epoch: Epoch,
        /// The position after which the epoch goes on; only in the first frame of a new epoch.
        prev: Option<Position>,
        /// Offsets and events.
        messages: Vec<(u64, EventJson)>,
    },
    /// The messages after `after`, up to and with `to`, cannot be delivered.
    Gap {
        /// The channel.
        channel: Channel,
        /// The last message before the gap.
        after: Position,
        /// The last message in the gap.
        to: Position,
    },
    /// The connection will be cut: connect anew after this time.
    Reconnect {
        /// Milliseconds.
        after_ms: u64,
    },
    /// The server closes the connection.
    Bye {
        /// Why.
        code: ErrorCode,
        /// Whether to connect again.
        reconnect: bool,
    },
    /// An error of API Gateway itself, which knows neither types nor references.
    Gateway {
        /// Its text.
        message: String,
    },
    /// A frame that asks for nothing, or of a type that this version does not know.
    Other,
}

/// A good reply. What stands in it depends on the request.
#[derive(Debug)]
pub struct Answer(Box<RawValue>);

/// The frame cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the server's frame cannot be read")]
pub struct FrameError(#[from] serde_json::Error);

/// What a subscribe was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// The client gets what comes after this.
    pub position: Position,
    /// Whether that is the `since` it came with; none where it came without.
    pub recovered: Option<bool>,
}

/// Where a published event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The event's id.
    pub id: String,
    /// Its position.
    pub position: Position,
    /// Whether the log had it already.
    pub duplicate: bool,
}

/// A page of a channel's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryPage {
    /// The epoch of the offsets.
    pub epoch: Epoch,
    /// Offsets and events, oldest first.
    pub events: Vec<(u64, EventJson)>,
    /// Where the next page begins, if there is one.
    pub next: Option<Position>,
    /// Whether the page goes on without a hole from where it was asked to.
    pub recovered: bool,
}

/// Reads a frame.
///
/// # Errors
/// When it is no JSON object, or a frame of a known type lacks what belongs into it.
pub fn decode(frame: &str) -> Result<ServerFrame, FrameError> {
    let head: Head = serde_json::from_str(frame)?;
    Ok(match (head.kind.as_deref(), head.message) {
        (Some("reply"), _) => reply(frame)?,
        (Some("events"), _) => {
            let body: EventsBody = serde_json::from_str(frame)?;
            ServerFrame::Events {
                channel: body.channel,
                epoch: body.epoch,
                prev: body.prev.map(Into::into),
                messages: body.events.into_iter().map(MessageBody::into_pair).collect(),
            }
        }
        (Some("gap"), _) => {
            let body: GapBody = serde_json::from_str(frame)?;
            ServerFrame::Gap { channel: body.channel, after: body.after.into(), to: Position::new(body.epoch, body.offset) }
        }
        (Some("reconnect"), _) => {
            let body: ReconnectBody = serde_json::from_str(frame)?;
            ServerFrame::Reconnect { after_ms: body.after_ms }
        }
        (Some("bye"), _) => {
            let body: ByeBody = serde_json::from_str(frame)?;
            ServerFrame::Bye { code: fault::code(&body.code), reconnect: body.reconnect }
        }
        (None, Some(message)) => ServerFrame::Gateway { message },
        _ => ServerFrame::Other,
    })
}

impl Answer {
    /// The answer to a subscribe.
    ///
    /// # Errors
    /// When it is none.
    pub fn subscribed(&self) -> Result<Subscribed, FrameError> {
        let body: SubscribedBody = self.read()?;
        Ok(Subscribed { position: Position::new(body.epoch, body.offset), recovered: body.recovered })
    }

    /// The answer to a publish.
    ///
    /// # Errors
    /// When it is none.
    pub fn published(&self) -> Result<Published, FrameError> {
        let body: PublishedBody = self.read()?;
        Ok(Published { id: body.id, position: Position::new(body.epoch, body.offset), duplicate: body.duplicate })
    }

    /// The answer to a history.
    ///
    /// # Errors
    /// When it is none.
    pub fn history(&self) -> Result<HistoryPage, FrameError> {
        let body: HistoryBody = self.read()?;
        Ok(HistoryPage {
            epoch: body.epoch,
            events: body.events.into_iter().map(MessageBody::into_pair).collect(),
            next: body.next.map(Into::into),
            recovered: body.recovered,
        })
    }

    fn read<'text, T: Deserialize<'text>>(&'text self) -> Result<T, FrameError> {
        Ok(serde_json::from_str(self.0.get())?)
    }
}

fn reply(frame: &str) -> Result<ServerFrame, FrameError> {
    let body: ReplyBody = serde_json::from_str(frame)?;
    let outcome = match body.error {
        _ if body.ok => Ok(Answer(RawValue::from_string(frame.to_owned())?)),
        Some(error) => Err(error.into()),
        None => return Err(serde_json::Error::custom("a reply that is not ok has no error").into()),
    };
    Ok(ServerFrame::Reply { reference: body.reference, outcome })
}

#[derive(Deserialize)]
struct Head {
    #[serde(rename = "type")]
    kind: Option<String>,
    message: Option<String>,
}

#[derive(Deserialize)]
struct ReplyBody {
    #[serde(rename = "ref")]
    reference: Option<String>,
    ok: bool,
    error: Option<FaultBody>,
}

#[derive(Deserialize)]
struct EventsBody {
    #[serde(deserialize_with = "channel")]
    channel: Channel,
    #[serde(deserialize_with = "epoch")]
    epoch: Epoch,
    prev: Option<PositionBody>,
    events: Vec<MessageBody>,
}

#[derive(Deserialize)]
struct MessageBody {
    offset: u64,
    event: Box<RawValue>,
}

#[derive(Deserialize)]
struct GapBody {
    #[serde(deserialize_with = "channel")]
    channel: Channel,
    after: PositionBody,
    #[serde(deserialize_with = "epoch")]
    epoch: Epoch,
    offset: u64,
}

#[derive(Deserialize)]
struct ReconnectBody {
    after_ms: u64,
}

#[derive(Deserialize)]
struct ByeBody {
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
    id: String,
    #[serde(deserialize_with = "epoch")]
    epoch: Epoch,
    offset: u64,
    duplicate: bool,
}

#[derive(Deserialize)]
struct HistoryBody {
    #[serde(deserialize_with = "epoch")]
    epoch: Epoch,
    events: Vec<MessageBody>,
    next: Option<PositionBody>,
    recovered: bool,
}

#[derive(Deserialize)]
struct PositionBody {
    #[serde(deserialize_with = "epoch")]
    epoch: Epoch,
    offset: u64,
}

impl MessageBody {
    fn into_pair(self) -> (u64, EventJson) {
        (self.offset, EventJson::from_log(self.event.get()))
    }
}

impl From<PositionBody> for Position {
    fn from(body: PositionBody) -> Self {
        Self::new(body.epoch, body.offset)
    }
}

fn epoch<'text, D: Deserializer<'text>>(deserializer: D) -> Result<Epoch, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

fn channel<'text, D: Deserializer<'text>>(deserializer: D) -> Result<Channel, D::Error> {
    Channel::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::Reference;
    use crate::native::server::{self, Reply};
    use proptest::prelude::*;

    const POSITION: Position = Position::new(Epoch(u64::MAX), 41);

    fn answer(frame: &str) -> Answer {
        match decode(frame).expect(frame) {
            ServerFrame::Reply { reference, outcome } => {
                assert_eq!(reference.as_deref(), Some("9"));
                outcome.expect("a good reply")
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn replies_read_back_as_they_were_written() {
        let channel = Channel::parse("a/b").expect("a channel");
        let reference = Reference::try_new("9").expect("a reference");
        let reply = |reply: Reply<'_>| answer(&server::reply(Some(&reference), &reply));
        for recovered in [None, Some(true), Some(false)] {
            let read = reply(Reply::Subscribed { channel: &channel, position: POSITION, recovered }).subscribed();
            assert_eq!(read.expect("subscribed"), Subscribed { position: POSITION, recovered });
        }
        let published = Reply::Published { channel: &channel, id: "i\"d", position: POSITION, duplicate: true };
        let read = reply(published).published().expect("published");
        assert_eq!(read, Published { id: "i\"d".to_owned(), position: POSITION, duplicate: true });
        reply(Reply::Unsubscribed { channel: &channel });
        reply(Reply::Pong);
        assert!(reply(Reply::Pong).subscribed().is_err());
        let fault = Fault::bad_request("channel", "is missing");
        let read = decode(&server::refusal(None, &fault)).expect("a reply");
        assert!(matches!(read, ServerFrame::Reply { reference: None, outcome: Err(found) } if found == fault));
    }

    #[test]
    fn a_gap_and_a_bye_read_back_as_they_were_written() {
        let channel = Channel::parse("a/b").expect("a channel");
        let gap = decode(&server::gap(&channel, Position::new(Epoch(7), 3), POSITION)).expect("a gap");
        let ServerFrame::Gap { channel: of, after, to } = gap else { panic!("a gap") };
        assert_eq!((of, after, to), (channel, Position::new(Epoch(7), 3), POSITION));
        for code in ErrorCode::ALL {
            let bye = decode(&server::bye(code, false)).expect("a bye");
            assert!(matches!(bye, ServerFrame::Bye { code: found, reconnect: false } if found == code));
        }
    }

    #[test]
    fn what_a_client_does_not_know_is_passed_over_and_what_lacks_something_is_not() {
        assert!(matches!(decode(r#"{"type":"keepalive"}"#), Ok(ServerFrame::Other)));
        assert!(matches!(decode(r#"{"type":"brand_new","x":{}}"#), Ok(ServerFrame::Other)));
        assert!(matches!(decode(r#"{"type":"bye","code":"x","reconnect":true,"more":1}"#), Ok(ServerFrame::Bye { .. })));
        let gateway = r#"{"message": "Internal server error", "connectionId":"X=", "requestId":"Y="}"#;
        assert!(matches!(decode(gateway), Ok(ServerFrame::Gateway { message }) if message == "Internal server error"));
        for frame in ["", "[]", r#"{"type":"bye"}"#, r#"{"type":"reply","ok":false}"#, r#"{"type":"events","channel":"a//b"}"#] {
            assert!(decode(frame).is_err(), "{frame}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_decoder_panic(text in ".*", kind in "reply|events|gap|bye|reconnect", rest in ".*") {
            let _ = decode(&text);
            let _ = decode(&format!(r#"{{"type":"{kind}",{rest}}}"#));
        }
    }
}
