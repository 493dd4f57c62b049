//! A WebSocket API on a free port whose functions are closures, and clients for it.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carillon_local::invoker::{InvokeError, Invoker, Outcome, StreamingOutcome};
use carillon_local::spec::{RouteSpec, WebSocketApiSpec};
use carillon_local::websocket_api::{TimeLimits, WebSocketApi, WebSocketApiOptions};
use futures_util::future::BoxFuture;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request as ClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};

/// How long a test waits for what must happen, before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long a test watches for what must not happen.
pub(crate) const SILENCE: Duration = Duration::from_millis(100);

pub(crate) const STAGE: &str = "develop";

pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing came within {PATIENCE:?}"),
    }
}

pub(crate) type Handled = Result<Outcome, InvokeError>;

/// An answer with a status, as a function gives it.
pub(crate) fn status(code: u16) -> Handled {
    answer(serde_json::json!({ "statusCode": code }))
}

pub(crate) fn answer(value: Value) -> Handled {
    Ok(Outcome::Success(value.to_string().into()))
}

pub(crate) fn function_error() -> Handled {
    Ok(Outcome::FunctionError(Bytes::from_static(br#"{"errorType":"Unhandled","errorMessage":"panicked"}"#)))
}

type Handler = dyn Fn(Event) -> BoxFuture<'static, Handled> + Send + Sync;

/// One invocation.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) function: String,
    pub(crate) payload: Bytes,
    pub(crate) json: Value,
}

impl Event {
    pub(crate) fn context(&self, key: &str) -> &Value {
        &self.json["requestContext"][key]
    }

    pub(crate) fn kind(&self) -> &str {
        self.context("eventType").as_str().expect("every event has a type")
    }

    pub(crate) fn connection_id(&self) -> String {
        self.context("connectionId").as_str().expect("every event has a connection id").to_owned()
    }

    pub(crate) fn body(&self) -> &str {
        self.json["body"].as_str().expect("a message has a body")
    }
}

struct Functions {
    handler: Box<Handler>,
    events: mpsc::UnboundedSender<Event>,
}

impl Invoker for Functions {
    fn invoke(&self, function: &str, payload: Bytes) -> BoxFuture<'static, Handled> {
        let json = serde_json::from_slice(&payload).expect("an event is JSON");
        let event = Event { function: function.to_owned(), payload, json };
        let handled = (self.handler)(event.clone());
        // A test that has ended does not listen any more.
        let _ = self.events.send(event);
        handled
    }

    fn invoke_streaming(&self, _: &str, _: Bytes) -> BoxFuture<'static, Result<StreamingOutcome, InvokeError>> {
        unreachable!("a WebSocket API does not stream")
    }

    fn invoke_later(&self, _: &str, _: Bytes) -> Result<(), InvokeError> {
        unreachable!("a WebSocket API waits for its functions")
    }
}

/// A gate at which functions wait until a test lets some of them pass.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Semaphore>);

impl Gate {
    pub(crate) fn closed() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    pub(crate) fn open_for(&self, count: usize) {
        self.0.add_permits(count);
    }

    pub(crate) async fn pass(self) {
        self.0.acquire_owned().await.expect("a gate is never taken away").forget();
    }
}

/// What an API is made of.
pub(crate) struct Setup {
    routes: BTreeMap<String, RouteSpec>,
    expression: String,
    time_limits: TimeLimits,
}

impl Setup {
    /// An API with `$connect`, `$disconnect` and a one-way `$default`, whose functions have the names of their routes.
    pub(crate) fn standard() -> Self {
        Self::without_routes().route("$connect", false).route("$disconnect", false).route("$default", false)
    }

    pub(crate) fn without_routes() -> Self {
        Self { routes: BTreeMap::new(), expression: "$request.body.action".to_owned(), time_limits: TimeLimits::AWS }
    }

    pub(crate) fn route(mut self, key: &str, two_way: bool) -> Self {
        self.routes.insert(key.to_owned(), RouteSpec { function: key.to_owned(), two_way });
        self
    }

    pub(crate) fn time_limits(self, change: impl FnOnce(&mut TimeLimits)) -> Self {
        let mut time_limits = self.time_limits;
        change(&mut time_limits);
        Self { time_limits, ..self }
    }

    /// Starts it with functions that answer at once.
    pub(crate) async fn answering(self, handle: impl Fn(&Event) -> Handled + Send + Sync + 'static) -> Stand {
        self.start(move |event| {
            let handled = handle(&event);
            Box::pin(async move { handled })
        })
        .await
    }

    /// Starts it with functions that take their time.
    pub(crate) async fn start(self, handler: impl Fn(Event) -> BoxFuture<'static, Handled> + Send + Sync + 'static) -> Stand {
        let (sender, events) = mpsc::unbounded_channel();
        let spec = WebSocketApiSpec {
            logical_id: "Api".to_owned(),
            api_id: "nn27okk1we".to_owned(),
            stage: STAGE.to_owned(),
            route_selection_expression: self.expression,
            routes: self.routes,
        };
        let invoker = Arc::new(Functions { handler: Box::new(handler), events: sender });
        let options = WebSocketApiOptions { time_limits: self.time_limits, ..WebSocketApiOptions::default() };
        let api = WebSocketApi::new(spec, invoker, options).expect("a good route selection expression");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let served = api.clone();
        tokio::spawn(async move { served.serve(listener).await });
        let http = HttpClient::builder(TokioExecutor::new()).build_http();
        Stand { api, address, events: Mutex::new(events), http }
    }
}

/// A running API.
pub(crate) struct Stand {
    pub(crate) api: WebSocketApi,
    pub(crate) address: SocketAddr,
    events: Mutex<mpsc::UnboundedReceiver<Event>>,
    http: HttpClient<HttpConnector, Full<Bytes>>,
}

/// What an HTTP request got.
#[derive(Debug)]
pub(crate) struct HttpAnswer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl HttpAnswer {
    pub(crate) fn error_type(&self) -> Option<&str> {
        self.headers.get("x-amzn-ErrorType").map(|value| value.to_str().expect("an error type is a text"))
    }

    #[track_caller]
    pub(crate) fn expect(&self, status: u16, error_type: Option<&str>, body: &str) {
        let found = (self.status.as_u16(), self.error_type(), self.body.as_str());
        assert_eq!(found, (status, error_type, body));
    }
}

impl Stand {
    pub(crate) fn url(&self) -> String {
        format!("ws://{}/{STAGE}", self.address)
    }

    /// The next invocation, of whatever function.
    pub(crate) async fn event(&self) -> Event {
        soon("an invocation", async { self.events.lock().await.recv().await }).await.expect("the API holds its invoker")
    }

    /// The next invocation, which must be of that type.
    pub(crate) async fn event_of(&self, kind: &str) -> Event {
        let event = self.event().await;
        assert_eq!(event.kind(), kind, "{event:?}");
        event
    }

    /// Watches that no function is invoked.
    pub(crate) async fn no_event(&self) {
        if let Ok(event) = tokio::time::timeout(SILENCE, async { self.events.lock().await.recv().await }).await {
            panic!("a function was invoked: {event:?}");
        }
    }

    pub(crate) fn request(&self) -> ClientRequest {
        self.url().into_client_request().expect("the URL of the API")
    }

    /// Opens a connection; the CONNECT event is taken from the queue, so this is for APIs with that route.
    pub(crate) async fn connect(&self) -> Client {
        let mut client = self.open(self.request()).await.expect("the handshake succeeds");
        client.id = self.event_of("CONNECT").await.connection_id();
        client
    }

    /// Tries a handshake.
    pub(crate) async fn open(&self, request: ClientRequest) -> Result<Client, Error> {
        // The frames that the API sends are held to the limit of 32 KB.
        let config = WebSocketConfig::default().max_frame_size(Some(32 * 1024)).write_buffer_size(0);
        let tcp = TcpStream::connect(self.address).await.expect("the API listens");
        let handshake = tokio_tungstenite::client_async_with_config(request, tcp, Some(config));
        let (stream, _) = soon("the answer to a handshake", handshake).await?;
        Ok(Client { stream, id: String::new() })
    }

    /// Tries a handshake that must be refused.
    pub(crate) async fn refused(&self, request: ClientRequest) -> HttpAnswer {
        match self.open(request).await {
            Err(Error::Http(response)) => {
                let (parts, body) = response.into_parts();
                let body = String::from_utf8(body.unwrap_or_default()).expect("a body of text");
                HttpAnswer { status: parts.status, headers: parts.headers, body }
            }
            other => panic!("the handshake was not refused: {other:?}"),
        }
    }

    /// A request over HTTP.
    pub(crate) async fn call(&self, request: Request<Full<Bytes>>) -> HttpAnswer {
        let response = soon("an HTTP answer", self.http.request(request)).await.expect("an HTTP answer");
        let (parts, body) = response.into_parts();
        let body = soon("an HTTP body", body.collect()).await.expect("a whole body").to_bytes();
        HttpAnswer { status: parts.status, headers: parts.headers, body: String::from_utf8(body.into()).expect("a body of text") }
    }

    pub(crate) fn plain_request(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
        Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .body(Full::new(body.into()))
            .expect("a request")
    }

    /// A request to `@connections` with a signature, such as it is.
    pub(crate) fn signed_request(&self, method: Method, id: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
        let path = format!("/{STAGE}/@connections/{}", id.replace('=', "%3D").replace(' ', "%20"));
        let mut request = self.plain_request(method, &path, body);
        let signature =
            "AWS4-HMAC-SHA256 Credential=local/20240219/us-east-1/execute-api/aws4_request, SignedHeaders=host, Signature=0";
        request.headers_mut().insert("authorization", signature.parse().expect("a header"));
        request
    }

    pub(crate) async fn post(&self, id: &str, body: impl Into<Bytes>) -> HttpAnswer {
        self.call(self.signed_request(Method::POST, id, body)).await
    }

    pub(crate) async fn get(&self, id: &str) -> HttpAnswer {
        self.call(self.signed_request(Method::GET, id, "")).await
    }

    pub(crate) async fn delete(&self, id: &str) -> HttpAnswer {
        self.call(self.signed_request(Method::DELETE, id, "")).await
    }
}

/// A client with an open connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: WebSocketStream<TcpStream>,
    pub(crate) id: String,
}

impl Client {
    pub(crate) async fn send(&mut self, text: &str) {
        self.stream.send(Message::text(text)).await.expect("an open connection");
    }

    pub(crate) async fn message(&mut self) -> Message {
        soon("a message", self.stream.next()).await.expect("an open connection").expect("a good frame")
    }

    /// The next text; it must be one.
    pub(crate) async fn text(&mut self) -> String {
        match self.message().await {
            Message::Text(text) => text.as_str().to_owned(),
            other => panic!("not a text: {other:?}"),
        }
    }

    /// The close frame, which must come next; then the end of the connection.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        let frame = match self.message().await {
            Message::Close(Some(frame)) => frame,
            other => panic!("not a close frame with a code: {other:?}"),
        };
        soon("the end of the connection", async { while let Some(Ok(_)) = self.stream.next().await {} }).await;
        (frame.code.into(), frame.reason.as_str().to_owned())
    }

    /// Closes, with a code or without.
    pub(crate) async fn close(&mut self, frame: Option<CloseFrame>) {
        self.stream.send(Message::Close(frame)).await.expect("an open connection");
        soon("the end of the connection", async { while let Some(Ok(_)) = self.stream.next().await {} }).await;
    }
}

/// A handshake as bytes, for what a good client would not send.
pub(crate) fn raw_handshake(stand: &Stand, more_headers: &str) -> String {
    format!(
        "GET /{STAGE} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more_headers}\r\n",
        stand.address
    )
}

/// Sends bytes to a new connection.
pub(crate) async fn raw_client(stand: &Stand, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(stand.address).await.expect("the API listens");
    stream.write_all(bytes).await.expect("an open connection");
    stream
}

/// The head of an HTTP answer.
pub(crate) async fn raw_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        soon("the head of an answer", stream.read_exact(&mut byte)).await.expect("a whole head");
        head.extend(byte);
    }
    String::from_utf8(head).expect("a head of text")
}

/// All that comes until the other side ends.
pub(crate) async fn raw_rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    soon("the end of the connection", stream.read_to_end(&mut rest)).await.expect("a clean end");
    rest
}
