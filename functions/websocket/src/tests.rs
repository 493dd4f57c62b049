use super::*;
use carillon_core::event::EventJson;
use carillon_core::position::Epoch;
use carillon_engine::memory::{Faults, Memory, MemoryClock, MemoryQueue, Storm};
use carillon_engine::ports::Answer;
use carillon_engine::wakeup::Wakeup;
use carillon_wire::native::reading::{self, ServerFrame};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const SECRET: &str = "example-secret-of-at-least-32-characters";
const CONNECTION: &str = "UkXQ7dBaoAMCJaw=";
const NOW: Millis = Millis(1_795_512_612_000);

fn handler_over<Q: Queue>(store: Memory, queue: Q) -> Handler<Memory, Q, MemoryClock> {
    let engine = Engine::seeded(store, queue, MemoryClock::at(NOW), 7);
    Handler::new(engine, Secret::try_new(SECRET).expect("a secret"))
}

fn handler() -> Handler<Memory, MemoryQueue, MemoryClock> {
    handler_over(Memory::default(), MemoryQueue::default())
}

fn event(value: Value) -> Event {
    serde_json::from_value(value).expect("an event")
}

fn connect(headers: Value, query: Value) -> Event {
    let context = json!({"connectionId": CONNECTION, "routeKey": "$connect", "connectedAt": NOW.0});
    event(json!({"requestContext": context, "headers": headers, "queryStringParameters": query}))
}

fn frame(text: &str) -> Event {
    let context = json!({"connectionId": CONNECTION, "routeKey": "$default", "connectedAt": NOW.0});
    event(json!({"requestContext": context, "body": text}))
}

async fn connected() -> Handler<Memory, MemoryQueue, MemoryClock> {
    let handler = handler();
    let response = handler.handle(&connect(json!({}), json!({"token": SECRET})), None).await;
    assert_eq!(response.status_code, 200);
    handler
}

/// The reply to a frame: its `ref` and what the request came to.
async fn ask<Q: Queue>(
    handler: &Handler<Memory, Q, MemoryClock>,
    text: &str,
) -> (Option<String>, Result<reading::Answer, Fault>) {
    let response = handler.handle(&frame(text), None).await;
    assert_eq!(response.status_code, 200);
    match reading::decode(&response.body.expect("a reply")).expect("a frame") {
        ServerFrame::Reply { reference, outcome } => (reference, outcome),
        other => panic!("{other:?}"),
    }
}

async fn fault<Q: Queue>(handler: &Handler<Memory, Q, MemoryClock>, text: &str) -> Fault {
    ask(handler, text).await.1.expect_err(text)
}

#[tokio::test]
async fn the_token_opens_in_each_of_its_places_and_is_never_echoed() {
    let bearer = format!("Bearer {SECRET}");
    let list = format!("carillon.v1, bearer.{SECRET}");
    let alone = format!("bearer.{SECRET}");
    for (headers, query, echoed) in [
        (json!({"Authorization": bearer}), Value::Null, None),
        (json!({"authorization": bearer}), Value::Null, None),
        (json!({}), json!({"token": SECRET}), None),
        (json!({"Sec-WebSocket-Protocol": list}), Value::Null, Some("carillon.v1")),
        (json!({"SEC-WEBSOCKET-PROTOCOL": alone}), Value::Null, None),
        (json!({"Sec-WebSocket-Protocol": "carillon.v1"}), json!({"token": SECRET}), Some("carillon.v1")),
        (json!({"Sec-WebSocket-Protocol": "mqtt,other"}), json!({"token": SECRET}), None),
        // One that opens is enough: a proxy may have put an Authorization of its own there.
        (json!({"Authorization": "Basic eDp5", "User-Agent": "Größe"}), json!({"token": SECRET}), None),
    ] {
        let response = handler().handle(&connect(headers.clone(), query), None).await;
        assert_eq!(response.status_code, 200, "{headers}");
        let header = response.headers.get("Sec-WebSocket-Protocol");
        assert_eq!(header.map(String::as_str), echoed, "{headers}");
        assert_eq!(response.body, None);
    }
}

#[tokio::test]
async fn without_the_secret_there_is_no_connection() {
    let wrong = "x".repeat(40);
    let handler = handler();
    for (headers, query) in [
        (json!({}), Value::Null),
        (json!({}), json!({"token": wrong})),
        (json!({}), json!({"token": ""})),
        (json!({"Authorization": format!("Bearer {wrong}")}), Value::Null),
        (json!({"Authorization": SECRET}), Value::Null),
        (json!({"Sec-WebSocket-Protocol": format!("carillon.v1, bearer.{wrong}")}), Value::Null),
    ] {
        let response = handler.handle(&connect(headers, query), None).await;
        assert_eq!(response.status_code, 401);
        let body: Value = serde_json::from_str(&response.body.expect("a body")).expect("JSON");
        assert_eq!(body["error"]["code"], "unauthorized");
        assert!(!body.to_string().contains(&wrong), "a token is never echoed");
        assert!(!response.headers.contains_key("Sec-WebSocket-Protocol"));
    }
    assert_eq!(fault(&handler, r#"{"action":"subscribe","channel":"a"}"#).await.code, ErrorCode::NotFound);
}

#[tokio::test]
async fn each_action_is_answered_under_its_reference() {
    let handler = connected().await;
    let (reference, outcome) = ask(&handler, r#"{"action":"subscribe","ref":"1","channel":"orders/42"}"#).await;
    let subscribed = outcome.expect("subscribed").subscribed().expect("a position");
    assert_eq!((reference.as_deref(), subscribed.recovered, subscribed.position.offset), (Some("1"), None, 0));

    let publish = r#"{"action":"publish","ref":"2","channel":"orders/42","event":{"id":"7","data":{"total": 19.90}}}"#;
    let (reference, outcome) = ask(&handler, publish).await;
    let published = outcome.expect("published").published().expect("a position");
    assert_eq!((reference.as_deref(), &*published.id, published.duplicate), (Some("2"), "7", false));
    assert_eq!(published.position, Position::new(subscribed.position.epoch, 1));
    let again = ask(&handler, publish).await.1.expect("published").published().expect("a position");
    assert_eq!((again.position, again.duplicate), (published.position, true));

    let (_, outcome) = ask(&handler, r#"{"action":"history","ref":"3","channel":"orders/42"}"#).await;
    let page = outcome.expect("a page").history().expect("a page");
    let json = format!(
        r#"{{"specversion":"1.0","id":"7","source":"{CONNECTION}","type":"carillon.message","subject":"orders/42","time":"2026-11-24T09:30:12Z","data":{{"total": 19.90}}}}"#
    );
    assert_eq!((page.events, page.next), (vec![(1, EventJson::from_log(json))], None));

    let epoch = published.position.epoch;
    let since = format!(r#"{{"action":"subscribe","channel":"orders/42","since":{{"epoch":"{epoch}","offset":1}}}}"#);
    let resumed = ask(&handler, &since).await.1.expect("subscribed").subscribed().expect("a position");
    assert_eq!((resumed.position, resumed.recovered), (published.position, Some(true)));

    assert!(ask(&handler, r#"{"action":"unsubscribe","channel":"orders/42"}"#).await.1.is_ok());
    let (reference, outcome) = ask(&handler, r#"{"action":"ping","ref":"5"}"#).await;
    assert!(reference.as_deref() == Some("5") && outcome.is_ok());
}

#[tokio::test]
async fn a_mistake_is_answered_and_the_next_frame_is_served() {
    let handler = connected().await;
    let large = format!(r#"{{"action":"publish","channel":"a","event":{{"data":"{}"}}}}"#, "x".repeat(31_000));
    for (frame, code, beginning) in [
        ("not JSON", ErrorCode::BadRequest, "frame: is not JSON: "),
        ("", ErrorCode::BadRequest, "frame: is not JSON: "),
        (r#"{"action":"shout"}"#, ErrorCode::UnknownAction, "action: \"shout\" is none; there are subscribe, "),
        (r#"{"action":"subscribe","channel":"a//b"}"#, ErrorCode::BadRequest, "channel: segment 2 is empty: "),
        (large.as_str(), ErrorCode::TooLarge, "event: 31"),
    ] {
        let fault = fault(&handler, frame).await;
        assert_eq!(fault.code, code);
        assert!(fault.message.starts_with(beginning), "{fault}");
        assert!(ask(&handler, r#"{"action":"ping"}"#).await.1.is_ok());
    }
    // A position of another epoch, or of the future, is no mistake: the reply says that it cannot be gone on from.
    for (epoch, offset) in [("7", 1), ("99999999999999", 1)] {
        let since = format!(r#"{{"action":"subscribe","channel":"a","since":{{"epoch":"{epoch}","offset":{offset}}}}}"#);
        let subscribed = ask(&handler, &since).await.1.expect("subscribed").subscribed().expect("a position");
        assert_eq!(subscribed.recovered, Some(false));
        assert!(subscribed.position.epoch != Epoch(7));
    }
}

#[tokio::test]
async fn an_action_with_a_route_of_its_own_is_answered_too() {
    let handler = connected().await;
    let context = json!({"connectionId": CONNECTION, "routeKey": "ping", "connectedAt": NOW.0});
    let response = handler.handle(&event(json!({"requestContext": context, "body": r#"{"action":"ping"}"#})), None).await;
    assert_eq!(response.body.as_deref(), Some(r#"{"type":"reply","ok":true}"#));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_fails_the_request_and_not_the_invocation() {
    let storm = Storm::new(7, Faults { refused: 1.0, ..Faults::default() });
    let handler = handler_over(Memory::in_storm(storm), MemoryQueue::default());
    let response = handler.handle(&connect(json!({}), json!({"token": SECRET})), None).await;
    assert_eq!(response.status_code, 503);
    for action in ["subscribe", "unsubscribe", "history"] {
        let text = format!(r#"{{"action":"{action}","ref":"9","channel":"a"}}"#);
        let (reference, outcome) = ask(&handler, &text).await;
        let fault = outcome.expect_err("the store is away");
        assert_eq!((reference.as_deref(), fault.code), (Some("9"), ErrorCode::Unavailable), "{action}");
        assert!(fault.retry_after_ms.is_some());
    }
    let context = json!({"connectionId": CONNECTION, "routeKey": "$disconnect"});
    assert_eq!(handler.handle(&event(json!({"requestContext": context})), None).await.status_code, 503);
}

struct PanickingQueue;

impl Queue for PanickingQueue {
    async fn send(&self, _wakeups: &[Wakeup], _delay: Duration) -> Answer<()> {
        panic!("the queue panics, as this test wants it to");
    }
}

#[tokio::test]
async fn a_panic_becomes_a_reply_with_the_reference() {
    let handler = handler_over(Memory::default(), PanickingQueue);
    handler.handle(&connect(json!({}), json!({"token": SECRET})), None).await;
    assert!(ask(&handler, r#"{"action":"subscribe","channel":"a"}"#).await.1.is_ok());
    let (reference, outcome) = ask(&handler, r#"{"action":"publish","ref":"9","channel":"a","event":{}}"#).await;
    assert_eq!((reference.as_deref(), outcome.expect_err("a panic").code), (Some("9"), ErrorCode::Internal));
    assert!(ask(&handler, r#"{"action":"ping"}"#).await.1.is_ok());
}

#[tokio::test]
async fn a_disconnect_forgets_the_connection() {
    let handler = connected().await;
    assert!(ask(&handler, r#"{"action":"subscribe","channel":"a"}"#).await.1.is_ok());
    let context = json!({"connectionId": CONNECTION, "routeKey": "$disconnect", "disconnectStatusCode": 1001});
    let gone = event(json!({"requestContext": context}));
    // API Gateway may deliver it twice.
    for _ in 0..2 {
        assert_eq!(handler.handle(&gone, None).await, Response::connection(None));
    }
    assert_eq!(fault(&handler, r#"{"action":"subscribe","channel":"a"}"#).await.code, ErrorCode::NotFound);
}

/// What each sample event comes to: the status, and the `ok` of the reply or the `code` of its error.
const SAMPLES: [(&str, u16, Option<&str>); 13] = [
    ("connect.json", 200, None),
    ("connect-query.json", 200, None),
    ("connect-browser.json", 200, None),
    ("connect-unauthorized.json", 401, Some("unauthorized")),
    ("subscribe.json", 200, Some("ok")),
    ("subscribe-since.json", 200, Some("ok")),
    ("publish.json", 200, Some("ok")),
    ("history.json", 200, Some("ok")),
    ("ping.json", 200, Some("ok")),
    ("malformed.json", 200, Some("bad_request")),
    ("unsubscribe.json", 200, Some("ok")),
    ("disconnect.json", 200, None),
    ("disconnect-idle.json", 200, None),
];

#[tokio::test]
async fn every_sample_event_is_answered_as_its_readme_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../events/websocket");
    let mut files: Vec<String> = std::fs::read_dir(&folder)
        .expect("the samples")
        .map(|entry| entry.expect("a file").file_name().into_string().expect("a name"))
        .collect();
    files.sort();
    let mut known: Vec<&str> = SAMPLES.iter().map(|(file, ..)| *file).collect();
    known.sort_unstable();
    assert_eq!(files, known);
    let handler = handler();
    for (file, status, outcome) in SAMPLES {
        let text = std::fs::read_to_string(folder.join(file)).expect(file);
        let event: Event = serde_json::from_str(&text).expect(file);
        let response = handler.handle(&event, None).await;
        let body: Value = response.body.as_deref().map_or(Value::Null, |body| serde_json::from_str(body).expect(file));
        let found = if body["ok"] == true { Some("ok") } else { body["error"]["code"].as_str() };
        assert_eq!((response.status_code, found), (status, outcome), "{file}");
    }
}
