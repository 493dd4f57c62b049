//! MQTT over WebSocket: the handshake at `/mqtt`, and a stream of bytes over binary messages (MQTT 5.0, section 6).
//!
//! Packets may be cut and joined over messages as the client likes; an empty message means nothing.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::header::{HOST, SEC_WEBSOCKET_PROTOCOL};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use hyper::upgrade::OnUpgrade;
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::Shared;
use super::connection::{self, Handshake, Origin};
use super::data_plane::error;
use super::limits::MAXIMUM_UNWRITTEN_BYTES;
use super::signature;
use crate::upgrade;

/// The subprotocol (MQTT 5.0, section 6: it must be `mqtt`).
const SUBPROTOCOL: &str = "mqtt";

/// The largest WebSocket message that is read, in bytes: as much as is written at most; our choice.
const MAXIMUM_MESSAGE_BYTES: usize = MAXIMUM_UNWRITTEN_BYTES;

/// A small buffer for each open connection, which grows to what comes; our choice.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// Answers a request for `/mqtt`, and serves the connection that it becomes.
pub(super) fn handshake(shared: &Arc<Shared>, peer: SocketAddr, mut request: Request) -> Response {
    let Ok(accept) = upgrade::accept_key(&request) else {
        return error(StatusCode::BAD_REQUEST, "InvalidRequestException", "/mqtt takes WebSocket handshakes alone.");
    };
    if !upgrade::lists(request.headers(), &SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        let message = "The handshake does not offer the subprotocol mqtt in Sec-WebSocket-Protocol.";
        return error(StatusCode::BAD_REQUEST, "InvalidRequestException", message);
    }
    let query = request.uri().query().map(str::to_owned);
    let signer = match signature::presigned(query.as_deref().unwrap_or_default(), OffsetDateTime::now_utc()) {
        Ok(signer) => signer,
        Err(fault) => {
            tracing::warn!(error = %fault, "a signed MQTT handshake is refused");
            return error(StatusCode::FORBIDDEN, "ForbiddenException", &format!("The signature is refused: {fault}."));
        }
    };
    let Some(on_upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        return error(StatusCode::BAD_REQUEST, "InvalidRequestException", "The connection cannot be upgraded.");
    };
    let headers = std::mem::take(request.headers_mut());
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let server_name = host.rsplit_once(':').map_or(host, |(name, _)| name).to_owned();
    let close_frame = Arc::new(AtomicBool::new(false));
    let origin = Origin {
        peer,
        local: shared.http_address,
        server_name,
        handshake: Some(Handshake { headers, query, signer, close_frame: close_frame.clone() }),
    };
    shared.spawn({
        let shared = shared.clone();
        async move {
            let Some((stream, already_read)) = on_upgrade.await.ok().and_then(upgrade::tcp_stream) else { return };
            let stream = WebSocketBytes::new(stream, already_read, close_frame).await;
            connection::serve(shared, stream, origin).await;
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    upgrade::complete(response.headers_mut(), accept, Some(HeaderValue::from_static(SUBPROTOCOL)));
    response
}

/// The address of the client, which the front door puts into every request.
pub(super) fn peer_of(request: &Request) -> Option<SocketAddr> {
    request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| *peer)
}

/// The bytes of a WebSocket's binary messages.
#[derive(Debug)]
struct WebSocketBytes {
    stream: WebSocketStream<TcpStream>,
    /// What of the last message is not read yet.
    unread: Bytes,
    /// Set when the client says that it ends.
    close_frame: Arc<AtomicBool>,
}

impl WebSocketBytes {
    async fn new(stream: TcpStream, already_read: Vec<u8>, close_frame: Arc<AtomicBool>) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(MAXIMUM_MESSAGE_BYTES))
            .max_frame_size(Some(MAXIMUM_MESSAGE_BYTES));
        let stream = WebSocketStream::from_partially_read(stream, already_read, Role::Server, Some(config)).await;
        Self { stream, unread: Bytes::new(), close_frame }
    }
}

fn broken(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::other(other),
    }
}

impl AsyncRead for WebSocketBytes {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_next(context)) {
                Some(Ok(Message::Binary(data))) => self.unread = data,
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "MQTT comes in binary messages alone")));
                }
                Some(Ok(Message::Close(_))) => {
                    self.close_frame.store(true, Ordering::Relaxed);
                    return Poll::Ready(Ok(()));
                }
                // Pings are answered by the stream itself.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(Error::ConnectionClosed)) | None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
        let length = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread[..length]);
        self.unread.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WebSocketBytes {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.stream).poll_ready(context)).map_err(broken)?;
        let message = Message::Binary(Bytes::copy_from_slice(bytes));
        Pin::new(&mut self.stream).start_send(message).map_err(broken)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context).map_err(broken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context).map_err(broken)
    }
}
