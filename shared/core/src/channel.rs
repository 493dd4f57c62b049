//! Channels, and the namespaces they belong to.

use crate::fault::Fault;
use crate::limits::{CHANNEL_BYTES, CHANNEL_SEGMENTS, SEGMENT_BYTES};
use std::fmt;
use std::sync::Arc;

/// A named stream of messages: 1 to 6 segments joined by `/`, a segment being 1 to 64 of `A-Z a-z 0-9 _ - . : @ =`, at most 200
/// bytes in all. So it is safe in MQTT topics, in URLs and in our keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(Arc<str>);

/// A channel's first segment; it carries options.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Arc<str>);

/// Why a text is no channel. The text names the limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// Nothing there.
    #[error("a channel has 1 to {CHANNEL_SEGMENTS} segments, and this one is empty")]
    Empty,
    /// Too long.
    #[error("a channel has at most {CHANNEL_BYTES} bytes, and this one has {0}")]
    TooLong(usize),
    /// Too many segments.
    #[error("a channel has at most {CHANNEL_SEGMENTS} segments joined by '/', and this one has {0}")]
    TooManySegments(usize),
    /// `//`, or a slash at either end.
    #[error("segment {0} is empty: no channel begins or ends with '/' or holds '//'")]
    EmptySegment(usize),
    /// A long segment.
    #[error("a segment has at most {SEGMENT_BYTES} bytes, and segment {segment} has {bytes}")]
    SegmentTooLong {
        /// Which, from 1.
        segment: usize,
        /// Its length.
        bytes: usize,
    },
    /// `*` or `**`.
    #[error("segment {0} is a wildcard, which belongs into 'pattern'")]
    Wildcard(usize),
    /// A character outside the alphabet.
    #[error("a segment is made of A-Z a-z 0-9 _ - . : @ = and segment {segment} holds {found:?}")]
    Character {
        /// Which, from 1.
        segment: usize,
        /// The first character that does not belong.
        found: char,
    },
}

impl Channel {
    /// Reads a channel's name.
    ///
    /// # Errors
    /// When the text breaks the grammar; the error says where and names the limit.
    pub fn parse(text: &str) -> Result<Self, ChannelError> {
        if text.is_empty() {
            return Err(ChannelError::Empty);
        }
        if text.len() > CHANNEL_BYTES {
            return Err(ChannelError::TooLong(text.len()));
        }
        let segments = text.split('/').count();
        if segments > CHANNEL_SEGMENTS {
            return Err(ChannelError::TooManySegments(segments));
        }
        for (index, segment) in text.split('/').enumerate() {
            check_segment(index + 1, segment)?;
        }
        Ok(Self(text.into()))
    }

    /// The channel's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The namespace: the first segment.
    #[must_use]
    pub fn namespace(&self) -> Namespace {
        Namespace(self.0.split('/').next().unwrap_or_default().into())
    }
}

impl Namespace {
    /// Reads a namespace's name: one segment of a channel.
    ///
    /// # Errors
    /// When it is no segment.
    pub fn parse(text: &str) -> Result<Self, ChannelError> {
        let channel = Channel::parse(text)?;
        let segments = text.split('/').count();
        if segments > 1 { Err(ChannelError::TooManySegments(segments)) } else { Ok(Self(channel.0)) }
    }

    /// The namespace's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ChannelError {
    /// The same as an error for the caller, who gave the name in `field`.
    #[must_use]
    pub fn in_field(&self, field: &str) -> Fault {
        Fault::bad_request(field, self)
    }
}

fn check_segment(number: usize, segment: &str) -> Result<(), ChannelError> {
    if segment.is_empty() {
        return Err(ChannelError::EmptySegment(number));
    }
    if segment == "*" || segment == "**" {
        return Err(ChannelError::Wildcard(number));
    }
    if let Some(found) = segment.chars().find(|character| !is_segment_character(*character)) {
        return Err(ChannelError::Character { segment: number, found });
    }
    if segment.len() > SEGMENT_BYTES {
        return Err(ChannelError::SegmentTooLong { segment: number, bytes: segment.len() });
    }
    Ok(())
}

pub(crate) const fn is_segment_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.' | ':' | '@' | '=')
}

impl fmt::Display for Channel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let found = Channel::parse(text).map_err(|error| error.to_string());
        assert_eq!(found.as_ref().map(Channel::as_str).map_err(String::as_str), expected);
    }

    #[test]
    fn names_within_the_grammar_are_taken_as_they_are() {
        for name in ["a", "orders/42", "a/b/c/d/e/f", "A-Z_a.z:0@9=", &"s".repeat(64)] {
            check(name, Ok(name));
        }
    }

    #[test]
    fn each_break_of_the_grammar_is_named_with_its_limit() {
        check("", Err("a channel has 1 to 6 segments, and this one is empty"));
        check("a/b/c/d/e/f/g", Err("a channel has at most 6 segments joined by '/', and this one has 7"));
        check("a//b", Err("segment 2 is empty: no channel begins or ends with '/' or holds '//'"));
        check("/a", Err("segment 1 is empty: no channel begins or ends with '/' or holds '//'"));
        check("a/", Err("segment 2 is empty: no channel begins or ends with '/' or holds '//'"));
        check("a/*", Err("segment 2 is a wildcard, which belongs into 'pattern'"));
        check("a/b#c", Err("a segment is made of A-Z a-z 0-9 _ - . : @ = and segment 2 holds '#'"));
        check("a/ü", Err("a segment is made of A-Z a-z 0-9 _ - . : @ = and segment 2 holds 'ü'"));
        check(&"s".repeat(65), Err("a segment has at most 64 bytes, and segment 1 has 65"));
        check(&format!("{0}/{0}/{0}/{0}", "s".repeat(60)), Err("a channel has at most 200 bytes, and this one has 243"));
    }

    #[test]
    fn the_namespace_is_the_first_segment() {
        let channel = Channel::parse("orders/42/lines").expect("a channel");
        assert_eq!(channel.namespace().as_str(), "orders");
        assert!(Namespace::parse("orders/42").is_err());
    }

    proptest! {
        #[test]
        fn no_channel_can_break_a_topic_a_url_or_a_key(text in ".{0,220}") {
            if let Ok(channel) = Channel::parse(&text) {
                prop_assert!(channel.as_str().len() <= CHANNEL_BYTES);
                prop_assert!(channel.as_str().matches('/').count() < CHANNEL_SEGMENTS);
                prop_assert!(!channel.as_str().contains(['#', '+', '*', '?', ' ', '%', '\n', '\0']));
            }
        }

        #[test]
        fn every_text_of_the_grammar_is_a_channel(text in "[A-Za-z0-9_.:@=-]{1,30}(/[A-Za-z0-9_.:@=-]{1,30}){0,5}") {
            prop_assert!(Channel::parse(&text).is_ok());
        }
    }
}
