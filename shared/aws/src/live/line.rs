//! One connection to IoT Core, and the MQTT client behind it, whose types stay in this file.
//!
//! A line is a task that owns its client: it is dialled once, takes orders, reports, and ends when it is lost or nobody gives it
//! orders any more. The client's own reconnection is off: it subscribes again late and silently, with a signature that has expired.

use super::address::{Address, AddressError};
use super::message::{self, Message, Unreadable};
use carillon_core::channel::Channel;
use carillon_core::mqtt::MqttPrefix;
use carillon_core::time::Millis;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use mqtt5::error::MqttError;
use mqtt5::transport::tls::TlsConfig;
use mqtt5::transport::websocket::WebSocketConfig;
use mqtt5::types::KeepaliveConfig;
use mqtt5::{ConnectOptions, ConnectionEvent, MqttClient, QoS, SubscribeOptions};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use uuid::Uuid;

/// How often the line is shown to be alive: the shortest that IoT Core allows, and the shortest whose pings it does not bill
/// (<https://aws.amazon.com/iot-core/pricing/>). It hangs up after one and a half of it.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// When a ping goes out, in percent of [`KEEP_ALIVE`].
const PING_PERCENT: u8 = 100;

/// How long a ping may stay unanswered, in percent of [`KEEP_ALIVE`]: a dead peer is noticed at the next one.
const PONG_PERCENT: u8 = 45;

/// How long TCP, TLS and the WebSocket's handshake may take together.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long all of it may take, CONNECT and CONNACK included.
const OPEN_TIMEOUT: Duration = Duration::from_secs(8);

/// How long SUBACK and UNSUBACK may take. A line that does not answer so long is as good as lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long is tried to say goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// The largest packet that is taken: IoT Core's largest payload, 128 KiB, with room for topic and properties.
const PACKET_BYTES: u32 = 150 * 1024;

/// Messages that may be on their way without an acknowledgement: IoT Core's own limit.
const RECEIVE_MAXIMUM: u16 = 100;

/// What it takes to dial a line.
#[derive(Clone, Debug)]
pub(super) struct Dialer {
    address: Arc<Address>,
    authorities: Arc<[CertificateDer<'static>]>,
    prefix: MqttPrefix,
}

/// What a line is told.
#[derive(Debug)]
pub(super) enum Order {
    /// Subscribe to a channel. The ticket comes back with the answer.
    Join { channel: Channel, ticket: u64 },
    /// Unsubscribe from a channel.
    Leave { channel: Channel },
}

/// What a line reports.
#[derive(Debug)]
pub(super) enum Event {
    /// What is published on the channel is heard from here on, and was not given up since.
    Joined { channel: Channel, ticket: u64 },
    /// IoT Core does not let us subscribe to the channel.
    Denied { channel: Channel, ticket: u64, reason: String },
    /// A message.
    Message { channel: Channel, message: Message },
    /// A message that cannot be read.
    Unreadable { channel: Channel, reason: Unreadable },
    /// The line is lost, or could not be had. It is the last event.
    Lost(LineError),
}

/// Why a line is lost.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    /// There is no address to dial.
    #[error("the address cannot be signed")]
    Unsigned(#[from] AddressError),
    /// The connection could not be made.
    #[error("the connection could not be made")]
    Refused(#[source] Box<dyn Error + Send + Sync>),
    /// It took too long.
    #[error("no connection was made within {} s", OPEN_TIMEOUT.as_secs())]
    TooSlow,
    /// It ended.
    #[error("the connection ended: {0}")]
    Ended(String),
    /// A request failed.
    #[error("a request was not answered as it should be")]
    Unanswered(#[source] Box<dyn Error + Send + Sync>),
    /// A request got no answer.
    #[error("a request was not answered within {} s", ANSWER_TIMEOUT.as_secs())]
    Deaf,
}

impl Dialer {
    pub(super) fn new(address: Address, authorities: Arc<[CertificateDer<'static>]>, prefix: MqttPrefix) -> Self {
        Self { address: Arc::new(address), authorities, prefix }
    }

    /// Dials a line, with a signature and a client id of its own. It takes orders at once, and hangs up when the sender is dropped.
    pub(super) fn dial<R>(&self, now: Millis, report: R) -> mpsc::UnboundedSender<Order>
    where
        R: Fn(Event) + Clone + Send + Sync + 'static,
    {
        let (sender, orders) = mpsc::unbounded_channel();
        let dialer = self.clone();
        tokio::spawn(async move {
            if let Err(error) = dialer.serve(now, orders, &report).await {
                report(Event::Lost(error));
            }
        });
        sender
    }

    async fn serve<R>(&self, now: Millis, mut orders: mpsc::UnboundedReceiver<Order>, report: &R) -> Result<(), LineError>
    where
        R: Fn(Event) + Clone + Send + Sync + 'static,
    {
        let options = self.options(now)?;
        let client = MqttClient::with_options(options.clone());
        let (ending, mut ended) = mpsc::unbounded_channel();
        let noticed = client.on_connection_event(move |event| {
            if let ConnectionEvent::Disconnected { reason } = event {
                let _ = ending.send(format!("{reason:?}"));
            }
        });
        noticed.await.map_err(|error| LineError::Refused(error.into()))?;
        let mut channels = Channels { client: client.clone(), prefix: self.prefix.clone(), known: HashMap::new() };
        let url = self.address.url();
        let mut opening = Box::pin(tokio::time::timeout(OPEN_TIMEOUT, client.connect_with_options(&url, options)));
        // Orders are taken in while it is dialled, so that it is noticed when nobody wants the line any more.
        let mut early = Vec::new();
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => early.push(order),
                    None => return Ok(()),
                },
                opened = &mut opening => match opened {
                    Ok(Ok(_)) => break,
                    Ok(Err(error)) => return Err(LineError::Refused(error.into())),
                    Err(_) => return Err(LineError::TooSlow),
                },
            }
        }
        drop(opening);
        let mut requests = FuturesUnordered::new();
        for order in early {
            requests.extend(channels.take(order, report));
        }
        let outcome = loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => requests.extend(channels.take(order, report)),
                    None => break Ok(()),
                },
                Some(answered) = requests.next(), if !requests.is_empty() => match channels.note(answered, report) {
                    Ok(next) => requests.extend(next),
                    Err(error) => break Err(error),
                },
                Some(reason) = ended.recv() => break Err(LineError::Ended(reason)),
            }
        };
        // A request holds the client's lock until it is answered, and hanging up would wait for it.
        drop(requests);
        hang_up(&client).await;
        outcome
    }

    fn options(&self, now: Millis) -> Result<ConnectOptions, LineError> {
        let signed = self.address.signed_url(now)?;
        let refused = |error: MqttError| LineError::Refused(error.into());
        // The client logs the URL that it is given, so the signature is put in behind its back.
        let mut websocket = WebSocketConfig::new(&self.address.url()).map_err(refused)?.with_timeout(HANDSHAKE_TIMEOUT);
        websocket = websocket.with_request_modifier(move |mut request| {
            *request.uri_mut() = signed.clone();
            std::future::ready(Ok::<_, Infallible>(request))
        });
        if self.address.is_secure() {
            websocket = websocket.with_tls_config(self.tls());
        }
        let mut options = ConnectOptions::new(client_id(&self.prefix))
            .with_clean_start(true)
            .with_session_expiry_interval(0)
            .with_keep_alive(KEEP_ALIVE)
            .with_keepalive_config(KeepaliveConfig::new(PING_PERCENT, PONG_PERCENT))
            .with_automatic_reconnect(false)
            .with_receive_maximum(RECEIVE_MAXIMUM)
            .with_websocket_config(websocket);
        options.properties.maximum_packet_size = Some(PACKET_BYTES);
        Ok(options)
    }

    /// The authorities of the other clients, and no others. Host and address come from the URL.
    fn tls(&self) -> TlsConfig {
        // It builds on the process's cryptography, which is nobody's choice where two are linked.
        if CryptoProvider::get_default().is_none() {
            // Somebody may have been faster.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        TlsConfig::new(nowhere, "").with_root_certs(self.authorities.to_vec()).with_system_roots(false)
    }
}

/// Unique, since IoT Core hangs up on the older of two clients with one id; within its 128 bytes, of which the prefix has 48 at most.
fn client_id(prefix: &MqttPrefix) -> String {
    format!("{prefix}-stream-{}", Uuid::new_v4().simple())
}

/// Without this the client's tasks and its socket live on.
async fn hang_up(client: &MqttClient) {
    if client.is_connected().await {
        let _ = tokio::time::timeout(GOODBYE_TIMEOUT, client.disconnect()).await;
    }
}

/// The channels of a line: one request at a time for each of them, so that a SUBSCRIBE never overtakes an UNSUBSCRIBE of the same
/// channel, nor is sent twice, which would bring every message twice. One channel a request, within IoT Core's eight.
struct Channels {
    client: MqttClient,
    prefix: MqttPrefix,
    known: HashMap<Channel, Known>,
}

/// A channel that was asked for at some time and is not done with.
struct Known {
    /// The ticket, where it is asked for now.
    wanted: Option<u64>,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Off,
    Joining,
    On,
    Leaving,
}

/// A request that got its answer, or none.
struct Answered {
    channel: Channel,
    /// None where it took too long.
    answer: Option<Result<(), MqttError>>,
}

type Request = BoxFuture<'static, Answered>;

impl Channels {
    fn take<R>(&mut self, order: Order, report: &R) -> Option<Request>
    where
        R: Fn(Event) + Clone + Send + Sync + 'static,
    {
        let (channel, wanted) = match order {
            Order::Join { channel, ticket } => (channel, Some(ticket)),
            Order::Leave { channel } => (channel, None),
        };
        self.known.entry(channel.clone()).or_insert(Known { wanted: None, stage: Stage::Off }).wanted = wanted;
        self.step(channel, report)
    }

    /// Writes down an answer.
    ///
    /// # Errors
    /// When the line is no good any more.
    fn note<R>(&mut self, answered: Answered, report: &R) -> Result<Option<Request>, LineError>
    where
        R: Fn(Event) + Clone + Send + Sync + 'static,
    {
        let Answered { channel, answer } = answered;
        let Some(known) = self.known.get_mut(&channel) else { return Ok(None) };
        known.stage = match (known.stage, answer.ok_or(LineError::Deaf)?) {
            (Stage::Joining, Ok(())) => Stage::On,
            (Stage::Joining, Err(MqttError::SubscriptionDenied(reason))) => {
                if let Some(ticket) = known.wanted.take() {
                    let (channel, reason) = (channel.clone(), format!("{reason:?}"));
                    report(Event::Denied { channel, ticket, reason });
                }
                Stage::Off
            }
            (_, Ok(())) => Stage::Off,
            (_, Err(error)) => return Err(LineError::Unanswered(error.into())),
        };
        Ok(self.step(channel, report))
    }

    /// What is to be done next for a channel, if anything.
    fn step<R>(&mut self, channel: Channel, report: &R) -> Option<Request>
    where
        R: Fn(Event) + Clone + Send + Sync + 'static,
    {
        let known = self.known.get_mut(&channel)?;
        match (known.stage, known.wanted) {
            (Stage::Off, Some(_)) => {
                known.stage = Stage::Joining;
                Some(self.subscribe(channel, report.clone()))
            }
            (Stage::Off, None) => {
                self.known.remove(&channel);
                None
            }
            (Stage::On, Some(ticket)) => {
                report(Event::Joined { channel, ticket });
                None
            }
            (Stage::On, None) => {
                known.stage = Stage::Leaving;
                Some(self.unsubscribe(channel))
            }
            (Stage::Joining | Stage::Leaving, _) => None,
        }
    }

    fn subscribe<R>(&self, channel: Channel, report: R) -> Request
    where
        R: Fn(Event) + Send + Sync + 'static,
    {
        let (client, topic, heard) = (self.client.clone(), self.prefix.topic(&channel), channel.clone());
        let options = SubscribeOptions { qos: QoS::AtLeastOnce, ..SubscribeOptions::default() };
        let hear = move |published: mqtt5::Message| {
            // A retained message is older than the subscription: the log has it.
            if published.retain {
                return;
            }
            let channel = heard.clone();
            report(match message::read(&published.payload, &published.properties.user_properties) {
                Ok(message) => Event::Message { channel, message },
                Err(reason) => Event::Unreadable { channel, reason },
            });
        };
        async move {
            let asked = client.subscribe_with_options(topic, options, hear);
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, asked).await;
            Answered { channel, answer: answer.ok().map(|answer| answer.map(|_| ())) }
        }
        .boxed()
    }

    fn unsubscribe(&self, channel: Channel) -> Request {
        let (client, topic) = (self.client.clone(), self.prefix.topic(&channel));
        async move {
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.unsubscribe(topic)).await;
            Answered { channel, answer: answer.ok() }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_leaves_room_for_a_unique_client_id() {
        let prefix = MqttPrefix::parse(&"p".repeat(48)).expect("a prefix");
        let [one, other] = [client_id(&prefix), client_id(&prefix)];
        assert_ne!(one, other);
        assert!(one.len() <= 128, "{}", one.len());
    }
}
