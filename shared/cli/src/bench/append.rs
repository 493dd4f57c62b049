//! `append`: publishers on one channel, which all want the same next offset.
//!
//! Each has an engine of its own, with its own connections and its own idea of the last offset, as each environment of the function
//! `publish` has. DynamoDB is the local one, in this process: it answers sooner than AWS's, and the publishers and it share the
//! machine. So the tries say more than the rate does.

use super::event;
use super::options::Subject;
use super::progress::Progress;
use super::project::Project;
use super::report::{Report, grouped, milliseconds};
use super::tables::{Tables, TablesEngine};
use crate::exit::Exit;
use crate::failure::{Context, Failure, Outcome};
use carillon_core::channel::Channel;
use carillon_core::event::Event;
use carillon_core::fault::{ErrorCode, Fault};
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::json;
use std::time::{Duration, Instant};

/// How many publish at once.
const PUBLISHERS: [usize; 4] = [1, 4, 16, 64];

/// Publishes of each number of publishers, all together.
const PUBLISHES: usize = 3_200;

/// The longest publish that the histogram tells apart, in microseconds: an append gives up after 60 s (A3).
const LONGEST_US: u64 = 120_000_000;

#[derive(Debug, Serialize)]
struct Figures {
    publishers: usize,
    appends_per_second: f64,
    median_ms: f64,
    p99_ms: f64,
    /// Writes to the log, for each append that was made.
    tries_per_append: f64,
    /// Publishes that were told to come again (`busy`).
    busy: usize,
}

/// What one publisher saw.
struct Seen {
    times: Histogram<u64>,
    busy: usize,
}

/// Measures every number of publishers.
pub(super) async fn measure(project: &Project) -> Outcome<Report> {
    let mut figures = Vec::new();
    for publishers in PUBLISHERS {
        figures.push(with_publishers(project, publishers).await?);
    }
    Ok(report(&figures))
}

async fn with_publishers(project: &Project, publishers: usize) -> Outcome<Figures> {
    let tables = Tables::start(project)?;
    let channel = Channel::parse("bench/append").expect("a channel");
    tables.without_mqtt(&channel).await?;
    let faulty = |fault: Fault| Failure::new(Exit::Failed, Context::new("cannot publish", fault));
    let event = event::plain(&channel).map_err(faulty)?;
    let engines: Vec<_> = (0..publishers).map(|_| Ok(tables.engine()?.0)).collect::<Outcome<_>>()?;
    // The first publish of an environment reads the namespace's options and finds the end of the log.
    for engine in &engines {
        publish(engine, event.clone()).await.map_err(faulty)?;
    }

    tables.calls().reset();
    let share = PUBLISHES / publishers;
    let progress = Progress::begin(format!("{publishers} publishers on one channel"), (share * publishers) as u64);
    let began = Instant::now();
    let seen = try_join_all(engines.iter().map(|engine| publisher(engine, &event, share, &progress))).await.map_err(faulty)?;
    let wall = began.elapsed();
    drop(progress);

    let log = project.resource("LogTable")?;
    let writes =
        tables.calls().snapshot().into_iter().filter(|row| row.operation.contains("Write") || row.operation == "PutItem");
    let writes: u64 = writes.filter(|row| row.target.split(',').any(|table| table == log)).map(|row| row.count).sum();
    tables.shutdown().await;

    let mut times = histogram();
    let busy: usize = seen.iter().map(|seen| seen.busy).sum();
    for seen in &seen {
        times.add(&seen.times).map_err(|error| Failure::new(Exit::Failed, error))?;
    }
    let appends = share * publishers - busy;
    let quantile = |of| Duration::from_micros(times.value_at_quantile(of)).as_secs_f64() * 1e3;
    Ok(Figures {
        publishers,
        appends_per_second: appends as f64 / wall.as_secs_f64(),
        median_ms: quantile(0.5),
        p99_ms: quantile(0.99),
        tries_per_append: writes as f64 / appends as f64,
        busy,
    })
}

/// Publishes one event after the other. One that is told to come again is counted and not sent again.
async fn publisher(engine: &TablesEngine, event: &Event, publishes: usize, progress: &Progress) -> Result<Seen, Fault> {
    let mut seen = Seen { times: histogram(), busy: 0 };
    for _ in 0..publishes {
        let began = Instant::now();
        match publish(engine, event.clone()).await {
            Ok(()) => seen.times.saturating_record(u64::try_from(began.elapsed().as_micros()).unwrap_or(LONGEST_US)),
            Err(fault) if fault.code == ErrorCode::Busy => seen.busy += 1,
            Err(fault) => return Err(fault),
        }
        progress.step();
    }
    Ok(seen)
}

async fn publish(engine: &TablesEngine, event: Event) -> Result<(), Fault> {
    engine.publish(vec![event], None).await.into_iter().try_for_each(|fate| fate.map(drop))
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_US, 3).expect("the bounds are in order, and three digits are allowed")
}

fn report(figures: &[Figures]) -> Report {
    let shown = |number: f64| milliseconds(Duration::from_secs_f64(number / 1e3));
    let rows = figures.iter().map(|of| {
        vec![
            of.publishers.to_string(),
            grouped(of.appends_per_second),
            shown(of.median_ms),
            shown(of.p99_ms),
            format!("{:.2}", of.tries_per_append),
            grouped(of.busy as f64),
        ]
    });
    Report {
        subject: Subject::Append,
        columns: vec!["publishers", "appends/s", "median ms", "p99 ms", "tries/append", "busy"],
        rows: rows.collect(),
        notes: vec![
            format!("{PUBLISHES} publishes without ids in all, each of one small event, each publisher one after the other."),
            "The local DynamoDB, the engine and the SDK share the processor, so on AWS the rate is another; the tries come of the same races."
                .to_owned(),
            "`busy` counts publishes that gave up after 12 tries and were not sent again; they have no time.".to_owned(),
        ],
        values: json!(figures),
        chart: None,
    }
}
