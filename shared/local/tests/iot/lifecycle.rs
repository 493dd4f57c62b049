//! Lifecycle events, beside the examples of the guide.

use serde_json::{Value, json};

use crate::client::Client;
use crate::harness::{golden, json, shape, start};
use crate::raw::{Connect, Raw};

/// The next event of one client.
async fn next(watcher: &mut Client, client_id: &str) -> (String, Value) {
    loop {
        let message = watcher.next().await;
        if message.topic.ends_with(&format!("/{client_id}")) {
            return (message.topic, json(&message.payload));
        }
    }
}

#[tokio::test]
async fn a_connection_is_told_from_its_beginning_to_its_end() {
    let stack = start().await;
    let mut watcher = Client::connect(&stack, "watcher").await;
    watcher.subscribe("$aws/events/#").await;

    let mut device = Raw::open(&stack, &Connect::new(5, "device")).await;
    let (topic, connected) = next(&mut watcher, "device").await;
    assert_eq!(topic, "$aws/events/presence/connected/device");
    assert_eq!(shape(&connected), shape(&golden("connected.json")));
    assert_eq!((&connected["clientId"], &connected["eventType"]), (&json!("device"), &json!("connected")));
    assert_eq!((&connected["principalIdentifier"], &connected["ipAddress"]), (&json!("probe"), &json!("127.0.0.1")));
    assert_eq!(connected["versionNumber"], 0);

    device.subscribe(&["a", "b/#"]).await;
    let (topic, subscribed) = next(&mut watcher, "device").await;
    assert_eq!(topic, "$aws/events/subscriptions/subscribed/device");
    assert_eq!(shape(&subscribed), shape(&golden("subscribed.json")));
    assert_eq!(subscribed["topics"], json!(["a", "b/#"]));
    assert_eq!(subscribed["sessionIdentifier"], connected["sessionIdentifier"]);

    // UNSUBSCRIBE from `a`.
    device.send(b"\xa2\x06\x00\x02\x00\x00\x01a").await;
    let (topic, unsubscribed) = next(&mut watcher, "device").await;
    assert_eq!(topic, "$aws/events/subscriptions/unsubscribed/device");
    assert_eq!((&unsubscribed["eventType"], &unsubscribed["topics"]), (&json!("unsubscribed"), &json!(["a"])));

    device.receive().await.expect("a SUBACK");
    device.receive().await.expect("an UNSUBACK");
    device.disconnect().await;
    let (topic, disconnected) = next(&mut watcher, "device").await;
    assert_eq!(topic, "$aws/events/presence/disconnected/device");
    assert_eq!(shape(&disconnected), shape(&golden("disconnected.json")));
    assert_eq!(disconnected["clientInitiatedDisconnect"], true);
    assert_eq!(disconnected["disconnectReason"], "CLIENT_INITIATED_DISCONNECT");
    assert_eq!(disconnected["versionNumber"], connected["versionNumber"]);
    stack.shutdown().await;
}

#[tokio::test]
async fn every_end_has_its_reason() {
    let stack = start().await;
    let mut watcher = Client::connect(&stack, "watcher").await;
    watcher.subscribe("$aws/events/presence/disconnected/+").await;

    Raw::open(&stack, &Connect::new(5, "device")).await.drop_connection();
    assert_eq!(next(&mut watcher, "device").await.1["disconnectReason"], "CONNECTION_LOST");

    let first = Raw::open(&stack, &Connect::new(5, "device")).await;
    let mut second = Raw::open(&stack, &Connect::new(5, "device")).await;
    let (_, event) = next(&mut watcher, "device").await;
    assert_eq!((&event["disconnectReason"], &event["versionNumber"]), (&json!("DUPLICATE_CLIENTID"), &json!(1)));
    drop(first);

    second.publish("a", 2, b"x").await;
    let (_, event) = next(&mut watcher, "device").await;
    assert_eq!((&event["disconnectReason"], &event["versionNumber"]), (&json!("CLIENT_ERROR"), &json!(2)));
    assert_eq!(event["clientInitiatedDisconnect"], false);

    let mut denied = Raw::open(&stack, &Connect::new(4, "device")).await;
    denied.publish("$SYS/a", 0, b"x").await;
    assert_eq!(next(&mut watcher, "device").await.1["disconnectReason"], "AUTH_ERROR");
    stack.shutdown().await;
}
