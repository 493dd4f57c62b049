//! A small real function for the tests of the emulated Lambda: the payload says what it does.
//!
//! | `do` | does |
//! |---|---|
//! | `echo` | answers `value` |
//! | `keep` | writes the whole event to the file `path` and answers `value` |
//! | `environment` | answers its variables |
//! | `context` | answers what the Runtime API said of the invocation, and its process id |
//! | `wait` | appends its request id to `started`, then waits until the file `gate` is there |
//! | `attempt` | appends `line`, or else its request id, to `path`, fails while the file has at most `failures` lines |
//! | `print` | writes `line` to stdout and stderr |
//! | `large` | answers `bytes` bytes |
//! | `exit`, `abort`, `panic`, `error` | fails in that way |
//! | `stream` | streams `chunks`; waits for `gate` after the first; at the end creates `done`, or exits where `exit` is set |
//!
//! The event of a function URL carries that in its body, one of SQS in that of its first message, the envelope of an IoT rule in
//! base64 as `payload`, that of an IoT authorizer as the password; one of a function URL without a body is answered with itself. The variable `PROBE_START` makes the start fail (`exit`, `error`) or the process deaf to SIGTERM (`deaf`).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::Stream;
use futures_util::future::try_join_all;
use futures_util::stream;
use lambda_runtime::{Error, FunctionResponse, LambdaEvent, MetadataPrelude, StreamResponse, service_fn};
use serde_json::{Value, json};

type Chunks = Pin<Box<dyn Stream<Item = Result<Vec<u8>, Error>> + Send>>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    match std::env::var("PROBE_START").as_deref() {
        Ok("exit") => std::process::exit(7),
        Ok("error") => {
            report_init_error()?;
            std::process::exit(1);
        }
        Ok("deaf") => {
            let mut terminations = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
            tokio::spawn(async move { while terminations.recv().await.is_some() {} });
        }
        _ => {}
    }
    // Several loops in one process, which is what a runtime for several invocations at a time is.
    let loops = std::env::var("AWS_LAMBDA_MAX_CONCURRENCY").ok().and_then(|value| value.parse::<usize>().ok()).unwrap_or(1);
    try_join_all((0..loops).map(|_| lambda_runtime::run(service_fn(handle)))).await?;
    Ok(())
}

async fn handle(event: LambdaEvent<Value>) -> Result<FunctionResponse<Value, Chunks>, Error> {
    let (payload, context) = event.into_parts();
    let Some(command) = command(&payload)? else {
        return Ok(FunctionResponse::BufferedResponse(payload));
    };
    let text = |name: &str| command[name].as_str().map(str::to_owned);
    let answer = match command["do"].as_str() {
        Some("echo") => command["value"].clone(),
        Some("keep") => {
            // Moved there, so that a reader sees all of it or nothing.
            let path = text("path").unwrap_or_default();
            let written = format!("{path}.{}", context.request_id);
            std::fs::write(&written, payload.to_string())?;
            std::fs::rename(written, path)?;
            command["value"].clone()
        }
        Some("environment") => std::env::vars().map(|(name, value)| (name, Value::from(value))).collect(),
        Some("context") => json!({
            "request_id": context.request_id,
            "deadline_ms": context.deadline,
            "arn": context.invoked_function_arn,
            "trace_id": context.xray_trace_id,
            "client_context": context.client_context,
            "pid": std::process::id(),
        }),
        Some("wait") => {
            append(text("started"), &context.request_id)?;
            wait_for(text("gate")).await;
            json!({ "pid": std::process::id() })
        }
        Some("attempt") => {
            let lines = append(text("path"), &text("line").unwrap_or(context.request_id))?;
            if lines <= command["failures"].as_u64().unwrap_or_default() {
                return Err("not this time".into());
            }
            Value::Null
        }
        Some("print") => {
            let line = text("line").unwrap_or_default();
            println!("{line} on stdout");
            eprintln!("{line} on stderr");
            Value::Null
        }
        Some("large") => "x".repeat(command["bytes"].as_u64().unwrap_or_default() as usize).into(),
        Some("exit") => std::process::exit(command["code"].as_i64().unwrap_or_default() as i32),
        Some("abort") => std::process::abort(),
        Some("panic") => panic!("as asked"),
        Some("error") => return Err("as asked".into()),
        Some("stream") => return Ok(FunctionResponse::StreamingResponse(streamed(&command)?)),
        other => return Err(format!("the probe cannot do {other:?}").into()),
    };
    Ok(FunctionResponse::BufferedResponse(answer))
}

/// The payload itself, or what the body of a function URL's event or of an SQS message holds, or in base64 the envelope of an IoT
/// rule or the password that an authorizer is asked about.
fn command(payload: &Value) -> Result<Option<Value>, Error> {
    let message = payload["Records"][0]["body"].as_str();
    if let Some(command) = message.and_then(|body| serde_json::from_str(body).ok()) {
        return Ok(Some(command));
    }
    let encoded = payload["payload"].as_str().or(payload["protocolData"]["mqtt"]["password"].as_str());
    let encoded = encoded.and_then(|text| BASE64.decode(text).ok());
    if let Some(command) = encoded.and_then(|json| serde_json::from_slice(&json).ok()) {
        return Ok(Some(command));
    }
    if payload.get("requestContext").is_none() {
        return Ok(Some(payload.clone()));
    }
    let Some(body) = payload["body"].as_str() else {
        return Ok(None);
    };
    let body = if payload["isBase64Encoded"] == true { BASE64.decode(body)? } else { body.as_bytes().to_vec() };
    Ok(Some(serde_json::from_slice(&body)?))
}

fn streamed(command: &Value) -> Result<StreamResponse<Chunks>, Error> {
    let chunks: Vec<String> = serde_json::from_value(command["chunks"].clone())?;
    let gate = command["gate"].as_str().map(str::to_owned);
    let done = command["done"].as_str().map(str::to_owned);
    let exit = command["exit"].as_i64();
    let count = chunks.len();
    let stream = stream::unfold(0, move |index| {
        let chunk = chunks.get(index).cloned();
        let (gate, done) = (gate.clone(), done.clone());
        async move {
            if index == 1 {
                wait_for(gate).await;
            }
            if index == count {
                if let Some(code) = exit {
                    std::process::exit(code as i32);
                }
                append(done, "done").ok();
            }
            Some((Ok(chunk?.into_bytes()), index + 1))
        }
    });
    let mut prelude = MetadataPrelude::default();
    prelude.headers.insert("content-type", "text/plain".parse()?);
    prelude.headers.insert("x-probe", "yes".parse()?);
    prelude.cookies.push("a=b".to_owned());
    Ok(StreamResponse { metadata_prelude: prelude, stream: Box::pin(stream) })
}

/// Appends a line and says how many the file has then.
fn append(path: Option<String>, line: &str) -> Result<u64, Error> {
    let Some(path) = path else {
        return Ok(0);
    };
    writeln!(std::fs::File::options().create(true).append(true).open(&path)?, "{line}")?;
    Ok(std::fs::read_to_string(path)?.lines().count() as u64)
}

async fn wait_for(gate: Option<String>) {
    let Some(gate) = gate else { return };
    while !Path::new(&gate).exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Says by hand what the runtime crate has no call for.
fn report_init_error() -> Result<(), Error> {
    let address = std::env::var("AWS_LAMBDA_RUNTIME_API")?;
    let body = r#"{"errorType":"Probe.NotToday","errorMessage":"as asked"}"#;
    let mut connection = TcpStream::connect(&address)?;
    write!(
        connection,
        "POST /2018-06-01/runtime/init/error HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    connection.read_to_end(&mut Vec::new())?;
    Ok(())
}
