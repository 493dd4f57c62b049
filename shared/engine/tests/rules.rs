//! The rules of docs/delivery.md one by one, in fair weather; the simulation has the storms.

use carillon_core::channel::Channel;
use carillon_core::connection::{ConnectionId, Principal};
use carillon_core::event::{Attribute, Data, Event, Identity};
use carillon_core::fault::ErrorCode;
use carillon_core::namespace::NamespaceOptions;
use carillon_core::position::{Epoch, Position};
use carillon_core::time::{Millis, Seconds};
use carillon_engine::drain::{Drain, DrainOptions, Received};
use carillon_engine::engine::Engine;
use carillon_engine::memory::{Behaviour, Faults, Memory, MemoryIot, MemoryPosts, MemoryQueue, Storm};
use carillon_engine::ports::{Clock, Heads, Log, Namespaces};
use carillon_engine::rows::{Dialect, RotateOutcome, Rotation, ShardKey};
use carillon_engine::stream::{Item, Joined, Stream, Streams};
use carillon_engine::wakeup::{Wakeup, WakeupKind};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const BEGIN_MS: u64 = 1_700_000_000_000;

/// The paused clock of the test's runtime.
#[derive(Clone, Copy)]
struct TestClock(Instant);

impl Clock for TestClock {
    fn now(&self) -> Millis {
        Millis(BEGIN_MS + u64::try_from(self.0.elapsed().as_millis()).expect("a short test"))
    }
}

struct Fixture {
    store: Memory,
    queue: MemoryQueue,
    posts: MemoryPosts,
    iot: MemoryIot,
    clock: TestClock,
    engine: Engine<Memory, MemoryQueue, TestClock>,
    channel: Channel,
}

impl Fixture {
    fn new() -> Self {
        Self::with_posts(MemoryPosts::default())
    }

    fn with_posts(posts: MemoryPosts) -> Self {
        let (store, queue, clock) = (Memory::default(), MemoryQueue::default(), TestClock(Instant::now()));
        let engine = Engine::seeded(store.clone(), queue.clone(), clock, 1);
        let iot = MemoryIot::default();
        Self { store, queue, posts, iot, clock, engine, channel: Channel::parse("orders/42").expect("a channel") }
    }

    /// Sets options of the channel's namespace.
    async fn set_options(&self, changes: &[(&str, u64)]) {
        let mut options = NamespaceOptions::default();
        for (name, value) in changes {
            options.set(name, *value).expect("within its range");
        }
        self.store.set_namespace(&self.channel.namespace(), &options).await.expect("set");
    }

    /// The offsets that came over MQTT, in the order in which they came.
    fn over_mqtt(&self) -> Vec<u64> {
        self.iot.published(&self.channel).iter().map(|(position, _)| position.offset).collect()
    }

    async fn connected(&self, name: &str) -> ConnectionId {
        let id = ConnectionId::try_new(name).expect("an id");
        self.engine.connect(&id, Principal::shared(), Dialect::Native, self.clock.now()).await.expect("connected");
        id
    }

    async fn subscribed(&self, name: &str) -> ConnectionId {
        let id = self.connected(name).await;
        self.engine.subscribe(&id, &self.channel, None).await.expect("subscribed");
        id
    }

    fn event(&self, id: &str) -> Event {
        Event {
            channel: self.channel.clone(),
            id: Attribute::id(id).expect("an id"),
            source: Attribute::source("test").expect("a source"),
            kind: Attribute::kind("test").expect("a type"),
            time: Attribute::try_new("time", "2026-01-01T00:00:00Z", 64).expect("a time"),
            schema: None,
            data: Data::None,
            extensions: Vec::new(),
            identity: Some(Identity::new("test", id)),
        }
    }

    /// Publishes events with these ids in one call: their offsets, and whether they are duplicates.
    async fn publish(&self, ids: &[&str]) -> Vec<(u64, bool)> {
        let events = ids.iter().map(|id| self.event(id)).collect();
        let fates = self.engine.publish(events, None).await;
        fates.into_iter().map(|fate| fate.map(|done| (done.position.offset, done.duplicate)).expect("published")).collect()
    }

    /// Drains whatever is in the queue, as one batch under a deadline; answers with the wake-ups of it that failed.
    async fn drain(&self, within: Duration) -> Vec<String> {
        let mut batch = Vec::new();
        while let Some(wakeup) = self.queue.take() {
            batch.push(Received { message_id: format!("m{}", batch.len()), wakeup });
        }
        self.drain_batch(batch, within).await
    }

    async fn drain_batch(&self, batch: Vec<Received>, within: Duration) -> Vec<String> {
        let options = DrainOptions { parallel_posts: 4 };
        let drain = Drain::new(self.store.clone(), self.queue.clone(), self.posts.clone(), self.iot.clone(), self.clock, options);
        drain.drain(batch, self.clock.now().plus(u64::try_from(within.as_millis()).expect("short"))).await
    }

    /// What a client has: offsets of events, and the types of other frames.
    fn received(&self, id: &ConnectionId) -> Vec<String> {
        let mut all = Vec::new();
        for frame in self.posts.frames(id) {
            let frame: Value = serde_json::from_str(&frame).expect("frames are JSON");
            match frame["events"].as_array() {
                Some(events) => all.extend(events.iter().map(|event| event["offset"].to_string())),
                None => all.push(frame["type"].as_str().expect("a type").to_owned()),
            }
        }
        all
    }

    fn streams(&self) -> Arc<Streams<Memory, MemoryIot, TestClock>> {
        Arc::new(Streams::seeded(self.store.clone(), self.iot.clone(), self.clock, 1))
    }

    /// A stream on the channel, joined; it ends after five minutes.
    async fn stream(&self, since: Option<Position>) -> (Stream<Memory, MemoryIot, TestClock>, Joined) {
        let mut stream = self.streams().open(vec![(self.channel.clone(), since)], self.clock.now().plus(300_000));
        assert_eq!(stream.next().await, Some(Item::Heartbeat), "something comes at once");
        let Some(Item::Subscribed(mut joined)) = stream.next().await else { panic!("it is not joined") };
        (stream, joined.remove(0))
    }

    fn shard(&self) -> ShardKey {
        ShardKey::new(&self.channel, 0)
    }
}

const LONG: Duration = Duration::from_secs(15);

#[tokio::test(start_paused = true)]
async fn i11_an_event_that_nobody_listens_to_costs_no_queue_message() {
    let fixture = Fixture::new();
    fixture.set_options(&[("mqtt", 0)]).await;
    assert_eq!(fixture.publish(&["a"]).await, [(1, false)]);
    assert_eq!(fixture.queue.take(), None);
}

#[tokio::test(start_paused = true)]
async fn p1_an_event_wakes_every_listed_shard_and_reaches_its_subscribers() {
    let fixture = Fixture::new();
    let client = fixture.subscribed("c=").await;
    fixture.publish(&["a", "b"]).await;
    fixture.publish(&["c"]).await;
    assert!(fixture.drain(LONG).await.is_empty());
    assert_eq!(fixture.received(&client), ["1", "2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn a5_an_id_published_again_keeps_its_first_position_and_wakes_again() {
    let fixture = Fixture::new();
    fixture.subscribed("c=").await;
    assert_eq!(fixture.publish(&["a"]).await, [(1, false)]);
    while fixture.queue.take().is_some() {}
    assert_eq!(fixture.publish(&["b", "a", "b"]).await, [(2, false), (1, true), (2, true)]);
    assert_eq!(
        fixture.queue.take(),
        Some(Wakeup::wake(fixture.shard())),
        "the first publisher may have died before it woke anybody"
    );
}

#[tokio::test(start_paused = true)]
async fn a_batch_becomes_entries_of_64_messages_with_dense_offsets() {
    let fixture = Fixture::new();
    let ids: Vec<String> = (0..150).map(|number| number.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let expected: Vec<(u64, bool)> = (1..=150).map(|offset| (offset, false)).collect();
    assert_eq!(fixture.publish(&ids).await, expected);
}

#[tokio::test(start_paused = true)]
async fn an_event_over_the_namespaces_limit_is_refused_and_its_neighbours_are_not() {
    let fixture = Fixture::new();
    let mut options = NamespaceOptions::default();
    options.set("max_event_bytes", 256).expect("within its range");
    fixture.store.set_namespace(&fixture.channel.namespace(), &options).await.expect("set");
    let large = Event { data: Data::Json(format!("\"{}\"", "x".repeat(300)).into()), ..fixture.event("large") };
    let fates = fixture.engine.publish(vec![fixture.event("a"), large, fixture.event("b")], None).await;
    let fault = fates[1].as_ref().expect_err("too large");
    assert_eq!(fault.code, ErrorCode::TooLarge);
    assert!(fault.message.ends_with("over the limit of 256"), "{fault}");
    assert_eq!(fates[2].as_ref().map(|done| done.position.offset), Ok(2));
}

#[tokio::test(start_paused = true)]
async fn a4_an_epoch_ends_an_hour_before_its_log_does_and_the_next_carries_prev() {
    let fixture = Fixture::new();
    let client = fixture.subscribed("c=").await;
    fixture.publish(&["a"]).await;
    fixture.drain(LONG).await;
    let before = fixture.store.head(&fixture.channel, fixture.clock.now()).await.expect("read").expect("a head");
    tokio::time::advance(Duration::from_secs(25 * 3600 + 1)).await;
    // The connection's rows have expired after two hours, so another one listens now.
    let late = fixture.subscribed("d=").await;
    assert_eq!(fixture.publish(&["b"]).await, [(1, false)]);
    fixture.drain(LONG).await;
    let head = fixture.store.head(&fixture.channel, fixture.clock.now()).await.expect("read").expect("a head");
    assert!(head.epoch > before.epoch);
    assert_eq!(head.prev.and_then(|prev| prev.position()), Some(Position::new(before.epoch, 1)));
    assert_eq!(fixture.received(&client), ["1"]);
    let frames = fixture.posts.frames(&late);
    assert!(frames[0].contains(&format!(r#""prev":{{"epoch":"{}","offset":1}}"#, before.epoch)), "{frames:?}");
}

#[tokio::test(start_paused = true)]
async fn s1_a_second_subscribe_keeps_the_first_and_repeats_nothing() {
    let fixture = Fixture::new();
    let client = fixture.subscribed("c=").await;
    fixture.publish(&["a"]).await;
    fixture.drain(LONG).await;
    let again = fixture.engine.subscribe(&client, &fixture.channel, None).await.expect("subscribed");
    assert_eq!((again.position.offset, again.recovered), (1, None));
    fixture.publish(&["b"]).await;
    fixture.drain(LONG).await;
    assert_eq!(fixture.received(&client), ["1", "2"]);
    assert_eq!(fixture.store.subscriptions(), 1);
}

#[tokio::test(start_paused = true)]
async fn s4_a_position_goes_on_where_the_log_has_everything_after_it() {
    let fixture = Fixture::new();
    fixture.publish(&["a", "b", "c"]).await;
    let epoch = fixture.store.head(&fixture.channel, fixture.clock.now()).await.expect("read").expect("a head").epoch;
    for (since, recovered) in [
        (Position::new(epoch, 0), true),
        (Position::new(epoch, 1), true),
        (Position::new(epoch, 3), true),
        (Position::new(epoch, 4), false),
        (Position::new(Epoch(epoch.0 - 1), 1), false),
        (Position::new(Epoch(epoch.0 + 1), 1), false),
    ] {
        let client = fixture.connected(&format!("since-{since}")).await;
        let subscribed = fixture.engine.subscribe(&client, &fixture.channel, Some(since)).await.expect("subscribed");
        assert_eq!(subscribed.recovered, Some(recovered), "{since}");
        assert_eq!(subscribed.position, if recovered { since } else { Position::new(epoch, 3) }, "{since}");
        fixture.drain(LONG).await;
        let missed: Vec<String> = (since.offset + 1..=3).filter(|_| recovered).map(|offset| offset.to_string()).collect();
        assert_eq!(fixture.received(&client), missed, "{since}");
    }
}

#[tokio::test(start_paused = true)]
async fn s4_a_position_whose_entries_are_gone_is_not_recovered() {
    let fixture = Fixture::new();
    fixture.publish(&["a"]).await;
    fixture.publish(&["b"]).await;
    let epoch = fixture.store.head(&fixture.channel, fixture.clock.now()).await.expect("read").expect("a head").epoch;
    fixture.store.expire(&fixture.channel, epoch, 1);
    let client = fixture.connected("c=").await;
    let since = Some(Position::new(epoch, 0));
    let subscribed = fixture.engine.subscribe(&client, &fixture.channel, since).await.expect("subscribed");
    assert_eq!((subscribed.recovered, subscribed.position.offset), (Some(false), 2));
}

#[tokio::test(start_paused = true)]
async fn s5_a_full_shard_gets_a_successor() {
    let fixture = Fixture::new();
    for number in 0..=250 {
        fixture.subscribed(&format!("c{number}=")).await;
    }
    let shards: Vec<u32> = fixture.store.shards_with_subscriptions().iter().map(|(key, _)| key.shard).collect();
    assert_eq!(shards.len(), 2, "{shards:?}");
    fixture.publish(&["a"]).await;
    fixture.drain(LONG).await;
    for number in 0..=250 {
        assert_eq!(fixture.received(&ConnectionId::try_new(format!("c{number}=")).expect("an id")), ["1"], "{number}");
    }
}

#[tokio::test(start_paused = true)]
async fn s6_whoever_leaves_leaves_nothing_behind() {
    let fixture = Fixture::new();
    let (client, other) = (fixture.subscribed("c=").await, fixture.subscribed("d=").await);
    fixture.engine.unsubscribe(&client, &fixture.channel).await.expect("unsubscribed");
    fixture.engine.unsubscribe(&client, &fixture.channel).await.expect("once more changes nothing");
    fixture.publish(&["a"]).await;
    fixture.drain(LONG).await;
    assert_eq!((fixture.received(&client).len(), fixture.received(&other).len()), (0, 1));
    fixture.engine.disconnect(&other).await.expect("disconnected");
    assert_eq!(fixture.store.subscriptions(), 0);
    let fault = fixture.engine.subscribe(&other, &fixture.channel, None).await.expect_err("gone");
    assert_eq!(fault.code, ErrorCode::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_connection_has_100_subscriptions_at_most() {
    let fixture = Fixture::new();
    let client = fixture.connected("c=").await;
    let channel = |number: u32| Channel::parse(&format!("orders/{number}")).expect("a channel");
    for number in 0..100 {
        fixture.engine.subscribe(&client, &channel(number), None).await.expect("subscribed");
    }
    let fault = fixture.engine.subscribe(&client, &channel(100), None).await.expect_err("one too many");
    assert_eq!(fault.code, ErrorCode::BadRequest);
    assert!(fault.message.contains("at most 100 subscriptions"), "{fault}");
    fixture.engine.subscribe(&client, &channel(0), None).await.expect("one that it has");
}

#[tokio::test(start_paused = true)]
async fn d5_an_empty_shard_is_unlisted_and_wakes_nobody_any_more() {
    let fixture = Fixture::new();
    let client = fixture.subscribed("c=").await;
    fixture.engine.disconnect(&client).await.expect("disconnected");
    fixture.publish(&["a"]).await;
    assert!(fixture.drain(LONG).await.is_empty());
    fixture.publish(&["b"]).await;
    assert_eq!(fixture.queue.take(), Some(Wakeup::wake(ShardKey::mqtt(&fixture.channel))));
    assert_eq!(fixture.queue.take(), None);
    let late = fixture.subscribed("d=").await;
    fixture.publish(&["c"]).await;
    fixture.drain(LONG).await;
    assert_eq!(fixture.received(&late), ["3"]);
}

#[tokio::test(start_paused = true)]
async fn d1_a_resume_stays_in_the_queue_while_the_lease_is_held() {
    let fixture = Fixture::new();
    fixture.subscribed("c=").await;
    let until = fixture.clock.now().plus(17_000);
    carillon_engine::ports::Leases::acquire(&fixture.store, &fixture.shard(), "another", until, fixture.clock.now())
        .await
        .expect("taken");
    for (kind, fails) in [(WakeupKind::Resume, true), (WakeupKind::Wake, false)] {
        let wakeup = Wakeup { kind, key: fixture.shard(), put_off: 0 };
        let failed = fixture.drain_batch(vec![Received { message_id: "m".to_owned(), wakeup }], LONG).await;
        assert_eq!(!failed.is_empty(), fails, "{kind:?}");
    }
    let held = Received { message_id: "another".to_owned(), wakeup: Wakeup::wake(fixture.shard()) };
    assert_eq!(fixture.drain_batch(vec![held], LONG).await, ["another"], "its holder may be dead");
}

#[tokio::test(start_paused = true)]
async fn d7_a_drain_stops_before_its_deadline_and_another_goes_on() {
    let storm = Storm::new(7, Faults::default());
    let fixture = Fixture::with_posts(MemoryPosts::in_storm(storm));
    let mut clients = Vec::new();
    for number in 10..90 {
        clients.push(fixture.subscribed(&format!("c{number}=")).await);
    }
    fixture.publish(&["a"]).await;
    let mut drains = 0;
    loop {
        let began = Instant::now();
        assert!(fixture.drain(Duration::from_secs(4)).await.is_empty());
        assert!(began.elapsed() < Duration::from_secs(4), "over its deadline: {:?}", began.elapsed());
        drains += 1;
        if clients.iter().all(|client| !fixture.received(client).is_empty()) {
            break;
        }
        assert!(drains < 50, "it comes to no end");
    }
    assert!(drains > 1, "the deadline never mattered");
    for client in &clients {
        assert_eq!(fixture.received(client), ["1"], "{client}");
    }
    assert_eq!(fixture.store.holder(&fixture.shard()), None);
}

#[tokio::test(start_paused = true)]
async fn d7_an_entry_that_cannot_be_decoded_is_told_as_a_gap() {
    let fixture = Fixture::new();
    let client = fixture.subscribed("c=").await;
    fixture.publish(&["a"]).await;
    fixture.publish(&["b"]).await;
    fixture.publish(&["c"]).await;
    let epoch = fixture.store.head(&fixture.channel, fixture.clock.now()).await.expect("read").expect("a head").epoch;
    fixture.store.corrupt(&fixture.channel, epoch, 2);
    fixture.drain(LONG).await;
    assert_eq!(fixture.received(&client), ["1", "gap", "3"]);
}

#[tokio::test(start_paused = true)]
async fn g1_a_gone_connection_is_believed_when_it_is_30_seconds_old() {
    let fixture = Fixture::new();
    let (old, other) = (fixture.subscribed("old=").await, fixture.subscribed("other=").await);
    fixture.posts.behave(&old, Behaviour::Gone);
    tokio::time::advance(Duration::from_secs(31)).await;
    let young = fixture.subscribed("young=").await;
    fixture.posts.behave(&young, Behaviour::Gone);
    fixture.publish(&["a"]).await;
    assert_eq!(fixture.drain(LONG).await, ["m0"], "the wake-up comes back, by when the young one is old enough");
    assert_eq!(fixture.posts.seen(&old), (1, false), "no second try, nothing to close");
    assert_eq!(fixture.posts.seen(&young), (3, false), "two more tries, and it stays");
    assert_eq!(fixture.received(&other), ["1"]);
    assert_eq!((fixture.store.subscriptions(), fixture.store.holder(&fixture.shard())), (2, None));

    let again = || vec![Received { message_id: "m0".to_owned(), wakeup: Wakeup::wake(fixture.shard()) }];
    fixture.posts.behave(&young, Behaviour::Takes);
    assert!(fixture.drain_batch(again(), LONG).await.is_empty());
    assert_eq!((fixture.received(&young), fixture.received(&other)), (vec!["1".to_owned()], vec!["1".to_owned()]));

    tokio::time::advance(Duration::from_secs(31)).await;
    fixture.posts.behave(&young, Behaviour::Gone);
    fixture.publish(&["b"]).await;
    assert!(fixture.drain(LONG).await.is_empty());
    assert_eq!(fixture.store.subscriptions(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_takes_nothing_is_told_bye_and_holds_the_others_up_for_400_ms_at_most() {
    let fixture = Fixture::new();
    let (slow, other) = (fixture.subscribed("slow=").await, fixture.subscribed("other=").await);
    fixture.posts.behave(&slow, Behaviour::Full);
    fixture.publish(&["a"]).await;
    let began = Instant::now();
    fixture.drain(LONG).await;
    assert!(began.elapsed() <= Duration::from_millis(400), "{:?}", began.elapsed());
    assert_eq!(fixture.posts.seen(&slow), (4, true), "three tries, bye, closed");
    assert_eq!(fixture.received(&other), ["1"]);
}

#[tokio::test(start_paused = true)]
async fn a4_an_epoch_whose_first_entry_is_there_is_never_taken_for_one_that_has_run_out() {
    let fixture = Fixture::new();
    fixture.publish(&["a"]).await;
    let now = fixture.clock.now();
    let head = fixture.store.head(&fixture.channel, now).await.expect("read").expect("a head");
    // What a reader does that saw the head before it saw the entry: reads of two rows are no snapshot.
    let rotation = Rotation {
        channel: fixture.channel.clone(),
        from: head.epoch,
        to: Epoch(head.epoch.0 + 1),
        last: None,
        closing_exp: Seconds(0),
        head_exp: head.exp,
    };
    assert_eq!(fixture.store.rotate(&rotation, now).await.expect("an answer"), RotateOutcome::Moved);
}

#[tokio::test(start_paused = true)]
async fn d7_one_slow_connection_does_not_run_a_drain_into_its_deadline_and_gets_everything_in_the_end() {
    let storm = Storm::new(3, Faults::default());
    let fixture = Fixture::with_posts(MemoryPosts::in_storm(storm));
    let client = fixture.subscribed("c=").await;
    // Frames of one event each, every one of which takes a hundred milliseconds or two seconds.
    for number in 0..60 {
        let data = Data::Json(format!("\"{}\"", "x".repeat(20_000)).into());
        let event = Event { data, ..fixture.event(&number.to_string()) };
        fixture.engine.publish(vec![event], None).await.remove(0).expect("published");
    }
    let mut drains = 0;
    while fixture.received(&client).len() < 60 {
        let began = Instant::now();
        assert!(fixture.drain(Duration::from_secs(6)).await.is_empty());
        assert!(began.elapsed() < Duration::from_secs(6), "over its deadline: {:?}", began.elapsed());
        drains += 1;
        assert!(drains < 50, "it comes to no end");
    }
    assert!(drains > 1, "the deadline never mattered");
    let expected: Vec<String> = (1..=60).map(|offset: u64| offset.to_string()).collect();
    assert_eq!(fixture.received(&client), expected, "nothing twice, nothing missing");
}

#[tokio::test(start_paused = true)]
async fn a_wake_up_for_a_shard_that_is_not_there_is_done() {
    let fixture = Fixture::new();
    let wakeup = Wakeup::wake(fixture.shard());
    assert!(fixture.drain_batch(vec![Received { message_id: "m".to_owned(), wakeup }], LONG).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn history_shows_what_size_and_age_let_it_in_pages() {
    let fixture = Fixture::new();
    let mut options = NamespaceOptions::default();
    options.set("history_size", 5).expect("within its range");
    options.set("history_age_s", 60).expect("within its range");
    fixture.store.set_namespace(&fixture.channel.namespace(), &options).await.expect("set");
    for id in ["a", "b", "c"] {
        fixture.publish(&[id]).await;
    }
    tokio::time::advance(Duration::from_secs(50)).await;
    for id in ["d", "e", "f", "g"] {
        fixture.publish(&[id]).await;
    }
    let offsets =
        |page: &carillon_engine::history::HistoryPage| page.events.iter().map(|(offset, _)| *offset).collect::<Vec<_>>();

    let by_size = fixture.engine.history(&fixture.channel, None, 100).await.expect("a page");
    assert_eq!((offsets(&by_size), by_size.next, by_size.recovered), (vec![3, 4, 5, 6, 7], None, true));
    tokio::time::advance(Duration::from_secs(20)).await;
    let by_age = fixture.engine.history(&fixture.channel, None, 3).await.expect("a page");
    assert_eq!(offsets(&by_age), [4, 5, 6]);
    let next = fixture.engine.history(&fixture.channel, by_age.next, 3).await.expect("a page");
    assert_eq!((offsets(&next), next.next, next.recovered), (vec![7], None, true));

    let hole = fixture.engine.history(&fixture.channel, Some(Position::new(by_age.epoch, 1)), 100).await.expect("a page");
    assert_eq!((offsets(&hole), hole.recovered), (vec![4, 5, 6, 7], false));
    let end = fixture.engine.history(&fixture.channel, Some(Position::new(by_age.epoch, 7)), 100).await.expect("a page");
    assert_eq!((offsets(&end), end.recovered), (vec![], true));
    for limit in [0, 101] {
        let fault = fixture.engine.history(&fixture.channel, None, limit).await.expect_err("out of range");
        assert_eq!(fault.message, format!("limit: {limit} is not within 1 to 100"));
    }
}

#[tokio::test(start_paused = true)]
async fn history_of_a_channel_that_nobody_published_to_is_empty_and_makes_no_row() {
    let fixture = Fixture::new();
    let page = fixture.engine.history(&fixture.channel, None, 10).await.expect("a page");
    assert_eq!((page.events.len(), page.epoch, page.next), (0, Epoch(0), None));
    assert_eq!(fixture.store.head(&fixture.channel, fixture.clock.now()).await.expect("read"), None);
}

#[tokio::test(start_paused = true)]
async fn p2_messages_go_over_mqtt_in_order_with_their_position() {
    let fixture = Fixture::new();
    fixture.publish(&["a", "b"]).await;
    fixture.publish(&["c"]).await;
    assert!(fixture.drain(LONG).await.is_empty());
    assert_eq!(fixture.over_mqtt(), [1, 2, 3]);
    let (position, json) = fixture.iot.published(&fixture.channel).remove(2);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((json["id"].as_str(), json["offset"].as_u64()), (Some("c"), Some(3)));
    assert_eq!(json["epoch"], position.epoch.to_string());
    assert_eq!(fixture.iot.retained(&fixture.channel), None, "nobody asked for it");
    fixture.publish(&["d"]).await;
    assert!(fixture.drain(LONG).await.is_empty());
    assert_eq!(fixture.over_mqtt(), [1, 2, 3, 4], "the cursor stands behind what went out");
}

#[tokio::test(start_paused = true)]
async fn p2_a_namespace_may_retain_and_may_leave_mqtt_out() {
    let fixture = Fixture::new();
    fixture.set_options(&[("retain", 1)]).await;
    fixture.publish(&["a", "b"]).await;
    assert!(fixture.drain(LONG).await.is_empty());
    assert_eq!(fixture.iot.retained(&fixture.channel).map(|position| position.offset), Some(2));

    let without = Fixture::new();
    without.publish(&["a"]).await;
    without.set_options(&[("mqtt", 0)]).await;
    assert!(without.drain(LONG).await.is_empty(), "a publisher that did not know it yet woke for nothing");
    assert!(without.over_mqtt().is_empty());
}

#[tokio::test(start_paused = true)]
async fn p2_what_was_published_before_mqtt_was_switched_on_stays_in_the_log() {
    let fixture = Fixture::new();
    fixture.set_options(&[("mqtt", 0)]).await;
    fixture.publish(&["a"]).await;
    let on = NamespaceOptions { mqtt_since: Some(fixture.clock.now()), ..NamespaceOptions::default() };
    fixture.store.set_namespace(&fixture.channel.namespace(), &on).await.expect("set");
    tokio::time::sleep(Duration::from_secs(61)).await;
    fixture.publish(&["b"]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    fixture.publish(&["c"]).await;
    assert!(fixture.drain(LONG).await.is_empty());
    assert_eq!(fixture.over_mqtt(), [3]);
}

#[tokio::test(start_paused = true)]
async fn p2_an_outage_of_iot_core_delays_mqtt_alone_and_costs_one_wake_up_at_a_time() {
    let fixture = Fixture::new();
    let client = fixture.subscribed("c=").await;
    fixture.publish(&["a"]).await;
    fixture.drain(LONG).await;
    fixture.iot.set_away(true);
    for id in ["b", "c", "d"] {
        fixture.publish(&[id]).await;
        assert!(fixture.drain(LONG).await.is_empty(), "an outage fails no wake-up");
    }
    assert_eq!(fixture.received(&client), ["1", "2", "3", "4"]);
    assert_eq!(fixture.over_mqtt(), [1]);

    let mut waits = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        let wakeup = fixture.queue.next().await;
        waits.push(began.elapsed().as_secs());
        assert_eq!(fixture.queue.take(), None, "one looks for all");
        let received = Received { message_id: format!("look {}", waits.len()), wakeup };
        if waits.len() == 5 {
            fixture.iot.set_away(false);
        }
        assert!(fixture.drain_batch(vec![received], LONG).await.is_empty());
    }
    assert_eq!(waits, [1, 2, 4, 8, 15]);
    assert_eq!(fixture.over_mqtt(), [1, 2, 3, 4]);
    assert_eq!(fixture.queue.take(), None);
}

#[tokio::test(start_paused = true)]
async fn p2_a_drain_over_mqtt_stops_before_its_deadline_and_goes_on_where_it_was() {
    let fixture = Fixture::new();
    fixture.publish(&["a", "b"]).await;
    // Stop at 3 s before the end, and 4 s earlier: there is no time left.
    assert!(fixture.drain(Duration::from_secs(7)).await.is_empty());
    assert!(fixture.over_mqtt().is_empty());
    assert!(fixture.drain(LONG).await.is_empty());
    assert_eq!(fixture.over_mqtt(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn p2_a_message_that_cannot_be_read_is_left_out_and_the_rest_goes_on() {
    let fixture = Fixture::new();
    fixture.publish(&["a"]).await;
    fixture.publish(&["b"]).await;
    fixture.publish(&["c"]).await;
    let head = fixture.store.head(&fixture.channel, fixture.clock.now()).await.expect("an answer").expect("a head");
    fixture.store.corrupt(&fixture.channel, head.epoch, 2);
    assert!(fixture.drain(LONG).await.is_empty());
    assert_eq!(fixture.over_mqtt(), [1, 3]);
}

/// The offsets of the messages that come within `within`, and everything else by its name.
async fn brings(stream: &mut Stream<Memory, MemoryIot, TestClock>, within: Duration) -> Vec<String> {
    let until = Instant::now() + within;
    let mut all = Vec::new();
    while let Ok(item) = tokio::time::timeout_at(until, stream.next()).await {
        all.push(match item {
            Some(Item::Message { position, .. }) => position.offset.to_string(),
            Some(Item::Gap { after, to, .. }) => format!("gap {} {}", after.offset, to.offset),
            Some(Item::Heartbeat) => "heartbeat".to_owned(),
            Some(Item::Fault(fault)) => fault.code.to_string(),
            Some(Item::End) => "end".to_owned(),
            Some(Item::Subscribed(_)) => "subscribed".to_owned(),
            None => break,
        });
    }
    all
}

const MOMENT: Duration = Duration::from_millis(10);

#[tokio::test(start_paused = true)]
async fn w2_a_stream_brings_what_was_missed_and_then_what_comes() {
    let fixture = Fixture::new();
    fixture.publish(&["a", "b", "c"]).await;
    let (_, now) = fixture.stream(None).await;
    assert_eq!((now.position.offset, now.recovered), (3, None));
    let since = Position::new(now.position.epoch, 1);
    let (mut stream, joined) = fixture.stream(Some(since)).await;
    assert_eq!((joined.position, joined.recovered), (since, Some(true)));
    assert_eq!(brings(&mut stream, MOMENT).await, ["2", "3"]);
    fixture.publish(&["d"]).await;
    assert!(brings(&mut stream, MOMENT).await.is_empty(), "it waits for IoT Core");
    fixture.drain(LONG).await;
    assert_eq!(brings(&mut stream, MOMENT).await, ["4"]);
}

#[tokio::test(start_paused = true)]
async fn w2_every_channel_of_a_stream_has_a_place_of_its_own() {
    let fixture = Fixture::new();
    fixture.publish(&["a"]).await;
    let other = Channel::parse("orders/43").expect("a channel");
    let wanted = vec![(fixture.channel.clone(), None), (other.clone(), None)];
    let mut stream = fixture.streams().open(wanted, fixture.clock.now().plus(60_000));
    stream.next().await;
    let Some(Item::Subscribed(joined)) = stream.next().await else { panic!("it is not joined") };
    let places: Vec<_> = joined.iter().map(|joined| (joined.channel.clone(), joined.position.offset)).collect();
    assert_eq!(places, [(fixture.channel.clone(), 1), (other.clone(), 0)]);
    let event = Event { channel: other, ..fixture.event("b") };
    fixture.engine.publish(vec![event, fixture.event("c")], None).await;
    fixture.drain(LONG).await;
    let mut came = brings(&mut stream, MOMENT).await;
    came.sort_unstable();
    assert_eq!(came, ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn w2_a_stream_shows_that_it_lives_and_ends_as_planned() {
    let fixture = Fixture::new();
    let mut stream = fixture.streams().open(vec![(fixture.channel.clone(), None)], fixture.clock.now().plus(40_000));
    let began = Instant::now();
    assert_eq!(brings(&mut stream, LONG * 4).await, ["heartbeat", "subscribed", "heartbeat", "heartbeat", "end"]);
    assert_eq!(began.elapsed(), Duration::from_secs(40));
    assert_eq!(stream.next().await, None);
    drop(stream);
    assert_eq!(fixture.iot.listeners(), 0);
}

#[tokio::test(start_paused = true)]
async fn w2_a_message_that_iot_core_lost_is_found_by_the_next_one_or_by_the_heartbeat() {
    let fixture = Fixture::new();
    let (mut stream, _) = fixture.stream(None).await;
    brings(&mut stream, Duration::from_secs(4)).await;
    fixture.publish(&["a", "b"]).await;
    // The drain's work, but for the first message.
    let json: Arc<str> = Arc::from("{}");
    let position = fixture.stream(None).await.1.position;
    carillon_engine::ports::Mqtt::publish(&fixture.iot, &fixture.channel, position, &json, false).await.expect("published");
    assert!(brings(&mut stream, Duration::from_millis(70)).await.is_empty(), "the first may only be late");
    assert_eq!(brings(&mut stream, Duration::from_millis(20)).await, ["1", "2"]);
    fixture.publish(&["c"]).await;
    assert_eq!(brings(&mut stream, LONG).await, ["heartbeat", "3"]);
}

#[tokio::test(start_paused = true)]
async fn w3_without_iot_core_a_stream_polls_the_log() {
    let fixture = Fixture::new();
    fixture.iot.set_away(true);
    let (mut stream, _) = fixture.stream(None).await;
    fixture.publish(&["a"]).await;
    assert_eq!(brings(&mut stream, Duration::from_millis(1_001)).await, ["1"]);
    fixture.iot.set_away(false);
    brings(&mut stream, Duration::from_secs(4)).await;
    fixture.publish(&["b"]).await;
    assert!(brings(&mut stream, Duration::from_secs(2)).await.is_empty(), "with it back, nothing is polled");
    fixture.iot.set_away(true);
    assert_eq!(brings(&mut stream, Duration::from_millis(1_001)).await, ["2"]);

    let without = Fixture::new();
    without.set_options(&[("mqtt", 0)]).await;
    let (mut stream, _) = without.stream(None).await;
    brings(&mut stream, Duration::from_secs(4)).await;
    without.publish(&["a"]).await;
    assert_eq!(brings(&mut stream, Duration::from_millis(1_001)).await, ["1"]);
}

#[tokio::test(start_paused = true)]
async fn s4_a_position_that_cannot_be_continued_is_told_as_a_gap() {
    let fixture = Fixture::new();
    fixture.publish(&["a", "b"]).await;
    let (_, now) = fixture.stream(None).await;
    let (mut stream, joined) = fixture.stream(Some(Position::new(now.position.epoch, 9))).await;
    assert_eq!((joined.position.offset, joined.recovered), (2, Some(false)));
    assert_eq!(brings(&mut stream, MOMENT).await, ["gap 9 2"]);
}

#[tokio::test(start_paused = true)]
async fn d7_a_message_that_cannot_be_read_is_told_as_a_gap_and_the_rest_goes_on() {
    let fixture = Fixture::new();
    let (_, begin) = fixture.stream(None).await;
    for id in ["a", "b", "c"] {
        fixture.publish(&[id]).await;
    }
    fixture.store.corrupt(&fixture.channel, begin.position.epoch, 2);
    let (mut stream, _) = fixture.stream(Some(begin.position)).await;
    assert_eq!(brings(&mut stream, MOMENT).await, ["1", "gap 1 2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_log_does_not_answer_says_so_and_ends() {
    let fixture = Fixture::new();
    let storm = Storm::new(1, Faults { refused: 1.0, ..Faults::default() });
    let broken = Arc::new(Streams::seeded(fixture.store.in_this_storm(storm), fixture.iot.clone(), fixture.clock, 1));
    let mut stream = broken.open(vec![(fixture.channel.clone(), None)], fixture.clock.now().plus(60_000));
    assert_eq!(brings(&mut stream, LONG).await, ["heartbeat", "unavailable"]);
}
