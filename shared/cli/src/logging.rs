//! Logs, on standard error: this program's own, and those of the functions of a local stack.

use crate::arguments::LogLevel;
use serde::Deserialize;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt, Targets, dynamic_filter_fn};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// The target under which the local stack passes on what functions write.
const FUNCTIONS: &str = "function";

/// Where the local stack tells of answers that broke off.
const ANSWERS: &str = "carillon_local::function_url";

/// How a function's line begins that says that its process is gone (AWS Lambda Developer Guide, "Troubleshoot invocation issues").
const EXIT: &str = "Runtime.ExitError";

/// Whether the stack is being ended.
static ENDING: AtomicBool = AtomicBool::new(false);

/// The stack is being ended: functions in the middle of something, as streams are, are cut off on purpose from here on, and that is
/// told no more.
pub(crate) fn ending() {
    ENDING.store(true, Ordering::Relaxed);
}

/// Begins to log. Of the functions' lines warnings and errors are shown always, the others where `verbose`.
pub(crate) fn start(level: LogLevel, verbose: bool) {
    let level = LevelFilter::from_level(level.into());
    let own = Targets::new()
        // What the libraries below say in detail is for their authors.
        .with_default(level.min(LevelFilter::WARN))
        .with_target("carillon", level)
        // The local stack's DynamoDB warns of every condition that does not hold, which is how conditions are used.
        .with_target("dynoxide", LevelFilter::ERROR)
        // What becomes of an MQTT client's connection is told by whoever asked for it.
        .with_target("mqtt5", LevelFilter::OFF)
        .with_target(FUNCTIONS, LevelFilter::OFF);
    let news = dynamic_filter_fn(|metadata, _| metadata.target() != ANSWERS || !ENDING.load(Ordering::Relaxed))
        .with_max_level_hint(LevelFilter::TRACE);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_filter(own.and(news));
    let functions = FunctionLines { verbose }.with_filter(Targets::new().with_target(FUNCTIONS, LevelFilter::TRACE));
    tracing_subscriber::registry().with(lines).with(functions).init();
}

/// Prints what functions write as they wrote it, with the function's name in front.
struct FunctionLines {
    verbose: bool,
}

impl<S: Subscriber> Layer<S> for FunctionLines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        if !self.verbose && ENDING.load(Ordering::Relaxed) && line.text.starts_with(EXIT) {
            return;
        }
        if self.verbose || *event.metadata().level() <= Level::WARN || is_warning(&line.text) {
            // Nobody reads a closed standard error.
            let _ = writeln!(std::io::stderr().lock(), "{}: {}", line.function, line.text);
        }
    }
}

#[derive(Default)]
struct Line {
    function: String,
    text: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.text = format!("{value:?}"),
            "function.name" => self.function = format!("{value:?}"),
            _ => {}
        }
    }
}

/// Whether a function's line is one of JSON whose level is a warning or worse (AWS Lambda Developer Guide, "Configuring JSON
/// and plain text log formats").
fn is_warning(line: &str) -> bool {
    #[derive(Deserialize)]
    struct Leveled {
        level: String,
    }
    serde_json::from_str(line).is_ok_and(|Leveled { level }| matches!(&*level, "WARN" | "ERROR" | "FATAL"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_told_by_the_level_of_a_json_line() {
        assert!(is_warning(r#"{"timestamp":"2026-01-01T00:00:00Z","level":"WARN","message":"a shard is held"}"#));
        assert!(is_warning(r#"{"level":"ERROR"}"#));
        for line in [r#"{"level":"INFO","message":"ERROR"}"#, "ERROR in plain text", r#"{"message":"WARN"}"#, ""] {
            assert!(!is_warning(line), "{line}");
        }
    }
}
