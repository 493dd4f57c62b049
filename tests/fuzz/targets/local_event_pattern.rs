//! An event pattern of EventBridge, and an event.

#![no_main]

use carillon_local::eventbridge::pattern::Pattern;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (pattern, event) = input;
    if let (Ok(pattern), Ok(event)) = (serde_json::from_str(pattern), serde_json::from_str(event)) {
        if let Ok(pattern) = Pattern::parse(&pattern) {
            let _ = pattern.matches(&event);
        }
    }
});
