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
    let mut first = None;
    for (offset, (flags, variables)) in (1..).zip(ways) {
        let mut command = folder.command(&[&publish[..], &["--json"], flags].concat()).await;
        command.envs(variables.iter().copied());
        let lines = Program::start(format!("publish with {flags:?} and {variables:?}"), &mut command).succeeds().await;
        assert_eq!(lines[0]["offset"], offset, "{flags:?} {variables:?}");
        first.get_or_insert_with(|| format!("{}-1", lines[0]["epoch"].as_str().expect("an epoch")));
    }
    let stream = stack.ready().stream.as_deref().expect("the template has streams");
    let since = first.expect("it was published");
    for (via, variable, url) in
        [("websocket", "CARILLON_WEBSOCKET_URL", stack.websocket()), ("sse", "CARILLON_STREAM_URL", stream)]
    {
        let arguments = ["subscribe", "orders/42", "--via", via, "--since", &since, "--count", "1", "--json"];
        let mut command = folder.command(&arguments).await;
        command.envs([(variable, url), ("CARILLON_TOKEN", token)]);
        let lines = Program::start(format!("subscribe with {variable}"), &mut command).succeeds().await;
        assert_eq!(lines[0]["offset"], 2, "{via}");
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
    for arguments in [
        &["publish", "orders/42", "--data", "1"][..],
        &["subscribe", "orders/42"],
        &["subscribe", "orders/42", "--via", "sse"],
        &["subscribe", "orders/42", "--via", "mqtt"],
    ] {
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
        (&["subscribe", "orders/42", "--via", "sse"], "CARILLON_STREAM_URL"),
        (&["subscribe", "orders/42", "--via", "mqtt"], "CARILLON_MQTT_URL"),
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
    let (http, websocket, mqtt) = (format!("http://{address}/"), format!("ws://{address}/prod"), format!("mqtt://{address}"));
    for arguments in [
        &["publish", "orders/42", "--data", "1", "--url", &http][..],
        &["subscribe", "orders/42", "--url", &websocket],
        &["subscribe", "orders/42", "--via", "sse", "--url", &http],
        &["subscribe", "orders/42", "--via", "mqtt", "--url", &mqtt, "--mqtt-prefix", "carillon"],
    ] {
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
    let usage: [(&[&str], &[&str]); 14] = [
        (&["publish", "orders//42", "--data", "1"], &["orders//42", "segment 2 is empty"]),
        (&["publish", "a/b/c/d/e/f/g", "--data", "1"], &["at most 6 segments", "this one has 7"]),
        (&["subscribe", "orders/*"], &["segment 2 is a wildcard"]),
        (&["subscribe", "orders/4 2"], &["made of A-Z a-z 0-9 _ - . : @ =", "segment 2 holds ' '"]),
        (&["subscribe", &long], &["at most 64 bytes", "segment 2 has 65"]),
        (&["subscribe", "orders/42", "--since", "41"], &["--since", "41"]),
        (&["subscribe", "orders/42", "orders/43", "--since", "1-1"], &["2 channels and 1 positions", "--since"]),
        (&["subscribe", "orders/42", "orders/42"], &["orders/42 is named twice"]),
        (&["subscribe", "orders/42", "--via", "mqtt", "--since", "1-1"], &["MQTT has no replay", "--via sse"]),
        (&["subscribe", "orders/42", "--mqtt-prefix", "dev"], &["--mqtt-prefix goes with --via mqtt alone"]),
        (&["subscribe", "orders/42", "--via", "mqtt", "--mqtt-prefix", "a/b"], &["a/b", "holds '/'"]),
        (
            &["subscribe", "orders/42", "--via", "mqtt", "--mqtt-prefix", "dev", "--url", "http://127.0.0.1:1", "--token", "any"],
            &["http://127.0.0.1:1", "MQTT URL"],
        ),
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
async fn every_protocol_prints_the_same_messages() {
    let (stack, folder) = (TestStack::start().await, Folder::new());
    let file = ready_file(&stack);
    let mut subscribers = Vec::new();
    let mqtt_ws = stack.ready().mqtt_ws.as_deref().expect("the template uses IoT Core");
    for flags in [&["--via", "websocket"][..], &["--via", "sse"], &["--via", "mqtt"], &["--via", "mqtt", "--url", mqtt_ws]] {
        let arguments = [&["subscribe", "orders/42", "orders/43", "--count", "4", "--json"], flags].concat();
        let mut subscriber = folder.start(&with_ready_file(&file, &arguments)).await;
        for _ in 0..2 {
            subscriber.error_line("\"subscribed\"").await;
        }
        subscribers.push(subscriber);
    }
    publish_numbers(&stack, "orders/42", 1..=3).await;
    publish_numbers(&stack, "orders/43", 1..=1).await;
    let mut printed = Vec::new();
    for subscriber in subscribers {
        let mut lines = subscriber.succeeds().await;
        // Two channels have no order between them.
        lines.sort_by_key(|line| (line["channel"].to_string(), line["offset"].as_u64()));
        printed.push(lines);
    }
    for lines in &printed {
        assert_eq!(lines, &printed[0], "the same events at the same positions");
    }
    assert_eq!(printed[0].iter().map(|line| delivered(line).2).collect::<Vec<_>>(), [1, 2, 3, 1]);
    stack.shutdown().await;
}

#[tokio::test]
async fn a_position_of_one_protocol_resumes_on_another() {
    let (stack, folder) = (TestStack::start().await, Folder::new());
    let file = ready_file(&stack);
    let arguments = ["subscribe", "orders/42", "--via", "mqtt", "--count", "1", "--json"];
    let mut subscriber = folder.start(&with_ready_file(&file, &arguments)).await;
    subscriber.error_line("\"subscribed\"").await;
    publish_numbers(&stack, "orders/42", 1..=4).await;
    let first = subscriber.succeeds().await.remove(0);
    let mut since = format!("{}-{}", delivered(&first).1, delivered(&first).2);
    for (via, expected) in [("sse", 2), ("websocket", 3), ("sse", 4)] {
        let arguments = ["subscribe", "orders/42", "--via", via, "--since", &since, "--count", "1", "--json"];
        let lines = folder.start(&with_ready_file(&file, &arguments)).await.succeeds().await;
        assert_eq!((delivered(&lines[0]).2, delivered(&lines[0]).3), (expected, expected), "{via}");
        since = format!("{}-{}", delivered(&lines[0]).1, delivered(&lines[0]).2);
    }
    stack.shutdown().await;
}

/// Cuts a subscriber's line and publishes before, while it is away, and after: nothing is missing and nothing comes twice.
async fn cuts_lose_nothing(via: &str, endpoint: impl Fn(&TestStack) -> String) {
    let (stack, folder) = (TestStack::start().await, Folder::new());
    let line = Line::to(&endpoint(&stack)).await;
    let prefix = stack.ready().mqtt_prefix.clone().expect("the template uses IoT Core");
    let mut arguments = vec!["subscribe", "orders/42", "--via", via, "--url", &line.url, "--token", stack.token(), "--json"];
    if via == "mqtt" {
        arguments.extend(["--mqtt-prefix", &prefix]);
    }
    let mut subscriber = folder.start(&arguments).await;
    subscriber.error_line("\"subscribed\"").await;
    let mut numbers = Vec::new();
    for last in [3, 6] {
        publish_numbers(&stack, "orders/42", last - 2..=last - 1).await;
        for _ in 0..2 {
            numbers.push(delivered(&subscriber.json().await).3);
        }
        line.cut();
        publish_numbers(&stack, "orders/42", last..=last).await;
        numbers.push(delivered(&subscriber.json().await).3);
        subscriber.error_line("\"reconnected\"").await;
    }
    assert_eq!(numbers, (1..=6).collect::<Vec<_>>());
    subscriber.signal(Signal::SIGINT);
    let ended = subscriber.ended().await;
    assert!(ended.lines.is_empty(), "nothing twice: {ended:?}");
    stack.shutdown().await;
}

#[tokio::test]
async fn a_stream_that_is_cut_loses_nothing() {
    cuts_lose_nothing("sse", |stack| stack.ready().stream.clone().expect("the template has streams")).await;
}

#[tokio::test]
async fn an_mqtt_connection_that_is_cut_loses_nothing() {
    cuts_lose_nothing("mqtt", |stack| stack.ready().mqtt.clone().expect("the template uses IoT Core")).await;
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
