//! Event patterns, parsed once and matched often.
//!
//! The operators and their meaning are those of the Amazon EventBridge User Guide, "Comparison operators for use in event
//! patterns in Amazon EventBridge", and, where that page is silent (arrays of maps), of AWS's own matcher, Event Ruler.

use ipnet::IpNet;
use serde_json::{Map, Number, Value};

/// A parsed event pattern.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern(Fields);

/// The pattern is refused. `path` is where in the pattern, dots between the names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event pattern is not valid at {path}: {fault}")]
pub struct PatternError {
    path: String,
    fault: String,
}

/// All fields must match, and of every `$or` one alternative.
#[derive(Clone, Debug, PartialEq)]
struct Fields {
    fields: Vec<(String, Field)>,
    alternatives: Vec<Vec<Fields>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Field {
    Nested(Fields),
    /// One of these must match.
    AnyOf(Vec<Matcher>),
}

#[derive(Clone, Debug, PartialEq)]
enum Matcher {
    Exact(Value),
    Text(TextMatcher),
    AnythingBut(Vec<Value>),
    AnythingButText(Vec<TextMatcher>),
    Numeric(Vec<(Comparison, f64)>),
    Cidr(IpNet),
    Exists(bool),
}

#[derive(Clone, Debug, PartialEq)]
enum TextMatcher {
    Prefix(String),
    PrefixIgnoreCase(String),
    Suffix(String),
    SuffixIgnoreCase(String),
    EqualsIgnoreCase(String),
    Wildcard(Vec<Piece>),
}

/// A wildcard's pieces: text, or `*`.
#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(String),
    Anything,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

const OPERATORS: &str = "anything-but, cidr, equals-ignore-case, exists, numeric, prefix, suffix, wildcard";

/// "Numeric matching … is limited to values between -5.0e9 and +5.0e9 inclusive."
const NUMERIC_RANGE: std::ops::RangeInclusive<f64> = -5.0e9..=5.0e9;

impl Pattern {
    /// Parses an event pattern.
    ///
    /// # Errors
    /// Names the place in the pattern and the operator that is unknown or malformed.
    pub fn parse(pattern: &Value) -> Result<Self, PatternError> {
        let object = pattern.as_object().filter(|object| !object.is_empty());
        let object = object.ok_or_else(|| fault("the pattern", "must be a map with at least one field"))?;
        fields(object, "").map(Self)
    }

    /// Whether an event matches.
    #[must_use]
    pub fn matches(&self, event: &Value) -> bool {
        self.0.matches(event)
    }
}

impl Fields {
    /// Against an array, one of its maps must match whole: Event Ruler's array consistency.
    fn matches(&self, value: &Value) -> bool {
        match value {
            Value::Array(items) => items.iter().any(|item| self.matches(item)),
            Value::Object(object) => self.matches_object(object),
            _ => false,
        }
    }

    fn matches_object(&self, object: &Map<String, Value>) -> bool {
        let every_field = self.fields.iter().all(|(name, field)| {
            let value = object.get(name);
            match field {
                // A field that does not exist has only fields that do not exist.
                Field::Nested(fields) => match value {
                    Some(value @ (Value::Object(_) | Value::Array(_))) => fields.matches(value),
                    _ => fields.matches_object(&Map::new()),
                },
                Field::AnyOf(matchers) => {
                    let mut leaves = Vec::new();
                    value.into_iter().for_each(|value| collect_leaves(value, &mut leaves));
                    matchers.iter().any(|matcher| matcher.matches(&leaves))
                }
            }
        });
        every_field
            && self.alternatives.iter().all(|alternatives| alternatives.iter().any(|fields| fields.matches_object(object)))
    }
}

impl Matcher {
    fn matches(&self, leaves: &[&Value]) -> bool {
        match self {
            Self::Exists(wanted) => *wanted != leaves.is_empty(),
            Self::Exact(expected) => leaves.contains(&expected),
            Self::Text(matcher) => leaves.iter().any(|leaf| leaf.as_str().is_some_and(|text| matcher.matches(text))),
            Self::AnythingBut(excluded) => leaves.iter().any(|leaf| !excluded.contains(leaf)),
            Self::AnythingButText(excluded) => {
                leaves.iter().any(|leaf| leaf.as_str().is_some_and(|text| !excluded.iter().any(|matcher| matcher.matches(text))))
            }
            Self::Numeric(bounds) => leaves.iter().any(|leaf| {
                leaf.as_f64().is_some_and(|number| bounds.iter().all(|(comparison, bound)| comparison.holds(number, *bound)))
            }),
            Self::Cidr(network) => leaves.iter().any(|leaf| {
                leaf.as_str()
                    .and_then(|text| text.parse::<std::net::IpAddr>().ok())
                    .is_some_and(|address| network.contains(&address))
            }),
        }
    }
}

impl TextMatcher {
    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Prefix(prefix) => text.starts_with(prefix),
            Self::PrefixIgnoreCase(prefix) => text.to_lowercase().starts_with(prefix),
            Self::Suffix(suffix) => text.ends_with(suffix),
            Self::SuffixIgnoreCase(suffix) => text.to_lowercase().ends_with(suffix),
            Self::EqualsIgnoreCase(expected) => text.to_lowercase() == *expected,
            Self::Wildcard(pieces) => wildcard_matches(pieces, text),
        }
    }
}

impl Comparison {
    fn holds(self, number: f64, bound: f64) -> bool {
        match self {
            #[expect(clippy::float_cmp, reason = "the operator = means equal")]
            Self::Equal => number == bound,
            Self::Less => number < bound,
            Self::LessOrEqual => number <= bound,
            Self::Greater => number > bound,
            Self::GreaterOrEqual => number >= bound,
        }
    }
}

/// The scalars of a value: an event's array matches where one of its items does. Maps have no value of their own.
fn collect_leaves<'v>(value: &'v Value, leaves: &mut Vec<&'v Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect_leaves(item, leaves)),
        Value::Object(_) => {}
        scalar => leaves.push(scalar),
    }
}

/// Greedy from both ends: the text pieces in the middle are found from left to right, which is enough where `*` is the only
/// wildcard.
fn wildcard_matches(pieces: &[Piece], text: &str) -> bool {
    let mut rest = text;
    for (index, piece) in pieces.iter().enumerate() {
        let Piece::Text(piece) = piece else { continue };
        let (first, last) = (index == 0, index + 1 == pieces.len());
        rest = match (first, last) {
            (true, true) => return rest == piece,
            (true, false) => match rest.strip_prefix(piece.as_str()) {
                Some(rest) => rest,
                None => return false,
            },
            (false, true) => return rest.ends_with(piece.as_str()),
            (false, false) => match rest.find(piece.as_str()) {
                Some(start) => &rest[start + piece.len()..],
                None => return false,
            },
        };
    }
    // The last piece is `*`, or the pattern is empty.
    !pieces.is_empty() || text.is_empty()
}

fn fault(path: &str, fault: impl Into<String>) -> PatternError {
    PatternError { path: path.to_owned(), fault: fault.into() }
}

fn fields(object: &Map<String, Value>, path: &str) -> Result<Fields, PatternError> {
    let mut parsed = Fields { fields: Vec::new(), alternatives: Vec::new() };
    for (name, value) in object {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match value {
            Value::Array(items) if name == "$or" && items.iter().all(Value::is_object) => {
                if items.len() < 2 {
                    return Err(fault(&path, "needs at least two alternatives"));
                }
                let alternatives = items.iter().filter_map(Value::as_object).map(|alternative| fields(alternative, &path));
                parsed.alternatives.push(alternatives.collect::<Result<_, _>>()?);
            }
            Value::Object(nested) if nested.is_empty() => return Err(fault(&path, "is an empty map")),
            Value::Object(nested) => parsed.fields.push((name.clone(), Field::Nested(fields(nested, &path)?))),
            Value::Array(items) if items.is_empty() => return Err(fault(&path, "is an empty list and would match nothing")),
            Value::Array(items) => {
                let matchers = items.iter().map(|item| matcher(item, &path)).collect::<Result<_, _>>()?;
                parsed.fields.push((name.clone(), Field::AnyOf(matchers)));
            }
            _ => return Err(fault(&path, "must be a list of values, even of one, or a map")),
        }
    }
    Ok(parsed)
}

fn matcher(value: &Value, path: &str) -> Result<Matcher, PatternError> {
    let operator = match value {
        Value::Object(operator) => operator,
        Value::Array(_) => return Err(fault(path, "a list may not hold a list")),
        scalar => return Ok(Matcher::Exact(scalar.clone())),
    };
    let mut entries = operator.iter();
    let (Some((name, argument)), None) = (entries.next(), entries.next()) else {
        return Err(fault(path, format!("one map holds one operator, of {OPERATORS}")));
    };
    let path = &format!("{path}.{name}");
    Ok(match name.as_str() {
        "exists" => Matcher::Exists(argument.as_bool().ok_or_else(|| fault(path, "must be true or false"))?),
        "numeric" => Matcher::Numeric(numeric(argument, path)?),
        "cidr" => {
            let text = argument.as_str().ok_or_else(|| fault(path, "must be a string such as 10.0.0.0/24"))?;
            Matcher::Cidr(
                text.parse().map_err(|_| fault(path, format!("must be a network such as 10.0.0.0/24, and {text} is none")))?,
            )
        }
        "anything-but" => anything_but(argument, path)?,
        _ => Matcher::Text(text_matcher(name, argument, path)?),
    })
}

fn text_matcher(name: &str, argument: &Value, path: &str) -> Result<TextMatcher, PatternError> {
    let text = || argument.as_str().map(str::to_owned).ok_or_else(|| fault(path, "must be a string"));
    let ignoring_case = argument.as_object().filter(|map| map.len() == 1).and_then(|map| map.get("equals-ignore-case")?.as_str());
    Ok(match (name, ignoring_case) {
        ("prefix", Some(prefix)) => TextMatcher::PrefixIgnoreCase(prefix.to_lowercase()),
        ("suffix", Some(suffix)) => TextMatcher::SuffixIgnoreCase(suffix.to_lowercase()),
        ("prefix", None) => TextMatcher::Prefix(text()?),
        ("suffix", None) => TextMatcher::Suffix(text()?),
        ("equals-ignore-case", _) => TextMatcher::EqualsIgnoreCase(text()?.to_lowercase()),
        ("wildcard", _) => TextMatcher::Wildcard(wildcard(&text()?, path)?),
        _ => return Err(fault(path, format!("{name} is not an operator, which are {OPERATORS}"))),
    })
}

fn anything_but(argument: &Value, path: &str) -> Result<Matcher, PatternError> {
    if let Value::Object(operator) = argument {
        let mut entries = operator.iter();
        let (Some((name, argument)), None) = (entries.next(), entries.next()) else {
            return Err(fault(path, "holds one operator: equals-ignore-case, prefix, suffix or wildcard"));
        };
        let path = &format!("{path}.{name}");
        let items = match argument {
            Value::Array(items) if !items.is_empty() => items.as_slice(),
            other => std::slice::from_ref(other),
        };
        let matchers = items.iter().map(|item| text_matcher(name, item, path)).collect::<Result<_, _>>()?;
        return Ok(Matcher::AnythingButText(matchers));
    }
    let items = match argument {
        Value::Array(items) if !items.is_empty() => items.clone(),
        Value::String(_) | Value::Number(_) => vec![argument.clone()],
        _ => return Err(fault(path, "must be a string, a number, a list of them, or an operator")),
    };
    if !(items.iter().all(Value::is_string) || items.iter().all(Value::is_number)) {
        return Err(fault(path, "must hold only strings or only numbers"));
    }
    Ok(Matcher::AnythingBut(items))
}

fn numeric(argument: &Value, path: &str) -> Result<Vec<(Comparison, f64)>, PatternError> {
    let shape = || fault(path, "must be an operator and a number, or two of both for a range, such as [\">\", 0, \"<=\", 5]");
    let items = argument.as_array().filter(|items| items.len() == 2 || items.len() == 4).ok_or_else(shape)?;
    let mut bounds = Vec::new();
    for pair in items.chunks(2) {
        let comparison = match pair[0].as_str().ok_or_else(shape)? {
            "=" => Comparison::Equal,
            "<" => Comparison::Less,
            "<=" => Comparison::LessOrEqual,
            ">" => Comparison::Greater,
            ">=" => Comparison::GreaterOrEqual,
            other => return Err(fault(path, format!("{other} is none of =, <, <=, >, >="))),
        };
        let bound = pair[1].as_number().and_then(Number::as_f64).ok_or_else(shape)?;
        if !NUMERIC_RANGE.contains(&bound) {
            return Err(fault(path, format!("{bound} is outside -5.0e9 to 5.0e9")));
        }
        bounds.push((comparison, bound));
    }
    Ok(bounds)
}

fn wildcard(text: &str, path: &str) -> Result<Vec<Piece>, PatternError> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut literal = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(escaped @ ('*' | '\\')) => literal.push(escaped),
                _ => return Err(fault(path, "a backslash may only stand before * or another backslash")),
            },
            '*' => {
                if !literal.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut literal)));
                }
                if pieces.last() == Some(&Piece::Anything) {
                    return Err(fault(path, "two * may not follow each other"));
                }
                pieces.push(Piece::Anything);
            }
            other => literal.push(other),
        }
    }
    if !literal.is_empty() {
        pieces.push(Piece::Text(literal));
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Pattern;

    #[track_caller]
    fn check(pattern: Value, matching: &[Value], other: &[Value]) {
        let parsed = Pattern::parse(&pattern).expect("the pattern is valid");
        for event in matching {
            assert!(parsed.matches(event), "{pattern} should match {event}");
        }
        for event in other {
            assert!(!parsed.matches(event), "{pattern} should not match {event}");
        }
    }

    #[test]
    fn exact_values_keep_their_type() {
        check(json!({"a": ["x", "y"]}), &[json!({"a": "x"}), json!({"a": "y", "b": 1})], &[json!({"a": "z"}), json!({})]);
        check(json!({"a": [1]}), &[json!({"a": 1})], &[json!({"a": "1"})]);
        check(json!({"a": [null]}), &[json!({"a": null})], &[json!({}), json!({"a": ""})]);
        check(json!({"a": [true]}), &[json!({"a": true})], &[json!({"a": false})]);
        check(json!({"a": [""]}), &[json!({"a": ""})], &[json!({"a": null})]);
    }

    #[test]
    fn nested_maps_and_several_fields_must_all_match() {
        check(
            json!({"source": ["s"], "detail": {"a": {"b": ["x"]}, "c": [2]}}),
            &[json!({"source": "s", "detail": {"a": {"b": "x"}, "c": 2}})],
            &[
                json!({"source": "s", "detail": {"a": {"b": "x"}, "c": 3}}),
                json!({"source": "s", "detail": {"a": "x", "c": 2}}),
                json!({"source": "s"}),
            ],
        );
    }

    #[test]
    fn arrays_in_events_match_by_any_item() {
        check(json!({"a": ["x"]}), &[json!({"a": ["y", "x"]})], &[json!({"a": []}), json!({"a": ["y"]})]);
        // Both fields must be in the same item.
        check(
            json!({"a": {"b": [1], "c": [2]}}),
            &[json!({"a": [{"b": 0}, {"b": 1, "c": 2}]})],
            &[json!({"a": [{"b": 1, "c": 0}, {"b": 0, "c": 2}]})],
        );
    }

    #[test]
    fn text_operators() {
        check(
            json!({"a": [{"prefix": "ab"}]}),
            &[json!({"a": "abc"}), json!({"a": "ab"})],
            &[json!({"a": "ba"}), json!({"a": 1})],
        );
        check(json!({"a": [{"prefix": {"equals-ignore-case": "AB"}}]}), &[json!({"a": "aBc"})], &[json!({"a": "xab"})]);
        check(json!({"a": [{"suffix": ".png"}]}), &[json!({"a": "x.png"})], &[json!({"a": "x.PNG"})]);
        check(json!({"a": [{"suffix": {"equals-ignore-case": ".png"}}]}), &[json!({"a": "x.PNG"})], &[json!({"a": "png"})]);
        check(json!({"a": [{"equals-ignore-case": "Alice"}]}), &[json!({"a": "ALICE"})], &[json!({"a": "alices"})]);
    }

    #[test]
    fn wildcards() {
        check(
            json!({"a": [{"wildcard": "dir/*.png"}]}),
            &[json!({"a": "dir/x.png"}), json!({"a": "dir/.png"}), json!({"a": "dir/y/x.png.png"})],
            &[json!({"a": "dir/x.png2"}), json!({"a": "adir/x.png"})],
        );
        check(json!({"a": [{"wildcard": "*a*b*"}]}), &[json!({"a": "xaybz"}), json!({"a": "ab"})], &[json!({"a": "ba"})]);
        check(json!({"a": [{"wildcard": "*"}]}), &[json!({"a": ""}), json!({"a": "x"})], &[json!({"a": 1})]);
        check(json!({"a": [{"wildcard": r"a\*b"}]}), &[json!({"a": "a*b"})], &[json!({"a": "axb"})]);
        // The prefix and the suffix may not overlap.
        check(json!({"a": [{"wildcard": "aba*ba"}]}), &[json!({"a": "ababa"})], &[json!({"a": "aba"})]);
    }

    #[test]
    fn anything_but() {
        check(json!({"a": [{"anything-but": "x"}]}), &[json!({"a": "y"}), json!({"a": 1})], &[json!({"a": "x"}), json!({})]);
        check(json!({"a": [{"anything-but": ["x", "y"]}]}), &[json!({"a": "z"})], &[json!({"a": "y"})]);
        check(json!({"a": [{"anything-but": [1, 2]}]}), &[json!({"a": 3})], &[json!({"a": 2})]);
        check(json!({"a": [{"anything-but": {"prefix": "x"}}]}), &[json!({"a": "y"})], &[json!({"a": "xy"})]);
        check(json!({"a": [{"anything-but": {"suffix": ["x", "y"]}}]}), &[json!({"a": "yz"})], &[json!({"a": "xy"})]);
        check(json!({"a": [{"anything-but": {"equals-ignore-case": "X"}}]}), &[json!({"a": "y"})], &[json!({"a": "x"})]);
        check(json!({"a": [{"anything-but": {"wildcard": "*/lib/*"}}]}), &[json!({"a": "/x"})], &[json!({"a": "/lib/x"})]);
    }

    #[test]
    fn numbers_networks_and_existence() {
        check(
            json!({"a": [{"numeric": [">", 0, "<=", 5]}]}),
            &[json!({"a": 5}), json!({"a": 0.5})],
            &[json!({"a": 0}), json!({"a": 5.1}), json!({"a": "3"})],
        );
        check(json!({"a": [{"numeric": ["=", 3e2]}]}), &[json!({"a": 300})], &[json!({"a": 301})]);
        check(
            json!({"a": [{"cidr": "10.0.0.0/24"}]}),
            &[json!({"a": "10.0.0.255"})],
            &[json!({"a": "10.0.1.0"}), json!({"a": "x"})],
        );
        check(json!({"a": [{"cidr": "2001:db8::/32"}]}), &[json!({"a": "2001:db8::1"})], &[json!({"a": "10.0.0.1"})]);
        check(json!({"a": [{"exists": true}]}), &[json!({"a": null}), json!({"a": 0})], &[json!({}), json!({"a": {"b": 1}})]);
        check(
            json!({"a": {"b": [{"exists": false}]}}),
            &[json!({}), json!({"a": {"c": 1}}), json!({"a": 1})],
            &[json!({"a": {"b": 1}})],
        );
        check(json!({"a": ["x", {"exists": false}]}), &[json!({}), json!({"a": "x"})], &[json!({"a": "y"})]);
    }

    #[test]
    fn one_alternative_of_or_must_match() {
        check(
            json!({"s": ["s"], "$or": [{"a": ["x"]}, {"b": [{"numeric": [">", 1]}]}]}),
            &[json!({"s": "s", "a": "x"}), json!({"s": "s", "b": 2})],
            &[json!({"s": "s", "b": 1}), json!({"a": "x"})],
        );
    }

    #[test]
    fn faults_name_the_place() {
        let check = |pattern: Value, expected: &str| {
            let error = Pattern::parse(&pattern).expect_err("refused").to_string();
            assert_eq!(error, format!("the event pattern is not valid at {expected}"));
        };
        check(json!({}), "the pattern: must be a map with at least one field");
        check(json!({"a": "x"}), "a: must be a list of values, even of one, or a map");
        check(json!({"a": []}), "a: is an empty list and would match nothing");
        check(json!({"a": {"b": {}}}), "a.b: is an empty map");
        check(
            json!({"a": [{"regex": "x"}]}),
            "a.regex: regex is not an operator, which are \
             anything-but, cidr, equals-ignore-case, exists, numeric, prefix, suffix, wildcard",
        );
        check(json!({"a": [{"wildcard": "a**"}]}), "a.wildcard: two * may not follow each other");
        check(json!({"a": [{"numeric": ["~", 1]}]}), "a.numeric: ~ is none of =, <, <=, >, >=");
        check(json!({"a": [{"numeric": [">", 6e9]}]}), "a.numeric: 6000000000 is outside -5.0e9 to 5.0e9");
        check(json!({"a": [{"cidr": "x"}]}), "a.cidr: must be a network such as 10.0.0.0/24, and x is none");
        check(json!({"$or": [{"a": ["x"]}]}), "$or: needs at least two alternatives");
        check(json!({"a": [{"anything-but": ["x", 1]}]}), "a.anything-but: must hold only strings or only numbers");
    }
}
