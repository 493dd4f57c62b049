//! Standard output and standard error: one line at a time, for people or (with `--json`) for programs.

use crate::failure::Outcome;
use serde::Serialize;
use std::fmt::Display;
use std::io::{self, Write};

/// Where a command writes. Results go to standard output, one JSON value a line with `--json`; what happens beside them goes to
/// standard error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    /// The process's standard streams.
    pub(crate) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether results are for programs.
    pub(crate) const fn is_json(self) -> bool {
        self.json
    }

    /// One result: `text` for people, `value` for programs.
    pub(crate) fn result(self, text: impl FnOnce() -> String, value: &impl Serialize) -> Outcome {
        if self.json { self.value(value) } else { self.text(text()) }
    }

    /// Text for people alone: nothing with `--json`.
    pub(crate) fn people(self, text: impl Display) -> Outcome {
        if self.json { Ok(()) } else { self.text(text) }
    }

    /// What happens beside the results. Nobody has to read it: a closed standard error ends nothing.
    pub(crate) fn notice(self, text: impl FnOnce() -> String, value: &impl Serialize) {
        let line = if self.json { serde_json::to_string(value).unwrap_or_default() } else { text() };
        let _ = writeln!(io::stderr().lock(), "{line}");
    }

    fn text(self, text: impl Display) -> Outcome {
        // Standard output is flushed at the end of a line, whether a terminal reads it or a pipe.
        writeln!(io::stdout().lock(), "{text}")?;
        Ok(())
    }

    fn value(self, value: &impl Serialize) -> Outcome {
        let line = serde_json::to_string(value).map_err(io::Error::from)?;
        writeln!(io::stdout().lock(), "{line}")?;
        Ok(())
    }
}
