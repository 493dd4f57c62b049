//! Server-sent events, `GET /sse`. Specified in docs/protocol.md; the stream's format is that of the HTML standard:
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html>.
//!
//! | module | what it holds |
//! |---|---|
//! | [`request`] | what a client asks for: channels, and where it was in each |
//! | [`server`] | the bytes of the stream |
//! | [`vector`] | the positions of all channels as one `id` |

pub mod request;
pub mod server;
pub mod vector;

/// The path of the stream.
pub const PATH: &str = "/sse";

/// The content type of the stream (HTML standard, section 9.2.4); it is always UTF-8.
pub const CONTENT_TYPE: &str = "text/event-stream";

/// The header in which a client that comes back sends the last `id` it has (HTML standard, section 9.2.4), as Lambda writes it.
pub const LAST_EVENT_ID: &str = "last-event-id";
