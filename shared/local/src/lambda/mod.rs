//! Lambda: runs the functions' real binaries as processes that talk to a Runtime API of their own.
//!
//! | module | is |
//! |---|---|
//! | [`builder`] | one cargo call that builds every function |
//! | `function` | a function: its environments, its limits, its way from a call to a process |
//! | `environment` | a process, and when it lives and dies |
//! | `runtime_api` | what a process talks to |
//! | `invocation` | one invocation from its acceptance to its end |
//! | `asynchronous` | events that nobody waits for, and their retries |
//! | [`api`] | what SDKs talk to: Invoke and InvokeWithResponseStream |
//! | [`limits`] | every number |
//!
//! # As on AWS
//! One invocation at a time for each environment, or as many as `AWS_LAMBDA_MAX_CONCURRENCY` says; the environment that was
//! used last is used first; a function's time begins when its process takes the invocation, so starting it costs none; a
//! process that is late is killed; a process that dies is replaced by the next invocation; a caller that leaves stops
//! nothing; answers are limited to 6 MB, or 200 MB as a stream.
//!
//! # Not as on AWS
//! A laptop runs a few processes of a function ([`LambdaOptions::max_environments`]) where Lambda would start a thousand.
//! Invocations beyond them wait, in their order, and their time does not run meanwhile. Processes are not frozen between
//! invocations, memory is not limited, a stream's bandwidth is not either, a failed start is not tried a second time within
//! the same invocation, and every version or alias is the same code.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::invoker::{InvokeError, Invoker, Outcome, StreamingOutcome};
use crate::spec::FunctionSpec;

use asynchronous::Event;
use function::{Function, Pending};
use invocation::{Call, Mode};
use limits::MAX_ASYNCHRONOUS_PAYLOAD_BYTES;

pub use asynchronous::FailureDestinations;
pub use function::Counters;
pub(crate) use invocation::new_trace_root;
pub use logs::LogLine;

pub mod api;
mod asynchronous;
pub(crate) mod body;
pub mod builder;
mod environment;
mod failure;
mod function;
mod invocation;
pub mod limits;
mod logs;
mod runtime_api;

/// A function and the executable that stands for its code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeployedFunction {
    /// What the template says.
    pub spec: FunctionSpec,
    /// The executable. When it changes on disk, the next invocation starts it anew.
    pub executable: PathBuf,
}

/// What the functions of a stack have in common.
#[derive(Clone, Debug)]
pub struct LambdaOptions {
    /// `AWS_REGION` of every function.
    pub region: String,
    /// Variables that the stack sets for every function, over those of the template: its endpoints above all. A variable of
    /// the template whose name begins with `AWS_ENDPOINT_URL` and that is not in here is left out.
    pub variables: BTreeMap<String, String>,
    /// Addresses of the stack itself. A variable of the template whose value is one of these stays as it is: with several
    /// WebSocket APIs, each function keeps the one that it names.
    pub own_endpoints: Vec<String>,
    /// The most processes of one function at a time; at least one.
    pub max_environments: usize,
    /// How long a minute between the tries of an asynchronous event is: 1.0 as on AWS, 0.001 for tests. More than 0.
    pub time_scale: f64,
    /// Where each function's log is also written, as `<function name>.log`.
    pub log_directory: Option<PathBuf>,
    /// Where records of asynchronous events go that are given up.
    pub failure_destinations: FailureDestinations,
}

impl Default for LambdaOptions {
    /// `us-east-1`, no variables, AWS's times, no log files, and as many processes of a function as [`default_environments`] says.
    fn default() -> Self {
        Self {
            region: "us-east-1".to_owned(),
            variables: BTreeMap::new(),
            own_endpoints: Vec::new(),
            max_environments: default_environments(),
            time_scale: 1.0,
            log_directory: None,
            failure_destinations: FailureDestinations::default(),
        }
    }
}

/// Two processes for each core and six more, since a function mostly waits; never more than ten, since each may hold some
/// 10 MB and several functions share the laptop.
#[must_use]
pub fn default_environments() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (2 * cores + 6).min(10)
}

/// Why the functions could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Two functions answer to one name.
    #[error("two functions are called {name}")]
    NameTaken {
        /// The logical id or function name.
        name: String,
    },
    /// A log file could not be opened.
    #[error("log file of function {function} could not be opened")]
    LogFile {
        /// The function's name.
        function: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The time scale is no positive number.
    #[error("time scale {scale} is not a positive number")]
    TimeScale {
        /// What was given.
        scale: f64,
    },
}

/// The running functions. Clones are the same functions.
#[derive(Clone, Debug)]
pub struct Functions {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    functions: Vec<Arc<Function>>,
    /// Logical ids and names to places in `functions`.
    names: HashMap<String, usize>,
    time_scale: f64,
    region: String,
    failure_destinations: FailureDestinations,
    closing: CancellationToken,
    tasks: TaskTracker,
}

/// An invocation through the Invoke API.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) function: String,
    pub(crate) request_id: String,
    pub(crate) payload: Bytes,
    pub(crate) client_context: Option<String>,
}

impl Functions {
    /// Takes the functions over. Processes start with the first invocations.
    ///
    /// # Errors
    /// [`StartError`]: names that collide, a log file that cannot be opened, a time scale that is no positive number.
    pub fn start(functions: Vec<DeployedFunction>, options: &LambdaOptions) -> Result<Self, StartError> {
        if !(options.time_scale.is_finite() && options.time_scale > 0.0) {
            return Err(StartError::TimeScale { scale: options.time_scale });
        }
        let closing = CancellationToken::new();
        let tasks = TaskTracker::new();
        let mut names = HashMap::new();
        let mut taken = Vec::with_capacity(functions.len());
        for (index, DeployedFunction { spec, executable }) in functions.into_iter().enumerate() {
            for name in [&spec.logical_id, &spec.name] {
                if names.insert(name.clone(), index).is_some_and(|other| other != index) {
                    return Err(StartError::NameTaken { name: name.clone() });
                }
            }
            let name = spec.name.clone();
            let function = Function::new(spec, executable, options, closing.clone(), tasks.clone())
                .map_err(|source| StartError::LogFile { function: name, source })?;
            taken.push(Arc::new(function));
        }
        let shared = Shared {
            functions: taken,
            names,
            time_scale: options.time_scale,
            region: options.region.clone(),
            failure_destinations: options.failure_destinations.clone(),
            closing,
            tasks,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The last lines that a function wrote, oldest first.
    ///
    /// # Errors
    /// [`InvokeError::NotFound`].
    pub fn logs(&self, function: &str) -> Result<Vec<LogLine>, InvokeError> {
        Ok(self.find(function)?.log().lines())
    }

    /// What happened to a function so far.
    ///
    /// # Errors
    /// [`InvokeError::NotFound`].
    pub fn counters(&self, function: &str) -> Result<Counters, InvokeError> {
        Ok(self.find(function)?.counters())
    }

    /// A fault to test with: kills every process of a function where it stands, and says how many there were. What they
    /// worked on fails as if they had crashed.
    ///
    /// # Errors
    /// [`InvokeError::NotFound`].
    pub fn kill_environments(&self, function: &str) -> Result<usize, InvokeError> {
        let environments = self.find(function)?.environments();
        for environment in &environments {
            environment.kill();
        }
        Ok(environments.len())
    }

    /// Ends the functions: no invocation is taken any more, every process is asked to end, those that still live after
    /// `grace` are killed, and all are waited for. Events that wait for a retry are given up, with a line in the log.
    pub async fn shutdown(&self, grace: Duration) {
        let Shared { functions, closing, tasks, .. } = &*self.shared;
        closing.cancel();
        for function in functions {
            function.close();
        }
        for_each_environment(functions, environment::Environment::terminate);
        tasks.close();
        if tokio::time::timeout(grace, tasks.wait()).await.is_err() {
            for_each_environment(functions, environment::Environment::kill);
            tasks.wait().await;
        }
    }

    pub(crate) fn exists(&self, function: &str) -> Result<(), InvokeError> {
        self.find(function).map(drop)
    }

    pub(crate) fn region(&self) -> &str {
        &self.shared.region
    }

    pub(crate) fn begin(&self, request: Request, mode: Mode, wants_tail: bool) -> Result<Pending, InvokeError> {
        let Request { function, request_id, payload, client_context } = request;
        self.find(&function)?.begin(Call { request_id, payload, client_context, mode, wants_tail })
    }

    pub(crate) fn enqueue(&self, request: Request) -> Result<(), InvokeError> {
        let function = self.find(&request.function)?;
        let size = request.payload.len();
        if size > MAX_ASYNCHRONOUS_PAYLOAD_BYTES {
            return Err(InvokeError::TooLarge { size, limit: MAX_ASYNCHRONOUS_PAYLOAD_BYTES });
        }
        if self.shared.closing.is_cancelled() {
            return Err(InvokeError::ShuttingDown);
        }
        let event = Event::enqueue(function.clone(), request.request_id, request.payload, request.client_context)?;
        let Shared { time_scale, closing, failure_destinations, .. } = &*self.shared;
        self.shared.tasks.spawn(event.deliver(*time_scale, closing.clone(), failure_destinations.clone()));
        Ok(())
    }

    fn find(&self, function: &str) -> Result<&Arc<Function>, InvokeError> {
        let name = name_of(function);
        let index = self.shared.names.get(name).ok_or_else(|| InvokeError::NotFound(function.to_owned()))?;
        Ok(&self.shared.functions[*index])
    }
}

impl Invoker for Functions {
    fn invoke(&self, function: &str, payload: Bytes) -> BoxFuture<'static, Result<Outcome, InvokeError>> {
        // Begun here and not in the future: an invocation runs on when nobody waits for it.
        let pending = self.find(function).and_then(|function| function.begin(Call::new(payload, Mode::Buffered)));
        async move { pending?.outcome().await }.boxed()
    }

    fn invoke_streaming(&self, function: &str, payload: Bytes) -> BoxFuture<'static, Result<StreamingOutcome, InvokeError>> {
        let pending = self.find(function).and_then(|function| function.begin(Call::new(payload, Mode::Streaming)));
        async move { pending?.streaming_outcome().await }.boxed()
    }

    fn invoke_later(&self, function: &str, payload: Bytes) -> Result<(), InvokeError> {
        self.enqueue(Request {
            function: function.to_owned(),
            request_id: uuid::Uuid::new_v4().to_string(),
            payload,
            client_context: None,
        })
    }
}

/// The function's name in what Invoke takes: a name, an ARN, or a part of one, with or without a qualifier (AWS Lambda API
/// Reference, "Invoke", `FunctionName`).
fn name_of(function: &str) -> &str {
    let after = match function.rsplit_once(":function:") {
        Some((_, after)) => after,
        None => function.strip_prefix("function:").unwrap_or(function),
    };
    after.split(':').next().unwrap_or(after)
}

fn for_each_environment(functions: &[Arc<Function>], act: impl Fn(&environment::Environment)) {
    for function in functions {
        for environment in function.environments() {
            act(&environment);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::CodeSpec;

    fn function(logical_id: &str, name: &str) -> DeployedFunction {
        let spec = FunctionSpec {
            logical_id: logical_id.to_owned(),
            name: name.to_owned(),
            arn: format!("arn:aws:lambda:us-east-1:000000000000:function:{name}"),
            code: CodeSpec::Cargo { binary: name.to_owned() },
            environment: BTreeMap::new(),
            timeout: Duration::from_secs(3),
            memory_mb: 128,
            reserved_concurrency: None,
            url: None,
            asynchronous: crate::spec::AsynchronousSpec::default(),
        };
        DeployedFunction { spec, executable: PathBuf::from("/nonexistent") }
    }

    #[test]
    fn every_form_of_a_name_finds_the_function() {
        let functions =
            Functions::start(vec![function("Publish", "stack-publish")], &LambdaOptions::default()).expect("one name");
        for name in [
            "Publish",
            "stack-publish",
            "stack-publish:$LATEST",
            "function:stack-publish",
            "000000000000:function:stack-publish",
            "arn:aws:lambda:us-east-1:000000000000:function:stack-publish",
            "arn:aws:lambda:us-east-1:000000000000:function:stack-publish:live",
        ] {
            assert_eq!(functions.exists(name), Ok(()), "{name}");
        }
        assert_eq!(functions.exists("other"), Err(InvokeError::NotFound("other".to_owned())));
    }

    #[test]
    fn names_do_not_collide() {
        let twice = vec![function("A", "a"), function("B", "A")];
        assert!(matches!(
            Functions::start(twice, &LambdaOptions::default()),
            Err(StartError::NameTaken { name }) if name == "A"
        ));
    }

    #[test]
    fn a_time_scale_that_is_no_positive_number_is_refused() {
        for scale in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let options = LambdaOptions { time_scale: scale, ..LambdaOptions::default() };
            assert!(matches!(Functions::start(Vec::new(), &options), Err(StartError::TimeScale { .. })), "{scale}");
        }
    }
}
