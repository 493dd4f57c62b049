//! Topics and topic filters with IoT Core's limits, and which matches which.

use std::fmt;
use std::sync::Arc;

use super::limits::{MAXIMUM_SLASHES, MAXIMUM_TOPIC_BYTES};

/// What a basic ingest topic begins with: `$aws/rules/<rule>/<topic>`.
const BASIC_INGEST: &str = "$aws/rules/";

/// What the filter of a shared subscription begins with: `$share/<group>/<filter>` (MQTT 5.0, section 4.8.2).
const SHARE: &str = "$share/";

/// The name of a topic, as a message carries it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

/// A topic filter, with the group of a shared subscription.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicFilter {
    text: Arc<str>,
    /// Where the filter itself begins in the text.
    start: usize,
}

/// A text is no topic, or no topic filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// It has no characters.
    #[error("a topic is empty")]
    Empty,
    /// It is over the limit.
    #[error("a topic has {length} bytes, over the limit of {MAXIMUM_TOPIC_BYTES}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// It has too many levels.
    #[error("a topic has {slashes} slashes, over the limit of {MAXIMUM_SLASHES}")]
    TooDeep {
        /// How many there are.
        slashes: usize,
    },
    /// A wildcard or a NUL stands where none may.
    #[error("a topic has the character {character:?} where it is not allowed")]
    Character {
        /// The character.
        character: char,
    },
    /// `$share/` is not followed by a group and a filter.
    #[error("a shared subscription is not $share/<group>/<filter>")]
    Share,
}

impl Topic {
    /// Reads the name of a topic.
    ///
    /// # Errors
    /// [`TopicError`]. The three levels of basic ingest do not count towards the limits (Quotas).
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        let counted = match text.strip_prefix(BASIC_INGEST).and_then(|rest| rest.split_once('/')) {
            Some((_, topic)) => topic,
            None => text,
        };
        check(counted)?;
        match text.chars().find(|character| matches!(character, '+' | '#' | '\0')) {
            Some(character) => Err(TopicError::Character { character }),
            None => Ok(Self(text.into())),
        }
    }

    /// The topic as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The rule and the topic of a basic ingest topic.
    #[must_use]
    pub fn basic_ingest(&self) -> Option<(&str, &str)> {
        self.0.strip_prefix(BASIC_INGEST)?.split_once('/')
    }

    /// Whether it is one that IoT Core keeps for itself.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('$')
    }
}

impl TopicFilter {
    /// Reads a filter, `$share/<group>/<filter>` included.
    ///
    /// # Errors
    /// [`TopicError`]. `$share/<group>/` does not count towards the limits.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        let start = match text.strip_prefix(SHARE) {
            None => 0,
            Some(rest) => {
                let (group, _) = rest.split_once('/').ok_or(TopicError::Share)?;
                if group.is_empty() || group.contains(['+', '#']) {
                    return Err(TopicError::Share);
                }
                SHARE.len() + group.len() + 1
            }
        };
        let filter = &text[start..];
        check(filter)?;
        let levels = filter.split('/').collect::<Vec<_>>();
        for (index, level) in levels.iter().enumerate() {
            if level.contains('#') && (*level != "#" || index + 1 < levels.len()) {
                return Err(TopicError::Character { character: '#' });
            }
            if level.contains('+') && *level != "+" {
                return Err(TopicError::Character { character: '+' });
            }
        }
        if filter.contains('\0') {
            return Err(TopicError::Character { character: '\0' });
        }
        Ok(Self { text: text.into(), start })
    }

    /// The filter as it was written, a group included.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The filter without a group.
    #[must_use]
    pub fn pattern(&self) -> &str {
        &self.text[self.start..]
    }

    /// Whether the subscription is shared.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.start > 0
    }

    /// Whether it is one topic, without wildcards.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        !self.pattern().split('/').any(|level| matches!(level, "+" | "#"))
    }

    /// Whether a message on the topic is for this filter.
    ///
    /// Two rules differ from the MQTT specification or stand out of it: `a/#` does not match `a` ("MQTT" of the guide: the wildcard
    /// does not include the parent level), and a wildcard in the first level does not match topics that begin with `$` (MQTT 5.0,
    /// section 4.7.2).
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        let filter = self.pattern();
        if topic.starts_with('$') && filter.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = topic.split('/');
        for wanted in filter.split('/') {
            match (wanted, levels.next()) {
                (_, None) => return false,
                ("#", Some(_)) => return true,
                ("+", Some(_)) => {}
                (wanted, Some(level)) if wanted == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// What holds for topics and filters alike.
fn check(text: &str) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > MAXIMUM_TOPIC_BYTES {
        return Err(TopicError::TooLong { length: text.len() });
    }
    let slashes = text.matches('/').count();
    if slashes > MAXIMUM_SLASHES {
        return Err(TopicError::TooDeep { slashes });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Topic, TopicError, TopicFilter};

    #[test]
    fn filters_match_as_iot_core_does() {
        for (filter, topic, expected) in [
            ("a/b", "a/b", true),
            ("a/b", "a/c", false),
            ("a/b", "a/b/c", false),
            ("a/b/c", "a/b", false),
            ("a/+", "a/b", true),
            ("a/+", "a/", true),
            ("a/+", "a", false),
            ("a/+", "a/b/c", false),
            ("+/b", "a/b", true),
            ("a/#", "a/b", true),
            ("a/#", "a/b/c", true),
            ("a/#", "a/", true),
            // The parent level: the specification says yes, IoT Core no.
            ("a/#", "a", false),
            ("#", "a/b", true),
            ("#", "$aws/events/presence/connected/x", false),
            ("+/events", "$aws/events", false),
            ("$aws/events/#", "$aws/events/presence/connected/x", true),
            ("$share/group/a/#", "a/b", true),
            ("/a", "/a", true),
            ("/a", "a", false),
        ] {
            let parsed = TopicFilter::parse(filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
            assert_eq!(parsed.matches(topic), expected, "{filter} and {topic}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for (filter, expected) in [
            ("", TopicError::Empty),
            ("a/#/b", TopicError::Character { character: '#' }),
            ("a#", TopicError::Character { character: '#' }),
            ("a/b+", TopicError::Character { character: '+' }),
            ("a\0", TopicError::Character { character: '\0' }),
            ("a/b/c/d/e/f/g/h/i", TopicError::TooDeep { slashes: 8 }),
            ("$share/group", TopicError::Share),
            ("$share//a", TopicError::Share),
            ("$share/g+/a", TopicError::Share),
            ("$share/group/", TopicError::Empty),
        ] {
            assert_eq!(TopicFilter::parse(filter), Err(expected), "{filter}");
        }
        assert_eq!(TopicFilter::parse(&"x".repeat(257)), Err(TopicError::TooLong { length: 257 }));
        let deepest = "$share/group/a/b/c/d/e/f/g/h";
        assert_eq!(TopicFilter::parse(deepest).expect("the group does not count").pattern(), "a/b/c/d/e/f/g/h");
    }

    #[test]
    fn what_is_no_topic_is_refused() {
        for (topic, expected) in [
            ("", TopicError::Empty),
            ("a/+", TopicError::Character { character: '+' }),
            ("a/#", TopicError::Character { character: '#' }),
            ("a\0b", TopicError::Character { character: '\0' }),
            ("1/2/3/4/5/6/7/8/9", TopicError::TooDeep { slashes: 8 }),
            ("$aws/rules/name/1/2/3/4/5/6/7/8/9", TopicError::TooDeep { slashes: 8 }),
        ] {
            assert_eq!(Topic::parse(topic), Err(expected), "{topic}");
        }
        assert_eq!(Topic::parse(&"x".repeat(257)), Err(TopicError::TooLong { length: 257 }));
        let ingest = Topic::parse("$aws/rules/name/1/2/3/4/5/6/7/8").expect("the prefix does not count");
        assert_eq!(ingest.basic_ingest(), Some(("name", "1/2/3/4/5/6/7/8")));
        assert!(ingest.is_reserved());
        assert_eq!(Topic::parse("a/b").expect("a topic").basic_ingest(), None);
    }
}
