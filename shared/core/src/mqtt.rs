//! Where a channel is on MQTT: the topics of a stack.

use crate::channel::{Channel, ChannelError, is_segment_character};
use crate::limits::MQTT_PREFIX_BYTES;
use std::fmt;
use std::sync::Arc;

/// The level below the prefix on which a channel's messages go out to its subscribers.
const OUT: &str = "c";

/// The level below the prefix on which devices publish to a channel.
const IN: &str = "p";

/// The first level of a stack's topics, so that stacks share a broker: 1 to 48 of `A-Z a-z 0-9 _ - . : @ =`.
///
/// A channel's messages go out on `{prefix}/c/<channel>`; what devices publish for it comes in on `{prefix}/p/<channel>`. With the
/// longest prefix and the longest channel a topic has 251 bytes and seven slashes, within IoT Core's 256 and seven
/// (<https://docs.aws.amazon.com/general/latest/gr/iot-core.html>).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MqttPrefix(Arc<str>);

/// Why a text is no prefix. The text names the limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MqttPrefixError {
    /// Nothing there.
    #[error("an MQTT prefix has 1 to {MQTT_PREFIX_BYTES} bytes, and this one is empty")]
    Empty,
    /// Too long.
    #[error("an MQTT prefix has at most {MQTT_PREFIX_BYTES} bytes, and this one has {0}")]
    TooLong(usize),
    /// A character outside the alphabet.
    #[error("an MQTT prefix is made of A-Z a-z 0-9 _ - . : @ = and this one holds {0:?}")]
    Character(char),
}

/// Why a topic names no channel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// It does not begin with the levels that it should.
    #[error("the topic does not begin with '{0}'")]
    Foreign(String),
    /// What follows these levels is no channel.
    #[error("the topic's last levels are no channel")]
    Channel(#[source] ChannelError),
}

impl MqttPrefix {
    /// Reads a prefix.
    ///
    /// # Errors
    /// When the text breaks the grammar; the error names the limit.
    pub fn parse(text: &str) -> Result<Self, MqttPrefixError> {
        if text.is_empty() {
            return Err(MqttPrefixError::Empty);
        }
        if let Some(found) = text.chars().find(|character| !is_segment_character(*character)) {
            return Err(MqttPrefixError::Character(found));
        }
        if text.len() > MQTT_PREFIX_BYTES {
            return Err(MqttPrefixError::TooLong(text.len()));
        }
        Ok(Self(text.into()))
    }

    /// The prefix.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The topic on which a channel's messages go out.
    #[must_use]
    pub fn topic(&self, channel: &Channel) -> String {
        format!("{}{channel}", self.levels(OUT))
    }

    /// The channel whose messages go out on a topic.
    ///
    /// # Errors
    /// When it is another kind of topic, another stack's, or names no channel.
    pub fn channel_of_topic(&self, topic: &str) -> Result<Channel, TopicError> {
        self.channel_below(OUT, topic)
    }

    /// The topic on which devices publish to a channel.
    #[must_use]
    pub fn device_topic(&self, channel: &Channel) -> String {
        format!("{}{channel}", self.levels(IN))
    }

    /// The channel to which a device published on a topic.
    ///
    /// # Errors
    /// When it is another kind of topic, another stack's, or names no channel.
    pub fn channel_of_device_topic(&self, topic: &str) -> Result<Channel, TopicError> {
        self.channel_below(IN, topic)
    }

    fn channel_below(&self, level: &str, topic: &str) -> Result<Channel, TopicError> {
        let levels = self.levels(level);
        let Some(channel) = topic.strip_prefix(&levels) else {
            return Err(TopicError::Foreign(levels));
        };
        Channel::parse(channel).map_err(TopicError::Channel)
    }

    fn levels(&self, level: &str) -> String {
        format!("{self}/{level}/")
    }
}

impl fmt::Display for MqttPrefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{CHANNEL_BYTES, CHANNEL_SEGMENTS};
    use proptest::prelude::*;

    fn prefix(text: &str) -> MqttPrefix {
        MqttPrefix::parse(text).expect("a prefix")
    }

    fn channel(text: &str) -> Channel {
        Channel::parse(text).expect("a channel")
    }

    #[test]
    fn a_prefix_is_one_level_of_the_channels_alphabet() {
        for text in ["a", "carillon-dev", "A-Z_a.z:0@9=", &"s".repeat(48)] {
            assert_eq!(prefix(text).as_str(), text);
        }
    }

    #[test]
    fn each_break_of_the_grammar_is_named_with_its_limit() {
        let check = |text: &str, expected: &str| {
            assert_eq!(MqttPrefix::parse(text).expect_err(text).to_string(), expected);
        };
        check("", "an MQTT prefix has 1 to 48 bytes, and this one is empty");
        check(&"s".repeat(49), "an MQTT prefix has at most 48 bytes, and this one has 49");
        for found in ['/', '+', '#', '$', ' ', 'ü'] {
            let expected = format!("an MQTT prefix is made of A-Z a-z 0-9 _ - . : @ = and this one holds {found:?}");
            check(&format!("a{found}b"), &expected);
        }
    }

    #[test]
    fn a_channel_has_a_topic_out_and_a_topic_in() {
        let dev = prefix("dev");
        let orders = channel("orders/42");
        assert_eq!(dev.topic(&orders), "dev/c/orders/42");
        assert_eq!(dev.device_topic(&orders), "dev/p/orders/42");
        assert_eq!(dev.channel_of_topic("dev/c/orders/42"), Ok(orders.clone()));
        assert_eq!(dev.channel_of_device_topic("dev/p/orders/42"), Ok(orders));
    }

    #[test]
    fn a_topic_of_another_kind_or_stack_is_told_apart_from_a_bad_channel() {
        let dev = prefix("dev");
        for topic in ["dev/p/a", "dev2/c/a", "de/c/a", "c/a", "dev", "dev/c", "$aws/events/a", ""] {
            assert_eq!(dev.channel_of_topic(topic), Err(TopicError::Foreign("dev/c/".to_owned())), "{topic}");
        }
        assert_eq!(dev.channel_of_device_topic("dev/c/a"), Err(TopicError::Foreign("dev/p/".to_owned())));
        for topic in ["dev/c/", "dev/c//a", "dev/c/a b", "dev/c/a/b/c/d/e/f/g"] {
            assert!(matches!(dev.channel_of_topic(topic), Err(TopicError::Channel(_))), "{topic}");
        }
    }

    #[test]
    fn the_longest_topic_is_within_iot_core_s_limits() {
        let mut segments = vec!["s".repeat(32); CHANNEL_SEGMENTS];
        let rest = CHANNEL_BYTES - segments.join("/").len();
        segments[0].push_str(&"s".repeat(rest));
        let longest = segments.join("/");
        let topic = prefix(&"p".repeat(MQTT_PREFIX_BYTES)).topic(&channel(&longest));
        assert_eq!((longest.len(), topic.len()), (CHANNEL_BYTES, 251));
        assert_eq!(topic.matches('/').count(), 7);
    }

    proptest! {
        #[test]
        fn every_topic_reads_back_as_its_channel(
            text in "[A-Za-z0-9_.:@=-]{1,48}",
            name in "[A-Za-z0-9_.:@=-]{1,30}(/[A-Za-z0-9_.:@=-]{1,30}){0,5}",
        ) {
            let (prefix, channel) = (prefix(&text), channel(&name));
            prop_assert_eq!(prefix.channel_of_topic(&prefix.topic(&channel)), Ok(channel.clone()));
            prop_assert_eq!(prefix.channel_of_device_topic(&prefix.device_topic(&channel)), Ok(channel.clone()));
            prop_assert!(prefix.channel_of_topic(&prefix.device_topic(&channel)).is_err());
        }
    }
}
