//! The demo's subscribers. Another protocol is another [`Protocol`] with its own `connect`.

use crate::commands::{connect_failure, mqtt_failure, request_failure, stream_failure};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use carillon_client::items::{Incoming, Item, Notice, Subscription};
use carillon_client::token::Token;
use carillon_client::{mqtt, sse, websocket};
use carillon_core::channel::Channel;
use carillon_core::event::EventJson;
use carillon_core::mqtt::MqttPrefix;
use carillon_core::position::Position;
use carillon_local::stack::Ready;
use serde::Deserialize;
use std::fmt;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// The protocols, and how many subscribers of each.
const KINDS: [(Protocol, usize); 3] = [(Protocol::WebSocket, 2), (Protocol::Mqtt, 2), (Protocol::Sse, 2)];

/// How long a stream may take to begin: a function starts for it, for the first time.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// What subscribers have seen and nobody has taken yet.
const WAITING: usize = 256;

/// How a subscriber listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    WebSocket,
    Mqtt,
    Sse,
}

/// A subscriber as people know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// Its protocol.
    pub(super) protocol: &'static str,
    /// Its number among those of its protocol, from 1.
    pub(super) number: usize,
}

/// Something that a subscriber has seen.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    /// Which subscriber: an index into the names.
    pub(super) subscriber: usize,
    /// When.
    pub(super) at: Instant,
    /// What.
    pub(super) what: What,
}

/// What a subscriber can see.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    /// A message.
    Message {
        /// Where it stands.
        position: Position,
        /// The event's id.
        id: String,
    },
    /// A message that came again and was dropped by the client's rule.
    Repeat {
        /// Where it stands.
        position: Position,
    },
    /// Something that a subscriber should not see.
    Trouble(String),
}

/// The demo's subscribers, each acknowledged.
pub(super) struct Subscribers {
    /// Their names.
    pub(super) names: Vec<Name>,
    /// The protocols that the template does not have, with what it lacks.
    pub(super) left_out: Vec<(&'static str, &'static str)>,
    seen: mpsc::Receiver<Seen>,
}

impl Subscribers {
    /// Connects all of them and waits until each is acknowledged: what is published from then on reaches it.
    pub(super) async fn connect(ready: &Ready, channel: &Channel) -> Outcome<Self> {
        let (sender, seen) = mpsc::channel(WAITING);
        let (mut names, mut left_out) = (Vec::new(), Vec::new());
        for (protocol, count) in KINDS {
            if let Some(lack) = protocol.lacks(ready) {
                left_out.push((protocol.name(), lack));
                continue;
            }
            for number in 1..=count {
                let eye = Eye { subscriber: names.len(), seen: sender.clone() };
                match protocol {
                    Protocol::WebSocket => connect_websocket(ready, channel, eye).await?,
                    Protocol::Mqtt => connect_mqtt(ready, channel, eye).await?,
                    Protocol::Sse => connect_sse(ready, channel, eye).await?,
                }
                names.push(Name { protocol: protocol.name(), number });
            }
        }
        Ok(Self { names, left_out, seen })
    }

    /// What any of them sees next.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Outcome<Seen> {
        self.seen.recv().await.ok_or_else(|| Failure::new(Exit::Failed, "every subscriber of the demo is at its end"))
    }
}

/// Where a subscriber tells what it sees.
struct Eye {
    subscriber: usize,
    seen: mpsc::Sender<Seen>,
}

impl Eye {
    /// Tells; `false` where nobody listens any more.
    async fn tell(&self, at: Instant, what: What) -> bool {
        self.seen.send(Seen { subscriber: self.subscriber, at, what }).await.is_ok()
    }
}

async fn connect_websocket(ready: &Ready, channel: &Channel, eye: Eye) -> Outcome {
    let url = ready.websocket.clone().ok_or_else(|| {
        Failure::new(Exit::Usage, "the template has no WebSocket API, which the demo subscribes through")
            .hint("the demo is for Carillon's own template")
    })?;
    let options = websocket::Options::new(url, token(ready));
    let (client, incoming) = websocket::connect(options).await.map_err(connect_failure)?;
    client.subscribe(channel, None).await.map_err(request_failure)?;
    tokio::spawn(async move {
        watch(incoming, eye).await;
        client.close().await;
    });
    Ok(())
}

async fn connect_mqtt(ready: &Ready, channel: &Channel, eye: Eye) -> Outcome {
    let prefix = MqttPrefix::parse(ready.mqtt_prefix.as_deref().unwrap_or_default());
    let prefix = prefix.map_err(|error| Failure::new(Exit::Failed, error))?;
    let url = ready.mqtt.clone().unwrap_or_default();
    let options = mqtt::Options::new(url, token(ready), prefix, vec![channel.clone()]);
    let (subscription, incoming) = mqtt::connect(options).await.map_err(mqtt_failure)?;
    begin(subscription, incoming, eye).await
}

async fn connect_sse(ready: &Ready, channel: &Channel, eye: Eye) -> Outcome {
    let url = ready.stream.clone().unwrap_or_default();
    let options = sse::Options::new(url, token(ready), vec![(channel.clone(), None)]);
    let (subscription, incoming) = sse::connect(options).await.map_err(stream_failure)?;
    begin(subscription, incoming, eye).await
}

/// Waits until the subscription is acknowledged, and watches what comes then.
async fn begin(subscription: Subscription, mut incoming: Incoming, eye: Eye) -> Outcome {
    match timeout(BEGIN_TIMEOUT, incoming.next()).await {
        Ok(Some(Item::Notice(Notice::Subscribed { .. }))) => {}
        Ok(Some(Item::Notice(notice))) => return Err(Failure::new(Exit::Failed, trouble(&notice))),
        Ok(Some(Item::Delivery(_)) | None) => return Err(Failure::new(Exit::Failed, "a subscription did not begin")),
        Err(_) => {
            let error = format!("a subscription did not begin within {} s", BEGIN_TIMEOUT.as_secs());
            return Err(Failure::new(Exit::Failed, error));
        }
    }
    tokio::spawn(async move {
        watch(incoming, eye).await;
        subscription.close().await;
    });
    Ok(())
}

/// Tells what comes until nobody listens or the client is at its end.
async fn watch(mut incoming: Incoming, eye: Eye) {
    while let Some(item) = incoming.next().await {
        let now = Instant::now();
        let is_heard = match item {
            Item::Delivery(delivery) => {
                let what = What::Message { position: delivery.position, id: id_of(&delivery.event) };
                eye.tell(delivery.received_at, what).await
            }
            Item::Notice(Notice::Repeat { position, .. }) => eye.tell(now, What::Repeat { position }).await,
            // A stream has a planned end every few minutes.
            Item::Notice(Notice::Reconnected | Notice::Subscribed { .. } | Notice::Disconnected { planned: true, .. }) => true,
            Item::Notice(notice) => eye.tell(now, What::Trouble(trouble(&notice))).await,
        };
        if !is_heard {
            break;
        }
    }
}

fn token(ready: &Ready) -> Option<Token> {
    ready.token.clone().map(Token::new)
}

fn trouble(notice: &Notice) -> String {
    match notice {
        Notice::Gap { after, to, .. } => format!("the messages after {after} up to {to} cannot be delivered"),
        Notice::Unrecovered { since, .. } => format!("{since} cannot be continued"),
        Notice::Hole { position, found, .. } | Notice::Missed { after: position, found, .. } => {
            format!("{found} came after {position}, and what lies between is missing")
        }
        Notice::Refused { fault, .. } => format!("the subscription is refused: {fault}"),
        Notice::Disconnected { reason, .. } => format!("disconnected: {reason}"),
        Notice::Unclaimed { message } => format!("the gateway says: {message}"),
        Notice::Ended(end) => end.to_string(),
        Notice::Repeat { position, .. } => format!("{position} came again"),
        Notice::Subscribed { .. } => "subscribed".to_owned(),
        Notice::Reconnected => "connected again".to_owned(),
    }
}

fn id_of(event: &EventJson) -> String {
    #[derive(Deserialize)]
    struct Identified {
        id: String,
    }
    serde_json::from_str(event.as_str()).map_or_else(|_| String::new(), |Identified { id }| id)
}

impl Protocol {
    const fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Mqtt => "mqtt",
            Self::Sse => "sse",
        }
    }

    /// What the stack lacks to serve this protocol. Without a WebSocket API there is no demo at all.
    const fn lacks(self, ready: &Ready) -> Option<&'static str> {
        match self {
            Self::Mqtt if ready.mqtt.is_none() || ready.mqtt_prefix.is_none() => Some("the template does not use IoT Core"),
            Self::Sse if ready.stream.is_none() => Some("the template has no function of streams"),
            _ => None,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.protocol, self.number)
    }
}
