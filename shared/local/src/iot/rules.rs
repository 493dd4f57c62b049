//! IoT rules: messages that invoke functions.

use std::sync::Arc;

use bytes::Bytes;

use super::message::{Message, Now};
use super::sql::Event;
use crate::invoker::Invoker;
use crate::spec::TopicRuleSpec;

/// The rules of a template. A rule with several functions is here several times.
#[derive(Clone)]
pub(super) struct Rules {
    specs: Vec<TopicRuleSpec>,
    invoker: Arc<dyn Invoker>,
}

/// Where a message came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin<'a> {
    /// The client, where it came over MQTT.
    pub(super) client_id: Option<&'a str>,
    /// The trace id, where it came over MQTT.
    pub(super) trace_id: Option<&'a str>,
}

impl Rules {
    pub(super) fn new(specs: Vec<TopicRuleSpec>, invoker: Arc<dyn Invoker>) -> Self {
        Self { specs, invoker }
    }

    /// Invokes the function of every rule whose topic filter matches, asynchronously and with exactly what its SQL makes.
    pub(super) fn run(&self, message: &Message, origin: Origin<'_>, now: Now) {
        let topic = message.topic.as_str();
        for rule in self.specs.iter().filter(|rule| rule.statement.source().matches(topic)) {
            self.invoke(rule, topic, &message.payload, origin, now);
        }
    }

    /// Basic ingest: hands a message to one rule by its name; says whether there is such a rule. The rule's filter is not asked
    /// (AWS IoT Core Developer Guide, "Reducing messaging costs with Basic Ingest").
    pub(super) fn ingest(&self, name: &str, topic: &str, payload: &[u8], origin: Origin<'_>, now: Now) -> bool {
        let mut is_known = false;
        for rule in self.specs.iter().filter(|rule| rule.name == name) {
            is_known = true;
            self.invoke(rule, topic, payload, origin, now);
        }
        is_known
    }

    fn invoke(&self, rule: &TopicRuleSpec, topic: &str, payload: &[u8], origin: Origin<'_>, now: Now) {
        let event = Event { topic, payload, client_id: origin.client_id, trace_id: origin.trace_id, timestamp_ms: now.unix_ms };
        let output = match rule.statement.apply(&event) {
            Ok(output) => output,
            Err(reason) => {
                tracing::warn!(rule.name = %rule.name, mqtt.topic = topic, %reason, "a rule does nothing with a message");
                return;
            }
        };
        if let Err(error) = self.invoker.invoke_later(&rule.function, Bytes::from(output.to_string())) {
            tracing::warn!(
                rule.name = %rule.name,
                function.name = %rule.function,
                %error,
                "a message could not be handed to the function of a rule",
            );
        }
    }
}
