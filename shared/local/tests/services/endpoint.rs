//! The AWS endpoint: one address for every service, and clear errors for the others.

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use http::Request;
use serde_json::json;

use crate::harness::{call, json, sdk, send, start, until};

fn signed(service: &str) -> String {
    format!("AWS4-HMAC-SHA256 Credential=AKID/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=0")
}

#[tokio::test]
async fn every_sdk_finds_its_service_at_one_address() {
    let stack = start().await;
    let endpoint = &stack.ready().aws;
    let config = sdk(endpoint);

    let dynamodb = aws_sdk_dynamodb::Client::new(&config);
    let item = dynamodb.put_item().table_name("carillon-Table").item("pk", AttributeValue::S("a".to_owned()));
    item.send().await.expect("put");
    let missing = dynamodb.describe_table().table_name("none").send().await.expect_err("no such table");
    assert!(missing.into_service_error().is_resource_not_found_exception());

    let sqs = aws_sdk_sqs::Client::new(&config);
    let url = format!("{endpoint}/123456789012/carillon-Spare");
    assert_eq!(stack.ready().resources["Spare"], url);
    sqs.send_message().queue_url(&url).message_body("x").send().await.expect("sent");
    assert_eq!(sqs.receive_message().queue_url(&url).send().await.expect("received").messages().len(), 1);

    let events = aws_sdk_eventbridge::Client::new(&config);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("events");
    let entry = PutEventsRequestEntry::builder().source("test").detail_type("t").detail("{}").build();
    let answer = events.put_events().entries(entry).send().await.expect("put");
    assert_eq!(answer.failed_entry_count(), 0);

    let invoke = format!("{endpoint}/2015-03-31/functions/carillon-Probe/invocations");
    let payload = json!({"do": "attempt", "path": path, "failures": 0}).to_string();
    let response = send(Request::post(invoke).body(payload).expect("a request")).await;
    assert_eq!(response.status(), 200);
    assert!(path.exists());
    stack.shutdown().await;
}

#[tokio::test]
async fn what_it_does_not_have_is_said_in_the_callers_protocol() {
    let stack = start().await;
    let endpoint = &stack.ready().aws;

    let response = call(endpoint, "Kinesis_20131202.PutRecord", &json!({})).await;
    assert_eq!(response.status(), 400);
    let error = json(response.body());
    assert_eq!(error["__type"], "UnknownOperationException");
    assert_eq!(error["message"], "The local stack has no service Kinesis_20131202, it has dynamodb, events, lambda and sqs.");

    let request = |path: &str, service: &str, kind: &str, body: &str| {
        let request =
            Request::post(format!("{endpoint}{path}")).header("authorization", signed(service)).header("content-type", kind);
        send(request.body(body.to_owned()).expect("a request"))
    };
    let form = "application/x-www-form-urlencoded; charset=utf-8";
    let response = request("/", "sns", form, "Action=Publish").await;
    let text = String::from_utf8_lossy(response.body()).into_owned();
    assert_eq!((response.status().as_u16(), &response.headers()["content-type"]), (400, &"text/xml".parse().expect("a header")));
    assert!(text.contains("<Code>InvalidAction</Code>") && text.contains("no service sns"), "{text}");

    let response = request("/123456789012/carillon-Spare", "sqs", form, "Action=SendMessage&MessageBody=x").await;
    let text = String::from_utf8_lossy(response.body()).into_owned();
    assert!(text.contains("boto3 1.28.82"), "{text}");

    let response = request("/live/@connections/x", "execute-api", "application/octet-stream", "x").await;
    let message = json(response.body())["message"].to_string();
    assert!(message.contains(stack.ready().management.as_deref().expect("there is an API")), "{message}");

    let response = request("/2015-03-31/functions", "lambda", "application/json", "").await;
    assert_eq!((response.status().as_u16(), json(response.body())["__type"].as_str()), (404, Some("UnknownOperationException")));

    let response = send(Request::get(endpoint.as_str()).body(String::new()).expect("a request")).await;
    assert_eq!(json(response.body()), json!({"services": ["dynamodb", "events", "lambda", "sqs"]}));
    stack.shutdown().await;
}

#[tokio::test]
async fn a_message_and_an_event_reach_the_function() {
    let stack = start().await;
    let endpoint = stack.ready().aws.clone();
    let sqs = aws_sdk_sqs::Client::new(&sdk(&endpoint));
    let inbox = stack.ready().resources["Inbox"].clone();
    sqs.send_message().queue_url(inbox).message_body("x").send().await.expect("sent");
    let invocations = || stack.functions().counters("Probe").expect("it is there").invocations;
    until("the function saw the message", || invocations() > 0).await;
    let before = invocations();
    let entries = json!({"Entries": [{"Source": "test", "DetailType": "t", "Detail": "{}"}]});
    assert_eq!(call(&endpoint, "AWSEvents.PutEvents", &entries).await.status(), 200);
    until("the function saw the event", || invocations() > before).await;
    stack.shutdown().await;
}
