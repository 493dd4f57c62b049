//! What a user lives through: many publishers, cuts, repeats and latecomers, against the real functions. The clients here judge
//! nothing and hide nothing: a repeat or a hole that the client's rule would mend fails the test all the same.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use carillon_tests::http::send;
use carillon_tests::stack::TestStack;
use carillon_tests::story::{assert_dense, publish_numbered, seeded};
use carillon_tests::websocket::{Event, Socket};
use http::Method;
use rand::Rng;
use serde_json::{Value, json};

const CHANNEL: &str = "orders/42";

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_cut_at_random_and_comes_back_misses_and_repeats_none() {
    const EVENTS: usize = 200;
    let mut chance = seeded();
    let stack = TestStack::start().await;
    let mut socket = stack.connect().await;
    let mut reply = socket.subscribe(CHANNEL).await;
    let mut received: Vec<Event> = Vec::new();
    let receiving = async {
        let mut cuts = 0;
        while received.len() < EVENTS {
            let count = chance.random_range(1..15).min(EVENTS - received.len());
            received.extend(socket.events(count).await);
            let last = received.last().expect("it received something");
            let since = json!({"epoch": last.epoch, "offset": last.offset});
            // A new connection replaces the old one, which ends without a close frame.
            socket = stack.connect().await;
            cuts += 1;
            reply = socket.ask(json!({"action": "subscribe", "channel": CHANNEL, "since": since})).await;
            assert_eq!((&reply["ok"], &reply["recovered"]), (&json!(true), &json!(true)), "{reply}");
            assert_eq!((&reply["epoch"], &reply["offset"]), (&since["epoch"], &since["offset"]), "{reply}");
        }
        cuts
    };
    let (cuts, ()) = tokio::join!(receiving, publish_numbered(&stack, CHANNEL, 0, EVENTS));
    assert!(cuts >= EVENTS / 15, "{cuts}");
    assert_dense(&received, 0);
    let numbers: Vec<_> = received.iter().map(|event| event.event["data"]["number"].as_u64()).collect();
    assert_eq!(numbers, (0..EVENTS as u64).map(Some).collect::<Vec<_>>());
    stack.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_that_join_while_publishing_runs_get_everything_after_their_position() {
    const EVENTS: usize = 200;
    let stack = TestStack::start().await;
    let done = Arc::new(AtomicBool::new(false));
    let publishing = async {
        publish_numbered(&stack, CHANNEL, 0, EVENTS).await;
        done.store(true, Ordering::SeqCst);
    };
    let joining = async {
        let mut joined: Vec<(u64, Socket)> = Vec::new();
        while !done.load(Ordering::SeqCst) {
            let mut socket = stack.connect().await;
            let reply = socket.subscribe(CHANNEL).await;
            joined.push((reply["offset"].as_u64().expect("an offset"), socket));
        }
        joined
    };
    let (joined, ()) = tokio::join!(joining, publishing);
    let positions: BTreeSet<u64> = joined.iter().map(|(position, _)| *position).collect();
    assert!(positions.len() > 3, "they all joined at once: {positions:?}");
    for (position, mut socket) in joined {
        let missing = EVENTS - usize::try_from(position).expect("a small number");
        // What is at its position or before it may have come too, before the reply: the client's rule drops it.
        let mut events = Vec::new();
        while events.len() < missing {
            events.extend(Some(socket.event().await).filter(|event| event.offset > position));
        }
        assert_dense(&events, position);
        socket.assert_alive().await;
    }
    stack.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_is_published_twice_is_delivered_once() {
    let stack = TestStack::start().await;
    let mut socket = stack.connect().await;
    socket.subscribe(CHANNEL).await;
    let message = json!({"channel": CHANNEL, "id": "once", "source": "shop", "data": "first"}).to_string();
    let mut offsets = Vec::new();
    for _ in 0..3 {
        let answer = stack.post("application/json", message.clone()).await.json();
        offsets.push((answer["results"][0]["offset"].clone(), answer["results"][0]["duplicate"].clone()));
    }
    assert_eq!(offsets, [(json!(1), json!(false)), (json!(1), json!(true)), (json!(1), json!(true))]);
    // By another way in, under the same source and id, it is the same event.
    stack.put_event("shop", "Order paid", &json!({"channel": CHANNEL, "id": "once", "data": "again"})).await;
    stack.put_event("shop", "Order paid", &json!({"channel": CHANNEL, "id": "twice", "data": "second"})).await;
    let events = socket.events(2).await;
    assert_dense(&events, 0);
    assert_eq!([&events[0].event["data"], &events[1].event["data"]], [&json!("first"), &json!("second")]);
    stack.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_whose_entries_are_gone_from_the_table_is_not_recovered() {
    let stack = TestStack::start().await;
    for number in 1..=4 {
        stack.publish(CHANNEL, &json!(number)).await;
    }
    let mut socket = stack.connect().await;
    let epoch = socket.subscribe(CHANNEL).await["epoch"].as_str().expect("an epoch").to_owned();
    for offset in 1..=2 {
        delete_entry(&stack, &epoch, offset).await;
    }
    for (offset, recovered) in [(0, false), (1, false), (2, true), (4, true), (5, false)] {
        let mut socket = stack.connect().await;
        let since = json!({"epoch": epoch, "offset": offset});
        let reply = socket.ask(json!({"action": "subscribe", "channel": CHANNEL, "since": since})).await;
        let expected = if recovered { offset } else { 4 };
        assert_eq!((&reply["recovered"], &reply["offset"]), (&json!(recovered), &json!(expected)), "since {offset}: {reply}");
    }
    stack.shutdown().await;
}

/// Deletes an entry of the log, as its expiry does.
async fn delete_entry(stack: &TestStack, epoch: &str, offset: u64) {
    let key = json!({"pk": {"S": format!("L#{CHANNEL}#{epoch}")}, "sk": {"S": format!("{offset:016}")}});
    let request: Value = json!({"TableName": stack.resource("LogTable"), "Key": key, "ReturnValues": "ALL_OLD"});
    // The table asks for a signature and does not verify it.
    let signature = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0";
    let headers = [
        ("x-amz-target", "DynamoDB_20120810.DeleteItem"),
        ("content-type", "application/x-amz-json-1.0"),
        ("x-amz-date", "20260101T000000Z"),
        ("authorization", signature),
    ];
    let answer = send(Method::POST, &stack.ready().aws, &headers, request.to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.json()["Attributes"].is_object(), "the entry was not there: {answer:?}");
}
