//! One reader of the log for all streams of an environment: who wants the same at the same time shares one read (W3).

use crate::ports::{Answer, Log};
use crate::rows::Window;
use carillon_core::channel::Channel;
use carillon_core::position::Position;
use carillon_core::time::Millis;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::Instant;

/// The reads under way.
#[derive(Default)]
pub(super) struct Reader(Mutex<HashMap<(Channel, Position), Shelf>>);

/// The latest read of one place, and when it began; locked while one is under way.
type Shelf = Arc<tokio::sync::Mutex<Option<(Instant, Arc<Window>)>>>;

impl Reader {
    /// What the log has after `after`, as it is now or later. A read that began before the call is not shared: it may not have seen
    /// what the caller has to see.
    pub(super) async fn read<L: Log>(
        &self,
        log: &L,
        channel: &Channel,
        after: Position,
        limit: usize,
        now: Millis,
    ) -> Answer<Arc<Window>> {
        let wanted = Instant::now();
        let place = (channel.clone(), after);
        let shelf = Arc::clone(self.shelves().entry(place.clone()).or_default());
        let mut latest = shelf.lock().await;
        let window = match &*latest {
            Some((began, window)) if *began >= wanted => Ok(Arc::clone(window)),
            _ => {
                let began = Instant::now();
                let read = log.read(channel, after.epoch, after.offset, None, limit, now).await;
                read.map(|window| Arc::clone(&latest.insert((began, Arc::new(window))).1))
            }
        };
        drop(latest);
        let mut shelves = self.shelves();
        // The map's own and ours: nobody else wants it.
        if Arc::strong_count(&shelf) == 2 {
            shelves.remove(&place);
        }
        window
    }

    fn shelves(&self) -> std::sync::MutexGuard<'_, HashMap<(Channel, Position), Shelf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
