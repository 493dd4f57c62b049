//! `carillon publish` and `carillon subscribe` against a running stack.

use std::path::Path;
use std::sync::Arc;

use carillon_tests::binaries;
use carillon_tests::http::send;
use carillon_tests::program::Program;
use carillon_tests::stack::TestStack;
use carillon_tests::wait::eventually;
use http::Method;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::carillon::{Folder, SIGNATURE, assert_told, dynamodb, exit};

/// What goes before the arguments of a command to reach a stack by its ready file.
fn with_ready_file<'text>(ready_file: &'text str, arguments: &[&'text str]) -> Vec<&'text str> {
    [arguments, &["--ready-file", ready_file]].concat()
}

fn ready_file(stack: &TestStack) -> String {
    stack.ready_file().to_str().expect("the path is UTF-8").to_owned()
}

fn publish_base(stack: &TestStack) -> &str {
    stack.ready().publish.as_deref().expect("the template has it")
}

/// Publishes numbers, and gives their positions as `--since` takes them.
async fn publish_numbers(stack: &TestStack, channel: &str, numbers: std::ops::RangeInclusive<u64>) -> Vec<String> {
    let mut positions = Vec::new();
    for number in numbers {
        let answer = stack.post("application/json", json!({"channel": channel, "data": number}).to_string()).await;
        let result = &answer.json()["results"][0];
        positions.push(format!("{}-{}", result["epoch"].as_str().expect("an epoch"), result["offset"]));
    }
    positions
}

#[tokio::test]
async fn a_message_is_published_and_its_place_is_told() {
    let (stack, folder) = (TestStack::start().await, Folder::new());
    let file = ready_file(&stack);
    let mut subscriber = stack.connect().await;
    subscriber.subscribe("orders/42").await;

    let arguments = ["publish", "orders/42", "--data", r#"{"total": 12.0}"#, "--id", "a", "--type", "order.placed"];
    let lines = folder.json(&with_ready_file(&file, &arguments)).await;
    let event = subscriber.event().await;
    assert_eq!((&event.event["data"], &event.event["id"]), (&json!({"total": 12.0}), &json!("a")));
    assert_eq!(event.event["type"], "order.placed");
    let place = json!({"channel": "orders/42", "id": "a", "epoch": event.epoch, "offset": 1, "duplicate": false});
    assert_eq!(lines, [place]);

    let lines = folder.json(&with_ready_file(&file, &arguments)).await;
    assert_eq!((&lines[0]["offset"], &lines[0]["duplicate"]), (&json!(1), &json!(true)), "{lines:?}");

    let ended = folder.run(&with_ready_file(&file, &["publish", "orders/42", "--text", "it's late", "--id", "b"])).await;
    assert_eq!(ended.status.code(), Some(exit::DONE), "{ended:?}");
    assert_eq!(ended.lines, [format!("orders/42 {}-2 id b", event.epoch)]);
    assert_eq!(subscriber.event().await.event["data"], "it's late");

    folder.write("data.json", "[1, 2]\n");
    folder.json(&with_ready_file(&file, &["publish", "orders/42", "--file", "data.json"])).await;
    assert_eq!(subscriber.event().await.event["data"], json!([1, 2]));

    let arguments = with_ready_file(&file, &["publish", "orders/42", "--json"]);
    let mut piped = Program::start_with_input("publish", &mut folder.command(&arguments).await);
    piped.type_line(r#"{"from": "a pipe"}"#).await;
    piped.end_input();
    assert_eq!(piped.succeeds().await[0]["offset"], 4);
    assert_eq!(subscriber.event().await.event["data"], json!({"from": "a pipe"}));
    stack.shutdown().await;
}

#[tokio::test]
async fn a_stack_is_found_by_flags_then_variables_then_the_ready_file() {
    let (stack, folder) = (TestStack::start().await, Folder::new());
    let (url, token, file) = (publish_base(&stack), stack.token(), ready_file(&stack));
    let publish = ["publish", "orders/42", "--data", "1"];
    let nowhere = "http://127.0.0.1:0/";
    type Flags<'way> = &'way [&'way str];
    type Variables<'way> = &'way [(&'way str, &'way str)];
    let ways: [(Flags<'_>, Variables<'_>); 5] = [
        (&["--ready-file", &file], &[]),
        (&[], &[("CARILLON_READY_FILE", &file)]),
        (&[], &[("CARILLON_PUBLISH_URL", url), ("CARILLON_TOKEN", token)]),
        (&["--url", url, "--token", token], &[("CARILLON_PUBLISH_URL", nowhere), ("CARILLON_TOKEN", "wrong")]),
        (&["--ready-file", &file], &[("CARILLON_READY_FILE", "/nowhere/ready.json"), ("CARILLON_TOKEN", "")]),
    ];
    for (offset, (flags, variables)) in (1..).zip(ways) {
        let mut command = folder.command(&[&publish[..], &["--json"], flags].concat()).await;
        command.envs(variables.iter().copied());
        let lines = Program::start(format!("publish with {flags:?} and {variables:?}"), &mut command).succeeds().await;
        assert_eq!(lines[0]["offset"], offset, "{flags:?} {variables:?}");
    }

    // As a user has it who works where the stack was started.
    std::fs::create_dir(folder.path(".carillon")).expect("the folder is ours");
    std::fs::copy(&file, folder.ready_file()).expect("the folder is ours");
    assert_eq!(folder.json(&publish).await[0]["offset"], 6);
    stack.shutdown().await;
}

#[tokio::test]
async fn messages_are_printed_as_they_come_up_to_a_count() {
    let (stack, folder) = (TestStack::start().await, Folder::new());
    let file = ready_file(&stack);
    let earlier = publish_numbers(&stack, "orders/42", 1..=2).await;
    let epoch = earlier[0].split_once('-').expect("a position").0.to_owned();

    // For people, on two channels, from now on.
    let arguments = with_ready_file(&file, &["subscribe", "orders/42", "orders/43", "--count", "2"]);
    let mut people = folder.start(&arguments).await;
    people.error_line("subscribed to orders/43 at").await;
    let said = people.error_line("subscribed to orders/42 at").await;
    assert!(said.ends_with(&earlier[1]), "{said}");
    // For programs, from a position on.
    let arguments = ["subscribe", "orders/42", "--since", &earlier[0], "--count", "2"];
    let programs = folder.start(&with_ready_file(&file, &[&arguments[..], &["--json"]].concat())).await;

    publish_numbers(&stack, "orders/42", 3..=3).await;
    let line = people.line().await;
    assert!(line.starts_with(&format!("orders/42 {epoch}-3 {{")) && line.contains("\"data\":3"), "{line}");
    publish_numbers(&stack, "orders/43", 1..=1).await;
    let ended = people.ended().await;
    assert_eq!(ended.status.code(), Some(exit::DONE), "{ended:?}");
    assert!(ended.lines.len() == 1 && ended.lines[0].starts_with("orders/43 "), "{ended:?}");

    let lines = programs.succeeds().await;
    let expected = [2, 3].map(|number| ("orders/42", &*epoch, number, number));
    assert_eq!(lines.iter().map(delivered).collect::<Vec<_>>(), expected);
    stack.shutdown().await;
}

/// Channel, epoch, offset and number of a JSON line.
fn delivered(line: &Value) -> (&str, &str, u64, u64) {
    let text = |name: &str| line[name].as_str().unwrap_or_else(|| panic!("no {name}: {line}"));
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("no number: {line}"));
    (text("channel"), text("epoch"), number(&line["offset"]), number(&line["event"]["data"]))
}

#[tokio::test]
async fn a_signal_ends_a_subscriber_with_the_code_of_the_signal() {
    let (stack, folder) = (TestStack::start().await, Folder::new());
    let file = ready_file(&stack);
    for (signal, code) in [(Signal::SIGINT, exit::INTERRUPTED), (Signal::SIGTERM, exit::TERMINATED)] {
        let mut subscriber = folder.start(&with_ready_file(&file, &["subscribe", "orders/42"])).await;
        subscriber.error_line("subscribed to").await;
        subscriber.signal(signal);
        assert_eq!(subscriber.ended().await.status.code(), Some(code), "{signal}");
    }
    stack.shutdown().await;
}

#[tokio::test]
async fn a_closed_output_is_a_good_end() {
    let (stack, folder) = (TestStack::start().await, Folder::new());
    let file = ready_file(&stack);
    let since = publish_numbers(&stack, "orders/42", 1..=1).await.remove(0);
    let arguments = with_ready_file(&file, &["subscribe", "orders/42", "--since", &since]);
    // The shell's own end is that of `head`.
    let script = "program=$1; shift; { \"$program\" \"$@\"; echo $? > code; } | head -n 1";
    let mut shell = folder.program(Path::new("sh"));
    shell.args(["-c", script, "sh"]).arg(binaries::path("carillon").await).args(arguments);
    let shell = Program::start("subscribe | head", &mut shell);
    eventually("the subscriber to end", || async {
        publish_numbers(&stack, "orders/42", 1..=1).await;
        std::fs::read_to_string(folder.path("code")).ok().filter(|code| code.ends_with('\n')).ok_or("it still runs")
    })
    .await;
    assert_eq!(std::fs::read_to_string(folder.path("code")).expect("it is there").trim(), exit::DONE.to_string());
    let ended = shell.ended().await;
    assert_eq!((ended.lines.len(), ended.errors.lines().count()), (1, 1), "one message and that it subscribed: {ended:?}");
    stack.shutdown().await;
}

#[tokio::test]
async fn a_wrong_token_is_refused_with_a_code_of_its_own() {
    let (stack, folder) = (TestStack::start().await, Folder::new());
    let file = ready_file(&stack);
    let wrong = "0123456789abcdef0123456789abcdef";
    for arguments in [&["publish", "orders/42", "--data", "1"][..], &["subscribe", "orders/42"]] {
        let mut command = folder.command(&with_ready_file(&file, arguments)).await;
        let ended = Program::start("a wrong token", command.env("CARILLON_TOKEN", wrong)).ended().await;
        assert_told(&ended, exit::REFUSED, &["error: ", "--token", "CARILLON_TOKEN", "ready file"]);
        assert!(!ended.errors.contains(wrong), "no token is printed: {}", ended.errors);
    }
    stack.shutdown().await;
}

#[tokio::test]
async fn where_nothing_runs_all_three_ways_to_name_a_stack_are_told() {
    let folder = Folder::new();
    for (arguments, variable) in [
        (&["publish", "orders/42", "--data", "1"][..], "CARILLON_PUBLISH_URL"),
        (&["subscribe", "orders/42"], "CARILLON_WEBSOCKET_URL"),
    ] {
        let ended = folder.run(arguments).await;
        let texts = [".carillon/ready.json", "--url", "--token", variable, "CARILLON_TOKEN", "`carillon local`", "--ready-file"];
        assert_told(&ended, exit::NOT_REACHABLE, &texts);
    }
}

#[tokio::test]
async fn a_stack_that_does_not_answer_is_told() {
    let folder = Folder::new();
    // Bound and not listening: nobody else gets the port, and nothing answers.
    let socket = socket_without_listener();
    let address = socket.local_addr().expect("it is bound");
    let (http, websocket) = (format!("http://{address}/"), format!("ws://{address}/prod"));
    for arguments in
        [&["publish", "orders/42", "--data", "1", "--url", &http][..], &["subscribe", "orders/42", "--url", &websocket]]
    {
        let ended = folder.run(&[arguments, &["--token", "any"]].concat()).await;
        assert_told(&ended, exit::NOT_REACHABLE, &["cannot be reached", "carillon local"]);
    }
    drop(socket);
}

/// A port on which nothing listens, as long as this lives.
fn socket_without_listener() -> tokio::net::TcpSocket {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    socket
}

#[tokio::test]
async fn wrong_arguments_are_told_with_the_rule_that_they_break() {
    let folder = Folder::new();
    let long = format!("orders/{}", "x".repeat(65));
    let usage: [(&[&str], &[&str]); 10] = [
        (&["publish", "orders//42", "--data", "1"], &["orders//42", "segment 2 is empty"]),
        (&["publish", "a/b/c/d/e/f/g", "--data", "1"], &["at most 6 segments", "this one has 7"]),
        (&["subscribe", "orders/*"], &["segment 2 is a wildcard"]),
        (&["subscribe", "orders/4 2"], &["made of A-Z a-z 0-9 _ - . : @ =", "segment 2 holds ' '"]),
        (&["subscribe", &long], &["at most 64 bytes", "segment 2 has 65"]),
        (&["subscribe", "orders/42", "--since", "41"], &["--since", "41"]),
        (&["subscribe", "orders/42", "orders/43", "--since", "1-1"], &["2 channels and 1 positions", "--since"]),
        (&["subscribe", "orders/42", "orders/42"], &["orders/42 is named twice"]),
        (
            &["publish", "orders/42", "--data", "hello", "--url", "http://127.0.0.1:1", "--token", "any"],
            &["--data holds no JSON", "--text"],
        ),
        (&["publish", "orders/42", "--data", "1", "--url", "ftp://127.0.0.1", "--token", "any"], &["ftp://127.0.0.1", "URL"]),
    ];
    for (arguments, texts) in usage {
        let ended = folder.run(arguments).await;
        assert_told(&ended, exit::USAGE, texts);
    }
}

#[tokio::test]
async fn what_the_stack_refuses_is_told_in_its_words() {
    let (stack, folder) = (TestStack::start().await, Folder::new());
    let file = ready_file(&stack);
    let data = format!("\"{}\"", "x".repeat(31_000));
    let ended = folder.run(&with_ready_file(&file, &["publish", "orders/42", "--data", &data])).await;
    assert_told(&ended, exit::FAILED, &["too_large", "30720"]);
    stack.shutdown().await;
}

#[tokio::test]
async fn a_subscriber_whose_line_is_cut_misses_and_repeats_nothing() {
    let (stack, folder) = (TestStack::start().await, Folder::new());
    let line = Line::to(stack.websocket()).await;
    let first = publish_numbers(&stack, "orders/42", 1..=1).await.remove(0);
    let arguments = ["subscribe", "orders/42", "--since", &first, "--url", &line.url, "--token", stack.token(), "--json"];
    let mut subscriber = folder.start(&arguments).await;
    let mut received = Vec::new();
    for last in [4, 7, 10] {
        publish_numbers(&stack, "orders/42", last - 2..=last - 1).await;
        received.push(subscriber.json().await);
        received.push(subscriber.json().await);
        line.cut();
        publish_numbers(&stack, "orders/42", last..=last).await;
        received.push(subscriber.json().await);
    }
    subscriber.error_line("\"reconnected\"").await;
    subscriber.signal(Signal::SIGINT);
    let ended = subscriber.ended().await;
    let numbers: Vec<_> = received.iter().map(|line| (delivered(line).2, delivered(line).3)).collect();
    assert_eq!(numbers, (2..=10).map(|number| (number, number)).collect::<Vec<_>>());
    assert!(ended.lines.is_empty(), "nothing twice: {ended:?}");
    assert_eq!(ended.errors.matches("\"disconnected\"").count(), 3, "{}", ended.errors);
    stack.shutdown().await;
}

#[tokio::test]
async fn a_subscriber_that_the_gateway_disconnects_misses_and_repeats_nothing() {
    let (stack, folder) = (TestStack::start().await, Folder::new());
    let file = ready_file(&stack);
    let first = publish_numbers(&stack, "orders/42", 1..=1).await.remove(0);
    let arguments = ["subscribe", "orders/42", "--since", &first, "--count", "3", "--json"];
    let mut subscriber = folder.start(&with_ready_file(&file, &arguments)).await;
    publish_numbers(&stack, "orders/42", 2..=2).await;
    let before = subscriber.json().await;
    disconnect_everybody(&stack).await;
    publish_numbers(&stack, "orders/42", 3..=4).await;
    subscriber.error_line("\"disconnected\"").await;
    let lines = [vec![before], subscriber.succeeds().await].concat();
    assert_eq!(lines.iter().map(|line| delivered(line).2).collect::<Vec<_>>(), [2, 3, 4]);
    stack.shutdown().await;
}

/// Closes every connection as an operator does: DeleteConnection for each that the registry names.
async fn disconnect_everybody(stack: &TestStack) {
    let scan = json!({
        "TableName": stack.resource("RegistryTable"),
        "ConsistentRead": true,
        "FilterExpression": "begins_with(pk, :prefix) AND sk = :sk",
        "ExpressionAttributeValues": {":prefix": {"S": "C#"}, ":sk": {"S": "C"}},
    });
    let rows = dynamodb(&stack.ready().aws, "Scan", &scan).await;
    let rows = rows["Items"].as_array().unwrap_or_else(|| panic!("no items: {rows}"));
    assert!(!rows.is_empty(), "somebody is connected");
    let management = stack.ready().management.as_deref().expect("the template has it");
    for row in rows {
        let id = row["pk"]["S"].as_str().and_then(|key| key.strip_prefix("C#")).unwrap_or_else(|| panic!("no key: {row}"));
        let url = format!("{management}/@connections/{}", id.replace('=', "%3D"));
        let answer = send(Method::DELETE, &url, &[SIGNATURE], "").await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }
}

/// A line to a stack that can be cut.
struct Line {
    /// The stack's WebSocket endpoint at this end of the line.
    url: String,
    cuts: Arc<watch::Sender<()>>,
}

impl Line {
    async fn to(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let stack = url.split('/').nth(2).expect("a URL has a host").to_owned();
        let here = listener.local_addr().expect("it is bound").to_string();
        let url = url.replace(&stack, &here);
        let cuts = Arc::new(watch::Sender::new(()));
        let seen = cuts.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (stack, mut cut) = (stack.clone(), seen.subscribe());
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(stack).await.expect("the stack accepts connections");
                    tokio::select! {
                        // What came of it is for the two ends to judge.
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { url, cuts }
    }

    /// Cuts every connection, without a word to either end.
    fn cut(&self) {
        self.cuts.send_replace(());
    }
}
