//! A stock client, that of the crate `mqtt5`, with its messages in a channel.

use std::time::Duration;

use carillon_local::stack::Stack;
use mqtt5::types::Message;
use mqtt5::{ConnectOptions, MqttClient, ProtocolVersion, QoS, SubscribeOptions};
use tokio::sync::mpsc;

use crate::harness::{open_password, within};

/// A connected client.
pub(crate) struct Client {
    pub(crate) mqtt: MqttClient,
    sender: mpsc::UnboundedSender<Message>,
    messages: mpsc::UnboundedReceiver<Message>,
}

/// How a client reaches the broker.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Transport {
    Tcp,
    WebSocket,
}

/// The options of a client that may do everything.
pub(crate) fn options(client_id: &str) -> ConnectOptions {
    ConnectOptions::new(client_id)
        .with_automatic_reconnect(false)
        .with_keep_alive(Duration::from_secs(30))
        .with_credentials("token", open_password())
}

impl Client {
    /// A client of MQTT 5 over TCP that may do everything.
    pub(crate) async fn connect(stack: &Stack, client_id: &str) -> Self {
        Self::connect_with(stack, Transport::Tcp, options(client_id)).await
    }

    pub(crate) async fn connect_with(stack: &Stack, transport: Transport, options: ConnectOptions) -> Self {
        let ready = stack.ready();
        let url = match transport {
            Transport::Tcp => ready.mqtt.as_deref(),
            Transport::WebSocket => ready.mqtt_ws.as_deref(),
        };
        let mqtt = MqttClient::with_options(options);
        let connected = within("CONNACK", mqtt.connect(url.expect("the template uses IoT Core"))).await;
        connected.unwrap_or_else(|error| panic!("{transport:?}: {error}"));
        let (sender, messages) = mpsc::unbounded_channel();
        Self { mqtt, sender, messages }
    }

    pub(crate) async fn connect_v3(stack: &Stack, transport: Transport, client_id: &str) -> Self {
        Self::connect_with(stack, transport, options(client_id).with_protocol_version(ProtocolVersion::V311)).await
    }

    /// Subscribes at QoS 1.
    pub(crate) async fn subscribe(&self, filter: &str) {
        let options = SubscribeOptions { qos: QoS::AtLeastOnce, ..SubscribeOptions::default() };
        let sender = self.sender.clone();
        let keep = move |message| drop(sender.send(message));
        let granted = within("SUBACK", self.mqtt.subscribe_with_options(filter, options, keep)).await;
        assert_eq!(granted.unwrap_or_else(|error| panic!("{filter}: {error}")).1, QoS::AtLeastOnce);
    }

    /// Publishes at QoS 1 and waits for the PUBACK.
    pub(crate) async fn publish(&self, topic: &str, payload: impl Into<Vec<u8>>) {
        within("PUBACK", self.mqtt.publish_qos(topic, payload, QoS::AtLeastOnce)).await.expect("published");
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Message {
        within("a message", self.messages.recv()).await.expect("the client holds the other end")
    }

    /// The payload of the next message.
    pub(crate) async fn next_text(&mut self) -> String {
        String::from_utf8(self.next().await.payload).expect("tests send text")
    }

    pub(crate) async fn disconnect(self) {
        self.mqtt.disconnect().await.expect("it was connected");
    }
}
