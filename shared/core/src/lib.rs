#![doc = include_str!("../README.md")]
//!
//! | module | what it holds |
//! |---|---|
//! | [`channel`] | [`channel::Channel`], [`channel::Namespace`] |
//! | [`connection`] | [`connection::ConnectionId`], [`connection::Principal`] |
//! | [`event`] | [`event::Event`], its attributes and data, [`event::Identity`] |
//! | [`fault`] | [`fault::ErrorCode`] and [`fault::Fault`], every error a caller may see |
//! | [`limits`] | every limit with the reason for its number |
//! | [`mqtt`] | [`mqtt::MqttPrefix`], the topics of a stack |
//! | [`namespace`] | [`namespace::NamespaceOptions`] |
//! | [`position`] | [`position::Epoch`], [`position::Position`] |
//! | [`secret`] | [`secret::Secret`], the shared secret |
//! | [`time`] | [`time::Millis`] and [`time::Seconds`] |

pub mod channel;
pub mod connection;
pub mod event;
pub mod fault;
pub mod limits;
pub mod mqtt;
pub mod namespace;
pub mod position;
pub mod secret;
pub mod time;
