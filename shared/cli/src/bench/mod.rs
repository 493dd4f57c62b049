//! `carillon bench`: what Carillon costs on this machine, and what others cost beside it in the same run.
//!
//! Nothing is asserted: a figure is what it is. A measurement that did not do its work (a post that is missing, a wake-up left in
//! the queue) has no figures and fails.

mod append;
mod calls;
mod chart;
mod circumstances;
mod document;
mod event;
mod fanout;
mod function;
mod latency;
mod options;
mod posting;
mod process;
mod progress;
mod project;
mod report;
mod runtime_api;
mod sink;
mod stack;
mod start;
mod streams;
mod tables;
mod worker;

pub(crate) use options::{Options, Worker};

use crate::exit::Exit;
use crate::failure::{Context, Failure, Outcome};
use crate::output::Output;
use crate::signals::Signals;
use options::Subject;
use project::Project;
use report::Report;
use std::error::Error;
use std::path::Path;

const DOCUMENT: &str = "docs/performance.md";

/// The picture in it.
const CHART: &str = "docs/latency.svg";

/// Runs `carillon bench`.
///
/// # Errors
/// When this is no checkout, a build fails, or a measurement cannot be made.
pub(crate) async fn run(options: Options, output: Output) -> Outcome<Exit> {
    if !process::is_told() {
        return Err(Failure::new(Exit::Failed, "this system has no /proc/…/schedstat").hint("the benchmark runs on Linux"));
    }
    if cfg!(debug_assertions) && !options.development {
        return Err(Failure::new(Exit::Usage, "this is a development build, and a benchmark measures parts of this program too")
            .hint("cargo run --release -p carillon -- bench …"));
    }
    let mut signals = Signals::listen()?;
    tokio::select! {
        outcome = measure(&options, output) => outcome.map(|()| Exit::Done),
        // Builds and processes end with their futures.
        exit = signals.next() => Ok(exit),
    }
}

/// Runs `carillon bench-worker`: on one thread, as a function does.
///
/// # Errors
/// When its input or output breaks, or a post fails.
pub(crate) async fn work(worker: Worker) -> Outcome<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Failed, Context::new("cannot start the runtime", error)))?;
    let working = move || {
        runtime.block_on(async {
            match &worker {
                Worker::Sink => sink::run().await.map_err(Into::into),
                Worker::Bare(posting) => posting::bare(posting).await,
                Worker::Sdk(posting) => posting::sdk(posting).await,
            }
        })
    };
    let ended: Result<Result<(), Box<dyn Error + Send + Sync>>, _> = tokio::task::spawn_blocking(working).await;
    let failed = |error| Failure::new(Exit::Failed, Context::new("a worker of the benchmark failed", error));
    ended.map_err(|error| failed(error.into()))?.map_err(failed)?;
    Ok(Exit::Done)
}

async fn measure(options: &Options, output: Output) -> Outcome {
    let project = Project::build(options.development).await?;
    for subject in options.subject.parts() {
        let report = match subject {
            Subject::Fanout => fanout::measure(&project, options).await?,
            Subject::Latency => {
                let chart = options.write.then(|| project.folder.join(CHART));
                latency::measure(&project, chart.as_deref()).await?
            }
            Subject::Append => append::measure(&project).await?,
            Subject::Streams => streams::measure(&project).await?,
            Subject::Start => start::measure(&project, options).await?,
            Subject::Calls => calls::measure(&project).await?,
            Subject::All => continue,
        };
        tell(&project.folder, &report, options, output)?;
    }
    Ok(())
}

/// Prints a report and, where it is asked for, writes it down.
fn tell(folder: &Path, report: &Report, options: &Options, output: Output) -> Outcome {
    let circumstances = circumstances::of(folder, options, report.subject);
    output.result(|| report.text(&circumstances), &report.json(&circumstances))?;
    if options.write {
        let written = document::write(&folder.join(DOCUMENT), report.subject.name(), &report.markdown(&circumstances));
        written.map_err(|error| Failure::new(Exit::Failed, Context::new("cannot write the figures down", error)))?;
    }
    Ok(())
}
