//! What a client of streams asks for.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, Option<&str>)| {
    let (query, last_event_id) = input;
    let _ = carillon_wire::sse::request::decode(query, last_event_id);
});
