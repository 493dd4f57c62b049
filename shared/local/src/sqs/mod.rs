//! SQS: standard queues in memory, the JSON protocol in front of them, and the pollers that hand messages to functions.
//!
//! | module | is |
//! |---|---|
//! | [`queue`] | a queue as values, with time as an argument |
//! | [`attributes`] | message attributes and their digest |
//! | [`api`] | what SDKs talk to |
//! | [`event_source`] | event source mappings |
//! | [`error`] | errors on the wire |
//!
//! # Not as on AWS
//! Messages are lost with the process. A receive sees every visible message, where SQS asks a sample of its hosts when it does not
//! poll long. Repeats happen only where a visibility ends. A FIFO queue behaves like a standard one.

pub mod api;
pub mod attributes;
pub mod error;
pub mod event_source;
pub mod queue;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use crate::spec::QueueSpec;
use error::SqsError;
use queue::{Counts, Delivery, NewMessage, Queue, Receipt, Received, Settings, VisibilityFault};

/// All queues of a stack. Clones are the same queues.
#[derive(Clone, Debug)]
pub struct Sqs {
    queues: Arc<BTreeMap<String, Arc<QueueCell>>>,
    /// What comes before `/<account>/<name>` in a queue URL.
    endpoint: Arc<str>,
    account: Arc<str>,
    clock: Clock,
}

/// One queue and those who wait for its messages.
#[derive(Debug)]
pub struct QueueCell {
    spec: QueueSpec,
    queue: Mutex<Queue>,
    changed: Notify,
    created_at: u64,
}

/// The wall clock at the start plus what passed since: it never runs backwards.
#[derive(Clone, Copy, Debug)]
struct Clock {
    started: Instant,
    started_at: u64,
}

impl Sqs {
    /// Empty queues. `endpoint` is the AWS endpoint, `http://host:port`, and `account` the account id of the queue URLs.
    #[must_use]
    pub fn new(specs: &[QueueSpec], endpoint: &str, account: &str) -> Self {
        let started_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let clock = Clock { started: Instant::now(), started_at: u64::try_from(started_at.as_millis()).unwrap_or(u64::MAX) };
        let queues = specs.iter().map(|spec| {
            let settings = Settings {
                visibility: spec.visibility,
                delay: spec.delay,
                retention: spec.retention,
                maximum_receives: spec.redrive.as_ref().map(|(_, count)| *count),
            };
            let cell = QueueCell {
                spec: spec.clone(),
                queue: Mutex::new(Queue::new(settings)),
                changed: Notify::new(),
                created_at: clock.now(),
            };
            (spec.name.clone(), Arc::new(cell))
        });
        Self { queues: Arc::new(queues.collect()), endpoint: endpoint.into(), account: account.into(), clock }
    }

    /// The URL of a queue.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        format!("{}/{}/{name}", self.endpoint, self.account)
    }

    /// Every queue's name, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.queues.keys().map(String::as_str)
    }

    /// The queue of this name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Arc<QueueCell>> {
        self.queues.get(name)
    }

    /// The queue of this ARN.
    #[must_use]
    pub fn by_arn(&self, arn: &str) -> Option<&Arc<QueueCell>> {
        self.queues.values().find(|cell| cell.spec.arn == arn)
    }

    /// The queue that a URL, or a bare name, means: the last segment of its path.
    ///
    /// # Errors
    /// `QueueDoesNotExist`.
    pub fn by_url(&self, url: &str) -> Result<&Arc<QueueCell>, SqsError> {
        let name = url.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        self.by_name(name).ok_or_else(SqsError::no_such_queue)
    }

    /// Sends a message and wakes those who wait for one. Gives its id.
    pub fn send(&self, cell: &QueueCell, message: NewMessage) -> String {
        let id = uuid::Uuid::new_v4().to_string();
        cell.lock().send(self.clock.now(), id.clone(), message);
        cell.changed.notify_waiters();
        id
    }

    /// Receives up to `maximum` messages, waiting at most `wait` for the first one.
    pub async fn receive(&self, cell: &QueueCell, maximum: usize, visibility: Duration, wait: Duration) -> Vec<Delivery> {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let changed = cell.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed, before the queue is looked at.
            changed.as_mut().enable();
            let now = self.clock.now();
            let (received, next) = {
                let mut queue = cell.lock();
                (queue.receive(now, maximum, visibility), queue.next_visible_at())
            };
            let Received { deliveries, dead } = received;
            self.bury(cell, dead);
            if !deliveries.is_empty() || tokio::time::Instant::now() >= deadline {
                return deliveries;
            }
            let next = next.map(|next| tokio::time::Instant::now() + Duration::from_millis(next.saturating_sub(now)));
            let until = next.map_or(deadline, |next| next.min(deadline));
            tokio::select! {
                () = &mut changed => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// Deletes a received message.
    pub fn delete(&self, cell: &QueueCell, receipt: Receipt) {
        cell.lock().delete(self.clock.now(), receipt);
    }

    /// Changes how long a received message stays invisible.
    ///
    /// # Errors
    /// When the message is gone or visible, or the total would be over 12 hours.
    pub fn change_visibility(&self, cell: &QueueCell, receipt: Receipt, visibility: Duration) -> Result<(), VisibilityFault> {
        cell.lock().change_visibility(self.clock.now(), receipt, visibility)?;
        cell.changed.notify_waiters();
        Ok(())
    }

    /// Deletes every message of a queue.
    pub fn purge(&self, cell: &QueueCell) {
        cell.lock().purge();
    }

    /// How many messages a queue has.
    #[must_use]
    pub fn counts(&self, cell: &QueueCell) -> Counts {
        cell.lock().counts(self.clock.now())
    }

    fn bury(&self, source: &QueueCell, dead: Vec<queue::Message>) {
        if dead.is_empty() {
            return;
        }
        let target = source.spec.redrive.as_ref().and_then(|(arn, _)| self.by_arn(arn));
        let Some(target) = target else { return };
        tracing::warn!(
            queue.name = %source.spec.name,
            queue.dead_letter = %target.spec.name,
            queue.messages = dead.len(),
            "messages were received too often and went to the dead-letter queue",
        );
        let mut queue = target.lock();
        for mut message in dead {
            message.dead_letter_source.get_or_insert_with(|| source.spec.arn.clone());
            queue.bury(message);
        }
        drop(queue);
        target.changed.notify_waiters();
    }
}

impl QueueCell {
    /// What the template says of it.
    #[must_use]
    pub fn spec(&self) -> &QueueSpec {
        &self.spec
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // The queue's own methods do not panic half-way through a change.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock {
    fn now(self) -> u64 {
        self.started_at + u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
