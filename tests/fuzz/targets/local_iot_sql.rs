//! The SQL of an IoT rule, and a message that it is applied to.

#![no_main]

use carillon_local::iot::sql::{Event, Statement};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str, &[u8])| {
    let (sql, topic, payload) = input;
    if let Ok(statement) = Statement::parse(sql) {
        let _ = statement.source().matches(topic);
        let _ = statement.apply(&Event { topic, payload, client_id: None, trace_id: None, timestamp_ms: 0 });
    }
});
