#![doc = include_str!("../README.md")]
//!
//! | module | what it holds |
//! |---|---|
//! | [`ports`], [`rows`], [`wakeup`] | what the use cases need of the world, and the values that pass |
//! | [`engine`] | [`engine::Engine`]: connect, disconnect, and what the other use cases share |
//! | [`publish`] | events in: append, then wake (A1 to A5, P1, P3) |
//! | [`subscribe`] | the barrier (S1 to S6) |
//! | [`history`] | what a channel's log shows |
//! | [`drain`] | the only code that posts to subscribers (D1 to D7, G1) |
//! | [`stream`] | what SSE and RPC subscribers get (W2, W3) |
//! | [`memory`] | memory adapters for all ports |

mod append;
#[cfg(feature = "contract")]
pub mod contract;
pub mod drain;
pub mod engine;
mod frames;
pub mod history;
pub mod memory;
pub mod ports;
pub mod publish;
mod random;
pub mod rows;
pub mod stream;
pub mod subscribe;
pub mod wakeup;
