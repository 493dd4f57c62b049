//! When a line carries more than IoT Core lets through.

use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Messages a second at which IoT Core begins to hold back or drop on a connection, in both directions together
/// (<https://docs.aws.amazon.com/general/latest/gr/iot-core.html>, "Publish requests per second per connection").
pub(super) const FULL: usize = 100;

/// Messages a second below which it certainly does not: a rate at the limit does not go in and out of it all the time.
const CALM: usize = 80;

const SECOND: Duration = Duration::from_secs(1);

/// How many messages a line carried in the last second.
#[derive(Debug, Default)]
pub(super) struct Rate {
    /// The moments of the last messages, [`FULL`] of them at most.
    recent: VecDeque<Instant>,
    over: bool,
}

impl Rate {
    /// Whether messages may be missing because there are too many.
    pub(super) const fn is_over(&self) -> bool {
        self.over
    }

    /// Counts a message. `true`: with it, there are too many.
    pub(super) fn count(&mut self, now: Instant) -> bool {
        if self.recent.len() == FULL {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        if self.over || self.recent.len() < FULL || now - self.recent[0] >= SECOND {
            return false;
        }
        self.over = true;
        true
    }

    /// Looks again. `true`: there were too many, and are no longer.
    pub(super) fn calm_down(&mut self, now: Instant) -> bool {
        while self.recent.front().is_some_and(|moment| now - *moment >= SECOND) {
            self.recent.pop_front();
        }
        let calm = self.over && self.recent.len() < CALM;
        self.over &= !calm;
        calm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts `messages` evenly over a second from `from` on; how many of them made it too many.
    fn second(rate: &mut Rate, from: Instant, messages: u32) -> usize {
        (0..messages).filter(|index| rate.count(from + SECOND * *index / messages)).count()
    }

    #[test]
    fn w3_less_than_a_hundred_a_second_are_never_too_many() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        for index in 0..10 {
            assert_eq!(second(&mut rate, start + SECOND * index, 99), 0);
        }
        assert!(!rate.is_over());
    }

    #[test]
    fn w3_a_hundred_within_a_second_are_too_many_until_it_is_calm() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        for index in 0..3 {
            assert_eq!(second(&mut rate, start + SECOND * index, 120), usize::from(index == 0), "it is said once");
            assert!(!rate.calm_down(start + SECOND * (index + 1)), "second {index}");
        }
        assert_eq!(second(&mut rate, start + SECOND * 3, 90), 0);
        assert!(!rate.calm_down(start + SECOND * 4), "90 are within the margin");
        assert_eq!(second(&mut rate, start + SECOND * 4, 70), 0);
        assert!(rate.calm_down(start + SECOND * 5));
        assert!(!rate.is_over() && !rate.calm_down(start + SECOND * 5));
        assert_eq!(second(&mut rate, start + SECOND * 5, 120), 1, "and it can happen again");
    }

    #[test]
    fn silence_is_calm() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        assert_eq!((0..150).filter(|_| rate.count(start)).count(), 1);
        assert!(rate.is_over() && !rate.calm_down(start + SECOND / 2));
        assert!(rate.calm_down(start + SECOND));
    }
}
