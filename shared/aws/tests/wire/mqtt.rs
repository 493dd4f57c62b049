//! Publishes on the wire: what is sent to IoT Core, and what each answer means.

use crate::server::{Reply, Server};
use carillon_aws::mqtt::IotMqtt;
use carillon_core::channel::Channel;
use carillon_core::mqtt::MqttPrefix;
use carillon_core::position::{Epoch, Position};
use carillon_engine::ports::{Answer, Mqtt};
use carillon_engine::rows::MqttOutcome;
use std::error::Error;
use std::time::{Duration, Instant};

/// How long a test waits for an answer that never comes.
const SHORT: Duration = Duration::from_millis(200);

/// How long a test waits for one that does, however busy the machine is.
const LONG: Duration = Duration::from_secs(20);

const EVENT: &str = r#"{"specversion":"1.0","id":"1","epoch":"1700000000000","offset":41}"#;

#[tokio::test]
async fn p2_a_message_goes_to_its_channel_s_topic_with_its_position() {
    let server = Server::start([Reply::json(200, r#"{"message":"OK","traceId":"trace-1"}"#)]).await;
    assert_eq!(publish(server.address(), false).await.expect("an answer"), MqttOutcome::Taken);
    let asked = server.asked();
    assert_eq!(asked.len(), 1);
    // The topic is one path segment to the SDK.
    assert_eq!((asked[0].method.as_str(), asked[0].path.as_str()), ("POST", "/topics/dev%2Fc%2Forders%2F42"));
    assert_eq!(asked[0].query, "qos=1&retain=false&contentType=application%2Fcloudevents%2Bjson");
    assert_eq!(asked[0].body, EVENT);
    let header = |name: &str| asked[0].headers[name].to_str().expect("text");
    assert_eq!(header("x-amz-mqtt5-payload-format-indicator"), "UTF8_DATA");
    // base64 of [{"epoch":"1700000000000"},{"offset":"41"}]
    assert_eq!(header("x-amz-mqtt5-user-properties"), "W3siZXBvY2giOiIxNzAwMDAwMDAwMDAwIn0seyJvZmZzZXQiOiI0MSJ9XQ==");
    assert!(header("authorization").contains("/us-east-1/iotdata/aws4_request"), "{}", header("authorization"));
}

#[tokio::test]
async fn a_retained_message_says_so() {
    let server = Server::start([Reply::status(200)]).await;
    assert_eq!(publish(server.address(), true).await.expect("an answer"), MqttOutcome::Taken);
    assert_eq!(server.asked()[0].query, "qos=1&retain=true&contentType=application%2Fcloudevents%2Bjson");
}

#[tokio::test]
async fn d7_429_and_5xx_are_away_after_one_try() {
    let throttled = Reply::json(429, r#"{"message":"Rate exceeded"}"#).with_header("x-amzn-errortype", "ThrottlingException");
    let broken = Reply::json(500, "{}").with_header("x-amzn-errortype", "InternalFailureException");
    for reply in [throttled, broken, Reply::status(429), Reply::status(500), Reply::status(502), Reply::status(503)] {
        let server = Server::start([reply]).await;
        assert_eq!(publish(server.address(), false).await.expect("an answer"), MqttOutcome::Away);
        assert_eq!(server.asked().len(), 1, "the SDK's retries are off");
    }
}

#[tokio::test]
async fn d7_no_answer_in_time_leaves_it_open_after_one_try() {
    let server = Server::start([Reply::Silence]).await;
    let began = Instant::now();
    let outcome = publish_within(server.address(), false, SHORT).await;
    assert_eq!(outcome.expect("an outcome"), MqttOutcome::Unknown);
    assert!(began.elapsed() >= SHORT);
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_answer_leaves_it_open() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.expect("a connection");
            socket.readable().await.expect("a request");
            // Closed with the request unread: the client sees a reset, or an end before the answer.
            drop(socket);
        }
    });
    assert_eq!(publish(&address, false).await.expect("an outcome"), MqttOutcome::Unknown);
}

#[tokio::test]
async fn an_address_where_nobody_listens_is_away() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    assert_eq!(publish(&address, false).await.expect("an outcome"), MqttOutcome::Away);
}

#[tokio::test]
async fn a_host_without_an_address_is_away() {
    // RFC 6761 section 6.4: `.invalid` never resolves.
    assert_eq!(publish("http://iot.invalid", false).await.expect("an outcome"), MqttOutcome::Away);
}

#[tokio::test]
async fn a_refusal_of_us_is_an_error() {
    let forbidden = Reply::json(403, r#"{"message":"Forbidden"}"#)
        .with_header("x-amzn-errortype", "ForbiddenException")
        .with_header("x-amzn-requestid", "request-1");
    let server = Server::start([forbidden]).await;
    let error = publish(server.address(), false).await.expect_err("refused");
    assert_eq!(error.to_string(), "publishing to IoT Core failed");
    let reason = error.source().expect("a reason").to_string();
    assert_eq!(reason, "the service answered 403 ForbiddenException: Forbidden (request request-1)");

    for status in [400, 401, 404, 405, 413] {
        let server = Server::start([Reply::status(status)]).await;
        assert!(publish(server.address(), false).await.is_err(), "{status}");
        assert_eq!(server.asked().len(), 1);
    }
}

#[tokio::test]
async fn nothing_goes_to_an_address_that_was_guessed() {
    let config = crate::support::config(&[("AWS_ENDPOINT_URL", "http://127.0.0.1:1")]);
    let mistakes = IotMqtt::new(&config, prefix()).expect_err("the account's own address is missing");
    assert_eq!(mistakes.to_string(), "AWS_ENDPOINT_URL_IOT_DATA_PLANE: is not set");
}

fn prefix() -> MqttPrefix {
    MqttPrefix::parse("dev").expect("a prefix")
}

async fn publish(address: &str, retain: bool) -> Answer<MqttOutcome> {
    publish_within(address, retain, LONG).await
}

async fn publish_within(address: &str, retain: bool, timeout: Duration) -> Answer<MqttOutcome> {
    let config = crate::support::config(&[("AWS_ENDPOINT_URL_IOT_DATA_PLANE", address)]);
    let mqtt = IotMqtt::with_timeout(&config, prefix(), timeout).expect("the address is set");
    let channel = Channel::parse("orders/42").expect("a channel");
    mqtt.publish(&channel, Position::new(Epoch(1_700_000_000_000), 41), EVENT, retain).await
}
