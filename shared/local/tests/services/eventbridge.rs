//! EventBridge: PutEvents, its errors, and what targets receive.

use std::sync::Arc;

use axum::body::to_bytes;
use carillon_local::eventbridge::{EventBridge, api};
use carillon_local::spec::RuleSpec;
use serde_json::{Value, json};

use crate::harness::{Scripted, golden, json};

fn rule(id: &str, bus: &str, pattern: Value, function: &str) -> RuleSpec {
    RuleSpec { logical_id: id.to_owned(), bus: bus.to_owned(), pattern, function: function.to_owned() }
}

fn events(rules: Vec<RuleSpec>) -> (EventBridge, Arc<Scripted>) {
    let targets = Scripted::answering("{}");
    let events = EventBridge::new(&["own".to_owned()], rules, targets.clone(), "111122223333", "us-west-1");
    (events.expect("the patterns are valid"), targets)
}

async fn call(events: &EventBridge, action: &str, body: &Value) -> (u16, Value) {
    let response = api::respond(events, action, body.to_string().as_bytes()).await;
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/x-amz-json-1.1");
    (status, json(&to_bytes(response.into_body(), usize::MAX).await.expect("a whole body")))
}

#[tokio::test]
async fn a_target_receives_the_event_of_the_user_guide() {
    let mut expected = golden("eventbridge/event.json");
    let (events, targets) = events(vec![rule("R", "default", json!({"source": [{"prefix": "my."}]}), "F")]);
    let entry = json!({
        "Time": 1_513_968_228,
        "Source": expected["source"],
        "DetailType": expected["detail-type"],
        "Resources": expected["resources"],
        "Detail": expected["detail"].to_string(),
    });
    let (status, answer) = call(&events, "PutEvents", &json!({"Entries": [entry]})).await;
    assert_eq!((status, &answer["FailedEntryCount"]), (200, &json!(0)));
    let (function, event) = targets.calls().remove(0);
    assert_eq!(function, "F");
    expected["id"] = answer["Entries"][0]["EventId"].clone();
    // As text, so that the order of keys counts too.
    assert_eq!(event.to_string(), expected.to_string());
}

#[tokio::test]
async fn faulty_entries_fail_alone_and_in_the_words_of_aws() {
    let (events, targets) = events(vec![rule("R", "default", json!({"source": ["s"]}), "F")]);
    let entries = json!([
        {"DetailType": "t", "Detail": "{}"},
        {"Source": "s", "Detail": "{}"},
        {"Source": "s", "DetailType": "t"},
        {"Source": "s", "DetailType": "t", "Detail": "[1]"},
        {"Source": "s", "DetailType": "t", "Detail": "{\"a\":1}"},
    ]);
    let (status, mut answer) = call(&events, "PutEvents", &json!({"Entries": entries})).await;
    let good = answer["Entries"].as_array_mut().expect("a list").pop().expect("five");
    assert!(good["EventId"].is_string());
    assert_eq!((status, answer), (200, golden("eventbridge/put_events_errors.json")));
    assert_eq!(targets.calls().len(), 1);
}

#[tokio::test]
async fn a_request_has_its_limits() {
    let (events, targets) = events(Vec::new());
    let entry = |detail: &str| json!({"Source": "s", "DetailType": "t", "Detail": detail});
    for (entries, expected) in [
        (json!([]), "greater than or equal to 1"),
        (vec![entry("{}"); 11].into(), "less than or equal to 10"),
        (json!([entry(&format!("{{\"a\":\"{}\"}}", "x".repeat(262_144)))]), "over the limit"),
    ] {
        let (status, answer) = call(&events, "PutEvents", &json!({"Entries": entries})).await;
        assert_eq!((status, &answer["__type"]), (400, &json!("ValidationException")));
        assert!(answer["message"].as_str().expect("a text").contains(expected), "{answer}");
    }
    let (_, answer) =
        call(&events, "PutEvents", &json!({"Entries": [{"Source": "aws.ec2", "DetailType": "t", "Detail": "{}"}]})).await;
    assert_eq!(answer["Entries"][0]["ErrorCode"], "NotAuthorizedForSourceException");
    assert_eq!(call(&events, "PutEvents", &json!({"Entries": 7})).await.0, 400);
    assert!(targets.calls().is_empty());
}

#[tokio::test]
async fn every_rule_of_the_bus_that_matches_gets_the_event() {
    let (events, targets) = events(vec![
        rule("One", "default", json!({"source": ["s"]}), "A"),
        rule("Two", "default", json!({"detail": {"a": [1]}}), "B"),
        rule("Three", "own", json!({"source": ["s"]}), "C"),
        rule("Four", "default", json!({"source": ["other"]}), "D"),
    ]);
    let entry = |bus: &str| json!({"Source": "s", "DetailType": "t", "Detail": "{\"a\":1}", "EventBusName": bus});
    for (bus, expected) in [
        ("default", vec!["A", "B"]),
        ("own", vec!["C"]),
        ("arn:aws:events:us-west-1:111122223333:event-bus/own", vec!["C"]),
        ("nobody", vec![]),
    ] {
        let before = targets.calls().len();
        let (_, answer) = call(&events, "PutEvents", &json!({"Entries": [entry(bus)]})).await;
        assert_eq!(answer["FailedEntryCount"], 0);
        let called = targets.calls()[before..].iter().map(|(function, _)| function.clone()).collect::<Vec<_>>();
        assert_eq!(called, expected, "{bus}");
    }
}

#[tokio::test]
async fn buses_and_rules_can_be_listed_and_patterns_tried() {
    let (events, _) = events(vec![rule("One", "own", json!({"source": ["s"]}), "A")]);
    let (_, buses) = call(&events, "ListEventBuses", &json!({})).await;
    assert_eq!(buses["EventBuses"][1]["Arn"], "arn:aws:events:us-west-1:111122223333:event-bus/own");
    let (_, rules) = call(&events, "ListRules", &json!({"EventBusName": "own"})).await;
    assert_eq!(rules["Rules"][0]["EventPattern"], "{\"source\":[\"s\"]}");
    let (status, _) = call(&events, "ListRules", &json!({"EventBusName": "nobody"})).await;
    assert_eq!(status, 400);
    let try_out = |pattern: &str| json!({"EventPattern": pattern, "Event": "{\"source\":\"s\"}"});
    let (_, result) = call(&events, "TestEventPattern", &try_out("{\"source\":[\"s\"]}")).await;
    assert_eq!(result, json!({"Result": true}));
    let (_, error) = call(&events, "TestEventPattern", &try_out("{\"source\":[{\"like\":\"s\"}]}")).await;
    assert_eq!(error["__type"], "InvalidEventPatternException");
    let (_, error) = call(&events, "PutRule", &json!({})).await;
    assert_eq!(error["__type"], "UnknownOperationException");
}
