//! Events of SSE and MQTT: CloudEvents JSON whose last two members say where it stands, `"epoch":"1700…","offset":42`
//! (docs/protocol.md).

use carillon_core::channel::Channel;
use carillon_core::event::EventJson;
use carillon_core::position::{Epoch, Position};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// An event with its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Positioned {
    /// Its `subject`.
    pub(crate) channel: Channel,
    /// Where it stands.
    pub(crate) position: Position,
    /// The event as every other wire carries it: without the two members.
    pub(crate) event: EventJson,
}

/// Reads an event.
///
/// # Errors
/// When it is no JSON object, or has no channel or no position.
pub(crate) fn decode(text: &str) -> Result<Positioned, serde_json::Error> {
    let Head { channel, epoch, offset } = serde_json::from_str(text)?;
    let position = Position::new(epoch, offset);
    Ok(Positioned { channel, position, event: EventJson::from_log(without(text, position)) })
}

/// The event without its position. A writer that puts the two members elsewhere keeps them: they do no harm.
fn without(text: &str, position: Position) -> String {
    let last = format!(r#","epoch":"{}","offset":{}}}"#, position.epoch, position.offset);
    text.trim_end().strip_suffix(&last).map_or_else(|| text.to_owned(), |event| format!("{event}}}"))
}

#[derive(Deserialize)]
struct Head {
    #[serde(rename = "subject", deserialize_with = "channel")]
    channel: Channel,
    #[serde(deserialize_with = "epoch")]
    epoch: Epoch,
    offset: u64,
}

/// Reads an epoch: a decimal string (T1).
pub(crate) fn epoch<'text, D: Deserializer<'text>>(deserializer: D) -> Result<Epoch, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

/// Reads a channel.
pub(crate) fn channel<'text, D: Deserializer<'text>>(deserializer: D) -> Result<Channel, D::Error> {
    Channel::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_wire::cloudevents::placed;
    use proptest::prelude::*;

    #[test]
    fn the_position_is_read_and_taken_off() {
        let event = r#"{"specversion":"1.0","id":"a","subject":"orders/42","data":{"epoch":"9","offset":9,"n":1.0}}"#;
        let text = event.replacen(r#"1.0}}"#, r#"1.0},"epoch":"1700","offset":42}"#, 1);
        let read = decode(&text).expect("an event");
        assert_eq!((read.channel.as_str(), read.position), ("orders/42", Position::new(Epoch(1_700), 42)));
        assert_eq!(read.event.as_str(), event);
    }

    #[test]
    fn members_in_another_order_stay() {
        let text = r#"{"offset":42,"epoch":"1700","subject":"a"}"#;
        let read = decode(text).expect("an event");
        assert_eq!((read.position, read.event.as_str()), (Position::new(Epoch(1_700), 42), text));
    }

    #[test]
    fn what_has_no_place_is_refused() {
        for text in [
            "",
            "[]",
            r#"{"subject":"a","offset":1}"#,
            r#"{"subject":"a","epoch":"1"}"#,
            r#"{"subject":"a","epoch":1,"offset":1}"#,
            r#"{"subject":"a","epoch":"1","offset":-1}"#,
            r#"{"subject":"a//b","epoch":"1","offset":1}"#,
            r#"{"epoch":"1","offset":1}"#,
        ] {
            assert!(decode(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_event_reads_back_byte_for_byte(data in "[a-z0-9 \\\\\"{},:üß]*", epoch in any::<u64>(), offset in any::<u64>()) {
            let event = format!(r#"{{"subject":"a","data":{}}}"#, serde_json::to_string(&data).expect("text"));
            let position = Position::new(Epoch(epoch), offset);
            let text = placed(&EventJson::from_log(event.as_str()), position).expect("an object");
            let read = decode(&text).expect("an event");
            prop_assert_eq!(read.event.as_str(), event);
            prop_assert_eq!(read.position, position);
        }

        #[test]
        fn no_text_makes_the_decoder_panic(text in ".*") {
            let _ = decode(&text);
        }
    }
}
