//! The function's answer as an HTTP response (AWS Lambda Developer Guide, "Invoking Lambda function URLs", "Response payload
//! format").

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::prelude::Prelude;

/// Headers that the HTTP server makes itself; a function cannot set them.
const SERVER_HEADERS: [&str; 5] = ["connection", "content-length", "keep-alive", "transfer-encoding", "upgrade"];

/// The parts of a response.
#[derive(Debug)]
pub(super) struct Parts {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// Why an answer is no response.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResponseError {
    #[error("the answer is not JSON")]
    NotJson(#[source] serde_json::Error),
    #[error("the answer has a statusCode, but is not the JSON of a response")]
    NotResponse(#[source] serde_json::Error),
    #[error("statusCode {0} is not a number from 100 to 999")]
    StatusCode(u16),
    #[error("isBase64Encoded is true and the body is not base64")]
    NotBase64(#[source] base64::DecodeError),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    status_code: u16,
    #[serde(default)]
    headers: Option<Map<String, Value>>,
    #[serde(default)]
    cookies: Option<Vec<String>>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: Option<bool>,
}

impl Parts {
    /// The response in a buffered answer. JSON without a `statusCode` is the body itself, and a JSON string its text.
    ///
    /// # Errors
    /// [`ResponseError`].
    pub(super) fn of_payload(payload: &Bytes) -> Result<Self, ResponseError> {
        let value: Value = serde_json::from_slice(payload).map_err(ResponseError::NotJson)?;
        let answer: Answer = match value {
            Value::String(text) => return Ok(Self::inferred(text.into())),
            Value::Object(object) if object.contains_key("statusCode") => {
                serde_json::from_value(Value::Object(object)).map_err(ResponseError::NotResponse)?
            }
            _ => return Ok(Self::inferred(payload.clone())),
        };
        let body = answer.body.unwrap_or_default();
        let body = match answer.is_base64_encoded {
            Some(true) => BASE64.decode(&body).map_err(ResponseError::NotBase64)?.into(),
            _ => body.into(),
        };
        Ok(Self {
            status: StatusCode::from_u16(answer.status_code).map_err(|_| ResponseError::StatusCode(answer.status_code))?,
            headers: headers(&answer.headers.unwrap_or_default(), &answer.cookies.unwrap_or_default(), "application/json"),
            body,
        })
    }

    /// The response that a stream's prelude announces, without a body. An impossible status becomes 502.
    pub(super) fn of_prelude(prelude: Prelude) -> Self {
        Self {
            status: StatusCode::from_u16(prelude.status_code).unwrap_or(StatusCode::BAD_GATEWAY),
            headers: headers(&prelude.headers, &prelude.cookies, "application/octet-stream"),
            body: Bytes::new(),
        }
    }

    pub(super) fn into_response(self) -> Response {
        let body = Body::from(self.body.clone());
        self.into_response_with(body)
    }

    pub(super) fn into_response_with(self, body: Body) -> Response {
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }

    fn inferred(body: Bytes) -> Self {
        Self { status: StatusCode::OK, headers: headers(&Map::new(), &[], "application/json"), body }
    }
}

fn headers(given: &Map<String, Value>, cookies: &[String], default_content_type: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        // AWS documents one string for each name; runtimes also write numbers, and lists where a header comes twice.
        let values = match value {
            Value::Array(values) => values.as_slice(),
            value => std::slice::from_ref(value),
        };
        for value in values {
            let text = match value {
                Value::Null => continue,
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            append(&mut headers, name, &text);
        }
    }
    for cookie in cookies {
        append(&mut headers, header::SET_COOKIE.as_str(), cookie);
    }
    headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static(default_content_type));
    headers
}

fn append(headers: &mut HeaderMap, name: &str, value: &str) {
    let parsed = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_bytes(value.as_bytes()).ok());
    match parsed {
        Some((name, _)) if SERVER_HEADERS.contains(&name.as_str()) => {}
        Some((name, value)) => {
            headers.append(name, value);
        }
        None => {
            tracing::warn!(header.name = name, "a header of the function's answer was left out: HTTP forbids its name or value");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(payload: &'static str) -> Parts {
        Parts::of_payload(&Bytes::from_static(payload.as_bytes())).expect("a response")
    }

    #[test]
    fn answers_without_a_status_code_are_bodies() {
        // Content and length as recorded from AWS, see tests/golden/function_url/README.md.
        let cases = [
            (r#"{"hello":"world"}"#, r#"{"hello":"world"}"#),
            (r#"["hello",3,true]"#, r#"["hello",3,true]"#),
            (r#""hello""#, "hello"),
            ("3", "3"),
            ("3.1", "3.1"),
            ("true", "true"),
        ];
        for (payload, body) in cases {
            let parts = parts(payload);
            assert_eq!(parts.status, StatusCode::OK);
            assert_eq!(parts.headers[header::CONTENT_TYPE], "application/json");
            assert_eq!(parts.body, body, "{payload}");
        }
    }

    #[test]
    fn a_response_is_taken_apart() {
        let parts = parts(
            r#"{"statusCode":201,"headers":{"Content-Type":"text/plain","X-Number":7,"Content-Length":"99"},
                "cookies":["a=1; Secure","b=2"],"body":"aGk=","isBase64Encoded":true}"#,
        );
        assert_eq!(parts.status, StatusCode::CREATED);
        assert_eq!(parts.headers[header::CONTENT_TYPE], "text/plain");
        assert_eq!(parts.headers["x-number"], "7");
        assert!(!parts.headers.contains_key(header::CONTENT_LENGTH), "the server counts itself");
        let cookies: Vec<_> = parts.headers.get_all(header::SET_COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; Secure", "b=2"]);
        assert_eq!(parts.body, "hi");
    }

    #[test]
    fn a_status_code_alone_is_enough() {
        let parts = parts(r#"{"statusCode":204,"headers":null,"body":null}"#);
        assert_eq!((parts.status, parts.body.len()), (StatusCode::NO_CONTENT, 0));
    }

    #[test]
    fn what_is_no_response_is_an_error() {
        for payload in [
            "not json",
            r#"{"statusCode":"many"}"#,
            r#"{"statusCode":99}"#,
            r#"{"statusCode":200,"body":{"not":"text"}}"#,
            r#"{"statusCode":200,"body":"***","isBase64Encoded":true}"#,
        ] {
            let result = Parts::of_payload(&Bytes::from_static(payload.as_bytes()));
            assert!(result.is_err(), "{payload}");
        }
    }

    #[test]
    fn a_header_that_http_forbids_is_left_out() {
        let parts = parts(r#"{"statusCode":200,"headers":{"bad name":"x","good":"a\r\nb","fine":"yes"}}"#);
        assert!(!parts.headers.contains_key("good"));
        assert_eq!(parts.headers["fine"], "yes");
    }
}
