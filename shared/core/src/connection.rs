//! Clients: their connections, and who they are.

use std::fmt;

/// One client's WebSocket, as API Gateway names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(String);

/// The text is no connection id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a connection id is 1 to 128 visible ASCII characters without '#'")]
pub struct ConnectionIdError;

impl ConnectionId {
    /// Takes an id from API Gateway.
    ///
    /// # Errors
    /// When it is empty, longer than 128 bytes or holds anything but visible ASCII; `#` separates the parts of our keys.
    pub fn try_new(text: impl Into<String>) -> Result<Self, ConnectionIdError> {
        let text = text.into();
        let fits = (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if fits { Ok(Self(text)) } else { Err(ConnectionIdError) }
    }

    /// The id's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Who a client is. Under the shared secret everybody is the same principal with every grant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal(pub String);

impl Principal {
    /// The principal of the shared secret.
    #[must_use]
    pub fn shared() -> Self {
        Self("shared".to_owned())
    }
}
