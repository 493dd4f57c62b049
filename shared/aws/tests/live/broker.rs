//! A small MQTT 5 broker over WebSocket that does as it is told and remembers what it saw.

use crate::{EVENT, within};
use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt};
use mqtt5::packet::connack::ConnAckPacket;
use mqtt5::packet::publish::PublishPacket;
use mqtt5::packet::suback::{SubAckPacket, SubAckReasonCode};
use mqtt5::packet::unsuback::{UnsubAckPacket, UnsubAckReasonCode};
use mqtt5::protocol::v5::reason_codes::ReasonCode;
use mqtt5::transport::packet_io::{decode_buffered_packet, encode_packet_to_buffer};
use mqtt5::{Packet, QoS};
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;

/// The version byte of MQTT 5.
const VERSION: u8 = 5;

/// A broker on a free port, for as long as the test's runtime runs.
#[derive(Clone)]
pub(crate) struct Broker {
    address: String,
    shared: Arc<Shared>,
}

/// What happened, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A WebSocket was opened.
    Opened { line: usize, uri: String, subprotocol: String },
    /// A WebSocket was refused.
    Refused,
    /// CONNECT came.
    Connected { line: usize, client_id: String, keep_alive: u16, clean_start: bool, expiry: Option<u32> },
    /// SUBSCRIBE came, of one topic.
    Subscribed { line: usize, topic: String, qos: u8 },
    /// UNSUBSCRIBE came, of one topic.
    Unsubscribed { line: usize, topic: String },
    /// A connection ended, with or without DISCONNECT.
    Left { line: usize, politely: bool },
}

struct Shared {
    state: Mutex<State>,
    /// How many things were seen.
    seen: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    lines: BTreeMap<usize, Line>,
    opened: usize,
    refuses: bool,
    is_deaf: bool,
    denied: HashSet<String>,
    last_packet_id: u16,
}

struct Line {
    topics: HashSet<String>,
    /// What goes out. Dropped, the socket is closed without a word.
    out: mpsc::UnboundedSender<Packet>,
}

impl Broker {
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// One that speaks TLS.
    pub(crate) async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let address = format!("{scheme}://{}", listener.local_addr().expect("an address"));
        let shared = Arc::new(Shared { state: Mutex::default(), seen: watch::Sender::new(0) });
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.expect("a connection");
                let (tls, shared) = (tls.clone(), Arc::clone(&serving));
                tokio::spawn(async move {
                    match tls {
                        None => serve(socket, &shared).await,
                        // Who does not trust it goes away.
                        Some(tls) => match tls.accept(socket).await {
                            Ok(socket) => serve(socket, &shared).await,
                            Err(_) => shared.note(Seen::Refused),
                        },
                    }
                });
            }
        });
        Self { address, shared }
    }

    /// The endpoint of the data plane whose WebSocket this is.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.lock().seen.clone()
    }

    pub(crate) fn count(&self, is_meant: impl Fn(&Seen) -> bool) -> usize {
        self.shared.lock().seen.iter().filter(|event| is_meant(event)).count()
    }

    pub(crate) fn client_ids(&self) -> Vec<String> {
        let id = |event: Seen| match event {
            Seen::Connected { client_id, .. } => Some(client_id),
            _ => None,
        };
        self.seen().into_iter().filter_map(id).collect()
    }

    /// Waits until what was seen is as it should be.
    pub(crate) async fn until(&self, is_so: impl Fn(&[Seen]) -> bool) {
        let mut changes = self.shared.seen.subscribe();
        within(changes.wait_for(|_| is_so(&self.shared.lock().seen))).await.expect("the sender is here");
    }

    /// Publishes the usual event at this offset of epoch 1700.
    pub(crate) fn publish_at(&self, topic: &str, offset: u64) {
        self.publish(topic, EVENT, &[("epoch", "1700"), ("offset", &offset.to_string())]);
    }

    /// Publishes to whoever subscribed to exactly this topic, at QoS 1.
    pub(crate) fn publish(&self, topic: &str, payload: &str, properties: &[(&str, &str)]) {
        self.publish_with(topic, payload, properties, false);
    }

    /// The same as a retained message is sent to a new subscriber.
    pub(crate) fn publish_retained(&self, topic: &str, payload: &str, properties: &[(&str, &str)]) {
        self.publish_with(topic, payload, properties, true);
    }

    fn publish_with(&self, topic: &str, payload: &str, properties: &[(&str, &str)], retain: bool) {
        let mut state = self.shared.lock();
        state.last_packet_id = state.last_packet_id.checked_add(1).unwrap_or(1);
        let mut packet = PublishPacket::new(topic, payload.as_bytes().to_vec(), QoS::AtLeastOnce);
        packet.packet_id = Some(state.last_packet_id);
        packet.retain = retain;
        for (name, value) in properties {
            packet.properties.add_user_property((*name).to_owned(), (*value).to_owned());
        }
        for line in state.lines.values().filter(|line| line.topics.contains(topic)) {
            let _ = line.out.send(Packet::Publish(packet.clone()));
        }
    }

    /// Cuts every connection.
    pub(crate) fn cut(&self) {
        self.shared.lock().lines.clear();
    }

    pub(crate) fn cut_line(&self, line: usize) {
        self.shared.lock().lines.remove(&line);
    }

    /// Answers every WebSocket with 403 from here on, or no longer.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.shared.lock().refuses = refuses;
    }

    /// Answers no SUBSCRIBE from here on, or does so again.
    pub(crate) fn be_deaf(&self, is_deaf: bool) {
        self.shared.lock().is_deaf = is_deaf;
    }

    /// Answers a SUBSCRIBE of this topic with "not authorized".
    pub(crate) fn deny(&self, topic: &str) {
        self.shared.lock().denied.insert(topic.to_owned());
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    fn note(&self, event: Seen) {
        self.lock().seen.push(event);
        self.seen.send_modify(|count| *count += 1);
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(socket: S, shared: &Shared) {
    let (mut uri, mut subprotocol) = (String::new(), String::new());
    let refuses = shared.lock().refuses;
    #[expect(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
    let answer = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        uri = request.uri().to_string();
        let offered = request.headers().get("sec-websocket-protocol").and_then(|value| value.to_str().ok());
        subprotocol = offered.unwrap_or_default().to_owned();
        if refuses {
            let mut refusal = ErrorResponse::new(None);
            *refusal.status_mut() = StatusCode::FORBIDDEN;
            return Err(refusal);
        }
        response.headers_mut().insert("sec-websocket-protocol", "mqtt".parse().expect("a value"));
        Ok(response)
    };
    let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(socket, answer).await else {
        return shared.note(Seen::Refused);
    };
    let (out, mut outgoing) = mpsc::unbounded_channel();
    let line = {
        let mut state = shared.lock();
        state.opened += 1;
        let line = state.opened - 1;
        state.lines.insert(line, Line { topics: HashSet::new(), out });
        line
    };
    shared.note(Seen::Opened { line, uri, subprotocol });
    let mut buffer = BytesMut::new();
    let politely = loop {
        tokio::select! {
            packet = outgoing.recv() => {
                let Some(packet) = packet else { break false };
                let mut bytes = BytesMut::new();
                encode_packet_to_buffer(&packet, &mut bytes).expect("a packet");
                if socket.send(Message::Binary(bytes.freeze())).await.is_err() {
                    break false;
                }
            }
            frame = socket.next() => {
                let Some(Ok(frame)) = frame else { break false };
                let Message::Binary(bytes) = frame else { continue };
                buffer.extend_from_slice(&bytes);
                let mut is_over = false;
                while let Some(packet) = decode_buffered_packet(&mut buffer, VERSION, 1024 * 1024).expect("a packet") {
                    is_over |= matches!(packet, Packet::Disconnect(_));
                    take(packet, line, shared);
                }
                if is_over {
                    break true;
                }
            }
        }
    };
    shared.lock().lines.remove(&line);
    shared.note(Seen::Left { line, politely });
}

/// Does what a packet asks for.
fn take(packet: Packet, number: usize, shared: &Shared) {
    let (event, answer) = match packet {
        Packet::Connect(connect) => {
            let event = Seen::Connected {
                line: number,
                client_id: connect.client_id,
                keep_alive: connect.keep_alive,
                clean_start: connect.clean_start,
                expiry: connect.properties.get_session_expiry_interval(),
            };
            (event, Some(Packet::ConnAck(ConnAckPacket::new(false, ReasonCode::Success))))
        }
        Packet::Subscribe(subscribe) => {
            let [filter] = &subscribe.filters[..] else { panic!("one filter a SUBSCRIBE: {subscribe:?}") };
            let event = Seen::Subscribed { line: number, topic: filter.filter.clone(), qos: filter.options.qos as u8 };
            let mut state = shared.lock();
            let mut code = SubAckReasonCode::NotAuthorized;
            if !state.denied.contains(&filter.filter) {
                code = SubAckReasonCode::GrantedQoS1;
                if let Some(line) = state.lines.get_mut(&number) {
                    line.topics.insert(filter.filter.clone());
                }
            }
            let answer = Packet::SubAck(SubAckPacket::new(subscribe.packet_id).add_reason_code(code));
            (event, (!state.is_deaf).then_some(answer))
        }
        Packet::Unsubscribe(unsubscribe) => {
            let [topic] = &unsubscribe.filters[..] else { panic!("one filter an UNSUBSCRIBE: {unsubscribe:?}") };
            if let Some(line) = shared.lock().lines.get_mut(&number) {
                line.topics.remove(topic);
            }
            let mut answer = UnsubAckPacket::new(unsubscribe.packet_id);
            answer.reason_codes.push(UnsubAckReasonCode::Success);
            (Seen::Unsubscribed { line: number, topic: topic.clone() }, Some(Packet::UnsubAck(answer)))
        }
        Packet::PingReq => return send(Packet::PingResp, number, shared),
        _ => return,
    };
    // What a test waits for has happened when it goes on, and what comes of it follows.
    shared.note(event);
    if let Some(answer) = answer {
        send(answer, number, shared);
    }
}

fn send(packet: Packet, number: usize, shared: &Shared) {
    if let Some(line) = shared.lock().lines.get(&number) {
        let _ = line.out.send(packet);
    }
}
