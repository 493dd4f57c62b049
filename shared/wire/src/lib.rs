#![doc = include_str!("../README.md")]
//!
//! | module | protocol |
//! |---|---|
//! | [`bearer`] | bearer tokens in headers and lists of subprotocols |
//! | [`cloudevents`] | CloudEvents 1.0.2 in its JSON event format: what the log keeps and every wire sends |
//! | [`eventbridge`] | Amazon EventBridge's events whose detail names a channel |
//! | [`fault`] | errors, the same on every wire |
//! | [`http`] | `POST /publish`: plain JSON, and CloudEvents 1.0.2 over HTTP in all three modes |
//! | [`iot`] | what devices publish over MQTT, as the rule of IoT Core hands it over |
//! | [`native`] | the WebSocket protocol `carillon.v1`: frames of the client and of the server |
//! | [`position`] | positions as JSON and as text |
//! | [`sse`] | server-sent events: what a client asks for, and the bytes of the stream |

pub mod bearer;
pub mod cloudevents;
pub mod eventbridge;
pub mod fault;
pub mod http;
pub mod iot;
mod json;
pub mod native;
pub mod position;
pub mod sse;
