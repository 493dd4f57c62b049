//! IoT Core: an MQTT broker (3.1.1 and 5, over TCP and over WebSocket at `/mqtt`), the HTTP data plane, custom authorizers, rules
//! and lifecycle events.
//!
//! | module | is |
//! |---|---|
//! | `broker`, `session` | who gets what: subscriptions, sessions, retained messages, wills; no sockets, no clock |
//! | `codec` | packets of both versions; the only file that knows the crate of the wire format |
//! | `connection`, `websocket` | one client, from its CONNECT to its end, on either transport |
//! | `authorizer`, `policy`, `signature` | who may come in, and what they may do |
//! | `data_plane` | Publish and the other calls over HTTP |
//! | [`sql`], `rules` | messages that invoke functions |
//! | `lifecycle` | the service's own messages about clients |
//! | [`topic`], [`limits`] | topics, filters and every number |
//!
//! The broker is written here, on a crate's wire format, rather than taken whole: where IoT Core departs from the specification is
//! where a broker decides, and a general one has no place to say so.
//!
//! # As on AWS
//! No QoS 2: a PUBLISH with it ends the connection, a subscription is granted 1. Payloads of 128 KB, topics of 256 bytes and 7
//! slashes, client ids of 128 bytes, 8 filters a SUBSCRIBE, 50 subscriptions a connection, 100 messages in flight, keep-alive from
//! 30 to 1200 s and an end after one and a half of it. Retained messages are not for wildcard subscriptions; `a/#` does not match
//! `a`; no subscription identifiers and no AUTH; a newer connection ends the older one of its client id; sessions of MQTT 3.1.1
//! and MQTT 5 are apart; persistent sessions last an hour, or what MQTT 5 asks for up to 7 days. A publish that no policy allows
//! ends the connection, and so does a subscription, whose SUBACK says it first. Shared subscriptions, message expiry, topic
//! aliases, will delay and basic ingest are there. Wills are said unless the client said goodbye.
//!
//! # Not as on AWS
//! Messages are in order and come once as long as a connection lasts; AWS promises neither. Nothing is throttled: not the rate of
//! connections, of messages or of a session's stored ones. A message that is not acknowledged is sent again with the next
//! connection alone. A client that has overlapping subscriptions gets a message once. A shared subscription takes its members in
//! turn. There is no TLS, and so no client certificate. Whoever signs with Signature Version 4 may do everything, since IAM is
//! not emulated; signatures are looked at and not verified. There are no shadows, jobs, things or fleet, and of the reserved topics
//! clients may publish on `$aws/rules/…` alone. While the service is away (see [`Iot::set_away`]) nothing is published, so what
//! ends then leaves neither a will nor an event.

mod authorizer;
mod broker;
mod codec;
mod connection;
pub(crate) mod data_plane;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod lifecycle;
pub mod limits;
mod message;
mod policy;
mod rules;
mod session;
mod signature;
pub mod sql;
pub mod topic;
mod websocket;

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::any;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::calls::Calls;
use crate::front_door::hang_up;
use crate::invoker::Invoker;
use crate::spec::{AuthorizerSpec, TopicRuleSpec};

use authorizer::Authorizers;
use broker::Broker;
use connection::Origin;
use limits::{SHUTDOWN_TIME, SWEEP_INTERVAL};
use message::{Message, Now};
use rules::Rules;

/// How long the listener rests after it could not accept, which is mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a template asks of IoT Core, and whose it is.
#[derive(Clone, Debug)]
pub struct IotOptions {
    /// The custom authorizers.
    pub authorizers: Vec<AuthorizerSpec>,
    /// The rules.
    pub rules: Vec<TopicRuleSpec>,
    /// The account id, for policies.
    pub account: String,
    /// The region, for policies.
    pub region: String,
    /// Where MQTT over TCP listens.
    pub mqtt_address: SocketAddr,
    /// Where HTTP and MQTT over WebSocket listen.
    pub http_address: SocketAddr,
    /// Counts the calls of the data plane.
    pub calls: Calls,
}

/// A running IoT Core. Clones are the same one.
#[derive(Clone)]
pub struct Iot {
    shared: Arc<Shared>,
}

/// What all parts share.
struct Shared {
    broker: Mutex<Broker>,
    authorizers: Authorizers,
    rules: Rules,
    calls: Calls,
    mqtt_address: SocketAddr,
    http_address: SocketAddr,
    away: watch::Sender<bool>,
    tasks: TaskTracker,
    /// Cancelled to end everything in good order.
    stopping: CancellationToken,
    /// Cancelled to end at once what has not ended by itself.
    cut: CancellationToken,
}

/// Why a connection cannot go on, whatever the client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interruption {
    /// The service cannot be reached.
    Away,
    /// The stack ends.
    Stopping,
}

impl Iot {
    /// A broker without clients. Functions are reached through `invoker`.
    #[must_use]
    pub fn start(options: IotOptions, invoker: Arc<dyn Invoker>) -> Self {
        let IotOptions { authorizers, rules, account, region, mqtt_address, http_address, calls } = options;
        let shared = Arc::new(Shared {
            broker: Mutex::default(),
            authorizers: Authorizers::new(authorizers, invoker.clone(), &account, &region),
            rules: Rules::new(rules, invoker),
            calls,
            mqtt_address,
            http_address,
            away: watch::Sender::new(false),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            cut: CancellationToken::new(),
        });
        shared.spawn(sweep(shared.clone()));
        Self { shared }
    }

    /// Serves MQTT over TCP until [`Self::shutdown`].
    pub async fn serve_mqtt(&self, listener: TcpListener) {
        let stopping = self.shared.stopping.clone();
        while let Some(accepted) = stopping.run_until_cancelled(listener.accept()).await {
            match accepted {
                // A service that cannot be reached does not answer.
                Ok(_) if self.is_away() => {}
                Ok((stream, peer)) => self.shared.spawn(serve_tcp(self.shared.clone(), stream, peer)),
                Err(error) => {
                    tracing::warn!(%error, "an MQTT client could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// The routes of the HTTP port: `/mqtt` for WebSockets, the data plane for all else. The front door must put the client's
    /// address into every request.
    pub fn router(&self) -> Router {
        let websocket = async |State(iot): State<Self>, request: Request| match websocket::peer_of(&request) {
            _ if iot.is_away() => hang_up(),
            Some(peer) => websocket::handshake(&iot.shared, peer, request),
            None => {
                let message = "The client's address is not known.";
                data_plane::error(StatusCode::INTERNAL_SERVER_ERROR, "InternalFailureException", message)
            }
        };
        let data_plane = async |State(iot): State<Self>, request: Request| iot.respond(request).await;
        Router::new().route("/mqtt", any(websocket)).fallback(data_plane).with_state(self.clone())
    }

    /// Answers a call of the data plane.
    pub async fn respond(&self, request: Request) -> Response {
        if self.is_away() { hang_up() } else { data_plane::respond(&self.shared, request).await }
    }

    /// Takes the service away, or brings it back. While it is away every connection is cut and every new one closed without an
    /// answer; sessions, subscriptions and retained messages stay.
    pub fn set_away(&self, away: bool) {
        self.shared.away.send_if_modified(|current| {
            let is_change = *current != away;
            *current = away;
            is_change
        });
    }

    /// Whether the service is away.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.shared.is_away()
    }

    /// Ends everything at once, without a word to anyone.
    pub(crate) fn cut(&self) {
        self.shared.stopping.cancel();
        self.shared.cut.cancel();
    }

    /// Ends every connection, MQTT 5 clients with a DISCONNECT that says so, and returns within a second.
    pub async fn shutdown(&self) {
        self.shared.stopping.cancel();
        self.shared.tasks.close();
        if tokio::time::timeout(SHUTDOWN_TIME, self.shared.tasks.wait()).await.is_err() {
            self.shared.cut.cancel();
            self.shared.tasks.wait().await;
        }
    }
}

impl fmt::Debug for Iot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Iot")
            .field("mqtt_address", &self.shared.mqtt_address)
            .field("http_address", &self.shared.http_address)
            .field("away", &self.is_away())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn broker(&self) -> MutexGuard<'_, Broker> {
        self.broker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_away(&self) -> bool {
        *self.away.borrow()
    }

    /// Waits until connections have to end.
    async fn interruption(&self) -> Interruption {
        let mut away = self.away.subscribe();
        tokio::select! {
            _ = away.wait_for(|away| *away) => Interruption::Away,
            () = self.stopping.cancelled() => Interruption::Stopping,
        }
    }

    /// Publishes what a client sent, on its topic or, for basic ingest, to one rule.
    fn publish_of_client(&self, message: Message, client_id: &str) {
        let trace_id = uuid::Uuid::new_v4().to_string();
        let origin = rules::Origin { client_id: Some(client_id), trace_id: Some(&trace_id) };
        self.publish(&Arc::new(message), origin);
    }

    /// Publishes a client's will.
    fn publish_will(&self, message: &Arc<Message>) {
        self.publish(message, rules::Origin { client_id: None, trace_id: None });
    }

    /// Publishes an event of the service itself, where there is one.
    fn publish_event(&self, message: Option<Message>) {
        if let Some(message) = message {
            self.publish(&Arc::new(message), rules::Origin { client_id: None, trace_id: None });
        }
    }

    fn publish(&self, message: &Arc<Message>, origin: rules::Origin<'_>) {
        if self.is_away() {
            return;
        }
        let now = Now::read();
        if let Some((rule, topic)) = message.topic.basic_ingest() {
            if !self.rules.ingest(rule, topic, &message.payload, origin, now) {
                tracing::warn!(rule.name = rule, "a message for a rule that the template does not have reaches nobody");
            }
            return;
        }
        self.broker().publish(message, origin.client_id, now);
        self.rules.run(message, origin, now);
    }

    /// Runs a task that a shutdown waits for, and cuts when it takes too long.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cut = self.cut.clone();
        let task = Box::pin(task);
        self.tasks.spawn(async move {
            cut.run_until_cancelled(task).await;
        });
    }
}

async fn serve_tcp(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
    // Small packets must not wait for each other. A socket that refuses is about to fail anyway.
    let _ = stream.set_nodelay(true);
    let local = stream.local_addr().unwrap_or(shared.mqtt_address);
    let origin = Origin { peer, local, server_name: local.ip().to_string(), handshake: None };
    connection::serve(shared, stream, origin).await;
}

/// Forgets at a steady pace what has run out, and says the wills that are due.
async fn sweep(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while shared.stopping.run_until_cancelled(ticks.tick()).await.is_some() {
        let wills = shared.broker().sweep(Now::read());
        for will in wills {
            shared.publish_will(&will);
        }
    }
}
