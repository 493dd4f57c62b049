//! An event of EventBridge.

#![no_main]

use carillon_core::time::Millis;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(event) = carillon_wire::eventbridge::decode(text, Millis(0)) {
        let _ = carillon_wire::cloudevents::encode(&event);
    }
});
