#![doc = include_str!("../README.md")]
//!
//! | module | what it holds |
//! |---|---|
//! | [`environment`] | variables as a value, and the mistakes in them |
//! | [`config`] | [`config::AwsConfig`]: region, credentials, endpoints, TLS, timeouts; one HTTP client for all services |
//! | [`store`] | [`store::DynamoStore`]: everything that is stored |
//! | [`queue`] | [`queue::SqsQueue`]: the wake-up queue |
//! | [`posts`] | [`posts::ApiGatewayPosts`]: frames towards clients |
//! | [`clock`] | [`clock::SystemClock`] |

pub mod clock;
pub mod config;
pub mod environment;
mod failure;
pub mod posts;
pub mod queue;
pub mod store;
