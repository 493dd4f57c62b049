//! A message as the broker holds it, apart from any version of the protocol.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::topic::Topic;

/// How surely a message arrives. IoT Core has no QoS 2, so nothing here can hold one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Quality {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// Where it was published.
    pub(super) topic: Topic,
    /// What it says, at most [`MAXIMUM_PAYLOAD_BYTES`](super::limits::MAXIMUM_PAYLOAD_BYTES).
    pub(super) payload: Bytes,
    /// How surely it arrives.
    pub(super) quality: Quality,
    /// Whether it stays for later subscribers.
    pub(super) retain: bool,
    /// What MQTT 5 adds.
    pub(super) properties: MessageProperties,
    /// When it is worth nothing any more.
    pub(super) expires_at: Option<Instant>,
}

/// What a message of MQTT 5 carries beside its payload (MQTT 5.0, section 3.3.2.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MessageProperties {
    /// The payload's media type.
    pub(super) content_type: Option<String>,
    /// Where an answer goes.
    pub(super) response_topic: Option<String>,
    /// What an answer is told by.
    pub(super) correlation_data: Option<Bytes>,
    /// Whether the payload is UTF-8.
    pub(super) payload_is_text: Option<bool>,
    /// Names and values of the application, in their order.
    pub(super) user: Vec<(String, String)>,
}

/// A moment, read once for everything that it decides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// For time that passes.
    pub(super) instant: Instant,
    /// For people and events: milliseconds since 1970.
    pub(super) unix_ms: u64,
}

impl Quality {
    /// The number on the wire.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::AtMostOnce => 0,
            Self::AtLeastOnce => 1,
        }
    }
}

impl Message {
    /// A QoS 1 message without properties, as the service itself publishes them.
    pub(super) fn new(topic: Topic, payload: impl Into<Bytes>) -> Self {
        Self {
            topic,
            payload: payload.into(),
            quality: Quality::AtLeastOnce,
            retain: false,
            properties: MessageProperties::default(),
            expires_at: None,
        }
    }

    /// Whether it is worth nothing any more.
    pub(super) fn is_expired(&self, now: Now) -> bool {
        self.expires_at.is_some_and(|end| end <= now.instant)
    }

    /// The whole seconds that it still lives, at least one; MQTT 5.0 wants the rest on the wire (section 3.3.2.3.3).
    pub(super) fn seconds_left(&self, now: Instant) -> Option<u32> {
        let left = self.expires_at?.saturating_duration_since(now);
        Some(u32::try_from(left.as_secs()).unwrap_or(u32::MAX).max(1))
    }
}

impl Now {
    /// The present moment.
    pub(super) fn read() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { instant: Instant::now(), unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
    }

    /// A later moment, for tests that let time pass.
    #[cfg(test)]
    pub(super) fn after(self, time: Duration) -> Self {
        let milliseconds = u64::try_from(time.as_millis()).expect("a test's time fits");
        Self { instant: self.instant + time, unix_ms: self.unix_ms + milliseconds }
    }
}
