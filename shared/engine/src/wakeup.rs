//! Wake-ups: queue messages that say "this shard may have something to do". They carry no data that matters.

use crate::rows::ShardKey;
use carillon_core::channel::Channel;
use serde::{Deserialize, Serialize};

/// The version of the body that this code writes and reads.
const VERSION: u8 = 1;

/// One wake-up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wakeup {
    /// Why.
    pub kind: WakeupKind,
    /// Which shard.
    pub key: ShardKey,
    /// How many times in a row the work was put off because IoT Core was away (P2).
    pub put_off: u32,
}

/// Why a shard is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WakeupKind {
    /// Something was appended.
    Wake,
    /// A subscriber came back with a position and waits for what it missed (S4).
    Resume,
}

/// The body is no wake-up that this code knows. It is counted and dropped (D7).
#[derive(Debug, thiserror::Error)]
pub enum WakeupError {
    /// Not the JSON of a wake-up.
    #[error("the body is no wake-up")]
    Json(#[from] serde_json::Error),
    /// Written by other code.
    #[error("the wake-up has version {0}, and this code reads {VERSION}")]
    Version(u8),
    /// Its channel is none.
    #[error("the wake-up's channel is malformed")]
    Channel(#[from] carillon_core::channel::ChannelError),
}

#[derive(Serialize, Deserialize)]
struct Body {
    v: u8,
    kind: WakeupKind,
    filter: String,
    channel: String,
    k: Shard,
    #[serde(default, rename = "n", skip_serializing_if = "is_zero")]
    put_off: u32,
}

/// A shard's number, or the name of the MQTT shard.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Shard {
    Number(u32),
    Name(MqttName),
}

#[derive(Serialize, Deserialize)]
enum MqttName {
    #[serde(rename = "mqtt")]
    Mqtt,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Wakeup {
    /// A wake-up after an append.
    #[must_use]
    pub const fn wake(key: ShardKey) -> Self {
        Self { kind: WakeupKind::Wake, key, put_off: 0 }
    }

    /// A wake-up for a subscriber that came back.
    #[must_use]
    pub const fn resume(key: ShardKey) -> Self {
        Self { kind: WakeupKind::Resume, key, put_off: 0 }
    }

    /// The same work once more, later (P2).
    #[must_use]
    pub fn put_off(&self) -> Self {
        Self { put_off: self.put_off.saturating_add(1), ..self.clone() }
    }

    /// The body of the queue message.
    #[must_use]
    pub fn encode(&self) -> String {
        let channel = self.key.channel.as_str().to_owned();
        let k = if self.key.is_mqtt() { Shard::Name(MqttName::Mqtt) } else { Shard::Number(self.key.shard) };
        let body = Body { v: VERSION, kind: self.kind, filter: channel.clone(), channel, k, put_off: self.put_off };
        serde_json::to_string(&body).expect("strings and numbers make JSON")
    }

    /// Reads the body of a queue message.
    ///
    /// # Errors
    /// When it is no wake-up of this version.
    pub fn decode(body: &str) -> Result<Self, WakeupError> {
        let body: Body = serde_json::from_str(body)?;
        if body.v != VERSION {
            return Err(WakeupError::Version(body.v));
        }
        let channel = Channel::parse(&body.channel)?;
        let key = match body.k {
            Shard::Number(shard) => ShardKey::new(&channel, shard),
            Shard::Name(MqttName::Mqtt) => ShardKey::mqtt(&channel),
        };
        Ok(Self { kind: body.kind, key, put_off: body.put_off })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_reads_back_as_it_was_written() {
        let key = ShardKey::new(&Channel::parse("orders/42").expect("a channel"), 3);
        let mqtt = Wakeup::wake(ShardKey::mqtt(&key.channel));
        for wakeup in [Wakeup::wake(key.clone()), Wakeup::resume(key), mqtt.put_off().put_off(), mqtt] {
            assert_eq!(Wakeup::decode(&wakeup.encode()).expect("a wake-up"), wakeup);
        }
    }

    #[test]
    fn the_body_is_as_documented() {
        let key = ShardKey::new(&Channel::parse("orders/42").expect("a channel"), 0);
        let body = r#"{"v":1,"kind":"wake","filter":"orders/42","channel":"orders/42","k":0}"#;
        assert_eq!(Wakeup::wake(key.clone()).encode(), body);
        let body = r#"{"v":1,"kind":"wake","filter":"orders/42","channel":"orders/42","k":"mqtt","n":1}"#;
        assert_eq!(Wakeup::wake(ShardKey::mqtt(&key.channel)).put_off().encode(), body);
    }

    #[test]
    fn d7_what_is_no_wake_up_is_told_apart() {
        for body in ["", "{}", "null", r#"{"v":1,"kind":"sleep","filter":"a","channel":"a","k":0}"#] {
            assert!(matches!(Wakeup::decode(body), Err(WakeupError::Json(_))), "{body}");
        }
        let later = r#"{"v":2,"kind":"wake","filter":"a","channel":"a","k":0}"#;
        assert!(matches!(Wakeup::decode(later), Err(WakeupError::Version(2))));
        let malformed = r#"{"v":1,"kind":"wake","filter":"a//b","channel":"a//b","k":0}"#;
        assert!(matches!(Wakeup::decode(malformed), Err(WakeupError::Channel(_))));
    }
}
