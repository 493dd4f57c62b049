//! The query of a signed WebSocket address of IoT Core.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|query: &str| carillon_local::iot::fuzzing::presigned(query));
