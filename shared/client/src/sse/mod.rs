//! The SSE client: one stream of one or many channels that comes back by itself and goes on where it was (docs/protocol.md).
//!
//! A stream ends on purpose every few minutes and is then asked for again with its last event id, as browsers do. Every channel
//! follows the client's rule ([`crate::rule`]) all the same: what came before is dropped, and where messages are missing the client
//! asks for them by position.

mod blocks;
mod frames;
mod request;
mod session;

use crate::backoff::Backoff;
use crate::items::{Incoming, Subscription};
use crate::token::Token;
use carillon_core::channel::Channel;
use carillon_core::fault::Fault;
use carillon_core::limits::STREAM_CHANNELS;
use carillon_core::position::Position;
use request::Request;
use session::Session;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a stream may be silent before it counts as dead: the server sends a comment every 15 s, and two of them and a half may
/// be late.
pub const SILENCE: Duration = Duration::from_millis(37_500);

/// Bytes of one event of a stream with its comments, at most. Ours have 30 KB; one part of a stream as the HTTP client hands it over
/// has up to 417 KB.
const BLOCK_BYTES: usize = 1024 * 1024;

/// How to connect.
#[derive(Clone, Debug)]
pub struct Options {
    /// The base URL of the streams, `http://…` or `https://…`; `/sse` is added.
    pub url: String,
    /// What opens it.
    pub token: Option<Token>,
    /// The channels, at most [`STREAM_CHANNELS`], each with the position to go on from, where there is one.
    pub channels: Vec<(Channel, Option<Position>)>,
    /// How long the stream may be silent before it counts as dead.
    pub silence: Duration,
    /// How long to wait before connecting again, at least as long as the server's `retry`; none: a cut ends the client.
    pub reconnect: Option<Backoff>,
}

impl Options {
    /// The usual options for an endpoint and channels.
    pub fn new(url: impl Into<String>, token: Option<Token>, channels: Vec<(Channel, Option<Position>)>) -> Self {
        Self { url: url.into(), token, channels, silence: SILENCE, reconnect: Some(Backoff::default()) }
    }
}

/// Connects; the first attempt only, so that a wrong URL or token is told at once. What comes first for each channel is
/// [`crate::items::Notice::Subscribed`].
///
/// # Errors
/// When the endpoint cannot be reached or refuses, or the options are none that it could take.
pub async fn connect(options: Options) -> Result<(Subscription, Incoming), ConnectError> {
    check(&options.channels)?;
    let request = Request::new(&options)?;
    let response = request.send(&request::Start::Positions(options.channels.clone())).await?;
    let (items, incoming) = Incoming::channel();
    let session = Session::new(options, request, items);
    Ok((Subscription::start(|stop| session.run(response, stop)), incoming))
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is none.
    #[error("{url} is no HTTP URL")]
    Url {
        /// The URL.
        url: String,
    },
    /// No channel, or too many.
    #[error("a stream has 1 to {STREAM_CHANNELS} channels, and this one has {found}")]
    Channels {
        /// How many there are.
        found: usize,
    },
    /// A channel is there twice.
    #[error("channel {0} is named twice")]
    Twice(Channel),
    /// The token holds what no header can carry.
    #[error("the token holds characters that no header can carry")]
    Token,
    /// The HTTP client cannot be built.
    #[error("the HTTP client cannot be built")]
    Client(#[source] reqwest::Error),
    /// No connection.
    #[error("the endpoint cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// The connection broke before the answer.
    #[error("no answer")]
    NoAnswer(#[source] reqwest::Error),
    /// No answer in time.
    #[error("no answer within {} s", .after.as_secs_f32())]
    TimedOut {
        /// How long it may take.
        after: Duration,
    },
    /// The server refused.
    #[error("{fault}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The server's code and message.
        fault: Fault,
    },
    /// The answer is not one of ours.
    #[error("the endpoint answered with HTTP status {status}: {body}")]
    Foreign {
        /// The HTTP status.
        status: u16,
        /// The beginning of its body.
        body: String,
    },
    /// The answer is good and no stream.
    #[error("the endpoint answered with the content type {found:?}, and text/event-stream is needed")]
    NoStream {
        /// Its content type.
        found: String,
    },
}

impl ConnectError {
    /// Whether the endpoint refused the token: another attempt with the same one ends the same way.
    #[must_use]
    pub const fn is_refused_token(&self) -> bool {
        matches!(self, Self::Refused { status: 401 | 403, .. } | Self::Foreign { status: 401 | 403, .. })
    }

    /// Whether another attempt ends the same way: everything but an endpoint that cannot be reached, is busy or is broken.
    const fn is_permanent(&self) -> bool {
        match self {
            Self::Refused { status, .. } | Self::Foreign { status, .. } => *status < 500 && *status != 408 && *status != 429,
            Self::Unreachable(_) | Self::NoAnswer(_) | Self::TimedOut { .. } => false,
            _ => true,
        }
    }
}

fn check(channels: &[(Channel, Option<Position>)]) -> Result<(), ConnectError> {
    if channels.is_empty() || channels.len() > STREAM_CHANNELS {
        return Err(ConnectError::Channels { found: channels.len() });
    }
    let mut seen = BTreeSet::new();
    match channels.iter().find(|(channel, _)| !seen.insert(channel)) {
        Some((twice, _)) => Err(ConnectError::Twice(twice.clone())),
        None => Ok(()),
    }
}
