//! The start of a function.

use carillon_aws::environment::{Environment, Mistakes};
use std::fmt;
use std::process::ExitCode;

/// The exit code of a start that failed for what the environment says: EX_USAGE of sysexits.h.
pub const EXIT_MISCONFIGURED: u8 = 64;

/// The exit code of a function that could not be served: EX_SOFTWARE of sysexits.h.
pub const EXIT_FAILED: u8 = 70;

/// Reads the process's environment and serves until the process ends. A failure is one line on stderr.
///
/// The runtime has one thread: an environment serves one invocation at a time, and more threads cost each call more than half
/// again in processor time. Streams that share an environment wait nearly all the time, so one thread serves hundreds of them.
pub fn run<C, F, E>(read: impl FnOnce(&Environment) -> Result<C, Mistakes>, serve: impl FnOnce(C) -> F) -> ExitCode
where
    F: Future<Output = Result<(), E>>,
    E: fmt::Display,
{
    match serve_in(&Environment::of_process(), read, serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(end) => {
            // Logs may not have begun, and a person at a terminal reads this too.
            eprintln!("carillon: {}", end.line);
            ExitCode::from(end.code)
        }
    }
}

/// How a function ends that could not be served.
#[derive(Debug, PartialEq, Eq)]
struct End {
    code: u8,
    line: String,
}

fn serve_in<C, F, E>(
    environment: &Environment,
    read: impl FnOnce(&Environment) -> Result<C, Mistakes>,
    serve: impl FnOnce(C) -> F,
) -> Result<(), End>
where
    F: Future<Output = Result<(), E>>,
    E: fmt::Display,
{
    let end = |code, what: &str, why: &dyn fmt::Display| End { code, line: format!("{what}: {why}") };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| end(EXIT_FAILED, "the asynchronous runtime cannot start", &error))?;
    let config = {
        // Some adapters begin to work as soon as they are made.
        let _inside = runtime.enter();
        read(environment).map_err(|mistakes| end(EXIT_MISCONFIGURED, "the environment is not as it has to be", &mistakes))?
    };
    runtime.block_on(serve(config)).map_err(|error| end(EXIT_FAILED, "the function cannot be served", &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EntranceConfig;
    use std::convert::Infallible;

    #[test]
    fn mistakes_end_the_start_in_one_line_before_anything_is_served() {
        let environment = [("CARILLON_SECRET", "hidden")].into_iter().collect();
        let end =
            serve_in(&environment, EntranceConfig::from_environment, |_| async { unreachable!() as Result<(), Infallible> })
                .expect_err("nearly everything is missing");
        assert_eq!(end.code, 64);
        assert!(end.line.starts_with("the environment is not as it has to be: CARILLON_SECRET: the secret has 6 characters, and at least 32 are needed; "), "{end:?}");
        assert!(!end.line.contains(['\n', '\r']) && !end.line.contains("hidden"), "{end:?}");
    }

    #[test]
    fn what_cannot_be_served_says_why() {
        let nothing = Environment::default();
        let refused = serve_in(&nothing, |_| Ok(()), |()| async { Err("connection refused") });
        assert_eq!(refused, Err(End { code: 70, line: "the function cannot be served: connection refused".to_owned() }));
    }

    #[test]
    fn what_is_served_has_timers_and_ends_well() {
        let served = serve_in(
            &Environment::default(),
            |_| Ok(7),
            |seven| async move {
                tokio::time::sleep(std::time::Duration::from_millis(seven)).await;
                Ok::<(), Infallible>(())
            },
        );
        assert_eq!(served, Ok(()));
    }
}
