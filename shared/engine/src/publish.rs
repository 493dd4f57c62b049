//! Events in: append, then wake. An event is acknowledged when its wake-ups are sent.

use crate::append::Appended;
use crate::engine::{Engine, unavailable};
use crate::ports::{Clock, Queue, Store};
use crate::rows::{NewMessage, ShardKey};
use crate::wakeup::Wakeup;
use carillon_core::channel::Channel;
use carillon_core::event::{Event, EventJson, Identity};
use carillon_core::fault::Fault;
use carillon_core::limits::{ENTRY_BYTES, ENTRY_MESSAGES};
use carillon_core::position::Position;
use carillon_core::time::Millis;
use futures_util::stream::{self, StreamExt};
use std::collections::HashMap;
use std::time::Duration;

/// Channels of one call that are appended to at the same time.
const PARALLEL_CHANNELS: usize = 16;

/// Where an event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its channel.
    pub channel: Channel,
    /// Its position; that of the first time, where it is a duplicate.
    pub position: Position,
    /// Whether the log had it already under the same source and id.
    pub duplicate: bool,
}

/// What became of one event of a call.
type Fate = Result<Published, Fault>;

/// The events of one call on one channel, each with its place among all events of the call.
struct Group {
    channel: Channel,
    messages: Vec<(usize, NewMessage)>,
}

impl<S: Store, Q: Queue, C: Clock> Engine<S, Q, C> {
    /// Publishes events and answers for each, in their order. Events of one channel keep their order in the log: after one that
    /// failed, those behind it are not appended and fail alike.
    ///
    /// `deadline` is when the invocation ends, where that is known.
    ///
    /// # Errors
    /// For each event on its own: `too_large`, `bad_request`, `busy`, `unavailable`. After the last two the event may be in the
    /// log all the same, and to publish it again under the same id is safe.
    pub async fn publish(&self, events: Vec<Event>, deadline: Option<Millis>) -> Vec<Fate> {
        let mut fates: Vec<Option<Fate>> = vec![None; events.len()];
        let groups = self.group(events, &mut fates).await;
        let done: Vec<_> = stream::iter(groups)
            .map(|group| self.publish_group(group, deadline))
            .buffer_unordered(PARALLEL_CHANNELS)
            .collect()
            .await;
        let wakeups: Vec<Wakeup> = done.iter().flat_map(|(_, wakeups)| wakeups.iter().cloned()).collect();
        // I11: nobody listens and MQTT is off, no call.
        let sent = if wakeups.is_empty() { Ok(()) } else { self.queue.send(&wakeups, Duration::ZERO).await.map_err(unavailable) };
        for (group, wakeups) in done {
            for (index, fate) in group {
                let woken = if wakeups.is_empty() { Ok(()) } else { sent.clone() };
                fates[index] = Some(fate.and_then(|published| woken.map(|()| published)));
            }
        }
        fates.into_iter().map(|fate| fate.unwrap_or_else(|| Err(Fault::internal()))).collect()
    }

    /// Encodes the events and sorts them by channel; what cannot be encoded gets its fate at once.
    async fn group(&self, events: Vec<Event>, fates: &mut [Option<Fate>]) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        let mut places: HashMap<Channel, usize> = HashMap::new();
        // Channels with an event that is to be published again: what comes behind it has to wait for it.
        let mut waiting: HashMap<Channel, Fault> = HashMap::new();
        for (index, event) in events.into_iter().enumerate() {
            if let Some(fault) = waiting.get(&event.channel) {
                fates[index] = Some(Err(fault.clone()));
                continue;
            }
            match self.encode(&event).await {
                Err(fault) => {
                    if fault.code.retry() {
                        waiting.insert(event.channel, fault.clone());
                    }
                    fates[index] = Some(Err(fault));
                }
                Ok(message) => {
                    let place = *places.entry(event.channel.clone()).or_insert_with(|| {
                        groups.push(Group { channel: event.channel.clone(), messages: Vec::new() });
                        groups.len() - 1
                    });
                    groups[place].messages.push((index, message));
                }
            }
        }
        groups
    }

    async fn encode(&self, event: &Event) -> Result<NewMessage, Fault> {
        event.check()?;
        let options = self.options(&event.channel.namespace()).await.map_err(unavailable)?;
        let json = carillon_wire::cloudevents::encode(event);
        let limit = usize::try_from(options.max_event_bytes).unwrap_or(usize::MAX);
        Ok(NewMessage { event: EventJson::try_new(json, limit)?, identity: event.identity.clone() })
    }

    /// Appends one channel's events, then reads who listens (P1).
    async fn publish_group(&self, group: Group, deadline: Option<Millis>) -> (Vec<(usize, Fate)>, Vec<Wakeup>) {
        let Group { channel, messages } = group;
        let options = match self.options(&channel.namespace()).await {
            Ok(options) => options,
            Err(error) => return (all_fail(messages.iter().map(|(index, _)| *index), &unavailable(error)), Vec::new()),
        };
        let mut fates = Vec::with_capacity(messages.len());
        let mut failed: Option<Fault> = None;
        for entry in entries(messages) {
            let indexes: Vec<usize> = entry.firsts.iter().map(|(index, _)| *index).collect();
            if let Some(fault) = &failed {
                fates.extend(all_fail(indexes.into_iter().chain(entry.repeats.iter().map(|(index, _)| *index)), fault));
                continue;
            }
            let messages = entry.firsts.into_iter().map(|(_, message)| message).collect();
            match self.append(&channel, messages, &options, deadline).await {
                Ok(appended) => {
                    for (index, of) in entry.repeats {
                        fates.push((index, Ok(published(&channel, Appended { duplicate: true, ..appended[of] }))));
                    }
                    fates.extend(indexes.into_iter().zip(appended.into_iter().map(|place| Ok(published(&channel, place)))));
                }
                Err(fault) => {
                    fates.extend(all_fail(indexes.into_iter().chain(entry.repeats.iter().map(|(index, _)| *index)), &fault));
                    failed = Some(fault);
                }
            }
        }
        if fates.iter().all(|(_, fate)| fate.is_err()) {
            return (fates, Vec::new());
        }
        // P1: after the append, strongly, never from a cache. This read is the barrier. A duplicate wakes again: the publisher
        // that was first may have died between its append and its wake-ups.
        match self.store.head(&channel, self.clock.now()).await {
            Ok(head) => {
                let listed = head.map(|head| head.listed).unwrap_or_default();
                let shards = listed.into_iter().map(|shard| ShardKey::new(&channel, shard));
                // P2: MQTT is a shard too, and who listens there only IoT Core knows.
                let mqtt = options.mqtt.then(|| ShardKey::mqtt(&channel));
                let wakeups = shards.chain(mqtt).map(Wakeup::wake).collect();
                (fates, wakeups)
            }
            Err(error) => (all_fail(fates.iter().map(|(index, _)| *index), &unavailable(error)), Vec::new()),
        }
    }
}

/// What goes into one log entry.
#[derive(Default)]
struct Entry {
    /// The messages, no identity twice.
    firsts: Vec<(usize, NewMessage)>,
    /// Messages under the identity of one of `firsts`, which is given by its place there.
    repeats: Vec<(usize, usize)>,
    bytes: usize,
}

/// Cuts a channel's messages into entries of at most 64 messages and 64 KB.
fn entries(messages: Vec<(usize, NewMessage)>) -> Vec<Entry> {
    let mut done = Vec::new();
    let mut entry = Entry::default();
    let mut identities: HashMap<Identity, usize> = HashMap::new();
    for (index, message) in messages {
        if let Some(of) = message.identity.as_ref().and_then(|identity| identities.get(identity)) {
            entry.repeats.push((index, *of));
            continue;
        }
        let bytes = message.event.bytes() + 1;
        if entry.firsts.len() == ENTRY_MESSAGES || !entry.firsts.is_empty() && entry.bytes + bytes > ENTRY_BYTES {
            done.push(std::mem::take(&mut entry));
            // A repeat of a message in an entry before is found by its marker in the log.
            identities.clear();
        }
        if let Some(identity) = &message.identity {
            identities.insert(identity.clone(), entry.firsts.len());
        }
        entry.bytes += bytes;
        entry.firsts.push((index, message));
    }
    done.push(entry);
    done
}

fn published(channel: &Channel, appended: Appended) -> Published {
    Published { channel: channel.clone(), position: appended.position, duplicate: appended.duplicate }
}

fn all_fail(indexes: impl IntoIterator<Item = usize>, fault: &Fault) -> Vec<(usize, Fate)> {
    indexes.into_iter().map(|index| (index, Err(fault.clone()))).collect()
}
