//! Starts the function: configuration, adapters, the runtime's loop.

// The futures of an invocation are nested deeper than the compiler's default of 128.
#![recursion_limit = "256"]

use carillon_engine::stream::Streams;
use carillon_runtime::config::StreamConfig;
use carillon_runtime::{deadline, start, telemetry};
use lambda_runtime::{Error, LambdaEvent, StreamResponse, service_fn};
use serde_json::value::RawValue;
use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::Arc;
use stream::{Body, Handler, Invocation};
use tracing::Instrument;

fn main() -> ExitCode {
    start::run(StreamConfig::from_environment, serve)
}

async fn serve(config: StreamConfig) -> Result<(), Error> {
    telemetry::start(config.store.log_level, env!("CARGO_CRATE_NAME"));
    let (store, clock) = config.store.adapters();
    let handler = Arc::new(Handler::new(Streams::new(store, config.live, clock), config.secret, config.length));
    let service = service_fn(move |event: LambdaEvent<Box<RawValue>>| {
        let handler = Arc::clone(&handler);
        let span = telemetry::invocation(&event.context);
        async move {
            // The environment may have been frozen since the last invocation (W3).
            handler.live().check().await;
            let deadline = deadline::deadline(&event.context, handler.now());
            let invocation = Invocation { request_id: event.context.request_id, deadline };
            Ok::<StreamResponse<Body>, Infallible>(handler.handle(event.payload.get(), &invocation).into())
        }
        .instrument(span)
    });
    // One request at a time, unless AWS_LAMBDA_MAX_CONCURRENCY says otherwise.
    lambda_runtime::run_concurrent(service).await
}
