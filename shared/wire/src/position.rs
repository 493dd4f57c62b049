//! Positions on the wire: `{"epoch":"1700000000000","offset":41}` in JSON, `1700000000000-41` as text. Specified in
//! docs/protocol.md: an epoch is a decimal string, an offset a number.

use carillon_core::position::Position;

/// A position as a JSON object.
#[must_use]
pub fn encode(position: Position) -> String {
    format!(r#"{{"epoch":"{}","offset":{}}}"#, position.epoch, position.offset)
}
