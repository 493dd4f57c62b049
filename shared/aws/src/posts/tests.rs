//! The POST made by hand against the SDK's own.

use super::ApiGatewayPosts;
use crate::config::AwsConfig;
use crate::environment::Environment;
use aws_sdk_apigatewaymanagement::Client;
use aws_sdk_apigatewaymanagement::config::Builder;
use aws_sdk_apigatewaymanagement::config::ConfigBag;
use aws_sdk_apigatewaymanagement::config::Intercept;
use aws_sdk_apigatewaymanagement::config::RuntimeComponents;
use aws_sdk_apigatewaymanagement::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_apigatewaymanagement::primitives::Blob;
use aws_smithy_async::time::{SharedTimeSource, TimeSource};
use aws_smithy_runtime_api::box_error::BoxError;
use carillon_core::connection::ConnectionId;
use carillon_engine::ports::Posts;
use carillon_engine::rows::PostOutcome;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Ids, bodies and times for each kind of credentials and each address.
const CASES: usize = 60;

/// The last second of the year 2099.
const LATEST: u64 = 4_102_444_799;

/// What the SDK says about itself and its tries, and the adapter does not.
const ABOUT_THE_SDK: [&str; 3] = ["amz-sdk-invocation-id", "amz-sdk-request", "user-agent"];

#[tokio::test]
async fn what_is_sent_is_what_the_sdk_sends() {
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for (token, stage) in
        [(None, "/prod"), (Some("IQoJb3JpZ2luX2VjE/token+with/all=="), "/prod/"), (Some("t"), ""), (None, "/a/$default@~")]
    {
        let server = Recorder::start().await;
        let clock = SetClock::default();
        let config = config(&format!("{}{stage}", server.address), token, clock.clone());
        let posts = ApiGatewayPosts::new(&config).expect("whole");
        let sdk = Client::from_conf(Builder::from(config.sdk()).interceptor(WithoutUserAgent).build());
        for _ in 0..CASES {
            clock.set(random.random_range(0..LATEST));
            let (connection, frame) = (connection(&mut random), frame(&mut random));
            let data = Blob::new(frame.as_bytes());
            sdk.post_to_connection().connection_id(connection.as_str()).data(data).send().await.expect("taken");
            let theirs = server.take();
            // Twice, for what is kept from the first.
            for _ in 0..2 {
                assert_eq!(posts.post(&connection, &frame).await.expect("an answer"), PostOutcome::Taken);
                let mut ours = server.take();
                let agent = ours.headers.remove("user-agent").expect("a name");
                assert!(agent.starts_with("carillon/"), "{agent}");
                assert!(ours.headers["authorization"].starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"), "{ours:?}");
                let mut theirs = theirs.without(&ABOUT_THE_SDK);
                assert!(ours.body == theirs.body && ours.body == frame.as_bytes(), "another body");
                (ours.body, theirs.body) = Default::default();
                assert_eq!(ours, theirs);
            }
        }
    }
}

#[tokio::test]
async fn a_new_day_has_a_new_key_and_an_old_one_again_its_own() {
    let server = Recorder::start().await;
    let clock = SetClock::default();
    let config = config(&server.address, None, clock.clone());
    let posts = ApiGatewayPosts::new(&config).expect("whole");
    let sdk = Client::from_conf(Builder::from(config.sdk()).interceptor(WithoutUserAgent).build());
    let (connection, frame) = (ConnectionId::try_new("id=").expect("an id"), Arc::from("{}"));
    // Midnight, the second before it, the one after it, back again, and the same second of another day.
    for second in [86_400_u64, 86_399, 86_401, 86_399, 172_799] {
        clock.set(second);
        posts.post(&connection, &frame).await.expect("an answer");
        let ours = server.take();
        sdk.post_to_connection().connection_id("id=").data(Blob::new("{}")).send().await.expect("taken");
        assert_eq!(ours.headers["authorization"], server.take().headers["authorization"], "{second}");
    }
}

#[tokio::test]
async fn one_connection_serves_one_post_after_the_other() {
    let server = Recorder::start().await;
    let posts = ApiGatewayPosts::new(&config(&server.address, None, SetClock::default())).expect("whole");
    let connection = ConnectionId::try_new("id=").expect("an id");
    for _ in 0..20 {
        posts.post(&connection, &Arc::from("{}")).await.expect("an answer");
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn an_id_that_no_path_can_name_is_gone() {
    let posts = ApiGatewayPosts::new(&config("http://127.0.0.1:1/prod", None, SetClock::default())).expect("whole");
    for id in [".", ".."] {
        let connection = ConnectionId::try_new(id).expect("visible");
        assert_eq!(posts.post(&connection, &Arc::from("{}")).await.expect("no call"), PostOutcome::Gone);
    }
}

#[test]
fn addresses_that_no_signature_is_right_for_are_refused() {
    for (path, fault) in [
        ("/prod?a=b", "has a query"),
        ("/prod//x", "has an empty segment, '.' or '..' in its path"),
        ("/./prod", "has an empty segment, '.' or '..' in its path"),
        ("/prod/..", "has an empty segment, '.' or '..' in its path"),
    ] {
        let url = format!("http://127.0.0.1:1{path}");
        let mistakes = ApiGatewayPosts::new(&config(&url, None, SetClock::default())).expect_err(path);
        assert_eq!(mistakes.to_string(), format!("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI: '{url}' {fault}"));
    }
}

#[test]
fn credentials_that_cannot_stand_in_a_header_are_refused_and_none_is_printed() {
    let token = config("http://127.0.0.1:1", Some("hidden\ntoken"), SetClock::default());
    let mistakes = ApiGatewayPosts::new(&token).expect_err("a line break");
    assert_eq!(mistakes.to_string(), "AWS_SESSION_TOKEN: holds characters that no header may have");

    let posts = ApiGatewayPosts::new(&config("http://127.0.0.1:1", Some("hidden-token"), SetClock::default())).expect("whole");
    let text = format!("{posts:?}");
    assert!(!text.contains("hidden") && !text.contains("not-a-secret"), "{text}");
}

fn config(endpoint: &str, token: Option<&str>, clock: SetClock) -> AwsConfig {
    let environment: Environment = [
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "not-a-secret"),
        ("AWS_SESSION_TOKEN", token.unwrap_or_default()),
        ("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI", endpoint),
    ]
    .into_iter()
    .collect();
    AwsConfig::from_environment(&environment).expect("whole and well-formed").with_clock(SharedTimeSource::new(clock))
}

/// Any id but those that are a path's dots.
fn connection(random: &mut StdRng) -> ConnectionId {
    loop {
        let length = random.random_range(1..=128);
        let text: String = (0..length).map(|_| char::from(random.random_range(b'!'..=b'~'))).filter(|one| *one != '#').collect();
        if let Ok(id) = ConnectionId::try_new(text)
            && !matches!(id.as_str(), "." | "..")
        {
            return id;
        }
    }
}

/// Any text, now and then as long as a frame can be.
fn frame(random: &mut StdRng) -> Arc<str> {
    let length = if random.random_bool(0.1) { 32 * 1024 } else { random.random_range(0..2_000) };
    let mut text = String::with_capacity(length);
    while text.len() < length {
        text.push(if random.random_bool(0.9) { char::from(random.random_range(b' '..=b'~')) } else { random.random() });
    }
    text.into()
}

/// A clock that stands where it was set.
#[derive(Clone, Debug, Default)]
struct SetClock(Arc<AtomicU64>);

impl SetClock {
    fn set(&self, second: u64) {
        self.0.store(second, Ordering::Relaxed);
    }
}

impl TimeSource for SetClock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

/// Takes from the SDK's request what it signs and the adapter does not send.
#[derive(Debug)]
struct WithoutUserAgent;

impl Intercept for WithoutUserAgent {
    fn name(&self) -> &'static str {
        "WithoutUserAgent"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        context.request_mut().headers_mut().remove("x-amz-user-agent");
        Ok(())
    }
}

/// Answers every request with 200 and keeps what came.
struct Recorder {
    address: String,
    recorded: Arc<Mutex<Recorded>>,
}

#[derive(Default)]
struct Recorded {
    connections: usize,
    requests: Vec<Sent>,
}

/// A request as it was on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sent {
    line: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Sent {
    fn without(&self, names: &[&str]) -> Self {
        let mut rest = self.clone();
        for name in names {
            assert!(rest.headers.remove(*name).is_some(), "the SDK sends {name}: {self:?}");
        }
        rest
    }
}

impl Recorder {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let recorded = Arc::new(Mutex::new(Recorded::default()));
        let accepting = Arc::clone(&recorded);
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.expect("a connection");
                accepting.lock().expect("no panic").connections += 1;
                tokio::spawn(record(socket, Arc::clone(&accepting)));
            }
        });
        Self { address, recorded }
    }

    /// The one request since the last time.
    fn take(&self) -> Sent {
        let mut requests = std::mem::take(&mut self.recorded.lock().expect("no panic").requests);
        assert_eq!(requests.len(), 1);
        requests.remove(0)
    }

    fn connections(&self) -> usize {
        self.recorded.lock().expect("no panic").connections
    }
}

async fn record(mut socket: TcpStream, recorded: Arc<Mutex<Recorded>>) {
    let mut bytes = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            if socket.read_buf(&mut bytes).await.expect("a whole request") == 0 {
                return;
            }
        };
        let head = String::from_utf8(bytes[..end].to_vec()).expect("text");
        let mut lines = head.split("\r\n").map(str::to_owned);
        let line = lines.next().expect("a request line");
        let headers: BTreeMap<_, _> = lines
            .map(|line| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned())).expect("a header"))
            .collect();
        let length: usize = headers["content-length"].parse().expect("a length");
        while bytes.len() < end + 4 + length {
            assert!(socket.read_buf(&mut bytes).await.expect("a whole body") > 0, "the body broke off");
        }
        let body = bytes[end + 4..end + 4 + length].to_vec();
        bytes.drain(..end + 4 + length);
        recorded.lock().expect("no panic").requests.push(Sent { line, headers, body });
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.expect("the client waits");
    }
}
