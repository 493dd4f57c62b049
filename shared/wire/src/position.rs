//! Positions on the wire: `{"epoch":"1700000000000","offset":41}` in JSON, `1700000000000-41` as text. Specified in
//! docs/protocol.md: an epoch is a decimal string, an offset a number.

use crate::json::{self, Members};
use carillon_core::fault::Fault;
use carillon_core::position::{Epoch, Position};
use serde_json::value::RawValue;

/// The largest offset: 2^53 - 1, which every reader of JSON holds exactly (RFC 8259 section 6), and which fills our keys' sixteen
/// digits.
pub const OFFSET_MAX: u64 = (1 << 53) - 1;

/// A position as a JSON object.
#[must_use]
pub fn encode(position: Position) -> String {
    format!(r#"{{"epoch":"{}","offset":{}}}"#, position.epoch, position.offset)
}

/// Reads the JSON object in `field`.
///
/// # Errors
/// When it is no position.
pub fn decode(field: &str, value: &RawValue) -> Result<Position, Fault> {
    let mut members = Members::of(field, value)?;
    let read = |members: &mut Members<'_>| {
        let epoch = decode_epoch("epoch", members.need("epoch")?)?;
        let offset = decode_offset("offset", members.need("offset")?)?;
        Ok(Position::new(epoch, offset))
    };
    let place = format!("{field}.");
    let position = read(&mut members).map_err(|fault: Fault| fault.within(&place))?;
    members.finish(&["epoch", "offset"]).map_err(|fault| fault.within(&place))?;
    Ok(position)
}

/// Reads the text form, `<epoch>-<offset>`, which [`Position`]'s `Display` writes.
///
/// # Errors
/// When it is no position.
pub fn decode_text(field: &str, text: &str) -> Result<Position, Fault> {
    let fault = || Fault::bad_request(field, format_args!("{text:?} is no position of the form <epoch>-<offset>"));
    let (epoch, offset) = text.split_once('-').ok_or_else(fault)?;
    let epoch: Epoch = epoch.parse().map_err(|error| Fault::bad_request(field, error))?;
    if offset.is_empty() || !offset.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(fault());
    }
    match offset.parse() {
        Ok(offset) if offset <= OFFSET_MAX => Ok(Position::new(epoch, offset)),
        _ => Err(Fault::bad_request(field, format_args!("{offset} is no offset of 0 to {OFFSET_MAX}"))),
    }
}

/// Reads the epoch in `field`.
///
/// # Errors
/// When it is no string of decimal digits.
pub(crate) fn decode_epoch(field: &str, value: &RawValue) -> Result<Epoch, Fault> {
    json::string(field, value)?.parse().map_err(|error| Fault::bad_request(field, error))
}

/// Reads the offset in `field`.
///
/// # Errors
/// When it is no whole number up to [`OFFSET_MAX`].
pub(crate) fn decode_offset(field: &str, value: &RawValue) -> Result<u64, Fault> {
    json::whole_number(field, value, 0, OFFSET_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Position, String> {
        json::parse("since", text).and_then(|value| decode("since", value)).map_err(|fault| fault.message.into_owned())
    }

    #[test]
    fn each_fault_names_its_field() {
        for (text, message) in [
            (r#""1-2""#, "since: is a string, and an object is needed"),
            (r"{}", "since.epoch: is missing"),
            (r#"{"epoch":1700,"offset":1}"#, "since.epoch: is a number, and a string is needed"),
            (r#"{"epoch":"x","offset":1}"#, "since.epoch: an epoch is a decimal number of at most 20 digits, as a string"),
            (r#"{"epoch":"1"}"#, "since.offset: is missing"),
            (r#"{"epoch":"1","offset":"1"}"#, "since.offset: is a string, and a number is needed"),
            (r#"{"epoch":"1","offset":-1}"#, "since.offset: -1 is no whole number of 0 to 9007199254740991"),
            (r#"{"epoch":"1","offset":1,"ofset":2}"#, "since.ofset: is no field here; there are epoch, offset"),
        ] {
            assert_eq!(read(text).expect_err(text), message);
        }
    }

    #[test]
    fn a_text_that_is_no_position_is_refused() {
        for text in ["", "1", "-", "1-", "-1", "1-x", "1--1", "1-+1", "x-1", "1-9007199254740992", "1-2-3"] {
            assert!(decode_text("since", text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_position_reads_back_as_it_was_written(epoch in any::<u64>(), offset in 0..=OFFSET_MAX) {
            let position = Position::new(Epoch(epoch), offset);
            prop_assert_eq!(read(&encode(position)), Ok(position));
            prop_assert_eq!(decode_text("since", &position.to_string()), Ok(position));
        }

        #[test]
        fn no_text_makes_the_decoders_panic(text in ".*") {
            let _ = read(&text);
            let _ = decode_text("since", &text);
        }
    }
}
