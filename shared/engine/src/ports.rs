//! What the use cases need of the world. Every adapter passes the same contract suite (`contract`).
//!
//! Two sentences hold for every method. A row whose `exp` has passed at `now` is absent, for reads and for conditions alike: TTL
//! deletes late. Reads are strongly consistent.

use crate::rows::{
    AppendOutcome, Checkpoint, Connection, Head, Inverse, Leased, Link, ListOutcome, MqttOutcome, NewEntry, PostOutcome,
    PutOutcome, Released, RotateOutcome, Rotation, Shard, ShardKey, Subscription, SubscriptionState, Tail, Window,
};
use crate::wakeup::Wakeup;
use carillon_core::channel::{Channel, Namespace};
use carillon_core::connection::ConnectionId;
use carillon_core::namespace::NamespaceOptions;
use carillon_core::position::{Epoch, Position};
use carillon_core::time::{Millis, Seconds};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// A service behind a port did not do its work. What it did is unknown unless the method says otherwise.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{operation} failed")]
pub struct PortError {
    /// Which operation, for the log.
    pub operation: &'static str,
    /// Why.
    #[source]
    pub source: Arc<dyn std::error::Error + Send + Sync>,
}

impl PortError {
    /// The failure of `operation`.
    pub fn new(operation: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { operation, source: Arc::from(source.into()) }
    }
}

/// What every port answers.
pub type Answer<T> = Result<T, PortError>;

/// The log's entries.
pub trait Log {
    /// The newest entry of an epoch, or none where no entry is left.
    fn newest(&self, channel: &Channel, epoch: Epoch, now: Millis) -> impl Future<Output = Answer<Option<Tail>>> + Send;

    /// The messages after `after`, up to and with `upto`, `limit` at most; it looks one entry back to resume inside an entry.
    /// Closing entries hold no messages and are passed over.
    fn read(
        &self,
        channel: &Channel,
        epoch: Epoch,
        after: u64,
        upto: Option<u64>,
        limit: usize,
        now: Millis,
    ) -> impl Future<Output = Answer<Window>> + Send;

    /// Writes one entry on condition that its offset is free; with markers or as the first of its epoch in one transaction.
    fn append(&self, entry: &NewEntry, now: Millis) -> impl Future<Output = Answer<AppendOutcome>> + Send;

    /// Begins a new epoch: one transaction of the head and the closing entry (A4).
    fn rotate(&self, rotation: &Rotation, now: Millis) -> impl Future<Output = Answer<RotateOutcome>> + Send;
}

/// The heads of the channels.
pub trait Heads {
    /// A channel's head.
    fn head(&self, channel: &Channel, now: Millis) -> impl Future<Output = Answer<Option<Head>>> + Send;

    /// Makes an unstarted head where there is none, in an epoch after that of an expired one (T1), and answers with the head
    /// that is there then.
    fn create_head(&self, channel: &Channel, exp: Seconds, now: Millis) -> impl Future<Output = Answer<Head>> + Send;

    /// Lets a head live until `exp` at least.
    fn extend_head(&self, channel: &Channel, exp: Seconds, now: Millis) -> impl Future<Output = Answer<()>> + Send;

    /// Makes `full + 1` the newest shard, on condition that `full` is (S5).
    fn add_shard(&self, channel: &Channel, full: u32, now: Millis) -> impl Future<Output = Answer<()>> + Send;
}

/// The shards' rows, as subscribers and publishers use them.
pub trait Shards {
    /// A shard.
    fn shard(&self, key: &ShardKey, now: Millis) -> impl Future<Output = Answer<Option<Shard>>> + Send;

    /// `ADD gen 1, n 1`, making the row with `exp` where it is absent; answers with the row after that (S2).
    fn arrive(&self, key: &ShardKey, exp: Seconds, now: Millis) -> impl Future<Output = Answer<Shard>> + Send;

    /// `ADD gen 1` on a row that is there (D1); nothing where it is absent.
    fn bump(&self, key: &ShardKey, now: Millis) -> impl Future<Output = Answer<()>> + Send;

    /// One transaction {shard.listed = true, head ADD listed k} (S2).
    fn list(&self, key: &ShardKey, now: Millis) -> impl Future<Output = Answer<ListOutcome>> + Send;

    /// Lets a shard live until `exp` at least.
    fn extend_shard(&self, key: &ShardKey, exp: Seconds, now: Millis) -> impl Future<Output = Answer<()>> + Send;
}

/// The shards' rows, as the drain uses them. Every write is on condition that `owner` still is the shard's owner.
pub trait Leases {
    /// Takes the lease where it is free or has lapsed.
    fn acquire(&self, key: &ShardKey, owner: &str, until: Millis, now: Millis) -> impl Future<Output = Answer<Leased>> + Send;

    /// Writes down how far a long round has come (D6). `false`: the lease is lost.
    fn checkpoint(&self, key: &ShardKey, owner: &str, checkpoint: &Checkpoint) -> impl Future<Output = Answer<bool>> + Send;

    /// Moves the cursor and clears the checkpoint (D4). `false`: the lease is lost.
    fn advance(&self, key: &ShardKey, owner: &str, cursor: Position) -> impl Future<Output = Answer<bool>> + Send;

    /// Gives the lease back: with `gen` on condition that it is unchanged, writing the cursor and clearing the checkpoint (D4);
    /// without, as it is.
    fn release(
        &self,
        key: &ShardKey,
        owner: &str,
        cursor: Option<Position>,
        generation: Option<u64>,
    ) -> impl Future<Output = Answer<Released>> + Send;

    /// Gives the lease back, writing the cursor where there is one, and that a wake-up comes at `retry_at` (P2). `false`: the
    /// lease is lost.
    fn postpone(
        &self,
        key: &ShardKey,
        owner: &str,
        cursor: Option<Position>,
        retry_at: Millis,
    ) -> impl Future<Output = Answer<bool>> + Send;

    /// Unlists an empty shard and gives its lease back, one transaction on condition of owner and `gen` (D5). The cursor goes
    /// with it: the next subscriber begins the window at its own `from`. `false`: something changed.
    fn unlist(&self, key: &ShardKey, owner: &str, generation: u64) -> impl Future<Output = Answer<bool>> + Send;
}

/// The subscriptions of a shard.
pub trait Subscriptions {
    /// Writes a subscription; without `replace` only where none is there.
    fn subscribe(&self, row: &Subscription, replace: bool, now: Millis) -> impl Future<Output = Answer<PutOutcome>> + Send;

    /// The subscriptions of a shard in the order of their connections, one page, after `after`.
    fn page(
        &self,
        key: &ShardKey,
        after: Option<&ConnectionId>,
        now: Millis,
    ) -> impl Future<Output = Answer<(Vec<Subscription>, bool)>> + Send;

    /// Moves a subscription on condition of its `rid`. `false`: it is another one now, or gone.
    fn move_to(&self, row: &Subscription, from: Position, state: SubscriptionState) -> impl Future<Output = Answer<bool>> + Send;

    /// Deletes a subscription on condition of its `rid`. `false`: it is another one now, or gone.
    fn unsubscribe(&self, key: &ShardKey, connection: &ConnectionId, rid: &str) -> impl Future<Output = Answer<bool>> + Send;
}

/// The connections and what they listen to.
pub trait Connections {
    /// Writes a connection.
    fn connect(&self, connection: &Connection) -> impl Future<Output = Answer<()>> + Send;

    /// A connection and its inverse rows, in one query. Inverse rows can outlive their connection.
    fn connection(
        &self,
        id: &ConnectionId,
        now: Millis,
    ) -> impl Future<Output = Answer<(Option<Connection>, Vec<Inverse>)>> + Send;

    /// Writes an inverse row; without `replace` only where none is there, and then answers with the one that stays.
    fn link(&self, link: &Link, replace: bool, now: Millis) -> impl Future<Output = Answer<Option<Inverse>>> + Send;

    /// Deletes an inverse row on condition of its `rid`.
    fn unlink(&self, id: &ConnectionId, channel: &Channel, rid: &str) -> impl Future<Output = Answer<()>> + Send;

    /// Deletes a connection's own row.
    fn disconnect(&self, id: &ConnectionId) -> impl Future<Output = Answer<()>> + Send;
}

/// The namespaces' options.
pub trait Namespaces {
    /// A namespace's options; none where nobody set any.
    fn namespace(&self, namespace: &Namespace) -> impl Future<Output = Answer<Option<NamespaceOptions>>> + Send;

    /// Sets a namespace's options.
    fn set_namespace(&self, namespace: &Namespace, options: &NamespaceOptions) -> impl Future<Output = Answer<()>> + Send;

    /// Every namespace whose options somebody set, by name.
    fn namespaces(&self) -> impl Future<Output = Answer<Vec<(Namespace, NamespaceOptions)>>> + Send;
}

/// Everything that is stored.
pub trait Store: Log + Heads + Shards + Leases + Subscriptions + Connections + Namespaces + Send + Sync {}

impl<T: Log + Heads + Shards + Leases + Subscriptions + Connections + Namespaces + Send + Sync> Store for T {}

/// The wake-up queue: standard, so a wake-up may come late, twice or out of order.
pub trait Queue: Send + Sync {
    /// Sends wake-ups, which come `delay` later at the earliest, in whole seconds and 15 minutes at most; what fails in part is
    /// sent again for that part (P3).
    ///
    /// # Errors
    /// When one of them could not be sent; the others may have been.
    fn send(&self, wakeups: &[Wakeup], delay: Duration) -> impl Future<Output = Answer<()>> + Send;
}

/// API Gateway's @connections.
pub trait Posts: Send + Sync {
    /// Posts one frame to one connection: one attempt, two seconds at most.
    ///
    /// # Errors
    /// When the service refuses us altogether (missing permission, wrong address): no connection's fault.
    fn post(&self, connection: &ConnectionId, frame: &Arc<str>) -> impl Future<Output = Answer<PostOutcome>> + Send;

    /// Closes one connection; a connection that is gone already is no error.
    fn close(&self, connection: &ConnectionId) -> impl Future<Output = Answer<()>> + Send;
}

/// IoT Core, for those who publish to its MQTT subscribers.
pub trait Mqtt: Send + Sync {
    /// Publishes one message on its channel's topic at QoS 1: one attempt, two seconds at most. `json` is the event with its
    /// position in it, which also goes along as user properties.
    ///
    /// # Errors
    /// When the service refuses us altogether (missing permission, wrong address).
    fn publish(
        &self,
        channel: &Channel,
        position: Position,
        json: &str,
        retain: bool,
    ) -> impl Future<Output = Answer<MqttOutcome>> + Send;
}

/// IoT Core, for those who listen: what is published on channels, as it is published, without a promise (W2).
pub trait Live: Send + Sync {
    /// What one listener hears.
    type Feed: Feed;

    /// Listens to channels until the feed is dropped. It begins without a connection: [`LiveEvent::Joined`] says when there is one.
    fn listen(&self, channels: &[Channel]) -> Self::Feed;
}

/// What one listener hears.
pub trait Feed: Send {
    /// The next thing. It can be given up and called again without a loss, and waits for ever where nothing happens.
    fn next(&mut self) -> impl Future<Output = LiveEvent> + Send;
}

/// Something that a listener hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LiveEvent {
    /// From here on it hears what is published on all its channels, as far as IoT Core brings it.
    Joined,
    /// A message.
    Message {
        /// Its channel.
        channel: Channel,
        /// Its position.
        position: Position,
        /// The event with its position in it.
        json: Arc<str>,
    },
    /// Some messages were dropped, because the listener did not take them in time: the log has them.
    Lagged,
    /// It hears nothing until the next [`LiveEvent::Joined`].
    Away,
}

/// The clock.
pub trait Clock: Send + Sync {
    /// Now, by this process's clock.
    fn now(&self) -> Millis;
}
