//! `POST /publish`: the HTTP way to publish (docs/protocol.md).

use crate::tls;
use crate::token::Token;
use crate::websocket::WireFault;
use carillon_core::fault::Fault;
use carillon_core::position::{Epoch, Position};
use reqwest::{Client, StatusCode, Url};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::time::Duration;

/// How long a publish may take: the function's 30 s and time for it to start.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(60);

/// How long TCP and TLS may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a foreign answer's body that are told.
const BODY_BYTES: usize = 512;

/// Publishes over HTTP. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Publisher {
    client: Client,
    url: Url,
    token: Option<Token>,
}

/// A message as `POST /publish` takes it.
#[derive(Clone, Debug, Serialize)]
pub struct Message {
    /// The channel.
    pub channel: String,
    /// The event's id. With one, publishing again is safe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The event's type.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The event's data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its channel.
    pub channel: String,
    /// Its event's id.
    pub id: String,
    /// Where it stands.
    pub position: Position,
    /// Whether it was there before under the same id.
    pub duplicate: bool,
}

/// Why messages were not published, or nobody knows whether they were.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The URL is none.
    #[error("{url} is no HTTP URL")]
    Url {
        /// The URL.
        url: String,
    },
    /// The HTTP client cannot be built.
    #[error("the HTTP client cannot be built")]
    Client(#[source] reqwest::Error),
    /// No connection: nothing was published.
    #[error("the endpoint cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// The connection broke or the answer did not come in time.
    #[error("no answer")]
    NoAnswer(#[source] reqwest::Error),
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
}

impl PublishError {
    /// Whether the endpoint refused the token.
    #[must_use]
    pub const fn is_refused_token(&self) -> bool {
        matches!(self, Self::Refused { status: 401 | 403, .. } | Self::Foreign { status: 401 | 403, .. })
    }
}

impl Publisher {
    /// A publisher for the endpoint whose base URL is `base`.
    ///
    /// # Errors
    /// When `base` is no HTTP URL.
    pub fn new(base: &str, token: Option<Token>) -> Result<Self, PublishError> {
        let invalid = || PublishError::Url { url: base.to_owned() };
        let base = Url::parse(base).ok().filter(|url| matches!(url.scheme(), "http" | "https")).ok_or_else(invalid)?;
        let mut url = base;
        url.path_segments_mut().map_err(|()| invalid())?.pop_if_empty().push("publish");
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls::config().as_ref().clone())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(PUBLISH_TIMEOUT);
        // A proxy of the environment is not on this machine's own loopback.
        if matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(PublishError::Client)?;
        Ok(Self { client, url, token })
    }

    /// Publishes the messages, and answers with what became of each, in their order.
    ///
    /// # Errors
    /// When the endpoint cannot be reached or refuses. Messages with an id can safely be published again.
    pub async fn publish(&self, messages: &[Message]) -> Result<Vec<Published>, PublishError> {
        let mut request = self.client.post(self.url.clone()).header("content-type", "application/json");
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.reveal());
        }
        let body = serde_json::to_vec(messages).expect("messages have string keys and JSON values");
        let response = request.body(body).send().await.map_err(|error| {
            let error = error.without_url();
            if error.is_connect() { PublishError::Unreachable(error) } else { PublishError::NoAnswer(error) }
        })?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| PublishError::NoAnswer(error.without_url()))?;
        read(status, &body)
    }
}

fn read(status: StatusCode, body: &[u8]) -> Result<Vec<Published>, PublishError> {
    let foreign = || {
        let text = String::from_utf8_lossy(&body[..body.len().min(BODY_BYTES)]).trim().to_owned();
        PublishError::Foreign { status: status.as_u16(), body: text }
    };
    if status.is_success() {
        let answer: Results = serde_json::from_slice(body).map_err(|_| foreign())?;
        return answer.results.into_iter().map(|result| result.published().ok_or_else(foreign)).collect();
    }
    let answer: Refusal = serde_json::from_slice(body).map_err(|_| foreign())?;
    Err(PublishError::Refused { status: status.as_u16(), fault: answer.error.into() })
}

#[derive(Deserialize)]
struct Results {
    results: Vec<WireResult>,
}

#[derive(Deserialize)]
struct WireResult {
    channel: String,
    id: String,
    epoch: String,
    offset: u64,
    #[serde(default)]
    duplicate: bool,
}

impl WireResult {
    fn published(self) -> Option<Published> {
        let epoch: Epoch = self.epoch.parse().ok()?;
        let position = Position::new(epoch, self.offset);
        Some(Published { channel: self.channel, id: self.id, position, duplicate: self.duplicate })
    }
}

#[derive(Deserialize)]
struct Refusal {
    error: WireFault,
}
