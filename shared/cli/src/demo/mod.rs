//! The demo: an AWS event on its way to subscribers of every protocol.
//!
//! | module | what it holds |
//! |---|---|
//! | `event` | the event, sent through EventBridge's PutEvents as any AWS application sends one |
//! | `invitation` | lines to paste into other clients |
//! | `subscribers` | the subscribers, a kind for each protocol |
//! | `tally` | who received what, and the verdict |

mod event;
mod invitation;
mod subscribers;
mod tally;

pub(crate) use event::client as eventbridge;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use carillon_core::channel::Channel;
use carillon_local::stack::Ready;
use serde::Serialize;
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use subscribers::{Seen, Subscribers, What};
use tally::Tally;
use tokio::time::{Instant, timeout_at};

/// The demo's channel.
const CHANNEL: &str = "demo/hello";

/// How long the event may take: two functions start on its way, each for the first time.
const RECEIPT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long to wait for a repeat after everybody has received the event.
const REPEAT_WATCH: Duration = Duration::from_secs(1);

/// Plays the demo against a running stack, then prints what comes until it is dropped; with `once` it returns after the verdict.
///
/// # Errors
/// When a subscriber or the event cannot be brought up; with `once` also where not everybody received the event exactly once.
pub(crate) async fn run(ready: &Ready, bus: &str, ready_file: &Path, once: bool, output: Output) -> Outcome {
    let channel = Channel::parse(CHANNEL).map_err(|error| Failure::new(Exit::Failed, error))?;
    let mut subscribers = Subscribers::connect(ready, &channel).await?;
    for (protocol, lack) in &subscribers.left_out {
        let text = || format!("nobody subscribes over {protocol}: {lack}");
        output.notice(text, &json!({"notice": "left_out", "protocol": protocol, "reason": lack}));
    }
    let id = uuid::Uuid::new_v4().to_string();
    output.people(format_args!(
        "\n{} subscribers listen on {CHANNEL}; an event goes to EventBridge.\n\n{}",
        subscribers.names.len(),
        header()
    ))?;
    let put_at = Instant::now();
    event::put(ready, bus, &channel, &id).await?;
    let tally = receive(&mut subscribers, &id, put_at, output).await?;
    let verdict = tally.verdict(&subscribers.names);
    if once {
        output.result(|| verdict.text(), &verdict)?;
        return if verdict.is_good() { Ok(()) } else { Err(Failure::new(Exit::DemoIncomplete, verdict.text())) };
    }
    if !verdict.is_good() {
        output.notice(|| format!("warning: {}", verdict.text()), &verdict);
    }
    output.people(invitation::text(ready, bus, ready_file))?;
    loop {
        let seen = subscribers.next().await?;
        print(&subscribers, &seen, (&id, put_at), output)?;
    }
}

/// Takes what comes until every subscriber has the event and a second has passed, or time is over.
async fn receive(subscribers: &mut Subscribers, id: &str, put_at: Instant, output: Output) -> Outcome<Tally> {
    let mut tally = Tally::new(subscribers.names.len());
    let mut until = put_at + RECEIPT_TIMEOUT;
    let mut complete = false;
    while let Ok(seen) = timeout_at(until, subscribers.next()).await {
        let seen = seen?;
        print(subscribers, &seen, (id, put_at), output)?;
        tally.count(&seen, id);
        if tally.is_complete() && !complete {
            complete = true;
            until = Instant::now() + REPEAT_WATCH;
        }
    }
    Ok(tally)
}

/// What a subscriber received, for programs.
#[derive(Serialize)]
struct Line<'text> {
    protocol: &'static str,
    subscriber: usize,
    channel: &'static str,
    epoch: String,
    offset: u64,
    id: &'text str,
    put_to_receipt_ms: Option<f64>,
}

fn header() -> String {
    row("protocol", "subscriber", "id", "epoch", "offset", "put to receipt")
}

fn row(protocol: &str, subscriber: &str, id: &str, epoch: &str, offset: &str, time: &str) -> String {
    // An id's beginning is enough to see that it is the same.
    let id: String = id.chars().take(8).collect();
    format!("{protocol:<10} {subscriber:>10}  {id:<8} {epoch:>14} {offset:>7} {time:>15}")
}

fn print(subscribers: &Subscribers, seen: &Seen, (id, put_at): (&str, Instant), output: Output) -> Outcome {
    let name = &subscribers.names[seen.subscriber];
    let (position, found) = match &seen.what {
        What::Message { position, id } => (position, id),
        What::Repeat { position } => {
            let text = || format!("{name}: the message at {position} came again and was dropped");
            output.notice(text, &json!({"notice": "repeat", "protocol": name.protocol, "subscriber": name.number}));
            return Ok(());
        }
        What::Trouble(text) => {
            output.notice(
                || format!("{name}: {text}"),
                &json!({"notice": "trouble", "protocol": name.protocol, "subscriber": name.number, "text": text}),
            );
            return Ok(());
        }
    };
    // When somebody else's event was put is not known here.
    let milliseconds = (found == id).then(|| (seen.at.duration_since(put_at).as_secs_f64() * 10_000.0).round() / 10.0);
    let line = Line {
        protocol: name.protocol,
        subscriber: name.number,
        channel: CHANNEL,
        epoch: position.epoch.to_string(),
        offset: position.offset,
        id: found,
        put_to_receipt_ms: milliseconds,
    };
    let time = milliseconds.map_or_else(|| "–".to_owned(), |milliseconds| format!("{milliseconds:.1} ms"));
    let text = || row(name.protocol, &name.number.to_string(), found, &line.epoch, &position.offset.to_string(), &time);
    output.result(text, &line)
}
