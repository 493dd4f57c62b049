//! Starts the function: configuration, adapters, the runtime's loop.

// The futures of an invocation are nested deeper than the compiler's default of 128.
#![recursion_limit = "256"]

use carillon_engine::engine::Engine;
use carillon_runtime::config::EntranceConfig;
use carillon_runtime::{deadline, start, telemetry};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use publish::{Handler, Invocation};
use serde_json::value::RawValue;
use std::process::ExitCode;
use tracing::Instrument;

fn main() -> ExitCode {
    start::run(EntranceConfig::from_environment, serve)
}

async fn serve(config: EntranceConfig) -> Result<(), Error> {
    telemetry::start(config.common.log_level(), env!("CARGO_CRATE_NAME"));
    let (store, queue, clock) = config.common.adapters();
    let handler = &Handler::new(Engine::new(store, queue, clock), config.secret);
    let service = service_fn(|event: LambdaEvent<Box<RawValue>>| {
        let span = telemetry::invocation(&event.context);
        async move {
            let deadline = deadline::deadline(&event.context, handler.now());
            let invocation = Invocation { request_id: event.context.request_id, deadline };
            handler.handle(&event.payload, &invocation).await
        }
        .instrument(span)
    });
    lambda_runtime::run(service).await
}
