//! Logs: one JSON object a line on stdout, which is where Lambda collects them.

use crate::config::LogLevel;
use lambda_runtime::Context;
use std::io;
use tracing::level_filters::LevelFilter;
use tracing::{Span, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;

/// Begins to log, for the rest of the process. `function` is the name of the function's crate.
///
/// # Panics
/// When the process logs already: it is called once, by a `main`.
pub fn start(level: LogLevel, function: &str) {
    tracing::subscriber::set_global_default(subscriber(level, function, io::stdout)).expect("a main calls this once");
}

/// The span of an invocation: all its lines carry the request's id, which is also in Lambda's own lines.
#[must_use]
pub fn invocation(context: &Context) -> Span {
    tracing::error_span!("invocation", request.id = context.request_id)
}

/// Our own crates log from `level` on. Other people's log warnings and errors alone: below that they log headers, and the payloads
/// that we promise not to log.
fn subscriber<W>(level: LogLevel, function: &str, writer: W) -> impl Subscriber + Send + Sync + use<W>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let own = LevelFilter::from(level);
    let filter = Targets::new()
        .with_default(own.min(LevelFilter::WARN))
        // Every lost connection is an error to it; what becomes of those is for our own lines to say.
        .with_target("mqtt5", LevelFilter::OFF)
        .with_target("carillon", own)
        .with_target(function, own);
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_ansi(false)
        .with_writer(writer);
    Registry::default().with(lines.with_filter(filter))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines_of(level: LogLevel, log: impl FnOnce()) -> Vec<Value> {
        let written = Written::default();
        let writer = written.clone();
        tracing::subscriber::with_default(subscriber(level, "websocket", move || writer.clone()), log);
        let bytes = written.0.lock().expect("no panic");
        let text = std::str::from_utf8(&bytes).expect("UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect()
    }

    #[test]
    fn a_line_is_a_sentence_with_fields_and_the_request_s_id() {
        let mut context = Context::default();
        context.request_id = "8476a536-e9f4-11e8-9739-2dfe598c3fcd".to_owned();
        let lines = lines_of(LogLevel::Error, || {
            invocation(&context).in_scope(|| tracing::error!(channel.name = "orders/42", duration_ms = 3, "it broke"));
        });
        assert_eq!(lines.len(), 1);
        let line = &lines[0];
        assert_eq!((&line["level"], &line["message"]), (&"ERROR".into(), &"it broke".into()));
        assert_eq!((&line["channel.name"], &line["duration_ms"]), (&"orders/42".into(), &3.into()));
        assert_eq!(line["span"]["request.id"], "8476a536-e9f4-11e8-9739-2dfe598c3fcd");
        assert!(line["timestamp"].is_string(), "{line}");
    }

    #[test]
    fn the_level_is_that_of_our_own_crates() {
        let log = || {
            tracing::debug!(target: "carillon_engine::drain", "ours");
            tracing::debug!(target: "websocket::routes", "the function's");
            tracing::debug!(target: "aws_smithy_runtime::client", "somebody else's");
            tracing::info!(target: "hyper::proto", "somebody else's");
            tracing::warn!(target: "rustls", "a warning of somebody else's");
            tracing::error!(target: "mqtt5::transport", "a lost connection");
        };
        let messages = |level| {
            let lines = lines_of(level, log);
            lines.iter().map(|line| line["message"].as_str().expect("text").to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(messages(LogLevel::Trace), ["ours", "the function's", "a warning of somebody else's"]);
        assert_eq!(messages(LogLevel::Info), ["a warning of somebody else's"]);
        assert_eq!(messages(LogLevel::Error), [""; 0]);
    }
}
