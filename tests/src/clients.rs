//! Stock clients: programs for Node and Python on packages that know nothing of Carillon, installed once from lock files.
//!
//! The packages live under cargo's target folder, in a folder named after the hash of their lock file, so that a changed lock
//! file installs anew and an unchanged one costs nothing.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use sha2::{Digest, Sha256};
use tokio::process::Command;

use crate::program::Program;
use crate::repository;
use crate::stack::TestStack;

/// Where the packages of a language are installed.
type Installed = OnceLock<Result<PathBuf, String>>;

/// Starts a script of `clients/node` against a stack: it gets the ready file and then the arguments.
///
/// # Panics
/// When Node or npm is missing, or the packages cannot be installed.
pub async fn node(stack: &TestStack, script: &str, arguments: &[&str]) -> Program {
    let folder = node_folder().await;
    // The scripts stay where they are and see the packages that lie above this link.
    let path = folder.join("scripts").join(script);
    let mut command = Command::new("node");
    command.args(["--preserve-symlinks", "--preserve-symlinks-main"]).arg(path).arg(stack.ready_file()).args(arguments);
    Program::start(script, &mut command)
}

/// A command that a package of `clients/node` brings, such as `wscat`.
///
/// # Panics
/// When Node or npm is missing, or the packages cannot be installed.
pub async fn node_command(name: &str) -> Command {
    Command::new(node_folder().await.join("node_modules/.bin").join(name))
}

/// Starts a script of `clients/python` against a stack: it gets the ready file and then the arguments.
///
/// # Panics
/// When Python or its module venv is missing, or the packages cannot be installed.
pub async fn python(stack: &TestStack, script: &str, arguments: &[&str]) -> Program {
    static FOLDER: Installed = OnceLock::new();
    let folder = installed(&FOLDER, install_python).await;
    let path = repository::path("tests/clients/python").join(script);
    let mut command = Command::new(folder.join("venv/bin/python"));
    command.arg(path).arg(stack.ready_file()).args(arguments);
    // Neither the user's settings nor compiled files in the source tree.
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONUNBUFFERED", "1");
    for variable in ["PYTHONPATH", "PYTHONHOME", "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ENDPOINT_URL"] {
        command.env_remove(variable);
    }
    command.env("AWS_CONFIG_FILE", "/dev/null").env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    Program::start(script, &mut command)
}

async fn node_folder() -> &'static Path {
    static FOLDER: Installed = OnceLock::new();
    installed(&FOLDER, install_node).await
}

/// The first call of a process installs; the others wait for it.
async fn installed(folder: &'static Installed, install: fn() -> Result<PathBuf, String>) -> &'static Path {
    let installed = tokio::task::spawn_blocking(move || folder.get_or_init(install)).await.expect("it does not panic");
    installed.as_ref().unwrap_or_else(|failure| panic!("{failure}"))
}

fn install_node() -> Result<PathBuf, String> {
    let source = repository::path("tests/clients/node");
    install("node", &source.join("package-lock.json"), |folder| {
        for name in ["package.json", "package-lock.json"] {
            std::fs::copy(source.join(name), folder.join(name)).map_err(|error| format!("{name} cannot be copied: {error}"))?;
        }
        std::os::unix::fs::symlink(&source, folder.join("scripts")).map_err(|error| format!("no link: {error}"))?;
        run("npm", &["ci", "--no-audit", "--no-fund", "--ignore-scripts"], folder)
    })
}

fn install_python() -> Result<PathBuf, String> {
    let requirements = repository::path("tests/clients/python/requirements.txt");
    install("python", &requirements, |folder| {
        run("python3", &["-m", "venv", "venv"], folder)?;
        let requirements = requirements.to_str().ok_or("the repository's path is not UTF-8")?;
        let pip = folder.join("venv/bin/python");
        let pip = pip.to_str().ok_or("the target folder's path is not UTF-8")?;
        let arguments = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"];
        run(pip, &[&arguments[..], &["--no-deps", "-r", requirements]].concat(), folder)
    })
}

/// Fills a folder named after the lock file's content, unless that was done before.
fn install(kind: &str, lock_file: &Path, fill: impl FnOnce(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
    let content = std::fs::read(lock_file).map_err(|error| format!("{}: {error}", lock_file.display()))?;
    let digest = Sha256::digest(&content);
    let name = digest.iter().take(8).fold(format!("{kind}-"), |name, byte| format!("{name}{byte:02x}"));
    let folder = repository::kept().join(name);
    let _lock = repository::lock(kind);
    // Written last: a folder without it was left by an installation that did not end.
    let done = folder.join(".installed");
    if done.exists() {
        return Ok(folder);
    }
    let broken = |error: std::io::Error| format!("{}: {error}", folder.display());
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(broken(error)),
        _ => std::fs::create_dir_all(&folder).map_err(broken)?,
    }
    fill(&folder).map_err(|fault| format!("the packages of {} cannot be installed: {fault}", lock_file.display()))?;
    std::fs::write(&done, "").map_err(broken)?;
    Ok(folder)
}

fn run(program: &str, arguments: &[&str], folder: &Path) -> Result<(), String> {
    let command = format!("`{program} {}`", arguments.join(" "));
    let output = std::process::Command::new(program).args(arguments).current_dir(folder).stdin(Stdio::null()).output().map_err(
        |error| format!("{command} could not be started: {error}; these tests need Node with npm, and Python with venv"),
    )?;
    if output.status.success() {
        return Ok(());
    }
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(format!("{command} ended with {}\n{printed}{errors}", output.status))
}
