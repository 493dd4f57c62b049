//! `fanout`: the posts of one publish to many connections.
//!
//! The real `deliver` gets wake-ups as SQS would bring them, ten in an invocation, and posts to a server that takes everything. The
//! tables are filled by the engine itself, so shards are as many and as full as subscribers make them. Beside it, in the same run,
//! posting the same body to the same server: the SDK for Rust, the SDK for JavaScript, and hyper with a request that was signed once.

use super::event;
use super::function::{FunctionProcess, IDENTITY};
use super::options::{Options, Subject};
use super::posting::connection_id;
use super::progress::Progress;
use super::project::Project;
use super::report::{Report, grouped, megabytes, microseconds};
use super::sink::{Sample, Sink};
use super::tables::{Tables, TablesEngine};
use super::worker::{Took, Worker};
use crate::exit::Exit;
use crate::failure::{Context, Failure, Outcome};
use bytes::Bytes;
use carillon_core::channel::Channel;
use carillon_core::connection::{ConnectionId, Principal};
use carillon_core::fault::Fault;
use carillon_engine::rows::Dialect;
use carillon_engine::wakeup::Wakeup;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::process::Command;

/// Posts on their way at once in the loops.
const PARALLEL: u32 = 64;

/// Messages of one invocation, as the template's event source mapping has it.
const BATCH: usize = 10;

/// The time-out of `deliver` in the template.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Clients that subscribe at once while the tables are filled.
const SUBSCRIBING: usize = 16;

/// The programs of the loops, by their names in the table.
const DELIVER: &str = "Carillon's deliver";
const BARE: &str = "hyper alone, signed once";
const SDK: &str = "AWS SDK for Rust";
const NODE: &str = "AWS SDK for JavaScript v3";

/// What a program did.
#[derive(Clone, Debug, Serialize)]
struct Figures {
    program: &'static str,
    connections: u32,
    /// CPU time of the first round a post: with the HTTP connections to be made.
    first_cpu_us_per_post: f64,
    /// CPU time a post of the rounds after it.
    cpu_us_per_post: f64,
    posts_per_second: f64,
    peak_memory_bytes: u64,
}

/// Measures every number of connections.
pub(super) async fn measure(project: &Project, options: &Options) -> Outcome<Report> {
    let mut figures = Vec::new();
    let node = if options.no_node { None } else { node(project).await? };
    for &connections in &options.connections {
        let mut sink = Sink::start().await?;
        let (ours, sample) = deliver(project, &mut sink, connections, options.rounds).await?;
        figures.push(ours);
        let endpoint = format!("{}/prod", sink.url());
        for (program, subcommand) in [(BARE, "bare"), (SDK, "sdk")] {
            let numbers = [connections.to_string(), PARALLEL.to_string()];
            let arguments = [subcommand, "--endpoint", &endpoint, "--posts", &numbers[0], "--parallel", &numbers[1]];
            let worker = Worker::own(arguments).await?;
            figures.push(round_after_round(program, worker, &mut sink, &sample, connections, options.rounds).await?);
        }
        if let Some(folder) = &node {
            let mut command = Command::new("node");
            command
                .current_dir(folder)
                .args(["fanout.mjs", &endpoint])
                .args([connections, PARALLEL].map(|number| number.to_string()));
            // It warns of its own future.
            command.envs(IDENTITY).env("NODE_NO_WARNINGS", "1");
            let worker = Worker::start("Node.js", command)?;
            figures.push(round_after_round(NODE, worker, &mut sink, &sample, connections, options.rounds).await?);
        }
    }
    Ok(report(&figures, options, node.is_some()))
}

/// The real function, one publish after the other.
async fn deliver(project: &Project, sink: &mut Sink, connections: u32, rounds: u32) -> Outcome<(Figures, Sample)> {
    let tables = Tables::start(project)?;
    let channel = Channel::parse("bench/fanout").expect("a channel");
    tables.without_mqtt(&channel).await?;
    let (engine, wakeups) = tables.engine()?;
    subscribe(&engine, &channel, connections).await?;
    let function = project.function("deliver")?;
    let mut variables = function.spec.environment.clone();
    variables.extend(endpoints(&tables.url(), &sink.url()));
    let mut process = FunctionProcess::start(&function.executable, &variables, TIMEOUT).await?;

    let progress = Progress::begin(format!("deliver: posts to {connections} connections"), rounds.into());
    let mut took = Vec::new();
    let mut sample = None;
    for _ in 0..rounds {
        publish(&engine, &channel).await?;
        let mut round = Took::default();
        for batch in wakeups.take().chunks(BATCH) {
            let (cpu, began) = (process.cpu_time()?, Instant::now());
            let answer = process.invoke(sqs_event(batch)).await?;
            round.wall += began.elapsed();
            round.cpu += process.cpu_time()?.saturating_sub(cpu);
            check_answer(&answer)?;
        }
        let came = sink.came().await?;
        check_count(DELIVER, came.posts, came.others, connections)?;
        sample = sample.or(came.sample);
        took.push(round);
        progress.step();
    }
    let peak = process.peak_memory()?;
    drop(process);
    tables.shutdown().await;
    let sample = sample.ok_or_else(|| Failure::new(Exit::Failed, "no post arrived"))?;
    Ok((figures(DELIVER, connections, &took, peak), sample))
}

/// Makes connections and subscribes them, as the function `websocket` does.
async fn subscribe(engine: &TablesEngine, channel: &Channel, connections: u32) -> Outcome {
    let progress = Progress::begin(format!("subscribing {connections} connections"), connections.into());
    let each = stream::iter(0..connections).map(|number| async move {
        let id = ConnectionId::try_new(connection_id(number)).expect("visible characters");
        engine.connect(&id, Principal::shared(), Dialect::Native, engine.now()).await?;
        engine.subscribe(&id, channel, None).await
    });
    let failed = |fault: Fault| Failure::new(Exit::Failed, Context::new("cannot fill the tables", fault));
    each.buffer_unordered(SUBSCRIBING)
        .try_for_each(async |_| {
            progress.step();
            Ok(())
        })
        .await
        .map_err(failed)
}

async fn publish(engine: &TablesEngine, channel: &Channel) -> Outcome {
    let event = event::plain(channel).map_err(|fault| Failure::new(Exit::Failed, fault))?;
    for fate in engine.publish(vec![event], None).await {
        fate.map_err(|fault| Failure::new(Exit::Failed, Context::new("cannot publish", fault)))?;
    }
    Ok(())
}

/// A program of ours or of somebody else, one round after the other.
async fn round_after_round(
    program: &'static str,
    mut worker: Worker,
    sink: &mut Sink,
    sample: &Sample,
    connections: u32,
    rounds: u32,
) -> Outcome<Figures> {
    let progress = Progress::begin(format!("{program}: posts to {connections} connections"), rounds.into());
    worker.ask(&serde_json::to_string(sample).map_err(io::Error::from)?).await?;
    let mut took = Vec::new();
    for _ in 0..rounds {
        let (_, round) = worker.time("round").await?;
        let came = sink.came().await?;
        check_count(program, came.posts, came.others, connections)?;
        took.push(round);
        progress.step();
    }
    Ok(figures(program, connections, &took, worker.peak_memory()?))
}

fn figures(program: &'static str, connections: u32, rounds: &[Took], peak_memory_bytes: u64) -> Figures {
    let (first, rest) = rounds.split_first().map_or((Took::default(), rounds), |(first, rest)| (*first, rest));
    let posts = f64::from(connections) * rest.len() as f64;
    let sum = |of: fn(&Took) -> Duration| rest.iter().map(of).sum::<Duration>().as_secs_f64();
    Figures {
        program,
        connections,
        first_cpu_us_per_post: first.cpu.as_secs_f64() * 1e6 / f64::from(connections),
        cpu_us_per_post: sum(|took| took.cpu) * 1e6 / posts,
        posts_per_second: posts / sum(|took| took.wall),
        peak_memory_bytes,
    }
}

fn report(figures: &[Figures], options: &Options, with_node: bool) -> Report {
    let micros = |number: f64| microseconds(Duration::from_secs_f64(number / 1e6));
    let rows = figures.iter().map(|of| {
        vec![
            of.program.to_owned(),
            grouped(of.connections.into()),
            micros(of.cpu_us_per_post),
            micros(of.first_cpu_us_per_post),
            grouped(of.posts_per_second),
            megabytes(of.peak_memory_bytes),
        ]
    });
    let mut notes = vec![
        format!("{} publishes to all connections; the first, in which the HTTP connections are made, is told apart.", options.rounds),
        "deliver's share includes everything that a drain does: taking leases, reading the log and the subscriptions, moving cursors. \
         Its shards are drained in parallel, ten in an invocation, with 128 posts on their way at once; the loops have 64."
            .to_owned(),
        "Plain HTTP on one machine: TLS costs all of them the same on top. Peak memory is that of the process.".to_owned(),
    ];
    if !with_node {
        notes.push("The SDK for JavaScript was left out.".to_owned());
    }
    let columns = vec!["program", "connections", "CPU µs/post", "first round", "posts/s", "peak MB"];
    Report { subject: Subject::Fanout, columns, rows: rows.collect(), notes, values: json!(figures), chart: None }
}

/// Where `deliver` finds DynamoDB and the API; of everything else it needs nothing here, and a call would be seen.
fn endpoints(dynamodb: &str, sink: &str) -> BTreeMap<String, String> {
    let general = ["", "_SQS", "_IOT_DATA_PLANE"].map(|service| (format!("AWS_ENDPOINT_URL{service}"), sink.to_owned()));
    let own = [("_DYNAMODB", dynamodb.to_owned()), ("_APIGATEWAYMANAGEMENTAPI", format!("{sink}/prod"))];
    general.into_iter().chain(own.map(|(service, url)| (format!("AWS_ENDPOINT_URL{service}"), url))).collect()
}

/// The event that SQS's event source mapping makes (AWS Lambda Developer Guide, "Using Lambda with Amazon SQS").
fn sqs_event(wakeups: &[Wakeup]) -> Bytes {
    let records = wakeups.iter().enumerate().map(|(index, wakeup)| {
        json!({
            "messageId": format!("00000000-0000-4000-8000-{index:012}"),
            "receiptHandle": "handle",
            "body": wakeup.encode(),
            "attributes": {},
            "messageAttributes": {},
            "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:wakeups",
            "awsRegion": "us-east-1",
        })
    });
    Bytes::from(json!({"Records": records.collect::<Vec<_>>()}).to_string())
}

/// No wake-up may stay in the queue.
fn check_answer(answer: &[u8]) -> Outcome {
    let value: Value = serde_json::from_slice(answer).map_err(io::Error::from)?;
    let is_whole = value["batchItemFailures"].as_array().is_none_or(Vec::is_empty);
    if is_whole { Ok(()) } else { Err(Failure::new(Exit::Failed, format!("deliver left wake-ups in the queue: {value}"))) }
}

/// Figures of a round in which posts are missing, or more than posts were sent, would be of something else.
fn check_count(program: &str, posts: u64, others: u64, connections: u32) -> Outcome {
    if (posts, others) == (connections.into(), 0) {
        return Ok(());
    }
    let text = format!("{program} sent {posts} posts to {connections} connections, and {others} other requests");
    Err(Failure::new(Exit::Failed, text))
}

/// Installs what the loop on the SDK for JavaScript needs, below the target folder. None: there is no Node.js.
async fn node(project: &Project) -> Outcome<Option<PathBuf>> {
    let found = Command::new("node").arg("--version").output().await;
    if !found.is_ok_and(|output| output.status.success()) {
        return Ok(None);
    }
    let progress = Progress::begin("installing the AWS SDK for JavaScript", 0);
    let target = project.folder.join("target/bench/node");
    install(&project.folder.join("shared/cli/bench/node"), &target)
        .await
        .map_err(|error| Failure::new(Exit::Failed, Context::new("cannot install the AWS SDK for JavaScript", error)))?;
    drop(progress);
    Ok(Some(target))
}

async fn install(sources: &Path, target: &Path) -> io::Result<()> {
    std::fs::create_dir_all(target)?;
    for file in ["package.json", "package-lock.json", "fanout.mjs"] {
        std::fs::copy(sources.join(file), target.join(file))?;
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--no-audit", "--no-fund"]).current_dir(target).kill_on_drop(true);
    let output = npm.output().await?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("npm ci: {}", String::from_utf8_lossy(&output.stderr).trim_end())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_round_is_told_apart() {
        let took = |cpu, wall| Took { cpu: Duration::from_millis(cpu), wall: Duration::from_millis(wall) };
        let of = figures(BARE, 1_000, &[took(100, 200), took(40, 50), took(60, 150)], 7);
        assert_eq!((of.first_cpu_us_per_post, of.cpu_us_per_post, of.posts_per_second), (100.0, 50.0, 10_000.0));
    }

    #[test]
    fn a_round_that_is_not_whole_has_no_figures() {
        assert!(check_count(BARE, 10, 0, 10).is_ok());
        assert!(
            check_count(BARE, 9, 0, 10).is_err()
                && check_count(BARE, 11, 0, 10).is_err()
                && check_count(BARE, 10, 1, 10).is_err()
        );
        assert!(check_answer(br#"{"batchItemFailures":[]}"#).is_ok());
        assert!(check_answer(br#"{"batchItemFailures":[{"itemIdentifier":"1"}]}"#).is_err());
    }
}
