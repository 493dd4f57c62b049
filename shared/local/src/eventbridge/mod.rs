//! EventBridge: PutEvents, buses, and rules whose targets are functions.
//!
//! | module | is |
//! |---|---|
//! | [`pattern`] | event patterns |
//! | [`api`] | what SDKs talk to |
//!
//! # Not as on AWS
//! An event reaches its targets at once and in order; AWS takes half a second and promises no order. A target is invoked
//! asynchronously, so Lambda's two retries are all there are; EventBridge's own 24 hours of retries would follow on AWS only where
//! Lambda cannot be reached.

pub mod api;
pub mod pattern;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::invoker::Invoker;
use crate::spec::RuleSpec;
use pattern::{Pattern, PatternError};

/// The buses and rules of a stack. Clones are the same buses.
#[derive(Clone)]
pub struct EventBridge {
    shared: Arc<Shared>,
}

struct Shared {
    buses: BTreeSet<String>,
    rules: Vec<Rule>,
    invoker: Arc<dyn Invoker>,
    account: String,
    region: String,
}

struct Rule {
    spec: RuleSpec,
    pattern: Pattern,
}

/// A rule cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the rule {logical_id} cannot be used")]
pub struct RuleError {
    logical_id: String,
    #[source]
    source: PatternError,
}

impl EventBridge {
    /// Buses with rules. The bus `default` is always there.
    ///
    /// # Errors
    /// When a pattern cannot be parsed.
    pub fn new(
        buses: &[String],
        rules: Vec<RuleSpec>,
        invoker: Arc<dyn Invoker>,
        account: &str,
        region: &str,
    ) -> Result<Self, RuleError> {
        let parse = |spec: RuleSpec| match Pattern::parse(&spec.pattern) {
            Ok(pattern) => Ok(Rule { spec, pattern }),
            Err(source) => Err(RuleError { logical_id: spec.logical_id, source }),
        };
        let mut buses: BTreeSet<String> = buses.iter().cloned().collect();
        buses.insert("default".to_owned());
        let shared = Shared {
            buses,
            rules: rules.into_iter().map(parse).collect::<Result<_, _>>()?,
            invoker,
            account: account.to_owned(),
            region: region.to_owned(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Whether there is such a bus.
    #[must_use]
    pub fn has_bus(&self, name: &str) -> bool {
        self.shared.buses.contains(name)
    }

    /// Hands an event to the target of every rule of the bus that it matches.
    fn deliver(&self, bus: &str, event: &Value) {
        let payload = Bytes::from(event.to_string());
        let rules = self.shared.rules.iter().filter(|rule| rule.spec.bus == bus && rule.pattern.matches(event));
        for rule in rules {
            if let Err(error) = self.shared.invoker.invoke_later(&rule.spec.function, payload.clone()) {
                tracing::warn!(
                    rule.name = %rule.spec.logical_id,
                    function.name = %rule.spec.function,
                    %error,
                    "an event could not be handed to its target",
                );
            }
        }
    }
}

impl std::fmt::Debug for EventBridge {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("EventBridge")
            .field("buses", &self.shared.buses)
            .field("rules", &self.shared.rules.iter().map(|rule| &rule.spec).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
