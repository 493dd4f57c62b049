//! The bytes of a stream. Every function writes whole events, so that what is sent ends at the border of an event.

use super::vector::PositionVector;
use crate::fault;
use crate::json::{self, Members, ObjectWriter};
use crate::position;
use carillon_core::channel::Channel;
use carillon_core::event::DEFAULT_TYPE;
use carillon_core::fault::Fault;
use carillon_core::position::Position;

/// How a stream begins: a comment, which gets the answer's head through every buffer at once, and how long an `EventSource` waits
/// before it connects again, in milliseconds.
pub const OPENING: &str = ": carillon\n\nretry: 1000\n\n";

/// A comment that says that the stream lives.
pub const HEARTBEAT: &str = ":\n\n";

/// How long a client waits after a planned end, in milliseconds. It is short, since the moments of the ends are spread already.
pub const RECONNECT_MS: u32 = 500;

/// The name of the event that tells what the stream begins with.
pub const SUBSCRIBED: &str = "carillon.subscribed";

/// The name of the event that tells of messages which cannot be delivered.
pub const GAP: &str = "carillon.gap";

/// The name of the event that tells why the stream breaks off.
pub const ERROR: &str = "carillon.error";

/// The name of the event before a planned end.
pub const END: &str = "carillon.end";

/// How the names of the server's own events begin.
const OWN: &str = "carillon.";

/// Names under which an `EventSource` tells its user of its connection (HTML standard, section 9.2.3).
const OF_THE_CONNECTION: [&str; 2] = ["open", "error"];

/// Where a stream begins in one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined<'a> {
    /// The channel.
    pub channel: &'a Channel,
    /// The stream brings what comes after this.
    pub position: Position,
    /// Whether that is the position the client came with; none where it came without.
    pub recovered: Option<bool>,
}

/// Says that the stream has begun.
#[must_use]
pub fn subscribed(channels: &[Joined<'_>], id: &PositionVector) -> String {
    let channels: Vec<String> = channels.iter().map(joined).collect();
    let mut object = ObjectWriter::new();
    object.raw("channels", format_args!("[{}]", channels.join(",")));
    event(Some(SUBSCRIBED), Some(id), &object.finish())
}

/// A message: `json` is the event with its position in it, as [`placed`](crate::cloudevents::placed) writes it. With `named` its
/// type is the event's name, except where that is a name of the server's own or one of the connection's: no publisher speaks for
/// those.
#[must_use]
pub fn message(json: &str, named: bool, id: &PositionVector) -> String {
    let kind = if named { kind(json) } else { None };
    event(kind.as_deref().filter(|kind| !is_taken(kind)), Some(id), json)
}

/// Says that the messages after `after`, up to and with `to`, cannot be delivered. `after` is none where it is not known.
#[must_use]
pub fn gap(channel: &Channel, after: Option<Position>, to: Position, id: &PositionVector) -> String {
    let mut object = ObjectWriter::new();
    object.string("channel", channel.as_str());
    if let Some(after) = after {
        object.raw("after", position::encode(after));
    }
    add_position(&mut object, to);
    event(Some(GAP), Some(id), &object.finish())
}

/// Says why the stream breaks off. It has no id: the client comes back with the last one it has.
#[must_use]
pub fn error(fault: &Fault) -> String {
    event(Some(ERROR), None, &fault::encode(fault))
}

/// Says that the stream ends as planned.
#[must_use]
pub fn end(id: &PositionVector) -> String {
    let mut object = ObjectWriter::new();
    object.raw("reconnect_ms", RECONNECT_MS);
    event(Some(END), Some(id), &object.finish())
}

fn joined(joined: &Joined<'_>) -> String {
    let mut object = ObjectWriter::new();
    object.string("channel", joined.channel.as_str());
    add_position(&mut object, joined.position);
    if let Some(recovered) = joined.recovered {
        object.raw("recovered", recovered);
    }
    object.finish()
}

fn add_position(object: &mut ObjectWriter, position: Position) {
    object.string("epoch", &position.epoch.to_string());
    object.raw("offset", position.offset);
}

/// One event. Data that holds line breaks, as JSON may that somebody published with them, takes a field for each line, and the
/// reader puts them together again. In JSON a line break is white space between values, so it does not matter that each of the
/// three kinds comes out as a line feed.
fn event(name: Option<&str>, id: Option<&PositionVector>, data: &str) -> String {
    let id = id.map(PositionVector::encode);
    let mut text = String::with_capacity(data.len() + id.as_ref().map_or(0, String::len) + 64);
    // Neither has a line break: names are our own or attributes of CloudEvents, which hold no control characters.
    for (field, value) in [("event", name), ("id", id.as_deref())] {
        if let Some(value) = value {
            add_field(&mut text, field, value);
        }
    }
    for line in data.split("\r\n").flat_map(|part| part.split(['\r', '\n'])) {
        add_field(&mut text, "data", line);
    }
    text.push('\n');
    text
}

fn add_field(text: &mut String, field: &str, value: &str) {
    for part in [field, ": ", value, "\n"] {
        text.push_str(part);
    }
}

/// The event's type.
fn kind(json: &str) -> Option<String> {
    let members = json::parse("event", json).and_then(|value| Members::of("event", value));
    members.and_then(|mut members| members.take_string("type")).ok().flatten().filter(|kind| !kind.contains(['\r', '\n']))
}

fn is_taken(kind: &str) -> bool {
    (kind.starts_with(OWN) && kind != DEFAULT_TYPE) || OF_THE_CONNECTION.contains(&kind)
}

#[cfg(test)]
mod tests {
    use super::super::vector::Positions;
    use super::*;
    use crate::cloudevents;
    use carillon_core::event::EventJson;
    use carillon_core::position::Epoch;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn channel() -> Channel {
        Channel::parse("orders/42").expect("a channel")
    }

    fn position(offset: u64) -> Position {
        Position::new(Epoch(1_795_426_212_000), offset)
    }

    fn id(offset: u64) -> PositionVector {
        let mut positions = Positions::of([&channel()]);
        positions.set(&channel(), position(offset));
        positions.vector()
    }

    /// What a reader has after a stream's bytes: name, last id and data of each event (HTML standard, section 9.2.6).
    fn dispatched(stream: &str) -> Vec<(String, String, String)> {
        let (mut events, mut id) = (Vec::new(), String::new());
        let (mut name, mut data) = (String::new(), String::new());
        for line in stream.split("\r\n").flat_map(|part| part.split(['\r', '\n'])) {
            if line.is_empty() {
                let (name, data) = (std::mem::take(&mut name), std::mem::take(&mut data));
                if let Some(data) = data.strip_suffix('\n') {
                    events.push((name, id.clone(), data.to_owned()));
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut name),
                "data" => data.push_str(&format!("{value}\n")),
                "id" if !value.contains('\0') => value.clone_into(&mut id),
                _ => {}
            }
        }
        events
    }

    fn one(stream: &str) -> (String, String, Value) {
        let [(name, id, data)] = &dispatched(stream)[..] else { panic!("one event: {stream}") };
        (name.clone(), id.clone(), serde_json::from_str(data).expect("JSON"))
    }

    #[test]
    fn comments_and_retry_are_no_events() {
        assert!(dispatched(&format!("{OPENING}{HEARTBEAT}")).is_empty());
        assert!(OPENING.contains("\nretry: 1000\n"));
    }

    #[test]
    fn every_event_is_written_as_the_page_says() {
        let (a, b) = (channel(), Channel::parse("news").expect("a channel"));
        let joined = [
            Joined { channel: &a, position: position(41), recovered: Some(true) },
            Joined { channel: &b, position: position(7), recovered: None },
        ];
        let (text, found) = (id(41).encode(), one(&subscribed(&joined, &id(41))));
        let expected = json!({"channels": [
            {"channel": "orders/42", "epoch": "1795426212000", "offset": 41, "recovered": true},
            {"channel": "news", "epoch": "1795426212000", "offset": 7},
        ]});
        assert_eq!(found, ("carillon.subscribed".to_owned(), text.clone(), expected));

        let expected = json!({"channel": "orders/42", "after": {"epoch": "1795426212000", "offset": 3}, "epoch": "1795426212000", "offset": 41});
        assert_eq!(one(&gap(&a, Some(position(3)), position(41), &id(41))), ("carillon.gap".to_owned(), text.clone(), expected));
        let expected = json!({"channel": "orders/42", "epoch": "1795426212000", "offset": 41});
        assert_eq!(one(&gap(&a, None, position(41), &id(41))), ("carillon.gap".to_owned(), text.clone(), expected));

        let (name, id_of_error, data) = one(&error(&Fault::unavailable()));
        assert_eq!((name.as_str(), id_of_error.as_str()), ("carillon.error", ""));
        assert_eq!((&data["code"], &data["retry"], &data["retry_after_ms"]), (&json!("unavailable"), &json!(true), &json!(1000)));

        assert_eq!(one(&end(&id(41))), ("carillon.end".to_owned(), text, json!({"reconnect_ms": 500})));
    }

    #[test]
    fn a_message_has_its_type_for_a_name_only_when_asked() {
        let json = r#"{"type":"com.example.paid","data":1,"epoch":"1795426212000","offset":41}"#;
        assert_eq!(message(json, false, &id(41)), format!("id: {}\ndata: {json}\n\n", id(41).encode()));
        assert_eq!(message(json, true, &id(41)), format!("event: com.example.paid\nid: {}\ndata: {json}\n\n", id(41).encode()));
    }

    #[test]
    fn no_publisher_speaks_for_the_server_or_the_connection() {
        let named = |kind: &str| one(&message(&json!({"type": kind}).to_string(), true, &id(1))).0;
        for kind in ["carillon.end", "carillon.gap", "carillon.error", "carillon.subscribed", "carillon.later", "error", "open"] {
            assert_eq!(named(kind), "", "{kind}");
        }
        // The log never holds such a type; it would begin a field of its own.
        assert_eq!(named("a\nid: 1"), "");
        for kind in ["carillon.message", "carillonade", "errors", " spaced", "a: b"] {
            assert_eq!(named(kind), kind);
        }
    }

    #[test]
    fn data_with_line_breaks_stays_one_event() {
        let json = "{\"data\":{\r\n  \"a\": 1,\n\n\r  \"text\": \"x\\n\\n\"\r\n}}";
        let (_, _, data) = one(&message(json, false, &id(1)));
        assert_eq!(data, json!({"data": {"a": 1, "text": "x\n\n"}}));
    }

    fn white() -> impl Strategy<Value = String> {
        "[ \t\r\n]{0,5}"
    }

    proptest! {
        #[test]
        fn whatever_a_publisher_writes_arrives_as_one_event_with_the_same_value(
            text in ".*", kind in ".*", number in any::<i64>(), spaces in proptest::collection::vec(white(), 6), named in any::<bool>(),
        ) {
            let [a, b, c, d, e, f] = &spaces[..] else { panic!("six") };
            let data = format!("[{a}{number}{b},{c}{}{d},{e}{{}}{f}]", json::quote(&text));
            let event = EventJson::from_log(format!(r#"{{"type":{},"data":{data}}}"#, json::quote(&kind)));
            let json = cloudevents::placed(&event, position(41)).expect("an object");
            let stream = message(&json, named, &id(41));
            let (_, found_id, found) = one(&stream);
            prop_assert_eq!(found_id, id(41).encode());
            prop_assert_eq!(found, serde_json::from_str::<Value>(&json).expect("JSON"));
        }
    }
}
