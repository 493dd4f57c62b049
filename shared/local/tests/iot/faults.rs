//! IoT Core away and back.

use carillon_local::faults::Presence;
use carillon_local::stack::{Stack, StackOptions};
use http::Request;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::client::Client;
use crate::harness::{data_plane, http_address, json, mqtt_address, options, send, start, within};
use crate::raw::{Connect, Raw};

async fn switch(stack: &Stack, body: &str) -> (u16, Value) {
    let request = Request::post(format!("{}/_local/faults", stack.ready().aws)).body(body.to_owned()).expect("a request");
    let response = send(request).await.expect("an answer");
    (response.status().as_u16(), json(response.body()))
}

#[tokio::test]
async fn what_is_away_answers_nobody_and_comes_back_with_what_it_had() {
    let stack = start().await;
    let on_iot = data_plane(&http_address(&stack));
    let on_aws = data_plane(&stack.ready().aws);
    on_iot.publish().topic("state").retain(true).payload(b"kept".to_vec().into()).send().await.expect("published");
    let persistent = Connect { clean: false, ..Connect::new(4, "device") };
    let mut device = Raw::open(&stack, &persistent).await;
    device.subscribe(&["inbox"]).await;
    device.receive().await.expect("a SUBACK");
    let websocket = Client::connect_with(&stack, crate::client::Transport::WebSocket, crate::client::options("ws")).await;

    assert_eq!(switch(&stack, r#"{"iot":"away"}"#).await, (200, json!({"iot": "away"})));
    assert_eq!(device.receive().await, None);
    crate::harness::until("the WebSocket is cut", || {
        futures_util::FutureExt::now_or_never(websocket.mqtt.is_connected()) == Some(false)
    })
    .await;
    let mut stream = tokio::net::TcpStream::connect(mqtt_address(&stack)).await.expect("the port is there");
    let mut answer = Vec::new();
    within("the end", stream.read_to_end(&mut answer)).await.ok();
    assert_eq!(answer, b"");
    for client in [&on_iot, &on_aws] {
        let error = client.publish().topic("inbox").send().await.expect_err("nobody answers");
        assert!(error.as_service_error().is_none(), "{error:?}");
    }
    let page = Request::get(format!("{}/mqtt", http_address(&stack))).body(String::new()).expect("a request");
    send(page).await.expect_err("nobody answers");

    stack.faults().set_iot(Presence::Back).expect("there is IoT Core");
    let request = Request::get(format!("{}/_local/faults", stack.ready().aws)).body(String::new()).expect("a request");
    assert_eq!(json(send(request).await.expect("an answer").body()), json!({"iot": "back"}));
    on_aws.publish().topic("inbox").qos(1).payload(b"after".to_vec().into()).send().await.expect("published");
    let (mut device, connack) = Raw::connect(&stack, &persistent).await;
    assert_eq!(connack, [1, 0]);
    assert!(device.receive().await.expect("a PUBLISH").ends_with(b"after"));
    let retained = on_iot.get_retained_message().topic("state").send().await.expect("it is retained");
    assert_eq!(retained.payload().map(AsRef::as_ref), Some(b"kept".as_slice()));
    stack.shutdown().await;
}

#[tokio::test]
async fn a_switch_that_is_none_is_refused() {
    let stack = start().await;
    for body in [r#"{"iot":"gone"}"#, r#"{"sqs":"away"}"#, "away"] {
        let (status, error) = switch(&stack, body).await;
        assert_eq!((status, &error["__type"]), (400, &json!("InvalidRequestException")), "{body}: {error}");
    }
    assert_eq!(switch(&stack, "{}").await, (200, json!({"iot": "back"})));
    stack.shutdown().await;

    let template = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates/services.yaml");
    let stack = Stack::start(StackOptions { template, ..options() }).await.expect("the stack starts");
    let (status, error) = switch(&stack, r#"{"iot":"away"}"#).await;
    assert_eq!((status, &error["message"]), (409, &json!("the template uses no IoT Core, so it cannot be taken away")));
    stack.shutdown().await;
}
