//! Rules with the probe as their target: what the SQL makes is what the function gets.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;

use crate::client::Client;
use crate::harness::{data_plane, http_address, kept, start};

#[tokio::test]
async fn an_envelope_reaches_the_function() {
    let stack = start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("event");
    let command = json!({"do": "keep", "path": path}).to_string();
    Client::connect(&stack, "device").await.publish("envelope/a/b", command.as_bytes()).await;
    let event = kept(&path).await;
    assert_eq!(event["payload"], BASE64.encode(&command));
    assert_eq!((&event["topic"], &event["client"]), (&json!("envelope/a/b"), &json!("device")));
    assert_eq!(event["trace"].as_str().map(str::len), Some(36));
    assert_eq!(event.as_object().map(serde_json::Map::len), Some(4));
    stack.shutdown().await;
}

#[tokio::test]
async fn a_message_by_http_has_no_client_and_no_trace() {
    let stack = start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("event");
    let command = json!({"do": "keep", "path": path}).to_string();
    let publish = data_plane(&http_address(&stack)).publish().topic("envelope/x").payload(command.into_bytes().into());
    publish.send().await.expect("published");
    let event = kept(&path).await;
    assert_eq!((&event["client"], event.get("trace")), (&json!("n/a"), None));
    stack.shutdown().await;
}

#[tokio::test]
async fn select_everything_takes_json_objects_and_skips_the_rest() {
    let stack = start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("event");
    let device = Client::connect(&stack, "device").await;
    let invocations = || stack.functions().counters("Probe").expect("it is there").invocations;
    let before = invocations();
    device.publish("plain/x", "no JSON").await;
    device.publish("plain/x", "7").await;
    device.publish("plain/x/y", "{}").await;
    device.publish("plain/x", json!({"do": "keep", "path": path}).to_string()).await;
    assert_eq!(kept(&path).await, json!({"do": "keep", "path": path, "level": "x"}));
    assert_eq!(invocations(), before + 1);
    stack.shutdown().await;
}

#[tokio::test]
async fn basic_ingest_reaches_one_rule_and_no_subscriber() {
    let stack = start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("event");
    let mut device = Client::connect(&stack, "device").await;
    device.subscribe("envelope/#").await;
    let command = json!({"do": "keep", "path": path}).to_string();
    device.publish("$aws/rules/carillon_ProbeEnvelope/elsewhere", command).await;
    assert_eq!(kept(&path).await["topic"], "elsewhere");
    device.publish("envelope/live", "live").await;
    assert_eq!(device.next_text().await, "live");
    stack.shutdown().await;
}
