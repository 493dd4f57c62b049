//! What stock readers of server-sent events see of the real functions: `eventsource` for Node, `curl`, and HTTP by hand.

use carillon_tests::clients::node;
use carillon_tests::http::send;
use carillon_tests::program::Program;
use carillon_tests::sse::message;
use carillon_tests::stack::TestStack;
use carillon_tests::story::assert_dense;
use carillon_tests::websocket::Event;
use http::Method;
use serde_json::{Value, json};
use tokio::process::Command;

/// A reader on `eventsource`.
async fn reader(stack: &TestStack, options: &Value) -> Program {
    node(stack, "sse.mjs", &[&options.to_string()]).await
}

/// The reader's next fact, which has to have this member.
async fn fact(reader: &mut Program, name: &str) -> Value {
    let fact = reader.json().await;
    fact.get(name).cloned().unwrap_or_else(|| panic!("instead of {name:?} the script said {fact}"))
}

/// Reads up to the event with which every stream begins.
async fn subscribed(reader: &mut Program) -> Value {
    let request = fact(reader, "request").await;
    assert_eq!(request, json!({"last_event_id": null}));
    let event = fact(reader, "event").await;
    assert_eq!(event["name"], "carillon.subscribed", "{event}");
    event
}

#[tokio::test]
async fn eventsource_presents_the_token_either_way_and_receives_what_is_published() {
    let stack = TestStack::start().await;
    let mut readers = Vec::new();
    for way in ["query", "header"] {
        let mut reader = reader(&stack, &json!({"query": "channel=orders/42", "way": way, "messages": 2})).await;
        let joined = subscribed(&mut reader).await;
        let channel = &joined["data"]["channels"][0];
        assert_eq!((&channel["channel"], &channel["offset"]), (&json!("orders/42"), &json!(0)), "{joined}");
        assert!(channel.get("recovered").is_none(), "there was no position: {joined}");
        readers.push(reader);
    }
    stack.publish("orders/42", &json!({"total": 1})).await;
    let id = stack.put_event("com.example.shop", "order.placed", &json!({"channel": "orders/42", "data": "two"})).await;
    for mut reader in readers {
        let first = fact(&mut reader, "event").await;
        assert!(first["id"].as_str().is_some_and(|id| !id.is_empty()), "{first}");
        let first = message(first["data"].clone());
        assert_eq!((first.offset, &first.event["data"]), (1, &json!({"total": 1})));
        assert_eq!((&first.event["specversion"], &first.event["type"]), (&json!("1.0"), &json!("carillon.message")));
        let second = message(fact(&mut reader, "event").await["data"].clone());
        assert_eq!((second.offset, &second.epoch), (2, &first.epoch));
        let event = &second.event;
        assert_eq!((&event["id"], &event["source"]), (&json!(id), &json!("com.example.shop")));
        assert_eq!((&event["type"], &event["data"]), (&json!("order.placed"), &json!("two")));
        assert_eq!(reader.succeeds().await, [json!({"closed": true})]);
    }
    stack.shutdown().await;
}

#[tokio::test]
async fn eventsource_resumes_by_itself_over_a_planned_end_and_misses_and_repeats_none() {
    let stack = TestStack::start_with(|options| {
        options.parameters.insert("StreamSeconds".to_owned(), "10".to_owned());
    })
    .await;
    let mut reader = reader(&stack, &json!({"query": "channel=orders/42", "messages": 4, "ends": 1})).await;
    subscribed(&mut reader).await;
    for number in 1..=2 {
        stack.publish("orders/42", &json!(number)).await;
    }
    let (mut received, mut last_id, mut requests) = (Vec::new(), Value::Null, Vec::new());
    loop {
        let fact = reader.json().await;
        if let Some(request) = fact.get("request") {
            assert_eq!(request["last_event_id"], last_id, "it comes back with the last id that it has");
            requests.push(request.clone());
        } else if let Some(event) = fact.get("event") {
            last_id.clone_from(&event["id"]);
            match event["name"].as_str() {
                Some("") => received.push(message(event["data"].clone())),
                Some("carillon.end") => {
                    assert_eq!(event["data"], json!({"reconnect_ms": 500}));
                    // While nobody listens, and once more when somebody may.
                    stack.publish("orders/42", &json!(3)).await;
                    stack.publish("orders/42", &json!(4)).await;
                }
                Some("carillon.subscribed") => assert_eq!(event["data"]["channels"][0]["recovered"], true, "{event}"),
                _ => panic!("{event}"),
            }
        } else if fact.get("closed").is_some() {
            break;
        } else {
            // The end of an answer, after which the package connects again.
            assert_eq!(fact["error"]["over"], false, "{fact}");
        }
    }
    assert_eq!(requests.len(), 1);
    assert_eq!(received.len(), 4);
    assert_dense(&received, 0);
    let data: Vec<_> = received.iter().map(|event| event.event["data"].as_u64()).collect();
    assert_eq!(data, [1, 2, 3, 4].map(Some));
    reader.succeeds().await;
    stack.shutdown().await;
}

#[tokio::test]
async fn several_channels_share_a_stream_and_types_become_names_where_that_is_asked_for() {
    let stack = TestStack::start().await;
    let query = "channel=orders/42&channel=news&named=1";
    let mut reader = reader(&stack, &json!({"query": query, "names": ["order.placed"], "messages": 3})).await;
    let joined = subscribed(&mut reader).await;
    let channels = joined["data"]["channels"].as_array().expect("a list").iter().map(|joined| &joined["channel"]);
    assert_eq!(channels.collect::<Vec<_>>(), ["orders/42", "news"]);
    for (channel, kind) in [("orders/42", "order.placed"), ("other", "order.placed"), ("news", "order.placed")] {
        let event = json!({"channel": channel, "type": kind, "data": channel});
        assert_eq!(stack.post("application/json", event.to_string()).await.status, 200);
        if channel == "other" {
            continue;
        }
        let event = fact(&mut reader, "event").await;
        assert_eq!((&event["name"], &event["data"]["subject"]), (&json!(kind), &json!(channel)), "{event}");
    }
    // No publisher speaks for the server.
    let event = json!({"channel": "news", "type": "carillon.end", "data": "no end"});
    assert_eq!(stack.post("application/json", event.to_string()).await.status, 200);
    let event = fact(&mut reader, "event").await;
    assert_eq!((&event["name"], &event["data"]["data"]), (&json!(""), &json!("no end")), "{event}");
    assert_eq!(reader.succeeds().await, [json!({"closed": true})]);
    stack.shutdown().await;
}

#[tokio::test]
async fn a_position_or_an_id_in_the_query_resumes_and_one_that_is_lost_is_told() {
    let stack = TestStack::start().await;
    let mut whole = stack.stream(&["orders/42"]).await;
    whole.subscribed().await;
    for number in 1..=3 {
        stack.publish("orders/42", &json!(number)).await;
    }
    let first = whole.message().await;
    let id = whole.last_id().expect("messages have ids").to_owned();
    let rest = whole.messages(2).await;
    for query in [format!("channel=orders/42&since={}-1", first.epoch), format!("channel=orders/42&last_event_id={id}&since=1-1")]
    {
        let mut stream = stack.stream_with(&query, None).await.expect("a stream");
        assert_eq!(stream.subscribed().await[0]["recovered"], true);
        assert_eq!(stream.messages(2).await, rest, "{query}");
    }
    let mut stream = stack.stream_with("channel=orders/42&since=1-7", None).await.expect("a stream");
    assert_eq!(stream.subscribed().await[0]["recovered"], false);
    let gap = stream.next().await.expect("the stream goes on");
    assert_eq!(gap.name, "carillon.gap");
    let expected = json!({"channel": "orders/42", "after": {"epoch": "1", "offset": 7}, "epoch": first.epoch, "offset": 3});
    assert_eq!(gap.data, expected);
    stack.publish("orders/42", &json!(4)).await;
    assert_eq!(stream.message().await.offset, 4);
    stack.shutdown().await;
}

#[tokio::test]
async fn curl_shows_the_stream_as_it_comes() {
    if std::process::Command::new("curl").arg("--version").output().is_err() {
        eprintln!("skipped: there is no curl on the PATH");
        return;
    }
    let stack = TestStack::start().await;
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--no-buffer", "--noproxy", "*", "--include"]);
    command.args(["--header", &format!("authorization: Bearer {}", stack.token())]);
    command.arg(format!("{}?channel=demo/1", stack.sse_url()));
    let mut curl = Program::start("curl", &mut command);
    let mut head = Vec::new();
    loop {
        let line = curl.line().await.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        head.push(line);
    }
    assert_eq!(head[0], "http/1.1 200 ok");
    for header in ["content-type: text/event-stream", "cache-control: no-store"] {
        assert!(head.iter().any(|line| line == header), "{head:#?}");
    }
    for expected in [": carillon", "", "retry: 1000", "", "event: carillon.subscribed"] {
        assert_eq!(curl.line().await, expected);
    }
    let id = curl.line().await;
    assert!(id.starts_with("id: "), "{id}");
    let data = curl.line().await;
    assert!(data.starts_with(r#"data: {"channels":[{"channel":"demo/1","epoch":""#), "{data}");
    assert_eq!(curl.line().await, "");
    stack.publish("demo/1", &json!("hello")).await;
    let next = curl.line().await;
    assert!(next.starts_with("id: ") && next != id, "{next}");
    let data = curl.line().await;
    let event: Event = message(serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON"));
    assert_eq!((event.channel.as_str(), event.offset, &event.event["data"]), ("demo/1", 1, &json!("hello")));
    drop(curl);
    stack.shutdown().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_an_answer_in_json_that_names_the_field() {
    let stack = TestStack::start().await;
    let url = stack.sse_url();
    let (token, wrong) = (stack.token().to_owned(), "x".repeat(stack.token().len()));
    let many: String = (0..51).map(|number| format!("&channel=many/{number}")).collect();
    let base = url.strip_suffix("sse").expect("the path of streams");
    let requests = [
        (Method::GET, format!("{url}?channel=a"), 401, "unauthorized", "token"),
        (Method::GET, format!("{url}?channel=a&token={wrong}"), 401, "unauthorized", "token"),
        (Method::GET, format!("{url}?token={token}"), 400, "bad_request", "channel: is missing"),
        (Method::GET, format!("{url}?channel=a//b&token={token}"), 400, "bad_request", "channel: segment 2 is empty"),
        (Method::GET, format!("{url}?token={token}{many}"), 400, "bad_request", "channel: 51 are over the limit of 50"),
        (Method::GET, format!("{url}?channel=a&since=soon&token={token}"), 400, "bad_request", "since"),
        (Method::GET, format!("{url}?channel=a&last_event_id=%21&token={token}"), 400, "bad_request", "last_event_id"),
        (Method::GET, format!("{url}?chanel=a&token={token}"), 400, "bad_request", "chanel: is no parameter here"),
        (Method::GET, format!("{base}?channel=a&token={token}"), 404, "not_found", "path"),
        (Method::GET, format!("{base}elsewhere?channel=a&token={token}"), 404, "not_found", "path"),
        (Method::POST, format!("{url}?channel=a&token={token}"), 405, "bad_request", "method"),
    ];
    for (method, url, status, code, text) in requests {
        let answer = send(method, &url, &[], "").await;
        assert_eq!(
            (answer.status.as_u16(), &answer.headers["content-type"]),
            (status, &"application/json".parse().expect("a value"))
        );
        let error = &answer.json()["error"];
        assert_eq!(error["code"], code, "{url}: {error}");
        assert!(error["message"].as_str().is_some_and(|message| message.contains(text)), "{url}: {error}");
        assert_eq!(answer.headers.contains_key("www-authenticate"), status == 401);
        assert_eq!(answer.headers.contains_key("allow"), status == 405);
    }
    // A package that keeps to the standard takes such an answer as final.
    let mut reader = reader(&stack, &json!({"query": "channel=a//b"})).await;
    fact(&mut reader, "request").await;
    assert_eq!(fact(&mut reader, "error").await, json!({"status": 400, "over": true}));
    reader.succeeds().await;
    stack.shutdown().await;
}

#[tokio::test]
async fn a_page_of_any_origin_may_read_a_stream() {
    let stack = TestStack::start().await;
    let origin = ("origin", "https://shop.example");
    let preflight = [
        origin,
        ("access-control-request-method", "GET"),
        ("access-control-request-headers", "authorization,cache-control,last-event-id"),
    ];
    let answer = send(Method::OPTIONS, &stack.sse_url(), &preflight, "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let header = |name: &str| answer.headers[name].to_str().expect("text").to_ascii_lowercase();
    assert_eq!(header("access-control-allow-origin"), "*");
    assert!(header("access-control-allow-methods").contains("get"), "{answer:?}");
    let allowed = header("access-control-allow-headers");
    for name in ["authorization", "cache-control", "last-event-id"] {
        assert!(allowed.split(',').any(|allowed| allowed.trim() == name), "{name} is not in {allowed}");
    }

    let authorization = format!("Bearer {}", stack.token());
    let headers = [origin, ("authorization", authorization.as_str())];
    let url = format!("{}?channel=a", stack.sse_url());
    let stream = carillon_tests::sse::SseStream::open(&url, &headers).await.expect("a stream");
    let allowed: Vec<_> = stream.headers().get_all("access-control-allow-origin").iter().collect();
    assert_eq!(allowed, ["*"], "once: a browser refuses two");
    let refused = send(Method::GET, &url, &[origin], "").await;
    assert_eq!((refused.status.as_u16(), &refused.headers["access-control-allow-origin"]), (401, &"*".parse().expect("a value")));
    drop(stream);
    stack.shutdown().await;
}
