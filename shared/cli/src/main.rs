//! The command line of Carillon. See `carillon --help`.

mod arguments;
mod bench;
mod commands;
mod demo;
mod endpoints;
mod exit;
mod failure;
mod logging;
mod output;
mod signals;

use crate::arguments::Arguments;
use crate::exit::Exit;
use crate::failure::{Context, Failure, Outcome};
use clap::Parser;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let exit = run(Arguments::parse()).unwrap_or_else(|failure| {
        let text = failure.to_string();
        if !text.is_empty() {
            // Nobody reads a closed standard error; the exit code still says it.
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        }
        failure.exit()
    });
    exit.into()
}

fn run(arguments: Arguments) -> Outcome<Exit> {
    logging::start(arguments.log_level, arguments.command.is_verbose());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Failed, Context::new("cannot start the runtime", error)))?;
    let outcome = runtime.block_on(commands::run(arguments));
    // What still runs is of no use to anybody any more.
    runtime.shutdown_background();
    outcome
}
