//! The demo's subscribers. Another protocol is another [`Protocol`] with its own `connect`.

use crate::commands::{connect_failure, request_failure};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use carillon_client::token::Token;
use carillon_client::websocket::{self, Client, Incoming, Item, Notice, Options};
use carillon_core::channel::Channel;
use carillon_core::event::EventJson;
use carillon_core::position::Position;
use carillon_local::stack::Ready;
use serde::Deserialize;
use std::fmt;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The protocols, and how many subscribers of each.
const KINDS: [(Protocol, usize); 1] = [(Protocol::WebSocket, 3)];

/// What subscribers have seen and nobody has taken yet.
const WAITING: usize = 256;

/// How a subscriber listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    WebSocket,
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
    seen: mpsc::Receiver<Seen>,
}

impl Subscribers {
    /// Connects all of them and waits until each is acknowledged: what is published from then on reaches it.
    pub(super) async fn connect(ready: &Ready, channel: &Channel) -> Outcome<Self> {
        let (sender, seen) = mpsc::channel(WAITING);
        let mut names = Vec::new();
        for (protocol, count) in KINDS {
            for number in 1..=count {
                let eye = Eye { subscriber: names.len(), seen: sender.clone() };
                match protocol {
                    Protocol::WebSocket => connect_websocket(ready, channel, eye).await?,
                }
                names.push(Name { protocol: protocol.name(), number });
            }
        }
        Ok(Self { names, seen })
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
    let options = Options::new(url, ready.token.clone().map(Token::new));
    let (client, incoming) = websocket::connect(options).await.map_err(connect_failure)?;
    client.subscribe(channel, None).await.map_err(request_failure)?;
    tokio::spawn(watch_websocket(client, incoming, eye));
    Ok(())
}

/// Holds the client, and with it the connection, until nobody listens or the client is at its end.
async fn watch_websocket(client: Client, mut incoming: Incoming, eye: Eye) {
    while let Some(item) = incoming.next().await {
        let now = Instant::now();
        let is_heard = match item {
            Item::Delivery(delivery) => {
                let what = What::Message { position: delivery.position, id: id_of(&delivery.event) };
                eye.tell(delivery.received_at, what).await
            }
            Item::Notice(Notice::Repeat { position, .. }) => eye.tell(now, What::Repeat { position }).await,
            Item::Notice(Notice::Reconnected) => true,
            Item::Notice(notice) => eye.tell(now, What::Trouble(trouble(&notice))).await,
        };
        if !is_heard {
            break;
        }
    }
    client.close().await;
}

fn trouble(notice: &Notice) -> String {
    match notice {
        Notice::Gap { after, to, .. } => format!("the messages after {after} up to {to} cannot be delivered"),
        Notice::Unrecovered { since, .. } => format!("{since} cannot be continued"),
        Notice::Hole { position, found, .. } => format!("{found} came after {position}, and what lies between is missing"),
        Notice::Refused { fault, .. } => format!("the subscription is refused: {fault}"),
        Notice::Disconnected { reason, .. } => format!("disconnected: {reason}"),
        Notice::Unclaimed { message } => format!("the gateway says: {message}"),
        Notice::Ended(end) => end.to_string(),
        Notice::Repeat { .. } | Notice::Reconnected => String::new(),
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
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.protocol, self.number)
    }
}
