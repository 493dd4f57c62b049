//! `carillon` in a folder of its own, where it finds nothing of the user's.

use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use carillon_tests::http::send;
use carillon_tests::program::{Ended, Program};
use carillon_tests::wait::eventually;
use carillon_tests::{binaries, processes, repository};
use http::Method;
use serde_json::Value;
use serde_yaml_ng::{Mapping, Value as Yaml};
use tempfile::TempDir;
use tokio::process::Command;

/// The exit codes that `carillon --help` documents.
pub(crate) mod exit {
    pub(crate) const DONE: i32 = 0;
    pub(crate) const FAILED: i32 = 1;
    pub(crate) const USAGE: i32 = 2;
    pub(crate) const NOT_REACHABLE: i32 = 3;
    pub(crate) const REFUSED: i32 = 4;
    pub(crate) const DEMO_INCOMPLETE: i32 = 5;
    pub(crate) const INTERRUPTED: i32 = 130;
    pub(crate) const TERMINATED: i32 = 143;
}

/// A folder in which `carillon` runs. Its functions run under paths of this folder, by which they are told from those of others.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Where `carillon` looks for a stack, and writes where its own is, unless it is told otherwise.
    pub(crate) fn ready_file(&self) -> PathBuf {
        self.path(".carillon/ready.json")
    }

    /// The command.
    pub(crate) async fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.program(&binaries::path("carillon").await);
        command.args(arguments);
        command
    }

    /// Any program, with none of the variables that the user may have set for `carillon` or for AWS.
    pub(crate) fn program(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.0.path());
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARILLON_") || text.starts_with("AWS_") {
                command.env_remove(name);
            }
        }
        command
    }

    /// Starts it.
    pub(crate) async fn start(&self, arguments: &[&str]) -> Program {
        Program::start(format!("carillon {}", arguments.join(" ")), &mut self.command(arguments).await)
    }

    /// Runs it to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).await.ended().await
    }

    /// Runs it to its end, which must be a good one, and gives the JSON lines that it printed.
    pub(crate) async fn json(&self, arguments: &[&str]) -> Vec<Value> {
        self.start(&[arguments, &["--json"]].concat()).await.succeeds().await
    }

    /// Starts `carillon local --free-ports --json` with more arguments, and gives it with what it says to be ready with.
    pub(crate) async fn local(&self, arguments: &[&str]) -> (Program, Value) {
        let mut program = self.start(&[&["local", "--free-ports", "--json"], arguments].concat()).await;
        let ready = program.json().await;
        (program, ready)
    }

    /// Writes the repository's template with the functions as they are built already, so that cargo is not asked for them, and
    /// with other resources: `change` gets all of them. Gives the path of the file.
    pub(crate) async fn template(&self, change: impl FnOnce(&mut Mapping)) -> String {
        let mut template: Yaml = serde_yaml_ng::from_str(&repository::read("template.yaml")).expect("it is YAML");
        let resources = template["Resources"].as_mapping_mut().expect("it has resources");
        for (name, path) in binaries::all().await {
            self.link(name, path);
        }
        for (_, resource) in resources.iter_mut() {
            let Some(metadata) = resource.as_mapping_mut().and_then(|resource| resource.remove("Metadata")) else { continue };
            let binary = metadata["BuildProperties"]["Binary"].as_str().expect("the template names the binary");
            resource["Properties"]["CodeUri"] = format!("bin/{binary}").into();
        }
        change(resources);
        self.write("template.yaml", &serde_yaml_ng::to_string(&template).expect("YAML is written as it was read"))
    }

    /// Puts an executable into the folder `bin`.
    pub(crate) fn link(&self, name: &str, executable: &Path) {
        std::fs::create_dir_all(self.path("bin")).expect("the folder is ours");
        symlink(executable, self.path("bin").join(name)).expect("the folder is ours");
    }

    /// Writes a file and gives its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).expect("the folder is ours");
        path.to_str().expect("the path is UTF-8").to_owned()
    }

    /// The programs of this folder that run: functions, and what cargo builds with.
    pub(crate) fn functions(&self) -> Vec<String> {
        processes::of_folder(self.0.path())
    }

    /// Waits for the end of what was killed: the system takes a moment for that.
    pub(crate) async fn all_are_gone(&self, what: &str) {
        eventually(&format!("the end of {what}"), || {
            let left = self.functions();
            async move { if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) } }
        })
        .await;
    }

    /// Proves that a stack is gone: its functions, its ready file and its listeners.
    pub(crate) fn assert_nothing_is_left(&self, ready: &Value) {
        assert_eq!(self.functions(), Vec::<String>::new(), "these outlived the stack");
        assert!(!self.ready_file().exists(), "the ready file outlived the stack");
        for url in ["websocket", "publish", "aws"].map(|name| ready[name].as_str().expect("the stack has it")) {
            let address = url.split('/').nth(2).expect("a URL has a host");
            assert!(TcpStream::connect(address).is_err(), "{url} still accepts connections");
        }
    }
}

/// A header with a signature as the stack wants one; nobody verifies it.
pub(crate) const SIGNATURE: (&str, &str) =
    ("authorization", "AWS4-HMAC-SHA256 Credential=local/20260101/us-east-1/any/aws4_request, SignedHeaders=host, Signature=0");

/// Calls DynamoDB behind an AWS endpoint.
pub(crate) async fn dynamodb(endpoint: &str, operation: &str, arguments: &Value) -> Value {
    let target = format!("DynamoDB_20120810.{operation}");
    let content_type = ("content-type", "application/x-amz-json-1.0");
    let headers = [SIGNATURE, ("x-amz-date", "20260101T000000Z"), ("x-amz-target", &target), content_type];
    let answer = send(Method::POST, endpoint, &headers, arguments.to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Proves how a command ended, and that what it said to the user holds each of the texts.
#[track_caller]
pub(crate) fn assert_told(ended: &Ended, code: i32, texts: &[&str]) {
    assert_eq!(ended.status.code(), Some(code), "{ended:?}");
    assert!(ended.lines.is_empty(), "a failure prints no result: {ended:?}");
    for text in texts {
        assert!(ended.errors.contains(text), "{text:?} is not in:\n{}", ended.errors);
    }
}
