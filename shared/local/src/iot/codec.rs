//! Bytes to packets and back, for MQTT 3.1.1 and MQTT 5. The only file that knows the crate `mqtt5-protocol`.
//!
//! What IoT Core never takes, such as QoS 2, is told apart here, so that the rest of the broker cannot hold it.

use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use mqtt5_protocol::packet::MqttPacket;
use mqtt5_protocol::packet::connack::ConnAckPacket;
use mqtt5_protocol::packet::connect::ConnectPacket;
use mqtt5_protocol::packet::disconnect::DisconnectPacket;
use mqtt5_protocol::packet::puback::PubAckPacket;
use mqtt5_protocol::packet::publish::PublishPacket;
use mqtt5_protocol::packet::suback::{SubAckPacket, SubAckReasonCode};
use mqtt5_protocol::packet::subscribe::{RetainHandling, SubscribePacket};
use mqtt5_protocol::packet::unsuback::{UnsubAckPacket, UnsubAckReasonCode};
use mqtt5_protocol::types::ReasonCode;
use mqtt5_protocol::{FixedHeader, MqttError, Packet, PacketType, Properties, PropertyId, PropertyValue, QoS};

use super::limits::{
    MAXIMUM_IN_FLIGHT, MAXIMUM_PACKET_BYTES, MAXIMUM_PAYLOAD_BYTES, MAXIMUM_SESSION_EXPIRY, MAXIMUM_TOPIC_ALIASES,
    MESSAGE_EXPIRY_SECONDS,
};
use super::message::{Message, MessageProperties, Quality};
use super::topic::Topic;

/// The longest head of a packet: its type and four bytes of length (MQTT 5.0, section 2.1.4).
const MAXIMUM_HEAD_BYTES: usize = 5;

/// A PINGRESP, which has nothing but its head.
const PINGRESP: [u8; 2] = [0xd0, 0];

/// The version of the protocol that a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// MQTT 3.1.1.
    V3,
    /// MQTT 5.
    V5,
}

/// Why something was refused or ended. The variants are those that IoT Core uses of MQTT 5.0, section 2.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    UnspecifiedError,
    MalformedPacket,
    ProtocolError,
    UnsupportedVersion,
    ClientIdInvalid,
    NotAuthorized,
    KeepAliveTimeout,
    SessionTakenOver,
    ShuttingDown,
    TopicInvalid,
    AliasInvalid,
    PacketTooLarge,
    QuotaExceeded,
    AdministrativeAction,
    QualityNotSupported,
    MaximumConnectTime,
    SubscriptionIdsNotSupported,
}

/// A client broke the protocol or a limit, which ends its connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub(super) struct Violation {
    /// What an MQTT 5 client is told.
    pub(super) reason: Reason,
    /// What a person is told.
    pub(super) what: String,
}

/// A packet from a client.
#[derive(Debug)]
pub(super) enum Incoming {
    Connect(Box<Connect>),
    Publish(Box<Publish>),
    Acknowledgement { packet_id: u16 },
    Subscribe { packet_id: u16, filters: Vec<RequestedFilter> },
    Unsubscribe { packet_id: u16, filters: Vec<String> },
    Ping,
    Disconnect { with_will: bool, session_expiry: Option<Duration> },
}

/// A CONNECT.
#[derive(Debug)]
pub(super) struct Connect {
    pub(super) version: Version,
    pub(super) client_id: String,
    pub(super) clean_start: bool,
    pub(super) keep_alive: u16,
    pub(super) user_name: Option<String>,
    pub(super) password: Option<Vec<u8>>,
    pub(super) will: Option<Will>,
    /// Absent in MQTT 3.1.1 and where an MQTT 5 client names none.
    pub(super) session_expiry: Option<Duration>,
    pub(super) receive_maximum: u16,
}

/// What is published when a connection ends without a DISCONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Will {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) quality: Quality,
    pub(super) retain: bool,
    pub(super) properties: MessageProperties,
    pub(super) expiry: Option<Duration>,
    pub(super) delay: Duration,
}

/// A PUBLISH. The topic may be empty, where an alias stands for it.
#[derive(Debug)]
pub(super) struct Publish {
    pub(super) topic: String,
    pub(super) alias: Option<u16>,
    /// The packet id of QoS 1.
    pub(super) packet_id: Option<u16>,
    pub(super) payload: Bytes,
    pub(super) retain: bool,
    pub(super) properties: MessageProperties,
    pub(super) expiry: Option<Duration>,
}

/// One filter of a SUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RequestedFilter {
    pub(super) text: String,
    pub(super) options: SubscriptionOptions,
}

/// How a subscription wants its messages (MQTT 5.0, section 3.8.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SubscriptionOptions {
    /// At most this; QoS 2 was asked for where IoT Core grants 1.
    pub(super) quality: Quality,
    pub(super) no_local: bool,
    pub(super) retain_as_published: bool,
    pub(super) retained: RetainedWanted,
}

/// When a subscription wants the retained message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetainedWanted {
    Always,
    IfNew,
    Never,
}

/// A packet to a client.
#[derive(Debug)]
pub(super) enum Outgoing<'a> {
    Connected(Connected<'a>),
    Refused(Reason),
    Publish { message: &'a Message, quality: Quality, packet_id: Option<u16>, retain: bool, duplicate: bool, now: Instant },
    Acknowledgement { packet_id: u16 },
    Subscribed { packet_id: u16, results: &'a [Result<Quality, Reason>] },
    Unsubscribed { packet_id: u16, existed: &'a [bool] },
    Pong,
    Disconnect(Reason),
}

/// What an accepted client is told.
#[derive(Debug)]
pub(super) struct Connected<'a> {
    pub(super) session_present: bool,
    /// The client id, where the client left it to the server.
    pub(super) assigned_client_id: Option<&'a str>,
    /// The keep-alive in force.
    pub(super) keep_alive: u16,
    /// The session expiry in force.
    pub(super) session_expiry: Duration,
}

/// Takes bytes as they come and gives packets.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    pub(super) buffer: BytesMut,
    version: Option<Version>,
}

impl Version {
    fn number(self) -> u8 {
        match self {
            Self::V3 => 4,
            Self::V5 => 5,
        }
    }
}

impl Reason {
    fn code(self) -> ReasonCode {
        match self {
            Self::UnspecifiedError => ReasonCode::UnspecifiedError,
            Self::MalformedPacket => ReasonCode::MalformedPacket,
            Self::ProtocolError => ReasonCode::ProtocolError,
            Self::UnsupportedVersion => ReasonCode::UnsupportedProtocolVersion,
            Self::ClientIdInvalid => ReasonCode::ClientIdentifierNotValid,
            Self::NotAuthorized => ReasonCode::NotAuthorized,
            Self::KeepAliveTimeout => ReasonCode::KeepAliveTimeout,
            Self::SessionTakenOver => ReasonCode::SessionTakenOver,
            Self::ShuttingDown => ReasonCode::ServerShuttingDown,
            Self::TopicInvalid => ReasonCode::TopicNameInvalid,
            Self::AliasInvalid => ReasonCode::TopicAliasInvalid,
            Self::PacketTooLarge => ReasonCode::PacketTooLarge,
            Self::QuotaExceeded => ReasonCode::QuotaExceeded,
            Self::AdministrativeAction => ReasonCode::AdministrativeAction,
            Self::QualityNotSupported => ReasonCode::QoSNotSupported,
            Self::MaximumConnectTime => ReasonCode::MaximumConnectTime,
            Self::SubscriptionIdsNotSupported => ReasonCode::SubscriptionIdentifiersNotSupported,
        }
    }
}

impl Violation {
    pub(super) fn new(reason: Reason, what: impl Into<String>) -> Self {
        Self { reason, what: what.into() }
    }
}

impl From<MqttError> for Violation {
    fn from(error: MqttError) -> Self {
        let reason = match error {
            MqttError::ProtocolError(_) | MqttError::DuplicatePropertyId(_) => Reason::ProtocolError,
            _ => Reason::MalformedPacket,
        };
        Self::new(reason, error.to_string())
    }
}

impl Decoder {
    /// The next whole packet of what has come so far.
    pub(super) fn next(&mut self) -> Result<Option<Incoming>, Violation> {
        let Some((head, head_length)) = self.head()? else { return Ok(None) };
        // Told before the rest comes, which something that is no MQTT never sends.
        if self.version.is_none() && head.packet_type != PacketType::Connect {
            return Err(Violation::new(Reason::ProtocolError, "the first packet is no CONNECT"));
        }
        let length = head.remaining_length as usize;
        if head_length + length > MAXIMUM_PACKET_BYTES {
            let what = format!("a packet has {} bytes, over the limit of {MAXIMUM_PACKET_BYTES}", head_length + length);
            return Err(Violation::new(Reason::PacketTooLarge, what));
        }
        if self.buffer.len() < head_length + length {
            return Ok(None);
        }
        self.buffer.advance(head_length);
        let mut body = self.buffer.split_to(length).freeze();
        let version = self.version.unwrap_or(Version::V5);
        let packet = Packet::decode_from_body_with_version(head.packet_type, &head, &mut body, version.number())?;
        let incoming = match (packet, self.version) {
            (Packet::Connect(packet), None) => connect(*packet)?,
            (Packet::Connect(_), Some(_)) => return Err(Violation::new(Reason::ProtocolError, "a second CONNECT came")),
            (packet, _) => established(packet, version)?,
        };
        if let Incoming::Connect(connect) = &incoming {
            self.version = Some(connect.version);
        }
        Ok(Some(incoming))
    }

    fn head(&self) -> Result<Option<(FixedHeader, usize)>, Violation> {
        let mut start = &self.buffer[..self.buffer.len().min(MAXIMUM_HEAD_BYTES)];
        // The length is complete at its first byte without the high bit.
        let complete = start.iter().skip(1).any(|byte| byte & 0x80 == 0);
        if !complete && start.len() < MAXIMUM_HEAD_BYTES {
            return Ok(None);
        }
        let before = start.len();
        let head = FixedHeader::decode(&mut start)?;
        Ok(Some((head, before - start.len())))
    }
}

fn connect(packet: ConnectPacket) -> Result<Incoming, Violation> {
    let version = match packet.protocol_version {
        4 => Version::V3,
        5 => Version::V5,
        other => {
            let what = format!("the protocol version {other} is neither MQTT 3.1.1 (4) nor MQTT 5 (5)");
            return Err(Violation::new(Reason::UnsupportedVersion, what));
        }
    };
    if packet.properties.get_authentication_method().is_some() {
        return Err(Violation::new(Reason::ProtocolError, "IoT Core has no extended authentication (AUTH)"));
    }
    let receive_maximum = packet.properties.get_receive_maximum().unwrap_or(u16::MAX);
    if receive_maximum == 0 {
        return Err(Violation::new(Reason::ProtocolError, "Receive Maximum is 0"));
    }
    let will = packet.will.map(|will| -> Result<_, Violation> {
        Ok(Will {
            topic: will.topic,
            payload: will.payload.into(),
            quality: quality(will.qos)?,
            retain: will.retain,
            properties: message_properties(&packet.will_properties)?,
            expiry: expiry(&packet.will_properties)?,
            delay: will.properties.will_delay_interval.map_or(Duration::ZERO, seconds),
        })
    });
    let will = will.transpose()?;
    Ok(Incoming::Connect(Box::new(Connect {
        version,
        client_id: packet.client_id,
        clean_start: packet.clean_start,
        keep_alive: packet.keep_alive,
        user_name: packet.username,
        password: packet.password,
        will,
        session_expiry: packet.properties.get_session_expiry_interval().map(seconds),
        receive_maximum,
    })))
}

fn established(packet: Packet, version: Version) -> Result<Incoming, Violation> {
    Ok(match packet {
        Packet::Publish(packet) => Incoming::Publish(Box::new(publish(packet)?)),
        Packet::PubAck(packet) => Incoming::Acknowledgement { packet_id: packet.packet_id },
        Packet::Subscribe(packet) => subscribe(packet, version)?,
        Packet::Unsubscribe(packet) => {
            Incoming::Unsubscribe { packet_id: valid_packet_id(packet.packet_id)?, filters: packet.filters }
        }
        Packet::PingReq => Incoming::Ping,
        Packet::Disconnect(packet) => Incoming::Disconnect {
            with_will: packet.reason_code == ReasonCode::DisconnectWithWillMessage,
            session_expiry: packet.properties.get_session_expiry_interval().map(seconds),
        },
        other => {
            let what = format!("IoT Core takes no {}", other.packet_type_name());
            return Err(Violation::new(Reason::ProtocolError, what));
        }
    })
}

fn publish(packet: PublishPacket) -> Result<Publish, Violation> {
    quality(packet.qos)?;
    if packet.payload.len() > MAXIMUM_PAYLOAD_BYTES {
        let what = format!("a payload has {} bytes, over the limit of {MAXIMUM_PAYLOAD_BYTES}", packet.payload.len());
        return Err(Violation::new(Reason::PacketTooLarge, what));
    }
    if packet.properties.get_subscription_identifier().is_some() {
        return Err(Violation::new(Reason::ProtocolError, "a client's PUBLISH has a subscription identifier"));
    }
    Ok(Publish {
        alias: packet.properties.get_topic_alias(),
        packet_id: packet.packet_id.map(valid_packet_id).transpose()?,
        retain: packet.retain,
        properties: message_properties(&packet.properties)?,
        expiry: expiry(&packet.properties)?,
        topic: packet.topic_name,
        payload: packet.payload,
    })
}

fn subscribe(packet: SubscribePacket, version: Version) -> Result<Incoming, Violation> {
    if packet.properties.get_subscription_identifier().is_some() {
        let what = "IoT Core has no subscription identifiers";
        return Err(Violation::new(Reason::SubscriptionIdsNotSupported, what));
    }
    let filters = packet.filters.into_iter().map(|filter| {
        let quality = if filter.options.qos == QoS::AtMostOnce { Quality::AtMostOnce } else { Quality::AtLeastOnce };
        let retained = match filter.options.retain_handling {
            RetainHandling::SendAtSubscribe => RetainedWanted::Always,
            RetainHandling::SendAtSubscribeIfNew => RetainedWanted::IfNew,
            RetainHandling::DoNotSend => RetainedWanted::Never,
        };
        let options = SubscriptionOptions {
            quality,
            no_local: filter.options.no_local,
            retain_as_published: version == Version::V5 && filter.options.retain_as_published,
            retained,
        };
        RequestedFilter { text: filter.filter, options }
    });
    Ok(Incoming::Subscribe { filters: filters.collect(), packet_id: valid_packet_id(packet.packet_id)? })
}

fn quality(quality: QoS) -> Result<Quality, Violation> {
    match quality {
        QoS::AtMostOnce => Ok(Quality::AtMostOnce),
        QoS::AtLeastOnce => Ok(Quality::AtLeastOnce),
        QoS::ExactlyOnce => Err(Violation::new(Reason::QualityNotSupported, "IoT Core has no QoS 2")),
    }
}

/// MQTT 5.0, section 2.2.1: it is not 0.
fn valid_packet_id(packet_id: u16) -> Result<u16, Violation> {
    if packet_id == 0 { Err(Violation::new(Reason::ProtocolError, "a packet id is 0")) } else { Ok(packet_id) }
}

fn message_properties(properties: &Properties) -> Result<MessageProperties, Violation> {
    let text = |id| match properties.get(id) {
        Some(PropertyValue::Utf8String(text)) => Some(text.clone()),
        _ => None,
    };
    let pairs = properties.get_all(PropertyId::UserProperty).unwrap_or_default().iter();
    Ok(MessageProperties {
        content_type: text(PropertyId::ContentType),
        response_topic: match text(PropertyId::ResponseTopic) {
            Some(topic) if Topic::parse(&topic).is_err() => {
                return Err(Violation::new(Reason::TopicInvalid, "a response topic is no topic"));
            }
            topic => topic,
        },
        correlation_data: match properties.get(PropertyId::CorrelationData) {
            Some(PropertyValue::BinaryData(data)) => Some(data.clone()),
            _ => None,
        },
        payload_is_text: match properties.get(PropertyId::PayloadFormatIndicator) {
            Some(PropertyValue::Byte(indicator)) => Some(*indicator == 1),
            _ => None,
        },
        user: pairs
            .filter_map(|pair| match pair {
                PropertyValue::Utf8StringPair(name, value) => Some((name.clone(), value.clone())),
                _ => None,
            })
            .collect(),
    })
}

fn expiry(properties: &Properties) -> Result<Option<Duration>, Violation> {
    match properties.get_message_expiry_interval() {
        Some(interval) if !MESSAGE_EXPIRY_SECONDS.contains(&interval) => {
            let (lowest, highest) = (MESSAGE_EXPIRY_SECONDS.start(), MESSAGE_EXPIRY_SECONDS.end());
            let what = format!("a message expiry of {interval} s is not from {lowest} to {highest} s");
            Err(Violation::new(Reason::ProtocolError, what))
        }
        interval => Ok(interval.map(seconds)),
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

/// Appends a packet's bytes.
///
/// # Errors
/// When the packet does not fit the format, which only a text over 64 KB does: the caller's message cannot be sent to anyone.
pub(super) fn encode(packet: &Outgoing<'_>, version: Version, buffer: &mut BytesMut) -> Result<(), MqttError> {
    let number = version.number();
    match packet {
        Outgoing::Connected(connected) => {
            let mut packet = ConnAckPacket::new(connected.session_present, ReasonCode::Success);
            packet.protocol_version = number;
            if version == Version::V5 {
                announce(connected, &mut packet.properties);
            }
            packet.encode(buffer)
        }
        Outgoing::Refused(reason) => {
            let mut packet = ConnAckPacket::new(false, reason.code());
            packet.protocol_version = number;
            packet.encode(buffer)
        }
        Outgoing::Publish { message, quality, packet_id, retain, duplicate, now } => {
            let quality = match quality {
                Quality::AtMostOnce => QoS::AtMostOnce,
                Quality::AtLeastOnce => QoS::AtLeastOnce,
            };
            let mut packet = PublishPacket::new(message.topic.as_str(), message.payload.clone(), quality);
            packet.protocol_version = number;
            packet.packet_id = *packet_id;
            packet.retain = *retain;
            packet.dup = *duplicate;
            if version == Version::V5 {
                packet.properties = publish_properties(message, *now);
            }
            packet.encode(buffer)
        }
        Outgoing::Acknowledgement { packet_id } => PubAckPacket::new(*packet_id).encode(buffer),
        Outgoing::Subscribed { packet_id, results } => {
            let mut packet = SubAckPacket::new(*packet_id);
            packet.protocol_version = number;
            packet.reason_codes = results.iter().copied().map(granted).collect();
            packet.encode(buffer)
        }
        Outgoing::Unsubscribed { packet_id, existed } => {
            let mut packet = UnsubAckPacket::new(*packet_id);
            packet.protocol_version = number;
            let code = |existed: &bool| {
                if *existed { UnsubAckReasonCode::Success } else { UnsubAckReasonCode::NoSubscriptionExisted }
            };
            packet.reason_codes = existed.iter().map(code).collect();
            packet.encode(buffer)
        }
        Outgoing::Pong => {
            buffer.extend_from_slice(&PINGRESP);
            Ok(())
        }
        Outgoing::Disconnect(reason) => match version {
            // A server of MQTT 3.1.1 has no DISCONNECT: it closes.
            Version::V3 => Ok(()),
            Version::V5 => DisconnectPacket::new(reason.code()).encode(buffer),
        },
    }
}

/// What IoT Core offers, as its CONNACK says it ("MQTT" of the guide, "CONNACK properties").
fn announce(connected: &Connected<'_>, properties: &mut Properties) {
    properties.set_maximum_qos(1);
    properties.set_retain_available(true);
    properties.set_wildcard_subscription_available(true);
    properties.set_subscription_identifier_available(false);
    properties.set_shared_subscription_available(true);
    properties.set_receive_maximum(MAXIMUM_IN_FLIGHT);
    properties.set_topic_alias_maximum(MAXIMUM_TOPIC_ALIASES);
    properties.set_maximum_packet_size(u32::try_from(MAXIMUM_PACKET_BYTES).expect("the limit fits"));
    properties.set_server_keep_alive(connected.keep_alive);
    let expiry = connected.session_expiry.min(MAXIMUM_SESSION_EXPIRY).as_secs();
    properties.set_session_expiry_interval(u32::try_from(expiry).expect("the limit fits"));
    if let Some(client_id) = connected.assigned_client_id {
        properties.set_assigned_client_identifier(client_id.to_owned());
    }
}

fn publish_properties(message: &Message, now: Instant) -> Properties {
    let MessageProperties { content_type, response_topic, correlation_data, payload_is_text, user } = &message.properties;
    let mut properties = Properties::default();
    if let Some(content_type) = content_type {
        properties.set_content_type(content_type.clone());
    }
    if let Some(topic) = response_topic {
        properties.set_response_topic(topic.clone());
    }
    if let Some(data) = correlation_data {
        properties.set_correlation_data(data.clone());
    }
    if let Some(is_text) = payload_is_text {
        properties.set_payload_format_indicator(*is_text);
    }
    if let Some(seconds) = message.seconds_left(now) {
        properties.set_message_expiry_interval(seconds);
    }
    for (name, value) in user {
        properties.add_user_property(name.clone(), value.clone());
    }
    properties
}

fn granted(result: Result<Quality, Reason>) -> SubAckReasonCode {
    match result {
        Ok(Quality::AtMostOnce) => SubAckReasonCode::GrantedQoS0,
        Ok(Quality::AtLeastOnce) => SubAckReasonCode::GrantedQoS1,
        Err(Reason::NotAuthorized) => SubAckReasonCode::NotAuthorized,
        Err(Reason::TopicInvalid) => SubAckReasonCode::TopicFilterInvalid,
        Err(Reason::QuotaExceeded) => SubAckReasonCode::QuotaExceeded,
        Err(_) => SubAckReasonCode::UnspecifiedError,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use bytes::{Bytes, BytesMut};

    use super::{Decoder, Incoming, Outgoing, Reason, RetainedWanted, Version, encode};
    use crate::iot::message::{Message, MessageProperties, Quality};
    use crate::iot::topic::Topic;

    /// CONNECT of MQTT 3.1.1: clean session, keep-alive 60, client id `c`.
    const CONNECT_V3: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c";

    /// CONNECT of MQTT 5: clean start, keep-alive 60, no properties, client id `c`.
    const CONNECT_V5: &[u8] = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01c";

    fn decoder(connect: &[u8]) -> Decoder {
        let mut decoder = Decoder::default();
        decoder.buffer.extend_from_slice(connect);
        assert!(matches!(decoder.next(), Ok(Some(Incoming::Connect(_)))));
        decoder
    }

    fn next(decoder: &mut Decoder, bytes: &[u8]) -> Result<Option<Incoming>, Reason> {
        decoder.buffer.extend_from_slice(bytes);
        decoder.next().map_err(|violation| violation.reason)
    }

    #[test]
    fn packets_come_whole_however_the_bytes_come() {
        let mut decoder = Decoder::default();
        for byte in &CONNECT_V3[..CONNECT_V3.len() - 1] {
            assert!(matches!(next(&mut decoder, &[*byte]), Ok(None)));
        }
        let Ok(Some(Incoming::Connect(connect))) = next(&mut decoder, &CONNECT_V3[CONNECT_V3.len() - 1..]) else {
            panic!("a CONNECT");
        };
        assert_eq!((connect.version, connect.client_id.as_str(), connect.keep_alive), (Version::V3, "c", 60));
        let two = [b"\xc0\x00".as_slice(), b"\xe0\x00"].concat();
        assert!(matches!(next(&mut decoder, &two), Ok(Some(Incoming::Ping))));
        assert!(matches!(decoder.next(), Ok(Some(Incoming::Disconnect { with_will: false, session_expiry: None }))));
        assert!(matches!(decoder.next(), Ok(None)));
    }

    #[test]
    fn what_iot_core_does_not_take_has_its_reason() {
        let refused = |connect: &[u8], bytes: &[u8], expected: Reason| {
            assert_eq!(next(&mut decoder(connect), bytes).expect_err("refused"), expected, "{bytes:?}");
        };
        // PUBLISH at QoS 2 on topic `a`.
        refused(CONNECT_V3, b"\x34\x05\x00\x01a\x00\x01", Reason::QualityNotSupported);
        // PUBLISH at QoS 1 with packet id 0.
        refused(CONNECT_V3, b"\x32\x05\x00\x01a\x00\x00", Reason::ProtocolError);
        refused(CONNECT_V3, CONNECT_V3, Reason::ProtocolError);
        // AUTH.
        refused(CONNECT_V5, b"\xf0\x00", Reason::ProtocolError);
        // SUBSCRIBE with subscription identifier 1.
        refused(CONNECT_V5, b"\x82\x09\x00\x01\x02\x0b\x01\x00\x01a\x00", Reason::SubscriptionIdsNotSupported);
        // A message expiry of 0 seconds.
        refused(CONNECT_V5, b"\x30\x09\x00\x01a\x05\x02\x00\x00\x00\x00", Reason::ProtocolError);
        // A length that no packet may have, told from the head alone.
        refused(CONNECT_V3, b"\x30\xff\xff\x7f", Reason::PacketTooLarge);
        refused(CONNECT_V3, b"\x30\xff\xff\xff\xff", Reason::MalformedPacket);
    }

    #[test]
    fn the_first_packet_is_a_connect_of_a_known_version() {
        assert_eq!(next(&mut Decoder::default(), b"\xc0\x00").expect_err("no CONNECT"), Reason::ProtocolError);
        let sixth = b"\x10\x0d\x00\x04MQTT\x06\x02\x00\x3c\x00\x01c";
        assert_eq!(next(&mut Decoder::default(), sixth).expect_err("no such version"), Reason::UnsupportedVersion);
    }

    #[test]
    fn a_payload_over_the_limit_is_told_from_one_at_it() {
        let publish = |payload: usize| {
            let mut bytes = BytesMut::new();
            let message = Message::new(Topic::parse("a").expect("a topic"), vec![b'x'; payload]);
            let packet = Outgoing::Publish {
                message: &message,
                quality: Quality::AtMostOnce,
                packet_id: None,
                retain: false,
                duplicate: false,
                now: Instant::now(),
            };
            encode(&packet, Version::V3, &mut bytes).expect("it fits the format");
            next(&mut decoder(CONNECT_V3), &bytes)
        };
        assert!(matches!(publish(128 * 1024), Ok(Some(Incoming::Publish(_)))));
        assert_eq!(publish(128 * 1024 + 1).expect_err("too large"), Reason::PacketTooLarge);
    }

    #[test]
    fn a_message_keeps_its_properties_over_the_wire() {
        let now = Instant::now();
        let message = Message {
            topic: Topic::parse("a/b").expect("a topic"),
            payload: Bytes::from_static(b"{}"),
            quality: Quality::AtLeastOnce,
            retain: true,
            properties: MessageProperties {
                content_type: Some("application/json".to_owned()),
                response_topic: Some("r".to_owned()),
                correlation_data: Some(Bytes::from_static(&[0, 255])),
                payload_is_text: Some(true),
                user: vec![("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned()), ("a".to_owned(), "3".to_owned())],
            },
            expires_at: Some(now + Duration::from_secs(60)),
        };
        let packet = Outgoing::Publish {
            message: &message,
            quality: Quality::AtLeastOnce,
            packet_id: Some(7),
            retain: true,
            duplicate: false,
            now,
        };
        let mut bytes = BytesMut::new();
        encode(&packet, Version::V5, &mut bytes).expect("it fits the format");
        let Ok(Some(Incoming::Publish(publish))) = next(&mut decoder(CONNECT_V5), &bytes) else { panic!("a PUBLISH") };
        assert_eq!((publish.topic.as_str(), publish.packet_id, publish.retain), ("a/b", Some(7), true));
        assert_eq!((publish.properties, publish.expiry), (message.properties, Some(Duration::from_secs(60))));
    }

    #[test]
    fn a_subscription_is_granted_at_most_one() {
        // SUBSCRIBE to `a` at QoS 2 with retain handling 1, no local and retain as published.
        let bytes = b"\x82\x07\x00\x01\x00\x00\x01a\x1e";
        let Ok(Some(Incoming::Subscribe { packet_id: 1, filters })) = next(&mut decoder(CONNECT_V5), bytes) else {
            panic!("a SUBSCRIBE")
        };
        let options = filters[0].options;
        assert_eq!((filters[0].text.as_str(), options.quality), ("a", Quality::AtLeastOnce));
        assert!(options.no_local && options.retain_as_published);
        assert_eq!(options.retained, RetainedWanted::IfNew);
    }

    #[test]
    fn refusals_have_the_numbers_of_their_version() {
        let bytes = |packet: &Outgoing<'_>, version| {
            let mut bytes = BytesMut::new();
            encode(packet, version, &mut bytes).expect("it fits the format");
            bytes.to_vec()
        };
        assert_eq!(bytes(&Outgoing::Refused(Reason::NotAuthorized), Version::V3), [0x20, 2, 0, 5]);
        assert_eq!(bytes(&Outgoing::Refused(Reason::NotAuthorized), Version::V5), [0x20, 3, 0, 0x87, 0]);
        assert_eq!(bytes(&Outgoing::Disconnect(Reason::SessionTakenOver), Version::V5), [0xe0, 1, 0x8e]);
        assert_eq!(bytes(&Outgoing::Disconnect(Reason::SessionTakenOver), Version::V3), [0_u8; 0]);
        let results = [Ok(Quality::AtLeastOnce), Err(Reason::NotAuthorized)];
        let packet = Outgoing::Subscribed { packet_id: 1, results: &results };
        assert_eq!(bytes(&packet, Version::V3), [0x90, 4, 0, 1, 1, 0x80]);
        assert_eq!(bytes(&packet, Version::V5), [0x90, 5, 0, 1, 0, 1, 0x87]);
    }
}
