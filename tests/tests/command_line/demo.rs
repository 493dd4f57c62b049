//! `carillon local --demo`: an AWS event reaches every subscriber, and the lines that it invites to paste work as they stand.

use std::path::{Path, PathBuf};
use std::time::Duration;

use carillon_tests::clients::node_command;
use carillon_tests::http::send;
use carillon_tests::program::Program;
use carillon_tests::repository;
use carillon_tests::wait::{patience, within};
use http::Method;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::carillon::{Folder, SIGNATURE, exit};

/// The demo's subscribers, by protocol.
const SUBSCRIBERS: [(&str, u64); 6] = [("mqtt", 1), ("mqtt", 2), ("sse", 1), ("sse", 2), ("websocket", 1), ("websocket", 2)];

/// The columns of a subscriber's row.
const COLUMNS: usize = 7;

/// How long a typed line may stay without an answer before it is typed again.
const TYPED: Duration = Duration::from_millis(200);

/// The rows of a demo's JSON that say who received what.
fn receipts(lines: &[Value]) -> Vec<&Value> {
    lines.iter().filter(|line| line.get("subscriber").is_some()).collect()
}

#[tokio::test]
async fn the_repositorys_demo_reaches_every_subscriber_once() {
    let folder = Folder::new();
    // As the README has it, with cargo, from wherever the user stands.
    let template = repository::path("template.yaml");
    let arguments = ["local", "--demo", "--once", "--free-ports", "--template", template.to_str().expect("UTF-8")];
    let lines = folder.json(&arguments).await;

    assert!(lines[0]["websocket"].is_string(), "first where everything is: {lines:?}");
    let receipts = receipts(&lines);
    assert_eq!(names(&receipts), SUBSCRIBERS, "each once: {lines:?}");
    for line in &receipts {
        assert_eq!((&line["channel"], &line["offset"]), (&json!("demo/hello"), &json!(1)));
        assert_eq!((&line["id"], &line["epoch"]), (&receipts[0]["id"], &receipts[0]["epoch"]), "one event");
        assert!(line["put_to_receipt_ms"].as_f64().is_some_and(|time| time > 0.0), "{line}");
    }
    assert_eq!(lines.last(), Some(&json!({"received_once": SUBSCRIBERS.len(), "missing": [], "repeated": []})));
    assert!(!folder.ready_file().exists());
}

#[tokio::test]
async fn people_see_a_table_with_a_row_for_each_subscriber() {
    let folder = Folder::new();
    let template = folder.template(|_| ()).await;
    let ended = folder.run(&["local", "--demo", "--once", "--free-ports", "--template", &template]).await;
    assert_eq!(ended.status.code(), Some(exit::DONE), "{}", ended.errors);
    let words: Vec<Vec<_>> = ended.lines.iter().map(|line| line.split_whitespace().collect()).collect();
    let header =
        words.iter().position(|words| words.starts_with(&["protocol", "subscriber", "id", "epoch", "offset"])).expect("a header");
    let mut rows = words[header + 1..][..SUBSCRIBERS.len()].to_vec();
    rows.sort_unstable();
    for (row, (protocol, number)) in rows.iter().zip(SUBSCRIBERS) {
        let number = number.to_string();
        let [found, subscriber, id, epoch, offset, _time, unit] = row[..] else { panic!("{row:?}") };
        assert_eq!((found, subscriber, offset, unit), (protocol, &*number, "1", "ms"), "{:#?}", ended.lines);
        assert_eq!((id, epoch), (rows[0][2], rows[0][3]), "one event: {:#?}", ended.lines);
    }
    assert_eq!(ended.lines.last().map(String::as_str), Some("All 6 subscribers received the event, each once."));
    assert!(!ended.errors.contains("Runtime.ExitError"), "streams are ended on purpose: {}", ended.errors);
    assert_eq!(folder.functions(), Vec::<String>::new());
}

#[tokio::test]
async fn a_protocol_that_the_template_lacks_is_left_out_by_name() {
    let folder = Folder::new();
    let template = folder
        .template(|resources| {
            resources.remove("StreamFunction").expect("the template has it");
        })
        .await;
    // Outputs may name what is gone.
    let text = std::fs::read_to_string(&template).expect("ours");
    let mut parsed: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text).expect("YAML");
    if let Some(outputs) = parsed["Outputs"].as_mapping_mut() {
        outputs.retain(|_, output| !serde_yaml_ng::to_string(output).expect("YAML").contains("StreamFunction"));
    }
    folder.write("template.yaml", &serde_yaml_ng::to_string(&parsed).expect("YAML"));
    let ended = folder.run(&["local", "--demo", "--once", "--json", "--free-ports", "--template", &template]).await;
    assert_eq!(ended.status.code(), Some(exit::DONE), "{}", ended.errors);
    assert!(ended.errors.contains(r#""protocol":"sse""#), "{}", ended.errors);
    let lines: Vec<Value> = ended.lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let rest: Vec<_> = SUBSCRIBERS.into_iter().filter(|(protocol, _)| *protocol != "sse").collect();
    assert_eq!(names(&receipts(&lines)), rest);
}

#[tokio::test]
async fn a_demo_whose_event_does_not_reach_everybody_ends_with_a_code_of_its_own() {
    let folder = Folder::new();
    // Nobody tells the function that delivers, so it never runs.
    let template = folder
        .template(|resources| {
            let properties = resources["DeliverFunction"]["Properties"].as_mapping_mut().expect("a function has properties");
            properties.remove("Events").expect("it had an event source");
        })
        .await;
    let arguments = ["local", "--demo", "--once", "--json", "--free-ports", "--template", &template];
    // The demo waits as long for the event as a test for anything, and its end comes after that.
    let output = tokio::time::timeout(patience() * 2, folder.command(&arguments).await.kill_on_drop(true).output());
    let output = output.await.expect("it ends").expect("it starts");
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(exit::DEMO_INCOMPLETE), "{printed}{errors}");
    let lines: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    // Streams look into the log themselves where nothing tells them (docs/delivery.md, W2).
    assert_eq!(names(&receipts(&lines)), [("sse", 1), ("sse", 2)], "{printed}");
    let missing = ["websocket 1", "websocket 2", "mqtt 1", "mqtt 2"];
    assert_eq!(lines.last(), Some(&json!({"received_once": 2, "missing": missing, "repeated": []})));
    assert!(errors.contains("nothing reached websocket 1, websocket 2, mqtt 1, mqtt 2 within 30 s"), "{errors}");
    assert_eq!(folder.functions(), Vec::<String>::new());
}

/// Who received something: protocols and numbers, in their order.
fn names<'value>(receipts: &[&'value Value]) -> Vec<(&'value str, u64)> {
    let name = |line: &'value Value| Some((line["protocol"].as_str()?, line["subscriber"].as_u64()?));
    let mut names: Vec<_> = receipts.iter().map(|line| name(line).expect("a subscriber")).collect();
    names.sort_unstable();
    names
}

/// A demo that stays, after its invitation.
struct Demo {
    program: Program,
    folder: Folder,
    /// The lines of the invitation.
    lines: Vec<String>,
    /// The offset of the latest message.
    offset: u64,
}

impl Demo {
    async fn start() -> Self {
        let folder = Folder::new();
        let template = folder.template(|_| ()).await;
        let mut program = folder.start(&["local", "--demo", "--free-ports", "--template", &template]).await;
        while !program.line().await.contains("Paste any of these into another terminal") {}
        let mut lines = Vec::new();
        while !lines.iter().any(|line: &String| line.starts_with("protocol")) {
            lines.push(program.line().await);
        }
        Self { program, folder, lines, offset: 1 }
    }

    /// The line that begins so, and the one after it, as they are pasted.
    fn line(&self, begin: &str) -> (&str, &str) {
        let found = self.lines.iter().position(|line| line.trim_start().starts_with(begin));
        let found = found.unwrap_or_else(|| panic!("no line begins with {begin}: {:#?}", self.lines));
        (self.lines[found].trim_start(), self.lines[found + 1].trim())
    }

    /// Waits until each subscriber of the demo has shown the next message.
    async fn is_shown(&mut self) {
        self.offset += 1;
        let mut subscribers = Vec::new();
        for _ in SUBSCRIBERS {
            let line = self.program.line().await;
            let words: Vec<_> = line.split_whitespace().collect();
            // When somebody else's event was put is not known there.
            assert_eq!((words[4], words.len()), (&*self.offset.to_string(), COLUMNS - 1), "{line}");
            subscribers.push((words[0].to_owned(), words[1].parse().expect("a number")));
        }
        subscribers.sort_unstable();
        assert_eq!(subscribers, SUBSCRIBERS.map(|(protocol, number)| (protocol.to_owned(), number)));
    }

    /// The end by Ctrl-C, which leaves nothing.
    async fn end(self) {
        self.program.signal(Signal::SIGINT);
        let ended = self.program.ended().await;
        assert_eq!((ended.status.code(), ended.lines), (Some(exit::DONE), Vec::new()), "{}", ended.errors);
        assert_eq!(self.folder.functions(), Vec::<String>::new());
        assert!(!self.folder.ready_file().exists());
    }
}

/// A line as a shell runs it, in a folder of another terminal; `functions` are defined before it.
fn shell(functions: &str, line: &str, folder: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{functions}\n{line}")]).current_dir(folder);
    command
}

/// Runs a line to its end, which must be a good one, and gives what it printed.
async fn pasted(functions: &str, line: &str, folder: &Path) -> String {
    let output = within(line, shell(functions, line, folder).kill_on_drop(true).output()).await.expect("there is a shell");
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{line}: {}\n{printed}{errors}", output.status);
    printed.into_owned()
}

/// What a line calls `npx` with is run by the installed package: the newest one is not asked for.
fn npx(program: &Path) -> String {
    format!("npx() {{ shift; exec {} \"$@\"; }}", program.display())
}

async fn wscat() -> PathBuf {
    node_command("wscat").await.as_std().get_program().into()
}

/// The frame in a line of wscat, which may have prompted before it.
fn frame_of(line: &str) -> Value {
    let frame = line.trim_start_matches("> ");
    serde_json::from_str(frame).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[tokio::test]
async fn the_lines_for_wscat_and_curl_work_as_they_stand() {
    let mut demo = Demo::start().await;
    let elsewhere = tempfile::tempdir().expect("a temporary folder");

    let (line, frame) = demo.line("npx wscat ");
    let frame = frame.to_owned();
    let mut wscat = Program::start_with_input("wscat", &mut shell(&npx(&wscat().await), line, elsewhere.path()));
    // Without a terminal wscat does not say when it is connected, and drops what is typed before; a second subscribe changes nothing.
    let reply = within("wscat to connect", async {
        loop {
            wscat.type_line(&frame).await;
            if let Ok(line) = tokio::time::timeout(TYPED, wscat.line()).await {
                break frame_of(&line);
            }
        }
    })
    .await;
    assert_eq!((&reply["type"], &reply["ok"], &reply["offset"]), (&json!("reply"), &json!(true), &json!(1)), "{reply}");

    let (line, _) = demo.line("curl -X POST ");
    let answer = pasted("", line, elsewhere.path()).await;
    let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
    assert_eq!(answer["results"][0]["offset"], 2, "{answer}");
    let received = loop {
        let frame = frame_of(&wscat.line().await);
        if frame["type"] == "events" {
            break frame;
        }
        assert_eq!(frame["ok"], true, "a further reply: {frame}");
    };
    assert_eq!(received["events"][0]["offset"], 2, "{received}");
    assert_eq!(received["events"][0]["event"]["data"], "hello from curl", "{received}");
    demo.is_shown().await;

    wscat.end_input();
    assert!(wscat.ended().await.status.success());
    demo.end().await;
}

#[tokio::test]
async fn the_line_for_a_stream_works_as_it_stands() {
    let mut demo = Demo::start().await;
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    let (line, _) = demo.line("curl -N ");
    // Without curl's own progress, which no terminal hides here.
    let mut stream = Program::start("curl -N", &mut shell("", &format!("exec {line} --silent"), elsewhere.path()));
    while stream.line().await != "event: carillon.subscribed" {}
    let (line, _) = demo.line("curl -X POST ");
    pasted("", line, elsewhere.path()).await;
    let data = loop {
        let line = stream.line().await;
        if let Some(data) = line.strip_prefix("data: ").filter(|data| data.contains("hello from curl")) {
            break data.to_owned();
        }
    };
    let event: Value = serde_json::from_str(&data).unwrap_or_else(|error| panic!("{error}: {data}"));
    assert_eq!((&event["subject"], &event["offset"]), (&json!("demo/hello"), &json!(2)), "{event}");
    demo.is_shown().await;
    stream.signal(Signal::SIGTERM);
    stream.ended().await;
    demo.end().await;
}

/// The arguments of a line as its command would get them, one a line: none holds a line break. No such command is installed
/// everywhere.
async fn arguments_of(command: &str, line: &str, folder: &Path) -> Vec<String> {
    let printed = pasted(&format!("{command}() {{ printf '%s\\n' \"$@\"; }}"), line, folder).await;
    printed.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn the_lines_for_mosquitto_name_the_broker_and_the_topics() {
    let demo = Demo::start().await;
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    let ready: Value = serde_json::from_slice(&std::fs::read(demo.folder.ready_file()).expect("it is there")).expect("JSON");
    let text = |name: &str| ready[name].as_str().unwrap_or_else(|| panic!("no {name}: {ready}"));
    let port = text("mqtt").rsplit(':').next().expect("a port");
    let prefix = text("mqtt_prefix");
    let access = ["-V", "mqttv5", "-h", "127.0.0.1", "-p", port, "-u", "token", "-P", text("token"), "-q", "1", "-t"];
    let found = arguments_of("mosquitto_sub", demo.line("mosquitto_sub ").0, elsewhere.path()).await;
    assert_eq!(found, [&access[..], &[&format!("{prefix}/c/demo/hello")]].concat());
    let found = arguments_of("mosquitto_pub", demo.line("mosquitto_pub ").0, elsewhere.path()).await;
    let topic = format!("{prefix}/p/demo/hello");
    assert_eq!(found, [&access[..], &[&topic, "-m", "\"hello from a device\""]].concat());
    demo.end().await;
}

#[tokio::test]
async fn the_line_for_a_device_reaches_every_subscriber() {
    let mut demo = Demo::start().await;
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    let (line, _) = demo.line("printf ");
    // The arguments as the command would get them, one a line, and then what is piped into it.
    let printed = pasted("aws() { printf '%s\\n' \"$@\"; cat; }", line, elsewhere.path()).await;
    let words: Vec<_> = printed.lines().collect();
    let [
        "iot-data",
        "publish",
        "--endpoint-url",
        endpoint,
        "--region",
        "us-east-1",
        "--qos",
        "1",
        "--topic",
        topic,
        "--payload",
        "fileb:///dev/stdin",
        payload,
    ] = words[..]
    else {
        panic!("{words:#?}")
    };
    let url = format!("{endpoint}/topics/{}?qos=1", topic.replace('/', "%2F"));
    let answer = send(Method::POST, &url, &[SIGNATURE], payload.to_owned()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    demo.is_shown().await;
    demo.end().await;
}

#[tokio::test]
async fn the_line_for_the_aws_command_puts_an_event() {
    let mut demo = Demo::start().await;
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    let (line, _) = demo.line("AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local aws events ");
    let arguments = arguments_of("aws", line, elsewhere.path()).await;
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let ["events", "put-events", "--endpoint-url", endpoint, "--region", "us-east-1", "--entries", entries] = arguments[..]
    else {
        panic!("{arguments:#?}")
    };
    let headers = [("x-amz-target", "AWSEvents.PutEvents"), ("content-type", "application/x-amz-json-1.1")];
    let answer = send(Method::POST, endpoint, &headers, format!("{{\"Entries\": {entries}}}")).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["FailedEntryCount"]), (200, &json!(0)), "{answer:?}");
    demo.is_shown().await;
    demo.end().await;
}

#[tokio::test]
async fn the_lines_for_carillon_work_in_any_folder() {
    let mut demo = Demo::start().await;
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    let lines: Vec<_> = demo.lines.iter().map(|line| line.trim()).filter(|line| line.contains(" demo/hello")).collect();
    let find = |word: &str| (*lines.iter().find(|line| line.contains(word)).unwrap_or_else(|| panic!("{lines:#?}"))).to_owned();
    let (publish, subscribe) = (find(" publish "), find(" subscribe "));
    let mut subscriber = Program::start("the line for subscribe", &mut shell("", &format!("exec {subscribe}"), elsewhere.path()));
    subscriber.error_line("subscribed to demo/hello at ").await;
    pasted("", &publish, elsewhere.path()).await;
    assert!(subscriber.line().await.contains("hello from carillon"));
    demo.is_shown().await;
    subscriber.signal(Signal::SIGINT);
    assert_eq!(subscriber.ended().await.status.code(), Some(exit::INTERRUPTED));
    demo.end().await;
}
