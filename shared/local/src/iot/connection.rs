//! One client's connection, over TCP or WebSocket: from its CONNECT to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::authorizer::{Credentials, Http, Principal};
use super::broker::{ArmedWill, Arrival, Departure, Welcome};
use super::codec::{
    Connect, Connected, Decoder, Incoming, Outgoing, Publish, Reason, RequestedFilter, Version, Violation, Will, encode,
};
use super::lifecycle::{self, Reason as EndReason};
use super::limits::{
    CONNECT_TIME, FAREWELL_TIME, KEEP_ALIVE_SECONDS, MAXIMUM_CLIENT_ID_BYTES, MAXIMUM_FILTERS, MAXIMUM_SESSION_EXPIRY,
    MAXIMUM_TOPIC_ALIASES, MAXIMUM_UNWRITTEN_BYTES, SESSION_EXPIRY, SIGNED_CONNECTION_TIME,
};
use super::message::{Message, Now, Quality};
use super::policy::{Action, Authority};
use super::session::{Delivery, Eviction};
use super::topic::Topic;
use super::{Interruption, Shared};

/// The room that is made for each read, in bytes. It grows to the packet that comes; our choice.
const READ_BYTES: usize = 4 * 1024;

/// Where a connection comes from.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    /// The name of this server as the client knows it.
    pub(super) server_name: String,
    /// Over WebSocket.
    pub(super) handshake: Option<Handshake>,
}

/// The request that became a WebSocket.
#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) headers: HeaderMap,
    pub(super) query: Option<String>,
    /// The access key that signed it.
    pub(super) signer: Option<String>,
    /// Set when the client ends the WebSocket rather than the connection below.
    pub(super) close_frame: Arc<AtomicBool>,
}

/// How a connection ends.
#[derive(Debug)]
struct End {
    reason: EndReason,
    /// What an MQTT 5 client is told.
    told: Option<Reason>,
    with_will: bool,
    session_expiry: Option<Duration>,
}

/// The reading half and what has been read of the next packet.
struct Inbound<Stream> {
    reader: ReadHalf<Stream>,
    decoder: Decoder,
}

/// The writing half and what is to be written.
struct Outbound<Stream> {
    writer: WriteHalf<Stream>,
    version: Version,
    unwritten: BytesMut,
    is_flushed: bool,
}

/// A client that is connected.
struct Client<'a> {
    shared: &'a Shared,
    client_id: &'a str,
    number: u64,
    identity: lifecycle::Identity,
    authority: Arc<Authority>,
    aliases: Vec<Option<String>>,
}

/// Serves a client until it leaves, is thrown out, or the service ends.
pub(super) async fn serve<Stream>(shared: Arc<Shared>, stream: Stream, origin: Origin)
where
    Stream: AsyncRead + AsyncWrite + Send,
{
    let (reader, writer) = tokio::io::split(stream);
    let mut inbound = Inbound { reader, decoder: Decoder::default() };
    let mut outbound = Outbound { writer, version: Version::V5, unwritten: BytesMut::new(), is_flushed: true };
    let admitted = tokio::select! {
        admitted = admit(&shared, &origin, &mut inbound, &mut outbound) => admitted,
        _ = shared.interruption() => return,
    };
    let Some((client_id, welcome, principal)) = admitted else {
        outbound.farewell().await;
        return;
    };
    let close_frame = origin.handshake.map(|handshake| handshake.close_frame);
    let Welcome { number, identity, wills, deliveries, evicted, .. } = welcome;
    let authority = principal.authority;
    for will in wills {
        shared.publish_will(&will);
    }
    shared.publish_event(lifecycle::connected(&identity, origin.peer.ip(), Now::read()));
    tracing::debug!(mqtt.client_id = %client_id, "a client has connected");

    let client = Client {
        shared: &shared,
        client_id: &client_id,
        number,
        identity: identity.clone(),
        authority,
        aliases: vec![None; usize::from(MAXIMUM_TOPIC_ALIASES)],
    };
    let ends_at = principal.lasts.map(|time| Instant::now() + time);
    let mut end = client.run(&mut inbound, &mut outbound, deliveries, evicted, principal.keep_alive, ends_at).await;
    if end.reason == EndReason::ConnectionLost && close_frame.is_some_and(|closed| closed.load(Ordering::Relaxed)) {
        // "… or a Close frame if the client is using a WebSocket connection" (the guide's table of reasons).
        end = End { reason: EndReason::ClientInitiated, with_will: false, ..end };
    }

    let departure = Departure { reason: end.reason, with_will: end.with_will, session_expiry: end.session_expiry };
    let will = shared.broker().disconnect(&client_id, number, departure, Now::read());
    if let Some(will) = will {
        shared.publish_will(&will);
    }
    shared.publish_event(lifecycle::disconnected(&identity, end.reason, Now::read()));
    tracing::debug!(mqtt.client_id = %client_id, mqtt.reason = end.reason.text(), "a client's connection has ended");
    if let Some(reason) = end.told {
        outbound.push(&Outgoing::Disconnect(reason));
    }
    outbound.farewell().await;
}

/// A client that was let in, and how long for.
struct Admission {
    authority: Arc<Authority>,
    lasts: Option<Duration>,
    keep_alive: u16,
}

/// Reads the CONNECT and lets the client in, or tells it why not.
async fn admit<Stream>(
    shared: &Shared,
    origin: &Origin,
    inbound: &mut Inbound<Stream>,
    outbound: &mut Outbound<Stream>,
) -> Option<(String, Welcome, Admission)>
where
    Stream: AsyncRead + AsyncWrite + Send,
{
    let connect = match timeout(CONNECT_TIME, inbound.connect()).await {
        Ok(Some(Ok(connect))) => connect,
        Ok(Some(Err(violation))) => {
            tracing::warn!(error = %violation, "a CONNECT is refused");
            if violation.reason == Reason::UnsupportedVersion {
                // In the form of the version that every client knows (MQTT 3.1.1, section 3.2.2.3).
                outbound.version = Version::V3;
                outbound.push(&Outgoing::Refused(violation.reason));
            }
            return None;
        }
        // Nothing came, or not in time.
        Ok(None) | Err(_) => return None,
    };
    outbound.version = connect.version;
    match welcome(shared, origin, connect).await {
        Ok((client_id, assigned, welcome, admission, session_expiry)) => {
            outbound.push(&Outgoing::Connected(Connected {
                session_present: welcome.session_present,
                assigned_client_id: assigned.then_some(client_id.as_str()),
                keep_alive: admission.keep_alive,
                session_expiry,
            }));
            Some((client_id, welcome, admission))
        }
        Err(reason) => {
            outbound.push(&Outgoing::Refused(reason));
            None
        }
    }
}

/// Decides about a CONNECT. The reason of a refusal for a person is in the log, since the client is told a number alone.
async fn welcome(
    shared: &Shared,
    origin: &Origin,
    connect: Connect,
) -> Result<(String, bool, Welcome, Admission, Duration), Reason> {
    let (client_id, assigned) = client_id(&connect)?;
    let principal = principal(shared, origin, &connect, &client_id).await?;
    if !principal.authority.allows(Action::Connect, &client_id) {
        tracing::warn!(mqtt.client_id = %client_id, "a client is refused: no policy allows iot:Connect with its client id");
        return Err(Reason::NotAuthorized);
    }
    let authority = Arc::new(principal.authority);
    let now = Now::read();
    let will = connect.will.and_then(|will| armed(will, &client_id, &authority, now));
    let session_expiry = match (connect.version, connect.session_expiry) {
        (Version::V3, _) if connect.clean_start => Duration::ZERO,
        (Version::V3, _) => SESSION_EXPIRY,
        (Version::V5, expiry) => expiry.unwrap_or(Duration::ZERO).min(MAXIMUM_SESSION_EXPIRY),
    };
    let keep_alive = match connect.keep_alive {
        0 => *KEEP_ALIVE_SECONDS.end(),
        asked => asked.clamp(*KEEP_ALIVE_SECONDS.start(), *KEEP_ALIVE_SECONDS.end()),
    };
    let arrival = Arrival {
        client_id: client_id.clone(),
        version: connect.version,
        clean_start: connect.clean_start,
        session_expiry,
        receive_maximum: connect.receive_maximum,
        keep_alive,
        will,
        principal_id: principal.id,
        authority: authority.clone(),
        peer: origin.peer,
        local: origin.local,
    };
    let welcome = shared.broker().connect(arrival, now);
    let admission = Admission { authority, lasts: principal.lasts, keep_alive };
    Ok((client_id, assigned, welcome, admission, session_expiry))
}

/// The client id, and whether it was made here. MQTT 3.1.1 wants a clean session for that (section 3.1.3.1).
fn client_id(connect: &Connect) -> Result<(String, bool), Reason> {
    let client_id = connect.client_id.as_str();
    if client_id.is_empty() && (connect.version == Version::V5 || connect.clean_start) {
        return Ok((uuid::Uuid::new_v4().to_string(), true));
    }
    let fault = if client_id.is_empty() {
        "it is empty, and the session is not clean"
    } else if client_id.len() > MAXIMUM_CLIENT_ID_BYTES {
        "it is over the limit of 128 bytes"
    } else if client_id.starts_with('$') {
        "it begins with $"
    } else {
        return Ok((client_id.to_owned(), false));
    };
    tracing::warn!(mqtt.fault = fault, "a client id is refused");
    Err(Reason::ClientIdInvalid)
}

/// Who the client is: whoever signed the handshake, or whom an authorizer lets in.
async fn principal(shared: &Shared, origin: &Origin, connect: &Connect, client_id: &str) -> Result<Principal, Reason> {
    if let Some(signer) = origin.handshake.as_ref().and_then(|handshake| handshake.signer.clone()) {
        return Ok(Principal { id: signer, authority: Authority::Everything, lasts: Some(SIGNED_CONNECTION_TIME) });
    }
    let http = origin.handshake.as_ref();
    let connection_id = uuid::Uuid::new_v4().to_string();
    let credentials = Credentials {
        client_id,
        user_name: connect.user_name.as_deref(),
        password: connect.password.as_deref(),
        server_name: &origin.server_name,
        http: http.map(|handshake| Http { headers: &handshake.headers, query: handshake.query.as_deref() }),
        connection_id: &connection_id,
    };
    shared.authorizers.authenticate(&credentials).await.map_err(|refusal| {
        let cause = std::error::Error::source(&refusal).map(ToString::to_string);
        tracing::warn!(mqtt.client_id = client_id, error = %refusal, error.cause = cause, "a client is refused");
        Reason::NotAuthorized
    })
}

/// A will that the client may publish. AWS does not say when it looks; here it is when the client connects, so that the log has it.
fn armed(will: Will, client_id: &str, authority: &Authority, now: Now) -> Option<ArmedWill> {
    let fault = match Topic::parse(&will.topic) {
        Err(error) => error.to_string(),
        Ok(topic) if topic.is_reserved() => "its topic is reserved".to_owned(),
        Ok(topic) if !may_publish(authority, &topic, will.retain) => "no policy allows iot:Publish on its topic".to_owned(),
        Ok(topic) => {
            let message = Message {
                topic,
                payload: will.payload,
                quality: will.quality,
                retain: will.retain,
                properties: will.properties,
                expires_at: will.expiry.map(|time| now.instant + will.delay + time),
            };
            return Some(ArmedWill { message: Arc::new(message), delay: will.delay });
        }
    };
    tracing::warn!(mqtt.client_id = client_id, mqtt.fault = fault, "a will is ignored");
    None
}

fn may_publish(authority: &Authority, topic: &Topic, retain: bool) -> bool {
    let allows = |action| authority.allows(action, topic.as_str());
    allows(Action::Publish) && (!retain || allows(Action::RetainPublish))
}

impl Client<'_> {
    /// Serves the client until something ends that.
    async fn run<Stream>(
        mut self,
        inbound: &mut Inbound<Stream>,
        outbound: &mut Outbound<Stream>,
        mut deliveries: tokio::sync::mpsc::Receiver<Delivery>,
        mut evicted: tokio::sync::oneshot::Receiver<Eviction>,
        keep_alive: u16,
        ends_at: Option<Instant>,
    ) -> End
    where
        Stream: AsyncRead + AsyncWrite + Send,
    {
        // One and a half times the interval (MQTT 5.0, section 3.1.2.10).
        let patience = Duration::from_secs(keep_alive.into()) * 3 / 2;
        let mut silent_at = Instant::now() + patience;
        loop {
            // What came with the CONNECT, or with the packet before.
            match self.handle_all(&mut inbound.decoder, outbound) {
                Ok(None) => {}
                Ok(Some(end)) => return end,
                Err(violation) => return self.broke(&violation),
            }
            let has_room = outbound.unwritten.len() < MAXIMUM_UNWRITTEN_BYTES;
            let deadline = ends_at.map_or(silent_at, |end| end.min(silent_at));
            tokio::select! {
                read = inbound.read(), if has_room => match read {
                    Ok(0) | Err(_) => return End::lost(),
                    Ok(_) => silent_at = Instant::now() + patience,
                },
                written = outbound.write(), if outbound.has_unwritten() => {
                    if written.is_err() {
                        return End::lost();
                    }
                }
                // Without a sender the connection was evicted, which says why.
                Some(delivery) = deliveries.recv(), if has_room => self.deliver(&delivery, outbound),
                eviction = &mut evicted => return match eviction {
                    Ok(Eviction::TakenOver) => End::of(EndReason::DuplicateClientId, Some(Reason::SessionTakenOver)),
                    Ok(Eviction::Deleted { without_will }) => {
                        let end = End::of(EndReason::ApiInitiated, Some(Reason::AdministrativeAction));
                        End { with_will: !without_will, ..end }
                    }
                    Err(_) => End::of(EndReason::ServerInitiated, None),
                },
                interruption = self.shared.interruption() => return match interruption {
                    Interruption::Away => End::lost(),
                    Interruption::Stopping => End::of(EndReason::ServerInitiated, Some(Reason::ShuttingDown)),
                },
                () = tokio::time::sleep_until(deadline.into()) => return if deadline < silent_at {
                    self.lived_long_enough()
                } else {
                    End::of(EndReason::KeepAliveTimeout, Some(Reason::KeepAliveTimeout))
                },
            }
        }
    }

    fn lived_long_enough(&self) -> End {
        let reason = match *self.authority {
            Authority::Everything => EndReason::WebSocketLifeOver,
            Authority::Policies(_) => EndReason::AuthorizationOver,
        };
        End::of(reason, Some(Reason::MaximumConnectTime))
    }

    fn broke(&self, violation: &Violation) -> End {
        tracing::warn!(mqtt.client_id = self.client_id, error = %violation, "a client is disconnected");
        let reason =
            if violation.reason == Reason::NotAuthorized { EndReason::AuthorizationError } else { EndReason::ClientError };
        End::of(reason, Some(violation.reason))
    }

    /// Handles every whole packet that has come, as long as there is room for the answers.
    fn handle_all<Stream>(&mut self, decoder: &mut Decoder, outbound: &mut Outbound<Stream>) -> Result<Option<End>, Violation> {
        while outbound.unwritten.len() < MAXIMUM_UNWRITTEN_BYTES {
            let Some(packet) = decoder.next()? else { return Ok(None) };
            if let Some(end) = self.handle(packet, outbound)? {
                return Ok(Some(end));
            }
        }
        Ok(None)
    }

    fn handle<Stream>(&mut self, packet: Incoming, outbound: &mut Outbound<Stream>) -> Result<Option<End>, Violation> {
        match packet {
            Incoming::Connect(_) => return Err(Violation::new(Reason::ProtocolError, "a second CONNECT came")),
            Incoming::Publish(publish) => {
                let packet_id = publish.packet_id;
                self.publish(*publish)?;
                if let Some(packet_id) = packet_id {
                    outbound.push(&Outgoing::Acknowledgement { packet_id });
                }
            }
            Incoming::Acknowledgement { packet_id } => {
                self.shared.broker().acknowledge(self.client_id, self.number, packet_id, Now::read());
            }
            Incoming::Subscribe { packet_id, filters } => return self.subscribe(packet_id, &filters, outbound),
            Incoming::Unsubscribe { packet_id, filters } => {
                let existed = self.shared.broker().unsubscribe(self.client_id, self.number, &filters);
                outbound.push(&Outgoing::Unsubscribed { packet_id, existed: &existed });
                self.shared.publish_event(lifecycle::unsubscribed(&self.identity, &filters, Now::read()));
            }
            Incoming::Ping => outbound.push(&Outgoing::Pong),
            Incoming::Disconnect { with_will, session_expiry } => {
                let session_expiry = session_expiry.map(|expiry| expiry.min(MAXIMUM_SESSION_EXPIRY));
                return Ok(Some(End { reason: EndReason::ClientInitiated, told: None, with_will, session_expiry }));
            }
        }
        Ok(None)
    }

    fn publish(&mut self, publish: Publish) -> Result<(), Violation> {
        let topic = self.topic_of(&publish)?;
        let topic = Topic::parse(&topic).map_err(|error| Violation::new(Reason::TopicInvalid, error.to_string()))?;
        if topic.is_reserved() && topic.basic_ingest().is_none() {
            let what = format!("publishing on {topic} is not emulated: of the reserved topics only $aws/rules/… is");
            return Err(Violation::new(Reason::NotAuthorized, what));
        }
        if !may_publish(&self.authority, &topic, publish.retain) {
            let also = if publish.retain { " and iot:RetainPublish" } else { "" };
            return Err(Violation::new(Reason::NotAuthorized, format!("no policy allows iot:Publish{also} on {topic}")));
        }
        let message = Message {
            topic,
            payload: publish.payload,
            quality: if publish.packet_id.is_some() { Quality::AtLeastOnce } else { Quality::AtMostOnce },
            retain: publish.retain,
            properties: publish.properties,
            expires_at: publish.expiry.map(|time| Instant::now() + time),
        };
        self.shared.publish_of_client(message, self.client_id);
        Ok(())
    }

    /// The topic, or the one that its alias stands for (MQTT 5.0, section 3.3.2.3.4).
    fn topic_of(&mut self, publish: &Publish) -> Result<String, Violation> {
        let Some(alias) = publish.alias else { return Ok(publish.topic.clone()) };
        let invalid =
            || Violation::new(Reason::AliasInvalid, format!("the topic alias {alias} is not from 1 to 8, or is not set"));
        let slot = usize::from(alias).checked_sub(1).and_then(|index| self.aliases.get_mut(index)).ok_or_else(invalid)?;
        if publish.topic.is_empty() {
            return slot.clone().ok_or_else(invalid);
        }
        *slot = Some(publish.topic.clone());
        Ok(publish.topic.clone())
    }

    /// A client that may not subscribe, or has too many subscriptions, is told by the SUBACK, and its connection ends.
    fn subscribe<Stream>(
        &self,
        packet_id: u16,
        filters: &[RequestedFilter],
        outbound: &mut Outbound<Stream>,
    ) -> Result<Option<End>, Violation> {
        if filters.len() > MAXIMUM_FILTERS {
            let what = format!("a SUBSCRIBE has {} filters, over the limit of {MAXIMUM_FILTERS}", filters.len());
            return Err(Violation::new(Reason::QuotaExceeded, what));
        }
        let now = Now::read();
        let results = self.shared.broker().subscribe(self.client_id, self.number, filters, now);
        outbound.push(&Outgoing::Subscribed { packet_id, results: &results });
        let granted = filters.iter().zip(&results).filter(|(_, result)| result.is_ok());
        let granted = granted.map(|(filter, _)| filter.text.clone()).collect::<Vec<_>>();
        if !granted.is_empty() {
            self.shared.publish_event(lifecycle::subscribed(&self.identity, &granted, now));
        }
        let failed = |reason: Reason| results.contains(&Err(reason));
        if failed(Reason::NotAuthorized) {
            return Ok(Some(End::of(EndReason::AuthorizationError, Some(Reason::NotAuthorized))));
        }
        if failed(Reason::QuotaExceeded) {
            return Ok(Some(End::of(EndReason::ClientError, Some(Reason::QuotaExceeded))));
        }
        Ok(None)
    }

    fn deliver<Stream>(&self, delivery: &Delivery, outbound: &mut Outbound<Stream>) {
        let Delivery { message, quality, packet_id, retain, duplicate } = delivery;
        outbound.push(&Outgoing::Publish {
            message,
            quality: *quality,
            packet_id: *packet_id,
            retain: *retain,
            duplicate: *duplicate,
            now: Instant::now(),
        });
    }
}

impl End {
    fn of(reason: EndReason, told: Option<Reason>) -> Self {
        Self { reason, told, with_will: reason.says_will(), session_expiry: None }
    }

    fn lost() -> Self {
        Self::of(EndReason::ConnectionLost, None)
    }
}

impl<Stream: AsyncRead + AsyncWrite> Inbound<Stream> {
    /// The CONNECT, or nothing when the connection ends before.
    async fn connect(&mut self) -> Option<Result<Connect, Violation>> {
        loop {
            match self.decoder.next() {
                Ok(Some(Incoming::Connect(connect))) => return Some(Ok(*connect)),
                Ok(Some(_)) => return Some(Err(Violation::new(Reason::ProtocolError, "the first packet is no CONNECT"))),
                Ok(None) => {}
                Err(violation) => return Some(Err(violation)),
            }
            if self.read().await.ok()? == 0 {
                return None;
            }
        }
    }

    /// Reads what there is; 0 at the end.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    async fn read(&mut self) -> std::io::Result<usize> {
        self.decoder.buffer.reserve(READ_BYTES);
        self.reader.read_buf(&mut self.decoder.buffer).await
    }
}

impl<Stream> Outbound<Stream> {
    /// Adds a packet to what is to be written.
    fn push(&mut self, packet: &Outgoing<'_>) {
        let before = self.unwritten.len();
        if let Err(error) = encode(packet, self.version, &mut self.unwritten) {
            self.unwritten.truncate(before);
            tracing::error!(%error, "a packet could not be encoded and is not sent");
        }
    }

    fn has_unwritten(&self) -> bool {
        !self.unwritten.is_empty() || !self.is_flushed
    }
}

impl<Stream: AsyncRead + AsyncWrite> Outbound<Stream> {
    /// Writes some of what is to be written.
    ///
    /// # Cancel safety
    /// What a dropped future did not write is still to be written.
    async fn write(&mut self) -> std::io::Result<()> {
        if !self.unwritten.is_empty() {
            self.is_flushed = false;
            if self.writer.write_buf(&mut self.unwritten).await? == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
        }
        if self.unwritten.is_empty() {
            self.writer.flush().await?;
            self.is_flushed = true;
        }
        Ok(())
    }

    /// Writes the rest and closes, within a moment.
    async fn farewell(&mut self) {
        let farewell = async {
            while self.has_unwritten() {
                self.write().await?;
            }
            self.writer.shutdown().await
        };
        // A client that does not listen is closed all the same.
        let _ = timeout(FAREWELL_TIME, farewell).await;
    }
}
