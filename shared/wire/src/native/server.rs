//! The server's frames of the native WebSocket protocol (`carillon.v1`). Specified in docs/protocol.md.
//!
//! Events, gaps and goodbyes go out by @connections, replies by route response. No frame is over
//! [`FRAME_BYTES`](carillon_core::limits::FRAME_BYTES).

use crate::json::ObjectWriter;
use crate::position;
use carillon_core::channel::Channel;
use carillon_core::event::EventJson;
use carillon_core::fault::ErrorCode;
use carillon_core::limits::FRAME_BYTES;
use carillon_core::position::{Epoch, Position};
use std::sync::Arc;

/// Messages of one epoch in as few `events` frames as hold them, in their order. `prev` (the position after which the epoch goes
/// on) stands in the first frame alone.
///
/// No frame is over [`FRAME_BYTES`], because no event is over [`EVENT_BYTES`](carillon_core::limits::EVENT_BYTES) and all that
/// stands around one is shorter than the difference.
#[must_use]
pub fn events(channel: &Channel, epoch: Epoch, messages: &[(u64, &EventJson)], prev: Option<Position>) -> Vec<Arc<str>> {
    let mut frames = Vec::new();
    let mut frame = EventsFrame::new(channel, epoch, prev);
    for (offset, event) in messages {
        let item = format!(r#"{{"offset":{offset},"event":{}}}"#, event.as_str());
        if !frame.has_room(&item) {
            let full = std::mem::replace(&mut frame, EventsFrame::new(channel, epoch, None));
            frames.push(full.finish());
        }
        frame.push(&item);
    }
    if !frame.is_empty() {
        frames.push(frame.finish());
    }
    frames
}

/// Says that the messages after `after`, up to and with `to`, cannot be delivered: the client goes on from `to`.
#[must_use]
pub fn gap(channel: &Channel, after: Position, to: Position) -> Arc<str> {
    let mut object = ObjectWriter::new();
    object.string("type", "gap");
    object.string("channel", channel.as_str());
    object.raw("after", position::encode(after));
    object.string("epoch", &to.epoch.to_string());
    object.raw("offset", to.offset);
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
