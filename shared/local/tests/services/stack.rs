//! The stack as a whole: its start, what functions see, its ready file, its end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use carillon_local::stack::{Ports, Progress, Stack, StackError, StackOptions};
use http::Request;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::{json, options, send, start, until};

async fn ask(stack: &Stack, payload: &Value) -> Value {
    let url = stack.ready().functions["Probe"].url.as_deref().expect("it has a URL").to_owned();
    let response = send(Request::post(url).body(payload.to_string()).expect("a request")).await;
    assert_eq!(response.status(), 200, "{}", String::from_utf8_lossy(response.body()));
    json(response.body())
}

#[tokio::test]
async fn functions_see_the_stack_and_nothing_else() {
    let stack = start().await;
    let ready = stack.ready().clone();
    let environment = ask(&stack, &json!({"do": "environment"})).await;
    let variable = |name: &str| environment[name].as_str();
    assert_eq!(variable("AWS_ENDPOINT_URL"), Some(ready.aws.as_str()));
    assert_eq!(variable("AWS_ENDPOINT_URL_SQS"), Some(ready.aws.as_str()));
    assert!(variable("AWS_ENDPOINT_URL_DYNAMODB").expect("it is set").starts_with("http://127.0.0.1:"));
    assert_eq!(variable("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI"), ready.management.as_deref());
    assert_eq!(variable("AWS_ENDPOINT_URL_SNS"), None);
    assert_eq!(variable("TABLE"), Some("carillon-Table"));
    assert_eq!(variable("QUEUE_URL"), Some(ready.resources["Spare"].as_str()));
    assert_eq!(variable("SECRET"), ready.token.as_deref());
    assert!(ready.token.expect("the template has a secret").len() >= 32);
    assert_eq!(variable("HOME"), None);
    assert_eq!(stack.template().outputs["WebSocketUrl"], ready.websocket.expect("there is an API"));
    stack.shutdown().await;
}

#[tokio::test]
async fn a_given_secret_is_kept_and_a_short_one_refused() {
    let with =
        |secret: &str| StackOptions { parameters: BTreeMap::from([("Secret".to_owned(), secret.to_owned())]), ..options() };
    let secret = "s".repeat(40);
    let stack = Stack::start(with(&secret)).await.expect("it starts");
    assert_eq!(stack.ready().token.as_deref(), Some(secret.as_str()));
    stack.shutdown().await;
    let error = Stack::start(with("short")).await.expect_err("too short").to_string();
    assert_eq!(error, "parameter Secret is 5 characters long, under MinLength 32");
}

#[tokio::test]
async fn a_busy_port_is_named_with_its_flag() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("an address").port();
    for (ports, flag) in [
        (Ports { aws: port, ..Ports::FREE }, "--aws-port"),
        (Ports { websocket: port, ..Ports::FREE }, "--websocket-port"),
        (Ports { url: port, ..Ports::FREE }, "--url-port"),
    ] {
        let error = Stack::start(StackOptions { ports, ..options() }).await.expect_err("the port is busy").to_string();
        assert_eq!(error, format!("port {port} is busy: choose another with {flag}, or take any with --free-ports"));
    }
}

#[tokio::test]
async fn a_missing_binary_is_named() {
    let error = Stack::start(StackOptions { prebuilt: Some(BTreeMap::new()), ..options() }).await.expect_err("no binary");
    assert_eq!(error.to_string(), "the binary probe of function Probe is not among the prebuilt ones");
}

#[tokio::test]
async fn two_stacks_do_not_share_a_data_folder() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let with_data = || StackOptions { data: Some(folder.path().to_owned()), ..options() };
    let first = Stack::start(with_data()).await.expect("it starts");
    assert!(matches!(Stack::start(with_data()).await, Err(StackError::DataInUse { .. })));
    first.shutdown().await;
    Stack::start(with_data()).await.expect("it is free again").shutdown().await;
}

#[tokio::test]
async fn the_ready_file_lives_as_long_as_the_stack() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("ready.json");
    let stack = start().await;
    stack.write_ready_file(&path).expect("written");
    let written = json(&std::fs::read(&path).expect("it is there"));
    assert_eq!(written, json(stack.ready().to_json().as_bytes()));
    stack.shutdown().await;
    assert!(!path.exists());

    let dropped = start().await;
    dropped.write_ready_file(&path).expect("written");
    drop(dropped);
    assert!(!path.exists());
}

#[tokio::test]
async fn the_observer_hears_of_what_is_left_out_and_of_the_end() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let observer = {
        let heard = heard.clone();
        Arc::new(move |progress| heard.lock().expect("no panic").push(progress))
    };
    Stack::start(StackOptions { observer: Some(observer), ..options() }).await.expect("it starts").shutdown().await;
    // This template has nothing that is left out, and its function is built already.
    assert_eq!(*heard.lock().expect("no panic"), [Progress::Ready]);
}

#[tokio::test]
async fn a_shutdown_takes_less_than_three_seconds_and_leaves_no_process() {
    let stack = start().await;
    let idle = ask(&stack, &json!({"do": "context"})).await["pid"].as_i64().expect("a process id");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let started = folder.path().join("started");
    // One function that never answers, one long poll, one connection without a request.
    let url = stack.ready().functions["Probe"].url.clone().expect("it has a URL");
    let stuck = json!({"do": "wait", "started": started, "gate": folder.path().join("never")}).to_string();
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http::<String>();
    let waiting = tokio::spawn(client.request(Request::post(url).body(stuck).expect("a request")));
    until("the function waits", || started.exists()).await;
    let poll = json!({"QueueUrl": stack.ready().resources["Spare"], "WaitTimeSeconds": 20}).to_string();
    let request = Request::post(&stack.ready().aws).header("x-amz-target", "AmazonSQS.ReceiveMessage").body(poll);
    let polling = tokio::spawn(client.request(request.expect("a request")));
    let address = stack.ready().aws.strip_prefix("http://").expect("an address").to_owned();
    let _silent = tokio::net::TcpStream::connect(address).await.expect("connected");

    let begun = Instant::now();
    stack.shutdown().await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(3), "it took {took:?}");
    let pid = Pid::from_raw(i32::try_from(idle).expect("a process id"));
    assert!(kill(pid, None).is_err(), "the process {pid} still lives");
    for task in [waiting, polling] {
        // An error or an answer, but an end.
        let _ = tokio::time::timeout(Duration::from_secs(5), task).await.expect("the connection ended");
    }
}
