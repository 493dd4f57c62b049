//! One file per command.

mod fault;
mod local;
mod namespace;
mod publish;
mod subscribe;

use crate::arguments::{Arguments, Command, Local, LocalCommand};
use crate::bench;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use carillon_client::websocket::{ConnectError, RequestError};
use carillon_client::{mqtt, sse};

/// Runs the command and answers with how it ended.
///
/// # Errors
/// When it has something to tell about not having done its work.
pub(crate) async fn run(arguments: Arguments) -> Outcome<Exit> {
    let output = Output::new(arguments.json);
    let ready_file = arguments.ready_file;
    match arguments.command {
        Command::Local(Local { command: Some(LocalCommand::Fault { service, state }), .. }) => {
            fault::run(service, state, &ready_file, output).await
        }
        Command::Local(local) => local::run(local, &ready_file, output).await,
        Command::Publish(publish) => publish::run(publish, &ready_file, output).await,
        Command::Subscribe(subscribe) => subscribe::run(subscribe, &ready_file, output).await,
        Command::Namespace(namespace) => namespace::run(namespace, &ready_file, output).await,
        Command::Bench(options) => bench::run(options, output).await,
        Command::BenchWorker(worker) => bench::work(worker).await,
    }
}

/// What to do when nothing answers.
const NOT_REACHABLE_HINT: &str =
    "is the stack running? `carillon local` starts one here and leaves its endpoints in the ready file";

/// What to do about a token that opens nothing.
const REFUSED_HINT: &str =
    "the token is --token, else CARILLON_TOKEN, else that of the ready file; for a deployed stack it is its Secret";

/// A failure to connect over WebSocket.
pub(crate) fn connect_failure(error: ConnectError) -> Failure {
    match &error {
        _ if error.is_refused_token() => Failure::new(Exit::Refused, error).hint(REFUSED_HINT),
        ConnectError::Unreachable(_) | ConnectError::TimedOut { .. } => {
            Failure::new(Exit::NotReachable, error).hint(NOT_REACHABLE_HINT)
        }
        ConnectError::Url { .. } | ConnectError::Token => Failure::new(Exit::Usage, error),
        ConnectError::Refused { .. } => Failure::new(Exit::Failed, error),
    }
}

/// A failure to connect over SSE.
pub(crate) fn stream_failure(error: sse::ConnectError) -> Failure {
    use sse::ConnectError::{Channels, NoAnswer, TimedOut, Token, Twice, Unreachable, Url};
    match &error {
        _ if error.is_refused_token() => Failure::new(Exit::Refused, error).hint(REFUSED_HINT),
        Unreachable(_) | NoAnswer(_) | TimedOut { .. } => Failure::new(Exit::NotReachable, error).hint(NOT_REACHABLE_HINT),
        Url { .. } | Channels { .. } | Twice(_) | Token => Failure::new(Exit::Usage, error),
        _ => Failure::new(Exit::Failed, error),
    }
}

/// A failure to connect over MQTT.
pub(crate) fn mqtt_failure(error: mqtt::ConnectError) -> Failure {
    use mqtt::ConnectError::{Channels, TimedOut, Twice, Unreachable, Url};
    match &error {
        _ if error.is_refused_token() => Failure::new(Exit::Refused, error).hint(REFUSED_HINT),
        Unreachable(_) | TimedOut { .. } => Failure::new(Exit::NotReachable, error).hint(NOT_REACHABLE_HINT),
        Url { .. } | Channels { .. } | Twice(_) => Failure::new(Exit::Usage, error),
        _ => Failure::new(Exit::Failed, error),
    }
}

/// A failed request over WebSocket.
pub(crate) fn request_failure(error: RequestError) -> Failure {
    use carillon_core::fault::ErrorCode::{Forbidden, TokenExpired, Unauthorized};
    match &error {
        RequestError::Fault(fault) if matches!(fault.code, Unauthorized | TokenExpired | Forbidden) => {
            Failure::new(Exit::Refused, error).hint(REFUSED_HINT)
        }
        _ => Failure::new(Exit::Failed, error),
    }
}
