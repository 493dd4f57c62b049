//! Asynchronous invocations: queued, tried again when they fail, given up when they are old.
//!
//! The rules are those of the AWS Lambda Developer Guide, "How Lambda handles errors and retries with asynchronous
//! invocation". An event that is given up is logged, and a record of it goes to the function's failure destination. Dead-letter
//! queues of functions are not emulated.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::format_description;
use tokio_util::sync::CancellationToken;

use super::failure::ErrorFields;
use super::function::Function;
use super::invocation::{Call, Mode};
use super::limits::MAX_QUEUED_EVENTS;
use crate::invoker::{InvokeError, Outcome};
use crate::spec::AsynchronousSpec;

/// The waits before the two further tries after a function error.
const RETRY_DELAYS: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(120)];

/// The waits after a throttle: from 1 second, doubled each time, to 5 minutes.
const FIRST_THROTTLE_DELAY: Duration = Duration::from_secs(1);
const LAST_THROTTLE_DELAY: Duration = Duration::from_secs(300);

/// Takes the records of events that were given up.
///
/// It gets the ARN of the function's failure destination and the record, and answers whether there is such a destination.
#[derive(Clone)]
pub struct FailureDestinations(Arc<Take>);

/// Takes a record for the destination of this ARN; `false`: there is none.
type Take = dyn Fn(&str, String) -> bool + Send + Sync;

impl FailureDestinations {
    /// Hands records to `take`.
    pub fn new(take: impl Fn(&str, String) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }
}

impl Default for FailureDestinations {
    /// None: every record is lost, with a line in the log.
    fn default() -> Self {
        Self::new(|_, _| false)
    }
}

impl std::fmt::Debug for FailureDestinations {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("FailureDestinations")
    }
}

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
    pub(crate) async fn deliver(self, time_scale: f64, closing: CancellationToken, destinations: FailureDestinations) {
        let accepted = Instant::now();
        let mut schedule = Schedule::new(&self.function.spec.asynchronous);
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
                    self.record(reason, schedule.errors + 1, &outcome, &destinations);
                    return;
                }
            };
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = closing.cancelled() => {
                    self.give_up(GiveUp::ShuttingDown, &outcome);
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

    /// Sends a record of the event to the function's failure destination.
    fn record(&self, reason: GiveUp, tries: usize, outcome: &Result<Outcome, InvokeError>, destinations: &FailureDestinations) {
        let spec = &self.function.spec;
        let Some(destination) = &spec.asynchronous.on_failure else { return };
        let mut record = json!({
            "version": "1.0",
            "timestamp": timestamp(OffsetDateTime::now_utc()),
            "requestContext": {
                "requestId": self.request_id,
                "functionArn": format!("{}:$LATEST", spec.arn),
                "condition": reason.condition(),
                "approximateInvokeCount": tries,
            },
            "requestPayload": serde_json::from_slice::<Value>(&self.payload).unwrap_or_default(),
        });
        if let Ok(Outcome::FunctionError(answer)) = outcome {
            record["responseContext"] = json!({ "statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled" });
            record["responsePayload"] = serde_json::from_slice(answer).unwrap_or_default();
        }
        if !(destinations.0)(destination, record.to_string()) {
            tracing::error!(
                function.name = %spec.name,
                request.id = %self.request_id,
                "the record of an event that was given up is lost: there is no queue {destination}",
            );
        }
    }

    fn give_up(&self, reason: GiveUp, outcome: &Result<Outcome, InvokeError>) {
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
            "an asynchronous event was given up: {}",
            reason.told(),
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
    GiveUp(GiveUp),
}

/// Why an event is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GiveUp {
    RetriesFailed,
    NoConcurrency,
    Undeliverable,
    TooOld,
    ShuttingDown,
}

impl GiveUp {
    const fn told(self) -> &'static str {
        match self {
            Self::RetriesFailed => "its retries failed too",
            Self::NoConcurrency => "the function's reserved concurrency is 0",
            Self::Undeliverable => "it cannot be delivered",
            Self::TooOld => "it is older than it may become",
            Self::ShuttingDown => "the stack is shutting down",
        }
    }

    /// `requestContext.condition` of the record (AWS Lambda Developer Guide, "Capturing records of Lambda asynchronous
    /// invocations").
    const fn condition(self) -> &'static str {
        match self {
            Self::TooOld => "EventAgeExceeded",
            _ => "RetriesExhausted",
        }
    }
}

/// As in `2019-11-14T18:16:05.568Z`.
fn timestamp(now: OffsetDateTime) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    now.format(format).expect("every component is of a date and a time")
}

/// How often an event was tried.
#[derive(Debug)]
struct Schedule<'a> {
    limits: &'a AsynchronousSpec,
    errors: usize,
    throttles: u32,
}

impl<'a> Schedule<'a> {
    const fn new(limits: &'a AsynchronousSpec) -> Self {
        Self { limits, errors: 0, throttles: 0 }
    }

    /// Decides; `age` is the event's age in unscaled time.
    fn after(&mut self, outcome: &Result<Outcome, InvokeError>, reserved: Option<u32>, age: Duration) -> Verdict {
        let delay = match outcome {
            Ok(Outcome::Success(_)) | Err(InvokeError::ShuttingDown) => return Verdict::Done,
            Ok(Outcome::FunctionError(_)) => {
                let Some(delay) = RETRY_DELAYS.iter().take(self.limits.maximum_retries).nth(self.errors) else {
                    return Verdict::GiveUp(GiveUp::RetriesFailed);
                };
                self.errors += 1;
                *delay
            }
            Err(InvokeError::Throttled) if reserved == Some(0) => {
                return Verdict::GiveUp(GiveUp::NoConcurrency);
            }
            Err(InvokeError::Throttled) => {
                let delay = FIRST_THROTTLE_DELAY.saturating_mul(2_u32.saturating_pow(self.throttles)).min(LAST_THROTTLE_DELAY);
                self.throttles += 1;
                delay
            }
            Err(InvokeError::NotFound(_) | InvokeError::TooLarge { .. }) => return Verdict::GiveUp(GiveUp::Undeliverable),
        };
        if age + delay > self.limits.maximum_age {
            return Verdict::GiveUp(GiveUp::TooOld);
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
        let limits = AsynchronousSpec::default();
        let mut schedule = Schedule::new(&limits);
        assert_eq!(schedule.after(&error(), None, Duration::ZERO), Verdict::Again(Duration::from_secs(60)));
        assert_eq!(schedule.after(&error(), None, Duration::from_secs(60)), Verdict::Again(Duration::from_secs(120)));
        assert!(matches!(schedule.after(&error(), None, Duration::from_secs(180)), Verdict::GiveUp(_)));
    }

    #[test]
    fn a_throttle_is_tried_again_ever_more_slowly_and_uses_up_no_retry() {
        let limits = AsynchronousSpec::default();
        let mut schedule = Schedule::new(&limits);
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
        let limits = AsynchronousSpec::default();
        let mut schedule = Schedule::new(&limits);
        assert!(matches!(schedule.after(&Err(InvokeError::Throttled), Some(0), Duration::ZERO), Verdict::GiveUp(_)));
        let nearly = limits.maximum_age - Duration::from_secs(59);
        assert!(matches!(schedule.after(&error(), None, nearly), Verdict::GiveUp(_)));
    }

    #[test]
    fn a_function_may_allow_fewer_retries() {
        let limits = AsynchronousSpec { maximum_retries: 0, ..AsynchronousSpec::default() };
        let verdict = Schedule::new(&limits).after(&error(), None, Duration::ZERO);
        assert_eq!(verdict, Verdict::GiveUp(GiveUp::RetriesFailed));
    }

    #[test]
    fn success_ends_it() {
        let outcome = Ok(Outcome::Success(Bytes::new()));
        assert_eq!(Schedule::new(&AsynchronousSpec::default()).after(&outcome, None, Duration::ZERO), Verdict::Done);
    }
}
