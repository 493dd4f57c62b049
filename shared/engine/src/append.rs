//! Appending to a channel's log: A2 to A5.

use crate::engine::{CONFLICT_JITTER, Engine, chain, is_due, life, unavailable};
use crate::ports::{Answer, Clock, Queue, Store};
use crate::rows::{AppendOutcome, Head, NewEntry, NewMessage, RotateOutcome, Rotation, Tail};
use carillon_core::channel::Channel;
use carillon_core::fault::{ErrorCode, Fault};
use carillon_core::limits::IDENTITY_SECONDS;
use carillon_core::namespace::NamespaceOptions;
use carillon_core::position::{Epoch, Position};
use carillon_core::time::{Millis, Seconds};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// How long a warm environment may go on from the last offset it knows, in milliseconds (A3).
///
/// It has to be well under [`ROTATE_WITHIN_SECONDS`]: so nobody writes into an epoch whose closing entry has expired.
const CACHED_MS: u64 = 60_000;

/// How long an append goes on at most, in milliseconds (A3).
const GIVE_UP_MS: u64 = 60_000;

/// How long before the invocation's deadline an append ends, in milliseconds (A3).
const BEFORE_DEADLINE_MS: u64 = 2_000;

/// Tries of one append (A5).
const TRIES: u32 = 12;

/// Offsets found taken in a row, after which the tail is read again (A5).
const TAKEN_BEFORE_READ: u32 = 3;

/// An epoch whose newest entry lives no longer than this, in seconds, is ended (A4).
const ROTATE_WITHIN_SECONDS: u64 = 3_600;

/// Channels whose last offset is kept; beyond it they are all read anew.
const CHANNELS_KEPT: usize = 10_000;

/// The last offsets that this process knows of.
#[derive(Default)]
pub(crate) struct AppendCache(Mutex<HashMap<Channel, Place>>);

/// Where the next entry of a channel goes.
#[derive(Clone, Copy, Debug)]
struct Place {
    epoch: Epoch,
    /// The last offset that is taken.
    last: u64,
    /// When the entry there expires.
    exp: Seconds,
    /// Whether the next entry is the first of its epoch.
    starts: bool,
    /// When this was read.
    at: Millis,
}

/// Where a message is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) position: Position,
    pub(crate) duplicate: bool,
}

impl<S: Store, Q: Queue, C: Clock> Engine<S, Q, C> {
    /// Appends the messages as one entry, those that the log already has under their identity excepted. At most 64 messages,
    /// no identity twice among them.
    ///
    /// # Errors
    /// `busy` when others kept taking the offset or the time ran out, `unavailable` when the store did not answer. What then
    /// became of the messages is unknown; to send them again under the same ids is safe.
    pub(crate) async fn append(
        &self,
        channel: &Channel,
        messages: Vec<NewMessage>,
        options: &NamespaceOptions,
        deadline: Option<Millis>,
    ) -> Result<Vec<Appended>, Fault> {
        let began = self.clock.now();
        let give_up = deadline
            .map_or(began.plus(GIVE_UP_MS), |end| Millis(end.0.saturating_sub(BEFORE_DEADLINE_MS)).min(began.plus(GIVE_UP_MS)));
        let attempt = self.random.name();
        let mut appended: Vec<Option<Appended>> = vec![None; messages.len()];
        let mut pending: Vec<(usize, NewMessage)> = messages.into_iter().enumerate().collect();
        let mut place = self.appends.kept(channel, began);
        let mut taken = 0;
        let mut failure = None;

        for _ in 0..TRIES {
            if self.clock.now() > give_up {
                break;
            }
            let at = match place {
                Some(at) => at,
                None => match self.locate(channel, options).await {
                    Ok(Some(at)) => at,
                    Ok(None) => {
                        self.random.jitter(CONFLICT_JITTER).await;
                        continue;
                    }
                    Err(error) => return Err(unavailable(error)),
                },
            };
            place = Some(at);
            let now = self.clock.now();
            let entry = NewEntry {
                channel: channel.clone(),
                epoch: at.epoch,
                first: at.last + 1,
                messages: pending.iter().map(|(_, message)| message.clone()).collect(),
                attempt: attempt.clone(),
                ts: now,
                // A2: taken just before the put, and never less than that of the entry before.
                exp: now.seconds().plus(options.log_seconds()).max(at.exp),
                markers_exp: now.seconds().plus(IDENTITY_SECONDS),
                starts: at.starts,
            };
            match self.store.append(&entry, now).await {
                Ok(AppendOutcome::Done) => {
                    for (number, (index, _)) in (entry.first..).zip(&pending) {
                        let position = Position::new(at.epoch, number);
                        appended[*index] = Some(Appended { position, duplicate: false });
                    }
                    let last = at.last + pending.len() as u64;
                    self.appends.keep(channel, Place { last, exp: entry.exp, starts: false, ..at });
                    return Ok(appended.into_iter().flatten().collect());
                }
                Ok(AppendOutcome::Duplicates(found)) => {
                    for (among, position) in &found {
                        let (index, _) = pending[*among];
                        appended[index] = Some(Appended { position: *position, duplicate: true });
                    }
                    pending.retain(|(index, _)| appended[*index].is_none());
                    if pending.is_empty() {
                        return Ok(appended.into_iter().flatten().collect());
                    }
                }
                Ok(AppendOutcome::Taken { next, exp, closing: false }) => {
                    taken += 1;
                    place = Some(Place { last: next - 1, exp: exp.max(at.exp), ..at });
                    if at.starts || taken % TAKEN_BEFORE_READ == 0 {
                        place = None;
                        self.random.jitter(CONFLICT_JITTER).await;
                    }
                }
                Ok(AppendOutcome::Taken { closing: true, .. } | AppendOutcome::HeadMoved) => place = None,
                Ok(AppendOutcome::Conflict) => self.random.jitter(CONFLICT_JITTER).await,
                Err(error) => {
                    // Whether it was written is unknown. The next try goes to the same offset under the same attempt, so it
                    // finds its own entry, or a foreign one that keeps this one out for good.
                    tracing::warn!(error.chain = chain(&error), channel.name = %channel, "an append was not answered");
                    failure = Some(error);
                    self.random.jitter(CONFLICT_JITTER).await;
                }
            }
            if place.is_none() {
                self.appends.forget(channel);
            }
        }
        self.appends.forget(channel);
        match failure {
            Some(error) => Err(unavailable(error)),
            None => {
                let fault = format!("channel: too many publish to {channel} at once; the same request may be sent again");
                Err(Fault::new(ErrorCode::Busy, fault).retry_after(1_000))
            }
        }
    }

    /// Where the next entry goes, after a rotation where one is due (A4). None: somebody else is changing it, look again.
    async fn locate(&self, channel: &Channel, options: &NamespaceOptions) -> Answer<Option<Place>> {
        let at = self.clock.now();
        let head = self.head_or_new(channel, options).await?;
        if !head.started {
            self.refresh_head(channel, &head, life(options, None, at), at).await?;
            return Ok(Some(Place { epoch: head.epoch, last: 0, exp: Seconds(0), starts: true, at }));
        }
        let tail = self.store.newest(channel, head.epoch, at).await?;
        match tail {
            Some(tail) if tail.closing => Ok(None),
            Some(tail) if tail.exp > at.seconds().plus(ROTATE_WITHIN_SECONDS) => {
                self.refresh_head(channel, &head, life(options, Some(tail.exp), at), at).await?;
                Ok(Some(Place { epoch: head.epoch, last: tail.last, exp: tail.exp, starts: false, at }))
            }
            run_out => {
                self.rotate(channel, &head, run_out, options).await?;
                Ok(None)
            }
        }
    }

    /// A channel's head, made unstarted where it is absent.
    pub(crate) async fn head_or_new(&self, channel: &Channel, options: &NamespaceOptions) -> Answer<Head> {
        let now = self.clock.now();
        match self.store.head(channel, now).await? {
            Some(head) => Ok(head),
            None => self.store.create_head(channel, life(options, None, now), now).await,
        }
    }

    /// Lets the head live until `wanted`, at most daily (T2).
    pub(crate) async fn refresh_head(&self, channel: &Channel, head: &Head, wanted: Seconds, now: Millis) -> Answer<()> {
        if is_due(head.exp, wanted) { self.store.extend_head(channel, wanted, now).await } else { Ok(()) }
    }

    /// Ends the head's epoch, whose newest entry is `tail` or gone, and begins the next one, unstarted (A4).
    pub(crate) async fn rotate(
        &self,
        channel: &Channel,
        head: &Head,
        tail: Option<Tail>,
        options: &NamespaceOptions,
    ) -> Answer<RotateOutcome> {
        let now = self.clock.now();
        let rotation = Rotation {
            channel: channel.clone(),
            from: head.epoch,
            to: Epoch::next(Some(head.epoch), now),
            last: tail.map(|tail| tail.last),
            closing_exp: tail.map_or(Seconds(0), |tail| tail.exp),
            head_exp: life(options, tail.map(|tail| tail.exp), now),
        };
        let outcome = self.store.rotate(&rotation, now).await?;
        if outcome == RotateOutcome::Done {
            tracing::info!(channel.name = %channel, epoch.from = %rotation.from, epoch.to = %rotation.to, "the channel's log starts anew");
        }
        Ok(outcome)
    }
}

impl AppendCache {
    fn kept(&self, channel: &Channel, now: Millis) -> Option<Place> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(channel).copied().filter(|place| now.since(place.at) <= CACHED_MS)
    }

    fn keep(&self, channel: &Channel, place: Place) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= CHANNELS_KEPT {
            kept.clear();
        }
        // Two appends may end in the other order: the higher offset is the one to go on from.
        let known = kept.entry(channel.clone()).or_insert(place);
        if (place.epoch, place.last) >= (known.epoch, known.last) {
            *known = place;
        }
    }

    fn forget(&self, channel: &Channel) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(channel);
    }
}
