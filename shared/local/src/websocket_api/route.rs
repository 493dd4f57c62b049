//! Which route takes a message.
//!
//! Source: "Create routes for WebSocket APIs" and "WebSocket API selection expressions", Amazon API Gateway Developer Guide.

use serde::de::IgnoredAny;
use serde_json::Value;

/// The route that runs before a connection opens.
pub(super) const CONNECT: &str = "$connect";
/// The route that runs after a connection has closed.
pub(super) const DISCONNECT: &str = "$disconnect";
/// The route for every message that no other route takes.
pub(super) const DEFAULT: &str = "$default";

/// The only variable a route selection expression can name.
const BODY_VARIABLE: &str = "request.body";

/// A parsed `RouteSelectionExpression`: `$request.body.action`, `${request.body.service}/${request.body.action}`, or a text
/// without variables, in which `\$` stands for a dollar sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RouteSelection {
    pieces: Vec<Piece>,
}

/// A `RouteSelectionExpression` that cannot be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("RouteSelectionExpression `{expression}`: {fault}")]
pub struct RouteSelectionError {
    /// The whole expression.
    pub expression: String,
    /// What is wrong with it.
    pub fault: RouteSelectionFault,
}

/// What is wrong with a `RouteSelectionExpression`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteSelectionFault {
    /// Nothing is in it.
    #[error("it is empty")]
    Empty,
    /// Only the message's body can choose a route.
    #[error("`{0}` is no variable for it, only `request.body` and a path in it")]
    UnknownVariable(String),
    /// A `${` has no `}`.
    #[error("a `${{` is not closed")]
    Unclosed,
    /// A path has a segment without a name, or an index that is no number.
    #[error("`{0}` is no path: names joined by `.`, each followed by `[number]` at will")]
    BadPath(String),
    /// A `$` that begins no variable.
    #[error("a `$` must begin `${{request.body…}}`, stand at the beginning of the whole expression, or be written `\\$`")]
    StrayDollar,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Body(Vec<Step>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

impl RouteSelection {
    /// Reads an expression.
    ///
    /// # Errors
    /// [`RouteSelectionError`] names the expression and its fault.
    pub(super) fn parse(expression: &str) -> Result<Self, RouteSelectionError> {
        match parse_pieces(expression) {
            Ok(pieces) => Ok(Self { pieces }),
            Err(fault) => Err(RouteSelectionError { expression: expression.to_owned(), fault }),
        }
    }

    /// The route key that a message asks for, or nothing when the message is not JSON: such a message goes to `$default`
    /// whatever the expression is. A value that is not there counts as the empty text.
    pub(super) fn evaluate(&self, message: &str) -> Option<String> {
        let reads_the_body = self.pieces.iter().any(|piece| matches!(piece, Piece::Body(_)));
        let body = if reads_the_body {
            serde_json::from_str::<Value>(message).ok()?
        } else {
            serde_json::from_str::<IgnoredAny>(message).ok()?;
            Value::Null
        };
        let mut key = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => key.push_str(text),
                Piece::Body(path) => push_value(&mut key, &body, path),
            }
        }
        Some(key)
    }
}

fn push_value(key: &mut String, body: &Value, path: &[Step]) {
    let found = path.iter().try_fold(body, |value, step| match step {
        Step::Key(name) => value.get(name),
        Step::Index(index) => value.get(index),
    });
    match found {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) => key.push_str(text),
        Some(other) => key.push_str(&other.to_string()),
    }
}

fn parse_pieces(expression: &str) -> Result<Vec<Piece>, RouteSelectionFault> {
    if expression.is_empty() {
        return Err(RouteSelectionFault::Empty);
    }
    if let Some(variable) = expression.strip_prefix('$')
        && !variable.starts_with('{')
    {
        return Ok(vec![parse_variable(variable)?]);
    }
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = expression;
    while let Some(character) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("\\$") {
            text.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix("${") {
            let (variable, after) = after.split_once('}').ok_or(RouteSelectionFault::Unclosed)?;
            if !text.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut text)));
            }
            pieces.push(parse_variable(variable)?);
            rest = after;
        } else if character == '$' {
            return Err(RouteSelectionFault::StrayDollar);
        } else {
            text.push(character);
            rest = &rest[character.len_utf8()..];
        }
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Ok(pieces)
}

fn parse_variable(variable: &str) -> Result<Piece, RouteSelectionFault> {
    let Some(path) = variable.strip_prefix(BODY_VARIABLE) else {
        return Err(RouteSelectionFault::UnknownVariable(variable.to_owned()));
    };
    if path.is_empty() {
        return Ok(Piece::Body(Vec::new()));
    }
    let Some(path) = path.strip_prefix('.') else {
        return Err(RouteSelectionFault::UnknownVariable(variable.to_owned()));
    };
    let mut steps = Vec::new();
    for segment in path.split('.') {
        parse_segment(segment, &mut steps).ok_or_else(|| RouteSelectionFault::BadPath(path.to_owned()))?;
    }
    Ok(Piece::Body(steps))
}

/// Reads `name`, `name[0]` or `name[0][1]`.
fn parse_segment(segment: &str, steps: &mut Vec<Step>) -> Option<()> {
    let (name, indices) = match segment.split_once('[') {
        Some((name, indices)) => (name, Some(indices)),
        None => (segment, None),
    };
    if name.is_empty() || name.contains([']', '{', '}', '$']) {
        return None;
    }
    steps.push(Step::Key(name.to_owned()));
    if let Some(indices) = indices {
        for index in indices.strip_suffix(']')?.split("][") {
            steps.push(Step::Index(index.parse().ok()?));
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expression: &str, message: &str, expected: Option<&str>) {
        let selection = RouteSelection::parse(expression).expect("a good expression");
        assert_eq!(selection.evaluate(message).as_deref(), expected, "{expression} of {message}");
    }

    #[track_caller]
    fn refuse(expression: &str, fault: RouteSelectionFault) {
        let refused = RouteSelection::parse(expression).expect_err("a bad expression");
        assert_eq!(refused, RouteSelectionError { expression: expression.to_owned(), fault });
    }

    #[test]
    fn a_path_of_the_body_chooses() {
        check("$request.body.action", r#"{"action":"join"}"#, Some("join"));
        check("${request.body.action}", r#"{"action":"join"}"#, Some("join"));
        check("$request.body.a.b", r#"{"a":{"b":"deep"}}"#, Some("deep"));
        check("$request.body.a[1].b", r#"{"a":[0,{"b":"listed"}]}"#, Some("listed"));
        check("$request.body.a[1][0]", r#"{"a":[0,["nested"]]}"#, Some("nested"));
        check("${request.body.service}/${request.body.action}", r#"{"service":"chat","action":"join"}"#, Some("chat/join"));
        check("v1.${request.body.action}", r#"{"action":"join"}"#, Some("v1.join"));
    }

    #[test]
    fn a_text_without_variables_chooses_itself() {
        check("message", "{}", Some("message"));
        check("\\$default", "{}", Some("$default"));
        check("cost\\$${request.body.a}", r#"{"a":1}"#, Some("cost$1"));
    }

    #[test]
    fn values_are_written_as_text_and_missing_ones_are_empty() {
        check("$request.body.action", r#"{"action":7}"#, Some("7"));
        check("$request.body.action", r#"{"action":true}"#, Some("true"));
        check("$request.body.action", r#"{"action":{"a":[1]}}"#, Some(r#"{"a":[1]}"#));
        check("$request.body", "7", Some("7"));
        for message in ["{}", r#"{"action":null}"#, "7", "[]", r#"{"Action":"join"}"#] {
            check("$request.body.action", message, Some(""));
        }
    }

    #[test]
    fn what_is_not_json_asks_for_no_key() {
        for expression in ["$request.body.action", "message", "\\$default"] {
            for message in ["", "hello", "{", r#"{"action":"join"} "#.trim_end_matches(['}', ' ']), "{'action':'join'}"] {
                check(expression, message, None);
            }
        }
    }

    #[test]
    fn a_bad_expression_names_its_fault() {
        refuse("", RouteSelectionFault::Empty);
        refuse("$default", RouteSelectionFault::UnknownVariable("default".to_owned()));
        refuse("$request.header.a", RouteSelectionFault::UnknownVariable("request.header.a".to_owned()));
        refuse("$request.bodyaction", RouteSelectionFault::UnknownVariable("request.bodyaction".to_owned()));
        refuse("${request.body.a", RouteSelectionFault::Unclosed);
        refuse("a$b", RouteSelectionFault::StrayDollar);
        for path in ["", "a..b", "a.", "a[", "a[x]", "a[0", "[0]", "a]"] {
            refuse(&format!("$request.body.{path}"), RouteSelectionFault::BadPath(path.to_owned()));
        }
    }
}
