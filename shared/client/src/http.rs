//! `POST /publish`: the HTTP way to publish (docs/protocol.md).

use crate::requests;
use crate::token::Token;
use carillon_core::fault::Fault;
use carillon_wire::http::{Outcome, decode_answer};
use reqwest::{Client, StatusCode, Url};
use serde::Serialize;
use serde_json::value::RawValue;
use std::time::Duration;

/// How long a publish may take: the function's 30 s and time for it to start.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(60);

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

/// Why nothing was published, or nobody knows whether it was.
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
        let url = requests::url(base, &["publish"]).ok_or_else(|| PublishError::Url { url: base.to_owned() })?;
        let client = requests::builder(&url).timeout(PUBLISH_TIMEOUT).build().map_err(PublishError::Client)?;
        Ok(Self { client, url, token })
    }

    /// Publishes the messages, and answers with what became of each, in their order: some may be published and others not.
    ///
    /// # Errors
    /// When the endpoint cannot be reached or refuses them all. Messages with an id can safely be published again.
    pub async fn publish(&self, messages: &[Message]) -> Result<Vec<Outcome>, PublishError> {
        let mut request = self.client.post(self.url.clone()).header("content-type", "application/json");
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.reveal());
        }
        // A single message goes without a list, so that an error names its fields without a place.
        let body = match messages {
            [message] => serde_json::to_vec(message),
            messages => serde_json::to_vec(messages),
        };
        let body = body.expect("messages have string keys and JSON values");
        let response = request.body(body).send().await.map_err(|error| {
            let error = error.without_url();
            if error.is_connect() { PublishError::Unreachable(error) } else { PublishError::NoAnswer(error) }
        })?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| PublishError::NoAnswer(error.without_url()))?;
        read(status, &body)
    }
}

fn read(status: StatusCode, body: &[u8]) -> Result<Vec<Outcome>, PublishError> {
    let status = status.as_u16();
    match decode_answer(body) {
        Ok(Ok(outcomes)) => Ok(outcomes),
        Ok(Err(fault)) => Err(PublishError::Refused { status, fault }),
        Err(_) => Err(PublishError::Foreign { status, body: requests::beginning(body) }),
    }
}
