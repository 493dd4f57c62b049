//! Ten thousand subscribers of one channel. In a test binary of its own, so that nothing else runs beside it.

use carillon_tests::clients::node;
use carillon_tests::stack::TestStack;
use serde_json::json;

/// Subscribers of the one channel: 40 shards (S5).
const SUBSCRIBERS: u64 = 10_000;

/// Connections that are being opened at the same time.
const AT_ONCE: u64 = 64;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_websocket_subscribers_of_one_channel_receive_one_publish_once() {
    const CHANNEL: &str = "orders/everybody";
    let stack = TestStack::start().await;
    let mut clients = node(&stack, "many.mjs", &[CHANNEL, &SUBSCRIBERS.to_string(), &AT_ONCE.to_string()]).await;
    loop {
        let fact = clients.json().await;
        if fact["subscribed"] == json!(SUBSCRIBERS) {
            break;
        }
        assert!(fact["progress"].is_u64(), "{fact}");
    }
    stack.publish(CHANNEL, &json!({"hello": "everybody"})).await;
    let counted = loop {
        let fact = clients.json().await;
        if fact["once"].is_u64() {
            break fact;
        }
        assert!(fact["have"].is_u64(), "{fact}");
    };
    assert_eq!(counted, json!({"once": SUBSCRIBERS, "more": 0}));
    clients.succeeds().await;
    stack.shutdown().await;
}
