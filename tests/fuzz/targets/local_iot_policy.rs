//! The policies that an authorizer answers with, and a topic.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| carillon_local::iot::fuzzing::policy(input.0, input.1));
