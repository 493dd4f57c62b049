//! The client's rule: take only what continues the position, so that no repeat, hole or early frame reaches the subscriber
//! unnoticed (docs/delivery.md, "The client's rule").
//!
//! A [`Follower`] stands for one subscription to one channel. It does no I/O and has no clock: hand it every frame of the channel
//! and every acknowledgement, in the order in which they came, and take what it answers.

use carillon_core::position::{Epoch, Position};

/// Messages that are kept while the position is not known: the answer to a subscribe takes another way than the events.
///
/// What is over it is dropped and then missed, so the client subscribes again from its position and loses nothing. An answer
/// takes a fraction of a second; a thousand messages are 30 MB at their largest.
pub const EARLY_MESSAGES: usize = 1_024;

/// What a channel's frame carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<T> {
    /// Messages of one epoch, in the order of the frame.
    Events {
        /// The epoch of all of them.
        epoch: Epoch,
        /// The position that the first of a new epoch continues.
        prev: Option<Position>,
        /// Offset and event.
        messages: Vec<(u64, T)>,
    },
    /// The messages after `after`, up to and with `to`, cannot be delivered.
    Gap {
        /// The position that the gap continues.
        after: Position,
        /// Where it goes on from.
        to: Position,
    },
}

/// What became of a frame, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged<T> {
    /// A message that continues the position: it belongs to the subscriber.
    Message {
        /// Where it stands.
        position: Position,
        /// The event.
        event: T,
    },
    /// The server says that these messages cannot be delivered. It goes on after `to`.
    Gap {
        /// The last position before the gap.
        after: Position,
        /// The position after it.
        to: Position,
    },
    /// The position handed in could not be continued: what lies between the two is lost to this subscription.
    Unrecovered {
        /// The position handed in.
        since: Position,
        /// The position that holds now.
        position: Position,
    },
    /// A message that was there before. It was dropped.
    Repeat {
        /// Where it stands.
        position: Position,
    },
    /// Messages between `position` and `found` have not come, and no gap says why. What was found was dropped: subscribe again
    /// with [`Follower::resume`], and the server sends both. Told once, until the follower has caught up.
    Hole {
        /// The last position that was taken.
        position: Position,
        /// What came instead of the one after it.
        found: Position,
    },
}

/// One subscription to one channel.
#[derive(Clone, Debug)]
pub struct Follower<T> {
    stage: Stage<T>,
    /// The furthest position that was seen and dropped since the last subscribe.
    missed: Option<Position>,
}

#[derive(Clone, Debug)]
enum Stage<T> {
    /// A subscribe is under way: frames are kept until its answer says from where they count.
    Waiting { since: Option<Position>, early: Vec<Frame<T>>, messages: usize },
    /// Everything up to the position was taken.
    Following(Position),
}

impl<T> Follower<T> {
    /// A subscription whose subscribe is under way, from `since` where the subscriber has a position.
    #[must_use]
    pub const fn new(since: Option<Position>) -> Self {
        Self { stage: Stage::Waiting { since, early: Vec::new(), messages: 0 }, missed: None }
    }

    /// The last position taken, or the one handed in; none before the first acknowledgement of a subscription without one.
    #[must_use]
    pub const fn position(&self) -> Option<Position> {
        match &self.stage {
            Stage::Waiting { since, .. } => *since,
            Stage::Following(position) => Some(*position),
        }
    }

    /// Whether the subscribe's answer is still to come.
    #[must_use]
    pub const fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Waiting { .. })
    }

    /// Whether messages are known to be missing: the client must subscribe again with [`Follower::resume`].
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.missed.is_some_and(|missed| Some(missed) > self.position())
    }

    /// Begins a new subscribe, on this connection or on the next one, and answers with the `since` to send. Frames are kept from
    /// now on; those kept before belong to the subscribe before and are dropped, for the server sends them again.
    pub fn resume(&mut self) -> Option<Position> {
        let since = self.position();
        *self = Self::new(since);
        since
    }

    /// Takes the answer to a subscribe and judges the frames that came before it. `recovered` as in the answer: absent where
    /// the subscribe had no `since`.
    pub fn acknowledge(&mut self, acknowledged: Position, recovered: Option<bool>) -> Vec<Judged<T>> {
        let Stage::Waiting { since, early, .. } = &mut self.stage else {
            return Vec::new();
        };
        let lost = since.filter(|_| recovered == Some(false));
        let early = std::mem::take(early);
        self.stage = Stage::Following(acknowledged);
        let dropped = self.missed.take();
        let mut judged = Vec::from_iter(lost.map(|since| Judged::Unrecovered { since, position: acknowledged }));
        for frame in early {
            judged.extend(self.frame(frame));
        }
        if let (Stage::Following(position), Some(found)) = (&self.stage, dropped.filter(|found| Some(*found) > self.position())) {
            miss(*position, found, &mut self.missed, &mut judged);
        }
        judged
    }

    /// Takes a frame of the channel: keeps it while the answer is to come, else judges it.
    pub fn frame(&mut self, frame: Frame<T>) -> Vec<Judged<T>> {
        match &mut self.stage {
            Stage::Waiting { early, messages, .. } => {
                let size = frame.size();
                if *messages + size > EARLY_MESSAGES {
                    self.missed = self.missed.max(frame.last());
                } else {
                    *messages += size;
                    early.push(frame);
                }
                Vec::new()
            }
            Stage::Following(position) => judge(position, &mut self.missed, frame),
        }
    }
}

fn judge<T>(position: &mut Position, missed: &mut Option<Position>, frame: Frame<T>) -> Vec<Judged<T>> {
    let mut judged = Vec::new();
    match frame {
        Frame::Events { epoch, prev, messages } => {
            for (offset, event) in messages {
                let found = Position::new(epoch, offset);
                if found <= *position {
                    judged.push(Judged::Repeat { position: found });
                } else if continues(*position, found, prev) {
                    *position = found;
                    judged.push(Judged::Message { position: found, event });
                } else {
                    miss(*position, found, missed, &mut judged);
                }
            }
        }
        Frame::Gap { to, .. } if to <= *position => judged.push(Judged::Repeat { position: to }),
        Frame::Gap { after, to } if after <= *position => {
            let after = std::mem::replace(position, to).max(after);
            judged.push(Judged::Gap { after, to });
        }
        Frame::Gap { to, .. } => miss(*position, to, missed, &mut judged),
    }
    judged
}

fn miss<T>(position: Position, found: Position, missed: &mut Option<Position>, judged: &mut Vec<Judged<T>>) {
    // One that is behind already was told.
    if *missed <= Some(position) {
        judged.push(Judged::Hole { position, found });
    }
    *missed = (*missed).max(Some(found));
}

impl<T> Frame<T> {
    /// What the frame counts towards [`EARLY_MESSAGES`]; a gap counts as one message.
    fn size(&self) -> usize {
        match self {
            Self::Events { messages, .. } => messages.len(),
            Self::Gap { .. } => 1,
        }
    }

    fn last(&self) -> Option<Position> {
        match self {
            Self::Events { epoch, messages, .. } => messages.iter().map(|(offset, _)| Position::new(*epoch, *offset)).max(),
            Self::Gap { to, .. } => Some(*to),
        }
    }
}

/// Whether the message at `found` is the one after `position`.
fn continues(position: Position, found: Position, prev: Option<Position>) -> bool {
    if found.epoch == position.epoch { found.offset == position.offset + 1 } else { found.offset == 1 && prev == Some(position) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::Index;

    const EPOCH: Epoch = Epoch(1_000);
    const NEXT: Epoch = Epoch(2_000);

    fn at(offset: u64) -> Position {
        Position::new(EPOCH, offset)
    }

    /// The event of a position says where it belongs.
    fn events(epoch: Epoch, prev: Option<Position>, offsets: impl IntoIterator<Item = u64>) -> Frame<Position> {
        let messages = offsets.into_iter().map(|offset| (offset, Position::new(epoch, offset))).collect();
        Frame::Events { epoch, prev, messages }
    }

    fn message(position: Position) -> Judged<Position> {
        Judged::Message { position, event: position }
    }

    fn following(position: Position) -> Follower<Position> {
        let mut follower = Follower::new(None);
        assert_eq!(follower.acknowledge(position, None), []);
        follower
    }

    #[test]
    fn what_continues_is_taken_and_repeats_are_dropped() {
        let mut follower = following(at(4));
        assert_eq!(follower.frame(events(EPOCH, None, [5, 6])), [message(at(5)), message(at(6))]);
        assert_eq!(follower.frame(events(EPOCH, None, [6, 7])), [Judged::Repeat { position: at(6) }, message(at(7))]);
        assert_eq!(follower.position(), Some(at(7)));
    }

    #[test]
    fn frames_before_the_answer_are_judged_by_the_acknowledged_position() {
        let mut follower = Follower::new(None);
        assert_eq!(follower.frame(events(EPOCH, None, [5, 6])), []);
        assert_eq!(follower.frame(events(EPOCH, None, [7])), []);
        let judged = follower.acknowledge(at(5), None);
        assert_eq!(judged, [Judged::Repeat { position: at(5) }, message(at(6)), message(at(7))]);
    }

    #[test]
    fn a_hole_is_told_once_and_closed_by_a_resume() {
        let mut follower = following(at(4));
        assert_eq!(follower.frame(events(EPOCH, None, [6])), [Judged::Hole { position: at(4), found: at(6) }]);
        assert_eq!(follower.frame(events(EPOCH, None, [7])), []);
        assert!(follower.is_behind());
        assert_eq!(follower.resume(), Some(at(4)));
        assert_eq!(follower.frame(events(EPOCH, None, [5, 6])), []);
        assert_eq!(follower.acknowledge(at(4), Some(true)), [message(at(5)), message(at(6))]);
        assert!(!follower.is_behind());
        assert_eq!(follower.frame(events(EPOCH, None, [7])), [message(at(7))]);
    }

    #[test]
    fn what_was_missing_may_still_come() {
        let mut follower = following(at(4));
        assert_eq!(follower.frame(events(EPOCH, None, [6])).len(), 1);
        assert_eq!(follower.frame(events(EPOCH, None, [5, 6])), [message(at(5)), message(at(6))]);
        assert!(!follower.is_behind());
    }

    #[test]
    fn a_new_epoch_continues_only_the_position_that_it_names() {
        let mut follower = following(at(4));
        assert_eq!(follower.frame(events(NEXT, Some(at(4)), [1, 2])).len(), 2);
        assert_eq!(follower.position(), Some(Position::new(NEXT, 2)));
        assert_eq!(follower.frame(events(EPOCH, None, [5])), [Judged::Repeat { position: at(5) }]);

        for prev in [None, Some(at(5)), Some(at(3))] {
            let mut follower = following(at(4));
            let found = Position::new(NEXT, 1);
            assert_eq!(follower.frame(events(NEXT, prev, [1])), [Judged::Hole { position: at(4), found }], "{prev:?}");
        }
        let mut follower = following(at(4));
        assert_eq!(follower.frame(events(NEXT, Some(at(4)), [2])).len(), 1, "the first of the epoch is missing");
        assert!(follower.is_behind());
    }

    #[test]
    fn a_gap_moves_the_position_only_where_it_begins_at_or_before_it() {
        let mut follower = following(at(4));
        let to = Position::new(NEXT, 8);
        assert_eq!(follower.frame(Frame::Gap { after: at(4), to }), [Judged::Gap { after: at(4), to }]);
        assert_eq!(follower.frame(events(NEXT, None, [9])), [message(Position::new(NEXT, 9))]);
        assert_eq!(follower.frame(Frame::Gap { after: at(4), to }), [Judged::Repeat { position: to }]);

        let mut follower = following(at(4));
        assert_eq!(follower.frame(Frame::Gap { after: at(2), to: at(6) }), [Judged::Gap { after: at(4), to: at(6) }]);

        let mut follower = following(at(4));
        let judged = follower.frame(Frame::Gap { after: at(5), to: at(6) });
        assert_eq!(judged, [Judged::Hole { position: at(4), found: at(6) }]);
        assert_eq!(follower.position(), Some(at(4)));
    }

    #[test]
    fn a_position_that_could_not_be_continued_is_told() {
        let mut follower = Follower::new(Some(at(4)));
        let position = Position::new(NEXT, 3);
        assert_eq!(follower.frame(events(NEXT, None, [4])), []);
        let judged = follower.acknowledge(position, Some(false));
        assert_eq!(judged, [Judged::Unrecovered { since: at(4), position }, message(Position::new(NEXT, 4))]);
    }

    #[test]
    fn more_early_messages_than_are_kept_are_asked_for_again() {
        let limit = EARLY_MESSAGES as u64;
        let mut follower = Follower::new(None);
        for offset in 1..=limit + 1 {
            assert_eq!(follower.frame(events(EPOCH, None, [offset])), []);
        }
        let judged = follower.acknowledge(at(0), None);
        assert_eq!(judged.len(), EARLY_MESSAGES + 1);
        assert_eq!(judged.last(), Some(&Judged::Hole { position: at(limit), found: at(limit + 1) }));
        assert_eq!(follower.resume(), Some(at(limit)));
        assert_eq!(follower.frame(events(EPOCH, None, [limit + 1])), []);
        assert_eq!(follower.acknowledge(at(limit), Some(true)), [message(at(limit + 1))]);
    }

    /// What a channel's log may hold: epochs of some length, one after the other.
    fn logs() -> impl Strategy<Value = Vec<Position>> {
        prop::collection::vec(1..12_u64, 1..4).prop_map(|lengths| {
            let epochs = (1..).map(|number| Epoch(number * 1_000));
            epochs.zip(lengths).flat_map(|(epoch, length)| (1..=length).map(move |offset| Position::new(epoch, offset))).collect()
        })
    }

    /// The frames that deliver `log`, cut after the given lengths; a frame never spans epochs, and the first of an epoch names
    /// the position before it.
    fn frames(log: &[Position], before: Option<Position>, cuts: &[usize]) -> Vec<Frame<Position>> {
        let mut frames = Vec::new();
        let mut previous = before;
        let mut cuts = cuts.iter().cycle();
        for epoch in log.chunk_by(|one, other| one.epoch == other.epoch) {
            let mut rest = epoch;
            while !rest.is_empty() {
                let (now, later) = rest.split_at((*cuts.next().unwrap_or(&1)).clamp(1, rest.len()));
                let prev = previous.filter(|previous| previous.epoch != now[0].epoch);
                frames.push(events(now[0].epoch, prev, now.iter().map(|position| position.offset)));
                previous = now.last().copied();
                rest = later;
            }
        }
        frames
    }

    /// Where a subscriber stands who has the first `taken` messages.
    fn standing(log: &[Position], taken: usize) -> Position {
        taken.checked_sub(1).map_or(Position::new(log[0].epoch, 0), |index| log[index])
    }

    fn taken(judged: &[Judged<Position>]) -> impl Iterator<Item = Position> {
        judged.iter().filter_map(|item| match item {
            Judged::Message { position, event } => {
                assert_eq!(position, event, "a message got another's position");
                Some(*position)
            }
            _ => None,
        })
    }

    proptest! {
        /// What the server promises: everything in order, with repeats of what it sent before, and any part of it before the answer.
        #[test]
        fn whatever_comes_in_order_is_taken_once_and_without_a_hole(
            log in logs(),
            start in any::<Index>(),
            early in any::<Index>(),
            cuts in prop::collection::vec(1..5_usize, 1..8),
            repeats in prop::collection::vec((any::<Index>(), any::<Index>()), 0..6),
        ) {
            let start = start.index(log.len() + 1);
            let acknowledged = standing(&log, start);
            // The server may begin before the acknowledged position (S3: from = H0, acknowledged L).
            let mut sent = frames(&log, None, &cuts);
            for (from, to) in &repeats {
                let to = to.index(sent.len());
                let from = from.index(to + 1);
                let again = sent[from..=to].to_vec();
                sent.splice(to + 1..to + 1, again);
            }
            let early = early.index(sent.len() + 1);
            let mut follower = Follower::new(None);
            let mut judged = Vec::new();
            for (index, frame) in sent.into_iter().enumerate() {
                if index == early {
                    judged.extend(follower.acknowledge(acknowledged, None));
                }
                judged.extend(follower.frame(frame));
            }
            if follower.is_waiting() {
                judged.extend(follower.acknowledge(acknowledged, None));
            }
            // Frames before the acknowledged position may belong to epochs that the server would not send; they are repeats.
            prop_assert_eq!(taken(&judged).collect::<Vec<_>>(), &log[start..]);
            prop_assert!(!judged.iter().any(|item| matches!(item, Judged::Hole { .. })), "{:?}", judged);
        }

        /// What nobody promises: frames lost, repeated and out of order, connections cut. The client subscribes again wherever
        /// the follower is behind, and at last everything has come once and in order.
        #[test]
        fn a_follower_that_resumes_when_behind_gets_everything_once_and_in_order(
            log in logs(),
            start in any::<Index>(),
            rounds in prop::collection::vec(
                (
                    prop::collection::vec(any::<Index>(), 0..24),
                    prop::collection::vec(1..5_usize, 1..4),
                    any::<Index>(),
                    any::<bool>(),
                ),
                0..6,
            ),
        ) {
            let start = start.index(log.len() + 1);
            let mut follower = Follower::new(None);
            let mut judged = follower.acknowledge(standing(&log, start), None);
            for (picks, cuts, answer, cut) in rounds {
                let sent = frames(&log, None, &cuts);
                if cut || follower.is_behind() {
                    let since = follower.resume();
                    let answer = answer.index(picks.len() + 1);
                    for (index, pick) in picks.iter().enumerate() {
                        if index == answer {
                            judged.extend(follower.acknowledge(since.expect("it was acknowledged"), Some(true)));
                        }
                        judged.extend(follower.frame(pick.get(&sent).clone()));
                    }
                    if follower.is_waiting() {
                        judged.extend(follower.acknowledge(since.expect("it was acknowledged"), Some(true)));
                    }
                } else {
                    for pick in &picks {
                        judged.extend(follower.frame(pick.get(&sent).clone()));
                    }
                }
            }
            // The last subscribe meets a server that keeps the promise.
            let since = follower.resume().expect("it was acknowledged");
            let done = log.iter().filter(|position| **position <= since).count();
            judged.extend(follower.acknowledge(since, Some(true)));
            for frame in frames(&log[done..], Some(since), &[3]) {
                judged.extend(follower.frame(frame));
            }
            prop_assert_eq!(taken(&judged).collect::<Vec<_>>(), &log[start..]);
            prop_assert!(!follower.is_behind());
        }

        /// Messages and gaps together cover the log: nothing is in both, nothing in none.
        #[test]
        fn messages_and_gaps_cover_the_log(
            log in logs(),
            gaps in prop::collection::vec(any::<bool>(), 1..12),
            cuts in prop::collection::vec(1..5_usize, 1..8),
        ) {
            let mut follower = following(standing(&log, 0));
            let mut before = standing(&log, 0);
            let mut expected = Vec::new();
            for (frame, gap) in frames(&log, None, &cuts).into_iter().zip(gaps.iter().cycle()) {
                let to = frame.last().expect("no frame is empty");
                if *gap {
                    prop_assert_eq!(follower.frame(Frame::Gap { after: before, to }), [Judged::Gap { after: before, to }]);
                } else {
                    expected.extend(log.iter().filter(|position| **position > before && **position <= to));
                    let judged = follower.frame(frame);
                    let found: Vec<_> = taken(&judged).collect();
                    prop_assert_eq!(&found, &expected[expected.len() - found.len()..]);
                    prop_assert_eq!(found.len(), judged.len());
                }
                before = to;
            }
            prop_assert_eq!(follower.position(), Some(before));
        }
    }
}
