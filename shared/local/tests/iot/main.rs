//! IoT Core as clients, devices and backends meet it: MQTT over TCP and WebSocket, by a stock client and by raw bytes, the data plane
//! by the AWS SDK, authorizers and rules with a real function.

mod authorizer;
mod client;
mod data_plane;
mod faults;
mod harness;
mod lifecycle;
mod limits;
mod messages;
mod raw;
mod rules;
mod stack;
#[path = "../support/probe.rs"]
mod support;
