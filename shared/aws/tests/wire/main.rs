//! What goes over the wire to SQS and @connections, and what their answers mean.

mod posts;
mod queue;
mod server;
#[path = "../support/mod.rs"]
mod support;
