//! The emulated WebSocket API as its clients, its functions and the callers of `@connections` see it.

mod closing;
mod connection_api;
mod golden;
mod handshake;
mod harness;
mod messages;
