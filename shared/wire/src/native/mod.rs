//! Carillon's own WebSocket protocol, subprotocol `carillon.v1`. Specified in docs/protocol.md.

pub mod server;

/// The subprotocol's name in `Sec-WebSocket-Protocol` (RFC 6455 section 11.3.4).
pub const SUBPROTOCOL: &str = "carillon.v1";
