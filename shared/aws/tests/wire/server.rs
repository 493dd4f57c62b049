//! A small HTTP server that answers as it is told and remembers what it was asked.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// A server on a free port, for as long as the test's runtime runs.
#[derive(Clone)]
pub(crate) struct Server {
    address: String,
    shared: Arc<Mutex<Shared>>,
}

/// One request, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    /// Empty where there is none.
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

/// What the server does with a request.
#[derive(Clone)]
pub(crate) enum Reply {
    Answer(StatusCode, Vec<(&'static str, &'static str)>, String),
    /// It never answers.
    Silence,
}

#[derive(Default)]
struct Shared {
    replies: VecDeque<Reply>,
    asked: Vec<Asked>,
}

impl Server {
    /// Answers the requests with these replies, in order, and every further one with the last.
    pub(crate) async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let shared = Arc::new(Mutex::new(Shared { replies: replies.into_iter().collect(), asked: Vec::new() }));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, shared }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.lock().expect("no panic").asked.clone()
    }
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self::Answer(StatusCode::from_u16(status).expect("a status"), Vec::new(), String::new())
    }

    pub(crate) fn json(status: u16, body: impl Into<String>) -> Self {
        let headers = vec![("content-type", "application/x-amz-json-1.0")];
        Self::Answer(StatusCode::from_u16(status).expect("a status"), headers, body.into())
    }

    pub(crate) fn with_header(self, name: &'static str, value: &'static str) -> Self {
        match self {
            Self::Answer(status, mut headers, body) => {
                headers.push((name, value));
                Self::Answer(status, headers, body)
            }
            Self::Silence => Self::Silence,
        }
    }
}

async fn answer(State(shared): State<Arc<Mutex<Shared>>>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let reply = {
        let mut shared = shared.lock().expect("no panic");
        let body = String::from_utf8_lossy(&body).into_owned();
        let (path, query) = (uri.path().to_owned(), uri.query().unwrap_or_default().to_owned());
        shared.asked.push(Asked { method, path, query, headers, body });
        match shared.replies.len() {
            0 => Reply::status(500),
            1 => shared.replies[0].clone(),
            _ => shared.replies.pop_front().expect("there are two"),
        }
    };
    match reply {
        Reply::Silence => std::future::pending().await,
        Reply::Answer(status, headers, body) => {
            let mut response = (status, body).into_response();
            for (name, value) in headers {
                response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            response
        }
    }
}
