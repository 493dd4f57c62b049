//! What goes over the wire to DynamoDB, SQS, @connections and IoT Core, and what their answers mean.

mod mqtt;
mod posts;
mod queue;
mod server;
mod store;
#[path = "../support/mod.rs"]
mod support;
