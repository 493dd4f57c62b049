//! SQS as the AWS SDK and plain HTTP see it.

use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::ProvideErrorMetadata;
use aws_sdk_sqs::primitives::Blob;
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, MessageAttributeValue, MessageSystemAttributeName,
    QueueAttributeName, SendMessageBatchRequestEntry,
};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use carillon_local::spec::QueueSpec;
use carillon_local::sqs::{Sqs, api};
use serde_json::json;

use crate::harness::{call, golden, json, sdk};

/// Queues behind a listener of their own.
struct Stand {
    endpoint: String,
    client: Client,
    url: String,
}

fn queue(name: &str, redrive: Option<(String, u32)>) -> QueueSpec {
    QueueSpec {
        logical_id: name.to_owned(),
        name: name.to_owned(),
        arn: format!("arn:aws:sqs:us-east-1:123456789012:{name}"),
        visibility: Duration::from_secs(30),
        delay: Duration::ZERO,
        retention: Duration::from_secs(345_600),
        redrive,
    }
}

async fn stand() -> Stand {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let dead = queue("dead", None);
    let queues = [queue("main", None), queue("fragile", Some((dead.arn.clone(), 1))), dead];
    let sqs = Sqs::new(&queues, &endpoint, "123456789012");
    let url = sqs.url("main");
    let router = Router::new().fallback(respond).with_state(sqs);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Stand { client: Client::new(&sdk(&endpoint)), endpoint, url }
}

async fn respond(State(sqs): State<Sqs>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers["x-amz-target"].to_str().expect("text").to_owned();
    api::respond(&sqs, target.strip_prefix("AmazonSQS.").expect("an action of SQS"), &body).await
}

#[tokio::test]
async fn a_message_comes_with_all_that_was_sent_and_is_deleted() {
    let stand = stand().await;
    let text = MessageAttributeValue::builder().data_type("String").string_value("ü").build().expect("complete");
    let binary =
        MessageAttributeValue::builder().data_type("Binary.png").binary_value(Blob::new([0, 255])).build().expect("complete");
    // The SDK checks the digests of body and attributes itself.
    let sent = stand
        .client
        .send_message()
        .queue_url(&stand.url)
        .message_body("hellö")
        .message_attributes("text", text.clone())
        .message_attributes("binary", binary.clone())
        .send()
        .await
        .expect("sent");
    let receive = || stand.client.receive_message().queue_url(&stand.url).wait_time_seconds(0);
    let received = receive()
        .message_attribute_names("All")
        .message_system_attribute_names(MessageSystemAttributeName::All)
        .send()
        .await
        .expect("received");
    let [message] = received.messages() else { panic!("one message: {received:?}") };
    assert_eq!((message.body(), message.message_id()), (Some("hellö"), sent.message_id()));
    let attributes = message.message_attributes().expect("they were asked for");
    assert_eq!((&attributes["text"], &attributes["binary"]), (&text, &binary));
    assert_eq!(message.md5_of_message_attributes(), sent.md5_of_message_attributes());
    assert_eq!(message.attributes().expect("asked for")[&MessageSystemAttributeName::ApproximateReceiveCount], "1");
    let handle = message.receipt_handle().expect("it has one");
    stand.client.delete_message().queue_url(&stand.url).receipt_handle(handle).send().await.expect("deleted");
    let change = stand.client.change_message_visibility().queue_url(&stand.url).receipt_handle(handle).visibility_timeout(0);
    assert_eq!(change.send().await.expect_err("it is gone").code(), Some("InvalidParameterValue"));
    assert!(receive().send().await.expect("nothing").messages().is_empty());
}

#[tokio::test]
async fn batches_report_each_entry() {
    let stand = stand().await;
    let entry =
        |id: &str, body: &str| SendMessageBatchRequestEntry::builder().id(id).message_body(body).build().expect("complete");
    let batch = |entries: Vec<SendMessageBatchRequestEntry>| {
        stand.client.send_message_batch().queue_url(&stand.url).set_entries(Some(entries)).send()
    };
    let answer = batch(vec![entry("a", "one"), entry("b", "\u{1}"), entry("c", "two")]).await.expect("two of three");
    let ids = answer.successful().iter().map(|entry| entry.id().to_owned()).collect::<Vec<_>>();
    assert_eq!(ids, ["a", "c"]);
    let [failed] = answer.failed() else { panic!("one failed: {answer:?}") };
    assert_eq!((failed.id(), failed.code(), failed.sender_fault()), ("b", "InvalidMessageContents", true));

    for (entries, code) in [
        (vec![], "AWS.SimpleQueueService.EmptyBatchRequest"),
        (vec![entry("a", "x"), entry("a", "y")], "AWS.SimpleQueueService.BatchEntryIdsNotDistinct"),
        (vec![entry("a b", "x")], "AWS.SimpleQueueService.InvalidBatchEntryId"),
        ((0..11).map(|index| entry(&index.to_string(), "x")).collect(), "AWS.SimpleQueueService.TooManyEntriesInBatchRequest"),
        (vec![entry("a", &"x".repeat(600_000)), entry("b", &"x".repeat(600_000))], "AWS.SimpleQueueService.BatchRequestTooLong"),
    ] {
        assert_eq!(batch(entries).await.expect_err(code).code(), Some(code));
    }

    let received = stand.client.receive_message().queue_url(&stand.url).max_number_of_messages(10).send().await.expect("both");
    let handles =
        received.messages().iter().map(|message| message.receipt_handle().expect("it has one").to_owned()).collect::<Vec<_>>();
    assert_eq!(handles.len(), 2);
    let visible = ChangeMessageVisibilityBatchRequestEntry::builder().id("x").receipt_handle(&handles[0]).visibility_timeout(0);
    let change = stand.client.change_message_visibility_batch().queue_url(&stand.url).entries(visible.build().expect("complete"));
    assert_eq!(change.send().await.expect("changed").successful().len(), 1);
    let delete = |id: &str, handle: &str| {
        DeleteMessageBatchRequestEntry::builder().id(id).receipt_handle(handle).build().expect("complete")
    };
    let deleted = stand
        .client
        .delete_message_batch()
        .queue_url(&stand.url)
        .entries(delete("0", &handles[0]))
        .entries(delete("1", &handles[1]))
        .entries(delete("2", "nonsense"))
        .send()
        .await
        .expect("answered");
    assert_eq!((deleted.successful().len(), deleted.failed()[0].code()), (2, "ReceiptHandleIsInvalid"));
}

#[tokio::test]
async fn a_long_poll_ends_with_the_first_message() {
    let stand = stand().await;
    let poll = tokio::spawn(stand.client.receive_message().queue_url(&stand.url).wait_time_seconds(20).send());
    // The poll may or may not have begun: the message must end it either way.
    stand.client.send_message().queue_url(&stand.url).message_body("x").send().await.expect("sent");
    let received = tokio::time::timeout(Duration::from_secs(10), poll).await.expect("long before its 20 seconds");
    assert_eq!(received.expect("no panic").expect("received").messages().len(), 1);
}

#[tokio::test]
async fn messages_that_are_received_too_often_end_in_the_dead_letter_queue() {
    let stand = stand().await;
    let url = |name: &str| stand.url.replace("main", name);
    stand.client.send_message().queue_url(url("fragile")).message_body("x").send().await.expect("sent");
    let receive = |name: &str| stand.client.receive_message().queue_url(url(name)).visibility_timeout(0);
    assert_eq!(receive("fragile").send().await.expect("first").messages().len(), 1);
    assert!(receive("fragile").send().await.expect("second").messages().is_empty());
    let dead = receive("dead").message_system_attribute_names(MessageSystemAttributeName::All).send().await.expect("third");
    let attributes = dead.messages()[0].attributes().expect("asked for");
    assert_eq!(attributes[&MessageSystemAttributeName::DeadLetterQueueSourceArn], "arn:aws:sqs:us-east-1:123456789012:fragile");
    let sources = stand.client.list_dead_letter_source_queues().queue_url(url("dead")).send().await.expect("listed");
    assert_eq!(sources.queue_urls(), [url("fragile")]);
}

#[tokio::test]
async fn queues_can_be_found_counted_and_emptied() {
    let stand = stand().await;
    let url = stand.client.get_queue_url().queue_name("main").send().await.expect("found");
    assert_eq!(url.queue_url(), Some(stand.url.as_str()));
    let listed = stand.client.list_queues().queue_name_prefix("f").send().await.expect("listed");
    assert_eq!(listed.queue_urls(), [stand.url.replace("main", "fragile")]);
    let page = stand.client.list_queues().max_results(2).send().await.expect("listed");
    assert_eq!(page.queue_urls().len(), 2);
    let rest = stand
        .client
        .list_queues()
        .max_results(2)
        .next_token(page.next_token().expect("there are three"))
        .send()
        .await
        .expect("listed");
    assert_eq!((rest.queue_urls().len(), rest.next_token()), (1, None));

    stand.client.send_message().queue_url(&stand.url).message_body("now").send().await.expect("sent");
    stand.client.send_message().queue_url(&stand.url).message_body("later").delay_seconds(900).send().await.expect("sent");
    let count = async || {
        let answer =
            stand.client.get_queue_attributes().queue_url(&stand.url).attribute_names(QueueAttributeName::All).send().await;
        let attributes = answer.expect("answered").attributes.expect("all");
        let number = |name: QueueAttributeName| attributes[&name].clone();
        (
            number(QueueAttributeName::ApproximateNumberOfMessages),
            number(QueueAttributeName::ApproximateNumberOfMessagesDelayed),
            number(QueueAttributeName::VisibilityTimeout),
        )
    };
    assert_eq!(count().await, ("1".to_owned(), "1".to_owned(), "30".to_owned()));
    stand.client.purge_queue().queue_url(&stand.url).send().await.expect("purged");
    assert_eq!(count().await, ("0".to_owned(), "0".to_owned(), "30".to_owned()));
}

#[tokio::test]
async fn limits_are_those_of_sqs() {
    let stand = stand().await;
    let send = |body: String| stand.client.send_message().queue_url(&stand.url).message_body(body).send();
    send("x".repeat(1_048_576)).await.expect("1 MiB is allowed");
    assert_eq!(send("x".repeat(1_048_577)).await.expect_err("a byte more is not").code(), Some("InvalidParameterValue"));
    assert_eq!(send(String::new()).await.expect_err("a body is needed").code(), Some("MissingParameter"));
    assert_eq!(send("a\u{B}b".to_owned()).await.expect_err("a control character").code(), Some("InvalidMessageContents"));
    let receive = || stand.client.receive_message().queue_url(&stand.url);
    for request in [receive().max_number_of_messages(11), receive().wait_time_seconds(21), receive().visibility_timeout(43_201)] {
        assert_eq!(request.send().await.expect_err("over the limit").code(), Some("InvalidParameterValue"));
    }
    let missing =
        stand.client.receive_message().queue_url(stand.url.replace("main", "none")).send().await.expect_err("no such queue");
    assert_eq!(missing.code(), Some("AWS.SimpleQueueService.NonExistentQueue"));
    assert!(missing.into_service_error().is_queue_does_not_exist());
    let create = stand.client.create_queue().queue_name("new").send().await.expect_err("queues are the template's");
    assert_eq!(create.code(), Some("AWS.SimpleQueueService.UnsupportedOperation"));
}

#[tokio::test]
async fn errors_are_those_of_sqs_to_the_letter() {
    let stand = stand().await;
    let response = call(&stand.endpoint, "AmazonSQS.GetQueueUrl", &json!({"QueueName": "none"})).await;
    let header = |name: &str| response.headers()[name].to_str().expect("text").to_owned();
    let seen = json!({
        "status": response.status().as_u16(),
        "content-type": header("content-type"),
        "x-amzn-query-error": header("x-amzn-query-error"),
        "body": json(response.body()),
    });
    assert_eq!(seen, golden("sqs/queue_does_not_exist.json"));
}

#[tokio::test]
async fn malformed_requests_are_errors_and_not_crashes() {
    let stand = stand().await;
    for (action, body) in [
        ("SendMessage", json!([1])),
        ("SendMessage", json!({"QueueUrl": 7})),
        ("SendMessage", json!({"MessageBody": "no queue"})),
        ("SendMessageBatch", json!({"QueueUrl": stand.url, "Entries": "x"})),
        ("ReceiveMessage", json!({"QueueUrl": stand.url, "MaxNumberOfMessages": 0})),
        ("DeleteMessage", json!({"QueueUrl": stand.url, "ReceiptHandle": "Y2FyaWxsb246eDp5"})),
        ("ChangeMessageVisibility", json!({"QueueUrl": stand.url, "ReceiptHandle": "Y2FyaWxsb246MDox"})),
        ("Nothing", json!({})),
    ] {
        let response = call(&stand.endpoint, &format!("AmazonSQS.{action}"), &body).await;
        assert_eq!(response.status(), 400, "{action} {body}");
        assert!(json(response.body())["message"].is_string(), "{action} {body}");
    }
}
