//! Function URLs over HTTP: with the real function, and with one that answers what a test tells it.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use carillon_local::function_url::{UrlInfo, router};
use carillon_local::invoker::{InvokeError, Invoker, Outcome, StreamBroken, StreamingOutcome};
use carillon_local::lambda::Functions;
use carillon_local::lambda::limits::MAX_SYNCHRONOUS_PAYLOAD_BYTES;
use carillon_local::spec::{CorsSpec, FunctionUrlSpec};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::harness::{Answer, Folder, Server, begin, end, function, lines, send, start, until, within};

const WITH_PRELUDE: &str = "application/vnd.awslambda.http-integration-response";

fn info() -> UrlInfo {
    UrlInfo { url_id: "abcdefghijklmnopqrstuvwxyz012345".to_owned(), region: "us-east-1".to_owned(), port: 3001 }
}

async fn serve(streaming: bool, cors: Option<CorsSpec>, invoker: Arc<dyn Invoker>) -> Server {
    Server::start(router(&FunctionUrlSpec { streaming, cors }, "Probe", invoker, info())).await
}

async fn real(streaming: bool) -> (Functions, Server) {
    let functions = start(function());
    let server = serve(streaming, None, Arc::new(functions.clone())).await;
    (functions, server)
}

/// Answers what it was told and remembers the events.
#[derive(Default)]
struct Scripted {
    outcome: Mutex<Option<Result<Outcome, InvokeError>>>,
    stream: Mutex<Option<Result<StreamingOutcome, InvokeError>>>,
    events: Mutex<Vec<Value>>,
}

impl Scripted {
    fn answering(outcome: Result<Outcome, InvokeError>) -> Arc<Self> {
        Arc::new(Self { outcome: Mutex::new(Some(outcome)), ..Self::default() })
    }

    fn streaming(outcome: Result<StreamingOutcome, InvokeError>) -> Arc<Self> {
        Arc::new(Self { stream: Mutex::new(Some(outcome)), ..Self::default() })
    }

    fn note(&self, payload: &Bytes) {
        let event = serde_json::from_slice(payload).expect("events are JSON");
        self.events.lock().expect("no test panics with it").push(event);
    }
}

impl Invoker for Scripted {
    fn invoke(&self, function: &str, payload: Bytes) -> BoxFuture<'static, Result<Outcome, InvokeError>> {
        assert_eq!(function, "Probe");
        self.note(&payload);
        let outcome = self.outcome.lock().expect("no test panics with it").clone().expect("a buffered answer");
        async move { outcome }.boxed()
    }

    fn invoke_streaming(&self, function: &str, payload: Bytes) -> BoxFuture<'static, Result<StreamingOutcome, InvokeError>> {
        assert_eq!(function, "Probe");
        self.note(&payload);
        let outcome = self.stream.lock().expect("no test panics with it").take().expect("one stream");
        async move { outcome }.boxed()
    }

    fn invoke_later(&self, _: &str, _: Bytes) -> Result<(), InvokeError> {
        panic!("a URL waits for its function")
    }
}

fn success(payload: &'static str) -> Result<Outcome, InvokeError> {
    Ok(Outcome::Success(Bytes::from_static(payload.as_bytes())))
}

fn stream_of(content_type: &str, chunks: Vec<Result<Bytes, StreamBroken>>) -> Result<StreamingOutcome, InvokeError> {
    let (sender, body) = mpsc::unbounded_channel();
    for chunk in chunks {
        sender.send(chunk).expect("the receiver is here");
    }
    Ok(StreamingOutcome::Started { content_type: content_type.to_owned(), body })
}

fn chunk(bytes: &'static [u8]) -> Result<Bytes, StreamBroken> {
    Ok(Bytes::from_static(bytes))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_function_gets_the_request_and_its_json_comes_back() {
    let (functions, server) = real(false).await;
    let request = Request::get(server.url("/a%2Fb?x=1&x=2")).header("cookie", "one=1; two=2").header("user-agent", "tester");
    let answer = send(request, String::new()).await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, Some("application/json")));
    let event: Value = serde_json::from_slice(&answer.body).expect("the probe answers its event");
    assert_eq!(event["rawPath"], "/a%2Fb");
    assert_eq!(event["queryStringParameters"], json!({ "x": "1,2" }));
    assert_eq!(event["cookies"], json!(["one=1", "two=2"]));
    assert_eq!(event["headers"]["cookie"], Value::Null);
    assert_eq!(event["requestContext"]["http"]["sourceIp"], "127.0.0.1");
    assert_eq!(event["requestContext"]["domainName"].as_str(), Some(server.host().as_str()));
    assert_eq!(event["requestContext"]["requestId"].as_str(), answer.header("x-amzn-requestid"));
    assert_eq!(event["headers"]["x-amzn-trace-id"].as_str(), answer.header("x-amzn-trace-id"));
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_error_says_nothing_but_502() {
    for streaming in [false, true] {
        let (functions, server) = real(streaming).await;
        for payload in [json!({ "do": "error" }), json!({ "do": "exit", "code": 1 })] {
            let answer = send(Request::post(server.url("/")), payload.to_string()).await;
            assert_eq!((answer.status, answer.text().as_str()), (StatusCode::BAD_GATEWAY, "Internal Server Error"));
        }
        end(functions).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_go_out_as_they_arrive() {
    let folder = Folder::new();
    let (functions, server) = real(true).await;
    let payload = json!({ "do": "stream", "chunks": ["one", "two"], "gate": folder.path("gate") });
    let mut response = within("the headers", begin(Request::post(server.url("/")), payload.to_string())).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["x-probe"], "yes");
    assert_eq!(response.headers()["set-cookie"], "a=b");
    let first = within("the first chunk", response.body_mut().frame()).await.expect("a frame").expect("nothing broke");
    assert_eq!(first.into_data().expect("data"), "one");
    folder.open("gate");
    let rest = within("the rest", response.into_body().collect()).await.expect("nothing broke").to_bytes();
    assert_eq!(rest, "two");
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_does_not_stop_the_function() {
    let folder = Folder::new();
    let (functions, server) = real(true).await;
    let payload = json!({ "do": "stream", "chunks": ["one", "two"], "gate": folder.path("gate"), "done": folder.path("done") });
    let mut response = within("the headers", begin(Request::post(server.url("/")), payload.to_string())).await;
    within("the first chunk", response.body_mut().frame()).await.expect("a frame").expect("nothing broke");
    drop(response);
    folder.open("gate");
    until("the end of the function's stream", || lines(&folder.path("done")).len() == 1).await;
    let answer = send(Request::get(server.url("/")), String::new()).await;
    assert_eq!(answer.status, StatusCode::OK);
    let counters = functions.counters("Probe").expect("it exists");
    assert_eq!((counters.environments_started, counters.function_errors), (1, 0), "the process went on and is used again");
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_stream_breaks_the_response() {
    let (functions, server) = real(true).await;
    let folder = Folder::new();
    let payload = json!({ "do": "stream", "chunks": ["one"], "gate": folder.path("gate"), "exit": 1 });
    let response = within("the headers", begin(Request::post(server.url("/")), payload.to_string())).await;
    assert_eq!(response.status(), StatusCode::OK);
    folder.open("gate");
    assert!(within("the break", response.into_body().collect()).await.is_err(), "the client must see that something is missing");
    end(functions).await;
}

#[tokio::test]
async fn a_stream_without_a_prelude_is_sent_as_it_is() {
    let invoker = Scripted::streaming(stream_of("text/csv", vec![chunk(b"a,b\n"), chunk(b"\0\0\0\0\0\0\0\0")]));
    let server = serve(true, None, invoker).await;
    let answer = send(Request::get(server.url("/")), String::new()).await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, Some("text/csv")));
    assert_eq!(&answer.body[..], b"a,b\n\0\0\0\0\0\0\0\0");
}

#[tokio::test]
async fn a_prelude_in_pieces_is_put_together() {
    let chunks = vec![
        chunk(b"{\"statusCode\":404,\"headers\":{\"content-type\":\"text/plain\"}"),
        chunk(b"}\0\0\0"),
        chunk(b"\0\0\0\0\0not"),
        chunk(b" here"),
    ];
    let server = serve(true, None, Scripted::streaming(stream_of(WITH_PRELUDE, chunks))).await;
    let answer = send(Request::get(server.url("/")), String::new()).await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::NOT_FOUND, Some("text/plain")));
    assert_eq!(answer.text(), "not here");
}

#[tokio::test]
async fn a_stream_whose_prelude_cannot_be_read_is_a_502() {
    let endless = (0..20).map(|_| Ok(Bytes::from(vec![b' '; 1024]))).collect();
    for chunks in [
        vec![],
        vec![chunk(b"{}\0\0")],
        vec![chunk(b"text\0\0\0\0\0\0\0\0")],
        endless,
        vec![Err(StreamBroken("late".to_owned()))],
    ] {
        let server = serve(true, None, Scripted::streaming(stream_of(WITH_PRELUDE, chunks))).await;
        let answer = send(Request::get(server.url("/")), String::new()).await;
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::BAD_GATEWAY, "Internal Server Error"));
    }
}

#[tokio::test]
async fn refusals_have_their_statuses() {
    let cases = [
        (InvokeError::Throttled, StatusCode::TOO_MANY_REQUESTS, "TooManyRequestsException"),
        (InvokeError::NotFound("Probe".to_owned()), StatusCode::FORBIDDEN, "AccessDeniedException"),
        (InvokeError::TooLarge { size: 9, limit: 8 }, StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLargeException"),
        (InvokeError::ShuttingDown, StatusCode::SERVICE_UNAVAILABLE, "ServiceException"),
    ];
    for (error, status, error_type) in cases {
        let buffered = serve(false, None, Scripted::answering(Err(error.clone()))).await;
        let streaming = serve(true, None, Scripted::streaming(Err(error))).await;
        for server in [buffered, streaming] {
            let answer = send(Request::get(server.url("/")), String::new()).await;
            assert_eq!((answer.status, answer.header("x-amzn-errortype")), (status, Some(error_type)));
            assert!(serde_json::from_slice::<Value>(&answer.body).is_ok(), "{}", answer.text());
        }
    }
    let missing = serve(false, None, Scripted::answering(Err(InvokeError::NotFound("Probe".to_owned())))).await;
    assert_eq!(send(Request::get(missing.url("/")), String::new()).await.text(), r#"{"Message":null}"#);
}

#[tokio::test]
async fn a_body_over_the_limit_never_reaches_the_function() {
    let invoker = Scripted::answering(success("{}"));
    let server = serve(false, None, invoker.clone()).await;
    let answer = send(Request::post(server.url("/")), "x".repeat(MAX_SYNCHRONOUS_PAYLOAD_BYTES + 1)).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer.text(), r#"{"Message":"Request must be smaller than 6291456 bytes for the InvokeFunction operation"}"#);
    assert!(invoker.events.lock().expect("no test panics with it").is_empty());
}

#[tokio::test]
async fn an_answer_is_a_status_headers_cookies_and_a_body() {
    let invoker = Scripted::answering(success(
        r#"{"statusCode":201,"headers":{"content-type":"image/png"},"cookies":["a=1","b=2; Secure"],"body":"AAEC","isBase64Encoded":true}"#,
    ));
    let server = serve(false, None, invoker.clone()).await;
    let answer = send(Request::get(server.url("/")), String::new()).await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::CREATED, Some("image/png")));
    assert_eq!(&answer.body[..], [0, 1, 2]);
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2; Secure"]);

    let answer = send(Request::head(server.url("/")), String::new()).await;
    assert_eq!((answer.status, answer.body.len()), (StatusCode::CREATED, 0));
    assert_eq!(answer.header("content-length"), Some("3"));
    let events = invoker.events.lock().expect("no test panics with it");
    assert_eq!(events[1]["requestContext"]["http"]["method"], "HEAD");
}

#[tokio::test]
async fn an_answer_that_is_no_json_is_a_502() {
    let server = serve(false, None, Scripted::answering(success("hello"))).await;
    assert_eq!(send(Request::get(server.url("/")), String::new()).await.status, StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn binary_bodies_are_base64() {
    let invoker = Scripted::answering(success("{}"));
    let server = serve(false, None, invoker.clone()).await;
    send(Request::put(server.url("/")).header("content-type", "application/octet-stream"), "hi".to_owned()).await;
    send(Request::put(server.url("/")).header("content-type", "text/plain"), "hi".to_owned()).await;
    let events = invoker.events.lock().expect("no test panics with it");
    let bodies: Vec<_> = events.iter().map(|event| (event["body"].as_str(), event["isBase64Encoded"].as_bool())).collect();
    assert_eq!(bodies, [(Some("aGk="), Some(true)), (Some("hi"), Some(false))]);
}

fn cors() -> CorsSpec {
    CorsSpec {
        allow_origins: vec!["https://a.example".to_owned()],
        allow_methods: vec!["GET".to_owned(), "POST".to_owned()],
        allow_headers: vec!["authorization".to_owned()],
        expose_headers: vec!["x-position".to_owned()],
        allow_credentials: true,
        max_age: Some(600),
    }
}

async fn preflight(server: &Server, origin: &str) -> Answer {
    let request = Request::builder()
        .method(Method::OPTIONS)
        .uri(server.url("/publish"))
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization");
    send(request, String::new()).await
}

#[tokio::test]
async fn the_url_answers_browsers_itself() {
    let invoker = Scripted::answering(success(r#"{"statusCode":200,"body":"hi"}"#));
    let server = serve(false, Some(cors()), invoker.clone()).await;

    let answer = preflight(&server, "https://a.example").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.example"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET,POST"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("authorization"));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(answer.header("access-control-max-age"), Some("600"));
    assert_eq!(preflight(&server, "https://evil.example").await.header("access-control-allow-origin"), None);
    assert!(invoker.events.lock().expect("no test panics with it").is_empty(), "preflights are not the function's");

    let answer = send(Request::get(server.url("/")).header("origin", "https://a.example"), String::new()).await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.example"));
    assert_eq!(answer.header("access-control-expose-headers"), Some("x-position"));
    let answer = send(Request::get(server.url("/")).header("origin", "https://evil.example"), String::new()).await;
    assert_eq!((answer.text().as_str(), answer.header("access-control-allow-origin")), ("hi", None));
    let answer = send(Request::get(server.url("/")), String::new()).await;
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn without_cors_a_preflight_is_the_functions() {
    let invoker = Scripted::answering(success(r#"{"statusCode":204}"#));
    let server = serve(false, None, invoker.clone()).await;
    assert_eq!(preflight(&server, "https://a.example").await.status, StatusCode::NO_CONTENT);
    let events = invoker.events.lock().expect("no test panics with it");
    assert_eq!(events[0]["requestContext"]["http"]["method"], "OPTIONS");
}
