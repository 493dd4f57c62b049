//! The template's parameters: defaults, given values and constraints.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::error::{ParameterError, TemplateError};

/// A parameter's name and declaration.
type Declared<'t> = (&'t String, &'t Map<String, Value>);

/// What `Parameters` declares, in the template's order.
fn declared(section: Option<&Value>) -> Result<Vec<Declared<'_>>, TemplateError> {
    let Some(section) = section.filter(|section| !section.is_null()) else { return Ok(Vec::new()) };
    let section = section.as_object().ok_or_else(|| TemplateError::at("Parameters", "must be a map of names to declarations"))?;
    section
        .iter()
        .map(|(name, declaration)| {
            let declaration = declaration
                .as_object()
                .ok_or_else(|| TemplateError::at(format!("Parameters.{name}"), "must be a map with a Type"))?;
            Ok((name, declaration))
        })
        .collect()
}

/// Gives every parameter its value. List types become arrays, all else a string.
///
/// # Errors
/// Every missing, unknown and refused value at once.
pub(super) fn resolve(
    section: Option<&Value>,
    given: &BTreeMap<String, String>,
) -> Result<(BTreeMap<String, Value>, Vec<String>), TemplateError> {
    let declared = declared(section)?;
    let mut faults = Vec::new();
    let mut unchecked = Vec::new();
    for name in given.keys() {
        if !declared.iter().any(|(known, _)| *known == name) {
            let known = declared.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            faults.push(ParameterError::Unknown { name: name.clone(), known });
        }
    }
    let mut values = BTreeMap::new();
    for (name, declaration) in declared {
        let Some(text) = given.get(name).cloned().or_else(|| declaration.get("Default").and_then(scalar_text)) else {
            faults.push(ParameterError::Missing(name.clone()));
            continue;
        };
        let kind = declaration.get("Type").and_then(Value::as_str).unwrap_or_default();
        if kind.is_empty() {
            return Err(TemplateError::at(format!("Parameters.{name}.Type"), "is missing: String, Number or CommaDelimitedList"));
        }
        if kind.starts_with("AWS::SSM::Parameter::Value") && !given.contains_key(name) {
            faults.push(ParameterError::Refused {
                name: name.clone(),
                fault: format!(
                    "is of type {kind}, and there is no Parameter Store here: give its value with --parameter {name}=VALUE"
                ),
            });
            continue;
        }
        match check(kind, declaration, &text) {
            Ok(Checked::Fully) => {}
            Ok(Checked::ButPattern) => unchecked.push(name.clone()),
            Err(fault) => {
                faults.push(ParameterError::Refused { name: name.clone(), fault });
                continue;
            }
        }
        let is_list = kind == "CommaDelimitedList" || kind.contains("List<");
        let value = if is_list { text.split(',').map(|item| Value::from(item.trim())).collect() } else { Value::String(text) };
        values.insert(name.clone(), value);
    }
    if faults.is_empty() { Ok((values, unchecked)) } else { Err(TemplateError::Parameters(faults)) }
}

enum Checked {
    Fully,
    /// `AllowedPattern` uses what this crate's regular expressions do not know, such as a look-ahead.
    ButPattern,
}

fn check(kind: &str, declaration: &Map<String, Value>, text: &str) -> Result<Checked, String> {
    let described = |fault: String| match declaration.get("ConstraintDescription").and_then(Value::as_str) {
        Some(description) => format!("{fault} ({description})"),
        None => fault,
    };
    if kind == "Number" || kind == "List<Number>" {
        let items = if kind == "Number" { vec![text] } else { text.split(',').map(str::trim).collect() };
        for item in items {
            let number: f64 = item.parse().map_err(|_| described("must be a number".to_owned()))?;
            if let Some(minimum) = limit(declaration, "MinValue").filter(|minimum| number < *minimum) {
                return Err(described(format!("is under MinValue {minimum}")));
            }
            if let Some(maximum) = limit(declaration, "MaxValue").filter(|maximum| number > *maximum) {
                return Err(described(format!("is over MaxValue {maximum}")));
            }
        }
    }
    if let Some(allowed) = declaration.get("AllowedValues").and_then(Value::as_array) {
        let allowed = allowed.iter().filter_map(scalar_text).collect::<Vec<_>>();
        let items = if kind == "CommaDelimitedList" { text.split(',').map(str::trim).collect() } else { vec![text] };
        if !items.iter().all(|item| allowed.iter().any(|allowed| allowed == item)) {
            return Err(described(format!("is none of AllowedValues: {}", allowed.join(", "))));
        }
    }
    if kind != "String" {
        return Ok(Checked::Fully);
    }
    let length = text.chars().count();
    if let Some(minimum) = limit(declaration, "MinLength").filter(|minimum| (length as f64) < *minimum) {
        return Err(described(format!("is {length} characters long, under MinLength {minimum}")));
    }
    if let Some(maximum) = limit(declaration, "MaxLength").filter(|maximum| (length as f64) > *maximum) {
        return Err(described(format!("is {length} characters long, over MaxLength {maximum}")));
    }
    if let Some(pattern) = declaration.get("AllowedPattern").and_then(Value::as_str) {
        // CloudFormation matches the whole value.
        let Ok(expression) = regex_lite::Regex::new(&format!("^(?:{pattern})$")) else { return Ok(Checked::ButPattern) };
        if !expression.is_match(text) {
            return Err(described(format!("does not match AllowedPattern {pattern}")));
        }
    }
    Ok(Checked::Fully)
}

fn limit(declaration: &Map<String, Value>, name: &str) -> Option<f64> {
    declaration.get(name).and_then(scalar_text)?.parse().ok()
}

/// The text of a scalar as CloudFormation sees it.
pub(super) fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(boolean) => Some(boolean.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::resolve;

    #[track_caller]
    fn fault(declaration: &Value, given: Option<&str>) -> String {
        let section = json!({"Name": declaration});
        let given = given.map(|value| ("Name".to_owned(), value.to_owned())).into_iter().collect();
        resolve(Some(&section), &given).expect_err("refused").to_string()
    }

    #[track_caller]
    fn value(declaration: &Value, given: Option<&str>) -> Value {
        let section = json!({"Name": declaration});
        let given = given.map(|value| ("Name".to_owned(), value.to_owned())).into_iter().collect();
        resolve(Some(&section), &given).expect("accepted").0["Name"].clone()
    }

    #[test]
    fn a_given_value_wins_over_the_default() {
        let declaration = json!({"Type": "String", "Default": "a", "NoEcho": true});
        assert_eq!(value(&declaration, None), "a");
        assert_eq!(value(&declaration, Some("b")), "b");
        assert_eq!(value(&json!({"Type": "Number", "Default": 7}), None), "7");
        assert_eq!(value(&json!({"Type": "CommaDelimitedList"}), Some("x, y")), json!(["x", "y"]));
    }

    #[test]
    fn constraints_are_named_and_values_are_not_shown() {
        let secret = "sesame";
        for (declaration, expected) in [
            (json!({"Type": "String", "AllowedValues": ["x", "y"]}), "parameter Name is none of AllowedValues: x, y"),
            (json!({"Type": "String", "MinLength": 32}), "parameter Name is 6 characters long, under MinLength 32"),
            (json!({"Type": "String", "MaxLength": 2}), "parameter Name is 6 characters long, over MaxLength 2"),
            (json!({"Type": "String", "AllowedPattern": "[a-z]"}), "parameter Name does not match AllowedPattern [a-z]"),
            (json!({"Type": "Number"}), "parameter Name must be a number"),
        ] {
            let error = fault(&declaration, Some(secret));
            assert_eq!(error, expected);
            assert!(!error.contains(secret));
        }
        assert_eq!(fault(&json!({"Type": "Number", "MaxValue": 5}), Some("6")), "parameter Name is over MaxValue 5");
        assert_eq!(
            fault(&json!({"Type": "Number", "MinValue": 5, "ConstraintDescription": "five or more"}), Some("4")),
            "parameter Name is under MinValue 5 (five or more)"
        );
    }

    #[test]
    fn every_fault_is_said_at_once() {
        let section = json!({"A": {"Type": "String"}, "B": {"Type": "String"}});
        let given = BTreeMap::from([("C".to_owned(), "x".to_owned())]);
        let error = resolve(Some(&section), &given).expect_err("refused").to_string();
        assert_eq!(
            error,
            "parameter C is not in the template, which has A, B; \
             parameter A has no value and no default: give it with --parameter A=VALUE; \
             parameter B has no value and no default: give it with --parameter B=VALUE"
        );
    }

    #[test]
    fn parameter_store_needs_a_value() {
        let declaration = json!({"Type": "AWS::SSM::Parameter::Value<String>", "Default": "/path"});
        assert!(fault(&declaration, None).contains("--parameter Name=VALUE"));
        assert_eq!(value(&declaration, Some("x")), "x");
    }

    #[test]
    fn a_pattern_beyond_this_engine_is_reported_as_unchecked() {
        let section = json!({"A": {"Type": "String", "Default": "x", "AllowedPattern": "(?=x).*"}});
        assert_eq!(resolve(Some(&section), &BTreeMap::new()).expect("accepted").1, ["A"]);
    }
}
