//! Where the posts go: a server that takes every post as API Gateway's @connections would, in a process of its own.

use super::worker::Worker;
use crate::failure::Outcome;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Collected, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

/// What came since the last time.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Came {
    /// Where it listens.
    pub(super) address: String,
    /// Posts to connections.
    pub(super) posts: u64,
    /// Anything else, which is answered with 404.
    pub(super) others: u64,
    /// The first of the posts.
    pub(super) sample: Option<Sample>,
}

/// A post as it came.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Sample {
    /// The path.
    pub(super) path: String,
    /// The headers, in their order.
    pub(super) headers: Vec<(String, String)>,
    /// The body.
    pub(super) body: String,
}

/// The handle of a running sink.
#[derive(Debug)]
pub(super) struct Sink {
    worker: Worker,
    address: String,
}

impl Sink {
    /// Starts one.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub(super) async fn start() -> Outcome<Self> {
        let mut sink = Self { worker: Worker::own(["sink"]).await?, address: String::new() };
        sink.address = sink.came().await?.address;
        Ok(sink)
    }

    /// Its URL, without a slash at the end.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What came since this was asked last.
    ///
    /// # Errors
    /// When the sink has ended.
    pub(super) async fn came(&mut self) -> Outcome<Came> {
        let answer = self.worker.ask("").await?;
        Ok(serde_json::from_str(&answer).map_err(io::Error::from)?)
    }
}

/// The sink's own process: it answers every line with what came, and ends with its input.
pub(super) async fn run() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let came = Arc::new(Mutex::new(fresh(address)));
    tokio::spawn(serve(listener, Arc::clone(&came)));
    let (mut lines, mut output) = (BufReader::new(tokio::io::stdin()).lines(), tokio::io::stdout());
    while lines.next_line().await?.is_some() {
        let told = std::mem::replace(&mut *came.lock().unwrap_or_else(PoisonError::into_inner), fresh(address));
        output.write_all(format!("{}\n", serde_json::to_string(&told)?).as_bytes()).await?;
        output.flush().await?;
    }
    Ok(())
}

fn fresh(address: SocketAddr) -> Came {
    Came { address: address.to_string(), ..Came::default() }
}

async fn serve(listener: TcpListener, came: Arc<Mutex<Came>>) {
    loop {
        // Nothing but a lack of files fails here, and what was not accepted is missing among the posts.
        let Ok((socket, _)) = listener.accept().await else { continue };
        let _ = socket.set_nodelay(true);
        let came = Arc::clone(&came);
        let service = service_fn(move |request| take(request, Arc::clone(&came)));
        tokio::spawn(async move {
            // A client that leaves is no matter.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

async fn take(request: Request<Incoming>, came: Arc<Mutex<Came>>) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
    let is_post = head.method == Method::POST && head.uri.path().contains("/@connections/");
    let mut came = came.lock().unwrap_or_else(PoisonError::into_inner);
    let mut response = Response::new(Empty::new());
    if is_post {
        came.posts += 1;
        if came.sample.is_none() {
            let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
            let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
            let body = String::from_utf8_lossy(&body).into_owned();
            came.sample = Some(Sample { path: head.uri.path().to_owned(), headers, body });
        }
    } else {
        came.others += 1;
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpStream;

    #[tokio::test]
    async fn posts_are_taken_and_the_first_is_kept() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let came = Arc::new(Mutex::new(fresh(address)));
        tokio::spawn(serve(listener, Arc::clone(&came)));
        let mut socket = TcpStream::connect(address).await.expect("it listens");
        let post = |body: &str| {
            format!("POST /prod/@connections/a%3D HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        };
        let requests = post("one") + &post("two") + "GET /other HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
        socket.write_all(requests.as_bytes()).await.expect("sent");
        let mut answers = String::new();
        socket.read_to_string(&mut answers).await.expect("answered");
        assert_eq!((answers.matches("200 OK").count(), answers.matches("404 Not Found").count()), (2, 1));
        let came = came.lock().expect("no panic").clone();
        assert_eq!((came.posts, came.others), (2, 1));
        let sample = came.sample.expect("a post");
        assert_eq!((sample.path.as_str(), sample.body.as_str()), ("/prod/@connections/a%3D", "one"));
        assert!(sample.headers.contains(&("host".to_owned(), "h".to_owned())), "{sample:?}");
    }
}
