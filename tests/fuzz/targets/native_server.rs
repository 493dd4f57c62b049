//! A frame from the server, as clients read it.

#![no_main]

use carillon_wire::native::reading::{ServerFrame, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &str| {
    if let Ok(ServerFrame::Reply { outcome: Ok(answer), .. }) = decode(frame) {
        let _ = (answer.subscribed(), answer.published(), answer.history());
    }
});
