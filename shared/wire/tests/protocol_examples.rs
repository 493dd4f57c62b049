//! The examples of docs/protocol.md go through the decoders, and those that Carillon writes through the encoders too.

use base64::prelude::{BASE64_STANDARD, Engine};
use carillon_core::channel::Channel;
use carillon_core::event::EventJson;
use carillon_core::fault::Fault;
use carillon_core::limits;
use carillon_core::position::Position;
use carillon_core::time::Millis;
use carillon_wire::cloudevents::{self, Defaults};
use carillon_wire::native::client::{self, Action};
use carillon_wire::native::reading::{self, ServerFrame};
use carillon_wire::native::server::{self, HistoryReply, Reply};
use carillon_wire::native::{Reference, SUBPROTOCOL};
use carillon_wire::sse::server::Joined;
use carillon_wire::sse::vector::PositionVector;
use carillon_wire::{bearer, eventbridge, fault, http, iot, position, sse};
use serde_json::Value;
use std::collections::BTreeSet;

const DOCUMENT: &str = include_str!("../../../docs/protocol.md");

/// The blocks of one kind, with the line breaks that are there for reading taken out.
fn examples(kind: &str) -> Vec<String> {
    let joined = |lines: Vec<&str>| lines.into_iter().map(str::trim).collect();
    blocks(&format!("json {kind}")).into_iter().map(joined).collect()
}

/// The lines of the blocks with this info string.
fn blocks(wanted: &str) -> Vec<Vec<&'static str>> {
    let mut blocks = Vec::new();
    let mut block: Option<Vec<&str>> = None;
    for line in DOCUMENT.lines() {
        match (line.strip_prefix("```"), &mut block) {
            (Some(_), Some(lines)) => {
                blocks.push(std::mem::take(lines));
                block = None;
            }
            (Some(info), None) if info == wanted => block = Some(Vec::new()),
            // Blocks of other kinds are read to their end as well.
            (Some(_), None) | (None, None) => {}
            (None, Some(lines)) => lines.push(line),
        }
    }
    assert!(!blocks.is_empty(), "the page has examples of the kind {wanted}");
    blocks
}

fn defaults() -> Defaults<'static> {
    Defaults::unrepeatable("carillon:test", Millis(0), &|_| "made".to_owned())
}

/// The reply that `frame` shows, written again by the encoder.
fn written_again(frame: &str, outcome: &Result<reading::Answer, Fault>, reference: Option<&Reference>) -> String {
    let answer = match outcome {
        Ok(answer) => answer,
        Err(fault) => return server::refusal(reference, fault),
    };
    let value: Value = serde_json::from_str(frame).expect("JSON");
    let Some(channel) = value.get("channel") else { return server::reply(reference, &Reply::Pong) };
    let channel = &Channel::parse(channel.as_str().expect("a name")).expect("a channel");
    if let Ok(page) = answer.history() {
        let page = HistoryReply { channel, epoch: page.epoch, events: &page.events, next: page.next, recovered: page.recovered };
        return server::reply(reference, &Reply::History(page));
    }
    if let Ok(published) = answer.published() {
        let (position, duplicate) = (published.position, published.duplicate);
        return server::reply(reference, &Reply::Published { channel, id: &published.id, position, duplicate });
    }
    match answer.subscribed() {
        Ok(subscribed) => {
            let (position, recovered) = (subscribed.position, subscribed.recovered);
            server::reply(reference, &Reply::Subscribed { channel, position, recovered })
        }
        Err(_) => server::reply(reference, &Reply::Unsubscribed { channel }),
    }
}

#[test]
fn every_action_is_shown_and_every_frame_of_the_client_is_read() {
    let mut actions = BTreeSet::new();
    for example in examples("client") {
        let request = client::decode(&example, &defaults()).unwrap_or_else(|refusal| panic!("{example}: {}", refusal.fault));
        actions.insert(match request.action {
            Action::Subscribe { .. } => "subscribe",
            Action::Unsubscribe { .. } => "unsubscribe",
            Action::Publish(_) => "publish",
            Action::History { .. } => "history",
            Action::Ping => "ping",
        });
    }
    assert_eq!(actions, BTreeSet::from(["subscribe", "unsubscribe", "publish", "history", "ping"]));
}

#[test]
fn every_frame_of_the_server_is_shown_as_it_is_written() {
    let mut kinds = BTreeSet::new();
    for example in examples("server") {
        let (kind, again) = match reading::decode(&example).expect(&example) {
            ServerFrame::Reply { reference, outcome } => {
                let reference = reference.map(|reference| Reference::try_new(reference).expect("a reference"));
                ("reply", written_again(&example, &outcome, reference.as_ref()))
            }
            ServerFrame::Events { channel, epoch, prev, messages } => {
                let messages: Vec<(u64, &EventJson)> = messages.iter().map(|(offset, event)| (*offset, event)).collect();
                let frames: Vec<_> =
                    server::events(&channel, epoch, &messages, prev).into_iter().map(|frame| frame.text).collect();
                assert_eq!(frames.len(), 1, "{example}");
                ("events", frames[0].to_string())
            }
            ServerFrame::Gap { channel, after, to } => ("gap", server::gap(&channel, after, to).to_string()),
            ServerFrame::Bye { code, reconnect } => ("bye", server::bye(code, reconnect).to_string()),
            other => panic!("{example}: {other:?}"),
        };
        assert_eq!(again, example);
        kinds.insert(kind);
    }
    assert_eq!(kinds, BTreeSet::from(["reply", "events", "gap", "bye"]));
}

#[test]
fn the_events_inside_frames_are_events() {
    for example in examples("server") {
        let ServerFrame::Events { messages, .. } = reading::decode(&example).expect(&example) else { continue };
        for (_, event) in messages {
            let text = event.as_str();
            let read = http::decode_json(text, &defaults()).expect(text);
            assert_eq!(cloudevents::encode(&read[0]), text);
        }
    }
    for example in examples("event") {
        let read = http::decode_json(&example, &defaults()).expect(&example);
        assert_eq!(cloudevents::encode(&read[0]), example);
    }
}

#[test]
fn what_api_gateway_sends_is_told_apart() {
    for example in examples("gateway") {
        assert!(matches!(reading::decode(&example), Ok(ServerFrame::Gateway { .. })), "{example}");
    }
}

#[test]
fn every_http_request_is_read_and_every_answer_is_shown_as_it_is_written() {
    for example in examples("http request") {
        let events = http::decode(&[("content-type", "application/json")], example.as_bytes(), &defaults());
        assert!(events.is_ok(), "{example}: {events:?}");
    }
    for example in examples("http answer") {
        let again = match http::decode_answer(example.as_bytes()).expect(&example) {
            Ok(outcomes) => http::results(&outcomes),
            Err(fault) => http::refusal(&fault),
        };
        assert_eq!(again.body, example);
    }
    for example in examples("eventbridge") {
        let event = eventbridge::decode(&example, Millis(0)).expect(&example);
        assert_eq!(event.kind.as_str(), "com.example.order.paid");
    }
}

/// An event of a stream: name, id and data.
struct Event<'a> {
    name: Option<&'a str>,
    id: Option<PositionVector>,
    data: &'a str,
}

impl<'a> Event<'a> {
    fn of(lines: &[&'a str]) -> Self {
        let field = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let id = field("id").map(|id| PositionVector::decode(id).expect("an id"));
        Self { name: field("event"), id, data: field("data").expect("it has data") }
    }

    /// The event, written again by the encoder.
    fn written_again(&self) -> String {
        let id = || self.id.as_ref().expect("it has an id");
        let value: Value = serde_json::from_str(self.data).expect("JSON");
        let at = |value: &Value| {
            let epoch = value["epoch"].as_str().expect("a string").parse().expect("an epoch");
            Position::new(epoch, value["offset"].as_u64().expect("a number"))
        };
        let channel = |value: &Value| Channel::parse(value["channel"].as_str().expect("a name")).expect("a channel");
        match self.name {
            None => {
                let (event, position) = self.data.rsplit_once(r#","epoch":"#).expect("it has a position at its end");
                assert!(position.ends_with(&format!(r#""offset":{}}}"#, at(&value).offset)));
                let event = EventJson::from_log(format!("{event}}}"));
                sse::server::message(&cloudevents::placed(&event, at(&value)).expect("an object"), false, id())
            }
            Some(sse::server::SUBSCRIBED) => {
                let channels = value["channels"].as_array().expect("a list");
                let names: Vec<Channel> = channels.iter().map(channel).collect();
                let joined = names.iter().zip(channels).map(|(channel, value)| {
                    let recovered = value.get("recovered").map(|recovered| recovered.as_bool().expect("a boolean"));
                    Joined { channel, position: at(value), recovered }
                });
                sse::server::subscribed(&joined.collect::<Vec<_>>(), id())
            }
            Some(sse::server::GAP) => sse::server::gap(&channel(&value), value.get("after").map(at), at(&value), id()),
            Some(sse::server::ERROR) => {
                let text = |name: &str| value[name].as_str().expect("a string").to_owned();
                let fault = Fault::new(fault::code(&text("code")), text("message"));
                let wait = value["retry_after_ms"].as_u64().and_then(|wait| u32::try_from(wait).ok());
                sse::server::error(&wait.map_or(fault.clone(), |wait| fault.retry_after(wait)))
            }
            Some(sse::server::END) => sse::server::end(id()),
            Some(other) => panic!("{other} is no event of ours"),
        }
    }
}

#[test]
fn every_event_of_a_stream_is_shown_as_it_is_written() {
    let mut names = BTreeSet::new();
    for block in blocks("sse") {
        let text = format!("{}\n\n", block.join("\n"));
        let events = text.strip_prefix(sse::server::OPENING).unwrap_or(&text);
        assert!(!names.is_empty() || events.len() < text.len(), "the first stream is shown from its opening on");
        for event in events.split_terminator("\n\n") {
            let lines: Vec<&str> = event.lines().collect();
            let read = Event::of(&lines);
            assert_eq!(read.written_again(), format!("{event}\n\n"));
            names.insert(read.name.unwrap_or("a message").to_owned());
        }
    }
    let all = [sse::server::SUBSCRIBED, sse::server::GAP, sse::server::ERROR, sse::server::END, "a message"];
    assert_eq!(names, all.map(str::to_owned).into());
}

#[test]
fn mqtt_carries_what_a_stream_carries_and_devices_publish_as_shown() {
    for example in examples("mqtt") {
        assert!(Event { name: None, id: Some(PositionVector::default()), data: &example }.written_again().contains(&example));
    }
    for example in examples("device") {
        let envelope = serde_json::json!({
            "payload": BASE64_STANDARD.encode(&example), "topic": "carillon/p/orders/42", "client": "till-7", "trace": "e37e7a4d",
        });
        let event = iot::decode(&envelope.to_string(), Millis(0), "request-1").expect(&example);
        assert_eq!(event.channel.as_str(), "orders/42");
        let is_cloudevent = example.contains("specversion");
        assert_eq!(event.source.as_str() == "mqtt:till-7", !is_cloudevent, "{example}");
    }
}

/// A number as the page writes it.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[test]
fn the_limits_and_names_on_the_page_are_those_of_the_code() {
    let bytes = |limit: usize| grouped(limit as u64);
    for row in [
        format!(
            "| a channel | {} segments of {} bytes, {} bytes |",
            limits::CHANNEL_SEGMENTS,
            limits::SEGMENT_BYTES,
            limits::CHANNEL_BYTES
        ),
        format!("| an event as CloudEvents JSON | {} bytes, or less", bytes(limits::EVENT_BYTES)),
        format!("| a frame of the server | {} bytes |", bytes(limits::FRAME_BYTES)),
        format!(
            "| `id`, `source`, `type` of an event | {}, {}, {} bytes;",
            limits::EVENT_ID_BYTES,
            limits::EVENT_SOURCE_BYTES,
            limits::EVENT_TYPE_BYTES
        ),
        format!("| extension attributes of an event | {} |", limits::EVENT_EXTENSIONS),
        format!("| `ref` | {} bytes |", limits::REF_BYTES),
        format!("| subscriptions of a connection | {} |", limits::SUBSCRIPTIONS),
        format!("| channels of a stream | {} |", limits::STREAM_CHANNELS),
        format!("| `channel` | a channel; up to {} of them", limits::STREAM_CHANNELS),
        format!("| messages of a page of history | {} |", limits::HISTORY_PAGE),
        format!("| messages of one publish over HTTP, SQS, Invoke | {} |", limits::PUBLISH_BATCH),
        format!("| the body of `POST /publish` | {} bytes |", bytes(limits::PUBLISH_BYTES)),
        format!("| an offset | {} |", grouped(position::OFFSET_MAX)),
        format!("| how long an identity is known | {} hours |", limits::IDENTITY_SECONDS / 3600),
        format!("at most\n{} bytes, and its wording", bytes(fault::MESSAGE_BYTES)),
        format!("[\"{SUBPROTOCOL}\", `{}${{token}}`]", bearer::SUBPROTOCOL_PREFIX),
        format!("`?{}=<token>`", bearer::QUERY_PARAMETER),
    ] {
        assert!(DOCUMENT.contains(&row), "the page lacks {row:?}");
    }
}
