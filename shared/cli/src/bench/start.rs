//! `start`: how soon a process of each function asks for work, how large its file is, and what it holds then.
//!
//! The time goes from the start of the process to its first `GET …/next`: what Lambda's Init phase is made of, without what Lambda
//! itself adds (loading the package, starting the sandbox).

use super::function::FunctionProcess;
use super::options::{Options, Subject};
use super::progress::Progress;
use super::project::{Project, binary};
use super::report::{Report, megabytes, milliseconds};
use crate::failure::Outcome;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Starts of each program. The shortest is what the program needs; the median says how far the machine was from that.
const STARTS: usize = 20;

/// Nothing is invoked here.
const TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, Serialize)]
struct Figures {
    function: String,
    shortest_ms: f64,
    median_ms: f64,
    file_bytes: u64,
    peak_memory_bytes: u64,
}

/// Measures every function of the template, and one that does nothing.
pub(super) async fn measure(project: &Project, options: &Options) -> Outcome<Report> {
    let empty = project.empty_function(options.development).await?;
    let mut figures = vec![figures("nothing: lambda_runtime alone", &empty, &BTreeMap::new()).await?];
    for function in &project.functions {
        let mut variables = function.spec.environment.clone();
        // Nobody is there, and nobody is called before the first invocation.
        let nowhere = "http://127.0.0.1:1".to_owned();
        let services = ["", "_APIGATEWAYMANAGEMENTAPI", "_DYNAMODB", "_IOT_DATA_PLANE", "_SQS"];
        variables.extend(services.map(|service| (format!("AWS_ENDPOINT_URL{service}"), nowhere.clone())));
        figures.push(self::figures(binary(function), &function.executable, &variables).await?);
    }
    Ok(report(&figures))
}

async fn figures(name: &str, executable: &Path, variables: &BTreeMap<String, String>) -> Outcome<Figures> {
    let progress = Progress::begin(format!("starting {name}"), STARTS as u64);
    let mut times = Vec::with_capacity(STARTS);
    let mut peak_memory_bytes = 0;
    for _ in 0..STARTS {
        let process = FunctionProcess::start(executable, variables, TIMEOUT).await?;
        times.push(process.started_in());
        peak_memory_bytes = process.peak_memory()?.max(peak_memory_bytes);
        progress.step();
    }
    times.sort_unstable();
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    Ok(Figures {
        function: name.to_owned(),
        shortest_ms: milliseconds(times[0]),
        median_ms: milliseconds(times[STARTS / 2]),
        file_bytes: std::fs::metadata(executable)?.len(),
        peak_memory_bytes,
    })
}

fn report(figures: &[Figures]) -> Report {
    let shown = |number: f64| milliseconds(Duration::from_secs_f64(number / 1e3));
    let rows = figures.iter().map(|of| {
        vec![
            of.function.clone(),
            shown(of.shortest_ms),
            shown(of.median_ms),
            megabytes(of.file_bytes),
            megabytes(of.peak_memory_bytes),
        ]
    });
    Report {
        subject: Subject::Start,
        columns: vec!["function", "shortest ms", "median ms", "file MB", "peak MB"],
        rows: rows.collect(),
        notes: vec![format!("{STARTS} starts of each, one after the other, with the files in the page cache.")],
        values: json!(figures),
        chart: None,
    }
}
