//! The SQL of IoT rules, as far as it is evaluated here (AWS IoT Core Developer Guide, "AWS IoT SQL reference").
//!
//! `SELECT` takes `*`, and with `AS` the functions `encode(*, 'base64')`, `topic()`, `topic(n)`, `clientid()`, `traceid()`,
//! `timestamp()` and literals; `FROM` takes a topic filter. All else is refused by its name when the template is read, so that no
//! rule runs that would do something else on AWS.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};

use super::topic::TopicFilter;

/// The longest statement, in characters; our choice, the guide names no limit. It keeps the reading of foreign text bounded.
const MAXIMUM_CHARACTERS: usize = 8192;

/// A statement.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    columns: Vec<Column>,
    source: TopicFilter,
}

#[derive(Clone, Debug, PartialEq)]
enum Column {
    /// `*`.
    Everything,
    Named {
        alias: String,
        expression: Expression,
    },
}

#[derive(Clone, Debug, PartialEq)]
enum Expression {
    Literal(Value),
    /// `encode(*, 'base64')`.
    EncodedPayload,
    Topic,
    /// The level of the topic, from 1.
    TopicLevel(usize),
    ClientId,
    TraceId,
    Timestamp,
}

/// A statement cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {position}: {fault}")]
pub struct SqlError {
    /// Where, counted from 1.
    pub position: usize,
    /// What is wrong, or what is not evaluated here.
    pub fault: String,
}

/// What a statement is applied to.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// The message's topic.
    pub topic: &'a str,
    /// Its payload.
    pub payload: &'a [u8],
    /// The client that published it, where it came over MQTT.
    pub client_id: Option<&'a str>,
    /// The message's trace id, where it came over MQTT.
    pub trace_id: Option<&'a str>,
    /// Milliseconds since 1970.
    pub timestamp_ms: u64,
}

/// The payload is not what `*` needs, so the rule does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotApplicable {
    /// `SELECT *` takes JSON. For payloads that are none, `encode(*, 'base64')` is there.
    #[error("the payload is no JSON, which SELECT * needs")]
    NoJson,
    /// `SELECT *, …` adds to an object.
    #[error("the payload is no JSON object, to which SELECT * with further columns adds")]
    NoObject,
}

impl Statement {
    /// Reads a statement.
    ///
    /// # Errors
    /// Names the position and what is wrong or not evaluated.
    pub fn parse(text: &str) -> Result<Self, SqlError> {
        let characters = text.chars().count();
        if characters > MAXIMUM_CHARACTERS {
            let fault = format!("the statement has {characters} characters, over the limit of {MAXIMUM_CHARACTERS}");
            return Err(SqlError { position: 1, fault });
        }
        Parser { tokens: tokens(text)?, next: 0 }.statement()
    }

    /// Which topics it applies to.
    #[must_use]
    pub fn source(&self) -> &TopicFilter {
        &self.source
    }

    /// What it makes of a message: the JSON that actions get. A column without a value is left out.
    ///
    /// # Errors
    /// When the payload is not what the statement needs.
    pub fn apply(&self, event: &Event<'_>) -> Result<Value, NotApplicable> {
        let selects_everything = self.columns.contains(&Column::Everything);
        let payload: Option<Value> =
            selects_everything.then(|| serde_json::from_slice(event.payload)).transpose().map_err(|_| NotApplicable::NoJson)?;
        if let (Some(payload), [_]) = (&payload, self.columns.as_slice()) {
            return Ok(payload.clone());
        }
        let mut output = Map::new();
        for column in &self.columns {
            match column {
                Column::Everything => match &payload {
                    Some(Value::Object(members)) => output.extend(members.clone()),
                    _ => return Err(NotApplicable::NoObject),
                },
                Column::Named { alias, expression } => {
                    if let Some(value) = expression.evaluate(event) {
                        output.insert(alias.clone(), value);
                    }
                }
            }
        }
        Ok(Value::Object(output))
    }
}

impl Expression {
    /// The value, or nothing where the guide says `Undefined`.
    fn evaluate(&self, event: &Event<'_>) -> Option<Value> {
        match self {
            Self::Literal(value) => Some(value.clone()),
            Self::EncodedPayload => Some(BASE64.encode(event.payload).into()),
            Self::Topic => Some(event.topic.into()),
            Self::TopicLevel(level) => event.topic.split('/').nth(level - 1).map(Value::from),
            // "Returns the ID of the MQTT client sending the message, or n/a if the message wasn't sent over MQTT."
            Self::ClientId => Some(event.client_id.unwrap_or("n/a").into()),
            Self::TraceId => event.trace_id.map(Value::from),
            Self::Timestamp => Some(event.timestamp_ms.into()),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Token {
    position: usize,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Word(String),
    Text(String),
    Number(String),
    Sign(char),
    End,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(text) | Self::Number(text) => formatter.write_str(text),
            Self::Text(text) => write!(formatter, "'{text}'"),
            Self::Sign(sign) => write!(formatter, "{sign}"),
            Self::End => formatter.write_str("the end"),
        }
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, SqlError> {
    let characters = text.chars().collect::<Vec<_>>();
    let mut tokens = Vec::new();
    let mut index = 0;
    while let Some(&character) = characters.get(index) {
        let start = index;
        let position = start + 1;
        let run = |from: usize, belongs: &dyn Fn(char) -> bool| {
            characters[from..].iter().take_while(|character| belongs(**character)).count()
        };
        let kind = match character {
            _ if character.is_whitespace() => {
                index += 1;
                continue;
            }
            '\'' | '"' => {
                let length = run(start + 1, &|other| other != character);
                if start + 1 + length == characters.len() {
                    return Err(SqlError { position, fault: format!("a text has no {character} at its end") });
                }
                index += length + 2;
                Kind::Text(characters[start + 1..=start + length].iter().collect())
            }
            _ if character.is_ascii_digit() || (character == '-' && run(start + 1, &|next| next.is_ascii_digit()) > 0) => {
                index += 1 + run(start + 1, &|next| next.is_ascii_digit() || next == '.');
                Kind::Number(characters[start..index].iter().collect())
            }
            _ if character.is_alphabetic() || character == '_' => {
                index += run(start, &|next| next.is_alphanumeric() || next == '_');
                Kind::Word(characters[start..index].iter().collect())
            }
            _ => {
                index += 1;
                Kind::Sign(character)
            }
        };
        tokens.push(Token { position, kind });
    }
    tokens.push(Token { position: characters.len() + 1, kind: Kind::End });
    Ok(tokens)
}

struct Parser {
    /// The last one is the end.
    tokens: Vec<Token>,
    next: usize,
}

impl Parser {
    fn statement(mut self) -> Result<Statement, SqlError> {
        self.keyword("SELECT")?;
        if self.is_keyword("VALUE") {
            return Err(self.not_evaluated("SELECT VALUE"));
        }
        let mut columns = vec![self.column()?];
        while self.take_sign(',') {
            columns.push(self.column()?);
        }
        self.keyword("FROM")?;
        let position = self.peek().position;
        let Kind::Text(filter) = self.advance().kind else {
            return Err(SqlError { position, fault: "FROM needs a topic filter in quotes".to_owned() });
        };
        let source = TopicFilter::parse(&filter).map_err(|error| SqlError { position, fault: error.to_string() })?;
        if source.is_shared() {
            return Err(SqlError { position, fault: "a rule cannot share a subscription".to_owned() });
        }
        match &self.peek().kind {
            Kind::End => Ok(Statement { columns, source }),
            Kind::Word(word) => Err(self.not_evaluated(&word.to_uppercase())),
            other => Err(self.fault(format!("{other} is not expected after the topic filter"))),
        }
    }

    fn column(&mut self) -> Result<Column, SqlError> {
        if self.take_sign('*') {
            return Ok(Column::Everything);
        }
        let expression = self.expression()?;
        if matches!(self.peek().kind, Kind::Sign('+' | '-' | '*' | '/' | '%' | '=' | '<' | '>' | '|' | '!' | '.' | '[')) {
            let operator = self.peek().kind.to_string();
            return Err(self.not_evaluated(&format!("the operator {operator}")));
        }
        if !self.is_keyword("AS") {
            return Err(self.fault("a column needs AS and a name here"));
        }
        self.advance();
        let position = self.peek().position;
        match self.advance().kind {
            Kind::Word(alias) | Kind::Text(alias) if !alias.is_empty() => {
                if matches!(self.peek().kind, Kind::Sign('.')) {
                    return Err(self.not_evaluated("a path after AS"));
                }
                Ok(Column::Named { alias, expression })
            }
            other => Err(SqlError { position, fault: format!("AS needs a name, and {other} is none") }),
        }
    }

    fn expression(&mut self) -> Result<Expression, SqlError> {
        let position = self.peek().position;
        match self.advance().kind {
            Kind::Text(text) => Ok(Expression::Literal(text.into())),
            Kind::Number(number) => number
                .parse()
                .map(|number: serde_json::Number| Expression::Literal(number.into()))
                .map_err(|_| SqlError { position, fault: format!("{number} is no number") }),
            Kind::Word(word) if self.take_sign('(') => {
                let function = word.to_lowercase();
                let expression = match function.as_str() {
                    "clientid" => Expression::ClientId,
                    "traceid" => Expression::TraceId,
                    "timestamp" => Expression::Timestamp,
                    "topic" => self.topic()?,
                    "encode" => self.encode()?,
                    _ => {
                        let fault = format!("the function {function}() is not evaluated by the local stack");
                        return Err(SqlError { position, fault });
                    }
                };
                self.sign(')')?;
                Ok(expression)
            }
            Kind::Word(word) => match word.to_lowercase().as_str() {
                "true" => Ok(Expression::Literal(true.into())),
                "false" => Ok(Expression::Literal(false.into())),
                "null" => Ok(Expression::Literal(Value::Null)),
                "case" => Err(SqlError { position, fault: "CASE is not evaluated by the local stack".to_owned() }),
                _ => {
                    let fault =
                        format!("the attribute {word} is not evaluated by the local stack: select * or encode(*, 'base64')");
                    Err(SqlError { position, fault })
                }
            },
            other => Err(SqlError { position, fault: format!("a column is expected, and {other} is none") }),
        }
    }

    fn topic(&mut self) -> Result<Expression, SqlError> {
        if matches!(self.peek().kind, Kind::Sign(')')) {
            return Ok(Expression::Topic);
        }
        let position = self.peek().position;
        let argument = self.advance().kind;
        let level = match &argument {
            Kind::Number(number) => number.parse().ok().filter(|level| *level > 0),
            _ => None,
        };
        let fault = format!("topic() takes the number of a level from 1, and {argument} is none");
        level.map(Expression::TopicLevel).ok_or(SqlError { position, fault })
    }

    fn encode(&mut self) -> Result<Expression, SqlError> {
        if !self.take_sign('*') {
            return Err(self.not_evaluated("encode() of anything but *"));
        }
        self.sign(',')?;
        if !matches!(&self.peek().kind, Kind::Text(scheme) if scheme == "base64") {
            return Err(self.fault("encode() takes the scheme 'base64'"));
        }
        self.advance();
        Ok(Expression::EncodedPayload)
    }

    fn peek(&self) -> &Token {
        &self.tokens[self.next]
    }

    /// The next token. The end stays.
    fn advance(&mut self) -> Token {
        let token = self.tokens[self.next].clone();
        self.next = (self.next + 1).min(self.tokens.len() - 1);
        token
    }

    fn is_keyword(&self, keyword: &str) -> bool {
        matches!(&self.peek().kind, Kind::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    fn keyword(&mut self, keyword: &str) -> Result<(), SqlError> {
        if !self.is_keyword(keyword) {
            let found = self.peek().kind.to_string();
            return Err(self.fault(format!("{keyword} is expected, and here is {found}")));
        }
        self.advance();
        Ok(())
    }

    fn take_sign(&mut self, sign: char) -> bool {
        let is_there = self.peek().kind == Kind::Sign(sign);
        if is_there {
            self.advance();
        }
        is_there
    }

    fn sign(&mut self, sign: char) -> Result<(), SqlError> {
        if self.take_sign(sign) {
            return Ok(());
        }
        let found = self.peek().kind.to_string();
        Err(self.fault(format!("{sign} is expected, and here is {found}")))
    }

    fn fault(&self, fault: impl Into<String>) -> SqlError {
        SqlError { position: self.peek().position, fault: fault.into() }
    }

    fn not_evaluated(&self, what: &str) -> SqlError {
        self.fault(format!("{what} is not evaluated by the local stack"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Event, NotApplicable, Statement};

    fn apply(sql: &str, payload: &[u8]) -> Result<Value, NotApplicable> {
        let event = Event {
            topic: "a/b/c",
            payload,
            client_id: Some("device"),
            trace_id: Some("trace"),
            timestamp_ms: 1_700_000_000_000,
        };
        Statement::parse(sql).unwrap_or_else(|error| panic!("{sql}: {error}")).apply(&event)
    }

    #[test]
    fn columns_are_evaluated() {
        for (columns, expected) in [
            ("*", json!({"x": 1})),
            ("*, topic() AS topic", json!({"x": 1, "topic": "a/b/c"})),
            ("*, 2 AS x", json!({"x": 2})),
            ("topic(1) AS one, topic(3) as three, topic(4) AS none", json!({"one": "a", "three": "c"})),
            ("encode(*, 'base64') AS payload", json!({"payload": "eyJ4IjoxfQ=="})),
            ("ClientId() AS c, traceid() AS t", json!({"c": "device", "t": "trace"})),
            ("timestamp() AS at", json!({"at": 1_700_000_000_000_u64})),
            ("'text' AS a, -1.5 AS b, true AS c, null AS d", json!({"a": "text", "b": -1.5, "c": true, "d": null})),
        ] {
            let sql = format!("SELECT {columns} FROM 'a/#'");
            assert_eq!(apply(&sql, br#"{"x":1}"#), Ok(expected), "{sql}");
        }
        assert_eq!(apply("select\n * from \"a/+/c\"", b"[1]"), Ok(json!([1])));
    }

    #[test]
    fn an_envelope_takes_any_payload() {
        let sql = "SELECT encode(*, 'base64') AS payload, topic() AS topic, clientid() AS client, traceid() AS trace FROM 'p/#'";
        let expected = json!({"payload": "/wA=", "topic": "a/b/c", "client": "device", "trace": "trace"});
        assert_eq!(apply(sql, &[255, 0]), Ok(expected));
    }

    #[test]
    fn a_message_that_did_not_come_over_mqtt_has_no_client() {
        let event = Event { topic: "a", payload: b"", client_id: None, trace_id: None, timestamp_ms: 0 };
        let statement = Statement::parse("SELECT clientid() AS c, traceid() AS t FROM 'a'").expect("a statement");
        assert_eq!(statement.apply(&event), Ok(json!({"c": "n/a"})));
    }

    #[test]
    fn everything_needs_json() {
        assert_eq!(apply("SELECT * FROM 'a/#'", b"\xff"), Err(NotApplicable::NoJson));
        assert_eq!(apply("SELECT *, topic() AS t FROM 'a/#'", b"7"), Err(NotApplicable::NoObject));
    }

    #[test]
    fn what_is_not_evaluated_is_refused_by_its_name_and_place() {
        for (sql, expected) in [
            ("", "at character 1: SELECT is expected, and here is the end"),
            ("SELECT * FROM a", "at character 15: FROM needs a topic filter in quotes"),
            ("SELECT * FROM 'a", "at character 15: a text has no ' at its end"),
            ("SELECT * FROM 'a/#/b'", "at character 15: a topic has the character '#' where it is not allowed"),
            ("SELECT * FROM '$share/g/a'", "at character 15: a rule cannot share a subscription"),
            ("SELECT * FROM 'a' WHERE x > 1", "at character 19: WHERE is not evaluated by the local stack"),
            ("SELECT VALUE * FROM 'a'", "at character 8: SELECT VALUE is not evaluated by the local stack"),
            ("SELECT upper(*) AS x FROM 'a'", "at character 8: the function upper() is not evaluated by the local stack"),
            (
                "SELECT temperature AS t FROM 'a'",
                "at character 8: the attribute temperature is not evaluated by the local stack: select * or encode(*, 'base64')",
            ),
            ("SELECT topic() FROM 'a'", "at character 16: a column needs AS and a name here"),
            ("SELECT topic(0) AS t FROM 'a'", "at character 14: topic() takes the number of a level from 1, and 0 is none"),
            (
                "SELECT encode(x, 'base64') AS t FROM 'a'",
                "at character 15: encode() of anything but * is not evaluated by the local stack",
            ),
            ("SELECT encode(*, 'hex') AS t FROM 'a'", "at character 18: encode() takes the scheme 'base64'"),
            ("SELECT 1 + 2 AS t FROM 'a'", "at character 10: the operator + is not evaluated by the local stack"),
            ("SELECT topic() AS a.b FROM 'a'", "at character 20: a path after AS is not evaluated by the local stack"),
            ("SELECT topic() AS 7 FROM 'a'", "at character 19: AS needs a name, and 7 is none"),
            ("SELECT * FROM 'a' ;", "at character 19: ; is not expected after the topic filter"),
        ] {
            assert_eq!(Statement::parse(sql).expect_err(sql).to_string(), expected, "{sql}");
        }
        let long = format!("SELECT '{}' AS x FROM 'a'", "x".repeat(9000));
        assert!(Statement::parse(&long).expect_err("too long").fault.contains("over the limit of 8192"));
    }
}
