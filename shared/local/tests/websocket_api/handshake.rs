//! The opening handshake.

use std::time::Duration;

use carillon_local::invoker::InvokeError;
use http::Method;
use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::harness::{Gate, Handled, SILENCE, STAGE, Setup, answer, raw_client, raw_handshake, raw_head, soon, status};

#[tokio::test]
async fn the_101_waits_for_connect_and_until_then_the_connection_is_gone_to_callers() {
    let gate = Gate::closed();
    let functions_gate = gate.clone();
    let stand = Setup::standard()
        .start(move |_| {
            let gate = functions_gate.clone();
            Box::pin(async move {
                gate.pass().await;
                status(200)
            })
        })
        .await;
    let mut handshake = Box::pin(stand.open(stand.request()));
    let event = tokio::select! {
        event = stand.event_of("CONNECT") => event,
        opened = &mut handshake => panic!("the handshake did not wait: {opened:?}"),
    };
    let id = event.connection_id();
    for answer in [stand.post(&id, "early").await, stand.get(&id).await, stand.delete(&id).await] {
        answer.expect(410, Some("GoneException"), "");
    }
    assert!(tokio::time::timeout(SILENCE, &mut handshake).await.is_err(), "the handshake did not wait");
    assert_eq!(stand.api.connection_count(), 0);

    gate.open_for(1);
    let mut client = soon("the handshake", handshake).await.expect("the handshake succeeds");
    assert_eq!(stand.api.connection_count(), 1);
    stand.post(&id, "late").await.expect(200, None, "");
    assert_eq!(client.text().await, "late");
}

#[tokio::test]
async fn a_status_of_connect_other_than_2xx_is_the_status_of_the_handshake() {
    for code in [300, 400, 401, 403, 418, 500, 503] {
        let stand = Setup::standard().answering(move |_| status(code)).await;
        stand.refused(stand.request()).await.expect(code, None, "");
        assert_eq!(stand.api.connection_count(), 0);
        stand.event_of("CONNECT").await;
        stand.no_event().await;
    }
}

#[tokio::test]
async fn any_2xx_of_connect_opens() {
    for code in [200, 204, 299] {
        let stand = Setup::standard().answering(move |_| status(code)).await;
        stand.connect().await;
    }
}

#[tokio::test]
async fn an_unusable_answer_of_connect_is_a_bad_gateway() {
    let unusable: [fn() -> Handled; 5] = [
        || answer(json!(null)),
        || answer(json!("ok")),
        || answer(json!({ "body": "no status" })),
        || answer(json!({ "statusCode": 200, "headers": { "Sec-WebSocket-Protocol": "a\r\nb" } })),
        || Err(InvokeError::NotFound("$connect".to_owned())),
    ];
    for function in unusable {
        let stand = Setup::standard().answering(move |_| function()).await;
        let refusal = stand.refused(stand.request()).await;
        assert_eq!(refusal.status, 502);
        assert!(refusal.body.starts_with(r#"{"message": "Internal server error", "connectionId":""#), "{}", refusal.body);
    }
}

#[tokio::test]
async fn a_throttled_connect_is_429_and_a_slow_one_504() {
    let stand = Setup::standard().answering(|_| Err(InvokeError::Throttled)).await;
    assert_eq!(stand.refused(stand.request()).await.status, 429);

    let stand = Setup::standard()
        .time_limits(|limits| limits.integration = Duration::from_millis(50))
        .start(|_| Box::pin(std::future::pending()))
        .await;
    let refusal = stand.refused(stand.request()).await;
    assert_eq!(refusal.status, 504);
    assert!(refusal.body.starts_with(r#"{"message": "Endpoint request timed out", "connectionId":""#), "{}", refusal.body);
}

#[tokio::test]
async fn without_a_connect_route_connections_open_and_close_without_an_invocation() {
    let stand = Setup::without_routes().route("$default", true).answering(|_| answer(json!({"body": "served"}))).await;
    let mut client = stand.open(stand.request()).await.expect("the handshake succeeds");
    client.send("{}").await;
    assert_eq!(client.text().await, "served");
    stand.event_of("MESSAGE").await;
    client.close(None).await;
    stand.no_event().await;
}

#[tokio::test]
async fn a_subprotocol_is_echoed_only_when_the_function_says_so() {
    for (answered, echoed) in [
        (json!({ "statusCode": 200, "headers": { "Sec-WebSocket-Protocol": "carillon.v1" } }), Some("carillon.v1")),
        (json!({ "statusCode": 200, "headers": { "sec-websocket-protocol": "carillon.v1" } }), Some("carillon.v1")),
        (json!({ "statusCode": 200, "multiValueHeaders": { "Sec-WebSocket-Protocol": ["carillon.v1"] } }), Some("carillon.v1")),
        (json!({ "statusCode": 200, "headers": { "X-Other": "carillon.v1" } }), None),
    ] {
        let stand = Setup::standard().answering(move |_| answer(answered.clone())).await;
        let handshake = raw_handshake(&stand, "Sec-WebSocket-Protocol: bearer.secret, carillon.v1\r\n");
        let head = raw_head(&mut raw_client(&stand, handshake.as_bytes()).await).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        // RFC 6455, section 1.3, has this answer to this key.
        assert!(head.contains("\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
        let found = head.lines().find_map(|line| line.strip_prefix("sec-websocket-protocol: "));
        assert_eq!(found, echoed);
        assert!(!head.contains("x-other"), "{head}");
        let offered = &stand.event_of("CONNECT").await.json["headers"]["Sec-WebSocket-Protocol"];
        assert_eq!(offered, "bearer.secret, carillon.v1");
    }
}

#[tokio::test]
async fn the_query_reaches_connect() {
    let stand = Setup::standard().answering(|_| status(200)).await;
    let mut request = stand.request();
    *request.uri_mut() = format!("{}/?token=a%20b&room=1&room=2", stand.url()).parse().expect("a URL");
    stand.open(request).await.expect("the handshake succeeds");
    let event = stand.event_of("CONNECT").await;
    assert_eq!(event.json["queryStringParameters"], json!({"token": "a b", "room": "2"}));
    assert_eq!(event.json["multiValueQueryStringParameters"], json!({"token": ["a b"], "room": ["1", "2"]}));
}

#[tokio::test]
async fn what_is_no_handshake_is_refused_without_an_invocation() {
    let stand = Setup::standard().answering(|_| status(200)).await;
    let stage = format!("/{STAGE}");
    let plain = stand.call(stand.plain_request(Method::GET, &stage, "")).await;
    plain.expect(426, None, r#"{"message":"Upgrade Required"}"#);
    assert_eq!(plain.headers["upgrade"], "websocket");

    let forbidden = r#"{"message":"Forbidden"}"#;
    for (method, path) in [
        (Method::GET, "/"),
        (Method::GET, "/prod"),
        (Method::GET, "/develop/other"),
        (Method::GET, "/develop/@connections"),
        (Method::POST, "/develop"),
    ] {
        stand.call(stand.plain_request(method, path, "")).await.expect(403, Some("ForbiddenException"), forbidden);
    }
    let mut unknown_stage = stand.request();
    *unknown_stage.uri_mut() = format!("ws://{}/prod", stand.address).parse().expect("a URL");
    stand.refused(unknown_stage).await.expect(403, Some("ForbiddenException"), forbidden);

    let mut long = stand.request();
    *long.uri_mut() = format!("{}?token={}", stand.url(), "x".repeat(4096)).parse().expect("a URL");
    assert_eq!(stand.refused(long).await.status, 414);

    let old = raw_handshake(&stand, "").replace("Version: 13", "Version: 8");
    let head = raw_head(&mut raw_client(&stand, old.as_bytes()).await).await;
    assert!(head.starts_with("HTTP/1.1 400 ") && head.contains("\r\nsec-websocket-version: 13\r\n"), "{head}");
    stand.no_event().await;
}

#[tokio::test]
async fn the_longest_url_is_taken() {
    let stand = Setup::standard().answering(|_| status(200)).await;
    let path = format!("/{STAGE}?token=");
    let mut request = stand.request();
    *request.uri_mut() = format!("ws://{}{path}{}", stand.address, "x".repeat(4096 - path.len())).parse().expect("a URL");
    stand.open(request).await.expect("the handshake succeeds");
}

#[tokio::test]
async fn a_client_that_leaves_during_connect_is_disconnected_afterwards() {
    let gate = Gate::closed();
    let functions_gate = gate.clone();
    let stand = Setup::standard()
        .start(move |event| {
            let gate = functions_gate.clone();
            Box::pin(async move {
                if event.kind() == "CONNECT" {
                    gate.pass().await;
                }
                status(200)
            })
        })
        .await;
    let client = raw_client(&stand, raw_handshake(&stand, "").as_bytes()).await;
    let connect = stand.event_of("CONNECT").await;
    drop(client);
    gate.open_for(1);
    let disconnect = stand.event_of("DISCONNECT").await;
    assert_eq!(disconnect.connection_id(), connect.connection_id());
    assert_eq!(disconnect.context("disconnectStatusCode"), 1006);
    assert_eq!(disconnect.context("disconnectReason"), "Connection closed abnormally");
}

#[tokio::test]
async fn frames_sent_right_behind_the_handshake_are_served() {
    let stand =
        Setup::standard().route("$default", true).answering(|_| answer(json!({"statusCode": 200, "body": "served"}))).await;
    // A masked text frame "{}" (RFC 6455, section 5.7, for the form), in the same packet as the handshake.
    let mut bytes = raw_handshake(&stand, "").into_bytes();
    bytes.extend([0x81, 0x82, 0, 0, 0, 0, b'{', b'}']);
    let mut client = raw_client(&stand, &bytes).await;
    raw_head(&mut client).await;
    let mut frame = [0; 8];
    soon("a reply", client.read_exact(&mut frame)).await.expect("a whole frame");
    assert_eq!(&frame, b"\x81\x06served");
}
