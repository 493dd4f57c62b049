//! A route selection expression, and a message that it is applied to.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| carillon_local::websocket_api::fuzzing::routes(input.0, input.1));
