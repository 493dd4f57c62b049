//! What IoT Core does not take, and how it says so.

use std::sync::Arc;

use bytes::Bytes;
use carillon_local::calls::Calls;
use carillon_local::invoker::{InvokeError, Invoker, Outcome, StreamingOutcome};
use carillon_local::iot::{Iot, IotOptions};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::json;

use crate::harness::{allowing, mqtt_address, password, start};
use crate::raw::{Connect, Raw};

#[tokio::test]
async fn what_breaks_a_limit_ends_the_connection_with_its_reason() {
    let stack = start().await;
    for version in [4, 5] {
        let open = async || Raw::open(&stack, &Connect::new(version, "device")).await;

        let mut device = open().await;
        device.publish("a", 2, b"x").await;
        device.expect_end(0x9b).await;

        let mut device = open().await;
        device.publish("a", 0, &vec![b'x'; 128 * 1024 + 1]).await;
        device.expect_end(0x95).await;

        let mut device = open().await;
        device.publish("1/2/3/4/5/6/7/8/9", 0, b"x").await;
        device.expect_end(0x90).await;

        let mut device = open().await;
        device.publish(&"x".repeat(257), 0, b"x").await;
        device.expect_end(0x90).await;

        let mut device = open().await;
        device.subscribe(&["1", "2", "3", "4", "5", "6", "7", "8", "9"]).await;
        device.expect_end(0x97).await;

        let mut device = open().await;
        device.publish("$aws/things/x/shadow/update", 0, b"{}").await;
        device.expect_end(0x87).await;

        // What is at the limits is taken.
        let mut device = open().await;
        device.publish("1/2/3/4/5/6/7/8", 1, &vec![b'x'; 128 * 1024]).await;
        assert_eq!(device.receive().await.expect("a PUBACK"), [0x40, 2, 0, 1]);
        device.disconnect().await;
    }
    stack.shutdown().await;
}

#[tokio::test]
async fn the_51st_subscription_is_refused_and_ends_the_connection() {
    let stack = start().await;
    let mut device = Raw::open(&stack, &Connect::new(5, "device")).await;
    for number in 0..50 {
        device.subscribe(&[&format!("topic/{number}")]).await;
        assert_eq!(device.receive().await.expect("a SUBACK"), [0x90, 4, 0, 1, 0, 1]);
    }
    device.subscribe(&["topic/50"]).await;
    assert_eq!(device.receive().await.expect("a SUBACK"), [0x90, 4, 0, 1, 0, 0x97]);
    device.expect_end(0x97).await;
    stack.shutdown().await;
}

#[tokio::test]
async fn client_ids_have_limits() {
    let stack = start().await;
    for (version, client_id, clean, expected) in [
        (5, "x".repeat(128), true, 0),
        (5, "x".repeat(129), true, 0x85),
        (4, "x".repeat(129), true, 2),
        (5, "$device".to_owned(), true, 0x85),
        // An empty one is made by the server, where the session is clean or the version is 5.
        (5, String::new(), false, 0),
        (4, String::new(), true, 0),
        (4, String::new(), false, 2),
    ] {
        let connect = Connect { clean, ..Connect::new(version, &client_id) };
        let (_, connack) = Raw::connect(&stack, &connect).await;
        assert_eq!(connack, [0, expected], "MQTT {version} {client_id:?} clean {clean}");
    }
    // Another version of the protocol.
    let (_, connack) = Raw::connect(&stack, &Connect { version: 3, ..Connect::new(4, "device") }).await;
    assert_eq!(connack, [0, 1]);
    stack.shutdown().await;
}

#[tokio::test]
async fn what_no_policy_allows_ends_the_connection() {
    let stack = start().await;
    let statements = json!([
        {"Effect": "Allow", "Action": "iot:Connect", "Resource": "arn:aws:iot:us-east-1:123456789012:client/${iot:ClientId}"},
        {"Effect": "Allow", "Action": ["iot:Publish", "iot:Receive"], "Resource": "arn:aws:iot:us-east-1:123456789012:topic/mine/*"},
        {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": "arn:aws:iot:us-east-1:123456789012:topicfilter/mine/*"},
    ]);
    for (version, suback) in [(4, 0x80), (5, 0x87)] {
        let connect = Connect { password: password(&allowing(&statements)), ..Connect::new(version, "device") };
        let mut device = Raw::open(&stack, &connect).await;
        device.subscribe(&["mine/#"]).await;
        assert_eq!(device.receive().await.expect("a SUBACK").last(), Some(&1));
        device.publish("mine/a", 1, b"x").await;
        // The PUBACK and the message itself, in either order.
        let heads = [device.receive().await.expect("a packet")[0], device.receive().await.expect("a packet")[0]];
        assert!(heads.contains(&0x40) && heads.contains(&0x32), "{heads:?}");
        device.publish("yours/a", 1, b"x").await;
        device.expect_end(0x87).await;

        let mut device = Raw::open(&stack, &connect).await;
        device.subscribe(&["mine/a", "yours/#"]).await;
        let answer = device.receive().await.expect("a SUBACK");
        assert_eq!(answer[answer.len() - 2..], [1, suback]);
        device.expect_end(0x87).await;

        let nobody = Connect { password: password(&allowing(&json!([]))), ..Connect::new(version, "device") };
        let (_, connack) = Raw::connect(&stack, &nobody).await;
        assert_eq!(connack, [0, if version == 4 { 5 } else { 0x87 }]);
    }
    stack.shutdown().await;
}

#[tokio::test]
async fn what_is_no_mqtt_is_closed() {
    let stack = start().await;
    let address = mqtt_address(&stack);
    let stream = tokio::net::TcpStream::connect(&address).await.expect("it accepts");
    let (mut reader, mut writer) = stream.into_split();
    tokio::io::AsyncWriteExt::write_all(&mut writer, b"GET / HTTP/1.1\r\n\r\n").await.expect("it reads");
    let mut answer = Vec::new();
    crate::harness::within("the end", tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut answer)).await.ok();
    assert_eq!(answer, b"");
    stack.shutdown().await;
}

struct NoFunctions;

impl Invoker for NoFunctions {
    fn invoke(&self, function: &str, _: Bytes) -> BoxFuture<'static, Result<Outcome, InvokeError>> {
        let error = InvokeError::NotFound(function.to_owned());
        async { Err(error) }.boxed()
    }

    fn invoke_streaming(&self, function: &str, _: Bytes) -> BoxFuture<'static, Result<StreamingOutcome, InvokeError>> {
        let error = InvokeError::NotFound(function.to_owned());
        async { Err(error) }.boxed()
    }

    fn invoke_later(&self, function: &str, _: Bytes) -> Result<(), InvokeError> {
        Err(InvokeError::NotFound(function.to_owned()))
    }
}

#[tokio::test]
async fn without_an_authorizer_nobody_is_let_in() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let options = IotOptions {
        authorizers: Vec::new(),
        rules: Vec::new(),
        account: "123456789012".to_owned(),
        region: "us-east-1".to_owned(),
        mqtt_address: address,
        http_address: address,
        calls: Calls::default(),
    };
    let iot = Iot::start(options, Arc::new(NoFunctions));
    let serving = tokio::spawn({
        let iot = iot.clone();
        async move { iot.serve_mqtt(listener).await }
    });
    let (_, connack) = Raw::connect_to(&address.to_string(), &Connect::new(4, "device")).await;
    assert_eq!(connack, [0, 5]);
    iot.shutdown().await;
    serving.await.expect("it ends");
}
