#![doc = include_str!("../README.md")]

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use carillon_core::time::Millis;
use carillon_engine::drain::{Drain, Received};
use carillon_engine::ports::{Clock, Mqtt, Posts, Queue, Store};
use carillon_engine::wakeup::{Wakeup, WakeupError};
use std::error::Error;

/// How long an invocation is believed to last, in milliseconds, where Lambda does not say: the function's time-out (D7).
const UNKNOWN_DEADLINE_MS: u64 = 15_000;

/// Handles the queue's events.
pub struct Handler<S, Q, P, M, C> {
    drain: Drain<S, Q, P, M, C>,
    clock: C,
}

/// A record has no messageId, so its failure could not be reported: the whole batch fails and comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of the event has no messageId")]
pub struct NamelessRecord;

impl<S: Store, Q: Queue, P: Posts, M: Mqtt, C: Clock> Handler<S, Q, P, M, C> {
    /// A handler over this drain.
    pub fn new(drain: Drain<S, Q, P, M, C>, clock: C) -> Self {
        Self { drain, clock }
    }

    /// Now, by the handler's clock.
    pub fn now(&self) -> Millis {
        self.clock.now()
    }

    /// Drains the shards of a batch of wake-ups and names those messages that must stay in the queue. `deadline` is when the
    /// invocation ends, where that is known.
    ///
    /// # Errors
    /// When a record has no messageId.
    pub async fn handle(&self, event: SqsEvent, deadline: Option<Millis>) -> Result<SqsBatchResponse, NamelessRecord> {
        let mut batch = Vec::with_capacity(event.records.len());
        let mut malformed = 0_u64;
        for record in event.records {
            let message_id = record.message_id.ok_or(NamelessRecord)?;
            match Wakeup::decode(record.body.as_deref().unwrap_or_default()) {
                Ok(wakeup) => batch.push(Received { message_id, wakeup }),
                Err(error) => {
                    malformed += 1;
                    tracing::error!(
                        message.id = message_id,
                        error.chain = told(&error),
                        "a message that is no wake-up was dropped"
                    );
                }
            }
        }
        if malformed > 0 {
            // D7. Apart from the lines above, so that a metric filter can count.
            tracing::error!(
                wakeups.malformed = malformed,
                wakeups.good = batch.len(),
                "messages that are no wake-ups were dropped"
            );
        }
        let deadline = deadline.unwrap_or_else(|| self.clock.now().plus(UNKNOWN_DEADLINE_MS));
        let mut response = SqsBatchResponse::default();
        for message_id in self.drain.drain(batch, deadline).await {
            response.add_failure(message_id);
        }
        Ok(response)
    }
}

/// The error with its cause; of a JSON error its kind alone, since its text would quote the message.
fn told(error: &WakeupError) -> String {
    match error {
        WakeupError::Json(cause) => format!("{error}: {:?}", cause.classify()),
        other => other.source().map_or_else(|| other.to_string(), |cause| format!("{other}: {cause}")),
    }
}

#[cfg(test)]
mod tests;
