//! The request as the event of payload format 2.0 (AWS Lambda Developer Guide, "Invoking Lambda function URLs", "Request
//! payload format").

use std::net::SocketAddr;

use axum::http::{HeaderMap, Method, Uri, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::macros::format_description;

use super::UrlInfo;
use crate::lambda::new_trace_root;

/// Headers that belong to one connection (RFC 9110, section 7.6.1) and therefore not to the event.
const CONNECTION_HEADERS: [&str; 7] =
    ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

/// A request that arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival<'a> {
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a Bytes,
    pub(super) peer: Option<SocketAddr>,
}

/// What is new with each request.
#[derive(Clone, Debug)]
pub(super) struct RequestIds {
    pub(super) request_id: String,
    /// `Root=1-…-…`.
    pub(super) trace_root: String,
    time: OffsetDateTime,
}

impl RequestIds {
    pub(super) fn new() -> Self {
        Self { request_id: uuid::Uuid::new_v4().to_string(), trace_root: new_trace_root(), time: OffsetDateTime::now_utc() }
    }
}

impl Arrival<'_> {
    /// The event's JSON.
    pub(super) fn event(&self, info: &UrlInfo, ids: &RequestIds) -> Bytes {
        let source_ip = self.peer.map_or_else(|| "127.0.0.1".to_owned(), |peer| peer.ip().to_canonical().to_string());
        let path = self.uri.path();
        let query = self.uri.query().unwrap_or_default();
        let mut event = Map::new();
        event.insert("version".to_owned(), "2.0".into());
        event.insert("routeKey".to_owned(), "$default".into());
        event.insert("rawPath".to_owned(), path.into());
        event.insert("rawQueryString".to_owned(), query.into());
        let cookies = self.cookies();
        if !cookies.is_empty() {
            event.insert("cookies".to_owned(), cookies.into());
        }
        event.insert("headers".to_owned(), self.event_headers(info, ids, &source_ip).into());
        if !query.is_empty() {
            event.insert("queryStringParameters".to_owned(), query_parameters(query).into());
        }
        let mut http = Map::new();
        http.insert("method".to_owned(), self.method.as_str().into());
        http.insert("path".to_owned(), path.into());
        http.insert("protocol".to_owned(), "HTTP/1.1".into());
        http.insert("sourceIp".to_owned(), source_ip.into());
        if let Some(agent) = self.headers.get(header::USER_AGENT) {
            http.insert("userAgent".to_owned(), String::from_utf8_lossy(agent.as_bytes()).into());
        }
        let domain = self.host().unwrap_or_else(|| format!("{}.lambda-url.{}.on.aws", info.url_id, info.region));
        event.insert(
            "requestContext".to_owned(),
            json!({
                "accountId": "anonymous",
                "apiId": info.url_id,
                "domainName": domain,
                "domainPrefix": info.url_id,
                "http": http,
                "requestId": ids.request_id,
                "routeKey": "$default",
                "stage": "$default",
                "time": clf_time(ids.time),
                "timeEpoch": (ids.time.unix_timestamp_nanos() / 1_000_000) as i64,
            }),
        );
        let text = self.text_body();
        let is_base64 = text.is_none() && !self.body.is_empty();
        if !self.body.is_empty() {
            let body = text.map_or_else(|| BASE64.encode(self.body), str::to_owned);
            event.insert("body".to_owned(), body.into());
        }
        event.insert("isBase64Encoded".to_owned(), is_base64.into());
        Value::Object(event).to_string().into()
    }

    /// Lower-cased; what came several times is joined with commas; cookies have a place of their own.
    fn event_headers(&self, info: &UrlInfo, ids: &RequestIds, source_ip: &str) -> Map<String, Value> {
        let mut headers = Map::new();
        for name in self.headers.keys() {
            if name == header::COOKIE || CONNECTION_HEADERS.contains(&name.as_str()) {
                continue;
            }
            headers.insert(name.as_str().to_owned(), self.joined(name.as_str(), ",").into());
        }
        let forwarded_for = match self.headers.contains_key("x-forwarded-for") {
            true => format!("{}, {source_ip}", self.joined("x-forwarded-for", ", ")),
            false => source_ip.to_owned(),
        };
        headers.insert("x-amzn-trace-id".to_owned(), ids.trace_root.as_str().into());
        headers.insert("x-forwarded-for".to_owned(), forwarded_for.into());
        headers.insert("x-forwarded-port".to_owned(), info.port.to_string().into());
        headers.insert("x-forwarded-proto".to_owned(), "http".into());
        headers
    }

    fn cookies(&self) -> Vec<String> {
        let joined = self.joined(header::COOKIE.as_str(), ";");
        joined.split(';').map(str::trim).filter(|cookie| !cookie.is_empty()).map(str::to_owned).collect()
    }

    fn joined(&self, name: &str, separator: &str) -> String {
        let values: Vec<_> = self.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        values.join(separator)
    }

    /// The host that the client named, so that a function which makes links to itself makes ones that work.
    fn host(&self) -> Option<String> {
        let named = self.headers.get(header::HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
        named.or_else(|| self.uri.authority().map(ToString::to_string))
    }

    /// The body as text, where its content type is one that Lambda takes for text.
    fn text_body(&self) -> Option<&str> {
        let content_type = self.headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let is_text = essence.starts_with("text/")
            || matches!(essence.as_str(), "application/json" | "application/xml" | "application/javascript");
        if !is_text {
            return None;
        }
        std::str::from_utf8(self.body).ok()
    }
}

/// Decoded names and values; values of one name joined with commas.
fn query_parameters(query: &str) -> Map<String, Value> {
    let mut parameters: Map<String, Value> = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decode(name), decode(value));
        let joined = match parameters.get(&name).and_then(Value::as_str) {
            Some(earlier) => format!("{earlier},{value}"),
            None => value,
        };
        parameters.insert(name, joined.into());
    }
    parameters
}

fn decode(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

/// The time as in a web server's log: `12/Mar/2020:19:03:58 +0000`.
fn clf_time(time: OffsetDateTime) -> String {
    let format = format_description!("[day]/[month repr:short]/[year]:[hour]:[minute]:[second] +0000");
    time.format(format).expect("a time in UTC has every part of the format")
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn info() -> UrlInfo {
        UrlInfo { url_id: "abcdefghijklmnopqrstuvwxyz012345".to_owned(), region: "us-east-1".to_owned(), port: 3001 }
    }

    fn ids() -> RequestIds {
        RequestIds {
            request_id: "9b62a97b-89aa-41e8-8e90-9bc10da2e7b4".to_owned(),
            trace_root: "Root=1-5eb33c07-de25b420912dee103a5db434".to_owned(),
            time: datetime!(2020-03-12 19:03:58.390 UTC),
        }
    }

    fn event(request: http::request::Builder, body: &'static [u8]) -> Value {
        let request = request.body(Bytes::from_static(body)).expect("a request");
        let arrival = Arrival {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            body: request.body(),
            peer: Some("192.0.2.7:40000".parse().expect("an address")),
        };
        serde_json::from_slice(&arrival.event(&info(), &ids())).expect("the event is JSON")
    }

    fn check(request: http::request::Builder, body: &'static [u8], golden: &str) {
        let golden: Value = serde_json::from_str(golden).expect("the golden file is JSON");
        assert_eq!(event(request, body), golden);
    }

    fn to_the_url(method: &str, target: &str) -> http::request::Builder {
        http::Request::builder()
            .method(method)
            .uri(target)
            .header("Host", "abcdefghijklmnopqrstuvwxyz012345.lambda-url.us-east-1.on.aws")
            .header("User-Agent", "test/echo")
    }

    #[test]
    fn a_post_of_json_becomes_the_documented_event() {
        let request = to_the_url("POST", "/my/p%C3%A4th?parameter1=value1&parameter1=value2&parameter2=a%20b+c")
            .header("Content-Type", "application/json; charset=utf-8")
            .header("Cookie", "cookie1=a; cookie2=b")
            .header("Cookie", "cookie3=c")
            .header("X-Twice", "value1")
            .header("x-twice", "value2")
            .header("Connection", "keep-alive");
        check(request, br#"{"foo":"bar"}"#, include_str!("../../tests/golden/function_url/post_json.json"));
    }

    #[test]
    fn a_get_has_neither_body_nor_parameters() {
        check(to_the_url("GET", "/"), b"", include_str!("../../tests/golden/function_url/get.json"));
    }

    #[test]
    fn text_is_text_and_everything_else_base64() {
        let cases = [
            ("text/plain", false),
            ("TEXT/HTML; charset=utf-8", false),
            ("application/json", false),
            ("application/xml", false),
            ("application/javascript", false),
            ("application/octet-stream", true),
            ("application/x-www-form-urlencoded", true),
            ("application/cloudevents+json", true),
        ];
        for (content_type, is_base64) in cases {
            let event = event(to_the_url("POST", "/").header("Content-Type", content_type), b"hi");
            assert_eq!(event["isBase64Encoded"], is_base64, "{content_type}");
            assert_eq!(event["body"], if is_base64 { "aGk=" } else { "hi" }, "{content_type}");
        }
        let untyped = event(to_the_url("POST", "/"), b"hi");
        assert_eq!(untyped["isBase64Encoded"], true);
        let broken = event(to_the_url("POST", "/").header("Content-Type", "text/plain"), b"\xff\xfe");
        assert_eq!((broken["isBase64Encoded"].as_bool(), broken["body"].as_str()), (Some(true), Some("//4=")));
    }

    #[test]
    fn proxies_before_the_url_are_kept() {
        let event = event(to_the_url("GET", "/").header("X-Forwarded-For", "198.51.100.1"), b"");
        assert_eq!(event["headers"]["x-forwarded-for"], "198.51.100.1, 192.0.2.7");
    }

    #[test]
    fn parameters_without_values_are_empty() {
        let event = event(to_the_url("GET", "/?flag&=x&a=1&a="), b"");
        assert_eq!(event["queryStringParameters"], json!({ "flag": "", "": "x", "a": "1," }));
        assert_eq!(event["rawQueryString"], "flag&=x&a=1&a=");
    }
}
