//! The client's frames of the native WebSocket protocol (`carillon.v1`). Specified in docs/protocol.md.
//!
//! A field that a frame does not have is refused by name: most are slips of the pen (`chanel`), and a subscribe whose `since` is
//! written `Since` would lose messages without a word.

use crate::cloudevents::{self, Defaults};
use crate::json::{self, Kind, Members};
use crate::native::Reference;
use crate::position;
use carillon_core::channel::Channel;
use carillon_core::event::Event;
use carillon_core::fault::{ErrorCode, Fault};
use carillon_core::limits::HISTORY_PAGE;
use carillon_core::position::Position;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The client's name for it.
    pub reference: Option<Reference>,
    /// What it is.
    pub action: Action,
}

/// The actions there are.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send what is published on a channel from now on, or from where the client left off.
    Subscribe {
        /// The channel.
        channel: Channel,
        /// What the client has.
        since: Option<Position>,
    },
    /// Send it no longer.
    Unsubscribe {
        /// The channel.
        channel: Channel,
    },
    /// Publish an event.
    Publish(Box<Event>),
    /// Show what a channel's log holds.
    History {
        /// The channel.
        channel: Channel,
        /// The position to go on from.
        from: Option<Position>,
        /// Messages of the page, 1 to [`HISTORY_PAGE`].
        limit: usize,
    },
    /// Answer.
    Ping,
}

/// A frame that is no request, and the client's name for it as far as it could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The client's name for it.
    pub reference: Option<Reference>,
    /// What is wrong.
    pub fault: Fault,
}

/// The names of the actions.
const ACTIONS: &str = "subscribe, unsubscribe, publish, history, ping";

/// Reads a frame.
///
/// # Errors
/// When it is no request; the fault names the field, what is wrong with it and the limit.
pub fn decode(frame: &str, defaults: &Defaults<'_>) -> Result<Request, Refusal> {
    let unnamed = |fault| Refusal { reference: None, fault };
    let mut members = json::parse("frame", frame).and_then(|value| Members::of("frame", value)).map_err(unnamed)?;
    let reference = members.take("ref").map(|value| {
        let found = json::kind(value);
        if found != Kind::Text {
            return Err(Fault::bad_request("ref", format_args!("is {found}, and a string is needed")));
        }
        Reference::try_new(json::string("ref", value)?)
    });
    let reference = reference.transpose().map_err(unnamed)?;
    match action(members, defaults) {
        Ok(action) => Ok(Request { reference, action }),
        Err(fault) => Err(Refusal { reference, fault }),
    }
}

fn action(mut members: Members<'_>, defaults: &Defaults<'_>) -> Result<Action, Fault> {
    let action = json::string("action", members.need("action")?)?;
    match action.as_str() {
        "subscribe" => subscribe(members),
        "unsubscribe" => unsubscribe(members),
        "publish" => publish(members, defaults),
        "history" => history(members),
        "ping" => members.finish(&["action", "ref"]).map(|()| Action::Ping),
        "presence" | "auth" => Err(unknown(format!("action: {action:?} is not served yet; there are {ACTIONS}"))),
        _ => Err(unknown(format!("action: {action:?} is none; there are {ACTIONS}"))),
    }
}

fn subscribe(mut members: Members<'_>) -> Result<Action, Fault> {
    refuse_pattern(&mut members)?;
    let channel = channel(&mut members)?;
    let since = members.take("since").map(|value| position::decode("since", value)).transpose()?;
    members.finish(&["action", "ref", "channel", "since"])?;
    Ok(Action::Subscribe { channel, since })
}

fn unsubscribe(mut members: Members<'_>) -> Result<Action, Fault> {
    refuse_pattern(&mut members)?;
    let channel = channel(&mut members)?;
    members.finish(&["action", "ref", "channel"])?;
    Ok(Action::Unsubscribe { channel })
}

fn publish(mut members: Members<'_>, defaults: &Defaults<'_>) -> Result<Action, Fault> {
    let channel = channel(&mut members)?;
    let event = Members::of("event", members.need("event")?)?;
    members.finish(&["action", "ref", "channel", "event"])?;
    let event = cloudevents::decode_on(channel, event, defaults).map_err(|fault| fault.within("event."))?;
    Ok(Action::Publish(Box::new(event)))
}

fn history(mut members: Members<'_>) -> Result<Action, Fault> {
    refuse_pattern(&mut members)?;
    let channel = channel(&mut members)?;
    let from = members.take("from").map(|value| position::decode("from", value)).transpose()?;
    let most = HISTORY_PAGE as u64;
    let limit = members.take("limit").map(|value| json::whole_number("limit", value, 1, most)).transpose()?;
    let limit = limit.map_or(HISTORY_PAGE, |limit| usize::try_from(limit).unwrap_or(HISTORY_PAGE));
    members.finish(&["action", "ref", "channel", "from", "limit"])?;
    Ok(Action::History { channel, from, limit })
}

fn channel(members: &mut Members<'_>) -> Result<Channel, Fault> {
    let text = json::string("channel", members.need("channel")?)?;
    Channel::parse(&text).map_err(|error| error.in_field("channel"))
}

fn refuse_pattern(members: &mut Members<'_>) -> Result<(), Fault> {
    match members.take("pattern") {
        Some(_) => Err(Fault::bad_request("pattern", "patterns are not served yet; name each channel in channel")),
        None => Ok(()),
    }
}

fn unknown(message: String) -> Fault {
    Fault::new(ErrorCode::UnknownAction, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::event::Data;
    use carillon_core::position::Epoch;
    use carillon_core::time::Millis;
    use proptest::prelude::*;

    fn read(frame: &str) -> Result<Request, Refusal> {
        decode(frame, &Defaults::unrepeatable("connection-1=", Millis(1_000), &|_| "made".to_owned()))
    }

    fn action(frame: &str) -> Action {
        read(frame).expect(frame).action
    }

    #[track_caller]
    fn refused(frame: &str, code: ErrorCode, message: &str) {
        let refusal = read(frame).expect_err(frame);
        assert_eq!((refusal.fault.code, &*refusal.fault.message), (code, message));
    }

    #[test]
    fn each_action_is_read_with_its_fields() {
        let channel = Channel::parse("orders/42").expect("a channel");
        let position = Position::new(Epoch(1_700), 41);
        let request = read(r#"{"action":"subscribe","ref":"2","channel":"orders/42","since":{"epoch":"1700","offset":41}}"#);
        assert_eq!(
            request,
            Ok(Request {
                reference: Reference::try_new("2").ok(),
                action: Action::Subscribe { channel: channel.clone(), since: Some(position) }
            })
        );
        assert_eq!(
            action(r#"{"action":"subscribe","channel":"orders/42","since":null}"#),
            Action::Subscribe { channel: channel.clone(), since: None }
        );
        assert_eq!(action(r#"{"action":"unsubscribe","channel":"orders/42"}"#), Action::Unsubscribe { channel: channel.clone() });
        assert_eq!(
            action(r#"{"action":"history","channel":"orders/42"}"#),
            Action::History { channel: channel.clone(), from: None, limit: 100 }
        );
        assert_eq!(
            action(r#"{"action":"history","channel":"orders/42","from":{"epoch":"1700","offset":41},"limit":7}"#),
            Action::History { channel: channel.clone(), from: Some(position), limit: 7 }
        );
        assert_eq!(action(r#"{"action":"ping"}"#), Action::Ping);
        let Action::Publish(event) = action(r#"{"action":"publish","channel":"orders/42","event":{"data":{"a": 1.0}}}"#) else {
            panic!("a publish");
        };
        assert_eq!((&event.channel, event.source.as_str(), event.id.as_str()), (&channel, "connection-1=", "made"));
        assert_eq!((&event.data, &event.identity), (&Data::Json(r#"{"a": 1.0}"#.into()), &None));
    }

    #[test]
    fn what_is_wrong_with_a_frame_is_named() {
        let bad = ErrorCode::BadRequest;
        refused("hello", bad, "frame: is not JSON: expected value at line 1 column 1");
        refused("[]", bad, "frame: is an array, and an object is needed");
        refused("{}", bad, "action: is missing");
        refused(r#"{"action":7}"#, bad, "action: is a number, and a string is needed");
        refused(r#"{"action":"subscribe"}"#, bad, "channel: is missing");
        refused(r#"{"action":"subscribe","channel":["a"]}"#, bad, "channel: is an array, and a string is needed");
        refused(
            r#"{"action":"subscribe","channel":"a//b"}"#,
            bad,
            "channel: segment 2 is empty: no channel begins or ends with '/' or holds '//'",
        );
        refused(
            r#"{"action":"subscribe","channel":"a","Since":{}}"#,
            bad,
            "Since: is no field here; there are action, ref, channel, since",
        );
        refused(r#"{"action":"subscribe","channel":"a","since":{"epoch":"1"}}"#, bad, "since.offset: is missing");
        refused(
            r#"{"action":"subscribe","pattern":"a/*"}"#,
            bad,
            "pattern: patterns are not served yet; name each channel in channel",
        );
        refused(r#"{"action":"publish","channel":"a"}"#, bad, "event: is missing");
        refused(r#"{"action":"publish","channel":"a","event":{"id":""}}"#, bad, "event.id: is empty");
        refused(
            r#"{"action":"publish","channel":"a","event":{},"data":1}"#,
            bad,
            "data: is no field here; there are action, ref, channel, event",
        );
        refused(r#"{"action":"history","channel":"a","limit":0}"#, bad, "limit: 0 is no whole number of 1 to 100");
        refused(r#"{"action":"history","channel":"a","limit":101}"#, bad, "limit: 101 is no whole number of 1 to 100");
        refused(r#"{"action":"ping","action":"ping"}"#, bad, "frame: has the field \"action\" twice");
        refused(r#"{"action":"ping","ref":7}"#, bad, "ref: is a number, and a string is needed");
        let long = format!(r#"{{"action":"ping","ref":"{}"}}"#, "r".repeat(65));
        refused(&long, bad, "ref: 65 bytes are over the limit of 64");
        let there = "there are subscribe, unsubscribe, publish, history, ping";
        let unknown = ErrorCode::UnknownAction;
        refused(r#"{"action":"Subscribe"}"#, unknown, &format!("action: \"Subscribe\" is none; {there}"));
        refused(r#"{"action":"presence"}"#, unknown, &format!("action: \"presence\" is not served yet; {there}"));
        refused(r#"{"action":"auth"}"#, unknown, &format!("action: \"auth\" is not served yet; {there}"));
    }

    #[test]
    fn a_refusal_carries_the_reference_when_it_could_be_read() {
        let refusal = read(r#"{"channel":"a","ref":"9"}"#).expect_err("no action");
        assert_eq!(refusal.reference, Reference::try_new("9").ok());
        assert_eq!(read(r#"{"ref":"9""#).expect_err("cut off").reference, None);
    }

    #[test]
    fn nothing_is_too_deep_or_too_large_to_be_refused() {
        let deep = "[".repeat(60_000) + &"]".repeat(60_000);
        for (frame, message) in [
            (deep.clone(), "frame: is an array, and an object is needed"),
            (format!(r#"{{"action":{deep}}}"#), "action: is an array, and a string is needed"),
            (format!(r#"{{"action":"ping","x":{deep}}}"#), "x: is no field here; there are action, ref"),
            (
                format!(r#"{{"action":"publish","channel":"a","event":{{"data":{deep}}}}}"#),
                "event.data: 60000 levels of nesting are over the limit of 100",
            ),
        ] {
            refused(&frame, ErrorCode::BadRequest, message);
        }
        let huge = format!(r#"{{"action":"history","channel":"a","limit":{}}}"#, "9".repeat(50_000));
        assert!(read(&huge).expect_err("huge").fault.message.starts_with("limit: 999"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_decoder_panic(text in ".*", action in "subscribe|publish|history|ping", rest in ".*") {
            let _ = read(&text);
            let _ = read(&format!(r#"{{"action":"{action}","channel":"a",{rest}}}"#));
            let _ = read(&format!(r#"{{"action":"{action}","channel":"a","event":{{{rest}}}}}"#));
        }

        #[test]
        fn a_subscribe_is_read_whatever_the_order_and_space_of_its_fields(epoch in any::<u64>(), offset in 0..=position::OFFSET_MAX) {
            let frame = format!("\n{{ \"since\" : {{\"offset\":{offset}, \"epoch\":\"{epoch}\"}},\t\"channel\":\"a\",\"action\":\"subscribe\" }} ");
            let since = Some(Position::new(Epoch(epoch), offset));
            prop_assert_eq!(action(&frame), Action::Subscribe { channel: Channel::parse("a").expect("a channel"), since });
        }
    }
}
