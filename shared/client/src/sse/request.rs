//! One request for a stream: from a URL, a token and a place to begin to an open stream, or to the reason why not.

use super::{ConnectError, Options};
use crate::requests;
use carillon_core::channel::Channel;
use carillon_core::position::Position;
use carillon_wire::http::decode_answer;
use carillon_wire::sse::{CONTENT_TYPE as EVENT_STREAM, LAST_EVENT_ID};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Response, Url};
use std::time::Duration;
use tokio::time::timeout;

/// How long the first byte of the answer may take: a function may need to start, and Lambda gives it ten seconds for that (AWS Lambda
/// Developer Guide, "Lambda execution environment lifecycle"); the rest is for DNS, TCP and TLS.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest body of a refusal that is read.
const REFUSAL_BYTES: usize = 16 * 1024;

/// Where a stream begins.
#[derive(Clone, Debug)]
pub(super) enum Start {
    /// At the positions; where there are none, with what comes next.
    Positions(Vec<(Channel, Option<Position>)>),
    /// After the event with this id.
    LastEvent { channels: Vec<Channel>, id: String },
}

/// The parts of a request that stay the same.
pub(super) struct Request {
    client: Client,
    url: Url,
    authorization: Option<HeaderValue>,
}

impl Request {
    pub(super) fn new(options: &Options) -> Result<Self, ConnectError> {
        let url = requests::url(&options.url, &["sse"]).ok_or_else(|| ConnectError::Url { url: options.url.clone() })?;
        let client = requests::builder(&url).build().map_err(ConnectError::Client)?;
        let authorization = options.token.as_ref().map(|token| {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.reveal())).map_err(|_| ConnectError::Token)?;
            value.set_sensitive(true);
            Ok(value)
        });
        Ok(Self { client, url, authorization: authorization.transpose()? })
    }

    /// Asks once.
    pub(super) async fn send(&self, start: &Start) -> Result<Response, ConnectError> {
        let mut request = self.client.get(self.at(start)).header(ACCEPT, EVENT_STREAM);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Start::LastEvent { id, .. } = start {
            request = request.header(LAST_EVENT_ID, id);
        }
        let sent = timeout(ANSWER_TIMEOUT, request.send()).await;
        let response = sent.map_err(|_| ConnectError::TimedOut { after: ANSWER_TIMEOUT })?.map_err(|error| {
            let error = error.without_url();
            if error.is_connect() { ConnectError::Unreachable(error) } else { ConnectError::NoAnswer(error) }
        })?;
        if response.status() != 200 {
            return Err(refusal(response).await);
        }
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_stream = content_type.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(EVENT_STREAM));
        if is_stream { Ok(response) } else { Err(ConnectError::NoStream { found: content_type.to_owned() }) }
    }

    fn at(&self, start: &Start) -> Url {
        let mut url = self.url.clone();
        {
            let mut query = url.query_pairs_mut();
            match start {
                Start::Positions(channels) => {
                    for (channel, _) in channels {
                        query.append_pair("channel", channel.as_str());
                    }
                    if channels.iter().any(|(_, since)| since.is_some()) {
                        for (_, since) in channels {
                            query.append_pair("since", &since.map_or_else(String::new, |since| since.to_string()));
                        }
                    }
                }
                Start::LastEvent { channels, .. } => {
                    for channel in channels {
                        query.append_pair("channel", channel.as_str());
                    }
                }
            }
        }
        url
    }
}

/// Reads why the endpoint refused. A body that does not come to its end in time is told as far as it came.
async fn refusal(mut response: Response) -> ConnectError {
    let status = response.status().as_u16();
    let mut body = Vec::new();
    let reading = async {
        while let Ok(Some(part)) = response.chunk().await {
            body.extend_from_slice(&part);
            if body.len() >= REFUSAL_BYTES {
                break;
            }
        }
    };
    // The status says enough where the body is late.
    let _ = timeout(requests::CONNECT_TIMEOUT, reading).await;
    match decode_answer(&body) {
        Ok(Err(fault)) => ConnectError::Refused { status, fault },
        _ => ConnectError::Foreign { status, body: requests::beginning(&body) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Token;
    use carillon_core::position::Epoch;

    fn channels() -> Vec<Channel> {
        ["a=1/b", "c"].map(|name| Channel::parse(name).expect("a channel")).to_vec()
    }

    #[test]
    fn channels_and_positions_stand_in_the_query_in_their_order_and_the_token_does_not() {
        let token = Some(Token::new("secret"));
        let request = Request::new(&Options::new("http://127.0.0.1:1/base", token, Vec::new())).expect("a request");
        let at = |offset| Some(Position::new(Epoch(1_700), offset));
        let start = Start::Positions(channels().into_iter().zip([at(1), at(2)]).collect());
        let query = "channel=a%3D1%2Fb&channel=c";
        assert_eq!(request.at(&start).as_str(), format!("http://127.0.0.1:1/base/sse?{query}&since=1700-1&since=1700-2"));
        let start = Start::Positions(channels().into_iter().zip([None, at(2)]).collect());
        assert_eq!(request.at(&start).query(), Some(&*format!("{query}&since=&since=1700-2")), "empty where it is unknown");
        let start = Start::LastEvent { channels: channels(), id: "x".to_owned() };
        assert_eq!(request.at(&start).query(), Some(query));
    }

    #[test]
    fn what_is_no_endpoint_or_token_is_refused() {
        for url in ["ftp://a/", "no url", "data:x"] {
            assert!(matches!(Request::new(&Options::new(url, None, Vec::new())), Err(ConnectError::Url { .. })), "{url}");
        }
        let options = Options::new("http://a/", Some(Token::new("a\nb")), Vec::new());
        assert!(matches!(Request::new(&options), Err(ConnectError::Token)));
    }
}
