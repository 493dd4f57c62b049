//! A WebSocket client that judges nothing: it sends what a test wants, valid or not, and shows what comes.

use std::collections::VecDeque;

use futures_util::{SinkExt, StreamExt};
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::wait::{patience, within};

/// An open connection.
#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Frames that came while an answer was waited for.
    waiting: VecDeque<Value>,
    /// Messages of a frame of which not all were asked for yet.
    messages: VecDeque<Event>,
    requests: u64,
}

/// The answer to a handshake that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// A message as a subscriber sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The frame's channel.
    pub channel: String,
    /// The frame's epoch.
    pub epoch: String,
    /// The message's offset.
    pub offset: u64,
    /// The CloudEvent.
    pub event: Value,
}

impl Socket {
    /// Connects with a token in the `Authorization` header.
    ///
    /// # Errors
    /// [`Refused`] when the handshake is answered with a status.
    ///
    /// # Panics
    /// When nothing answers.
    pub async fn connect(url: &str, token: Option<&str>) -> Result<Self, Refused> {
        let authorization = token.map(|token| (AUTHORIZATION.as_str(), format!("Bearer {token}")));
        Self::handshake(url, authorization.as_slice()).await
    }

    /// Connects with a list of subprotocols, as a browser does, and gives the one that the server chose.
    ///
    /// # Errors
    /// [`Refused`] when the handshake is answered with a status.
    ///
    /// # Panics
    /// When nothing answers.
    pub async fn connect_with_protocols(url: &str, protocols: &str) -> Result<Self, Refused> {
        Self::handshake(url, &[(SEC_WEBSOCKET_PROTOCOL.as_str(), protocols.to_owned())]).await
    }

    async fn handshake(url: &str, headers: &[(&'static str, String)]) -> Result<Self, Refused> {
        let mut request = url.into_client_request().expect("the test has a valid URL");
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("the test has a valid header"));
        }
        match within("the handshake", connect_async(request)).await {
            Ok((stream, _)) => Ok(Self { stream, waiting: VecDeque::new(), messages: VecDeque::new(), requests: 0 }),
            Err(Error::Http(response)) => Err(Refused {
                status: response.status().as_u16(),
                body: response.body().as_deref().map_or_else(String::new, |body| String::from_utf8_lossy(body).into_owned()),
            }),
            Err(error) => panic!("{url}: {error}"),
        }
    }

    /// Sends a text message.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn send(&mut self, text: impl Into<String>) {
        self.send_message(Message::text(text.into())).await;
    }

    /// Sends any message.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn send_message(&mut self, message: Message) {
        within("the message to be sent", self.stream.send(message)).await.expect("the connection is open");
    }

    /// Sends a text message as several frames of at most `frame_bytes` (RFC 6455 section 5.4). What the server does not read
    /// any more because it has closed is not sent.
    pub async fn send_in_frames(&mut self, text: &str, frame_bytes: usize) {
        let parts: Vec<_> = text.as_bytes().chunks(frame_bytes).collect();
        for (index, part) in parts.iter().enumerate() {
            let opcode = if index == 0 { Data::Text } else { Data::Continue };
            let frame = Frame::message(part.to_vec(), OpCode::Data(opcode), index + 1 == parts.len());
            if self.stream.send(Message::Frame(frame)).await.is_err() {
                return;
            }
        }
    }

    /// Sends a request under a new `ref` and gives its reply. Other frames that come meanwhile wait.
    ///
    /// # Panics
    /// When no reply comes within the patience.
    pub async fn ask(&mut self, mut request: Value) -> Value {
        self.requests += 1;
        let reference = format!("r{}", self.requests);
        request["ref"] = json!(reference);
        self.send(request.to_string()).await;
        self.reply(|frame| frame["ref"] == reference.as_str()).await
    }

    /// Sends a text, as it is, and gives the reply to it: the next one, so no other may be due.
    ///
    /// # Panics
    /// When no reply comes within the patience.
    pub async fn ask_raw(&mut self, text: impl Into<String>) -> Value {
        self.send(text).await;
        self.next_reply().await
    }

    /// The next reply, whatever it replies to.
    ///
    /// # Panics
    /// When none comes within the patience.
    pub async fn next_reply(&mut self) -> Value {
        self.reply(|_| true).await
    }

    /// Subscribes to a channel, and gives the reply, which must be a good one.
    ///
    /// # Panics
    /// When the server refuses or does not answer.
    pub async fn subscribe(&mut self, channel: &str) -> Value {
        let reply = self.ask(json!({"action": "subscribe", "channel": channel})).await;
        assert_eq!(reply["ok"], true, "{reply}");
        reply
    }

    /// Proves that the connection works: a ping is answered.
    ///
    /// # Panics
    /// When it is not.
    pub async fn assert_alive(&mut self) {
        let reply = self.ask(json!({"action": "ping"})).await;
        assert_eq!(reply["ok"], true, "{reply}");
    }

    /// The next frame that is no reply.
    ///
    /// # Panics
    /// When none comes within the patience.
    pub async fn frame(&mut self) -> Value {
        match self.waiting.pop_front() {
            Some(frame) => frame,
            None => self.read().await,
        }
    }

    /// The next messages of subscriptions, in the order of their coming.
    ///
    /// # Panics
    /// When they do not come within the patience, or a frame of another type comes.
    pub async fn events(&mut self, count: usize) -> Vec<Event> {
        while self.messages.len() < count {
            let frame = self.frame().await;
            assert_eq!(frame["type"], "events", "{frame}");
            let text = |name: &str| frame[name].as_str().unwrap_or_else(|| panic!("no {name}: {frame}")).to_owned();
            let messages = frame["events"].as_array().unwrap_or_else(|| panic!("no events: {frame}"));
            self.messages.extend(messages.iter().map(|message| Event {
                channel: text("channel"),
                epoch: text("epoch"),
                offset: message["offset"].as_u64().unwrap_or_else(|| panic!("no offset: {frame}")),
                event: message["event"].clone(),
            }));
        }
        self.messages.drain(..count).collect()
    }

    /// The next message of a subscription.
    ///
    /// # Panics
    /// As [`Socket::events`].
    pub async fn event(&mut self) -> Event {
        self.events(1).await.remove(0)
    }

    /// Waits until the server closes, and gives the code of its close frame: 1005 where it has none, 1006 where the connection
    /// ended without one (RFC 6455 section 7.4.1).
    ///
    /// # Panics
    /// When it does not close within the patience.
    pub async fn closed(&mut self) -> u16 {
        within("the server to close", async {
            loop {
                match self.stream.next().await {
                    Some(Ok(Message::Close(Some(CloseFrame { code, .. })))) => return code.into(),
                    Some(Ok(Message::Close(None))) => return 1005,
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return 1006,
                }
            }
        })
        .await
    }

    /// Closes and waits until the server has closed too.
    ///
    /// # Panics
    /// When it does not within the patience.
    pub async fn close(mut self) {
        // An error says that the connection is closed already.
        let _ = self.stream.close(None).await;
        within("the closing handshake", async { while let Some(Ok(_)) = self.stream.next().await {} }).await;
    }

    async fn reply(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        loop {
            let frame = self.read().await;
            // API Gateway's own errors stand in for a reply and name no `ref`.
            let gateway = frame.get("type").is_none() && frame.get("message").is_some();
            if gateway || (frame["type"] == "reply" && is_it(&frame)) {
                return frame;
            }
            self.waiting.push_back(frame);
        }
    }

    async fn read(&mut self) -> Value {
        within("a frame", async {
            loop {
                match self.stream.next().await {
                    Some(Ok(Message::Text(text))) => {
                        return serde_json::from_str(text.as_str()).unwrap_or_else(|error| panic!("{error}: {text}"));
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    other => panic!("instead of a frame, within {:?}, came: {other:?}", patience()),
                }
            }
        })
        .await
    }
}
