//! Memory adapters for all ports. They are real code: they keep every condition that the tables keep, pass the same contract
//! suite, and in a [`Storm`] they are slow, fail before or after the deed, and answer late, all from one seed.

mod iot;

use crate::ports::{Answer, Clock, Connections, Heads, Leases, Log, Namespaces, PortError, Posts, Queue, Shards, Subscriptions};
use crate::rows::{
    AppendOutcome, Checkpoint, Connection, Head, Inverse, Leased, Link, ListOutcome, Logged, NewEntry, PostOutcome, Previous,
    PutOutcome, Released, RotateOutcome, Rotation, Shard, ShardKey, Subscription, SubscriptionState, Tail, Window,
};
use crate::wakeup::Wakeup;
use carillon_core::channel::{Channel, Namespace};
use carillon_core::connection::ConnectionId;
use carillon_core::event::{EventJson, Identity};
use carillon_core::namespace::NamespaceOptions;
use carillon_core::position::{Epoch, Position};
use carillon_core::time::{Millis, Seconds};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

pub use iot::{IotFaults, MemoryFeed, MemoryIot};

/// Rows of a page of subscriptions: few, so that tests cross page boundaries.
const PAGE_ROWS: usize = 3;

/// The tables, in memory. Clones share them.
#[derive(Clone, Default)]
pub struct Memory {
    tables: Arc<Mutex<Tables>>,
    storm: Option<Storm>,
}

/// How the ports misbehave, from one seed. Clones share the seed's stream.
#[derive(Clone)]
pub struct Storm {
    source: Arc<Mutex<StdRng>>,
    faults: Faults,
}

/// How often the ports misbehave: probabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// A call fails before anything happened.
    pub refused: f64,
    /// A call's deed is done and its answer lost.
    pub unanswered: f64,
    /// A transaction meets another.
    pub conflict: f64,
}

/// The queue, in memory. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryQueue {
    sent: Arc<Mutex<VecDeque<Wakeup>>>,
    delayed: Arc<AtomicU64>,
    arrived: Arc<Notify>,
    storm: Option<Storm>,
}

/// The connections that are posted to, in memory. Clones share them.
#[derive(Clone, Default)]
pub struct MemoryPosts {
    clients: Arc<Mutex<HashMap<ConnectionId, Client>>>,
    storm: Option<Storm>,
}

/// A clock that a test sets. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryClock(Arc<AtomicU64>);

/// What a client of [`MemoryPosts`] does with posts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// It takes them.
    #[default]
    Takes,
    /// It is gone.
    Gone,
    /// Its buffer is full.
    Full,
}

#[derive(Default)]
struct Client {
    behaviour: Behaviour,
    frames: Vec<Arc<str>>,
    posts: u64,
    closed: bool,
}

#[derive(Default)]
struct Tables {
    log: HashMap<(Channel, Epoch), BTreeMap<u64, Entry>>,
    markers: HashMap<(Channel, Identity), (Position, Seconds)>,
    heads: HashMap<Channel, Head>,
    shards: HashMap<ShardKey, ShardRow>,
    subscriptions: HashMap<ShardKey, BTreeMap<ConnectionId, Subscription>>,
    connections: HashMap<ConnectionId, Connection>,
    inverses: HashMap<ConnectionId, BTreeMap<Channel, (Inverse, Seconds)>>,
    namespaces: BTreeMap<Namespace, NamespaceOptions>,
}

struct Entry {
    events: Vec<EventJson>,
    decodable: bool,
    attempt: String,
    ts: Millis,
    exp: Seconds,
}

struct ShardRow {
    shard: Shard,
    lease: Option<(String, Millis)>,
}

impl Memory {
    /// Tables in a storm.
    #[must_use]
    pub fn in_storm(storm: Storm) -> Self {
        Self { storm: Some(storm), ..Self::default() }
    }

    /// The same tables in a storm, for those who have them.
    #[must_use]
    pub fn in_this_storm(&self, storm: Storm) -> Self {
        Self { storm: Some(storm), ..self.clone() }
    }

    /// The same tables in fair weather, for a test that looks.
    #[must_use]
    pub fn calm(&self) -> Self {
        Self { storm: None, ..self.clone() }
    }

    /// Makes the entry that begins at `first` undecodable.
    pub fn corrupt(&self, channel: &Channel, epoch: Epoch, first: u64) {
        if let Some(entry) = self.tables().log.get_mut(&(channel.clone(), epoch)).and_then(|log| log.get_mut(&first)) {
            entry.decodable = false;
        }
    }

    /// Deletes the entries of an epoch that begin at `upto` or before, as expiry does.
    pub fn expire(&self, channel: &Channel, epoch: Epoch, upto: u64) {
        if let Some(log) = self.tables().log.get_mut(&(channel.clone(), epoch)) {
            log.retain(|first, _| *first > upto);
        }
    }

    /// All messages of a channel, of all epochs, in order.
    #[must_use]
    pub fn whole_log(&self, channel: &Channel) -> Vec<(Position, EventJson)> {
        let tables = self.tables();
        let mut messages: Vec<_> = tables
            .log
            .iter()
            .filter(|((of, _), _)| of == channel)
            .flat_map(|((_, epoch), entries)| {
                entries.iter().flat_map(move |(first, entry)| {
                    (*first..).zip(&entry.events).map(move |(offset, event)| (Position::new(*epoch, offset), event.clone()))
                })
            })
            .collect();
        messages.sort_by_key(|(position, _)| *position);
        messages
    }

    /// How many subscriptions there are in all.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.tables().subscriptions.values().map(BTreeMap::len).sum()
    }

    /// Every shard that has a subscription, and whether head and shard both say listed (I7).
    #[must_use]
    pub fn shards_with_subscriptions(&self) -> Vec<(ShardKey, bool)> {
        let tables = self.tables();
        let occupied = tables.subscriptions.iter().filter(|(_, rows)| !rows.is_empty());
        occupied
            .map(|(key, _)| {
                let by_shard = tables.shards.get(key).is_some_and(|row| row.shard.listed);
                let by_head = tables.heads.get(&key.channel).is_some_and(|head| head.listed.contains(&key.shard));
                (key.clone(), by_shard && by_head)
            })
            .collect()
    }

    /// Who holds a shard's lease.
    #[must_use]
    pub fn holder(&self, key: &ShardKey) -> Option<String> {
        self.tables().shards.get(key)?.lease.as_ref().map(|(owner, _)| owner.clone())
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One call: waits, then does the deed at one instant, then may lose the answer.
    async fn call<T>(&self, operation: &'static str, deed: impl FnOnce(&mut Tables) -> T) -> Answer<T> {
        let Some(storm) = &self.storm else { return Ok(deed(&mut self.tables())) };
        storm.before(operation).await?;
        let done = deed(&mut self.tables());
        storm.after(operation).await?;
        Ok(done)
    }

    fn meets_another(&self) -> bool {
        self.storm.as_ref().is_some_and(|storm| storm.happens(storm.faults.conflict))
    }
}

impl Storm {
    /// A storm from this seed.
    #[must_use]
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self { source: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))), faults }
    }

    /// Whether something of this probability happens now.
    #[must_use]
    pub fn happens(&self, probability: f64) -> bool {
        self.draw(|source| source.random_bool(probability))
    }

    /// A number of this range.
    #[must_use]
    pub fn number(&self, range: std::ops::Range<u64>) -> u64 {
        self.draw(|source| source.random_range(range))
    }

    /// As long as a call takes: most often some milliseconds, now and then up to two seconds.
    pub async fn latency(&self) {
        let milliseconds = self.draw(|source| match source.random_range(0..100) {
            0..60 => source.random_range(2..22),
            60..95 => source.random_range(0..300),
            _ => source.random_range(0..1_900),
        });
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    }

    async fn before(&self, operation: &'static str) -> Answer<()> {
        self.latency().await;
        if self.happens(self.faults.refused) { Err(PortError::new(operation, "refused by the storm")) } else { Ok(()) }
    }

    async fn after(&self, operation: &'static str) -> Answer<()> {
        self.latency().await;
        if self.happens(self.faults.unanswered) { Err(PortError::new(operation, "the storm took the answer")) } else { Ok(()) }
    }

    fn draw<T>(&self, from: impl FnOnce(&mut StdRng) -> T) -> T {
        from(&mut self.source.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Tables {
    fn live_head(&mut self, channel: &Channel, now: Millis) -> Option<&mut Head> {
        self.heads.get_mut(channel).filter(|head| !head.exp.has_passed(now))
    }

    fn live_shard(&mut self, key: &ShardKey, now: Millis) -> Option<&mut ShardRow> {
        self.shards.get_mut(key).filter(|row| !row.shard.exp.has_passed(now))
    }

    /// The shard's row while `owner` holds its lease.
    fn held(&mut self, key: &ShardKey, owner: &str) -> Option<&mut ShardRow> {
        self.shards.get_mut(key).filter(|row| row.lease.as_ref().is_some_and(|(holder, _)| holder == owner))
    }

    fn subscription(&mut self, key: &ShardKey, connection: &ConnectionId, rid: &str) -> Option<&mut Subscription> {
        self.subscriptions.get_mut(key)?.get_mut(connection).filter(|row| row.rid == rid)
    }
}

impl Log for Memory {
    async fn newest(&self, channel: &Channel, epoch: Epoch, now: Millis) -> Answer<Option<Tail>> {
        self.call("newest", |tables| {
            let log = tables.log.get(&(channel.clone(), epoch))?;
            let (first, entry) = log.iter().rev().find(|(_, entry)| !entry.exp.has_passed(now))?;
            let last = first + entry.events.len() as u64 - 1;
            Some(Tail { last, exp: entry.exp, closing: entry.events.is_empty() })
        })
        .await
    }

    async fn read(
        &self,
        channel: &Channel,
        epoch: Epoch,
        after: u64,
        upto: Option<u64>,
        limit: usize,
        now: Millis,
    ) -> Answer<Window> {
        self.call("read", |tables| {
            let Some(log) = tables.log.get(&(channel.clone(), epoch)) else { return Window::default() };
            let wanted = after + 1..=upto.unwrap_or(u64::MAX);
            let mut messages: Vec<Logged> = log
                .iter()
                .filter(|(_, entry)| !entry.exp.has_passed(now))
                .flat_map(|(first, entry)| {
                    (*first..).zip(&entry.events).map(|(offset, event)| Logged {
                        offset,
                        event: entry.decodable.then(|| event.clone()),
                        ts: entry.ts,
                        exp: entry.exp,
                    })
                })
                .filter(|message| wanted.contains(&message.offset))
                .take(limit + 1)
                .collect();
            let full = messages.len() > limit;
            messages.truncate(limit);
            Window { messages, full }
        })
        .await
    }

    async fn append(&self, entry: &NewEntry, now: Millis) -> Answer<AppendOutcome> {
        let transaction = entry.starts || entry.messages.iter().any(|message| message.identity.is_some());
        if transaction && self.meets_another() {
            return self.call("append", |_| AppendOutcome::Conflict).await;
        }
        self.call("append", |tables| {
            let place = (entry.channel.clone(), entry.epoch);
            if let Some(there) = tables.log.get(&place).and_then(|log| log.get(&entry.first)) {
                if there.attempt == entry.attempt {
                    return AppendOutcome::Done;
                }
                let (next, closing) = (entry.first + there.events.len() as u64, there.events.is_empty());
                return AppendOutcome::Taken { next, exp: there.exp, closing };
            }
            if entry.starts {
                match tables.live_head(&entry.channel, now) {
                    Some(head) if head.epoch == entry.epoch && !head.started => {}
                    _ => return AppendOutcome::HeadMoved,
                }
            }
            let marker = |identity: &Identity| (entry.channel.clone(), identity.clone());
            let duplicates: Vec<(usize, Position)> = entry
                .messages
                .iter()
                .enumerate()
                .filter_map(|(index, message)| {
                    let (position, exp) = tables.markers.get(&marker(message.identity.as_ref()?))?;
                    (!exp.has_passed(now)).then_some((index, *position))
                })
                .collect();
            if !duplicates.is_empty() {
                return AppendOutcome::Duplicates(duplicates);
            }
            for (offset, message) in (entry.first..).zip(&entry.messages) {
                if let Some(identity) = &message.identity {
                    tables.markers.insert(marker(identity), (Position::new(entry.epoch, offset), entry.markers_exp));
                }
            }
            if entry.starts
                && let Some(head) = tables.live_head(&entry.channel, now)
            {
                head.started = true;
            }
            let stored = Entry {
                events: entry.messages.iter().map(|message| message.event.clone()).collect(),
                decodable: true,
                attempt: entry.attempt.clone(),
                ts: entry.ts,
                exp: entry.exp,
            };
            tables.log.entry(place).or_default().insert(entry.first, stored);
            AppendOutcome::Done
        })
        .await
    }

    async fn rotate(&self, rotation: &Rotation, now: Millis) -> Answer<RotateOutcome> {
        if self.meets_another() {
            return self.call("rotate", |_| RotateOutcome::Conflict).await;
        }
        self.call("rotate", |tables| {
            let place = (rotation.channel.clone(), rotation.from);
            let closing = rotation.last.map(|last| last + 1);
            let entry = |offset| tables.log.get(&place).and_then(|log| log.get(&offset));
            let moved = match closing {
                Some(closing) => entry(closing).is_some(),
                None => entry(1).is_some_and(|first| !first.exp.has_passed(now)),
            };
            if moved {
                return RotateOutcome::Moved;
            }
            let Some(head) = tables.live_head(&rotation.channel, now).filter(|head| head.epoch == rotation.from && head.started)
            else {
                return RotateOutcome::Moved;
            };
            head.epoch = rotation.to;
            head.started = false;
            head.prev = Some(Previous { epoch: rotation.from, last: rotation.last });
            head.exp = head.exp.max(rotation.head_exp);
            if let Some(offset) = closing {
                let entry =
                    Entry { events: Vec::new(), decodable: true, attempt: String::new(), ts: now, exp: rotation.closing_exp };
                tables.log.entry(place).or_default().insert(offset, entry);
            }
            RotateOutcome::Done
        })
        .await
    }
}

impl Heads for Memory {
    async fn head(&self, channel: &Channel, now: Millis) -> Answer<Option<Head>> {
        self.call("head", |tables| tables.live_head(channel, now).cloned()).await
    }

    async fn create_head(&self, channel: &Channel, exp: Seconds, now: Millis) -> Answer<Head> {
        self.call("create head", |tables| {
            if let Some(head) = tables.live_head(channel, now) {
                return head.clone();
            }
            let epoch = Epoch::next(tables.heads.get(channel).map(|head| head.epoch), now);
            let head = Head { epoch, started: false, prev: None, newest_shard: 0, listed: BTreeSet::new(), exp };
            tables.heads.insert(channel.clone(), head.clone());
            head
        })
        .await
    }

    async fn extend_head(&self, channel: &Channel, exp: Seconds, now: Millis) -> Answer<()> {
        self.call("extend head", |tables| {
            if let Some(head) = tables.live_head(channel, now) {
                head.exp = head.exp.max(exp);
            }
        })
        .await
    }

    async fn add_shard(&self, channel: &Channel, full: u32, now: Millis) -> Answer<()> {
        self.call("add shard", |tables| {
            if let Some(head) = tables.live_head(channel, now).filter(|head| head.newest_shard == full) {
                head.newest_shard = full + 1;
            }
        })
        .await
    }
}

impl Shards for Memory {
    async fn shard(&self, key: &ShardKey, now: Millis) -> Answer<Option<Shard>> {
        self.call("shard", |tables| tables.live_shard(key, now).map(|row| row.shard.clone())).await
    }

    async fn arrive(&self, key: &ShardKey, exp: Seconds, now: Millis) -> Answer<Shard> {
        self.call("arrive", |tables| {
            if tables.live_shard(key, now).is_none() {
                let generation = tables.shards.get(key).map_or(0, |expired| expired.shard.generation);
                let shard = Shard { generation, arrivals: 0, listed: false, cursor: None, checkpoint: None, retry_at: None, exp };
                tables.shards.insert(key.clone(), ShardRow { shard, lease: None });
            }
            let row = tables.live_shard(key, now).expect("just made with an exp in the future");
            row.shard.generation += 1;
            row.shard.arrivals += 1;
            row.shard.clone()
        })
        .await
    }

    async fn bump(&self, key: &ShardKey, now: Millis) -> Answer<()> {
        self.call("bump", |tables| {
            if let Some(row) = tables.live_shard(key, now) {
                row.shard.generation += 1;
            }
        })
        .await
    }

    async fn list(&self, key: &ShardKey, now: Millis) -> Answer<ListOutcome> {
        if self.meets_another() {
            return self.call("list", |_| ListOutcome::Conflict).await;
        }
        self.call("list", |tables| {
            if tables.live_head(&key.channel, now).is_none() || tables.live_shard(key, now).is_none() {
                return ListOutcome::Conflict;
            }
            if let Some(row) = tables.live_shard(key, now) {
                row.shard.listed = true;
            }
            if let Some(head) = tables.live_head(&key.channel, now) {
                head.listed.insert(key.shard);
            }
            ListOutcome::Done
        })
        .await
    }

    async fn extend_shard(&self, key: &ShardKey, exp: Seconds, now: Millis) -> Answer<()> {
        self.call("extend shard", |tables| {
            if let Some(row) = tables.live_shard(key, now) {
                row.shard.exp = row.shard.exp.max(exp);
            }
        })
        .await
    }
}

impl Leases for Memory {
    async fn acquire(&self, key: &ShardKey, owner: &str, until: Millis, now: Millis) -> Answer<Leased> {
        self.call("acquire", |tables| {
            let Some(row) = tables.live_shard(key, now) else { return Leased::Absent };
            match &row.lease {
                Some((holder, until)) if *until >= now => Leased::Held(holder.clone()),
                _ => {
                    row.lease = Some((owner.to_owned(), until));
                    Leased::Acquired(row.shard.clone())
                }
            }
        })
        .await
    }

    async fn checkpoint(&self, key: &ShardKey, owner: &str, checkpoint: &Checkpoint) -> Answer<bool> {
        self.call("checkpoint", |tables| {
            let row = tables.held(key, owner);
            row.map(|row| row.shard.checkpoint = Some(checkpoint.clone())).is_some()
        })
        .await
    }

    async fn advance(&self, key: &ShardKey, owner: &str, cursor: Position) -> Answer<bool> {
        self.call("advance", |tables| {
            let row = tables.held(key, owner);
            row.map(|row| {
                row.shard.cursor = Some(cursor);
                row.shard.checkpoint = None;
            })
            .is_some()
        })
        .await
    }

    async fn release(&self, key: &ShardKey, owner: &str, cursor: Option<Position>, generation: Option<u64>) -> Answer<Released> {
        self.call("release", |tables| {
            let Some(row) = tables.held(key, owner) else { return Released::Lost };
            if let Some(generation) = generation {
                if row.shard.generation != generation {
                    return Released::Changed;
                }
                row.shard.checkpoint = None;
            }
            if cursor.is_some() {
                row.shard.cursor = cursor;
            }
            row.lease = None;
            Released::Done
        })
        .await
    }

    async fn postpone(&self, key: &ShardKey, owner: &str, cursor: Option<Position>, retry_at: Millis) -> Answer<bool> {
        self.call("postpone", |tables| {
            let Some(row) = tables.held(key, owner) else { return false };
            row.shard.cursor = cursor.or(row.shard.cursor);
            row.shard.retry_at = Some(retry_at);
            row.lease = None;
            true
        })
        .await
    }

    async fn unlist(&self, key: &ShardKey, owner: &str, generation: u64) -> Answer<bool> {
        if self.meets_another() {
            return self.call("unlist", |_| false).await;
        }
        self.call("unlist", |tables| {
            let Some(row) = tables.held(key, owner).filter(|row| row.shard.generation == generation) else { return false };
            row.shard.listed = false;
            row.shard.cursor = None;
            row.shard.checkpoint = None;
            row.lease = None;
            if let Some(head) = tables.heads.get_mut(&key.channel) {
                head.listed.remove(&key.shard);
            }
            true
        })
        .await
    }
}

impl Subscriptions for Memory {
    async fn subscribe(&self, row: &Subscription, replace: bool, now: Millis) -> Answer<PutOutcome> {
        self.call("subscribe", |tables| {
            let rows = tables.subscriptions.entry(row.key.clone()).or_default();
            if let Some(there) = rows.get(&row.connection).filter(|there| !replace && !there.exp.has_passed(now)) {
                return PutOutcome::Kept(there.clone());
            }
            rows.insert(row.connection.clone(), row.clone());
            PutOutcome::Put
        })
        .await
    }

    async fn page(&self, key: &ShardKey, after: Option<&ConnectionId>, now: Millis) -> Answer<(Vec<Subscription>, bool)> {
        self.call("page", |tables| {
            let rows = tables.subscriptions.get(key).into_iter().flat_map(BTreeMap::values);
            let mut page: Vec<_> = rows
                .filter(|row| !row.exp.has_passed(now) && after.is_none_or(|after| row.connection > *after))
                .take(PAGE_ROWS + 1)
                .cloned()
                .collect();
            let more = page.len() > PAGE_ROWS;
            page.truncate(PAGE_ROWS);
            (page, more)
        })
        .await
    }

    async fn move_to(&self, row: &Subscription, from: Position, state: SubscriptionState) -> Answer<bool> {
        self.call("move subscription", |tables| {
            let there = tables.subscription(&row.key, &row.connection, &row.rid);
            there
                .map(|there| {
                    there.from = from;
                    there.state = state;
                })
                .is_some()
        })
        .await
    }

    async fn unsubscribe(&self, key: &ShardKey, connection: &ConnectionId, rid: &str) -> Answer<bool> {
        self.call("unsubscribe", |tables| {
            let found = tables.subscription(key, connection, rid).is_some();
            if found && let Some(rows) = tables.subscriptions.get_mut(key) {
                rows.remove(connection);
            }
            found
        })
        .await
    }
}

impl Connections for Memory {
    async fn connect(&self, connection: &Connection) -> Answer<()> {
        self.call("connect", |tables| {
            tables.connections.insert(connection.id.clone(), connection.clone());
        })
        .await
    }

    async fn connection(&self, id: &ConnectionId, now: Millis) -> Answer<(Option<Connection>, Vec<Inverse>)> {
        self.call("connection", |tables| {
            let connection = tables.connections.get(id).filter(|connection| !connection.exp.has_passed(now)).cloned();
            let inverses = tables.inverses.get(id).into_iter().flat_map(BTreeMap::values);
            (connection, inverses.filter(|(_, exp)| !exp.has_passed(now)).map(|(inverse, _)| inverse.clone()).collect())
        })
        .await
    }

    async fn link(&self, link: &Link, replace: bool, now: Millis) -> Answer<Option<Inverse>> {
        self.call("link", |tables| {
            let inverses = tables.inverses.entry(link.connection.clone()).or_default();
            let channel = &link.inverse.key.channel;
            if let Some((there, _)) = inverses.get(channel).filter(|(_, exp)| !replace && !exp.has_passed(now)) {
                return Some(there.clone());
            }
            inverses.insert(channel.clone(), (link.inverse.clone(), link.exp));
            None
        })
        .await
    }

    async fn unlink(&self, id: &ConnectionId, channel: &Channel, rid: &str) -> Answer<()> {
        self.call("unlink", |tables| {
            if let Some(inverses) = tables.inverses.get_mut(id) {
                inverses.retain(|of, (inverse, _)| of != channel || inverse.rid != rid);
            }
        })
        .await
    }

    async fn disconnect(&self, id: &ConnectionId) -> Answer<()> {
        self.call("disconnect", |tables| {
            tables.connections.remove(id);
        })
        .await
    }
}

impl Namespaces for Memory {
    async fn namespace(&self, namespace: &Namespace) -> Answer<Option<NamespaceOptions>> {
        self.call("namespace", |tables| tables.namespaces.get(namespace).copied()).await
    }

    async fn set_namespace(&self, namespace: &Namespace, options: &NamespaceOptions) -> Answer<()> {
        self.call("set namespace", |tables| {
            tables.namespaces.insert(namespace.clone(), *options);
        })
        .await
    }

    async fn namespaces(&self) -> Answer<Vec<(Namespace, NamespaceOptions)>> {
        self.call("namespaces", |tables| tables.namespaces.iter().map(|(name, options)| (name.clone(), *options)).collect()).await
    }
}

impl MemoryQueue {
    /// A queue in a storm.
    #[must_use]
    pub fn in_storm(storm: Storm) -> Self {
        Self { storm: Some(storm), ..Self::default() }
    }

    fn put(&self, wakeups: &[Wakeup]) {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).extend(wakeups.iter().cloned());
        self.arrived.notify_one();
    }

    /// Whether wake-ups are on their way that come later.
    #[must_use]
    pub fn has_delayed(&self) -> bool {
        self.delayed.load(Ordering::SeqCst) > 0
    }

    /// Takes the oldest wake-up out.
    #[must_use]
    pub fn take(&self) -> Option<Wakeup> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Waits for a wake-up and takes it out.
    pub async fn next(&self) -> Wakeup {
        loop {
            match self.take() {
                Some(wakeup) => return wakeup,
                None => self.arrived.notified().await,
            }
        }
    }
}

impl Queue for MemoryQueue {
    async fn send(&self, wakeups: &[Wakeup], delay: Duration) -> Answer<()> {
        if let Some(storm) = &self.storm {
            storm.before("send").await?;
        }
        if delay.is_zero() {
            self.put(wakeups);
        } else {
            let (queue, wakeups) = (self.clone(), wakeups.to_vec());
            self.delayed.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                queue.put(&wakeups);
                queue.delayed.fetch_sub(1, Ordering::SeqCst);
            });
        }
        if let Some(storm) = &self.storm {
            storm.after("send").await?;
        }
        Ok(())
    }
}

impl MemoryPosts {
    /// Connections in a storm: slow, that is; their answers come.
    #[must_use]
    pub fn in_storm(storm: Storm) -> Self {
        Self { storm: Some(storm), ..Self::default() }
    }

    /// Sets what a client does with posts.
    pub fn behave(&self, connection: &ConnectionId, behaviour: Behaviour) {
        self.client(connection, |client| client.behaviour = behaviour);
    }

    /// The frames that a client has, in order.
    #[must_use]
    pub fn frames(&self, connection: &ConnectionId) -> Vec<Arc<str>> {
        self.client(connection, |client| client.frames.clone())
    }

    /// How often a client was posted to, and whether it was closed.
    #[must_use]
    pub fn seen(&self, connection: &ConnectionId) -> (u64, bool) {
        self.client(connection, |client| (client.posts, client.closed))
    }

    fn client<T>(&self, connection: &ConnectionId, look: impl FnOnce(&mut Client) -> T) -> T {
        look(self.clients.lock().unwrap_or_else(PoisonError::into_inner).entry(connection.clone()).or_default())
    }
}

impl Posts for MemoryPosts {
    async fn post(&self, connection: &ConnectionId, frame: &Arc<str>) -> Answer<PostOutcome> {
        if let Some(storm) = &self.storm {
            storm.latency().await;
        }
        let outcome = self.client(connection, |client| {
            client.posts += 1;
            match client.behaviour {
                _ if client.closed => PostOutcome::Gone,
                Behaviour::Gone => PostOutcome::Gone,
                Behaviour::Full => PostOutcome::Throttled,
                Behaviour::Takes => {
                    client.frames.push(Arc::clone(frame));
                    PostOutcome::Taken
                }
            }
        });
        Ok(outcome)
    }

    async fn close(&self, connection: &ConnectionId) -> Answer<()> {
        self.client(connection, |client| client.closed = true);
        Ok(())
    }
}

impl MemoryClock {
    /// A clock that stands at `now`.
    #[must_use]
    pub fn at(now: Millis) -> Self {
        Self(Arc::new(AtomicU64::new(now.0)))
    }

    /// Sets it forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

impl Clock for MemoryClock {
    fn now(&self) -> Millis {
        Millis(self.0.load(Ordering::SeqCst))
    }
}
