//! How long to wait before trying again.

use rand::Rng;
use std::time::Duration;

/// Waits that double, with jitter: clients that were cut at the same moment do not come back at the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest wait before the first further attempt.
    pub first: Duration,
    /// The longest wait of all.
    pub most: Duration,
}

impl Default for Backoff {
    /// From a quarter of a second to half a minute: API Gateway takes 500 new connections a second for a whole account (Amazon
    /// API Gateway Developer Guide, "Quotas for configuring and running a WebSocket API").
    fn default() -> Self {
        Self { first: Duration::from_millis(250), most: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// The wait before attempt number `attempt`, from 1: between half and the whole of `first · 2^(attempt − 1)`, `most` at most.
    #[must_use]
    pub fn wait(&self, attempt: u32, random: &mut impl Rng) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let longest = self.first.saturating_mul(1 << doublings).min(self.most);
        longest.mul_f64(random.random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn waits_double_up_to_the_most_and_never_fall_under_half() {
        let backoff = Backoff { first: Duration::from_millis(100), most: Duration::from_secs(1) };
        let longest = [100, 200, 400, 800, 1_000, 1_000].map(Duration::from_millis);
        for seed in 0..50 {
            let mut random = StdRng::seed_from_u64(seed);
            for (attempt, longest) in (1..).zip(longest) {
                let wait = backoff.wait(attempt, &mut random);
                assert!(wait >= longest / 2 && wait <= longest, "seed {seed}, attempt {attempt}: {wait:?}");
            }
            assert!(backoff.wait(u32::MAX, &mut random) <= backoff.most);
        }
    }
}
