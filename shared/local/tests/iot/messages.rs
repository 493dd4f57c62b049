//! Messages between clients: every version and transport, retained, persistent sessions, shared subscriptions, wills.

use mqtt5::{PublishOptions, PublishProperties, QoS};

use crate::client::{Client, Transport};
use crate::harness::{PATIENCE, start};
use crate::raw::{Connect, Raw};

#[tokio::test]
async fn a_message_reaches_both_versions_over_both_transports() {
    let stack = start().await;
    let mut old = vec![
        Client::connect_v3(&stack, Transport::Tcp, "v3-tcp").await,
        Client::connect_v3(&stack, Transport::WebSocket, "v3-ws").await,
    ];
    let mut new = vec![
        Client::connect(&stack, "v5-tcp").await,
        Client::connect_with(&stack, Transport::WebSocket, crate::client::options("v5-ws")).await,
    ];
    for client in old.iter().chain(&new) {
        client.subscribe("a/+/c").await;
    }
    let properties = PublishProperties {
        payload_format_indicator: Some(true),
        message_expiry_interval: Some(60),
        response_topic: Some("answers".to_owned()),
        correlation_data: Some(vec![0, 255]),
        user_properties: vec![("epoch".to_owned(), "1700".to_owned()), ("offset".to_owned(), "41".to_owned())],
        content_type: Some("application/json".to_owned()),
        ..PublishProperties::default()
    };
    let options = PublishOptions { qos: QoS::AtLeastOnce, properties: properties.clone(), ..PublishOptions::default() };
    new[0].mqtt.publish_with_options("a/b/c", "{}", options).await.expect("published");
    for client in &mut old {
        let message = client.next().await;
        assert_eq!(
            (message.topic.as_str(), message.payload.as_slice(), message.qos),
            ("a/b/c", b"{}".as_slice(), QoS::AtLeastOnce)
        );
        assert!(!message.retain);
    }
    for client in &mut new {
        let message = client.next().await;
        assert_eq!((message.topic.as_str(), message.payload.as_slice()), ("a/b/c", b"{}".as_slice()));
        let got = message.properties;
        assert_eq!(got.user_properties, properties.user_properties);
        assert_eq!(got.content_type, properties.content_type);
        assert_eq!(got.response_topic, properties.response_topic);
        assert_eq!(got.correlation_data, properties.correlation_data);
        assert_eq!(got.payload_format_indicator, Some(true));
        assert!(got.message_expiry_interval.is_some_and(|left| (1..=60).contains(&left)));
    }
    stack.shutdown().await;
}

#[tokio::test]
async fn messages_of_one_client_come_in_order_and_complete() {
    let stack = start().await;
    let mut subscriber = Client::connect_v3(&stack, Transport::WebSocket, "subscriber").await;
    subscriber.subscribe("numbers").await;
    let publisher = Client::connect(&stack, "publisher").await;
    // More than may be in flight at a time.
    let expected = (0..300).map(|number| number.to_string()).collect::<Vec<_>>();
    for number in &expected {
        publisher.publish("numbers", number.as_bytes()).await;
    }
    for number in &expected {
        assert_eq!(subscriber.next_text().await, *number);
    }
    stack.shutdown().await;
}

#[tokio::test]
async fn a_retained_message_waits_for_exact_subscriptions() {
    let stack = start().await;
    let publisher = Client::connect(&stack, "publisher").await;
    let retain = PublishOptions { qos: QoS::AtLeastOnce, retain: true, ..PublishOptions::default() };
    publisher.mqtt.publish_with_options("state/a", "kept", retain).await.expect("published");
    let mut wildcard = Client::connect(&stack, "wildcard").await;
    wildcard.subscribe("state/#").await;
    let mut exact = Client::connect(&stack, "exact").await;
    exact.subscribe("state/a").await;
    let message = exact.next().await;
    assert_eq!((message.payload.as_slice(), message.retain), (b"kept".as_slice(), true));
    publisher.publish("state/a", "live").await;
    for subscriber in [&mut exact, &mut wildcard] {
        let message = subscriber.next().await;
        assert_eq!((message.payload.as_slice(), message.retain), (b"live".as_slice(), false));
    }
    stack.shutdown().await;
}

#[tokio::test]
async fn a_persistent_session_keeps_what_came_meanwhile() {
    let stack = start().await;
    let publisher = Client::connect(&stack, "publisher").await;
    let connect = Connect { clean: false, ..Connect::new(4, "device") };
    let mut device = Raw::open(&stack, &connect).await;
    device.subscribe(&["inbox"]).await;
    assert_eq!(device.receive().await.expect("a SUBACK"), [0x90, 3, 0, 1, 1]);
    device.disconnect().await;
    publisher.publish("inbox", "meanwhile").await;
    let (mut device, connack) = Raw::connect(&stack, &connect).await;
    assert_eq!(connack, [1, 0]);
    let first = device.receive().await.expect("a PUBLISH");
    assert_eq!((first[0], &first[first.len() - 9..]), (0x32, b"meanwhile".as_slice()));
    // Not acknowledged, so it comes again, marked as a duplicate.
    device.drop_connection();
    let (mut device, connack) = Raw::connect(&stack, &connect).await;
    assert_eq!(connack, [1, 0]);
    let second = device.receive().await.expect("a PUBLISH");
    assert_eq!((second[0], &second[1..]), (0x3a, &first[1..]));
    stack.shutdown().await;
}

#[tokio::test]
async fn a_newer_connection_takes_the_client_id_over() {
    let stack = start().await;
    for version in [4, 5] {
        let mut first = Raw::open(&stack, &Connect::new(version, "device")).await;
        let mut second = Raw::open(&stack, &Connect::new(version, "device")).await;
        first.expect_end(0x8e).await;
        second.send(&[0xc0, 0]).await;
        assert_eq!(second.receive().await.expect("a PINGRESP"), [0xd0, 0]);
    }
    stack.shutdown().await;
}

#[tokio::test]
async fn a_will_is_said_unless_the_client_said_goodbye() {
    let stack = start().await;
    let mut subscriber = Client::connect(&stack, "subscriber").await;
    subscriber.subscribe("wills").await;
    let with_will = |text: &str| Connect { will: Some(("wills".to_owned(), text.to_owned())), ..Connect::new(5, "device") };
    Raw::open(&stack, &with_will("polite")).await.disconnect().await;
    Raw::open(&stack, &with_will("lost")).await.drop_connection();
    assert_eq!(subscriber.next_text().await, "lost");
    stack.shutdown().await;
}

#[tokio::test]
async fn a_shared_subscription_hands_each_message_to_one() {
    let stack = start().await;
    let mut members = [Client::connect(&stack, "1").await, Client::connect(&stack, "2").await];
    for member in &members {
        member.subscribe("$share/group/work").await;
    }
    let publisher = Client::connect(&stack, "publisher").await;
    for number in 0..4 {
        publisher.publish("work", number.to_string()).await;
    }
    let mut got = Vec::new();
    for member in &mut members {
        got.push(member.next_text().await);
        got.push(member.next_text().await);
    }
    got.sort_unstable();
    assert_eq!(got, ["0", "1", "2", "3"]);
    stack.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_tells_clients_and_waits_for_none() {
    let stack = start().await;
    let mut device = Raw::open(&stack, &Connect::new(5, "device")).await;
    let ended = tokio::time::timeout(PATIENCE / 6, stack.shutdown());
    ended.await.expect("it ends within five seconds");
    device.expect_end(0x8b).await;
}
