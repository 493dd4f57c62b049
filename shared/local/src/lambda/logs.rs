//! What functions write to stdout and stderr.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

use super::limits::{MAX_LOG_LINE_BYTES, MAX_LOG_LINES, MAX_TAIL_BYTES};

/// One line of a function's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When the line arrived.
    pub time: SystemTime,
    /// The log stream: one for each environment, as in CloudWatch Logs.
    pub log_stream: Arc<str>,
    /// The text, without the line's end.
    pub text: String,
}

/// The log of one function: its last lines, and a file where the stack was asked to keep one.
#[derive(Debug)]
pub(crate) struct FunctionLog {
    function: String,
    lines: Mutex<VecDeque<LogLine>>,
    file: Option<Mutex<File>>,
}

impl FunctionLog {
    /// # Errors
    /// When the file `<function>.log` in `directory` cannot be opened for appending.
    pub(crate) fn open(function: &str, directory: Option<&Path>) -> std::io::Result<Self> {
        let file = match directory {
            None => None,
            Some(directory) => {
                std::fs::create_dir_all(directory)?;
                let path = directory.join(format!("{function}.log"));
                Some(Mutex::new(File::options().create(true).append(true).open(path)?))
            }
        };
        Ok(Self { function: function.to_owned(), lines: Mutex::default(), file })
    }

    /// Takes a line that the function wrote.
    pub(crate) fn written(&self, log_stream: &Arc<str>, text: &str) {
        tracing::info!(target: "function", { function.name = %self.function }, "{text}");
        self.keep(log_stream, text);
    }

    /// Takes a line that Lambda adds to the function's log.
    pub(crate) fn noted(&self, log_stream: &Arc<str>, text: &str) {
        tracing::warn!(target: "function", { function.name = %self.function }, "{text}");
        self.keep(log_stream, text);
    }

    pub(crate) fn lines(&self) -> Vec<LogLine> {
        lock(&self.lines).iter().cloned().collect()
    }

    fn keep(&self, log_stream: &Arc<str>, text: &str) {
        let written = self.file.as_ref().map_or(Ok(()), |file| writeln!(lock(file), "{text}"));
        if let Err(error) = written {
            tracing::warn!(function.name = %self.function, %error, "a line was not written to the function's log file");
        }
        let mut lines = lock(&self.lines);
        if lines.len() == MAX_LOG_LINES {
            lines.pop_front();
        }
        lines.push_back(LogLine { time: SystemTime::now(), log_stream: log_stream.clone(), text: text.to_owned() });
    }
}

/// The last 4 KB that one environment wrote in its current invocation.
#[derive(Debug, Default)]
pub(crate) struct Tail(Mutex<VecDeque<u8>>);

impl Tail {
    pub(crate) fn clear(&self) {
        lock(&self.0).clear();
    }

    pub(crate) fn push(&self, text: &str) {
        let mut bytes = lock(&self.0);
        bytes.extend(text.as_bytes());
        bytes.push_back(b'\n');
        let excess = bytes.len().saturating_sub(MAX_TAIL_BYTES);
        bytes.drain(..excess);
    }

    pub(crate) fn text(&self) -> Vec<u8> {
        lock(&self.0).iter().copied().collect()
    }
}

/// Reads lines until the pipe closes. Bytes that are no UTF-8 are replaced; a line over [`MAX_LOG_LINE_BYTES`] comes in parts.
pub(crate) async fn follow(pipe: impl AsyncRead + Unpin, mut on_line: impl FnMut(&str)) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        let available = match reader.fill_buf().await {
            Ok(available) => available,
            Err(error) => {
                tracing::debug!(%error, "a function's output could not be read further");
                break;
            }
        };
        if available.is_empty() {
            break;
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let room = MAX_LOG_LINE_BYTES - line.len();
        let take = end.unwrap_or(available.len()).min(room);
        line.extend_from_slice(&available[..take]);
        let at_end = end == Some(take);
        reader.consume(take + usize::from(at_end));
        if at_end || line.len() == MAX_LOG_LINE_BYTES {
            on_line(text_of(&line).as_ref());
            line.clear();
        }
    }
    if !line.is_empty() {
        on_line(text_of(&line).as_ref());
    }
}

fn text_of(line: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line))
}

/// A panic while a log is locked leaves a log that is still a list of lines.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines_of(bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        follow(bytes, |line| lines.push(line.to_owned())).await;
        lines
    }

    #[tokio::test]
    async fn lines_are_cut_at_their_ends() {
        assert_eq!(lines_of(b"one\r\ntwo\n\nlast").await, ["one", "two", "", "last"]);
    }

    #[tokio::test]
    async fn an_endless_line_comes_in_parts() {
        let bytes = vec![b'x'; 2 * MAX_LOG_LINE_BYTES + 1];
        let lengths: Vec<usize> = lines_of(&bytes).await.iter().map(String::len).collect();
        assert_eq!(lengths, [MAX_LOG_LINE_BYTES, MAX_LOG_LINE_BYTES, 1]);
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let log = FunctionLog::open("probe", None).expect("no file is involved");
        let stream: Arc<str> = "stream".into();
        for number in 0..MAX_LOG_LINES + 2 {
            log.written(&stream, &number.to_string());
        }
        let lines = log.lines();
        assert_eq!(lines.len(), MAX_LOG_LINES);
        assert_eq!(lines[0].text, "2");
    }

    #[test]
    fn the_tail_is_four_kilobytes() {
        let tail = Tail::default();
        tail.push("dropped");
        tail.push(&"y".repeat(MAX_TAIL_BYTES - 1));
        let text = tail.text();
        assert_eq!(text.len(), MAX_TAIL_BYTES);
        assert!(text.starts_with(b"yyy"));
        tail.clear();
        assert!(tail.text().is_empty());
    }
}
