//! The local stack: reads `template.yaml` and runs the real function binaries behind local front doors.
//!
//! Each emulated service has one folder and knows the others only through [`invoker::Invoker`] and [`spec`].

pub mod aws_endpoint;
mod aws_json;
pub mod dynamodb;
pub mod eventbridge;
mod front_door;
pub mod function_url;
pub mod invoker;
pub mod lambda;
pub mod spec;
pub mod sqs;
pub mod stack;
pub mod template;
pub mod websocket_api;
