//! An API Gateway WebSocket API on a local port: `ws://127.0.0.1:P/{stage}` for clients and
//! `http://127.0.0.1:P/{stage}/@connections/{id}` for their backend.
//!
//! It does what AWS does, down to the bytes of events, error frames and headers, as far as that is documented or was captured:
//! the 101 waits for `$connect`; every message is an invocation of its own, at the same time as the others; binary frames close
//! the connection with 1003, frames over 32 KB and messages over 128 KB with 1009; ten idle minutes and two hours of life with
//! 1001; `$disconnect` is told the code and the reason. The limits are in `limits.rs`, each with its source.
//!
//! Where it differs from AWS, or where AWS is silent:
//! - New connections are not limited to 500 a second, and no account throttle answers 429 or `Forbidden`.
//! - `@connections` wants a signature but does not verify it, and every signature may do everything.
//! - There are no authorizers, API keys, stage variables, models or custom domains.
//! - Header names reach `$connect` as clients usually write them (`Sec-WebSocket-Key`), whatever the client wrote;
//!   `X-Forwarded-Proto` is `http`, and `domainName` is the `Host` of the handshake, port included.
//! - A refused handshake has `$connect`'s status and no body. A function that fails at `$connect` gives 502, one that takes
//!   longer than 29 seconds 504, one that is throttled 429, a URL over 4,096 bytes 414.
//! - A reply of a function that is no object with a text body of at most 128 KB is an "Internal server error"; throttling too.
//! - Pings and pongs count as activity, in both directions.
//! - A client whose 1 MiB of waiting messages is full gives 429. POSTed data that is not UTF-8 is refused with 400.
//! - Messages over 32 KB leave in frames of 32 KB.

mod answer;
mod clock;
mod connection_api;
mod event;
mod frame;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handshake;
mod id;
mod integration;
mod limits;
mod registry;
mod route;
mod session;
mod socket;

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::calls::Calls;
use crate::invoker::Invoker;
use crate::spec::{RouteSpec, WebSocketApiSpec};

use self::answer::Answer;
pub use self::limits::TimeLimits;
use self::limits::{HEAD_BYTES, HEAD_TIME, SHUTDOWN_TIME, URL_BYTES};
use self::registry::Registry;
use self::route::{CONNECT, DEFAULT, DISCONNECT, RouteSelection};
pub use self::route::{RouteSelectionError, RouteSelectionFault};

/// The segment of a path under which connections are reached.
const CONNECTIONS: &str = "@connections";

/// How long the listener rests after it could not accept, which is mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What can be set of a [`WebSocketApi`] beside the template.
#[derive(Clone, Debug, Default)]
pub struct WebSocketApiOptions {
    /// The time limits; those of AWS by default.
    pub time_limits: TimeLimits,
    /// Counts the calls of `@connections`.
    pub calls: Calls,
}

/// One WebSocket API. Clones are the same API.
#[derive(Clone)]
pub struct WebSocketApi {
    shared: Arc<Shared>,
}

/// What all parts of one API share.
struct Shared {
    spec: WebSocketApiSpec,
    route_selection: RouteSelection,
    invoker: Arc<dyn Invoker>,
    time_limits: TimeLimits,
    calls: Calls,
    registry: Registry,
    tasks: TaskTracker,
    /// Cancelled to end everything in good order.
    stopping: CancellationToken,
    /// Cancelled to end at once what has not ended by itself.
    cut: CancellationToken,
}

/// Both ends of a client's TCP connection.
#[derive(Clone, Copy, Debug)]
struct Peer {
    address: SocketAddr,
    local_port: u16,
}

impl WebSocketApi {
    /// The API of a template, whose functions are reached through `invoker`.
    ///
    /// # Errors
    /// When the route selection expression cannot be evaluated.
    pub fn new(
        spec: WebSocketApiSpec,
        invoker: Arc<dyn Invoker>,
        options: WebSocketApiOptions,
    ) -> Result<Self, RouteSelectionError> {
        let route_selection = RouteSelection::parse(&spec.route_selection_expression)?;
        let shared = Shared {
            spec,
            route_selection,
            invoker,
            time_limits: options.time_limits,
            calls: options.calls,
            registry: Registry::default(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            cut: CancellationToken::new(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Serves clients and callers of `@connections` until [`Self::shutdown`].
    pub async fn serve(&self, listener: TcpListener) {
        let stopping = self.shared.stopping.clone();
        while let Some(accepted) = stopping.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((stream, address)) => self.shared.spawn(serve_connection(self.shared.clone(), stream, address)),
                Err(error) => {
                    warn!(%error, "a client could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// How many connections are open.
    pub fn connection_count(&self) -> usize {
        self.shared.registry.len()
    }

    /// Closes every connection with 1001, invokes nothing any more (no `$disconnect` either), and returns within a second.
    pub async fn shutdown(&self) {
        self.shared.stopping.cancel();
        self.shared.tasks.close();
        if timeout(SHUTDOWN_TIME, self.shared.tasks.wait()).await.is_err() {
            self.shared.cut.cancel();
            self.shared.tasks.wait().await;
        }
    }
}

impl fmt::Debug for WebSocketApi {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("WebSocketApi")
            .field("spec", &self.shared.spec)
            .field("time_limits", &self.shared.time_limits)
            .field("connection_count", &self.connection_count())
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Runs a task that a shutdown waits for, and cuts when it takes too long.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cut = self.cut.clone();
        // Boxed, because an async block keeps a place for a future at each step that hands it on: three times 4 KB a connection.
        let task = Box::pin(task);
        self.tasks.spawn(async move {
            cut.run_until_cancelled(task).await;
        });
    }

    /// The route that takes a message. A client cannot call `$connect` or `$disconnect` by their names.
    fn route_of(&self, message: &str) -> Option<(&str, &RouteSpec)> {
        let chosen = self
            .route_selection
            .evaluate(message)
            .filter(|key| key != CONNECT && key != DISCONNECT)
            .and_then(|key| self.spec.routes.get_key_value(&key));
        let (key, route) = chosen.or_else(|| self.spec.routes.get_key_value(DEFAULT))?;
        Some((key, route))
    }
}

/// Serves one TCP connection: HTTP requests one after the other, until one of them turns it into a WebSocket.
async fn serve_connection(shared: Arc<Shared>, stream: TcpStream, address: SocketAddr) {
    // Small frames must not wait for each other. A socket that refuses is about to fail anyway.
    let _ = stream.set_nodelay(true);
    let Ok(local_address) = stream.local_addr() else {
        return;
    };
    let peer = Peer { address, local_port: local_address.port() };
    let service = service_fn(|request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(answer(&shared, peer, request).await) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
    );
    let result = tokio::select! {
        result = &mut connection => result,
        () = shared.stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        debug!(%error, "an HTTP connection ended early");
    }
}

/// Finds what a request is for.
async fn answer(shared: &Arc<Shared>, peer: Peer, request: Request<Incoming>) -> Answer {
    let path_and_query = request.uri().path_and_query().map_or("", |path_and_query| path_and_query.as_str());
    if path_and_query.len() > URL_BYTES {
        return answer::error(StatusCode::URI_TOO_LONG, "RequestUriTooLongException", "Request-URI Too Long");
    }
    let Some(segments) = path_segments(request.uri().path()) else {
        return answer::forbidden();
    };
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match segments.as_slice() {
        [stage] | [stage, ""] if *stage == shared.spec.stage => handshake::handshake(shared, peer, request).await,
        [stage, CONNECTIONS, id] if *stage == shared.spec.stage => connection_api::serve(shared, id, request).await,
        _ => answer::forbidden(),
    }
}

/// The decoded segments of a path, or nothing where they are no text. Decoded one by one, because an id may hold a `/` as `%2F`.
fn path_segments(path: &str) -> Option<Vec<String>> {
    path.strip_prefix('/')?
        .split('/')
        .map(|segment| percent_decode_str(segment).decode_utf8().ok().map(Cow::into_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_segment_by_segment() {
        let segments = path_segments("/prod/@connections/TXzPWdnOjoECGjA%3D").expect("a path of texts");
        assert_eq!(segments, ["prod", "@connections", "TXzPWdnOjoECGjA="]);
        assert_eq!(path_segments("/prod/%40connections/a%2Fb").expect("a path of texts"), ["prod", "@connections", "a/b"]);
        assert_eq!(path_segments("/prod/").expect("a path of texts"), ["prod", ""]);
        assert_eq!(path_segments("/%FF"), None);
        assert_eq!(path_segments("*"), None);
    }
}
