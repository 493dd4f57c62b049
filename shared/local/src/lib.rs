#![doc = include_str!("../README.md")]

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
