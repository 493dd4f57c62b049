//! What the server's blocks say.

use crate::positioned::{self, Positioned};
use carillon_core::channel::Channel;
use carillon_core::event::DEFAULT_TYPE;
use carillon_core::fault::Fault;
use carillon_core::position::{Epoch, Position};
use carillon_wire::fault;
use carillon_wire::sse::server;
use serde::Deserialize;
use sse_stream::Sse;
use std::time::Duration;

/// The beginning of the names of events that are about the stream.
const CONTROL: &str = "carillon.";

/// What a block says.
#[derive(Debug, PartialEq)]
pub(super) enum Frame {
    /// The channels of the stream, with what each was acknowledged.
    Subscribed(Vec<Acknowledged>),
    /// A message.
    Message(Positioned),
    /// Messages that cannot be delivered.
    Gap { channel: Channel, after: Option<Position>, to: Position },
    /// The server cannot go on.
    Error { fault: Fault, retry: bool },
    /// The planned end.
    End { reconnect_in: Duration },
    /// Nothing that concerns this version.
    Nothing,
}

/// A channel of the stream.
#[derive(Debug, PartialEq)]
pub(super) struct Acknowledged {
    pub(super) channel: Channel,
    pub(super) position: Position,
    pub(super) recovered: Option<bool>,
}

/// Reads a block.
///
/// # Errors
/// When its data is not what its name says.
pub(super) fn decode(block: &Sse) -> Result<Frame, serde_json::Error> {
    let Some(data) = block.data.as_deref().filter(|data| !data.is_empty()) else {
        return Ok(Frame::Nothing);
    };
    Ok(match block.event.as_deref().unwrap_or_default() {
        server::SUBSCRIBED => {
            let body: SubscribedBody = serde_json::from_str(data)?;
            Frame::Subscribed(body.channels.into_iter().map(Into::into).collect())
        }
        server::GAP => {
            let body: GapBody = serde_json::from_str(data)?;
            let to = Position::new(body.epoch, body.offset);
            Frame::Gap { channel: body.channel, after: body.after.map(Into::into), to }
        }
        server::ERROR => {
            let body: ErrorBody = serde_json::from_str(data)?;
            let code = fault::code(&body.code);
            let fault = Fault { retry_after_ms: body.retry_after_ms, ..Fault::new(code, body.message) };
            Frame::Error { fault, retry: body.retry }
        }
        server::END => {
            let body: EndBody = serde_json::from_str(data)?;
            Frame::End { reconnect_in: Duration::from_millis(body.reconnect_ms) }
        }
        name if name.starts_with(CONTROL) && name != DEFAULT_TYPE => Frame::Nothing,
        _ => Frame::Message(positioned::decode(data)?),
    })
}

#[derive(Deserialize)]
struct SubscribedBody {
    channels: Vec<ChannelBody>,
}

#[derive(Deserialize)]
struct ChannelBody {
    #[serde(deserialize_with = "positioned::channel")]
    channel: Channel,
    #[serde(deserialize_with = "positioned::epoch")]
    epoch: Epoch,
    offset: u64,
    recovered: Option<bool>,
}

#[derive(Deserialize)]
struct GapBody {
    #[serde(deserialize_with = "positioned::channel")]
    channel: Channel,
    after: Option<PositionBody>,
    #[serde(deserialize_with = "positioned::epoch")]
    epoch: Epoch,
    offset: u64,
}

#[derive(Deserialize)]
struct PositionBody {
    #[serde(deserialize_with = "positioned::epoch")]
    epoch: Epoch,
    offset: u64,
}

#[derive(Deserialize)]
struct ErrorBody {
    code: String,
    message: String,
    retry: bool,
    retry_after_ms: Option<u32>,
}

#[derive(Deserialize)]
struct EndBody {
    reconnect_ms: u64,
}

impl From<ChannelBody> for Acknowledged {
    fn from(body: ChannelBody) -> Self {
        Self { channel: body.channel, position: Position::new(body.epoch, body.offset), recovered: body.recovered }
    }
}

impl From<PositionBody> for Position {
    fn from(body: PositionBody) -> Self {
        Self::new(body.epoch, body.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::fault::ErrorCode;
    use carillon_wire::sse::vector::PositionVector;

    fn read(event: &str, data: &str) -> Result<Frame, String> {
        decode(&Sse::default().event(event).data(data)).map_err(|error| error.to_string())
    }

    fn at(offset: u64) -> Position {
        Position::new(Epoch(1_700), offset)
    }

    fn channel(name: &str) -> Channel {
        Channel::parse(name).expect("a channel")
    }

    /// What is read of a block as the server writes it.
    fn written(text: &str) -> Frame {
        let mut block = Sse::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            match line.split_once(": ").expect("a field") {
                ("event", value) => block.event = Some(value.to_owned()),
                ("data", value) => block.data = Some(value.to_owned()),
                _ => {}
            }
        }
        decode(&block).expect(text)
    }

    #[test]
    fn the_server_s_events_read_back_as_they_were_written() {
        let (a, b, id) = (channel("a"), channel("b"), PositionVector::default());
        let joined = [
            server::Joined { channel: &a, position: at(41), recovered: Some(true) },
            server::Joined { channel: &b, position: at(0), recovered: None },
        ];
        let acknowledged = |name, offset, recovered| Acknowledged { channel: channel(name), position: at(offset), recovered };
        let expected = Frame::Subscribed(vec![acknowledged("a", 41, Some(true)), acknowledged("b", 0, None)]);
        assert_eq!(written(&server::subscribed(&joined, &id)), expected);
        for after in [Some(at(42)), None] {
            assert_eq!(written(&server::gap(&a, after, at(57), &id)), Frame::Gap { channel: channel("a"), after, to: at(57) });
        }
        for code in ErrorCode::ALL {
            let fault = Fault::new(code, "no").retry_after(1_000);
            assert_eq!(written(&server::error(&fault)), Frame::Error { retry: code.retry(), fault });
        }
        let reconnect_in = Duration::from_millis(u64::from(server::RECONNECT_MS));
        assert_eq!(written(&server::end(&id)), Frame::End { reconnect_in });
    }

    #[test]
    fn messages_are_read_with_and_without_their_type_as_a_name() {
        let data = r#"{"id":"x","subject":"a","epoch":"1700","offset":42}"#;
        for event in [None, Some("order.placed".to_owned()), Some(DEFAULT_TYPE.to_owned())] {
            let block = Sse { event, data: Some(data.to_owned()), ..Sse::default() };
            let Ok(Frame::Message(message)) = decode(&block) else { panic!("{block:?}") };
            assert_eq!((message.position, message.event.as_str()), (at(42), r#"{"id":"x","subject":"a"}"#));
        }
    }

    #[test]
    fn what_a_newer_server_adds_is_passed_over_and_what_lacks_something_is_not() {
        assert_eq!(read("carillon.brand_new", "{}"), Ok(Frame::Nothing));
        assert_eq!(decode(&Sse::default().retry(5)).expect("a block"), Frame::Nothing);
        assert!(matches!(read("carillon.end", r#"{"reconnect_ms":1,"more":2}"#), Ok(Frame::End { .. })));
        for (event, data) in [
            ("carillon.subscribed", "{}"),
            ("carillon.gap", "[]"),
            ("carillon.error", r#"{"code":"x"}"#),
            ("", "{}"),
            ("x", "hello"),
        ] {
            assert!(read(event, data).is_err(), "{event} {data}");
        }
    }
}
