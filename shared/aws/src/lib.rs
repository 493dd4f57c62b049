#![doc = include_str!("../README.md")]
//!
//! | module | what it holds |
//! |---|---|
//! | [`environment`] | variables as a value, and the mistakes in them |
//! | [`config`] | [`config::AwsConfig`]: region, credentials, endpoints, TLS, timeouts; one HTTP client for all services |
//! | [`store`] | [`store::DynamoStore`]: everything that is stored |
//! | [`queue`] | [`queue::SqsQueue`]: the wake-up queue |
//! | [`posts`] | [`posts::ApiGatewayPosts`]: frames towards clients |
//! | [`mqtt`] | [`mqtt::IotMqtt`]: messages towards MQTT subscribers |
//! | [`live`] | [`live::IotLive`]: messages as they are published, for those who listen |
//! | [`clock`] | [`clock::SystemClock`] |

pub mod clock;
pub mod config;
pub mod environment;
mod failure;
pub mod live;
pub mod mqtt;
pub mod posts;
pub mod queue;
pub mod store;
