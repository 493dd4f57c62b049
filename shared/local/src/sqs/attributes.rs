//! Message attributes, their limits and their digest.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use serde_json::{Value, json};

use super::error::SqsError;

/// "A message can have up to 10 message attributes" (Amazon SQS Developer Guide, "Amazon SQS message metadata").
const MAXIMUM_ATTRIBUTES: usize = 10;

/// Name and type may each be this long (same page).
const MAXIMUM_NAME: usize = 256;

/// The attributes of a message, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageAttributes(BTreeMap<String, Attribute>);

/// One attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// `String`, `Number` or `Binary`, and after a dot a label of the sender's.
    pub data_type: String,
    /// The value.
    pub value: AttributeValue,
}

/// An attribute's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttributeValue {
    /// A string, or a number as it was written.
    Text(String),
    /// Bytes.
    Binary(Vec<u8>),
}

impl MessageAttributes {
    /// Reads the JSON of SendMessage.
    ///
    /// # Errors
    /// As SQS: a type that is none, a value that is missing or empty, more than ten.
    pub fn parse(value: Option<&Value>) -> Result<Self, SqsError> {
        let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(Self::default()) };
        let object = value.as_object().ok_or_else(|| SqsError::invalid_parameter("MessageAttributes must be a map."))?;
        if object.len() > MAXIMUM_ATTRIBUTES {
            let count = object.len();
            return Err(SqsError::invalid_parameter(format!(
                "Number of message attributes [{count}] exceeds the allowed maximum [{MAXIMUM_ATTRIBUTES}]."
            )));
        }
        let mut attributes = BTreeMap::new();
        for (name, attribute) in object {
            attributes.insert(name.clone(), parse_one(name, attribute)?);
        }
        Ok(Self(attributes))
    }

    /// One attribute of type `String`.
    #[must_use]
    pub fn one_text(name: &str, value: &str) -> Self {
        let value = AttributeValue::Text(value.to_owned());
        Self(BTreeMap::from([(name.to_owned(), Attribute { data_type: "String".to_owned(), value })]))
    }

    /// The text of an attribute.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match &self.0.get(name)?.value {
            AttributeValue::Text(text) => Some(text),
            AttributeValue::Binary(_) => None,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names, types and values count towards a message's size.
    #[must_use]
    pub fn size(&self) -> usize {
        let sizes = self.0.iter().map(|(name, attribute)| name.len() + attribute.data_type.len() + attribute.bytes().len());
        sizes.sum()
    }

    /// Those that a receiver asks for: `All`, `.*`, a name, or a prefix before `.*`.
    #[must_use]
    pub fn selected(&self, wanted: &[String]) -> Self {
        let is_wanted = |name: &str| {
            wanted.iter().any(|wanted| match wanted.strip_suffix(".*") {
                Some(prefix) => name.starts_with(prefix),
                None => wanted == "All" || wanted == name,
            })
        };
        Self(self.0.iter().filter(|(name, _)| is_wanted(name)).map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    /// The digest that SDKs check (Amazon SQS Developer Guide, "Calculating the MD5 message digest for message attributes").
    #[must_use]
    pub fn md5(&self) -> String {
        let mut digest = Md5::new();
        // Sorted by name, as the map is.
        for (name, attribute) in &self.0 {
            update_with_length(&mut digest, name.as_bytes());
            update_with_length(&mut digest, attribute.data_type.as_bytes());
            digest.update(match attribute.value {
                AttributeValue::Text(_) => [1],
                AttributeValue::Binary(_) => [2],
            });
            update_with_length(&mut digest, attribute.bytes());
        }
        hexadecimal(&digest.finalize())
    }

    /// As ReceiveMessage gives them.
    #[must_use]
    pub fn to_api(&self) -> Value {
        let attributes = self.0.iter().map(|(name, attribute)| {
            let value = match &attribute.value {
                AttributeValue::Text(text) => json!({"StringValue": text, "DataType": attribute.data_type}),
                AttributeValue::Binary(bytes) => json!({"BinaryValue": STANDARD.encode(bytes), "DataType": attribute.data_type}),
            };
            (name.clone(), value)
        });
        Value::Object(attributes.collect())
    }

    /// As a function's event has them (AWS Lambda Developer Guide, "Example Amazon SQS message event").
    #[must_use]
    pub fn to_event(&self) -> Value {
        let attributes = self.0.iter().map(|(name, attribute)| {
            let (key, value) = match &attribute.value {
                AttributeValue::Text(text) => ("stringValue", text.clone()),
                AttributeValue::Binary(bytes) => ("binaryValue", STANDARD.encode(bytes)),
            };
            let value = json!({
                key: value,
                "stringListValues": [],
                "binaryListValues": [],
                "dataType": attribute.data_type,
            });
            (name.clone(), value)
        });
        Value::Object(attributes.collect())
    }
}

impl Attribute {
    fn bytes(&self) -> &[u8] {
        match &self.value {
            AttributeValue::Text(text) => text.as_bytes(),
            AttributeValue::Binary(bytes) => bytes,
        }
    }
}

/// The lower-case hexadecimal MD5 of a text.
#[must_use]
pub fn md5_of(text: &str) -> String {
    hexadecimal(&Md5::digest(text.as_bytes()))
}

fn update_with_length(digest: &mut Md5, bytes: &[u8]) {
    // A message is at most 1 MiB.
    digest.update(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    digest.update(bytes);
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse_one(name: &str, value: &Value) -> Result<Attribute, SqsError> {
    let fault = |reason: &str| SqsError::invalid_parameter(format!("The message attribute '{name}' {reason}"));
    let is_allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.');
    if name.is_empty() || name.len() > MAXIMUM_NAME || !name.chars().all(is_allowed) {
        return Err(fault("has an invalid name: 1 to 256 letters, digits, _, - and . are allowed."));
    }
    let data_type = value.get("DataType").and_then(Value::as_str).unwrap_or_default();
    if data_type.is_empty() {
        return Err(fault("must contain non-empty message attribute type."));
    }
    if data_type.len() > MAXIMUM_NAME {
        return Err(fault("has a type of more than 256 bytes."));
    }
    let kind = data_type.split('.').next().unwrap_or_default();
    let value =
        match kind {
            "String" | "Number" => {
                let text = value.get("StringValue").and_then(Value::as_str).filter(|text| !text.is_empty());
                let text = text.ok_or_else(|| {
                    fault(&format!("must contain non-empty message attribute value for message attribute type '{kind}'."))
                })?;
                if kind == "Number" && text.parse::<f64>().is_err() {
                    return Err(fault("has a value that is no number."));
                }
                AttributeValue::Text(text.to_owned())
            }
            "Binary" => {
                let text = value.get("BinaryValue").and_then(Value::as_str).filter(|text| !text.is_empty());
                let bytes = text.and_then(|text| STANDARD.decode(text).ok());
                AttributeValue::Binary(bytes.ok_or_else(|| {
                    fault("must contain non-empty message attribute value for message attribute type 'Binary'.")
                })?)
            }
            _ => {
                return Err(fault(
                    "has an invalid message attribute type, the set of supported type prefixes is Binary, Number, and String.",
                ));
            }
        };
    Ok(Attribute { data_type: data_type.to_owned(), value })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{MessageAttributes, md5_of};

    #[test]
    fn digests_are_those_that_sdks_check() {
        assert_eq!(md5_of("This is a test message"), "fafb00f5732ab283681e124bf8747ed1");
        // Computed by the Developer Guide's algorithm with Python's hashlib and struct, apart from this code.
        let attributes = MessageAttributes::parse(Some(&json!({
            "b": {"DataType": "Binary", "BinaryValue": "AAEC"},
            "a": {"DataType": "Number.int", "StringValue": "42"},
        })))
        .expect("valid");
        assert_eq!(attributes.md5(), "a1c7f39666b25d00f21d81b373ea02e5");
    }

    #[test]
    fn receivers_get_what_they_ask_for() {
        let attributes = MessageAttributes::parse(Some(&json!({
            "one": {"DataType": "String", "StringValue": "x"},
            "two.a": {"DataType": "String", "StringValue": "y"},
            "two.b": {"DataType": "String", "StringValue": "z"},
        })))
        .expect("valid");
        let check = |wanted: &[&str], expected: &[&str]| {
            let wanted = wanted.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            let selected = attributes.selected(&wanted).to_api();
            assert_eq!(selected.as_object().expect("a map").keys().collect::<Vec<_>>(), expected, "{wanted:?}");
        };
        check(&[], &[]);
        check(&["All"], &["one", "two.a", "two.b"]);
        check(&[".*"], &["one", "two.a", "two.b"]);
        check(&["one", "three"], &["one"]);
        check(&["two.*"], &["two.a", "two.b"]);
    }

    #[test]
    fn faulty_attributes_are_refused() {
        for (name, attribute, expected) in [
            ("a", json!({}), "must contain non-empty message attribute type"),
            ("a", json!({"DataType": "Text", "StringValue": "x"}), "invalid message attribute type"),
            ("a", json!({"DataType": "String", "StringValue": ""}), "must contain non-empty message attribute value"),
            ("a", json!({"DataType": "Number", "StringValue": "x"}), "no number"),
            ("a", json!({"DataType": "Binary", "BinaryValue": "?"}), "must contain non-empty message attribute value"),
            ("a b", json!({"DataType": "String", "StringValue": "x"}), "invalid name"),
        ] {
            let error = MessageAttributes::parse(Some(&json!({name: attribute}))).expect_err("refused").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
