//! Positions, as JSON and as text.

#![no_main]

use carillon_wire::position;
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

fuzz_target!(|text: &str| {
    let found = position::decode_text("since", text).ok();
    let json = serde_json::from_str::<&RawValue>(text).ok().and_then(|value| position::decode("since", value).ok());
    for position in found.into_iter().chain(json) {
        let json = position::encode(position);
        let value: &RawValue = serde_json::from_str(&json).expect("JSON");
        assert_eq!(position::decode("since", value), Ok(position));
    }
});
