//! Every limit of Carillon's own, with the reason for its number.

/// A channel's segments.
///
/// IoT Core allows seven slashes in a topic; `{prefix}/c/` takes two of them.
pub const CHANNEL_SEGMENTS: usize = 6;

/// Bytes of one segment of a channel.
pub const SEGMENT_BYTES: usize = 64;

/// Bytes of a whole channel: with prefix and `/c/` it stays under IoT Core's 256 bytes a topic.
pub const CHANNEL_BYTES: usize = 200;

/// Bytes of the first level of a stack's MQTT topics.
///
/// IoT Core allows 256 bytes a topic; the longest channel and `/c/` take 203 of them, and an MQTT client's id, of at most 128,
/// begins with the prefix too.
pub const MQTT_PREFIX_BYTES: usize = 48;

/// Bytes of one event as CloudEvents JSON.
///
/// API Gateway carries frames of at most 32 KB; the frame around an event needs the rest.
pub const EVENT_BYTES: usize = 30_720;

/// Bytes of one frame towards a client: API Gateway's limit on a frame, and its unit of billing.
pub const FRAME_BYTES: usize = 32_768;

/// Bytes of a CloudEvents `id`.
pub const EVENT_ID_BYTES: usize = 256;

/// Bytes of a CloudEvents `source`.
pub const EVENT_SOURCE_BYTES: usize = 512;

/// Bytes of a CloudEvents `type`.
pub const EVENT_TYPE_BYTES: usize = 256;

/// CloudEvents extension attributes of one event.
pub const EVENT_EXTENSIONS: usize = 32;

/// Messages of one log entry (one conditional write).
pub const ENTRY_MESSAGES: usize = 64;

/// Bytes of the messages of one log entry: a strong read of it costs at most 16 read units.
pub const ENTRY_BYTES: usize = 65_536;

/// Messages of one HTTP publish, direct invoke or SQS body.
pub const PUBLISH_BATCH: usize = 100;

/// Bytes of one HTTP publish: Lambda's limit on a synchronous payload is 6 MB, base64 takes a third of it.
pub const PUBLISH_BYTES: usize = 4 * 1024 * 1024;

/// Subscriptions of one connection.
///
/// They are read in one page of one query whenever the connection subscribes, and deleted within one invocation when it goes.
pub const SUBSCRIPTIONS: usize = 100;

/// Channels of one stream: IoT Core lets one connection subscribe to as many, and an event's `id`, which has all their positions,
/// stays under 2 KB.
pub const STREAM_CHANNELS: usize = 50;

/// Bytes of a frame's `ref`.
pub const REF_BYTES: usize = 64;

/// Messages of one page of `history`.
pub const HISTORY_PAGE: usize = 100;

/// Bytes of one page of `history`, so that the reply stays under [`FRAME_BYTES`] with its envelope.
pub const HISTORY_PAGE_BYTES: usize = 31_744;

/// Characters of the shared secret, at least.
pub const SECRET_CHARACTERS: usize = 32;

/// Subscriptions that fill a shard: the next one goes to a new shard (S5).
pub const SHARD_SUBSCRIPTIONS: u64 = 250;

/// Messages of one window of the log that a drain reads (D2).
pub const WINDOW_MESSAGES: usize = 256;

/// Hours that an entry stays in the log at least, whatever the namespace's age says (A2).
pub const LOG_HOURS: u64 = 26;

/// Seconds that a head outlives its newest entry (T2).
pub const HEAD_OUTLIVES_SECONDS: u64 = 7 * 24 * 3600;

/// Seconds that a connection's rows live: API Gateway cuts after two hours, ten minutes are for clocks and late invocations.
pub const CONNECTION_SECONDS: u64 = 2 * 3600 + 10 * 60;

/// Seconds that an id is remembered, so that an event published again under the same id is dropped.
pub const IDENTITY_SECONDS: u64 = 24 * 3600;
