//! A standard queue as values: no clock, no tasks. Time is an argument, in milliseconds since 1970.
//!
//! Messages come roughly in the order in which they were sent, each at least once, as a standard queue promises (Amazon SQS
//! Developer Guide, "Amazon SQS standard queues").

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::attributes::MessageAttributes;

/// "A maximum of approximately 120,000 in flight messages" (Amazon SQS Developer Guide, "Amazon SQS message quotas").
pub const MAXIMUM_IN_FLIGHT: usize = 120_000;

/// A message can be invisible for 12 hours from the moment it was received (same page).
pub const MAXIMUM_VISIBILITY: Duration = Duration::from_secs(12 * 60 * 60);

/// How a queue behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a received message stays invisible.
    pub visibility: Duration,
    /// How long a sent message stays invisible.
    pub delay: Duration,
    /// How long a message is kept.
    pub retention: Duration,
    /// After how many receives a message goes to the dead-letter queue.
    pub maximum_receives: Option<u32>,
}

/// What a sender gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewMessage {
    /// The body.
    pub body: String,
    /// The attributes that the sender chose.
    pub attributes: MessageAttributes,
    /// `AWSTraceHeader`, the only system attribute that a sender may give.
    pub trace_header: Option<String>,
    /// `MessageGroupId`: on a standard queue it asks for fairness between groups, and is handed on.
    pub group_id: Option<String>,
    /// Overrides the queue's delay.
    pub delay: Option<Duration>,
}

/// A message in the queue or on its way out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `MessageId`.
    pub id: String,
    /// The body.
    pub body: String,
    /// The attributes that the sender chose.
    pub attributes: MessageAttributes,
    /// `AWSTraceHeader`.
    pub trace_header: Option<String>,
    /// `MessageGroupId`.
    pub group_id: Option<String>,
    /// `SentTimestamp`. It stays when a message moves to a dead-letter queue, and so does the end of its retention.
    pub sent_at: u64,
    /// `ApproximateFirstReceiveTimestamp`.
    pub first_received_at: Option<u64>,
    /// `ApproximateReceiveCount`.
    pub receives: u32,
    /// `DeadLetterQueueSourceArn`.
    pub dead_letter_source: Option<String>,
}

/// A message that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The message, this receive counted.
    pub message: Message,
    /// What deletes it or changes its visibility, until it is received again.
    pub receipt: Receipt,
}

/// Names one receive of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Receipt {
    /// The message's number in its queue.
    pub number: u64,
    /// Which receive it was, from 1.
    pub receive: u32,
}

/// What a receive gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// The messages for the receiver.
    pub deliveries: Vec<Delivery>,
    /// The messages that were received too often and belong into the dead-letter queue now.
    pub dead: Vec<Message>,
}

/// How many messages there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// `ApproximateNumberOfMessages`.
    pub visible: usize,
    /// `ApproximateNumberOfMessagesNotVisible`.
    pub in_flight: usize,
    /// `ApproximateNumberOfMessagesDelayed`.
    pub delayed: usize,
}

/// Why a visibility cannot be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VisibilityFault {
    /// The message was deleted, or received again since.
    Gone,
    /// The message is visible.
    NotInFlight,
    /// It would be invisible for more than 12 hours.
    TooLong,
}

/// A queue.
#[derive(Debug)]
pub struct Queue {
    settings: Settings,
    next_number: u64,
    messages: BTreeMap<u64, Stored>,
    /// Numbers of visible messages.
    visible: BTreeSet<u64>,
    /// When an invisible message becomes visible.
    invisible: BTreeSet<(u64, u64)>,
    /// When a message was sent, to find those that are too old.
    by_age: BTreeSet<(u64, u64)>,
    in_flight: usize,
}

#[derive(Debug)]
struct Stored {
    message: Message,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Visible,
    Delayed { until: u64 },
    InFlight { until: u64, received_at: u64 },
}

impl Queue {
    /// An empty queue.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            next_number: 0,
            messages: BTreeMap::new(),
            visible: BTreeSet::new(),
            invisible: BTreeSet::new(),
            by_age: BTreeSet::new(),
            in_flight: 0,
        }
    }

    /// How it behaves.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes a new message under an id.
    pub fn send(&mut self, now: u64, id: String, new: NewMessage) {
        let delay = new.delay.unwrap_or(self.settings.delay);
        let message = Message {
            id,
            body: new.body,
            attributes: new.attributes,
            trace_header: new.trace_header,
            group_id: new.group_id,
            sent_at: now,
            first_received_at: None,
            receives: 0,
            dead_letter_source: None,
        };
        let state = if delay.is_zero() { State::Visible } else { State::Delayed { until: now + milliseconds(delay) } };
        self.insert(message, state);
    }

    /// Takes a message that another queue gave up. It keeps its id, its age and its count of receives.
    pub fn bury(&mut self, message: Message) {
        self.insert(message, State::Visible);
    }

    /// Receives up to `maximum` messages, which stay invisible for `visibility`.
    pub fn receive(&mut self, now: u64, maximum: usize, visibility: Duration) -> Received {
        self.settle(now);
        let mut received = Received::default();
        while received.deliveries.len() < maximum {
            let Some(number) = self.visible.pop_first() else { break };
            let stored = self.messages.get_mut(&number).expect("a visible message is stored");
            if self.settings.maximum_receives.is_some_and(|maximum| stored.message.receives >= maximum) {
                let sent_at = stored.message.sent_at;
                self.by_age.remove(&(sent_at, number));
                let stored = self.messages.remove(&number).expect("it was just found");
                received.dead.push(stored.message);
                continue;
            }
            stored.message.receives += 1;
            stored.message.first_received_at.get_or_insert(now);
            let receipt = Receipt { number, receive: stored.message.receives };
            received.deliveries.push(Delivery { message: stored.message.clone(), receipt });
            if visibility.is_zero() {
                stored.state = State::Visible;
                continue;
            }
            let until = now + milliseconds(visibility);
            stored.state = State::InFlight { until, received_at: now };
            self.invisible.insert((until, number));
            self.in_flight += 1;
        }
        // A visibility of zero hands a message out and leaves it visible, once a receive.
        for delivery in &received.deliveries {
            let number = delivery.receipt.number;
            if self.messages.get(&number).is_some_and(|stored| stored.state == State::Visible) {
                self.visible.insert(number);
            }
        }
        received
    }

    /// Deletes a message. A receipt of an earlier receive deletes nothing and is no error, as on SQS.
    pub fn delete(&mut self, now: u64, receipt: Receipt) {
        self.settle(now);
        if self.messages.get(&receipt.number).is_some_and(|stored| stored.message.receives == receipt.receive) {
            self.remove(receipt.number);
        }
    }

    /// Changes how long a received message stays invisible, from now on.
    ///
    /// # Errors
    /// When the message is gone or visible, or the total would be over 12 hours.
    pub fn change_visibility(&mut self, now: u64, receipt: Receipt, visibility: Duration) -> Result<(), VisibilityFault> {
        self.settle(now);
        let stored = self.messages.get_mut(&receipt.number).ok_or(VisibilityFault::Gone)?;
        if stored.message.receives != receipt.receive {
            return Err(VisibilityFault::Gone);
        }
        let State::InFlight { until, received_at } = stored.state else { return Err(VisibilityFault::NotInFlight) };
        let wanted = now + milliseconds(visibility);
        if wanted - received_at > milliseconds(MAXIMUM_VISIBILITY) {
            return Err(VisibilityFault::TooLong);
        }
        self.invisible.remove(&(until, receipt.number));
        if visibility.is_zero() {
            stored.state = State::Visible;
            self.in_flight -= 1;
            self.visible.insert(receipt.number);
        } else {
            stored.state = State::InFlight { until: wanted, received_at };
            self.invisible.insert((wanted, receipt.number));
        }
        Ok(())
    }

    /// Deletes every message.
    pub fn purge(&mut self) {
        self.messages.clear();
        self.visible.clear();
        self.invisible.clear();
        self.by_age.clear();
        self.in_flight = 0;
    }

    /// How many messages there are.
    pub fn counts(&mut self, now: u64) -> Counts {
        self.settle(now);
        let visible = self.visible.len();
        Counts { visible, in_flight: self.in_flight, delayed: self.messages.len() - visible - self.in_flight }
    }

    /// When the next invisible message becomes visible.
    #[must_use]
    pub fn next_visible_at(&self) -> Option<u64> {
        self.invisible.first().map(|(until, _)| *until)
    }

    /// Lets time pass: drops what is too old and shows what has waited long enough.
    fn settle(&mut self, now: u64) {
        let oldest = now.saturating_sub(milliseconds(self.settings.retention));
        while let Some((sent_at, number)) = self.by_age.first().copied() {
            if sent_at >= oldest {
                break;
            }
            self.remove(number);
        }
        while let Some((until, number)) = self.invisible.first().copied() {
            if until > now {
                break;
            }
            self.invisible.pop_first();
            let stored = self.messages.get_mut(&number).expect("an invisible message is stored");
            if matches!(stored.state, State::InFlight { .. }) {
                self.in_flight -= 1;
            }
            stored.state = State::Visible;
            self.visible.insert(number);
        }
    }

    fn insert(&mut self, message: Message, state: State) {
        let number = self.next_number;
        self.next_number += 1;
        self.by_age.insert((message.sent_at, number));
        match state {
            State::Visible => {
                self.visible.insert(number);
            }
            State::Delayed { until } | State::InFlight { until, .. } => {
                self.invisible.insert((until, number));
            }
        }
        self.messages.insert(number, Stored { message, state });
    }

    fn remove(&mut self, number: u64) {
        let Some(stored) = self.messages.remove(&number) else { return };
        self.by_age.remove(&(stored.message.sent_at, number));
        match stored.state {
            State::Visible => {
                self.visible.remove(&number);
            }
            State::Delayed { until } => {
                self.invisible.remove(&(until, number));
            }
            State::InFlight { until, .. } => {
                self.invisible.remove(&(until, number));
                self.in_flight -= 1;
            }
        }
    }
}

/// Every duration here has a limit far below 2^64 ms.
fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Counts, NewMessage, Queue, Settings, VisibilityFault};

    const SECOND: u64 = 1000;
    const START: u64 = 1_000_000_000;

    fn queue(maximum_receives: Option<u32>) -> Queue {
        Queue::new(Settings {
            visibility: Duration::from_secs(30),
            delay: Duration::ZERO,
            retention: Duration::from_secs(3600),
            maximum_receives,
        })
    }

    fn send(queue: &mut Queue, now: u64, body: &str) {
        queue.send(now, format!("id-{body}"), NewMessage { body: body.to_owned(), ..NewMessage::default() });
    }

    fn bodies(queue: &mut Queue, now: u64, maximum: usize) -> Vec<String> {
        let received = queue.receive(now, maximum, Duration::from_secs(30));
        received.deliveries.into_iter().map(|delivery| delivery.message.body).collect()
    }

    #[test]
    fn messages_come_in_order_and_stay_invisible_until_their_time() {
        let mut queue = queue(None);
        for body in ["a", "b", "c"] {
            send(&mut queue, START, body);
        }
        assert_eq!(bodies(&mut queue, START, 2), ["a", "b"]);
        assert_eq!(queue.counts(START), Counts { visible: 1, in_flight: 2, delayed: 0 });
        assert_eq!(bodies(&mut queue, START + 1, 10), ["c"]);
        assert_eq!(bodies(&mut queue, START + 30 * SECOND - 1, 10), [""; 0]);
        assert_eq!(queue.next_visible_at(), Some(START + 30 * SECOND));
        assert_eq!(bodies(&mut queue, START + 30 * SECOND, 10), ["a", "b"]);
        let again = queue.receive(START + 31 * SECOND, 10, Duration::from_secs(1));
        let message = &again.deliveries[0].message;
        assert_eq!((message.body.as_str(), message.receives, message.first_received_at), ("c", 2, Some(START + 1)));
    }

    #[test]
    fn only_the_latest_receipt_deletes() {
        let mut queue = queue(None);
        send(&mut queue, START, "a");
        let first = queue.receive(START, 1, Duration::from_secs(1)).deliveries[0].receipt;
        let second = queue.receive(START + SECOND, 1, Duration::from_secs(1)).deliveries[0].receipt;
        queue.delete(START + SECOND, first);
        assert_eq!(queue.counts(START + SECOND).in_flight, 1);
        queue.delete(START + SECOND, second);
        queue.delete(START + SECOND, second);
        assert_eq!(queue.counts(START + SECOND), Counts::default());
    }

    #[test]
    fn a_late_receipt_still_deletes_what_nobody_received_since() {
        let mut queue = queue(None);
        send(&mut queue, START, "a");
        let receipt = queue.receive(START, 1, Duration::from_secs(1)).deliveries[0].receipt;
        queue.delete(START + 5 * SECOND, receipt);
        assert_eq!(bodies(&mut queue, START + 5 * SECOND, 1), [""; 0]);
    }

    #[test]
    fn delays_hold_a_message_back() {
        let mut queue = queue(None);
        let delayed = NewMessage { delay: Some(Duration::from_secs(5)), body: "late".to_owned(), ..NewMessage::default() };
        queue.send(START, "1".to_owned(), delayed);
        assert_eq!(queue.counts(START), Counts { visible: 0, in_flight: 0, delayed: 1 });
        assert_eq!(bodies(&mut queue, START + 5 * SECOND - 1, 1), [""; 0]);
        assert_eq!(bodies(&mut queue, START + 5 * SECOND, 1), ["late"]);
    }

    #[test]
    fn visibility_can_be_changed_while_in_flight() {
        let mut queue = queue(None);
        send(&mut queue, START, "a");
        let receipt = queue.receive(START, 1, Duration::from_secs(10)).deliveries[0].receipt;
        assert_eq!(queue.change_visibility(START, receipt, Duration::from_secs(60)), Ok(()));
        assert_eq!(bodies(&mut queue, START + 59 * SECOND, 1), [""; 0]);
        let twelve_hours = Duration::from_secs(12 * 3600);
        assert_eq!(queue.change_visibility(START + SECOND, receipt, twelve_hours), Err(VisibilityFault::TooLong));
        assert_eq!(queue.change_visibility(START + 59 * SECOND, receipt, Duration::ZERO), Ok(()));
        assert_eq!(queue.change_visibility(START + 59 * SECOND, receipt, Duration::ZERO), Err(VisibilityFault::NotInFlight));
        assert_eq!(bodies(&mut queue, START + 59 * SECOND, 1), ["a"]);
        assert_eq!(queue.change_visibility(START + 59 * SECOND, receipt, Duration::ZERO), Err(VisibilityFault::Gone));
    }

    #[test]
    fn a_visibility_of_zero_hands_out_and_leaves_visible() {
        let mut queue = queue(None);
        send(&mut queue, START, "a");
        assert_eq!(queue.receive(START, 10, Duration::ZERO).deliveries.len(), 1);
        assert_eq!(queue.counts(START), Counts { visible: 1, in_flight: 0, delayed: 0 });
    }

    #[test]
    fn what_is_received_too_often_is_given_up_with_its_id_and_age() {
        let mut source = queue(Some(2));
        let mut dead_letters = queue(None);
        send(&mut source, START, "a");
        for receive in 0..2 {
            assert_eq!(bodies(&mut source, START + receive * 30 * SECOND, 1), ["a"]);
        }
        let received = source.receive(START + 60 * SECOND, 1, Duration::from_secs(30));
        assert!(received.deliveries.is_empty());
        assert_eq!(source.counts(START + 60 * SECOND), Counts::default());
        for message in received.dead {
            dead_letters.bury(message);
        }
        let buried = dead_letters.receive(START + 60 * SECOND, 1, Duration::from_secs(1));
        let message = &buried.deliveries[0].message;
        assert_eq!((message.id.as_str(), message.sent_at, message.receives), ("id-a", START, 3));
    }

    #[test]
    fn retention_ends_messages_in_every_state() {
        let mut queue = queue(None);
        send(&mut queue, START, "visible");
        send(&mut queue, START, "in flight");
        let _ = queue.receive(START + 3_000 * SECOND, 1, Duration::from_secs(3600));
        send(&mut queue, START + 2_000 * SECOND, "younger");
        assert_eq!(queue.counts(START + 3_600 * SECOND), Counts { visible: 2, in_flight: 1, delayed: 0 });
        assert_eq!(queue.counts(START + 3_601 * SECOND), Counts { visible: 1, in_flight: 0, delayed: 0 });
        queue.purge();
        assert_eq!(queue.counts(START + 3_601 * SECOND), Counts::default());
    }
}
