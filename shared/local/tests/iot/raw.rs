//! A client that writes and reads the bytes of MQTT itself, for what a well-behaved one does not do.

use bytes::{BufMut, BytesMut};
use carillon_local::stack::Stack;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{mqtt_address, open_password, within};

/// What a CONNECT says.
#[derive(Clone)]
pub(crate) struct Connect {
    /// 4 or 5.
    pub(crate) version: u8,
    pub(crate) client_id: String,
    pub(crate) clean: bool,
    pub(crate) user_name: String,
    pub(crate) password: String,
    /// Topic and payload, at QoS 0.
    pub(crate) will: Option<(String, String)>,
}

/// An open connection.
pub(crate) struct Raw {
    stream: TcpStream,
    version: u8,
}

impl Connect {
    /// A clean session of a client that may do everything.
    pub(crate) fn new(version: u8, client_id: &str) -> Self {
        Self {
            version,
            client_id: client_id.to_owned(),
            clean: true,
            user_name: "token".to_owned(),
            password: open_password(),
            will: None,
        }
    }

    pub(crate) fn bytes(&self) -> BytesMut {
        let mut body = BytesMut::new();
        text(&mut body, "MQTT");
        body.put_u8(self.version);
        body.put_u8(0xc0 | u8::from(self.clean) << 1 | u8::from(self.will.is_some()) << 2);
        body.put_u16(60);
        self.properties(&mut body);
        text(&mut body, &self.client_id);
        if let Some((topic, payload)) = &self.will {
            self.properties(&mut body);
            text(&mut body, topic);
            text(&mut body, payload);
        }
        text(&mut body, &self.user_name);
        text(&mut body, &self.password);
        packet(0x10, &body)
    }

    fn properties(&self, body: &mut BytesMut) {
        if self.version == 5 {
            body.put_u8(0);
        }
    }
}

impl Raw {
    /// Connects and gives the CONNACK, with the session-present flag and the code.
    pub(crate) async fn connect_to(address: &str, connect: &Connect) -> (Self, [u8; 2]) {
        let stream = TcpStream::connect(address).await.expect("it accepts");
        let mut raw = Self { stream, version: connect.version };
        raw.send(&connect.bytes()).await;
        let connack = raw.receive().await.expect("a CONNACK");
        assert_eq!(connack[0], 0x20, "{connack:?}");
        let start = connack.len() - usize::from(connack[1]);
        (raw, [connack[start], connack[start + 1]])
    }

    pub(crate) async fn connect(stack: &Stack, connect: &Connect) -> (Self, [u8; 2]) {
        Self::connect_to(&mqtt_address(stack), connect).await
    }

    /// A client that is let in.
    pub(crate) async fn open(stack: &Stack, connect: &Connect) -> Self {
        let (raw, connack) = Self::connect(stack, connect).await;
        assert_eq!(connack, [0, 0]);
        raw
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the broker reads");
    }

    pub(crate) async fn publish(&mut self, topic: &str, quality: u8, payload: &[u8]) {
        let mut body = BytesMut::new();
        text(&mut body, topic);
        if quality > 0 {
            body.put_u16(1);
        }
        if self.version == 5 {
            body.put_u8(0);
        }
        body.put_slice(payload);
        self.send(&packet(0x30 | quality << 1, &body)).await;
    }

    pub(crate) async fn subscribe(&mut self, filters: &[&str]) {
        let mut body = BytesMut::new();
        body.put_u16(1);
        if self.version == 5 {
            body.put_u8(0);
        }
        for filter in filters {
            text(&mut body, filter);
            body.put_u8(1);
        }
        self.send(&packet(0x82, &body)).await;
    }

    /// The next packet, or nothing at the end of the connection.
    pub(crate) async fn receive(&mut self) -> Option<Vec<u8>> {
        within("a packet or the end", async {
            let mut bytes = vec![self.stream.read_u8().await.ok()?];
            let (mut length, mut shift) = (0_usize, 0);
            loop {
                let byte = self.stream.read_u8().await.ok()?;
                bytes.push(byte);
                length |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body).await.ok()?;
            bytes.extend(body);
            Some(bytes)
        })
        .await
    }

    /// The connection ends, and an MQTT 5 client is told this before.
    pub(crate) async fn expect_end(&mut self, reason: u8) {
        if self.version == 5 {
            assert_eq!(self.receive().await.expect("a DISCONNECT"), [0xe0, 1, reason]);
        }
        assert_eq!(self.receive().await, None);
    }

    /// Ends the connection below without a DISCONNECT.
    pub(crate) fn drop_connection(self) {
        drop(self.stream);
    }

    /// Says goodbye.
    pub(crate) async fn disconnect(mut self) {
        self.send(&[0xe0, 0]).await;
        assert_eq!(self.receive().await, None);
    }
}

fn text(body: &mut BytesMut, text: &str) {
    body.put_u16(u16::try_from(text.len()).expect("a short text"));
    body.put_slice(text.as_bytes());
}

fn packet(head: u8, body: &[u8]) -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.put_u8(head);
    let mut length = body.len();
    loop {
        let byte = u8::try_from(length & 0x7f).expect("seven bits");
        length >>= 7;
        bytes.put_u8(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            break;
        }
    }
    bytes.put_slice(body);
    bytes
}
