//! `@connections`.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::Method;
use serde_json::Value;
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::harness::{Client, STAGE, Setup, Stand, soon, status};

const LARGEST: usize = 128 * 1024;

async fn standard() -> Stand {
    Setup::standard().answering(|_| status(200)).await
}

#[tokio::test]
async fn posts_arrive_as_texts_in_their_order() {
    let stand = standard().await;
    let mut client = stand.connect().await;
    for number in 0..500 {
        stand.post(&client.id, number.to_string()).await.expect(200, None, "");
    }
    for number in 0..500 {
        assert_eq!(client.text().await, number.to_string());
    }
    stand.post(&client.id, "").await.expect(200, None, "");
    assert_eq!(client.text().await, "");
}

#[tokio::test]
async fn the_largest_post_arrives_whole_in_frames_of_32_kilobytes() {
    let stand = standard().await;
    // The client refuses larger frames. Characters of two bytes, one before them, so that frames end inside a character.
    let mut client = stand.connect().await;
    let text = format!("x{}", "é".repeat((LARGEST - 2) / 2));
    stand.post(&client.id, text.clone()).await.expect(200, None, "");
    assert_eq!(client.text().await, text);
    stand.post(&client.id, "x".repeat(LARGEST)).await.expect(200, None, "");
    assert_eq!(client.text().await, "x".repeat(LARGEST));
}

#[tokio::test]
async fn a_post_over_the_limit_is_413_and_changes_nothing() {
    let stand = standard().await;
    let mut client = stand.connect().await;
    for bytes in [LARGEST + 1, 5 * 1024 * 1024] {
        let refused = stand.post(&client.id, "x".repeat(bytes)).await;
        refused.expect(413, Some("PayloadTooLargeException"), r#"{"message":"Message too long"}"#);
    }
    stand.post(&client.id, "next").await.expect(200, None, "");
    assert_eq!(client.text().await, "next");
}

#[tokio::test]
async fn a_post_that_is_no_text_is_refused() {
    let stand = standard().await;
    let client = stand.connect().await;
    let refused = stand.post(&client.id, vec![0xff, 0xfe]).await;
    refused.expect(400, Some("BadRequestException"), r#"{"message":"Data is not UTF-8"}"#);
}

#[tokio::test]
async fn an_unknown_connection_is_gone_and_a_malformed_id_is_named() {
    let stand = standard().await;
    for method in [Method::POST, Method::GET, Method::DELETE] {
        let unknown = stand.call(stand.signed_request(method.clone(), "TXzPWdnOjoECGjA=", "")).await;
        unknown.expect(410, Some("GoneException"), "");
        let malformed = stand.call(stand.signed_request(method, "not an id", "")).await;
        malformed.expect(400, Some("BadRequestException"), r#"{"message":"Invalid connectionId: not an id"}"#);
    }
}

#[tokio::test]
async fn a_call_without_a_signature_is_refused() {
    let stand = standard().await;
    let client = stand.connect().await;
    let path = format!("/{STAGE}/@connections/{}", client.id);
    let body = r#"{"message":"Missing Authentication Token"}"#;
    for method in [Method::POST, Method::GET, Method::DELETE] {
        let refused = stand.call(stand.plain_request(method, &path, "x")).await;
        refused.expect(403, Some("MissingAuthenticationTokenException"), body);
    }
    let refused = stand.call(stand.signed_request(Method::PUT, &client.id, "x")).await;
    refused.expect(403, Some("MissingAuthenticationTokenException"), body);
    assert_eq!(stand.api.connection_count(), 1);
}

#[tokio::test]
async fn a_call_on_another_stage_is_forbidden() {
    let stand = standard().await;
    let client = stand.connect().await;
    let mut request = stand.signed_request(Method::POST, &client.id, "x");
    *request.uri_mut() = format!("http://{}/prod/@connections/{}", stand.address, client.id).parse().expect("a URL");
    stand.call(request).await.expect(403, Some("ForbiddenException"), r#"{"message":"Forbidden"}"#);
}

#[tokio::test]
async fn get_describes_the_connection() {
    let stand = standard().await;
    let mut request = stand.request();
    request.headers_mut().insert("user-agent", "bell".parse().expect("a header"));
    let mut client = stand.open(request).await.expect("the handshake succeeds");
    let id = stand.event_of("CONNECT").await.connection_id();

    let answer = stand.get(&id).await;
    assert_eq!((answer.status.as_u16(), answer.headers["content-type"].to_str().ok()), (200, Some("application/json")));
    let first: Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(
        first.as_object().map(|entries| entries.keys().map(String::as_str).collect()),
        Some(vec!["connectedAt", "identity", "lastActiveAt"])
    );
    assert_eq!(first["identity"], serde_json::json!({"sourceIp": "127.0.0.1", "userAgent": "bell"}));
    let connected_at = first["connectedAt"].as_str().expect("a time").to_owned();
    assert!(connected_at.len() == 24 && connected_at.ends_with('Z'), "{connected_at}");
    assert_eq!(first["lastActiveAt"], first["connectedAt"]);

    // Times in this form order as texts do.
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        client.stream.send(Message::Ping("".into())).await.expect("an open connection");
        assert_eq!(client.message().await, Message::Pong("".into()));
        let later: Value = serde_json::from_str(&stand.get(&id).await.body).expect("JSON");
        assert_eq!(later["connectedAt"], connected_at);
        if later["lastActiveAt"].as_str().expect("a time") > connected_at.as_str() {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "a ping is no activity");
    }
}

#[tokio::test]
async fn delete_sends_what_is_queued_closes_and_disconnects() {
    let stand = standard().await;
    let mut client = stand.connect().await;
    let taken = fill(&stand, &client).await;
    stand.delete(&client.id).await.expect(204, None, "");
    stand.delete(&client.id).await.expect(410, Some("GoneException"), "");
    stand.post(&client.id, "late").await.expect(410, Some("GoneException"), "");
    for number in 0..taken {
        assert_eq!(client.text().await, numbered(number));
    }
    assert_eq!(client.closed().await, (1000, "Connection Closed Normally".to_owned()));
    let event = stand.event_of("DISCONNECT").await;
    assert_eq!(event.connection_id(), client.id);
    assert_eq!(event.context("disconnectStatusCode"), 1000);
    assert_eq!(event.context("disconnectReason"), "Connection Closed Normally");
}

/// A large text that says which it is.
fn numbered(number: usize) -> String {
    format!("{number} {}", "x".repeat(100_000))
}

/// Posts to a client that does not read until its queue and the operating system's are full; how many were taken.
async fn fill(stand: &Stand, client: &Client) -> usize {
    for number in 0..1000 {
        let answer = stand.post(&client.id, numbered(number)).await;
        if answer.status != 200 {
            answer.expect(429, Some("LimitExceededException"), r#"{"message":"WebSocket client side buffer is full"}"#);
            return number;
        }
    }
    panic!("100 MB wait for one client");
}

#[tokio::test]
async fn a_slow_reader_gets_429_hurts_nobody_else_and_loses_nothing() {
    let stand = standard().await;
    let mut slow = stand.connect().await;
    let mut quick = stand.connect().await;
    let taken = fill(&stand, &slow).await;
    stand.post(&quick.id, "meanwhile").await.expect(200, None, "");
    assert_eq!(quick.text().await, "meanwhile");

    for number in 0..taken {
        assert_eq!(slow.text().await, numbered(number));
    }
    stand.post(&slow.id, "again").await.expect(200, None, "");
    assert_eq!(slow.text().await, "again");
}

#[tokio::test]
async fn deleting_a_client_that_does_not_read_ends_it_all_the_same() {
    let stand = standard().await;
    let client = stand.connect().await;
    fill(&stand, &client).await;
    stand.delete(&client.id).await.expect(204, None, "");
    assert_eq!(stand.event_of("DISCONNECT").await.connection_id(), client.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_get_one_message_each() {
    let stand = standard().await;
    let mut clients = Vec::new();
    for _ in 0..1000 {
        clients.push(stand.connect().await);
    }
    assert_eq!(stand.api.connection_count(), 1000);
    let answers = futures_util::stream::iter(&clients)
        .map(|client| stand.post(&client.id, client.id.clone()))
        .buffer_unordered(32)
        .map(|answer| answer.status.as_u16())
        .collect::<Vec<_>>();
    assert_eq!(soon("every post", answers).await, vec![200; 1000]);
    for client in &mut clients {
        assert_eq!(client.text().await, client.id);
    }
}
