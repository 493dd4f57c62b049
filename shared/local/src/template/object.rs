//! Resolved properties and typed reading of them, with errors that name the path.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::error::TemplateError;
use super::parameters::scalar_text;

/// A resolved map and its path in the template.
#[derive(Clone, Debug)]
pub(super) struct Object {
    place: String,
    values: Map<String, Value>,
}

impl Object {
    pub(super) fn new(place: String, values: Map<String, Value>) -> Self {
        Self { place, values }
    }

    pub(super) fn of(value: &Value, place: String) -> Result<Self, TemplateError> {
        match value {
            Value::Object(values) => Ok(Self { place, values: values.clone() }),
            _ => Err(TemplateError::at(place, "must be a map")),
        }
    }

    /// The path of the map itself.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    pub(super) fn values(&self) -> &Map<String, Value> {
        &self.values
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn fault(&self, name: &str, fault: impl Into<String>) -> TemplateError {
        TemplateError::at(self.place_of(name), fault)
    }

    pub(super) fn place_of(&self, name: &str) -> String {
        format!("{}.{name}", self.place)
    }

    pub(super) fn string(&self, name: &str) -> Result<Option<String>, TemplateError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        scalar_text(value).map(Some).ok_or_else(|| self.fault(name, "must be a string"))
    }

    pub(super) fn required_string(&self, name: &str) -> Result<String, TemplateError> {
        self.string(name)?.filter(|text| !text.is_empty()).ok_or_else(|| self.fault(name, "is missing"))
    }

    /// A whole number, also as a string, as CloudFormation takes it.
    pub(super) fn integer(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, TemplateError> {
        let Some(text) = self.string(name)? else { return Ok(None) };
        let (lowest, highest) = (range.start(), range.end());
        match text.parse::<u64>() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(self.fault(name, format!("must be a whole number from {lowest} to {highest}, and {text} is none"))),
        }
    }

    /// A boolean, also as a string, as CloudFormation takes it.
    pub(super) fn boolean(&self, name: &str) -> Result<Option<bool>, TemplateError> {
        let Some(text) = self.string(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| self.fault(name, format!("must be true or false, and {text} is neither")))
    }

    pub(super) fn strings(&self, name: &str) -> Result<Vec<String>, TemplateError> {
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => {
                let texts = items.iter().map(scalar_text).collect::<Option<Vec<_>>>();
                texts.ok_or_else(|| self.fault(name, "must be a list of strings"))
            }
            Some(_) => Err(self.fault(name, "must be a list of strings")),
        }
    }

    pub(super) fn object(&self, name: &str) -> Result<Option<Self>, TemplateError> {
        self.get(name).map(|value| Self::of(value, self.place_of(name))).transpose()
    }

    pub(super) fn objects(&self, name: &str) -> Result<Vec<Self>, TemplateError> {
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => {
                let items = items.iter().enumerate();
                items.map(|(index, item)| Self::of(item, format!("{}[{index}]", self.place_of(name)))).collect()
            }
            Some(_) => Err(self.fault(name, "must be a list")),
        }
    }
}
