//! Programs that a benchmark runs beside itself, so that each has a CPU time and a memory of its own: a line in, a line out.

use super::function::unwatched;
use super::process;
use crate::exit::Exit;
use crate::failure::{Context, Failure, Outcome};
use std::ffi::OsStr;
use std::io;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// A running program. It is killed with the value.
#[derive(Debug)]
pub(super) struct Worker {
    name: String,
    id: u32,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

/// What a piece of work took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Took {
    /// CPU time.
    pub(super) cpu: Duration,
    /// Time on the wall.
    pub(super) wall: Duration,
}

impl Worker {
    /// Another process of this very binary, with these arguments after `bench-worker`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) async fn own(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Outcome<Self> {
        let program = std::env::current_exe()
            .map_err(|error| Failure::new(Exit::Failed, Context::new("cannot find this program", error)))?;
        let mut command = Command::new(program);
        command.arg("bench-worker").args(arguments);
        Self::start("a worker of the benchmark", command)
    }

    /// Starts a program that is known to people as `name`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start(name: impl Into<String>, mut command: Command) -> Outcome<Self> {
        let name = name.into();
        let failed = |error| Failure::new(Exit::Failed, Context::new(format!("cannot start {name}"), error));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        let gone = || failed(io::Error::other("it ended at once"));
        let id = child.id().ok_or_else(gone)?;
        let (input, output) = (child.stdin.take().ok_or_else(gone)?, child.stdout.take().ok_or_else(gone)?);
        Ok(Self { name, id, input, output: BufReader::new(output).lines(), _child: child })
    }

    /// Gives it a line and waits for its answer.
    ///
    /// # Errors
    /// When it ends before that.
    pub(super) async fn ask(&mut self, line: &str) -> Outcome<String> {
        let asked = async {
            self.input.write_all(format!("{line}\n").as_bytes()).await?;
            self.input.flush().await?;
            self.output.next_line().await?.ok_or_else(|| io::Error::other("it ended"))
        };
        asked.await.map_err(|error| Failure::new(Exit::Failed, Context::new(format!("{} did not answer", self.name), error)))
    }

    /// The same, with what it took.
    ///
    /// # Errors
    /// As [`Worker::ask`].
    pub(super) async fn time(&mut self, line: &str) -> Outcome<(String, Took)> {
        let (cpu, began) = (process::cpu_time(self.id).map_err(unwatched)?, Instant::now());
        let answer = self.ask(line).await?;
        let wall = began.elapsed();
        let cpu = process::cpu_time(self.id).map_err(unwatched)?.saturating_sub(cpu);
        Ok((answer, Took { cpu, wall }))
    }

    /// The most memory that it has had in use so far, in bytes.
    ///
    /// # Errors
    /// When it has ended.
    pub(super) fn peak_memory(&self) -> Outcome<u64> {
        process::peak_memory(self.id).map_err(unwatched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_answers_line_by_line_and_its_end_is_told() {
        let mut command = Command::new("sh");
        command.args(["-c", "read one; echo \"got $one\"; read two; exit 3"]);
        let mut worker = Worker::start("a shell", command).expect("there is a shell");
        assert_eq!(worker.ask("a line").await.expect("an answer"), "got a line");
        let failure = worker.ask("another").await.expect_err("it ended");
        assert!(failure.to_string().contains("a shell did not answer"), "{failure}");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let failure = Worker::start("nothing", Command::new("/nonexistent/program")).expect_err("there is none");
        assert!(failure.to_string().contains("cannot start nothing"), "{failure}");
    }
}
