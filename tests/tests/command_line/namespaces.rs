//! `carillon namespace` against a running stack.

use carillon_tests::program::Program;
use carillon_tests::stack::TestStack;
use serde_json::{Value, json};

use crate::carillon::{Folder, assert_told, exit};

/// Arguments that reach a stack by its ready file.
fn arguments<'text>(ready_file: &'text str, arguments: &[&'text str]) -> Vec<&'text str> {
    [&["namespace"], arguments, &["--ready-file", ready_file]].concat()
}

fn ready_file(stack: &TestStack) -> String {
    stack.ready_file().to_str().expect("the path is UTF-8").to_owned()
}

fn options(namespace: &str, history_size: u64, history_age_s: u64) -> Value {
    json!({
        "namespace": namespace, "history_size": history_size, "history_age_s": history_age_s, "max_event_bytes": 30_720,
        "mqtt": 1, "retain": 0,
    })
}

#[tokio::test]
async fn options_are_set_one_by_one_and_listed() {
    let (stack, folder) = (TestStack::start().await, Folder::new());
    let file = ready_file(&stack);
    let run = async |list: &[&str]| folder.json(&arguments(&file, list)).await;
    let none: [Value; 0] = [];
    assert_eq!(run(&["list"]).await, none);
    assert_eq!(run(&["get", "orders"]).await, [options("orders", 100, 86_400)], "the defaults");
    assert_eq!(run(&["set", "orders", "history_size=2"]).await, [options("orders", 2, 86_400)]);
    assert_eq!(run(&["set", "orders", "history_age_s=60"]).await, [options("orders", 2, 60)], "what is not named stays");
    run(&["set", "chat", "history_size=0"]).await;
    assert_eq!(run(&["get", "orders"]).await, [options("orders", 2, 60)]);
    assert_eq!(run(&["list"]).await, [options("chat", 0, 86_400), options("orders", 2, 60)]);

    let ended = folder.run(&arguments(&file, &["list"])).await;
    assert_eq!(ended.status.code(), Some(exit::DONE), "{ended:?}");
    let words: Vec<Vec<_>> = ended.lines.iter().map(|line| line.split_whitespace().collect()).collect();
    let header = vec!["namespace", "history_size", "history_age_s", "max_event_bytes", "mqtt", "retain"];
    let row = |namespace, size, age| vec![namespace, size, age, "30720", "yes", "no"];
    assert_eq!(words, [header, row("chat", "0", "86400"), row("orders", "2", "60")]);

    let switched = run(&["set", "chat", "mqtt=no", "retain=yes"]).await;
    assert_eq!((&switched[0]["mqtt"], &switched[0]["retain"]), (&json!(0), &json!(1)), "{switched:?}");
    assert_eq!(run(&["set", "chat", "mqtt=1"]).await[0]["mqtt"], 1);
    stack.shutdown().await;
}

#[tokio::test]
async fn history_shows_what_the_namespace_allows() {
    let (stack, folder) = (TestStack::start().await, Folder::new());
    folder.json(&arguments(&ready_file(&stack), &["set", "orders", "history_size=2"])).await;
    for channel in ["orders/42", "chat/42"] {
        for number in 1..=3 {
            stack.publish(channel, &json!(number)).await;
        }
    }
    let mut socket = stack.connect().await;
    for (channel, shown) in [("orders/42", &[2, 3][..]), ("chat/42", &[1, 2, 3])] {
        let reply = socket.ask(json!({"action": "history", "channel": channel})).await;
        let events = reply["events"].as_array().unwrap_or_else(|| panic!("no events: {reply}"));
        let offsets: Vec<_> = events.iter().filter_map(|event| event["offset"].as_u64()).collect();
        assert_eq!(offsets, shown, "{channel}: {reply}");
    }
    stack.shutdown().await;
}

#[tokio::test]
async fn the_table_of_a_deployed_stack_is_reached_by_name_and_variables() {
    let (stack, folder) = (TestStack::start().await, Folder::new());
    let table = stack.resource("RegistryTable");
    let account = [
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "local"),
        ("AWS_SECRET_ACCESS_KEY", "local"),
        ("AWS_ENDPOINT_URL_DYNAMODB", &*stack.ready().aws),
    ];
    let mut command =
        folder.command(&["namespace", "set", "orders", "history_size=7", "--json", "--registry-table", table]).await;
    let lines = Program::start("by flag", command.envs(account)).succeeds().await;
    assert_eq!(lines, [options("orders", 7, 86_400)]);
    let mut command = folder.command(&["namespace", "get", "orders", "--json"]).await;
    let lines = Program::start("by variable", command.envs(account).env("CARILLON_REGISTRY_TABLE", table)).succeeds().await;
    assert_eq!(lines, [options("orders", 7, 86_400)]);

    let mut command = folder.command(&["namespace", "get", "orders", "--registry-table", "elsewhere"]).await;
    let ended = Program::start("another table", command.envs(account)).ended().await;
    assert_told(&ended, exit::FAILED, &["error: "]);
    let ended = folder.run(&["namespace", "get", "orders", "--registry-table", table]).await;
    assert_told(&ended, exit::NOT_REACHABLE, &["AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]);
    stack.shutdown().await;
}

#[tokio::test]
async fn where_nothing_runs_all_three_ways_to_name_the_table_are_told() {
    let folder = Folder::new();
    for list in [&["list"][..], &["get", "orders"], &["set", "orders", "history_size=1"]] {
        let ended = folder.run(&[&["namespace"], list].concat()).await;
        let texts = [".carillon/ready.json", "--registry-table", "CARILLON_REGISTRY_TABLE", "`carillon local`", "--ready-file"];
        assert_told(&ended, exit::NOT_REACHABLE, &texts);
    }
}

#[tokio::test]
async fn wrong_options_are_told_with_their_range() {
    let folder = Folder::new();
    let usage: [(&[&str], &[&str]); 7] = [
        (&["set", "orders", "history_size=100001"], &["history_size", "100001 is not within 0 to 100000 messages"]),
        (&["set", "orders", "history_age_s=2592001"], &["history_age_s", "2592001 is not within 0 to 2592000 seconds"]),
        (&["set", "orders", "max_event_bytes=255"], &["max_event_bytes", "255 is not within 256 to 30720 bytes"]),
        (&["set", "orders", "retries=1"], &["retries", "there are history_size, history_age_s, max_event_bytes, mqtt, retain"]),
        (&["set", "orders", "mqtt=maybe"], &["mqtt: 'maybe' is no whole number"]),
        (&["set", "orders", "history_size=many"], &["history_size: 'many' is no whole number"]),
        (&["get", "orders/42"], &["orders/42"]),
    ];
    for (list, texts) in usage {
        assert_told(&folder.run(&[&["namespace"], list].concat()).await, exit::USAGE, texts);
    }
}
