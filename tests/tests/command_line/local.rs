//! `carillon local`: what it starts, what it says, and that its end leaves nothing.

use std::collections::BTreeSet;
use std::time::Instant;

use carillon_tests::binaries;
use carillon_tests::http::send;
use carillon_tests::program::Program;
use carillon_tests::stack::SHUTDOWN;
use carillon_tests::wait::eventually;
use carillon_tests::websocket::Socket;
use http::Method;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use serde_yaml_ng::Mapping;

use crate::carillon::{Folder, SIGNATURE, assert_told, dynamodb, exit};

/// What the ready file holds, whether the template has it or not.
const READY_KEYS: [&str; 13] = [
    "apis",
    "aws",
    "functions",
    "management",
    "mqtt",
    "mqtt_prefix",
    "mqtt_ws",
    "publish",
    "region",
    "resources",
    "stream",
    "token",
    "websocket",
];

/// Adds a function that does what the body of a request says, under an URL of its own. `deaf` makes it ignore SIGTERM.
fn add_probe(resources: &mut Mapping, deaf: bool) {
    let variables = if deaf { json!({"PROBE_START": "deaf"}) } else { json!({}) };
    let probe = json!({
        "Type": "AWS::Serverless::Function",
        "Properties": {
            "CodeUri": "bin/probe",
            "Timeout": 900,
            "FunctionUrlConfig": {"AuthType": "NONE"},
            "Environment": {"Variables": variables},
        },
    });
    let probe = serde_yaml_ng::to_value(probe).expect("JSON is YAML");
    resources.insert("Probe".into(), probe);
}

fn text<'value>(ready: &'value Value, name: &str) -> &'value str {
    ready[name].as_str().unwrap_or_else(|| panic!("no {name}: {ready}"))
}

async fn connect(ready: &Value) -> Socket {
    Socket::connect(text(ready, "websocket"), Some(text(ready, "token"))).await.expect("the stack lets its own token in")
}

async fn publish(ready: &Value, channel: &str) -> Value {
    let authorization = format!("Bearer {}", text(ready, "token"));
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let body = json!({"channel": channel, "data": 1}).to_string();
    let answer = send(Method::POST, &format!("{}publish", text(ready, "publish")), &headers, body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["results"][0].clone()
}

/// Keeps the probe busy, and waits until it is.
async fn occupy_probe(folder: &Folder, ready: &Value) {
    let url = ready["functions"]["Probe"]["url"].as_str().expect("the probe has a URL").to_owned();
    let (started, gate) = (folder.path("started"), folder.path("a gate that nobody opens"));
    let body = json!({"do": "wait", "started": started, "gate": gate}).to_string();
    // The stack ends before the answer comes.
    tokio::spawn(async move { send(Method::POST, &url, &[], body).await });
    eventually("the probe to be invoked", || {
        let is_there = started.exists();
        async move { if is_there { Ok(()) } else { Err("it was not") } }
    })
    .await;
}

#[tokio::test]
async fn the_ready_file_is_complete_and_all_that_it_names_answers() {
    let folder = Folder::new();
    let template = folder.template(|_| ()).await;
    let (program, ready) = folder.local(&["--template", &template]).await;

    let written = std::fs::read_to_string(folder.ready_file()).expect("it is there when the command says so");
    assert_eq!(serde_json::from_str::<Value>(&written).expect("it is JSON"), ready);
    let keys: BTreeSet<_> = ready.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, BTreeSet::from(READY_KEYS));
    assert_eq!(ready["functions"]["StreamFunction"]["url"], ready["stream"]);
    assert!(text(&ready, "mqtt").starts_with("mqtt://127.0.0.1:") && text(&ready, "mqtt_ws").ends_with("/mqtt"), "{ready}");
    assert!(text(&ready, "mqtt_prefix").starts_with("carillon"), "{ready}");
    assert_eq!(ready["region"], "us-east-1");
    assert_eq!(ready["functions"]["PublishFunction"]["url"], ready["publish"]);
    assert_eq!(ready["functions"]["DeliverFunction"], json!({}), "a function without a URL");
    assert_eq!(ready["apis"]["WebSocketApi"]["url"], ready["websocket"]);
    assert!(ready["resources"]["RegistryTable"].is_string(), "{ready}");

    let mut socket = connect(&ready).await;
    socket.assert_alive().await;
    assert_eq!(publish(&ready, "orders/42").await["offset"], 1);
    let tables = dynamodb(text(&ready, "aws"), "ListTables", &json!({})).await;
    assert_eq!(tables["TableNames"].as_array().map(Vec::len), Some(2), "{tables}");
    let unknown = format!("{}/@connections/L0SM9cOFvHcCIhw=", text(&ready, "management"));
    let answer = send(Method::GET, &unknown, &[SIGNATURE], "").await;
    assert_eq!(answer.status, 410, "{answer:?}");

    program.signal(Signal::SIGTERM);
    assert_eq!(program.ended().await.status.code(), Some(exit::DONE));
    folder.assert_nothing_is_left(&ready);
}

/// Ends a busy stack: with open connections, functions that have run, and one that runs.
async fn a_signal_ends_a_busy_stack(signal: Signal) {
    let folder = Folder::new();
    folder.link("probe", &binaries::probe().await);
    let template = folder.template(|resources| add_probe(resources, false)).await;
    let (program, ready) = folder.local(&["--template", &template]).await;
    let mut subscriber = connect(&ready).await;
    subscriber.subscribe("orders/42").await;
    let mut idle = connect(&ready).await;
    publish(&ready, "orders/42").await;
    subscriber.event().await;
    occupy_probe(&folder, &ready).await;
    let functions = folder.functions();
    for name in ["probe", "websocket", "publish", "deliver"] {
        assert!(functions.iter().any(|line| line.contains(&format!("bin/{name}"))), "{name} does not run: {functions:?}");
    }

    let begun = Instant::now();
    program.signal(signal);
    let ended = program.ended().await;
    let took = begun.elapsed();

    assert_eq!(ended.status.code(), Some(exit::DONE), "{}", ended.errors);
    assert!(took < SHUTDOWN, "the end took {took:?}, over {SHUTDOWN:?}");
    assert_eq!([subscriber.closed().await, idle.closed().await], [1001, 1001], "going away (RFC 6455 section 7.4.1)");
    folder.assert_nothing_is_left(&ready);
}

#[tokio::test]
async fn ctrl_c_ends_a_busy_stack_within_three_seconds() {
    a_signal_ends_a_busy_stack(Signal::SIGINT).await;
}

#[tokio::test]
async fn sigterm_ends_a_busy_stack_within_three_seconds() {
    a_signal_ends_a_busy_stack(Signal::SIGTERM).await;
}

#[tokio::test]
async fn a_second_ctrl_c_does_not_wait_for_a_deaf_function() {
    let folder = Folder::new();
    folder.link("probe", &binaries::probe().await);
    let template = folder.template(|resources| add_probe(resources, true)).await;
    let (mut program, ready) = folder.local(&["--template", &template]).await;
    occupy_probe(&folder, &ready).await;
    program.signal(Signal::SIGINT);
    // From here on the deaf function has a second before it is killed.
    program.error_line("ending").await;
    program.signal(Signal::SIGINT);
    assert_eq!(program.ended().await.status.code(), Some(exit::INTERRUPTED));
    folder.all_are_gone("the killed functions").await;
    folder.assert_nothing_is_left(&ready);
}

#[tokio::test]
async fn a_signal_while_cargo_builds_ends_both() {
    let folder = Folder::new();
    folder.write(
        "Cargo.toml",
        "[package]\nname = \"slow\"\nversion = \"0.0.0\"\nedition = \"2024\"\nbuild = \"build.rs\"\n[workspace]\n",
    );
    std::fs::create_dir(folder.path("src")).expect("the folder is ours");
    folder.write("src/main.rs", "fn main() {}\n");
    // A build that says that it has begun and takes longer than any test.
    folder.write(
        "build.rs",
        "fn main() {
    std::fs::write(\"begun\", \"\").unwrap();
    std::thread::sleep(std::time::Duration::from_secs(600));
}
",
    );
    let template = folder.write(
        "template.yaml",
        "Resources:
  Slow:
    Type: AWS::Serverless::Function
    Metadata: { BuildMethod: rust-cargolambda, BuildProperties: { Binary: slow } }
    Properties: { Runtime: provided.al2023, Handler: bootstrap, CodeUri: . }
",
    );
    let mut command = folder.command(&["local", "--free-ports", "--template", &template]).await;
    let program = Program::start("a stack that is built", command.env("CARGO_TARGET_DIR", folder.path("target")));
    eventually("cargo to build", || {
        let has_begun = folder.path("begun").exists();
        async move { if has_begun { Ok(()) } else { Err("it does not") } }
    })
    .await;
    assert_ne!(folder.functions(), Vec::<String>::new(), "the build runs in this folder");
    let begun = Instant::now();
    program.signal(Signal::SIGTERM);
    let ended = program.ended().await;
    assert_eq!(ended.status.code(), Some(exit::TERMINATED), "{}", ended.errors);
    assert!(begun.elapsed() < SHUTDOWN, "the end took {:?}", begun.elapsed());
    folder.all_are_gone("the build").await;
    assert!(!folder.ready_file().exists());
}

#[tokio::test]
async fn people_see_where_everything_is() {
    let folder = Folder::new();
    let template = folder.template(|_| ()).await;
    let mut program = folder.start(&["local", "--free-ports", "--template", &template]).await;
    let mut lines = vec![program.line().await];
    while !lines.iter().any(|line| line.contains("Ctrl-C ends it")) {
        lines.push(program.line().await);
    }
    let text = lines.join("\n");
    for part in
        ["ws://127.0.0.1:", "/publish", "/sse", "mqtt://127.0.0.1:", "/c/<channel>", "AWS endpoint", "@connections", "ready.json"]
    {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    let ready: Value = serde_json::from_slice(&std::fs::read(folder.ready_file()).expect("it is there")).expect("JSON");
    assert!(!text.contains(ready["token"].as_str().expect("a token")), "the token is in the file alone:\n{text}");
    program.signal(Signal::SIGINT);
    assert_eq!(program.ended().await.status.code(), Some(exit::DONE));
}

#[tokio::test]
async fn a_service_is_taken_away_and_brought_back() {
    let folder = Folder::new();
    let template = folder.template(|_| ()).await;
    let (program, ready) = folder.local(&["--template", &template]).await;
    let topic = format!("{}/c/orders%2F42", text(&ready, "mqtt_prefix"));
    let iot = text(&ready, "mqtt_ws").replacen("ws://", "http://", 1).replacen("/mqtt", &format!("/topics/{topic}"), 1);
    let port = text(&ready, "mqtt").rsplit('/').next().expect("an address").to_owned();
    assert_eq!(folder.json(&["local", "fault", "iot"]).await, [json!({"iot": "back"})]);
    assert_eq!(send(Method::POST, &iot, &[SIGNATURE], "1").await.status, 200);

    assert_eq!(folder.json(&["local", "fault", "iot", "away"]).await, [json!({"iot": "away"})]);
    assert_eq!(folder.json(&["local", "fault", "iot"]).await, [json!({"iot": "away"})]);
    let ended = folder.run(&["subscribe", "orders/42", "--via", "mqtt"]).await;
    assert_eq!(ended.status.code(), Some(exit::NOT_REACHABLE), "{port}: {ended:?}");
    let ended = folder.run(&["local", "fault", "iot", "back"]).await;
    assert_eq!((ended.status.code(), &*ended.lines), (Some(exit::DONE), &["iot is back".to_owned()][..]), "{ended:?}");
    assert_eq!(send(Method::POST, &iot, &[SIGNATURE], "1").await.status, 200);

    program.signal(Signal::SIGTERM);
    assert_eq!(program.ended().await.status.code(), Some(exit::DONE));
    let ended = folder.run(&["local", "fault", "iot", "away"]).await;
    assert_told(&ended, exit::NOT_REACHABLE, &["ready.json", "`carillon local`", "--ready-file"]);
}

#[tokio::test]
async fn tables_are_kept_in_a_data_folder_and_nowhere_else() {
    let folder = Folder::new();
    let template = folder.template(|_| ()).await;
    let kept = ["--template", &template, "--data", "tables"];
    let mut placed = Vec::new();
    for arguments in [&kept[..], &kept[..], &kept[..2]] {
        let (program, ready) = folder.local(arguments).await;
        placed.push(publish(&ready, "orders/42").await);
        program.signal(Signal::SIGTERM);
        assert_eq!(program.ended().await.status.code(), Some(exit::DONE));
    }
    assert_eq!([&placed[0]["offset"], &placed[1]["offset"], &placed[2]["offset"]], [1, 2, 1]);
    assert_eq!(placed[0]["epoch"], placed[1]["epoch"], "the log goes on");
    assert_ne!(placed[0]["epoch"], placed[2]["epoch"], "another log");
}
