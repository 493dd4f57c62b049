//! The life of one open connection: messages to functions, messages to the client, and the end.

use std::borrow::Cow;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Utf8Bytes};
use tracing::warn;

use super::Shared;
use super::event::{EventFacts, message_event};
use super::frame::GatewayError;
use super::integration::{self, IntegrationFailure};
use super::limits::{CLOSING_TIME, MESSAGES_IN_FLIGHT, SHUTDOWN_CLOSING_TIME, TimeLimits};
use super::registry::{Connection, OutgoingMessage};
use super::socket::{Happening, Socket};

/// One open connection.
pub(super) struct Session {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    socket: Socket,
    outgoing: mpsc::UnboundedReceiver<OutgoingMessage>,
    in_flight: Arc<Semaphore>,
    lifetime: Lifetime,
}

/// Why a connection ended, as `$disconnect` is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    /// The WebSocket close code.
    pub(super) code: u16,
    /// The reason, in the words of API Gateway where they are known.
    pub(super) reason: Cow<'static, str>,
    cause: Cause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The client sent a close frame.
    Client,
    /// The client went away without one.
    Lost,
    /// The client broke the protocol or a limit.
    Violation,
    /// API Gateway closes an orderly connection.
    Gateway,
}

impl Ending {
    /// The client went away without a close frame.
    pub(super) fn lost() -> Self {
        Self { code: 1006, reason: "Connection closed abnormally".into(), cause: Cause::Lost }
    }

    /// The idle limit, the limit on a connection's life, or the end of the API.
    fn going_away() -> Self {
        Self { code: 1001, reason: "Going away".into(), cause: Cause::Gateway }
    }

    /// DeleteConnection. Code and reason as in the events that aws/chalice issue 2060 and boto/boto3 issue 3789 show.
    fn deleted() -> Self {
        Self { code: 1000, reason: "Connection Closed Normally".into(), cause: Cause::Gateway }
    }

    fn by_client(frame: Option<CloseFrame>) -> Self {
        let (code, reason) = match frame {
            Some(frame) => (frame.code.into(), frame.reason.as_str().to_owned().into()),
            None => (1005, "Client-side close frame status not set".into()),
        };
        Self { code, reason, cause: Cause::Client }
    }

    /// A frame that API Gateway does not take. What it says as the reason is not documented; these are the names of the codes
    /// in RFC 6455, section 11.7.
    fn violation(code: CloseCode, reason: &'static str) -> Self {
        Self { code: code.into(), reason: reason.into(), cause: Cause::Violation }
    }

    fn of_error(error: &Error) -> Self {
        match error {
            Error::Capacity(_) => Self::violation(CloseCode::Size, "Message Too Big"),
            Error::Utf8(_) => Self::violation(CloseCode::Invalid, "Invalid frame payload data"),
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::lost(),
            Error::Protocol(_) => Self::violation(CloseCode::Protocol, "Protocol error"),
            _ => Self::lost(),
        }
    }

    fn close_frame(&self) -> CloseFrame {
        CloseFrame { code: self.code.into(), reason: Utf8Bytes::from(self.reason.as_ref()) }
    }
}

impl Session {
    /// A session over a socket whose handshake is done.
    pub(super) fn new(
        shared: Arc<Shared>,
        connection: Arc<Connection>,
        socket: Socket,
        outgoing: mpsc::UnboundedReceiver<OutgoingMessage>,
    ) -> Self {
        let lifetime = Lifetime::begin(Instant::now(), shared.time_limits);
        let in_flight = Arc::new(Semaphore::new(MESSAGES_IN_FLIGHT));
        Self { shared, connection, socket, outgoing, in_flight, lifetime }
    }

    /// Carries messages both ways until the connection has to end. The socket is left open for [`Self::close`].
    pub(super) async fn run(&mut self) -> Ending {
        let mut close_requested = pin!(self.connection.close_requested());
        let mut alarm = pin!(sleep_until(self.lifetime.deadline()));
        // Held until the message that is being written has left.
        let mut room: Option<OwnedSemaphorePermit> = None;
        // The right to hand one more message to a function. Nothing is read without it.
        let mut slot: Option<OwnedSemaphorePermit> = None;
        loop {
            tokio::select! {
                () = &mut close_requested => {
                    return if self.shared.stopping.is_cancelled() { Ending::going_away() } else { Ending::deleted() };
                }
                () = &mut alarm => {
                    if self.lifetime.deadline() <= Instant::now() {
                        return Ending::going_away();
                    }
                    alarm.as_mut().reset(self.lifetime.deadline());
                }
                happening = self.socket.next(slot.is_some()) => match happening {
                    Happening::Written => drop(room.take()),
                    Happening::Failed(error) => return Ending::of_error(&error),
                    Happening::Received(message) => {
                        self.touch();
                        match message {
                            Message::Text(text) => self.hand_over(text, slot.take()),
                            Message::Binary(_) => return Ending::violation(CloseCode::Unsupported, "Unsupported Data"),
                            Message::Close(frame) => return Ending::by_client(frame),
                            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                        }
                    }
                },
                Some(message) = self.outgoing.recv(), if !self.socket.is_writing() => {
                    room = Some(message.room);
                    if self.socket.start_message(message.text).is_err() {
                        return Ending::lost();
                    }
                    self.touch();
                }
                permit = self.in_flight.clone().acquire_owned(), if slot.is_none() => slot = permit.ok(),
            }
        }
    }

    /// Ends the connection with what the ending asks for, within a bounded time.
    pub(super) async fn close(mut self, ending: &Ending) {
        self.connection.refuse_messages();
        let time = if self.shared.stopping.is_cancelled() { SHUTDOWN_CLOSING_TIME } else { CLOSING_TIME };
        match ending.cause {
            Cause::Lost => {}
            Cause::Client => within(time, self.socket.finish_close()).await,
            Cause::Gateway => within(time, self.close_orderly(ending.close_frame())).await,
            Cause::Violation => within(time, self.close_after_violation(ending.close_frame())).await,
        }
    }

    /// Sends what is queued and then the close frame, and waits for the client's.
    async fn close_orderly(&mut self, frame: CloseFrame) {
        self.outgoing.close();
        while let Some(message) = self.outgoing.recv().await {
            if self.socket.write_message(message.text).await.is_err() {
                return;
            }
        }
        if self.socket.send_close(frame).await.is_ok() {
            self.socket.finish_close().await;
        }
    }

    /// Sends the close frame and reads to the end. A socket closed with unread bytes is reset by the operating system, and the
    /// reset can overtake the close frame.
    async fn close_after_violation(mut self, frame: CloseFrame) {
        const DISCARD_BYTES: usize = 4096;
        if self.socket.send_close(frame).await.is_err() {
            return;
        }
        let mut stream = self.socket.into_tcp();
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut discarded = vec![0; DISCARD_BYTES];
        while stream.read(&mut discarded).await.is_ok_and(|length| length > 0) {}
    }

    fn touch(&mut self) {
        self.lifetime.touch(Instant::now());
        self.connection.touch();
    }

    /// Every message is an invocation of its own, at the same time as the others, as on AWS.
    fn hand_over(&self, text: Utf8Bytes, slot: Option<OwnedSemaphorePermit>) {
        let shared = self.shared.clone();
        let connection = self.connection.clone();
        self.shared.spawn(async move {
            serve_message(&shared, &connection, &text).await;
            drop(slot);
        });
    }
}

async fn within(time: Duration, future: impl Future<Output = ()>) {
    // The client had its time; the connection is cut.
    let _ = timeout(time, future).await;
}

async fn serve_message(shared: &Shared, connection: &Connection, text: &str) {
    let event = EventFacts::now();
    let answer = match shared.route_of(text) {
        None => Err(GatewayError::Forbidden),
        Some((key, route)) => {
            let payload = message_event(&connection.facts, &event, key, text);
            match integration::invoke(shared, key, route, payload).await {
                Ok(answer) if route.two_way => integration::reply(&answer).map_err(|error| {
                    warn!(route.key = key, function.name = route.function, %error, "the answer of a function cannot be used");
                    GatewayError::InternalServerError
                }),
                Ok(_) => Ok(None),
                Err(IntegrationFailure::TimedOut) => Err(GatewayError::EndpointRequestTimedOut),
                Err(IntegrationFailure::Failed | IntegrationFailure::Throttled) => Err(GatewayError::InternalServerError),
                Err(IntegrationFailure::ShuttingDown) => Ok(None),
            }
        }
    };
    let text = match answer {
        Ok(None) => return,
        Ok(Some(body)) => body,
        Err(error) => error.text(&connection.facts.id, &event.request_id),
    };
    connection.send(text.into()).await;
}

/// When a connection has to end at the latest.
#[derive(Clone, Copy, Debug)]
struct Lifetime {
    end: Instant,
    idle: Duration,
    last_activity: Instant,
}

impl Lifetime {
    fn begin(now: Instant, limits: TimeLimits) -> Self {
        Self { end: now + limits.connection, idle: limits.idle, last_activity: now }
    }

    fn touch(&mut self, now: Instant) {
        self.last_activity = now;
    }

    fn deadline(&self) -> Instant {
        self.end.min(self.last_activity + self.idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn activity_moves_the_idle_limit_but_never_past_the_end_of_life() {
        let start = Instant::now();
        let mut lifetime = Lifetime::begin(start, TimeLimits::AWS);
        assert_eq!(lifetime.deadline(), start + 10 * MINUTE);
        lifetime.touch(start + 9 * MINUTE);
        assert_eq!(lifetime.deadline(), start + 19 * MINUTE);
        lifetime.touch(start + 115 * MINUTE);
        assert_eq!(lifetime.deadline(), start + 120 * MINUTE);
    }

    #[test]
    fn a_close_frame_without_a_code_is_1005_in_the_words_of_aws() {
        let ending = Ending::by_client(None);
        assert_eq!((ending.code, ending.reason.as_ref()), (1005, "Client-side close frame status not set"));
        let ending = Ending::by_client(Some(CloseFrame { code: 4001.into(), reason: "done".into() }));
        assert_eq!((ending.code, ending.reason.as_ref()), (4001, "done"));
    }
}
