//! One log, three protocols: what is published once arrives on WebSocket, server-sent events and MQTT at the same position, through
//! crowds, cuts, planned ends and an outage of IoT Core. The clients here judge nothing and hide nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use carillon_local::faults::Presence;
use carillon_tests::clients::node;
use carillon_tests::program::Program;
use carillon_tests::sse::{SseStream, message};
use carillon_tests::stack::TestStack;
use carillon_tests::story::{assert_complete, assert_dense, publish_number, publish_numbered, seeded};
use carillon_tests::websocket::{Event, Socket};
use futures_util::future::join_all;
use rand::Rng;
use rand::seq::SliceRandom;
use serde_json::{Value, json};

const CHANNEL: &str = "orders/42";

/// A subscriber over MQTT 5 at QoS 1, whose session outlives its connection and which connects again by itself.
struct MqttSubscriber {
    program: Program,
    /// The last message's offset.
    last: u64,
}

impl MqttSubscriber {
    async fn start(stack: &TestStack, channel: &str) -> Self {
        let options = json!({
            "version": 5, "qos": 1, "topics": [stack.topic(channel)], "client": "subscriber", "clean": false, "reconnect": 250,
        });
        let mut program = node(stack, "mqtt.mjs", &[&options.to_string()]).await;
        assert_eq!(program.json().await, json!({"connected": {"session": false}}));
        assert_eq!(program.json().await, json!({"granted": [1]}));
        Self { program, last: 0 }
    }

    /// The next message. What the script says of its connection is passed over, and so is what MQTT itself says to be a repeat: a
    /// broker sends again what was not acknowledged when the connection broke (MQTT 5 section 4.4).
    async fn message(&mut self) -> Event {
        loop {
            let mut fact = self.program.json().await;
            let Some(found) = fact.get_mut("message") else { continue };
            let event = message(found["event"].take());
            let user = json!({"epoch": event.epoch, "offset": event.offset.to_string()});
            assert_eq!(found["properties"]["user"], user);
            if found["again"] == true && event.offset <= self.last {
                continue;
            }
            self.last = event.offset;
            return event;
        }
    }
}

/// Three subscribers of one channel.
struct Subscribers {
    websocket: Socket,
    sse: SseStream,
    mqtt: MqttSubscriber,
}

impl Subscribers {
    async fn of(stack: &TestStack, channel: &str) -> Self {
        let (mut websocket, mut sse) = (stack.connect().await, stack.stream(&[channel]).await);
        websocket.subscribe(channel).await;
        sse.subscribed().await;
        Self { websocket, sse, mqtt: MqttSubscriber::start(stack, channel).await }
    }

    /// The next message of each: WebSocket, SSE, MQTT.
    async fn next(&mut self) -> [Event; 3] {
        [self.websocket.event().await, self.sse.message().await, self.mqtt.message().await]
    }
}

fn since(event: &Event) -> Value {
    json!({"epoch": event.epoch, "offset": event.offset})
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_arrives_once_and_the_same_on_all_and_any_position_resumes_anywhere() {
    let stack = TestStack::start().await;
    let mut subscribers = Subscribers::of(&stack, CHANNEL).await;
    let id = stack.put_event("com.example.shop", "order.placed", &json!({"channel": CHANNEL, "data": {"total": 12}})).await;
    let seen = subscribers.next().await;
    for event in &seen {
        assert_eq!(event, &seen[0]);
        assert_eq!((&event.event["id"], &event.event["type"], event.offset), (&json!(id), &json!("order.placed"), 1));
    }
    // What would come a second time would come before these.
    for number in 2..=3 {
        stack.publish(CHANNEL, &json!(number)).await;
        for event in subscribers.next().await {
            assert_eq!((event.offset, &event.event["data"]), (number, &json!(number)));
        }
    }

    for taken in &seen {
        let mut socket = stack.connect().await;
        let reply = socket.ask(json!({"action": "subscribe", "channel": CHANNEL, "since": since(taken)})).await;
        assert_eq!((&reply["ok"], &reply["recovered"], &reply["offset"]), (&json!(true), &json!(true), &json!(1)), "{reply}");
        let query = format!("channel={CHANNEL}&since={}-{}", taken.epoch, taken.offset);
        let mut stream = stack.stream_with(&query, None).await.expect("a stream");
        let joined = stream.subscribed().await;
        assert_eq!((&joined[0]["recovered"], &joined[0]["offset"]), (&json!(true), &json!(1)), "{joined:?}");
        let (websocket, sse) = (socket.events(2).await, stream.messages(2).await);
        assert_dense(&websocket, 1);
        assert_eq!(websocket, sse);
        socket.close().await;
    }
    stack.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_events_by_eight_publishers_arrive_complete_on_every_subscriber() {
    const PUBLISHERS: usize = 8;
    const EACH: usize = 125;
    const ALL: usize = PUBLISHERS * EACH;
    let stack = TestStack::start().await;
    let mut others = Vec::new();
    for _ in 0..2 {
        let mut subscriber = stack.connect().await;
        subscriber.subscribe(CHANNEL).await;
        others.push(subscriber);
    }
    let Subscribers { mut websocket, mut sse, mut mqtt } = Subscribers::of(&stack, CHANNEL).await;
    let publishing = join_all((0..PUBLISHERS).map(|publisher| publish_numbered(&stack, CHANNEL, publisher, EACH)));
    // MQTT may repeat and reorder: the offsets say what is there.
    let by_offset = async {
        let mut events = BTreeMap::new();
        while events.len() < ALL {
            let event = mqtt.message().await;
            events.insert(event.offset, event);
        }
        events.into_values().collect::<Vec<_>>()
    };
    let on_others = join_all(others.iter_mut().map(|subscriber| subscriber.events(ALL)));
    let (_, websocket, sse, mqtt, on_others) =
        tokio::join!(publishing, websocket.events(ALL), sse.messages(ALL), by_offset, on_others);
    assert_complete(&websocket, PUBLISHERS as u64, EACH as u64);
    for (protocol, events) in [("SSE", &sse), ("MQTT", &mqtt), ("WebSocket", &on_others[0]), ("WebSocket", &on_others[1])] {
        assert!(events == &websocket, "{protocol} differs from WebSocket");
    }
    stack.shutdown().await;
}

/// How a stream is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    /// The client drops the connection after this time.
    Cut(Duration),
    /// The function ends the stream as planned.
    PlannedEnd,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_cut_twenty_times_misses_and_repeats_none_over_planned_ends_and_cuts_alike() {
    const CUTS: usize = 20;
    const PLANNED_ENDS: usize = 2;
    /// Longer than it takes from the request to the first event, so that most cuts meet a stream that is running.
    const LONGEST_LIFE_MS: u64 = 800;
    const LONGEST_PAUSE_MS: u64 = 60;
    let mut chance = seeded();
    let mut leaves: Vec<_> =
        (0..CUTS).map(|_| Leave::Cut(Duration::from_millis(chance.random_range(0..LONGEST_LIFE_MS)))).collect();
    leaves.extend([Leave::PlannedEnd; PLANNED_ENDS]);
    leaves.shuffle(&mut chance);
    // A stream that nobody reads any more occupies its environment up to its planned end.
    let stack = TestStack::start_with(|options| {
        options.parameters.insert("StreamSeconds".to_owned(), "10".to_owned());
        options.maximum_environments = CUTS + PLANNED_ENDS;
    })
    .await;

    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let publishing = async {
        let mut count = 0;
        while stopped.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty) {
            publish_number(&stack, CHANNEL, 0, count).await;
            count += 1;
            // The pace of the scenario: a burst now and then, silence in between.
            tokio::time::sleep(Duration::from_millis(chance.random_range(0..LONGEST_PAUSE_MS))).await;
        }
        count
    };
    let reading = async {
        let query = format!("channel={CHANNEL}");
        let mut stream = stack.stream(&[CHANNEL]).await;
        stream.subscribed().await;
        let mut last_id = stream.last_id().map(str::to_owned);
        let mut received: Vec<Event> = Vec::new();
        for leave in leaves {
            let left = async {
                loop {
                    let event = stream.next().await.expect("a stream says that it ends");
                    match event.name.as_str() {
                        "" => received.push(message(event.data)),
                        "carillon.subscribed" => assert_eq!(event.data["channels"][0]["recovered"], true, "{event:?}"),
                        "carillon.end" => break,
                        _ => panic!("{event:?}"),
                    }
                }
            };
            match leave {
                Leave::Cut(after) => drop(tokio::time::timeout(after, left).await),
                Leave::PlannedEnd => left.await,
            }
            // A stream that was cut before its first event has none.
            last_id = stream.last_id().map(str::to_owned).or(last_id);
            let id = last_id.clone().expect("the first stream began with an id");
            stream = stack.stream_with(&query, Some(&id)).await.expect("a stream");
        }
        stop.send(()).expect("the publisher waits for it");
        (stream, received)
    };
    let (count, (mut stream, mut received)) = tokio::join!(publishing, reading);
    assert_eq!(stream.subscribed().await[0]["recovered"], true);
    // Offsets begin at 1, and the first may have been published before the first stream began.
    while received.last().expect("it received something").offset < count as u64 {
        received.push(stream.message().await);
    }
    assert!(count > CUTS, "{count} events are too few to tell");
    assert_dense(&received, received[0].offset - 1);
    stack.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_iot_core_is_away_websocket_and_sse_go_on_and_mqtt_catches_up_in_order() {
    const AWAY: Duration = Duration::from_secs(20);
    const PAUSE: Duration = Duration::from_millis(200);
    let stack = TestStack::start().await;
    let mut subscribers = Subscribers::of(&stack, CHANNEL).await;
    publish_number(&stack, CHANNEL, 0, 0).await;
    let mut received = subscribers.next().await.map(|event| vec![event]);
    let [websocket, sse, mqtt] = &mut received;

    stack.set_iot(Presence::Away);
    let away_since = Instant::now();
    let mut count = 1;
    let mut slowest = Duration::ZERO;
    while away_since.elapsed() < AWAY {
        publish_number(&stack, CHANNEL, 0, count).await;
        let published = Instant::now();
        count += 1;
        // In lockstep: each one arrives while the outage goes on.
        let (over_websocket, over_sse) = tokio::join!(subscribers.websocket.event(), async {
            let event = subscribers.sse.message().await;
            slowest = slowest.max(published.elapsed());
            event
        });
        websocket.push(over_websocket);
        sse.push(over_sse);
        tokio::time::sleep(PAUSE).await;
    }
    println!("{count} events, the slowest of those during the outage came over SSE after {slowest:?}");
    assert!(count > 10, "{count} events are too few to tell");
    stack.set_iot(Presence::Back);
    publish_number(&stack, CHANNEL, 0, count).await;
    count += 1;
    websocket.push(subscribers.websocket.event().await);
    sse.push(subscribers.sse.message().await);
    while mqtt.len() < count {
        mqtt.push(subscribers.mqtt.message().await);
    }
    assert_complete(websocket, 1, count as u64);
    assert_eq!(websocket, sse);
    assert_eq!(websocket, mqtt);
    stack.shutdown().await;
}
