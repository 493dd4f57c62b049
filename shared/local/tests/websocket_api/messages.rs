//! Messages from clients to functions, and replies.

use carillon_local::invoker::InvokeError;
use carillon_local::spec::WebSocketApiSpec;
use carillon_local::websocket_api::{RouteSelectionFault, WebSocketApi, WebSocketApiOptions};
use futures_util::SinkExt;
use serde_json::json;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use tokio::sync::Barrier;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::harness::{Event, Gate, Handled, Setup, answer, function_error, status};

/// Answers every message with the key of its route.
fn name_the_route(event: &Event) -> Handled {
    answer(json!({ "statusCode": 200, "body": event.function }))
}

#[tokio::test]
async fn a_message_goes_to_the_route_it_names_and_else_to_default() {
    let stand = Setup::standard().route("$default", true).route("join", true).answering(name_the_route).await;
    let mut client = stand.connect().await;
    for (message, route) in [
        (r#"{"action":"join"}"#, "join"),
        (r#"{"action":"Join"}"#, "$default"),
        (r#"{"action":"leave"}"#, "$default"),
        (r#"{"action":"$default"}"#, "$default"),
        (r#"{"action":"$connect"}"#, "$default"),
        (r#"{"action":"$disconnect"}"#, "$default"),
        ("{}", "$default"),
        ("join", "$default"),
        ("", "$default"),
    ] {
        client.send(message).await;
        assert_eq!(client.text().await, route, "{message}");
        let event = stand.event_of("MESSAGE").await;
        assert_eq!((event.body(), event.context("routeKey").as_str()), (message, Some(route)));
    }
}

#[tokio::test]
async fn a_route_without_a_response_says_nothing_whatever_its_function_answers() {
    let gate = Gate::closed();
    let answered = gate.clone();
    let stand = Setup::standard()
        .route("two", true)
        .start(move |event| {
            let answered = answered.clone();
            Box::pin(async move {
                match event.function.as_str() {
                    "$default" => {
                        answered.open_for(1);
                        match event.body() {
                            "malformed" => answer(json!("text")),
                            "failed" => answer(json!({ "statusCode": 500, "body": "unheard" })),
                            _ => answer(json!({ "statusCode": 200, "body": "unheard" })),
                        }
                    }
                    _ => name_the_route(&event),
                }
            })
        })
        .await;
    let mut client = stand.connect().await;
    for message in ["good", "failed", "malformed"] {
        client.send(message).await;
        gate.clone().pass().await;
        client.send(r#"{"action":"two"}"#).await;
        assert_eq!(client.text().await, "two", "after {message}");
    }
}

#[tokio::test]
async fn a_two_way_route_sends_the_body_where_there_is_one() {
    let stand = Setup::standard()
        .route("$default", true)
        .answering(|event| match (event.kind(), event.json["body"].as_str()) {
            ("MESSAGE", Some("none")) => status(200),
            ("MESSAGE", Some("empty")) => answer(json!({ "statusCode": 200, "body": "" })),
            ("MESSAGE", Some("refused")) => answer(json!({ "statusCode": 403, "body": "no" })),
            ("MESSAGE", Some("object")) => answer(json!({ "statusCode": 200, "body": {} })),
            ("MESSAGE", Some("throttled")) => Err(InvokeError::Throttled),
            ("MESSAGE", Some("large")) => answer(json!({ "statusCode": 200, "body": "é".repeat(64 * 1024) })),
            _ => answer(json!({ "statusCode": 200, "body": "end" })),
        })
        .await;
    let mut client = stand.connect().await;
    for message in ["none", "empty"] {
        client.send(message).await;
        stand.event_of("MESSAGE").await;
        client.send("end").await;
        stand.event_of("MESSAGE").await;
        assert_eq!(client.text().await, "end", "after {message}");
    }
    client.send("refused").await;
    assert_eq!(client.text().await, "no");
    client.send("large").await;
    assert_eq!(client.text().await, "é".repeat(64 * 1024));
    for message in ["object", "throttled"] {
        client.send(message).await;
        let frame = client.text().await;
        assert!(frame.starts_with(r#"{"message": "Internal server error", "connectionId":""#), "{message}: {frame}");
    }
}

#[tokio::test]
async fn messages_of_one_connection_are_served_at_the_same_time() {
    // Neither function answers before the other has begun.
    let meeting = Arc::new(Barrier::new(2));
    let stand = Setup::standard()
        .route("$default", true)
        .start(move |event| {
            let meeting = meeting.clone();
            Box::pin(async move {
                if event.kind() == "MESSAGE" {
                    meeting.wait().await;
                    return answer(json!({ "statusCode": 200, "body": event.body() }));
                }
                status(200)
            })
        })
        .await;
    let mut client = stand.connect().await;
    client.send("first").await;
    client.send("second").await;
    let replies = HashSet::from([client.text().await, client.text().await]);
    assert_eq!(replies, HashSet::from(["first".to_owned(), "second".to_owned()]));
}

#[tokio::test]
async fn a_flood_is_held_back_and_then_served_whole() {
    const IN_FLIGHT: usize = 64;
    const MESSAGES: usize = 200;
    let gate = Gate::closed();
    let functions_gate = gate.clone();
    let stand = Setup::standard()
        .start(move |event| {
            let gate = functions_gate.clone();
            Box::pin(async move {
                if event.kind() == "MESSAGE" {
                    gate.pass().await;
                }
                status(200)
            })
        })
        .await;
    let mut client = stand.connect().await;
    for number in 0..MESSAGES {
        client.send(&number.to_string()).await;
    }
    let mut bodies = HashSet::new();
    for _ in 0..IN_FLIGHT {
        bodies.insert(stand.event_of("MESSAGE").await.body().to_owned());
    }
    stand.no_event().await;
    gate.open_for(MESSAGES);
    for _ in IN_FLIGHT..MESSAGES {
        bodies.insert(stand.event_of("MESSAGE").await.body().to_owned());
    }
    assert_eq!(bodies.len(), MESSAGES);
}

#[tokio::test]
async fn the_largest_message_arrives_whole() {
    let stand = Setup::standard().answering(|_| status(200)).await;
    let mut client = stand.connect().await;
    let part = "x".repeat(32 * 1024);
    for (kind, last) in [(Data::Text, false), (Data::Continue, false), (Data::Continue, false), (Data::Continue, true)] {
        let frame = Frame::message(part.clone(), OpCode::Data(kind), last);
        client.stream.send(Message::Frame(frame)).await.expect("an open connection");
    }
    assert_eq!(stand.event_of("MESSAGE").await.body(), part.repeat(4));
}

#[tokio::test]
async fn a_ping_is_answered_without_an_invocation() {
    let stand = Setup::standard().answering(|_| status(200)).await;
    let mut client = stand.connect().await;
    client.stream.send(Message::Ping("here".into())).await.expect("an open connection");
    assert_eq!(client.message().await, Message::Pong("here".into()));
    stand.no_event().await;
}

#[tokio::test]
async fn an_error_on_one_message_leaves_the_connection_open() {
    let stand = Setup::standard()
        .route("$default", true)
        .answering(|event| match event.json["body"].as_str() {
            Some("fail") => function_error(),
            _ => name_the_route(event),
        })
        .await;
    let mut client = stand.connect().await;
    client.send("fail").await;
    assert!(client.text().await.contains("Internal server error"));
    client.send("again").await;
    assert_eq!(client.text().await, "$default");
}

#[test]
fn an_expression_that_cannot_be_evaluated_is_refused_at_the_start() {
    struct NoFunctions;
    impl carillon_local::invoker::Invoker for NoFunctions {
        fn invoke(&self, _: &str, _: bytes::Bytes) -> futures_util::future::BoxFuture<'static, Handled> {
            unreachable!("the API is refused")
        }
        fn invoke_streaming(
            &self,
            _: &str,
            _: bytes::Bytes,
        ) -> futures_util::future::BoxFuture<'static, Result<carillon_local::invoker::StreamingOutcome, InvokeError>> {
            unreachable!("the API is refused")
        }
        fn invoke_later(&self, _: &str, _: bytes::Bytes) -> Result<(), InvokeError> {
            unreachable!("the API is refused")
        }
    }
    let spec = WebSocketApiSpec {
        logical_id: "Api".to_owned(),
        api_id: "nn27okk1we".to_owned(),
        stage: "prod".to_owned(),
        route_selection_expression: "$request.header.action".to_owned(),
        routes: BTreeMap::new(),
    };
    let refused = WebSocketApi::new(spec, Arc::new(NoFunctions), WebSocketApiOptions::default()).expect_err("no such variable");
    assert_eq!(refused.fault, RouteSelectionFault::UnknownVariable("request.header.action".to_owned()));
}
