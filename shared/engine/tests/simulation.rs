//! The simulation: the real use cases over memory adapters in a storm, on a clock of their own, everything from one seed.
//!
//! Publishers, subscribers and drains run as tasks that are slow, get no answers, and are killed between any two calls. After a
//! storm with crashes one more event is published in fair weather, and then the invariants of docs/delivery.md must hold.
//!
//! `SIMULATION_SEEDS=from..to` runs other seeds, `SIMULATION_SCENARIO=name` one scenario; a failure prints both.

use carillon_core::channel::Channel;
use carillon_core::connection::{ConnectionId, Principal};
use carillon_core::event::{Attribute, Data, Event, Identity};
use carillon_core::namespace::NamespaceOptions;
use carillon_core::position::{Epoch, Position};
use carillon_core::time::Millis;
use carillon_engine::drain::{Drain, DrainOptions, Received};
use carillon_engine::engine::Engine;
use carillon_engine::memory::{Behaviour, Faults, IotFaults, Memory, MemoryIot, MemoryPosts, MemoryQueue, Storm};
use carillon_engine::ports::{Answer, Clock, Mqtt, Namespaces, Posts};
use carillon_engine::rows::{Dialect, MqttOutcome, PostOutcome, ShardKey};
use carillon_engine::stream::{Item, Joined, Streams};
use carillon_engine::subscribe::Subscribed;
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::{Instant, sleep};

/// Where the clock begins: any moment will do, and this one is easy to read in a trace.
const BEGIN_MS: u64 = 1_700_000_000_000;

/// How long an invocation of a drain may take.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a message that was received and not deleted stays hidden.
const VISIBILITY: Duration = Duration::from_secs(30);

/// How long a stream may take to find a message that IoT Core has lost, in milliseconds: a heartbeat, or coming back after a cut
/// and then the calls that it takes, which are slow here.
const STREAMS_HAVE_ALL_MS: u64 = 25_000;

#[derive(Clone, Copy)]
struct Scenario {
    name: &'static str,
    faults: Faults,
    iot: IotFaults,
    /// How likely an invocation is killed.
    crash: f64,
    /// How likely a wake-up comes twice.
    repeat: f64,
    /// Milliseconds that clocks are apart.
    skew_ms: u64,
    subscribers: u64,
    /// Subscribers that go away again, with or without `$disconnect`.
    leavers: u64,
    publishers: u64,
    messages: u64,
    /// Stream clients, which are cut and come back all the time.
    streams: u64,
    /// What passes before the storm goes on, in seconds, once for each further phase. In each the subscribers of the phase
    /// before are cut and come back with a position they had.
    phases: &'static [Range<u64>],
}

const CALM: Scenario = Scenario {
    name: "calm",
    faults: Faults { refused: 0.0, unanswered: 0.0, conflict: 0.0 },
    iot: IotFaults { unanswered: 0.0, away: 0.0, lost: 0.0, repeated: 0.0, late: 0.0 },
    crash: 0.0,
    repeat: 0.1,
    skew_ms: 1_000,
    subscribers: 4,
    leavers: 0,
    publishers: 3,
    messages: 4,
    streams: 2,
    phases: &[],
};

const HOUR: u64 = 3_600;

/// 26 hours after an entry it is gone, and an hour before that its epoch ends.
#[expect(clippy::single_range_in_vec_init, reason = "one further phase, whose length is drawn from the range")]
const SCENARIOS: [Scenario; 10] = [
    CALM,
    Scenario { name: "repeats", repeat: 0.6, ..CALM },
    Scenario { name: "conflicts", faults: Faults { conflict: 0.4, ..CALM.faults }, leavers: 2, subscribers: 6, ..CALM },
    Scenario { name: "crashes", crash: 0.3, ..CALM },
    Scenario {
        name: "IoT Core is shaky",
        iot: IotFaults { unanswered: 0.15, away: 0.2, lost: 0.1, repeated: 0.1, late: 0.2 },
        crash: 0.05,
        ..CALM
    },
    Scenario {
        name: "unanswered",
        faults: Faults { refused: 0.02, unanswered: 0.02, conflict: 0.05 },
        crash: 0.05,
        leavers: 1,
        subscribers: 5,
        ..CALM
    },
    Scenario { name: "comes back", phases: &[10..3_000, 10..3_000], messages: 6, leavers: 1, subscribers: 5, ..CALM },
    Scenario { name: "epoch ends", phases: &[25 * HOUR - 5..25 * HOUR + 60], publishers: 4, ..CALM },
    Scenario { name: "log runs out", phases: &[26 * HOUR - 5..26 * HOUR + 120, 20..30 * HOUR], ..CALM },
    Scenario {
        name: "everything",
        faults: Faults { refused: 0.01, unanswered: 0.01, conflict: 0.1 },
        iot: IotFaults { unanswered: 0.05, away: 0.05, lost: 0.1, repeated: 0.1, late: 0.1 },
        crash: 0.1,
        repeat: 0.4,
        skew_ms: 2_000,
        subscribers: 7,
        leavers: 3,
        publishers: 4,
        messages: 6,
        streams: 3,
        phases: &[24 * HOUR..27 * HOUR, 5..60],
    },
];

/// Seeds of one scenario that `cargo test` runs.
const SEEDS: Range<u64> = 0..120;

#[test]
fn the_promise_holds_in_every_storm() {
    let seeds = std::env::var("SIMULATION_SEEDS").ok().map_or(SEEDS, |text| {
        let (from, to) = text.split_once("..").expect("SIMULATION_SEEDS=from..to");
        from.parse().expect("a number")..to.parse().expect("a number")
    });
    let only = std::env::var("SIMULATION_SCENARIO").ok();
    for scenario in SCENARIOS.iter().filter(|scenario| only.as_deref().is_none_or(|only| only == scenario.name)) {
        let mut all = Shown::default();
        for seed in seeds.clone() {
            let shown = run(scenario, seed).unwrap_or_else(|violation| {
                panic!("SIMULATION_SCENARIO='{}' SIMULATION_SEEDS={seed}..{}: {violation}", scenario.name, seed + 1)
            });
            all.delivered += shown.delivered;
            all.dead_letters += shown.dead_letters;
        }
        println!("{}: seeds {seeds:?}, {} messages delivered, {} dead letters", scenario.name, all.delivered, all.dead_letters);
        assert!(all.delivered > 0, "{}: nothing was delivered, so nothing was shown", scenario.name);
    }
}

/// What a run showed.
#[derive(Default)]
struct Shown {
    delivered: u64,
    dead_letters: u64,
}

fn run(scenario: &Scenario, seed: u64) -> Result<Shown, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let world = runtime.block_on(async { World::new(scenario, seed) });
    LocalSet::new().block_on(&runtime, world.live())
}

/// The clock of one process: the simulation's time and this process's skew.
#[derive(Clone, Copy)]
struct SkewedClock {
    begin: Instant,
    ahead_ms: u64,
}

impl Clock for SkewedClock {
    fn now(&self) -> Millis {
        let passed = u64::try_from(self.begin.elapsed().as_millis()).expect("a short life");
        Millis(BEGIN_MS + passed + self.ahead_ms)
    }
}

/// Posts that check I6: only the holder of the shard's lease posts.
#[derive(Clone)]
struct HoldersPosts {
    posts: MemoryPosts,
    store: Memory,
    key: ShardKey,
    owner: String,
    violation: Arc<std::sync::Mutex<Option<String>>>,
}

impl HoldersPosts {
    fn check(&self, receiver: impl std::fmt::Display) {
        let holder = self.store.holder(&self.key);
        if holder.as_deref() != Some(&self.owner) {
            let text = format!("I6: {} posted to {receiver} while {holder:?} held {}", self.owner, self.key);
            self.violation.lock().expect("no panic under it").get_or_insert(text);
        }
    }
}

impl Posts for HoldersPosts {
    async fn post(&self, connection: &ConnectionId, frame: &Arc<str>) -> Answer<PostOutcome> {
        self.check(connection);
        self.posts.post(connection, frame).await
    }

    async fn close(&self, connection: &ConnectionId) -> Answer<()> {
        self.posts.close(connection).await
    }
}

/// Publishes to IoT Core that check I6 likewise.
#[derive(Clone)]
struct HoldersIot(HoldersPosts, MemoryIot);

impl Mqtt for HoldersIot {
    async fn publish(&self, channel: &Channel, position: Position, json: &str, retain: bool) -> Answer<MqttOutcome> {
        let Self(of, iot) = self;
        of.check("IoT Core");
        iot.publish(channel, position, json, retain).await
    }
}

/// One subscription of one client.
struct Subscriber {
    id: ConnectionId,
    since: Option<Position>,
    acknowledged: Cell<Option<Subscribed>>,
    left: Cell<bool>,
}

/// One client of streams, over all its streams.
#[derive(Default)]
struct StreamClient {
    position: Cell<Option<Position>>,
    /// From where to where each message took it.
    steps: RefCell<Vec<(Position, Position, String)>>,
    /// What it was told is missing, beyond what a position could not be recovered for.
    gaps: RefCell<Vec<(Position, Position)>>,
}

struct World {
    scenario: Scenario,
    storm: Storm,
    store: Memory,
    queue: MemoryQueue,
    posts: MemoryPosts,
    iot: MemoryIot,
    begin: Instant,
    channel: Channel,
    /// Invocations that were killed or got an error: what I2 forgives.
    faults: Cell<u64>,
    messages: Cell<u64>,
    invocations: Cell<u64>,
    dead_letters: Cell<u64>,
    /// Event id to the position it was acknowledged at.
    published: RefCell<HashMap<String, Position>>,
    /// Every position ever seen, to the message there.
    history: RefCell<BTreeMap<Position, String>>,
    violation: Arc<std::sync::Mutex<Option<String>>>,
}

impl World {
    fn new(scenario: &Scenario, seed: u64) -> Rc<Self> {
        let storm = Storm::new(seed, scenario.faults);
        Rc::new(Self {
            scenario: *scenario,
            store: Memory::in_storm(storm.clone()),
            queue: MemoryQueue::in_storm(storm.clone()),
            posts: MemoryPosts::in_storm(storm.clone()),
            iot: MemoryIot::in_storm(storm.clone(), scenario.iot),
            storm,
            begin: Instant::now(),
            channel: Channel::parse("orders/42").expect("a channel"),
            faults: Cell::new(0),
            messages: Cell::new(0),
            invocations: Cell::new(0),
            dead_letters: Cell::new(0),
            published: RefCell::default(),
            history: RefCell::default(),
            violation: Arc::default(),
        })
    }

    async fn live(self: Rc<Self>) -> Result<Shown, String> {
        let retained = NamespaceOptions { retain: true, ..NamespaceOptions::default() };
        self.store.calm().set_namespace(&self.channel.namespace(), &retained).await.map_err(|error| error.to_string())?;
        let pump = tokio::task::spawn_local(Rc::clone(&self).pump());
        let mut delivered = 0;
        let mut positions: Vec<Position> = Vec::new();
        let clients: Vec<Rc<StreamClient>> = (0..self.scenario.streams).map(|_| Rc::default()).collect();
        for phase in 0..=self.scenario.phases.len() {
            if let Some(pause) = phase.checked_sub(1).map(|before| self.scenario.phases[before].clone()) {
                sleep(Duration::from_secs(self.storm.number(pause))).await;
            }
            let subscribers: Vec<Rc<Subscriber>> = (0..self.scenario.subscribers)
                .map(|number| {
                    let since = (!positions.is_empty() && self.storm.happens(0.8)).then(|| {
                        let recent = positions.len().saturating_sub(8);
                        positions[usize::try_from(self.storm.number(recent as u64..positions.len() as u64)).expect("small")]
                    });
                    Rc::new(Subscriber {
                        id: ConnectionId::try_new(format!("p{phase}c{number}=")).expect("an id"),
                        since,
                        acknowledged: Cell::new(None),
                        left: Cell::new(false),
                    })
                })
                .collect();
            let streaming: Vec<_> = clients
                .iter()
                .map(|client| tokio::task::spawn_local(Rc::clone(&self).stream_client(Rc::clone(client))))
                .collect();
            let mut tasks: Vec<JoinHandle<()>> = Vec::new();
            for (number, subscriber) in (0..).zip(&subscribers) {
                let leaves = number < self.scenario.leavers;
                tasks.push(tokio::task::spawn_local(Rc::clone(&self).subscriber(Rc::clone(subscriber), leaves)));
            }
            for publisher in 0..self.scenario.publishers {
                tasks.push(tokio::task::spawn_local(Rc::clone(&self).publisher(phase, publisher)));
            }
            for task in tasks {
                task.await.map_err(|error| format!("a task of the simulation ended: {error}"))?;
            }
            self.come_to_rest(phase).await?;
            self.until_streams_have_all(&clients).await?;
            streaming.iter().for_each(JoinHandle::abort);
            delivered += self.check(&subscribers)?;
            positions = self.history.borrow().keys().copied().collect();
            for subscriber in &subscribers {
                self.posts.behave(&subscriber.id, Behaviour::Gone);
            }
        }
        pump.abort();
        for client in &clients {
            delivered += self.check_stream(client)?;
        }
        Ok(Shown { delivered, dead_letters: self.dead_letters.get() })
    }

    fn engine(&self) -> Engine<Memory, MemoryQueue, SkewedClock> {
        Engine::seeded(self.store.clone(), self.queue.clone(), self.clock(), self.storm.number(0..u64::MAX))
    }

    fn clock(&self) -> SkewedClock {
        SkewedClock { begin: self.begin, ahead_ms: self.storm.number(0..2 * self.scenario.skew_ms + 1) }
    }

    fn fault(&self) {
        self.faults.set(self.faults.get() + 1);
    }

    /// Runs one invocation, which may be killed between any two of its calls. None: it was.
    async fn invoke<T: 'static>(&self, timeout: Duration, work: impl Future<Output = T> + 'static) -> Option<T> {
        let task = tokio::task::spawn_local(work);
        let kill = task.abort_handle();
        let until =
            if self.storm.happens(self.scenario.crash) { Duration::from_millis(self.storm.number(1..3_000)) } else { timeout };
        let reaper = tokio::task::spawn_local(async move {
            sleep(until).await;
            kill.abort();
        });
        let done = task.await.ok();
        reaper.abort();
        if done.is_none() {
            self.fault();
        }
        done
    }

    async fn subscriber(self: Rc<Self>, subscriber: Rc<Subscriber>, leaves: bool) {
        sleep(Duration::from_millis(self.storm.number(0..3_000))).await;
        let now = Millis(BEGIN_MS).plus(u64::try_from(self.begin.elapsed().as_millis()).expect("a short life"));
        loop {
            let (engine, id) = (self.engine(), subscriber.id.clone());
            let connect = async move { engine.connect(&id, Principal::shared(), Dialect::Native, now).await };
            if self.invoke(Duration::from_secs(10), connect).await.is_some_and(|done| done.is_ok()) {
                break;
            }
            self.fault();
        }
        for _ in 0..20 {
            let (engine, id, channel, since) = (self.engine(), subscriber.id.clone(), self.channel.clone(), subscriber.since);
            let subscribe = async move { engine.subscribe(&id, &channel, since).await };
            match self.invoke(Duration::from_secs(10), subscribe).await {
                Some(Ok(subscribed)) => {
                    subscriber.acknowledged.set(Some(subscribed));
                    break;
                }
                _ => self.fault(),
            }
        }
        if !leaves {
            return;
        }
        sleep(Duration::from_millis(self.storm.number(0..1_500))).await;
        subscriber.left.set(true);
        self.posts.behave(&subscriber.id, Behaviour::Gone);
        if self.storm.happens(0.7) {
            let (engine, id) = (self.engine(), subscriber.id.clone());
            self.invoke(Duration::from_secs(10), async move { engine.disconnect(&id).await }).await;
        }
    }

    /// A client that opens one stream after the other, each until its planned end, a fault, or a cut.
    async fn stream_client(self: Rc<Self>, client: Rc<StreamClient>) {
        sleep(Duration::from_millis(self.storm.number(0..2_000))).await;
        loop {
            let streams =
                Arc::new(Streams::seeded(self.store.clone(), self.iot.clone(), self.clock(), self.storm.number(0..u64::MAX)));
            let since = client.position.get();
            let ends_at = streams.now().plus(self.storm.number(500..120_000));
            let mut stream = streams.open(vec![(self.channel.clone(), since)], ends_at);
            let cut = Instant::now() + Duration::from_millis(self.storm.number(100..120_000));
            while let Ok(Some(item)) = tokio::time::timeout_at(cut, stream.next()).await {
                if let Err(violation) = client.take(item, since) {
                    self.violation.lock().expect("no panic under it").get_or_insert(violation);
                }
            }
            sleep(Duration::from_millis(self.storm.number(0..700))).await;
        }
    }

    /// At rest every stream has everything, at the latest with its next heartbeat.
    async fn until_streams_have_all(&self, clients: &[Rc<StreamClient>]) -> Result<(), String> {
        for _ in 0..STREAMS_HAVE_ALL_MS / 50 {
            if let Some(violation) = self.violation.lock().expect("no panic under it").take() {
                return Err(violation);
            }
            let newest = self.store.whole_log(&self.channel).last().map(|(position, _)| *position);
            if clients.iter().all(|client| newest.is_none_or(|newest| client.position.get() >= Some(newest))) {
                return Ok(());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Err("I3: a stream has not everything after the heartbeat that should have found it".to_owned())
    }

    /// I15: over all its streams, a client has no hole and no repeat.
    fn check_stream(&self, client: &StreamClient) -> Result<u64, String> {
        let history = self.history.borrow();
        let steps = client.steps.borrow();
        for (from, to, id) in steps.iter() {
            if history.get(to) != Some(id) {
                return Err(format!("I4: a stream brought {id} at {to}, where the log had {:?}", history.get(to)));
            }
            if let Some((missing, _)) = history.range(from..to).find(|(position, _)| *position > from) {
                return Err(format!("I15: a stream went from {from} to {to} without {missing} and without a word"));
            }
        }
        let log = self.store.whole_log(&self.channel);
        for (after, to) in client.gaps.borrow().iter() {
            if let Some((there, _)) = log.iter().find(|(position, _)| after < position && position <= to) {
                return Err(format!("I1: a stream was told a gap from {after} to {to}, and the log has {there}"));
            }
        }
        Ok(steps.len() as u64)
    }

    async fn publisher(self: Rc<Self>, phase: usize, publisher: u64) {
        sleep(Duration::from_millis(self.storm.number(0..1_500))).await;
        let engine = Rc::new(self.engine());
        let mut message = 0;
        while message < self.scenario.messages {
            let batch = self.storm.number(1..4).min(self.scenario.messages - message);
            let ids: Vec<String> = (message..message + batch).map(|number| format!("{phase}.{publisher}.{number}")).collect();
            message += batch;
            self.publish(&engine, ids).await;
            sleep(Duration::from_millis(self.storm.number(0..500))).await;
        }
    }

    /// Publishes until it is acknowledged, as a publisher does that gives its events ids.
    async fn publish(&self, engine: &Rc<Engine<Memory, MemoryQueue, SkewedClock>>, ids: Vec<String>) {
        loop {
            let events: Vec<Event> = ids.iter().map(|id| event(&self.channel, id)).collect();
            let engine = Rc::clone(engine);
            let deadline = engine.now().plus(12_000);
            let fates = self
                .invoke(Duration::from_secs(12), async move { engine.publish(events, Some(deadline)).await })
                .await
                .and_then(|fates| fates.into_iter().collect::<Result<Vec<_>, _>>().ok());
            if let Some(published) = fates {
                for (id, published) in ids.into_iter().zip(published) {
                    self.published.borrow_mut().entry(id).or_insert(published.position);
                }
                return;
            }
            self.fault();
        }
    }

    /// The queue: hands wake-ups to drains, late, twice and out of order, and again when they failed.
    async fn pump(self: Rc<Self>) {
        loop {
            let wakeup = self.queue.next().await;
            let number = self.messages.get();
            self.messages.set(number + 1);
            let copies = if self.storm.happens(self.scenario.repeat) { 2 } else { 1 };
            for _ in 0..copies {
                let received = Received { message_id: format!("m{number}"), wakeup: wakeup.clone() };
                self.invocations.set(self.invocations.get() + 1);
                tokio::task::spawn_local(Rc::clone(&self).deliver(received));
            }
        }
    }

    async fn deliver(self: Rc<Self>, received: Received) {
        sleep(Duration::from_millis(self.storm.number(0..400))).await;
        for attempt in 0.. {
            if attempt == 10 {
                // Calls in this storm take a hundred times longer than on AWS, so resumes that come back in step can keep finding
                // the lease held. That is no violation: the wake-up goes to the dead-letter queue, and others serve its row.
                self.dead_letters.set(self.dead_letters.get() + 1);
                break;
            }
            let began = Instant::now();
            let posts = HoldersPosts {
                posts: self.posts.clone(),
                store: self.store.clone(),
                key: received.wakeup.key.clone(),
                owner: received.message_id.clone(),
                violation: Arc::clone(&self.violation),
            };
            let options = DrainOptions { parallel_posts: 3 };
            let clock = self.clock();
            // The deadline is Lambda's, whose clock this process need not share.
            let deadline = Millis(clock.now().0 - clock.ahead_ms + 15_000);
            let iot = HoldersIot(posts.clone(), self.iot.clone());
            let drain = Drain::new(self.store.clone(), self.queue.clone(), posts, iot, clock, options);
            let batch = vec![received.clone()];
            let failed = self.invoke(DRAIN_TIMEOUT, async move { drain.drain(batch, deadline).await }).await;
            match failed {
                Some(failed) if failed.is_empty() => break,
                // Held, or a call was refused: the latter repeats posts as a crash does.
                Some(_) if self.scenario.faults.refused + self.scenario.faults.unanswered > 0.0 => self.fault(),
                Some(_) | None => {}
            }
            sleep(VISIBILITY.saturating_sub(began.elapsed())).await;
        }
        self.invocations.set(self.invocations.get() - 1);
    }

    /// Waits until nothing moves. After a crash, one more event in fair weather wakes whatever was left asleep; without one,
    /// nothing may be.
    async fn come_to_rest(&self, phase: usize) -> Result<(), String> {
        self.until_idle().await?;
        if self.faults.get() == 0 {
            return Ok(());
        }
        let engine = Rc::new(Engine::seeded(self.store.calm(), self.queue.clone(), self.clock(), 0));
        self.publish(&engine, vec![format!("{phase}.last")]).await;
        self.until_idle().await
    }

    async fn until_idle(&self) -> Result<(), String> {
        let mut idle = 0;
        for _ in 0..20_000 {
            sleep(Duration::from_millis(50)).await;
            idle = if self.invocations.get() == 0 && !self.queue.has_delayed() { idle + 1 } else { 0 };
            if idle == 20 {
                return Ok(());
            }
        }
        Err("I12: the queue does not drain".to_owned())
    }

    /// The invariants, at rest. Answers with how many messages were delivered.
    fn check(&self, subscribers: &[Rc<Subscriber>]) -> Result<u64, String> {
        if let Some(violation) = self.violation.lock().expect("no panic under it").take() {
            return Err(violation);
        }
        let log = self.store.whole_log(&self.channel);
        self.check_log(&log)?;
        let mut delivered = 0;
        for subscriber in subscribers.iter().filter(|subscriber| !subscriber.left.get()) {
            delivered += self.check_subscriber(subscriber, &log)?;
        }
        delivered += self.check_mqtt(&log)?;
        for (key, listed) in self.store.shards_with_subscriptions() {
            if !listed {
                return Err(format!("I7: {key} has subscriptions and is not listed"));
            }
        }
        Ok(delivered)
    }

    fn check_log(&self, log: &[(Position, carillon_core::event::EventJson)]) -> Result<(), String> {
        let mut history = self.history.borrow_mut();
        for (position, event) in log {
            let id = id_of(&serde_json::from_str(event.as_str()).expect("events are JSON"));
            let there = history.entry(*position).or_insert_with(|| id.clone());
            if *there != id {
                return Err(format!("I4: {position} named {there} and now names {id}"));
            }
        }
        let mut by_epoch: BTreeMap<Epoch, BTreeSet<u64>> = BTreeMap::new();
        for position in history.keys() {
            by_epoch.entry(position.epoch).or_default().insert(position.offset);
        }
        for (epoch, offsets) in by_epoch {
            if !offsets.iter().copied().eq(1..=offsets.len() as u64) {
                return Err(format!("I4: the offsets of epoch {epoch} are not dense: {offsets:?}"));
            }
        }
        let mut seen = HashMap::new();
        for (position, id) in history.iter() {
            if let Some(before) = seen.insert(id.clone(), *position) {
                return Err(format!("I5: {id} is in the log at {before} and at {position}"));
            }
        }
        for (id, position) in self.published.borrow().iter() {
            if history.get(position) != Some(id) {
                return Err(format!("I5: {id} was acknowledged at {position}, where the log has {:?}", history.get(position)));
            }
        }
        Ok(())
    }

    /// Over MQTT everything came, whatever is repeated; what is new came in order, and what is retained is the newest (I13).
    fn check_mqtt(&self, log: &[(Position, carillon_core::event::EventJson)]) -> Result<u64, String> {
        let came = self.iot.published(&self.channel);
        let mut newest = None;
        for (position, _) in &came {
            let newest_before = newest.replace(newest.unwrap_or(*position).max(*position));
            let is_next = newest_before.is_none_or(|before: Position| {
                *position <= before || position.epoch > before.epoch || position.offset == before.offset + 1
            });
            if !is_next {
                return Err(format!("P2: {position} came over MQTT after {newest_before:?}, and what is between did not"));
            }
        }
        let came: BTreeSet<Position> = came.into_iter().map(|(position, _)| position).collect();
        if let Some((missing, _)) = log.iter().find(|(position, _)| !came.contains(position)) {
            return Err(format!("P2: {missing} did not come over MQTT"));
        }
        let retained = self.iot.retained(&self.channel);
        if let Some((last, _)) = log.last().filter(|(last, _)| retained != Some(*last)) {
            return Err(format!("I13: {retained:?} is retained, and the newest is {last}"));
        }
        Ok(came.len() as u64)
    }

    /// Walks what a subscriber got with the client's rule.
    fn check_subscriber(
        &self,
        subscriber: &Subscriber,
        log: &[(Position, carillon_core::event::EventJson)],
    ) -> Result<u64, String> {
        let id = &subscriber.id;
        let Some(acknowledged) = subscriber.acknowledged.get() else {
            return if self.faults.get() > 0 { Ok(0) } else { Err(format!("{id} was never acknowledged")) };
        };
        if acknowledged.recovered == Some(true) && Some(acknowledged.position) != subscriber.since {
            return Err(format!("S4: {id} came with {:?} and is acknowledged {}", subscriber.since, acknowledged.position));
        }
        let mut position = acknowledged.position;
        let mut received: BTreeMap<Position, String> = BTreeMap::new();
        let mut posted: BTreeSet<Position> = BTreeSet::new();
        for frame in self.posts.frames(id) {
            let frame: Value = serde_json::from_str(&frame).map_err(|error| format!("a frame is no JSON: {error}"))?;
            let epoch = epoch_of(&frame);
            if frame["type"] == "gap" {
                let to = Position::new(epoch, frame["offset"].as_u64().expect("an offset"));
                let lost = log.iter().any(|(there, _)| position < *there && *there <= to);
                if lost {
                    return Err(format!("I1: {id} was told a gap up to {to} though the log has it"));
                }
                position = position.max(to);
                continue;
            }
            let mut prev =
                frame.get("prev").map(|prev| Position::new(epoch_of(prev), prev["offset"].as_u64().expect("an offset")));
            for event in frame["events"].as_array().expect("events") {
                let here = Position::new(epoch, event["offset"].as_u64().expect("an offset"));
                if !posted.insert(here) && self.faults.get() == 0 && self.scenario.phases.is_empty() {
                    return Err(format!("I2: {id} got {here} twice in a run without faults"));
                }
                let continues = here.epoch == position.epoch && here.offset == position.offset + 1;
                if continues || here.offset == 1 && here.epoch > position.epoch && prev == Some(position) {
                    received.insert(here, id_of(&event["event"]));
                    position = here;
                }
                prev = None;
            }
        }
        for (there, event) in log.iter().filter(|(there, _)| *there > acknowledged.position) {
            let wanted = id_of(&serde_json::from_str(event.as_str()).expect("events are JSON"));
            match received.get(there) {
                Some(got) if *got == wanted => {}
                got => {
                    let since = subscriber.since;
                    return Err(format!(
                        "I1: {id} (acknowledged {acknowledged:?}, since {since:?}, now at {position}) has {got:?} at {there} instead of {wanted}\n{:#?}",
                        self.posts.frames(id)
                    ));
                }
            }
        }
        if acknowledged.recovered == Some(true) {
            let lost =
                self.history.borrow().range(acknowledged.position..).skip(1).any(|(there, _)| !received.contains_key(there));
            if lost {
                return Err(format!("I10: {id} was told it is recovered and has not everything after {}", acknowledged.position));
            }
        }
        Ok(received.len() as u64)
    }
}

impl StreamClient {
    fn take(&self, item: Item, since: Option<Position>) -> Result<(), String> {
        match item {
            Item::Heartbeat | Item::End | Item::Fault(_) => {}
            Item::Subscribed(joined) => {
                let [Joined { position, recovered, .. }] = joined.as_slice() else {
                    return Err(format!("a stream of one channel was joined as {joined:?}"));
                };
                if recovered.is_some() != since.is_some() || *recovered == Some(true) && since != Some(*position) {
                    return Err(format!(
                        "S4: a stream asked for {since:?} and was joined at {position}, recovered {recovered:?}"
                    ));
                }
                self.position.set(Some(*position));
            }
            Item::Message { position, json, .. } => {
                let Some(from) = self.position.replace(Some(position)) else {
                    return Err(format!("{position} came before the stream was joined"));
                };
                if position <= from {
                    return Err(format!("I15: a stream brought {position} after {from}"));
                }
                let json: Value = serde_json::from_str(&json).map_err(|error| format!("a message is no JSON: {error}"))?;
                self.steps.borrow_mut().push((from, position, id_of(&json)));
            }
            Item::Gap { after, to, .. } => {
                if self.position.get() != Some(to) {
                    self.gaps.borrow_mut().push((after, to));
                }
                self.position.set(Some(to));
            }
        }
        Ok(())
    }
}

fn event(channel: &Channel, id: &str) -> Event {
    Event {
        channel: channel.clone(),
        id: Attribute::id(id).expect("an id"),
        source: Attribute::source("simulation").expect("a source"),
        kind: Attribute::kind("test").expect("a type"),
        time: Attribute::try_new("time", "2026-01-01T00:00:00Z", 64).expect("a time"),
        schema: None,
        data: Data::None,
        extensions: Vec::new(),
        identity: Some(Identity::new("simulation", id)),
    }
}

fn id_of(event: &Value) -> String {
    event["id"].as_str().expect("an id").to_owned()
}

fn epoch_of(value: &Value) -> Epoch {
    value["epoch"].as_str().and_then(|epoch| epoch.parse().ok()).expect("an epoch")
}
