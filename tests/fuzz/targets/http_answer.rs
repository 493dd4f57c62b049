//! The answer to a publish, as clients read it.

#![no_main]

use carillon_wire::http;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    if let Ok(Ok(outcomes)) = http::decode_answer(body) {
        let again = http::results(&outcomes);
        assert!(http::decode_answer(again.body.as_bytes()).is_ok(), "{}", again.body);
    }
});
