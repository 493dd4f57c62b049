//! What these tests share: a stack on free ports, SDK clients, authorizers' answers, and waiting.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use aws_types::SdkConfig;
use aws_types::region::Region;
use aws_types::sdk_config::SharedHttpClient;
use bytes::Bytes;
use carillon_local::stack::{Ports, Stack, StackOptions};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// How long a condition may take. Only a failing test waits that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The options of a stack with the probe as its function, on free ports.
pub(crate) fn options() -> StackOptions {
    StackOptions {
        ports: Ports::FREE,
        prebuilt: Some(BTreeMap::from([("probe".to_owned(), crate::support::probe())])),
        ..StackOptions::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates/iot.yaml"))
    }
}

/// A stack with the probe as its function.
pub(crate) async fn start() -> Stack {
    Stack::start(options()).await.expect("the stack starts")
}

/// The address of MQTT over TCP, `host:port`.
pub(crate) fn mqtt_address(stack: &Stack) -> String {
    let url = stack.ready().mqtt.as_deref().expect("the template uses IoT Core");
    url.strip_prefix("mqtt://").expect("it is an MQTT URL").to_owned()
}

/// The address of the HTTP port, `http://host:port`.
pub(crate) fn http_address(stack: &Stack) -> String {
    let url = stack.ready().mqtt_ws.as_deref().expect("the template uses IoT Core");
    url.replace("ws://", "http://").strip_suffix("/mqtt").expect("it ends with the path").to_owned()
}

/// An authorizer's answer that lets the client in with these statements.
pub(crate) fn allowing(statements: &Value) -> Value {
    json!({
        "isAuthenticated": true,
        "principalId": "probe",
        "disconnectAfterInSeconds": 86400,
        "refreshAfterInSeconds": 86400,
        "policyDocuments": [{"Version": "2012-10-17", "Statement": statements}],
    })
}

/// A password that makes the probe, as authorizer, give this answer.
pub(crate) fn password(answer: &Value) -> String {
    json!({"do": "echo", "value": answer}).to_string()
}

/// A password that lets the client do everything.
pub(crate) fn open_password() -> String {
    password(&allowing(&json!([{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}])))
}

/// The SDK's client of the data plane at an endpoint. No retries: a test should see the first answer.
pub(crate) fn data_plane(endpoint: &str) -> aws_sdk_iotdataplane::Client {
    let http: SharedHttpClient = aws_smithy_http_client::Builder::new().build_http();
    let credentials = aws_credential_types::Credentials::new("AKIDTEST", "secret", None, None, "test");
    let config = SdkConfig::builder()
        .behavior_version(aws_sdk_iotdataplane::config::BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(aws_credential_types::provider::SharedCredentialsProvider::new(credentials))
        .identity_cache(aws_sdk_iotdataplane::config::IdentityCache::no_cache())
        .retry_config(aws_sdk_iotdataplane::config::retry::RetryConfig::disabled())
        .sleep_impl(aws_smithy_async::rt::sleep::SharedAsyncSleep::new(aws_smithy_async::rt::sleep::TokioSleep::new()))
        .time_source(aws_smithy_async::time::SharedTimeSource::new(aws_smithy_async::time::SystemTimeSource::new()))
        .http_client(http)
        .endpoint_url(endpoint)
        .build();
    aws_sdk_iotdataplane::Client::new(&config)
}

/// Sends a request by hand.
pub(crate) async fn send(request: Request<String>) -> Result<Response<Bytes>, Error> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let response = client.request(request.map(|body| Full::new(Bytes::from(body)))).await?;
    let (parts, body) = response.into_parts();
    Ok(Response::from_parts(parts, body.collect().await.expect("the body comes").to_bytes()))
}

pub(crate) fn json(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(body)))
}

/// A file of `tests/golden/iot`.
pub(crate) fn golden(name: &str) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/iot").join(name);
    json(&std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())))
}

/// The names of a JSON object's members, in their order and with those of the objects in it.
pub(crate) fn shape(value: &Value) -> Vec<String> {
    let members = value.as_object().into_iter().flatten();
    members
        .flat_map(|(name, value)| {
            std::iter::once(name.clone()).chain(shape(value).into_iter().map(move |inner| format!("{name}.{inner}")))
        })
        .collect()
}

/// Waits for something that must come.
pub(crate) async fn within<Output>(what: &str, future: impl Future<Output = Output>) -> Output {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited {PATIENCE:?} for: {what}"))
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < give_up, "waited {PATIENCE:?} for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The JSON of a file that the probe writes.
pub(crate) async fn kept(path: &Path) -> Value {
    until("the function keeps its event", || path.exists()).await;
    json(&std::fs::read(path).expect("it is readable"))
}
