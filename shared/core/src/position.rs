//! Where a subscriber stands in a channel's log.

use crate::time::Millis;
use std::fmt;
use std::str::FromStr;

/// Which log a position counts in: it changes when a channel's log starts anew (T1).
///
/// On every wire it is a decimal string, compared as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// A place in a channel's log. Offsets are dense within an epoch: 1, 2, 3 …; offset 0 is the place before the first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The epoch.
    pub epoch: Epoch,
    /// The offset within the epoch.
    pub offset: u64,
}

/// The text is no epoch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an epoch is a decimal number of at most 20 digits, as a string")]
pub struct EpochError;

impl Epoch {
    /// The epoch that follows `before`, or the first one: `max(before + 1, now)` (T1), so that a head made anew never reuses a
    /// position even when nothing is left of the one before.
    #[must_use]
    pub fn next(before: Option<Self>, now: Millis) -> Self {
        Self(before.map_or(now.0, |epoch| now.0.max(epoch.0 + 1)))
    }
}

impl Position {
    /// The position of `offset` in `epoch`.
    #[must_use]
    pub const fn new(epoch: Epoch, offset: u64) -> Self {
        Self { epoch, offset }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl FromStr for Epoch {
    type Err = EpochError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(EpochError);
        }
        text.parse().map(Self).map_err(|_| EpochError)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.epoch, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t1_an_epoch_is_never_reused_even_by_a_slow_clock() {
        assert_eq!(Epoch::next(None, Millis(1_000)), Epoch(1_000));
        assert_eq!(Epoch::next(Some(Epoch(900)), Millis(1_000)), Epoch(1_000));
        assert_eq!(Epoch::next(Some(Epoch(1_000)), Millis(1_000)), Epoch(1_001));
        assert_eq!(Epoch::next(Some(Epoch(5_000)), Millis(1_000)), Epoch(5_001));
    }

    #[test]
    fn an_epoch_is_compared_as_a_number() {
        let parse = |text: &str| text.parse::<Epoch>().expect("an epoch");
        assert!(parse("9") < parse("10"));
        assert!(Position::new(Epoch(9), 100) < Position::new(Epoch(10), 1));
    }

    #[test]
    fn what_is_no_epoch_is_refused() {
        for text in ["", "-1", "+1", "1.0", "abc", " 1", "99999999999999999999999"] {
            assert_eq!(text.parse::<Epoch>(), Err(EpochError), "{text:?}");
        }
    }
}
