//! Who listens to what, on which line, and what becomes of a line that is lost.
//!
//! The hub never waits for anything but its next command: lines dial and subscribe in tasks of their own, and a listener that takes
//! nothing in loses its own messages. So the commands of a moment are all that ever waits for it.

use super::LINE_FILTERS;
use super::line::{Dialer, Event, KEEP_ALIVE, LineError, Order};
use super::message::{Message, Unreadable};
use super::queue::Queue;
use super::rate::Rate;
use carillon_core::channel::Channel;
use carillon_core::time::Millis;
use carillon_engine::engine::chain;
use carillon_engine::ports::{Clock, LiveEvent};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

/// How often the hub looks around while there are lines.
const TICK: Duration = Duration::from_secs(1);

/// A process that did not run for so long, by the wall clock, was frozen: the monotonic clock may stand still meanwhile.
///
/// IoT Core hangs up one and a half [`KEEP_ALIVE`] after it last heard a client, which may have been a whole one before the freeze.
/// Shorter freezes lose nothing, since the socket holds what was sent.
const FREEZE: Duration = Duration::from_secs(KEEP_ALIVE.as_secs() / 2);

/// The wait before a line is dialled again is a random part of this, and doubles.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);

/// The longest wait before a line is dialled again.
const LONGEST_BACKOFF: Duration = Duration::from_secs(15);

/// How long after IoT Core denied a subscription it is tried again: a policy is not mended within seconds.
const DENIED_BACKOFF: Duration = Duration::from_secs(60);

/// What the hub is told.
#[derive(Debug)]
pub(super) enum Command {
    /// A listener wants to hear channels.
    Listen { feed: u64, channels: BTreeSet<Channel>, queue: Arc<Queue> },
    /// A listener is gone.
    Hush { feed: u64 },
    /// An invocation begins.
    Check { done: oneshot::Sender<()> },
    /// A line has something to report. Of a dialling that was given up it is not listened to.
    Line { line: u64, dialling: u64, event: Event },
}

/// Everything that is known about listeners and lines.
pub(super) struct Hub {
    dialer: Dialer,
    clock: Arc<dyn Clock>,
    /// Weak, so that the hub ends with its last listener.
    commands: mpsc::WeakUnboundedSender<Command>,
    listeners: HashMap<u64, Listener>,
    channels: HashMap<Channel, Heard>,
    lines: BTreeMap<u64, Line>,
    /// Names lines, diallings and tickets.
    last_number: u64,
    /// When the hub last ran.
    ran: Millis,
    unreadable: u64,
}

struct Listener {
    channels: BTreeSet<Channel>,
    queue: Arc<Queue>,
    joined: bool,
}

/// A channel that somebody listens to.
struct Heard {
    line: u64,
    stage: Stage,
    listeners: BTreeSet<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The line has not been told.
    Unasked,
    /// The line subscribes to it.
    Asked {
        ticket: u64,
    },
    Joined,
    /// IoT Core does not let us.
    Denied {
        again: Instant,
    },
}

#[derive(Default)]
struct Line {
    /// At most [`LINE_FILTERS`], and never none.
    channels: BTreeSet<Channel>,
    dialling: u64,
    /// None while it waits to be dialled again. Dropped, the line hangs up.
    orders: Option<mpsc::UnboundedSender<Order>>,
    dial_at: Option<Instant>,
    /// Diallings in a row that led to nothing.
    failures: u32,
    rate: Rate,
}

impl Hub {
    pub(super) fn new(dialer: Dialer, clock: Arc<dyn Clock>, commands: mpsc::WeakUnboundedSender<Command>) -> Self {
        let ran = clock.now();
        let (listeners, channels, lines) = (HashMap::new(), HashMap::new(), BTreeMap::new());
        Self { dialer, clock, commands, listeners, channels, lines, last_number: 0, ran, unreadable: 0 }
    }

    /// Works until nobody can give commands any more.
    pub(super) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let dial_at = self.lines.values().filter_map(|line| line.dial_at).min();
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                _ = ticks.tick(), if !self.lines.is_empty() => self.look_around(Instant::now()),
                () = at(dial_at) => self.dial_due(Instant::now()),
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Listen { feed, channels, queue } => self.listen(feed, channels, queue),
            Command::Hush { feed } => self.hush(feed),
            Command::Check { done } => {
                self.look_at_the_clock();
                // Whoever asked may have given up.
                let _ = done.send(());
            }
            Command::Line { line, dialling, event } => {
                if self.lines.get(&line).is_some_and(|line| line.dialling == dialling) {
                    self.heed(line, event);
                }
            }
        }
    }

    fn listen(&mut self, feed: u64, channels: BTreeSet<Channel>, queue: Arc<Queue>) {
        if self.lines.is_empty() {
            // Nothing was held that a freeze could have broken.
            self.ran = self.clock.now();
        }
        for channel in &channels {
            if !self.channels.contains_key(channel) {
                let line = self.line_with_room();
                self.lines.entry(line).or_default().channels.insert(channel.clone());
                let heard = Heard { line, stage: Stage::Unasked, listeners: BTreeSet::new() };
                self.channels.insert(channel.clone(), heard);
                self.ask(channel);
            }
            if let Some(heard) = self.channels.get_mut(channel) {
                heard.listeners.insert(feed);
            }
        }
        self.listeners.insert(feed, Listener { channels, queue, joined: false });
        self.tell([feed]);
        // After all its channels were added, so that a new line begins with them.
        self.dial_new();
    }

    fn hush(&mut self, feed: u64) {
        let Some(listener) = self.listeners.remove(&feed) else { return };
        let mut left = Vec::new();
        for channel in listener.channels {
            let Some(heard) = self.channels.get_mut(&channel) else { continue };
            heard.listeners.remove(&feed);
            if !heard.listeners.is_empty() {
                continue;
            }
            let number = heard.line;
            self.channels.remove(&channel);
            if let Some(line) = self.lines.get_mut(&number) {
                line.channels.remove(&channel);
                left.push((number, channel));
            }
        }
        // A line that nobody listens on is hung up, which leaves its channels all at once.
        self.lines.retain(|_, line| !line.channels.is_empty());
        for (number, channel) in left {
            if let Some(orders) = self.lines.get(&number).and_then(|line| line.orders.as_ref()) {
                let _ = orders.send(Order::Leave { channel });
            }
        }
    }

    fn heed(&mut self, number: u64, event: Event) {
        match event {
            Event::Joined { channel, ticket } => self.joined(&channel, ticket),
            Event::Denied { channel, ticket, reason } => self.denied(&channel, ticket, &reason),
            Event::Message { channel, message } => self.hand_out(number, &channel, message),
            Event::Unreadable { channel, reason } => self.count_unreadable(&channel, &reason),
            Event::Lost(error) => self.lost(number, &error),
        }
    }

    fn joined(&mut self, channel: &Channel, ticket: u64) {
        let Some(heard) = self.channels.get_mut(channel).filter(|heard| heard.stage == Stage::Asked { ticket }) else { return };
        heard.stage = Stage::Joined;
        if let Some(line) = self.lines.get_mut(&heard.line) {
            line.failures = 0;
        }
        let listeners = heard.listeners.clone();
        self.tell(listeners);
    }

    fn denied(&mut self, channel: &Channel, ticket: u64, reason: &str) {
        let Some(heard) = self.channels.get_mut(channel).filter(|heard| heard.stage == Stage::Asked { ticket }) else { return };
        tracing::error!(
            channel.name = %channel,
            subscription.refusal = reason,
            retry_ms = DENIED_BACKOFF.as_millis(),
            "IoT Core denies a subscription, and its streams poll"
        );
        heard.stage = Stage::Denied { again: Instant::now() + DENIED_BACKOFF };
    }

    fn hand_out(&mut self, number: u64, channel: &Channel, message: Message) {
        let Some(line) = self.lines.get_mut(&number) else { return };
        let became_too_much = line.rate.count(Instant::now());
        if became_too_much {
            let channels = line.channels.clone();
            tracing::warn!(
                line.number = number,
                "a connection to IoT Core carries all that it may, and its streams poll until it is calm"
            );
            self.tell_all(&channels);
        }
        let Some(heard) = self.channels.get(channel) else { return };
        for listener in heard.listeners.iter().filter_map(|feed| self.listeners.get(feed)).filter(|listener| listener.joined) {
            let Message { position, json } = &message;
            listener.queue.put(LiveEvent::Message { channel: channel.clone(), position: *position, json: Arc::clone(json) });
        }
    }

    fn count_unreadable(&mut self, channel: &Channel, reason: &Unreadable) {
        self.unreadable += 1;
        // Once at each power of two: somebody who floods a topic does not flood the log.
        if self.unreadable.is_power_of_two() {
            tracing::warn!(
                channel.name = %channel,
                messages.unreadable = self.unreadable,
                error.chain = chain(reason),
                "a message on a channel's topic cannot be read and is dropped; the channel's log has every message"
            );
        }
    }

    fn lost(&mut self, number: u64, error: &LineError) {
        let Some(line) = self.lines.get_mut(&number) else { return };
        let wait = backoff(line.failures).mul_f64(rand::random());
        line.orders = None;
        line.failures += 1;
        line.dial_at = Some(Instant::now() + wait);
        tracing::warn!(
            line.number = number,
            line.failures = line.failures,
            retry_ms = wait.as_millis(),
            error.chain = chain(error),
            "a connection to IoT Core is lost, and its streams poll until there is another"
        );
        self.unask(number);
    }

    fn look_around(&mut self, now: Instant) {
        self.look_at_the_clock();
        let calm: Vec<u64> =
            self.lines.iter_mut().filter_map(|(number, line)| line.rate.calm_down(now).then_some(*number)).collect();
        for number in calm {
            tracing::info!(line.number = number, "a connection to IoT Core is calm again");
            let channels = self.lines[&number].channels.clone();
            self.tell_all(&channels);
        }
        let is_due = |heard: &Heard| matches!(heard.stage, Stage::Denied { again } if again <= now);
        let due = self.channels.iter().filter(|(_, heard)| is_due(heard)).map(|(channel, _)| channel.clone());
        for channel in due.collect::<Vec<_>>() {
            self.ask(&channel);
        }
    }

    /// Throws every line away where the process was frozen since the hub last ran.
    fn look_at_the_clock(&mut self) {
        let now = self.clock.now();
        let stood_still = Duration::from_millis(now.0.saturating_sub(self.ran.0));
        self.ran = now;
        if stood_still <= FREEZE || self.lines.is_empty() {
            return;
        }
        tracing::info!(
            frozen_ms = stood_still.as_millis(),
            lines.count = self.lines.len(),
            "the environment was frozen: its connections to IoT Core are made anew"
        );
        for number in self.lines.keys().copied().collect::<Vec<_>>() {
            if let Some(line) = self.lines.get_mut(&number) {
                let channels = std::mem::take(&mut line.channels);
                *line = Line { channels, ..Line::default() };
            }
            self.unask(number);
            self.dial(number);
        }
    }

    fn dial_due(&mut self, now: Instant) {
        let is_due = |line: &Line| line.dial_at.is_some_and(|at| at <= now);
        for number in self.numbers_of(is_due) {
            self.dial(number);
        }
    }

    fn dial_new(&mut self) {
        for number in self.numbers_of(|line| line.orders.is_none() && line.dial_at.is_none()) {
            self.dial(number);
        }
    }

    fn numbers_of(&self, is_meant: impl Fn(&Line) -> bool) -> Vec<u64> {
        self.lines.iter().filter(|(_, line)| is_meant(line)).map(|(number, _)| *number).collect()
    }

    fn dial(&mut self, number: u64) {
        let dialling = self.next_number();
        let commands = self.commands.clone();
        let report = move |event| {
            if let Some(commands) = commands.upgrade() {
                let _ = commands.send(Command::Line { line: number, dialling, event });
            }
        };
        let Some(line) = self.lines.get_mut(&number) else { return };
        line.dialling = dialling;
        line.dial_at = None;
        line.rate = Rate::default();
        line.orders = Some(self.dialer.dial(self.clock.now(), report));
        for channel in line.channels.clone() {
            self.ask(&channel);
        }
    }

    /// Has a channel's line subscribe to it, where there is one.
    fn ask(&mut self, channel: &Channel) {
        let ticket = self.next_number();
        let Some(heard) = self.channels.get_mut(channel) else { return };
        let Some(orders) = self.lines.get(&heard.line).and_then(|line| line.orders.as_ref()) else { return };
        heard.stage = Stage::Asked { ticket };
        // A line that is lost takes no orders, and will say so.
        let _ = orders.send(Order::Join { channel: channel.clone(), ticket });
    }

    /// A line's channels are heard no longer.
    fn unask(&mut self, number: u64) {
        let Some(channels) = self.lines.get(&number).map(|line| line.channels.clone()) else { return };
        for channel in &channels {
            if let Some(heard) = self.channels.get_mut(channel) {
                heard.stage = Stage::Unasked;
            }
        }
        self.tell_all(&channels);
    }

    /// The line that a new channel goes to. It may not be there yet.
    fn line_with_room(&mut self) -> u64 {
        let room = self.lines.iter().find(|(_, line)| line.channels.len() < LINE_FILTERS).map(|(number, _)| *number);
        room.unwrap_or_else(|| self.next_number())
    }

    fn tell_all(&mut self, channels: &BTreeSet<Channel>) {
        let heard = channels.iter().filter_map(|channel| self.channels.get(channel));
        let listeners: BTreeSet<u64> = heard.flat_map(|heard| heard.listeners.iter().copied()).collect();
        self.tell(listeners);
    }

    /// Tells listeners whether they hear all their channels, where that has changed.
    fn tell(&mut self, listeners: impl IntoIterator<Item = u64>) {
        for feed in listeners {
            let Some(listener) = self.listeners.get_mut(&feed) else { continue };
            let is_heard = |channel: &Channel| {
                self.channels.get(channel).is_some_and(|heard| {
                    heard.stage == Stage::Joined && self.lines.get(&heard.line).is_some_and(|line| !line.rate.is_over())
                })
            };
            let joined = listener.channels.iter().all(is_heard);
            if joined != listener.joined {
                listener.joined = joined;
                listener.queue.put(if joined { LiveEvent::Joined } else { LiveEvent::Away });
            }
        }
    }

    const fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

/// Waits for a moment, or for ever where there is none.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// What the wait after so many failures is a random part of.
fn backoff(failures: u32) -> Duration {
    FIRST_BACKOFF.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST_BACKOFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::clock::SystemClock;
    use crate::config::{AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL_IOT_DATA_PLANE, AWS_REGION, AWS_SECRET_ACCESS_KEY, AwsConfig};
    use crate::live::address::Address;
    use carillon_core::mqtt::MqttPrefix;

    /// A hub whose lines lead nowhere, and the sender without which they would not report.
    fn hub() -> (Hub, mpsc::UnboundedSender<Command>, mpsc::UnboundedReceiver<Command>) {
        let environment = [
            (AWS_REGION, "us-east-1"),
            (AWS_ACCESS_KEY_ID, "id"),
            (AWS_SECRET_ACCESS_KEY, "key"),
            // Port 0 is nobody's.
            (AWS_ENDPOINT_URL_IOT_DATA_PLANE, "http://127.0.0.1:0"),
        ];
        let config = AwsConfig::from_environment(&environment.into_iter().collect()).expect("whole");
        let prefix = MqttPrefix::parse("dev").expect("a prefix");
        let dialer = Dialer::new(Address::new(&config).expect("an address"), config.authorities(), prefix);
        let (sender, commands) = mpsc::unbounded_channel();
        (Hub::new(dialer, Arc::new(SystemClock), sender.downgrade()), sender, commands)
    }

    fn channel() -> Channel {
        Channel::parse("orders/42").expect("a channel")
    }

    fn listen(hub: &mut Hub, feed: u64) -> Arc<Queue> {
        let queue = Arc::new(Queue::default());
        hub.obey(Command::Listen { feed, channels: [channel()].into(), queue: Arc::clone(&queue) });
        queue
    }

    /// The ticket of the channel's last SUBSCRIBE.
    fn ticket(hub: &Hub) -> u64 {
        let Stage::Asked { ticket } = hub.channels[&channel()].stage else { panic!("it is asked for") };
        ticket
    }

    fn report(hub: &mut Hub, event: Event) {
        let (number, line) = hub.lines.iter().next().expect("a line");
        let command = Command::Line { line: *number, dialling: line.dialling, event };
        hub.obey(command);
    }

    #[tokio::test]
    async fn a_denied_subscription_is_tried_again_after_a_minute() {
        let (mut hub, ..) = hub();
        let queue = listen(&mut hub, 1);
        let first = ticket(&hub);
        let before = Instant::now();
        report(&mut hub, Event::Denied { channel: channel(), ticket: first, reason: "NotAuthorized".to_owned() });
        hub.look_around(before + DENIED_BACKOFF - TICK);
        assert!(matches!(hub.channels[&channel()].stage, Stage::Denied { .. }));
        hub.look_around(Instant::now() + DENIED_BACKOFF);
        let second = ticket(&hub);
        assert_ne!(first, second);
        report(&mut hub, Event::Joined { channel: channel(), ticket: second });
        assert_eq!(queue.next().await, LiveEvent::Joined);
    }

    #[tokio::test]
    async fn an_answer_to_an_older_request_joins_nobody() {
        let (mut hub, ..) = hub();
        // Another listener keeps the line.
        let other = Channel::parse("other").expect("a channel");
        hub.obey(Command::Listen { feed: 1, channels: [other].into(), queue: Arc::default() });
        drop(listen(&mut hub, 2));
        let given_up = ticket(&hub);
        hub.obey(Command::Hush { feed: 2 });
        let queue = listen(&mut hub, 3);
        report(&mut hub, Event::Joined { channel: channel(), ticket: given_up });
        assert!(!hub.listeners[&3].joined, "the channel was left since");
        let current = ticket(&hub);
        report(&mut hub, Event::Joined { channel: channel(), ticket: current });
        assert_eq!(queue.next().await, LiveEvent::Joined);
    }

    #[tokio::test]
    async fn a_line_that_was_given_up_is_not_listened_to() {
        let (mut hub, ..) = hub();
        let queue = listen(&mut hub, 1);
        let ticket = ticket(&hub);
        report(&mut hub, Event::Joined { channel: channel(), ticket });
        assert_eq!(queue.next().await, LiveEvent::Joined);
        let (number, dialling) = hub.lines.iter().map(|(number, line)| (*number, line.dialling)).next().expect("a line");
        let older = Command::Line { line: number, dialling: dialling - 1, event: Event::Lost(LineError::Deaf) };
        hub.obey(older);
        assert!(hub.listeners[&1].joined);
        report(&mut hub, Event::Lost(LineError::Deaf));
        assert_eq!(queue.next().await, LiveEvent::Away);
        assert!(hub.lines[&number].dial_at.is_some());
    }

    #[tokio::test]
    async fn failures_are_counted_until_a_channel_has_joined() {
        let (mut hub, ..) = hub();
        drop(listen(&mut hub, 1));
        for failures in 1..=3 {
            report(&mut hub, Event::Lost(LineError::TooSlow));
            assert_eq!(hub.lines.values().map(|line| line.failures).collect::<Vec<_>>(), [failures]);
            hub.dial_due(Instant::now() + LONGEST_BACKOFF);
        }
        let ticket = ticket(&hub);
        report(&mut hub, Event::Joined { channel: channel(), ticket });
        assert_eq!(hub.lines.values().map(|line| line.failures).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn the_wait_doubles_up_to_its_limit() {
        let waits: Vec<u128> = (0..8).map(|failures| backoff(failures).as_millis()).collect();
        assert_eq!(waits, [250, 500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000]);
        assert_eq!(backoff(u32::MAX), LONGEST_BACKOFF);
    }
}
