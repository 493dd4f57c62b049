//! SQS, EventBridge, DynamoDB, the AWS endpoint and the whole stack, spoken to by the AWS SDK and by hand.

mod dynamodb;
mod endpoint;
mod event_source;
mod eventbridge;
mod harness;
mod sqs;
mod stack;
#[path = "../support/probe.rs"]
mod support;
