//! Bad input: each is answered as AWS or the protocol says, the connection lives where the protocol allows, and nothing is lost.

use std::num::NonZeroU32;

use carillon_core::limits::{EVENT_BYTES, FRAME_BYTES, PUBLISH_BATCH, PUBLISH_BYTES, SUBSCRIPTIONS};
use carillon_tests::http::{Answer, send};
use carillon_tests::stack::TestStack;
use carillon_tests::wait::eventually;
use carillon_tests::websocket::{Refused, Socket};
use http::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

/// API Gateway's limit on a message (Amazon API Gateway Developer Guide, "Quotas for configuring and running a WebSocket API").
const MESSAGE_BYTES: usize = 128 * 1024;

/// Where a resume stays that found the lease held (D1), until its visibility of 30 s ends. The holder has served it long before, so
/// only one of the tests that come back waits for it.
const HELD_RESUME: &str = "WakeupQueue";

/// A client that does what it should not, and its subscription, by which it proves that it still works.
struct Client<'stack> {
    stack: &'stack TestStack,
    socket: Socket,
    channel: &'static str,
    position: Value,
}

impl<'stack> Client<'stack> {
    async fn connect(stack: &'stack TestStack, channel: &'static str) -> Self {
        let mut socket = stack.connect().await;
        let subscribed = socket.subscribe(channel).await;
        Self { stack, socket, channel, position: json!({"epoch": subscribed["epoch"], "offset": subscribed["offset"]}) }
    }

    /// Sends a frame that is refused, and proves that nothing else happened.
    async fn is_refused(&mut self, frame: impl Into<String>, reference: Option<&str>, code: &str, message: &str) {
        let frame = frame.into();
        let shown = frame.chars().take(200).collect::<String>();
        let reply = self.socket.ask_raw(frame).await;
        assert_refusal(&reply, reference, code, message, &shown);
        self.works().await;
    }

    /// The connection answers, and a publish arrives with the next offset: nothing was lost and nothing came twice.
    async fn works(&mut self) {
        self.socket.assert_alive().await;
        let offset = self.stack.publish(self.channel, &json!("still here")).await;
        let event = self.socket.event().await;
        let expected = self.position["offset"].as_u64().expect("an offset") + 1;
        assert_eq!((event.offset, offset), (expected, expected));
        assert_eq!(json!(event.epoch), self.position["epoch"]);
        self.position["offset"] = json!(offset);
    }

    /// Connects again after the server has closed, and gets what was published meanwhile.
    async fn comes_back(&mut self) {
        let missed = self.stack.publish(self.channel, &json!("while it was away")).await;
        self.socket = self.stack.connect().await;
        let subscribe = json!({"action": "subscribe", "channel": self.channel, "since": self.position});
        let reply = self.socket.ask(subscribe).await;
        assert_eq!((&reply["ok"], &reply["recovered"]), (&json!(true), &json!(true)), "{reply}");
        assert_eq!(self.socket.event().await.offset, missed);
        self.position["offset"] = json!(missed);
        self.works().await;
    }
}

#[track_caller]
fn assert_refusal(reply: &Value, reference: Option<&str>, code: &str, message: &str, frame: &str) {
    assert_eq!((&reply["type"], &reply["ok"]), (&json!("reply"), &json!(false)), "{frame}: {reply}");
    assert_eq!(reply.get("ref").and_then(Value::as_str), reference, "{frame}: {reply}");
    let error = &reply["error"];
    assert_eq!((&error["code"], &error["retry"]), (&json!(code), &json!(false)), "{frame}: {reply}");
    assert!(error["message"].as_str().expect("a message").contains(message), "{frame}: {reply}");
}

#[tokio::test]
async fn a_frame_that_is_no_request_is_answered_with_what_is_wrong() {
    let stack = TestStack::start().await;
    let mut client = Client::connect(&stack, "bad/frames").await;
    for (frame, reference, code, message) in [
        ("hello", None, "bad_request", "frame: is not JSON"),
        (r#"{"action":"subscribe","channel":"a"#, None, "bad_request", "frame: is not JSON"),
        ("[]", None, "bad_request", "frame: is an array, and an object is needed"),
        ("7", None, "bad_request", "frame: is a number, and an object is needed"),
        ("{}", None, "bad_request", "action: is missing"),
        (r#"{"action":7,"ref":"a"}"#, Some("a"), "bad_request", "action: is a number, and a string is needed"),
        (r#"{"action":"dance","ref":"b"}"#, Some("b"), "unknown_action", r#"action: "dance" is none; there are subscribe"#),
        (r#"{"action":"presence","ref":"c"}"#, Some("c"), "unknown_action", "not served yet"),
        (r#"{"action":"ping","ref":7}"#, None, "bad_request", "ref: is a number, and a string is needed"),
        (r#"{"action":"ping","ref":{"a":1}}"#, None, "bad_request", "ref: is an object, and a string is needed"),
        (r#"{"action":"ping","ref":"d","extra":1}"#, Some("d"), "bad_request", "extra: is no field here"),
        (r#"{"action":"subscribe","ref":"e"}"#, Some("e"), "bad_request", "channel: is missing"),
        (
            r#"{"action":"subscribe","channel":"a","since":"1-2"}"#,
            None,
            "bad_request",
            "since: is a string, and an object is needed",
        ),
        (
            r#"{"action":"subscribe","channel":"a","since":{"epoch":1,"offset":1}}"#,
            None,
            "bad_request",
            "since.epoch: is a number",
        ),
        (
            r#"{"action":"subscribe","channel":"a","since":{"epoch":"x","offset":1}}"#,
            None,
            "bad_request",
            "since.epoch: an epoch is",
        ),
        (
            r#"{"action":"subscribe","channel":"a","since":{"epoch":"1","offset":-1}}"#,
            None,
            "bad_request",
            "since.offset: -1 is no whole",
        ),
        (r#"{"action":"publish","channel":"a"}"#, None, "bad_request", "event: is missing"),
        (r#"{"action":"publish","channel":"a","event":{"id":""}}"#, None, "bad_request", "event.id: is empty"),
        (r#"{"action":"publish","channel":"a","event":{"offset":1}}"#, None, "bad_request", "offset: the name is reserved"),
        (r#"{"action":"publish","channel":"a","event":{"subject":"b"}}"#, None, "bad_request", "is not the channel"),
        (r#"{"action":"history","channel":"a","limit":0}"#, None, "bad_request", "limit: 0 is no whole number of 1 to 100"),
        (r#"{"action":"history","channel":"a","limit":101}"#, None, "bad_request", "limit: 101 is no whole number of 1 to 100"),
    ] {
        client.is_refused(frame, reference, code, message).await;
    }
    let long = json!({"action": "ping", "ref": "r".repeat(65)});
    client.is_refused(long.to_string(), None, "bad_request", "ref: 65 bytes are over the limit of 64").await;
    stack.shutdown().await;
}

#[tokio::test]
async fn a_name_that_breaks_the_grammar_is_refused_with_its_limit() {
    let stack = TestStack::start().await;
    let mut client = Client::connect(&stack, "bad/names").await;
    let names = [
        (String::new(), "has 1 to 6 segments, and this one is empty"),
        ("a//b".to_owned(), "segment 2 is empty"),
        ("/a".to_owned(), "segment 1 is empty"),
        ("a/".to_owned(), "segment 2 is empty"),
        ("a/b/c/d/e/f/g".to_owned(), "at most 6 segments joined by '/', and this one has 7"),
        ("a b".to_owned(), "segment 1 holds ' '"),
        ("a/#".to_owned(), "segment 2 holds '#'"),
        ("a/+".to_owned(), "segment 2 holds '+'"),
        ("a/ü".to_owned(), "segment 2 holds 'ü'"),
        ("a/*".to_owned(), "segment 2 is a wildcard, which belongs into 'pattern'"),
        ("s".repeat(65), "at most 64 bytes, and segment 1 has 65"),
        (["s".repeat(60), "s".repeat(60), "s".repeat(60), "s".repeat(18)].join("/"), "at most 200 bytes, and this one has 201"),
    ];
    for (name, message) in &names {
        for action in ["subscribe", "unsubscribe", "history", "publish"] {
            let mut frame = json!({"action": action, "ref": "r", "channel": name});
            if action == "publish" {
                frame["event"] = json!({"data": 1});
            }
            client.is_refused(frame.to_string(), Some("r"), "bad_request", message).await;
        }
        let answer = stack.post("application/json", json!({"channel": name, "data": 1}).to_string()).await;
        assert_refused(&answer, 400, "bad_request", message);
    }
    for pattern in ["bad/*", "bad/**", "*", "bad/names"] {
        let frame = json!({"action": "subscribe", "ref": "p", "pattern": pattern}).to_string();
        client.is_refused(frame, Some("p"), "bad_request", "pattern: patterns are not served yet").await;
    }
    stack.shutdown().await;
}

#[tokio::test]
async fn an_event_over_the_limit_is_refused_and_one_at_the_limit_arrives() {
    let stack = TestStack::start().await;
    let mut client = Client::connect(&stack, "bad/sizes").await;
    let limit = EVENT_BYTES.to_string();
    assert_eq!(limit, "30720", "the limit that the protocol names");

    // A frame that API Gateway takes, around an event that is too large.
    let data = "x".repeat(EVENT_BYTES);
    let frame = json!({"action": "publish", "ref": "r", "channel": "bad/sizes", "event": {"data": data}}).to_string();
    assert!(frame.len() <= FRAME_BYTES, "API Gateway would close");
    client.is_refused(frame, Some("r"), "too_large", &limit).await;
    let answer = stack.post("application/json", json!({"channel": "bad/sizes", "data": data}).to_string()).await;
    assert_refused(&answer, 413, "too_large", &limit);

    // As large as it may be: the size of everything around the data is what a small event shows.
    let small = json!({"specversion": "1.0", "id": "small", "source": "/test", "type": "t", "subject": "bad/sizes", "time": "2026-11-24T10:00:00Z", "data": ""});
    let data = "x".repeat(EVENT_BYTES - small.to_string().len());
    for (data, status) in [(format!("{data}x"), 413), (data, 200)] {
        let mut event = small.clone();
        event["data"] = json!(data);
        let answer = stack.post("application/cloudevents+json", event.to_string()).await;
        assert_eq!(answer.status, status, "{}", String::from_utf8_lossy(&answer.body));
    }
    let event = client.socket.event().await;
    assert_eq!(event.event["id"], "small");
    assert_eq!(event.event.to_string().len(), EVENT_BYTES);
    client.position["offset"] = json!(event.offset);
    client.works().await;
    stack.shutdown().await;
}

#[tokio::test]
async fn json_that_nests_too_deep_is_refused() {
    let stack = TestStack::start().await;
    let mut client = Client::connect(&stack, "bad/depths").await;
    for levels in [101, 15_000] {
        let deep = "[".repeat(levels) + &"]".repeat(levels);
        let message = format!("data: {levels} levels of nesting are over the limit of 100");
        let frame = format!(r#"{{"action":"publish","ref":"r","channel":"bad/depths","event":{{"data":{deep}}}}}"#);
        client.is_refused(frame, Some("r"), "bad_request", &message).await;
        let answer = stack.post("application/json", format!(r#"{{"channel":"bad/depths","data":{deep}}}"#)).await;
        assert_refused(&answer, 400, "bad_request", &message);
        client.is_refused(deep, None, "bad_request", "frame: is an array").await;
    }
    stack.shutdown().await;
}

#[tokio::test]
async fn a_binary_frame_closes_with_1003_and_nothing_is_lost() {
    let stack = TestStack::start().await;
    let mut client = Client::connect(&stack, "bad/binary").await;
    client.socket.send_message(Message::binary(&br#"{"action":"ping"}"#[..])).await;
    assert_eq!(client.socket.closed().await, 1003);
    client.comes_back().await;
    stack.shutdown().await;
}

#[tokio::test]
async fn a_frame_over_32_kb_closes_with_1009_and_nothing_is_lost() {
    let mut stack = TestStack::start().await;
    stack.allow(HELD_RESUME);
    let mut client = Client::connect(&stack, "bad/frame-size").await;
    // The largest frame is only a bad request.
    client.is_refused("x".repeat(FRAME_BYTES), None, "bad_request", "frame: is not JSON").await;
    client.socket.send("x".repeat(FRAME_BYTES + 1)).await;
    assert_eq!(client.socket.closed().await, 1009);
    client.comes_back().await;
    stack.shutdown().await;
}

#[tokio::test]
async fn a_message_over_128_kb_closes_with_1009_and_nothing_is_lost() {
    let mut stack = TestStack::start().await;
    stack.allow(HELD_RESUME);
    let mut client = Client::connect(&stack, "bad/message-size").await;
    // The largest message, in frames that API Gateway takes, is only a bad request.
    client.socket.send_in_frames(&"x".repeat(MESSAGE_BYTES), FRAME_BYTES).await;
    let reply = client.socket.next_reply().await;
    assert_refusal(&reply, None, "bad_request", "frame: is not JSON", "128 KB");
    client.works().await;
    client.socket.send_in_frames(&"x".repeat(MESSAGE_BYTES + 1), FRAME_BYTES).await;
    assert_eq!(client.socket.closed().await, 1009);
    client.comes_back().await;
    stack.shutdown().await;
}

#[tokio::test]
async fn a_since_that_cannot_be_continued_says_so_and_goes_on_from_now() {
    let stack = TestStack::start().await;
    let channel = "bad/since";
    for number in 1..=3 {
        stack.publish(channel, &json!(number)).await;
    }
    let mut observer = stack.connect().await;
    let subscribed = observer.subscribe(channel).await;
    let epoch: u64 = subscribed["epoch"].as_str().expect("a text").parse().expect("a number");
    let mut newest = subscribed["offset"].as_u64().expect("a number");
    assert_eq!(newest, 3);
    let cases = [
        ("an epoch before", epoch - 1, 1),
        ("an epoch to come", epoch + 1, 1),
        ("the largest epoch", u64::MAX, 0),
        // Every case publishes one message, so this one is the next after those of three cases.
        ("an offset to come", epoch, newest + 4),
        ("the largest offset", epoch, 9_007_199_254_740_991),
    ];
    for (name, epoch, offset) in cases {
        let since = json!({"epoch": epoch.to_string(), "offset": offset});
        let mut socket = stack.connect().await;
        let reply = socket.ask(json!({"action": "subscribe", "channel": channel, "since": since})).await;
        assert_eq!((&reply["ok"], &reply["recovered"]), (&json!(true), &json!(false)), "{name}: {reply}");
        assert_eq!((&reply["epoch"], &reply["offset"]), (&subscribed["epoch"], &json!(newest)), "{name}: the newest position");
        newest = stack.publish(channel, &json!(name)).await;
        for socket in [&mut socket, &mut observer] {
            let event = socket.event().await;
            assert_eq!((event.offset, &event.event["data"]), (newest, &json!(name)));
        }
        socket.assert_alive().await;
        socket.close().await;
    }
    stack.shutdown().await;
}

#[tokio::test]
async fn without_the_secret_nothing_opens_and_nothing_is_published() {
    let stack = TestStack::start().await;
    let mut client = Client::connect(&stack, "bad/secrets").await;
    let url = stack.websocket();
    let wrong = "x".repeat(stack.token().len());
    let almost = &stack.token()[1..];

    let mut refusals = Vec::new();
    for token in [None, Some(""), Some(wrong.as_str()), Some(almost)] {
        refusals.push(Socket::connect(url, token).await.map(|_| ()));
        let query = token.map_or_else(|| url.to_owned(), |token| format!("{url}?token={token}"));
        refusals.push(Socket::connect(&query, None).await.map(|_| ()));
        let protocols = token.map_or_else(|| "carillon.v1".to_owned(), |token| format!("carillon.v1, bearer.{token}x"));
        refusals.push(Socket::connect_with_protocols(url, &protocols).await.map(|_| ()));
    }
    assert_eq!(refusals.len(), 12);
    for refusal in refusals {
        let Err(Refused { status, body }) = refusal else { panic!("the stack opened") };
        assert_eq!(status, 401, "{body}");
        assert!(!body.contains(stack.token()) && !body.contains(&wrong), "a token stands in the answer");
    }

    let message = json!({"channel": "bad/secrets", "data": "never"}).to_string();
    let headers =
        [None, Some(String::new()), Some("Bearer".to_owned()), Some(format!("Bearer {wrong}")), Some(format!("Bearer {almost}"))];
    for header in headers.into_iter().chain([Some(format!("Basic {}", stack.token()))]) {
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(header.as_deref().map(|header| ("authorization", header)));
        let answer = send(Method::POST, &stack.publish_url(), &headers, message.clone()).await;
        assert_refused(&answer, 401, "unauthorized", "");
    }
    // The next offset is the next one: nothing of it was published.
    client.works().await;
    stack.shutdown().await;
}

#[track_caller]
fn assert_refused(answer: &Answer, status: u16, code: &str, message: &str) {
    let body = String::from_utf8_lossy(&answer.body);
    let body: String = body.chars().take(500).collect();
    assert_eq!(answer.status, status, "{body}");
    let error = &answer.json()["error"];
    assert_eq!(error["code"], code, "{body}");
    assert!(error["message"].as_str().expect("a message").contains(message), "{message} is not in {body}");
    assert_eq!(answer.headers["content-type"], "application/json");
}

#[tokio::test]
async fn an_http_request_of_the_wrong_kind_is_refused_whole() {
    let stack = TestStack::start().await;
    let channel = "bad/http";
    let mut client = Client::connect(&stack, channel).await;
    let good = json!({"channel": channel, "data": "never"});
    let (one, authorization) = (good.to_string(), format!("Bearer {}", stack.token()));

    for content_type in
        ["text/plain", "application/xml", "application/x-www-form-urlencoded", "application/cloudevents+avro", "nonsense"]
    {
        assert_refused(
            &stack.post(content_type, one.clone()).await,
            400,
            "bad_request",
            "is not served; there are application/json",
        );
    }
    let answer = send(Method::POST, &stack.publish_url(), &[("authorization", &authorization)], one.clone()).await;
    assert_refused(&answer, 400, "bad_request", "content-type");

    for (body, message) in [
        ("", "body: is not JSON"),
        ("{", "body: is not JSON"),
        ("7", "body: is a number, and an object is needed"),
        ("{}", "channel: is missing"),
        (r#"{"channel":7}"#, "channel: is a number"),
        (r#"{"channel":"bad/http","dta":1}"#, "dta: is no field here"),
        (r#"{"channel":"bad/http","id":7}"#, "id: is a number"),
        (r#"{"channel":"bad/http","type":"a\nb"}"#, r"type: holds the control character '\n'"),
        // A list is taken or refused as a whole.
        (r#"[{"channel":"bad/http","data":"never"},7]"#, "[1]: is a number"),
        (r#"[{"channel":"bad/http","data":"never"},{"channel":"a//b"}]"#, "[1].channel: segment 2 is empty"),
    ] {
        assert_refused(&stack.post("application/json", body).await, 400, "bad_request", message);
    }
    assert_refused(
        &stack.post("application/json", &b"{\"channel\":\"\xff\"}"[..]).await,
        400,
        "bad_request",
        "body: is not UTF-8",
    );

    let many = Value::from(vec![good; PUBLISH_BATCH + 1]).to_string();
    assert_refused(&stack.post("application/json", many).await, 413, "too_large", "101 messages are over the limit of 100");
    let large = " ".repeat(PUBLISH_BYTES + 1);
    assert_refused(&stack.post("application/json", large).await, 413, "too_large", "4194305 bytes are over the limit of 4194304");

    client.works().await;
    stack.shutdown().await;
}

#[tokio::test]
async fn another_path_or_method_of_the_function_url_is_not_there() {
    let stack = TestStack::start().await;
    let mut client = Client::connect(&stack, "bad/paths").await;
    let authorization = format!("Bearer {}", stack.token());
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let body = json!({"channel": "bad/paths", "data": "never"}).to_string();
    let base = stack.publish_url();
    let base = base.strip_suffix("/publish").expect("the URL ends so");

    for path in ["/", "/publish/", "/publish/more", "/Publish", "/../publish", "/health"] {
        let answer = send(Method::POST, &format!("{base}{path}"), &headers, body.clone()).await;
        assert_refused(&answer, 404, "not_found", "");
    }
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::PATCH] {
        let answer = send(method, &stack.publish_url(), &headers, "").await;
        assert_eq!(answer.status, 405, "{answer:?}");
        assert_eq!(answer.headers["allow"], "OPTIONS, POST", "RFC 9110 section 15.5.6");
    }
    client.works().await;
    stack.shutdown().await;
}

/// How many times faster than on AWS the pauses between Lambda's tries are here: a minute and two become some 200 ms.
const TIME_SCALE: NonZeroU32 = NonZeroU32::new(1_000).expect("it is not 0");

#[tokio::test]
async fn an_eventbridge_event_that_cannot_be_published_ends_where_people_look() {
    let mut stack = TestStack::start_with(|options| options.time_scale = TIME_SCALE).await;
    // It fails on purpose, three times.
    stack.allow("PublishFunction");
    stack.allow("PublishFailureQueue");
    let mut client = Client::connect(&stack, "bad/events").await;
    let id = stack.put_event("shop", "order.placed", &json!({"channel": "not//a channel", "data": "never"})).await;
    client.works().await;
    eventually("the record of the failure", || {
        let length = stack.queue_length("PublishFailureQueue");
        std::future::ready(if length == 1 { Ok(()) } else { Err(format!("{length} messages")) })
    })
    .await;
    let body = json!({"QueueUrl": stack.resource("PublishFailureQueue")}).to_string();
    let target = [("x-amz-target", "AmazonSQS.ReceiveMessage")];
    let answer = send(Method::POST, &stack.ready().aws, &target, body).await.json();
    let record = answer["Messages"][0]["Body"].as_str().unwrap_or_else(|| panic!("no message: {answer}"));
    let record: Value = serde_json::from_str(record).expect("it is JSON");
    assert_eq!(record["requestPayload"]["id"], json!(id), "{record}");
    assert_eq!(record["requestContext"]["condition"], "RetriesExhausted", "{record}");
    assert_eq!(record["requestContext"]["approximateInvokeCount"], 3, "{record}");
    let error = record["responsePayload"]["errorMessage"].as_str().unwrap_or_default();
    assert!(error.contains("detail.channel: segment 2 is empty"), "{record}");
    client.works().await;
    stack.shutdown().await;
}

#[tokio::test]
async fn the_101st_subscription_is_refused_and_the_others_stay() {
    let stack = TestStack::start().await;
    let mut socket = stack.connect().await;
    let channel = |number: usize| format!("bad/many/{number}");
    for number in 1..=SUBSCRIPTIONS {
        socket.subscribe(&channel(number)).await;
    }
    let over = json!({"action": "subscribe", "channel": channel(SUBSCRIPTIONS + 1)});
    let reply = socket.ask(over.clone()).await;
    assert_eq!((&reply["ok"], &reply["error"]["code"]), (&json!(false), &json!("bad_request")), "{reply}");
    assert!(reply["error"]["message"].as_str().expect("a text").contains("at most 100 subscriptions"), "{reply}");
    // The same channel again is no further subscription.
    socket.subscribe(&channel(1)).await;
    for number in [1, SUBSCRIPTIONS / 2, SUBSCRIPTIONS] {
        stack.publish(&channel(number), &json!(number)).await;
        let event = socket.event().await;
        assert_eq!((event.channel, &event.event["data"]), (channel(number), &json!(number)));
    }
    let reply = socket.ask(json!({"action": "unsubscribe", "channel": channel(2)})).await;
    assert_eq!(reply["ok"], true, "{reply}");
    assert_eq!(socket.ask(over).await["ok"], true, "there is room for it now");
    socket.assert_alive().await;
    stack.shutdown().await;
}
