//! A Runtime API for one process, so that the process can be measured: the local stack has one too, but keeps its processes to itself.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// What a process is told about every invocation.
const FUNCTION_ARN: &str = "arn:aws:lambda:us-east-1:123456789012:function:benchmark";

/// The API of one process. It ends with the value.
#[derive(Debug)]
pub(super) struct RuntimeApi {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

/// What became of an invocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Invoked {
    /// The function answered.
    Answered(Bytes),
    /// It failed.
    Failed(Bytes),
}

#[derive(Debug)]
struct Shared {
    talk: Mutex<Talk>,
    /// Told of every change.
    changed: Notify,
    timeout: Duration,
}

#[derive(Debug, Default)]
struct Talk {
    first_asked: Option<Instant>,
    waiting: VecDeque<Bytes>,
    done: Option<Invoked>,
    count: u64,
}

impl RuntimeApi {
    /// Listens on a free port of 127.0.0.1. Invocations are told to last `timeout`.
    pub(super) async fn start(timeout: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { talk: Mutex::default(), changed: Notify::new(), timeout });
        let router = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/response", post(answered))
            .route("/2018-06-01/runtime/invocation/{id}/error", post(failed))
            .route("/2018-06-01/runtime/init/error", post(failed))
            .with_state(Arc::clone(&shared));
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the benchmark's Runtime API ended");
            }
        });
        Ok(Self { address, shared, serving })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the process asks for its first invocation, and says when it did.
    pub(super) async fn first_asked(&self) -> Instant {
        self.shared.wait(|talk| talk.first_asked).await
    }

    /// Hands the process one invocation and waits for its end. It has to be called for one after the other.
    pub(super) async fn invoke(&self, payload: Bytes) -> Invoked {
        self.shared.change(|talk| talk.waiting.push_back(payload));
        self.shared.wait(|talk| talk.done.take()).await
    }
}

impl Drop for RuntimeApi {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Shared {
    fn change<T>(&self, change: impl FnOnce(&mut Talk) -> T) -> T {
        let changed = change(&mut self.talk.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_waiters();
        changed
    }

    async fn wait<T>(&self, mut look: impl FnMut(&mut Talk) -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // From here on no change is missed, so the look comes after it.
            changed.as_mut().enable();
            if let Some(found) = look(&mut self.talk.lock().unwrap_or_else(PoisonError::into_inner)) {
                return found;
            }
            changed.await;
        }
    }
}

async fn next(State(shared): State<Arc<Shared>>) -> Response {
    let now = Instant::now();
    shared.change(|talk| talk.first_asked.get_or_insert(now).to_owned());
    let (payload, id) = shared
        .wait(|talk| {
            let payload = talk.waiting.pop_front()?;
            talk.count += 1;
            Some((payload, talk.count))
        })
        .await;
    let deadline = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + shared.timeout;
    let headers = [
        (HeaderName::from_static("content-type"), "application/json".to_owned()),
        (HeaderName::from_static("lambda-runtime-aws-request-id"), format!("00000000-0000-4000-8000-{id:012}")),
        (HeaderName::from_static("lambda-runtime-deadline-ms"), deadline.as_millis().to_string()),
        (HeaderName::from_static("lambda-runtime-invoked-function-arn"), FUNCTION_ARN.to_owned()),
    ];
    (headers, payload).into_response()
}

async fn answered(State(shared): State<Arc<Shared>>, Path(_): Path<String>, body: Bytes) -> StatusCode {
    shared.change(|talk| talk.done = Some(Invoked::Answered(body)));
    StatusCode::ACCEPTED
}

async fn failed(State(shared): State<Arc<Shared>>, body: Bytes) -> StatusCode {
    shared.change(|talk| talk.done = Some(Invoked::Failed(body)));
    StatusCode::ACCEPTED
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    /// One request on a connection of its own.
    async fn ask(api: SocketAddr, method: &str, path: &str, body: &str) -> String {
        let mut socket = TcpStream::connect(api).await.expect("it listens");
        let length = body.len();
        let request = format!(
            "{method} /2018-06-01/runtime/{path} HTTP/1.1\r\nhost: {api}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        socket.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    #[tokio::test]
    async fn a_process_gets_its_invocations_and_their_ends_come_back() {
        let api = RuntimeApi::start(Duration::from_secs(15)).await.expect("a free port");
        let address = api.address();
        let process = tokio::spawn(async move {
            let first = ask(address, "GET", "invocation/next", "").await;
            ask(address, "POST", "invocation/1/response", "answer").await;
            let second = ask(address, "GET", "invocation/next", "").await;
            ask(address, "POST", "invocation/2/error", "reason").await;
            (first, second)
        });
        api.first_asked().await;
        assert_eq!(api.invoke(Bytes::from_static(b"one")).await, Invoked::Answered(Bytes::from_static(b"answer")));
        assert_eq!(api.invoke(Bytes::from_static(b"two")).await, Invoked::Failed(Bytes::from_static(b"reason")));
        let (first, second) = process.await.expect("it ran");
        assert!(first.ends_with("\r\n\r\none") && second.ends_with("\r\n\r\ntwo"));
        assert!(first.contains("lambda-runtime-deadline-ms: 1") && first.contains("lambda-runtime-aws-request-id: "), "{first}");
    }
}
