//! A stream's items as the bytes of server-sent events.

use carillon_core::channel::Channel;
use carillon_core::fault::Fault;
use carillon_core::time::Millis;
use carillon_engine::ports::{Clock, Live, Store};
use carillon_engine::stream::{Item, Stream};
use carillon_wire::sse::server::{self, Joined};
use carillon_wire::sse::vector::{LOST, Positions};
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
use tracing::Span;

/// An open stream, and what its client has been told.
pub(crate) struct Events<S, L: Live, C> {
    /// None once it is over.
    stream: Option<Stream<S, L, C>>,
    positions: Positions,
    named: bool,
    /// Goes before the first item.
    opening: &'static str,
    report: Report,
}

/// What the log is told of a stream when it is over, however that comes about.
pub(crate) struct Report {
    span: Span,
    now: Box<dyn Fn() -> Millis + Send>,
    began: Millis,
    channels: usize,
    messages: u64,
    gaps: u64,
    reason: &'static str,
}

impl<S: Store + 'static, L: Live, C: Clock> Events<S, L, C> {
    pub(crate) fn new(stream: Stream<S, L, C>, channels: &[Channel], named: bool, report: Report) -> Self {
        Self { stream: Some(stream), positions: Positions::of(channels), named, opening: server::OPENING, report }
    }

    /// The next bytes, which are whole events; none after the end.
    pub(crate) async fn next(&mut self) -> Option<String> {
        let next = AssertUnwindSafe(self.stream.as_mut()?.next()).catch_unwind().await;
        let item = next.unwrap_or_else(|_| {
            // What a panic leaves behind is not used again: the stream ends with this item.
            tracing::error!("a stream panicked");
            Some(Item::Fault(Fault::internal()))
        })?;
        let bytes = self.write(item);
        let opening = std::mem::take(&mut self.opening);
        Some(if opening.is_empty() { bytes } else { format!("{opening}{bytes}") })
    }

    fn write(&mut self, item: Item) -> String {
        match item {
            // The opening is a comment itself.
            Item::Heartbeat if !self.opening.is_empty() => String::new(),
            Item::Heartbeat => server::HEARTBEAT.to_owned(),
            Item::Subscribed(joined) => {
                for joined in &joined {
                    self.positions.set(&joined.channel, joined.position);
                }
                let joined = joined.iter().map(|joined| {
                    let (position, recovered) = (joined.position, joined.recovered);
                    Joined { channel: &joined.channel, position, recovered }
                });
                server::subscribed(&joined.collect::<Vec<_>>(), &self.positions.vector())
            }
            Item::Message { channel, position, json } => {
                self.positions.set(&channel, position);
                self.report.messages += 1;
                server::message(&json, self.named, &self.positions.vector())
            }
            Item::Gap { channel, after, to } => {
                self.positions.set(&channel, to);
                self.report.gaps += 1;
                server::gap(&channel, Some(after).filter(|after| *after != LOST), to, &self.positions.vector())
            }
            Item::Fault(fault) => {
                self.end(fault.code.as_str());
                server::error(&fault)
            }
            Item::End => {
                self.end("planned");
                server::end(&self.positions.vector())
            }
        }
    }

    fn end(&mut self, reason: &'static str) {
        self.stream = None;
        self.report.reason = reason;
    }
}

impl Report {
    /// A report on a stream of this many channels, which begins now. `now` tells the time at its end.
    pub(crate) fn new(channels: usize, now: Box<dyn Fn() -> Millis + Send>) -> Self {
        let began = now();
        // Unless the stream says otherwise: its response was given up by the runtime.
        Self { span: Span::current(), now, began, channels, messages: 0, gaps: 0, reason: "abandoned" }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        let duration_ms = (self.now)().since(self.began);
        self.span.in_scope(|| {
            tracing::info!(
                channels.count = self.channels,
                messages.count = self.messages,
                gaps.count = self.gaps,
                duration_ms,
                reason = self.reason,
                "a stream ended"
            );
        });
    }
}
