//! The AWS endpoint: one address for every service, and clear errors for the others.

use aws_sdk_dynamodb::types::{AttributeValue, ConsumedCapacity, ReturnConsumedCapacity};
use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use carillon_local::calls::CallCount;
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
    assert_eq!(
        error["message"],
        "The local stack has no service Kinesis_20131202, it has dynamodb, events, iotdata, lambda and sqs."
    );

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
    assert_eq!(json(response.body()), json!({"services": ["dynamodb", "events", "iotdata", "lambda", "sqs"]}));
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

/// DynamoDB's units of one operation on the table.
fn row<'r>(rows: &'r [CallCount], operation: &str) -> &'r CallCount {
    rows.iter().find(|row| row.operation == operation).unwrap_or_else(|| panic!("no {operation} in {rows:?}"))
}

#[tokio::test]
async fn every_call_is_counted_with_its_capacity() {
    let stack = start().await;
    let endpoint = stack.ready().aws.clone();
    let dynamodb = aws_sdk_dynamodb::Client::new(&sdk(&endpoint));
    let item = |key: &str| AttributeValue::S(key.to_owned());
    for key in ["a", "b"] {
        let put = dynamodb.put_item().table_name("carillon-Table").item("pk", item(key)).send().await.expect("put");
        // Nobody asked for it.
        assert!(put.consumed_capacity().is_none());
    }
    let get = dynamodb.get_item().table_name("carillon-Table").key("pk", item("a"));
    let asked = get.clone().consistent_read(true).return_consumed_capacity(ReturnConsumedCapacity::Total);
    let got = asked.send().await.expect("got");
    assert_eq!(got.consumed_capacity().and_then(ConsumedCapacity::capacity_units), Some(1.0));
    get.send().await.expect("got");
    let failed = dynamodb.put_item().table_name("carillon-Table").item("pk", item("a"));
    failed.condition_expression("attribute_not_exists(pk)").send().await.expect_err("it is there");

    let sqs = aws_sdk_sqs::Client::new(&sdk(&endpoint));
    sqs.send_message().queue_url(&stack.ready().resources["Spare"]).message_body("x").send().await.expect("sent");
    let invoke = format!("{endpoint}/2015-03-31/functions/carillon-Probe/invocations");
    let request = Request::post(invoke).body(json!({"do": "echo"}).to_string()).expect("a request");
    assert_eq!(send(request).await.status(), 200);
    let entries = json!({"Entries": [{"Source": "other", "DetailType": "t", "Detail": "{}"}]});
    assert_eq!(call(&endpoint, "AWSEvents.PutEvents", &entries).await.status(), 200);
    let management = stack.ready().management.clone().expect("there is an API");
    let request =
        Request::get(format!("{management}/@connections/AAAAAAAAAAAAAAA%3D")).header("authorization", signed("execute-api"));
    assert_eq!(send(request.body(String::new()).expect("a request")).await.status(), 410);

    let rows = stack.calls();
    let (put, get) = (row(&rows, "PutItem"), row(&rows, "GetItem"));
    assert_eq!((put.service.as_str(), put.target.as_str(), put.count), ("dynamodb", "carillon-Table", 3));
    assert_eq!((put.read_units, put.write_units), (0.0, 2.0));
    assert_eq!((get.count, get.read_units, get.write_units), (2, 1.5, 0.0));
    for (operation, service, target) in [
        ("SendMessage", "sqs", "carillon-Spare"),
        ("Invoke", "lambda", "carillon-Probe"),
        ("PutEvents", "events", "default"),
        ("GetConnection", "execute-api", "Api"),
    ] {
        let row = row(&rows, operation);
        assert_eq!((row.service.as_str(), row.target.as_str(), row.count), (service, target, 1));
    }

    let calls = || Request::builder().uri(format!("{endpoint}/_local/calls"));
    let served = json(send(calls().body(String::new()).expect("a request")).await.body());
    assert_eq!(served["calls"].as_array().map(Vec::len), Some(rows.len()));
    let put = served["calls"].as_array().into_iter().flatten().find(|row| row["operation"] == "PutItem");
    let expected = json!({
        "service": "dynamodb", "operation": "PutItem", "target": "carillon-Table",
        "count": 3, "read_units": 0.0, "write_units": 2.0,
    });
    assert_eq!(put, Some(&expected));
    let reset = send(calls().method("DELETE").body(String::new()).expect("a request")).await;
    assert_eq!((reset.status().as_u16(), stack.calls().len()), (204, 0));
    stack.shutdown().await;
}
