//! DynamoDB: tables of the template, kept and not kept.

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use carillon_local::calls::Calls;
use carillon_local::dynamodb::{DynamoDb, DynamoDbError, Storage};
use carillon_local::spec::TableSpec;
use serde_json::{Value, json};

use crate::harness::sdk;

fn table(key: &str) -> TableSpec {
    TableSpec {
        logical_id: "Table".to_owned(),
        name: "stack-Table".to_owned(),
        create: json!({
            "TableName": "stack-Table",
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{"AttributeName": key, "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": key, "KeyType": "HASH"}],
            "StreamSpecification": {"StreamEnabled": true, "StreamViewType": "KEYS_ONLY"},
        }),
        ttl_attribute: Some("exp".to_owned()),
    }
}

fn start(table: &TableSpec, storage: &Storage) -> Result<(DynamoDb, Client), DynamoDbError> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let dynamodb = DynamoDb::start(listener, std::slice::from_ref(table), storage, Calls::default())?;
    let client = Client::new(&sdk(&format!("http://{}", dynamodb.address())));
    Ok((dynamodb, client))
}

async fn put(client: &Client, key: &str) {
    let put = client.put_item().table_name("stack-Table").item("pk", AttributeValue::S(key.to_owned()));
    put.condition_expression("attribute_not_exists(pk)").send().await.expect("put");
}

async fn count(client: &Client) -> i32 {
    client.scan().table_name("stack-Table").send().await.expect("scanned").count()
}

#[tokio::test]
async fn the_templates_table_is_there_with_its_ttl_and_its_stream() {
    let (dynamodb, client) = start(&table("pk"), &Storage::Temporary).expect("it starts");
    let described = client.describe_table().table_name("stack-Table").send().await.expect("described");
    let described = described.table().expect("a table");
    assert_eq!(described.table_status().map(ToString::to_string).as_deref(), Some("ACTIVE"));
    assert!(described.stream_specification().expect("it has a stream").stream_enabled());
    let ttl = client.describe_time_to_live().table_name("stack-Table").send().await.expect("described");
    assert_eq!(ttl.time_to_live_description().and_then(|ttl| ttl.attribute_name()), Some("exp"));
    put(&client, "a").await;
    assert_eq!(count(&client).await, 1);
    dynamodb.shutdown().await;
}

#[tokio::test]
async fn kept_tables_are_found_again_and_others_are_not() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let kept = Storage::Kept(folder.path().join("deep/data"));
    for expected in 1..=2 {
        let (dynamodb, client) = start(&table("pk"), &kept).expect("it starts");
        put(&client, &format!("item {expected}")).await;
        assert_eq!(count(&client).await, expected);
        dynamodb.shutdown().await;
    }
    let (dynamodb, client) = start(&table("pk"), &Storage::Temporary).expect("it starts");
    assert_eq!(count(&client).await, 0);
    dynamodb.shutdown().await;
}

#[tokio::test]
async fn a_kept_table_with_another_key_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let kept = Storage::Kept(folder.path().to_owned());
    start(&table("pk"), &kept).expect("it starts").0.shutdown().await;
    let error = start(&table("id"), &kept).expect_err("the key changed").to_string();
    let folder = folder.path().display();
    assert_eq!(
        error,
        format!(
            "the table Table is kept in {folder} with another KeySchema than the template's: \
             change the template back, or start with an empty --data folder"
        )
    );
}

#[tokio::test]
async fn a_table_that_dynamodb_refuses_is_named() {
    let mut refused = table("pk");
    refused.create["KeySchema"] = Value::Array(Vec::new());
    let error = start(&refused, &Storage::Temporary).expect_err("no key");
    assert_eq!(error.to_string(), "the table Table cannot be created");
    assert!(std::error::Error::source(&error).is_some());
    let blocked = Storage::Kept(Path::new("/proc/nowhere").to_owned());
    assert!(matches!(start(&table("pk"), &blocked), Err(DynamoDbError::Folder { .. })));
}

#[tokio::test]
async fn expired_items_are_deleted() {
    let (dynamodb, client) = start(&table("pk"), &Storage::Temporary).expect("it starts");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let expired = AttributeValue::N((now - 60).to_string());
    let put = client.put_item().table_name("stack-Table").item("pk", AttributeValue::S("old".to_owned())).item("exp", expired);
    put.send().await.expect("put");
    let give_up = tokio::time::Instant::now() + Duration::from_secs(40);
    while count(&client).await > 0 {
        assert!(tokio::time::Instant::now() < give_up, "the item is still there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    dynamodb.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_an_idle_or_half_sent_request() {
    let (dynamodb, client) = start(&table("pk"), &Storage::Temporary).expect("it starts");
    put(&client, "a").await;
    let mut stalled = tokio::net::TcpStream::connect(dynamodb.address()).await.expect("connected");
    let half = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{";
    tokio::io::AsyncWriteExt::write_all(&mut stalled, half).await.expect("written");
    tokio::time::timeout(Duration::from_secs(3), dynamodb.shutdown()).await.expect("within three seconds");
}
