//! The opening handshake of a WebSocket (RFC 6455, section 4.2), as the WebSocket APIs and the MQTT broker answer it.

use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// A request asks for no WebSocket, or not rightly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpgradeFault {
    /// The method is not GET.
    Method,
    /// It is a plain request.
    NoUpgrade,
    /// `Sec-WebSocket-Version` is not 13.
    Version,
    /// `Sec-WebSocket-Key` is missing.
    NoKey,
}

/// What has to be answered to a request for a WebSocket: the value of `Sec-WebSocket-Accept`.
pub(crate) fn accept_key<Body>(request: &Request<Body>) -> Result<HeaderValue, UpgradeFault> {
    let headers = request.headers();
    if request.method() != Method::GET {
        return Err(UpgradeFault::Method);
    }
    if request.version() != Version::HTTP_11 || !lists(headers, &CONNECTION, "upgrade") || !lists(headers, &UPGRADE, "websocket")
    {
        return Err(UpgradeFault::NoUpgrade);
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(UpgradeFault::Version);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or(UpgradeFault::NoKey)?;
    Ok(HeaderValue::from_str(&derive_accept_key(key.as_bytes())).expect("the accept key is base64"))
}

/// Adds to an answer 101 what makes it the end of the handshake.
pub(crate) fn complete(headers: &mut HeaderMap, accept: HeaderValue, subprotocol: Option<HeaderValue>) {
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(subprotocol) = subprotocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
}

/// Whether a header that is a list has an element, whatever its case.
pub(crate) fn lists(headers: &HeaderMap, name: &HeaderName, element: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(element))
}

/// The connection below, and what came on it after the handshake.
pub(crate) fn tcp_stream(upgraded: Upgraded) -> Option<(TcpStream, Vec<u8>)> {
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
    // Copied, because the bytes are few or none and would keep hyper's whole buffer of 8 KB for the life of the connection.
    Some((parts.io.into_inner(), parts.read_buf.to_vec()))
}
