//! What a published message says of its position.

use carillon_core::position::{Epoch, Position};
use serde::Deserialize;
use serde_json::Value;
use std::str::{FromStr, Utf8Error};
use std::sync::Arc;

/// A message as its listeners get it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) position: Position,
    pub(super) json: Arc<str>,
}

/// Why a message cannot be read. The text holds nothing of the payload.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    /// It is no text.
    #[error("the payload is no UTF-8")]
    NotText(#[from] Utf8Error),
    /// It is no event.
    #[error("the payload is no JSON object")]
    NotObject(#[source] serde_json::Error),
    /// Neither its user properties nor its members hold a position.
    #[error("the message has no position")]
    Unplaced,
}

/// The members that matter here; the others are skipped, which checks that they are JSON.
#[derive(Deserialize)]
struct Members {
    #[serde(default)]
    epoch: Option<Value>,
    #[serde(default)]
    offset: Option<Value>,
}

/// Reads a message: its position stands in its user properties `epoch` and `offset`, and in the members of the same names where
/// something on the way took the properties off, as an MQTT 3 bridge does.
///
/// # Errors
/// When it is no JSON object or has no position.
pub(super) fn read(payload: &[u8], user_properties: &[(String, String)]) -> Result<Message, Unreadable> {
    let json = std::str::from_utf8(payload)?;
    let members: Members = serde_json::from_str(json).map_err(Unreadable::NotObject)?;
    let position = of_properties(user_properties).or_else(|| of_members(&members)).ok_or(Unreadable::Unplaced)?;
    Ok(Message { position, json: json.into() })
}

fn of_properties(properties: &[(String, String)]) -> Option<Position> {
    let value = |name: &str| properties.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
    Some(Position::new(Epoch::from_str(value("epoch")?).ok()?, value("offset")?.parse().ok()?))
}

fn of_members(members: &Members) -> Option<Position> {
    let epoch = Epoch::from_str(members.epoch.as_ref()?.as_str()?).ok()?;
    Some(Position::new(epoch, members.offset.as_ref()?.as_u64()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POSITION: Position = Position::new(Epoch(1_700), 41);

    fn properties(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[track_caller]
    fn check(payload: &str, pairs: &[(&str, &str)], expected: Result<Position, &str>) {
        let found = read(payload.as_bytes(), &properties(pairs));
        if let Ok(message) = &found {
            assert_eq!(&*message.json, payload, "the event stays as it was sent");
        }
        let found = found.map(|message| message.position).map_err(|error| error.to_string());
        assert_eq!(found.as_ref().map_err(String::as_str), expected.as_ref().map_err(|text| *text));
    }

    #[test]
    fn the_position_stands_in_the_user_properties() {
        check(r#"{"id":"1"}"#, &[("epoch", "1700"), ("offset", "41")], Ok(POSITION));
        check(r#"{"id":"1"}"#, &[("x", "y"), ("offset", "41"), ("epoch", "1700"), ("epoch", "9")], Ok(POSITION));
        check(r#"{"epoch":"9","offset":9}"#, &[("epoch", "1700"), ("offset", "41")], Ok(POSITION));
    }

    #[test]
    fn without_them_it_stands_in_the_members() {
        for pairs in [&[][..], &[("epoch", "1700")], &[("epoch", "x"), ("offset", "41")], &[("epoch", "1"), ("offset", "-1")]] {
            check(r#"{"id":"1","epoch":"1700","offset":41}"#, pairs, Ok(POSITION));
        }
    }

    #[test]
    fn a_message_without_a_position_cannot_be_read() {
        for payload in ["{}", r#"{"epoch":"1700"}"#, r#"{"epoch":1700,"offset":41}"#, r#"{"epoch":"1700","offset":"41"}"#] {
            check(payload, &[], Err("the message has no position"));
        }
    }

    #[test]
    fn what_is_no_json_object_cannot_be_read_even_with_a_position() {
        for payload in ["", "text", "41", r#"{"id":"1""#, r#"{"id":"1"} {"id":"2"}"#] {
            check(payload, &[("epoch", "1700"), ("offset", "41")], Err("the payload is no JSON object"));
        }
        let error = read(&[0xff, 0xfe], &properties(&[("epoch", "1700"), ("offset", "41")])).expect_err("no text");
        assert_eq!(error.to_string(), "the payload is no UTF-8");
    }
}
