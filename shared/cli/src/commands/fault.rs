//! `carillon local fault`: the switches of the running local stack.

use super::NOT_REACHABLE_HINT;
use crate::arguments::{FaultState, FaultyService};
use crate::endpoints;
use crate::exit::Exit;
use crate::failure::{Context, Failure, Outcome};
use crate::output::Output;
use carillon_client::local::{Faults, State, SwitchError};
use serde_json::json;
use std::path::Path;

/// Runs the command.
pub(super) async fn run(service: FaultyService, state: Option<FaultState>, ready_file: &Path, output: Output) -> Outcome<Exit> {
    let faults = Faults::new(&endpoint(ready_file)?).map_err(failure)?;
    let FaultyService::Iot = service;
    if let Some(state) = state {
        faults.set_iot(state.into()).await.map_err(failure)?;
    }
    let now = faults.iot().await.map_err(failure)?;
    output.result(|| format!("iot is {now}"), &json!({"iot": now}))?;
    Ok(Exit::Done)
}

/// The AWS endpoint of the stack, which has the switches too.
fn endpoint(ready_file: &Path) -> Outcome<String> {
    let file = ready_file.display();
    let unknown = |why: Box<dyn std::error::Error + Send + Sync>| {
        Failure::new(Exit::NotReachable, Context::new("nobody says which stack to change", why))
            .hint("start a stack here with `carillon local`, or name its ready file with --ready-file")
    };
    let ready = endpoints::read(ready_file).map_err(|error| unknown(Context::new(format!("cannot use {file}"), error).into()))?;
    ready.aws.ok_or_else(|| unknown(format!("{file} names no AWS endpoint").into()))
}

fn failure(error: SwitchError) -> Failure {
    match error {
        SwitchError::Unreachable(_) => Failure::new(Exit::NotReachable, error).hint(NOT_REACHABLE_HINT),
        error => Failure::new(Exit::Failed, error),
    }
}

impl From<FaultState> for State {
    fn from(state: FaultState) -> Self {
        match state {
            FaultState::Away => Self::Away,
            FaultState::Back => Self::Back,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_is_found_by_its_ready_file_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("ready.json");
        for text in [None, Some("{}"), Some("no JSON")] {
            if let Some(text) = text {
                std::fs::write(&file, text).expect("written");
            }
            let failure = endpoint(&file).expect_err("no stack");
            assert_eq!(failure.exit(), Exit::NotReachable);
            assert!(failure.to_string().contains("--ready-file"), "{failure}");
        }
        std::fs::write(&file, r#"{"aws":"http://127.0.0.1:3000"}"#).expect("written");
        assert_eq!(endpoint(&file).expect("a stack"), "http://127.0.0.1:3000");
    }
}
