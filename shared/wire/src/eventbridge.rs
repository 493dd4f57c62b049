//! Amazon EventBridge's events:
//! <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html>.
//!
//! The detail says what is published: `channel`, and optionally `id`, `type` and `data`. Other fields of the detail are passed
//! over, because an event has other readers too. What the detail leaves out comes from the event: its id, its `detail-type` as the
//! type, its source, its time.

use crate::cloudevents::{self, Defaults, Draft};
use crate::json::{self, Members};
use carillon_core::channel::Channel;
use carillon_core::event::Event;
use carillon_core::fault::Fault;
use carillon_core::time::Millis;

/// Reads an event. `now` is its time where it has none, as happens when somebody made it by hand. EventBridge may hand the same event
/// in twice, so the id of the event always makes a repeat known as one.
///
/// # Errors
/// When it is no event of EventBridge, or its detail does not say what to publish.
pub fn decode(text: &str, now: Millis) -> Result<Event, Fault> {
    let mut event = Members::of("event", json::parse("event", text)?)?;
    let id = json::string("id", event.need("id")?)?;
    let source = json::string("source", event.need("source")?)?;
    let kind = json::string("detail-type", event.need("detail-type")?)?;
    let time = event.take_string("time")?;
    let detail = Members::of("detail", event.need("detail")?)?;
    let defaults = Defaults { source: &source, kind: &kind, time: now, id: &|_| id.clone(), repeats: true };
    let (channel, draft) = read_detail(detail).map_err(|fault| fault.within("detail."))?;
    Draft { time, ..draft }.into_event(channel, &defaults, None)
}

fn read_detail(mut detail: Members<'_>) -> Result<(Channel, Draft), Fault> {
    let channel = json::string("channel", detail.need("channel")?)?;
    let channel = Channel::parse(&channel).map_err(|error| error.in_field("channel"))?;
    let draft = Draft {
        id: detail.take_string("id")?,
        kind: detail.take_string("type")?,
        data: detail.take_nullable("data").map(cloudevents::plain_data).transpose()?,
        ..Draft::default()
    };
    Ok((channel, draft))
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::event::Identity;
    use proptest::prelude::*;

    fn read(detail: &str) -> Result<Event, String> {
        let text = format!(
            r#"{{"version":"0","id":"7bf7","detail-type":"Order paid","source":"com.example.shop","time":"2026-11-24T09:30:24Z","detail":{detail}}}"#
        );
        decode(&text, Millis(0)).map_err(|fault| fault.message.into_owned())
    }

    #[test]
    fn what_the_detail_leaves_out_comes_from_the_event() {
        let event = read(r#"{"channel":"orders/42","data":{"total": 19.90},"traced":true}"#).expect("an event");
        assert_eq!(
            cloudevents::encode(&event),
            r#"{"specversion":"1.0","id":"7bf7","source":"com.example.shop","type":"Order paid","subject":"orders/42","time":"2026-11-24T09:30:24Z","data":{"total": 19.90}}"#
        );
        assert_eq!(event.identity, Some(Identity::new("com.example.shop", "7bf7")));
    }

    #[test]
    fn what_the_detail_says_goes_before_the_event() {
        let event = read(r#"{"channel":"orders/42","id":"mine","type":"paid"}"#).expect("an event");
        assert_eq!((event.id.as_str(), event.kind.as_str()), ("mine", "paid"));
        assert_eq!(event.identity, Some(Identity::new("com.example.shop", "mine")));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(read("{}").expect_err("no channel"), "detail.channel: is missing");
        assert_eq!(read("7").expect_err("no object"), "detail: is a number, and an object is needed");
        assert_eq!(read(r#"{"channel":7}"#).expect_err("no string"), "detail.channel: is a number, and a string is needed");
        assert_eq!(read(r#"{"channel":"a","id":""}"#).expect_err("empty"), "id: is empty");
        assert_eq!(decode("{}", Millis(0)).expect_err("nothing").message, "id: is missing");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_decoder_panic(text in ".*") {
            let _ = decode(&text, Millis(0));
            let _ = read(&text);
        }
    }
}
