//! What waits for one listener.

use carillon_engine::ports::LiveEvent;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Messages that wait at most: more than two seconds of what IoT Core lets through on one connection.
pub(super) const MESSAGES: usize = 256;

/// Bytes of the messages that wait at most: two hundred listeners that have all stopped listening hold 200 MB. A message that is
/// larger waits alone.
pub(super) const BYTES: usize = 1024 * 1024;

/// What waits for one listener. Nobody waits to put something into it.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<LiveEvent>,
    messages: usize,
    bytes: usize,
}

impl Queue {
    /// The next event. It can be given up and called again without a loss. One caller at a time.
    pub(super) async fn next(&self) -> LiveEvent {
        loop {
            if let Some(event) = self.lock().take() {
                return event;
            }
            // What is put in between leaves a permit behind.
            self.filled.notified().await;
        }
    }

    /// Puts an event in. A message that finds no room is dropped, and the listener is told where it is missing.
    pub(super) fn put(&self, event: LiveEvent) {
        self.lock().put(event);
        self.filled.notify_one();
    }

    /// Nothing panics with the lock held, and the queue would be whole if it did.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn take(&mut self) -> Option<LiveEvent> {
        let event = self.events.pop_front()?;
        if let LiveEvent::Message { json, .. } = &event {
            self.messages -= 1;
            self.bytes -= json.len();
        }
        Some(event)
    }

    fn put(&mut self, event: LiveEvent) {
        match &event {
            // It reads the log from where it is: what waited is in there, and this keeps a listener that comes and goes bounded.
            LiveEvent::Away => *self = Self::default(),
            LiveEvent::Message { json, .. } => {
                let fits = self.messages < MESSAGES && self.bytes + json.len() <= BYTES;
                if !fits && self.messages > 0 {
                    return self.lag();
                }
                self.messages += 1;
                self.bytes += json.len();
            }
            LiveEvent::Joined | LiveEvent::Lagged => {}
        }
        self.events.push_back(event);
    }

    fn lag(&mut self) {
        if self.events.back() != Some(&LiveEvent::Lagged) {
            self.events.push_back(LiveEvent::Lagged);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::channel::Channel;
    use carillon_core::position::{Epoch, Position};

    fn message(offset: usize, bytes: usize) -> LiveEvent {
        let channel = Channel::parse("orders/42").expect("a channel");
        let position = Position::new(Epoch(1), u64::try_from(offset).expect("small"));
        LiveEvent::Message { channel, position, json: "x".repeat(bytes).into() }
    }

    fn drained(waiting: &mut Waiting) -> Vec<LiveEvent> {
        std::iter::from_fn(|| waiting.take()).collect()
    }

    #[test]
    fn what_fits_comes_out_in_order() {
        let mut waiting = Waiting::default();
        let mut expected = vec![LiveEvent::Joined];
        expected.extend((1..=MESSAGES).map(|offset| message(offset, 10)));
        expected.iter().cloned().for_each(|event| waiting.put(event));
        assert_eq!(drained(&mut waiting), expected);
        assert_eq!((waiting.messages, waiting.bytes), (0, 0));
    }

    #[test]
    fn w2_a_message_too_many_is_dropped_and_said_once_where_it_is_missing() {
        let mut waiting = Waiting::default();
        (1..=MESSAGES + 3).for_each(|offset| waiting.put(message(offset, 10)));
        assert_eq!(waiting.take(), Some(message(1, 10)));
        waiting.put(message(MESSAGES + 4, 10));
        let events = drained(&mut waiting);
        assert_eq!(events.len(), MESSAGES - 1 + 2);
        assert_eq!(events[MESSAGES - 2], message(MESSAGES, 10));
        assert_eq!(events[MESSAGES - 1..], [LiveEvent::Lagged, message(MESSAGES + 4, 10)]);
    }

    #[test]
    fn a_few_large_messages_are_too_many_as_well() {
        let mut waiting = Waiting::default();
        (1..=3).for_each(|offset| waiting.put(message(offset, BYTES / 2)));
        assert_eq!(drained(&mut waiting), [message(1, BYTES / 2), message(2, BYTES / 2), LiveEvent::Lagged]);
    }

    #[test]
    fn a_message_larger_than_the_limit_is_taken_alone() {
        let mut waiting = Waiting::default();
        (1..=2).for_each(|offset| waiting.put(message(offset, BYTES + 1)));
        assert_eq!(drained(&mut waiting), [message(1, BYTES + 1), LiveEvent::Lagged]);
    }

    #[test]
    fn away_takes_the_place_of_all_that_waits_so_that_the_queue_stays_bounded() {
        let mut waiting = Waiting::default();
        for _ in 0..1_000 {
            waiting.put(LiveEvent::Joined);
            waiting.put(message(1, 10));
            waiting.put(LiveEvent::Away);
        }
        waiting.put(LiveEvent::Joined);
        assert_eq!(drained(&mut waiting), [LiveEvent::Away, LiveEvent::Joined]);
        assert_eq!((waiting.messages, waiting.bytes), (0, 0));
    }

    #[tokio::test]
    async fn a_listener_that_gave_up_loses_nothing() {
        let queue = Queue::default();
        {
            let mut given_up = std::pin::pin!(queue.next());
            assert!(futures_util::poll!(&mut given_up).is_pending());
            queue.put(LiveEvent::Joined);
            // Dropped after it was woken, before it looked.
        }
        assert_eq!(queue.next().await, LiveEvent::Joined);
    }
}
