//! JSON, read member by member so that every error names its field, and written by hand, since our frames are put together from
//! texts that are JSON already (RFC 8259).

use carillon_core::fault::Fault;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::fmt::{self, Display, Write};

/// Levels of arrays and objects in an event's data.
///
/// Parsers have limits on their nesting (serde_json 128, others less clear ones), and a frame around the data takes some of it.
pub(crate) const DATA_NESTING: usize = 100;

/// What a JSON text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    Text,
    Number,
    Boolean,
    Null,
}

/// The members of an object, each as the JSON text that it is.
#[derive(Debug)]
pub(crate) struct Members<'text>(Vec<(String, &'text RawValue)>);

/// A JSON object being written, member by member.
pub(crate) struct ObjectWriter {
    text: String,
}

/// Checks that `text` is JSON, of any kind. `field` names it in the error.
///
/// # Errors
/// When it is not; the error says where.
pub(crate) fn parse<'text>(field: &str, text: &'text str) -> Result<&'text RawValue, Fault> {
    serde_json::from_str(text).map_err(|error| Fault::bad_request(field, format_args!("is not JSON: {error}")))
}

/// The elements of an array.
///
/// # Errors
/// When it is none.
pub(crate) fn elements<'text>(field: &str, value: &'text RawValue) -> Result<Vec<&'text RawValue>, Fault> {
    needs(field, value, Kind::Array)?;
    read(field, value)
}

/// A string.
///
/// # Errors
/// When it is none, or half a surrogate pair stands in it.
pub(crate) fn string(field: &str, value: &RawValue) -> Result<String, Fault> {
    needs(field, value, Kind::Text)?;
    read(field, value)
}

/// A whole number of `least` to `most`.
///
/// # Errors
/// When it is none. `1.0` and `1e3` are none.
pub(crate) fn whole_number(field: &str, value: &RawValue, least: u64, most: u64) -> Result<u64, Fault> {
    needs(field, value, Kind::Number)?;
    match value.get().parse::<u64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(Fault::bad_request(field, format_args!("{} is no whole number of {least} to {most}", value.get()))),
    }
}

/// The data of an event, byte for byte.
///
/// # Errors
/// When it nests deeper than [`DATA_NESTING`].
pub(crate) fn data<'text>(field: &str, value: &'text RawValue) -> Result<&'text str, Fault> {
    let found = nesting(value.get());
    if found > DATA_NESTING {
        return Err(Fault::bad_request(field, format_args!("{found} levels of nesting are over the limit of {DATA_NESTING}")));
    }
    Ok(value.get())
}

/// What kind of value a JSON text is.
pub(crate) fn kind(value: &RawValue) -> Kind {
    match value.get().trim_start().as_bytes().first() {
        Some(b'{') => Kind::Object,
        Some(b'[') => Kind::Array,
        Some(b'"') => Kind::Text,
        Some(b't' | b'f') => Kind::Boolean,
        Some(b'n') => Kind::Null,
        _ => Kind::Number,
    }
}

/// The text as a JSON string.
pub(crate) fn quote(text: &str) -> String {
    serde_json::to_string(text).expect("every text is a JSON string")
}

impl<'text> Members<'text> {
    /// The members of the object `value`.
    ///
    /// # Errors
    /// When it is no object, or has a member twice: readers differ in which of the two they take.
    pub(crate) fn of(field: &str, value: &'text RawValue) -> Result<Self, Fault> {
        needs(field, value, Kind::Object)?;
        let members: Self = read(field, value)?;
        let mut seen = HashSet::new();
        match members.0.iter().find(|(name, _)| !seen.insert(name.as_str())) {
            Some((name, _)) => Err(Fault::bad_request(field, format_args!("has the field {name:?} twice"))),
            None => Ok(members),
        }
    }

    /// Takes the member called `name` out. One that is null counts as absent.
    pub(crate) fn take(&mut self, name: &str) -> Option<&'text RawValue> {
        self.take_nullable(name).filter(|value| kind(value) != Kind::Null)
    }

    /// Takes the member called `name` out, null or not.
    pub(crate) fn take_nullable(&mut self, name: &str) -> Option<&'text RawValue> {
        let place = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(place).1)
    }

    /// Whether there is a member called `name`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    /// Takes the string called `name` out.
    ///
    /// # Errors
    /// When it is there and no string.
    pub(crate) fn take_string(&mut self, name: &str) -> Result<Option<String>, Fault> {
        self.take(name).map(|value| string(name, value)).transpose()
    }

    /// Takes the member called `name` out, which must be there.
    ///
    /// # Errors
    /// When it is not.
    pub(crate) fn need(&mut self, name: &str) -> Result<&'text RawValue, Fault> {
        self.take(name).ok_or_else(|| missing(name))
    }

    /// What was not taken out.
    pub(crate) fn rest(self) -> impl Iterator<Item = (String, &'text RawValue)> {
        self.0.into_iter()
    }

    /// Refuses what was not taken out, by name. `known` are the fields there are.
    ///
    /// # Errors
    /// When anything is left.
    pub(crate) fn finish(self, known: &[&str]) -> Result<(), Fault> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(Fault::bad_request(name, format_args!("is no field here; there are {}", known.join(", ")))),
        }
    }
}

/// The error of a field that must be there.
pub(crate) fn missing(name: &str) -> Fault {
    Fault::bad_request(name, "is missing")
}

impl ObjectWriter {
    /// `{`
    pub(crate) fn new() -> Self {
        Self { text: "{".to_owned() }
    }

    /// A member whose value is a string.
    pub(crate) fn string(&mut self, name: &str, value: &str) -> &mut Self {
        self.raw(name, quote(value))
    }

    /// A member whose value is JSON text.
    pub(crate) fn raw(&mut self, name: &str, value: impl Display) -> &mut Self {
        let comma = if self.text.len() > 1 { "," } else { "" };
        write!(self.text, "{comma}{}:{value}", quote(name)).expect("a String takes every write");
        self
    }

    /// `}`
    pub(crate) fn finish(self) -> String {
        self.text + "}"
    }
}

impl Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Object => "an object",
            Self::Array => "an array",
            Self::Text => "a string",
            Self::Number => "a number",
            Self::Boolean => "a boolean",
            Self::Null => "null",
        })
    }
}

impl<'text> Deserialize<'text> for Members<'text> {
    fn deserialize<D: Deserializer<'text>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'text> Visitor<'text> for InOrder {
            type Value = Members<'text>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'text>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

fn needs(field: &str, value: &RawValue, needed: Kind) -> Result<(), Fault> {
    let found = kind(value);
    if found == needed { Ok(()) } else { Err(Fault::bad_request(field, format_args!("is {found}, and {needed} is needed"))) }
}

fn read<'text, T: Deserialize<'text>>(field: &str, value: &'text RawValue) -> Result<T, Fault> {
    serde_json::from_str(value.get()).map_err(|error| Fault::bad_request(field, format_args!("cannot be read: {error}")))
}

/// How deep arrays and objects stand in each other in a text that is JSON.
fn nesting(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut quoted, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, message: &str) {
        let fault = parse("body", text).and_then(|value| Members::of("body", value)).expect_err("no good object");
        assert_eq!(fault.message, message);
    }

    #[test]
    fn what_is_no_object_says_what_it_is() {
        refused("", "body: is not JSON: EOF while parsing a value at line 1 column 0");
        refused("{\"a\":}", "body: is not JSON: expected value at line 1 column 6");
        refused("{} x", "body: is not JSON: trailing characters at line 1 column 4");
        refused("[1]", "body: is an array, and an object is needed");
        refused(" null", "body: is null, and an object is needed");
        refused("-1", "body: is a number, and an object is needed");
        refused(r#"{"a":1,"b":2,"a":3}"#, "body: has the field \"a\" twice");
        // The same name, written in two ways.
        refused(r#"{"a":1,"\u0061":3}"#, "body: has the field \"a\" twice");
    }

    #[test]
    fn nesting_is_counted_outside_strings() {
        for (json, levels) in [("1", 0), ("[]", 1), (r#"{"a":[{"b":"[[[{{"}]}"#, 3), (r#"["\"[","\\",["x"]]"#, 2)] {
            assert_eq!(nesting(json), levels, "{json}");
        }
        let deep = "[".repeat(20_000) + &"]".repeat(20_000);
        let fault = data("data", parse("data", &deep).expect("it is JSON")).expect_err("too deep");
        assert_eq!(fault.message, "data: 20000 levels of nesting are over the limit of 100");
    }

    #[test]
    fn a_whole_number_is_written_as_one() {
        let read = |text| whole_number("offset", parse("offset", text).expect("JSON"), 0, 100).map_err(|fault| fault.message);
        assert_eq!(read("41"), Ok(41));
        for text in ["-1", "1.0", "1e1", "101", "99999999999999999999999999"] {
            assert_eq!(read(text).expect_err(text), format!("offset: {text} is no whole number of 0 to 100"));
        }
        assert_eq!(read(r#""41""#).expect_err("text"), "offset: is a string, and a number is needed");
    }
}
