//! `POST /publish` in its four forms. What is taken is written as CloudEvents JSON, and that reads back as itself.

#![no_main]

use carillon_core::time::Millis;
use carillon_wire::cloudevents::{self, Defaults};
use carillon_wire::http;
use libfuzzer_sys::fuzz_target;

const TYPES: [&str; 5] = [
    "application/json",
    "application/cloudevents+json",
    "application/cloudevents-batch+json; charset=utf-8",
    "text/plain",
    "application/octet-stream",
];

fuzz_target!(|input: (u8, &str, &str, &[u8])| {
    let (form, name, value, body) = input;
    let id = |_| "1".to_owned();
    let defaults = Defaults::unrepeatable("carillon:fuzz", Millis(0), &id);
    let kind = TYPES[usize::from(form) % TYPES.len()];
    let mut headers = vec![("content-type", kind)];
    if form & 0x80 != 0 {
        headers.extend([("ce-specversion", "1.0"), ("ce-subject", "a/b"), (name, value)]);
    }
    for event in http::decode(&headers, body, &defaults).unwrap_or_default() {
        let json = cloudevents::encode(&event);
        let again = http::decode(&[("content-type", "application/cloudevents+json")], json.as_bytes(), &defaults);
        let again = again.unwrap_or_else(|fault| panic!("what was taken is refused: {fault}: {json}"));
        assert_eq!(again.iter().map(cloudevents::encode).collect::<Vec<_>>(), [json]);
    }
});
