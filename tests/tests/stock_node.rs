//! What a stock WebSocket client for Node (`ws`) sees of the real functions.

use carillon_tests::clients::{node, node_command};
use carillon_tests::program::Program;
use carillon_tests::stack::TestStack;
use serde_json::{Value, json};

/// The messages that a script said, as (offset, data).
fn messages(facts: &[Value]) -> Vec<(u64, Value)> {
    let messages = facts.iter().filter_map(|fact| fact.get("message"));
    messages.map(|message| (message["offset"].as_u64().expect("an offset"), message["event"]["data"].clone())).collect()
}

#[tokio::test]
async fn every_way_to_present_the_token_opens_and_a_wrong_one_does_not() {
    let stack = TestStack::start().await;
    let facts = node(&stack, "connect.mjs", &[]).await.succeeds().await;
    assert_eq!(
        facts,
        [
            json!({"way": "header", "protocol": "", "ok": true, "closed": 1000}),
            json!({"way": "query", "protocol": "", "ok": true, "closed": 1000}),
            // A browser needs one of its subprotocols back, and it is never the one with the token.
            json!({"way": "subprotocol", "protocol": "carillon.v1", "ok": true, "closed": 1000}),
            json!({"way": "none", "status": 401}),
            json!({"way": "wrong header", "status": 401}),
            json!({"way": "wrong query", "status": 401}),
            json!({"way": "wrong subprotocol", "status": 401}),
        ]
    );
    stack.shutdown().await;
}

#[tokio::test]
async fn a_subscriber_gets_what_http_and_eventbridge_publish() {
    let stack = TestStack::start().await;
    let mut script = node(&stack, "subscribe.mjs", &["orders/42", "2"]).await;
    let subscribed = script.json().await["subscribed"].clone();
    assert_eq!(
        (&subscribed["ok"], &subscribed["channel"], &subscribed["offset"]),
        (&json!(true), &json!("orders/42"), &json!(0))
    );
    assert!(subscribed["epoch"].as_str().expect("a text").bytes().all(|byte| byte.is_ascii_digit()), "{subscribed}");
    assert!(subscribed.get("recovered").is_none(), "there was no since: {subscribed}");

    let offset = stack.publish("orders/42", &json!({"total": 1})).await;
    let message = script.json().await["message"].clone();
    assert_eq!((message["offset"].as_u64(), &message["epoch"]), (Some(offset), &subscribed["epoch"]));
    let event = &message["event"];
    assert_eq!(
        (&event["specversion"], &event["subject"], &event["data"]),
        (&json!("1.0"), &json!("orders/42"), &json!({"total": 1}))
    );
    assert_eq!(event["type"], "carillon.message");

    let id = stack.put_event("com.example.shop", "order.placed", &json!({"channel": "orders/42", "data": {"total": 2}})).await;
    let message = script.json().await["message"].clone();
    assert_eq!(message["offset"], 2);
    let event = &message["event"];
    assert_eq!(
        (&event["id"], &event["source"], &event["type"]),
        (&json!(id), &json!("com.example.shop"), &json!("order.placed"))
    );
    assert_eq!(event["data"], json!({"total": 2}));

    let rest = script.succeeds().await;
    assert_eq!(rest[0]["unsubscribed"]["ok"], true);
    assert_eq!(rest[1], json!({"closed": 1000}));
    stack.shutdown().await;
}

#[tokio::test]
async fn a_client_publishes_over_its_connection_and_an_id_only_once() {
    let stack = TestStack::start().await;
    let facts = node(&stack, "publish.mjs", &["chat/room"]).await.succeeds().await;
    let published: Vec<_> = facts.iter().filter_map(|fact| fact.get("published")).collect();
    let summary: Vec<_> = published.iter().map(|reply| (&reply["ok"], &reply["offset"], &reply["duplicate"])).collect();
    let (yes, no) = (json!(true), json!(false));
    assert_eq!(summary, [(&yes, &json!(1), &no), (&yes, &json!(1), &yes), (&yes, &json!(2), &no)], "{facts:#?}");
    assert_eq!((&published[0]["id"], &published[1]["id"]), (&json!("order-1"), &json!("order-1")));
    assert_eq!(messages(&facts), [(1, json!({"total": 12})), (2, json!("plain"))]);
    let first = facts.iter().find_map(|fact| fact.get("message")).expect("a message");
    assert_eq!((&first["event"]["source"], &first["event"]["type"]), (&json!("/shop"), &json!("order.placed")));
    stack.shutdown().await;
}

#[tokio::test]
async fn history_comes_in_pages_that_lead_from_one_to_the_next() {
    let stack = TestStack::start().await;
    let facts = node(&stack, "history.mjs", &["news/today", "7", "3"]).await.succeeds().await;
    let pages: Vec<_> = facts.iter().map(|fact| &fact["page"]).collect();
    let offsets: Vec<Vec<_>> = pages
        .iter()
        .map(|page| {
            page["events"].as_array().expect("events").iter().map(|event| event["offset"].as_u64().expect("one")).collect()
        })
        .collect();
    assert_eq!(offsets, [vec![1, 2, 3], vec![4, 5, 6], vec![7]], "{facts:#?}");
    assert!(pages.iter().all(|page| page["ok"] == true && page["recovered"] == true && page["epoch"] == pages[0]["epoch"]));
    let data: Vec<_> =
        pages.iter().flat_map(|page| page["events"].as_array().expect("events")).map(|item| &item["event"]["data"]).collect();
    assert_eq!(data, [1, 2, 3, 4, 5, 6, 7].map(|number| json!(number)).iter().collect::<Vec<_>>());
    stack.shutdown().await;
}

#[tokio::test]
async fn an_unsubscribe_ends_one_channel_and_no_other() {
    let stack = TestStack::start().await;
    let facts = node(&stack, "unsubscribe.mjs", &["left/1", "kept/1"]).await.succeeds().await;
    assert!(facts.iter().all(|fact| fact.get("unexpected").is_none()), "{facts:#?}");
    assert!(facts.iter().any(|fact| fact["unsubscribed"]["ok"] == true), "{facts:#?}");
    assert_eq!(messages(&facts), [(1, json!("before")), (1, json!("kept"))]);
    stack.shutdown().await;
}

#[tokio::test]
async fn a_client_that_was_cut_comes_back_and_misses_nothing() {
    let stack = TestStack::start().await;
    let facts = node(&stack, "resume.mjs", &["orders/7"]).await.succeeds().await;
    let resumed = facts.iter().find_map(|fact| fact.get("resumed")).expect("the reply");
    assert_eq!((&resumed["ok"], &resumed["recovered"], &resumed["offset"]), (&json!(true), &json!(true), &json!(1)));
    let expected = ["seen", "missed 1", "missed 2", "missed 3", "live"];
    let expected: Vec<_> = (1..).zip(expected.map(Value::from)).collect();
    assert_eq!(messages(&facts), expected);
    stack.shutdown().await;
}

#[tokio::test]
async fn wscat_works_with_the_lines_of_the_demo() {
    let stack = TestStack::start().await;
    let url = format!("{}?token={}", stack.websocket(), stack.token());
    let frame = json!({"action": "subscribe", "ref": "1", "channel": "demo/1"}).to_string();
    let mut command = node_command("wscat").await;
    // It waits for this many seconds after the frame; the test ends it before. It ends by itself when its input does.
    command.args(["--connect", &url, "--execute", &frame, "--wait", "600", "--no-color"]);
    let mut wscat = Program::start_with_input("wscat", &mut command);
    let reply = wscat.json().await;
    assert_eq!((&reply["type"], &reply["ref"], &reply["ok"]), (&json!("reply"), &json!("1"), &json!(true)), "{reply}");
    stack.publish("demo/1", &json!("hello")).await;
    let frame = wscat.json().await;
    assert_eq!((&frame["type"], &frame["events"][0]["event"]["data"]), (&json!("events"), &json!("hello")), "{frame}");
    drop(wscat);
    stack.shutdown().await;
}
