//! What a channel's log shows to those who ask. Size and age of the namespace filter here and nowhere else (A1).

use crate::engine::{Engine, unavailable};
use crate::ports::{Answer, Clock, Queue, Store};
use carillon_core::channel::Channel;
use carillon_core::event::EventJson;
use carillon_core::fault::Fault;
use carillon_core::limits::{HISTORY_PAGE, HISTORY_PAGE_BYTES};
use carillon_core::position::{Epoch, Position};
use carillon_core::time::Millis;

/// Bytes that an event takes in a page beside its own: `{"offset":…,"event":},`.
const AROUND_EVENT_BYTES: usize = 48;

/// One page of a channel's history, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryPage {
    /// The epoch of every offset in it; 0 where nothing was ever published.
    pub epoch: Epoch,
    /// Offsets and events.
    pub events: Vec<(u64, EventJson)>,
    /// Where the next page begins; none at the end.
    pub next: Option<Position>,
    /// Whether the page goes on from the position asked for without a hole. Otherwise it begins at the oldest message there is.
    pub recovered: bool,
}

impl<S: Store, Q: Queue, C: Clock> Engine<S, Q, C> {
    /// The messages after `from`, or from the oldest that the namespace shows: `limit` at most and no more than fit a frame.
    /// Only the current epoch is shown: what lies before it is about to expire.
    ///
    /// # Errors
    /// `bad_request` when `limit` is not 1 to 100, `unavailable` when the store does not answer.
    pub async fn history(&self, channel: &Channel, from: Option<Position>, limit: usize) -> Result<HistoryPage, Fault> {
        if !(1..=HISTORY_PAGE).contains(&limit) {
            return Err(Fault::bad_request("limit", format_args!("{limit} is not within 1 to {HISTORY_PAGE}")));
        }
        self.page(channel, from, limit).await.map_err(unavailable)
    }

    async fn page(&self, channel: &Channel, from: Option<Position>, limit: usize) -> Answer<HistoryPage> {
        let options = self.options(&channel.namespace()).await?;
        let now = self.clock.now();
        let Some(head) = self.store.head(channel, now).await? else {
            return Ok(HistoryPage { epoch: Epoch(0), events: Vec::new(), next: None, recovered: from.is_none() });
        };
        let last = match self.store.newest(channel, head.epoch, now).await? {
            Some(tail) => tail.last,
            None => 0,
        };
        let by_size = last.saturating_sub(u64::from(options.history_size));
        let not_before = Millis(now.0.saturating_sub(options.history_age_s * 1_000));
        let oldest = self.first_since(channel, head.epoch, by_size, last, not_before).await?;
        let continued = from.filter(|from| from.epoch == head.epoch && (oldest..=last).contains(&from.offset));
        let after = continued.map_or(oldest, |from| from.offset);

        let window = self.store.read(channel, head.epoch, after, Some(last), limit, now).await?;
        let mut events = Vec::new();
        let (mut bytes, mut reached, mut whole) = (0, after, !window.full);
        for message in window.messages {
            let Some(event) = message.event else {
                tracing::warn!(channel.name = %channel, message.offset = message.offset, "history leaves out an entry that cannot be decoded");
                reached = message.offset;
                continue;
            };
            bytes += event.bytes() + AROUND_EVENT_BYTES;
            if bytes > HISTORY_PAGE_BYTES && !events.is_empty() {
                whole = false;
                break;
            }
            reached = message.offset;
            events.push((message.offset, event));
        }
        let next = (!whole).then_some(Position::new(head.epoch, reached));
        Ok(HistoryPage { epoch: head.epoch, events, next, recovered: from.is_none() || continued.is_some() })
    }

    /// The place before the first message after `after` that was appended at `not_before` or later: a binary search, since the
    /// log is in the order of time (by the clocks of those who append).
    async fn first_since(&self, channel: &Channel, epoch: Epoch, after: u64, last: u64, not_before: Millis) -> Answer<u64> {
        let (mut low, mut high) = (after, last);
        while low < high {
            // The first look is at the very first: most often nothing is too old.
            let middle = if low == after { low } else { low + (high - low) / 2 };
            let window = self.store.read(channel, epoch, middle, Some(last), 1, self.clock.now()).await?;
            match window.messages.first() {
                Some(message) if message.ts >= not_before => {
                    if middle == after {
                        // Entries before it may have expired.
                        return Ok(message.offset - 1);
                    }
                    high = middle;
                }
                Some(message) => low = message.offset,
                None => return Ok(last),
            }
        }
        Ok(low)
    }
}
