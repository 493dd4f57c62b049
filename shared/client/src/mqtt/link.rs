//! One connection to the broker: the only file that names the MQTT crate.

use super::{ConnectError, Options, SESSION};
use bytes::Bytes;
use carillon_core::channel::Channel;
use carillon_core::mqtt::MqttPrefix;
use futures_util::future::try_join_all;
use mqtt5::client::{AckToken, DisconnectReason};
use mqtt5::packet::publish::PublishPacket;
use mqtt5::transport::tls::TlsConfig;
use mqtt5::types::{KeepaliveConfig, ReasonCode, SubscribeOptions};
use mqtt5::{ConnectOptions, ConnectionEvent, MqttClient, MqttError, QoS};
use rand::Rng;
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// The user of our authorizer.
const USER: &str = "token";

/// How long connecting and subscribing may take: IoT Core lets an authorizer take five seconds, and its function may have to start.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a goodbye may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Messages that the broker may send before the first of them is acknowledged (MQTT 5, "Receive Maximum"). IoT Core's own limit is
/// 100.
const UNACKNOWLEDGED: u16 = 64;

/// Messages that wait for the client's task. Those of QoS 1 are bounded by [`UNACKNOWLEDGED`]; the rest is for those of QoS 0, of
/// which more are lost, as QoS 0 has it.
const WAITING_MESSAGES: usize = 1_024;

/// The largest packet that the broker may send: IoT Core's 128 KB of payload, with topic and properties.
const PACKET_BYTES: u32 = 150 * 1024;

/// The port of TLS on which IoT Core wants to be told that MQTT with an authorizer comes (AWS IoT Core Developer Guide, "Device
/// communication protocols").
const SHARED_PORT: u16 = 443;

/// The name of MQTT in TLS's negotiation (ALPN), on that port.
const ALPN: &str = "mqtt";

/// An open connection with all its subscriptions.
pub(super) struct Link {
    client: MqttClient,
    topics: Vec<(String, Channel)>,
    messages: mpsc::Receiver<Arrived>,
    lost: mpsc::UnboundedReceiver<String>,
}

/// A message as it came.
pub(super) struct Arrived {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) received_at: Instant,
    token: AckToken,
}

/// What a connection does next.
pub(super) enum Step {
    Message(Arrived),
    /// The connection is gone, for this reason.
    Lost(String),
}

impl Arrived {
    /// Tells the broker that the message has arrived; one that is not told comes again on the next connection.
    pub(super) fn acknowledge(self) {
        self.token.ack();
    }
}

/// A new client id, for one client over all its connections. The prefix in front tells an operator whose it is.
pub(super) fn client_id(prefix: &MqttPrefix) -> String {
    format!("{prefix}-{:016x}", rand::rng().random::<u64>())
}

impl Link {
    /// Connects once and subscribes to everything.
    pub(super) async fn open(options: &Options, client_id: &str) -> Result<Self, ConnectError> {
        let connect = connect_options(options, client_id);
        let client = MqttClient::with_options(connect.clone());
        let (sender, messages) = mpsc::channel(WAITING_MESSAGES);
        let (gone, lost) = mpsc::unbounded_channel();
        let topics = options.channels.iter().map(|channel| (options.prefix.topic(channel), channel.clone())).collect();
        let link = Self { client, topics, messages, lost };
        let opening = async {
            link.watch(gone).await?;
            link.listen(&sender).await?;
            dial(&link.client, &options.url, connect).await?;
            link.subscribe(&sender).await
        };
        match timeout(OPEN_TIMEOUT, opening).await {
            Ok(Ok(())) => Ok(link),
            failed => {
                link.end().await;
                Err(failed.map_or(ConnectError::TimedOut { after: OPEN_TIMEOUT }, |opened| {
                    opened.err().unwrap_or(ConnectError::TimedOut { after: OPEN_TIMEOUT })
                }))
            }
        }
    }

    /// The next message, or the end.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Step {
        tokio::select! {
            // What has come is taken first: it may be acknowledged no more, but it is here.
            biased;
            Some(message) = self.messages.recv() => Step::Message(message),
            reason = self.lost.recv() => Step::Lost(reason.unwrap_or_else(|| "the connection is closed".to_owned())),
        }
    }

    /// Ends the subscriptions, so that the broker keeps nothing for a client that does not come back, and the connection.
    pub(super) async fn close(self) {
        let unsubscribing = try_join_all(self.topics.iter().map(|(topic, _)| self.client.unsubscribe(topic.as_str())));
        // Whoever does not hear it will not hear the end either, and then the session lapses.
        let _ = timeout(CLOSE_TIMEOUT, unsubscribing).await;
        self.end().await;
    }

    /// Lets go of the connection; the broker keeps the session for a while. The crate's client has tasks that only this ends.
    pub(super) async fn end(mut self) {
        // An error says that there is no connection.
        let _ = timeout(CLOSE_TIMEOUT, self.client.disconnect()).await;
        self.messages.close();
        while let Ok(message) = self.messages.try_recv() {
            // Nobody hears it any more; the crate would warn of every one that is dropped.
            message.acknowledge();
        }
    }

    async fn watch(&self, gone: mpsc::UnboundedSender<String>) -> Result<(), ConnectError> {
        let told = move |event| {
            if let ConnectionEvent::Disconnected { reason } = event {
                // Nobody listens any more where the connection was let go.
                let _ = gone.send(text(&reason));
            }
        };
        self.client.on_connection_event(told).await.map_err(unreachable)
    }

    /// Hears the topics before there is a connection: what the broker kept for the session comes before any subscribe is answered.
    async fn listen(&self, sender: &mpsc::Sender<Arrived>) -> Result<(), ConnectError> {
        for (topic, _) in &self.topics {
            self.client.register_ack_callback(topic.as_str(), hand_over(sender.clone())).await.map_err(unreachable)?;
        }
        Ok(())
    }

    /// Subscribes to every topic, with one filter each: IoT Core takes at most eight in one packet.
    async fn subscribe(&self, sender: &mpsc::Sender<Arrived>) -> Result<(), ConnectError> {
        let subscribes = self.topics.iter().map(|(topic, channel)| async move {
            let options = SubscribeOptions { qos: QoS::AtLeastOnce, ..SubscribeOptions::default() };
            let subscribed = self.client.subscribe_with_ack(topic.as_str(), options, hand_over(sender.clone())).await;
            subscribed.map(|_| ()).map_err(|error| match error {
                MqttError::SubscriptionDenied(_) | MqttError::SubscriptionFailed(_) => {
                    ConnectError::Subscribe { channel: channel.clone(), source: Box::new(error) }
                }
                error => unreachable(error),
            })
        });
        try_join_all(subscribes).await.map(|_| ())
    }
}

fn connect_options(options: &Options, client_id: &str) -> ConnectOptions {
    let mut connect = ConnectOptions::new(client_id)
        // The first connection of an id of its own finds no session; the next ones go on with theirs.
        .with_clean_start(false)
        .with_resume_existing_session(true)
        .with_session_expiry_interval(u32::try_from(SESSION.as_secs()).unwrap_or(u32::MAX))
        .with_receive_maximum(UNACKNOWLEDGED)
        .with_deferred_ack(true)
        .with_keep_alive(options.keep_alive)
        // A ping at half the time and an answer within the other half: the crate's own limits are three times as long.
        .with_keepalive_config(KeepaliveConfig::new(50, 45))
        // The crate's own would subscribe late and silently.
        .with_automatic_reconnect(false);
    connect.properties.maximum_packet_size = Some(PACKET_BYTES);
    match &options.token {
        Some(token) => connect.with_credentials(user(options.authorizer.as_deref()), token.reveal()),
        None => connect,
    }
}

/// The user name, with the authorizer as IoT Core reads it from there (AWS IoT Core Developer Guide, "Connecting to AWS IoT Core by
/// using custom authentication").
fn user(authorizer: Option<&str>) -> String {
    authorizer.map_or_else(|| USER.to_owned(), |name| format!("{USER}?x-amz-customauthorizer-name={name}"))
}

async fn dial(client: &MqttClient, url: &str, options: ConnectOptions) -> Result<(), ConnectError> {
    let invalid = || ConnectError::Url { url: url.split('?').next().unwrap_or_default().to_owned() };
    let parsed = reqwest::Url::parse(url).map_err(|_| invalid())?;
    let host = parsed.host_str().filter(|host| !host.is_empty()).ok_or_else(invalid)?;
    let connected = match parsed.scheme() {
        "mqtt" | "ws" | "wss" => client.connect_with_options(url, options).await,
        "mqtts" => {
            let port = parsed.port().unwrap_or(8883);
            let address = lookup_host((host.trim_matches(['[', ']']), port)).await.map_err(unreachable)?.next();
            let address = address.ok_or_else(|| unreachable(std::io::Error::other("the name has no address")))?;
            let tls = TlsConfig::new(address, host);
            let tls = if port == SHARED_PORT { tls.with_alpn_protocols(&[ALPN]) } else { tls };
            client.connect_with_tls_and_options(tls, options).await
        }
        _ => return Err(invalid()),
    };
    connected.map(|_| ()).map_err(|error| match error {
        MqttError::ConnectionRefused(ReasonCode::NotAuthorized | ReasonCode::BadUsernameOrPassword | ReasonCode::Banned)
        | MqttError::AuthenticationFailed
        | MqttError::NotAuthorized => ConnectError::Token { reason: error.to_string() },
        error => unreachable(error),
    })
}

/// Hands messages to the client's task. It is called one message at a time, in their order, and must not wait.
fn hand_over(sender: mpsc::Sender<Arrived>) -> impl Fn(PublishPacket, AckToken) + Send + Sync + 'static {
    move |packet, token| {
        let message = Arrived { topic: packet.topic_name, payload: packet.payload, received_at: Instant::now(), token };
        if let Err(error) = sender.try_send(message) {
            tracing::warn!(reason = %error, "a message of the broker was dropped");
        }
    }
}

fn text(reason: &DisconnectReason) -> String {
    match reason {
        DisconnectReason::ClientInitiated => "the connection was closed from this side".to_owned(),
        DisconnectReason::ServerDisconnect(code) => format!("the broker ended the connection: {code:?}"),
        DisconnectReason::NetworkError(error) => format!("the connection broke: {error}"),
        DisconnectReason::ProtocolError(error) => format!("the broker broke the protocol: {error}"),
        DisconnectReason::KeepAliveTimeout => "no answer to a ping".to_owned(),
        other => format!("the connection ended: {other:?}"),
    }
}

fn unreachable(error: impl std::error::Error + Send + Sync + 'static) -> ConnectError {
    ConnectError::Unreachable(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Token;

    fn prefix() -> MqttPrefix {
        MqttPrefix::parse("carillon").expect("a prefix")
    }

    fn options(url: &str) -> Options {
        Options::new(url, Some(Token::new("secret")), prefix(), Vec::new())
    }

    #[test]
    fn the_token_is_the_password_and_the_authorizer_stands_in_the_user_name() {
        let connect = connect_options(&Options { authorizer: Some("mine".to_owned()), ..options("mqtt://a") }, "id");
        assert_eq!(connect.username.as_deref(), Some("token?x-amz-customauthorizer-name=mine"));
        assert_eq!(connect.password.as_deref(), Some(b"secret".as_slice()));
        assert_eq!(connect_options(&options("mqtt://a"), "id").username.as_deref(), Some("token"));
        connect.validate_deferred_ack().expect("the crate takes the options");
    }

    #[test]
    fn every_client_has_an_id_of_its_own_that_iot_core_takes() {
        let ids: std::collections::BTreeSet<_> = (0..100).map(|_| client_id(&prefix())).collect();
        assert!(ids.len() == 100 && ids.iter().all(|id| id.starts_with("carillon-") && id.len() <= 128));
    }

    #[tokio::test]
    async fn what_is_no_mqtt_url_is_refused_and_its_query_not_told() {
        for url in ["http://a/?token=hidden", "no url?token=hidden", "mqtt://", "a:1883"] {
            let error = Link::open(&options(url), "id").await.err().expect("refused");
            assert!(matches!(error, ConnectError::Url { .. }), "{url}: {error:?}");
            assert!(!format!("{error} {error:?}").contains("hidden"), "{error:?}");
        }
    }
}
