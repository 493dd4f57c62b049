use super::*;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use carillon_core::channel::Channel;
use carillon_core::event::EventJson;
use carillon_engine::memory::{Faults, Memory, MemoryClock, MemoryQueue, Storm};
use lambda_runtime::Diagnostic;
use serde_json::{Value, json};
use std::path::Path;

const SECRET: &str = "example-secret-of-at-least-32-characters";
const NOW: Millis = Millis(1_795_512_624_000);
const QUEUE: &str = "arn:aws:sqs:us-east-1:123456789012:carillon-publish";

struct Fixture {
    store: Memory,
    handler: Handler<Memory, MemoryQueue, MemoryClock>,
}

impl Fixture {
    fn new() -> Self {
        Self::over(Memory::default())
    }

    fn over(store: Memory) -> Self {
        let engine = Engine::seeded(store.clone(), MemoryQueue::default(), MemoryClock::at(NOW), 7);
        Self { store, handler: Handler::new(engine, Secret::try_new(SECRET).expect("a secret")) }
    }

    /// A store that refuses every call.
    fn away() -> Self {
        Self::over(Memory::in_storm(Storm::new(7, Faults { refused: 1.0, ..Faults::default() })))
    }

    async fn invoke(&self, payload: &Value) -> Result<Value, InvocationFailure> {
        self.invoke_text(&payload.to_string()).await
    }

    async fn invoke_text(&self, payload: &str) -> Result<Value, InvocationFailure> {
        let payload = RawValue::from_string(payload.to_owned()).expect("JSON");
        let invocation = Invocation { request_id: "request-1".to_owned(), deadline: None };
        let answer = self.handler.handle(&payload, &invocation).await?;
        Ok(serde_json::from_str(answer.get()).expect("JSON"))
    }

    /// What is in a channel's log.
    fn log(&self, channel: &str) -> Vec<Value> {
        let channel = Channel::parse(channel).expect("a channel");
        let events = self.store.whole_log(&channel).into_iter().map(|(_, event): (_, EventJson)| event);
        events.map(|event| serde_json::from_str(event.as_str()).expect("JSON")).collect()
    }

    fn ids(&self, channel: &str) -> Vec<String> {
        self.log(channel).iter().map(|event| event["id"].as_str().expect("an id").to_owned()).collect()
    }

    async fn post(&self, request: Value) -> (u64, Value, Value) {
        let answer = self.invoke(&request).await.expect("an HTTP request never fails the invocation");
        let body = answer["body"].as_str().expect("a body");
        let body = if body.is_empty() { Value::Null } else { serde_json::from_str(body).expect("JSON") };
        (answer["statusCode"].as_u64().expect("a status"), body, answer["headers"].clone())
    }
}

fn request(method: &str, path: &str, content_type: &str, body: &str) -> Value {
    json!({
        "version": "2.0",
        "rawPath": path,
        "headers": {"authorization": format!("Bearer {SECRET}"), "content-type": content_type, "user-agent": "Größe"},
        "requestContext": {"http": {"method": method}},
        "body": body,
        "isBase64Encoded": false,
    })
}

fn record(id: &str, queue: &str, body: &str) -> Value {
    json!({"messageId": id, "body": body, "eventSource": "aws:sqs", "eventSourceARN": queue})
}

fn event(detail: Value) -> Value {
    json!({
        "version": "0", "id": "7bf7", "detail-type": "Order paid", "source": "com.example.shop",
        "time": "2026-11-24T09:30:24Z", "detail": detail,
    })
}

#[tokio::test]
async fn http_publishes_and_says_where_each_event_is() {
    let fixture = Fixture::new();
    let body = r#"[{"channel":"a","id":"1","data":{"total": 19.90}},{"channel":"a","id":"1"},{"channel":"b"}]"#;
    let (status, answer, headers) = fixture.post(request("POST", "/publish", "application/json", body)).await;
    assert_eq!((status, &headers["content-type"]), (200, &json!("application/json")));
    let results = answer["results"].as_array().expect("results");
    let places: Vec<_> = results.iter().map(|result| (&result["channel"], &result["offset"], &result["duplicate"])).collect();
    assert_eq!(
        places,
        [
            (&json!("a"), &json!(1), &json!(false)),
            (&json!("a"), &json!(1), &json!(true)),
            (&json!("b"), &json!(1), &json!(false))
        ]
    );
    assert_eq!(fixture.ids("a"), ["1"]);
    let [only] = &fixture.log("b")[..] else { panic!("one message") };
    assert_eq!((&only["source"], &only["type"]), (&json!("carillon:http"), &json!("carillon.message")));
    assert_eq!(only["id"], results[2]["id"]);
}

#[tokio::test]
async fn http_is_closed_without_the_token_whatever_is_asked() {
    let fixture = Fixture::new();
    for (method, path) in [("POST", "/publish"), ("GET", "/"), ("OPTIONS", "/publish")] {
        for authorization in ["", "Bearer ", "Bearer wrong", SECRET] {
            let mut request = request(method, path, "application/json", r#"{"channel":"a"}"#);
            request["headers"]["authorization"] = json!(authorization);
            let (status, answer, headers) = fixture.post(request).await;
            assert_eq!((status, &answer["error"]["code"]), (401, &json!("unauthorized")));
            assert_eq!(headers["www-authenticate"], "Bearer");
        }
    }
    assert!(fixture.log("a").is_empty());
    let mut request = request("POST", "/publish", "application/json", r#"{"channel":"a"}"#);
    request["headers"].as_object_mut().expect("headers").remove("authorization");
    request["queryStringParameters"] = json!({"token": SECRET});
    assert_eq!(fixture.post(request).await.0, 200);
}

#[tokio::test]
async fn http_answers_what_is_wrong_as_http_does() {
    let fixture = Fixture::new();
    let json = "application/json";
    let large = format!(r#"{{"channel":"a","data":"{}"}}"#, "x".repeat(31_000));
    let huge = " ".repeat(4 * 1024 * 1024 + 1);
    for (request, status, code, message) in [
        (request("POST", "/", json, "{}"), 404, "not_found", "path: \"/\" is none; there is /publish"),
        (request("GET", "/publish", json, ""), 405, "bad_request", "method: \"GET\" is not served; there is POST"),
        (request("POST", "/publish", json, "{"), 400, "bad_request", "body: is not JSON: "),
        (request("POST", "/publish", json, ""), 400, "bad_request", "body: is not JSON: "),
        (request("POST", "/publish", "text/plain", "{}"), 400, "bad_request", "content-type: \"text/plain\" is not served; "),
        (request("POST", "/publish", json, r#"[{"channel":"a"},{}]"#), 400, "bad_request", "[1].channel: is missing"),
        (request("POST", "/publish", json, &large), 413, "too_large", "event: 31"),
        (request("POST", "/publish", json, &huge), 413, "too_large", "body: 4194305 bytes are over the limit of 4194304"),
    ] {
        let (found, answer, headers) = fixture.post(request).await;
        let error = &answer["error"];
        assert_eq!((found, &error["code"], &error["retry"]), (status, &json!(code), &json!(false)), "{answer}");
        assert!(error["message"].as_str().expect("a message").starts_with(message), "{answer}");
        assert_eq!(headers.get("allow").is_some(), status == 405);
    }
    let (status, body, headers) = fixture.post(request("OPTIONS", "/publish", json, "")).await;
    assert_eq!((status, body, &headers["allow"]), (204, Value::Null, &json!("OPTIONS, POST")));
    assert!(fixture.log("a").is_empty(), "a request is refused as a whole");
}

#[tokio::test]
async fn http_takes_bodies_that_lambda_hands_over_in_base64() {
    let fixture = Fixture::new();
    let mut request = request("POST", "/publish", "application/octet-stream", "AP8=");
    request["isBase64Encoded"] = json!(true);
    for (name, value) in [("specversion", "1.0"), ("id", "1"), ("source", "s"), ("type", "t"), ("subject", "a")] {
        request["headers"][format!("ce-{name}")] = json!(value);
    }
    assert_eq!(fixture.post(request.clone()).await.0, 200);
    assert_eq!(fixture.log("a")[0]["data_base64"], "AP8=");
    request["body"] = json!("?");
    assert_eq!(fixture.post(request).await.1["error"]["message"], "body: is not base64 of RFC 4648 section 4");
}

#[tokio::test(start_paused = true)]
async fn http_says_when_to_come_again() {
    let request = request("POST", "/publish", "application/json", r#"{"channel":"a"}"#);
    let (status, answer, headers) = Fixture::away().post(request).await;
    assert_eq!((status, &answer["error"]["code"], &headers["retry-after"]), (503, &json!("unavailable"), &json!("1")));
    assert_eq!(answer["results"][0]["error"], answer["error"]);
}

#[tokio::test]
async fn sqs_reports_the_messages_that_failed_and_no_other() {
    let fixture = Fixture::new();
    let large = format!(r#"[{{"channel":"a","id":"small"}},{{"channel":"a","data":"{}"}}]"#, "x".repeat(31_000));
    let batch = json!({"Records": [
        record("m1", QUEUE, r#"{"channel":"a"}"#),
        record("m2", QUEUE, "not JSON"),
        record("m3", QUEUE, r#"[{"channel":"a"},{"channel":"a","id":"mine","source":"s"}]"#),
        record("m4", QUEUE, &large),
        record("m5", QUEUE, ""),
    ]});
    let failed = json!({"batchItemFailures": [
        {"itemIdentifier": "m2"}, {"itemIdentifier": "m4"}, {"itemIdentifier": "m5"},
    ]});
    // Those that failed come again, and sometimes others too: nothing is published twice.
    for _ in 0..2 {
        assert_eq!(fixture.invoke(&batch).await, Ok(failed.clone()));
        assert_eq!(fixture.ids("a"), ["m1", "m3-0", "mine", "small"]);
    }
    let log = fixture.log("a");
    assert_eq!((&log[0]["source"], &log[2]["source"]), (&json!(QUEUE), &json!("s")));
    let good = json!({"Records": [record("m6", QUEUE, r#"{"channel":"a"}"#)]});
    assert_eq!(fixture.invoke(&good).await, Ok(json!({"batchItemFailures": []})));
}

#[tokio::test]
async fn a_fifo_queue_stays_in_order_behind_a_message_that_fails() {
    let fixture = Fixture::new();
    let queue = format!("{QUEUE}.fifo");
    let batch = json!({"Records": [
        record("m1", &queue, r#"{"channel":"a"}"#),
        record("m2", &queue, "not JSON"),
        record("m3", &queue, r#"{"channel":"a"}"#),
    ]});
    let failed = json!({"batchItemFailures": [{"itemIdentifier": "m2"}, {"itemIdentifier": "m3"}]});
    assert_eq!(fixture.invoke(&batch).await, Ok(failed));
    assert_eq!(fixture.ids("a"), ["m1"]);
}

#[tokio::test]
async fn an_sqs_record_without_a_name_fails_the_batch_so_that_all_of_it_comes_again() {
    let fixture = Fixture::new();
    let nameless = json!({"body": r#"{"channel":"a"}"#, "eventSource": "aws:sqs", "eventSourceARN": QUEUE});
    let batch = json!({"Records": [record("m1", QUEUE, r#"{"channel":"a"}"#), nameless]});
    let failure = fixture.invoke(&batch).await.expect_err("a failure");
    assert_eq!(failure.to_string(), "the event is none of SQS: a record lacks messageId or eventSourceARN");
    assert!(fixture.log("a").is_empty());
}

#[tokio::test]
async fn eventbridge_publishes_once_however_often_it_delivers() {
    let fixture = Fixture::new();
    let event = event(json!({"channel": "orders/42", "data": {"order": 42}, "other": "readers'"}));
    let first = fixture.invoke(&event).await.expect("published");
    let again = fixture.invoke(&event).await.expect("published");
    assert_eq!((&first["results"][0]["duplicate"], &again["results"][0]["duplicate"]), (&json!(false), &json!(true)));
    let [only] = &fixture.log("orders/42")[..] else { panic!("one message") };
    assert_eq!(
        *only,
        json!({
            "specversion": "1.0", "id": "7bf7", "source": "com.example.shop", "type": "Order paid", "subject": "orders/42",
            "time": "2026-11-24T09:30:24Z", "data": {"order": 42},
        })
    );
}

#[tokio::test(start_paused = true)]
async fn an_event_of_eventbridge_that_is_not_published_fails_the_invocation() {
    let failure = Fixture::new().invoke(&event(json!({"channel": "a//b"}))).await.expect_err("a failure");
    let diagnostic = Diagnostic::from(failure);
    assert_eq!(diagnostic.error_type, "bad_request");
    assert!(diagnostic.error_message.starts_with("detail.channel: segment 2 is empty"), "{}", diagnostic.error_message);
    let failure = Fixture::away().invoke(&event(json!({"channel": "a"}))).await.expect_err("a failure");
    assert_eq!(Diagnostic::from(failure).error_type, "unavailable");
}

/// What the template's rule makes of a device's message.
fn device_message(topic: &str, payload: &str) -> Value {
    json!({"payload": BASE64_STANDARD.encode(payload), "topic": topic, "client": "sensor-7", "trace": "e37e7a4d"})
}

#[tokio::test]
async fn a_device_s_message_is_published_once_however_often_lambda_tries() {
    let fixture = Fixture::new();
    let message = device_message("carillon/p/rooms/7", r#"{"celsius":21.50}"#);
    let first = fixture.invoke(&message).await.expect("published");
    let again = fixture.invoke(&message).await.expect("published");
    assert_eq!((&first["results"][0]["duplicate"], &again["results"][0]["duplicate"]), (&json!(false), &json!(true)));
    let [only] = &fixture.log("rooms/7")[..] else { panic!("one message") };
    assert_eq!(
        (&only["id"], &only["source"], &only["data"]),
        (&json!("e37e7a4d"), &json!("mqtt:sensor-7"), &json!({"celsius": 21.5}))
    );

    let mut over_http = message;
    over_http["client"] = json!("n/a");
    over_http.as_object_mut().expect("an object").remove("trace");
    for duplicate in [false, true] {
        let answer = fixture.invoke(&over_http).await.expect("published");
        assert_eq!(answer["results"][0]["duplicate"], duplicate, "the request's id stays when Lambda tries again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_s_message_that_is_not_published_fails_the_invocation() {
    for (topic, payload, code, message) in [
        ("carillon/p/a", "21,5", "bad_request", "payload: is not JSON: "),
        ("carillon/p/a//b", "21", "bad_request", "topic: segment 2 is empty"),
        ("carillon/p/a", &format!("\"{}\"", "x".repeat(31_000)), "too_large", "event: 31"),
    ] {
        let fixture = Fixture::new();
        let failure = fixture.invoke(&device_message(topic, payload)).await.expect_err("a failure");
        let diagnostic = Diagnostic::from(failure);
        assert_eq!(diagnostic.error_type, code);
        assert!(diagnostic.error_message.starts_with(message), "{}", diagnostic.error_message);
        assert!(fixture.log("a").is_empty());
    }
    let failure = Fixture::away().invoke(&device_message("carillon/p/a", "21")).await.expect_err("a failure");
    assert_eq!(Diagnostic::from(failure).error_type, "unavailable");
}

#[tokio::test]
async fn a_direct_invocation_is_published_once_when_lambda_tries_it_again() {
    let fixture = Fixture::new();
    let message = json!([{"channel": "a"}, {"channel": "a", "id": "mine"}]);
    for duplicate in [false, true] {
        let answer = fixture.invoke(&message).await.expect("published");
        assert_eq!(answer["results"][0]["duplicate"], duplicate);
    }
    assert_eq!(fixture.ids("a"), ["request-1-0", "mine"]);
    assert_eq!(fixture.log("a")[0]["source"], "carillon:invoke");
}

#[tokio::test(start_paused = true)]
async fn a_direct_invocation_is_told_its_mistake_and_fails_where_another_try_may_succeed() {
    let fixture = Fixture::new();
    let answer = fixture.invoke(&json!({"chanel": "a"})).await.expect("an answer");
    assert_eq!(answer["error"]["message"], "channel: is missing");
    let answer = fixture.invoke(&json!(7)).await.expect("an answer");
    assert_eq!(answer["error"]["message"], "body: is a number, and an object is needed");
    let answer =
        fixture.invoke(&json!([{"channel": "a", "data": "x".repeat(31_000)}, {"channel": "a"}])).await.expect("an answer");
    assert_eq!((&answer["error"]["code"], &answer["results"][1]["offset"]), (&json!("too_large"), &json!(1)));
    let failure = Fixture::away().invoke(&json!({"channel": "a"})).await.expect_err("a failure");
    assert_eq!(Diagnostic::from(failure).error_type, "unavailable");
}

#[tokio::test]
async fn data_stays_as_it_was_written_from_every_source() {
    let fixture = Fixture::new();
    let message = r#"{"channel":"a","data":{"n":1.0,"big":123456789012345678901234567890,"n2": 1e400}}"#;
    fixture.invoke_text(message).await.expect("published");
    let detail = format!(r#"{{"id":"1","detail-type":"t","source":"s","detail":{message}}}"#);
    fixture.invoke_text(&detail).await.expect("published");
    fixture.invoke(&json!({"Records": [record("m1", QUEUE, message)]})).await.expect("published");
    let events = fixture.store.whole_log(&Channel::parse("a").expect("a channel"));
    assert_eq!(events.len(), 3);
    for (_, event) in events {
        assert!(event.as_str().ends_with(r#""data":{"n":1.0,"big":123456789012345678901234567890,"n2": 1e400}}"#), "{event:?}");
    }
}

#[tokio::test]
async fn a_source_that_is_not_served_fails_the_invocation_by_name() {
    let failure =
        Fixture::new().invoke(&json!({"Records": [{"EventSource": "aws:sns", "Sns": {}}]})).await.expect_err("a failure");
    assert_eq!(failure.to_string(), "eventSource: \"aws:sns\" is not served; there is aws:sqs");
}

/// What each sample event comes to: how many messages are published, and which messages of a queue fail.
const SAMPLES: [(&str, usize, &[&str]); 13] = [
    ("direct-array.json", 2, &[]),
    ("direct.json", 1, &[]),
    ("eventbridge.json", 1, &[]),
    ("http-array.json", 2, &[]),
    ("http-cloudevents-batch.json", 2, &[]),
    ("http-cloudevents-binary.json", 1, &[]),
    ("http-cloudevents-structured.json", 1, &[]),
    ("http.json", 1, &[]),
    ("iot-cloudevents.json", 1, &[]),
    ("iot-http.json", 1, &[]),
    ("iot.json", 1, &[]),
    ("sqs-partial-failure.json", 1, &["059f36b4-87a3-44ab-83d2-66197597b1c1"]),
    ("sqs.json", 3, &[]),
];

#[tokio::test]
async fn every_sample_event_is_handled_as_its_readme_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../events/publish");
    let mut files: Vec<String> = std::fs::read_dir(&folder)
        .expect("the samples")
        .map(|entry| entry.expect("a file").file_name().into_string().expect("a name"))
        .collect();
    files.sort();
    assert_eq!(files, SAMPLES.map(|(file, ..)| file));
    for (file, messages, failed) in SAMPLES {
        let fixture = Fixture::new();
        let text = std::fs::read_to_string(folder.join(file)).expect(file);
        let answer = fixture.invoke_text(&text).await.expect(file);
        let published: usize = ["orders/42", "orders/43", "orders/44"].map(|channel| fixture.log(channel).len()).iter().sum();
        assert_eq!(published, messages, "{file}: {answer}");
        let failures = answer["batchItemFailures"].as_array().cloned().unwrap_or_default();
        let failures: Vec<_> = failures.iter().map(|failure| failure["itemIdentifier"].as_str().expect("an id")).collect();
        assert_eq!(failures, failed, "{file}");
        assert!(answer.get("statusCode").is_none_or(|status| status == 200), "{file}: {answer}");
    }
}
