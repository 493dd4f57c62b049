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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::PortError;
    use crate::rows::{AppendOutcome, NewEntry, RotateOutcome, Rotation, Tail};
    use carillon_core::position::Epoch;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    /// A log whose reads take ten milliseconds, and fail where they are told to.
    #[derive(Default)]
    struct Slow {
        reads: AtomicUsize,
        fails: bool,
    }

    impl Log for Slow {
        async fn read(&self, _: &Channel, _: Epoch, _: u64, _: Option<u64>, _: usize, _: Millis) -> Answer<Window> {
            self.reads.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(10)).await;
            if self.fails { Err(PortError::new("reading", "no")) } else { Ok(Window::default()) }
        }

        async fn newest(&self, _: &Channel, _: Epoch, _: Millis) -> Answer<Option<Tail>> {
            unreachable!("the reader reads")
        }

        async fn append(&self, _: &NewEntry, _: Millis) -> Answer<AppendOutcome> {
            unreachable!("the reader reads")
        }

        async fn rotate(&self, _: &Rotation, _: Millis) -> Answer<RotateOutcome> {
            unreachable!("the reader reads")
        }
    }

    async fn read(reader: &Reader, log: &Slow, after: u64) -> Answer<Arc<Window>> {
        let channel = Channel::parse("orders/42").expect("a channel");
        reader.read(log, &channel, Position::new(Epoch(1), after), 64, Millis(0)).await
    }

    #[tokio::test(start_paused = true)]
    async fn who_wants_the_same_at_the_same_time_shares_one_read() {
        let (reader, log) = (Reader::default(), Slow::default());
        let all = futures_util::future::join_all((0..200).map(|_| read(&reader, &log, 7))).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(log.reads.load(Ordering::SeqCst), 1);
        let (one, other) = tokio::join!(read(&reader, &log, 7), read(&reader, &log, 8));
        assert!(one.is_ok() && other.is_ok());
        assert_eq!(log.reads.load(Ordering::SeqCst), 3, "another place is another read, and a read that is over is not shared");
        assert!(reader.shelves().is_empty(), "nothing is kept for nobody");
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_began_before_is_not_shared() {
        let (reader, log) = (Reader::default(), Slow::default());
        let later = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            read(&reader, &log, 7).await
        };
        let (first, second, third) = tokio::join!(read(&reader, &log, 7), later, async {
            tokio::time::sleep(Duration::from_millis(6)).await;
            read(&reader, &log, 7).await
        });
        assert!(first.is_ok() && second.is_ok() && third.is_ok());
        assert_eq!(log.reads.load(Ordering::SeqCst), 2, "both who came later share the second");
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_fails_is_tried_by_the_next() {
        let (reader, log) = (Reader::default(), Slow { fails: true, ..Slow::default() });
        let (first, second) = tokio::join!(read(&reader, &log, 7), read(&reader, &log, 7));
        assert!(first.is_err() && second.is_err());
        assert_eq!(log.reads.load(Ordering::SeqCst), 2);
        assert!(reader.shelves().is_empty());
    }
}
