//! One function: its environments, its limits and its way from a call to a process.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::unconstrained;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::LambdaOptions;
use super::environment::{Environment, Fingerprint, Launch, Supervised, Traits};
use super::invocation::{Call, InFlight, Invocation, Load, Mode, Reply};
use super::limits::{MAX_CONCURRENCY_PER_ENVIRONMENT, MAX_SYNCHRONOUS_PAYLOAD_BYTES};
use super::logs::FunctionLog;
use crate::invoker::{InvokeError, Outcome, StreamingOutcome};
use crate::spec::FunctionSpec;

/// The variable by which a function on Lambda Managed Instances says that it takes several invocations at a time.
const MAX_CONCURRENCY: &str = "AWS_LAMBDA_MAX_CONCURRENCY";

/// How long the last lines of an invocation may take through the pipe before the log's tail is taken.
const TAIL_PATIENCE: Duration = Duration::from_millis(50);

/// What happened to a function since the stack started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Processes that were started.
    pub environments_started: u64,
    /// Invocations that were accepted, each try of an asynchronous event counted.
    pub invocations: u64,
    /// Invocations that ended with a function error: reported, crashed or timed out.
    pub function_errors: u64,
    /// Invocations that were refused by the reserved concurrency.
    pub throttles: u64,
    /// Asynchronous events that were given up.
    pub dropped_events: u64,
}

/// A function that can be invoked.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) spec: FunctionSpec,
    pub(crate) queued_events: AtomicUsize,
    traits: Arc<Traits>,
    launch: Launch,
    /// One permit for each invocation that the environments can work on; first come, first served.
    slots: Arc<Semaphore>,
    /// The living environments, retired ones included, the least recently used first.
    pool: Mutex<Vec<Arc<Environment>>>,
    load: Arc<Load>,
    tallies: Tallies,
    closing: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct Tallies {
    environments_started: AtomicU64,
    invocations: AtomicU64,
    throttles: AtomicU64,
    dropped_events: AtomicU64,
}

/// What waits for one of the slots.
type Slot = BoxFuture<'static, Result<OwnedSemaphorePermit, AcquireError>>;

/// An accepted call.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) invocation: Arc<Invocation>,
    reply: oneshot::Receiver<Reply>,
}

impl Function {
    /// # Errors
    /// When the log file cannot be opened.
    pub(crate) fn new(
        spec: FunctionSpec,
        executable: PathBuf,
        options: &LambdaOptions,
        closing: CancellationToken,
        tasks: TaskTracker,
    ) -> std::io::Result<Self> {
        let concurrency = concurrency_of(&spec);
        let launch = Launch { variables: variables(&spec, &executable, options), executable };
        let traits = Traits {
            function_name: spec.name.clone(),
            function_arn: spec.arn.clone(),
            timeout: spec.timeout,
            concurrency,
            log: FunctionLog::open(&spec.name, options.log_directory.as_deref())?,
        };
        let slots = options.max_environments.max(1).saturating_mul(concurrency).min(Semaphore::MAX_PERMITS);
        Ok(Self {
            spec,
            queued_events: AtomicUsize::new(0),
            traits: Arc::new(traits),
            launch,
            slots: Arc::new(Semaphore::new(slots)),
            pool: Mutex::default(),
            load: Arc::default(),
            tallies: Tallies::default(),
            closing,
            tasks,
        })
    }

    /// Accepts a call. It runs to its end whether or not anybody waits for the answer.
    ///
    /// # Errors
    /// [`InvokeError::TooLarge`], [`InvokeError::Throttled`] by the reserved concurrency, [`InvokeError::ShuttingDown`].
    pub(crate) fn begin(self: &Arc<Self>, call: Call) -> Result<Pending, InvokeError> {
        let size = call.payload.len();
        if size > MAX_SYNCHRONOUS_PAYLOAD_BYTES {
            return Err(InvokeError::TooLarge { size, limit: MAX_SYNCHRONOUS_PAYLOAD_BYTES });
        }
        if self.closing.is_cancelled() {
            return Err(InvokeError::ShuttingDown);
        }
        let limit = self.spec.reserved_concurrency.map_or(usize::MAX, |limit| limit as usize);
        let Some(place) = InFlight::enter(&self.load, limit) else {
            self.tallies.throttles.fetch_add(1, Ordering::Relaxed);
            return Err(InvokeError::Throttled);
        };
        self.tallies.invocations.fetch_add(1, Ordering::Relaxed);
        let (invocation, reply) = Invocation::new(call, place);
        let invocation = Arc::new(invocation);
        let slot = self.queue();
        let (function, running) = (self.clone(), invocation.clone());
        self.tasks.spawn(async move { function.execute(slot, &running).await });
        Ok(Pending { invocation, reply })
    }

    pub(crate) fn log(&self) -> &FunctionLog {
        &self.traits.log
    }

    pub(crate) fn counters(&self) -> Counters {
        let tallies = &self.tallies;
        Counters {
            environments_started: tallies.environments_started.load(Ordering::Relaxed),
            invocations: tallies.invocations.load(Ordering::Relaxed),
            function_errors: self.load.failures(),
            throttles: tallies.throttles.load(Ordering::Relaxed),
            dropped_events: tallies.dropped_events.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn count_dropped_event(&self) {
        self.tallies.dropped_events.fetch_add(1, Ordering::Relaxed);
    }

    /// Refuses what still waits for an environment.
    pub(crate) fn close(&self) {
        self.slots.close();
    }

    pub(crate) fn environments(&self) -> Vec<Arc<Environment>> {
        self.lock().clone()
    }

    /// Brings an invocation to an environment and watches it to its end.
    async fn execute(self: &Arc<Self>, slot: Slot, invocation: &Arc<Invocation>) {
        let Ok(_permit) = slot.await else {
            invocation.refuse(InvokeError::ShuttingDown);
            invocation.settle(Vec::new());
            return;
        };
        loop {
            let Some(environment) = self.place(invocation) else {
                invocation.refuse(InvokeError::ShuttingDown);
                invocation.settle(Vec::new());
                return;
            };
            if environment.supervise(invocation).await == Supervised::NotTaken {
                continue;
            }
            self.used(&environment);
            self.report(invocation, &environment).await;
            return;
        }
    }

    /// Takes a place in the queue for a slot, here and now: tasks may start in another order than they were spawned in.
    fn queue(&self) -> Slot {
        let mut slot = unconstrained(self.slots.clone().acquire_owned()).boxed();
        match (&mut slot).now_or_never() {
            Some(acquired) => std::future::ready(acquired).boxed(),
            None => slot,
        }
    }

    /// Gives the invocation to the environment that was used last, or to a new one; to none when the stack shuts down.
    fn place(self: &Arc<Self>, invocation: &Arc<Invocation>) -> Option<Arc<Environment>> {
        let fingerprint = Fingerprint::of(&self.launch.executable);
        let mut pool = self.lock();
        if self.closing.is_cancelled() {
            return None;
        }
        if fingerprint.is_some() {
            // The binary was built anew: the old processes finish what they have.
            for outdated in pool.iter().filter(|environment| environment.fingerprint != fingerprint) {
                outdated.retire();
            }
        }
        if let Some(environment) = pool.iter().rev().find(|environment| environment.accept(invocation)) {
            return Some(environment.clone());
        }
        let environment = Arc::new(Environment::new(self.traits.clone(), fingerprint));
        let accepted = environment.accept(invocation);
        debug_assert!(accepted, "a new environment has room");
        pool.push(environment.clone());
        self.tallies.environments_started.fetch_add(1, Ordering::Relaxed);
        let (function, started) = (self.clone(), environment.clone());
        self.tasks.spawn(async move {
            started.clone().run(function.launch.clone()).await;
            function.lock().retain(|environment| !Arc::ptr_eq(environment, &started));
        });
        Some(environment)
    }

    /// Makes the environment the first choice of the next invocation.
    fn used(&self, environment: &Arc<Environment>) {
        let mut pool = self.lock();
        if let Some(index) = pool.iter().position(|other| Arc::ptr_eq(other, environment)) {
            pool[index..].rotate_left(1);
        }
    }

    /// Writes what Lambda writes at the end of an invocation, and hands the log's tail to whoever asked.
    async fn report(&self, invocation: &Invocation, environment: &Environment) {
        let duration = invocation.deadline().map_or(Duration::ZERO, |deadline| Instant::now() - deadline.began);
        let request_id = &invocation.call.request_id;
        tracing::debug!(
            function.name = %self.spec.name,
            request.id = %request_id,
            duration_ms = duration.as_millis(),
            failed = invocation.failed(),
            "an invocation ended",
        );
        let init_duration = environment.take_init_duration();
        if !invocation.call.wants_tail {
            invocation.settle(Vec::new());
            return;
        }
        tokio::time::sleep(TAIL_PATIENCE).await;
        environment.tail.push(&format!("END RequestId: {request_id}"));
        environment.tail.push(&report_line(request_id, duration, self.spec.memory_mb, init_duration));
        invocation.settle(environment.tail.text());
    }

    /// A panic while the pool is locked leaves a list of environments.
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Environment>>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    /// Waits for a buffered answer.
    pub(crate) async fn outcome(self) -> Result<Outcome, InvokeError> {
        match self.reply.await {
            Ok(Reply::Success(payload)) => Ok(Outcome::Success(payload)),
            Ok(Reply::FunctionError(json)) => Ok(Outcome::FunctionError(json)),
            Ok(Reply::Refused(error)) => Err(error),
            Ok(Reply::Streaming { .. }) | Err(_) => Err(InvokeError::ShuttingDown),
        }
    }

    /// Waits until a streamed answer begins.
    pub(crate) async fn streaming_outcome(self) -> Result<StreamingOutcome, InvokeError> {
        match self.reply.await {
            Ok(Reply::Streaming { content_type, body }) => Ok(StreamingOutcome::Started { content_type, body }),
            Ok(Reply::FunctionError(json)) => Ok(StreamingOutcome::FunctionError(json)),
            Ok(Reply::Refused(error)) => Err(error),
            Ok(Reply::Success(_)) | Err(_) => Err(InvokeError::ShuttingDown),
        }
    }
}

impl Call {
    /// A call as the emulated services make it.
    pub(crate) fn new(payload: Bytes, mode: Mode) -> Self {
        Self { request_id: uuid::Uuid::new_v4().to_string(), payload, client_context: None, mode, wants_tail: false }
    }
}

/// How many invocations at a time one environment of the function takes.
fn concurrency_of(spec: &FunctionSpec) -> usize {
    let Some(value) = spec.environment.get(MAX_CONCURRENCY).filter(|value| !value.is_empty()) else {
        return 1;
    };
    match value.parse::<usize>() {
        Ok(number) if (1..=MAX_CONCURRENCY_PER_ENVIRONMENT).contains(&number) => number,
        _ => {
            tracing::warn!(
                function.name = %spec.name,
                "{MAX_CONCURRENCY} is not a number from 1 to {MAX_CONCURRENCY_PER_ENVIRONMENT}: the function gets one invocation at a time",
            );
            1
        }
    }
}

/// The variables of every environment: the template's, over them the stack's, over them Lambda's own, which a function
/// cannot set (AWS Lambda Developer Guide, "Defined runtime environment variables").
///
/// `AWS_EXECUTION_ENV` is missing on purpose: Lambda does not define it for OS-only runtimes (same page).
fn variables(spec: &FunctionSpec, executable: &Path, options: &LambdaOptions) -> Vec<(OsString, OsString)> {
    let mut variables: BTreeMap<String, OsString> = BTreeMap::new();
    for (name, value) in &spec.environment {
        if name.starts_with("AWS_ENDPOINT_URL") && !options.variables.contains_key(name) {
            if !value.is_empty() {
                tracing::warn!(
                    function.name = %spec.name,
                    variable = %name,
                    "the variable is left out: the local stack has no endpoint for it, and no function may reach AWS from here",
                );
            }
            continue;
        }
        variables.insert(name.clone(), value.into());
    }
    for (name, value) in &options.variables {
        if spec.environment.get(name).is_some_and(|value| options.own_endpoints.contains(value)) {
            continue;
        }
        variables.insert(name.clone(), value.into());
    }
    let task_root = executable.parent().unwrap_or(Path::new("/"));
    let own: [(&str, OsString); 15] = [
        ("AWS_LAMBDA_FUNCTION_NAME", (&spec.name).into()),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".into()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", spec.memory_mb.to_string().into()),
        ("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{}", spec.name).into()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".into()),
        ("AWS_REGION", (&options.region).into()),
        ("AWS_DEFAULT_REGION", (&options.region).into()),
        ("AWS_ACCESS_KEY_ID", "local".into()),
        ("AWS_SECRET_ACCESS_KEY", "local".into()),
        ("AWS_SESSION_TOKEN", "local".into()),
        ("LAMBDA_TASK_ROOT", task_root.into()),
        ("_HANDLER", "bootstrap".into()),
        ("TZ", ":UTC".into()),
        ("LANG", "en_US.UTF-8".into()),
        ("PATH", "/usr/local/bin:/usr/bin:/bin:/opt/bin".into()),
    ];
    for (name, value) in own {
        variables.insert(name.to_owned(), value);
    }
    variables.into_iter().map(|(name, value)| (name.into(), value)).collect()
}

/// Lambda's last line of an invocation, without the memory used, which is not measured here.
fn report_line(request_id: &str, duration: Duration, memory_mb: u32, init_duration: Option<Duration>) -> String {
    let milliseconds = duration.as_secs_f64() * 1_000.0;
    let billed = milliseconds.ceil();
    let mut line = format!(
        "REPORT RequestId: {request_id}\tDuration: {milliseconds:.2} ms\tBilled Duration: {billed:.0} ms\tMemory Size: {memory_mb} MB\t",
    );
    if let Some(init) = init_duration {
        line.push_str(&format!("Init Duration: {:.2} ms\t", init.as_secs_f64() * 1_000.0));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::CodeSpec;

    fn spec(environment: &[(&str, &str)]) -> FunctionSpec {
        FunctionSpec {
            logical_id: "Probe".to_owned(),
            name: "probe".to_owned(),
            arn: "arn:aws:lambda:us-east-1:000000000000:function:probe".to_owned(),
            code: CodeSpec::Cargo { binary: "probe".to_owned() },
            environment: environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            timeout: Duration::from_secs(3),
            memory_mb: 128,
            reserved_concurrency: None,
            url: None,
            asynchronous: crate::spec::AsynchronousSpec::default(),
        }
    }

    fn value<'a>(variables: &'a [(OsString, OsString)], name: &str) -> Option<&'a str> {
        variables.iter().find(|(other, _)| other == name).and_then(|(_, value)| value.to_str())
    }

    #[test]
    fn endpoints_of_the_template_become_those_of_the_stack_or_vanish() {
        let spec = spec(&[
            ("AWS_ENDPOINT_URL_SQS", "https://sqs.us-east-1.amazonaws.com"),
            ("AWS_ENDPOINT_URL_KINESIS", "https://kinesis.us-east-1.amazonaws.com"),
            ("TABLE", "log"),
            ("AWS_REGION", "eu-central-1"),
        ]);
        let mut options = LambdaOptions::default();
        options.variables.insert("AWS_ENDPOINT_URL_SQS".to_owned(), "http://127.0.0.1:1".to_owned());
        let variables = variables(&spec, Path::new("/tmp/probe"), &options);
        assert_eq!(value(&variables, "AWS_ENDPOINT_URL_SQS"), Some("http://127.0.0.1:1"));
        assert_eq!(value(&variables, "AWS_ENDPOINT_URL_KINESIS"), None);
        assert_eq!(value(&variables, "TABLE"), Some("log"));
        assert_eq!(value(&variables, "AWS_REGION"), Some("us-east-1"));
        assert_eq!(value(&variables, "LAMBDA_TASK_ROOT"), Some("/tmp"));
    }

    #[test]
    fn an_endpoint_of_the_template_that_is_one_of_the_stack_stays() {
        let management = "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI";
        let spec = spec(&[(management, "http://127.0.0.1:2/second")]);
        let mut options = LambdaOptions::default();
        options.variables.insert(management.to_owned(), "http://127.0.0.1:1/first".to_owned());
        assert_eq!(value(&variables(&spec, Path::new("/tmp/probe"), &options), management), Some("http://127.0.0.1:1/first"));
        options.own_endpoints.push("http://127.0.0.1:2/second".to_owned());
        assert_eq!(value(&variables(&spec, Path::new("/tmp/probe"), &options), management), Some("http://127.0.0.1:2/second"));
    }

    #[test]
    fn concurrency_is_a_number_within_bounds() {
        let cases = [("", 1), ("1", 1), ("64", 64), ("1600", 1600), ("1601", 1), ("0", 1), ("many", 1)];
        for (value, expected) in cases {
            assert_eq!(concurrency_of(&spec(&[(MAX_CONCURRENCY, value)])), expected, "{value:?}");
        }
        assert_eq!(concurrency_of(&spec(&[])), 1);
    }

    #[test]
    fn the_report_is_that_of_lambda() {
        let line = report_line("id", Duration::from_micros(1_234), 128, Some(Duration::from_millis(5)));
        assert_eq!(
            line,
            "REPORT RequestId: id\tDuration: 1.23 ms\tBilled Duration: 2 ms\tMemory Size: 128 MB\tInit Duration: 5.00 ms\t"
        );
    }
}
