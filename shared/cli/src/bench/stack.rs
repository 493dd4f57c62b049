//! A whole local stack for a benchmark, out of the functions that were built already, and its clients.

use super::project::{Project, binary};
use crate::commands::{connect_failure, mqtt_failure, request_failure, stream_failure};
use crate::exit::Exit;
use crate::failure::{Context, Failure, Outcome};
use crate::logging;
use carillon_client::http::{Message, Publisher};
use carillon_client::items::{Incoming, Item, Notice, Subscription};
use carillon_client::token::Token;
use carillon_client::{mqtt, sse, websocket};
use carillon_core::channel::Channel;
use carillon_core::mqtt::MqttPrefix;
use carillon_core::position::Position;
use carillon_local::calls::CallCount;
use carillon_local::stack::{Ports, Ready, Stack, StackOptions};
use std::error::Error;
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

/// How long something may take that takes milliseconds, before the stack counts as broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// An operation is over when no call came for this long. A drain's next call comes within milliseconds; what a stream asks later, to
/// see that it still is where the log is, comes after a second.
const QUIET: Duration = Duration::from_millis(400);

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Starts the stack of the checkout's template on free ports, with these parameters over the template's own.
///
/// # Errors
/// When it does not start.
pub(super) async fn start(project: &Project, parameters: &[(&str, &str)]) -> Outcome<Stack> {
    start_from(&project.template(), project, parameters).await
}

/// The same of another template with the same functions.
///
/// # Errors
/// When it does not start.
pub(super) async fn start_from(template: &Path, project: &Project, parameters: &[(&str, &str)]) -> Outcome<Stack> {
    let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let prebuilt = project.functions.iter().map(|function| (binary(function).to_owned(), function.executable.clone())).collect();
    let options = StackOptions { parameters, prebuilt: Some(prebuilt), ports: Ports::FREE, ..StackOptions::new(template) };
    Stack::start(options).await.map_err(|error| Failure::new(Exit::Failed, Context::new("the local stack does not start", error)))
}

/// Waits until no call to AWS has come for a while, and answers with all since the counters were reset.
///
/// # Errors
/// When calls come for half a minute on end.
pub(super) async fn settled(stack: &Stack) -> Outcome<Vec<CallCount>> {
    let settled = async {
        let mut last = stack.calls();
        let mut quiet = Duration::ZERO;
        while quiet < QUIET {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = stack.calls();
            quiet = if now == last { quiet + LOOK_EVERY } else { Duration::ZERO };
            last = now;
        }
        last
    };
    let failed = |_| Failure::new(Exit::Failed, format!("calls were made for {} s on end", PATIENCE.as_secs()));
    timeout(PATIENCE, settled).await.map_err(failed)
}

/// Ends the stack, and with it the streams that are in the middle of something.
pub(super) async fn end(stack: Stack) {
    logging::ending();
    stack.shutdown().await;
}

/// A connected WebSocket client.
///
/// # Errors
/// When the stack has no WebSocket API or refuses.
pub(super) async fn websocket(ready: &Ready) -> Outcome<(websocket::Client, Incoming)> {
    let url = endpoint("a WebSocket API", ready.websocket.as_ref())?;
    websocket::connect(websocket::Options::new(url, token(ready))).await.map_err(connect_failure)
}

/// The same, subscribed to a channel.
///
/// # Errors
/// When the stack refuses.
pub(super) async fn websocket_subscriber(ready: &Ready, channel: &Channel) -> Outcome<(websocket::Client, Incoming)> {
    let (client, incoming) = websocket(ready).await?;
    client.subscribe(channel, None).await.map_err(request_failure)?;
    Ok((client, incoming))
}

/// An MQTT client that is subscribed to a channel.
///
/// # Errors
/// When the stack has no MQTT or refuses.
pub(super) async fn mqtt_subscriber(ready: &Ready, channel: &Channel) -> Outcome<(Subscription, Incoming)> {
    let url = endpoint("MQTT", ready.mqtt.as_ref())?;
    let prefix = MqttPrefix::parse(ready.mqtt_prefix.as_deref().unwrap_or_default());
    let prefix = prefix.map_err(|error| Failure::new(Exit::Failed, error))?;
    let options = mqtt::Options::new(url, token(ready), prefix, vec![channel.clone()]);
    begun(mqtt::connect(options).await.map_err(mqtt_failure)?).await
}

/// An SSE client that is subscribed to a channel, over every planned end.
///
/// # Errors
/// When the stack has no streams or refuses.
pub(super) async fn sse_subscriber(ready: &Ready, channel: &Channel) -> Outcome<(Subscription, Incoming)> {
    stream(sse_options(ready, channel, None)?).await
}

/// The same for one stream alone, from a position where there is one: at the stream's planned end the client is at its end too.
///
/// # Errors
/// As [`sse_subscriber`].
pub(super) async fn one_stream(ready: &Ready, channel: &Channel, since: Option<Position>) -> Outcome<(Subscription, Incoming)> {
    stream(sse::Options { reconnect: None, ..sse_options(ready, channel, since)? }).await
}

/// Waits for the end of one stream, whatever comes until then.
///
/// # Errors
/// When it does not end within half a minute.
pub(super) async fn over((_subscription, mut incoming): (Subscription, Incoming)) -> Outcome {
    let ended = timeout(PATIENCE, async { while incoming.next().await.is_some() {} }).await;
    ended.map_err(|_| Failure::new(Exit::Failed, format!("a stream did not end within {} s", PATIENCE.as_secs())))
}

fn sse_options(ready: &Ready, channel: &Channel, since: Option<Position>) -> Outcome<sse::Options> {
    let url = endpoint("streams", ready.stream.as_ref())?;
    Ok(sse::Options::new(url, token(ready), vec![(channel.clone(), since)]))
}

async fn stream(options: sse::Options) -> Outcome<(Subscription, Incoming)> {
    begun(sse::connect(options).await.map_err(stream_failure)?).await
}

/// Who publishes over HTTP.
///
/// # Errors
/// When the stack has no function URL for it.
pub(super) fn publisher(ready: &Ready) -> Outcome<Publisher> {
    let url = endpoint("a function URL of publish", ready.publish.as_ref())?;
    Publisher::new(&url, token(ready)).map_err(|error| Failure::new(Exit::Failed, error))
}

/// Publishes one message over HTTP.
///
/// # Errors
/// When it is refused.
pub(super) async fn publish(publisher: &Publisher, message: Message) -> Outcome {
    let failed = |error: Box<dyn Error + Send + Sync>| Failure::new(Exit::Failed, Context::new("cannot publish", error));
    let outcomes = publisher.publish(&[message]).await.map_err(|error| failed(error.into()))?;
    outcomes.into_iter().try_for_each(|outcome| outcome.fate.map(drop).map_err(|fault| failed(fault.into())))
}

/// Waits for the next message. Whatever else a subscriber is told would make its figures those of something else.
///
/// # Errors
/// When something else comes, or nothing for half a minute.
pub(super) async fn delivery(incoming: &mut Incoming) -> Outcome<carillon_client::items::Delivery> {
    match timeout(PATIENCE, incoming.next()).await {
        Ok(Some(Item::Delivery(delivery))) => Ok(delivery),
        Ok(Some(Item::Notice(notice))) => {
            Err(Failure::new(Exit::Failed, format!("a subscriber was told {notice:?} instead of a message")))
        }
        Ok(None) => Err(Failure::new(Exit::Failed, "a subscriber is at its end")),
        Err(_) => Err(Failure::new(Exit::Failed, format!("no message came within {} s", PATIENCE.as_secs()))),
    }
}

async fn begun((subscription, mut incoming): (Subscription, Incoming)) -> Outcome<(Subscription, Incoming)> {
    match timeout(PATIENCE, incoming.next()).await {
        Ok(Some(Item::Notice(Notice::Subscribed { .. }))) => Ok((subscription, incoming)),
        other => Err(Failure::new(Exit::Failed, format!("a subscription did not begin: {other:?}"))),
    }
}

fn endpoint(what: &str, url: Option<&String>) -> Outcome<String> {
    url.cloned().ok_or_else(|| Failure::new(Exit::Failed, format!("the template has not {what}")))
}

fn token(ready: &Ready) -> Option<Token> {
    ready.token.clone().map(Token::new)
}
