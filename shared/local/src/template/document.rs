//! A template as text, made into one tree of JSON values in which every intrinsic has its long form.

use std::path::Path;

use serde_json::{Map, Value};
use serde_yaml_ng::Value as Yaml;

use super::error::TemplateError;

/// A file may have at most this many bytes: CloudFormation's own limit for a template in Amazon S3 (AWS CloudFormation User
/// Guide, "Understand CloudFormation quotas": 1 MB).
const MAXIMUM_BYTES: u64 = 1_000_000;

/// Reads a YAML or JSON template.
pub(super) fn read(path: &Path) -> Result<Value, TemplateError> {
    let unreadable = |source| TemplateError::Read { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > MAXIMUM_BYTES {
        return Err(TemplateError::at(
            path.display().to_string(),
            format!("is {size} bytes long, over CloudFormation's limit of {MAXIMUM_BYTES}"),
        ));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    parse(&text).map_err(|source| TemplateError::Syntax { path: path.to_owned(), source })
}

/// Parses a template. A text that begins with `{` is JSON, as `sam` judges it too.
pub(super) fn parse(text: &str) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
    if text.trim_start().starts_with('{') {
        return Ok(serde_json::from_str(text)?);
    }
    let yaml: Yaml = serde_yaml_ng::from_str(text)?;
    long_form(yaml)
}

/// Turns YAML into JSON and the short tags into long forms (AWS CloudFormation User Guide, "Intrinsic function reference").
fn long_form(yaml: Yaml) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
    Ok(match yaml {
        Yaml::Null => Value::Null,
        Yaml::Bool(boolean) => Value::Bool(boolean),
        Yaml::Number(number) => number_value(&number),
        Yaml::String(text) => Value::String(text),
        Yaml::Sequence(items) => Value::Array(items.into_iter().map(long_form).collect::<Result<_, _>>()?),
        Yaml::Mapping(mapping) => {
            let mut object = Map::new();
            for (key, value) in mapping {
                let key = match key {
                    Yaml::String(text) => text,
                    Yaml::Number(number) => number.to_string(),
                    Yaml::Bool(boolean) => boolean.to_string(),
                    other => return Err(format!("a key is not a string: {other:?}").into()),
                };
                object.insert(key, long_form(value)?);
            }
            Value::Object(object)
        }
        Yaml::Tagged(tagged) => {
            let tag = tagged.tag.to_string();
            let name = tag.trim_start_matches('!');
            let argument = long_form(tagged.value)?;
            let (key, argument) = match name {
                "Ref" | "Condition" => (name.to_owned(), argument),
                "GetAtt" => ("Fn::GetAtt".to_owned(), get_att_argument(argument)),
                other => (format!("Fn::{other}"), argument),
            };
            Value::Object(Map::from_iter([(key, argument)]))
        }
    })
}

/// `!GetAtt Resource.Attribute.Nested` names the resource up to the first dot.
fn get_att_argument(argument: Value) -> Value {
    match argument {
        Value::String(text) => match text.split_once('.') {
            Some((resource, attribute)) => Value::Array(vec![resource.into(), attribute.into()]),
            None => Value::String(text),
        },
        other => other,
    }
}

fn number_value(number: &serde_yaml_ng::Number) -> Value {
    if let Some(integer) = number.as_i64() {
        return integer.into();
    }
    if let Some(integer) = number.as_u64() {
        return integer.into();
    }
    // `.nan` and `.inf` have no JSON number; they stay the words they were.
    number.as_f64().and_then(serde_json::Number::from_f64).map_or_else(|| Value::String(number.to_string()), Value::Number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::parse;

    #[test]
    fn short_tags_become_long_forms() {
        let check = |yaml: &str, expected: serde_json::Value| {
            assert_eq!(parse(yaml).expect("parses"), expected, "{yaml}");
        };
        check("a: !Ref B", json!({"a": {"Ref": "B"}}));
        check("a: !Condition B", json!({"a": {"Condition": "B"}}));
        check("a: !GetAtt B.Arn", json!({"a": {"Fn::GetAtt": ["B", "Arn"]}}));
        check("a: !GetAtt B.Outputs.Name", json!({"a": {"Fn::GetAtt": ["B", "Outputs.Name"]}}));
        check("a: !GetAtt [B, Arn]", json!({"a": {"Fn::GetAtt": ["B", "Arn"]}}));
        check("a: !Sub '${B}/x'", json!({"a": {"Fn::Sub": "${B}/x"}}));
        check("a: !If [C, !Ref B, !Ref 'AWS::NoValue']", json!({"a": {"Fn::If": ["C", {"Ref": "B"}, {"Ref": "AWS::NoValue"}]}}));
        check("a: !Not [!Equals [!Ref B, '']]", json!({"a": {"Fn::Not": [{"Fn::Equals": [{"Ref": "B"}, ""]}]}}));
        check("a: { Fn::Join: ['-', [x, y]] }", json!({"a": {"Fn::Join": ["-", ["x", "y"]]}}));
        check("Version: 2012-10-17\n012: 7", json!({"Version": "2012-10-17", "012": 7}));
    }

    #[test]
    fn json_is_taken_as_it_is() {
        assert_eq!(parse("  {\"a\": {\"Ref\": \"B\"}}").expect("parses"), json!({"a": {"Ref": "B"}}));
    }

    #[test]
    fn syntax_errors_name_the_line() {
        let error = parse("a: 1\nb: [").expect_err("not closed").to_string();
        assert!(error.contains("line"), "{error}");
        let error = parse("a: 1\na: 2").expect_err("a repeated key").to_string();
        assert!(error.contains("duplicate"), "{error}");
    }
}
