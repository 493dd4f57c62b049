//! What every protocol's client hands over: the messages, and what is to be known beside them.

use crate::rule::Judged;
use carillon_core::channel::Channel;
use carillon_core::event::EventJson;
use carillon_core::fault::{ErrorCode, Fault};
use carillon_core::position::Position;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Items that wait for the subscriber. When they are so many, a client reads no further from its connection until some are taken.
pub const WAITING_ITEMS: usize = 1_024;

/// What comes.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// A message of a subscription.
    Delivery(Delivery),
    /// Something to know beside the messages.
    Notice(Notice),
}

/// A message of a subscription: each comes once. Over WebSocket and SSE they come in order; over MQTT in the order that the broker
/// keeps, and one that comes after a later one is handed over late.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// Its channel.
    pub channel: Channel,
    /// Where it stands.
    pub position: Position,
    /// The event.
    pub event: EventJson,
    /// When it was read from the connection; for an early WebSocket frame, when the answer was read that said it counts.
    pub received_at: Instant,
}

/// Something to know beside the messages.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// A subscription has begun, over SSE or MQTT; over WebSocket the subscribe itself is answered. Told once for each channel.
    Subscribed {
        /// The channel.
        channel: Channel,
        /// The messages after this one come. MQTT acknowledges no position.
        position: Option<Position>,
        /// Whether that is the position that was handed in; none where there was none.
        recovered: Option<bool>,
    },
    /// Messages cannot be delivered; it goes on after `to`.
    Gap {
        /// The channel.
        channel: Channel,
        /// The last position before the gap.
        after: Position,
        /// The position after it.
        to: Position,
    },
    /// A position could not be continued: messages between the two may be lost.
    Unrecovered {
        /// The channel.
        channel: Channel,
        /// The position that was handed in.
        since: Position,
        /// The position that holds now.
        position: Position,
    },
    /// A message came again and was dropped.
    Repeat {
        /// The channel.
        channel: Channel,
        /// Where it stands.
        position: Position,
    },
    /// Messages are missing without a gap that says so; the client asks for everything after `position` again.
    Hole {
        /// The channel.
        channel: Channel,
        /// The last position that came.
        position: Position,
        /// What came instead of the next one. It was dropped and comes again.
        found: Position,
    },
    /// Messages are missing over MQTT, where nothing can be asked for again: `found` is handed over next, and what lies between
    /// only if it still comes.
    Missed {
        /// The channel.
        channel: Channel,
        /// The last position that came.
        after: Position,
        /// What came instead of the next one.
        found: Position,
    },
    /// The server refused to continue a subscription after a cut; the subscription is over.
    Refused {
        /// The channel.
        channel: Channel,
        /// Why.
        fault: Fault,
    },
    /// The connection is gone, or another attempt to connect failed.
    Disconnected {
        /// Why.
        reason: String,
        /// Whether the server planned it: nothing is wrong.
        planned: bool,
        /// How long the client waits before it connects again.
        reconnect_in: Duration,
    },
    /// Connected again; the subscriptions are being continued.
    Reconnected,
    /// An error frame of API Gateway, which does not say which request it is about.
    Unclaimed {
        /// Its message.
        message: String,
    },
    /// The client is at its end; nothing follows.
    Ended(End),
}

impl Item {
    /// What a subscriber is told of what the client's rule judged.
    pub(crate) fn judged(channel: &Channel, judged: Judged<EventJson>, received_at: Instant) -> Self {
        let channel = channel.clone();
        match judged {
            Judged::Message { position, event } => Self::Delivery(Delivery { channel, position, event, received_at }),
            Judged::Gap { after, to } => Self::Notice(Notice::Gap { channel, after, to }),
            Judged::Unrecovered { since, position } => Self::Notice(Notice::Unrecovered { channel, since, position }),
            Judged::Repeat { position } => Self::Notice(Notice::Repeat { channel, position }),
            Judged::Hole { position, found } => Self::Notice(Notice::Hole { channel, position, found }),
        }
    }
}

/// Why a client is at its end.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum End {
    /// The server sent it away for good.
    #[error("the server ended the connection: {0}")]
    Bye(ErrorCode),
    /// The connection is gone and the client was told not to connect again.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The endpoint refused the token when the client came back.
    #[error("the connection was lost and not let in again: {0}")]
    Refused(String),
    /// The server will not go on, whoever asks: the channel, the query or the address is wrong.
    #[error("the server does not go on: {0}")]
    Declined(String),
}

/// The half that hands over what comes, in order. While it holds [`WAITING_ITEMS`] items the client stops reading.
#[derive(Debug)]
pub struct Incoming {
    items: mpsc::Receiver<Item>,
}

impl Incoming {
    /// The two ends of a client's way to its subscriber.
    pub(crate) fn channel() -> (mpsc::Sender<Item>, Self) {
        let (sender, items) = mpsc::channel(WAITING_ITEMS);
        (sender, Self { items })
    }

    /// The next item; none at the end.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Item> {
        self.items.recv().await
    }

    /// The next message, passing over notices; none at the end.
    ///
    /// # Cancel safety
    /// Nothing but notices is lost when the future is dropped.
    pub async fn next_delivery(&mut self) -> Option<Delivery> {
        loop {
            if let Item::Delivery(delivery) = self.next().await? {
                return Some(delivery);
            }
        }
    }
}

/// The half that ends an SSE or MQTT client. Dropping it ends the client too, without waiting for that.
#[derive(Debug)]
pub struct Subscription {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Is done when the client shall end.
pub(crate) type Stop = oneshot::Receiver<()>;

impl Subscription {
    /// Starts the task behind a client.
    pub(crate) fn start<F: Future<Output = ()> + Send + 'static>(run: impl FnOnce(Stop) -> F) -> Self {
        let (stop, stopped) = oneshot::channel();
        Self { stop, task: tokio::spawn(run(stopped)) }
    }

    /// Ends the client and waits until its connection is closed. What has come before can still be taken.
    pub async fn close(self) {
        drop(self.stop);
        // An error says that the task is at its end, which is what was asked for.
        let _ = self.task.await;
    }
}
