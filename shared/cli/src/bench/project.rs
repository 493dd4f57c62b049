//! The checkout: its template, its functions as they are deployed, and what they are compared with.

use crate::exit::Exit;
use crate::failure::{Context, Failure, Outcome};
use carillon_local::lambda::DeployedFunction;
use carillon_local::lambda::builder::{self, Profile};
use carillon_local::spec::{CodeSpec, TableSpec};
use carillon_local::template::{Document, Endpoints, Inputs};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

const TEMPLATE: &str = "template.yaml";

/// The package and the example of it that is a function which does nothing.
const EMPTY: (&str, &str) = ("carillon-runtime", "empty");

/// Values for the parameters that have no default. The secret opens nothing, and nobody is at the host.
const PARAMETERS: [(&str, &str); 2] =
    [("Secret", "a-secret-that-opens-nothing-but-a-benchmark"), ("IotDataEndpoint", "localhost:1")];

/// A checkout with its functions built.
#[derive(Debug)]
pub(super) struct Project {
    /// Its folder.
    pub(super) folder: PathBuf,
    /// The functions, in the template's order.
    pub(super) functions: Vec<DeployedFunction>,
    /// The tables.
    pub(super) tables: Vec<TableSpec>,
    /// Logical id to physical id.
    pub(super) resources: BTreeMap<String, String>,
}

/// Why cargo built nothing.
#[derive(Debug, thiserror::Error)]
enum ExampleError {
    #[error("`{command}` could not be started")]
    Start { command: String, source: std::io::Error },
    #[error("`{command}` failed; its messages are above")]
    Failed { command: String },
    #[error("`{command}` built no example named {name}")]
    NotBuilt { command: String, name: &'static str },
}

impl Project {
    /// Finds the checkout that the current folder is in, and builds the functions of its template in one cargo call.
    ///
    /// # Errors
    /// When this is no checkout, or the build fails.
    pub(super) async fn build(development: bool) -> Outcome<Self> {
        let folder = folder()?;
        let read = |error| Failure::new(Exit::Failed, Context::new("cannot use the template", error));
        let document = Document::read(&folder.join(TEMPLATE)).map_err(read)?;
        let parameters = PARAMETERS.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let inputs = Inputs { parameters, ..Inputs::default() };
        let template = document.resolve(&inputs, &Endpoints::unbound()).map_err(read)?;
        let profile = if development { Profile::Development } else { Profile::Release };
        let functions = builder::build(&folder, template.functions, profile).await;
        let functions = functions.map_err(|error| Failure::new(Exit::Failed, error))?;
        Ok(Self { folder, functions, tables: template.tables, resources: template.resources })
    }

    /// Its template.
    pub(super) fn template(&self) -> PathBuf {
        self.folder.join(TEMPLATE)
    }

    /// The function whose binary has this name.
    ///
    /// # Errors
    /// When the template has none.
    pub(super) fn function(&self, binary: &str) -> Outcome<&DeployedFunction> {
        let found = self.functions.iter().find(|function| self::binary(function) == binary);
        found.ok_or_else(|| Failure::new(Exit::Failed, format!("the template has no function with the binary {binary}")))
    }

    /// The physical id of a resource.
    ///
    /// # Errors
    /// When the template has no such resource.
    pub(super) fn resource(&self, logical_id: &str) -> Outcome<&str> {
        let found = self.resources.get(logical_id).map(String::as_str);
        found.ok_or_else(|| Failure::new(Exit::Failed, format!("the template has no resource {logical_id}")))
    }

    /// Builds the function that does nothing, out of the same builds of the same crates as the others.
    ///
    /// # Errors
    /// When the build fails.
    pub(super) async fn empty_function(&self, development: bool) -> Outcome<PathBuf> {
        let (package, name) = EMPTY;
        let mut arguments = vec!["build", "--message-format=json-render-diagnostics", "--example", name, "--package", package];
        if !development {
            arguments.push("--release");
        }
        // Named with the functions' packages, it gets the features that they get, and nothing is built twice.
        for function in &self.functions {
            arguments.extend(["--package", binary(function)]);
        }
        build_example(&self.folder, &arguments, name).await.map_err(|error| Failure::new(Exit::Failed, error))
    }
}

/// The name of a function's binary, which is the name of its package too.
pub(super) fn binary(function: &DeployedFunction) -> &str {
    match &function.spec.code {
        CodeSpec::Cargo { binary } => binary,
        CodeSpec::Bootstrap { .. } => &function.spec.name,
    }
}

/// The nearest folder upwards that has a template and a workspace.
fn folder() -> Outcome<PathBuf> {
    let here =
        std::env::current_dir().map_err(|error| Failure::new(Exit::Failed, Context::new("there is no current folder", error)))?;
    let is_checkout = |folder: &&Path| folder.join(TEMPLATE).is_file() && folder.join("Cargo.toml").is_file();
    let found = here.ancestors().find(is_checkout).map(Path::to_owned);
    found.ok_or_else(|| {
        Failure::new(Exit::Usage, "this is no checkout of Carillon")
            .hint("the benchmark builds the functions: run it where they can be built")
    })
}

async fn build_example(folder: &Path, arguments: &[&str], name: &'static str) -> Result<PathBuf, ExampleError> {
    let command = format!("cargo {}", arguments.join(" "));
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    for variable in builder::package_variables() {
        cargo.env_remove(variable);
    }
    cargo.args(arguments).current_dir(folder).stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    let output = cargo.output().await.map_err(|source| ExampleError::Start { command: command.clone(), source })?;
    if !output.status.success() {
        return Err(ExampleError::Failed { command });
    }
    example_in(&output.stdout, name).ok_or(ExampleError::NotBuilt { command, name })
}

/// The executable of an example in cargo's messages (The Cargo Book, "External tools", "JSON messages").
fn example_in(messages: &[u8], name: &str) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Message {
        target: Option<Target>,
        executable: Option<PathBuf>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
        kind: Vec<String>,
    }
    let messages = messages.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Message>(line).ok());
    let of_example = |target: &Target| target.name == name && target.kind.iter().any(|kind| kind == "example");
    messages.filter(|message| message.target.as_ref().is_some_and(of_example)).find_map(|message| message.executable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_found_among_cargo_s_messages() {
        let messages = br#"{"reason":"compiler-artifact","target":{"name":"empty","kind":["bin"]},"executable":"/a"}
{"reason":"compiler-artifact","target":{"name":"empty","kind":["example"]},"executable":null}
{"reason":"compiler-artifact","target":{"name":"empty","kind":["example"]},"executable":"/b"}
{"reason":"build-finished","success":true}
no JSON
"#;
        assert_eq!(example_in(messages, "empty"), Some(PathBuf::from("/b")));
        assert_eq!(example_in(messages, "other"), None);
    }
}
