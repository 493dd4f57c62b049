//! `carillon local`: the stack of a template on this machine, until somebody ends it.

use crate::arguments::Local;
use crate::demo;
use crate::endpoints;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::logging;
use crate::output::Output;
use crate::signals::Signals;
use carillon_local::dynamodb::DynamoDbError;
use carillon_local::stack::{Ports, Progress, Ready, Stack, StackError, StackOptions};
use carillon_local::template::Unknown;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long an orderly end may take; what is not at its end then is killed.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the killed functions may take to be gone. The system needs milliseconds; the rest of their output is waited for.
const KILL_TIMEOUT: Duration = Duration::from_millis(500);

/// How long the stack that an old ready file names may take to accept a connection.
const STALE_TIMEOUT: Duration = Duration::from_millis(200);

/// Runs the command.
pub(super) async fn run(local: Local, ready_file: &Path, output: Output) -> Outcome<Exit> {
    let mut signals = Signals::listen()?;
    remove_stale(ready_file);
    let (wants_demo, once) = (local.demo, local.once);
    let stack = tokio::select! {
        started = Stack::start(options(local, output)) => started.map_err(failure)?,
        // The start ends with its future, and cargo with it.
        exit = signals.next() => return Ok(exit),
    };
    let outcome = tokio::select! {
        outcome = serve(&stack, ready_file, wants_demo, once, output) => match outcome {
            Ok(()) => Ok(Exit::Done),
            // Whoever stops reading has not seen the verdict, and 0 would be one.
            Err(Failure::OutputClosed) if once => Err(Failure::new(Exit::Failed, "the output was closed before the verdict")),
            Err(failure) => Err(failure),
        },
        // A signal is the usual end of a stack, but not of a demo that should have come to a verdict.
        exit = signals.next() => Ok(if once { exit } else { Exit::Done }),
    };
    logging::ending();
    if !once {
        output.notice(|| "ending the stack; Ctrl-C again ends it at once".to_owned(), &json!({"notice": "ending"}));
    }
    match shut_down(stack, &mut signals, output).await {
        Exit::Done => outcome,
        hurried => outcome.and(Ok(hurried)),
    }
}

/// Says where everything is, plays the demo, and returns when there is nothing more to do.
async fn serve(stack: &Stack, ready_file: &Path, wants_demo: bool, once: bool, output: Output) -> Outcome {
    let ready = stack.ready();
    tell_harmless(&stack.template().unknown, output);
    stack.write_ready_file(ready_file).map_err(failure)?;
    let json = RawValue::from_string(ready.to_json()).map_err(io::Error::from)?;
    output.result(|| endpoints_table(ready, ready_file).trim_fmt(), &json)?;
    if wants_demo {
        let bus = stack.template().outputs.get("EventBusName").map_or("default", String::as_str);
        return demo::run(ready, bus, ready_file, once, output).await;
    }
    output.people("\nCtrl-C ends it.")?;
    std::future::pending().await
}

/// Ends the stack in order, or at once where a signal asks for it.
async fn shut_down(stack: Stack, signals: &mut Signals, output: Output) -> Exit {
    let functions = stack.functions().clone();
    let exit = tokio::select! {
        ended = tokio::time::timeout(SHUTDOWN_TIMEOUT, stack.shutdown()) => {
            if ended.is_ok() {
                return Exit::Done;
            }
            let seconds = SHUTDOWN_TIMEOUT.as_secs();
            let text = || format!("warning: the stack did not end within {seconds} s; its functions are killed");
            output.notice(text, &json!({"notice": "killed", "after_s": seconds}));
            Exit::Done
        }
        exit = signals.next() => exit,
    };
    // Killed and waited for: a process that outlives the stack belongs to nobody.
    let _ = tokio::time::timeout(KILL_TIMEOUT, functions.shutdown(Duration::ZERO)).await;
    exit
}

fn options(local: Local, output: Output) -> StackOptions {
    let fixed = Ports::default();
    let ports = if local.free_ports {
        Ports::FREE
    } else {
        Ports {
            aws: local.aws_port.unwrap_or(fixed.aws),
            websocket: local.websocket_port.unwrap_or(fixed.websocket),
            mqtt: local.mqtt_port.unwrap_or(fixed.mqtt),
            iot: local.iot_port.unwrap_or(fixed.iot),
            url: local.url_port.unwrap_or(fixed.url),
        }
    };
    StackOptions {
        release: local.release,
        parameters: local.parameters.into_iter().collect(),
        data: local.data,
        host: local.host,
        ports,
        observer: Some(Arc::new(move |progress| tell(&progress, output))),
        ..StackOptions::new(local.template)
    }
}

fn tell(progress: &Progress, output: Output) {
    match progress {
        // Said after the start, in few lines.
        Progress::LeftOut(Unknown { harmless: true, .. }) => {}
        Progress::LeftOut(unknown) => output.notice(|| left_out(&unknown.logical_id, unknown), &value_of(unknown)),
        Progress::Building(binaries) => {
            // Cargo shows its own progress below.
            let text = || format!("building {}", binaries.join(", "));
            output.notice(text, &json!({"notice": "building", "binaries": binaries}));
        }
        Progress::Built | Progress::Ready => {}
    }
}

/// Names what the stack leaves out although it changes nothing here, one line for each kind and meaning.
fn tell_harmless(unknown: &[Unknown], output: Output) {
    let harmless: Vec<_> = unknown.iter().filter(|unknown| unknown.harmless).collect();
    if output.is_json() {
        harmless.iter().for_each(|unknown| output.notice(String::new, &value_of(unknown)));
        return;
    }
    let mut kinds: BTreeMap<(&str, &str), Vec<&Unknown>> = BTreeMap::new();
    for unknown in harmless {
        kinds.entry((&unknown.kind, &unknown.meaning)).or_default().push(unknown);
    }
    for alike in kinds.values() {
        let names: Vec<_> = alike.iter().map(|unknown| unknown.logical_id.as_str()).collect();
        output.notice(|| left_out(&names.join(", "), alike[0]), &());
    }
}

fn left_out(names: &str, Unknown { kind, meaning, .. }: &Unknown) -> String {
    format!("left out: {names} ({kind}): {meaning}")
}

fn value_of(Unknown { logical_id, kind, meaning, harmless }: &Unknown) -> Value {
    json!({"notice": "left_out", "logical_id": logical_id, "type": kind, "meaning": meaning, "harmless": harmless})
}

fn endpoints_table(ready: &Ready, ready_file: &Path) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    let mut row = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            table.add_row([name, value]);
        }
    };
    row("WebSocket", ready.websocket.as_deref());
    let publish = ready.publish.as_ref().map(|url| format!("{url}publish"));
    row("HTTP publish", publish.as_deref());
    let stream = ready.stream.as_ref().map(|url| format!("{url}sse"));
    row("SSE stream", stream.as_deref());
    row("MQTT", ready.mqtt.as_deref());
    row("MQTT over WebSocket", ready.mqtt_ws.as_deref());
    let topics = ready.mqtt_prefix.as_ref().map(|prefix| format!("{prefix}/c/<channel> out, {prefix}/p/<channel> in"));
    row("MQTT topics", topics.as_deref());
    row("AWS endpoint", Some(&ready.aws));
    row("@connections", ready.management.as_deref());
    for (name, api) in &ready.apis {
        if Some(&api.url) != ready.websocket.as_ref() {
            row(&format!("API {name}"), Some(&api.url));
        }
    }
    for (name, function) in &ready.functions {
        if function.url != ready.publish && function.url != ready.stream {
            row(&format!("function {name}"), function.url.as_deref());
        }
    }
    row("region", Some(&ready.region));
    row("ready file, with the token", Some(&ready_file.display().to_string()));
    table
}

/// Removes the ready file of a stack that ended without removing it, so that nobody takes it for this one's. A file whose stack
/// still accepts connections stays until this stack writes its own.
fn remove_stale(path: &Path) {
    let Ok(ready) = endpoints::read(path) else {
        return;
    };
    let address = ready.aws.as_deref().and_then(|url| url.strip_prefix("http://")).and_then(|address| address.parse().ok());
    let lives = address.is_some_and(|address: SocketAddr| TcpStream::connect_timeout(&address, STALE_TIMEOUT).is_ok());
    if !lives && let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(%error, "the ready file of an earlier stack cannot be removed");
    }
}

fn failure(error: StackError) -> Failure {
    // What the services refuse of a template is its mistake as well.
    let is_of_template = matches!(
        error,
        StackError::Template(_)
            | StackError::Rule(_)
            | StackError::EventSource(_)
            | StackError::RouteSelection { .. }
            | StackError::DynamoDb(DynamoDbError::Table { .. })
    );
    let exit = if is_of_template || matches!(error, StackError::NoPort { .. }) { Exit::Usage } else { Exit::Failed };
    let hint = match &error {
        StackError::PortBusy { .. } => Some("is another `carillon local` running?"),
        _ if is_of_template => Some("--template names the SAM template, --parameter NAME=VALUE sets one of its parameters"),
        _ => None,
    };
    let failure = Failure::new(exit, error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn ready_file(folder: &Path, aws: &str) -> std::path::PathBuf {
        let path = folder.join("ready.json");
        std::fs::write(&path, json!({"aws": aws}).to_string()).expect("written");
        path
    }

    #[test]
    fn only_a_ready_file_whose_stack_is_gone_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let path = ready_file(folder.path(), &format!("http://{}", listener.local_addr().expect("bound")));
        remove_stale(&path);
        assert!(path.exists(), "its stack accepts connections");

        // Port 0 is never listened on.
        let path = ready_file(folder.path(), "http://127.0.0.1:0");
        remove_stale(&path);
        assert!(!path.exists());

        std::fs::write(&path, "notes of somebody").expect("written");
        remove_stale(&path);
        assert!(path.exists(), "it is no ready file");
    }

    #[test]
    fn a_busy_port_is_named_with_its_flag() {
        let source = io::Error::from(io::ErrorKind::AddrInUse);
        let failure = failure(StackError::PortBusy { port: 4100, flag: "--aws-port", source });
        let text = failure.to_string();
        assert!(text.contains("4100") && text.contains("--aws-port"), "{text}");
        assert_eq!(failure.exit(), Exit::Failed);
    }
}
