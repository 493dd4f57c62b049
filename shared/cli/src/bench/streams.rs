//! `streams`: what open streams cost the one environment that holds them all, as a function of Managed Instances does.

use super::options::Subject;
use super::process;
use super::progress::Progress;
use super::project::Project;
use super::report::{Report, microseconds};
use super::stack;
use crate::exit::Exit;
use crate::failure::{Context, Failure, Outcome};
use carillon_client::http::Message;
use carillon_client::items::{Incoming, Subscription};
use carillon_core::channel::Channel;
use carillon_local::stack::Stack;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;
use std::time::Duration;

/// How many streams are open at the same time, one measurement after the other.
const STREAMS: [usize; 3] = [1, 50, 200];

/// Streams that are opened at once.
const OPENING: usize = 8;

/// Events that every stream gets, each published when all have the one before.
const EVENTS: u32 = 50;

/// How long a stream lasts: until everything is measured, in seconds.
const SECONDS: &str = "890";

/// The variable by which Lambda gives an environment several invocations at once, and how many.
const CONCURRENCY: (&str, &str) = ("AWS_LAMBDA_MAX_CONCURRENCY", "256");

/// The function, and a variable that it alone has.
const FUNCTION: (&str, &str) = ("stream", "CARILLON_STREAM_SECONDS:");

/// Where the changed template lies, in the checkout.
const TEMPLATE: &str = "target/bench/streams/template.yaml";

#[derive(Debug, Serialize)]
struct Figures {
    streams: usize,
    resident_bytes: u64,
    /// Over the environment with one stream.
    bytes_each: Option<u64>,
    /// For one event on one stream.
    cpu_us: f64,
}

/// Measures.
pub(super) async fn measure(project: &Project) -> Outcome<Report> {
    let running = start(project).await?;
    let measured = measure_in(&running, project).await;
    stack::end(running).await;
    Ok(report(&measured?))
}

/// The stack of the checkout's template, whose environments of `stream` take several invocations at once: no parameter says that.
async fn start(project: &Project) -> Outcome<Stack> {
    let failed = |error| Failure::new(Exit::Failed, Context::new("cannot change the template", error));
    let text = std::fs::read_to_string(project.template()).map_err(|error| failed(error.to_string()))?;
    let text = concurrent(&text).ok_or_else(|| failed(format!("it has no {}", FUNCTION.1)))?;
    let path = project.folder.join(TEMPLATE);
    let folder = path.parent().unwrap_or(&project.folder);
    std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, text)).map_err(|error| failed(error.to_string()))?;
    stack::start_from(&path, project, &[("StreamSeconds", SECONDS)]).await
}

async fn measure_in(running: &Stack, project: &Project) -> Outcome<Vec<Figures>> {
    let ready = running.ready();
    let publisher = stack::publisher(ready)?;
    let channel = Channel::parse("bench/streams").expect("a channel");
    let executable = &project.function(FUNCTION.0)?.executable;
    let progress = Progress::begin("streams", STREAMS.len() as u64);
    let mut open: Vec<(Subscription, Incoming)> = Vec::new();
    let mut figures: Vec<Figures> = Vec::new();
    for streams in STREAMS {
        let opening = (open.len()..streams).map(|_| stack::sse_subscriber(ready, &channel));
        open.extend(stream::iter(opening).buffer_unordered(OPENING).try_collect::<Vec<_>>().await?);
        let process = process::running(executable).map_err(|error| unread(&error))?;
        let [process] = process[..] else {
            return Err(Failure::new(Exit::Failed, format!("{} environments hold the streams, and not one", process.len())));
        };
        // Once for nothing.
        round(&publisher, &channel, &mut open).await?;
        let before = process::cpu_time(process).map_err(|error| unread(&error))?;
        for _ in 0..EVENTS {
            round(&publisher, &channel, &mut open).await?;
        }
        let cpu = process::cpu_time(process).map_err(|error| unread(&error))? - before;
        let resident_bytes = process::memory(process).map_err(|error| unread(&error))?;
        let bytes_each = figures.first().map(|one| resident_bytes.saturating_sub(one.resident_bytes) / (streams as u64 - 1));
        let cpu_us = cpu.as_secs_f64() * 1e6 / f64::from(EVENTS) / streams as f64;
        figures.push(Figures { streams, resident_bytes, bytes_each, cpu_us });
        progress.step();
    }
    Ok(figures)
}

/// One event, which every stream gets.
async fn round(
    publisher: &carillon_client::http::Publisher,
    channel: &Channel,
    open: &mut [(Subscription, Incoming)],
) -> Outcome {
    let data = RawValue::from_string(r#"{"order":42,"state":"shipped"}"#.to_owned()).map_err(std::io::Error::from)?;
    stack::publish(publisher, Message { channel: channel.to_string(), id: None, kind: None, data: Some(data) }).await?;
    for (_, incoming) in open {
        stack::delivery(incoming).await?;
    }
    Ok(())
}

fn concurrent(template: &str) -> Option<String> {
    let line = template.lines().find(|line| line.trim_start().starts_with(FUNCTION.1))?;
    let indent = &line[..line.len() - line.trim_start().len()];
    let (name, value) = CONCURRENCY;
    Some(template.replacen(line, &format!("{line}\n{indent}{name}: \"{value}\""), 1))
}

fn unread(error: &std::io::Error) -> Failure {
    Failure::new(Exit::Failed, Context::new("cannot read what a process uses", error.to_string()))
}

fn report(figures: &[Figures]) -> Report {
    let rows = figures.iter().map(|of| {
        let mebibytes = format!("{:.1}", of.resident_bytes as f64 / 1_048_576.0);
        let each = of.bytes_each.map_or_else(|| "–".to_owned(), |bytes| format!("{:.0}", bytes as f64 / 1_024.0));
        vec![of.streams.to_string(), mebibytes, each, microseconds(Duration::from_secs_f64(of.cpu_us / 1e6))]
    });
    Report {
        subject: Subject::Streams,
        columns: vec!["streams", "memory MiB", "each further KiB", "CPU µs per event and stream"],
        rows: rows.collect(),
        notes: vec![format!(
            "One environment with {}={} holds all streams, on one channel; each gets every one of {EVENTS} events, one at a time. Memory \
             is what is resident at the end of that.",
            CONCURRENCY.0, CONCURRENCY.1
        )],
        values: json!(figures),
        chart: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_added_beside_the_function_s_own() {
        let text = "a:\n    CARILLON_STREAM_SECONDS: !Ref StreamSeconds\n    b: 1\n";
        let expected = "a:\n    CARILLON_STREAM_SECONDS: !Ref StreamSeconds\n    AWS_LAMBDA_MAX_CONCURRENCY: \"256\"\n    b: 1\n";
        assert_eq!(concurrent(text).as_deref(), Some(expected));
        assert_eq!(concurrent("a: 1\n"), None);
    }
}
