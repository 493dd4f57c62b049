//! The limits of a WebSocket API, each with where its number comes from.
//!
//! "Quotas" is the page "Quotas for configuring and running a WebSocket API" of the Amazon API Gateway Developer Guide.

use std::num::NonZeroU32;
use std::time::Duration;

/// The largest frame a client may send, in bytes of payload: 32 KB (Quotas). Larger ones close the connection with 1009. What
/// goes out is cut into frames of this size.
pub(super) const FRAME_BYTES: usize = 32 * 1024;

/// The largest message in either direction, in bytes: 128 KB (Quotas; the trait of `Data` in the model of PostToConnection).
pub(super) const MESSAGE_BYTES: usize = 128 * 1024;

/// The longest path with query of a request, in bytes: 4,096 (Quotas).
pub(super) const URL_BYTES: usize = 4096;

/// The largest head of a request, in bytes. API Gateway allows 10,240 bytes of headers; room is left for the URL and for what a
/// proxy adds. Hyper answers 431 above it.
pub(super) const HEAD_BYTES: usize = 32 * 1024;

/// How long a client may take for the head of a request, which is also how long an idle HTTP connection is kept. Longer than
/// the 90 seconds for which hyper's client pools keep one, so that the client lets go first.
pub(super) const HEAD_TIME: Duration = Duration::from_secs(120);

/// How long a client may take to send the body of a POST; our choice, API Gateway's own is not documented.
pub(super) const BODY_TIME: Duration = Duration::from_secs(30);

/// How much of a body that is too large is read and thrown away, so that the client gets to see the answer: 10 MB, the payload
/// quota of API Gateway's other APIs.
pub(super) const DISCARDED_BODY_BYTES: usize = 10 * 1024 * 1024;

/// What may wait for one slow client, in bytes: 1 MiB, which is eight of the largest messages. API Gateway answers 429 when
/// "the WebSocket client side buffer is full" without saying how large that is.
pub(super) const OUTGOING_BYTES: usize = 1024 * 1024;

/// What one waiting message costs of [`OUTGOING_BYTES`] beside its length, so that empty ones are bounded too.
pub(super) const OUTGOING_OVERHEAD_BYTES: usize = 64;

/// How many messages of one connection are with functions at the same time; when they are, nothing more is read from it. Our
/// choice: with the largest messages that is 8 MiB a connection.
pub(super) const MESSAGES_IN_FLIGHT: usize = 64;

/// How long a closing handshake may take, unsent messages included, before the connection is cut; our choice.
pub(super) const CLOSING_TIME: Duration = Duration::from_secs(2);

/// As [`CLOSING_TIME`], while the API shuts down.
pub(super) const SHUTDOWN_CLOSING_TIME: Duration = Duration::from_millis(500);

/// How long a shutdown waits for everything to end by itself; with it, a shutdown ends within a second.
pub(super) const SHUTDOWN_TIME: Duration = Duration::from_millis(800);

/// The read buffer that every open connection holds, in bytes. Small, so that 10,000 connections hold 20 MB; it grows to the
/// frame that comes.
pub(super) const READ_BUFFER_BYTES: usize = 2 * 1024;

/// The time limits of a connection and of what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimits {
    /// How long a connection may stay without a frame in either direction; then it is closed with 1001. Pings and pongs count.
    pub idle: Duration,
    /// How long a connection may live; then it is closed with 1001 here. AWS does not document its code.
    pub connection: Duration,
    /// How long a function may take to answer; then the client gets "Endpoint request timed out".
    pub integration: Duration,
}

impl TimeLimits {
    /// Those of AWS: 10 minutes, 2 hours, 29 seconds (Quotas).
    pub const AWS: Self = Self {
        idle: Duration::from_secs(10 * 60),
        connection: Duration::from_secs(2 * 60 * 60),
        integration: Duration::from_secs(29),
    };

    /// A connection's life `time_scale` times as fast, for tests: with 60, ten minutes become ten seconds. The time that a
    /// function has stays, because functions do not run faster.
    pub fn divided_by(self, time_scale: NonZeroU32) -> Self {
        Self { idle: self.idle / time_scale.get(), connection: self.connection / time_scale.get(), ..self }
    }
}

impl Default for TimeLimits {
    fn default() -> Self {
        Self::AWS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_scale_shortens_the_life_of_a_connection_and_nothing_else() {
        let sixty = NonZeroU32::new(60).expect("60 is not zero");
        assert_eq!(
            TimeLimits::AWS.divided_by(sixty),
            TimeLimits {
                idle: Duration::from_secs(10),
                connection: Duration::from_secs(120),
                integration: Duration::from_secs(29)
            }
        );
    }
}
