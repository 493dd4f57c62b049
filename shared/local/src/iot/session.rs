//! What the broker keeps of one client: its subscriptions, and the messages that are on their way to it. No clock, no socket.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::codec::{SubscriptionOptions, Version};
use super::lifecycle::Reason as EndReason;
use super::limits::{MAXIMUM_IN_FLIGHT, MAXIMUM_UNRELIABLE, MAXIMUM_WAITING};
use super::message::{Message, Now, Quality};
use super::policy::Authority;
use super::topic::TopicFilter;

/// A message on its way to a client's socket.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    pub(super) message: Arc<Message>,
    pub(super) quality: Quality,
    pub(super) packet_id: Option<u16>,
    pub(super) retain: bool,
    pub(super) duplicate: bool,
}

/// Why the broker ends a connection from its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Eviction {
    /// Another connection has the client id now.
    TakenOver,
    /// DeleteConnection was called.
    Deleted {
        /// Whether the will stays unsaid.
        without_will: bool,
    },
}

/// The broker's end of an open connection.
#[derive(Debug)]
pub(super) struct Link {
    /// Tells the connection from an earlier one of the same client.
    pub(super) number: u64,
    pub(super) facts: Facts,
    outbox: mpsc::Sender<Delivery>,
    evict: Option<oneshot::Sender<Eviction>>,
}

/// What GetConnection tells of a connection.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    pub(super) keep_alive: u16,
    pub(super) since_ms: u64,
}

/// A client's session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) version: Version,
    /// Whether it ends with its connection.
    pub(super) clean: bool,
    /// How long it outlives its connection.
    pub(super) expiry: Duration,
    pub(super) authority: Arc<Authority>,
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) link: Option<Link>,
    /// When it ends, while no connection holds it.
    pub(super) ends_at: Option<Instant>,
    /// How many messages may be in flight, at most IoT Core's own limit.
    window: usize,
    in_flight: VecDeque<InFlight>,
    waiting: VecDeque<Waiting>,
    next_packet_id: u16,
}

/// One subscription.
#[derive(Clone, Debug)]
pub(super) struct Subscription {
    pub(super) filter: TopicFilter,
    pub(super) options: SubscriptionOptions,
}

/// A QoS 1 message that waits for its PUBACK.
#[derive(Debug)]
struct InFlight {
    packet_id: u16,
    message: Arc<Message>,
    retain: bool,
    /// Hears of the PUBACK. A message with a receipt belongs to one connection and is not sent again on another.
    receipt: Option<oneshot::Sender<()>>,
}

/// A QoS 1 message that waits for room, or for its client.
#[derive(Debug)]
struct Waiting {
    message: Arc<Message>,
    retain: bool,
}

/// A message cannot be handed to a client directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undeliverable {
    /// The client is not connected.
    Offline,
    /// As many messages as may be wait for its acknowledgement.
    Full,
}

/// What is remembered of a connection that has ended.
#[derive(Clone, Debug)]
pub(super) struct Past {
    pub(super) facts: Facts,
    pub(super) ended_ms: u64,
    pub(super) ended: Instant,
    pub(super) reason: EndReason,
    pub(super) clean: bool,
    pub(super) expiry: Duration,
}

impl Link {
    /// A link and the connection's end of it.
    pub(super) fn new(number: u64, facts: Facts) -> (Self, mpsc::Receiver<Delivery>, oneshot::Receiver<Eviction>) {
        // Room for everything in flight besides the unreliable ones, so that a QoS 1 message always finds a place.
        let (outbox, deliveries) = mpsc::channel(MAXIMUM_UNRELIABLE + usize::from(MAXIMUM_IN_FLIGHT));
        let (evict, evicted) = oneshot::channel();
        (Self { number, facts, outbox, evict: Some(evict) }, deliveries, evicted)
    }

    /// Ends the connection. The first reason counts.
    pub(super) fn evict(&mut self, eviction: Eviction) {
        if let Some(evict) = self.evict.take() {
            // A connection that is ending anyway does not listen any more.
            let _ = evict.send(eviction);
        }
    }

    fn send_unreliable(&self, delivery: Delivery) {
        if self.outbox.capacity() > usize::from(MAXIMUM_IN_FLIGHT) {
            // A closed outbox is a connection that is ending: QoS 0 promises nothing.
            let _ = self.outbox.try_send(delivery);
        }
    }

    fn send(&self, delivery: Delivery) {
        // What a closed outbox does not take stays in flight and goes out again on the next connection.
        let _ = self.outbox.try_send(delivery);
    }
}

impl Session {
    /// A session without subscriptions, of a client that may have `receive_maximum` messages in flight.
    pub(super) fn new(version: Version, receive_maximum: u16, authority: Arc<Authority>) -> Self {
        Self {
            version,
            clean: true,
            expiry: Duration::ZERO,
            authority,
            subscriptions: Vec::new(),
            link: None,
            ends_at: None,
            window: usize::from(receive_maximum.min(MAXIMUM_IN_FLIGHT)),
            in_flight: VecDeque::new(),
            waiting: VecDeque::new(),
            next_packet_id: 1,
        }
    }

    /// Whether it is this connection that holds the session.
    pub(super) fn is_held_by(&self, number: u64) -> bool {
        self.link.as_ref().is_some_and(|link| link.number == number)
    }

    /// Takes up a connection: what was in flight goes out again, then what waits (MQTT 5.0, section 4.4).
    pub(super) fn attach(&mut self, link: Link, receive_maximum: u16, now: Now) {
        self.window = usize::from(receive_maximum.min(MAXIMUM_IN_FLIGHT));
        self.ends_at = None;
        // More than the new window may be in flight from before; the rest goes back to the front of the queue.
        while self.in_flight.len() > self.window {
            let Some(InFlight { message, retain, .. }) = self.in_flight.pop_back() else { break };
            self.waiting.push_front(Waiting { message, retain });
        }
        for entry in &self.in_flight {
            link.send(Delivery {
                message: entry.message.clone(),
                quality: Quality::AtLeastOnce,
                packet_id: Some(entry.packet_id),
                retain: entry.retain,
                duplicate: true,
            });
        }
        self.link = Some(link);
        self.fill(now);
    }

    /// Gives the connection up. Messages that were sent to it directly are given up with it.
    pub(super) fn detach(&mut self, now: Now) -> Option<Link> {
        self.in_flight.retain(|entry| entry.receipt.is_none());
        self.ends_at = now.instant.checked_add(self.expiry);
        self.link.take()
    }

    /// Adds or replaces a subscription; says whether it is new.
    pub(super) fn subscribe(&mut self, subscription: Subscription) -> bool {
        match self.subscriptions.iter_mut().find(|known| known.filter == subscription.filter) {
            Some(known) => {
                *known = subscription;
                false
            }
            None => {
                self.subscriptions.push(subscription);
                true
            }
        }
    }

    /// Removes a subscription; says whether there was one.
    pub(super) fn unsubscribe(&mut self, filter: &str) -> bool {
        let before = self.subscriptions.len();
        self.subscriptions.retain(|subscription| subscription.filter.as_str() != filter);
        self.subscriptions.len() < before
    }

    /// Sends a message, or keeps it until there is room or a client; QoS 0 is kept for nobody.
    pub(super) fn deliver(&mut self, client_id: &str, message: &Arc<Message>, quality: Quality, retain: bool, now: Now) {
        match quality {
            Quality::AtMostOnce => {
                if let Some(link) = &self.link {
                    let message = message.clone();
                    link.send_unreliable(Delivery { message, quality, packet_id: None, retain, duplicate: false });
                }
            }
            Quality::AtLeastOnce if self.waiting.len() >= MAXIMUM_WAITING => {
                tracing::warn!(
                    mqtt.client_id = client_id,
                    mqtt.waiting = MAXIMUM_WAITING,
                    "a message is dropped, since too many wait for this client already",
                );
            }
            Quality::AtLeastOnce => {
                self.waiting.push_back(Waiting { message: message.clone(), retain });
                self.fill(now);
            }
        }
    }

    /// Sends a message to the open connection alone; the receipt hears of the PUBACK.
    pub(super) fn deliver_directly(
        &mut self,
        message: Arc<Message>,
        receipt: Option<oneshot::Sender<()>>,
    ) -> Result<(), Undeliverable> {
        if self.link.is_none() {
            return Err(Undeliverable::Offline);
        }
        if receipt.is_none() {
            let delivery = Delivery { message, quality: Quality::AtMostOnce, packet_id: None, retain: false, duplicate: false };
            if let Some(link) = &self.link {
                link.send_unreliable(delivery);
            }
            return Ok(());
        }
        if self.in_flight.len() >= self.window {
            return Err(Undeliverable::Full);
        }
        self.send_reliably(message, false, receipt);
        Ok(())
    }

    /// A PUBACK came. One for a message that is not in flight means nothing.
    pub(super) fn acknowledge(&mut self, packet_id: u16, now: Now) {
        let Some(index) = self.in_flight.iter().position(|entry| entry.packet_id == packet_id) else { return };
        if let Some(receipt) = self.in_flight.remove(index).and_then(|entry| entry.receipt) {
            let _ = receipt.send(());
        }
        self.fill(now);
    }

    /// Moves what waits into flight, as far as there is room.
    fn fill(&mut self, now: Now) {
        while self.link.is_some() && self.in_flight.len() < self.window {
            let Some(Waiting { message, retain }) = self.waiting.pop_front() else { return };
            if !message.is_expired(now) {
                self.send_reliably(message, retain, None);
            }
        }
    }

    fn send_reliably(&mut self, message: Arc<Message>, retain: bool, receipt: Option<oneshot::Sender<()>>) {
        let packet_id = self.free_packet_id();
        self.in_flight.push_back(InFlight { packet_id, message: message.clone(), retain, receipt });
        if let Some(link) = &self.link {
            link.send(Delivery { message, quality: Quality::AtLeastOnce, packet_id: Some(packet_id), retain, duplicate: false });
        }
    }

    /// An id that no message in flight has. There are 65,535 of them, and at most a hundred in flight.
    fn free_packet_id(&mut self) -> u16 {
        loop {
            let packet_id = self.next_packet_id;
            self.next_packet_id = self.next_packet_id.checked_add(1).unwrap_or(1);
            if !self.in_flight.iter().any(|entry| entry.packet_id == packet_id) {
                return packet_id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::{mpsc, oneshot};

    use super::{Delivery, Facts, Link, Session};
    use crate::iot::codec::Version;
    use crate::iot::limits::{MAXIMUM_IN_FLIGHT, MAXIMUM_UNRELIABLE, MAXIMUM_WAITING};
    use crate::iot::message::{Message, Now, Quality};
    use crate::iot::policy::Authority;
    use crate::iot::topic::Topic;

    fn link() -> (Link, mpsc::Receiver<Delivery>) {
        let address = "127.0.0.1:1".parse().expect("an address");
        let facts = Facts { peer: address, local: address, keep_alive: 60, since_ms: 0 };
        let (link, deliveries, _) = Link::new(1, facts);
        (link, deliveries)
    }

    fn session() -> Session {
        Session::new(Version::V5, 2, Arc::new(Authority::Everything))
    }

    fn message(payload: &'static str) -> Arc<Message> {
        Arc::new(Message::new(Topic::parse("t").expect("a topic"), payload.as_bytes()))
    }

    fn drain(deliveries: &mut mpsc::Receiver<Delivery>) -> Vec<(String, Option<u16>, bool)> {
        std::iter::from_fn(|| deliveries.try_recv().ok())
            .map(|delivery| {
                let text = String::from_utf8_lossy(&delivery.message.payload).into_owned();
                (text, delivery.packet_id, delivery.duplicate)
            })
            .collect()
    }

    #[test]
    fn a_window_bounds_what_is_in_flight_and_keeps_the_order() {
        let (now, mut session, (link, mut deliveries)) = (Now::read(), session(), link());
        session.attach(link, 2, now);
        for payload in ["1", "2", "3", "4"] {
            session.deliver("c", &message(payload), Quality::AtLeastOnce, false, now);
        }
        assert_eq!(drain(&mut deliveries), [("1".to_owned(), Some(1), false), ("2".to_owned(), Some(2), false)]);
        session.acknowledge(2, now);
        assert_eq!(drain(&mut deliveries), [("3".to_owned(), Some(3), false)]);
        session.acknowledge(2, now);
        assert_eq!(drain(&mut deliveries), []);
        session.acknowledge(1, now);
        assert_eq!(drain(&mut deliveries), [("4".to_owned(), Some(4), false)]);
    }

    #[test]
    fn what_was_not_acknowledged_goes_out_again_and_first() {
        let (now, mut session, (first, mut deliveries)) = (Now::read(), session(), link());
        session.attach(first, 2, now);
        session.deliver("c", &message("1"), Quality::AtLeastOnce, false, now);
        session.deliver("c", &message("2"), Quality::AtLeastOnce, false, now);
        session.acknowledge(1, now);
        drain(&mut deliveries);
        session.detach(now);
        session.deliver("c", &message("3"), Quality::AtLeastOnce, false, now);
        session.deliver("c", &message("lost"), Quality::AtMostOnce, false, now);
        let (second, mut deliveries) = link();
        session.attach(second, 1, now);
        assert_eq!(drain(&mut deliveries), [("2".to_owned(), Some(2), true)]);
        session.acknowledge(2, now);
        assert_eq!(drain(&mut deliveries), [("3".to_owned(), Some(3), false)]);
    }

    #[test]
    fn a_direct_message_has_a_receipt_and_dies_with_its_connection() {
        let (now, mut session, (first, mut deliveries)) = (Now::read(), session(), link());
        let (receipt, _) = oneshot::channel();
        assert!(session.deliver_directly(message("early"), Some(receipt)).is_err());
        session.attach(first, 2, now);
        let (receipt, mut heard) = oneshot::channel();
        session.deliver_directly(message("1"), Some(receipt)).expect("it is online");
        assert_eq!(drain(&mut deliveries).len(), 1);
        assert!(heard.try_recv().is_err());
        session.acknowledge(1, now);
        heard.try_recv().expect("acknowledged");
        let (receipt, mut heard) = oneshot::channel();
        session.deliver_directly(message("2"), Some(receipt)).expect("it is online");
        session.detach(now);
        assert!(matches!(heard.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        let (second, mut deliveries) = link();
        session.attach(second, 2, now);
        assert_eq!(drain(&mut deliveries), []);
    }

    #[test]
    fn a_slow_client_loses_unreliable_messages_and_no_others() {
        let (now, mut session, (link, mut deliveries)) = (Now::read(), session(), link());
        session.attach(link, MAXIMUM_IN_FLIGHT, now);
        for _ in 0..2 * MAXIMUM_UNRELIABLE {
            session.deliver("c", &message("0"), Quality::AtMostOnce, false, now);
        }
        for _ in 0..MAXIMUM_IN_FLIGHT {
            session.deliver("c", &message("1"), Quality::AtLeastOnce, false, now);
        }
        let got = drain(&mut deliveries);
        assert_eq!(got.iter().filter(|(payload, ..)| payload == "0").count(), MAXIMUM_UNRELIABLE);
        assert_eq!(got.iter().filter(|(payload, ..)| payload == "1").count(), usize::from(MAXIMUM_IN_FLIGHT));
    }

    #[test]
    fn a_queue_that_nobody_takes_up_is_bounded() {
        let (now, mut session) = (Now::read(), session());
        for _ in 0..MAXIMUM_WAITING + 5 {
            session.deliver("c", &message("1"), Quality::AtLeastOnce, false, now);
        }
        assert_eq!(session.waiting.len(), MAXIMUM_WAITING);
    }
}
