//! A response's body as the blocks of an event stream (HTML, "Server-sent events"), with a limit on their size and on silence.

use super::BLOCK_BYTES;
use futures_util::{Stream, StreamExt, stream};
use sse_stream::{Sse, SseByteStream};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::timeout;

/// Bytes as they come from the connection, of whatever kind.
type Bytes = bytes::Bytes;

/// The blocks of one stream.
pub(super) struct Blocks {
    blocks: SseByteStream<Parts>,
    /// Bytes since the last block.
    unread: Arc<AtomicUsize>,
}

type Parts = Pin<Box<dyn Stream<Item = Result<Bytes, PartError>> + Send>>;

/// Why a stream is over before its planned end.
#[derive(Debug, thiserror::Error)]
pub(super) enum PartError {
    /// Neither an event nor a comment came.
    #[error("the stream was silent for {} s", .0.as_secs_f32())]
    Silent(Duration),
    /// The connection broke.
    #[error("the stream broke")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The stream is none of ours.
    #[error("an event of the stream is over the limit of {BLOCK_BYTES} bytes")]
    TooLarge,
}

impl Blocks {
    /// The blocks of `parts`, of which each may take `silence`.
    pub(super) fn new<E>(parts: impl Stream<Item = Result<Bytes, E>> + Send + 'static, silence: Duration) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let unread = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&unread);
        let parts = stream::unfold(Box::pin(parts), move |mut parts| {
            let count = Arc::clone(&count);
            async move {
                let part = match timeout(silence, parts.next()).await {
                    Err(_) => Err(PartError::Silent(silence)),
                    Ok(None) => return None,
                    Ok(Some(Err(error))) => Err(PartError::Broken(error.into())),
                    // The parser keeps what is no whole block yet, without a limit of its own.
                    Ok(Some(Ok(part))) if count.fetch_add(part.len(), Ordering::Relaxed) + part.len() > BLOCK_BYTES => {
                        Err(PartError::TooLarge)
                    }
                    Ok(Some(Ok(part))) => Ok(part),
                };
                Some((part, parts))
            }
        });
        Self { blocks: SseByteStream::new(Box::pin(parts)), unread }
    }

    /// The next block; none at the end of the body. A comment is a sign of life and no block.
    pub(super) async fn next(&mut self) -> Option<Result<Sse, sse_stream::Error>> {
        let block = self.blocks.next().await;
        self.unread.store(0, Ordering::Relaxed);
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use proptest::prelude::*;
    use std::convert::Infallible;

    const FOREVER: Duration = Duration::from_secs(3_600);

    fn blocks(parts: impl IntoIterator<Item = Vec<u8>>) -> Blocks {
        let parts: Vec<_> = parts.into_iter().map(|part| Ok::<_, Infallible>(Bytes::from(part))).collect();
        Blocks::new(stream::iter(parts), FOREVER)
    }

    /// Everything that is there, which needs no waiting.
    fn all(mut blocks: Blocks) -> Result<Vec<Sse>, String> {
        let read = async {
            let mut all = Vec::new();
            while let Some(block) = blocks.next().await {
                all.push(block.map_err(|error| error.to_string())?);
            }
            Ok(all)
        };
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime")
            .block_on(async { read.now_or_never().expect("all of it is there") })
    }

    #[test]
    fn an_endless_event_is_cut_and_many_small_ones_are_not() {
        let part = vec![b'x'; BLOCK_BYTES / 4];
        let endless = [b"data: ".to_vec()].into_iter().chain(std::iter::repeat_n(part.clone(), 5));
        assert!(all(blocks(endless)).expect_err("over the limit").contains("over the limit of 1048576 bytes"));
        let event = [b"data: ".as_slice(), &part, b"\n\n"].concat();
        assert_eq!(all(blocks(std::iter::repeat_n(event, 9))).expect("within the limit").len(), 9);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_stream_and_a_comment_is_no_silence() {
        let second = Duration::from_secs(1);
        let parts = stream::unfold(0, move |count| async move {
            tokio::time::sleep(if count < 5 { second } else { FOREVER }).await;
            Some((Ok::<_, Infallible>(Bytes::from_static(b":\n\n")), count + 1))
        });
        let begun = tokio::time::Instant::now();
        let error = Blocks::new(parts, second * 2).next().await.expect("an error").expect_err("an error");
        assert!(error.to_string().contains("silent for 2 s"), "{error}");
        assert_eq!(begun.elapsed(), second * 7);
    }

    proptest! {
        /// Wherever a network cuts the bytes, the same blocks are read.
        #[test]
        fn borders_of_parts_change_nothing(
            events in prop::collection::vec(("[a-zß€🔔 :]{0,12}", "[a-z0-9]{0,6}", prop::bool::ANY), 0..8),
            ending in prop::sample::select(vec!["\n", "\r\n", "\r"]),
            cuts in prop::collection::vec(1..7_usize, 1..16),
        ) {
            let mut bytes = format!(": carillon{ending}{ending}retry: 1000{ending}{ending}").into_bytes();
            let mut expected = vec![Sse::default().retry(1_000)];
            for (data, id, comment) in &events {
                if *comment {
                    bytes.extend_from_slice(format!(":{ending}{ending}").as_bytes());
                }
                bytes.extend_from_slice(format!("id: {id}{ending}data: {data}{ending}{ending}").as_bytes());
                expected.push(Sse::default().id(id.as_str()).data(data.as_str()));
            }
            let mut rest = &bytes[..];
            let mut parts = Vec::new();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                parts.push(now.to_vec());
                rest = later;
            }
            prop_assert_eq!(all(blocks(parts)), Ok(expected));
        }
    }
}
