//! `Globals`, merged into resources as SAM does it.
//!
//! The rules are those of the AWS SAM Developer Guide, "Globals section of the AWS SAM template": a resource's own scalar
//! wins, maps are merged key by key, lists are joined with the global part first. A map that is an intrinsic counts as a scalar.

use serde_json::{Map, Value};

/// The properties of one resource with the section's defaults beneath them; `ignored` is the resource's `IgnoreGlobals`.
pub(super) fn merge(
    section: Option<&Map<String, Value>>,
    own: &Map<String, Value>,
    ignored: Option<&Value>,
) -> Map<String, Value> {
    let Some(section) = section else { return own.clone() };
    let mut defaults = section.clone();
    match ignored {
        Some(Value::String(all)) if all == "*" => return own.clone(),
        Some(Value::Array(names)) => defaults.retain(|name, _| !names.iter().any(|ignored| ignored == name)),
        _ => {}
    }
    merge_maps(defaults, own)
}

fn merge_maps(mut defaults: Map<String, Value>, own: &Map<String, Value>) -> Map<String, Value> {
    for (name, value) in own {
        let merged = match defaults.remove(name) {
            Some(default) => merge_values(default, value),
            None => value.clone(),
        };
        defaults.insert(name.clone(), merged);
    }
    defaults
}

fn merge_values(default: Value, own: &Value) -> Value {
    match (default, own) {
        (Value::Object(default), Value::Object(own)) if !is_intrinsic(&default) && !is_intrinsic(own) => {
            Value::Object(merge_maps(default, own))
        }
        (Value::Array(mut default), Value::Array(own)) => {
            default.extend(own.iter().cloned());
            Value::Array(default)
        }
        (_, own) => own.clone(),
    }
}

/// Whether a map is an intrinsic: one key that is `Ref`, `Condition` or begins with `Fn::`.
pub(super) fn is_intrinsic(map: &Map<String, Value>) -> bool {
    map.len() == 1 && map.keys().all(|key| key == "Ref" || key == "Condition" || key.starts_with("Fn::"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::merge;

    #[track_caller]
    fn check(section: &Value, own: &Value, ignored: Option<&Value>, expected: &Value) {
        let merged = merge(section.as_object(), own.as_object().expect("a map"), ignored);
        assert_eq!(&Value::Object(merged), expected);
    }

    #[test]
    fn scalars_maps_and_lists_merge_as_sam_says() {
        check(
            &json!({"Timeout": 3, "Environment": {"Variables": {"A": "1", "B": "2"}}, "Layers": ["x"], "MemorySize": 128}),
            &json!({"Timeout": 9, "Environment": {"Variables": {"B": "3"}}, "Layers": ["y"]}),
            None,
            &json!({"Timeout": 9, "Environment": {"Variables": {"A": "1", "B": "3"}}, "Layers": ["x", "y"], "MemorySize": 128}),
        );
    }

    #[test]
    fn an_intrinsic_is_not_merged_into() {
        check(
            &json!({"Environment": {"Variables": {"A": {"Ref": "X"}}}}),
            &json!({"Environment": {"Variables": {"A": {"Fn::Sub": "y"}}}}),
            None,
            &json!({"Environment": {"Variables": {"A": {"Fn::Sub": "y"}}}}),
        );
    }

    #[test]
    fn ignore_globals_leaves_out_what_it_names() {
        let section = json!({"Timeout": 3, "MemorySize": 512});
        check(&section, &json!({}), Some(&json!("*")), &json!({}));
        check(&section, &json!({}), Some(&json!(["Timeout"])), &json!({"MemorySize": 512}));
    }
}
