//! The stack around IoT Core: its ports, what functions see, what is counted.

use carillon_local::stack::{Ports, Stack, StackOptions};
use http::Request;
use serde_json::json;

use crate::client::Client;
use crate::harness::{data_plane, http_address, json, kept, mqtt_address, options, send, start};

#[tokio::test]
async fn functions_and_the_ready_file_know_where_it_is() {
    let stack = start().await;
    let ready = stack.ready().clone();
    let address = http_address(&stack).replace("http://", "");
    assert_eq!(stack.template().outputs["Endpoint"], address);
    assert_eq!(ready.mqtt_prefix.as_deref(), Some("demo"));
    assert_eq!(ready.resources["Plain"], "carillon_Plain");
    assert_eq!(ready.resources["Authorizer"], "probe");
    let variables = &stack.template().functions[0].environment;
    assert_eq!(variables["RULE"], "carillon_ProbeEnvelope");
    assert_eq!(variables["RULE_ARN"], "arn:aws:iot:us-east-1:123456789012:rule/carillon_Plain");
    assert_eq!(variables["AUTHORIZER_ARN"], "arn:aws:iot:us-east-1:123456789012:authorizer/probe");
    let invoke = format!("{}/2015-03-31/functions/Probe/invocations", ready.aws);
    let request = Request::post(invoke).body(json!({"do": "environment"}).to_string()).expect("a request");
    let environment = json(send(request).await.expect("an answer").body());
    assert_eq!(environment["AWS_ENDPOINT_URL_IOT_DATA_PLANE"], http_address(&stack));
    stack.shutdown().await;
}

#[tokio::test]
async fn a_template_without_it_has_no_broker() {
    let template = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates/services.yaml");
    let stack = Stack::start(StackOptions { template, ..options() }).await.expect("the stack starts");
    let ready = stack.ready();
    assert_eq!((&ready.mqtt, &ready.mqtt_ws, &ready.mqtt_prefix), (&None, &None, &None));
    let error = data_plane(&ready.aws).publish().topic("a").send().await.expect_err("there is none");
    assert_eq!(error.raw_response().map(|response| response.status().as_u16()), Some(404));
    stack.shutdown().await;
}

#[tokio::test]
async fn a_busy_port_is_named_with_its_flag() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("an address").port();
    for (ports, flag) in
        [(Ports { mqtt: port, ..Ports::FREE }, "--mqtt-port"), (Ports { iot: port, ..Ports::FREE }, "--iot-port")]
    {
        let error = Stack::start(StackOptions { ports, ..options() }).await.expect_err("the port is busy").to_string();
        assert_eq!(error, format!("port {port} is busy: choose another with {flag}, or take any with --free-ports"));
    }
}

#[tokio::test]
async fn calls_are_counted_by_operation_and_target() {
    let stack = start().await;
    let client = data_plane(&http_address(&stack));
    for _ in 0..2 {
        client.publish().topic("a/b").send().await.expect("published");
    }
    client.list_retained_messages().send().await.expect("listed");
    // What comes over MQTT is no call.
    Client::connect(&stack, "device").await.publish("a/b", "x").await;
    let rows = stack.calls();
    let rows = rows.iter().map(|row| (row.service.as_str(), row.operation.as_str(), row.target.as_str(), row.count));
    let expected = [("iotdata", "ListRetainedMessages", "", 1), ("iotdata", "Publish", "a/b", 2)];
    assert_eq!(rows.collect::<Vec<_>>(), expected);
    stack.shutdown().await;
}

#[tokio::test]
async fn mqtt_clients_may_come_many_at_a_time() {
    let stack = start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut clients = Vec::new();
    for number in 0..50 {
        let client = Client::connect(&stack, &format!("client-{number}")).await;
        client.subscribe("all").await;
        clients.push(client);
    }
    clients[0].publish("all", "x").await;
    for client in &mut clients {
        assert_eq!(client.next_text().await, "x");
    }
    let path = folder.path().join("event");
    clients[7].publish("envelope/x", json!({"do": "keep", "path": path}).to_string()).await;
    assert_eq!(kept(&path).await["client"], "client-7");
    for client in clients {
        client.disconnect().await;
    }
    assert!(mqtt_address(&stack).starts_with("127.0.0.1:"));
    stack.shutdown().await;
}
