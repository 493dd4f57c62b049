//! What stories share: chance with a seed, publishers that count, and what "complete and in order" means.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::stack::TestStack;
use crate::websocket::Event;

/// Sets the seed of a story's chance.
pub const SEED_VARIABLE: &str = "STORY_SEED";

/// The chance of a test: from the seed in [`SEED_VARIABLE`], or from a new one. It is printed, so that a failure can be seen again.
#[must_use]
pub fn seeded() -> StdRng {
    let seed = std::env::var(SEED_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| rand::rng().random());
    println!("{SEED_VARIABLE}={seed}");
    StdRng::seed_from_u64(seed)
}

/// Publishes `{"by": publisher, "number": number}` under an id made of both.
///
/// # Panics
/// When it is refused for another reason than that too many publish at once on one channel.
pub async fn publish_number(stack: &TestStack, channel: &str, publisher: usize, number: usize) {
    let data = json!({"by": publisher, "number": number});
    let message = json!({"channel": channel, "id": format!("{publisher}-{number}"), "data": data}).to_string();
    loop {
        let answer = stack.post("application/json", message.clone()).await;
        match answer.status.as_u16() {
            200 => return,
            // The same request may be sent again, which is what publishers do.
            503 => assert_eq!(answer.json()["results"][0]["error"]["code"], "busy", "{answer:?}"),
            _ => panic!("{answer:?}"),
        }
    }
}

/// Publishes the numbers 0 .. count, one after the other.
///
/// # Panics
/// As [`publish_number`].
pub async fn publish_numbered(stack: &TestStack, channel: &str, publisher: usize, count: usize) {
    for number in 0..count {
        publish_number(stack, channel, publisher, number).await;
    }
}

/// The offsets follow each other without hole or repeat, from `after` on.
///
/// # Panics
/// When they do not.
#[track_caller]
pub fn assert_dense(events: &[Event], after: u64) {
    let offsets: Vec<u64> = events.iter().map(|event| event.offset).collect();
    let expected: Vec<u64> = (after + 1..).take(events.len()).collect();
    assert_eq!(offsets, expected);
}

/// These are the numbers of that many publishers, all of them and each publisher's in its order, at dense offsets from 1 on.
///
/// # Panics
/// When one is missing, there twice or out of order.
#[track_caller]
pub fn assert_complete(events: &[Event], publishers: u64, each: u64) {
    assert_dense(events, 0);
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    for event in events {
        let data = &event.event["data"];
        let (by, number) = (data["by"].as_u64().expect("a publisher"), data["number"].as_u64().expect("a number"));
        let expected = next.entry(by).or_default();
        assert_eq!(number, *expected, "publisher {by}'s events are out of order");
        *expected += 1;
    }
    assert_eq!(next, (0..publishers).map(|publisher| (publisher, each)).collect());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{assert_complete, assert_dense};
    use crate::websocket::Event;

    fn event(offset: u64, by: u64, number: u64) -> Event {
        let event = json!({"data": {"by": by, "number": number}});
        Event { channel: "a".to_owned(), epoch: "1".to_owned(), offset, event }
    }

    #[test]
    fn what_is_complete_and_in_order_passes() {
        assert_complete(&[event(1, 0, 0), event(2, 1, 0), event(3, 0, 1), event(4, 1, 1)], 2, 2);
    }

    #[test]
    #[should_panic(expected = "assertion")]
    fn a_hole_does_not() {
        assert_dense(&[event(1, 0, 0), event(3, 0, 1)], 0);
    }

    #[test]
    #[should_panic(expected = "publisher 0's events are out of order")]
    fn a_publisher_out_of_order_does_not() {
        assert_complete(&[event(1, 0, 1), event(2, 0, 0)], 1, 2);
    }

    #[test]
    #[should_panic(expected = "assertion")]
    fn a_publisher_that_is_missing_does_not() {
        assert_complete(&[event(1, 0, 0)], 2, 1);
    }
}
