//! An HTTP listener with a router behind it, which ends when it is told to, however long its requests would take.
//!
//! `axum::serve` waits for every running request at its end; a long poll or a stream would hold it up for as long as it likes.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A client that connects must send its request's head within this time; our choice, so that silent connections do not pile up.
const HEAD_TIME: Duration = Duration::from_secs(30);

/// How long the listener rests after it could not accept, which is mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long running requests may go on after the end was called for.
const GRACE: Duration = Duration::from_millis(300);

/// Marks a response that stands for none: the connection is closed without an answer.
#[derive(Clone, Copy, Debug)]
struct HangUp;

/// Closes the connection of a request instead of answering it, as an unreachable service does.
pub(crate) fn hang_up() -> Response {
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(HangUp);
    response
}

/// A running listener.
#[derive(Debug)]
pub(crate) struct FrontDoor {
    /// Cancelled to accept nothing more and to close idle connections.
    stop: CancellationToken,
    /// Cancelled to close the other connections too.
    cut: CancellationToken,
    tasks: TaskTracker,
}

impl FrontDoor {
    /// Serves a router on a bound listener. Requests carry `ConnectInfo<SocketAddr>`, and may be upgraded; what they become then is
    /// no longer the door's.
    pub(crate) fn start(listener: TcpListener, router: Router) -> Self {
        let door = Self { stop: CancellationToken::new(), cut: CancellationToken::new(), tasks: TaskTracker::new() };
        door.tasks.spawn(accept(listener, router, door.stop.clone(), door.cut.clone(), door.tasks.clone()));
        door
    }

    /// Accepts nothing more, gives running requests a moment, then closes their connections.
    pub(crate) async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(GRACE, self.tasks.wait()).await.is_err() {
            self.cut.cancel();
            self.tasks.wait().await;
        }
    }
}

impl Drop for FrontDoor {
    fn drop(&mut self) {
        self.stop.cancel();
        self.cut.cancel();
    }
}

async fn accept(listener: TcpListener, router: Router, stop: CancellationToken, cut: CancellationToken, tasks: TaskTracker) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                let (router, stop, cut) = (router.clone(), stop.clone(), cut.clone());
                tasks.spawn(async move {
                    cut.run_until_cancelled(serve(stream, peer, router, stop)).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a client could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, router: Router, stop: CancellationToken) {
    // Small answers should not wait for more; without it, the connection works all the same.
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = service.call(request);
        async move {
            let response = answer.await.unwrap_or_else(|never| match never {});
            // An error makes hyper close the connection and write nothing.
            if response.extensions().get::<HangUp>().is_some() {
                Err(std::io::Error::other("hung up as asked"))
            } else {
                Ok(response)
            }
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}
