//! What the rule of IoT Core hands over.

#![no_main]

use carillon_core::time::Millis;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(event) = carillon_wire::iot::decode(text, Millis(0), "request") {
        let _ = carillon_wire::cloudevents::encode(&event);
    }
});
