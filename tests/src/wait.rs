//! Waiting for conditions. A test never sleeps for luck: it says what it waits for, and fails when that does not come.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// How long a condition may take where [`PATIENCE_VARIABLE`] says nothing. Only a failing test waits that long.
const DEFAULT_PATIENCE: Duration = Duration::from_secs(30);

/// Sets the patience, in whole seconds, for slow or busy machines.
pub const PATIENCE_VARIABLE: &str = "CARILLON_TEST_PATIENCE";

/// The pause between two looks at a condition.
pub(crate) const PAUSE: Duration = Duration::from_millis(10);

/// How long anything may take.
///
/// # Panics
/// When the variable is set and holds no number of seconds from 1 on.
#[must_use]
pub fn patience() -> Duration {
    let Some(text) = std::env::var_os(PATIENCE_VARIABLE).filter(|text| !text.is_empty()) else {
        return DEFAULT_PATIENCE;
    };
    let seconds = text.to_str().and_then(|text| text.parse().ok()).filter(|seconds| *seconds > 0);
    Duration::from_secs(seconds.unwrap_or_else(|| panic!("{PATIENCE_VARIABLE}: {} is no number of seconds", text.display())))
}

/// Looks again and again until the condition holds, and gives what it found. `Err` says what is there instead.
///
/// # Panics
/// When the patience is over: with `what`, and what was there last.
pub async fn eventually<T, E, F>(what: &str, condition: impl FnMut() -> F) -> T
where
    E: Display,
    F: Future<Output = Result<T, E>>,
{
    eventually_within(patience(), what, condition).await
}

/// As [`eventually`], with a patience of its own.
///
/// # Panics
/// When the patience is over.
pub async fn eventually_within<T, E, F>(patience: Duration, what: &str, mut condition: impl FnMut() -> F) -> T
where
    E: Display,
    F: Future<Output = Result<T, E>>,
{
    let give_up = Instant::now() + patience;
    loop {
        match condition().await {
            Ok(found) => return found,
            Err(instead) if Instant::now() >= give_up => panic!("waited {patience:?} for {what}; instead: {instead}"),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Waits for something that happens by itself.
///
/// # Panics
/// When it does not happen within the patience.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    let patience = patience();
    tokio::time::timeout(patience, future).await.unwrap_or_else(|_| panic!("waited {patience:?} for {what}"))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use super::{eventually, eventually_within};

    #[tokio::test]
    async fn a_condition_is_looked_at_until_it_holds() {
        let looks = Cell::new(0);
        let found = eventually("three looks", || {
            looks.set(looks.get() + 1);
            let looked = looks.get();
            async move { if looked < 3 { Err(looked) } else { Ok(looked) } }
        });
        assert_eq!(found.await, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "for the moon; instead: cheese")]
    async fn what_does_not_come_is_named() {
        eventually_within(Duration::ZERO, "the moon", || async { Err::<(), _>("cheese") }).await;
    }
}
