//! Event source mappings: what a function gets, and what becomes of its messages.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carillon_local::invoker::{InvokeError, Outcome};
use carillon_local::spec::{QueueSpec, SqsMappingSpec};
use carillon_local::sqs::Sqs;
use carillon_local::sqs::attributes::MessageAttributes;
use carillon_local::sqs::event_source::EventSource;
use carillon_local::sqs::queue::{Counts, NewMessage};
use serde_json::{Value, json};

use crate::harness::{Scripted, golden, until};

const ARN: &str = "arn:aws:sqs:us-east-2:123456789012:my-queue";

fn queues(visibility: Duration) -> Sqs {
    let queue = QueueSpec {
        logical_id: "Queue".to_owned(),
        name: "my-queue".to_owned(),
        arn: ARN.to_owned(),
        visibility,
        delay: Duration::ZERO,
        retention: Duration::from_secs(3600),
        redrive: None,
    };
    Sqs::new(&[queue], "http://127.0.0.1:1", "123456789012")
}

fn mapping() -> SqsMappingSpec {
    SqsMappingSpec {
        queue_arn: ARN.to_owned(),
        function: "Function".to_owned(),
        batch_size: 10,
        window: Duration::ZERO,
        maximum_concurrency: None,
        report_batch_item_failures: true,
    }
}

fn start(sqs: &Sqs, mapping: SqsMappingSpec, function: &Arc<Scripted>) -> EventSource {
    EventSource::start(sqs.clone(), mapping, function.clone(), "us-east-2").expect("the queue is there")
}

fn send(sqs: &Sqs, body: &str) {
    let queue = sqs.by_arn(ARN).expect("it is there");
    sqs.send(queue, NewMessage { body: body.to_owned(), ..NewMessage::default() });
}

fn counts(sqs: &Sqs) -> Counts {
    sqs.counts(sqs.by_arn(ARN).expect("it is there"))
}

fn bodies(event: &Value) -> Vec<&str> {
    let records = event["Records"].as_array().expect("an event has records");
    records.iter().map(|record| record["body"].as_str().expect("a body is a text")).collect()
}

/// An answer that names the messages with these bodies as failed.
fn failing(event: &Value, bodies: &[&str]) -> Outcome {
    let records = event["Records"].as_array().expect("an event has records").iter();
    let failed = records.filter(|record| bodies.contains(&record["body"].as_str().expect("a body is a text")));
    let failures = failed.map(|record| json!({"itemIdentifier": record["messageId"]})).collect::<Vec<_>>();
    Outcome::Success(Bytes::from(json!({"batchItemFailures": failures}).to_string()))
}

#[tokio::test]
async fn the_event_is_that_of_lambda() {
    let sqs = queues(Duration::from_secs(30));
    let attributes = json!({"myAttribute": {"DataType": "String", "StringValue": "myValue"}});
    let message = NewMessage {
        body: "Test message.".to_owned(),
        attributes: MessageAttributes::parse(Some(&attributes)).expect("valid"),
        ..NewMessage::default()
    };
    let id = sqs.send(sqs.by_arn(ARN).expect("it is there"), message);
    let function = Scripted::answering("");
    let source = start(&sqs, mapping(), &function);
    until("the batch", || !function.calls().is_empty()).await;
    source.shutdown().await;

    let mut event = function.calls().remove(0).1;
    let mut expected = golden("sqs/event.json");
    assert_eq!(event["Records"][0]["messageId"], id);
    for name in ["messageId", "receiptHandle"] {
        assert!(event["Records"][0][name].is_string());
        expected["Records"][0][name] = Value::Null;
        event["Records"][0][name] = Value::Null;
    }
    for name in ["SentTimestamp", "SenderId", "ApproximateFirstReceiveTimestamp"] {
        let (own, theirs) = (&mut event["Records"][0]["attributes"][name], &mut expected["Records"][0]["attributes"][name]);
        let (length, expected_length) = (own.as_str().map(str::len), theirs.as_str().map(str::len));
        assert_eq!(length, expected_length, "{name}");
        *own = Value::Null;
        *theirs = Value::Null;
    }
    // As text, so that the order of keys counts too.
    assert_eq!(event.to_string(), expected.to_string());
}

#[tokio::test]
async fn what_succeeds_is_deleted_and_what_fails_comes_back() {
    let sqs = queues(Duration::from_secs(1));
    for body in ["good", "bad", "good too"] {
        send(&sqs, body);
    }
    let function = Scripted::new(|number, event| Ok(if number == 0 { failing(event, &["bad"]) } else { failing(event, &[]) }));
    let source = start(&sqs, mapping(), &function);
    until("the failed message comes back and succeeds", || function.calls().len() == 2 && counts(&sqs) == Counts::default())
        .await;
    source.shutdown().await;
    let calls = function.calls();
    assert_eq!(bodies(&calls[0].1), ["good", "bad", "good too"]);
    assert_eq!(bodies(&calls[1].1), ["bad"]);
    assert_eq!(calls[1].1["Records"][0]["attributes"]["ApproximateReceiveCount"], "2");
}

#[tokio::test]
async fn a_function_error_or_an_invalid_answer_fails_the_whole_batch() {
    let function_error: fn() -> Outcome = || Outcome::FunctionError(Bytes::from_static(b"{}"));
    let invalid: fn() -> Outcome =
        || Outcome::Success(Bytes::from_static(b"{\"batchItemFailures\":[{\"itemIdentifier\":\"?\"}]}"));
    for outcome in [function_error, invalid] {
        let sqs = queues(Duration::from_secs(1));
        send(&sqs, "a");
        let function = Scripted::new(move |number, event| Ok(if number == 0 { outcome() } else { failing(event, &[]) }));
        let source = start(&sqs, mapping(), &function);
        until("the batch comes back", || function.calls().len() == 2 && counts(&sqs) == Counts::default()).await;
        source.shutdown().await;
    }
}

#[tokio::test]
async fn without_partial_answers_the_answer_does_not_count() {
    let sqs = queues(Duration::from_secs(30));
    send(&sqs, "a");
    let function = Scripted::new(|_, event| Ok(failing(event, &["a"])));
    let source = start(&sqs, SqsMappingSpec { report_batch_item_failures: false, ..mapping() }, &function);
    until("the batch is deleted", || counts(&sqs) == Counts::default()).await;
    source.shutdown().await;
    assert_eq!(function.calls().len(), 1);
}

#[tokio::test]
async fn a_throttled_batch_is_tried_again_without_being_received_again() {
    let sqs = queues(Duration::from_secs(30));
    send(&sqs, "a");
    let function = Scripted::new(|number, event| if number < 3 { Err(InvokeError::Throttled) } else { Ok(failing(event, &[])) });
    let source = start(&sqs, mapping(), &function);
    until("the fourth try succeeds", || counts(&sqs) == Counts::default()).await;
    source.shutdown().await;
    let calls = function.calls();
    assert_eq!(calls.len(), 4);
    assert!(calls.iter().all(|(_, event)| event["Records"][0]["attributes"]["ApproximateReceiveCount"] == "1"));
}

#[tokio::test]
async fn a_batch_is_no_larger_than_the_template_says_and_no_event_than_lambda_takes() {
    let sqs = queues(Duration::from_secs(30));
    for index in 0..7 {
        send(&sqs, &index.to_string());
    }
    let function = Scripted::answering("{}");
    let source = start(&sqs, SqsMappingSpec { batch_size: 3, ..mapping() }, &function);
    until("seven messages are deleted", || counts(&sqs) == Counts::default()).await;
    source.shutdown().await;
    assert!(function.calls().iter().all(|(_, event)| bodies(event).len() <= 3));

    // Ten messages of 1 MiB are over the 6 MB of an invocation.
    let sqs = queues(Duration::from_secs(30));
    for _ in 0..10 {
        send(&sqs, &"x".repeat(1_000_000));
    }
    let function = Scripted::answering("{}");
    let source = start(&sqs, mapping(), &function);
    until("ten messages are deleted", || counts(&sqs) == Counts::default()).await;
    source.shutdown().await;
    let sizes = function.calls().iter().map(|(_, event)| bodies(event).len()).collect::<Vec<_>>();
    assert_eq!(sizes, [6, 4]);
}

#[tokio::test]
async fn a_window_gathers_what_comes_later() {
    let sqs = queues(Duration::from_secs(30));
    let function = Scripted::answering("{}");
    let window = Duration::from_secs(20);
    let source = start(&sqs, SqsMappingSpec { batch_size: 3, window, ..mapping() }, &function);
    for body in ["a", "b", "c"] {
        send(&sqs, body);
        tokio::task::yield_now().await;
    }
    // The third message fills the batch, which ends the window.
    until("one batch of three", || counts(&sqs) == Counts::default()).await;
    source.shutdown().await;
    assert_eq!(function.calls().len(), 1);
}

#[tokio::test]
async fn a_shutdown_leaves_messages_in_the_queue() {
    let sqs = queues(Duration::from_secs(30));
    let function = Scripted::answering("{}");
    let source = start(&sqs, mapping(), &function);
    source.shutdown().await;
    send(&sqs, "a");
    assert_eq!(counts(&sqs).visible, 1);
    assert!(function.calls().is_empty());
}
