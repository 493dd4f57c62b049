//! Lambda's own API over HTTP.

use aws_smithy_eventstream::frame::{DecodedFrame, MessageFrameDecoder};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::BytesMut;
use carillon_local::lambda::limits::{MAX_ASYNCHRONOUS_PAYLOAD_BYTES, MAX_SYNCHRONOUS_PAYLOAD_BYTES};
use carillon_local::lambda::{Functions, LambdaOptions, api};
use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Answer, Folder, Server, end, function, lines, send, start, start_with, until, within};

fn invoke(server: &Server, name: &str) -> http::request::Builder {
    Request::post(server.url(&format!("/2015-03-31/functions/{name}/invocations")))
}

fn serve(functions: &Functions) -> impl Future<Output = Server> {
    Server::start(api::router(functions.clone()))
}

fn check_error(answer: &Answer, status: StatusCode, error_type: &str) {
    assert_eq!(answer.status, status);
    assert_eq!(answer.header("x-amzn-errortype"), Some(error_type));
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[tokio::test(flavor = "multi_thread")]
async fn invoke_answers_as_the_api_reference_says() {
    let functions = start(function());
    let server = serve(&functions).await;
    for name in ["Probe", "stack-probe", "arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Astack-probe%3Alive"] {
        let answer = send(invoke(&server, name), json!({ "do": "echo", "value": [1] }).to_string()).await;
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "[1]"), "{name}");
        assert_eq!(answer.header("x-amz-executed-version"), Some("$LATEST"));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("x-amz-function-error"), None);
        assert_eq!(answer.header("x-amz-log-result"), None);
    }
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_request_id_of_the_answer_is_that_of_the_invocation() {
    let functions = start(function());
    let server = serve(&functions).await;
    let context = json!({ "custom": { "foo": "bar" } });
    let request = invoke(&server, "Probe").header("x-amz-client-context", BASE64.encode(format!("{context:#}")));
    let answer = send(request, json!({ "do": "context" }).to_string()).await;
    let said: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(answer.header("x-amzn-requestid"), said["request_id"].as_str());
    assert_eq!(said["client_context"]["custom"], context["custom"]);

    let request = invoke(&server, "Probe").header("x-amz-client-context", "***");
    check_error(&send(request, "{}".to_owned()).await, StatusCode::BAD_REQUEST, "InvalidRequestContentException");
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_error_is_a_header_and_a_payload() {
    let functions = start(function());
    let server = serve(&functions).await;
    let answer = send(invoke(&server, "Probe"), json!({ "do": "error" }).to_string()).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("x-amz-function-error"), Some("Unhandled"));
    let error: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(error["errorMessage"], "as asked");
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tail_of_the_log_can_be_had() {
    let functions = start(function());
    let server = serve(&functions).await;
    let request = invoke(&server, "Probe").header("x-amz-log-type", "Tail");
    let answer = send(request, json!({ "do": "print", "line": "hello" }).to_string()).await;
    let tail = BASE64.decode(answer.header("x-amz-log-result").expect("it was asked for")).expect("base64");
    let tail = String::from_utf8(tail).expect("text");
    let id = answer.header("x-amzn-requestid").expect("a request id");
    assert!(tail.starts_with(&format!("START RequestId: {id} Version: $LATEST\n")), "{tail}");
    assert!(tail.contains(&format!("\nEND RequestId: {id}\nREPORT RequestId: {id}\tDuration: ")), "{tail}");
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_dry_runs_are_not_waited_for() {
    let folder = Folder::new();
    let functions = start(function());
    let server = serve(&functions).await;
    let payload = json!({ "do": "attempt", "path": folder.path("event"), "failures": 0 }).to_string();

    let answer = send(invoke(&server, "Probe").header("x-amz-invocation-type", "DryRun"), payload.clone()).await;
    assert_eq!((answer.status, answer.body.len()), (StatusCode::NO_CONTENT, 0));
    assert_eq!(functions.counters("Probe").expect("it exists").invocations, 0);

    let answer = send(invoke(&server, "Probe").header("x-amz-invocation-type", "Event"), payload).await;
    assert_eq!((answer.status, answer.body.len()), (StatusCode::ACCEPTED, 0));
    until("the event", || lines(&folder.path("event")).len() == 1).await;
    assert_eq!(lines(&folder.path("event")), [answer.header("x-amzn-requestid").expect("a request id")]);

    let answer = send(invoke(&server, "Probe").header("x-amz-invocation-type", "Later"), "{}".to_owned()).await;
    check_error(&answer, StatusCode::BAD_REQUEST, "InvalidParameterValueException");
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_are_named() {
    let mut deployed = function();
    deployed.spec.reserved_concurrency = Some(0);
    let functions = start(deployed);
    let server = serve(&functions).await;

    let answer = send(invoke(&server, "Nobody"), "{}".to_owned()).await;
    check_error(&answer, StatusCode::NOT_FOUND, "ResourceNotFoundException");
    assert!(answer.text().contains("function:Nobody:$LATEST"), "{}", answer.text());

    let answer = send(invoke(&server, "Probe"), "not json".to_owned()).await;
    check_error(&answer, StatusCode::BAD_REQUEST, "InvalidRequestContentException");

    let answer = send(invoke(&server, "Probe"), "{}".to_owned()).await;
    check_error(&answer, StatusCode::TOO_MANY_REQUESTS, "TooManyRequestsException");

    let text = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
    let answer = send(invoke(&server, "Probe"), text(MAX_SYNCHRONOUS_PAYLOAD_BYTES + 1)).await;
    check_error(&answer, StatusCode::PAYLOAD_TOO_LARGE, "RequestTooLargeException");
    let request = invoke(&server, "Probe").header("x-amz-invocation-type", "Event");
    let answer = send(request, text(MAX_ASYNCHRONOUS_PAYLOAD_BYTES + 1)).await;
    check_error(&answer, StatusCode::PAYLOAD_TOO_LARGE, "RequestTooLargeException");
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_for_a_function_without_concurrency_is_accepted_and_given_up() {
    let mut deployed = function();
    deployed.spec.reserved_concurrency = Some(0);
    let functions = start_with(deployed, &LambdaOptions::default());
    let server = serve(&functions).await;
    let answer = send(invoke(&server, "Probe").header("x-amz-invocation-type", "Event"), "{}".to_owned()).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    until("the event to be given up", || functions.counters("Probe").expect("it exists").dropped_events == 1).await;
    end(functions).await;
}

/// What a client reads from the event stream: the type of each event and its payload.
async fn events(server: &Server, payload: &Value) -> Vec<(String, Vec<u8>)> {
    let request =
        Request::post(server.url("/2021-11-15/functions/Probe/response-streaming-invocations")).header("x-amz-log-type", "Tail");
    let answer = send(request, payload.to_string()).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("content-type"), Some("application/vnd.amazon.eventstream"));
    assert_eq!(answer.header("x-amz-executed-version"), Some("$LATEST"));
    let mut buffer = BytesMut::from(&answer.body[..]);
    let mut decoder = MessageFrameDecoder::new();
    let mut events = Vec::new();
    while let DecodedFrame::Complete(message) = decoder.decode_frame(&mut buffer).expect("whole frames") {
        let header = |name: &str| {
            let found = message.headers().iter().find(|header| header.name().as_str() == name);
            found.and_then(|header| header.value().as_string().ok()).expect("a text header").as_str().to_owned()
        };
        assert_eq!(header(":message-type"), "event");
        events.push((header(":event-type"), message.payload().to_vec()));
    }
    assert!(buffer.is_empty(), "nothing but frames");
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_comes_in_frames() {
    let functions = start(function());
    let server = serve(&functions).await;
    let mut received = within("the stream", events(&server, &json!({ "do": "stream", "chunks": ["one", "two"] }))).await;
    let (last, complete) = received.pop().expect("an event");
    assert_eq!(last, "InvokeComplete");
    let complete: Value = serde_json::from_slice(&complete).expect("JSON");
    assert_eq!((&complete["ErrorCode"], complete["LogResult"].is_string()), (&Value::Null, true));
    assert!(received.iter().all(|(event_type, _)| event_type == "PayloadChunk"));
    let payload: Vec<u8> = received.into_iter().flat_map(|(_, payload)| payload).collect();
    assert!(payload.ends_with(b"\0\0\0\0\0\0\0\0onetwo"));

    let crashed = within("the stream", events(&server, &json!({ "do": "stream", "chunks": ["one"], "exit": 1 }))).await;
    let complete: Value = serde_json::from_slice(&crashed.last().expect("an event").1).expect("JSON");
    assert_eq!(complete["ErrorCode"], "Runtime.ExitError");
    assert!(complete["ErrorDetails"].as_str().is_some_and(|text| text.ends_with("exit status 1")), "{complete}");

    let failed = within("the stream", events(&server, &json!({ "do": "error" }))).await;
    assert_eq!(failed.len(), 1);
    let complete: Value = serde_json::from_slice(&failed[0].1).expect("JSON");
    assert_eq!(complete["ErrorDetails"], "as asked");
    end(functions).await;
}
