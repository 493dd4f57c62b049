//! Events as publishers hand them in (CloudEvents 1.0.2), and as the log keeps them.

use crate::channel::Channel;
use crate::fault::Fault;
use crate::limits::{EVENT_BYTES, EVENT_EXTENSIONS, EVENT_ID_BYTES, EVENT_SOURCE_BYTES, EVENT_TYPE_BYTES};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::sync::Arc;

/// The type of an event that its publisher gave none.
pub const DEFAULT_TYPE: &str = "carillon.message";

/// One CloudEvents event on a channel. Its `subject` is the channel; `offset` and `epoch` come with delivery.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The channel, and the CloudEvents `subject`.
    pub channel: Channel,
    /// `id`. Where the publisher gave one, [`Event::identity`] is set too.
    pub id: Attribute,
    /// `source`: a URI reference.
    pub source: Attribute,
    /// `type`.
    pub kind: Attribute,
    /// `time`, as the publisher gave it or when we took the event: RFC 3339.
    pub time: Attribute,
    /// `dataschema`.
    pub schema: Option<Attribute>,
    /// `data`.
    pub data: Data,
    /// Extension attributes in their order.
    pub extensions: Vec<(ExtensionName, Extension)>,
    /// What makes it the same event when it comes again: set where the publisher named the id itself.
    pub identity: Option<Identity>,
}

/// An event's data.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// No data.
    None,
    /// JSON text, valid by construction of whoever read it, of the content type `application/json`.
    Json(Arc<str>),
    /// JSON text of another content type, such as `application/vnd.example+json`.
    JsonOf {
        /// `datacontenttype`.
        content_type: Attribute,
        /// The JSON text.
        json: Arc<str>,
    },
    /// Text of a content type that is no JSON.
    Text {
        /// `datacontenttype`.
        content_type: Attribute,
        /// The text.
        text: String,
    },
    /// Bytes: `data_base64` on the wire.
    Bytes {
        /// `datacontenttype`.
        content_type: Attribute,
        /// The bytes.
        bytes: Vec<u8>,
    },
}

/// The value of an extension attribute (CloudEvents 1.0.2, "Type System"; the other types are strings on a JSON wire).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extension {
    /// `Boolean`.
    Boolean(bool),
    /// `Integer`: 32 bits, signed.
    Integer(i32),
    /// `String`.
    Text(Attribute),
}

/// The text of an attribute: not empty, no control characters (a line break in an id would inject fields into an SSE stream).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attribute(Arc<str>);

/// The name of an extension attribute: 1 to 20 of `a-z 0-9` (CloudEvents 1.0.2, "Naming Conventions").
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExtensionName(String);

/// What makes an event the same when it is published again: CloudEvents' source and id together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity(String);

/// An event encoded as CloudEvents JSON and within [`EVENT_BYTES`]: what the log keeps and every wire sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventJson(Arc<str>);

/// Names that the specification or we have taken; an extension cannot have them.
const RESERVED_NAMES: [&str; 12] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "dataschema",
    "data",
    "offset",
    "epoch",
    "prev",
];

impl Attribute {
    /// Takes the value of `field`, at most `limit` bytes.
    ///
    /// # Errors
    /// When it is empty, longer than `limit`, or holds a control character.
    pub fn try_new(field: &str, text: impl Into<Arc<str>>, limit: usize) -> Result<Self, Fault> {
        let text = text.into();
        if text.is_empty() {
            return Err(Fault::bad_request(field, "is empty"));
        }
        if text.len() > limit {
            return Err(Fault::bad_request(field, format_args!("{} bytes are over the limit of {limit}", text.len())));
        }
        match text.chars().find(|character| character.is_control()) {
            Some(found) => Err(Fault::bad_request(field, format_args!("holds the control character {found:?}"))),
            None => Ok(Self(text)),
        }
    }

    /// An event's `id`.
    ///
    /// # Errors
    /// As [`Attribute::try_new`] with [`EVENT_ID_BYTES`].
    pub fn id(text: impl Into<Arc<str>>) -> Result<Self, Fault> {
        Self::try_new("id", text, EVENT_ID_BYTES)
    }

    /// An event's `source`.
    ///
    /// # Errors
    /// As [`Attribute::try_new`] with [`EVENT_SOURCE_BYTES`].
    pub fn source(text: impl Into<Arc<str>>) -> Result<Self, Fault> {
        Self::try_new("source", text, EVENT_SOURCE_BYTES)
    }

    /// An event's `type`.
    ///
    /// # Errors
    /// As [`Attribute::try_new`] with [`EVENT_TYPE_BYTES`].
    pub fn kind(text: impl Into<Arc<str>>) -> Result<Self, Fault> {
        Self::try_new("type", text, EVENT_TYPE_BYTES)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ExtensionName {
    /// Takes an extension's name.
    ///
    /// # Errors
    /// When it breaks the naming rules or is taken.
    pub fn try_new(name: &str) -> Result<Self, Fault> {
        let fits = (1..=20).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if !fits {
            return Err(Fault::bad_request(name, "an extension attribute's name is 1 to 20 of a-z and 0-9"));
        }
        if RESERVED_NAMES.contains(&name) {
            return Err(Fault::bad_request(name, "the name is reserved and cannot be an extension attribute"));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Identity {
    /// The identity of an event with this source and id: a digest, so that keys made of it have one length.
    #[must_use]
    pub fn new(source: &str, id: &str) -> Self {
        let mut hasher = Sha256::new();
        // The length in front keeps ("a", "bc") apart from ("ab", "c").
        hasher.update((source.len() as u64).to_be_bytes());
        hasher.update(source.as_bytes());
        hasher.update(id.as_bytes());
        let digest = hasher.finalize();
        Self(digest.iter().fold(String::with_capacity(64), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a String takes every write");
            text
        }))
    }

    /// The digest in hexadecimal digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Event {
    /// Checks what concerns the event as a whole.
    ///
    /// # Errors
    /// When it has more than [`EVENT_EXTENSIONS`] extension attributes.
    pub fn check(&self) -> Result<(), Fault> {
        let found = self.extensions.len();
        if found > EVENT_EXTENSIONS {
            return Err(Fault::bad_request("extensions", format_args!("{found} are over the limit of {EVENT_EXTENSIONS}")));
        }
        Ok(())
    }
}

impl EventJson {
    /// Takes an event as CloudEvents JSON; the caller encoded it.
    ///
    /// # Errors
    /// When it is over `limit` bytes: the namespace's limit, or [`EVENT_BYTES`] at most.
    pub fn try_new(json: impl Into<Arc<str>>, limit: usize) -> Result<Self, Fault> {
        let json = json.into();
        let limit = limit.min(EVENT_BYTES);
        if json.len() > limit { Err(Fault::too_large("event", json.len(), limit)) } else { Ok(Self(json)) }
    }

    /// What the log held: it was checked when it was written.
    #[must_use]
    pub fn from_log(json: impl Into<Arc<str>>) -> Self {
        Self(json.into())
    }

    /// The JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its length in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::ErrorCode;

    #[test]
    fn nothing_that_breaks_a_line_gets_into_an_attribute() {
        for text in ["a\nb", "a\rb", "\0", "\u{7f}", "\u{85}"] {
            let fault = Attribute::id(text).expect_err("a control character");
            assert!(fault.message.starts_with("id: holds the control character"), "{fault}");
        }
        assert_eq!(Attribute::id("").expect_err("empty").message, "id: is empty");
        assert_eq!(Attribute::id("x".repeat(257)).expect_err("long").message, "id: 257 bytes are over the limit of 256");
    }

    #[test]
    fn an_identity_keeps_source_and_id_apart() {
        assert_eq!(Identity::new("a", "bc"), Identity::new("a", "bc"));
        assert_ne!(Identity::new("a", "bc"), Identity::new("ab", "c"));
        assert_eq!(Identity::new("a", "b").as_str().len(), 64);
    }

    #[test]
    fn an_event_over_the_limit_is_refused_and_the_limit_named() {
        let fault = EventJson::try_new("x".repeat(EVENT_BYTES + 1), usize::MAX).expect_err("too large");
        assert_eq!((fault.code, &*fault.message), (ErrorCode::TooLarge, "event: 30721 bytes are over the limit of 30720"));
        assert!(EventJson::try_new("x".repeat(EVENT_BYTES), usize::MAX).is_ok());
    }

    #[test]
    fn an_extension_cannot_take_a_name_that_means_something() {
        for name in ["", "Upper", "with_underscore", "data", "offset", "epoch", "waytoolongforanextension"] {
            assert!(ExtensionName::try_new(name).is_err(), "{name:?}");
        }
        assert!(ExtensionName::try_new("traceparent").is_ok());
    }
}
