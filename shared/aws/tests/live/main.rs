//! What a listener hears through IoT Core, and what goes over the wire for it.

mod broker;
#[path = "../support/mod.rs"]
mod support;
mod tls;

use broker::{Broker, Seen};
use carillon_aws::live::{IotFeed, IotLive, LINE_FILTERS};
use carillon_core::channel::Channel;
use carillon_core::mqtt::MqttPrefix;
use carillon_core::position::{Epoch, Position};
use carillon_core::time::Millis;
use carillon_engine::ports::{Clock, Feed, Live, LiveEvent};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a test waits for what must happen, however busy the machine is.
const LONG: Duration = Duration::from_secs(30);

/// 2026-07-04T09:08:07Z
const NOW: u64 = 1_783_156_087_000;

#[tokio::test]
async fn w2_a_listener_joins_and_hears_its_channel() {
    let broker = Broker::start().await;
    let live = live(&broker);
    let mut feed = live.listen(&[channel("orders/42")]);
    assert_eq!(next(&mut feed).await, LiveEvent::Joined);
    broker.publish("dev/c/orders/42", EVENT, &[("epoch", "1700"), ("offset", "41")]);
    assert_eq!(next(&mut feed).await, message("orders/42", 41));

    let seen = broker.seen();
    let [Seen::Opened { uri, subprotocol, .. }, Seen::Connected { client_id, keep_alive, clean_start, expiry, .. }, rest @ ..] =
        &seen[..]
    else {
        panic!("{seen:?}");
    };
    assert!(uri.starts_with("/mqtt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential="), "{uri}");
    assert!(uri.contains("&X-Amz-Date=20260704T090807Z&X-Amz-Expires=300&X-Amz-SignedHeaders=host&X-Amz-Signature="), "{uri}");
    assert_eq!(subprotocol, "mqtt");
    assert!(client_id.starts_with("dev-stream-"), "{client_id}");
    assert_eq!((*keep_alive, *clean_start, *expiry), (30, true, Some(0)));
    assert_eq!(rest[0], Seen::Subscribed { line: 0, topic: "dev/c/orders/42".to_owned(), qos: 1 });
}

#[tokio::test]
async fn two_listeners_share_a_channel_s_subscription_until_the_last_is_gone() {
    let broker = Broker::start().await;
    let live = live(&broker);
    let mut one = live.listen(&[channel("a")]);
    assert_eq!(next(&mut one).await, LiveEvent::Joined);
    let mut other = live.listen(&[channel("a"), channel("b")]);
    assert_eq!(next(&mut other).await, LiveEvent::Joined);
    broker.publish_at("dev/c/a", 1);
    assert_eq!(next(&mut one).await, message("a", 1));
    assert_eq!(next(&mut other).await, message("a", 1));

    drop(other);
    broker.until(|seen| seen.contains(&Seen::Unsubscribed { line: 0, topic: "dev/c/b".to_owned() })).await;
    broker.publish_at("dev/c/a", 2);
    assert_eq!(next(&mut one).await, message("a", 2));

    drop(one);
    broker.until(|seen| seen.contains(&Seen::Left { line: 0, politely: true })).await;
    let count = |topic: &str| broker.count(|event| matches!(event, Seen::Subscribed { topic: found, .. } if found == topic));
    assert_eq!((count("dev/c/a"), count("dev/c/b")), (1, 1));
    assert_eq!(broker.count(|event| matches!(event, Seen::Connected { .. })), 1);
}

#[tokio::test]
async fn who_comes_to_a_channel_that_is_heard_joins_at_once() {
    let broker = Broker::start().await;
    let live = live(&broker);
    let mut first = live.listen(&[channel("a")]);
    assert_eq!(next(&mut first).await, LiveEvent::Joined);
    broker.be_deaf(true);
    let mut second = live.listen(&[channel("a"), channel("a")]);
    assert_eq!(next(&mut second).await, LiveEvent::Joined);
    broker.publish_at("dev/c/a", 1);
    assert_eq!(next(&mut second).await, message("a", 1));
}

#[tokio::test]
async fn the_last_listener_gone_the_line_is_hung_up_and_the_next_one_dials_again() {
    let broker = Broker::start().await;
    let live = live(&broker);
    for line in 0..2 {
        let mut feed = live.listen(&[channel("a")]);
        assert_eq!(next(&mut feed).await, LiveEvent::Joined);
        drop(feed);
        broker.until(|seen| seen.contains(&Seen::Left { line, politely: true })).await;
    }
}

#[tokio::test]
async fn a_channel_that_is_left_and_taken_again_is_heard_once() {
    let broker = Broker::start().await;
    let live = live(&broker);
    let mut anchor = live.listen(&[channel("anchor")]);
    assert_eq!(next(&mut anchor).await, LiveEvent::Joined);
    for _ in 0..20 {
        // Dropped before, while and after it has joined.
        drop(live.listen(&[channel("a")]));
        let feed = live.listen(&[channel("a")]);
        tokio::task::yield_now().await;
        drop(feed);
        let mut feed = live.listen(&[channel("a")]);
        assert_eq!(next(&mut feed).await, LiveEvent::Joined);
        broker.publish_at("dev/c/a", 1);
        broker.publish_at("dev/c/a", 2);
        assert_eq!(next(&mut feed).await, message("a", 1));
        assert_eq!(next(&mut feed).await, message("a", 2));
    }
    assert_eq!(broker.count(|event| matches!(event, Seen::Connected { .. })), 1);
}

#[tokio::test]
async fn w2_a_line_that_is_cut_is_away_until_another_has_joined() {
    let broker = Broker::start().await;
    let live = live(&broker);
    let mut feed = live.listen(&[channel("a"), channel("b")]);
    assert_eq!(next(&mut feed).await, LiveEvent::Joined);
    for round in 1..=3 {
        broker.cut();
        assert_eq!(next(&mut feed).await, LiveEvent::Away);
        assert_eq!(next(&mut feed).await, LiveEvent::Joined);
        broker.publish_at("dev/c/b", round);
        assert_eq!(next(&mut feed).await, message("b", round));
    }
    let mut ids = broker.client_ids();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4, "an id serves one connection");
}

#[tokio::test]
async fn a_broker_that_refuses_is_dialled_until_it_takes_the_line() {
    let broker = Broker::start().await;
    broker.refuse(true);
    let live = live(&broker);
    let mut feed = live.listen(&[channel("a")]);
    let refused = |seen: &[Seen]| seen.iter().filter(|event| matches!(event, Seen::Refused)).count();
    broker.until(|seen| refused(seen) >= 2).await;
    assert_nothing(&mut feed);
    broker.refuse(false);
    assert_eq!(next(&mut feed).await, LiveEvent::Joined);
}

#[tokio::test]
async fn a_line_that_answers_no_request_is_given_up() {
    let broker = Broker::start().await;
    broker.be_deaf(true);
    let live = live(&broker);
    let mut feed = live.listen(&[channel("a")]);
    broker.until(|seen| seen.iter().any(|event| matches!(event, Seen::Subscribed { .. }))).await;
    assert_nothing(&mut feed);
    broker.be_deaf(false);
    assert_eq!(next(&mut feed).await, LiveEvent::Joined);
    assert_eq!(broker.count(|event| matches!(event, Seen::Connected { .. })), 2);
}

#[tokio::test]
async fn a_listener_that_takes_nothing_in_lags_and_nobody_waits_for_it() {
    let broker = Broker::start().await;
    let live = live(&broker);
    let mut slow = live.listen(&[channel("a")]);
    let mut fast = live.listen(&[channel("a")]);
    assert_eq!(next(&mut slow).await, LiveEvent::Joined);
    assert_eq!(next(&mut fast).await, LiveEvent::Joined);
    // Eight of them fit into a megabyte.
    let large = format!(r#"{{"data":"{}"}}"#, "x".repeat(120_000));
    for offset in 1..=12 {
        broker.publish("dev/c/a", &large, &[("epoch", "1700"), ("offset", &offset.to_string())]);
        assert_eq!(position(&next(&mut fast).await), Some(Position::new(Epoch(1700), offset)));
    }
    for offset in 1..=8 {
        assert_eq!(position(&next(&mut slow).await), Some(Position::new(Epoch(1700), offset)));
    }
    assert_eq!(next(&mut slow).await, LiveEvent::Lagged);
    assert_nothing(&mut slow);
    broker.publish_at("dev/c/a", 13);
    assert_eq!(next(&mut slow).await, message("a", 13));
}

#[tokio::test]
async fn w3_a_line_above_its_rate_is_away_until_it_is_calm() {
    let broker = Broker::start().await;
    let live = live(&broker);
    let mut feed = live.listen(&[channel("a")]);
    let mut other = live.listen(&[channel("b")]);
    assert_eq!(next(&mut feed).await, LiveEvent::Joined);
    assert_eq!(next(&mut other).await, LiveEvent::Joined);
    for offset in 1..=1_000 {
        broker.publish_at("dev/c/a", offset);
    }
    assert_eq!(next(&mut other).await, LiveEvent::Away, "the rate is the line's, not the channel's");
    while next(&mut feed).await != LiveEvent::Away {}
    assert_eq!(next(&mut feed).await, LiveEvent::Joined);
    assert_eq!(next(&mut other).await, LiveEvent::Joined);
    broker.publish_at("dev/c/a", 1_001);
    assert_eq!(next(&mut feed).await, message("a", 1_001));
    assert_eq!(broker.count(|event| matches!(event, Seen::Connected { .. })), 1);
}

#[tokio::test]
async fn w3_the_fifty_first_filter_opens_another_line() {
    let broker = Broker::start().await;
    let live = live(&broker);
    let channels: Vec<Channel> = (0..=LINE_FILTERS).map(|index| channel(&format!("many/{index}"))).collect();
    let mut feed = live.listen(&channels);
    assert_eq!(next(&mut feed).await, LiveEvent::Joined);
    assert_eq!(broker.count(|event| matches!(event, Seen::Connected { .. })), 2);
    let mut on_lines =
        [0, 1].map(|number| broker.count(|event| matches!(event, Seen::Subscribed { line, .. } if *line == number)));
    on_lines.sort_unstable();
    assert_eq!(on_lines, [1, LINE_FILTERS]);
    for (offset, channel) in (1..).zip(&channels) {
        broker.publish_at(&format!("dev/c/{channel}"), offset);
        assert_eq!(next(&mut feed).await, message(channel.as_str(), offset));
    }

    broker.cut_line(1);
    assert_eq!(next(&mut feed).await, LiveEvent::Away, "it needs both");
    assert_eq!(next(&mut feed).await, LiveEvent::Joined);
    drop(feed);
    broker.until(|seen| seen.iter().filter(|event| matches!(event, Seen::Left { politely: true, .. })).count() == 2).await;
}

#[tokio::test]
async fn after_a_freeze_the_first_check_throws_the_line_away() {
    let broker = Broker::start().await;
    let clock = Arc::new(SetClock(AtomicU64::new(NOW)));
    let live = live_by(&broker, clock.clone());
    let mut feed = live.listen(&[channel("a")]);
    assert_eq!(next(&mut feed).await, LiveEvent::Joined);
    live.check().await;
    assert_nothing(&mut feed);

    clock.advance(Duration::from_secs(16));
    live.check().await;
    // It waits already when the check is done.
    let away = feed.next();
    assert_eq!(futures_util::FutureExt::now_or_never(away), Some(LiveEvent::Away));
    assert_eq!(next(&mut feed).await, LiveEvent::Joined);
    broker.publish_at("dev/c/a", 1);
    assert_eq!(next(&mut feed).await, message("a", 1));
    broker.until(|seen| seen.iter().any(|event| matches!(event, Seen::Left { line: 0, .. }))).await;
    assert_eq!(broker.count(|event| matches!(event, Seen::Connected { .. })), 2);
}

#[tokio::test]
async fn a_short_pause_and_a_clock_set_back_cost_no_line() {
    let broker = Broker::start().await;
    let clock = Arc::new(SetClock(AtomicU64::new(NOW)));
    let live = live_by(&broker, clock.clone());
    let mut feed = live.listen(&[channel("a")]);
    assert_eq!(next(&mut feed).await, LiveEvent::Joined);
    clock.advance(Duration::from_secs(10));
    live.check().await;
    clock.0.store(NOW - 3_600_000, Ordering::SeqCst);
    live.check().await;
    broker.publish_at("dev/c/a", 1);
    assert_eq!(next(&mut feed).await, message("a", 1));
    assert_eq!(broker.count(|event| matches!(event, Seen::Connected { .. })), 1);
}

#[tokio::test]
async fn a_freeze_while_nobody_listens_is_no_matter() {
    let broker = Broker::start().await;
    let clock = Arc::new(SetClock(AtomicU64::new(NOW)));
    let live = live_by(&broker, clock.clone());
    clock.advance(Duration::from_secs(3_600));
    let mut feed = live.listen(&[channel("a")]);
    live.check().await;
    assert_eq!(next(&mut feed).await, LiveEvent::Joined);
    assert_eq!(broker.count(|event| matches!(event, Seen::Connected { .. })), 1);
}

#[tokio::test]
async fn a_subscription_that_is_denied_leaves_its_listener_away_and_the_line_alone() {
    let broker = Broker::start().await;
    broker.deny("dev/c/secret");
    let live = live(&broker);
    let mut denied = live.listen(&[channel("secret"), channel("a")]);
    let mut other = live.listen(&[channel("a")]);
    assert_eq!(next(&mut other).await, LiveEvent::Joined);
    let asked = |event: &Seen| matches!(event, Seen::Subscribed { topic, .. } if topic == "dev/c/secret");
    broker.until(|seen| seen.iter().any(asked)).await;
    for offset in 1..=3 {
        broker.publish_at("dev/c/a", offset);
        assert_eq!(next(&mut other).await, message("a", offset));
    }
    assert_nothing(&mut denied);
    assert_eq!(broker.count(asked), 1, "it is not tried again at once");
    assert_eq!(broker.count(|event| matches!(event, Seen::Connected { .. })), 1);
}

#[tokio::test]
async fn what_cannot_be_read_or_is_retained_is_passed_over() {
    let broker = Broker::start().await;
    let live = live(&broker);
    let mut feed = live.listen(&[channel("a")]);
    assert_eq!(next(&mut feed).await, LiveEvent::Joined);
    broker.publish("dev/c/a", "no JSON", &[("epoch", "1700"), ("offset", "1")]);
    broker.publish("dev/c/a", r#"{"id":"without a position"}"#, &[]);
    broker.publish_retained("dev/c/a", EVENT, &[("epoch", "1700"), ("offset", "2")]);
    broker.publish("dev/c/a", r#"{"id":"1","epoch":"1700","offset":3}"#, &[]);
    let expected = LiveEvent::Message {
        channel: channel("a"),
        position: Position::new(Epoch(1700), 3),
        json: r#"{"id":"1","epoch":"1700","offset":3}"#.into(),
    };
    assert_eq!(next(&mut feed).await, expected);
}

#[tokio::test]
async fn a_feed_outlives_the_handle_and_the_hub_ends_with_the_last_of_both() {
    let broker = Broker::start().await;
    let live = live(&broker);
    let mut feed = live.listen(&[channel("a")]);
    drop(live);
    assert_eq!(next(&mut feed).await, LiveEvent::Joined);
    broker.publish_at("dev/c/a", 1);
    assert_eq!(next(&mut feed).await, message("a", 1));
    drop(feed);
    broker.until(|seen| seen.contains(&Seen::Left { line: 0, politely: true })).await;
}

#[tokio::test]
async fn nobody_dials_an_address_that_was_guessed() {
    let config = support::config(&[("AWS_ENDPOINT_URL", "http://127.0.0.1:1")]);
    let mistakes = IotLive::new(&config, &prefix()).expect_err("the account's own address is missing");
    assert_eq!(mistakes.to_string(), "AWS_ENDPOINT_URL_IOT_DATA_PLANE: is not set");
}

const EVENT: &str = r#"{"id":"1"}"#;

/// A clock that stands where it is set.
struct SetClock(AtomicU64);

impl SetClock {
    fn advance(&self, duration: Duration) {
        self.0.fetch_add(u64::try_from(duration.as_millis()).expect("short"), Ordering::SeqCst);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Millis {
        Millis(self.0.load(Ordering::SeqCst))
    }
}

fn prefix() -> MqttPrefix {
    MqttPrefix::parse("dev").expect("a prefix")
}

fn channel(name: &str) -> Channel {
    Channel::parse(name).expect("a channel")
}

fn live(broker: &Broker) -> IotLive {
    live_by(broker, Arc::new(SetClock(AtomicU64::new(NOW))))
}

fn live_by(broker: &Broker, clock: Arc<dyn Clock>) -> IotLive {
    let config = support::config(&[("AWS_ENDPOINT_URL_IOT_DATA_PLANE", broker.address())]);
    IotLive::with_clock(&config, &prefix(), clock).expect("the address is set")
}

/// What [`Broker::publish_at`] publishes, as a listener gets it.
fn message(name: &str, offset: u64) -> LiveEvent {
    LiveEvent::Message { channel: channel(name), position: Position::new(Epoch(1700), offset), json: EVENT.into() }
}

fn position(event: &LiveEvent) -> Option<Position> {
    let LiveEvent::Message { position, .. } = event else { return None };
    Some(*position)
}

async fn next(feed: &mut IotFeed) -> LiveEvent {
    within(feed.next()).await
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(LONG, future).await.expect("in time")
}

/// Nothing waits for the listener.
#[track_caller]
fn assert_nothing(feed: &mut IotFeed) {
    assert_eq!(futures_util::FutureExt::now_or_never(feed.next()), None);
}
