//! One WebSocket that is read and written at the same time by one task.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::{Sink, SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Utf8Bytes};

use super::limits::{FRAME_BYTES, MESSAGE_BYTES, READ_BUFFER_BYTES};

/// A WebSocket with the limits of API Gateway. One message is written at a time; while it waits for a slow client, reading
/// goes on.
#[derive(Debug)]
pub(super) struct Socket {
    stream: WebSocketStream<TcpStream>,
    writing: bool,
}

/// What happened on a [`Socket`].
#[derive(Debug)]
pub(super) enum Happening {
    /// A message came, or a control frame.
    Received(Message),
    /// The message that was being written is with the operating system.
    Written,
    /// The client is gone, or broke the protocol or a limit.
    Failed(Error),
}

impl Socket {
    /// A socket whose handshake is done, with the bytes that came after it.
    pub(super) async fn new(stream: TcpStream, already_read: Vec<u8>) -> Self {
        // Every message is written at once: its sender waits for nothing else to fill a buffer.
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_frame_size(Some(FRAME_BYTES))
            .max_message_size(Some(MESSAGE_BYTES));
        let stream = WebSocketStream::from_partially_read(stream, already_read, Role::Server, Some(config)).await;
        Self { stream, writing: false }
    }

    /// Whether a message is still being written.
    pub(super) fn is_writing(&self) -> bool {
        self.writing
    }

    /// Begins to write a message, in frames of at most 32 KB. [`Happening::Written`] follows.
    ///
    /// # Errors
    /// When the client is gone.
    pub(super) fn start_message(&mut self, text: Utf8Bytes) -> Result<(), Error> {
        self.writing = true;
        if text.len() <= FRAME_BYTES {
            return Pin::new(&mut self.stream).start_send(Message::Text(text));
        }
        let mut rest = bytes::Bytes::from(text);
        let mut kind = Data::Text;
        while !rest.is_empty() {
            let part = rest.split_to(rest.len().min(FRAME_BYTES));
            let frame = Frame::message(part, OpCode::Data(kind), rest.is_empty());
            Pin::new(&mut self.stream).start_send(Message::Frame(frame))?;
            kind = Data::Continue;
        }
        Ok(())
    }

    /// Waits for the next thing to happen; without `reading`, for the end of writing only.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self, reading: bool) -> Happening {
        poll_fn(|context| self.poll_next(context, reading)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>, reading: bool) -> Poll<Happening> {
        if self.writing
            && let Poll::Ready(result) = Pin::new(&mut self.stream).poll_flush(context)
        {
            self.writing = false;
            return Poll::Ready(result.map_or_else(Happening::Failed, |()| Happening::Written));
        }
        if !reading {
            return Poll::Pending;
        }
        self.stream.poll_next_unpin(context).map(|item| match item {
            Some(Ok(message)) => Happening::Received(message),
            Some(Err(error)) => Happening::Failed(error),
            None => Happening::Failed(Error::ConnectionClosed),
        })
    }

    /// Writes a whole message, and what of an earlier one is left.
    ///
    /// # Errors
    /// When the client is gone.
    pub(super) async fn write_message(&mut self, text: Utf8Bytes) -> Result<(), Error> {
        self.stream.flush().await?;
        self.start_message(text)?;
        self.stream.flush().await?;
        self.writing = false;
        Ok(())
    }

    /// Sends a close frame.
    ///
    /// # Errors
    /// When the client is gone.
    pub(super) async fn send_close(&mut self, frame: CloseFrame) -> Result<(), Error> {
        self.stream.send(Message::Close(Some(frame))).await
    }

    /// Reads until the client has answered a close frame, or sends the answer to its own. What else comes is thrown away.
    pub(super) async fn finish_close(&mut self) {
        while let Some(Ok(_)) = self.stream.next().await {}
    }

    /// The connection below.
    pub(super) fn into_tcp(self) -> TcpStream {
        self.stream.into_inner()
    }
}
