//! The MQTT client: MQTT 5 over TCP, TLS or WebSocket, at QoS 1, with reconnection of its own (docs/protocol.md).
//!
//! MQTT has no replay: nothing before the subscribe can be asked for, and a subscriber that needs a position to go on from takes
//! WebSocket or SSE. What the broker can do is used: the session outlives the connection for [`SESSION`], so that a short cut loses
//! nothing; each message is acknowledged when the subscriber's side has room for it; and the position that every message carries
//! shows what came again and what is missing ([`order`]).

mod link;
pub mod order;
mod session;

use crate::backoff::Backoff;
use crate::items::{Incoming, Subscription};
use crate::token::Token;
use carillon_core::channel::Channel;
use carillon_core::limits::STREAM_CHANNELS;
use carillon_core::mqtt::MqttPrefix;
use link::Link;
use session::Session;
use std::collections::BTreeSet;
use std::error::Error;
use std::time::Duration;

/// Channels of one client: IoT Core lets a connection hold as many subscriptions (AWS IoT Core endpoints and quotas, "Message broker
/// limits").
pub const CHANNELS: usize = STREAM_CHANNELS;

/// How often the client shows the broker that it lives: the least that IoT Core takes (AWS IoT Core endpoints and quotas, "Keep-alive
/// interval"). A broker that does not answer counts as gone within that time.
pub const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// How long the broker keeps the session of a client that is cut off. IoT Core keeps it for an hour where a client does not say;
/// what waits there for clients that never come back is paid for.
pub const SESSION: Duration = Duration::from_secs(300);

/// The first wait is a second at least: IoT Core takes one connect a second of a client id (AWS IoT Core endpoints and quotas,
/// "Message broker limits").
const RECONNECT: Backoff = Backoff { first: Duration::from_secs(2), most: Duration::from_secs(30) };

/// How to connect.
#[derive(Clone, Debug)]
pub struct Options {
    /// `mqtt://…`, `mqtts://…`, `ws://…` or `wss://…`. On AWS: `mqtts://<IoT data endpoint>:443` or `wss://<IoT data endpoint>/mqtt`.
    pub url: String,
    /// What opens it: the password of the user `token`.
    pub token: Option<Token>,
    /// The IoT custom authorizer that checks the token, where it is not the account's default one.
    pub authorizer: Option<String>,
    /// What the stack's topics begin with.
    pub prefix: MqttPrefix,
    /// The channels, at most [`CHANNELS`].
    pub channels: Vec<Channel>,
    /// How often the client shows that it lives.
    pub keep_alive: Duration,
    /// How long to wait before connecting again; none: a cut ends the client.
    pub reconnect: Option<Backoff>,
}

impl Options {
    /// The usual options for an endpoint, the stack's prefix and channels.
    pub fn new(url: impl Into<String>, token: Option<Token>, prefix: MqttPrefix, channels: Vec<Channel>) -> Self {
        Self { url: url.into(), token, authorizer: None, prefix, channels, keep_alive: KEEP_ALIVE, reconnect: Some(RECONNECT) }
    }
}

/// Connects and subscribes; the first attempt only, so that a wrong URL or token is told at once. What comes first for each channel
/// is [`crate::items::Notice::Subscribed`]: what is published from then on comes.
///
/// # Errors
/// When the broker cannot be reached or refuses, or the options are none that it could take.
pub async fn connect(options: Options) -> Result<(Subscription, Incoming), ConnectError> {
    check(&options.channels)?;
    let client_id = link::client_id(&options.prefix);
    let link = Link::open(&options, &client_id).await?;
    let (items, incoming) = Incoming::channel();
    let session = Session::new(options, client_id, items);
    Ok((Subscription::start(|stop| session.run(link, stop)), incoming))
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is none.
    #[error("{url} is no MQTT URL; one begins with mqtt://, mqtts://, ws:// or wss://")]
    Url {
        /// The URL without its query.
        url: String,
    },
    /// No channel, or too many.
    #[error("an MQTT client has 1 to {CHANNELS} channels, and this one has {found}")]
    Channels {
        /// How many there are.
        found: usize,
    },
    /// A channel is there twice.
    #[error("channel {0} is named twice")]
    Twice(Channel),
    /// The broker refused the token.
    #[error("the broker refused the token: {reason}")]
    Token {
        /// Its reason.
        reason: String,
    },
    /// The broker refused a subscription.
    #[error("the broker refused the subscription to {channel}")]
    Subscribe {
        /// The channel.
        channel: Channel,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The handshakes took too long.
    #[error("no answer from the broker within {} s", .after.as_secs())]
    TimedOut {
        /// How long they may take.
        after: Duration,
    },
    /// No connection.
    #[error("the broker cannot be reached")]
    Unreachable(#[source] Box<dyn Error + Send + Sync>),
}

impl ConnectError {
    /// Whether the broker refused the token: another attempt with the same one ends the same way.
    #[must_use]
    pub const fn is_refused_token(&self) -> bool {
        matches!(self, Self::Token { .. })
    }

    /// Whether another attempt ends the same way.
    const fn is_permanent(&self) -> bool {
        !matches!(self, Self::TimedOut { .. } | Self::Unreachable(_))
    }
}

fn check(channels: &[Channel]) -> Result<(), ConnectError> {
    if channels.is_empty() || channels.len() > CHANNELS {
        return Err(ConnectError::Channels { found: channels.len() });
    }
    let mut seen = BTreeSet::new();
    match channels.iter().find(|channel| !seen.insert(*channel)) {
        Some(twice) => Err(ConnectError::Twice(twice.clone())),
        None => Ok(()),
    }
}
