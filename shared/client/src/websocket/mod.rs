//! The WebSocket client: one connection that comes back by itself and goes on where it was.
//!
//! [`connect`] gives two halves: the [`Client`] asks, [`Incoming`] hands over what comes. Take items while waiting for an answer:
//! where too many wait the client stops reading, and with it the answer. Every subscription follows the client's
//! rule ([`crate::rule`]); after a cut, and where messages are missing, the client subscribes again from its last position.

mod frames;
mod handshake;
mod session;

use crate::backoff::Backoff;
use crate::items::Incoming;
use crate::token::Token;
use carillon_core::channel::Channel;
use carillon_core::fault::Fault;
use carillon_core::position::Position;
/// What requests are answered with.
pub use carillon_wire::native::reading::{HistoryPage, Published, Subscribed};
use serde_json::value::RawValue;
use session::{Asked, Command, Session};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How long an answer may take: API Gateway lets a route's function take 29 s (Amazon API Gateway Developer Guide, "Quotas for
/// configuring and running a WebSocket API").
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the client pings: API Gateway closes a connection after ten idle minutes, and a minute is for slow clocks and networks.
pub const PING_EVERY: Duration = Duration::from_secs(9 * 60);

/// Requests that wait for the connection's task.
const WAITING_REQUESTS: usize = 64;

/// Where the token goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenPlace {
    /// `Authorization: Bearer …`.
    #[default]
    Header,
    /// `?token=…`, for clients that cannot set headers.
    Query,
    /// `bearer.…` in the list of subprotocols, for browsers.
    Subprotocol,
}

/// How to connect.
#[derive(Clone, Debug)]
pub struct Options {
    /// `ws://…` or `wss://…`, with the stage.
    pub url: String,
    /// What opens it.
    pub token: Option<Token>,
    /// Where the token goes.
    pub token_place: TokenPlace,
    /// How often to ping.
    pub ping_every: Duration,
    /// How long an answer may take.
    pub answer_timeout: Duration,
    /// How long to wait before connecting again; none: a cut ends the client.
    pub reconnect: Option<Backoff>,
}

impl Options {
    /// The usual options for an endpoint.
    pub fn new(url: impl Into<String>, token: Option<Token>) -> Self {
        Self {
            url: url.into(),
            token,
            token_place: TokenPlace::default(),
            ping_every: PING_EVERY,
            answer_timeout: ANSWER_TIMEOUT,
            reconnect: Some(Backoff::default()),
        }
    }
}

/// Connects; the first attempt only, so that a wrong URL or token is told at once.
///
/// # Errors
/// When the endpoint cannot be reached or refuses.
pub async fn connect(options: Options) -> Result<(Client, Incoming), ConnectError> {
    let socket = handshake::connect(&options).await?;
    let (commands, asked) = mpsc::channel(WAITING_REQUESTS);
    let (items, incoming) = Incoming::channel();
    tokio::spawn(Session::new(options, asked, items).run(socket));
    Ok((Client { commands }, incoming))
}

/// The half that asks. Clones share the connection, which is closed when the last of them is gone.
#[derive(Clone, Debug)]
pub struct Client {
    commands: mpsc::Sender<Command>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is none.
    #[error("{url} is no WebSocket URL")]
    Url {
        /// The URL without its query.
        url: String,
        /// Why.
        source: Box<tokio_tungstenite::tungstenite::Error>,
    },
    /// The token holds what no header can carry.
    #[error("the token holds characters that no header can carry")]
    Token,
    /// The endpoint answered the handshake with an HTTP status.
    #[error("the endpoint answered with HTTP status {status}{}", told(.body))]
    Refused {
        /// The status.
        status: u16,
        /// The beginning of the answer's body.
        body: String,
    },
    /// The handshake took too long.
    #[error("no answer to the handshake within {} s", .after.as_secs())]
    TimedOut {
        /// How long it may take.
        after: Duration,
    },
    /// No connection.
    #[error("the endpoint cannot be reached")]
    Unreachable(#[source] Box<tokio_tungstenite::tungstenite::Error>),
}

impl ConnectError {
    /// Whether the endpoint refused the token: another attempt with the same one ends the same way.
    #[must_use]
    pub const fn is_refused_token(&self) -> bool {
        matches!(self, Self::Refused { status: 401 | 403, .. })
    }
}

fn told(body: &str) -> String {
    if body.is_empty() { String::new() } else { format!(": {body}") }
}

/// Why a request has no answer, or a bad one. Only after [`RequestError::Fault`] is it known that nothing was done.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// The server refused.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// No answer in time.
    #[error("no answer within {} s", .after.as_secs_f32())]
    TimedOut {
        /// How long it may take.
        after: Duration,
    },
    /// API Gateway answered in the function's place.
    #[error("the gateway answered: {0}")]
    Gateway(String),
    /// The connection was lost before the answer.
    #[error("the connection was lost before the answer")]
    Disconnected,
    /// The answer is not the answer to this request.
    #[error("the answer cannot be read: {0}")]
    Unreadable(String),
    /// The frame is too large for API Gateway, which would close the connection.
    #[error("a frame has at most {limit} bytes, and this one has {bytes}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The client follows this channel already.
    #[error("this client is subscribed to {0} already")]
    Subscribed(Channel),
    /// The client is at its end.
    #[error("the client is closed")]
    Closed,
}

impl Client {
    /// Subscribes to a channel, from `since` where there is a position; the messages come through [`Incoming`]. The subscription
    /// holds until [`Client::unsubscribe`], over every reconnection.
    ///
    /// # Errors
    /// When the server refuses or does not answer; then there is no subscription.
    pub async fn subscribe(&self, channel: &Channel, since: Option<Position>) -> Result<Subscribed, RequestError> {
        self.ask(|answer| Command::Subscribe { channel: channel.clone(), since, answer }).await
    }

    /// Ends a subscription. Nothing of it comes any more, whatever the answer.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn unsubscribe(&self, channel: &Channel) -> Result<(), RequestError> {
        self.ask(|answer| Command::Request(Asked::Unsubscribe { channel: channel.clone(), answer })).await
    }

    /// Publishes to a channel. `event` is the JSON of the frame's `event`: any of id, source, type and data.
    ///
    /// # Errors
    /// When the server refuses or does not answer; with an id of one's own it is safe to publish again.
    pub async fn publish(&self, channel: &Channel, event: Box<RawValue>) -> Result<Published, RequestError> {
        self.ask(|answer| Command::Request(Asked::Publish { channel: channel.clone(), event, answer })).await
    }

    /// A page of a channel's history: after `from`, or from the oldest message that the namespace shows; `limit` messages at
    /// most, as many as fit without.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn history(
        &self,
        channel: &Channel,
        from: Option<Position>,
        limit: Option<usize>,
    ) -> Result<HistoryPage, RequestError> {
        self.ask(|answer| Command::Request(Asked::History { channel: channel.clone(), from, limit, answer })).await
    }

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn ping(&self) -> Result<(), RequestError> {
        self.ask(|answer| Command::Request(Asked::Ping { answer: Some(answer) })).await
    }

    /// Closes the connection and waits until that is done. What has come before can still be taken.
    pub async fn close(self) {
        let (answer, closed) = oneshot::channel();
        if self.commands.send(Command::Close { answer }).await.is_ok() {
            // An error says that the task is at its end, which is what was asked for.
            let _ = closed.await;
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<Result<T, RequestError>>) -> Command) -> Result<T, RequestError> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| RequestError::Closed)?;
        answered.await.unwrap_or(Err(RequestError::Closed))
    }
}
