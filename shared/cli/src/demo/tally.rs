//! Who received the demo's event, and how often.

use super::RECEIPT_TIMEOUT;
use super::subscribers::{Name, Seen, What};
use carillon_core::position::Position;
use serde::Serialize;

/// The count of each subscriber.
#[derive(Clone, Debug)]
pub(super) struct Tally(Vec<Count>);

#[derive(Clone, Debug, Default)]
struct Count {
    times: u32,
    /// Where the event stands for this subscriber.
    position: Option<Position>,
}

/// What came of the demo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Verdict {
    /// How many subscribers received the event exactly once.
    received_once: usize,
    /// Those that did not receive it.
    missing: Vec<String>,
    /// Those that received it more than once.
    repeated: Vec<String>,
}

impl Tally {
    /// Nobody has received anything.
    pub(super) fn new(subscribers: usize) -> Self {
        Self(vec![Count::default(); subscribers])
    }

    /// Counts what a subscriber saw, as far as it is the event with this id. A repeat that the client's rule dropped counts too:
    /// in a run without a crash there should be none.
    pub(super) fn count(&mut self, seen: &Seen, event: &str) {
        let Some(count) = self.0.get_mut(seen.subscriber) else { return };
        match &seen.what {
            What::Message { position, id } if id == event => {
                count.times += 1;
                count.position = Some(*position);
            }
            What::Repeat { position } if count.position == Some(*position) => count.times += 1,
            _ => {}
        }
    }

    /// Whether every subscriber has received the event.
    pub(super) fn is_complete(&self) -> bool {
        self.0.iter().all(|count| count.times > 0)
    }

    /// What came of it; `names` are the subscribers'.
    pub(super) fn verdict(&self, names: &[Name]) -> Verdict {
        let counted = |wanted: fn(u32) -> bool| {
            names.iter().zip(&self.0).filter(move |(_, count)| wanted(count.times)).map(|(name, _)| name.to_string())
        };
        Verdict {
            received_once: counted(|times| times == 1).count(),
            missing: counted(|times| times == 0).collect(),
            repeated: counted(|times| times > 1).collect(),
        }
    }
}

impl Verdict {
    /// Whether everybody received the event exactly once.
    pub(super) fn is_good(&self) -> bool {
        self.missing.is_empty() && self.repeated.is_empty()
    }

    /// The verdict in a sentence.
    pub(super) fn text(&self) -> String {
        if self.is_good() {
            return format!("\nAll {} subscribers received the event, each once.", self.received_once);
        }
        let mut parts = Vec::new();
        if !self.missing.is_empty() {
            parts.push(format!("nothing reached {} within {} s", self.missing.join(", "), RECEIPT_TIMEOUT.as_secs()));
        }
        if !self.repeated.is_empty() {
            parts.push(format!("it came more than once to {}", self.repeated.join(", ")));
        }
        format!("the event did not reach every subscriber exactly once: {}", parts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::position::Epoch;
    use tokio::time::Instant;

    fn names() -> Vec<Name> {
        (1..=2).map(|number| Name { protocol: "websocket", number }).collect()
    }

    fn seen(subscriber: usize, what: What) -> Seen {
        Seen { subscriber, at: Instant::now(), what }
    }

    fn message(subscriber: usize, offset: u64, id: &str) -> Seen {
        seen(subscriber, What::Message { position: at(offset), id: id.to_owned() })
    }

    fn at(offset: u64) -> Position {
        Position::new(Epoch(1), offset)
    }

    #[test]
    fn everybody_once_is_good_and_other_events_do_not_count() {
        let mut tally = Tally::new(2);
        for seen in [message(0, 1, "other"), message(0, 2, "e"), message(1, 1, "other"), message(1, 1, "other")] {
            tally.count(&seen, "e");
        }
        assert!(!tally.is_complete());
        tally.count(&message(1, 2, "e"), "e");
        assert!(tally.is_complete() && tally.verdict(&names()).is_good());
    }

    #[test]
    fn whoever_is_missing_is_named() {
        let mut tally = Tally::new(2);
        tally.count(&message(0, 2, "e"), "e");
        let verdict = tally.verdict(&names());
        assert!(!verdict.is_good());
        assert!(verdict.text().contains("nothing reached websocket 2 within 30 s"), "{}", verdict.text());
    }

    #[test]
    fn twice_is_told_whether_appended_twice_or_sent_twice() {
        for again in [message(0, 3, "e"), seen(0, What::Repeat { position: at(2) })] {
            let mut tally = Tally::new(2);
            for seen in [message(0, 2, "e"), message(1, 2, "e"), again, seen(1, What::Repeat { position: at(1) })] {
                tally.count(&seen, "e");
            }
            let verdict = tally.verdict(&names());
            assert_eq!((verdict.received_once, &verdict.repeated), (1, &vec!["websocket 1".to_owned()]));
            assert!(verdict.text().contains("more than once to websocket 1"), "{}", verdict.text());
        }
    }
}
