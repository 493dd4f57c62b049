//! A local stack for one test: the repository's template with its real binaries, on free ports, with tables that go with it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use carillon_local::faults::Presence;
use carillon_local::stack::{Ports, Ready, Stack, StackOptions};
use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::{Answer, send};
use crate::sse::{Refused, SseStream};
use crate::template::TestTemplate;
use crate::wait::{eventually_within, patience};
use crate::websocket::Socket;
use crate::{binaries, processes, repository};

/// How long the end of a stack may take: what `carillon local` promises.
pub const SHUTDOWN: Duration = Duration::from_secs(3);

/// How many times the usual patience the queues get: a wake-up that came back is invisible for 30 s before it is tried again (D7).
const DRAIN_PATIENCE: u32 = 3;

/// How many lines of each function's log a failing test shows.
const LOG_LINES: usize = 40;

/// A running stack.
///
/// A test ends it with [`TestStack::shutdown`], which proves that nothing is left behind. One that forgets to fails; one that
/// panics shows the last lines of the functions' logs.
#[derive(Debug)]
pub struct TestStack {
    /// Nothing once it was shut down.
    stack: Option<Stack>,
    ready: Ready,
    allowed: BTreeSet<String>,
    folder: TempDir,
}

impl TestStack {
    /// Starts a stack.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    /// Starts a stack with other options: `change` gets those of [`TestStack::start`].
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_with(change: impl FnOnce(&mut StackOptions)) -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary folder"), change).await
    }

    /// Starts a stack of another template, with other options.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_from(template: &TestTemplate, change: impl FnOnce(&mut StackOptions)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = template.write(folder.path());
        Self::start_in(folder, |options| {
            options.template = path;
            change(options);
        })
        .await
    }

    async fn start_in(folder: TempDir, change: impl FnOnce(&mut StackOptions)) -> Self {
        let mut options = StackOptions {
            ports: Ports::FREE,
            prebuilt: Some(linked(folder.path()).await),
            ..StackOptions::new(repository::path("template.yaml"))
        };
        change(&mut options);
        let stack = Stack::start(options).await.unwrap_or_else(|error| panic!("the stack does not start: {error}"));
        stack.write_ready_file(&ready_file(folder.path())).expect("the ready file is written");
        Self { ready: stack.ready().clone(), stack: Some(stack), allowed: BTreeSet::new(), folder }
    }

    /// Where everything is.
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// The ready file, for programs.
    #[must_use]
    pub fn ready_file(&self) -> PathBuf {
        ready_file(self.folder.path())
    }

    /// The stack itself: its functions, queues and APIs.
    ///
    /// # Panics
    /// Never while the test holds it.
    #[must_use]
    pub fn stack(&self) -> &Stack {
        self.stack.as_ref().expect("only the shutdown takes it")
    }

    /// The WebSocket endpoint.
    ///
    /// # Panics
    /// When the template has none.
    #[must_use]
    pub fn websocket(&self) -> &str {
        self.ready.websocket.as_deref().expect("the template has a WebSocket API")
    }

    /// The URL for HTTP publishers, with its path `/publish`.
    ///
    /// # Panics
    /// When the template has none.
    #[must_use]
    pub fn publish_url(&self) -> String {
        format!("{}publish", self.ready.publish.as_deref().expect("the template has a publish function with a URL"))
    }

    /// The URL of streams, with its path `/sse`.
    ///
    /// # Panics
    /// When the template has none.
    #[must_use]
    pub fn sse_url(&self) -> String {
        format!("{}sse", self.ready.stream.as_deref().expect("the template has a stream function with a URL"))
    }

    /// The MQTT topic of a channel, as subscribers name it.
    ///
    /// # Panics
    /// When the template has no prefix for topics.
    #[must_use]
    pub fn topic(&self, channel: &str) -> String {
        format!("{}/c/{channel}", self.mqtt_prefix())
    }

    /// The MQTT topic on which devices publish to a channel.
    ///
    /// # Panics
    /// When the template has no prefix for topics.
    #[must_use]
    pub fn publish_topic(&self, channel: &str) -> String {
        format!("{}/p/{channel}", self.mqtt_prefix())
    }

    fn mqtt_prefix(&self) -> &str {
        self.ready.mqtt_prefix.as_deref().expect("the template has a prefix for MQTT topics")
    }

    /// The secret that opens everything.
    ///
    /// # Panics
    /// When the template has none.
    #[must_use]
    pub fn token(&self) -> &str {
        self.ready.token.as_deref().expect("the template has a secret")
    }

    /// The physical id of a resource: the URL of a queue, the name of a table.
    ///
    /// # Panics
    /// When there is no such resource.
    #[must_use]
    pub fn resource(&self, logical_id: &str) -> &str {
        self.ready.resources.get(logical_id).unwrap_or_else(|| panic!("the template has no resource {logical_id}"))
    }

    /// Connects a WebSocket client.
    ///
    /// # Panics
    /// When the stack refuses.
    pub async fn connect(&self) -> Socket {
        Socket::connect(self.websocket(), Some(self.token())).await.expect("the stack lets its own token in")
    }

    /// Opens a stream of channels, from now on.
    ///
    /// # Panics
    /// When the stack refuses.
    pub async fn stream(&self, channels: &[&str]) -> SseStream {
        let query: Vec<_> = channels.iter().map(|channel| format!("channel={channel}")).collect();
        self.stream_with(&query.join("&"), None).await.expect("the stack lets its own token in")
    }

    /// Opens a stream by a query, and with the last id of an earlier one.
    ///
    /// # Errors
    /// [`Refused`] when the answer is no stream.
    ///
    /// # Panics
    /// When nothing answers.
    pub async fn stream_with(&self, query: &str, last_event_id: Option<&str>) -> Result<SseStream, Refused> {
        let authorization = format!("Bearer {}", self.token());
        let mut headers = vec![("authorization", authorization.as_str())];
        headers.extend(last_event_id.map(|id| ("last-event-id", id)));
        SseStream::open(&format!("{}?{query}", self.sse_url()), &headers).await
    }

    /// Takes IoT Core away, or brings it back.
    ///
    /// # Panics
    /// When the template uses none.
    pub fn set_iot(&self, presence: Presence) {
        self.stack().faults().set_iot(presence).expect("the template uses IoT Core");
    }

    /// What a function logged in JSON so far, oldest first, as far back as the stack keeps it.
    ///
    /// # Panics
    /// When there is no such function.
    #[must_use]
    pub fn logged(&self, function: &str) -> Vec<Value> {
        let lines = self.stack().functions().logs(function).unwrap_or_else(|error| panic!("{function}: {error}"));
        lines.iter().filter_map(|line| serde_json::from_str(&line.text).ok()).collect()
    }

    /// Sends a body to `POST /publish`, whatever it is, with the token.
    ///
    /// # Panics
    /// When nothing answers.
    pub async fn post(&self, content_type: &str, body: impl Into<bytes::Bytes>) -> Answer {
        let authorization = format!("Bearer {}", self.token());
        let headers = [("authorization", authorization.as_str()), ("content-type", content_type)];
        send(Method::POST, &self.publish_url(), &headers, body).await
    }

    /// Publishes data to a channel over HTTP, and gives the offset.
    ///
    /// # Panics
    /// When the stack refuses.
    pub async fn publish(&self, channel: &str, data: &Value) -> u64 {
        let answer = self.post("application/json", json!({"channel": channel, "data": data}).to_string()).await;
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        answer.json()["results"][0]["offset"].as_u64().expect("an offset")
    }

    /// Sends an event to the event bus of the template, as PutEvents of the AWS API does, and gives the event's id.
    ///
    /// # Panics
    /// When EventBridge does not take it.
    pub async fn put_event(&self, source: &str, detail_type: &str, detail: &Value) -> String {
        let entry = json!({"Source": source, "DetailType": detail_type, "Detail": detail.to_string()});
        let headers = [("x-amz-target", "AWSEvents.PutEvents"), ("content-type", "application/x-amz-json-1.1")];
        let answer = send(Method::POST, &self.ready.aws, &headers, json!({"Entries": [entry]}).to_string()).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["FailedEntryCount"]), (200, &json!(0)), "{answer:?}");
        answer.json()["Entries"][0]["EventId"].as_str().expect("an event id").to_owned()
    }

    /// How many messages a queue has, in whatever state.
    ///
    /// # Panics
    /// When there is no such queue.
    #[must_use]
    pub fn queue_length(&self, logical_id: &str) -> usize {
        let sqs = self.stack().sqs();
        let queue = sqs.by_url(self.resource(logical_id)).unwrap_or_else(|_| panic!("{logical_id} is no queue"));
        let counts = sqs.counts(queue);
        counts.visible + counts.in_flight + counts.delayed
    }

    /// The command lines of the stack's processes.
    #[must_use]
    pub fn processes(&self) -> Vec<String> {
        processes::of_folder(self.folder.path())
    }

    /// The memory that the processes of a binary hold, in KiB; none where the system does not tell.
    #[must_use]
    pub fn resident_kib(&self, binary: &str) -> Option<u64> {
        processes::resident_kib(&self.folder.path().join("bin").join(binary))
    }

    /// Says that this test means to leave something behind: messages in a queue, or a function that reported an error, by its
    /// logical id.
    pub fn allow(&mut self, logical_id: &str) {
        assert!(self.ready.resources.contains_key(logical_id), "the template has no resource {logical_id}");
        self.allowed.insert(logical_id.to_owned());
    }

    /// Ends the stack, and proves that nothing is left behind: the queues drain, the dead-letter queues are empty, no function
    /// has failed, the end comes in time and no process outlives it.
    ///
    /// # Panics
    /// When something is left behind that was not [allowed](TestStack::allow).
    pub async fn shutdown(mut self) {
        self.assert_drained().await;
        self.assert_no_function_failed();
        let stack = self.stack.take().expect("only this takes it");
        let begun = Instant::now();
        stack.shutdown().await;
        let took = begun.elapsed();
        assert!(took < SHUTDOWN, "the end took {took:?}, over {SHUTDOWN:?}");
        let left = self.processes();
        assert!(left.is_empty(), "these processes outlived the stack: {left:?}");
        assert!(!self.ready_file().exists(), "the ready file outlived the stack");
    }

    async fn assert_drained(&self) {
        let template = self.stack().template();
        let (read, unread): (Vec<_>, Vec<_>) = template
            .queues
            .iter()
            .filter(|queue| !self.allowed.contains(&queue.logical_id))
            .partition(|queue| template.sqs_mappings.iter().any(|mapping| mapping.queue_arn == queue.arn));
        let lengths = || {
            let lengths = read.iter().map(|queue| (queue.logical_id.as_str(), self.queue_length(&queue.logical_id)));
            lengths.filter(|(_, length)| *length > 0).collect::<BTreeMap<_, _>>()
        };
        eventually_within(patience() * DRAIN_PATIENCE, "the queues to drain", || {
            let lengths = lengths();
            std::future::ready(if lengths.is_empty() { Ok(()) } else { Err(format!("{lengths:?}")) })
        })
        .await;
        for queue in unread {
            let length = self.queue_length(&queue.logical_id);
            assert_eq!(length, 0, "{} has messages", queue.logical_id);
        }
    }

    fn assert_no_function_failed(&self) {
        for function in self.stack().template().functions.iter().filter(|function| !self.allowed.contains(&function.logical_id)) {
            let counters = self.stack().functions().counters(&function.logical_id).expect("it is a function of the stack");
            let failed = (counters.function_errors, counters.dropped_events, counters.throttles);
            assert_eq!(failed, (0, 0, 0), "{} failed: {counters:?}", function.logical_id);
        }
    }

    fn print_logs(&self) {
        let Some(stack) = &self.stack else { return };
        for function in &stack.template().functions {
            let lines = stack.functions().logs(&function.logical_id).unwrap_or_default();
            eprintln!("--- the last of {} lines of {}", lines.len(), function.logical_id);
            for line in lines.iter().skip(lines.len().saturating_sub(LOG_LINES)) {
                eprintln!("{}", line.text);
            }
        }
    }
}

impl Drop for TestStack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
        } else {
            assert!(self.stack.is_none(), "the test did not shut its stack down, so nobody knows what it leaves behind");
        }
    }
}

/// The binaries under paths of this stack's own, by which its processes are told from those of other stacks.
async fn linked(folder: &Path) -> BTreeMap<String, PathBuf> {
    let folder = folder.join("bin");
    std::fs::create_dir(&folder).expect("a folder for the binaries");
    let link = |(name, path): (&String, &PathBuf)| {
        let link = folder.join(name);
        symlink(path, &link).expect("a link to a binary");
        (name.clone(), link)
    };
    binaries::all().await.iter().map(link).collect()
}

fn ready_file(folder: &Path) -> PathBuf {
    folder.join("ready.json")
}
