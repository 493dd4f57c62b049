//! What the ports hand over: rows as values, and what became of a conditional write.

use carillon_core::channel::Channel;
use carillon_core::connection::{ConnectionId, Principal};
use carillon_core::event::{EventJson, Identity};
use carillon_core::position::{Epoch, Position};
use carillon_core::time::{Millis, Seconds};
use std::collections::BTreeSet;
use std::fmt;

/// The newest entry of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The offset of the epoch's last message; for a closing entry that of the message before it.
    pub last: u64,
    /// When the entry expires.
    pub exp: Seconds,
    /// Whether it is a closing entry: the epoch has ended, the head knows the next (A4).
    pub closing: bool,
}

/// Part of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The messages in offset order.
    pub messages: Vec<Logged>,
    /// Whether there are more in the range asked for.
    pub full: bool,
}

/// One message of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Its offset.
    pub offset: u64,
    /// The event; none where the entry cannot be decoded.
    pub event: Option<EventJson>,
    /// When it was appended.
    pub ts: Millis,
    /// When its entry expires.
    pub exp: Seconds,
}

/// An entry to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    /// The channel.
    pub channel: Channel,
    /// The epoch.
    pub epoch: Epoch,
    /// The offset of its first message.
    pub first: u64,
    /// Its messages, 1 to 64, each with the identity under which a repeat of it is dropped.
    pub messages: Vec<NewMessage>,
    /// Names this attempt, so that an append whose answer was lost is recognised (A5).
    pub attempt: String,
    /// When it is written.
    pub ts: Millis,
    /// When it expires (A2).
    pub exp: Seconds,
    /// When the id markers expire.
    pub markers_exp: Seconds,
    /// Whether it is the first of its epoch, which the head must then take as started in the same transaction (A4).
    pub starts: bool,
}

/// A message of a new entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMessage {
    /// The event.
    pub event: EventJson,
    /// Its identity, where the publisher gave it an id.
    pub identity: Option<Identity>,
}

/// What became of an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendOutcome {
    /// It is in the log; or an entry of the same attempt already was.
    Done,
    /// Another entry has the offset.
    Taken {
        /// The offset after it.
        next: u64,
        /// When it expires.
        exp: Seconds,
        /// Whether it is a closing entry.
        closing: bool,
    },
    /// The head is not in this epoch, or has started it already.
    HeadMoved,
    /// These messages, by index, were appended before under the same identity, at these positions.
    Duplicates(Vec<(usize, Position)>),
    /// Another transaction was at the same rows: nothing is known, try again.
    Conflict,
}

/// The beginning of a new epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The channel.
    pub channel: Channel,
    /// The epoch that ends.
    pub from: Epoch,
    /// The epoch that begins.
    pub to: Epoch,
    /// The last offset of the epoch that ends, or none when no entry of it is left. Then it gets no closing entry, and its first
    /// entry must not live: one that is just being written may be seen in the head before it is seen in the log.
    pub last: Option<u64>,
    /// When the closing entry expires.
    pub closing_exp: Seconds,
    /// Until when the head lives at least.
    pub head_exp: Seconds,
}

/// What became of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotateOutcome {
    /// The head is in the new epoch, unstarted.
    Done,
    /// The head or the log has moved on: read both again.
    Moved,
    /// Another transaction was at the same rows.
    Conflict,
}

/// A channel's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The current epoch.
    pub epoch: Epoch,
    /// Whether the epoch's first entry has been written.
    pub started: bool,
    /// The epoch before, if there was one.
    pub prev: Option<Previous>,
    /// The newest shard.
    pub newest_shard: u32,
    /// The shards that somebody listens on.
    pub listed: BTreeSet<u32>,
    /// When the row expires.
    pub exp: Seconds,
}

/// The epoch before the current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Previous {
    /// The epoch.
    pub epoch: Epoch,
    /// Its last offset; none when no entry was left of it.
    pub last: Option<u64>,
}

impl Previous {
    /// The position after which the current epoch goes on, where it is known.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.last.map(|last| Position::new(self.epoch, last))
    }
}

/// The number under which a channel's MQTT shard is kept (P2), which no shard of subscriptions reaches (S5).
const MQTT_SHARD: u32 = u32::MAX;

/// What the MQTT shard is called in keys and wake-ups.
const MQTT_SHARD_NAME: &str = "mqtt";

/// Names a shard: a slice of a channel's subscriptions, or what the channel owes to MQTT.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardKey {
    /// The channel.
    pub channel: Channel,
    /// Which slice.
    pub shard: u32,
}

impl ShardKey {
    /// The shard `shard` of `channel`.
    #[must_use]
    pub fn new(channel: &Channel, shard: u32) -> Self {
        Self { channel: channel.clone(), shard }
    }

    /// The shard of `channel` that is drained into IoT Core.
    #[must_use]
    pub fn mqtt(channel: &Channel) -> Self {
        Self::new(channel, MQTT_SHARD)
    }

    /// Whether it is drained into IoT Core.
    #[must_use]
    pub const fn is_mqtt(&self) -> bool {
        self.shard == MQTT_SHARD
    }
}

impl fmt::Display for ShardKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_mqtt() {
            return write!(formatter, "{}#{MQTT_SHARD_NAME}", self.channel);
        }
        write!(formatter, "{}#{}", self.channel, self.shard)
    }
}

/// A shard's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Grows with every arrival and every wake-up that found the lease held.
    pub generation: u64,
    /// How many subscriptions have arrived in all.
    pub arrivals: u64,
    /// Whether publishers wake it.
    pub listed: bool,
    /// How far it is drained.
    pub cursor: Option<Position>,
    /// How far an unfinished round had come.
    pub checkpoint: Option<Checkpoint>,
    /// When a wake-up comes that was sent because the shard could not be drained (P2). It may lie in the past.
    pub retry_at: Option<Millis>,
    /// When the row expires.
    pub exp: Seconds,
}

/// How far a round had come that did not end (D6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The cursor at its beginning.
    pub cursor: Option<Position>,
    /// The end of its window.
    pub end: Position,
    /// The last of the connections, in order, that are all done.
    pub connection: ConnectionId,
}

/// What became of taking a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leased {
    /// It is ours; the row as it is now.
    Acquired(Shard),
    /// It is held under this name.
    Held(String),
    /// There is no such shard.
    Absent,
}

/// What became of giving a lease back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// It is given back.
    Done,
    /// `gen` has changed: still ours, the cursor not written.
    Changed,
    /// It was not ours any more.
    Lost,
}

/// What became of listing a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListOutcome {
    /// Both rows say listed.
    Done,
    /// Another transaction was at the same rows: read both again.
    Conflict,
}

/// A subscription's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The shard.
    pub key: ShardKey,
    /// The connection.
    pub connection: ConnectionId,
    /// Names this row, so that nobody changes another that took its place.
    pub rid: String,
    /// What the subscriber has.
    pub from: Position,
    /// How the drain serves it.
    pub state: SubscriptionState,
    /// How frames for it are encoded.
    pub dialect: Dialect,
    /// When its connection was made.
    pub connected_at: Millis,
    /// When the row expires.
    pub exp: Seconds,
}

/// How the drain serves a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SubscriptionState {
    /// It gets what the shard gets.
    Live,
    /// It has yet to get what lies between its `from` and the shard's cursor.
    Joining,
}

/// How frames towards a client are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Carillon's own frames.
    Native,
}

/// What became of writing a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// It is written.
    Put,
    /// One was there already, and stays.
    Kept(Subscription),
}

/// A connection's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its id.
    pub id: ConnectionId,
    /// Who it is.
    pub principal: Principal,
    /// How frames towards it are encoded.
    pub dialect: Dialect,
    /// When it was made.
    pub connected_at: Millis,
    /// When the row expires.
    pub exp: Seconds,
}

/// An inverse row: what a connection listens to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inverse {
    /// The channel and shard of its subscription.
    pub key: ShardKey,
    /// The `rid` of its subscription.
    pub rid: String,
}

/// An inverse row to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The connection.
    pub connection: ConnectionId,
    /// What it listens to.
    pub inverse: Inverse,
    /// When the row expires.
    pub exp: Seconds,
}

/// What became of posting a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostOutcome {
    /// @connections took it (200), which is no proof that the client has it.
    Taken,
    /// The connection is gone (410).
    Gone,
    /// Not now: the client's buffer is full or the account over its rate (429), or the answer did not come within two seconds,
    /// or the service failed (5xx).
    Throttled,
}

/// What became of publishing a message to IoT Core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MqttOutcome {
    /// IoT Core has it.
    Taken,
    /// No answer came in time: it may be there, or still get there.
    Unknown,
    /// IoT Core did not take it: it could not be reached, is over its rate, or failed.
    Away,
}
