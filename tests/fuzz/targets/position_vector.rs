//! The `id` of a stream's events. What is taken is written as it came, but for numbers in more bytes than they need.

#![no_main]

use carillon_wire::sse::vector::PositionVector;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(vector) = PositionVector::decode(text) {
        assert_eq!(PositionVector::decode(&vector.encode()), Ok(vector));
    }
});
