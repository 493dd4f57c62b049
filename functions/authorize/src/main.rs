//! Starts the function: configuration, the runtime's loop.

use authorize::{Handler, Request};
use carillon_runtime::config::AuthorizeConfig;
use carillon_runtime::{start, telemetry};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use std::convert::Infallible;
use std::process::ExitCode;

fn main() -> ExitCode {
    start::run(AuthorizeConfig::from_environment, serve)
}

async fn serve(config: AuthorizeConfig) -> Result<(), Error> {
    telemetry::start(config.log_level, env!("CARGO_CRATE_NAME"));
    let handler = &Handler::new(config.secret, config.prefix);
    let service = service_fn(|event: LambdaEvent<Request>| {
        let span = telemetry::invocation(&event.context);
        let response = span.in_scope(|| handler.handle(&event.payload, &event.context.invoked_function_arn));
        async move { Ok::<_, Infallible>(response) }
    });
    lambda_runtime::run(service).await
}
