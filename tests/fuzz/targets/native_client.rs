//! A frame from a WebSocket client.

#![no_main]

use carillon_core::time::Millis;
use carillon_wire::cloudevents::Defaults;
use carillon_wire::native::client;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &str| {
    let id = |_| "1".to_owned();
    let _ = client::decode(frame, &Defaults::unrepeatable("carillon:fuzz", Millis(0), &id));
});
