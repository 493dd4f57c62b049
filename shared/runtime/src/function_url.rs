//! What a function URL hands over: payload format 2.0
//! (<https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html>).
//!
//! Only what is read is named. The types of `aws_lambda_events` refuse a whole event for one header value that is not ASCII.

use carillon_core::fault::{ErrorCode, Fault};
use carillon_core::secret::Secret;
use carillon_wire::bearer;
use serde::Deserialize;
use std::collections::BTreeMap;

/// A request.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// The path.
    pub raw_path: String,
    /// The query as it stands in the URL, without the question mark.
    #[serde(default)]
    pub raw_query_string: String,
    /// The body: text as it is, anything else in base64.
    pub body: Option<String>,
    /// Whether the body is in base64.
    #[serde(default)]
    pub is_base64_encoded: bool,
    // Function URLs write the names in lower case; others that speak the format may not.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    query_string_parameters: Option<BTreeMap<String, String>>,
    request_context: RequestContext,
}

#[derive(Deserialize)]
struct RequestContext {
    http: Line,
}

#[derive(Deserialize)]
struct Line {
    method: String,
}

impl Request {
    /// Reads the payload of an invocation.
    ///
    /// # Errors
    /// When it is no event of payload format 2.0; the log says how.
    pub fn parse(payload: &str) -> Result<Self, Fault> {
        serde_json::from_str(payload).map_err(|error| {
            // Its text would quote the request.
            let category = format!("{:?}", error.classify());
            tracing::error!(error.kind = category, "an HTTP event is not of payload format 2.0");
            Fault::internal()
        })
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.request_context.http.method
    }

    /// The value of a header; its name counts in any case.
    #[must_use]
    pub fn header(&self, wanted: &str) -> Option<&str> {
        self.headers().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
    }

    /// The headers, each once.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Checks the token, which stands in the header or in the query: a browser's `EventSource` can set no header.
    ///
    /// # Errors
    /// `unauthorized` where neither place has the secret.
    pub fn authenticate(&self, secret: &Secret) -> Result<(), Fault> {
        let header = self.header("authorization").and_then(bearer::of_authorization);
        let query = self.query_string_parameters.as_ref().and_then(|query| query.get(bearer::QUERY_PARAMETER));
        let offered: Vec<&str> = header.into_iter().chain(query.map(String::as_str)).collect();
        if offered.iter().any(|token| secret.opens_with(token)) {
            return Ok(());
        }
        let text = if offered.is_empty() { "there is none" } else { "it opens nothing" };
        let places = "it stands in the header Authorization: Bearer, or in the query as token";
        let fault = Fault::new(ErrorCode::Unauthorized, format!("token: {text}; {places}"));
        tracing::info!(error.code = %fault.code, "an HTTP request was refused");
        Err(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "example-secret-of-at-least-32-characters";

    fn request(headers: &str, query: &str) -> Request {
        let http = r#""requestContext":{"http":{"method":"GET"}}"#;
        let text = format!(r#"{{"rawPath":"/sse","headers":{headers},"queryStringParameters":{query},{http}}}"#);
        Request::parse(&text).expect("a request")
    }

    #[test]
    fn the_token_stands_in_the_header_or_in_the_query() {
        let secret = Secret::try_new(SECRET).expect("a secret");
        let header = format!(r#"{{"Authorization":"Bearer {SECRET}"}}"#);
        let query = format!(r#"{{"token":"{SECRET}"}}"#);
        let wrong = r#"{"authorization":"Bearer wrong","user-agent":"Größe"}"#;
        for (headers, query) in [(header.as_str(), "null"), ("{}", &query), (wrong, &query)] {
            assert_eq!(request(headers, query).authenticate(&secret), Ok(()));
        }
        let fault = |headers| request(headers, "{}").authenticate(&secret).expect_err("no token").message;
        assert!(fault("{}").starts_with("token: there is none; "));
        assert!(fault(wrong).starts_with("token: it opens nothing; "));
        assert!(fault(&format!(r#"{{"authorization":"{SECRET}"}}"#)).starts_with("token: there is none; "));
    }

    #[test]
    fn what_is_no_request_is_our_fault() {
        for payload in ["{}", "7", r#"{"rawPath":"/","requestContext":{}}"#] {
            assert_eq!(Request::parse(payload).err().expect(payload).code, ErrorCode::Internal);
        }
    }
}
