//! A reader of server-sent events that judges nothing: it shows what comes, and is cut off by being dropped.

use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::http::Answer;
use crate::wait::within;
use crate::websocket::Event;

/// An answer that is no stream.
pub type Refused = Box<Answer>;

/// An open stream. Dropping it closes its TCP connection in the middle of the answer.
#[derive(Debug)]
pub struct SseStream {
    body: hyper::body::Incoming,
    headers: http::HeaderMap,
    /// What has come and was not taken yet.
    unread: Vec<u8>,
    last_id: Option<String>,
    comments: usize,
}

/// One event as it stands in the stream.
#[derive(Clone, Debug, PartialEq)]
pub struct SseEvent {
    /// The field `event`; empty where there is none.
    pub name: String,
    /// The field `id`; nothing where there is none.
    pub id: Option<String>,
    /// The data, which is always JSON.
    pub data: Value,
}

impl SseStream {
    /// Sends a GET request on a connection of its own.
    ///
    /// # Errors
    /// [`Refused`] when the status is not 200.
    ///
    /// # Panics
    /// When nothing answers within the patience.
    pub async fn open(url: &str, headers: &[(&str, &str)]) -> Result<Self, Refused> {
        let mut request = Request::builder().method(Method::GET).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<bytes::Bytes>::new()).expect("the test makes a valid request");
        let client = Client::builder(TokioExecutor::new()).build_http();
        let answer = within(url, client.request(request)).await.unwrap_or_else(|error| panic!("{url}: {error}"));
        let (parts, body) = answer.into_parts();
        if parts.status != 200 {
            let body = within(url, body.collect()).await.unwrap_or_else(|error| panic!("{url}: {error}"));
            return Err(Box::new(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() }));
        }
        Ok(Self { body, headers: parts.headers, unread: Vec::new(), last_id: None, comments: 0 })
    }

    /// The headers of the answer.
    #[must_use]
    pub const fn headers(&self) -> &http::HeaderMap {
        &self.headers
    }

    /// The id of the last event that was taken and had one, by which a client comes back.
    #[must_use]
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// How many comments came with what was taken.
    #[must_use]
    pub const fn comments(&self) -> usize {
        self.comments
    }

    /// The next event, whatever it is; none at the stream's end.
    ///
    /// # Cancel safety
    /// What has come when the wait is given up is there for the next call.
    ///
    /// # Panics
    /// When nothing comes within the patience, the connection breaks, or an event's data is no JSON.
    pub async fn next(&mut self) -> Option<SseEvent> {
        within("an event of the stream", async {
            loop {
                while let Some(block) = self.take_block() {
                    if let Some(event) = self.read(&block) {
                        return Some(event);
                    }
                }
                let frame = self.body.frame().await?.unwrap_or_else(|error| panic!("the stream broke: {error}"));
                self.unread.extend(frame.data_ref().into_iter().flatten());
            }
        })
        .await
    }

    /// The stream's first event, `carillon.subscribed`: its list of channels.
    ///
    /// # Panics
    /// When another one comes, or none within the patience.
    pub async fn subscribed(&mut self) -> Vec<Value> {
        let event = self.next().await.expect("the stream begins");
        assert_eq!(event.name, "carillon.subscribed", "{event:?}");
        event.data["channels"].as_array().unwrap_or_else(|| panic!("no channels: {event:?}")).clone()
    }

    /// The next message, in the form that a WebSocket subscriber sees it in: the position is taken out of the event.
    ///
    /// # Panics
    /// When anything else comes, or nothing within the patience.
    pub async fn message(&mut self) -> Event {
        let event = self.next().await.expect("the stream goes on");
        assert_eq!(event.name, "", "{event:?}");
        message(event.data)
    }

    /// The next messages.
    ///
    /// # Panics
    /// As [`SseStream::message`].
    pub async fn messages(&mut self, count: usize) -> Vec<Event> {
        let mut messages = Vec::with_capacity(count);
        while messages.len() < count {
            messages.push(self.message().await);
        }
        messages
    }

    /// What has come up to an empty line, without it.
    fn take_block(&mut self) -> Option<String> {
        let end = self.unread.windows(2).position(|pair| pair == b"\n\n")?;
        let block = self.unread.drain(..end + 2).take(end).collect();
        Some(String::from_utf8(block).expect("streams are UTF-8"))
    }

    /// The fields of a block (HTML standard, section 9.2.6); none where it has no data.
    fn read(&mut self, block: &str) -> Option<SseEvent> {
        let (mut name, mut id, mut data) = (String::new(), None, None::<String>);
        for line in block.lines() {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" => self.comments += 1,
                "event" => value.clone_into(&mut name),
                "id" => id = Some(value.to_owned()),
                "data" => data = Some(data.map_or_else(|| value.to_owned(), |data| format!("{data}\n{value}"))),
                "retry" => {}
                other => panic!("a stream has no field {other:?}: {block}"),
            }
        }
        let data = data?;
        if id.is_some() {
            self.last_id.clone_from(&id);
        }
        let data = serde_json::from_str(&data).unwrap_or_else(|error| panic!("{error}: {data}"));
        Some(SseEvent { name, id, data })
    }
}

/// A message of a stream or of MQTT, whose JSON has the position in it, in the form of a WebSocket subscriber's.
///
/// # Panics
/// When it has no subject or no position.
#[must_use]
pub fn message(mut event: Value) -> Event {
    let members = event.as_object_mut().expect("a message is an object");
    let (epoch, offset) = (members.remove("epoch"), members.remove("offset"));
    Event {
        channel: members.get("subject").and_then(Value::as_str).expect("a subject").to_owned(),
        epoch: epoch.as_ref().and_then(Value::as_str).expect("an epoch that is a text").to_owned(),
        offset: offset.as_ref().and_then(Value::as_u64).expect("an offset that is a number"),
        event,
    }
}
