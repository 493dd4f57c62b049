//! `latency`: from a publish to its receipt, over every protocol, through the whole local stack.
//!
//! One event at a time: the next is published when every subscriber has the one before, so nothing waits in a queue. The clock starts
//! when the publisher begins its request and stops when the subscriber's client has read the message.

use super::chart::{self, Curve};
use super::options::Subject;
use super::progress::Progress;
use super::project::Project;
use super::report::{Report, milliseconds};
use super::stack;
use crate::exit::Exit;
use crate::failure::{Context, Failure, Outcome};
use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use carillon_client::http::{Message, Publisher};
use carillon_client::items::Incoming;
use carillon_core::channel::Channel;
use carillon_local::stack::{Ready, Stack};
use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;
use std::time::Duration;
use tokio::time::Instant;

/// Events of each way to publish.
const EVENTS: usize = 1_000;

/// Events before that, for which functions start and connections are made.
const WARM_UP: usize = 20;

/// The longest time that the histogram tells apart, in microseconds; a subscriber that waits longer fails the measurement.
const LONGEST_US: u64 = 60_000_000;

/// The channel.
const CHANNEL: &str = "bench/latency";

/// The event's data, of the size that notifications have.
const DATA: &str = r#"{"order":42,"state":"shipped","carrier":"a carrier","at":"2026-01-31T12:00:00Z"}"#;

/// The figures of one protocol and one way to publish.
#[derive(Debug, Serialize)]
struct Figures {
    publish: &'static str,
    receipt: &'static str,
    median_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    longest_ms: f64,
}

/// How an event is published.
enum Way {
    PutEvents { client: aws_sdk_eventbridge::Client, bus: String },
    Http(Publisher),
}

/// What a subscriber's messages took.
struct Subscriber {
    protocol: &'static str,
    incoming: Incoming,
    times: Histogram<u64>,
}

/// Measures, and draws a chart into `svg` where there is a path.
pub(super) async fn measure(project: &Project, svg: Option<&std::path::Path>) -> Outcome<Report> {
    let running = stack::start(project, &[]).await?;
    let measured = measure_in(&running).await;
    stack::end(running).await;
    let (figures, curves) = measured?;
    if let Some(path) = svg {
        let drawn = chart::draw(path, &curves);
        drawn.map_err(|error| Failure::new(Exit::Failed, Context::new(format!("cannot draw {}", path.display()), error)))?;
    }
    Ok(report(&figures, &curves))
}

async fn measure_in(running: &Stack) -> Outcome<(Vec<Figures>, Vec<Curve>)> {
    let ready = running.ready();
    let channel = Channel::parse(CHANNEL).expect("a channel");
    let bus = running.template().outputs.get("EventBusName").map_or("default", String::as_str).to_owned();
    let (websocket, from_websocket) = stack::websocket_subscriber(ready, &channel).await?;
    let (mqtt, from_mqtt) = stack::mqtt_subscriber(ready, &channel).await?;
    let (mut figures, mut curves) = (Vec::new(), Vec::new());
    let mut incoming = [from_websocket, from_mqtt];
    for (publish, way) in [("PutEvents", Way::put_events(ready, bus)), ("HTTP", Way::Http(stack::publisher(ready)?))] {
        // A stream ends every two minutes by plan: a fresh one for each way outlives it.
        let (sse, from_sse) = stack::sse_subscriber(ready, &channel).await?;
        let [from_websocket, from_mqtt] = incoming;
        let mut subscribers = [("WebSocket", from_websocket), ("MQTT", from_mqtt), ("SSE", from_sse)]
            .map(|(protocol, incoming)| Subscriber { protocol, incoming, times: histogram() });
        let progress = Progress::begin(format!("{publish} to receipt"), (WARM_UP + EVENTS) as u64);
        for event in 0..WARM_UP + EVENTS {
            let published_at = Instant::now();
            way.publish().await?;
            for subscriber in &mut subscribers {
                let took = stack::delivery(&mut subscriber.incoming).await?.received_at.saturating_duration_since(published_at);
                if event >= WARM_UP {
                    subscriber.times.saturating_record(u64::try_from(took.as_micros()).unwrap_or(LONGEST_US));
                }
            }
            progress.step();
        }
        drop(progress);
        sse.close().await;
        figures.extend(subscribers.iter().map(|subscriber| Figures::new(publish, subscriber)));
        curves.extend(
            subscribers.iter().map(|subscriber| Curve {
                name: format!("{publish} to {}", subscriber.protocol),
                times: subscriber.times.clone(),
            }),
        );
        let [websocket, mqtt, _] = subscribers;
        incoming = [websocket.incoming, mqtt.incoming];
    }
    websocket.close().await;
    mqtt.close().await;
    stack::settled(running).await?;
    Ok((figures, curves))
}

impl Way {
    /// A client of the stack's EventBridge, with nobody's credentials.
    fn put_events(ready: &Ready, bus: String) -> Self {
        Self::PutEvents { client: crate::demo::eventbridge(ready), bus }
    }

    async fn publish(&self) -> Outcome {
        match self {
            Self::Http(publisher) => {
                let data = RawValue::from_string(DATA.to_owned()).map_err(std::io::Error::from)?;
                stack::publish(publisher, Message { channel: CHANNEL.to_owned(), id: None, kind: None, data: Some(data) }).await
            }
            Self::PutEvents { client, bus } => {
                let detail = format!(r#"{{"channel":"{CHANNEL}","data":{DATA}}}"#);
                let entry = PutEventsRequestEntry::builder()
                    .event_bus_name(bus)
                    .source("carillon.bench")
                    .detail_type("bench")
                    .detail(detail);
                let failed = |error| Failure::new(Exit::Failed, Context::new("EventBridge did not take an event", error));
                let answer = client
                    .put_events()
                    .entries(entry.build())
                    .send()
                    .await
                    .map_err(|error| failed(Box::<dyn std::error::Error + Send + Sync>::from(error)))?;
                if answer.failed_entry_count() == 0 { Ok(()) } else { Err(failed("it was refused".into())) }
            }
        }
    }
}

impl Figures {
    fn new(publish: &'static str, subscriber: &Subscriber) -> Self {
        let times = &subscriber.times;
        let milliseconds = |microseconds: u64| microseconds as f64 / 1e3;
        Self {
            publish,
            receipt: subscriber.protocol,
            median_ms: milliseconds(times.value_at_quantile(0.5)),
            p90_ms: milliseconds(times.value_at_quantile(0.9)),
            p99_ms: milliseconds(times.value_at_quantile(0.99)),
            longest_ms: milliseconds(times.max()),
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_US, 3).expect("the bounds are in order, and three digits are allowed")
}

fn report(figures: &[Figures], curves: &[Curve]) -> Report {
    let shown = |number: f64| milliseconds(Duration::from_secs_f64(number / 1e3));
    let rows = figures.iter().map(|of| {
        let name = format!("{} to {}", of.publish, of.receipt);
        vec![name, shown(of.median_ms), shown(of.p90_ms), shown(of.p99_ms), shown(of.longest_ms)]
    });
    Report {
        subject: Subject::Latency,
        columns: vec!["from and to", "median ms", "p90 ms", "p99 ms", "longest ms"],
        rows: rows.collect(),
        notes: vec![
            format!(
                "{EVENTS} events each way after {WARM_UP} that are not counted, one at a time; one subscriber of each protocol gets them all."
            ),
            "Functions, services, publisher and subscribers share the machine; AWS's services and networks add their own time."
                .to_owned(),
        ],
        values: json!(figures),
        chart: Some(chart::text(curves)),
    }
}
