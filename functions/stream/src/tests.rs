use super::*;
use carillon_core::event::{Attribute, Data, Event, EventJson, Identity};
use carillon_core::position::{Epoch, Position};
use carillon_engine::engine::Engine;
use carillon_engine::memory::{Faults, Memory, MemoryClock, MemoryIot, MemoryQueue, Storm};
use carillon_engine::ports::{Feed, LiveEvent, Mqtt};
use carillon_wire::cloudevents;
use carillon_wire::sse::vector::PositionVector;
use http::HeaderMap;
use serde_json::{Value, json};
use std::path::Path;
use tokio::time::Instant;

const SECRET: &str = "example-secret-of-at-least-32-characters";
const NOW: Millis = Millis(1_795_512_632_000);
const LENGTH: Duration = Duration::from_secs(120);

struct Fixture {
    store: Memory,
    iot: MemoryIot,
    engine: Engine<Memory, MemoryQueue, MemoryClock>,
    handler: Handler<Memory, MemoryIot, MemoryClock>,
}

/// One event as its reader has it: name, id and data. A comment has neither.
#[derive(Debug, PartialEq)]
struct Seen {
    name: String,
    id: String,
    data: Value,
}

/// A stream that is being read.
struct Reader {
    body: Body,
    text: String,
}

impl Fixture {
    fn new() -> Self {
        Self::over(Memory::default())
    }

    fn over(store: Memory) -> Self {
        let (iot, clock) = (MemoryIot::default(), MemoryClock::at(NOW));
        let engine = Engine::seeded(store.clone(), MemoryQueue::default(), clock.clone(), 7);
        let streams = Streams::new(store.clone(), iot.clone(), clock);
        let handler = Handler::new(streams, Secret::try_new(SECRET).expect("a secret"), LENGTH);
        Self { store, iot, engine, handler }
    }

    /// Publishes a message, which IoT Core then brings as `deliver` hands it over.
    async fn publish(&self, channel: &str, id: &str) -> Position {
        let position = self.append(channel, id).await;
        let channel = Channel::parse(channel).expect("a channel");
        let log = self.store.whole_log(&channel);
        let (_, event): &(_, EventJson) = log.last().expect("a message");
        let json = cloudevents::placed(event, position).expect("an object");
        self.iot.publish(&channel, position, &json, false).await.expect("published");
        position
    }

    async fn append(&self, channel: &str, id: &str) -> Position {
        let event = Event {
            channel: Channel::parse(channel).expect("a channel"),
            id: Attribute::id(id).expect("an id"),
            source: Attribute::source("s").expect("a source"),
            kind: Attribute::kind("com.example.paid").expect("a type"),
            time: Attribute::try_new("time", "2026-11-24T09:30:24Z", 64).expect("a time"),
            schema: None,
            data: Data::None,
            extensions: Vec::new(),
            identity: Some(Identity::new("s", id)),
        };
        let fate = self.engine.publish(vec![event], None).await.pop().expect("one fate");
        fate.expect("published").position
    }

    fn request(&self, request: &Value, deadline: Option<Millis>) -> Response {
        self.handler.handle(&request.to_string(), &Invocation { request_id: "request-1".to_owned(), deadline })
    }

    fn open(&self, query: &str, last_event_id: Option<&str>) -> Reader {
        let mut request = request("GET", "/sse", query);
        if let Some(id) = last_event_id {
            request["headers"]["last-event-id"] = json!(id);
        }
        let response = self.request(&request, None);
        assert_eq!(response.status, StatusCode::OK);
        Reader { body: response.body, text: String::new() }
    }

    async fn refused(&self, request: &Value) -> (u16, Value, HeaderMap) {
        let response = self.request(request, None);
        let body: Vec<_> = response.body.collect().await;
        let body: String = body.into_iter().map(|part| part.expect("it never fails")).collect();
        assert_eq!(response.headers["content-type"], "application/json");
        (response.status.as_u16(), serde_json::from_str(&body).expect("JSON"), response.headers)
    }
}

impl Reader {
    /// The next event, comments passed over; none at the end.
    async fn next(&mut self) -> Option<Seen> {
        loop {
            let block = self.block().await?;
            if let Some(seen) = Seen::of(&block) {
                return Some(seen);
            }
        }
    }

    /// The next message's id, and the id of its event.
    async fn message(&mut self) -> (String, String) {
        let seen = self.next().await.expect("a message");
        assert_eq!(seen.name, "", "{seen:?}");
        (seen.data["id"].as_str().expect("an id").to_owned(), seen.id)
    }

    async fn subscribed(&mut self) -> Seen {
        let seen = self.next().await.expect("the first event");
        assert_eq!(seen.name, "carillon.subscribed", "{seen:?}");
        seen
    }

    /// The next lines up to an empty one.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(block);
            }
            let part = self.body.next().await?.expect("it never fails");
            assert!(part.ends_with("\n\n"), "a part is whole events: {part:?}");
            self.text.push_str(&part);
        }
    }
}

impl Seen {
    fn of(block: &str) -> Option<Self> {
        let field = |wanted: &str| {
            let values = block.lines().filter_map(|line| line.split_once(": ")).filter(|(name, _)| *name == wanted);
            values.map(|(_, value)| value.to_owned()).next()
        };
        let data = serde_json::from_str(&field("data")?).expect("JSON");
        Some(Self { name: field("event").unwrap_or_default(), id: field("id").unwrap_or_default(), data })
    }
}

fn request(method: &str, path: &str, query: &str) -> Value {
    json!({
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {"authorization": format!("Bearer {SECRET}"), "user-agent": "Größe"},
        "requestContext": {"http": {"method": method}},
        "isBase64Encoded": false,
    })
}

#[tokio::test]
async fn a_stream_is_closed_without_the_token_whatever_is_asked() {
    let fixture = Fixture::new();
    for (method, path) in [("GET", "/sse"), ("POST", "/sse"), ("GET", "/")] {
        for authorization in ["", "Bearer ", "Bearer wrong", SECRET] {
            let mut request = request(method, path, "channel=a");
            request["headers"]["authorization"] = json!(authorization);
            let (status, answer, headers) = fixture.refused(&request).await;
            assert_eq!((status, &answer["error"]["code"]), (401, &json!("unauthorized")));
            assert_eq!(headers["www-authenticate"], "Bearer");
        }
    }
    assert_eq!(fixture.iot.listeners(), 0);
    let mut request = request("GET", "/sse", &format!("channel=a&token={SECRET}"));
    request["headers"] = json!({});
    request["queryStringParameters"] = json!({"channel": "a", "token": SECRET});
    assert_eq!(fixture.request(&request, None).status, StatusCode::OK);
}

#[tokio::test]
async fn what_will_not_be_better_the_next_time_is_an_http_answer() {
    let fixture = Fixture::new();
    for (request, status, code, message) in [
        (request("GET", "/", "channel=a"), 404, "not_found", "path: \"/\" is none; there is /sse"),
        (request("POST", "/sse", "channel=a"), 405, "bad_request", "method: \"POST\" is not served; there is GET"),
        (request("GET", "/sse", ""), 400, "bad_request", "channel: is missing"),
        (
            request("GET", "/sse", "channel=a/*"),
            400,
            "bad_request",
            "channel: segment 2 is a wildcard, and streams serve no patterns yet",
        ),
        (json!({"headers": {}}), 500, "internal", "an error on the server's side; its log says more"),
    ] {
        let (found, answer, headers) = fixture.refused(&request).await;
        assert_eq!((found, &answer["error"]["code"], &answer["error"]["message"]), (status, &json!(code), &json!(message)));
        assert_eq!(headers.get("allow").is_some(), status == 405);
        assert_eq!(headers["cache-control"], "no-store");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_begins_at_once_and_brings_what_is_published() {
    let fixture = Fixture::new();
    fixture.append("a", "0").await;
    let response = fixture.request(&request("GET", "/sse", "channel=a&channel=b/c"), None);
    let names = ["content-type", "cache-control", "x-accel-buffering"];
    assert_eq!(names.map(|name| &response.headers[name]), ["text/event-stream", "no-store", "no"]);
    let mut reader = Reader { body: response.body, text: String::new() };
    assert_eq!(reader.block().await.as_deref(), Some(": carillon"));
    assert_eq!(reader.block().await.as_deref(), Some("retry: 1000"));

    let subscribed = reader.subscribed().await;
    let channels = subscribed.data["channels"].as_array().expect("a list").clone();
    assert_eq!((&channels[0]["channel"], &channels[0]["offset"], channels[0].get("recovered")), (&json!("a"), &json!(1), None));
    assert_eq!((&channels[1]["channel"], &channels[1]["offset"]), (&json!("b/c"), &json!(0)));

    let position = fixture.publish("b/c", "1").await;
    let seen = reader.next().await.expect("a message");
    assert_eq!((seen.name.as_str(), &seen.data["id"], &seen.data["subject"]), ("", &json!("1"), &json!("b/c")));
    assert_eq!((&seen.data["epoch"], &seen.data["offset"]), (&json!(position.epoch.to_string()), &json!(1)));
    let vector = PositionVector::decode(&seen.id).expect("an id");
    assert_eq!(vector.position_of(&Channel::parse("b/c").expect("a channel")), Some(position));
    assert_eq!(vector.position_of(&Channel::parse("a").expect("a channel")).expect("known").offset, 1);
}

#[tokio::test(start_paused = true)]
async fn a_message_has_its_type_for_a_name_where_that_is_asked_for() {
    let fixture = Fixture::new();
    let mut reader = fixture.open("channel=a&named=1", None);
    reader.subscribed().await;
    fixture.publish("a", "1").await;
    assert_eq!(reader.next().await.expect("a message").name, "com.example.paid");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_comes_back_gets_what_it_missed_and_nothing_twice() {
    let fixture = Fixture::new();
    let mut reader = fixture.open("channel=a", None);
    let mut id = reader.subscribed().await.id;
    for number in 1..=20 {
        let wanted = number.to_string();
        if number % 2 == 0 {
            fixture.publish("a", &wanted).await;
        } else {
            // Cut, and published while nobody listened.
            drop(reader);
            fixture.publish("a", &wanted).await;
            let escaped = format!("channel=a&last_event_id={id}");
            reader = if number % 4 == 1 { fixture.open("channel=a", Some(&id)) } else { fixture.open(&escaped, None) };
            assert_eq!(reader.subscribed().await.data["channels"][0]["recovered"], true);
        }
        let message = reader.message().await;
        assert_eq!(message.0, wanted);
        id = message.1;
    }
    let position = format!("channel=a&since={}-{}", fixture.engine_epoch("a"), 18);
    let mut reader = fixture.open(&position, None);
    reader.subscribed().await;
    assert_eq!((reader.message().await.0, reader.message().await.0), ("19".to_owned(), "20".to_owned()));
}

impl Fixture {
    fn engine_epoch(&self, channel: &str) -> Epoch {
        let log = self.store.whole_log(&Channel::parse(channel).expect("a channel"));
        log.last().expect("a message").0.epoch
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_is_told_as_a_gap() {
    let fixture = Fixture::new();
    let newest = fixture.append("a", "1").await;
    let mut reader = fixture.open("channel=a&since=7-41", None);
    assert_eq!(reader.subscribed().await.data["channels"][0]["recovered"], false);
    let seen = reader.next().await.expect("a gap");
    let expected = json!({
        "channel": "a", "after": {"epoch": "7", "offset": 41}, "epoch": newest.epoch.to_string(), "offset": newest.offset,
    });
    assert_eq!((seen.name.as_str(), &seen.data), ("carillon.gap", &expected));

    // An id of a newer server, of which nothing is known but that there was one.
    let mut reader = fixture.open("channel=a", Some("AgABAgM"));
    assert_eq!(reader.subscribed().await.data["channels"][0]["recovered"], false);
    let seen = reader.next().await.expect("a gap");
    assert_eq!((seen.name.as_str(), seen.data.get("after")), ("carillon.gap", None));
    let vector = PositionVector::decode(&seen.id).expect("an id");
    assert_eq!(vector.position_of(&Channel::parse("a").expect("a channel")), Some(newest));
}

#[tokio::test(start_paused = true)]
async fn a_stream_shows_every_fifteen_seconds_that_it_lives_and_ends_as_planned() {
    let fixture = Fixture::new();
    let begun = Instant::now();
    let mut reader = fixture.open("channel=a", None);
    let id = reader.subscribed().await.id;
    let mut heartbeats = 0;
    let end = loop {
        let before = Instant::now();
        let block = reader.block().await.expect("the stream goes on");
        assert!(before.elapsed() <= Duration::from_secs(15));
        match Seen::of(&block) {
            None => heartbeats += 1,
            Some(seen) => break seen,
        }
    };
    assert_eq!(end, Seen { name: "carillon.end".to_owned(), id, data: json!({"reconnect_ms": 500}) });
    assert_eq!(reader.block().await, None);
    assert_eq!(heartbeats, 7);
    assert!((LENGTH - LENGTH / 10..=LENGTH).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!(fixture.iot.listeners(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_before_its_invocation_does() {
    let fixture = Fixture::new();
    for (deadline, seconds) in [(NOW.plus(35_000), 30), (NOW.plus(2_000), 0)] {
        let begun = Instant::now();
        let response = fixture.request(&request("GET", "/sse", "channel=a"), Some(deadline));
        let mut reader = Reader { body: response.body, text: String::new() };
        reader.subscribed().await;
        assert_eq!(reader.next().await.expect("the end").name, "carillon.end");
        assert_eq!(begun.elapsed().as_secs(), seconds);
    }
}

#[tokio::test]
async fn the_ends_of_streams_are_spread() {
    let fixture = Fixture::new();
    let ends =
        |request_id: &str| fixture.handler.ends_at(&Invocation { request_id: request_id.to_owned(), deadline: None }).since(NOW);
    let ends: Vec<u64> = (0..100).map(|number| ends(&format!("request-{number}"))).collect();
    assert!(ends.iter().all(|end| (108_001..=120_000).contains(end)), "{ends:?}");
    let early = ends.iter().filter(|end| **end < 114_000).count();
    assert!((25..=75).contains(&early), "{early} of 100 in the earlier half");
}

#[tokio::test(start_paused = true)]
async fn what_may_be_better_the_next_time_is_told_in_the_stream() {
    let fixture = Fixture::over(Memory::in_storm(Storm::new(7, Faults { refused: 1.0, ..Faults::default() })));
    let mut reader = fixture.open("channel=a", None);
    let seen = reader.next().await.expect("an error");
    assert_eq!(
        (seen.name.as_str(), &seen.data["code"], &seen.data["retry"]),
        ("carillon.error", &json!("unavailable"), &json!(true))
    );
    assert_eq!(reader.next().await, None);
}

/// IoT Core whose adapter has a defect.
struct Defective;

impl Live for Defective {
    type Feed = Self;

    fn listen(&self, _: &[Channel]) -> Self {
        panic!("a defect, made for this test")
    }
}

impl Feed for Defective {
    async fn next(&mut self) -> LiveEvent {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_defect_is_told_in_the_stream_and_ends_it() {
    let streams = Streams::new(Memory::default(), Defective, MemoryClock::at(NOW));
    let handler = Handler::new(streams, Secret::try_new(SECRET).expect("a secret"), LENGTH);
    let invocation = Invocation { request_id: "request-1".to_owned(), deadline: None };
    let response = handler.handle(&request("GET", "/sse", "channel=a").to_string(), &invocation);
    let mut reader = Reader { body: response.body, text: String::new() };
    let seen = reader.next().await.expect("an error");
    assert_eq!((seen.name.as_str(), &seen.data["code"]), ("carillon.error", &json!("internal")));
    assert_eq!(reader.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn streams_of_one_environment_do_not_disturb_each_other() {
    let fixture = Fixture::new();
    let mut readers: Vec<Reader> =
        (0..200).map(|number| fixture.open(&format!("channel=a&channel=own/{number}"), None)).collect();
    for reader in &mut readers {
        reader.subscribed().await;
    }
    fixture.publish("a", "for all").await;
    fixture.publish("own/7", "for one").await;
    for (number, reader) in readers.iter_mut().enumerate() {
        assert_eq!(reader.message().await.0, "for all");
        if number == 7 {
            assert_eq!(reader.message().await.0, "for one");
        }
    }
    drop(readers);
    assert_eq!(fixture.iot.listeners(), 0);
}

#[tokio::test(start_paused = true)]
async fn every_sample_event_opens_a_stream_or_is_refused_as_its_readme_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../events/stream");
    let fixture = Fixture::new();
    let mut files = 0;
    for entry in std::fs::read_dir(&folder).expect("the samples") {
        let path = entry.expect("a file").path();
        let text = std::fs::read_to_string(&path).expect("a sample");
        let invocation = Invocation { request_id: "request-1".to_owned(), deadline: None };
        let response = fixture.handler.handle(&text, &invocation);
        let expected = if path.ends_with("sse-unauthorized.json") { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
        assert_eq!(response.status, expected, "{}", path.display());
        if expected == StatusCode::OK {
            let mut reader = Reader { body: response.body, text: String::new() };
            let resumes = text.contains("last-event-id") || text.contains("since=");
            assert_eq!(reader.subscribed().await.data["channels"][0].get("recovered").is_some(), resumes, "{}", path.display());
        }
        files += 1;
    }
    assert!(files >= 5, "{files} samples");
}
