//! The broker itself: who is subscribed to what, and where a message goes. It decides and has no sockets, no tasks and no clock:
//! the connections call it under one lock and tell it the time.
//!
//! A message is compared with every subscription. That is a laptop's number of them; an index would be quicker and harder to read.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::codec::{Reason, RequestedFilter, RetainedWanted, Version};
use super::lifecycle::{Identity, Reason as EndReason};
use super::limits::{MAXIMUM_SUBSCRIPTIONS, REMEMBERED};
use super::message::{Message, Now, Quality};
use super::policy::{Action, Authority};
use super::session::{Delivery, Eviction, Facts, Link, Past, Session, Subscription, Undeliverable};
use super::topic::{Topic, TopicFilter};

/// Everything that outlives a connection.
#[derive(Debug, Default)]
pub(super) struct Broker {
    clients: HashMap<String, Client>,
    retained: BTreeMap<Topic, Retained>,
    /// Whose turn it is in each group of each shared filter.
    turns: HashMap<TopicFilter, usize>,
    last_connection: u64,
}

/// What is known of a client id.
#[derive(Debug, Default)]
struct Client {
    session: Option<Session>,
    /// Said when the connection ends as it should not.
    will: Option<ArmedWill>,
    /// Said at that moment, unless the client is back before.
    late_will: Option<(Instant, Arc<Message>)>,
    past: Option<Past>,
    next_version: u64,
}

/// A will whose client was allowed to publish it.
#[derive(Clone, Debug)]
pub(super) struct ArmedWill {
    pub(super) message: Arc<Message>,
    pub(super) delay: Duration,
}

/// A retained message and when it was stored, in milliseconds since 1970.
#[derive(Clone, Debug)]
pub(super) struct Retained {
    pub(super) message: Arc<Message>,
    pub(super) stored_ms: u64,
}

/// A client that may connect.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) client_id: String,
    pub(super) version: Version,
    pub(super) clean_start: bool,
    pub(super) session_expiry: Duration,
    pub(super) receive_maximum: u16,
    pub(super) keep_alive: u16,
    pub(super) will: Option<ArmedWill>,
    pub(super) principal_id: String,
    pub(super) authority: Arc<Authority>,
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
}

/// What a new connection works with.
#[derive(Debug)]
pub(super) struct Welcome {
    pub(super) number: u64,
    pub(super) session_present: bool,
    pub(super) identity: Identity,
    pub(super) deliveries: mpsc::Receiver<Delivery>,
    pub(super) evicted: oneshot::Receiver<Eviction>,
    /// What has to be published now: the will of a connection that this one took over.
    pub(super) wills: Vec<Arc<Message>>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Departure {
    pub(super) reason: EndReason,
    /// Whether its will is said.
    pub(super) with_will: bool,
    /// A new session expiry, which a DISCONNECT of MQTT 5 may carry.
    pub(super) session_expiry: Option<Duration>,
}

/// What GetConnection tells.
#[derive(Clone, Debug)]
pub(super) struct Description {
    pub(super) facts: Facts,
    pub(super) clean: bool,
    pub(super) expiry: Duration,
    /// When and why it ended, where it has.
    pub(super) ended: Option<(u64, EndReason)>,
}

impl Broker {
    /// Takes a client up. A connection that has the client id already is ended, and an earlier session is resumed where both want
    /// that and the protocol is the same ("MQTT" of the guide: sessions of MQTT 3 and MQTT 5 are not interchangeable).
    pub(super) fn connect(&mut self, arrival: Arrival, now: Now) -> Welcome {
        self.last_connection += 1;
        let number = self.last_connection;
        let client = self.clients.entry(arrival.client_id.clone()).or_default();
        let mut wills = client.take_over(arrival.clean_start, now);
        client.end_session_if_due(now, &mut wills);

        let resumed = client.session.take().filter(|session| !arrival.clean_start && session.version == arrival.version);
        let session_present = resumed.is_some();
        if !session_present {
            // The will of a session that ends now does not wait any longer.
            wills.extend(client.late_will.take().map(|(_, message)| message));
        }
        client.late_will = None;
        let mut session =
            resumed.unwrap_or_else(|| Session::new(arrival.version, arrival.receive_maximum, arrival.authority.clone()));
        session.authority = arrival.authority;
        session.expiry = arrival.session_expiry;
        session.clean = arrival.session_expiry.is_zero();

        let identity = Identity::new(&arrival.client_id, &arrival.principal_id, client.next_version);
        client.next_version += 1;
        let facts = Facts { peer: arrival.peer, local: arrival.local, keep_alive: arrival.keep_alive, since_ms: now.unix_ms };
        let (link, deliveries, evicted) = Link::new(number, facts);
        session.attach(link, arrival.receive_maximum, now);
        client.session = Some(session);
        client.will = arrival.will;
        client.past = None;
        Welcome { number, session_present, identity, deliveries, evicted, wills }
    }

    /// A connection has ended; gives the will that has to be published now. A connection that was taken over changes nothing.
    pub(super) fn disconnect(&mut self, client_id: &str, number: u64, departure: Departure, now: Now) -> Option<Arc<Message>> {
        let client = self.clients.get_mut(client_id)?;
        let session = client.session.as_mut().filter(|session| session.is_held_by(number))?;
        if let Some(expiry) = departure.session_expiry {
            session.expiry = expiry;
        }
        let link = session.detach(now)?;
        client.past = Some(Past {
            facts: link.facts,
            ended_ms: now.unix_ms,
            ended: now.instant,
            reason: departure.reason,
            clean: session.clean,
            expiry: session.expiry,
        });
        let will = client.will.take().filter(|_| departure.with_will);
        let expiry = session.expiry;
        if expiry.is_zero() {
            client.session = None;
        }
        let will = will?;
        // A will does not outwait its session (MQTT 5.0, section 3.1.3.2.2).
        let delay = will.delay.min(expiry);
        if delay.is_zero() {
            return Some(will.message);
        }
        client.late_will = Some((now.instant + delay, will.message));
        None
    }

    /// Subscribes a connection, one result for each filter, and hands it the retained messages.
    pub(super) fn subscribe(
        &mut self,
        client_id: &str,
        number: u64,
        filters: &[RequestedFilter],
        now: Now,
    ) -> Vec<Result<Quality, Reason>> {
        let Self { clients, retained, .. } = self;
        let session = clients.get_mut(client_id).and_then(|client| client.session.as_mut());
        let Some(session) = session.filter(|session| session.is_held_by(number)) else {
            return vec![Err(Reason::UnspecifiedError); filters.len()];
        };
        let subscribe = |requested: &RequestedFilter| {
            let filter = TopicFilter::parse(&requested.text).map_err(|error| {
                tracing::warn!(mqtt.client_id = client_id, %error, "a subscription is refused");
                Reason::TopicInvalid
            })?;
            if !session.authority.allows(Action::Subscribe, filter.pattern()) {
                tracing::warn!(
                    mqtt.client_id = client_id,
                    mqtt.filter = %filter,
                    "a subscription is refused: no policy allows iot:Subscribe on it",
                );
                return Err(Reason::NotAuthorized);
            }
            let is_known = session.subscriptions.iter().any(|known| known.filter == filter);
            if !is_known && session.subscriptions.len() >= MAXIMUM_SUBSCRIPTIONS {
                tracing::warn!(
                    mqtt.client_id = client_id,
                    mqtt.subscriptions = MAXIMUM_SUBSCRIPTIONS,
                    "a subscription is refused: the connection has as many as it may",
                );
                return Err(Reason::QuotaExceeded);
            }
            let options = requested.options;
            let is_new = session.subscribe(Subscription { filter: filter.clone(), options });
            let wants_retained = match options.retained {
                RetainedWanted::Always => true,
                RetainedWanted::IfNew => is_new,
                RetainedWanted::Never => false,
            };
            // Not for wildcards ("MQTT" of the guide, "Using MQTT retained messages"), and not for shared subscriptions.
            if wants_retained && filter.is_exact() && !filter.is_shared() {
                let stored = Topic::parse(filter.pattern()).ok().and_then(|topic| retained.get(&topic));
                let stored = stored.filter(|stored| {
                    !stored.message.is_expired(now) && session.authority.allows(Action::Receive, filter.pattern())
                });
                if let Some(Retained { message, .. }) = stored {
                    session.deliver(client_id, message, message.quality.min(options.quality), true, now);
                }
            }
            Ok(options.quality)
        };
        filters.iter().map(subscribe).collect()
    }

    /// Unsubscribes a connection; says of each filter whether there was such a subscription.
    pub(super) fn unsubscribe(&mut self, client_id: &str, number: u64, filters: &[String]) -> Vec<bool> {
        match self.held(client_id, number) {
            Some(session) => filters.iter().map(|filter| session.unsubscribe(filter)).collect(),
            None => vec![false; filters.len()],
        }
    }

    /// A PUBACK came on a connection.
    pub(super) fn acknowledge(&mut self, client_id: &str, number: u64, packet_id: u16, now: Now) {
        if let Some(session) = self.held(client_id, number) {
            session.acknowledge(packet_id, now);
        }
    }

    /// Hands a message to everyone who is subscribed, and stores it where it is to be retained. A client gets it once however many
    /// of its subscriptions match, at the highest quality among them.
    pub(super) fn publish(&mut self, message: &Arc<Message>, publisher: Option<&str>, now: Now) {
        if message.retain {
            self.retain(message, now);
        }
        let topic = message.topic.as_str();
        let mut shared: BTreeMap<String, Vec<(String, Subscription)>> = BTreeMap::new();
        for (client_id, client) in &mut self.clients {
            let Some(session) = &mut client.session else { continue };
            let mut best: Option<(Quality, bool)> = None;
            for subscription in session.subscriptions.iter().filter(|subscription| subscription.filter.matches(topic)) {
                if subscription.filter.is_shared() {
                    let group = shared.entry(subscription.filter.as_str().to_owned()).or_default();
                    group.push((client_id.clone(), subscription.clone()));
                    continue;
                }
                let options = subscription.options;
                if options.no_local && publisher == Some(client_id.as_str()) {
                    continue;
                }
                let retain = options.retain_as_published && message.retain;
                let quality = message.quality.min(options.quality);
                best = Some(best.map_or((quality, retain), |(other, flag)| (other.max(quality), flag || retain)));
            }
            if let Some((quality, retain)) = best
                && session.authority.allows(Action::Receive, topic)
            {
                session.deliver(client_id, message, quality, retain, now);
            }
        }
        for members in shared.into_values() {
            self.publish_to_group(message, members, now);
        }
    }

    /// Hands a message to one member of a group, the connected ones before the others, each in its turn; IoT Core picks one at
    /// random.
    fn publish_to_group(&mut self, message: &Arc<Message>, mut members: Vec<(String, Subscription)>, now: Now) {
        members.retain(|(client_id, _)| {
            let session = self.clients.get(client_id).and_then(|client| client.session.as_ref());
            session.is_some_and(|session| session.authority.allows(Action::Receive, message.topic.as_str()))
        });
        members.sort_by(|(one, _), (other, _)| one.cmp(other));
        let is_online = |(client_id, _): &(String, Subscription)| self.is_connected(client_id);
        if members.iter().any(is_online) {
            members.retain(|member| self.is_connected(&member.0));
        }
        let Some((_, Subscription { filter, .. })) = members.first() else { return };
        let turn = self.turns.entry(filter.clone()).or_default();
        let (client_id, subscription) = members.swap_remove(*turn % members.len());
        *turn = turn.wrapping_add(1);
        let session = self.clients.get_mut(&client_id).and_then(|client| client.session.as_mut());
        if let Some(session) = session {
            let options = subscription.options;
            let retain = options.retain_as_published && message.retain;
            session.deliver(&client_id, message, message.quality.min(options.quality), retain, now);
        }
    }

    /// An empty payload takes the retained message away (MQTT 5.0, section 3.3.1.3).
    fn retain(&mut self, message: &Arc<Message>, now: Now) {
        if message.payload.is_empty() {
            self.retained.remove(&message.topic);
        } else {
            let retained = Retained { message: message.clone(), stored_ms: now.unix_ms };
            self.retained.insert(message.topic.clone(), retained);
        }
    }

    /// The retained message of a topic.
    pub(super) fn retained(&self, topic: &Topic, now: Now) -> Option<&Retained> {
        self.retained.get(topic).filter(|retained| !retained.message.is_expired(now))
    }

    /// Retained messages in the order of their topics, after one of them.
    pub(super) fn retained_after(&self, topic: Option<&Topic>, now: Now) -> impl Iterator<Item = &Retained> {
        let after = topic.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.retained.range::<Topic, _>((after, Bound::Unbounded)).map(|(_, retained)| retained);
        range.filter(move |retained| !retained.message.is_expired(now))
    }

    /// Sends a message to a connected client, whether it is subscribed or not.
    pub(super) fn send_directly(
        &mut self,
        client_id: &str,
        message: Arc<Message>,
        receipt: Option<oneshot::Sender<()>>,
    ) -> Result<(), DirectError> {
        let session = self.clients.get_mut(client_id).and_then(|client| client.session.as_mut());
        let session = session.filter(|session| session.link.is_some()).ok_or(DirectError::Offline)?;
        if !session.authority.allows(Action::Receive, message.topic.as_str()) {
            return Err(DirectError::NotAllowed);
        }
        session.deliver_directly(message, receipt).map_err(|error| match error {
            Undeliverable::Offline => DirectError::Offline,
            Undeliverable::Full => DirectError::Full,
        })
    }

    /// What is known of a client's connection, for half an hour after its end.
    pub(super) fn describe(&self, client_id: &str) -> Option<Description> {
        let client = self.clients.get(client_id)?;
        if let Some(session) = &client.session
            && let Some(link) = &session.link
        {
            return Some(Description { facts: link.facts.clone(), clean: session.clean, expiry: session.expiry, ended: None });
        }
        let Past { facts, ended_ms, reason, clean, expiry, .. } = client.past.clone()?;
        Some(Description { facts, clean, expiry, ended: Some((ended_ms, reason)) })
    }

    /// The subscriptions of a client that has a session.
    pub(super) fn subscriptions(&self, client_id: &str) -> Option<&[Subscription]> {
        Some(&self.clients.get(client_id)?.session.as_ref()?.subscriptions)
    }

    /// Ends a connection from outside; says whether there was one. With `end_session` the session goes with it.
    pub(super) fn evict(&mut self, client_id: &str, end_session: bool, without_will: bool) -> bool {
        let Some(session) = self.clients.get_mut(client_id).and_then(|client| client.session.as_mut()) else { return false };
        let Some(link) = &mut session.link else { return false };
        link.evict(Eviction::Deleted { without_will });
        if end_session {
            session.expiry = Duration::ZERO;
        }
        true
    }

    /// Forgets what has run out; gives the wills that are due.
    pub(super) fn sweep(&mut self, now: Now) -> Vec<Arc<Message>> {
        let mut wills = Vec::new();
        for client in self.clients.values_mut() {
            client.end_session_if_due(now, &mut wills);
            if client.late_will.as_ref().is_some_and(|(due, _)| *due <= now.instant) {
                wills.extend(client.late_will.take().map(|(_, message)| message));
            }
        }
        let is_forgotten =
            |past: &Option<Past>| past.as_ref().is_none_or(|past| now.instant.saturating_duration_since(past.ended) > REMEMBERED);
        self.clients.retain(|_, client| client.session.is_some() || client.late_will.is_some() || !is_forgotten(&client.past));
        self.retained.retain(|_, retained| !retained.message.is_expired(now));
        wills
    }

    fn is_connected(&self, client_id: &str) -> bool {
        let session = self.clients.get(client_id).and_then(|client| client.session.as_ref());
        session.is_some_and(|session| session.link.is_some())
    }

    /// The session that a connection holds.
    fn held(&mut self, client_id: &str, number: u64) -> Option<&mut Session> {
        let session = self.clients.get_mut(client_id)?.session.as_mut()?;
        Some(session).filter(|session| session.is_held_by(number))
    }
}

/// SendDirectMessage is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DirectError {
    /// The client is not connected.
    Offline,
    /// No policy of the client allows `iot:Receive` on the topic.
    NotAllowed,
    /// As many messages as may be wait for its acknowledgement.
    Full,
}

impl Client {
    /// Ends the connection that there is; gives its will where it is to be said now.
    fn take_over(&mut self, clean_start: bool, now: Now) -> Vec<Arc<Message>> {
        let Some(session) = &mut self.session else { return Vec::new() };
        let Some(mut link) = session.detach(now) else { return Vec::new() };
        link.evict(Eviction::TakenOver);
        let will = self.will.take();
        // A session that goes on keeps a late will silent (MQTT 5.0, section 3.1.3.2.2).
        will.filter(|will| will.delay.is_zero() || clean_start).map(|will| will.message).into_iter().collect()
    }

    fn end_session_if_due(&mut self, now: Now, wills: &mut Vec<Arc<Message>>) {
        let is_due = |session: &Session| session.link.is_none() && session.ends_at.is_some_and(|end| end <= now.instant);
        if self.session.as_ref().is_some_and(is_due) {
            self.session = None;
            wills.extend(self.late_will.take().map(|(_, message)| message));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{ArmedWill, Arrival, Broker, Departure, DirectError, Welcome};
    use crate::iot::codec::{Reason, RequestedFilter, RetainedWanted, SubscriptionOptions, Version};
    use crate::iot::lifecycle::Reason as EndReason;
    use crate::iot::message::{Message, Now, Quality};
    use crate::iot::policy::Authority;
    use crate::iot::session::Eviction;
    use crate::iot::topic::Topic;

    const HOUR: Duration = Duration::from_secs(3600);

    fn arrival(client_id: &str) -> Arrival {
        let address = "127.0.0.1:1".parse().expect("an address");
        Arrival {
            client_id: client_id.to_owned(),
            version: Version::V5,
            clean_start: false,
            session_expiry: Duration::ZERO,
            receive_maximum: 10,
            keep_alive: 60,
            will: None,
            principal_id: "principal".to_owned(),
            authority: Arc::new(Authority::Everything),
            peer: address,
            local: address,
        }
    }

    fn message(topic: &str, payload: &'static str) -> Message {
        Message::new(Topic::parse(topic).expect("a topic"), payload.as_bytes())
    }

    fn retained(topic: &str, payload: &'static str) -> Arc<Message> {
        Arc::new(Message { retain: true, ..message(topic, payload) })
    }

    fn wanted(filter: &str) -> RequestedFilter {
        let options = SubscriptionOptions {
            quality: Quality::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            retained: RetainedWanted::Always,
        };
        RequestedFilter { text: filter.to_owned(), options }
    }

    fn subscribe(broker: &mut Broker, client_id: &str, welcome: &Welcome, filter: &str, now: Now) {
        assert_eq!(broker.subscribe(client_id, welcome.number, &[wanted(filter)], now), [Ok(Quality::AtLeastOnce)]);
    }

    fn payloads(welcome: &mut Welcome) -> Vec<String> {
        let deliveries = std::iter::from_fn(|| welcome.deliveries.try_recv().ok());
        deliveries.map(|delivery| String::from_utf8_lossy(&delivery.message.payload).into_owned()).collect()
    }

    fn lost(session_expiry: Option<Duration>) -> Departure {
        Departure { reason: EndReason::ConnectionLost, with_will: true, session_expiry }
    }

    #[test]
    fn a_client_gets_a_message_once_at_its_best_quality() {
        let (mut broker, now) = (Broker::default(), Now::read());
        let mut welcome = broker.connect(arrival("c"), now);
        let low = RequestedFilter {
            options: SubscriptionOptions { quality: Quality::AtMostOnce, ..wanted("a/#").options },
            ..wanted("a/#")
        };
        broker.subscribe("c", welcome.number, &[low, wanted("a/b")], now);
        broker.publish(&Arc::new(message("a/b", "x")), None, now);
        let delivery = welcome.deliveries.try_recv().expect("delivered");
        assert_eq!(delivery.quality, Quality::AtLeastOnce);
        assert!(welcome.deliveries.try_recv().is_err());
        assert_eq!(broker.unsubscribe("c", welcome.number, &["a/b".to_owned(), "none".to_owned()]), [true, false]);
    }

    #[test]
    fn no_local_keeps_a_client_from_hearing_itself() {
        let (mut broker, now) = (Broker::default(), Now::read());
        let mut welcome = broker.connect(arrival("c"), now);
        let mut filter = wanted("a");
        filter.options.no_local = true;
        broker.subscribe("c", welcome.number, &[filter], now);
        broker.publish(&Arc::new(message("a", "mine")), Some("c"), now);
        broker.publish(&Arc::new(message("a", "yours")), Some("d"), now);
        assert_eq!(payloads(&mut welcome), ["yours"]);
    }

    #[test]
    fn retained_messages_are_for_exact_filters() {
        let (mut broker, now) = (Broker::default(), Now::read());
        broker.publish(&retained("a/b", "old"), None, now);
        broker.publish(&retained("a/b", "new"), None, now);
        let mut welcome = broker.connect(arrival("c"), now);
        subscribe(&mut broker, "c", &welcome, "a/#", now);
        subscribe(&mut broker, "c", &welcome, "$share/g/a/b", now);
        assert_eq!(payloads(&mut welcome), [""; 0]);
        subscribe(&mut broker, "c", &welcome, "a/b", now);
        let delivery = welcome.deliveries.try_recv().expect("the retained one");
        assert!(delivery.retain);
        assert_eq!(&delivery.message.payload[..], b"new");
        let mut again = wanted("a/b");
        again.options.retained = RetainedWanted::IfNew;
        broker.subscribe("c", welcome.number, &[again], now);
        assert_eq!(payloads(&mut welcome), [""; 0]);
        broker.publish(&retained("a/b", ""), None, now);
        assert!(broker.retained(&Topic::parse("a/b").expect("a topic"), now).is_none());
    }

    #[test]
    fn a_persistent_session_is_resumed_until_it_ends() {
        let (mut broker, now) = (Broker::default(), Now::read());
        let persistent = || Arrival { session_expiry: HOUR, ..arrival("c") };
        let first = broker.connect(persistent(), now);
        assert!(!first.session_present);
        subscribe(&mut broker, "c", &first, "a", now);
        broker.disconnect("c", first.number, lost(None), now);
        broker.publish(&Arc::new(message("a", "kept")), None, now);
        let mut second = broker.connect(persistent(), now.after(HOUR / 2));
        assert!(second.session_present);
        assert_eq!(payloads(&mut second), ["kept"]);
        broker.disconnect("c", second.number, lost(None), now.after(HOUR / 2));
        broker.sweep(now.after(HOUR * 2));
        assert!(!broker.connect(persistent(), now.after(HOUR * 2)).session_present);
    }

    #[test]
    fn another_protocol_begins_a_session_anew() {
        let (mut broker, now) = (Broker::default(), Now::read());
        let persistent = |version| Arrival { session_expiry: HOUR, version, ..arrival("c") };
        let first = broker.connect(persistent(Version::V5), now);
        subscribe(&mut broker, "c", &first, "a", now);
        broker.disconnect("c", first.number, lost(None), now);
        assert!(!broker.connect(persistent(Version::V3), now).session_present);
        assert_eq!(broker.subscriptions("c").map(<[_]>::len), Some(0));
    }

    #[test]
    fn the_newer_connection_wins_and_the_older_one_changes_nothing() {
        let (mut broker, now) = (Broker::default(), Now::read());
        let mut first = broker.connect(Arrival { session_expiry: HOUR, ..arrival("c") }, now);
        let mut second = broker.connect(Arrival { session_expiry: HOUR, ..arrival("c") }, now);
        assert_eq!(first.evicted.try_recv(), Ok(Eviction::TakenOver));
        assert!(second.session_present);
        subscribe(&mut broker, "c", &second, "a", now);
        broker.disconnect("c", first.number, lost(Some(Duration::ZERO)), now);
        assert_eq!(broker.subscribe("c", first.number, &[wanted("b")], now), [Err(Reason::UnspecifiedError)]);
        broker.publish(&Arc::new(message("a", "x")), None, now);
        assert_eq!(payloads(&mut second), ["x"]);
        assert_ne!(first.identity.version_number, second.identity.version_number);
    }

    #[test]
    fn wills_are_said_at_their_time() {
        let (mut broker, now) = (Broker::default(), Now::read());
        let with_will = |delay, session_expiry| Arrival {
            session_expiry,
            will: Some(ArmedWill { message: Arc::new(message("w", "will")), delay }),
            ..arrival("c")
        };
        let delay = Duration::from_secs(10);
        // At once.
        let welcome = broker.connect(with_will(Duration::ZERO, HOUR), now);
        assert!(broker.disconnect("c", welcome.number, lost(None), now).is_some());
        // Not at all after a polite end.
        let welcome = broker.connect(with_will(Duration::ZERO, HOUR), now);
        let polite = Departure { with_will: false, ..lost(None) };
        assert!(broker.disconnect("c", welcome.number, polite, now).is_none());
        // Late, and only if nobody comes back.
        let welcome = broker.connect(with_will(delay, HOUR), now);
        assert!(broker.disconnect("c", welcome.number, lost(None), now).is_none());
        assert_eq!(broker.sweep(now).len(), 0);
        assert_eq!(broker.sweep(now.after(delay)).len(), 1);
        let welcome = broker.connect(with_will(delay, HOUR), now);
        broker.disconnect("c", welcome.number, lost(None), now);
        let welcome = broker.connect(with_will(delay, HOUR), now);
        assert_eq!((welcome.wills.len(), broker.sweep(now.after(delay)).len()), (0, 0));
        // With the session, where that ends before.
        broker.disconnect("c", welcome.number, lost(Some(delay / 2)), now);
        assert_eq!(broker.sweep(now.after(delay / 2)).len(), 1);
        // The one of a connection that is taken over.
        broker.connect(with_will(Duration::ZERO, HOUR), now);
        assert_eq!(broker.connect(arrival("c"), now).wills.len(), 1);
    }

    #[test]
    fn a_group_shares_its_messages() {
        let (mut broker, now) = (Broker::default(), Now::read());
        let mut one = broker.connect(arrival("1"), now);
        let mut two = broker.connect(arrival("2"), now);
        subscribe(&mut broker, "1", &one, "$share/g/a/+", now);
        subscribe(&mut broker, "2", &two, "$share/g/a/+", now);
        for payload in ["1", "2", "3", "4"] {
            broker.publish(&Arc::new(message("a/b", payload)), None, now);
        }
        assert_eq!((payloads(&mut one).len(), payloads(&mut two).len()), (2, 2));
        broker.disconnect("1", one.number, lost(None), now);
        broker.publish(&Arc::new(message("a/b", "5")), None, now);
        assert_eq!(payloads(&mut two), ["5"]);
    }

    #[test]
    fn what_expires_is_not_delivered() {
        let (mut broker, now) = (Broker::default(), Now::read());
        let welcome = broker.connect(Arrival { session_expiry: HOUR, ..arrival("c") }, now);
        subscribe(&mut broker, "c", &welcome, "a", now);
        broker.disconnect("c", welcome.number, lost(None), now);
        let end = now.instant + Duration::from_secs(5);
        broker.publish(&Arc::new(Message { expires_at: Some(end), retain: true, ..message("a", "short") }), None, now);
        let later = now.after(Duration::from_secs(6));
        let mut welcome = broker.connect(Arrival { session_expiry: HOUR, ..arrival("c") }, later);
        assert_eq!(payloads(&mut welcome), [""; 0]);
        assert_eq!(broker.retained_after(None, later).count(), 0);
    }

    #[test]
    fn subscriptions_are_bounded() {
        let (mut broker, now) = (Broker::default(), Now::read());
        let welcome = broker.connect(arrival("c"), now);
        for number in 0..50 {
            subscribe(&mut broker, "c", &welcome, &format!("a/{number}"), now);
        }
        assert_eq!(broker.subscribe("c", welcome.number, &[wanted("b")], now), [Err(Reason::QuotaExceeded)]);
        // One that is there already is no further one.
        subscribe(&mut broker, "c", &welcome, "a/7", now);
        let results = broker.subscribe("c", welcome.number, &[wanted("a/#/b")], now);
        assert_eq!(results, [Err(Reason::TopicInvalid)]);
    }

    #[test]
    fn a_client_is_described_while_it_is_there_and_after() {
        let (mut broker, now) = (Broker::default(), Now::read());
        assert!(broker.describe("c").is_none());
        let welcome = broker.connect(arrival("c"), now);
        assert!(broker.describe("c").expect("connected").ended.is_none());
        broker.disconnect("c", welcome.number, lost(None), now);
        let (_, reason) = broker.describe("c").expect("remembered").ended.expect("it ended");
        assert_eq!(reason, EndReason::ConnectionLost);
        let direct = broker.send_directly("c", Arc::new(message("a", "x")), None);
        assert_eq!(direct, Err(DirectError::Offline));
        assert!(!broker.evict("c", true, false));
        broker.sweep(now.after(HOUR * 2));
        assert!(broker.describe("c").is_none());
    }
}
