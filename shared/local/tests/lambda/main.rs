//! The emulated Lambda, its API and its function URLs, with a real function.

mod api;
mod function_url;
mod harness;
mod invocations;
#[path = "../support/probe.rs"]
mod support;
