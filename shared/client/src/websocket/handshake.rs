//! One connection: from a URL and a token to an open socket, or to the reason why not.

use super::{ConnectError, Options, TokenPlace};
use crate::tls;
use carillon_core::limits::FRAME_BYTES;
use carillon_wire::native::SUBPROTOCOL;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::UrlError;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::http::{HeaderValue, Uri};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};

/// An open connection.
pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How long a handshake may take. API Gateway holds it until `$connect` answers, which it lets take 29 s; the rest is for DNS,
/// TCP and TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(35);

/// Bytes of a refusal's body that are told.
const REFUSAL_BYTES: usize = 512;

/// Connects once.
pub(super) async fn connect(options: &Options) -> Result<Socket, ConnectError> {
    let request = request(options)?;
    let connector = Connector::Rustls(tls::config());
    // Small buffers, because one process may hold ten thousand connections. Larger messages than our frames are API Gateway's
    // own, at most 128 KB.
    let config = WebSocketConfig::default()
        .read_buffer_size(8 * 1024)
        .write_buffer_size(0)
        .max_message_size(Some(4 * FRAME_BYTES))
        .max_frame_size(Some(4 * FRAME_BYTES));
    let connecting = connect_async_tls_with_config(request, Some(config), true, Some(connector));
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Err(_) => Err(ConnectError::TimedOut { after: HANDSHAKE_TIMEOUT }),
        Ok(Err(error)) => Err(refusal(error)),
        Ok(Ok((socket, _))) => Ok(socket),
    }
}

fn request(options: &Options) -> Result<Request, ConnectError> {
    let invalid = |source| ConnectError::Url { url: without_query(&options.url), source: Box::new(source) };
    let uri: Uri = options.url.parse().map_err(|error| invalid(Error::from(error)))?;
    if !matches!(uri.scheme_str(), Some("ws" | "wss")) {
        return Err(invalid(Error::Url(UrlError::UnsupportedUrlScheme)));
    }
    let token = options.token.as_ref().map(|token| (token.reveal(), options.token_place));
    let uri = match token {
        Some((token, TokenPlace::Query)) => with_query(uri, token).map_err(|error| invalid(error.into()))?,
        _ => uri,
    };
    let mut request = uri.into_client_request().map_err(invalid)?;
    let headers = request.headers_mut();
    let mut protocols = SUBPROTOCOL.to_owned();
    match token {
        Some((token, TokenPlace::Header)) => {
            let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| ConnectError::Token)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Some((token, TokenPlace::Subprotocol)) => protocols = format!("{SUBPROTOCOL}, bearer.{token}"),
        Some((_, TokenPlace::Query)) | None => {}
    }
    let mut protocols = HeaderValue::try_from(protocols).map_err(|_| ConnectError::Token)?;
    protocols.set_sensitive(true);
    headers.insert(SEC_WEBSOCKET_PROTOCOL, protocols);
    Ok(request)
}

/// The URL with `token` as a further query parameter.
fn with_query(uri: Uri, token: &str) -> Result<Uri, tokio_tungstenite::tungstenite::http::Error> {
    let token = percent_encoding::utf8_percent_encode(token, percent_encoding::NON_ALPHANUMERIC);
    let path = match uri.query() {
        Some(query) => format!("{}?{query}&token={token}", uri.path()),
        None => format!("{}?token={token}", uri.path()),
    };
    let mut parts = uri.into_parts();
    parts.path_and_query = Some(path.parse()?);
    Ok(Uri::from_parts(parts)?)
}

/// What may be printed of a URL: its query may hold a token.
fn without_query(url: &str) -> String {
    url.split('?').next().unwrap_or_default().to_owned()
}

fn refusal(error: Error) -> ConnectError {
    match error {
        Error::Http(response) => {
            let body = response.body().as_deref().unwrap_or_default();
            let body = String::from_utf8_lossy(&body[..body.len().min(REFUSAL_BYTES)]).trim().to_owned();
            ConnectError::Refused { status: response.status().as_u16(), body }
        }
        error => ConnectError::Unreachable(Box::new(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Token;

    fn built(url: &str, place: TokenPlace) -> Request {
        let options = Options { token_place: place, ..Options::new(url, Some(Token::new("se~cret/1"))) };
        request(&options).expect("a request")
    }

    fn header(request: &Request, name: &str) -> String {
        request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    }

    #[test]
    fn the_token_stands_in_one_place_only() {
        let request = built("ws://127.0.0.1:1/prod", TokenPlace::Header);
        assert_eq!(header(&request, "authorization"), "Bearer se~cret/1");
        assert_eq!(request.uri(), "ws://127.0.0.1:1/prod");
        assert_eq!(header(&request, "sec-websocket-protocol"), "carillon.v1");

        let request = built("wss://example.com/prod?a=b", TokenPlace::Query);
        assert_eq!(request.uri(), "wss://example.com/prod?a=b&token=se%7Ecret%2F1");
        assert_eq!(header(&request, "authorization"), "");

        let request = built("wss://example.com/prod", TokenPlace::Subprotocol);
        assert_eq!(header(&request, "sec-websocket-protocol"), "carillon.v1, bearer.se~cret/1");
        assert_eq!(request.uri(), "wss://example.com/prod");
    }

    #[test]
    fn no_error_prints_what_a_query_holds() {
        let error = request(&Options::new("not a url?token=hidden", None)).expect_err("no URL");
        assert!(!format!("{error} {error:?}").contains("hidden"), "{error:?}");
    }
}
