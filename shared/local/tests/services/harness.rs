//! What these tests share: a stack on free ports, SDK clients, raw HTTP, and functions that are written in the test.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_types::SdkConfig;
use aws_types::region::Region;
use aws_types::sdk_config::SharedHttpClient;
use bytes::Bytes;
use carillon_local::invoker::{InvokeError, Invoker, Outcome, StreamingOutcome};
use carillon_local::stack::{Ports, Stack, StackOptions};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// How long a condition may take. Only a failing test waits that long.
const PATIENCE: Duration = Duration::from_secs(30);

/// The options of a stack with the probe as its function, on free ports.
pub(crate) fn options() -> StackOptions {
    StackOptions {
        ports: Ports::FREE,
        prebuilt: Some(BTreeMap::from([("probe".to_owned(), crate::support::probe())])),
        ..StackOptions::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates/services.yaml"))
    }
}

/// A stack with the probe as its function.
pub(crate) async fn start() -> Stack {
    Stack::start(options()).await.expect("the stack starts")
}

/// What every SDK client here is made of. No retries: a test should see the first answer.
pub(crate) fn sdk(endpoint: &str) -> SdkConfig {
    let http: SharedHttpClient = aws_smithy_http_client::Builder::new().build_http();
    let credentials = aws_credential_types::Credentials::new("AKIDTEST", "secret", None, None, "test");
    SdkConfig::builder()
        .behavior_version(aws_sdk_sqs::config::BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(aws_credential_types::provider::SharedCredentialsProvider::new(credentials))
        .identity_cache(aws_sdk_sqs::config::IdentityCache::no_cache())
        .retry_config(aws_sdk_sqs::config::retry::RetryConfig::disabled())
        .sleep_impl(aws_smithy_async::rt::sleep::SharedAsyncSleep::new(aws_smithy_async::rt::sleep::TokioSleep::new()))
        .time_source(aws_smithy_async::time::SharedTimeSource::new(aws_smithy_async::time::SystemTimeSource::new()))
        .http_client(http)
        .endpoint_url(endpoint)
        .build()
}

/// Sends a request by hand.
pub(crate) async fn send(request: Request<String>) -> Response<Bytes> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let response = client.request(request.map(|body| Full::new(Bytes::from(body)))).await.expect("the endpoint answers");
    let (parts, body) = response.into_parts();
    Response::from_parts(parts, body.collect().await.expect("the body comes").to_bytes())
}

/// Calls an action of a JSON protocol by hand.
pub(crate) async fn call(endpoint: &str, target: &str, body: &Value) -> Response<Bytes> {
    let request = Request::post(endpoint).header("x-amz-target", target).body(body.to_string());
    send(request.expect("a request")).await
}

pub(crate) fn json(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(body)))
}

/// A file of `tests/golden`.
pub(crate) fn golden(path: &str) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(path);
    json(&std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())))
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < give_up, "waited {PATIENCE:?} for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What a scripted function answers to each call.
pub(crate) type Script = Box<dyn FnMut(usize, &Value) -> Result<Outcome, InvokeError> + Send>;

/// A function that is written in the test: it keeps what it was called with.
pub(crate) struct Scripted {
    script: Mutex<Script>,
    calls: Mutex<Vec<(String, Value)>>,
}

impl Scripted {
    /// `script` gets the number of the call, from 0, and the payload.
    pub(crate) fn new(script: impl FnMut(usize, &Value) -> Result<Outcome, InvokeError> + Send + 'static) -> Arc<Self> {
        Arc::new(Self { script: Mutex::new(Box::new(script)), calls: Mutex::default() })
    }

    /// A function that answers every call with this JSON.
    pub(crate) fn answering(answer: &'static str) -> Arc<Self> {
        Self::new(move |_, _| Ok(Outcome::Success(Bytes::from_static(answer.as_bytes()))))
    }

    /// The function's name and the payload of every call.
    pub(crate) fn calls(&self) -> Vec<(String, Value)> {
        self.calls.lock().expect("no test panics with the lock").clone()
    }
}

impl Invoker for Scripted {
    fn invoke(&self, function: &str, payload: Bytes) -> BoxFuture<'static, Result<Outcome, InvokeError>> {
        let payload = json(&payload);
        let number = {
            let mut calls = self.calls.lock().expect("no test panics with the lock");
            calls.push((function.to_owned(), payload.clone()));
            calls.len() - 1
        };
        let outcome = (self.script.lock().expect("no script panics"))(number, &payload);
        async move { outcome }.boxed()
    }

    fn invoke_streaming(&self, _: &str, _: Bytes) -> BoxFuture<'static, Result<StreamingOutcome, InvokeError>> {
        unreachable!("nothing here streams")
    }

    fn invoke_later(&self, function: &str, payload: Bytes) -> Result<(), InvokeError> {
        self.calls.lock().expect("no test panics with the lock").push((function.to_owned(), json(&payload)));
        Ok(())
    }
}
