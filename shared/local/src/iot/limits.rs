//! The limits of AWS IoT Core, each with where its number comes from.
//!
//! "Quotas" is the page "AWS IoT Core endpoints and quotas" of the AWS General Reference, its table "AWS IoT Core message broker
//! and protocol limits and quotas". "MQTT" is the page of that name in the AWS IoT Core Developer Guide.

use std::ops::RangeInclusive;
use std::time::Duration;

/// The largest payload of a message, in bytes: 128 KB (Quotas).
pub const MAXIMUM_PAYLOAD_BYTES: usize = 128 * 1024;

/// The longest topic or topic filter, in bytes of UTF-8 (Quotas).
pub const MAXIMUM_TOPIC_BYTES: usize = 256;

/// The most slashes of a topic or topic filter (Quotas), which makes eight levels.
pub const MAXIMUM_SLASHES: usize = 7;

/// The most topic filters of one SUBSCRIBE (Quotas).
pub const MAXIMUM_FILTERS: usize = 8;

/// The most subscriptions of one connection (Quotas; it can be raised on AWS).
pub const MAXIMUM_SUBSCRIPTIONS: usize = 50;

/// The longest client id, in bytes of UTF-8 (Quotas).
pub const MAXIMUM_CLIENT_ID_BYTES: usize = 128;

/// The keep-alive intervals that are taken as asked for, in seconds (Quotas). A shorter one counts as the shortest of these, a
/// longer one and 0 as the longest.
pub const KEEP_ALIVE_SECONDS: RangeInclusive<u16> = 30..=1200;

/// How long a persistent session of MQTT 3.1.1 outlives its connection: an hour by default (MQTT, "Using MQTT persistent
/// sessions").
pub const SESSION_EXPIRY: Duration = Duration::from_secs(60 * 60);

/// The longest session expiry that MQTT 5 clients may ask for: 7 days (Quotas). More is cut to it, and the CONNACK says so.
pub const MAXIMUM_SESSION_EXPIRY: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How many QoS 1 messages may wait for their PUBACK in either direction (Quotas, "Maximum inbound unacknowledged QoS 1 publish
/// requests" and its outbound sister).
pub const MAXIMUM_IN_FLIGHT: u16 = 100;

/// The most topic aliases that a client may set (MQTT, "MQTT 5 supported features").
pub const MAXIMUM_TOPIC_ALIASES: u16 = 8;

/// The range of a message's expiry, in seconds (MQTT, "Message expiry": up to 7 days).
pub const MESSAGE_EXPIRY_SECONDS: RangeInclusive<u32> = 1..=604_800;

/// The largest packet that is read, in bytes, and what CONNACK announces: the largest payload and 22 KB for the topic and the
/// properties; our choice.
pub(super) const MAXIMUM_PACKET_BYTES: usize = 150 * 1024;

/// How long a client has for its CONNECT; our choice, so that silent connections do not pile up.
pub(super) const CONNECT_TIME: Duration = Duration::from_secs(10);

/// How long a custom authorizer's function has (AWS IoT Core Developer Guide, "Creating and managing custom authorizers").
pub(super) const AUTHORIZER_TIME: Duration = Duration::from_secs(5);

/// The most messages that wait in a session for its client or for room in flight. IoT Core bounds the account's rate instead; a
/// session that nobody takes up must not fill the memory. Our choice.
pub(super) const MAXIMUM_WAITING: usize = 10_000;

/// The QoS 0 messages that wait for a client that reads slowly. More are discarded, as IoT Core discards what is over a
/// connection's rate; the number is our choice.
pub(super) const MAXIMUM_UNRELIABLE: usize = 1000;

/// What may wait to be written to a client before nothing more is read from it, in bytes: seven of the largest packets; our
/// choice.
pub(super) const MAXIMUM_UNWRITTEN_BYTES: usize = 1024 * 1024;

/// How long a client gets to take what it is told before its connection ends; our choice.
pub(super) const FAREWELL_TIME: Duration = Duration::from_millis(500);

/// How long a shutdown waits for connections to end by themselves; our choice, it keeps the stack's own promise.
pub(super) const SHUTDOWN_TIME: Duration = Duration::from_millis(800);

/// How often sessions, wills and retained messages are looked through for what has run out; our choice.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_millis(200);

/// How long a client that is gone is known: its version number (AWS IoT Core Developer Guide, "Lifecycle events": about an hour)
/// and its description by GetConnection (30 minutes; here as long).
pub(super) const REMEMBERED: Duration = Duration::from_secs(60 * 60);

/// How long a WebSocket that is signed with Signature Version 4 lives: 24 hours (Quotas, "WebSocket connection duration").
pub(super) const SIGNED_CONNECTION_TIME: Duration = Duration::from_secs(24 * 60 * 60);
