//! The native protocol's frames as a client writes them (docs/protocol.md); `carillon_wire::native::reading` reads the server's.

use carillon_core::channel::Channel;
use carillon_core::position::Position;
use carillon_wire::position;
use serde::Serialize;
use serde_json::value::RawValue;

pub(super) fn subscribe(reference: u64, channel: &Channel, since: Option<Position>) -> String {
    let frame = ClientFrame::new("subscribe", reference);
    encode(&ClientFrame { channel: Some(channel.as_str()), since: since.map(raw), ..frame })
}

pub(super) fn unsubscribe(reference: u64, channel: &Channel) -> String {
    encode(&ClientFrame { channel: Some(channel.as_str()), ..ClientFrame::new("unsubscribe", reference) })
}

pub(super) fn publish(reference: u64, channel: &Channel, event: &RawValue) -> String {
    encode(&ClientFrame { channel: Some(channel.as_str()), event: Some(event), ..ClientFrame::new("publish", reference) })
}

pub(super) fn history(reference: u64, channel: &Channel, from: Option<Position>, limit: Option<usize>) -> String {
    let frame = ClientFrame::new("history", reference);
    encode(&ClientFrame { channel: Some(channel.as_str()), from: from.map(raw), limit, ..frame })
}

pub(super) fn ping(reference: u64) -> String {
    encode(&ClientFrame::new("ping", reference))
}

#[derive(Serialize)]
struct ClientFrame<'text> {
    action: &'static str,
    #[serde(rename = "ref")]
    reference: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'text str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Box<RawValue>>,
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

fn encode(frame: &ClientFrame<'_>) -> String {
    serde_json::to_string(frame).expect("a frame has string keys and plain values")
}

fn raw(position: Position) -> Box<RawValue> {
    RawValue::from_string(position::encode(position)).expect("a position is encoded as JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::position::Epoch;
    use carillon_core::time::Millis;
    use carillon_wire::cloudevents::Defaults;
    use carillon_wire::native::client::{Action, decode};

    /// What the server reads of a frame whose reference is 7.
    fn read(frame: &str) -> Action {
        let request = decode(frame, &Defaults::unrepeatable("connection=", Millis(0), &|_| "made".to_owned())).expect(frame);
        assert_eq!(request.reference.expect("a reference").as_str(), "7");
        request.action
    }

    #[test]
    fn the_server_reads_what_the_client_writes() {
        let channel = Channel::parse("orders/42").expect("a channel");
        let position = Position::new(Epoch(1_700), 41);
        for since in [None, Some(position)] {
            let expected = Action::Subscribe { channel: channel.clone(), since };
            assert_eq!(read(&subscribe(7, &channel, since)), expected);
        }
        assert_eq!(read(&unsubscribe(7, &channel)), Action::Unsubscribe { channel: channel.clone() });
        let expected = Action::History { channel: channel.clone(), from: Some(position), limit: 5 };
        assert_eq!(read(&history(7, &channel, Some(position), Some(5))), expected);
        let expected = Action::History { channel: channel.clone(), from: None, limit: 100 };
        assert_eq!(read(&history(7, &channel, None, None)), expected);
        assert_eq!(read(&ping(7)), Action::Ping);
        let event = RawValue::from_string(r#"{"id":"a","data":{"n":1}}"#.to_owned()).expect("JSON");
        let Action::Publish(event) = read(&publish(7, &channel, &event)) else { panic!("a publish") };
        assert_eq!((event.channel.as_str(), event.id.as_str()), ("orders/42", "a"));
    }
}
