#![doc = include_str!("../README.md")]

pub mod aws_endpoint;
mod aws_json;
pub mod calls;
pub mod dynamodb;
pub mod eventbridge;
pub mod faults;
mod front_door;
pub mod function_url;
pub mod invoker;
pub mod iot;
pub mod lambda;
pub mod spec;
pub mod sqs;
pub mod stack;
pub mod template;
mod upgrade;
pub mod websocket_api;
