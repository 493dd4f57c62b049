//! What API Gateway hands in and takes back:
//! <https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-lambda-proxy-integration.html>.
//!
//! Only what is read is named. The types of `aws_lambda_events` refuse a whole event for one header value that is not ASCII.

use carillon_core::fault::Fault;
use carillon_wire::http;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// One event.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Where it came from.
    pub request_context: RequestContext,
    /// The headers of the handshake; only `$connect` has them. Their names keep the client's case.
    #[serde(default, deserialize_with = "nullable")]
    pub headers: BTreeMap<String, String>,
    /// The same with all values of a repeated header.
    #[serde(default, deserialize_with = "nullable")]
    pub multi_value_headers: BTreeMap<String, Vec<String>>,
    /// The decoded query of the handshake; absent without one.
    #[serde(default, deserialize_with = "nullable")]
    pub query_string_parameters: BTreeMap<String, String>,
    /// The frame's text.
    pub body: Option<String>,
}

/// Where an event came from.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestContext {
    /// The connection's id.
    pub connection_id: String,
    /// `$connect`, `$disconnect`, `$default` or an action that has a route of its own.
    pub route_key: String,
    /// When the connection was made, in milliseconds since 1970.
    pub connected_at: Option<u64>,
}

/// What the function answers.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    /// For `$connect` the handshake's status; outside 2xx there is no connection.
    pub status_code: u16,
    /// For `$connect` headers of the handshake, of which API Gateway passes on the subprotocol.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<&'static str, String>,
    /// For a message the frame that goes back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

impl Event {
    /// Every value of the header called `name`, whatever the case of its name.
    pub(crate) fn header<'a>(&'a self, name: &str) -> Vec<&'a str> {
        let several = self.multi_value_headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let values: Vec<&str> = several.flat_map(|(_, values)| values).map(String::as_str).collect();
        if !values.is_empty() {
            return values;
        }
        self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    }
}

impl Response {
    /// All is well with the connection; of the offered subprotocols this one is spoken.
    pub(crate) fn connection(subprotocol: Option<&str>) -> Self {
        let headers = subprotocol.map(|subprotocol| ("Sec-WebSocket-Protocol", subprotocol.to_owned()));
        Self { status_code: 200, headers: headers.into_iter().collect(), body: None }
    }

    /// A frame goes back.
    pub(crate) fn reply(frame: String) -> Self {
        Self { status_code: 200, headers: BTreeMap::new(), body: Some(frame) }
    }

    /// It did not work.
    pub(crate) fn fault(fault: &Fault) -> Self {
        let answer = http::refusal(fault);
        let headers = [("Content-Type", http::ANSWER_TYPE.to_owned())].into();
        Self { status_code: answer.status, headers, body: Some(answer.body) }
    }
}

fn nullable<'text, D: Deserializer<'text>, T: Default + Deserialize<'text>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
