//! The exit codes: one closed list, which `--help` prints.

use std::fmt::Write;
use std::process::ExitCode;

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It did what it was asked for.
    Done,
    /// It failed while it ran.
    Failed,
    /// Its arguments are wrong. clap ends with the same code.
    Usage,
    /// Nothing answers where the stack should be, or nobody said where that is.
    NotReachable,
    /// The stack refused the token.
    Refused,
    /// The demo's event did not reach every subscriber exactly once.
    DemoIncomplete,
    /// Ctrl-C: 128 + SIGINT, as shells say it.
    Interrupted,
    /// SIGTERM: 128 + SIGTERM.
    Terminated,
}

/// Every exit code with its meaning, as `--help` prints them.
pub(crate) const TABLE: [(Exit, &str); 8] = [
    (Exit::Done, "done; `local` also after Ctrl-C or SIGTERM, and any command whose output was closed (| head)"),
    (Exit::Failed, "failed while running"),
    (Exit::Usage, "wrong arguments"),
    (Exit::NotReachable, "no stack is known, or the one that is known cannot be reached"),
    (Exit::Refused, "the stack refused the token"),
    (Exit::DemoIncomplete, "`local --demo --once`: not every subscriber received the event exactly once"),
    (Exit::Interrupted, "ended by Ctrl-C before it was done"),
    (Exit::Terminated, "ended by SIGTERM before it was done"),
];

impl Exit {
    /// The code that the process ends with.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotReachable => 3,
            Self::Refused => 4,
            Self::DemoIncomplete => 5,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The table as text for `--help`.
pub(crate) fn help() -> String {
    TABLE.iter().fold("Exit codes:\n".to_owned(), |mut text, (exit, meaning)| {
        writeln!(text, "  {:>3}  {meaning}", exit.code()).expect("a String takes every write");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_is_its_own_and_the_table_is_in_their_order() {
        let codes: Vec<_> = TABLE.iter().map(|(exit, _)| exit.code()).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 130, 143]);
        assert_eq!(codes.iter().collect::<BTreeSet<_>>().len(), codes.len());
    }

    #[test]
    fn the_help_has_a_line_for_every_code() {
        let help = help();
        for (exit, meaning) in TABLE {
            assert!(help.contains(&format!("{:>3}  {meaning}\n", exit.code())), "{exit:?}");
        }
    }
}
