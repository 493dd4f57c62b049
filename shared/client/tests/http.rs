//! The HTTP publisher against a server that answers one request with a given text.

use carillon_client::http::{Message, PublishError, Publisher};
use carillon_client::token::Token;
use carillon_core::fault::{ErrorCode, Fault};
use carillon_core::position::{Epoch, Position};
use carillon_wire::http::{Outcome, Placed};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

struct Seen {
    head: String,
    body: Value,
}

/// Publishes one message to a server that answers with `status` and `body`.
async fn publish(path: &str, status: &str, body: &str) -> (Seen, Result<Vec<Outcome>, PublishError>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let base = format!("http://127.0.0.1:{port}{path}");
    let publisher = Publisher::new(&base, Some(Token::new("secret"))).expect("a publisher");
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let server = async {
        let (mut stream, _) = listener.accept().await.expect("accepted");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("the request's head"));
        }
        let head = String::from_utf8(head).expect("text").to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let mut body = vec![0; length.parse().expect("a number")];
        stream.read_exact(&mut body).await.expect("the request's body");
        stream.write_all(answer.as_bytes()).await.expect("written");
        Seen { head, body: serde_json::from_slice(&body).expect("JSON") }
    };
    let data = RawValue::from_string(r#"{"a": 1}"#.to_owned()).expect("JSON");
    let message = Message { channel: "orders/42".to_owned(), id: Some("a".to_owned()), kind: None, data: Some(data) };
    tokio::join!(server, publisher.publish(std::slice::from_ref(&message)))
}

#[tokio::test]
async fn a_message_is_posted_and_its_result_read() {
    let results = json!({"results": [{"channel": "orders/42", "id": "a", "epoch": "1700", "offset": 3, "duplicate": true}]});
    for (path, target) in [("/", "post /publish "), ("", "post /publish "), ("/stage/", "post /stage/publish ")] {
        let (seen, answer) = publish(path, "200 OK", &results.to_string()).await;
        assert!(seen.head.starts_with(target), "{}", seen.head);
        assert!(seen.head.contains("\r\nauthorization: bearer secret\r\n"), "{}", seen.head);
        assert!(seen.head.contains("\r\ncontent-type: application/json\r\n"), "{}", seen.head);
        assert_eq!(seen.body, json!({"channel": "orders/42", "id": "a", "data": {"a": 1}}));
        let position = Position::new(Epoch(1700), 3);
        let fate = Ok(Placed { position, duplicate: true });
        assert_eq!(answer.expect("published"), [Outcome { channel: "orders/42".to_owned(), id: "a".to_owned(), fate }]);
    }
}

#[tokio::test]
async fn a_message_that_was_not_published_is_told_apart_from_the_others() {
    let error = json!({"code": "busy", "message": "too many at once", "retry": true});
    let body = json!({"error": error, "results": [{"channel": "orders/42", "id": "a", "error": error}]});
    let (_, answer) = publish("/", "503 Service Unavailable", &body.to_string()).await;
    let fate = Err(Fault::new(ErrorCode::Busy, "too many at once"));
    assert_eq!(answer.expect("an answer"), [Outcome { channel: "orders/42".to_owned(), id: "a".to_owned(), fate }]);
}

#[tokio::test]
async fn a_refusal_keeps_the_servers_code_and_message() {
    let body = json!({"error": {"code": "busy", "message": "too many at once", "retry": true, "retry_after_ms": 250}});
    let (_, answer) = publish("/", "503 Service Unavailable", &body.to_string()).await;
    let error = answer.expect_err("refused");
    let expected = Fault::new(ErrorCode::Busy, "too many at once").retry_after(250);
    assert!(matches!(&error, PublishError::Refused { status: 503, fault } if *fault == expected), "{error:?}");
    assert_eq!(error.to_string(), "too many at once");
    assert!(!error.is_refused_token());
}

#[tokio::test]
async fn an_answer_that_is_not_ours_is_told_as_it_is() {
    let (_, answer) = publish("/", "403 Forbidden", r#"{"Message":"Forbidden"}"#).await;
    let error = answer.expect_err("refused");
    assert_eq!(error.to_string(), r#"the endpoint answered with HTTP status 403: {"Message":"Forbidden"}"#);
    assert!(error.is_refused_token());
    let (_, answer) = publish("/", "200 OK", "hello").await;
    assert!(matches!(answer.expect_err("no result"), PublishError::Foreign { status: 200, .. }));
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_or_no_url_is_told() {
    // Bound and not listening: the port is ours and refuses.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let port = socket.local_addr().expect("bound").port();
    let publisher = Publisher::new(&format!("http://127.0.0.1:{port}"), None).expect("a publisher");
    assert!(matches!(publisher.publish(&[]).await, Err(PublishError::Unreachable(_))));
    for url in ["", "no url", "ws://127.0.0.1/"] {
        assert!(matches!(Publisher::new(url, None), Err(PublishError::Url { .. })), "{url}");
    }
}
