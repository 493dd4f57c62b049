//! Event source mappings: pollers that hand a queue's messages to a function in batches.
//!
//! The behaviour is that of the AWS Lambda Developer Guide, "Using Lambda with Amazon SQS" and "Handling errors for an SQS event
//! source in Lambda": a batch is deleted when the function succeeds; when it fails, its messages come back when their
//! visibility ends; with `ReportBatchItemFailures` only the messages that the function names come back.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::api::{MAXIMUM_ENTRIES, receipt_handle, system_attributes};
use super::attributes::md5_of;
use super::queue::Delivery;
use super::{QueueCell, Sqs};
use crate::invoker::{InvokeError, Invoker, Outcome};
use crate::spec::SqsMappingSpec;

/// "Lambda begins … with five concurrent batches" (the guide). It grows by up to 300 a minute from there; a laptop does not.
const DEFAULT_CONCURRENCY: usize = 5;

/// A synchronous invocation takes at most this much (AWS Lambda Developer Guide, "Lambda quotas": 6 MB).
const MAXIMUM_EVENT_BYTES: usize = 6 * 1024 * 1024;

/// How long one poll waits for a message: SQS's longest.
const POLL: Duration = Duration::from_secs(20);

/// A throttled batch is tried again after this long, doubled each time.
const FIRST_BACKOFF: Duration = Duration::from_millis(20);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);

const ENVELOPE: (&str, &str) = ("{\"Records\":[", "]}");

/// A running mapping.
#[derive(Debug)]
pub struct EventSource {
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What every batch of a mapping needs.
struct Mapping {
    sqs: Sqs,
    queue: Arc<QueueCell>,
    invoker: Arc<dyn Invoker>,
    spec: SqsMappingSpec,
    region: String,
}

/// The mapping's queue is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event source of function {function} is {queue_arn}, and there is no such queue")]
pub struct NoSuchQueue {
    function: String,
    queue_arn: String,
}

impl EventSource {
    /// Starts polling.
    ///
    /// # Errors
    /// When the queue does not exist.
    pub fn start(sqs: Sqs, spec: SqsMappingSpec, invoker: Arc<dyn Invoker>, region: &str) -> Result<Self, NoSuchQueue> {
        let queue = sqs
            .by_arn(&spec.queue_arn)
            .cloned()
            .ok_or_else(|| NoSuchQueue { function: spec.function.clone(), queue_arn: spec.queue_arn.clone() })?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let mapping = Arc::new(Mapping { sqs, queue, invoker, spec, region: region.to_owned() });
        tasks.spawn(poll(mapping, stop.clone(), tasks.clone()));
        Ok(Self { stop, tasks })
    }

    /// Stops polling and forgets the answers of batches that still run; their messages stay in the queue.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for EventSource {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Gathers one batch after the other and hands each to a task; a permit for the task is taken first, so that no message leaves
/// the queue before there is a hand for it.
async fn poll(mapping: Arc<Mapping>, stop: CancellationToken, tasks: TaskTracker) {
    let permits = Arc::new(Semaphore::new(mapping.spec.maximum_concurrency.unwrap_or(DEFAULT_CONCURRENCY)));
    loop {
        let gathered = async {
            let permit = Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
            (permit, mapping.gather().await)
        };
        let Some((permit, batch)) = stop.run_until_cancelled(gathered).await else { return };
        if batch.is_empty() {
            continue;
        }
        let (mapping, stop) = (Arc::clone(&mapping), stop.clone());
        tasks.spawn(async move {
            stop.run_until_cancelled(mapping.deliver(batch)).await;
            drop(permit);
        });
    }
}

impl Mapping {
    /// Messages for one batch: what is there after the first one came and the window passed, at most the batch size.
    async fn gather(&self) -> Vec<Delivery> {
        let visibility = self.queue.spec().visibility;
        let maximum = |batch: &[Delivery]| (self.spec.batch_size - batch.len()).min(MAXIMUM_ENTRIES);
        let mut batch = self.sqs.receive(&self.queue, maximum(&[]), visibility, POLL).await;
        if batch.is_empty() {
            return batch;
        }
        let end = Instant::now() + self.spec.window;
        while batch.len() < self.spec.batch_size {
            let remaining = end.saturating_duration_since(Instant::now());
            let more = self.sqs.receive(&self.queue, maximum(&batch), visibility, remaining).await;
            if more.is_empty() {
                break;
            }
            batch.extend(more);
        }
        batch
    }

    /// Invokes the function with a batch, in several events where one would be over the limit, and deletes what succeeded.
    async fn deliver(&self, batch: Vec<Delivery>) {
        let received_at = Instant::now();
        for (event, part) in self.events(batch) {
            let Some(outcome) = self.invoke(event, received_at).await else { continue };
            let failed = match &outcome {
                Outcome::Success(_) if !self.spec.report_batch_item_failures => HashSet::new(),
                Outcome::Success(answer) => match failures(answer, &part) {
                    Ok(failed) => failed,
                    Err(reason) => {
                        tracing::warn!(
                            function.name = %self.spec.function,
                            batch.messages = part.len(),
                            %reason,
                            "the function's batch answer is not valid, so the whole batch failed",
                        );
                        continue;
                    }
                },
                Outcome::FunctionError(_) => continue,
            };
            for delivery in part.iter().filter(|delivery| !failed.contains(delivery.message.id.as_str())) {
                self.sqs.delete(&self.queue, delivery.receipt);
            }
        }
    }

    /// Invokes until it is not throttled. After the visibility the messages belong to the next receiver, so it gives up then.
    async fn invoke(&self, event: Bytes, received_at: Instant) -> Option<Outcome> {
        let mut backoff = FIRST_BACKOFF;
        loop {
            match self.invoker.invoke(&self.spec.function, event.clone()).await {
                Ok(outcome) => return Some(outcome),
                Err(InvokeError::Throttled) if received_at.elapsed() + backoff < self.queue.spec().visibility => {
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(LONGEST_BACKOFF);
                }
                Err(InvokeError::ShuttingDown) => return None,
                Err(error) => {
                    tracing::warn!(
                        function.name = %self.spec.function,
                        queue.name = %self.queue.spec().name,
                        %error,
                        "a batch could not be handed to the function; its messages come back when their visibility ends",
                    );
                    return None;
                }
            }
        }
    }

    fn events(&self, batch: Vec<Delivery>) -> Vec<(Bytes, Vec<Delivery>)> {
        let mut events = Vec::new();
        let mut records = String::new();
        let mut part = Vec::new();
        let limit = MAXIMUM_EVENT_BYTES - ENVELOPE.0.len() - ENVELOPE.1.len();
        for delivery in batch {
            let record = self.record(&delivery).to_string();
            if !part.is_empty() && records.len() + 1 + record.len() > limit {
                events.push((enveloped(&records), std::mem::take(&mut part)));
                records.clear();
            }
            if !part.is_empty() {
                records.push(',');
            }
            records.push_str(&record);
            part.push(delivery);
        }
        if !part.is_empty() {
            events.push((enveloped(&records), part));
        }
        events
    }

    /// A record as the AWS Lambda Developer Guide's "Example Amazon SQS message event" has it.
    fn record(&self, delivery: &Delivery) -> Value {
        let message = &delivery.message;
        let mut record = json!({
            "messageId": message.id,
            "receiptHandle": receipt_handle(delivery.receipt),
            "body": message.body,
            "attributes": system_attributes(delivery),
            "messageAttributes": message.attributes.to_event(),
        });
        if !message.attributes.is_empty() {
            record["md5OfMessageAttributes"] = message.attributes.md5().into();
        }
        record["md5OfBody"] = md5_of(&message.body).into();
        record["eventSource"] = "aws:sqs".into();
        record["eventSourceARN"] = self.queue.spec().arn.clone().into();
        record["awsRegion"] = self.region.clone().into();
        record
    }
}

fn enveloped(records: &str) -> Bytes {
    let (before, after) = ENVELOPE;
    Bytes::from(format!("{before}{records}{after}"))
}

/// The ids that a batch answer names as failed.
///
/// An empty or null answer or list means that all succeeded. An answer that is no such JSON, an item without an identifier, or
/// with one that the batch does not have, means that all failed; the error says why.
fn failures<'b>(answer: &[u8], batch: &'b [Delivery]) -> Result<HashSet<&'b str>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        batch_item_failures: Option<Vec<Item>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Item {
        item_identifier: Option<String>,
    }
    if matches!(answer.trim_ascii(), b"" | b"null" | b"\"\"") {
        return Ok(HashSet::new());
    }
    let answer: Answer = serde_json::from_slice(answer).map_err(|error| error.to_string())?;
    let mut failed = HashSet::new();
    for item in answer.batch_item_failures.unwrap_or_default() {
        let id = item.item_identifier.filter(|id| !id.is_empty()).ok_or("an item has no itemIdentifier")?;
        let known = batch.iter().find(|delivery| delivery.message.id == id);
        failed.insert(known.ok_or("an itemIdentifier is not of this batch")?.message.id.as_str());
    }
    Ok(failed)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::attributes::MessageAttributes;
    use super::super::queue::{Delivery, Message, Receipt};
    use super::failures;

    fn delivery(id: &str) -> Delivery {
        let message = Message {
            id: id.to_owned(),
            body: "x".to_owned(),
            attributes: MessageAttributes::default(),
            trace_header: None,
            group_id: None,
            sent_at: 1,
            first_received_at: Some(2),
            receives: 1,
            dead_letter_source: None,
        };
        Delivery { message, receipt: Receipt { number: 0, receive: 1 } }
    }

    #[test]
    fn batch_answers_are_read_as_lambda_reads_them() {
        let batch = [delivery("one"), delivery("two")];
        let all_succeed =
            ["", " ", "null", "\"\"", "{}", r#"{"batchItemFailures":null}"#, r#"{"batchItemFailures":[]}"#, r#"{"other":1}"#];
        for answer in all_succeed {
            assert_eq!(failures(answer.as_bytes(), &batch), Ok(HashSet::new()), "{answer}");
        }
        let answer = br#"{"batchItemFailures":[{"itemIdentifier":"two"},{"itemIdentifier":"two"}]}"#;
        assert_eq!(failures(answer, &batch), Ok(HashSet::from(["two"])));
        let all_fail = [
            "{",
            "7",
            "\"ok\"",
            r#"{"batchItemFailures":{}}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":""}]}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":null}]}"#,
            r#"{"batchItemFailures":[{"itemId":"one"}]}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":"one"},{"itemIdentifier":"three"}]}"#,
        ];
        for answer in all_fail {
            assert!(failures(answer.as_bytes(), &batch).is_err(), "{answer}");
        }
    }
}
