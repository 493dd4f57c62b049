#![doc = include_str!("../README.md")]
//!
//! | module | what it holds |
//! |---|---|
//! | [`backoff`] | [`backoff::Backoff`], how long to wait before trying again |
//! | [`http`] | [`http::Publisher`], `POST /publish` |
//! | [`rule`] | [`rule::Follower`], the client's rule as a state machine |
//! | [`token`] | [`token::Token`], what opens a stack |
//! | [`websocket`] | [`websocket::connect`], the WebSocket client |

pub mod backoff;
pub mod http;
pub mod rule;
mod tls;
pub mod token;
pub mod websocket;
