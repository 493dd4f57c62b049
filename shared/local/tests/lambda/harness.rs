//! What the tests of the emulated Lambda share: the probe function and patience.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use axum::Router;
use bytes::Bytes;
use carillon_local::invoker::{Invoker, Outcome};
use carillon_local::lambda::{DeployedFunction, Functions, LambdaOptions};
use carillon_local::spec::{CodeSpec, FunctionSpec};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// How long a condition may take. Only a failing test waits that long.
const PATIENCE: Duration = Duration::from_secs(30);

/// The probe as a function called `Probe`, with 30 seconds.
pub(crate) fn function() -> DeployedFunction {
    let spec = FunctionSpec {
        logical_id: "Probe".to_owned(),
        name: "stack-probe".to_owned(),
        arn: "arn:aws:lambda:us-east-1:000000000000:function:stack-probe".to_owned(),
        code: CodeSpec::Cargo { binary: "probe".to_owned() },
        environment: BTreeMap::new(),
        timeout: Duration::from_secs(30),
        memory_mb: 128,
        reserved_concurrency: None,
        url: None,
        asynchronous: carillon_local::spec::AsynchronousSpec::default(),
    };
    DeployedFunction { spec, executable: crate::support::probe() }
}

pub(crate) fn start(function: DeployedFunction) -> Functions {
    start_with(function, &LambdaOptions::default())
}

pub(crate) fn start_with(function: DeployedFunction, options: &LambdaOptions) -> Functions {
    Functions::start(vec![function], options).expect("one function starts")
}

/// Invokes the probe and expects an answer.
pub(crate) async fn call(functions: &Functions, payload: Value) -> Value {
    match functions.invoke("Probe", bytes(&payload)).await.expect("the invocation is accepted") {
        Outcome::Success(answer) => serde_json::from_slice(&answer).expect("the probe answers JSON"),
        Outcome::FunctionError(error) => panic!("{}", String::from_utf8_lossy(&error)),
    }
}

/// Invokes the probe and expects a function error.
pub(crate) async fn call_in_vain(functions: &Functions, payload: Value) -> Value {
    match functions.invoke("Probe", bytes(&payload)).await.expect("the invocation is accepted") {
        Outcome::Success(answer) => panic!("{}", String::from_utf8_lossy(&answer)),
        Outcome::FunctionError(error) => serde_json::from_slice(&error).expect("an error is JSON"),
    }
}

pub(crate) fn bytes(payload: &Value) -> Bytes {
    payload.to_string().into()
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < give_up, "waited {PATIENCE:?} for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for something that has no better sign than its end.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited {PATIENCE:?} for: {what}"))
}

/// Lines of a file that may not exist yet.
pub(crate) fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Whether a process is there, be it only as a zombie.
pub(crate) fn lives(pid: i64) -> bool {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a process id"));
    nix::sys::signal::kill(pid, None).is_ok()
}

pub(crate) fn pid(answer: &Value) -> i64 {
    answer["pid"].as_i64().expect("the probe says its process id")
}

/// A folder for gates and marks, with paths as the probe takes them.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn open(&self, gate: &str) {
        std::fs::write(self.path(gate), "").expect("the folder is ours");
    }
}

/// Shuts down with little patience for the processes.
pub(crate) async fn end(functions: Functions) {
    within("shutdown", functions.shutdown(Duration::from_millis(200))).await;
}

/// A router on a port of its own.
pub(crate) struct Server {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(router: Router) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let task = tokio::spawn(async move { axum::serve(listener, service).await.expect("it serves") });
        Self { address, task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An HTTP answer that is whole.
pub(crate) struct Answer {
    pub(crate) status: http::StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("headers are text"))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends a request and waits for the whole answer. A body without a type is sent as JSON.
pub(crate) async fn send(request: http::request::Builder, body: String) -> Answer {
    let response = within("an answer", begin(request, body)).await;
    let (parts, body) = response.into_parts();
    let body = within("the rest of the answer", body.collect()).await.expect("the answer is whole").to_bytes();
    Answer { status: parts.status, headers: parts.headers, body }
}

/// Sends a request and waits for the headers of the answer, on a connection that ends with the answer.
pub(crate) async fn begin(mut request: http::request::Builder, body: String) -> http::Response<Incoming> {
    if request.headers_ref().is_some_and(|headers| !headers.contains_key("content-type")) && !body.is_empty() {
        request = request.header("content-type", "application/json");
    }
    let request = request.body(Full::new(Bytes::from(body))).expect("a request");
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
    client.request(request).await.expect("the server answers")
}
