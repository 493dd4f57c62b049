//! The server's frames of the native WebSocket protocol (`carillon.v1`). Specified in docs/protocol.md.
//!
//! Events, gaps and goodbyes go out by @connections, replies by route response. No frame is over
//! [`FRAME_BYTES`].

use crate::fault;
use crate::json::{ObjectWriter, quote};
use crate::native::Reference;
use crate::position;
use carillon_core::channel::Channel;
use carillon_core::event::EventJson;
use carillon_core::fault::{ErrorCode, Fault};
use carillon_core::limits::FRAME_BYTES;
use carillon_core::position::{Epoch, Position};
use std::sync::Arc;

/// What a request came to.
#[derive(Clone, Copy, Debug)]
pub enum Reply<'a> {
    /// The client gets what comes after `position`.
    Subscribed {
        /// The channel.
        channel: &'a Channel,
        /// The acknowledged position.
        position: Position,
        /// Whether that is the `since` the client came with; none where it came without.
        recovered: Option<bool>,
    },
    /// The client gets nothing of the channel any more.
    Unsubscribed {
        /// The channel.
        channel: &'a Channel,
    },
    /// The event is in the log.
    Published {
        /// The channel.
        channel: &'a Channel,
        /// The event's id.
        id: &'a str,
        /// Where it is; that of the first time, where it is a duplicate.
        position: Position,
        /// Whether the log had it already.
        duplicate: bool,
    },
    /// A page of a channel's history.
    History(HistoryReply<'a>),
    /// The answer to a ping.
    Pong,
}

/// A page of a channel's history.
#[derive(Clone, Copy, Debug)]
pub struct HistoryReply<'a> {
    /// The channel.
    pub channel: &'a Channel,
    /// The epoch of the offsets.
    pub epoch: Epoch,
    /// Offsets and events, oldest first.
    pub events: &'a [(u64, EventJson)],
    /// Where the next page begins, if there is one.
    pub next: Option<Position>,
    /// Whether the page goes on without a hole from where the client asked it to.
    pub recovered: bool,
}

/// The reply to a request that was done.
#[must_use]
pub fn reply(reference: Option<&Reference>, reply: &Reply<'_>) -> String {
    let mut object = begin_reply(reference, true);
    match reply {
        Reply::Subscribed { channel, position, recovered } => {
            object.string("channel", channel.as_str());
            add_position(&mut object, *position);
            if let Some(recovered) = recovered {
                object.raw("recovered", recovered);
            }
        }
        Reply::Unsubscribed { channel } => {
            object.string("channel", channel.as_str());
        }
        Reply::Published { channel, id, position, duplicate } => {
            object.string("channel", channel.as_str());
            object.string("id", id);
            add_position(&mut object, *position);
            object.raw("duplicate", duplicate);
        }
        Reply::History(page) => add_page(&mut object, reference, page),
        Reply::Pong => {}
    }
    object.finish()
}

/// The reply to a request that was not done.
#[must_use]
pub fn refusal(reference: Option<&Reference>, fault: &Fault) -> String {
    let mut object = begin_reply(reference, false);
    object.raw("error", fault::encode(fault));
    object.finish()
}

/// Messages of one epoch in as few `events` frames as hold them, in their order. `prev` (the position after which the epoch goes
/// on) stands in the first frame alone.
///
/// No frame is over [`FRAME_BYTES`], because no event is over [`EVENT_BYTES`](carillon_core::limits::EVENT_BYTES) and all that
/// stands around one is shorter than the difference.
#[must_use]
pub fn events(channel: &Channel, epoch: Epoch, messages: &[(u64, &EventJson)], prev: Option<Position>) -> Vec<Events> {
    let mut frames = Vec::new();
    let mut frame = EventsFrame::new(channel, epoch, prev);
    let mut last = 0;
    for (offset, event) in messages {
        let item = item(*offset, event);
        if !frame.has_room(&item) {
            let full = std::mem::replace(&mut frame, EventsFrame::new(channel, epoch, None));
            frames.push(Events { text: full.finish(), last });
        }
        frame.push(&item);
        last = *offset;
    }
    if !frame.is_empty() {
        frames.push(Events { text: frame.finish(), last });
    }
    frames
}

/// An `events` frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Events {
    /// The frame.
    pub text: Arc<str>,
    /// The offset of its last message.
    pub last: u64,
}

/// Says that the messages after `after`, up to and with `to`, cannot be delivered: the client goes on from `to`.
#[must_use]
pub fn gap(channel: &Channel, after: Position, to: Position) -> Arc<str> {
    let mut object = ObjectWriter::new();
    object.string("type", "gap");
    object.string("channel", channel.as_str());
    object.raw("after", position::encode(after));
    add_position(&mut object, to);
    object.finish().into()
}

/// The last frame before the server closes the connection.
#[must_use]
pub fn bye(code: ErrorCode, reconnect: bool) -> Arc<str> {
    let mut object = ObjectWriter::new();
    object.string("type", "bye");
    object.string("code", code.as_str());
    object.raw("reconnect", reconnect);
    object.finish().into()
}

fn begin_reply(reference: Option<&Reference>, ok: bool) -> ObjectWriter {
    let mut object = ObjectWriter::new();
    object.string("type", "reply");
    if let Some(reference) = reference {
        object.string("ref", reference.as_str());
    }
    object.raw("ok", ok);
    object
}

fn add_position(object: &mut ObjectWriter, position: Position) {
    object.string("epoch", &position.epoch.to_string());
    object.raw("offset", position.offset);
}

/// Adds as much of a page as a frame holds. A beginning of a page is a page: what is cut off comes with the next one.
fn add_page(object: &mut ObjectWriter, reference: Option<&Reference>, page: &HistoryReply<'_>) {
    let around = reference.map_or(0, |reference| quote(reference.as_str()).len()) + PAGE_HEAD_BYTES;
    let mut room = FRAME_BYTES - around;
    let mut items = String::new();
    let mut next = page.next;
    let mut last = None;
    for (offset, event) in page.events {
        let item = item(*offset, event);
        if item.len() + 1 > room && last.is_some() {
            next = last.map(|last| Position::new(page.epoch, last));
            break;
        }
        room = room.saturating_sub(item.len() + 1);
        if last.is_some() {
            items.push(',');
        }
        items.push_str(&item);
        last = Some(*offset);
    }
    object.string("channel", page.channel.as_str());
    object.string("epoch", &page.epoch.to_string());
    object.raw("recovered", page.recovered);
    object.raw("events", format_args!("[{items}]"));
    if let Some(next) = next {
        object.raw("next", position::encode(next));
    }
}

/// Bytes around the events of a page: a channel of 200 bytes, three numbers of 20 digits and some 130 bytes of names and marks.
const PAGE_HEAD_BYTES: usize = 512;

fn item(offset: u64, event: &EventJson) -> String {
    format!(r#"{{"offset":{offset},"event":{}}}"#, event.as_str())
}

/// An `events` frame being filled.
struct EventsFrame {
    text: String,
    head: usize,
}

/// What ends an `events` frame.
const EVENTS_END: &str = "]}";

impl EventsFrame {
    fn new(channel: &Channel, epoch: Epoch, prev: Option<Position>) -> Self {
        let prev = prev.map(|prev| format!(r#","prev":{}"#, position::encode(prev))).unwrap_or_default();
        // A channel's alphabet has nothing that JSON escapes.
        let text = format!(r#"{{"type":"events","channel":"{channel}","epoch":"{epoch}"{prev},"events":["#);
        Self { head: text.len(), text }
    }

    fn is_empty(&self) -> bool {
        self.text.len() == self.head
    }

    fn has_room(&self, item: &str) -> bool {
        self.is_empty() || self.text.len() + 1 + item.len() + EVENTS_END.len() <= FRAME_BYTES
    }

    fn push(&mut self, item: &str) {
        if !self.is_empty() {
            self.text.push(',');
        }
        self.text.push_str(item);
    }

    fn finish(self) -> Arc<str> {
        (self.text + EVENTS_END).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::reading::{self, ServerFrame};
    use carillon_core::limits::EVENT_BYTES;
    use proptest::prelude::*;

    fn event(bytes: usize) -> EventJson {
        EventJson::from_log(format!("\"{}\"", "x".repeat(bytes.saturating_sub(2))))
    }

    fn longest_channel() -> Channel {
        Channel::parse(&["c".repeat(64), "c".repeat(64), "c".repeat(64), "ccccc".to_owned()].join("/")).expect("a channel")
    }

    /// A reference that JSON makes as long as it can.
    fn longest_reference() -> Reference {
        Reference::try_new("\u{1}".repeat(64)).expect("64 bytes")
    }

    fn texts(frames: Vec<Events>) -> Vec<Arc<str>> {
        frames.into_iter().map(|frame| frame.text).collect()
    }

    #[test]
    fn the_largest_event_of_the_longest_channel_fits_a_frame_with_prev() {
        let largest = event(EVENT_BYTES);
        let far = Position::new(Epoch(u64::MAX), u64::MAX);
        let frames = texts(events(&longest_channel(), Epoch(u64::MAX), &[(u64::MAX, &largest), (u64::MAX, &largest)], Some(far)));
        assert_eq!(frames.len(), 2);
        assert!(frames.iter().all(|frame| frame.len() <= FRAME_BYTES));
        assert!(frames[0].contains("prev") && !frames[1].contains("prev"));
        assert!(events(&longest_channel(), Epoch(1), &[], None).is_empty());
    }

    #[test]
    fn the_largest_event_fits_a_page_of_history() {
        let page = HistoryReply {
            channel: &longest_channel(),
            epoch: Epoch(u64::MAX),
            events: &[(u64::MAX, event(EVENT_BYTES))],
            next: Some(Position::new(Epoch(u64::MAX), u64::MAX)),
            recovered: false,
        };
        let frame = reply(Some(&longest_reference()), &Reply::History(page));
        assert!(frame.len() <= FRAME_BYTES, "{}", frame.len());
        assert!(frame.contains(&"x".repeat(EVENT_BYTES - 2)));
    }

    #[test]
    fn the_longest_error_fits_a_frame() {
        let fault = Fault::bad_request("x", "\u{1}".repeat(200_000)).retry_after(u32::MAX);
        assert!(refusal(Some(&longest_reference()), &fault).len() <= FRAME_BYTES);
    }

    fn sizes() -> impl Strategy<Value = Vec<usize>> {
        proptest::collection::vec(prop_oneof![4 => 2_usize..600, 1 => 2_usize..=EVENT_BYTES], 0..100)
    }

    proptest! {
        #[test]
        fn frames_hold_every_message_once_in_order_and_none_is_too_large(
            sizes in sizes(), first in 1..1_000_000_u64, epoch in any::<u64>(), prev in proptest::option::of(any::<(u32, u32)>()),
        ) {
            let channel = Channel::parse("a/b").expect("a channel");
            let messages: Vec<(u64, EventJson)> = sizes.iter().zip(first..).map(|(size, offset)| (offset, event(*size))).collect();
            let borrowed: Vec<(u64, &EventJson)> = messages.iter().map(|(offset, event)| (*offset, event)).collect();
            let prev = prev.map(|(epoch, offset)| Position::new(Epoch(epoch.into()), offset.into()));
            let frames = texts(events(&channel, Epoch(epoch), &borrowed, prev));
            let mut found = Vec::new();
            for (index, frame) in frames.iter().enumerate() {
                prop_assert!(frame.len() <= FRAME_BYTES);
                let read = reading::decode(frame).expect("a frame");
                let ServerFrame::Events { channel: of, epoch: in_epoch, prev: after, messages } = read else { panic!("events") };
                prop_assert_eq!((&of, in_epoch, after), (&channel, Epoch(epoch), prev.filter(|_| index == 0)));
                found.extend(messages);
            }
            prop_assert_eq!(found, messages);
        }

        #[test]
        fn pages_of_history_lead_from_one_to_the_next_without_a_hole(sizes in sizes()) {
            let channel = longest_channel();
            let messages: Vec<(u64, EventJson)> = sizes.iter().zip(1..).map(|(size, offset)| (offset, event(*size))).collect();
            let (mut rest, mut found) = (&messages[..], Vec::new());
            loop {
                let page = HistoryReply { channel: &channel, epoch: Epoch(7), events: rest, next: None, recovered: true };
                let frame = reply(Some(&longest_reference()), &Reply::History(page));
                prop_assert!(frame.len() <= FRAME_BYTES);
                let ServerFrame::Reply { outcome: Ok(answer), .. } = reading::decode(&frame).expect("a frame") else { panic!("a reply") };
                let page = answer.history().expect("a page");
                found.extend(page.events);
                let Some(next) = page.next else { break };
                prop_assert_eq!(next.epoch, Epoch(7));
                rest = &messages[usize::try_from(next.offset).expect("small")..];
            }
            prop_assert_eq!(found, messages);
        }
    }
}
