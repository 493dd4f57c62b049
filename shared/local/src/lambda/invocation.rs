//! One invocation, from its acceptance to its end.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use super::limits::{MAX_RESPONSE_BYTES, MAX_STREAM_BYTES};
use crate::invoker::{InvokeError, StreamBroken};

/// What the content type is when the function names none.
const DEFAULT_STREAM_CONTENT_TYPE: &str = "application/octet-stream";

/// What is asked of a function.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) request_id: String,
    pub(crate) payload: Bytes,
    /// `X-Amz-Client-Context`, the JSON as it was before base64.
    pub(crate) client_context: Option<String>,
    pub(crate) mode: Mode,
    /// Whether the caller wants the end of the log.
    pub(crate) wants_tail: bool,
}

/// Whether the answer goes to the caller in one piece or as it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Buffered,
    Streaming,
}

/// The first that the caller hears.
#[derive(Debug)]
pub(crate) enum Reply {
    Success(Bytes),
    FunctionError(Bytes),
    Streaming { content_type: String, body: mpsc::UnboundedReceiver<Result<Bytes, StreamBroken>> },
    Refused(InvokeError),
}

/// What a function is at, and how often it failed.
#[derive(Debug, Default)]
pub(crate) struct Load {
    executions: AtomicUsize,
    failures: AtomicU64,
}

impl Load {
    /// How many invocations ended with a function error.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

/// A place among the concurrent executions of a function.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Load>);

impl InFlight {
    /// Takes a place, unless `limit` are taken.
    pub(crate) fn enter(load: &Arc<Load>, limit: usize) -> Option<Self> {
        let enter = |count: usize| (count < limit).then_some(count + 1);
        load.executions.fetch_update(Ordering::AcqRel, Ordering::Acquire, enter).ok()?;
        Some(Self(load.clone()))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.executions.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An invocation under way.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) call: Call,
    /// `X-Amzn-Trace-Id` as the Runtime API hands it over.
    pub(crate) trace_id: String,
    state: Mutex<State>,
    /// Cancelled when a process took the invocation.
    taken: CancellationToken,
    /// Cancelled when the answer is complete, the function failed, or the invocation was refused.
    done: CancellationToken,
    /// Cancelled when everything that belongs to the invocation is over, its log included.
    settled: CancellationToken,
}

#[derive(Debug)]
struct State {
    answer: Answer,
    /// Given back before the caller hears of the end, so that its next call is not throttled by this one.
    place: Option<InFlight>,
    deadline: Option<Deadline>,
    failed: bool,
    tail: Vec<u8>,
}

impl State {
    /// Nothing further can be answered.
    fn finish(&mut self) -> Answer {
        self.place = None;
        std::mem::replace(&mut self.answer, Answer::Over)
    }
}

#[derive(Debug)]
enum Answer {
    Waiting(oneshot::Sender<Reply>),
    /// The function streams and the caller wants one piece.
    Collecting(oneshot::Sender<Reply>, BytesMut),
    Streaming {
        body: mpsc::UnboundedSender<Result<Bytes, StreamBroken>>,
        sent: usize,
    },
    Over,
}

/// When an invocation began and when it has to be over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) began: Instant,
    pub(crate) ends: Instant,
    /// The same as `ends` in milliseconds since 1970.
    pub(crate) epoch_ms: u128,
}

impl Invocation {
    pub(crate) fn new(call: Call, place: InFlight) -> (Self, oneshot::Receiver<Reply>) {
        let (sender, receiver) = oneshot::channel();
        let invocation = Self {
            call,
            trace_id: new_trace_id(),
            state: Mutex::new(State {
                answer: Answer::Waiting(sender),
                place: Some(place),
                deadline: None,
                failed: false,
                tail: Vec::new(),
            }),
            taken: CancellationToken::new(),
            done: CancellationToken::new(),
            settled: CancellationToken::new(),
        };
        (invocation, receiver)
    }

    /// A process takes the invocation: its time begins.
    pub(crate) fn take(&self, timeout: Duration) -> Deadline {
        let began = Instant::now();
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let deadline = Deadline { began, ends: began + timeout, epoch_ms: (since_1970 + timeout).as_millis() };
        self.lock().deadline = Some(deadline);
        self.taken.cancel();
        deadline
    }

    pub(crate) fn deadline(&self) -> Option<Deadline> {
        self.lock().deadline
    }

    /// The whole answer is there.
    pub(crate) fn succeed(&self, payload: Bytes, content_type: Option<&str>) {
        match self.lock().finish() {
            Answer::Waiting(sender) if self.call.mode == Mode::Streaming => {
                let (body, receiver) = mpsc::unbounded_channel();
                let _ = body.send(Ok(payload));
                let content_type = content_type.unwrap_or(DEFAULT_STREAM_CONTENT_TYPE).to_owned();
                let _ = sender.send(Reply::Streaming { content_type, body: receiver });
            }
            Answer::Waiting(sender) => {
                let _ = sender.send(Reply::Success(payload));
            }
            Answer::Collecting(..) | Answer::Streaming { .. } | Answer::Over => {}
        }
        self.done.cancel();
    }

    /// The function failed. A caller that already gets a stream sees it break.
    pub(crate) fn fail(&self, failure: Failure) {
        let mut state = self.lock();
        // As the place: whoever hears of the failure finds it counted.
        if let Some(InFlight(load)) = &state.place {
            load.failures.fetch_add(1, Ordering::Relaxed);
            state.failed = true;
        }
        match state.finish() {
            Answer::Waiting(sender) | Answer::Collecting(sender, _) => {
                let _ = sender.send(Reply::FunctionError(failure.json));
            }
            Answer::Streaming { body, .. } => {
                let _ = body.send(Err(StreamBroken(failure.summary)));
            }
            Answer::Over => {}
        }
        self.done.cancel();
    }

    /// The invocation never reached a process.
    pub(crate) fn refuse(&self, error: InvokeError) {
        if let Answer::Waiting(sender) = self.lock().finish() {
            let _ = sender.send(Reply::Refused(error));
        }
        self.done.cancel();
    }

    /// The function begins to stream.
    pub(crate) fn begin_stream(&self, content_type: Option<&str>) {
        let mut state = self.lock();
        state.answer = match std::mem::replace(&mut state.answer, Answer::Over) {
            Answer::Waiting(sender) if self.call.mode == Mode::Streaming => {
                let (body, receiver) = mpsc::unbounded_channel();
                let content_type = content_type.unwrap_or(DEFAULT_STREAM_CONTENT_TYPE).to_owned();
                let _ = sender.send(Reply::Streaming { content_type, body: receiver });
                Answer::Streaming { body, sent: 0 }
            }
            Answer::Waiting(sender) => Answer::Collecting(sender, BytesMut::new()),
            other => other,
        };
    }

    /// The next bytes of the stream.
    ///
    /// # Errors
    /// Over the limit of what the caller asked for: 6 MB in one piece, 200 MB as a stream.
    pub(crate) fn push(&self, chunk: Bytes) -> Result<(), Failure> {
        match &mut self.lock().answer {
            Answer::Collecting(_, collected) => {
                if collected.len() + chunk.len() > MAX_RESPONSE_BYTES {
                    return Err(Failure::response_too_large());
                }
                collected.extend_from_slice(&chunk);
            }
            Answer::Streaming { body, sent } => {
                *sent += chunk.len();
                if *sent > MAX_STREAM_BYTES {
                    return Err(Failure::stream_too_large(MAX_STREAM_BYTES));
                }
                // A caller that left changes nothing for the function: Lambda does not tell it either.
                let _ = body.send(Ok(chunk));
            }
            Answer::Waiting(_) | Answer::Over => {}
        }
        Ok(())
    }

    /// The stream ended as it should.
    pub(crate) fn end_stream(&self) {
        // A streaming caller sees the end when the channel closes, which is when this value goes.
        if let Answer::Collecting(sender, collected) = self.lock().finish() {
            let _ = sender.send(Reply::Success(collected.freeze()));
        }
        self.done.cancel();
    }

    /// Whether the function failed.
    pub(crate) fn failed(&self) -> bool {
        self.lock().failed
    }

    pub(crate) fn taken(&self) -> &CancellationToken {
        &self.taken
    }

    pub(crate) fn done(&self) -> &CancellationToken {
        &self.done
    }

    /// Everything is over; `tail` is the end of the log.
    pub(crate) fn settle(&self, tail: Vec<u8>) {
        self.lock().tail = tail;
        self.settled.cancel();
    }

    /// Waits for the end of the log.
    pub(crate) async fn tail(&self) -> Vec<u8> {
        self.settled.cancelled().await;
        self.lock().tail.clone()
    }

    /// A panic while the state is locked leaves one of its whole values.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A trace id as X-Ray forms it, with a parent; not sampled, since nothing here traces.
fn new_trace_id() -> String {
    let parent = rand::random::<u64>();
    format!("{};Parent={parent:016x};Sampled=0", new_trace_root())
}

/// The root of a trace: the time in hexadecimal seconds and 96 random bits (AWS X-Ray Developer Guide, "Tracing header").
pub(crate) fn new_trace_root() -> String {
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let random = rand::random::<u128>() >> 32;
    format!("Root=1-{seconds:08x}-{random:024x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invocation(mode: Mode) -> (Invocation, oneshot::Receiver<Reply>) {
        let call = Call { request_id: "id".to_owned(), payload: Bytes::new(), client_context: None, mode, wants_tail: false };
        let place = InFlight::enter(&Arc::default(), 1).expect("the first of one");
        Invocation::new(call, place)
    }

    #[test]
    fn a_place_is_free_again_when_the_caller_hears_of_the_end() {
        let count = Arc::default();
        let place = InFlight::enter(&count, 1).expect("the first of one");
        assert!(InFlight::enter(&count, 1).is_none());
        let (invocation, mut reply) = Invocation::new(Call::new(Bytes::new(), Mode::Buffered), place);
        invocation.succeed(Bytes::new(), None);
        assert!(reply.try_recv().is_ok());
        assert!(InFlight::enter(&count, 1).is_some());
    }

    #[test]
    fn a_stream_is_collected_for_a_caller_that_wants_one_piece() {
        let (invocation, mut reply) = invocation(Mode::Buffered);
        invocation.begin_stream(Some("text/plain"));
        invocation.push(Bytes::from_static(b"a")).expect("small");
        invocation.push(Bytes::from_static(b"b")).expect("small");
        invocation.end_stream();
        assert!(matches!(reply.try_recv(), Ok(Reply::Success(bytes)) if &bytes[..] == b"ab"));
        assert!(invocation.done().is_cancelled());
    }

    #[test]
    fn a_collected_stream_has_the_limit_of_a_buffered_answer() {
        let (invocation, _reply) = invocation(Mode::Buffered);
        invocation.begin_stream(None);
        invocation.push(Bytes::from(vec![0; MAX_RESPONSE_BYTES])).expect("exactly the limit");
        assert_eq!(invocation.push(Bytes::from_static(b"x")), Err(Failure::response_too_large()));
    }

    #[test]
    fn only_the_first_outcome_counts() {
        let (invocation, mut reply) = invocation(Mode::Buffered);
        invocation.fail(Failure::timed_out("id", Duration::from_secs(1)));
        invocation.succeed(Bytes::from_static(b"late"), None);
        assert!(matches!(reply.try_recv(), Ok(Reply::FunctionError(_))));
    }

    #[test]
    fn a_failure_breaks_a_stream_that_began() {
        let (invocation, mut reply) = invocation(Mode::Streaming);
        invocation.begin_stream(None);
        let Ok(Reply::Streaming { mut body, content_type }) = reply.try_recv() else {
            panic!("the stream began");
        };
        assert_eq!(content_type, "application/octet-stream");
        invocation.fail(Failure::new("Runtime.ExitError", "gone".to_owned()));
        assert_eq!(body.try_recv(), Ok(Err(StreamBroken("Runtime.ExitError: gone".to_owned()))));
    }

    #[test]
    fn a_caller_that_left_does_not_disturb_the_stream() {
        let (invocation, reply) = invocation(Mode::Streaming);
        drop(reply);
        invocation.begin_stream(None);
        invocation.push(Bytes::from_static(b"x")).expect("nobody listens and nothing breaks");
        invocation.end_stream();
        assert!(invocation.done().is_cancelled());
    }
}
