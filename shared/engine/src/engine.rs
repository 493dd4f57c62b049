//! The engine: the use cases' common ground, and the life of a connection.

use crate::append::AppendCache;
use crate::ports::{Clock, PortError, Queue, Store};
use crate::random::Random;
use crate::rows::{Connection, Dialect};
use carillon_core::channel::Namespace;
use carillon_core::connection::{ConnectionId, Principal};
use carillon_core::fault::Fault;
use carillon_core::limits::{CONNECTION_SECONDS, HEAD_OUTLIVES_SECONDS};
use carillon_core::namespace::NamespaceOptions;
use carillon_core::time::{Millis, Seconds};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long a warm environment may go on with a namespace's options, in milliseconds.
const OPTIONS_CACHED_MS: u64 = 60_000;

/// Namespaces whose options are kept; beyond it they are all read anew.
const OPTIONS_KEPT: usize = 1_000;

/// Lives of heads and shards are refreshed when they are short of a day, so at most daily (T2).
const REFRESH_SECONDS: u64 = 24 * 3600;

/// Jitter between tries that met somebody else at the same rows.
pub(crate) const CONFLICT_JITTER: Duration = Duration::from_millis(50);

/// The use cases over their ports. One of it serves a process; it keeps what a warm environment may keep.
pub struct Engine<S, Q, C> {
    pub(crate) store: S,
    pub(crate) queue: Q,
    pub(crate) clock: C,
    pub(crate) random: Random,
    pub(crate) appends: AppendCache,
    pub(crate) options: OptionsCache,
}

/// The namespaces' options, kept for 60 seconds.
#[derive(Default)]
pub(crate) struct OptionsCache(Mutex<HashMap<Namespace, (Millis, NamespaceOptions)>>);

impl<S: Store, Q: Queue, C: Clock> Engine<S, Q, C> {
    /// An engine over these ports.
    pub fn new(store: S, queue: Q, clock: C) -> Self {
        Self::with_random(store, queue, clock, Random::from_system())
    }

    /// An engine whose chance repeats itself, for tests.
    pub fn seeded(store: S, queue: Q, clock: C, seed: u64) -> Self {
        Self::with_random(store, queue, clock, Random::from_seed(seed))
    }

    fn with_random(store: S, queue: Q, clock: C, random: Random) -> Self {
        Self { store, queue, clock, random, appends: AppendCache::default(), options: OptionsCache::default() }
    }

    /// Now, by the engine's clock.
    pub fn now(&self) -> Millis {
        self.clock.now()
    }

    /// Registers a connection.
    ///
    /// # Errors
    /// `unavailable` when the store does not answer.
    pub async fn connect(
        &self,
        id: &ConnectionId,
        principal: Principal,
        dialect: Dialect,
        connected_at: Millis,
    ) -> Result<(), Fault> {
        let exp = connection_exp(connected_at);
        let connection = Connection { id: id.clone(), principal, dialect, connected_at, exp };
        self.store.connect(&connection).await.map_err(unavailable)
    }

    /// Forgets a connection: its own row first, so that a subscribe under way sees that it is gone and cleans up after itself,
    /// then each inverse row and its subscription (S6). It may be called again.
    ///
    /// # Errors
    /// `unavailable` when the store does not answer; what is left then goes with the next post (410) or expires.
    pub async fn disconnect(&self, id: &ConnectionId) -> Result<(), Fault> {
        self.store.disconnect(id).await.map_err(unavailable)?;
        let (_, inverses) = self.store.connection(id, self.clock.now()).await.map_err(unavailable)?;
        for inverse in inverses {
            self.store.unsubscribe(&inverse.key, id, &inverse.rid).await.map_err(unavailable)?;
            self.store.unlink(id, &inverse.key.channel, &inverse.rid).await.map_err(unavailable)?;
        }
        Ok(())
    }

    pub(crate) async fn options(&self, namespace: &Namespace) -> Result<NamespaceOptions, PortError> {
        self.options.get(&self.store, namespace, self.clock.now()).await
    }
}

impl OptionsCache {
    pub(crate) async fn get<S: Store>(
        &self,
        store: &S,
        namespace: &Namespace,
        now: Millis,
    ) -> Result<NamespaceOptions, PortError> {
        if let Some(options) = self.kept(namespace, now) {
            return Ok(options);
        }
        let options = store.namespace(namespace).await?.unwrap_or_default();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= OPTIONS_KEPT {
            kept.clear();
        }
        kept.insert(namespace.clone(), (now, options));
        Ok(options)
    }

    fn kept(&self, namespace: &Namespace, now: Millis) -> Option<NamespaceOptions> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, options) = kept.get(namespace)?;
        (now.since(*at) <= OPTIONS_CACHED_MS).then_some(*options)
    }
}

/// When the rows of a connection expire.
pub(crate) fn connection_exp(connected_at: Millis) -> Seconds {
    connected_at.seconds().plus(CONNECTION_SECONDS)
}

/// Until when a head or a shard has to live that is relied on now (T2): a week longer than the newest entry, which is the one in
/// `tail` or one that is written now.
pub(crate) fn life(options: &NamespaceOptions, tail: Option<Seconds>, now: Millis) -> Seconds {
    let written_now = now.seconds().plus(options.log_seconds());
    tail.map_or(written_now, |exp| exp.max(written_now)).plus(HEAD_OUTLIVES_SECONDS)
}

/// Whether a life that ends at `exp` is due to be refreshed to `wanted`: at most daily (T2).
pub(crate) fn is_due(exp: Seconds, wanted: Seconds) -> bool {
    exp.plus(REFRESH_SECONDS) < wanted
}

/// What the caller hears of a failed port; the log hears why.
pub(crate) fn unavailable(error: PortError) -> Fault {
    tracing::warn!(error.chain = chain(&error), "a service behind the engine did not answer");
    Fault::unavailable()
}

/// An error with all its causes, for the log.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
