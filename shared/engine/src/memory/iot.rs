//! IoT Core, in memory: what is published, what is retained, and who listens.

use super::Storm;
use crate::ports::{Answer, Feed, Live, LiveEvent, Mqtt};
use crate::rows::MqttOutcome;
use carillon_core::channel::Channel;
use carillon_core::position::Position;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// IoT Core, in memory. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryIot {
    broker: Arc<Mutex<Broker>>,
    storm: Option<(Storm, IotFaults)>,
}

/// How often IoT Core misbehaves: probabilities, of each publish and for each listener.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct IotFaults {
    /// A publish is not answered. Half of them land up to two seconds later, the others never.
    pub unanswered: f64,
    /// A publish is refused for the moment.
    pub away: f64,
    /// A listener does not get a message.
    pub lost: f64,
    /// A listener gets a message twice.
    pub repeated: f64,
    /// A listener gets a message up to half a second late, behind others.
    pub late: f64,
}

/// What a listener hears of a [`MemoryIot`].
pub struct MemoryFeed {
    events: mpsc::UnboundedReceiver<LiveEvent>,
}

#[derive(Default)]
struct Broker {
    away: bool,
    published: HashMap<Channel, Vec<(Position, Arc<str>)>>,
    retained: HashMap<Channel, Position>,
    listeners: Vec<Listener>,
}

struct Listener {
    channels: Vec<Channel>,
    events: mpsc::UnboundedSender<LiveEvent>,
}

impl MemoryIot {
    /// IoT Core in a storm.
    #[must_use]
    pub fn in_storm(storm: Storm, faults: IotFaults) -> Self {
        Self { storm: Some((storm, faults)), ..Self::default() }
    }

    /// Takes it away, or brings it back.
    pub fn set_away(&self, away: bool) {
        let mut broker = self.broker();
        broker.away = away;
        let event = if away { LiveEvent::Away } else { LiveEvent::Joined };
        broker.listeners.retain(|listener| listener.events.send(event.clone()).is_ok());
    }

    /// What was published on a channel, in the order in which it came, with the text of each message.
    #[must_use]
    pub fn published(&self, channel: &Channel) -> Vec<(Position, Arc<str>)> {
        self.broker().published.get(channel).cloned().unwrap_or_default()
    }

    /// The position of the message that is retained.
    #[must_use]
    pub fn retained(&self, channel: &Channel) -> Option<Position> {
        self.broker().retained.get(channel).copied()
    }

    /// How many listen.
    #[must_use]
    pub fn listeners(&self) -> usize {
        let mut broker = self.broker();
        broker.listeners.retain(|listener| !listener.events.is_closed());
        broker.listeners.len()
    }

    fn broker(&self) -> MutexGuard<'_, Broker> {
        self.broker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message lands, and goes to whoever listens.
    fn land(&self, channel: &Channel, position: Position, json: &Arc<str>, retain: bool) {
        let mut broker = self.broker();
        broker.published.entry(channel.clone()).or_default().push((position, Arc::clone(json)));
        if retain {
            broker.retained.insert(channel.clone(), position);
        }
        let event = LiveEvent::Message { channel: channel.clone(), position, json: Arc::clone(json) };
        for listener in broker.listeners.iter().filter(|listener| listener.channels.contains(channel)) {
            self.bring(listener, &event);
        }
    }

    fn bring(&self, listener: &Listener, event: &LiveEvent) {
        let Some((storm, faults)) = &self.storm else {
            let _ = listener.events.send(event.clone());
            return;
        };
        if storm.happens(faults.lost) {
            return;
        }
        let copies = if storm.happens(faults.repeated) { 2 } else { 1 };
        for _ in 0..copies {
            if storm.happens(faults.late) {
                let (events, event, wait) = (listener.events.clone(), event.clone(), storm.number(1..500));
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(wait)).await;
                    let _ = events.send(event);
                });
            } else {
                let _ = listener.events.send(event.clone());
            }
        }
    }
}

impl Mqtt for MemoryIot {
    async fn publish(&self, channel: &Channel, position: Position, json: &str, retain: bool) -> Answer<MqttOutcome> {
        let json: Arc<str> = Arc::from(json);
        if let Some((storm, faults)) = &self.storm {
            storm.latency().await;
            if storm.happens(faults.unanswered) {
                if storm.happens(0.5) {
                    let (iot, channel, wait) = (self.clone(), channel.clone(), storm.number(0..2_000));
                    tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_millis(wait)).await;
                        iot.land(&channel, position, &json, retain);
                    });
                }
                return Ok(MqttOutcome::Unknown);
            }
            if storm.happens(faults.away) {
                return Ok(MqttOutcome::Away);
            }
        }
        if self.broker().away {
            return Ok(MqttOutcome::Away);
        }
        self.land(channel, position, &json, retain);
        Ok(MqttOutcome::Taken)
    }
}

impl Live for MemoryIot {
    type Feed = MemoryFeed;

    fn listen(&self, channels: &[Channel]) -> MemoryFeed {
        let (sender, events) = mpsc::unbounded_channel();
        let mut broker = self.broker();
        if !broker.away {
            let _ = sender.send(LiveEvent::Joined);
        }
        broker.listeners.push(Listener { channels: channels.to_vec(), events: sender });
        MemoryFeed { events }
    }
}

impl Feed for MemoryFeed {
    async fn next(&mut self) -> LiveEvent {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }
}
