//! Starts the function: configuration, adapters, the runtime's loop.

use aws_lambda_events::sqs::SqsEvent;
use carillon_engine::drain::{Drain, DrainOptions};
use carillon_runtime::config::DeliverConfig;
use carillon_runtime::{deadline, start, telemetry};
use deliver::Handler;
use lambda_runtime::{Error, LambdaEvent, service_fn};
use std::process::ExitCode;
use tracing::Instrument;

fn main() -> ExitCode {
    start::run(DeliverConfig::from_environment, serve)
}

async fn serve(config: DeliverConfig) -> Result<(), Error> {
    telemetry::start(config.common.log_level(), env!("CARGO_CRATE_NAME"));
    let (store, queue, clock) = config.common.adapters();
    let drain = Drain::new(store, queue, config.posts, config.mqtt, clock, DrainOptions::default());
    let handler = &Handler::new(drain, clock);
    let service = service_fn(|event: LambdaEvent<SqsEvent>| {
        let span = telemetry::invocation(&event.context);
        async move {
            let deadline = deadline::deadline(&event.context, handler.now());
            handler.handle(event.payload, deadline).await.map_err(Error::from)
        }
        .instrument(span)
    });
    lambda_runtime::run(service).await
}
