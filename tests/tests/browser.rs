//! What the EventSource and the WebSocket of a real browser see of the real functions.

use std::path::PathBuf;

use carillon_tests::clients::node;
use carillon_tests::stack::TestStack;
use serde_json::{Value, json};

/// What the executable is called, in the order of preference: Debian's, Ubuntu's, Google's.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// `required`: no browser is a failure.
const VARIABLE: &str = "CARILLON_TEST_CHROMIUM";

/// The browser, or nothing where there is none and it may be missing.
fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    let found = NAMES.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|path| path.is_file());
    if found.is_none() {
        let what = format!("none of {} is on the PATH", NAMES.join(", "));
        assert_ne!(std::env::var(VARIABLE).as_deref(), Ok("required"), "{what}, and {VARIABLE} says that it is required");
        eprintln!("skipped: {what}");
    }
    found
}

/// The messages that one of the page's two connections saw: id, epoch, offset and the whole event.
fn messages(facts: &[Value], protocol: &str) -> Vec<Value> {
    let messages = facts.iter().filter(|fact| fact[protocol] == "message");
    messages.map(|fact| json!([fact["event"]["id"], fact["epoch"], fact["offset"], fact["event"]])).collect()
}

#[tokio::test]
async fn eventsource_and_websocket_see_the_same_and_a_planned_end_loses_nothing() {
    const CHANNEL: &str = "orders/42";
    const MESSAGES: u64 = 6;
    let Some(chromium) = chromium() else { return };
    let stack = TestStack::start_with(|options| {
        options.parameters.insert("StreamSeconds".to_owned(), "10".to_owned());
    })
    .await;
    let profile = tempfile::tempdir().expect("a temporary folder");
    let paths = [&*chromium, profile.path()].map(|path| path.to_str().expect("the paths are UTF-8"));
    let mut page = node(&stack, "browser.mjs", &[paths[0], paths[1], CHANNEL, &MESSAGES.to_string()]).await;

    let (mut facts, mut published, mut ends, mut resumed) = (Vec::new(), 0, 0, 0);
    let has = |facts: &[Value], protocol: &str, what: &str| facts.iter().any(|fact| fact[protocol] == what);
    loop {
        let fact = page.json().await;
        if fact.get("browser").is_some() {
            assert_eq!(fact["browser"], 0);
            break;
        }
        match fact["sse"].as_str() {
            Some("carillon.end") => {
                ends += 1;
                // While it is not connected.
                for _ in 0..2 {
                    published += 1;
                    stack.publish(CHANNEL, &json!(published)).await;
                }
            }
            Some("error") => assert_eq!(fact["connecting"], true, "the browser gave up"),
            Some("carillon.subscribed") if ends > 0 => {
                assert_eq!(fact["data"]["channels"][0]["recovered"], true, "{fact}");
                resumed += 1;
            }
            _ => {}
        }
        facts.push(fact);
        let is_ready = has(&facts, "sse", "carillon.subscribed") && has(&facts, "websocket", "reply");
        // Two before the planned end, two in it, two after it.
        let due = if resumed > 0 { MESSAGES } else { 2 };
        while is_ready && ends == resumed && published < due {
            published += 1;
            stack.publish(CHANNEL, &json!(published)).await;
        }
    }
    assert!(ends >= 1 && resumed >= 1, "{facts:#?}");
    let (sse, websocket) = (messages(&facts, "sse"), messages(&facts, "websocket"));
    assert_eq!(sse, websocket, "{facts:#?}");
    let offsets: Vec<_> = sse.iter().filter_map(|message| message[2].as_u64()).collect();
    assert_eq!(offsets, (1..=MESSAGES).collect::<Vec<_>>());
    for fact in facts.iter().filter(|fact| fact["sse"] != "message" && fact["websocket"] != "message") {
        let known = ["open", "carillon.subscribed", "carillon.end", "error", "reply"];
        let what = fact["sse"].as_str().or(fact["websocket"].as_str());
        assert!(what.is_some_and(|what| known.contains(&what)), "{fact}");
    }
    page.succeeds().await;
    stack.shutdown().await;
}
