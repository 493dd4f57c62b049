//! Draining shards: the only code that posts to subscribers (D1 to D7, G1), and publishes to IoT Core (P2).

mod mqtt;

use crate::engine::{OptionsCache, chain, is_due, life};
use crate::frames::{self, Frame, Stretch};
use crate::ports::{Answer, Clock, Mqtt, Posts, Queue, Store};
use crate::rows::{
    Checkpoint, Dialect, Head, Leased, Logged, PostOutcome, Released, Shard, ShardKey, Subscription, SubscriptionState, Window,
};
use crate::wakeup::{Wakeup, WakeupKind};
use carillon_core::fault::ErrorCode;
use carillon_core::limits::WINDOW_MESSAGES;
use carillon_core::position::{Epoch, Position};
use carillon_core::time::Millis;
use carillon_wire::native::server;
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// A lease outlives the invocation by this, in milliseconds: nobody takes it while its holder can still post (D7).
const LEASE_AFTER_DEADLINE_MS: u64 = 2_000;

/// A drain stops this long before its deadline, in milliseconds (D7): a post may take two seconds, writing down a third.
const STOP_BEFORE_DEADLINE_MS: u64 = 3_000;

/// A round writes down how far it has come this often, in milliseconds (D6): what a crash repeats is about as much.
const CHECKPOINT_EVERY_MS: u64 = 1_000;

/// A connection younger than this, in milliseconds, is not believed to be gone: its `$connect` may not have finished, and posting
/// to it then answers 410 (G1).
const YOUNG_MS: u64 = 30_000;

/// Waits before the second and the third try of a post, together under 400 ms: so long may one slow connection hold up a round.
const POST_AGAIN_AFTER: [Duration; 2] = [Duration::from_millis(120), Duration::from_millis(250)];

/// How a drain works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainOptions {
    /// Connections that are posted to at the same time, shared among the shards of a batch: a slow client holds up its own shard
    /// alone. 128 keep one small function's CPU busy while posts take 5 to 10 ms, and each costs an HTTP connection.
    pub parallel_posts: usize,
}

impl Default for DrainOptions {
    fn default() -> Self {
        Self { parallel_posts: 128 }
    }
}

/// A wake-up as it came from the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The queue's name for the message; the lease is held under it.
    pub message_id: String,
    /// The wake-up.
    pub wakeup: Wakeup,
}

/// Drains shards over its ports.
pub struct Drain<S, Q, P, M, C> {
    store: S,
    queue: Q,
    posts: P,
    mqtt: M,
    clock: C,
    options: DrainOptions,
    namespaces: OptionsCache,
}

/// What became of a wake-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Its work is done, or somebody who does it knows of it.
    Done,
    /// Its work must not be forgotten: the message stays in the queue.
    Failed,
}

/// The wake-ups of one batch for one shard: one drain serves them all.
struct Job {
    wakeup: Wakeup,
    message_ids: Vec<String>,
}

/// A held lease and how long its holder may go on.
struct Hold<'a> {
    key: &'a ShardKey,
    owner: &'a str,
    stop_at: Millis,
    /// Its share of the posts at the same time.
    parallel_posts: usize,
}

/// What one round has to send.
struct Round {
    head: Head,
    /// The position that the shard has; its `from` where a subscriber has more.
    start: Position,
    /// The epoch of the messages.
    epoch: Epoch,
    messages: Vec<Logged>,
    /// The position that the shard has afterwards.
    end: Position,
    /// Whether more is known to follow.
    more: bool,
    /// Connections up to this one were served before a crash.
    served: Option<carillon_core::connection::ConnectionId>,
}

/// What became of a round.
#[derive(Clone, Copy, Debug, Default)]
struct RoundEnd {
    /// The time ran out, or the lease, before every row was served.
    unfinished: bool,
    /// A row is to be served again later.
    again: bool,
}

/// What became of one subscriber in a round.
enum Served {
    /// It has everything up to the round's end, or is gone.
    Done,
    /// It could not be served now. Its row says how far it is.
    Later,
    /// The time ran out. Its row says how far it is.
    Unfinished,
}

/// What became of posting several frames to one connection.
enum Posted {
    /// It has them all.
    All,
    /// Its row is gone.
    Removed,
    /// It does not take them now, and has what is up to here.
    Later(Position),
    /// The time ran out, and it has what is up to here.
    Unfinished(Position),
}

/// What became of posting one frame after all tries.
enum Tried {
    Taken,
    Gone,
    /// The connection is too young to be believed gone (G1).
    Young,
    /// The connection did not take it.
    Stuck,
}

impl<S: Store, Q: Queue, P: Posts, M: Mqtt, C: Clock> Drain<S, Q, P, M, C> {
    /// A drain over these ports.
    pub fn new(store: S, queue: Q, posts: P, mqtt: M, clock: C, options: DrainOptions) -> Self {
        Self { store, queue, posts, mqtt, clock, options, namespaces: OptionsCache::default() }
    }

    /// Works off a batch of wake-ups, its shards in parallel, and answers with the ids of those messages that failed and must
    /// stay in the queue. `deadline` is when the invocation ends.
    pub async fn drain(&self, batch: Vec<Received>, deadline: Millis) -> Vec<String> {
        let jobs = jobs(batch);
        let share = (self.options.parallel_posts / jobs.len().max(1)).max(1);
        let ended = join_all(jobs.into_iter().map(|job| async move {
            let ended = self.drain_shard(&job, deadline, share).await;
            let ended = ended.unwrap_or_else(|error| {
                tracing::error!(shard.key = %job.wakeup.key, error.chain = chain(&error), "a drain failed and is tried again");
                Ended::Failed
            });
            (job, ended)
        }));
        ended.await.into_iter().filter(|(_, ended)| *ended == Ended::Failed).flat_map(|(job, _)| job.message_ids).collect()
    }

    async fn drain_shard(&self, job: &Job, deadline: Millis, parallel_posts: usize) -> Answer<Ended> {
        let Job { wakeup, message_ids } = job;
        let owner = &message_ids[0];
        let until = deadline.plus(LEASE_AFTER_DEADLINE_MS);
        let shard = match self.acquire(wakeup, owner, until).await? {
            Ok(shard) => shard,
            Err(ended) => return Ok(ended),
        };
        let stop_at = Millis(deadline.0.saturating_sub(STOP_BEFORE_DEADLINE_MS));
        let hold = Hold { key: &wakeup.key, owner, stop_at, parallel_posts };
        let worked = if wakeup.key.is_mqtt() {
            self.publish_rounds(&hold, wakeup, shard).await
        } else {
            self.rounds(&hold, wakeup, shard).await
        };
        match worked {
            Ok(ended) => Ok(ended),
            Err(error) => {
                // The work goes back to the queue; the lease goes back too, so that another wake-up need not wait for it.
                if let Err(error) = self.store.release(&wakeup.key, owner, None, None).await {
                    tracing::warn!(shard.key = %wakeup.key, error.chain = chain(&error), "a lease could not be given back and will lapse");
                }
                Err(error)
            }
        }
    }

    /// D1: the lease, or what becomes of the wake-up without it.
    async fn acquire(&self, wakeup: &Wakeup, owner: &str, until: Millis) -> Answer<Result<Shard, Ended>> {
        let mut leased = self.store.acquire(&wakeup.key, owner, until, self.clock.now()).await?;
        if leased == Leased::Absent && wakeup.key.is_mqtt() {
            self.make_mqtt_shard(&wakeup.key).await?;
            leased = self.store.acquire(&wakeup.key, owner, until, self.clock.now()).await?;
        }
        let holder = match leased {
            Leased::Acquired(shard) => return Ok(Ok(shard)),
            Leased::Absent => return Ok(Err(Ended::Done)),
            Leased::Held(holder) => holder,
        };
        if holder == *owner {
            return Ok(Err(Ended::Failed));
        }
        self.store.bump(&wakeup.key, self.clock.now()).await?;
        // The holder may have given it back before it could see the new generation.
        match self.store.acquire(&wakeup.key, owner, until, self.clock.now()).await? {
            Leased::Acquired(shard) => Ok(Ok(shard)),
            Leased::Absent => Ok(Err(Ended::Done)),
            // The holder goes round again. Should it die first, a subscriber that waits for what it missed must not be forgotten;
            // whatever else there is, the next wake-up finds.
            Leased::Held(_) if wakeup.kind == WakeupKind::Resume => Ok(Err(Ended::Failed)),
            Leased::Held(_) => Ok(Err(Ended::Done)),
        }
    }

    async fn rounds(&self, hold: &Hold<'_>, wakeup: &Wakeup, mut shard: Shard) -> Answer<Ended> {
        self.keep_alive(hold.key, &shard).await?;
        let mut again = false;
        loop {
            let round = self.plan(hold.key, &shard).await?;
            // D2: the rows after the log. The other way round, a subscriber that came in between would miss what it was
            // acknowledged.
            let rows = self.rows(hold.key).await?;
            let end = round.as_ref().map(|round| round.end);
            if rows.is_empty() && self.store.unlist(hold.key, hold.owner, shard.generation).await? {
                return Ok(Ended::Done);
            }
            let mut more = false;
            if let Some(round) = &round {
                let ended = self.serve_all(hold, round, &shard, &rows).await?;
                if ended.unfinished {
                    return self.stop(hold, wakeup).await;
                }
                again |= ended.again;
                more = round.more;
            }
            if !more {
                match self.store.release(hold.key, hold.owner, end, Some(shard.generation)).await? {
                    // Whoever is to be served again is when the wake-up comes back, in half a minute (D7).
                    Released::Done if again => return Ok(Ended::Failed),
                    Released::Done => return Ok(Ended::Done),
                    Released::Lost => return self.lost(hold),
                    Released::Changed => {}
                }
            }
            if let Some(end) = end
                && !self.store.advance(hold.key, hold.owner, end).await?
            {
                return self.lost(hold);
            }
            if self.clock.now() >= hold.stop_at {
                return self.stop(hold, wakeup).await;
            }
            match self.store.shard(hold.key, self.clock.now()).await? {
                Some(next) => shard = next,
                None => return Ok(Ended::Done),
            }
        }
    }

    /// The lease lapsed and another has taken it, with all that was not written down.
    fn lost(&self, hold: &Hold<'_>) -> Answer<Ended> {
        tracing::warn!(shard.key = %hold.key, "a drain lost its lease to another");
        Ok(Ended::Done)
    }

    /// D7: gives the lease back before the deadline and sends itself a fresh wake-up, so that a busy shard never runs into the
    /// dead-letter queue.
    async fn stop(&self, hold: &Hold<'_>, wakeup: &Wakeup) -> Answer<Ended> {
        self.store.release(hold.key, hold.owner, None, None).await?;
        self.queue.send(std::slice::from_ref(wakeup), Duration::ZERO).await?;
        tracing::debug!(shard.key = %hold.key, "a drain stops before its deadline and goes on in another invocation");
        Ok(Ended::Done)
    }

    /// T2: refreshes the shard's life, at most daily, before it is relied on.
    async fn keep_alive(&self, key: &ShardKey, shard: &Shard) -> Answer<()> {
        let now = self.clock.now();
        let options = self.namespaces.get(&self.store, &key.channel.namespace(), now).await?;
        let wanted = life(&options, None, now);
        if is_due(shard.exp, wanted) { self.store.extend_shard(key, wanted, now).await } else { Ok(()) }
    }

    /// D2 and D4: what the next round sends. None: nobody and nothing to begin from.
    async fn plan(&self, key: &ShardKey, shard: &Shard) -> Answer<Option<Round>> {
        let start = match shard.cursor {
            Some(cursor) => cursor,
            None => match self.rows(key).await?.iter().map(|row| row.from).min() {
                Some(lowest) => lowest,
                None => return Ok(None),
            },
        };
        let Some(head) = self.store.head(&key.channel, self.clock.now()).await? else { return Ok(None) };
        let window = self.window(key, start).await?;
        let mut round = Round::new(head, start, window);
        if round.messages.is_empty() && round.head.epoch > start.epoch {
            // D4: nothing more comes in this epoch, since the head had left it before the window was read. As long as the next
            // epoch is empty, the cursor stays: its first message has to carry where it goes on from.
            let next = Position::new(round.head.epoch, 0);
            let window = self.window(key, next).await?;
            round = if window.messages.is_empty() {
                Round { more: false, ..round }
            } else {
                Round { start, ..Round::new(round.head, next, window) }
            };
        }
        round.resume(shard);
        Ok(Some(round))
    }

    async fn window(&self, key: &ShardKey, after: Position) -> Answer<Window> {
        self.store.read(&key.channel, after.epoch, after.offset, None, WINDOW_MESSAGES, self.clock.now()).await
    }

    async fn rows(&self, key: &ShardKey) -> Answer<Vec<Subscription>> {
        let mut rows: Vec<Subscription> = Vec::new();
        loop {
            let after = rows.last().map(|row| row.connection.clone());
            let (mut page, more) = self.store.page(key, after.as_ref(), self.clock.now()).await?;
            rows.append(&mut page);
            if !more {
                return Ok(rows);
            }
        }
    }

    /// D3 and D6: serves every row, in parallel, and writes down how far it has come.
    async fn serve_all(&self, hold: &Hold<'_>, round: &Round, shard: &Shard, rows: &[Subscription]) -> Answer<RoundEnd> {
        let nothing = Arc::new(Vec::new());
        let mut encoded: HashMap<(Position, Dialect), Arc<Vec<Frame>>> = HashMap::new();
        let mut waiting = rows.iter().enumerate();
        let mut running = FuturesUnordered::new();
        let mut done = vec![false; rows.len()];
        let mut in_order = 0;
        let mut written = self.clock.now();
        let mut ended = RoundEnd::default();
        loop {
            let stopping = self.clock.now() >= hold.stop_at;
            while !stopping && running.len() < hold.parallel_posts {
                let Some((index, row)) = waiting.next() else { break };
                let live = row.state == SubscriptionState::Live;
                if live && round.served.as_ref().is_some_and(|served| row.connection <= *served) {
                    done[index] = true;
                    continue;
                }
                // A joining row comes from elsewhere: its frames are its own.
                let frames = if live {
                    let base = round.start.max(row.from);
                    let frames = || Arc::new(round.frames(row.dialect, &row.key, base));
                    Arc::clone(encoded.entry((base, row.dialect)).or_insert_with(frames))
                } else {
                    Arc::clone(&nothing)
                };
                running.push(async move { (index, self.serve(hold, round, row, &frames).await) });
            }
            let Some((index, served)) = running.next().await else { break };
            match served? {
                Served::Done => {}
                Served::Later => ended.again = true,
                Served::Unfinished => ended.unfinished = true,
            }
            // Whoever has not everything is joining from here on, and no checkpoint passes over those.
            done[index] = true;
            while done.get(in_order) == Some(&true) {
                in_order += 1;
            }
            let now = self.clock.now();
            if in_order > 0 && in_order < rows.len() && now.since(written) >= CHECKPOINT_EVERY_MS {
                written = now;
                if !self.write_checkpoint(hold, round, shard, &rows[in_order - 1]).await? {
                    return Ok(RoundEnd { unfinished: true, ..ended });
                }
            }
        }
        ended.unfinished |= !done.iter().all(|done| *done);
        if ended.unfinished && in_order > 0 {
            self.write_checkpoint(hold, round, shard, &rows[in_order - 1]).await?;
        }
        Ok(ended)
    }

    async fn write_checkpoint(&self, hold: &Hold<'_>, round: &Round, shard: &Shard, last: &Subscription) -> Answer<bool> {
        let checkpoint = Checkpoint { cursor: shard.cursor, end: round.end, connection: last.connection.clone() };
        self.store.checkpoint(hold.key, hold.owner, &checkpoint).await
    }

    /// D3: one row of a round. `frames` is what a live one gets of the window.
    async fn serve(&self, hold: &Hold<'_>, round: &Round, row: &Subscription, frames: &[Frame]) -> Answer<Served> {
        if row.state == SubscriptionState::Live {
            let base = round.start.max(row.from);
            return match self.post_all(hold, row, base, frames).await? {
                Posted::All | Posted::Removed => Ok(Served::Done),
                held_up => Box::pin(self.keep(row, held_up)).await,
            };
        }
        let mut from = row.from;
        while from < round.start {
            if self.clock.now() >= hold.stop_at {
                return Box::pin(self.keep(row, Posted::Unfinished(from))).await;
            }
            let Some((reached, frames)) = Box::pin(self.missed(round, row, from)).await? else { break };
            match self.post_all(hold, row, from, &frames).await? {
                Posted::All => from = reached,
                Posted::Removed => return Ok(Served::Done),
                held_up => return Box::pin(self.keep(row, held_up)).await,
            }
        }
        // Where it comes from decides whether the window's first message carries `prev`, or a gap goes before it.
        let frames = round.frames(row.dialect, &row.key, from);
        match self.post_all(hold, row, from, &frames).await? {
            Posted::All => {
                self.store.move_to(row, round.end.max(row.from), SubscriptionState::Live).await?;
                Ok(Served::Done)
            }
            Posted::Removed => Ok(Served::Done),
            held_up => Box::pin(self.keep(row, held_up)).await,
        }
    }

    /// Keeps a row that has not everything, from where it is.
    async fn keep(&self, row: &Subscription, held_up: Posted) -> Answer<Served> {
        let (at, served) = match held_up {
            Posted::Later(at) => (at, Served::Later),
            Posted::Unfinished(at) => (at, Served::Unfinished),
            Posted::All | Posted::Removed => return Ok(Served::Done),
        };
        self.store.move_to(row, at, SubscriptionState::Joining).await?;
        Ok(served)
    }

    /// The next part of what a joining row missed between `from` and the round's window: where it ends, and its frames.
    /// None: the log holds nothing of it.
    async fn missed(&self, round: &Round, row: &Subscription, from: Position) -> Answer<Option<(Position, Vec<Frame>)>> {
        let (key, start, now) = (&row.key, round.start, self.clock.now());
        let upto = |epoch: Epoch| (epoch == start.epoch).then_some(start.offset);
        let mut epoch = from.epoch;
        let mut window = self.store.read(&key.channel, epoch, from.offset, upto(epoch), WINDOW_MESSAGES, now).await?;
        if window.messages.is_empty() && epoch < start.epoch {
            epoch = start.epoch;
            window = self.store.read(&key.channel, epoch, 0, upto(epoch), WINDOW_MESSAGES, now).await?;
        }
        let Some(last) = window.messages.last() else { return Ok(None) };
        let reached = Position::new(epoch, last.offset);
        let stretch = Stretch { epoch, messages: &window.messages };
        Ok(Some((reached, frames::encode(row.dialect, &key.channel, &round.head, from, stretch))))
    }

    /// Posts frames in order to a connection that has everything up to `from`. A row whose connection is gone goes; a connection
    /// that does not take its frames is told `bye` and closed, so that it comes back and resumes.
    ///
    /// Futures of what happens seldom are boxed, here and where it is called: 128 of this are there at once, each as large as its largest.
    async fn post_all(&self, hold: &Hold<'_>, row: &Subscription, from: Position, frames: &[Frame]) -> Answer<Posted> {
        let mut at = from;
        for frame in frames {
            if self.clock.now() >= hold.stop_at {
                return Ok(Posted::Unfinished(at));
            }
            match self.post(hold, row, frame).await? {
                Tried::Taken => at = frame.end,
                Tried::Young => return Ok(Posted::Later(at)),
                Tried::Gone => {
                    tracing::debug!(shard.key = %row.key, "a connection is gone, and so is its subscription");
                    return Box::pin(self.remove(row)).await;
                }
                Tried::Stuck if self.clock.now() >= hold.stop_at => return Ok(Posted::Unfinished(at)),
                Tried::Stuck => {
                    tracing::warn!(shard.key = %row.key, "a connection does not take its frames and is closed");
                    let bye = server::bye(ErrorCode::RateLimited, true);
                    // Told or not, it is closed; and only one that is closed is forgotten, or it would wait for ever.
                    let _ = self.posts.post(&row.connection, &bye).await;
                    if let Err(error) = Box::pin(self.posts.close(&row.connection)).await {
                        tracing::warn!(shard.key = %row.key, error.chain = chain(&error), "the connection could not be closed");
                        return Ok(Posted::Later(at));
                    }
                    return Box::pin(self.remove(row)).await;
                }
            }
        }
        Ok(Posted::All)
    }

    async fn post(&self, hold: &Hold<'_>, row: &Subscription, frame: &Frame) -> Answer<Tried> {
        let mut waits = POST_AGAIN_AFTER.into_iter();
        loop {
            let failed = match self.posts.post(&row.connection, &frame.text).await? {
                PostOutcome::Taken => return Ok(Tried::Taken),
                // G1: a young connection is not believed to be gone.
                PostOutcome::Gone if self.clock.now().since(row.connected_at) >= YOUNG_MS => return Ok(Tried::Gone),
                PostOutcome::Gone => Tried::Young,
                PostOutcome::Throttled => Tried::Stuck,
            };
            match waits.next().filter(|_| self.clock.now() < hold.stop_at) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Ok(failed),
            }
        }
    }

    async fn remove(&self, row: &Subscription) -> Answer<Posted> {
        self.store.unsubscribe(&row.key, &row.connection, &row.rid).await?;
        self.store.unlink(&row.connection, &row.key.channel, &row.rid).await?;
        Ok(Posted::Removed)
    }
}

impl Round {
    fn new(head: Head, start: Position, window: Window) -> Self {
        let last = window.messages.last().map(|message| message.offset);
        let end = last.map_or(start, |offset| Position::new(start.epoch, offset));
        let more = window.full || head.epoch > start.epoch;
        Self { head, start, epoch: start.epoch, messages: window.messages, end, more, served: None }
    }

    /// Goes on where a round before had come to, which ended before it could move the cursor (D6).
    fn resume(&mut self, shard: &Shard) {
        let Some(checkpoint) = shard.checkpoint.as_ref().filter(|checkpoint| checkpoint.cursor == shard.cursor) else { return };
        if checkpoint.end.epoch != self.end.epoch || checkpoint.end > self.end {
            return;
        }
        self.more |= checkpoint.end < self.end;
        self.messages.retain(|message| message.offset <= checkpoint.end.offset);
        self.end = checkpoint.end;
        self.served = Some(checkpoint.connection.clone());
    }

    fn frames(&self, dialect: Dialect, key: &ShardKey, base: Position) -> Vec<Frame> {
        let stretch = Stretch { epoch: self.epoch, messages: &self.messages };
        frames::encode(dialect, &key.channel, &self.head, base, stretch)
    }
}

/// One job for each shard of the batch. Wake-ups of one shard that came together need one drain: all of them were sent before it
/// reads the log. One that must not be forgotten while the lease is held makes its whole job so.
fn jobs(batch: Vec<Received>) -> Vec<Job> {
    let mut jobs: Vec<Job> = Vec::new();
    for Received { message_id, wakeup } in batch {
        match jobs.iter_mut().find(|job| job.wakeup.key == wakeup.key) {
            None => jobs.push(Job { wakeup, message_ids: vec![message_id] }),
            Some(job) => {
                job.message_ids.push(message_id);
                job.wakeup.put_off = job.wakeup.put_off.max(wakeup.put_off);
                if wakeup.kind == WakeupKind::Resume {
                    job.wakeup.kind = WakeupKind::Resume;
                }
            }
        }
    }
    jobs
}
