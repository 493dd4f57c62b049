//! Finds the functions' executables: built by one cargo call, or taken as built.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::io::BufRead;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Deserialize;
use tokio::process::{Child, Command};

use super::DeployedFunction;
use crate::spec::{CodeSpec, FunctionSpec};

/// How the functions are built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Quick to build. Features are those of the whole workspace, so that the user's own `cargo build --workspace` and
    /// `cargo test --workspace` share what was built.
    #[default]
    Development,
    /// What deploys: the release profile, with the features of the default members alone, as `cargo lambda build` has them.
    Release,
}

/// Why there is no executable.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Cargo could not be started.
    #[error("`{command}` could not be started")]
    Start {
        /// The command line.
        command: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Cargo said no; what it said went to stderr.
    #[error("`{command}` failed ({status}); its messages are above")]
    Failed {
        /// The command line.
        command: String,
        /// How cargo ended.
        status: ExitStatus,
    },
    /// Cargo built, and an executable is missing.
    #[error("`{command}` built no binary named {binary}, which function {function} asks for")]
    NotBuilt {
        /// The command line.
        command: String,
        /// The binary's name.
        binary: String,
        /// The function's logical id.
        function: String,
    },
    /// A function that is taken as built has no executable.
    #[error("function {function} has no executable at {path}: build it first, or give it BuildMethod rust-cargolambda")]
    Missing {
        /// The function's logical id.
        function: String,
        /// Where it should be.
        path: PathBuf,
        /// Why it could not be read.
        #[source]
        source: std::io::Error,
    },
    /// What is there is no executable file.
    #[error("{path} of function {function} is not an executable file")]
    NotExecutable {
        /// The function's logical id.
        function: String,
        /// The file or folder.
        path: PathBuf,
    },
}

/// Builds what cargo has to build, in one call, and checks what is there already.
///
/// `project` is the folder of the workspace. Cargo's messages go to stderr as they come. Dropping the future ends cargo and what
/// it started.
///
/// # Errors
/// [`BuildError`], which names the command or the function.
pub async fn build(project: &Path, functions: Vec<FunctionSpec>, profile: Profile) -> Result<Vec<DeployedFunction>, BuildError> {
    let binaries: BTreeSet<&str> = functions
        .iter()
        .filter_map(|function| match &function.code {
            CodeSpec::Cargo { binary } => Some(binary.as_str()),
            CodeSpec::Bootstrap { .. } => None,
        })
        .collect();
    let arguments = cargo_arguments(&binaries, profile);
    let command = format!("cargo {}", arguments.join(" "));
    let built = if binaries.is_empty() { HashMap::new() } else { run_cargo(project, &arguments, &command).await? };
    functions
        .into_iter()
        .map(|spec| {
            let executable = match &spec.code {
                CodeSpec::Bootstrap { path } => executable_at(&spec.logical_id, path)?,
                CodeSpec::Cargo { binary } => built.get(binary).cloned().ok_or_else(|| BuildError::NotBuilt {
                    command: command.clone(),
                    binary: binary.clone(),
                    function: spec.logical_id.clone(),
                })?,
            };
            Ok(DeployedFunction { spec, executable })
        })
        .collect()
}

fn cargo_arguments(binaries: &BTreeSet<&str>, profile: Profile) -> Vec<String> {
    let mut arguments = vec!["build".to_owned()];
    arguments.push(match profile {
        Profile::Development => "--workspace".to_owned(),
        Profile::Release => "--release".to_owned(),
    });
    // Errors are rendered for people on stderr; stdout has the artifacts.
    arguments.push("--message-format=json-render-diagnostics".to_owned());
    for binary in binaries {
        arguments.extend(["--bin".to_owned(), (*binary).to_owned()]);
    }
    arguments
}

/// The variables by which cargo tells a program what package it is of (The Cargo Book, "Environment Variables"). A cargo that is
/// called by such a program must not see them: build scripts that look at them, such as that of ring, would find them changed, and
/// everything above would be built anew at every turn.
pub fn package_variables() -> impl Iterator<Item = OsString> {
    const PREFIXES: [&str; 3] = ["CARGO_PKG_", "CARGO_MANIFEST_", "OUT_DIR"];
    let names = std::env::vars_os().map(|(name, _)| name);
    names.filter(|name| name.to_str().is_some_and(|name| PREFIXES.iter().any(|prefix| name.starts_with(prefix))))
}

/// Runs cargo and returns the executables by their binaries' names.
async fn run_cargo(project: &Path, arguments: &[String], command: &str) -> Result<HashMap<String, PathBuf>, BuildError> {
    // Cargo sets this for what it runs, so that a nested call is the same cargo.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut cargo = Command::new(cargo);
    for variable in package_variables() {
        cargo.env_remove(variable);
    }
    cargo.args(arguments).current_dir(project).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let not_started = |source| BuildError::Start { command: command.to_owned(), source };
    let child = cargo.process_group(0).kill_on_drop(true).spawn().map_err(not_started)?;
    let group = Group::of(&child);
    let output = child.wait_with_output().await.map_err(not_started)?;
    group.disarm();
    if !output.status.success() {
        return Err(BuildError::Failed { command: command.to_owned(), status: output.status });
    }
    Ok(executables_in(&output.stdout))
}

/// Cargo and what it started: compilers and build scripts, which would run on for minutes after cargo alone was killed.
struct Group(Option<Pid>);

impl Group {
    /// The group that the child leads.
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }

    /// Cargo was waited for: its id may be somebody else's from now on.
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // An error says that nobody of the group is left.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// One line of cargo's JSON; other lines have other reasons.
#[derive(Debug, Deserialize)]
struct Message {
    reason: String,
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

fn executables_in(messages: &[u8]) -> HashMap<String, PathBuf> {
    messages
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| serde_json::from_str::<Message>(&line).ok())
        .filter(|message| message.reason == "compiler-artifact")
        .filter_map(|message| {
            let target = message.target.filter(|target| target.kind.iter().any(|kind| kind == "bin"))?;
            Some((target.name, message.executable?))
        })
        .collect()
}

fn executable_at(function: &str, path: &Path) -> Result<PathBuf, BuildError> {
    // Absolute, because the process starts in the executable's folder.
    let absolute = std::path::absolute(path);
    let metadata = absolute.and_then(|path| Ok((std::fs::metadata(&path)?, path)));
    let (metadata, absolute) =
        metadata.map_err(|source| BuildError::Missing { function: function.to_owned(), path: path.to_owned(), source })?;
    let executable = metadata.is_file() && metadata.permissions().mode() & 0o111 != 0;
    if !executable {
        return Err(BuildError::NotExecutable { function: function.to_owned(), path: absolute });
    }
    Ok(absolute)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn function(code: CodeSpec) -> FunctionSpec {
        FunctionSpec {
            logical_id: "Hello".to_owned(),
            name: "hello".to_owned(),
            arn: "arn:aws:lambda:us-east-1:000000000000:function:hello".to_owned(),
            code,
            environment: std::collections::BTreeMap::new(),
            timeout: Duration::from_secs(3),
            memory_mb: 128,
            reserved_concurrency: None,
            url: None,
            asynchronous: crate::spec::AsynchronousSpec::default(),
        }
    }

    /// A package without dependencies, so that cargo needs no registry.
    fn project(main: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("src")).expect("the folder is ours");
        let manifest = "[package]\nname = \"hello\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n";
        std::fs::write(folder.path().join("Cargo.toml"), manifest).expect("the folder is ours");
        std::fs::write(folder.path().join("src/main.rs"), main).expect("the folder is ours");
        folder
    }

    #[test]
    fn one_call_names_every_binary() {
        let binaries = BTreeSet::from(["b", "a"]);
        assert_eq!(
            cargo_arguments(&binaries, Profile::Development).join(" "),
            "build --workspace --message-format=json-render-diagnostics --bin a --bin b"
        );
        assert_eq!(
            cargo_arguments(&binaries, Profile::Release).join(" "),
            "build --release --message-format=json-render-diagnostics --bin a --bin b"
        );
    }

    #[tokio::test]
    async fn a_built_binary_is_found() {
        let folder = project("fn main() {}");
        let functions = vec![function(CodeSpec::Cargo { binary: "hello".to_owned() })];
        let deployed = build(folder.path(), functions, Profile::Development).await.expect("an empty main builds");
        assert!(deployed[0].executable.is_file());
    }

    #[tokio::test]
    async fn a_failed_build_names_the_command() {
        let folder = project("fn main() { this is not Rust }");
        let functions = vec![function(CodeSpec::Cargo { binary: "hello".to_owned() })];
        let error = build(folder.path(), functions, Profile::Development).await.expect_err("it does not compile");
        assert!(matches!(&error, BuildError::Failed { .. }), "{error:?}");
        assert!(error.to_string().contains("--bin hello"), "{error}");
    }

    #[tokio::test]
    async fn a_binary_taken_as_built_must_be_an_executable_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("bootstrap");
        let of = |path: &Path| vec![function(CodeSpec::Bootstrap { path: path.to_owned() })];

        let missing = build(folder.path(), of(&path), Profile::Development).await;
        assert!(matches!(missing, Err(BuildError::Missing { .. })), "{missing:?}");

        std::fs::write(&path, "#!/bin/sh\n").expect("the folder is ours");
        let plain = build(folder.path(), of(&path), Profile::Development).await;
        assert!(matches!(plain, Err(BuildError::NotExecutable { .. })), "{plain:?}");

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("the file is ours");
        let good = build(folder.path(), of(&path), Profile::Development).await.expect("it is executable now");
        assert_eq!(good[0].executable, path);

        let directory = build(folder.path(), of(folder.path()), Profile::Development).await;
        assert!(matches!(directory, Err(BuildError::NotExecutable { .. })), "{directory:?}");
    }
}
