//! The barrier: a subscriber acknowledged at a position gets everything after it (S1 to S6).

use crate::engine::{CONFLICT_JITTER, Engine, connection_exp, is_due, life, unavailable};
use crate::ports::{Answer, Clock, Queue, Store};
use crate::rows::{Connection, Head, Inverse, Link, ListOutcome, PutOutcome, ShardKey, Subscription, SubscriptionState, Tail};
use crate::wakeup::Wakeup;
use carillon_core::channel::Channel;
use carillon_core::connection::ConnectionId;
use carillon_core::fault::{ErrorCode, Fault};
use carillon_core::limits::{SHARD_SUBSCRIPTIONS, SUBSCRIPTIONS};
use carillon_core::namespace::NamespaceOptions;
use carillon_core::position::Position;
use std::time::Duration;

/// Times that a subscribe begins again because the epoch moved under it, or a transaction conflicts.
pub(crate) const TRIES: u32 = 12;

/// How long the first needed entry has to live on for a position to be recovered, in seconds (S4): the drain must get there.
const NEEDED_SECONDS: u64 = 60;

/// What a subscriber is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// It gets everything after this.
    pub position: Position,
    /// Whether it goes on from the `since` it came with; none where it came without.
    pub recovered: Option<bool>,
}

/// Where the channel stood at the beginning of a subscribe.
pub(crate) struct Standing {
    pub(crate) head: Head,
    pub(crate) tail: Option<Tail>,
    /// The newest position: H0.
    pub(crate) newest: Position,
}

impl<S: Store, Q: Queue, C: Clock> Engine<S, Q, C> {
    /// Subscribes a connection to a channel. A second subscribe to the same channel keeps the first; with a recovered `since` it
    /// replaces it.
    ///
    /// # Errors
    /// `not_found` when the connection is gone, `bad_request` at the limit of subscriptions, `busy` when others kept changing
    /// the same rows, `unavailable` when the store or the queue did not answer. To subscribe again is safe.
    pub async fn subscribe(&self, id: &ConnectionId, channel: &Channel, since: Option<Position>) -> Result<Subscribed, Fault> {
        let (connection, inverses) = self.store.connection(id, self.clock.now()).await.map_err(unavailable)?;
        let Some(connection) = connection else { return Err(gone()) };
        let known = inverses.iter().find(|inverse| inverse.key.channel == *channel).cloned();
        if known.is_none() && inverses.len() >= SUBSCRIPTIONS {
            let fault = format_args!("a connection has at most {SUBSCRIPTIONS} subscriptions, and this one has as many");
            return Err(Fault::bad_request("channel", fault));
        }
        let options = self.options(&channel.namespace()).await.map_err(unavailable)?;
        for _ in 0..TRIES {
            let done = self.try_subscribe(&connection, known.as_ref(), channel, since, &options).await.map_err(unavailable)?;
            match done {
                Some((subscribed, inverse)) => {
                    self.stay_only_if_connected(id, &inverse).await?;
                    return Ok(subscribed);
                }
                None => self.random.jitter(CONFLICT_JITTER).await,
            }
        }
        let fault = format!("channel: too many change {channel} at once; the same request may be sent again");
        Err(Fault::new(ErrorCode::Busy, fault).retry_after(1_000))
    }

    /// Ends a connection's subscription to a channel; where there is none, nothing happens (S6).
    ///
    /// # Errors
    /// `unavailable` when the store does not answer.
    pub async fn unsubscribe(&self, id: &ConnectionId, channel: &Channel) -> Result<(), Fault> {
        let (_, inverses) = self.store.connection(id, self.clock.now()).await.map_err(unavailable)?;
        self.remove(id, channel, &inverses).await.map_err(unavailable)
    }

    /// One pass of S1 to S5: what is acknowledged, and where the subscription is. None: the epoch moved, begin again.
    async fn try_subscribe(
        &self,
        connection: &Connection,
        known: Option<&Inverse>,
        channel: &Channel,
        since: Option<Position>,
        options: &NamespaceOptions,
    ) -> Answer<Option<(Subscribed, Inverse)>> {
        let Some(standing) = self.standing(channel, options).await? else { return Ok(None) };
        let recovered = match since {
            Some(since) => Some(self.is_recovered(channel, &standing, since).await?),
            None => None,
        };
        let resumed = since.filter(|_| recovered == Some(true));

        let inverse = self.put_rows(connection, known, channel, &standing, resumed).await?;
        let key = &inverse.key;
        let Some(arrivals) = self.make_listed(key, &standing, options).await? else { return Ok(None) };
        if arrivals >= SHARD_SUBSCRIPTIONS && standing.head.newest_shard <= key.shard {
            // S5: this shard is full.
            self.store.add_shard(channel, key.shard, self.clock.now()).await?;
        }

        if let Some(since) = resumed {
            self.queue.send(&[Wakeup::resume(key.clone())], Duration::ZERO).await?;
            return Ok(Some((Subscribed { position: since, recovered }, inverse)));
        }
        // S3: acknowledging H0 would lose what was appended since by publishers that did not see this shard listed.
        let now = self.clock.now();
        let tail = self.store.newest(channel, standing.head.epoch, now).await?;
        let head = self.store.head(channel, now).await?;
        if head.is_none_or(|head| head.epoch != standing.head.epoch) {
            return Ok(None);
        }
        let newest = Position::new(standing.head.epoch, tail.map_or(0, |tail| tail.last));
        Ok(Some((Subscribed { position: newest.max(standing.newest), recovered }, inverse)))
    }

    /// S1: the head, made or rotated where that is due, and the newest entry. None: look again.
    pub(crate) async fn standing(&self, channel: &Channel, options: &NamespaceOptions) -> Answer<Option<Standing>> {
        let head = self.head_or_new(channel, options).await?;
        let now = self.clock.now();
        let tail = if head.started { self.store.newest(channel, head.epoch, now).await? } else { None };
        match tail {
            Some(tail) if tail.closing => return Ok(None),
            None if head.started => {
                self.rotate(channel, &head, None, options).await?;
                return Ok(None);
            }
            _ => {}
        }
        self.refresh_head(channel, &head, life(options, tail.map(|tail| tail.exp), now), now).await?;
        let newest = Position::new(head.epoch, tail.map_or(0, |tail| tail.last));
        Ok(Some(Standing { head, tail, newest }))
    }

    /// S4: whether everything after `since` is in the log, for as long as it takes to send it.
    pub(crate) async fn is_recovered(&self, channel: &Channel, standing: &Standing, since: Position) -> Answer<bool> {
        let Standing { head, newest, .. } = standing;
        if since == *newest {
            return Ok(true);
        }
        if since.epoch == head.epoch {
            return Ok(since.offset < newest.offset && self.is_there(channel, since).await?);
        }
        let Some(before) = head.prev.and_then(|prev| prev.position()) else { return Ok(false) };
        if since.epoch != before.epoch || since.offset > before.offset {
            return Ok(false);
        }
        let begins_current = Position::new(head.epoch, 0);
        Ok((since == before || self.is_there(channel, since).await?)
            && (*newest == begins_current || self.is_there(channel, begins_current).await?))
    }

    /// Whether the message after `position` is in the log and lives on for a minute. Those behind it live longer (A2).
    async fn is_there(&self, channel: &Channel, position: Position) -> Answer<bool> {
        let now = self.clock.now();
        let window = self.store.read(channel, position.epoch, position.offset, None, 1, now).await?;
        Ok(window
            .messages
            .first()
            .is_some_and(|first| first.offset == position.offset + 1 && first.exp > now.seconds().plus(NEEDED_SECONDS)))
    }

    /// S1: the inverse row, then the subscription. A subscription that is there keeps its shard for ever, and its row unless a
    /// resumed one replaces it.
    async fn put_rows(
        &self,
        connection: &Connection,
        known: Option<&Inverse>,
        channel: &Channel,
        standing: &Standing,
        resumed: Option<Position>,
    ) -> Answer<Inverse> {
        let now = self.clock.now();
        let rid = self.random.name();
        let exp = connection_exp(connection.connected_at);
        let link = |key: &ShardKey, rid: &str| Link {
            connection: connection.id.clone(),
            inverse: Inverse { key: key.clone(), rid: rid.to_owned() },
            exp,
        };
        let newest_shard = ShardKey::new(channel, standing.head.newest_shard);
        let there = match known {
            Some(known) => Some(known.clone()),
            // Two subscribes at once must agree on one shard: the first to write decides.
            None => self.store.link(&link(&newest_shard, &rid), false, now).await?,
        };
        let key = there.as_ref().map_or(newest_shard, |there| there.key.clone());
        let mut row = Subscription {
            key: key.clone(),
            connection: connection.id.clone(),
            rid,
            from: standing.newest,
            state: SubscriptionState::Live,
            dialect: connection.dialect,
            connected_at: connection.connected_at,
            exp,
        };
        if let Some(since) = resumed {
            row.from = since;
            row.state = SubscriptionState::Joining;
            self.store.link(&link(&key, &row.rid), true, now).await?;
            self.store.subscribe(&row, true, now).await?;
            return Ok(Inverse { key, rid: row.rid });
        }
        let stays = match self.store.subscribe(&row, false, now).await? {
            PutOutcome::Put => row.rid,
            PutOutcome::Kept(other) => other.rid,
        };
        if there.is_some_and(|there| there.rid != stays) {
            self.store.link(&link(&key, &stays), true, now).await?;
        }
        Ok(Inverse { key, rid: stays })
    }

    /// S2: counts the arrival, and makes shard and head say that publishers wake this shard. Answers with the arrivals.
    /// None: others kept changing the same rows, or one of them is gone.
    async fn make_listed(&self, key: &ShardKey, standing: &Standing, options: &NamespaceOptions) -> Answer<Option<u64>> {
        let now = self.clock.now();
        let wanted = life(options, standing.tail.map(|tail| tail.exp), now);
        let shard = self.store.arrive(key, wanted, now).await?;
        if is_due(shard.exp, wanted) {
            self.store.extend_shard(key, wanted, now).await?;
        }
        if shard.listed && standing.head.listed.contains(&key.shard) {
            return Ok(Some(shard.arrivals));
        }
        for _ in 0..TRIES {
            if self.store.list(key, self.clock.now()).await? == ListOutcome::Done {
                return Ok(Some(shard.arrivals));
            }
            self.random.jitter(CONFLICT_JITTER).await;
            let now = self.clock.now();
            let by_shard = self.store.shard(key, now).await?.is_some_and(|shard| shard.listed);
            let by_head = self.store.head(&key.channel, now).await?.is_some_and(|head| head.listed.contains(&key.shard));
            if by_shard && by_head {
                return Ok(Some(shard.arrivals));
            }
        }
        Ok(None)
    }

    /// S6: a subscribe whose connection went meanwhile removes its own rows: `$disconnect` may have looked before they were there.
    async fn stay_only_if_connected(&self, id: &ConnectionId, own: &Inverse) -> Result<(), Fault> {
        let (connection, mut inverses) = self.store.connection(id, self.clock.now()).await.map_err(unavailable)?;
        if connection.is_some() {
            return Ok(());
        }
        // `$disconnect` may have taken the inverse row and left the subscription, which came after it.
        inverses.push(own.clone());
        self.remove(id, &own.key.channel, &inverses).await.map_err(unavailable)?;
        Err(gone())
    }

    async fn remove(&self, id: &ConnectionId, channel: &Channel, inverses: &[Inverse]) -> Answer<()> {
        for inverse in inverses.iter().filter(|inverse| inverse.key.channel == *channel) {
            self.store.unsubscribe(&inverse.key, id, &inverse.rid).await?;
            self.store.unlink(id, channel, &inverse.rid).await?;
        }
        Ok(())
    }
}

fn gone() -> Fault {
    Fault::new(ErrorCode::NotFound, "connection: it is not registered, or has been closed; connect again")
}
