//! The store in DynamoDB keeps the contract of the ports, against dynoxide: DynamoDB's wire on SQLite in memory.
//!
//! All tests share one server, as functions share one pair of tables; each works on channels of its own.

mod support;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::types::{AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType};
use carillon_aws::store::DynamoStore;
use carillon_core::channel::{Channel, Namespace};
use carillon_core::connection::ConnectionId;
use carillon_core::event::EventJson;
use carillon_core::namespace::NamespaceOptions;
use carillon_core::position::{Epoch, Position};
use carillon_core::time::{Millis, Seconds};
use carillon_engine::ports::{Connections, Log, Namespaces, Shards, Subscriptions};
use carillon_engine::rows::{Dialect, Inverse, Link, NewEntry, NewMessage, ShardKey, Subscription, SubscriptionState, Tail};
use std::collections::HashMap;
use std::error::Error;
use std::sync::LazyLock;
use std::sync::mpsc;
use std::thread;

const LOG: &str = "log";
const REGISTRY: &str = "registry";
const NOW: Millis = Millis(4_102_444_800_000);
const LASTING: Seconds = Seconds(NOW.0 / 1000 + 3_600);

carillon_engine::contract_tests!(store());

/// The server's address. It has a thread and a runtime of its own, because every test has a runtime that ends with it.
static SERVER: LazyLock<String> = LazyLock::new(|| {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let address = format!("http://{}", listener.local_addr().expect("an address"));
            let database = dynoxide::Database::memory().expect("a database");
            let server = tokio::spawn(dynoxide::server::serve_with_shutdown(listener, database, std::future::pending()));
            create_tables(&address).await;
            sender.send(address).expect("somebody waits");
            server.await.expect("no panic").expect("a server");
        });
    });
    receiver.recv().expect("the server starts")
});

#[tokio::test]
async fn d7_an_entry_that_cannot_be_decoded_has_its_offsets_and_no_events() {
    let channel = Channel::parse("undecodable/a").expect("a channel");
    let store = store();
    for (first, body) in [(1, None), (3, Some("[1")), (5, Some("[1]")), (7, Some("{}")), (9, None)] {
        let messages = ["1", "2"].map(|json| NewMessage { event: EventJson::from_log(json), identity: None }).to_vec();
        store.append(&entry(&channel, first, messages), NOW).await.expect("an answer");
        if let Some(body) = body {
            set(LOG, "L#undecodable/a#7", &format!("{first:016}"), "body", AttributeValue::S(body.to_owned())).await;
        }
    }
    let window = store.read(&channel, Epoch(7), 0, None, 100, NOW).await.expect("an answer");
    let found: Vec<_> = window.messages.iter().map(|message| (message.offset, message.event.is_some())).collect();
    let expected: Vec<_> = (1..=10).map(|offset| (offset, !(3..=8).contains(&offset))).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn d7_an_entry_of_any_length_but_a_possible_one_is_passed_over() {
    let channel = Channel::parse("overlong/a").expect("a channel");
    let store = store();
    let message = NewMessage { event: EventJson::from_log("1"), identity: None };
    store.append(&entry(&channel, 1, vec![message.clone()]), NOW).await.expect("an answer");
    set(LOG, "L#overlong/a#7", "0000000000000001", "n", AttributeValue::N("18446744073709551615".to_owned())).await;
    let window = store.read(&channel, Epoch(7), 0, None, 1_000, NOW).await.expect("an answer");
    assert_eq!(window.messages.len(), 64, "as many as an entry can hold");
    assert!(window.messages.iter().all(|message| message.event.is_none()));
    let tail = store.newest(&channel, Epoch(7), NOW).await.expect("an answer");
    assert_eq!(tail, Some(Tail { last: 64, exp: LASTING, closing: false }));
}

#[tokio::test]
async fn rows_are_as_documented() {
    let channel = Channel::parse("documented/a").expect("a channel");
    let store = store();
    let messages = [r#"{"a":1}"#, r#"{"b":2}"#].map(|json| NewMessage { event: EventJson::from_log(json), identity: None });
    store.append(&entry(&channel, 42, messages.to_vec()), NOW).await.expect("an answer");
    let row = get(LOG, "L#documented/a#7", "0000000000000042").await;
    assert_eq!(row["body"], AttributeValue::S(r#"[{"a":1},{"b":2}]"#.to_owned()));
    assert_eq!(row["n"], AttributeValue::N("2".to_owned()));
    assert_eq!(row["attempt"], AttributeValue::S("attempt".to_owned()));
    assert_eq!(row["ts"], AttributeValue::N("4102444800000".to_owned()), "milliseconds");
    assert_eq!(row["exp"], AttributeValue::N("4102448400".to_owned()), "seconds, as time to live has it");
    assert_eq!(row.len(), 7, "{row:?}");
}

#[tokio::test]
async fn a_row_of_later_code_keeps_nobody_else_from_theirs() {
    let channel = Channel::parse("later/a").expect("a channel");
    let key = ShardKey::new(&channel, 0);
    let store = store();
    for connection in ["a", "b", "c"] {
        let row = Subscription {
            key: key.clone(),
            connection: connection_id(connection),
            rid: "rid".to_owned(),
            from: Position::new(Epoch(7), 0),
            state: SubscriptionState::Live,
            dialect: Dialect::Native,
            connected_at: NOW,
            exp: LASTING,
        };
        store.subscribe(&row, false, NOW).await.expect("an answer");
    }
    set(REGISTRY, "S#later/a#0", "c#b", "state", AttributeValue::S("hovering".to_owned())).await;
    let (rows, more) = store.page(&key, None, NOW).await.expect("an answer");
    let found: Vec<_> = rows.iter().map(|row| row.connection.as_str()).collect();
    assert_eq!((found, more), (vec!["a", "c"], false));

    let inverse = Inverse { key, rid: "rid".to_owned() };
    let link = Link { connection: connection_id("later"), inverse: inverse.clone(), exp: LASTING };
    store.link(&link, false, NOW).await.expect("an answer");
    set(REGISTRY, "C#later", "w#will", "payload", AttributeValue::S("?".to_owned())).await;
    let (_, inverses) = store.connection(&link.connection, NOW).await.expect("an answer");
    assert_eq!(inverses, [inverse]);
}

#[tokio::test]
async fn a_namespace_s_other_attributes_stay_and_what_is_out_of_range_is_the_default() {
    let name = Namespace::parse("attributes").expect("a namespace");
    let store = store();
    for (pk, sk) in [("N#attributes", "N"), ("N#", "attributes")] {
        set(REGISTRY, pk, sk, "presence", AttributeValue::N("5".to_owned())).await;
    }
    let options = NamespaceOptions { history_size: 3, ..NamespaceOptions::default() };
    store.set_namespace(&name, &options).await.expect("an answer");
    assert_eq!(get(REGISTRY, "N#attributes", "N").await["presence"], AttributeValue::N("5".to_owned()));
    assert_eq!(get(REGISTRY, "N#", "attributes").await["presence"], AttributeValue::N("5".to_owned()));

    set(REGISTRY, "N#attributes", "N", "history_age_s", AttributeValue::N("99999999999".to_owned())).await;
    assert_eq!(store.namespace(&name).await.expect("an answer"), Some(options));
}

#[tokio::test]
async fn an_error_names_the_operation_and_what_the_service_said() {
    let config = support::config(&[("AWS_ENDPOINT_URL_DYNAMODB", SERVER.as_str())]);
    let store = DynamoStore::new(&config, "no-such-table", "no-such-table");
    let key = ShardKey::new(&Channel::parse("a").expect("a channel"), 0);
    let error = store.shard(&key, NOW).await.expect_err("there is no table");
    assert_eq!(error.to_string(), "reading a shard failed");
    let reason = error.source().expect("a reason").to_string();
    assert!(reason.starts_with("the service answered 400 ResourceNotFoundException: "), "{reason}");
}

#[tokio::test]
async fn a_service_that_is_not_there_is_told_apart() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let store = DynamoStore::new(&support::config(&[("AWS_ENDPOINT_URL", &address)]), LOG, REGISTRY);
    let key = ShardKey::new(&Channel::parse("a").expect("a channel"), 0);
    let error = store.shard(&key, NOW).await.expect_err("nobody listens");
    let reason = error.source().expect("a reason");
    assert_eq!(reason.to_string(), "the service could not be reached");
    assert!(reason.source().is_some(), "the cause is kept");
}

fn connection_id(text: &str) -> ConnectionId {
    ConnectionId::try_new(text).expect("an id")
}

fn store() -> DynamoStore {
    DynamoStore::new(&support::config(&[("AWS_ENDPOINT_URL_DYNAMODB", SERVER.as_str())]), LOG, REGISTRY)
}

fn entry(channel: &Channel, first: u64, messages: Vec<NewMessage>) -> NewEntry {
    NewEntry {
        channel: channel.clone(),
        epoch: Epoch(7),
        first,
        messages,
        attempt: "attempt".to_owned(),
        ts: NOW,
        exp: LASTING,
        markers_exp: LASTING,
        starts: false,
    }
}

/// A plain client, to look behind the store's back.
fn client(address: &str) -> Client {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .endpoint_url(address)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("AKIDEXAMPLE", "not-a-secret", None, None, "test"))
        .http_client(aws_smithy_http_client::Builder::new().build_http());
    Client::from_conf(config.build())
}

async fn create_tables(address: &str) {
    let client = client(address);
    for table in [LOG, REGISTRY] {
        let mut request = client.create_table().table_name(table).billing_mode(BillingMode::PayPerRequest);
        for (name, kind) in [("pk", KeyType::Hash), ("sk", KeyType::Range)] {
            let definition = AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S);
            let element = KeySchemaElement::builder().attribute_name(name).key_type(kind);
            request = request
                .attribute_definitions(definition.build().expect("name and type are set"))
                .key_schema(element.build().expect("name and type are set"));
        }
        request.send().await.expect("a table");
    }
}

async fn set(table: &str, pk: &str, sk: &str, attribute: &str, value: AttributeValue) {
    client(&SERVER)
        .update_item()
        .table_name(table)
        .key("pk", AttributeValue::S(pk.to_owned()))
        .key("sk", AttributeValue::S(sk.to_owned()))
        .update_expression("SET #attribute = :value")
        .expression_attribute_names("#attribute", attribute)
        .expression_attribute_values(":value", value)
        .send()
        .await
        .expect("a change");
}

async fn get(table: &str, pk: &str, sk: &str) -> HashMap<String, AttributeValue> {
    let output = client(&SERVER)
        .get_item()
        .table_name(table)
        .key("pk", AttributeValue::S(pk.to_owned()))
        .key("sk", AttributeValue::S(sk.to_owned()))
        .send()
        .await
        .expect("an answer");
    output.item.expect("a row")
}
