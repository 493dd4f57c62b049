//! Why a command ends without having done its work, written for the person at the keyboard.

use crate::exit::Exit;
use std::borrow::Cow;
use std::error::Error;
use std::fmt::{self, Write};
use std::io;

/// What every command answers.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// A command's failure.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nobody reads the output any more (`| head`): no failure, and nothing is said about it.
    OutputClosed,
    /// Something to be told.
    Told(Box<Told>),
}

/// A failure with what to say about it.
#[derive(Debug)]
pub(crate) struct Told {
    exit: Exit,
    error: Box<dyn Error + Send + Sync>,
    hint: Option<Cow<'static, str>>,
}

impl Failure {
    /// A failure that ends the command with `exit`.
    pub(crate) fn new(exit: Exit, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Told(Box::new(Told { exit, error: error.into(), hint: None }))
    }

    /// The same with what the person may do about it.
    pub(crate) fn hint(self, hint: impl Into<Cow<'static, str>>) -> Self {
        match self {
            Self::OutputClosed => self,
            Self::Told(mut told) => {
                told.hint = Some(hint.into());
                Self::Told(told)
            }
        }
    }

    /// How the command ends.
    pub(crate) const fn exit(&self) -> Exit {
        match self {
            Self::OutputClosed => Exit::Done,
            Self::Told(told) => told.exit,
        }
    }
}

impl From<io::Error> for Failure {
    /// A failure to write the command's output.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::OutputClosed;
        }
        Self::new(Exit::Failed, Context { what: "cannot write the output".into(), source: error.into() })
    }
}

/// The lines for standard error: `error:`, one `caused by:` per cause, `hint:`. Nothing where there is nothing to tell.
impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Told(told) = self else {
            return Ok(());
        };
        let mut said = told.error.to_string();
        write!(formatter, "error: {said}")?;
        let mut cause = told.error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Some libraries repeat their cause in their own text.
            if !said.contains(&text) {
                write!(formatter, "\n  caused by: {text}")?;
            }
            said = text;
            cause = error.source();
        }
        if let Some(hint) = &told.hint {
            for (number, line) in hint.lines().enumerate() {
                formatter.write_char('\n')?;
                formatter.write_str(if number == 0 { "hint: " } else { "      " })?;
                formatter.write_str(line)?;
            }
        }
        Ok(())
    }
}

/// An error with what was being done when it came.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Context {
    /// What failed.
    pub(crate) what: Cow<'static, str>,
    /// Why.
    #[source]
    pub(crate) source: Box<dyn Error + Send + Sync>,
}

impl Context {
    /// The failure of `what`.
    pub(crate) fn new(what: impl Into<Cow<'static, str>>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { what: what.into(), source: source.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_error_line_then_causes_then_the_hint() {
        let inner = io::Error::new(io::ErrorKind::NotFound, "no such file");
        let failure = Failure::new(Exit::Failed, Context::new("cannot read a.json", inner)).hint("give --file\nor --data");
        assert_eq!(
            failure.to_string(),
            "error: cannot read a.json\n  caused by: no such file\nhint: give --file\n      or --data"
        );
        assert_eq!(failure.exit(), Exit::Failed);
    }

    #[test]
    fn a_cause_that_was_said_already_is_not_said_again() {
        let inner = io::Error::other("reset");
        let failure = Failure::new(Exit::Failed, Context::new("connection lost: reset", inner));
        assert_eq!(failure.to_string(), "error: connection lost: reset");
    }

    #[test]
    fn a_closed_pipe_is_no_failure_and_silent() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.exit(), failure.to_string()), (Exit::Done, String::new()));
        assert_eq!(Failure::from(io::Error::other("disk full")).exit(), Exit::Failed);
    }
}
