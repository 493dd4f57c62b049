//! What a client sends to the MQTT broker, in pieces.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|pieces: Vec<&[u8]>| carillon_local::iot::fuzzing::packets(&pieces));
