//! The binaries under test: the functions and the command line, built once and shared by all tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use carillon_local::lambda::builder::package_variables;
use serde_json::Value;

use crate::repository;

/// The one cargo call: that of `carillon local`, which shares what it builds with `cargo test --workspace` (a test of the
/// workspace says so).
const BUILD: [&str; 4] = ["build", "--workspace", "--bins", MESSAGES];

/// Builds a function that does what its payload says (`shared/local/examples/probe.rs`).
const BUILD_PROBE: [&str; 5] = ["build", "--workspace", "--example", "probe", MESSAGES];

/// Cargo's messages as JSON on stdout, what the compiler says as text on stderr.
const MESSAGES: &str = "--message-format=json-render-diagnostics";

/// Executables by name, or why there are none.
type Built = Result<BTreeMap<String, PathBuf>, String>;

/// The path of a binary of the workspace, by its name: `websocket`, `publish`, `deliver` or `carillon`.
///
/// # Panics
/// When the workspace does not build, or has no such binary.
pub async fn path(name: &str) -> PathBuf {
    let binaries = all().await;
    let known = || binaries.keys().cloned().collect::<Vec<_>>().join(", ");
    binaries.get(name).unwrap_or_else(|| panic!("no binary is called {name}, only {}", known())).clone()
}

/// Every binary of the workspace, by its name. The first call of a process runs cargo; the others wait for it.
///
/// # Panics
/// When the workspace does not build.
pub async fn all() -> &'static BTreeMap<String, PathBuf> {
    static BINARIES: OnceLock<Built> = OnceLock::new();
    once(&BINARIES, || build(&BUILD)).await
}

/// The path of a function that knows nothing of Carillon and does what its payload says.
///
/// # Panics
/// When the workspace does not build.
pub async fn probe() -> PathBuf {
    static PROBE: OnceLock<Built> = OnceLock::new();
    once(&PROBE, || build(&BUILD_PROBE)).await.get("probe").expect("cargo builds what it is asked for").clone()
}

async fn once(cell: &'static OnceLock<Built>, build: fn() -> Built) -> &'static BTreeMap<String, PathBuf> {
    let built = tokio::task::spawn_blocking(move || cell.get_or_init(build)).await.expect("the build does not panic");
    built.as_ref().unwrap_or_else(|failure| panic!("{failure}"))
}

/// Cargo's messages go to stderr as they come.
fn build(arguments: &[&str]) -> Built {
    // Two cargo calls at a time would be put in a row by cargo itself; with this the second one finds everything done.
    let _lock = repository::lock("build");
    // Cargo sets this for what it runs, so that a nested call is the same cargo.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let command = format!("`cargo {}`", arguments.join(" "));
    let mut cargo = Command::new(cargo);
    for variable in package_variables() {
        cargo.env_remove(variable);
    }
    let output = cargo
        .args(arguments)
        .current_dir(repository::root())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("{command} could not be started: {error}"))?;
    if !output.status.success() {
        return Err(format!("{command} failed ({}); its messages are above", output.status));
    }
    Ok(executables(&output.stdout))
}

/// The binaries and examples in cargo's messages, one JSON object a line (The Cargo Book, "External tools", "Artifact messages").
fn executables(messages: &[u8]) -> BTreeMap<String, PathBuf> {
    let lines = messages.split(|byte| *byte == b'\n');
    let messages = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    messages
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter(|message| ["bin", "example"].iter().any(|kind| message["target"]["kind"][0] == *kind))
        .filter_map(|message| {
            let executable = message["executable"].as_str().map(Path::new)?;
            Some((message["target"]["name"].as_str()?.to_owned(), executable.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_executables_are_taken_from_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"publish"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"publish"},"executable":"/t/publish"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"workspace"},"executable":"/t/workspace"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
            "\n",
        );
        assert_eq!(executables(messages.as_bytes()), BTreeMap::from([("publish".to_owned(), PathBuf::from("/t/publish"))]));
    }
}
