//! What a subscriber over MQTT makes of the positions that come: which message is new, which came again, and which are missing.
//!
//! A broker may repeat messages and change their order (AWS IoT Core Developer Guide, "MQTT"), nothing can be asked for again, and no
//! position is acknowledged. So the first position that comes is where the subscriber stands; a message that comes late is taken
//! all the same; and only what was taken before is a repeat. An [`Order`] stands for one channel. It does no I/O and has no clock.

use carillon_core::position::{Epoch, Position};
use std::collections::VecDeque;
use std::ops::RangeInclusive;

/// Runs of missing messages that are remembered in an epoch. Where there are more, the oldest is given up: what still comes of it
/// counts as a repeat.
pub const HOLES: usize = 256;

/// Epochs whose messages are told apart. A log that starts anew does so after more than a day without a message, so what comes of an
/// epoch before these is a repeat.
const EPOCHS: usize = 2;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is the furthest so far. With `missed` it is not the one after that position: what lies between has not come.
    New {
        /// The position before the missing messages.
        missed: Option<Position>,
    },
    /// It was missing until now.
    Late,
    /// It was there before.
    Repeat,
}

/// One channel's positions so far.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// The latest last.
    epochs: VecDeque<Seen>,
}

/// What came of an epoch: everything from the first that came up to `last`, but for the holes.
#[derive(Clone, Debug)]
struct Seen {
    epoch: Epoch,
    last: u64,
    holes: VecDeque<RangeInclusive<u64>>,
}

impl Order {
    /// The furthest position that came.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.epochs.back().map(|seen| Position::new(seen.epoch, seen.last))
    }

    /// Takes the position of a message.
    pub fn take(&mut self, found: Position) -> Taken {
        let Some(latest) = self.position() else {
            self.epochs.push_back(Seen::beginning(found, found.offset));
            return Taken::New { missed: None };
        };
        if found.epoch > latest.epoch {
            // An epoch begins with 1, so what comes before `found` in it is missing.
            self.epochs.push_back(Seen::beginning(found, 1));
            if self.epochs.len() > EPOCHS {
                self.epochs.pop_front();
            }
            return Taken::New { missed: (found.offset > 1).then_some(latest) };
        }
        match self.epochs.iter_mut().find(|seen| seen.epoch == found.epoch) {
            None => Taken::Repeat,
            Some(seen) => match seen.take(found.offset) {
                // Of an earlier epoch it is not the furthest.
                Taken::New { .. } if found.epoch < latest.epoch => Taken::Late,
                taken => taken,
            },
        }
    }
}

impl Seen {
    /// An epoch of which `first` came first, and whose messages from `from` on are wanted.
    fn beginning(first: Position, from: u64) -> Self {
        let Position { epoch, offset } = first;
        let hole = (from < offset).then(|| from..=offset - 1);
        Self { epoch, last: offset, holes: VecDeque::from_iter(hole) }
    }

    fn take(&mut self, offset: u64) -> Taken {
        if offset > self.last {
            let before = std::mem::replace(&mut self.last, offset);
            if offset == before + 1 {
                return Taken::New { missed: None };
            }
            self.remember(before + 1..=offset - 1);
            return Taken::New { missed: Some(Position::new(self.epoch, before)) };
        }
        let Some(index) = self.holes.iter().position(|hole| hole.contains(&offset)) else {
            return Taken::Repeat;
        };
        let (start, end) = self.holes.remove(index).unwrap_or(offset..=offset).into_inner();
        if offset < end {
            self.holes.insert(index, offset + 1..=end);
        }
        if start < offset {
            self.holes.insert(index, start..=offset - 1);
        }
        self.limit();
        Taken::Late
    }

    fn remember(&mut self, hole: RangeInclusive<u64>) {
        self.holes.push_back(hole);
        self.limit();
    }

    fn limit(&mut self) {
        if self.holes.len() > HOLES {
            self.holes.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const NEW: Taken = Taken::New { missed: None };

    fn at(epoch: u64, offset: u64) -> Position {
        Position::new(Epoch(epoch), offset)
    }

    #[track_caller]
    fn check(positions: &[((u64, u64), Taken)]) {
        let mut order = Order::default();
        for ((epoch, offset), expected) in positions {
            assert_eq!(order.take(at(*epoch, *offset)), *expected, "{epoch}-{offset}");
        }
    }

    #[test]
    fn whatever_comes_first_is_where_the_subscriber_stands() {
        check(&[((7, 41), NEW), ((7, 42), NEW), ((7, 40), Taken::Repeat), ((6, 1), Taken::Repeat)]);
    }

    #[test]
    fn what_is_missing_is_told_once_and_taken_when_it_comes() {
        let missed = Taken::New { missed: Some(at(7, 1)) };
        check(&[
            ((7, 1), NEW),
            ((7, 5), missed),
            ((7, 6), NEW),
            ((7, 3), Taken::Late),
            ((7, 3), Taken::Repeat),
            ((7, 2), Taken::Late),
            ((7, 4), Taken::Late),
            ((7, 4), Taken::Repeat),
            ((7, 5), Taken::Repeat),
            ((7, 7), NEW),
        ]);
    }

    #[test]
    fn a_new_epoch_begins_with_its_first_message_and_the_one_before_may_still_end() {
        check(&[
            ((7, 1), NEW),
            ((8, 1), NEW),
            ((7, 1), Taken::Repeat),
            ((7, 2), Taken::Late),
            ((7, 2), Taken::Repeat),
            ((8, 2), NEW),
        ]);
        let missed = Taken::New { missed: Some(at(7, 1)) };
        check(&[((7, 1), NEW), ((8, 3), missed), ((8, 2), Taken::Late), ((8, 1), Taken::Late), ((8, 2), Taken::Repeat)]);
        check(&[((7, 1), NEW), ((8, 1), NEW), ((9, 1), NEW), ((7, 2), Taken::Repeat), ((8, 2), Taken::Late)]);
    }

    #[test]
    fn holes_are_limited() {
        let mut order = Order::default();
        let count = HOLES as u64 + 10;
        for number in 0..=count {
            order.take(at(1, 1 + 2 * number));
        }
        assert_eq!(order.take(at(1, 2)), Taken::Repeat, "given up");
        assert_eq!(order.take(at(1, 2 * count)), Taken::Late);
        let held: usize = order.epochs.iter().map(|seen| seen.holes.len()).sum();
        assert!(held <= HOLES, "{held}");
    }

    proptest! {
        /// In whatever order and however often messages come: each is handed over once, and told missing only if it was not there.
        #[test]
        fn each_message_is_taken_once_in_any_order(
            positions in prop::collection::vec((1..3_u64, 1..40_u64), 1..120),
        ) {
            let mut order = Order::default();
            let mut taken = BTreeSet::new();
            let mut furthest: Option<Position> = None;
            let first = at(positions[0].0, positions[0].1);
            for (epoch, offset) in positions {
                let found = at(epoch, offset);
                let verdict = order.take(found);
                match verdict {
                    Taken::Repeat => prop_assert!(taken.contains(&found) || found < first, "{found} was never taken"),
                    _ => prop_assert!(taken.insert(found), "{found} was taken twice"),
                }
                if let Taken::New { missed } = verdict {
                    prop_assert!(furthest.is_none_or(|furthest| furthest < found));
                    let next = furthest.is_none_or(|before| {
                        if before.epoch == found.epoch { before.offset + 1 == offset } else { offset == 1 }
                    });
                    prop_assert_eq!(missed, furthest.filter(|_| !next));
                }
                furthest = furthest.max(Some(found).filter(|_| verdict != Taken::Repeat));
                prop_assert_eq!(order.position(), furthest);
            }
        }
    }
}
