//! The beginning of a streamed answer, in pieces.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|pieces: Vec<&[u8]>| carillon_local::function_url::fuzzing::prelude(&pieces));
