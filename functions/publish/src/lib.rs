#![doc = include_str!("../README.md")]
// The futures of an invocation are nested deeper than the compiler's default of 128.
#![recursion_limit = "256"]

mod sources;

use carillon_core::event::Event;
use carillon_core::secret::Secret;
use carillon_core::time::Millis;
use carillon_engine::engine::Engine;
use carillon_engine::ports::{Clock, Queue, Store};
use carillon_runtime::failure::InvocationFailure;
use carillon_wire::http::{Outcome, Placed};
use serde_json::value::RawValue;

/// Handles what Lambda invokes the function with.
pub struct Handler<S, Q, C> {
    engine: Engine<S, Q, C>,
    secret: Secret,
}

/// What is known of an invocation beside its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// Its id; Lambda's retries of an asynchronous invocation keep it.
    pub request_id: String,
    /// When it ends, where that is known.
    pub deadline: Option<Millis>,
}

impl<S: Store, Q: Queue, C: Clock> Handler<S, Q, C> {
    /// A handler over this engine; over HTTP this secret opens it. The other sources are opened by IAM.
    pub fn new(engine: Engine<S, Q, C>, secret: Secret) -> Self {
        Self { engine, secret }
    }

    /// Now, by the engine's clock.
    pub fn now(&self) -> Millis {
        self.engine.now()
    }

    /// Handles one invocation and answers with the JSON that its source expects.
    ///
    /// # Errors
    /// When the source has no other way to hear that an event was not published, see the table above.
    pub async fn handle(&self, payload: &RawValue, invocation: &Invocation) -> Result<Box<RawValue>, InvocationFailure> {
        let answer = sources::handle(self, payload.get(), invocation).await?;
        Ok(RawValue::from_string(answer).expect("every source answers with JSON"))
    }

    /// Publishes events and says what became of each, in their order.
    async fn publish(&self, events: Vec<Event>, deadline: Option<Millis>) -> Vec<Outcome> {
        let names: Vec<_> = events.iter().map(|event| (event.channel.to_string(), event.id.as_str().to_owned())).collect();
        let fates = self.engine.publish(events, deadline).await;
        let outcomes = names.into_iter().zip(fates).map(|((channel, id), fate)| {
            let fate = fate.map(|published| Placed { position: published.position, duplicate: published.duplicate });
            Outcome { channel, id, fate }
        });
        outcomes.collect()
    }
}

#[cfg(test)]
mod tests;
