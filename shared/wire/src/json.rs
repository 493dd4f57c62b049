//! JSON as written by hand: our frames are put together from texts that are JSON already.

use std::fmt::Display;

/// A JSON object being written, member by member.
pub(crate) struct ObjectWriter {
    text: String,
}

impl ObjectWriter {
    /// `{`
    pub(crate) fn new() -> Self {
        Self { text: "{".to_owned() }
    }

    /// A member whose value is a string.
    pub(crate) fn string(&mut self, name: &str, value: &str) -> &mut Self {
        let value = quote(value);
        self.raw(name, value)
    }

    /// A member whose value is JSON text.
    pub(crate) fn raw(&mut self, name: &str, value: impl Display) -> &mut Self {
        use std::fmt::Write;
        let comma = if self.text.len() > 1 { "," } else { "" };
        write!(self.text, "{comma}{}:{value}", quote(name)).expect("a String takes every write");
        self
    }

    /// `}`
    pub(crate) fn finish(self) -> String {
        self.text + "}"
    }
}

/// The text as a JSON string.
pub(crate) fn quote(text: &str) -> String {
    serde_json::to_string(text).expect("every text is a JSON string")
}
