//! Asynchronous invocations: queued, tried again when they fail, given up when they are old.
//!
//! The rules are those of the AWS Lambda Developer Guide, "How Lambda handles errors and retries with asynchronous
//! invocation". Destinations and dead-letter queues of functions are not emulated: an event that is given up is logged.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::failure::ErrorFields;
use super::function::Function;
use super::invocation::{Call, Mode};
use super::limits::MAX_QUEUED_EVENTS;
use crate::invoker::{InvokeError, Outcome};

/// The waits before the two further tries after a function error.
const RETRY_DELAYS: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(120)];

/// The waits after a throttle: from 1 second, doubled each time, to 5 minutes.
const FIRST_THROTTLE_DELAY: Duration = Duration::from_secs(1);
const LAST_THROTTLE_DELAY: Duration = Duration::from_secs(300);

/// How old an event may become.
const MAX_EVENT_AGE: Duration = Duration::from_secs(6 * 60 * 60);

/// An event that was accepted.
#[derive(Debug)]
pub(crate) struct Event {
    function: Arc<Function>,
    request_id: String,
    payload: Bytes,
    client_context: Option<String>,
}

impl Event {
    /// Takes a place in the function's queue.
    ///
    /// # Errors
    /// [`InvokeError::Throttled`] when [`MAX_QUEUED_EVENTS`] wait already.
    pub(crate) fn enqueue(
        function: Arc<Function>,
        request_id: String,
        payload: Bytes,
        client_context: Option<String>,
    ) -> Result<Self, InvokeError> {
        let entered = function
            .queued_events
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| (count < MAX_QUEUED_EVENTS).then_some(count + 1));
        if entered.is_err() {
            return Err(InvokeError::Throttled);
        }
        Ok(Self { function, request_id, payload, client_context })
    }

    /// Invokes the function until it succeeds, its tries are used up, the event is too old or the stack shuts down.
    /// Every try has the same request id.
    pub(crate) async fn deliver(self, time_scale: f64, closing: CancellationToken) {
        let accepted = Instant::now();
        let mut schedule = Schedule::default();
        loop {
            let outcome = match self.function.begin(self.call()) {
                Ok(pending) => pending.outcome().await,
                Err(error) => Err(error),
            };
            let age = accepted.elapsed().div_f64(time_scale);
            let delay = match schedule.after(&outcome, self.function.spec.reserved_concurrency, age) {
                Verdict::Done => return,
                Verdict::Again(delay) => delay.mul_f64(time_scale),
                Verdict::GiveUp(reason) => {
                    self.give_up(reason, &outcome);
                    return;
                }
            };
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = closing.cancelled() => {
                    self.give_up("the stack is shutting down", &outcome);
                    return;
                }
            }
        }
    }

    fn call(&self) -> Call {
        Call {
            request_id: self.request_id.clone(),
            client_context: self.client_context.clone(),
            ..Call::new(self.payload.clone(), Mode::Buffered)
        }
    }

    fn give_up(&self, reason: &str, outcome: &Result<Outcome, InvokeError>) {
        self.function.count_dropped_event();
        let cause = match outcome {
            Ok(Outcome::Success(_)) => String::new(),
            Ok(Outcome::FunctionError(json)) => serde_json::from_slice::<ErrorFields>(json).unwrap_or_default().error_type,
            Err(error) => error.to_string(),
        };
        tracing::error!(
            function.name = %self.function.spec.name,
            request.id = %self.request_id,
            cause,
            "an asynchronous event was given up: {reason}",
        );
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        self.function.queued_events.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What comes after a try.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Done,
    Again(Duration),
    GiveUp(&'static str),
}

/// How often an event was tried.
#[derive(Debug, Default)]
struct Schedule {
    errors: usize,
    throttles: u32,
}

impl Schedule {
    /// Decides; `age` is the event's age in unscaled time.
    fn after(&mut self, outcome: &Result<Outcome, InvokeError>, reserved: Option<u32>, age: Duration) -> Verdict {
        let delay = match outcome {
            Ok(Outcome::Success(_)) | Err(InvokeError::ShuttingDown) => return Verdict::Done,
            Ok(Outcome::FunctionError(_)) => {
                let Some(delay) = RETRY_DELAYS.get(self.errors) else {
                    return Verdict::GiveUp("its two retries failed too");
                };
                self.errors += 1;
                *delay
            }
            Err(InvokeError::Throttled) if reserved == Some(0) => {
                return Verdict::GiveUp("the function's reserved concurrency is 0");
            }
            Err(InvokeError::Throttled) => {
                let delay = FIRST_THROTTLE_DELAY.saturating_mul(2_u32.saturating_pow(self.throttles)).min(LAST_THROTTLE_DELAY);
                self.throttles += 1;
                delay
            }
            Err(InvokeError::NotFound(_) | InvokeError::TooLarge { .. }) => return Verdict::GiveUp("it cannot be delivered"),
        };
        if age + delay > MAX_EVENT_AGE {
            return Verdict::GiveUp("it is older than 6 hours");
        }
        Verdict::Again(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error() -> Result<Outcome, InvokeError> {
        Ok(Outcome::FunctionError(Bytes::from_static(b"{}")))
    }

    #[test]
    fn a_function_error_is_tried_again_after_one_and_after_two_minutes() {
        let mut schedule = Schedule::default();
        assert_eq!(schedule.after(&error(), None, Duration::ZERO), Verdict::Again(Duration::from_secs(60)));
        assert_eq!(schedule.after(&error(), None, Duration::from_secs(60)), Verdict::Again(Duration::from_secs(120)));
        assert!(matches!(schedule.after(&error(), None, Duration::from_secs(180)), Verdict::GiveUp(_)));
    }

    #[test]
    fn a_throttle_is_tried_again_ever_more_slowly_and_uses_up_no_retry() {
        let mut schedule = Schedule::default();
        let delays: Vec<u64> = (0..11)
            .map(|_| match schedule.after(&Err(InvokeError::Throttled), Some(1), Duration::ZERO) {
                Verdict::Again(delay) => delay.as_secs(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(schedule.after(&error(), Some(1), Duration::ZERO), Verdict::Again(Duration::from_secs(60)));
    }

    #[test]
    fn an_event_for_a_function_with_no_concurrency_or_of_old_age_is_given_up() {
        let mut schedule = Schedule::default();
        assert!(matches!(schedule.after(&Err(InvokeError::Throttled), Some(0), Duration::ZERO), Verdict::GiveUp(_)));
        let nearly = MAX_EVENT_AGE - Duration::from_secs(59);
        assert!(matches!(schedule.after(&error(), None, nearly), Verdict::GiveUp(_)));
    }

    #[test]
    fn success_ends_it() {
        let outcome = Ok(Outcome::Success(Bytes::new()));
        assert_eq!(Schedule::default().after(&outcome, None, Duration::ZERO), Verdict::Done);
    }
}
