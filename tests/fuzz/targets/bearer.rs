//! Where tokens are looked for.

#![no_main]

use carillon_wire::bearer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|value: &str| {
    let _ = (bearer::of_authorization(value), bearer::of_subprotocols(value));
});
