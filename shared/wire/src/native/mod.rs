//! Carillon's own WebSocket protocol, subprotocol `carillon.v1`. Specified in docs/protocol.md.

pub mod client;
pub mod reading;
pub mod server;

use carillon_core::fault::Fault;
use carillon_core::limits::REF_BYTES;

/// The subprotocol's name in `Sec-WebSocket-Protocol` (RFC 6455 section 11.3.4).
pub const SUBPROTOCOL: &str = "carillon.v1";

/// A frame's `ref`: the client's name for its request, which the reply carries. At most [`REF_BYTES`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference(String);

impl Reference {
    /// Takes a reference.
    ///
    /// # Errors
    /// When it is over [`REF_BYTES`] bytes.
    pub fn try_new(text: impl Into<String>) -> Result<Self, Fault> {
        let text = text.into();
        if text.len() > REF_BYTES {
            return Err(Fault::bad_request("ref", format_args!("{} bytes are over the limit of {REF_BYTES}", text.len())));
        }
        Ok(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
