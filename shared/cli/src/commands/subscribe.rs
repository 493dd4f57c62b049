//! `carillon subscribe`: the messages of channels, one line each, over every reconnection.

use super::{REFUSED_HINT, connect_failure, mqtt_failure, request_failure, stream_failure};
use crate::arguments::{Subscribe, Via};
use crate::endpoints::{self, Given, Kind};
use crate::exit::Exit;
use crate::failure::{Context, Failure, Outcome};
use crate::output::Output;
use crate::signals::Signals;
use carillon_client::items::{Delivery, End, Incoming, Item, Notice, Subscription};
use carillon_client::websocket::{Client, RequestError, Subscribed};
use carillon_client::{mqtt, sse, websocket};
use carillon_core::channel::Channel;
use carillon_core::position::Position;
use futures_util::stream::{self, FuturesUnordered, Stream, StreamExt};
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;
use std::collections::BTreeSet;
use std::path::Path;

/// Runs the command.
pub(super) async fn run(subscribe: Subscribe, ready_file: &Path, output: Output) -> Outcome<Exit> {
    check(&subscribe)?;
    let count = subscribe.count;
    let mut signals = Signals::listen()?;
    if subscribe.via == Via::Websocket {
        return over_websocket(subscribe, ready_file, signals, output).await;
    }
    let (subscription, mut incoming) = tokio::select! {
        connected = connect(subscribe, ready_file) => connected?,
        exit = signals.next() => return Ok(exit),
    };
    let exit = follow(&mut incoming, stream::empty(), count, &mut signals, output).await?;
    subscription.close().await;
    Ok(exit)
}

/// WebSocket alone has an answer for each subscribe.
async fn over_websocket(subscribe: Subscribe, ready_file: &Path, mut signals: Signals, output: Output) -> Outcome<Exit> {
    let wanted = pair(subscribe.channels, subscribe.since)?;
    let given = Given::new(subscribe.url, subscribe.access.token).or_variable(Kind::WebSocket);
    let endpoint = endpoints::resolve(Kind::WebSocket, given, ready_file)?;
    let connecting = websocket::connect(websocket::Options::new(endpoint.url, Some(endpoint.token)));
    let (client, mut incoming) = tokio::select! {
        connected = connecting => connected.map_err(connect_failure)?,
        exit = signals.next() => return Ok(exit),
    };
    let answers: FuturesUnordered<_> = wanted.into_iter().map(|(channel, since)| begin(&client, channel, since)).collect();
    let exit = follow(&mut incoming, answers, subscribe.count, &mut signals, output).await?;
    client.close().await;
    Ok(exit)
}

/// Connects over SSE or MQTT, which subscribe in the same breath.
async fn connect(subscribe: Subscribe, ready_file: &Path) -> Outcome<(Subscription, Incoming)> {
    let wanted = pair(subscribe.channels, subscribe.since)?;
    let given = Given::new(subscribe.url, subscribe.access.token);
    if subscribe.via == Via::Sse {
        let endpoint = endpoints::resolve(Kind::Stream, given.or_variable(Kind::Stream), ready_file)?;
        return sse::connect(sse::Options::new(endpoint.url, Some(endpoint.token), wanted)).await.map_err(stream_failure);
    }
    let endpoint = endpoints::resolve(Kind::Mqtt, given.or_variable(Kind::Mqtt), ready_file)?;
    let prefix = endpoints::mqtt_prefix(subscribe.mqtt_prefix, &endpoint.url, ready_file)?;
    let channels = wanted.into_iter().map(|(channel, _)| channel).collect();
    let options = mqtt::Options::new(endpoint.url, Some(endpoint.token), prefix, channels);
    mqtt::connect(mqtt::Options { authorizer: subscribe.mqtt_authorizer, ..options }).await.map_err(mqtt_failure)
}

/// What does not go together.
fn check(subscribe: &Subscribe) -> Outcome {
    if subscribe.via == Via::Mqtt && !subscribe.since.is_empty() {
        let error = "--since: MQTT has no replay, so nothing before the subscribe can be asked for";
        return Err(Failure::new(Exit::Usage, error)
            .hint("--via websocket and --via sse go on from a position, whichever protocol printed it"));
    }
    if subscribe.via != Via::Mqtt {
        let of_mqtt =
            [("--mqtt-prefix", subscribe.mqtt_prefix.is_some()), ("--mqtt-authorizer", subscribe.mqtt_authorizer.is_some())];
        if let Some((flag, _)) = of_mqtt.iter().find(|(_, is_given)| *is_given) {
            return Err(Failure::new(Exit::Usage, format!("{flag} goes with --via mqtt alone")));
        }
    }
    Ok(())
}

/// Prints what comes until a signal or the last message that is wanted.
async fn follow(
    incoming: &mut Incoming,
    answers: impl Stream<Item = (Channel, Result<Subscribed, RequestError>)>,
    count: Option<u64>,
    signals: &mut Signals,
    output: Output,
) -> Outcome<Exit> {
    let mut answers = std::pin::pin!(answers);
    let mut left = count;
    loop {
        tokio::select! {
            Some((channel, answer)) = answers.next() => begun(&channel, answer, output)?,
            item = incoming.next() => match item {
                Some(Item::Delivery(delivery)) => {
                    print(&delivery, output)?;
                    left = left.map(|left| left - 1);
                    if left == Some(0) {
                        return Ok(Exit::Done);
                    }
                }
                Some(Item::Notice(notice)) => tell(notice, output)?,
                None => return Err(Failure::new(Exit::Failed, "the connection ended")),
            },
            exit = signals.next() => return Ok(exit),
        }
    }
}

/// Every channel with its position.
fn pair(channels: Vec<Channel>, since: Vec<Position>) -> Outcome<Vec<(Channel, Option<Position>)>> {
    if !since.is_empty() && since.len() != channels.len() {
        let error = format!("{} channels and {} positions: --since is given for none or for each", channels.len(), since.len());
        return Err(Failure::new(Exit::Usage, error));
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = channels.iter().find(|channel| !seen.insert(*channel)) {
        return Err(Failure::new(Exit::Usage, format!("channel {twice} is named twice")));
    }
    let since = since.into_iter().map(Some).chain(std::iter::repeat(None));
    Ok(channels.into_iter().zip(since).collect())
}

async fn begin(client: &Client, channel: Channel, since: Option<Position>) -> (Channel, Result<Subscribed, RequestError>) {
    let answer = client.subscribe(&channel, since).await;
    (channel, answer)
}

fn begun(channel: &Channel, answer: Result<Subscribed, RequestError>, output: Output) -> Outcome {
    let Subscribed { position, recovered } = answer.map_err(request_failure)?;
    tell_subscribed(channel, Some(position), recovered, output);
    Ok(())
}

fn tell_subscribed(channel: &Channel, position: Option<Position>, recovered: Option<bool>, output: Output) {
    let text = || match position {
        Some(position) => format!("subscribed to {channel} at {position}"),
        None => format!("subscribed to {channel}"),
    };
    output.notice(text, &Told { recovered, ..Told::new("subscribed", channel, position) });
}

/// A message for programs.
#[derive(Serialize)]
struct Line<'text> {
    channel: &'text str,
    epoch: String,
    offset: u64,
    event: &'text RawValue,
}

fn print(delivery: &Delivery, output: Output) -> Outcome {
    let Delivery { channel, position, event, .. } = delivery;
    let event: &RawValue = serde_json::from_str(event.as_str())
        .map_err(|error| Failure::new(Exit::Failed, Context::new("an event that came is no JSON", error)))?;
    let line = Line { channel: channel.as_str(), epoch: position.epoch.to_string(), offset: position.offset, event };
    output.result(|| format!("{channel} {position} {event}"), &line)
}

/// Something about a channel for programs, on standard error.
#[derive(Serialize)]
struct Told<'text> {
    notice: &'static str,
    channel: &'text str,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<bool>,
    /// The position before, where messages are missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<String>,
}

impl<'text> Told<'text> {
    fn new(notice: &'static str, channel: &'text Channel, position: impl Into<Option<Position>>) -> Self {
        let position = position.into();
        let (epoch, offset) = (position.map(|position| position.epoch.to_string()), position.map(|position| position.offset));
        Self { notice, channel: channel.as_str(), epoch, offset, recovered: None, after: None }
    }

    fn after(self, position: Position) -> Self {
        Self { after: Some(position.to_string()), ..self }
    }
}

fn tell(notice: Notice, output: Output) -> Outcome {
    match notice {
        Notice::Subscribed { channel, position, recovered } => tell_subscribed(&channel, position, recovered, output),
        Notice::Gap { channel, after, to } => {
            let text = || format!("{channel}: the messages after {after} up to {to} cannot be delivered");
            output.notice(text, &Told::new("gap", &channel, to).after(after));
        }
        Notice::Unrecovered { channel, since, position } => {
            let text = || format!("{channel}: {since} cannot be continued; messages up to {position} may be missing");
            output.notice(text, &Told::new("unrecovered", &channel, position).after(since));
        }
        Notice::Repeat { channel, position } => tracing::debug!(%channel, %position, "a message came again and was dropped"),
        Notice::Hole { channel, position, found } => {
            tracing::info!(%channel, %position, %found, "messages are missing and are asked for again");
        }
        Notice::Missed { channel, after, found } => {
            let text = || format!("{channel}: {found} came after {after}, and what lies between may still come or be lost");
            output.notice(text, &Told::new("missed", &channel, found).after(after));
        }
        Notice::Disconnected { reason, planned, reconnect_in } => {
            let milliseconds = reconnect_in.as_millis();
            let text = || format!("disconnected ({reason}); connecting again in {milliseconds} ms");
            let value = json!({"notice": "disconnected", "reason": &reason, "planned": planned, "reconnect_in_ms": milliseconds});
            output.notice(text, &value);
        }
        Notice::Reconnected => output.notice(|| "connected again".to_owned(), &json!({"notice": "reconnected"})),
        Notice::Unclaimed { message } => {
            output.notice(|| format!("the gateway says: {message}"), &json!({"notice": "gateway", "message": &message}));
        }
        Notice::Refused { channel, fault } => {
            return Err(request_failure(RequestError::Fault(fault)).hint(format!("the subscription to {channel} is over")));
        }
        Notice::Ended(end @ End::Refused(_)) => return Err(Failure::new(Exit::Refused, end).hint(REFUSED_HINT)),
        Notice::Ended(end) => return Err(Failure::new(Exit::Failed, end)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::position::Epoch;

    fn channels(names: &[&str]) -> Vec<Channel> {
        names.iter().map(|name| Channel::parse(name).expect("a channel")).collect()
    }

    #[test]
    fn positions_belong_to_channels_in_their_order() {
        let positions = [Position::new(Epoch(1), 2), Position::new(Epoch(3), 4)];
        let paired = pair(channels(&["a", "b"]), positions.to_vec()).expect("one each");
        assert_eq!(paired.iter().map(|(_, since)| *since).collect::<Vec<_>>(), positions.map(Some));
        let paired = pair(channels(&["a", "b"]), Vec::new()).expect("none");
        assert!(paired.iter().all(|(_, since)| since.is_none()));
        assert_eq!(pair(channels(&["a", "b"]), positions[..1].to_vec()).expect_err("one for two").exit(), Exit::Usage);
        assert_eq!(pair(channels(&["a", "a"]), Vec::new()).expect_err("twice").exit(), Exit::Usage);
    }
}
