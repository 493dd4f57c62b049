//! Cross-origin requests, which the URL answers itself as its configuration says (AWS Lambda Developer Guide, "Cross-origin
//! resource sharing (CORS)" of function URLs; the protocol is that of the Fetch standard).

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::spec::CorsSpec;

/// What a URL lets browsers do.
#[derive(Clone, Debug)]
pub(super) struct Cors {
    spec: CorsSpec,
}

impl Cors {
    pub(super) fn new(spec: CorsSpec) -> Self {
        Self { spec }
    }

    /// The answer to a preflight, which never reaches the function; nothing for any other request. An origin that is not
    /// allowed gets an answer that allows nothing.
    pub(super) fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Response> {
        let asked_method = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
        let origin = headers.get(header::ORIGIN)?;
        if method != Method::OPTIONS {
            return None;
        }
        let mut response = StatusCode::OK.into_response();
        let answer = response.headers_mut();
        answer.insert(header::VARY, HeaderValue::from_static("Origin"));
        let Some(allowed) = self.allowed_origin(origin) else {
            return Some(response);
        };
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        self.credentials(answer);
        let asked_headers = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
        self.list(answer, header::ACCESS_CONTROL_ALLOW_METHODS, &self.spec.allow_methods, Some(asked_method));
        self.list(answer, header::ACCESS_CONTROL_ALLOW_HEADERS, &self.spec.allow_headers, asked_headers);
        if let Some(seconds) = self.spec.max_age {
            answer.insert(header::ACCESS_CONTROL_MAX_AGE, seconds.into());
        }
        Some(response)
    }

    /// Adds what the page may see to the function's answer. Headers that the function set itself stay, so that a function
    /// that does CORS behind a URL that does it too sends them twice, as on AWS.
    pub(super) fn expose(&self, answer: &mut HeaderMap, origin: &HeaderValue) {
        answer.append(header::VARY, HeaderValue::from_static("Origin"));
        let Some(allowed) = self.allowed_origin(origin) else {
            return;
        };
        answer.append(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        self.credentials(answer);
        self.list(answer, header::ACCESS_CONTROL_EXPOSE_HEADERS, &self.spec.expose_headers, None);
    }

    /// The origin, or `*` where every origin is allowed. With credentials a browser takes no `*` (Fetch standard, "CORS
    /// protocol and credentials"), so the origin itself then.
    fn allowed_origin(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        let any = self.spec.allow_origins.iter().any(|allowed| allowed == "*");
        if any && !self.spec.allow_credentials {
            return Some(HeaderValue::from_static("*"));
        }
        let listed = self.spec.allow_origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes());
        (any || listed).then(|| origin.clone())
    }

    fn credentials(&self, answer: &mut HeaderMap) {
        if self.spec.allow_credentials {
            answer.append(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }

    /// A list as it is configured; `*` becomes what was asked for where a browser would take it literally.
    fn list(&self, answer: &mut HeaderMap, name: HeaderName, values: &[String], asked: Option<&HeaderValue>) {
        if values.is_empty() {
            return;
        }
        let any = values.iter().any(|value| value == "*");
        let value = match asked {
            Some(asked) if any && self.spec.allow_credentials => Ok(asked.clone()),
            _ => HeaderValue::from_str(&values.join(",")),
        };
        match value {
            Ok(value) => {
                answer.append(name, value);
            }
            Err(_) => {
                tracing::warn!(header.name = %name, "a list of the URL's CORS configuration has characters that HTTP forbids");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    fn cors(origins: &[&str], credentials: bool) -> Cors {
        Cors::new(CorsSpec {
            allow_origins: list(origins),
            allow_methods: list(&["GET", "POST"]),
            allow_headers: list(&["*"]),
            expose_headers: list(&["x-position"]),
            allow_credentials: credentials,
            max_age: Some(300),
        })
    }

    fn preflight(cors: &Cors, origin: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
        headers.insert(header::ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("POST"));
        headers.insert(header::ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static("x-one"));
        let response = cors.preflight(&Method::OPTIONS, &headers).expect("it is a preflight");
        assert_eq!(response.status(), StatusCode::OK);
        response.headers().clone()
    }

    #[test]
    fn a_listed_origin_is_named() {
        let headers = preflight(&cors(&["https://a.example", "https://b.example"], false), "https://b.example");
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://b.example");
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_METHODS], "GET,POST");
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_HEADERS], "*");
        assert_eq!(headers[header::ACCESS_CONTROL_MAX_AGE], "300");
        assert!(!headers.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
    }

    #[test]
    fn another_origin_is_allowed_nothing() {
        let headers = preflight(&cors(&["https://a.example"], false), "https://evil.example");
        assert!(!headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
        assert!(!headers.contains_key(header::ACCESS_CONTROL_ALLOW_METHODS));
    }

    #[test]
    fn wildcards_are_spelt_out_where_credentials_are_allowed() {
        assert_eq!(preflight(&cors(&["*"], false), "https://a.example")[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        let headers = preflight(&cors(&["*"], true), "https://a.example");
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://a.example");
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_HEADERS], "x-one");
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
    }

    #[test]
    fn other_requests_are_no_preflights() {
        let cors = cors(&["*"], false);
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, HeaderValue::from_static("https://a.example"));
        assert!(cors.preflight(&Method::OPTIONS, &headers).is_none(), "no method was asked for");
        headers.insert(header::ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("POST"));
        assert!(cors.preflight(&Method::POST, &headers).is_none(), "not OPTIONS");
    }
}
