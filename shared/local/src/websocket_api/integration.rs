//! The call of a function for a route, and what its answer means.

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use serde_json::Value;
use tokio::time::timeout;
use tracing::warn;

use crate::invoker::{InvokeError, Outcome};
use crate::spec::RouteSpec;

use super::Shared;
use super::limits::MESSAGE_BYTES;

/// Why a route's function gave no answer that could be used. Logged where it arises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IntegrationFailure {
    /// It failed, ran into its own time limit, answered what no WebSocket API understands, or does not exist.
    Failed,
    /// It took longer than API Gateway waits.
    TimedOut,
    /// The concurrency limit is reached.
    Throttled,
    /// The stack is shutting down.
    ShuttingDown,
}

/// Invokes the function of a route and waits for its answer, as long as API Gateway would and no longer than the API lives.
pub(super) async fn invoke(
    shared: &Shared,
    route_key: &str,
    route: &RouteSpec,
    event: Bytes,
) -> Result<Bytes, IntegrationFailure> {
    let function = route.function.as_str();
    let time_limit = shared.time_limits.integration;
    let invocation = async { timeout(time_limit, shared.invoker.invoke(function, event)).await };
    let Some(ended) = shared.stopping.run_until_cancelled(invocation).await else {
        return Err(IntegrationFailure::ShuttingDown);
    };
    match ended {
        Ok(Ok(Outcome::Success(answer))) => Ok(answer),
        Ok(Ok(Outcome::FunctionError(_))) => {
            warn!(route.key = route_key, function.name = function, "the function of a route failed");
            Err(IntegrationFailure::Failed)
        }
        Ok(Err(InvokeError::ShuttingDown)) => Err(IntegrationFailure::ShuttingDown),
        Ok(Err(error)) => {
            warn!(route.key = route_key, function.name = function, %error, "the function of a route could not be invoked");
            match error {
                InvokeError::Throttled => Err(IntegrationFailure::Throttled),
                _ => Err(IntegrationFailure::Failed),
            }
        }
        Err(_) => {
            let time_limit_ms = time_limit.as_millis();
            warn!(
                route.key = route_key,
                function.name = function,
                time_limit_ms,
                "the function of a route took longer than API Gateway waits"
            );
            Err(IntegrationFailure::TimedOut)
        }
    }
}

/// What the function of `$connect` decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConnectAnswer {
    /// The status; the connection opens with any 2xx.
    pub(super) status: StatusCode,
    /// The header `Sec-WebSocket-Protocol`, the only one that reaches the client.
    pub(super) subprotocol: Option<HeaderValue>,
}

/// The answer of a function is not what the Lambda proxy integration takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MalformedAnswer {
    #[error("the answer is not a JSON object")]
    NotAnObject,
    #[error("`statusCode` is not a number from 200 to 599")]
    Status,
    #[error("`Sec-WebSocket-Protocol` is not a text that a header can carry")]
    Subprotocol,
    #[error("`body` is not a text")]
    Body,
    #[error("`body` has {0} bytes and the limit is {MESSAGE_BYTES}")]
    BodyTooLarge(usize),
}

/// Reads the answer of `$connect`. A body and other headers are passed over: a handshake has no use for them.
pub(super) fn connect_answer(answer: &[u8]) -> Result<ConnectAnswer, MalformedAnswer> {
    let answer = object(answer)?;
    let status = match &answer["statusCode"] {
        Value::Number(number) => number.as_u64().and_then(|number| u16::try_from(number).ok()),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let status = status
        .filter(|status| (200..=599).contains(status))
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or(MalformedAnswer::Status)?;
    let single = header_of(&answer["headers"], "sec-websocket-protocol");
    let several = header_of(&answer["multiValueHeaders"], "sec-websocket-protocol").map(|values| match values {
        Value::Array(values) => values.first().unwrap_or(&Value::Null),
        other => other,
    });
    let subprotocol = match single.or(several) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(HeaderValue::from_str(text).map_err(|_| MalformedAnswer::Subprotocol)?),
        Some(_) => return Err(MalformedAnswer::Subprotocol),
    };
    Ok(ConnectAnswer { status, subprotocol })
}

/// Reads the answer of a two-way message route: the text for the client, if there is one. The status does not matter.
pub(super) fn reply(answer: &[u8]) -> Result<Option<String>, MalformedAnswer> {
    match object(answer)?["body"].take() {
        Value::Null => Ok(None),
        Value::String(body) if body.is_empty() => Ok(None),
        Value::String(body) if body.len() > MESSAGE_BYTES => Err(MalformedAnswer::BodyTooLarge(body.len())),
        Value::String(body) => Ok(Some(body)),
        _ => Err(MalformedAnswer::Body),
    }
}

fn object(answer: &[u8]) -> Result<Value, MalformedAnswer> {
    serde_json::from_slice(answer).ok().filter(Value::is_object).ok_or(MalformedAnswer::NotAnObject)
}

fn header_of<'a>(headers: &'a Value, lower_case_name: &str) -> Option<&'a Value> {
    let (_, value) = headers.as_object()?.iter().find(|(name, _)| name.eq_ignore_ascii_case(lower_case_name))?;
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn accepted(answer: &str, status: u16, subprotocol: Option<&'static str>) {
        let expected = ConnectAnswer {
            status: StatusCode::from_u16(status).expect("a status"),
            subprotocol: subprotocol.map(HeaderValue::from_static),
        };
        assert_eq!(connect_answer(answer.as_bytes()), Ok(expected), "{answer}");
    }

    #[test]
    fn an_answer_of_connect_is_its_status_and_subprotocol() {
        accepted(r#"{"statusCode":200}"#, 200, None);
        accepted(r#"{"statusCode":"204","headers":null,"multiValueHeaders":{},"body":"x"}"#, 204, None);
        accepted(r#"{"statusCode":401,"headers":{"X-Other":"1"}}"#, 401, None);
        accepted(r#"{"statusCode":200,"headers":{"Sec-WebSocket-Protocol":"carillon.v1"}}"#, 200, Some("carillon.v1"));
        accepted(r#"{"statusCode":200,"headers":{"sec-websocket-protocol":"a"}}"#, 200, Some("a"));
        accepted(r#"{"statusCode":200,"multiValueHeaders":{"SEC-WEBSOCKET-PROTOCOL":["b","c"]}}"#, 200, Some("b"));
        accepted(
            r#"{"statusCode":200,"headers":{"sec-websocket-protocol":"a"},"multiValueHeaders":{"sec-websocket-protocol":["b"]}}"#,
            200,
            Some("a"),
        );
    }

    #[test]
    fn a_malformed_answer_of_connect_names_its_fault() {
        for (answer, fault) in [
            ("", MalformedAnswer::NotAnObject),
            ("null", MalformedAnswer::NotAnObject),
            (r#""ok""#, MalformedAnswer::NotAnObject),
            ("{}", MalformedAnswer::Status),
            (r#"{"statusCode":99}"#, MalformedAnswer::Status),
            (r#"{"statusCode":101}"#, MalformedAnswer::Status),
            (r#"{"statusCode":600}"#, MalformedAnswer::Status),
            (r#"{"statusCode":200.5}"#, MalformedAnswer::Status),
            (r#"{"statusCode":200,"headers":{"Sec-WebSocket-Protocol":"a\nb"}}"#, MalformedAnswer::Subprotocol),
            (r#"{"statusCode":200,"headers":{"Sec-WebSocket-Protocol":7}}"#, MalformedAnswer::Subprotocol),
        ] {
            assert_eq!(connect_answer(answer.as_bytes()), Err(fault), "{answer}");
        }
    }

    #[test]
    fn a_reply_is_the_body_where_there_is_one() {
        for (answer, expected) in [
            (r#"{"statusCode":200,"body":"hello"}"#, Ok(Some("hello".to_owned()))),
            (r#"{"statusCode":500,"body":"hello"}"#, Ok(Some("hello".to_owned()))),
            (r#"{"statusCode":200}"#, Ok(None)),
            (r#"{"statusCode":200,"body":null}"#, Ok(None)),
            (r#"{"statusCode":200,"body":""}"#, Ok(None)),
            (r#"{"statusCode":200,"body":{"a":1}}"#, Err(MalformedAnswer::Body)),
            ("null", Err(MalformedAnswer::NotAnObject)),
            ("hello", Err(MalformedAnswer::NotAnObject)),
        ] {
            assert_eq!(reply(answer.as_bytes()), expected, "{answer}");
        }
    }

    #[test]
    fn a_reply_over_the_limit_is_refused() {
        let answer = |bytes: usize| serde_json::json!({"body": "x".repeat(bytes)}).to_string();
        assert!(reply(answer(MESSAGE_BYTES).as_bytes()).is_ok());
        assert_eq!(reply(answer(MESSAGE_BYTES + 1).as_bytes()), Err(MalformedAnswer::BodyTooLarge(MESSAGE_BYTES + 1)));
    }
}
