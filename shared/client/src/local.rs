//! The switches of a local stack: faults that its person or test asks for, `{aws}/_local/faults`.

use crate::requests;
use reqwest::{Client, StatusCode, Url};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// How long the stack may take to answer: it is on this machine, and cutting connections is all that it does.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The faults of a running local stack.
#[derive(Clone, Debug)]
pub struct Faults {
    client: Client,
    url: Url,
}

/// Whether a service is there.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It answers nobody, and its connections are cut.
    Away,
    /// It works.
    Back,
}

/// Why a switch was not read or turned.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// The URL is none.
    #[error("{url} is no HTTP URL")]
    Url {
        /// The URL.
        url: String,
    },
    /// The HTTP client cannot be built.
    #[error("the HTTP client cannot be built")]
    Client(#[source] reqwest::Error),
    /// Nothing answers there.
    #[error("the local stack does not answer")]
    Unreachable(#[source] reqwest::Error),
    /// The stack has no such switch, or refused.
    #[error("the local stack answered with HTTP status {status}: {body}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The beginning of its body.
        body: String,
    },
    /// The answer is none of ours.
    #[error("the local stack's answer cannot be read")]
    Unreadable(#[source] serde_json::Error),
}

impl Faults {
    /// The faults of the stack whose AWS endpoint is `aws`.
    ///
    /// # Errors
    /// When that is no HTTP URL.
    pub fn new(aws: &str) -> Result<Self, SwitchError> {
        let url = requests::url(aws, &["_local", "faults"]).ok_or_else(|| SwitchError::Url { url: aws.to_owned() })?;
        let client = requests::builder(&url).timeout(TIMEOUT).build().map_err(SwitchError::Client)?;
        Ok(Self { client, url })
    }

    /// Whether IoT Core is there.
    ///
    /// # Errors
    /// When the stack does not answer or has no such switch.
    pub async fn iot(&self) -> Result<State, SwitchError> {
        let body = answer(self.client.get(self.url.clone())).await?;
        let faults: FaultsBody = serde_json::from_slice(&body).map_err(SwitchError::Unreadable)?;
        Ok(faults.iot)
    }

    /// Takes IoT Core away, or brings it back. When this returns it is done.
    ///
    /// # Errors
    /// When the stack does not answer or has no such switch.
    pub async fn set_iot(&self, iot: State) -> Result<(), SwitchError> {
        let body = serde_json::to_vec(&FaultsBody { iot }).map_err(SwitchError::Unreadable)?;
        answer(self.client.post(self.url.clone()).header("content-type", "application/json").body(body)).await.map(|_| ())
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<Vec<u8>, SwitchError> {
    let unreachable = |error: reqwest::Error| SwitchError::Unreachable(error.without_url());
    let response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    let body = response.bytes().await.map_err(unreachable)?;
    if matches!(status, StatusCode::OK | StatusCode::NO_CONTENT) {
        return Ok(body.to_vec());
    }
    Err(SwitchError::Refused { status: status.as_u16(), body: requests::beginning(&body) })
}

#[derive(Deserialize, Serialize)]
struct FaultsBody {
    iot: State,
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Away => "away",
            Self::Back => "back",
        })
    }
}
