//! Custom authorizers with the probe as their function, and signed WebSockets that need none.

use carillon_local::stack::Stack;
use http::Request;
use mqtt5::MqttClient;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::client::{Client, Transport, options};
use crate::harness::{allowing, golden, http_address, json, kept, password, send, shape, start, within};
use crate::raw::{Connect, Raw};

/// A password that makes the probe keep the event and let the client in.
fn keeping(path: &std::path::Path) -> String {
    let answer = allowing(&json!([{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]));
    json!({"do": "keep", "path": path, "value": answer}).to_string()
}

/// A query that looks like one signed so many minutes ago.
fn signed_query(minutes_ago: i64) -> String {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    let date = (OffsetDateTime::now_utc() - time::Duration::minutes(minutes_ago)).format(format).expect("a date");
    format!(
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDTEST%2F20261124%2Fus-east-1%2Fiotdevicegateway%2Faws4_request\
         &X-Amz-Date={date}&X-Amz-Expires=300&X-Amz-SignedHeaders=host&X-Amz-Signature={}",
        "0".repeat(64)
    )
}

async fn handshake(stack: &Stack, query: &str, subprotocol: &str) -> (u16, Value) {
    let request = Request::get(format!("{}/mqtt?{query}", http_address(stack)))
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-protocol", subprotocol);
    let response = send(request.body(String::new()).expect("a request")).await.expect("an answer");
    (response.status().as_u16(), json(response.body()))
}

#[tokio::test]
async fn the_event_is_the_one_of_the_guide() {
    let stack = start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let expected = golden("authorizer_event.json");

    // Over WebSocket, with a token.
    let path = folder.path().join("websocket");
    let url = format!("{}?foo=bar&x-token=aToken", stack.ready().mqtt_ws.as_deref().expect("a URL"));
    let mqtt = MqttClient::with_options(options("myClientId").with_credentials("myUserName", keeping(&path)));
    within("CONNACK", mqtt.connect(&url)).await.expect("let in");
    let event = kept(&path).await;
    let mut comparable = event.clone();
    comparable["protocolData"]["http"]["headers"] = expected["protocolData"]["http"]["headers"].clone();
    assert_eq!(shape(&comparable), shape(&expected));
    assert_eq!(event["protocols"], json!(["tls", "http", "mqtt"]));
    assert_eq!(event["token"], "aToken");
    assert_eq!(event["signatureVerified"], false);
    assert_eq!(event["protocolData"]["http"]["queryString"], "?foo=bar&x-token=aToken");
    assert_eq!(event["protocolData"]["http"]["headers"]["sec-websocket-protocol"], "mqtt");
    assert_eq!(event["protocolData"]["mqtt"]["username"], "myUserName");
    assert_eq!(event["protocolData"]["mqtt"]["clientId"], "myClientId");

    // Over TCP, where there is neither.
    let path = folder.path().join("tcp");
    let client = options("myClientId").with_credentials("myUserName?x-amz-customauthorizer-name=probe", keeping(&path));
    Client::connect_with(&stack, Transport::Tcp, client).await;
    let event = kept(&path).await;
    assert_eq!(event["protocols"], json!(["tls", "mqtt"]));
    assert_eq!(event["protocolData"]["http"], Value::Null);
    assert_eq!(event.get("token"), None);
    assert_eq!(event["protocolData"]["mqtt"]["username"], "myUserName?x-amz-customauthorizer-name=probe");
    stack.shutdown().await;
}

#[tokio::test]
async fn the_answer_of_the_guide_is_taken() {
    let stack = start().await;
    let mut answer = golden("authorizer_answer.json");
    let connect = Connect { password: password(&answer), ..Connect::new(5, "device") };
    // It allows one topic to publish on, and nothing else: not even to connect.
    let (_, connack) = Raw::connect(&stack, &connect).await;
    assert_eq!(connack, [0, 0x87]);
    let policies = answer["policyDocuments"].as_array_mut().expect("a list");
    let connecting = json!({"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"});
    policies.push(json!({"Version": "2012-10-17", "Statement": [connecting]}));
    let mut device = Raw::open(&stack, &Connect { password: password(&answer), ..connect }).await;
    device.publish("customauthtesting", 1, b"x").await;
    assert_eq!(device.receive().await.expect("a PUBACK"), [0x40, 2, 0, 1]);
    device.publish("another", 1, b"x").await;
    device.expect_end(0x87).await;
    stack.shutdown().await;
}

#[tokio::test]
async fn whoever_is_not_let_in_hears_so_in_the_connack() {
    let stack = start().await;
    let with_password = |password: String| Connect { password, ..Connect::new(4, "device") };
    let answering = |answer: Value| with_password(password(&answer));
    let named =
        |name: &str| Connect { user_name: format!("token?x-amz-customauthorizer-name={name}"), ..Connect::new(4, "device") };
    let mut long = allowing(&json!([]));
    long["disconnectAfterInSeconds"] = 10.into();
    for (connect, case) in [
        (answering(json!({"isAuthenticated": false})), "it says no"),
        (answering(json!("yes")), "no answer of an authorizer"),
        (answering(long), "a timer out of its range"),
        (with_password(json!({"do": "error"}).to_string()), "it fails"),
        (with_password(json!({"do": "exit", "code": 1}).to_string()), "it crashes"),
        (named("other"), "no such authorizer"),
    ] {
        let (mut device, connack) = Raw::connect(&stack, &connect).await;
        assert_eq!(connack, [0, 5], "{case}");
        assert_eq!(device.receive().await, None, "{case}");
    }
    let (_, connack) = Raw::connect(&stack, &named("probe")).await;
    assert_eq!(connack, [0, 0]);
    stack.shutdown().await;
}

#[tokio::test]
async fn a_signed_websocket_needs_no_authorizer_and_may_do_everything() {
    let stack = start().await;
    let url = format!("{}?{}", stack.ready().mqtt_ws.as_deref().expect("a URL"), signed_query(1));
    let before = stack.functions().counters("Probe").expect("it is there").invocations;
    let options = mqtt5::ConnectOptions::new("signed").with_automatic_reconnect(false);
    let mqtt = MqttClient::with_options(options);
    within("CONNACK", mqtt.connect(&url)).await.expect("let in");
    within("SUBACK", mqtt.subscribe("anything/#", drop)).await.expect("subscribed");
    assert_eq!(stack.functions().counters("Probe").expect("it is there").invocations, before);

    let (status, error) = handshake(&stack, &signed_query(6), "mqtt").await;
    assert_eq!(
        (status, error["message"].as_str()),
        (403, Some("The signature is refused: the signature is of the future or has expired."))
    );
    let (status, error) = handshake(&stack, &signed_query(1), "chat").await;
    assert_eq!(status, 400);
    assert!(error["message"].as_str().is_some_and(|message| message.contains("Sec-WebSocket-Protocol")), "{error}");
    stack.shutdown().await;
}
