//! One execution environment: a process of the function and the Runtime API that it talks to.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::serve::ListenerExt;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use super::invocation::{Deadline, Invocation};
use super::limits::INIT_LIMIT;
use super::logs::{FunctionLog, Tail, follow};
use super::runtime_api;

/// How long a binary may be missing or busy before a start fails: `cargo build` replaces it in this time.
const REPLACEMENT_PATIENCE: Duration = Duration::from_secs(2);

/// How long the rest of a dead process's output is waited for. Only a grandchild that keeps the pipe open takes this long.
const OUTPUT_PATIENCE: Duration = Duration::from_millis(250);

/// What a process is started with.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) executable: PathBuf,
    /// Every variable but those that differ from one environment to the next.
    pub(crate) variables: Vec<(OsString, OsString)>,
}

/// What tells one build of a binary from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    modified: Option<SystemTime>,
    length: u64,
}

impl Fingerprint {
    /// Nothing while the file is missing, which it is for a moment when cargo replaces it.
    pub(crate) fn of(executable: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(executable).ok()?;
        Some(Self { modified: metadata.modified().ok(), length: metadata.len() })
    }
}

/// What every environment of a function has in common.
#[derive(Debug)]
pub(crate) struct Traits {
    pub(crate) function_name: String,
    pub(crate) function_arn: String,
    pub(crate) timeout: Duration,
    /// How many invocations run at a time.
    pub(crate) concurrency: usize,
    pub(crate) log: FunctionLog,
}

/// A process of a function.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) traits: Arc<Traits>,
    pub(crate) log_stream: Arc<str>,
    pub(crate) fingerprint: Option<Fingerprint>,
    pub(crate) tail: Tail,
    created: Instant,
    state: Mutex<State>,
    /// Told of each invocation that waits.
    work: Notify,
    /// Cancelled when the process has to die now.
    kill: CancellationToken,
    /// Cancelled when the process is dead and its invocations know.
    ended: CancellationToken,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Takes no further invocation, and dies when it has none.
    retired: bool,
    /// The process was asked to end before it was there.
    terminate: bool,
    process_group: Option<Pid>,
    init_duration: Option<Duration>,
    waiting: VecDeque<Arc<Invocation>>,
    running: HashMap<String, Arc<Invocation>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The process has not asked for an invocation yet.
    Starting,
    Ready,
    Ended,
}

/// How an environment was done with an invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Supervised {
    /// It was answered, in whatever way.
    Over,
    /// The environment, warm until then, died before it took the invocation, which can go elsewhere.
    NotTaken,
}

impl Environment {
    pub(crate) fn new(traits: Arc<Traits>, fingerprint: Option<Fingerprint>) -> Self {
        Self {
            traits,
            log_stream: new_log_stream().into(),
            fingerprint,
            tail: Tail::default(),
            created: Instant::now(),
            state: Mutex::new(State {
                phase: Phase::Starting,
                retired: false,
                terminate: false,
                process_group: None,
                init_duration: None,
                waiting: VecDeque::new(),
                running: HashMap::new(),
            }),
            work: Notify::new(),
            kill: CancellationToken::new(),
            ended: CancellationToken::new(),
        }
    }

    /// Starts the process and stays until it is dead. Everything that waits for this environment then knows.
    pub(crate) async fn run(self: Arc<Self>, launch: Launch) {
        match self.live(&launch).await {
            Ok(status) => self.end(|request_id| Failure::exited(request_id, status)),
            Err(reason) => {
                tracing::error!(function.name = %self.traits.function_name, reason, "the function's process could not be started");
                self.end(|request_id| Failure::invalid_entrypoint(request_id, &reason));
            }
        }
    }

    /// Gives the environment an invocation, unless it has no room.
    pub(crate) fn accept(&self, invocation: &Arc<Invocation>) -> bool {
        let mut state = self.lock();
        let busy = state.waiting.len() + state.running.len();
        if state.retired || self.kill.is_cancelled() || state.phase == Phase::Ended || busy >= self.traits.concurrency {
            return false;
        }
        state.waiting.push_back(invocation.clone());
        drop(state);
        self.work.notify_one();
        true
    }

    /// Watches an accepted invocation to its end and kills the process when its time is over.
    pub(crate) async fn supervise(&self, invocation: &Arc<Invocation>) -> Supervised {
        tokio::select! {
            biased;
            () = invocation.done().cancelled() => return Supervised::Over,
            () = invocation.taken().cancelled() => {}
            () = self.ended.cancelled() => return Supervised::NotTaken,
            () = tokio::time::sleep(INIT_LIMIT + self.traits.timeout) => {
                self.time_out(invocation).await;
                return Supervised::Over;
            }
        }
        let ends = invocation.deadline().map_or_else(Instant::now, |deadline| deadline.ends);
        if tokio::time::timeout_at(ends.into(), invocation.done().cancelled()).await.is_err() {
            self.time_out(invocation).await;
        }
        Supervised::Over
    }

    /// The next invocation for the process, as soon as there is one; nothing when the process is dead.
    pub(crate) async fn next(&self) -> Option<(Arc<Invocation>, Deadline)> {
        self.became_ready();
        loop {
            let notified = self.work.notified();
            if let Some(next) = self.take_waiting() {
                return Some(next);
            }
            tokio::select! {
                () = notified => {}
                () = self.ended.cancelled() => return None,
            }
        }
    }

    /// The invocation of that id, while the process works on it.
    pub(crate) fn running(&self, request_id: &str) -> Option<Arc<Invocation>> {
        self.lock().running.get(request_id).cloned()
    }

    /// The process is done with an invocation.
    pub(crate) fn finish(&self, request_id: &str) {
        let mut state = self.lock();
        state.running.remove(request_id);
        self.kill_if_idle(&state);
    }

    /// The process says that it cannot start.
    pub(crate) fn fail_to_start(&self, failure: &Failure) {
        self.traits.log.noted(&self.log_stream, &failure.summary);
        let mut state = self.lock();
        state.retired = true;
        let waiting = std::mem::take(&mut state.waiting);
        self.kill_if_idle(&state);
        drop(state);
        for invocation in waiting {
            invocation.fail(failure.clone());
        }
    }

    /// Lets the environment finish what it has and then die.
    pub(crate) fn retire(&self) {
        let mut state = self.lock();
        state.retired = true;
        self.kill_if_idle(&state);
    }

    /// Asks the process to end (SIGTERM to its group).
    pub(crate) fn terminate(&self) {
        let mut state = self.lock();
        state.retired = true;
        state.terminate = true;
        if let (Some(group), false) = (state.process_group, state.phase == Phase::Ended) {
            signal(group, Signal::SIGTERM);
        }
    }

    /// Kills the process (SIGKILL to its group). It gets no further work.
    pub(crate) fn kill(&self) {
        self.kill.cancel();
    }

    /// Waits until the process is dead and its output read.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// How long the process took until it was ready, once: it belongs to the report of the first invocation.
    pub(crate) fn take_init_duration(&self) -> Option<Duration> {
        self.lock().init_duration.take()
    }

    async fn live(self: &Arc<Self>, launch: &Launch) -> Result<ExitStatus, String> {
        // The process exits when nothing listens, so the Runtime API comes first.
        let listener =
            TcpListener::bind(("127.0.0.1", 0)).await.map_err(|error| format!("the Runtime API cannot listen: {error}"))?;
        let address = listener.local_addr().map_err(|error| format!("the Runtime API has no address: {error}"))?;
        let listener = listener.tap_io(|connection| {
            // Without it, a chunk may wait for the acknowledgement of the one before.
            let _ = connection.set_nodelay(true);
        });
        let router = runtime_api::router(self.clone());
        let server = AbortOnDrop(tokio::spawn(async move { axum::serve(listener, router).await }));

        let mut command = Command::new(&launch.executable);
        command
            .env_clear()
            .envs(launch.variables.iter().map(|(name, value)| (name, value)))
            .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
            .env("AWS_LAMBDA_LOG_STREAM_NAME", &*self.log_stream)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own: Ctrl-C in the terminal is for the stack, which then ends its processes in order.
            .process_group(0)
            .kill_on_drop(true);
        if let Some(directory) = launch.executable.parent() {
            command.current_dir(directory);
        }
        let mut child = self.spawn(&mut command, &launch.executable).await?;
        let outputs = [
            child.stdout.take().map(|pipe| AbortOnDrop(tokio::spawn(self.clone().keep_log(pipe)))),
            child.stderr.take().map(|pipe| AbortOnDrop(tokio::spawn(self.clone().keep_log(pipe)))),
        ];
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        self.adopt(group);

        let status = tokio::select! {
            status = child.wait() => status,
            () = self.kill.cancelled() => {
                if let Some(group) = group {
                    signal(group, Signal::SIGKILL);
                }
                child.wait().await
            }
        };
        self.lock().process_group = None;
        for mut output in outputs.into_iter().flatten() {
            let _ = tokio::time::timeout(OUTPUT_PATIENCE, &mut output.0).await;
        }
        drop(server);
        status.map_err(|error| format!("the process cannot be waited for: {error}"))
    }

    /// Starts the process; a binary that is missing or busy may just be replaced.
    async fn spawn(&self, command: &mut Command, executable: &Path) -> Result<Child, String> {
        let give_up = Instant::now() + REPLACEMENT_PATIENCE;
        loop {
            if self.kill.is_cancelled() || self.lock().terminate {
                return Err("the environment was ended before its process began".to_owned());
            }
            let error = match command.spawn() {
                Ok(child) => return Ok(child),
                Err(error) => error,
            };
            let passing = matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ExecutableFileBusy);
            if !passing || Instant::now() >= give_up {
                return Err(format!("fork/exec {}: {error}", executable.display()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The process exists: signals reach it from now on, and one that came early is made up for.
    fn adopt(&self, group: Option<Pid>) {
        let mut state = self.lock();
        state.process_group = group;
        if let (Some(group), true) = (group, state.terminate) {
            signal(group, Signal::SIGTERM);
        }
    }

    async fn keep_log(self: Arc<Self>, pipe: impl tokio::io::AsyncRead + Unpin) {
        follow(pipe, |line| {
            self.tail.push(line);
            self.traits.log.written(&self.log_stream, line);
        })
        .await;
    }

    fn became_ready(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Starting {
            state.phase = Phase::Ready;
            state.init_duration = Some(self.created.elapsed());
        }
    }

    fn take_waiting(&self) -> Option<(Arc<Invocation>, Deadline)> {
        let mut state = self.lock();
        if state.phase != Phase::Ready || self.kill.is_cancelled() {
            return None;
        }
        let invocation = state.waiting.pop_front()?;
        state.running.insert(invocation.call.request_id.clone(), invocation.clone());
        if self.traits.concurrency == 1 {
            self.tail.clear();
        }
        self.tail.push(&format!("START RequestId: {} Version: $LATEST", invocation.call.request_id));
        let deadline = invocation.take(self.traits.timeout);
        Some((invocation, deadline))
    }

    /// Answers the caller first, then ends the process: as Lambda does, which gives a timed-out environment no further work.
    /// Other invocations that the same process works on may finish.
    async fn time_out(&self, invocation: &Arc<Invocation>) {
        self.expire(invocation);
        if self.kill.is_cancelled() {
            self.ended().await;
        }
    }

    fn expire(&self, invocation: &Arc<Invocation>) {
        let request_id = &invocation.call.request_id;
        let failure = Failure::timed_out(request_id, self.traits.timeout);
        self.traits.log.noted(&self.log_stream, &failure.summary);
        invocation.fail(failure);
        let mut state = self.lock();
        state.retired = true;
        state.running.remove(request_id);
        state.waiting.retain(|other| other.call.request_id != *request_id);
        self.kill_if_idle(&state);
    }

    fn kill_if_idle(&self, state: &State) {
        if state.retired && state.running.is_empty() && state.waiting.is_empty() {
            self.kill();
        }
    }

    /// The process is dead. What it worked on failed. What it never took fails only if it never was ready: a warm process
    /// that dies between two invocations is replaced, and nobody notices.
    fn end(&self, failure: impl Fn(&str) -> Failure) {
        let mut state = self.lock();
        let was_ready = state.phase == Phase::Ready;
        let expected = state.retired;
        state.phase = Phase::Ended;
        let mut failed: Vec<Arc<Invocation>> = state.running.drain().map(|(_, invocation)| invocation).collect();
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        if !was_ready {
            failed.extend(waiting);
        }
        if failed.is_empty() && !expected {
            tracing::warn!(function.name = %self.traits.function_name, "an idle process of the function ended by itself");
        }
        for invocation in failed {
            let failure = failure(&invocation.call.request_id);
            self.tail.push(&failure.summary);
            self.traits.log.noted(&self.log_stream, &failure.summary);
            invocation.fail(failure);
        }
        self.ended.cancel();
    }

    /// A panic while the state is locked leaves lists that are still whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task that ends with its owner.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Signals a process and what it started. That it is dead already is no error.
fn signal(group: Pid, signal: Signal) {
    match killpg(group, signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
        Err(error) => tracing::warn!(%error, signal = signal.as_str(), "a function's process could not be signalled"),
    }
}

/// A log stream's name: the day, the version and 128 random bits, as Lambda names them.
fn new_log_stream() -> String {
    let now = time::OffsetDateTime::now_utc();
    let random = rand::random::<u128>();
    format!("{:04}/{:02}/{:02}/[$LATEST]{random:032x}", now.year(), u8::from(now.month()), now.day())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::lambda::invocation::{Call, InFlight, Mode};

    fn environment(concurrency: usize) -> Environment {
        let traits = Traits {
            function_name: "probe".to_owned(),
            function_arn: "arn:aws:lambda:us-east-1:000000000000:function:probe".to_owned(),
            timeout: Duration::from_secs(3),
            concurrency,
            log: FunctionLog::open("probe", None).expect("no file is involved"),
        };
        Environment::new(Arc::new(traits), None)
    }

    fn invocation() -> Arc<Invocation> {
        let place = InFlight::enter(&Arc::default(), 1).expect("the first of one");
        Arc::new(Invocation::new(Call::new(Bytes::new(), Mode::Buffered), place).0)
    }

    #[tokio::test]
    async fn an_environment_takes_what_it_has_room_for() {
        let environment = environment(2);
        let [first, second, third] = [invocation(), invocation(), invocation()];
        assert!(environment.accept(&first) && environment.accept(&second));
        assert!(!environment.accept(&third));
        environment.next().await.expect("the first waits");
        assert!(!environment.accept(&third), "taken is not done");
        environment.finish(&first.call.request_id);
        assert!(environment.accept(&third));
    }

    #[tokio::test]
    async fn a_late_invocation_does_not_take_its_neighbours_with_it() {
        let environment = environment(2);
        let [late, neighbour] = [invocation(), invocation()];
        for invocation in [&late, &neighbour] {
            assert!(environment.accept(invocation));
            environment.next().await.expect("it waits");
        }
        environment.expire(&late);
        assert!(late.failed());
        assert!(!neighbour.done().is_cancelled() && !environment.kill.is_cancelled());
        assert!(!environment.accept(&invocation()), "it gets no further work");
        environment.finish(&neighbour.call.request_id);
        assert!(environment.kill.is_cancelled(), "with its last invocation it is over");
    }

    #[tokio::test]
    async fn what_a_warm_process_never_took_can_go_elsewhere() {
        let environment = environment(2);
        let [taken, waiting] = [invocation(), invocation()];
        assert!(environment.accept(&taken));
        environment.next().await.expect("it waits");
        assert!(environment.accept(&waiting));
        environment.end(Failure::truncated);
        assert!(taken.failed());
        assert!(!waiting.done().is_cancelled());
        assert_eq!(environment.supervise(&waiting).await, Supervised::NotTaken);
        assert_eq!(environment.supervise(&taken).await, Supervised::Over);
    }

    #[tokio::test]
    async fn what_a_process_that_never_was_ready_should_have_taken_failed() {
        let environment = environment(1);
        let waiting = invocation();
        assert!(environment.accept(&waiting));
        environment.end(Failure::truncated);
        assert!(waiting.failed());
        assert_eq!(environment.supervise(&waiting).await, Supervised::Over);
        assert!(environment.next().await.is_none());
    }
}
