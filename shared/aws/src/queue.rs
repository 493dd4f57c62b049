//! The wake-up queue (P3).

use crate::config::AwsConfig;
use crate::failure::failed;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{BatchResultErrorEntry, SendMessageBatchRequestEntry};
use carillon_engine::ports::{Answer, PortError, Queue};
use carillon_engine::wakeup::Wakeup;
use futures_util::stream::{self, StreamExt};
use std::time::Duration;

/// Messages of one batch: SQS's limit on SendMessageBatch.
const BATCH: usize = 10;

/// Batches on their way at once: a channel of 10,000 subscribers has 40 shards, which are four.
const PARALLEL_BATCHES: usize = 8;

/// How often the part of a batch that failed is sent, the first time included.
const TRIES: u32 = 3;

/// The longest delay of a message, in seconds: SQS's limit on DelaySeconds.
const LONGEST_DELAY_S: i32 = 900;

/// The wait before the failed part is sent again is a random part of this.
const BACKOFF: Duration = Duration::from_millis(100);

const SEND: &str = "sending wake-ups";

/// The wake-up queue, in SQS. Clones share the client.
#[derive(Clone, Debug)]
pub struct SqsQueue {
    client: Client,
    url: String,
}

/// Some messages of a batch were not taken, for as long as it was tried.
#[derive(Debug, thiserror::Error)]
#[error("{count} of the messages were refused, the last with {code}: {message}")]
struct Refused {
    count: usize,
    code: String,
    message: String,
}

impl SqsQueue {
    /// The queue with this URL.
    #[must_use]
    pub fn new(config: &AwsConfig, url: impl Into<String>) -> Self {
        Self { client: Client::new(config.sdk()), url: url.into() }
    }

    async fn send_batch(&self, wakeups: &[Wakeup], delay: Duration) -> Answer<()> {
        let delay = (!delay.is_zero()).then(|| i32::try_from(delay.as_secs()).unwrap_or(LONGEST_DELAY_S).min(LONGEST_DELAY_S));
        let mut waiting = Vec::with_capacity(wakeups.len());
        for (index, wakeup) in wakeups.iter().enumerate() {
            let entry = SendMessageBatchRequestEntry::builder().id(index.to_string()).message_body(wakeup.encode());
            let entry = entry.set_delay_seconds(delay);
            waiting.push(entry.build().map_err(|error| PortError::new(SEND, error))?);
        }
        let mut tries = 1;
        loop {
            let request = self.client.send_message_batch().queue_url(&self.url).set_entries(Some(waiting.clone()));
            let output = request.send().await.map_err(|error| failed(SEND, error))?;
            let Some(last) = output.failed.last() else { return Ok(()) };
            // A sender's fault stays one.
            if tries == TRIES || output.failed.iter().any(|failure| failure.sender_fault) {
                return Err(PortError::new(SEND, refused(output.failed.len(), last)));
            }
            waiting.retain(|entry| output.failed.iter().any(|failure| failure.id == entry.id));
            tokio::time::sleep(BACKOFF.mul_f64(rand::random::<f64>())).await;
            tries += 1;
        }
    }
}

impl Queue for SqsQueue {
    async fn send(&self, wakeups: &[Wakeup], delay: Duration) -> Answer<()> {
        // All are sent, whatever becomes of the others: each of them wakes somebody.
        let batches = wakeups.chunks(BATCH).map(|batch| self.send_batch(batch, delay)).collect::<Vec<_>>();
        let answers: Vec<Answer<()>> = stream::iter(batches).buffer_unordered(PARALLEL_BATCHES).collect().await;
        answers.into_iter().collect()
    }
}

fn refused(count: usize, last: &BatchResultErrorEntry) -> Refused {
    let message = last.message.as_deref().unwrap_or("without a message").to_owned();
    Refused { count, code: last.code.clone(), message }
}
