//! A program that a test starts and listens to: its lines, how it ends, and all that it said when something goes wrong.

use std::fmt::Write;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::wait::{PAUSE, patience, within};

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    /// Where the test types to it.
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    said: Arc<Mutex<Said>>,
    errors: JoinHandle<()>,
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// The lines of standard output that were not taken before.
    pub lines: Vec<String>,
    /// Everything that it wrote to standard error.
    pub errors: String,
}

/// What it said so far, for the message of a failure.
#[derive(Debug, Default)]
struct Said {
    lines: Vec<String>,
    errors: String,
}

impl Program {
    /// Starts a program under a name for messages. It reads nothing.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(name: impl Into<String>, command: &mut Command) -> Self {
        Self::start_reading(name, command, Stdio::null())
    }

    /// Starts a program that reads what the test [types](Program::type_line).
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_with_input(name: impl Into<String>, command: &mut Command) -> Self {
        Self::start_reading(name, command, Stdio::piped())
    }

    fn start_reading(name: impl Into<String>, command: &mut Command, input: Stdio) -> Self {
        let name = name.into();
        let command = command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let input = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut error_lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let said = Arc::new(Mutex::new(Said::default()));
        let errors = tokio::spawn({
            let said = said.clone();
            async move {
                while let Ok(Some(line)) = error_lines.next_line().await {
                    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                    said.errors.push_str(&line);
                    said.errors.push('\n');
                }
            }
        });
        Self { name, child, input, lines, said, errors }
    }

    /// Types a line.
    ///
    /// # Panics
    /// When it was started without input, or reads no more.
    pub async fn type_line(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap_or_else(|| panic!("{} has no input", self.name));
        if let Err(error) = input.write_all(format!("{line}\n").as_bytes()).await {
            self.fail(&format!("it does not read: {error}")).await;
        }
    }

    /// Ends its input.
    pub fn end_input(&mut self) {
        self.input = None;
    }

    /// Waits until it has written a line with this text to standard error, and gives the line.
    ///
    /// # Panics
    /// When none comes within the patience, or the program ends before.
    pub async fn error_line(&mut self, text: &str) -> String {
        let give_up = Instant::now() + patience();
        loop {
            // Before the look: what it wrote before its end is there when the reader is at the end.
            let is_over = self.errors.is_finished();
            let found = self.said().errors.lines().find(|line| line.contains(text)).map(str::to_owned);
            match found {
                Some(line) => return line,
                None if is_over || Instant::now() >= give_up => self.fail(&format!("it did not say {text:?}")).await,
                None => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// The next line of standard output.
    ///
    /// # Panics
    /// When none comes within the patience, or the output ends.
    pub async fn line(&mut self) -> String {
        let next = tokio::time::timeout(patience(), self.lines.next_line()).await;
        match next {
            Ok(Ok(Some(line))) => {
                self.said().lines.push(line.clone());
                line
            }
            Ok(Ok(None)) => self.fail("its output ended").await,
            Ok(Err(error)) => self.fail(&format!("its output cannot be read: {error}")).await,
            Err(_) => self.fail(&format!("no line came within {:?}", patience())).await,
        }
    }

    /// The next line of standard output, which is JSON.
    ///
    /// # Panics
    /// As [`Program::line`], and when the line is no JSON.
    pub async fn json(&mut self) -> Value {
        let line = self.line().await;
        match serde_json::from_str(&line) {
            Ok(value) => value,
            Err(error) => self.fail(&format!("its last line is no JSON: {error}")).await,
        }
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, signal: Signal) {
        let id = self.child.id().unwrap_or_else(|| panic!("{} has ended", self.name));
        kill(Pid::from_raw(i32::try_from(id).expect("a process id")), signal).expect("it is our process");
    }

    /// Waits for its end, whatever that is.
    ///
    /// # Panics
    /// When it does not end within the patience.
    pub async fn ended(mut self) -> Ended {
        let rest = tokio::time::timeout(patience(), async {
            let mut rest = Vec::new();
            while let Ok(Some(line)) = self.lines.next_line().await {
                rest.push(line);
            }
            (rest, self.child.wait().await)
        });
        let Ok((lines, status)) = rest.await else { self.fail(&format!("it did not end within {:?}", patience())).await };
        within("the end of its standard error", &mut self.errors).await.expect("the reader does not panic");
        let errors = std::mem::take(&mut self.said().errors);
        Ended { status: status.expect("it was not waited for before"), lines, errors }
    }

    /// Waits for its end, which must be a good one, and gives the lines that were not taken before, which must be JSON.
    ///
    /// # Panics
    /// When it does not end within the patience, or not with status 0, or a line is no JSON.
    pub async fn succeeds(self) -> Vec<Value> {
        let (name, before) = (self.name.clone(), self.said().lines.join("\n"));
        let Ended { status, lines, errors } = self.ended().await;
        let said = || format!("--- standard output\n{before}\n{}\n--- standard error\n{errors}", lines.join("\n"));
        assert!(status.success(), "{name} ended with {status}\n{}", said());
        let parse = |line: &String| {
            serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{name} printed a line that is no JSON: {error}\n{}", said()))
        };
        lines.iter().map(parse).collect()
    }

    fn said(&self) -> std::sync::MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the program and the test with all that it said.
    async fn fail(&mut self, fault: &str) -> ! {
        let mut text = format!("{}: {fault}", self.name);
        let _ = self.child.start_kill();
        if let Ok(status) = self.child.wait().await {
            let _ = write!(text, "; it ended with {status}");
        }
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), &mut self.errors).await;
        let said = self.said();
        panic!("{text}\n--- standard output\n{}\n--- standard error\n{}", said.lines.join("\n"), said.errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        Program::start("a script", Command::new("sh").args(["-c", script]))
    }

    #[tokio::test]
    async fn lines_come_one_by_one_and_the_rest_at_the_end() {
        let mut program = shell("echo 1; echo '{\"a\":2}'; echo 3; echo careful >&2");
        assert_eq!(program.line().await, "1");
        assert_eq!(program.json().await["a"], 2);
        let ended = program.ended().await;
        assert!(ended.status.success());
        assert_eq!((ended.lines, ended.errors.as_str()), (vec!["3".to_owned()], "careful\n"));
    }

    #[tokio::test]
    #[should_panic(expected = "what went wrong")]
    async fn a_failure_tells_what_the_program_said() {
        let mut program = shell("echo 1; echo what went wrong >&2; exit 3");
        program.line().await;
        let _ = program.succeeds().await;
    }

    #[tokio::test]
    #[should_panic(expected = "its output ended")]
    async fn a_line_that_does_not_come_is_told() {
        let _ = shell("exit 0").line().await;
    }

    #[tokio::test]
    async fn what_is_typed_is_read_until_the_end_of_the_input() {
        let mut command = Command::new("sh");
        let mut program = Program::start_with_input("a script", command.args(["-c", "cat; echo bye >&2"]));
        program.type_line("hello").await;
        assert_eq!(program.line().await, "hello");
        program.end_input();
        assert_eq!(program.error_line("by").await, "bye");
        assert!(program.ended().await.status.success());
    }

    #[tokio::test]
    #[should_panic(expected = "it did not say")]
    async fn an_error_line_that_does_not_come_is_told() {
        shell("echo something else >&2").error_line("this").await;
    }

    #[tokio::test]
    async fn a_signal_reaches_it() {
        let mut program = shell("echo up; exec sleep 60");
        assert_eq!(program.line().await, "up");
        program.signal(Signal::SIGTERM);
        assert!(!program.ended().await.status.success());
    }
}
