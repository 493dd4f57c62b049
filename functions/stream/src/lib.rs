#![doc = include_str!("../README.md")]
// The futures of an invocation are nested deeper than the compiler's default of 128.
#![recursion_limit = "256"]

mod events;
mod response;

pub use response::{Body, Response};

use carillon_core::channel::Channel;
use carillon_core::fault::{ErrorCode, Fault};
use carillon_core::secret::Secret;
use carillon_core::time::Millis;
use carillon_engine::ports::{Clock, Live, Store};
use carillon_engine::stream::Streams;
use carillon_runtime::function_url::Request;
use carillon_wire::sse;
use events::{Events, Report};
use futures_util::stream::{self, StreamExt};
use http::{StatusCode, header};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use tracing::{Instrument, Span};

/// The one method there is.
const METHOD: &str = "GET";

/// How long before its invocation's end a stream ends, in milliseconds: what it says last has to get through.
const BEFORE_DEADLINE_MS: u64 = 5_000;

/// A stream ends up to this part of its length early, at random, so that those who came at once do not come back at once.
const SPREAD: u64 = 10;

/// Handles what the function URL hands over.
pub struct Handler<S, L, C> {
    streams: Arc<Streams<S, L, C>>,
    secret: Secret,
    length_ms: u64,
}

/// What is known of an invocation beside its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// Its id.
    pub request_id: String,
    /// When it ends, where that is known.
    pub deadline: Option<Millis>,
}

impl<S, L, C> Handler<S, L, C>
where
    S: Store + 'static,
    L: Live + 'static,
    C: Clock + 'static,
{
    /// A handler over these streams, opened by this secret. A stream lasts `length` at most.
    pub fn new(streams: Streams<S, L, C>, secret: Secret, length: Duration) -> Self {
        let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        Self { streams: Arc::new(streams), secret, length_ms }
    }

    /// Now, by the streams' clock.
    pub fn now(&self) -> Millis {
        self.streams.now()
    }

    /// What the streams hear of messages by.
    pub fn live(&self) -> &L {
        self.streams.live()
    }

    /// Answers one request. The body does its work as it is read, within the span that is current now.
    pub fn handle(&self, payload: &str, invocation: &Invocation) -> Response {
        let request = match Request::parse(payload) {
            Ok(request) => request,
            Err(fault) => return Response::refusal(&fault),
        };
        // Before anything else: whoever has no token learns nothing.
        if let Err(fault) = request.authenticate(&self.secret) {
            return Response::refusal(&fault).with(header::WWW_AUTHENTICATE, "Bearer");
        }
        if request.raw_path != sse::PATH {
            let text = format!("path: {:?} is none; there is {}", request.raw_path, sse::PATH);
            return Response::refusal(&Fault::new(ErrorCode::NotFound, text));
        }
        if request.method() != METHOD {
            let fault = Fault::bad_request("method", format_args!("{:?} is not served; there is {METHOD}", request.method()));
            return Response::refusal(&fault).under(StatusCode::METHOD_NOT_ALLOWED).with(header::ALLOW, METHOD);
        }
        match sse::request::decode(&request.raw_query_string, request.header(sse::LAST_EVENT_ID)) {
            Ok(wanted) => self.open(wanted, invocation),
            Err(fault) => Response::refusal(&fault),
        }
    }

    fn open(&self, wanted: sse::request::Request, invocation: &Invocation) -> Response {
        let channels: Vec<Channel> = wanted.channels.iter().map(|(channel, _)| channel.clone()).collect();
        let streams = Arc::clone(&self.streams);
        let report = Report::new(channels.len(), Box::new(move || streams.now()));
        let stream = self.streams.open(wanted.channels, self.ends_at(invocation));
        let events = Events::new(stream, &channels, wanted.named, report);
        let span = Span::current();
        let body = stream::unfold(events, move |mut events| {
            let step = async move { events.next().await.map(|bytes| (Ok(bytes), events)) };
            step.instrument(span.clone())
        });
        Response::events(body.boxed())
    }

    fn ends_at(&self, invocation: &Invocation) -> Millis {
        // Lambda makes the ids at random.
        let mut hasher = DefaultHasher::new();
        invocation.request_id.hash(&mut hasher);
        let early = hasher.finish() % (self.length_ms / SPREAD).max(1);
        let planned = self.now().plus(self.length_ms - early);
        match invocation.deadline {
            Some(deadline) => planned.min(Millis(deadline.0.saturating_sub(BEFORE_DEADLINE_MS))),
            None => planned,
        }
    }
}

#[cfg(test)]
mod tests;
