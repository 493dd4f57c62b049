//! The HTTP data plane, called by the AWS SDK and by hand.

use aws_sdk_iotdataplane::types::PayloadFormatIndicator;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::Request;
use serde_json::json;

use crate::client::Client;
use crate::harness::{data_plane, http_address, json, send, start, within};
use crate::raw::{Connect, Raw};

#[tokio::test]
async fn a_published_message_has_every_property() {
    let stack = start().await;
    let mut device = Client::connect(&stack, "device").await;
    device.subscribe("a/ü b").await;
    for endpoint in [http_address(&stack), stack.ready().aws.clone()] {
        let publish = data_plane(&endpoint).publish().topic("a/ü b").qos(1).payload(b"{}".to_vec().into());
        let publish = publish.content_type("application/cloudevents+json").response_topic("answers").message_expiry(60);
        let publish = publish.user_properties(r#"[{"epoch":"1700"},{"offset":"41"}]"#);
        let publish =
            publish.payload_format_indicator(PayloadFormatIndicator::Utf8Data).correlation_data(BASE64.encode([0, 255]));
        publish.send().await.expect("published");
        let message = device.next().await;
        assert_eq!((message.topic.as_str(), message.payload.as_slice()), ("a/ü b", b"{}".as_slice()));
        let got = message.properties;
        let user = [("epoch", "1700"), ("offset", "41")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(got.user_properties, user);
        assert_eq!(got.content_type.as_deref(), Some("application/cloudevents+json"));
        assert_eq!(got.response_topic.as_deref(), Some("answers"));
        assert_eq!(got.correlation_data.as_deref(), Some([0, 255].as_slice()));
        assert_eq!(got.payload_format_indicator, Some(true));
        assert!(got.message_expiry_interval.is_some_and(|left| (1..=60).contains(&left)));
    }
    stack.shutdown().await;
}

#[tokio::test]
async fn retained_messages_are_read_and_listed() {
    let stack = start().await;
    let client = data_plane(&http_address(&stack));
    let missing = client.get_retained_message().topic("state/a").send().await.expect_err("nothing is retained");
    assert!(missing.into_service_error().is_resource_not_found_exception());
    for topic in ["state/a", "state/b", "state/c"] {
        let publish = client.publish().topic(topic).retain(true).qos(1).payload(topic.as_bytes().to_vec().into());
        publish.user_properties(r#"[{"offset":"1"}]"#).send().await.expect("published");
    }
    let message = client.get_retained_message().topic("state/a").send().await.expect("it is retained");
    assert_eq!(message.payload().map(AsRef::as_ref), Some(b"state/a".as_slice()));
    assert_eq!((message.topic(), message.qos()), (Some("state/a"), 1));
    assert_eq!(message.user_properties().map(AsRef::as_ref), Some(br#"[{"offset":"1"}]"#.as_slice()));
    assert!(message.last_modified_time() > 1_700_000_000_000);

    let first = client.list_retained_messages().max_results(2).send().await.expect("listed");
    let topics = |list: &aws_sdk_iotdataplane::operation::list_retained_messages::ListRetainedMessagesOutput| {
        list.retained_topics().iter().map(|summary| summary.topic().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(topics(&first), ["state/a", "state/b"]);
    assert_eq!(first.retained_topics()[0].payload_size(), 7);
    let token = first.next_token().expect("there is more");
    let second = client.list_retained_messages().max_results(2).next_token(token).send().await.expect("listed");
    assert_eq!((topics(&second), second.next_token()), (vec!["state/c".to_owned()], None));

    client.publish().topic("state/a").retain(true).send().await.expect("published");
    assert!(client.get_retained_message().topic("state/a").send().await.is_err());
    stack.shutdown().await;
}

#[tokio::test]
async fn a_connection_is_described_and_deleted() {
    let stack = start().await;
    let client = data_plane(&http_address(&stack));
    let unknown = client.get_connection().client_id("device/1").send().await.expect_err("nobody is there");
    assert!(unknown.into_service_error().is_resource_not_found_exception());

    let mut device = Raw::open(&stack, &Connect { clean: false, ..Connect::new(4, "device/1") }).await;
    device.subscribe(&["a", "b/#"]).await;
    device.receive().await.expect("a SUBACK");
    let connection = client.get_connection().client_id("device/1").include_socket_information(true).send().await.expect("there");
    assert!(connection.connected() && !connection.clean_session());
    assert_eq!((connection.keep_alive_duration(), connection.session_expiry()), (60, 3600));
    assert_eq!(connection.source_ip(), Some("127.0.0.1"));
    assert!(connection.target_port() > 0 && connection.connected_since() > 1_700_000_000_000);

    let list = client.list_subscriptions().client_id("device/1").max_results(1).send().await.expect("listed");
    assert_eq!(list.subscriptions()[0].topic_filter(), "a");
    let token = list.next_token().expect("there is more");
    let list = client.list_subscriptions().client_id("device/1").next_token(token).send().await.expect("listed");
    assert_eq!((list.subscriptions()[0].topic_filter(), list.subscriptions().len()), ("b/#", 1));

    client.delete_connection().client_id("device/1").send().await.expect("deleted");
    assert_eq!(device.receive().await, None);
    let gone = client.get_connection().client_id("device/1").send().await.expect("remembered");
    assert_eq!((gone.connected(), gone.disconnect_reason()), (false, Some("API_INITIATED_DISCONNECT")));
    let again = client.delete_connection().client_id("device/1").send().await.expect_err("it is gone");
    assert!(again.into_service_error().is_resource_not_found_exception());
    stack.shutdown().await;
}

#[tokio::test]
async fn a_direct_message_is_confirmed_by_its_client() {
    let stack = start().await;
    let client = data_plane(&http_address(&stack));
    let send = |client_id: &str, timeout| {
        let call = client.send_direct_message().client_id(client_id).topic("direct").confirmation(true);
        call.timeout(timeout).payload(b"x".to_vec().into()).send()
    };
    let offline = send("device", 5).await.expect_err("nobody is there");
    assert!(offline.into_service_error().is_resource_not_found_exception());

    // A client that is not subscribed to the topic, and acknowledges.
    let mut device = Raw::open(&stack, &Connect::new(4, "device")).await;
    let sent = tokio::spawn(send("device", 15));
    let message = device.receive().await.expect("a PUBLISH");
    assert_eq!((message[0], &message[2..10], message.last()), (0x32, b"\x00\x06direct".as_slice(), Some(&b'x')));
    device.send(&[0x40, 2, message[10], message[11]]).await;
    within("the receipt", sent).await.expect("no panic").expect("confirmed");

    // One that does not.
    let silent = send("device", 1).await.expect_err("nobody acknowledges");
    assert!(silent.into_service_error().is_gateway_timeout_exception());
    stack.shutdown().await;
}

#[tokio::test]
async fn what_is_wrong_has_its_status_and_its_name() {
    let stack = start().await;
    let authorization =
        "AWS4-HMAC-SHA256 Credential=AKID/20260101/us-east-1/iotdata/aws4_request, SignedHeaders=host, Signature=0";
    let large = "x".repeat(128 * 1024 + 1);
    for (method, path, body, expected) in [
        ("POST", "/topics/a?qos=2", "", (400, "InvalidRequestException")),
        ("POST", "/topics/a?retain=yes", "", (400, "InvalidRequestException")),
        ("POST", "/topics/a?messageExpiry=604801", "", (400, "InvalidRequestException")),
        ("POST", "/topics/a%2F%23", "", (400, "InvalidRequestException")),
        ("POST", "/topics/%24aws%2Fthings", "", (400, "InvalidRequestException")),
        ("POST", "/topics/a", large.as_str(), (413, "RequestEntityTooLargeException")),
        ("GET", "/retainedMessage/a", "", (404, "ResourceNotFoundException")),
        ("GET", "/retainedMessage?maxResults=201", "", (400, "InvalidRequestException")),
        ("GET", "/retainedMessage?nextToken=%21", "", (400, "InvalidRequestException")),
        ("POST", "/connections/c/messages", "", (400, "InvalidRequestException")),
        ("POST", "/connections/c/messages?topic=a&timeout=16", "", (400, "InvalidRequestException")),
        ("GET", "/things/x/shadow", "", (404, "UnknownOperationException")),
        ("PUT", "/topics/a", "", (404, "UnknownOperationException")),
    ] {
        for endpoint in [http_address(&stack), stack.ready().aws.clone()] {
            let request = Request::builder().method(method).uri(format!("{endpoint}{path}"));
            let request = request.header("authorization", authorization).body(body.to_owned()).expect("a request");
            let response = send(request).await.expect("an answer");
            let kind = response.headers()["x-amzn-errortype"].to_str().expect("a text");
            assert_eq!((response.status().as_u16(), kind), expected, "{method} {endpoint}{path}");
            let error = json(response.body());
            assert!(error["message"].is_string() && error["traceId"].is_string(), "{error}");
        }
    }
    let unsigned = Request::post(format!("{}/topics/a", http_address(&stack))).body(String::new()).expect("a request");
    let response = send(unsigned).await.expect("an answer");
    assert_eq!(response.status(), 403);
    assert_eq!(json(response.body())["message"], json!("Missing Authentication Token"));
    stack.shutdown().await;
}
