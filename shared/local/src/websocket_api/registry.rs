//! The open connections, and the way to each of them.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::clock::Moment;
use super::event::ConnectionFacts;
use super::id::ConnectionId;
use super::limits::{OUTGOING_BYTES, OUTGOING_OVERHEAD_BYTES};

/// The connections whose `$connect` has succeeded and which have not begun to close.
#[derive(Debug, Default)]
pub(super) struct Registry {
    connections: RwLock<HashMap<ConnectionId, Arc<Connection>, RandomState>>,
}

impl Registry {
    /// Lets callers of `@connections` find a connection.
    pub(super) fn insert(&self, connection: Arc<Connection>) {
        let mut connections = self.connections.write().unwrap_or_else(PoisonError::into_inner);
        connections.insert(connection.facts.id.clone(), connection);
    }

    /// The connection of an id.
    pub(super) fn get(&self, id: &ConnectionId) -> Option<Arc<Connection>> {
        self.connections.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Makes a connection unknown; the first caller gets it.
    pub(super) fn remove(&self, id: &ConnectionId) -> Option<Arc<Connection>> {
        self.connections.write().unwrap_or_else(PoisonError::into_inner).remove(id)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.connections.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// A connection, as everyone but its own session sees it.
#[derive(Debug)]
pub(super) struct Connection {
    /// What does not change.
    pub(super) facts: ConnectionFacts,
    last_active: AtomicI64,
    outgoing: mpsc::UnboundedSender<OutgoingMessage>,
    /// One permit for each byte that may wait. Closed when the session ends.
    room: Arc<Semaphore>,
    /// Cancelled to ask the session to close, and with it by the shutdown of the API.
    close: CancellationToken,
}

/// A message on its way to the client. It holds its part of the connection's room until it is written.
#[derive(Debug)]
pub(super) struct OutgoingMessage {
    /// The text.
    pub(super) text: Utf8Bytes,
    /// Its room.
    pub(super) room: OwnedSemaphorePermit,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OfferRefused {
    /// Too much waits for this client already.
    Full,
    /// The connection is closing.
    Gone,
}

impl Connection {
    /// A connection whose session will read from the receiver; `shutdown` closes it too.
    pub(super) fn new(
        facts: ConnectionFacts,
        shutdown: &CancellationToken,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<OutgoingMessage>) {
        let (outgoing, receiver) = mpsc::unbounded_channel();
        let connection = Self {
            last_active: AtomicI64::new(facts.connected_at.epoch_milliseconds()),
            facts,
            outgoing,
            room: Arc::new(Semaphore::new(OUTGOING_BYTES)),
            close: shutdown.child_token(),
        };
        (Arc::new(connection), receiver)
    }

    /// Queues a message, or refuses it at once. Messages leave in the order in which they were taken.
    pub(super) fn offer(&self, text: Utf8Bytes) -> Result<(), OfferRefused> {
        let room = self.room.clone().try_acquire_many_owned(room_for(&text)).map_err(|error| match error {
            TryAcquireError::NoPermits => OfferRefused::Full,
            TryAcquireError::Closed => OfferRefused::Gone,
        })?;
        self.outgoing.send(OutgoingMessage { text, room }).map_err(|_| OfferRefused::Gone)
    }

    /// Queues a message as soon as there is room. A message for a connection that closes is dropped.
    pub(super) async fn send(&self, text: Utf8Bytes) {
        if let Ok(room) = self.room.clone().acquire_many_owned(room_for(&text)).await {
            let _ = self.outgoing.send(OutgoingMessage { text, room });
        }
    }

    /// Remembers that something went to or came from the client.
    pub(super) fn touch(&self) {
        self.last_active.store(Moment::now().epoch_milliseconds(), Ordering::Relaxed);
    }

    /// When something last did.
    pub(super) fn last_active(&self) -> Moment {
        Moment::from_epoch_milliseconds(self.last_active.load(Ordering::Relaxed))
    }

    /// Asks the session to close, after what is queued.
    pub(super) fn request_close(&self) {
        self.close.cancel();
    }

    /// Completes when the session is to close.
    pub(super) fn close_requested(&self) -> WaitForCancellationFutureOwned {
        self.close.clone().cancelled_owned()
    }

    /// Refuses all further messages and frees those who wait for room.
    pub(super) fn refuse_messages(&self) {
        self.room.close();
    }
}

fn room_for(text: &Utf8Bytes) -> u32 {
    // No message is larger than a u32: the callers have checked it against the message limit.
    u32::try_from(text.len() + OUTGOING_OVERHEAD_BYTES).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::event::Identity;
    use super::*;

    fn connection() -> (Arc<Connection>, mpsc::UnboundedReceiver<OutgoingMessage>) {
        let facts = ConnectionFacts {
            id: ConnectionId::random(),
            connected_at: Moment::now(),
            identity: Identity { user_agent: None, source_ip: "127.0.0.1".to_owned() },
            domain_name: "127.0.0.1:4000".to_owned(),
            api_id: "nn27okk1we".to_owned(),
            stage: "prod".to_owned(),
        };
        Connection::new(facts, &CancellationToken::new())
    }

    #[test]
    fn the_room_of_a_connection_is_bounded_and_comes_back() {
        let (connection, mut receiver) = connection();
        let kilobyte = Utf8Bytes::from("x".repeat(1024));
        let mut taken = 0;
        while connection.offer(kilobyte.clone()).is_ok() {
            taken += 1;
        }
        assert_eq!(taken, OUTGOING_BYTES / (1024 + OUTGOING_OVERHEAD_BYTES));
        assert_eq!(connection.offer(kilobyte.clone()), Err(OfferRefused::Full));
        drop(receiver.try_recv().expect("a queued message"));
        assert_eq!(connection.offer(kilobyte), Ok(()));
    }

    #[test]
    fn empty_messages_are_bounded_too() {
        let (connection, _receiver) = connection();
        let taken = (0..=OUTGOING_BYTES).take_while(|_| connection.offer(Utf8Bytes::default()).is_ok()).count();
        assert_eq!(taken, OUTGOING_BYTES / OUTGOING_OVERHEAD_BYTES);
    }

    #[test]
    fn a_closing_connection_is_gone() {
        let (connection, _receiver) = connection();
        connection.refuse_messages();
        assert_eq!(connection.offer(Utf8Bytes::default()), Err(OfferRefused::Gone));
    }

    #[test]
    fn a_connection_whose_session_is_gone_is_gone() {
        let (connection, receiver) = connection();
        drop(receiver);
        assert_eq!(connection.offer(Utf8Bytes::default()), Err(OfferRefused::Gone));
    }
}
