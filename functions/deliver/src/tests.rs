use super::*;
use carillon_core::channel::Channel;
use carillon_core::connection::{ConnectionId, Principal};
use carillon_core::event::{Attribute, Data, Event};
use carillon_engine::drain::DrainOptions;
use carillon_engine::engine::Engine;
use carillon_engine::memory::{Faults, Memory, MemoryClock, MemoryIot, MemoryPosts, MemoryQueue, Storm};
use carillon_engine::rows::{Dialect, ShardKey};
use carillon_wire::native::reading::{self, ServerFrame};
use serde_json::{Value, json};
use std::path::Path;

const NOW: Millis = Millis(1_795_512_632_000);

struct Fixture {
    engine: Engine<Memory, MemoryQueue, MemoryClock>,
    posts: MemoryPosts,
    iot: MemoryIot,
    handler: Handler<Memory, MemoryQueue, MemoryPosts, MemoryIot, MemoryClock>,
}

impl Fixture {
    fn new() -> Self {
        let store = Memory::default();
        Self::with_drain_over(store.clone(), store)
    }

    fn with_drain_over(store: Memory, drained: Memory) -> Self {
        let (queue, posts, clock) = (MemoryQueue::default(), MemoryPosts::default(), MemoryClock::at(NOW));
        let engine = Engine::seeded(store, queue.clone(), clock.clone(), 7);
        let iot = MemoryIot::default();
        let drain = Drain::new(drained, queue, posts.clone(), iot.clone(), clock.clone(), DrainOptions::default());
        Self { engine, posts, iot, handler: Handler::new(drain, clock) }
    }

    /// A subscriber of a channel, to which a message was then published.
    async fn subscribed_and_published(&self, channel: &str) -> ConnectionId {
        let (channel, id) =
            (Channel::parse(channel).expect("a channel"), ConnectionId::try_new("UkXQ7dBaoAMCJaw=").expect("an id"));
        self.engine.connect(&id, Principal::shared(), Dialect::Native, NOW).await.expect("connected");
        self.engine.subscribe(&id, &channel, None).await.expect("subscribed");
        let event = Event {
            channel,
            id: Attribute::id("1").expect("an id"),
            source: Attribute::source("s").expect("a source"),
            kind: Attribute::kind("t").expect("a type"),
            time: Attribute::try_new("time", "2026-11-24T09:30:24Z", 64).expect("a time"),
            schema: None,
            data: Data::None,
            extensions: Vec::new(),
            identity: None,
        };
        let fates = self.engine.publish(vec![event], None).await;
        assert!(fates.iter().all(Result::is_ok), "{fates:?}");
        id
    }

    /// How many messages a connection was posted.
    fn posted(&self, id: &ConnectionId) -> usize {
        let frames = self.posts.frames(id);
        let messages = frames.iter().map(|frame| match reading::decode(frame).expect("a frame") {
            ServerFrame::Events { messages, .. } => messages.len(),
            other => panic!("{other:?}"),
        });
        messages.sum()
    }

    /// How many messages of a channel went to MQTT subscribers.
    fn published(&self, channel: &str) -> usize {
        self.iot.published(&Channel::parse(channel).expect("a channel")).len()
    }

    async fn invoke(&self, event: &Value) -> Value {
        let event: SqsEvent = serde_json::from_value(event.clone()).expect("an event");
        serde_json::to_value(self.handler.handle(event, None).await.expect("a response")).expect("JSON")
    }
}

fn record(id: &str, body: &str) -> Value {
    json!({"messageId": id, "body": body, "eventSource": "aws:sqs"})
}

fn wake(channel: &str) -> String {
    Wakeup::wake(ShardKey::new(&Channel::parse(channel).expect("a channel"), 0)).encode()
}

#[tokio::test]
async fn a_wake_up_delivers_what_was_published() {
    let fixture = Fixture::new();
    let id = fixture.subscribed_and_published("orders/42").await;
    let event = json!({"Records": [record("m1", &wake("orders/42"))]});
    // A wake-up may come twice: the second finds nothing to do.
    for _ in 0..2 {
        assert_eq!(fixture.invoke(&event).await, json!({"batchItemFailures": []}));
        assert_eq!(fixture.posted(&id), 1);
    }
}

#[tokio::test]
async fn p2_a_wake_up_for_mqtt_brings_what_was_published_to_iot_core_and_nobody_else() {
    let fixture = Fixture::new();
    let id = fixture.subscribed_and_published("orders/42").await;
    let wakeup = Wakeup::wake(ShardKey::mqtt(&Channel::parse("orders/42").expect("a channel")));
    let event = json!({"Records": [record("m1", &wakeup.encode())]});
    for _ in 0..2 {
        assert_eq!(fixture.invoke(&event).await, json!({"batchItemFailures": []}));
        assert_eq!((fixture.published("orders/42"), fixture.posted(&id)), (1, 0));
    }
}

#[tokio::test]
async fn d7_a_malformed_wake_up_is_dropped_and_the_others_are_worked_off() {
    let fixture = Fixture::new();
    let id = fixture.subscribed_and_published("orders/42").await;
    let later = r#"{"v":2,"kind":"wake","filter":"orders/42","channel":"orders/42","k":0}"#;
    let event = json!({"Records": [
        record("m1", "hello"),
        record("m2", later),
        record("m3", r#"{"v":1,"kind":"wake","filter":"a","channel":"a//b","k":0}"#),
        record("m4", &wake("orders/42")),
        {"messageId": "m5", "eventSource": "aws:sqs"},
    ]});
    assert_eq!(fixture.invoke(&event).await, json!({"batchItemFailures": []}));
    assert_eq!(fixture.posted(&id), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wake_up_whose_store_is_away_stays_in_the_queue() {
    let storm = Storm::new(7, Faults { refused: 1.0, ..Faults::default() });
    let fixture = Fixture::with_drain_over(Memory::default(), Memory::in_storm(storm));
    let event = json!({"Records": [record("m1", &wake("orders/42")), record("m2", "hello")]});
    assert_eq!(fixture.invoke(&event).await, json!({"batchItemFailures": [{"itemIdentifier": "m1"}]}));
}

#[tokio::test]
async fn a_record_without_a_name_fails_the_batch() {
    let event: SqsEvent = serde_json::from_value(json!({"Records": [{"body": wake("a")}]})).expect("an event");
    assert_eq!(Fixture::new().handler.handle(event, Some(NOW.plus(15_000))).await.expect_err("no name"), NamelessRecord);
}

#[test]
fn no_error_quotes_a_message() {
    let error = Wakeup::decode(r#"{"v":1,"kind":"confidential","filter":"a","channel":"a","k":0}"#).expect_err("no wake-up");
    assert_eq!(told(&error), "the body is no wake-up: Data");
    let error = Wakeup::decode(r#"{"v":1,"kind":"wake","filter":"a","channel":"","k":0}"#).expect_err("no wake-up");
    assert!(told(&error).starts_with("the wake-up's channel is malformed: a channel has 1 to 6 segments"), "{}", told(&error));
}

#[tokio::test]
async fn every_sample_event_is_worked_off() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../events/deliver");
    let mut files = 0;
    for entry in std::fs::read_dir(&folder).expect("the samples") {
        let path = entry.expect("a file").path();
        let fixture = Fixture::new();
        let id = fixture.subscribed_and_published("orders/42").await;
        let event: Value = serde_json::from_str(&std::fs::read_to_string(&path).expect("a sample")).expect("JSON");
        assert_eq!(fixture.invoke(&event).await, json!({"batchItemFailures": []}), "{}", path.display());
        let expected = if path.ends_with("mqtt.json") { (0, 1) } else { (1, 0) };
        assert_eq!((fixture.posted(&id), fixture.published("orders/42")), expected, "{}", path.display());
        files += 1;
    }
    assert!(files >= 4, "{files} samples");
}
