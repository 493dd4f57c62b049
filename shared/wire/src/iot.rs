//! What devices publish over MQTT, as the rule of IoT Core hands it to a function.
//!
//! An action of a rule gets exactly what the rule's SQL selects (AWS IoT Core Developer Guide, "AWS IoT SQL reference"), so the
//! envelope is our own:
//!
//! ```sql
//! SELECT encode(*, 'base64') AS payload, topic() AS topic, clientid() AS client, traceid() AS trace FROM '<prefix>/p/#'
//! ```
//!
//! What a device publishes is JSON: an object with `specversion` is a CloudEvent, anything else is the data of one. What it
//! leaves out comes from the message: the channel is what follows `<prefix>/p/` in its topic, the source is the client, and the
//! id is that of the message's trace, which repeats when Lambda tries an invocation again.

use crate::cloudevents::{self, Defaults, Draft};
use crate::json::{self, Kind, Members};
use base64::prelude::{BASE64_STANDARD, Engine};
use carillon_core::channel::Channel;
use carillon_core::event::{Data, Event};
use carillon_core::fault::Fault;
use carillon_core::mqtt::{MqttPrefix, TopicError};
use carillon_core::time::Millis;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// What `clientid()` says of a message that came over HTTP (AWS IoT Core Developer Guide, "Functions").
const NO_CLIENT: &str = "n/a";

/// What the source of a device's event begins with.
const SOURCE_SCHEME: &str = "mqtt:";

/// What cannot stand in the path of a URI (RFC 3986 section 3.3), which a `source` has to be: ids of clients may hold anything.
const NOT_IN_A_PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Reads the envelope. `now` is the event's time where it has none. `invocation` is the id of an event whose message has no
/// trace, as those have none that came over HTTP; Lambda's tries of one message keep it.
///
/// # Errors
/// When it is no envelope, its topic names no channel, or the payload is no JSON or no event.
pub fn decode(text: &str, now: Millis, invocation: &str) -> Result<Event, Fault> {
    let mut envelope = Members::of("event", json::parse("event", text)?)?;
    let topic = json::string("topic", envelope.need("topic")?)?;
    let channel = channel(&topic)?;
    let client = envelope.take_string("client")?;
    let id = envelope.take_string("trace")?.unwrap_or_else(|| invocation.to_owned());
    let payload = json::string("payload", envelope.need("payload")?)?;
    let payload = payload_bytes(&payload)?;
    let payload =
        std::str::from_utf8(&payload).map_err(|error| Fault::bad_request("payload", format_args!("is not JSON: {error}")))?;
    let source = source(client.as_deref());
    let new_id = |_| id.clone();
    event(channel, json::parse("payload", payload)?, &Defaults::repeatable(&source, now, &new_id))
}

/// The channel after `<prefix>/p/`. Any prefix will do: the rule takes messages of its own alone.
fn channel(topic: &str) -> Result<Channel, Fault> {
    let prefix = topic.split('/').next().unwrap_or_default();
    let channel = MqttPrefix::parse(prefix).ok().map(|prefix| prefix.channel_of_device_topic(topic));
    match channel {
        Some(Ok(channel)) => Ok(channel),
        Some(Err(TopicError::Channel(error))) => Err(error.in_field("topic")),
        None | Some(Err(TopicError::Foreign(_))) => {
            Err(Fault::bad_request("topic", format_args!("{topic:?} is not of the form <prefix>/p/<channel>")))
        }
    }
}

fn source(client: Option<&str>) -> String {
    let client = client.filter(|client| !client.is_empty()).unwrap_or(NO_CLIENT);
    format!("{SOURCE_SCHEME}{}", utf8_percent_encode(client, NOT_IN_A_PATH))
}

fn payload_bytes(text: &str) -> Result<Vec<u8>, Fault> {
    BASE64_STANDARD.decode(text).map_err(|_| Fault::bad_request("payload", "is not base64 of RFC 4648 section 4"))
}

fn event(channel: Channel, payload: &RawValue, defaults: &Defaults<'_>) -> Result<Event, Fault> {
    if is_cloudevent(payload) {
        let members = Members::of("payload", payload)?;
        return cloudevents::decode_on(channel, members, defaults).map_err(|fault| fault.within("payload."));
    }
    let data = json::data("payload", payload)?;
    Draft { data: Some(Data::Json(data.into())), ..Draft::default() }.into_event(channel, defaults, None)
}

/// Whether it is an object with `specversion`, or with several: those are refused as an event, and not taken for data.
fn is_cloudevent(payload: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Shape {
        specversion: Option<IgnoredAny>,
    }

    json::kind(payload) == Kind::Object
        && serde_json::from_str(payload.get()).map_or(true, |shape: Shape| shape.specversion.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::event::Identity;
    use proptest::prelude::*;
    use serde_json::json;

    const NOW: Millis = Millis(1_795_512_624_000);

    fn envelope(topic: &str, payload: &[u8]) -> serde_json::Value {
        json!({"payload": BASE64_STANDARD.encode(payload), "topic": topic, "client": "sensor-7", "trace": "e37e7a4d"})
    }

    fn read(topic: &str, payload: &[u8]) -> Result<Event, String> {
        decode(&envelope(topic, payload).to_string(), NOW, "request-1").map_err(|fault| fault.message.into_owned())
    }

    #[track_caller]
    fn refused(topic: &str, payload: &[u8], message: &str) {
        assert_eq!(read(topic, payload).expect_err(message), message);
    }

    #[test]
    fn any_json_is_the_data_of_an_event() {
        for data in [r#"{"celsius": 21.50}"#, "[1,2]", "21.50", r#""warm""#, "true", "null", r#"{"subject":"x","a":1,"a":2}"#] {
            let event = read("carillon/p/rooms/7", format!(" {data}\n").as_bytes()).expect(data);
            let expected = format!(
                r#"{{"specversion":"1.0","id":"e37e7a4d","source":"mqtt:sensor-7","type":"carillon.message","subject":"rooms/7","time":"2026-11-24T09:30:24Z","data":{data}}}"#
            );
            assert_eq!(cloudevents::encode(&event), expected);
            assert_eq!(event.identity, Some(Identity::new("mqtt:sensor-7", "e37e7a4d")));
        }
    }

    #[test]
    fn an_object_with_specversion_is_a_cloudevent() {
        let text = r#"{"specversion":"1.0","id":"1","source":"urn:sensor:7","type":"measured","subject":"rooms/7","time":"2026-11-24T09:30:00Z","data":21}"#;
        let event = read("carillon/p/rooms/7", text.as_bytes()).expect("an event");
        assert_eq!(cloudevents::encode(&event), text);
        assert_eq!(event.identity, Some(Identity::new("urn:sensor:7", "1")));

        let event = read("carillon/p/rooms/7", br#"{"specversion":"1.0","type":"measured"}"#).expect("an event");
        assert_eq!((event.id.as_str(), event.source.as_str(), event.kind.as_str()), ("e37e7a4d", "mqtt:sensor-7", "measured"));
    }

    #[test]
    fn a_message_that_came_over_http_has_no_trace_and_no_client() {
        let of = |envelope: serde_json::Value| decode(&envelope.to_string(), NOW, "request-1").expect("an event");
        let payload = BASE64_STANDARD.encode("1");
        for envelope in [
            json!({"payload": payload, "topic": "carillon/p/a", "client": "n/a"}),
            json!({"payload": payload, "topic": "carillon/p/a", "client": null, "trace": null}),
        ] {
            let event = of(envelope);
            assert_eq!((event.id.as_str(), event.source.as_str()), ("request-1", "mqtt:n/a"));
            assert_eq!(event.identity, Some(Identity::new("mqtt:n/a", "request-1")));
        }
    }

    #[test]
    fn the_id_of_any_client_makes_a_uri() {
        assert_eq!(source(Some("a b/ü\n#?%")), "mqtt:a%20b/%C3%BC%0A%23%3F%25");
        assert_eq!(source(Some("iotconsole-1_2.3:4@5")), "mqtt:iotconsole-1_2.3:4@5");
        assert_eq!(source(Some("")), "mqtt:n/a");
    }

    #[test]
    fn what_is_wrong_is_named() {
        refused("carillon/p/a", b"", "payload: is not JSON: EOF while parsing a value at line 1 column 0");
        refused("carillon/p/a", b"21,5", "payload: is not JSON: trailing characters at line 1 column 3");
        refused("carillon/p/a", b"\xff", "payload: is not JSON: invalid utf-8 sequence of 1 bytes from index 0");
        refused("carillon/p/a", br#"{"specversion":"0.3"}"#, r#"payload.specversion: "0.3" is not served; "1.0" is"#);
        let other = r#"payload.subject: "b" is not the channel, which is a"#;
        refused("carillon/p/a", br#"{"specversion":"1.0","subject":"b"}"#, other);
        refused("carillon/p/a", br#"{"specversion":"1.0","id":"1","id":"2"}"#, r#"payload: has the field "id" twice"#);
        refused("carillon/p/a", br#"{"specversion":"1.0","specversion":"1.0"}"#, r#"payload: has the field "specversion" twice"#);
        let deep = "[".repeat(101) + &"]".repeat(101);
        refused("carillon/p/a", deep.as_bytes(), "payload: 101 levels of nesting are over the limit of 100");
        for topic in ["", "carillon", "carillon/p", "carillon/c/a"] {
            refused(topic, b"1", &format!("topic: {topic:?} is not of the form <prefix>/p/<channel>"));
        }
        refused("carillon/p/", b"1", "topic: a channel has 1 to 6 segments, and this one is empty");
        let no_base64 = json!({"payload": "?", "topic": "carillon/p/a"}).to_string();
        let fault = decode(&no_base64, NOW, "r").expect_err("no base64");
        assert_eq!(fault.message, "payload: is not base64 of RFC 4648 section 4");
        assert_eq!(decode("{}", NOW, "r").expect_err("nothing").message, "topic: is missing");
    }

    proptest! {
        #[test]
        fn no_text_and_no_payload_make_the_decoder_panic(
            text in ".*", topic in ".*", payload in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = decode(&text, NOW, "r");
            let _ = read(&topic, &payload);
            let _ = read("carillon/p/a", &payload);
            let _ = read("carillon/p/a", format!(r#"{{"specversion":"1.0",{text}}}"#).as_bytes());
        }
    }
}
