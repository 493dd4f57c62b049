//! What can be wrong with a template or with what was said about it.

use std::path::PathBuf;

/// The template cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The file cannot be read.
    #[error("cannot read the template {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not YAML (or, where it begins with `{`, not JSON).
    #[error("the template {} cannot be parsed", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Parameters without a value, with a value that the template forbids, or that the template does not know: all of them.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Parameters(Vec<ParameterError>),
    /// Something in the template is wrong.
    #[error("{place}: {fault}")]
    Invalid {
        /// The path from the template's root, such as `Resources.Log.Properties.KeySchema`.
        place: String,
        /// What is wrong, and what would be right.
        fault: String,
    },
}

impl TemplateError {
    /// A fault at a place.
    pub(super) fn at(place: impl Into<String>, fault: impl Into<String>) -> Self {
        Self::Invalid { place: place.into(), fault: fault.into() }
    }
}

/// One parameter is wrong. Values are never shown: they may be secrets (`NoEcho`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// It has no default and was given no value.
    #[error("parameter {0} has no value and no default: give it with --parameter {0}=VALUE")]
    Missing(String),
    /// A value was given for a parameter that the template does not have.
    #[error("parameter {name} is not in the template, which has {known}")]
    Unknown {
        /// The name that was given.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The value breaks a constraint of the template.
    #[error("parameter {name} {fault}")]
    Refused {
        /// The parameter.
        name: String,
        /// Which constraint, and its limit.
        fault: String,
    },
}
