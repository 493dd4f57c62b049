//! The queue on the wire of SQS.

use crate::server::{Asked, Reply, Server};
use carillon_aws::queue::SqsQueue;
use carillon_core::channel::Channel;
use carillon_engine::ports::{Answer, Queue};
use carillon_engine::rows::ShardKey;
use carillon_engine::wakeup::Wakeup;
use serde_json::{Value, json};
use std::error::Error;
use std::time::Duration;

const URL: &str = "http://queue.example/000000000000/wakeups";

#[tokio::test]
async fn p3_wake_ups_go_in_batches_of_ten() {
    let server = Server::start([sent(&[])]).await;
    send(&server, 23).await.expect("all are sent");
    let mut batches: Vec<Vec<String>> = server.asked().iter().map(bodies).collect();
    batches.sort_by_key(|batch| std::cmp::Reverse(batch.len()));
    assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 3]);
    let mut all: Vec<_> = batches.concat().iter().map(|body| Wakeup::decode(body).expect("a wake-up")).collect();
    all.sort_by_key(|wakeup| wakeup.key.shard);
    assert_eq!(all, wakeups(23));
    let asked = &server.asked()[0];
    assert_eq!(asked.headers["x-amz-target"], "AmazonSQS.SendMessageBatch");
    assert_eq!(request(asked)["QueueUrl"], URL);
}

#[tokio::test]
async fn p3_what_fails_in_part_is_sent_again_for_that_part() {
    let server = Server::start([sent(&[("1", false), ("3", false)]), sent(&[("3", false)]), sent(&[])]).await;
    send(&server, 5).await.expect("all are sent in the end");
    let expected = wakeups(5).iter().map(Wakeup::encode).collect::<Vec<_>>();
    let batches: Vec<_> = server.asked().iter().map(bodies).collect();
    assert_eq!(batches[0], expected);
    assert_eq!(batches[1], [expected[1].clone(), expected[3].clone()]);
    assert_eq!(batches[2], [expected[3].clone()]);
    assert_eq!(batches.len(), 3);
}

#[tokio::test]
async fn p3_what_still_fails_after_three_tries_is_an_error() {
    let server = Server::start([sent(&[("0", false)])]).await;
    let error = send(&server, 2).await.expect_err("one is never taken");
    let reason = error.source().expect("a reason").to_string();
    assert_eq!(reason, "1 of the messages were refused, the last with InternalError: try later");
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn p3_a_sender_s_fault_is_not_tried_again() {
    let server = Server::start([sent(&[("0", true)])]).await;
    send(&server, 2).await.expect_err("it is our fault");
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn p3_a_batch_that_fails_keeps_no_other_back() {
    let refused = Reply::json(400, r#"{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"no such queue"}"#);
    let server = Server::start([refused, sent(&[])]).await;
    send(&server, 30).await.expect_err("one batch failed");
    assert_eq!(server.asked().len(), 3, "the others were sent");
}

#[tokio::test]
async fn a_service_that_fails_for_a_moment_is_asked_again() {
    let server = Server::start([Reply::status(500), Reply::status(503), sent(&[])]).await;
    send(&server, 1).await.expect("sent in the end");
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn nobody_to_wake_costs_no_call() {
    let server = Server::start([sent(&[])]).await;
    send(&server, 0).await.expect("nothing to do");
    assert_eq!(server.asked().len(), 0);
}

#[tokio::test]
async fn p2_a_wake_up_for_later_says_when_in_seconds() {
    for (delay, expected) in [(Duration::ZERO, Value::Null), (Duration::from_secs(15), json!(15)), (Duration::MAX, json!(900))] {
        let server = Server::start([sent(&[])]).await;
        let config = crate::support::config(&[("AWS_ENDPOINT_URL_SQS", server.address())]);
        SqsQueue::new(&config, URL).send(&wakeups(1), delay).await.expect("sent");
        assert_eq!(request(&server.asked()[0])["Entries"][0]["DelaySeconds"], expected);
    }
}

fn wakeups(count: u32) -> Vec<Wakeup> {
    let channel = Channel::parse("orders/42").expect("a channel");
    (0..count).map(|shard| Wakeup::wake(ShardKey::new(&channel, shard))).collect()
}

/// An answer in which these entries failed, with whether it was the sender's fault.
fn sent(failed: &[(&str, bool)]) -> Reply {
    let failed: Vec<_> = failed
        .iter()
        .map(|(id, fault)| json!({"Id": id, "SenderFault": fault, "Code": "InternalError", "Message": "try later"}))
        .collect();
    let taken = json!({"Id": "9", "MessageId": "message", "MD5OfMessageBody": "00000000000000000000000000000000"});
    Reply::json(200, json!({"Successful": [taken], "Failed": failed}).to_string())
}

fn request(asked: &Asked) -> Value {
    serde_json::from_str(&asked.body).expect("JSON")
}

fn bodies(asked: &Asked) -> Vec<String> {
    let request = request(asked);
    let entries = request["Entries"].as_array().expect("entries");
    entries.iter().map(|entry| entry["MessageBody"].as_str().expect("a body").to_owned()).collect()
}

async fn send(server: &Server, count: u32) -> Answer<()> {
    let config = crate::support::config(&[("AWS_ENDPOINT_URL_SQS", server.address())]);
    SqsQueue::new(&config, URL).send(&wakeups(count), Duration::ZERO).await
}
