//! The store on the wire of DynamoDB: what a table on one machine never answers.

use crate::server::{Reply, Server};
use carillon_aws::store::DynamoStore;
use carillon_core::channel::{Channel, Namespace};
use carillon_core::event::{EventJson, Identity};
use carillon_core::namespace::NamespaceOptions;
use carillon_core::position::Epoch;
use carillon_core::time::{Millis, Seconds};
use carillon_engine::ports::{Heads, Leases, Log, Namespaces, Shards};
use carillon_engine::rows::{AppendOutcome, ListOutcome, NewEntry, NewMessage, RotateOutcome, Rotation, ShardKey};
use serde_json::{Value, json};
use std::error::Error;

const NOW: Millis = Millis(4_102_444_800_000);
const LASTING: Seconds = Seconds(NOW.0 / 1000 + 3_600);

#[tokio::test]
async fn a_write_that_meets_a_transaction_is_sent_again() {
    let server = Server::start([met_a_transaction(), met_a_transaction(), Reply::json(200, "{}")]).await;
    store(&server).bump(&shard(), NOW).await.expect("done in the end");
    let asked = server.asked();
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|request| request.body == asked[0].body), "the same write each time");
}

#[tokio::test]
async fn a_write_that_keeps_meeting_transactions_is_an_error_in_the_end() {
    let server = Server::start([met_a_transaction()]).await;
    let error = store(&server).bump(&shard(), NOW).await.expect_err("it never gets through");
    let reason = error.source().expect("a reason").to_string();
    assert!(reason.starts_with("the service answered 400 TransactionConflictException: ongoing"), "{reason}");
    assert_eq!(server.asked().len(), 6);
}

#[tokio::test]
async fn a5_an_append_that_meets_a_transaction_is_a_conflict_at_once() {
    let server = Server::start([met_a_transaction()]).await;
    let outcome = store(&server).append(&entry(None), NOW).await.expect("an outcome");
    assert_eq!((outcome, server.asked().len()), (AppendOutcome::Conflict, 1));
}

#[tokio::test]
async fn a_transaction_that_meets_another_is_a_conflict() {
    for code in ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"] {
        let server = Server::start([cancelled(&["None", code])]).await;
        let store = store(&server);
        let marked = entry(Some(Identity::new("source", "id")));
        assert_eq!(store.append(&marked, NOW).await.expect("an outcome"), AppendOutcome::Conflict);
        assert_eq!(store.list(&shard(), NOW).await.expect("an outcome"), ListOutcome::Conflict);
        assert!(!store.unlist(&shard(), "owner", 1).await.expect("an outcome"));
        assert_eq!(server.asked().len(), 3, "the engine decides when to try again");

        // A rotation lets the head live long enough before it relies on it.
        let server = Server::start([Reply::json(200, "{}"), cancelled(&[code, "None"])]).await;
        let outcome = self::store(&server).rotate(&rotation(), NOW).await.expect("an outcome");
        assert_eq!(outcome, RotateOutcome::Conflict);
    }
}

#[tokio::test]
async fn a_transaction_that_is_refused_for_what_it_says_is_an_error() {
    let server = Server::start([cancelled(&["None", "ValidationError"])]).await;
    let error = store(&server).list(&shard(), NOW).await.expect_err("no other try could change that");
    let reason = error.source().expect("a reason").to_string();
    assert!(reason.contains("TransactionCanceledException"), "{reason}");
}

#[tokio::test]
async fn a5_each_transaction_has_a_token_that_outlives_the_sdk_s_tries_and_not_the_call() {
    let server = Server::start([Reply::status(500), cancelled(&["None", "TransactionConflict"])]).await;
    let store = store(&server);
    for _ in 0..2 {
        let marked = entry(Some(Identity::new("source", "id")));
        store.append(&marked, NOW).await.expect("an outcome");
    }
    let tokens: Vec<_> = server
        .asked()
        .iter()
        .map(|request| serde_json::from_str::<Value>(&request.body).expect("JSON")["ClientRequestToken"].clone())
        .collect();
    assert_eq!(tokens.len(), 3, "one call of two tries, one of one");
    assert!(tokens[0].is_string());
    assert_eq!(tokens[0], tokens[1]);
    assert_ne!(tokens[1], tokens[2]);
}

#[tokio::test]
async fn options_are_set_in_spite_of_another_who_sets_them() {
    let server = Server::start([cancelled(&["TransactionConflict", "None"]), Reply::json(200, "{}")]).await;
    let namespace = Namespace::parse("orders").expect("a namespace");
    let options = NamespaceOptions::default();
    store(&server).set_namespace(&namespace, &options).await.expect("set in the end");
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn a_throttled_read_is_sent_again_and_gives_up_in_the_end() {
    let throttled = || dynamo_error("ProvisionedThroughputExceededException", "slow down");
    let server = Server::start([throttled(), throttled(), Reply::json(200, "{}")]).await;
    assert_eq!(store(&server).head(&shard().channel, NOW).await.expect("an answer"), None);
    assert_eq!(server.asked().len(), 3);

    let server = Server::start([throttled()]).await;
    store(&server).head(&shard().channel, NOW).await.expect_err("it is throttled for good");
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn reads_are_strongly_consistent() {
    let server = Server::start([Reply::json(200, "{}")]).await;
    let store = store(&server);
    let channel = shard().channel;
    store.head(&channel, NOW).await.expect("an answer");
    store.newest(&channel, Epoch(7), NOW).await.expect("an answer");
    store.read(&channel, Epoch(7), 1, None, 10, NOW).await.expect("an answer");
    for request in server.asked() {
        let body: Value = serde_json::from_str(&request.body).expect("JSON");
        assert_eq!(body["ConsistentRead"], true, "{body}");
    }
}

#[tokio::test]
async fn a_row_that_is_none_is_named_with_what_is_wrong() {
    let row = json!({"Item": {"pk": {"S": "H#a"}, "sk": {"S": "H"}, "started": {"BOOL": true}, "epoch": {"S": "7"}}});
    let server = Server::start([Reply::json(200, row.to_string())]).await;
    let error = store(&server).head(&shard().channel, NOW).await.expect_err("its epoch is a text");
    assert_eq!(error.to_string(), "reading a head failed");
    assert_eq!(error.source().expect("a reason").to_string(), "a row of the kind 'head' has no number in 'epoch'");
}

fn store(server: &Server) -> DynamoStore {
    let config = crate::support::config(&[("AWS_ENDPOINT_URL_DYNAMODB", server.address())]);
    DynamoStore::new(&config, "log", "registry")
}

fn shard() -> ShardKey {
    ShardKey::new(&Channel::parse("orders/42").expect("a channel"), 0)
}

fn entry(identity: Option<Identity>) -> NewEntry {
    NewEntry {
        channel: shard().channel,
        epoch: Epoch(7),
        first: 1,
        messages: vec![NewMessage { event: EventJson::from_log("{}"), identity }],
        attempt: "attempt".to_owned(),
        ts: NOW,
        exp: LASTING,
        markers_exp: LASTING,
        starts: false,
    }
}

fn rotation() -> Rotation {
    let channel = shard().channel;
    Rotation { channel, from: Epoch(7), to: Epoch(8), last: Some(3), closing_exp: LASTING, head_exp: LASTING }
}

fn met_a_transaction() -> Reply {
    dynamo_error("TransactionConflictException", "ongoing")
}

fn dynamo_error(name: &str, message: &str) -> Reply {
    let kind = format!("com.amazonaws.dynamodb.v20120810#{name}");
    Reply::json(400, json!({"__type": kind, "message": message}).to_string())
}

fn cancelled(codes: &[&str]) -> Reply {
    let reasons: Vec<_> = codes.iter().map(|code| json!({"Code": code})).collect();
    let kind = "com.amazonaws.dynamodb.v20120810#TransactionCanceledException";
    let message = "Transaction cancelled, please refer cancellation reasons for specific reasons";
    Reply::json(400, json!({"__type": kind, "Message": message, "CancellationReasons": reasons}).to_string())
}
