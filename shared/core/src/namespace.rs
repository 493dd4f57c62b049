//! A namespace's options, each with a default.

use crate::fault::Fault;
use crate::limits::{EVENT_BYTES, LOG_HOURS};
use crate::time::Millis;
use std::ops::RangeInclusive;

/// The options of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceOptions {
    /// How many of a channel's latest messages `history` shows. 0 shows none. The log itself keeps more (A1).
    pub history_size: u32,
    /// How old a message may be, in seconds, for `history` to show it. The log keeps messages for this long, and for 26 hours
    /// at least (A2).
    pub history_age_s: u64,
    /// Bytes of one event as CloudEvents JSON.
    pub max_event_bytes: u32,
    /// Whether messages go to MQTT subscribers (P2). The streams live from it too; without it they poll the log.
    pub mqtt: bool,
    /// Whether IoT Core keeps each channel's latest message and gives it to whoever subscribes over MQTT.
    pub retain: bool,
    /// When `mqtt` was last switched on; none where it always was. What was published before is not sent over MQTT.
    pub mqtt_since: Option<Millis>,
}

/// One option: its name, what it means, its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionSpec {
    /// Its name on the command line and in the table.
    pub name: &'static str,
    /// One line for people.
    pub meaning: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// What it may be.
    pub range: (u64, u64),
    /// What it is when absent.
    pub default: u64,
}

/// Every option there is.
pub const OPTIONS: [OptionSpec; 5] = [
    OptionSpec {
        name: "history_size",
        meaning: "latest messages of a channel that history shows",
        unit: "messages",
        range: (0, 100_000),
        default: 100,
    },
    OptionSpec {
        name: "history_age_s",
        meaning: "age up to which history shows a message, and the log keeps it (26 hours at least)",
        unit: "seconds",
        // 30 days: a log is for reconnecting and catching up, not an archive.
        range: (0, 30 * 24 * 3600),
        default: 24 * 3600,
    },
    OptionSpec {
        name: "max_event_bytes",
        meaning: "size of one event as CloudEvents JSON",
        unit: "bytes",
        range: (256, EVENT_BYTES as u64),
        default: EVENT_BYTES as u64,
    },
    OptionSpec {
        name: "mqtt",
        meaning: "whether messages go to MQTT subscribers, and to streams without polling: 1 yes, 0 no",
        unit: "(yes or no)",
        range: (0, 1),
        default: 1,
    },
    OptionSpec {
        name: "retain",
        meaning: "whether a channel's latest message is retained for those who subscribe over MQTT later: 1 yes, 0 no",
        unit: "(yes or no)",
        range: (0, 1),
        default: 0,
    },
];

/// After a switch of `mqtt`, messages of this long, in milliseconds, do not go over MQTT yet (P2).
const MQTT_SWITCH_MS: u64 = 62_000;

impl Default for NamespaceOptions {
    fn default() -> Self {
        let [size, age, bytes, mqtt, retain] = OPTIONS.map(|option| option.default);
        Self {
            history_size: u32::try_from(size).expect("within its range"),
            history_age_s: age,
            max_event_bytes: u32::try_from(bytes).expect("within its range"),
            mqtt: mqtt == 1,
            retain: retain == 1,
            mqtt_since: None,
        }
    }
}

impl NamespaceOptions {
    /// How long an entry of this namespace lives in the log, in seconds: `max(age, 26 h)` (A2).
    #[must_use]
    pub fn log_seconds(&self) -> u64 {
        self.history_age_s.max(LOG_HOURS * 3600)
    }

    /// Sets the option called `name`.
    ///
    /// # Errors
    /// When there is no such option, or the value is out of its range; the text names both.
    pub fn set(&mut self, name: &str, value: u64) -> Result<(), Fault> {
        let Some(option) = OPTIONS.iter().find(|option| option.name == name) else {
            let known = OPTIONS.map(|option| option.name).join(", ");
            return Err(Fault::bad_request(name, format_args!("no namespace option has this name; there are {known}")));
        };
        let (least, most) = option.range;
        let range: RangeInclusive<u64> = least..=most;
        if !range.contains(&value) {
            return Err(Fault::bad_request(name, format_args!("{value} is not within {least} to {most} {}", option.unit)));
        }
        match name {
            "history_size" => self.history_size = u32::try_from(value).expect("within its range"),
            "history_age_s" => self.history_age_s = value,
            "mqtt" => self.mqtt = value == 1,
            "retain" => self.retain = value == 1,
            _ => self.max_event_bytes = u32::try_from(value).expect("within its range"),
        }
        Ok(())
    }

    /// Writes down when MQTT was switched on, where these options do so in the place of `before`.
    #[must_use]
    pub fn switched_on(self, before: Self, now: Millis) -> Self {
        if self.mqtt && !before.mqtt { Self { mqtt_since: Some(now), ..self } } else { self }
    }

    /// Whether a message that was appended at `ts` goes to MQTT subscribers: after a switch, a warm publisher does not know of it
    /// for 60 seconds, and clocks may be two seconds apart (P2).
    #[must_use]
    pub fn sends_over_mqtt(&self, ts: Millis) -> bool {
        self.mqtt_since.is_none_or(|since| ts > since.plus(MQTT_SWITCH_MS))
    }

    /// The options with their names and values, in the order of [`OPTIONS`].
    #[must_use]
    pub fn values(&self) -> [(&'static str, u64); 5] {
        let values = [
            u64::from(self.history_size),
            self.history_age_s,
            u64::from(self.max_event_bytes),
            u64::from(self.mqtt),
            u64::from(self.retain),
        ];
        [0, 1, 2, 3, 4].map(|index| (OPTIONS[index].name, values[index]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_option_can_be_set_and_read_under_its_name() {
        for (index, option) in OPTIONS.iter().enumerate() {
            let mut options = NamespaceOptions::default();
            assert_eq!(options.values()[index], (option.name, option.default));
            options.set(option.name, option.range.0).expect("the least is within the range");
            assert_eq!(options.values()[index], (option.name, option.range.0));
        }
    }

    #[test]
    fn what_is_out_of_range_or_unknown_is_refused_by_name() {
        let mut options = NamespaceOptions::default();
        assert_eq!(
            options.set("history_size", 100_001).expect_err("over").message,
            "history_size: 100001 is not within 0 to 100000 messages"
        );
        let fault = options.set("retries", 1).expect_err("unknown");
        assert!(fault.message.contains("history_size, history_age_s, max_event_bytes, mqtt, retain"), "{fault}");
        assert_eq!(options, NamespaceOptions::default());
    }

    #[test]
    fn p2_after_a_switch_nothing_goes_over_mqtt_that_a_warm_publisher_may_have_kept_to_itself() {
        let off = NamespaceOptions { mqtt: false, ..NamespaceOptions::default() };
        let always = NamespaceOptions::default();
        assert!(always.sends_over_mqtt(Millis(0)));
        assert_eq!(always.switched_on(always, Millis(5)).mqtt_since, None, "it was on before");
        let on = always.switched_on(off, Millis(1_000));
        assert!(!on.sends_over_mqtt(Millis(63_000)) && on.sends_over_mqtt(Millis(63_001)));
        assert_eq!(on.switched_on(on, Millis(90_000)).mqtt_since, Some(Millis(1_000)), "setting it again is no switch");
    }

    #[test]
    fn a2_the_log_keeps_every_message_for_26_hours_at_least() {
        let mut options = NamespaceOptions { history_age_s: 0, ..NamespaceOptions::default() };
        assert_eq!(options.log_seconds(), 26 * 3600);
        options.history_age_s = 48 * 3600;
        assert_eq!(options.log_seconds(), 48 * 3600);
    }
}
