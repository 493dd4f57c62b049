//! What goes over the wire to DynamoDB, SQS and @connections, and what their answers mean.

mod posts;
mod queue;
mod server;
mod store;
#[path = "../support/mod.rs"]
mod support;
