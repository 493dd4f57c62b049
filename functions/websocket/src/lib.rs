#![doc = include_str!("../README.md")]
// The futures of an invocation are nested deeper than the compiler's default of 128.
#![recursion_limit = "256"]

mod credentials;
mod event;

pub use event::{Event, RequestContext, Response};

use carillon_core::channel::Channel;
use carillon_core::connection::{ConnectionId, Principal};
use carillon_core::event::Event as Message;
use carillon_core::fault::{ErrorCode, Fault};
use carillon_core::position::Position;
use carillon_core::secret::Secret;
use carillon_core::time::Millis;
use carillon_engine::engine::Engine;
use carillon_engine::ports::{Clock, Queue, Store};
use carillon_engine::rows::Dialect;
use carillon_wire::cloudevents::Defaults;
use carillon_wire::native::client::{self, Action, Request};
use carillon_wire::native::server::{self, HistoryReply, Reply};
use carillon_wire::native::{Reference, SUBPROTOCOL};
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
use uuid::Uuid;

/// Handles the WebSocket API's events.
pub struct Handler<S, Q, C> {
    engine: Engine<S, Q, C>,
    secret: Secret,
}

impl<S: Store, Q: Queue, C: Clock> Handler<S, Q, C> {
    /// A handler over this engine, opened by this secret.
    pub fn new(engine: Engine<S, Q, C>, secret: Secret) -> Self {
        Self { engine, secret }
    }

    /// Now, by the engine's clock.
    pub fn now(&self) -> Millis {
        self.engine.now()
    }

    /// Handles one event. `deadline` is when the invocation ends, where that is known.
    pub async fn handle(&self, event: &Event, deadline: Option<Millis>) -> Response {
        let context = &event.request_context;
        let Ok(id) = ConnectionId::try_new(context.connection_id.as_str()) else {
            tracing::error!(route.key = context.route_key, "the event's connectionId is none");
            return Response::fault(&Fault::internal());
        };
        match context.route_key.as_str() {
            "$connect" => self.connect(&id, event).await,
            "$disconnect" => self.disconnect(&id).await,
            // Whoever gives an action a route of its own gets the same answer.
            _ => Response::reply(self.message(&id, event.body.as_deref().unwrap_or_default(), deadline).await),
        }
    }

    async fn connect(&self, id: &ConnectionId, event: &Event) -> Response {
        let offer = credentials::offered(event);
        if !offer.tokens.iter().any(|token| self.secret.opens_with(token)) {
            let text = if offer.tokens.is_empty() { "there is none" } else { "it opens nothing" };
            let fault = Fault::new(ErrorCode::Unauthorized, format!("token: {text}; {}", credentials::PLACES));
            tracing::info!(connection.id = %id, error.code = %fault.code, "a connect was refused");
            return Response::fault(&fault);
        }
        let connected_at = event.request_context.connected_at.map_or_else(|| self.engine.now(), Millis);
        match guarded(id, self.engine.connect(id, Principal::shared(), Dialect::Native, connected_at)).await {
            Ok(()) => Response::connection(offer.native.then_some(SUBPROTOCOL)),
            Err(fault) => Response::fault(&fault),
        }
    }

    async fn disconnect(&self, id: &ConnectionId) -> Response {
        match guarded(id, self.engine.disconnect(id)).await {
            Ok(()) => Response::connection(None),
            Err(fault) => Response::fault(&fault),
        }
    }

    /// Answers one frame.
    async fn message(&self, id: &ConnectionId, frame: &str, deadline: Option<Millis>) -> String {
        let new_id = |_: Option<usize>| Uuid::new_v4().to_string();
        // A publisher that names no source is its connection; nobody else can take its ids then.
        let defaults = Defaults::unrepeatable(id.as_str(), self.engine.now(), &new_id);
        let Request { reference, action } = match client::decode(frame, &defaults) {
            Ok(request) => request,
            Err(refusal) => return refused(id, refusal.reference.as_ref(), &refusal.fault),
        };
        let reference = reference.as_ref();
        match guarded(id, self.act(id, reference, action, deadline)).await {
            Ok(reply) => reply,
            Err(fault) => refused(id, reference, &fault),
        }
    }

    async fn act(
        &self,
        id: &ConnectionId,
        reference: Option<&Reference>,
        action: Action,
        deadline: Option<Millis>,
    ) -> Result<String, Fault> {
        match action {
            Action::Subscribe { channel, since } => self.subscribe(id, reference, &channel, since).await,
            Action::Unsubscribe { channel } => {
                self.engine.unsubscribe(id, &channel).await?;
                Ok(server::reply(reference, &Reply::Unsubscribed { channel: &channel }))
            }
            Action::Publish(message) => self.publish(reference, *message, deadline).await,
            Action::History { channel, from, limit } => self.history(reference, &channel, from, limit).await,
            Action::Ping => Ok(server::reply(reference, &Reply::Pong)),
        }
    }

    async fn subscribe(
        &self,
        id: &ConnectionId,
        reference: Option<&Reference>,
        channel: &Channel,
        since: Option<Position>,
    ) -> Result<String, Fault> {
        let subscribed = self.engine.subscribe(id, channel, since).await?;
        let (position, recovered) = (subscribed.position, subscribed.recovered);
        Ok(server::reply(reference, &Reply::Subscribed { channel, position, recovered }))
    }

    async fn publish(&self, reference: Option<&Reference>, message: Message, deadline: Option<Millis>) -> Result<String, Fault> {
        let id = message.id.clone();
        let fate = self.engine.publish(vec![message], deadline).await.pop();
        let published = fate.unwrap_or_else(|| Err(Fault::internal()))?;
        let (channel, position, duplicate) = (&published.channel, published.position, published.duplicate);
        Ok(server::reply(reference, &Reply::Published { channel, id: id.as_str(), position, duplicate }))
    }

    async fn history(
        &self,
        reference: Option<&Reference>,
        channel: &Channel,
        from: Option<Position>,
        limit: usize,
    ) -> Result<String, Fault> {
        let page = self.engine.history(channel, from, limit).await?;
        let (epoch, next, recovered) = (page.epoch, page.next, page.recovered);
        let page = HistoryReply { channel, epoch, events: &page.events, next, recovered };
        Ok(server::reply(reference, &Reply::History(page)))
    }
}

/// Turns a panic into an error, so that the client gets a reply with its `ref` and not API Gateway's own words.
async fn guarded<T>(id: &ConnectionId, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    // What a panic leaves behind is at worst a cache that lacks an entry: the engine's locks pass over poison.
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(connection.id = %id, "a request panicked");
        Err(Fault::internal())
    })
}

fn refused(id: &ConnectionId, reference: Option<&Reference>, fault: &Fault) -> String {
    // What failed on our side was logged where it failed; a client's mistakes interest only whoever looks for them.
    tracing::debug!(connection.id = %id, error.code = %fault.code, "a request was refused");
    server::refusal(reference, fault)
}

#[cfg(test)]
mod tests;
