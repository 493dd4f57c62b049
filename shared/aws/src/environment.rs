//! Environment variables as a value, so that nothing but a `main` reads the process's own.

use std::collections::BTreeMap;
use std::fmt;

/// Environment variables. An empty value counts as unset: CloudFormation's `AWS::NoValue` arrives that way under `sam local`.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

/// A variable that is read, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// One line on what it means.
    pub meaning: &'static str,
    /// What happens where it is unset.
    pub unset: Unset,
}

/// What happens where a variable is unset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unset {
    /// The function does not start.
    Refused,
    /// It has this value.
    Default(&'static str),
    /// Nothing: what it stands for is left out.
    Nothing,
}

/// What is wrong with one variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The variable.
    pub variable: String,
    /// What is wrong with it. It never holds the value of a secret.
    pub fault: String,
}

/// Every mistake that was found, in one go.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(pub Vec<Mistake>);

impl Environment {
    /// The variables of this process. What is no Unicode comes with replacement characters.
    #[must_use]
    pub fn of_process() -> Self {
        let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))).collect()
    }

    /// A variable's value; none where it is unset or empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The names of the variables, empty ones included, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl Mistake {
    /// A mistake in `variable`.
    pub fn new(variable: impl Into<String>, fault: impl fmt::Display) -> Self {
        Self { variable: variable.into(), fault: fault.to_string() }
    }

    /// `variable` is not set and has no default.
    pub fn missing(variable: impl Into<String>) -> Self {
        Self::new(variable, "is not set")
    }
}

impl From<Mistake> for Mistakes {
    fn from(mistake: Mistake) -> Self {
        Self(vec![mistake])
    }
}

/// The names only: values hold secrets.
impl fmt::Debug for Environment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Mistake { variable, fault }) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(formatter, "{separator}{variable}: {fault}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_value_counts_as_unset() {
        let environment: Environment = [("A", ""), ("B", "b")].into_iter().collect();
        assert_eq!((environment.get("A"), environment.get("B"), environment.get("C")), (None, Some("b"), None));
        assert_eq!(environment.names().collect::<Vec<_>>(), ["A", "B"]);
    }

    #[test]
    fn values_are_never_printed() {
        let environment: Environment = [("CARILLON_SECRET", "hidden")].into_iter().collect();
        assert_eq!(format!("{environment:?}"), r#"{"CARILLON_SECRET"}"#);
    }

    #[test]
    fn mistakes_read_as_one_line() {
        let mistakes = Mistakes(vec![Mistake::missing("A"), Mistake::new("B", "is no URL")]);
        assert_eq!(mistakes.to_string(), "A: is not set; B: is no URL");
    }
}
