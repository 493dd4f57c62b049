#![doc = include_str!("../README.md")]
//!
//! | module | what it holds |
//! |---|---|
//! | [`backoff`] | [`backoff::Backoff`], how long to wait before trying again |
//! | [`http`] | [`http::Publisher`], `POST /publish` |
//! | [`items`] | [`items::Item`], what every protocol hands over |
//! | [`local`] | [`local::Faults`], the faults of a local stack |
//! | [`mqtt`] | [`mqtt::connect`], the MQTT client |
//! | [`rule`] | [`rule::Follower`], the client's rule as a state machine |
//! | [`sse`] | [`sse::connect`], the SSE client |
//! | [`token`] | [`token::Token`], what opens a stack |
//! | [`websocket`] | [`websocket::connect`], the WebSocket client |

pub mod backoff;
mod failure;
pub mod http;
pub mod items;
pub mod local;
pub mod mqtt;
mod positioned;
mod requests;
pub mod rule;
pub mod sse;
mod tls;
pub mod token;
pub mod websocket;
