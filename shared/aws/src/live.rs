//! What is published on channels, as it is published: MQTT 5 over WebSocket to IoT Core (W2, W3).
//!
//! All streams of an environment share one hub. It holds as many connections to IoT Core as the channels need, tells every listener
//! what it may rely on, and promises nothing: whoever listens reads the log for what it did not hear.
//!
//! | module | what it holds |
//! |---|---|
//! | `address` | where IoT Core's WebSocket is, and the signature that opens it |
//! | `hub` | who listens to what, on which line, and what becomes of a line that is lost |
//! | `line` | one connection, and the MQTT client behind it |
//! | `message` | what a published message says of its position |
//! | `queue` | what waits for one listener |
//! | `rate` | when a line carries more than IoT Core lets through |

mod address;
mod hub;
mod line;
mod message;
mod queue;
mod rate;

use crate::clock::SystemClock;
use crate::config::AwsConfig;
use crate::environment::Mistakes;
use address::Address;
use carillon_core::channel::Channel;
use carillon_core::mqtt::MqttPrefix;
use carillon_engine::ports::{Clock, Feed, Live, LiveEvent};
use hub::{Command, Hub};
use line::Dialer;
use queue::Queue;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{mpsc, oneshot};

/// Filters of one connection, of which a channel is one: IoT Core's limit on subscriptions
/// (<https://docs.aws.amazon.com/general/latest/gr/iot-core.html>, "Subscriptions per connection").
pub const LINE_FILTERS: usize = 50;

/// What is published on channels, heard through IoT Core. Clones share their connections.
///
/// There is no connection while nobody listens. A connection that is lost is made again, with a signature and a client id of its own,
/// after a random part of a wait that doubles up to 15 s.
#[derive(Clone, Debug)]
pub struct IotLive {
    commands: mpsc::UnboundedSender<Command>,
    next_feed: Arc<AtomicU64>,
}

/// What one listener hears of its channels. Dropped, it listens no longer.
///
/// 256 messages or 1 MiB of them wait for the listener at most; what comes beyond that is dropped with a [`LiveEvent::Lagged`]. Nobody
/// else waits for it.
#[derive(Debug)]
pub struct IotFeed {
    id: u64,
    queue: Arc<Queue>,
    commands: mpsc::UnboundedSender<Command>,
}

impl IotLive {
    /// The topics below `prefix` in the IoT Core that the environment names.
    ///
    /// # Errors
    /// When AWS_ENDPOINT_URL_IOT_DATA_PLANE is unset or has a path.
    ///
    /// # Panics
    /// Outside of a Tokio runtime, in which the hub goes on working.
    pub fn new(config: &AwsConfig, prefix: &MqttPrefix) -> Result<Self, Mistakes> {
        Self::with_clock(config, prefix, Arc::new(SystemClock))
    }

    /// The same by another clock, which dates signatures and tells that the environment was frozen.
    ///
    /// # Errors
    /// As [`IotLive::new`].
    ///
    /// # Panics
    /// As [`IotLive::new`].
    pub fn with_clock(config: &AwsConfig, prefix: &MqttPrefix, clock: Arc<dyn Clock>) -> Result<Self, Mistakes> {
        let dialer = Dialer::new(Address::new(config)?, config.authorities(), prefix.clone());
        let (commands, orders) = mpsc::unbounded_channel();
        tokio::spawn(Hub::new(dialer, clock, commands.downgrade()).run(orders));
        Ok(Self { commands, next_feed: Arc::default() })
    }

    /// Throws the connections away where the environment was frozen since it last ran: what was sent meanwhile is lost, IoT Core may
    /// have hung up, and the socket need not know. Every invocation begins with this.
    ///
    /// After it, a listener that could have missed something has a [`LiveEvent::Away`] waiting.
    pub async fn check(&self) {
        let (done, checked) = oneshot::channel();
        if self.commands.send(Command::Check { done }).is_ok() {
            // The hub ends with its runtime only, and this call with it.
            let _ = checked.await;
        }
    }
}

impl Live for IotLive {
    type Feed = IotFeed;

    fn listen(&self, channels: &[Channel]) -> IotFeed {
        let id = self.next_feed.fetch_add(1, Ordering::Relaxed);
        let queue = Arc::new(Queue::default());
        let channels: BTreeSet<Channel> = channels.iter().cloned().collect();
        let _ = self.commands.send(Command::Listen { feed: id, channels, queue: Arc::clone(&queue) });
        IotFeed { id, queue, commands: self.commands.clone() }
    }
}

impl Feed for IotFeed {
    async fn next(&mut self) -> LiveEvent {
        self.queue.next().await
    }
}

impl Drop for IotFeed {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Hush { feed: self.id });
    }
}
