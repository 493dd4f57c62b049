#![doc = include_str!("../README.md")]
//!
//! | module | protocol |
//! |---|---|
//! | [`cloudevents`] | CloudEvents 1.0.2 in its JSON event format: what the log keeps and every wire sends |
//! | [`native`] | the WebSocket protocol `carillon.v1`: frames of the client and of the server |

pub mod cloudevents;
mod json;
pub mod native;
pub mod position;
