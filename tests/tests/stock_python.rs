//! What stock clients for Python (`websockets`, `boto3`, the standard library's HTTP) see of the real functions and of the local
//! AWS endpoint.

use carillon_tests::clients::python;
use carillon_tests::repository;
use carillon_tests::stack::TestStack;
use serde_json::{Value, json};

/// The messages that a script said, as (offset, data).
fn messages(facts: &[Value]) -> Vec<(u64, Value)> {
    let messages = facts.iter().filter_map(|fact| fact.get("message"));
    messages.map(|message| (message["offset"].as_u64().expect("an offset"), message["event"]["data"].clone())).collect()
}

/// The one fact that has this member.
fn fact<'facts>(facts: &'facts [Value], name: &str) -> &'facts Value {
    facts.iter().find(|fact| fact.get(name).is_some()).unwrap_or_else(|| panic!("the script said nothing of {name}: {facts:#?}"))
}

#[tokio::test]
async fn put_events_reaches_a_subscriber() {
    let stack = TestStack::start().await;
    let facts = python(&stack, "put_events.py", &["orders/42"]).await.succeeds().await;
    assert_eq!(facts.iter().filter(|fact| fact["failed"] == 0).count(), 4, "{facts:#?}");
    // The first event's detail has no channel: no rule takes it. The last one's has no data.
    assert_eq!(messages(&facts), [(1, json!({"total": 2})), (2, json!({"total": 3})), (3, Value::Null)]);
    let events: Vec<_> = facts.iter().filter_map(|fact| Some(&fact.get("message")?["event"])).collect();
    let ids: Vec<_> = facts.iter().filter_map(|fact| fact["event_id"].as_str()).collect();
    assert_eq!(
        (&events[0]["id"], &events[0]["type"], &events[0]["source"]),
        (&json!(ids[1]), &json!("order.placed"), &json!("shop"))
    );
    assert_eq!((&events[1]["id"], &events[1]["type"]), (&json!("order-3"), &json!("order.changed")));
    stack.shutdown().await;
}

#[tokio::test]
async fn direct_invokes_publish_and_tell_what_they_cannot() {
    let mut stack = TestStack::start().await;
    // One invocation of the script fails on purpose.
    stack.allow("PublishFunction");
    let facts = python(&stack, "invoke.py", &["orders/42"]).await.succeeds().await;
    let data = ["one", "two", "three", "later", "last"].map(Value::from);
    assert_eq!(messages(&facts), (1..).zip(data).collect::<Vec<_>>());

    let answers: Vec<_> = facts.iter().filter(|fact| fact.get("status").is_some()).collect();
    let [one, list, later, bad_name, no_message, foreign, last] = answers.as_slice() else { panic!("{answers:#?}") };
    let results = |fact: &Value| fact["answer"]["results"].as_array().cloned().unwrap_or_default();
    let offsets = |fact: &Value| results(fact).iter().map(|result| result["offset"].clone()).collect::<Vec<_>>();
    assert_eq!((&one["status"], offsets(one)), (&json!(200), vec![json!(1)]), "{one}");
    assert_eq!(results(one)[0]["id"], "direct-1");
    assert_eq!(offsets(list), [json!(2), json!(3)]);
    // An asynchronous invoke is accepted, and has no answer.
    assert_eq!((&later["status"], &later["answer"]), (&json!(202), &Value::Null));
    assert_eq!(offsets(last), [json!(5)]);
    // A mistake is told in the answer, as over HTTP.
    for (fact, message) in [(bad_name, "channel: segment 2 is empty"), (no_message, "body: is a string, and an object is needed")]
    {
        assert_eq!((&fact["status"], &fact["error"]), (&json!(200), &Value::Null), "{fact}");
        assert_eq!(fact["answer"]["error"]["code"], "bad_request", "{fact}");
        assert!(fact["answer"]["error"]["message"].as_str().expect("a message").contains(message), "{fact}");
    }
    // An event of a service that the function does not serve fails the invocation, so that it is not lost in silence.
    assert_eq!((&foreign["status"], &foreign["error"]), (&json!(200), &json!("Unhandled")), "{foreign}");
    assert_eq!(foreign["answer"]["errorType"], "bad_request");
    assert!(foreign["answer"]["errorMessage"].as_str().expect("a message").contains("aws:sns"), "{foreign}");
    assert_eq!(fact(&facts, "unknown")["unknown"], 404);
    stack.shutdown().await;
}

/// The template with a publish queue that gives a message up after seconds instead of a quarter of an hour.
fn with_an_impatient_publish_queue(folder: &std::path::Path) -> std::path::PathBuf {
    let mut text = repository::read("template.yaml");
    for (before, after) in [
        ("VisibilityTimeout: 180", "VisibilityTimeout: 5"),
        (
            "deadLetterTargetArn: !GetAtt PublishDeadLetterQueue.Arn, maxReceiveCount: 5",
            "deadLetterTargetArn: !GetAtt PublishDeadLetterQueue.Arn, maxReceiveCount: 2",
        ),
    ] {
        assert_eq!(text.matches(before).count(), 1, "the template has `{before}` once");
        text = text.replace(before, after);
    }
    let path = folder.join("template.yaml");
    std::fs::write(&path, text).expect("the template is written");
    path
}

#[tokio::test]
async fn the_publish_queue_publishes_what_it_can_and_keeps_the_rest_for_people() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let template = with_an_impatient_publish_queue(folder.path());
    let stack = TestStack::start_with(|options| options.template = template).await;
    let facts = python(&stack, "sqs.py", &["orders/42"]).await.succeeds().await;

    let single = fact(&facts, "message_id");
    assert_eq!(single["message"]["event"]["data"], "single");
    assert_eq!(single["message"]["event"]["id"], single["message_id"], "a body without an id has the queue message's");
    assert_eq!(fact(&facts, "sent"), &json!({"sent": ["good", "list", "malformed", "refused"], "failed": []}));
    let mut rest: Vec<_> =
        messages(&facts).into_iter().skip(1).map(|(_, data)| data.as_str().expect("a text").to_owned()).collect();
    rest.sort();
    assert_eq!(rest, ["a", "b", "c"], "a message that fails holds up no other of its batch");
    assert_eq!(fact(&facts, "given_up")["given_up"], json!(["malformed", "refused"]));
    assert_eq!(fact(&facts, "unknown")["unknown"], 400);
    stack.shutdown().await;
}

#[tokio::test]
async fn the_connections_api_posts_describes_closes_and_tells_its_errors() {
    let stack = TestStack::start().await;
    let facts = python(&stack, "connections.py", &["orders/42"]).await.succeeds().await;
    assert_eq!(fact(&facts, "posted")["posted"], json!({"hello": "from boto3"}));
    let described = fact(&facts, "connected_at");
    assert!(described["connected_at"].as_f64() <= described["last_active_at"].as_f64(), "{described}");
    assert!(described["user_agent"].as_str().expect("a text").contains("websockets"), "{described}");
    assert!(!described["source_ip"].as_str().expect("a text").is_empty());
    assert_eq!(fact(&facts, "largest")["largest"], 128 * 1024);
    assert_eq!(fact(&facts, "closed")["closed"], true);

    let refused: Vec<_> = facts.iter().filter(|fact| fact.get("refused").is_some()).collect();
    assert_eq!(refused.len(), 10, "{refused:#?}");
    for fact in refused {
        let name = fact["refused"].as_str().expect("a name");
        let (code, status) = match name.split(' ').next() {
            Some("too") => ("PayloadTooLargeException", 413),
            Some("malformed") => ("BadRequestException", 400),
            _ => ("GoneException", 410),
        };
        assert_eq!((&fact["error"]["code"], &fact["error"]["status"]), (&json!(code), &json!(status)), "{fact}");
        // boto3 makes classes of what the service's model has.
        let class = if status == 400 { "ClientError" } else { code };
        assert_eq!(fact["error"]["class"], class, "{fact}");
    }
    stack.shutdown().await;
}

#[tokio::test]
async fn the_tables_hold_the_log_and_keep_its_conditions() {
    let stack = TestStack::start().await;
    let facts = python(&stack, "tables.py", &["orders/42"]).await.succeeds().await;
    let result = fact(&facts, "result");
    assert_eq!((&result["status"], &result["result"]["offset"]), (&json!(200), &json!(1)));
    assert_eq!(fact(&facts, "entries")["entries"], json!([{"sk": "0000000000000001", "n": "1", "lives": true}]));
    let head = &fact(&facts, "head")["head"];
    assert_eq!(head["epoch"]["N"], result["result"]["epoch"], "{head}");
    assert_eq!(head["listed"], json!({"NS": ["0"]}));
    assert_eq!(fact(&facts, "subscribers")["subscribers"], 1);
    for table in facts.iter().filter(|fact| fact.get("table").is_some()) {
        assert_eq!((&table["keys"], &table["ttl"]), (&json!(["pk", "sk"]), &json!("exp")), "{table}");
        assert_eq!(table["status"], "ENABLED");
    }
    let attempts: Vec<_> = facts.iter().filter(|fact| fact.get("attempt").is_some()).collect();
    assert_eq!(attempts.len(), 4);
    assert!(attempts[0]["error"].is_null() && attempts[2]["error"].is_null(), "{attempts:#?}");
    assert_eq!(attempts[1]["error"]["class"], "ConditionalCheckFailedException");
    assert_eq!(attempts[1]["item"]["owner"], json!({"S": "me"}), "the item that was there comes back");
    assert_eq!(attempts[3]["error"]["class"], "TransactionCanceledException");
    assert_eq!(attempts[3]["reasons"], json!(["ConditionalCheckFailed", "None"]));
    assert_eq!(fact(&facts, "owner")["owner"], "me");
    assert_eq!(fact(&facts, "half_written")["half_written"], false);
    stack.shutdown().await;
}

#[tokio::test]
async fn cloudevents_come_out_as_they_went_in() {
    let stack = TestStack::start().await;
    let facts = python(&stack, "cloudevents.py", &["orders/42"]).await.succeeds().await;
    let events: Vec<_> = facts.iter().filter_map(|fact| Some(&fact.get("message")?["event"])).collect();
    let ids: Vec<_> = events.iter().map(|event| event["id"].as_str().expect("an id")).collect();
    assert_eq!(ids, ["1", "2", "3", "4", "5", "6"]);
    for event in &events {
        let attributes = (&event["specversion"], &event["source"], &event["type"], &event["subject"]);
        assert_eq!(attributes, (&json!("1.0"), &json!("/shop"), &json!("order.placed"), &json!("orders/42")), "{event}");
    }
    assert_eq!((&events[0]["time"], &events[0]["traceparent"]), (&json!("2026-11-24T10:00:00Z"), &json!("00-trace")));
    assert_eq!((&events[0]["data"], &events[1]["data"]), (&json!({"total": 1}), &json!("two")));
    assert_eq!((&events[2]["datacontenttype"], &events[2]["data_base64"]), (&json!("image/png"), &json!("AAE=")));
    assert_eq!(events[3]["data"], json!({"total": 4}));
    assert_eq!((&events[4]["datacontenttype"], &events[4]["data"]), (&json!("text/plain; charset=utf-8"), &json!("fünf")));
    assert_eq!((&events[5]["datacontenttype"], &events[5]["data_base64"]), (&json!("application/octet-stream"), &json!("/wA=")));

    let mode = |name: &str| facts.iter().find(|fact| fact["mode"] == name).expect("the script tried it");
    let repeated = &mode("repeated")["answer"]["results"][0];
    assert_eq!((&repeated["offset"], &repeated["duplicate"]), (&json!(1), &json!(true)), "{repeated}");
    for (name, field) in [("no subject", "subject"), ("another version", "specversion")] {
        let refused = mode(name);
        assert_eq!((&refused["status"], &refused["answer"]["error"]["code"]), (&json!(400), &json!("bad_request")), "{refused}");
        assert!(refused["answer"]["error"]["message"].as_str().expect("a text").contains(field), "{refused}");
    }
    stack.shutdown().await;
}
