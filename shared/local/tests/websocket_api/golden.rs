//! Events and error frames against what AWS sends; the sources are in the README beside the golden files.

use std::time::Duration;

use serde_json::Value;

use crate::harness::{Event, Setup, Stand, function_error, status};

/// The headers of the captured client, beside those that every handshake has.
const CAPTURED_HEADERS: [(&str, &str); 12] = [
    ("Accept", "*/*"),
    ("Accept-Encoding", "gzip, deflate, br"),
    ("Accept-Language", "en-US,en;q=0.5"),
    ("Cache-Control", "no-cache"),
    ("Origin", "https://site"),
    ("Pragma", "no-cache"),
    ("Sec-Fetch-Dest", "empty"),
    ("Sec-Fetch-Mode", "websocket"),
    ("Sec-Fetch-Site", "cross-site"),
    ("Sec-WebSocket-Extensions", "permessage-deflate"),
    ("Sec-WebSocket-Key", "DM+9PqsQtaZrN+IMZbWTzg=="),
    ("User-Agent", "Mozilla/5.0"),
];

async fn connect_as_captured(stand: &Stand) -> (crate::harness::Client, Event) {
    let mut request = stand.request();
    for (name, value) in CAPTURED_HEADERS {
        request.headers_mut().insert(name, value.parse().expect("a header"));
    }
    let client = stand.open(request).await.expect("the handshake succeeds");
    (client, stand.event_of("CONNECT").await)
}

/// Compares keys, their order and the values that do not change from run to run; the others must be of their kind.
#[track_caller]
fn compare(stand: &Stand, event: &Event, golden: &str) {
    let context = &event.json["requestContext"];
    let id = |value: &Value| {
        let id = value.as_str().expect("an id is a text");
        assert!(id.len() == 16 && id.ends_with('='), "not an id of API Gateway: {id}");
    };
    for key in ["extendedRequestId", "requestId", "connectionId"] {
        id(&context[key]);
    }
    assert_eq!(context["extendedRequestId"], context["requestId"]);
    let connected_at = context["connectedAt"].as_i64().expect("milliseconds");
    let requested_at = context["requestTimeEpoch"].as_i64().expect("milliseconds");
    assert!(connected_at > 1_700_000_000_000 && connected_at <= requested_at, "{connected_at} {requested_at}");

    let mut json = event.json.clone();
    let host = stand.address.to_string();
    let port = stand.address.port().to_string();
    replace(&mut json, &|key, value| match key {
        "extendedRequestId" | "requestId" | "connectionId" | "messageId" => Some("<id>"),
        "requestTime" => Some("<time>"),
        "connectedAt" | "requestTimeEpoch" => Some("<milliseconds>"),
        "X-Amzn-Trace-Id" => Some("<trace id>"),
        "X-Forwarded-Port" if *value == port.as_str() => Some("<port>"),
        "X-Forwarded-Proto" if *value == "http" => Some("<protocol>"),
        _ if *value == host.as_str() => Some("<host>"),
        _ if *value == "127.0.0.1" => Some("<address>"),
        _ => None,
    });
    let found = serde_json::to_string_pretty(&json).expect("JSON") + "\n";
    pretty_assert(&found, golden);

    // Without spaces, and in the order of its keys: the bytes are those that the functions of AWS get.
    let compact = serde_json::to_vec(&event.json).expect("JSON");
    assert_eq!(event.payload, compact);
}

#[track_caller]
fn pretty_assert(found: &str, golden: &str) {
    for (number, (found, golden)) in found.lines().zip(golden.lines()).enumerate() {
        assert_eq!(found, golden, "line {}", number + 1);
    }
    assert_eq!(found, golden);
}

fn replace(value: &mut Value, name_for: &dyn Fn(&str, &Value) -> Option<&'static str>) {
    let Value::Object(entries) = value else {
        return;
    };
    for (key, value) in entries.iter_mut() {
        match value {
            Value::Object(_) => replace(value, name_for),
            Value::Array(items) => {
                for item in items {
                    if let Some(name) = name_for(key, item) {
                        *item = name.into();
                    }
                }
            }
            _ => {
                if let Some(name) = name_for(key, value) {
                    *value = name.into();
                }
            }
        }
    }
}

#[tokio::test]
async fn connect_message_and_disconnect_events_are_those_of_aws() {
    let stand = Setup::standard().time_limits(|limits| limits.idle = Duration::from_millis(200)).answering(|_| status(200)).await;
    let (mut client, connect) = connect_as_captured(&stand).await;
    compare(&stand, &connect, include_str!("../golden/websocket_api/connect_event.json"));

    client.send(r#"{"action":"ping"}"#).await;
    let message = stand.event_of("MESSAGE").await;
    compare(&stand, &message, include_str!("../golden/websocket_api/message_event.json"));

    // As in the capture, nothing more happens and the idle limit ends the connection.
    let disconnect = {
        let (event, _) = tokio::join!(stand.event_of("DISCONNECT"), client.closed());
        event
    };
    compare(&stand, &disconnect, include_str!("../golden/websocket_api/disconnect_event.json"));

    for key in ["connectionId", "connectedAt"] {
        assert_eq!(connect.context(key), message.context(key));
        assert_eq!(connect.context(key), disconnect.context(key));
    }
    let requests = [&connect, &message, &disconnect].map(|event| event.context("requestId"));
    assert!(requests[0] != requests[1] && requests[1] != requests[2] && requests[0] != requests[2], "{requests:?}");
}

#[track_caller]
fn compare_frame(frame: &str, connection_id: &str, request_id: Option<&str>, golden: &str) {
    let parsed: Value = serde_json::from_str(frame).expect("JSON");
    let found_id = parsed["requestId"].as_str().expect("a request id");
    assert!(found_id.len() == 16 && found_id.ends_with('='), "{found_id}");
    if let Some(request_id) = request_id {
        assert_eq!(found_id, request_id);
    }
    let expected = golden.replace("<connection id>", connection_id).replace("<request id>", found_id);
    assert_eq!(frame, expected);
}

#[tokio::test]
async fn a_message_without_a_route_gets_the_forbidden_frame() {
    let stand = Setup::without_routes().route("$connect", false).route("join", false).answering(|_| status(200)).await;
    let mut client = stand.connect().await;
    for message in [r#"{"action":"leave"}"#, "{}", "not JSON", ""] {
        client.send(message).await;
        let frame = client.text().await;
        compare_frame(&frame, &client.id, None, include_str!("../golden/websocket_api/forbidden.txt"));
    }
    stand.no_event().await;
}

#[tokio::test]
async fn a_failing_function_gets_the_error_frame_even_on_a_one_way_route() {
    for two_way in [false, true] {
        let stand = Setup::standard()
            .route("$default", two_way)
            .answering(|event| match event.kind() {
                "MESSAGE" => function_error(),
                _ => status(200),
            })
            .await;
        let mut client = stand.connect().await;
        client.send("{}").await;
        let event = stand.event_of("MESSAGE").await;
        let frame = client.text().await;
        let request_id = event.context("requestId").as_str();
        compare_frame(&frame, &client.id, request_id, include_str!("../golden/websocket_api/internal_server_error.txt"));
    }
}

#[tokio::test]
async fn a_slow_function_gets_the_time_out_frame_even_on_a_one_way_route() {
    for two_way in [false, true] {
        let stand = Setup::standard()
            .route("$default", two_way)
            .time_limits(|limits| limits.integration = Duration::from_millis(200))
            .start(|event| {
                Box::pin(async move {
                    match event.kind() {
                        "MESSAGE" => std::future::pending().await,
                        _ => status(200),
                    }
                })
            })
            .await;
        let mut client = stand.connect().await;
        client.send("{}").await;
        let event = stand.event_of("MESSAGE").await;
        let frame = client.text().await;
        let request_id = event.context("requestId").as_str();
        compare_frame(&frame, &client.id, request_id, include_str!("../golden/websocket_api/endpoint_request_timed_out.txt"));
    }
}

#[tokio::test]
async fn a_failing_connect_refuses_the_handshake_with_the_error_body() {
    let stand = Setup::standard().answering(|_| function_error()).await;
    let refusal = stand.refused(stand.request()).await;
    assert_eq!(refusal.status, 502);
    let event = stand.event_of("CONNECT").await;
    let request_id = event.context("requestId").as_str();
    let golden = include_str!("../golden/websocket_api/internal_server_error.txt");
    compare_frame(&refusal.body, &event.connection_id(), request_id, golden);
}
