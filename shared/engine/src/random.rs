//! Chance, from one seed: names for attempts and rows, and jitter.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A source of chance that a test can seed.
pub(crate) struct Random(Mutex<StdRng>);

impl Random {
    /// Chance from the operating system.
    pub(crate) fn from_system() -> Self {
        Self(Mutex::new(StdRng::from_os_rng()))
    }

    /// Chance that repeats itself.
    pub(crate) fn from_seed(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    /// A name that nobody else has: 128 random bits in hexadecimal digits.
    pub(crate) fn name(&self) -> String {
        format!("{:032x}", self.draw(Rng::random::<u128>))
    }

    /// Waits for a random part of `most`, so that those who met do not meet again.
    pub(crate) async fn jitter(&self, most: Duration) {
        let wait = self.draw(|source| source.random_range(0.0..1.0));
        tokio::time::sleep(most.mul_f64(wait)).await;
    }

    fn draw<T>(&self, from: impl FnOnce(&mut StdRng) -> T) -> T {
        from(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
