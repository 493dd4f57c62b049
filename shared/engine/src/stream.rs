//! Streams: what SSE and RPC subscribers get, replayed from the log and then live (W2, W3).
//!
//! The log is the truth here too. What IoT Core brings is a shortcut for a message that comes next, and a hint for one that does not.
//! Everything else is looked up: after every connection to IoT Core, a moment after a hole, and with every heartbeat; while IoT Core
//! is away, and in namespaces that have `mqtt` off, every second.

mod reader;

use crate::engine::{CONFLICT_JITTER, Engine, unavailable};
use crate::frames::{Step, Stretch, steps};
use crate::ports::{Answer, Clock, Feed, Live, LiveEvent, PortError, Queue, Store};
use crate::subscribe::TRIES;
use crate::wakeup::Wakeup;
use carillon_core::channel::Channel;
use carillon_core::fault::{ErrorCode, Fault};
use carillon_core::position::{Epoch, Position};
use carillon_core::time::Millis;
use carillon_wire::cloudevents;
use futures_util::future::join_all;
use reader::Reader;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often a stream shows that it lives: under the 30 seconds after which proxies give a silent response up.
pub const HEARTBEAT: Duration = Duration::from_secs(15);

/// How long a hole waits for the message that IoT Core may have put behind others (W2).
const HOLE: Duration = Duration::from_millis(80);

/// How often the log is read where IoT Core brings nothing (W3).
const POLL: Duration = Duration::from_secs(1);

/// After joining IoT Core the log is looked at again: its broker may be deaf for a second after it has said that it listens (W2).
const LOOK_AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];

/// Messages that are read at once: at most 2 MB of them wait to be sent.
const WINDOW: usize = 64;

/// How long the log may fail to answer before a stream says so and ends.
const UNANSWERED: Duration = Duration::from_secs(10);

/// What a client that is told `unavailable` waits at least.
const RETRY_AFTER_MS: u32 = 1_000;

/// The streams of one environment. They share the connection to IoT Core and what they read of the log.
pub struct Streams<S, L, C> {
    engine: Engine<S, NoQueue, C>,
    live: L,
    reader: Reader,
    /// All streams poll in step, so that one read serves them all.
    begin: Instant,
}

/// What a stream brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Nothing, to show that the stream lives: at once, and every 15 seconds.
    Heartbeat,
    /// Where the stream begins on each channel: it brings everything after that.
    Subscribed(Vec<Joined>),
    /// A message.
    Message {
        /// Its channel.
        channel: Channel,
        /// Its position.
        position: Position,
        /// The event with its position in it.
        json: Arc<str>,
    },
    /// Messages that cannot be brought: those after `after`, up to and with `to`.
    Gap {
        /// Their channel.
        channel: Channel,
        /// The position before them.
        after: Position,
        /// The position from which the stream goes on.
        to: Position,
    },
    /// Something is wrong, and the stream ends.
    Fault(Fault),
    /// The planned end. What comes next is for another stream, which goes on from the positions of this one.
    End,
}

/// Where a stream begins on a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The channel.
    pub channel: Channel,
    /// It brings everything after this.
    pub position: Position,
    /// Whether that is the position it was asked for; none where it was asked for none.
    pub recovered: Option<bool>,
}

/// One open stream.
pub struct Stream<S, L: Live, C> {
    streams: Arc<Streams<S, L, C>>,
    phase: Phase,
    wanted: Vec<(Channel, Option<Position>)>,
    feed: Option<L::Feed>,
    joined: bool,
    following: Vec<Following>,
    ready: VecDeque<Item>,
    ends: Instant,
    heartbeat: Instant,
    /// Since when the log has not answered.
    failing: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    New,
    Opening,
    Following,
    Over,
}

/// One channel of a stream.
struct Following {
    channel: Channel,
    position: Position,
    /// Whether IoT Core brings nothing of it: its namespace has `mqtt` off.
    polls: bool,
    /// When the log is looked at.
    looks: BTreeSet<Instant>,
    /// Whether the next look begins with the head: only it knows of a new epoch.
    head_too: bool,
}

/// Streams wake nobody.
#[derive(Clone, Copy)]
struct NoQueue;

impl Queue for NoQueue {
    async fn send(&self, _: &[Wakeup], _: Duration) -> Answer<()> {
        Err(PortError::new("sending wake-ups", "streams wake nobody"))
    }
}

impl<S: Store, L: Live, C: Clock> Streams<S, L, C> {
    /// Streams over these ports.
    pub fn new(store: S, live: L, clock: C) -> Self {
        Self::with_engine(Engine::new(store, NoQueue, clock), live)
    }

    /// Streams whose chance repeats itself, for tests.
    pub fn seeded(store: S, live: L, clock: C, seed: u64) -> Self {
        Self::with_engine(Engine::seeded(store, NoQueue, clock, seed), live)
    }

    fn with_engine(engine: Engine<S, NoQueue, C>, live: L) -> Self {
        Self { engine, live, reader: Reader::default(), begin: Instant::now() }
    }

    /// What the streams hear of IoT Core by.
    pub const fn live(&self) -> &L {
        &self.live
    }

    /// Now, by the streams' clock.
    pub fn now(&self) -> Millis {
        self.engine.now()
    }

    /// Opens a stream on channels, each after its position or from now on. It ends as planned at `ends_at`. What goes wrong comes
    /// as an item.
    pub fn open(self: &Arc<Self>, wanted: Vec<(Channel, Option<Position>)>, ends_at: Millis) -> Stream<S, L, C> {
        let now = Instant::now();
        Stream {
            streams: Arc::clone(self),
            phase: Phase::New,
            wanted,
            feed: None,
            joined: false,
            following: Vec::new(),
            ready: VecDeque::new(),
            ends: now + Duration::from_millis(ends_at.since(self.engine.now())),
            heartbeat: now + HEARTBEAT,
            failing: None,
        }
    }

    /// S1 and S4 without rows: where a stream begins, and whether its namespace has `mqtt`.
    async fn join(&self, channel: &Channel, since: Option<Position>) -> Result<(Joined, bool), Fault> {
        let options = self.engine.options(&channel.namespace()).await.map_err(unavailable)?;
        for _ in 0..TRIES {
            let Some(standing) = self.engine.standing(channel, &options).await.map_err(unavailable)? else {
                self.engine.random.jitter(CONFLICT_JITTER).await;
                continue;
            };
            let recovered = match since {
                Some(since) => Some(self.engine.is_recovered(channel, &standing, since).await.map_err(unavailable)?),
                None => None,
            };
            let position = since.filter(|_| recovered == Some(true)).unwrap_or(standing.newest);
            return Ok((Joined { channel: channel.clone(), position, recovered }, options.mqtt));
        }
        let fault = format!("channel: too many change {channel} at once; the same request may be sent again");
        Err(Fault::new(ErrorCode::Busy, fault).retry_after(RETRY_AFTER_MS))
    }

    /// The next moment at which streams poll.
    fn next_poll(&self) -> Instant {
        let passed = self.begin.elapsed().as_millis() / POLL.as_millis();
        self.begin + POLL * u32::try_from(passed + 1).unwrap_or(u32::MAX)
    }
}

impl<S: Store, L: Live, C: Clock> Stream<S, L, C> {
    /// The next item; none after the end. A call that is given up loses nothing.
    pub async fn next(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            match self.phase {
                Phase::Over => return None,
                Phase::New => {
                    self.phase = Phase::Opening;
                    return Some(Item::Heartbeat);
                }
                Phase::Opening => self.begin().await,
                Phase::Following => self.follow().await,
            }
        }
    }

    /// Finds where the stream begins. It listens first: what is published from then on is either in the log or still comes.
    async fn begin(&mut self) {
        if self.feed.is_none() {
            let channels: Vec<Channel> = self.wanted.iter().map(|(channel, _)| channel.clone()).collect();
            self.feed = Some(self.streams.live.listen(&channels));
        }
        let streams = Arc::clone(&self.streams);
        let joining = self.wanted.iter().map(|(channel, since)| streams.join(channel, *since));
        let joined: Result<Vec<_>, Fault> = join_all(joining).await.into_iter().collect();
        let joined = match joined {
            Ok(joined) => joined,
            Err(fault) => return self.fail(fault),
        };
        let now = Instant::now();
        self.following = joined
            .iter()
            .map(|(joined, mqtt)| Following {
                channel: joined.channel.clone(),
                position: joined.position,
                polls: !mqtt,
                // What was missed is fetched at once. IoT Core is away until it says that it listens.
                looks: [if joined.recovered.is_some() { now } else { streams.next_poll() }].into(),
                head_too: true,
            })
            .collect();
        let gaps =
            joined.iter().zip(&self.wanted).filter_map(|((joined, _), (channel, since))| match (joined.recovered, since) {
                (Some(false), Some(after)) => Some(Item::Gap { channel: channel.clone(), after: *after, to: joined.position }),
                _ => None,
            });
        let gaps: Vec<Item> = gaps.collect();
        self.ready.push_back(Item::Subscribed(joined.into_iter().map(|(joined, _)| joined).collect()));
        self.ready.extend(gaps);
        self.phase = Phase::Following;
    }

    /// Waits for the next thing that happens, and does what it asks for.
    async fn follow(&mut self) {
        let now = Instant::now();
        if now >= self.ends {
            self.ready.push_back(Item::End);
            self.phase = Phase::Over;
            return;
        }
        if now >= self.heartbeat {
            self.heartbeat = now + HEARTBEAT;
            self.ready.push_back(Item::Heartbeat);
            // W2: so that a last message is found that IoT Core has lost, and a new epoch.
            for following in &mut self.following {
                following.head_too = true;
                following.look_at(now);
            }
            return;
        }
        let looks = self.following.iter().enumerate();
        let next = looks.filter_map(|(index, following)| Some((*following.looks.first()?, index))).min();
        if let Some((_, index)) = next.filter(|(due, _)| *due <= now) {
            return self.look(index).await;
        }
        let wake = next.map_or(self.ends, |(due, _)| due).min(self.ends).min(self.heartbeat);
        let Some(feed) = self.feed.as_mut() else { return };
        tokio::select! {
            biased;
            event = feed.next() => self.hear(event),
            () = tokio::time::sleep_until(wake) => {}
        }
    }

    fn hear(&mut self, event: LiveEvent) {
        let now = Instant::now();
        match event {
            LiveEvent::Joined => {
                self.joined = true;
                for following in &mut self.following {
                    following.head_too = true;
                    following.look_at(now);
                    following.looks.extend(LOOK_AGAIN.map(|after| now + after));
                }
            }
            LiveEvent::Away => {
                self.joined = false;
                let poll = self.streams.next_poll();
                self.following.iter_mut().for_each(|following| following.look_at(poll));
            }
            LiveEvent::Lagged => self.following.iter_mut().for_each(|following| following.look_at(now)),
            LiveEvent::Message { channel, position, json } => {
                let Some(following) = self.following.iter_mut().find(|following| following.channel == channel) else { return };
                if position <= following.position {
                    return;
                }
                if position.epoch == following.position.epoch && position.offset == following.position.offset + 1 {
                    following.position = position;
                    self.ready.push_back(Item::Message { channel, position, json });
                    return;
                }
                following.head_too |= position.epoch != following.position.epoch;
                following.look_at(now + HOLE);
            }
        }
    }

    /// Looks at the log of one channel.
    async fn look(&mut self, index: usize) {
        let began = Instant::now();
        let following = &self.following[index];
        let (channel, position, head_too) = (following.channel.clone(), following.position, following.head_too);
        match self.read(&channel, position, head_too).await {
            Ok((reached, more)) => {
                self.failing = None;
                let poll = self.streams.next_poll();
                let polls = self.following[index].polls || !self.joined;
                let following = &mut self.following[index];
                following.looked(began);
                following.position = reached;
                following.head_too &= more;
                if more {
                    following.look_at(Instant::now());
                } else if polls {
                    following.look_at(poll);
                }
            }
            Err(error) => {
                let since = *self.failing.get_or_insert_with(Instant::now);
                let fault = unavailable(error);
                if since.elapsed() >= UNANSWERED {
                    return self.fail(fault.retry_after(RETRY_AFTER_MS));
                }
                let poll = self.streams.next_poll();
                let following = &mut self.following[index];
                following.looked(began);
                following.look_at(poll);
            }
        }
    }

    /// Brings what the log has after `position`: how far that is, and whether there may be more.
    async fn read(&mut self, channel: &Channel, position: Position, head_too: bool) -> Answer<(Position, bool)> {
        let streams = Arc::clone(&self.streams);
        let (store, now) = (&streams.engine.store, streams.engine.now());
        // D4: the head before the log. An epoch that the head had left then has nothing more than the log shows.
        let head = if head_too { store.head(channel, now).await? } else { None };
        let window = streams.reader.read(store, channel, position, WINDOW, now).await?;
        if !window.messages.is_empty() {
            let stretch = Stretch { epoch: position.epoch, messages: &window.messages };
            let reached = self.bring(channel, position, position.epoch, None, stretch);
            return Ok((reached, window.full || head.is_some_and(|head| head.epoch > position.epoch)));
        }
        let Some(head) = head.filter(|head| head.epoch > position.epoch) else { return Ok((position, false)) };
        let begins = Position::new(head.epoch, 0);
        let window = streams.reader.read(store, channel, begins, WINDOW, now).await?;
        let stretch = Stretch { epoch: head.epoch, messages: &window.messages };
        let previous = head.prev.and_then(|prev| prev.position());
        Ok((self.bring(channel, position, head.epoch, previous, stretch), window.full))
    }

    /// Puts what comes after `position` in line: how far that is.
    fn bring(
        &mut self,
        channel: &Channel,
        position: Position,
        head: Epoch,
        previous: Option<Position>,
        stretch: Stretch<'_>,
    ) -> Position {
        let mut reached = position;
        let mut unread: Option<Position> = None;
        for step in steps(head, previous, position, stretch) {
            match step {
                Step::Message { offset, event, .. } => {
                    let here = Position::new(stretch.epoch, offset);
                    match cloudevents::placed(event, here) {
                        Some(json) => {
                            let message = Item::Message { channel: channel.clone(), position: here, json: json.into() };
                            self.ready.extend(unread.take().map(|after| gap(channel, after, reached)));
                            self.ready.push_back(message);
                        }
                        None => {
                            unread.get_or_insert(reached);
                        }
                    }
                    reached = here;
                }
                Step::Gap { after, to } => {
                    self.ready.push_back(gap(channel, unread.take().unwrap_or(after), to));
                    reached = to;
                }
            }
        }
        self.ready.extend(unread.map(|after| gap(channel, after, reached)));
        reached
    }

    fn fail(&mut self, fault: Fault) {
        self.ready.push_back(Item::Fault(fault));
        self.phase = Phase::Over;
        self.feed = None;
    }
}

impl Following {
    /// Forgets the looks that one which began at `began` has done.
    fn looked(&mut self, began: Instant) {
        while self.looks.first().is_some_and(|look| *look <= began) {
            self.looks.pop_first();
        }
    }

    /// Looks at the log at `at` at the latest.
    fn look_at(&mut self, at: Instant) {
        if self.looks.first().is_none_or(|first| *first > at) {
            self.looks.insert(at);
        }
    }
}

fn gap(channel: &Channel, after: Position, to: Position) -> Item {
    Item::Gap { channel: channel.clone(), after, to }
}
