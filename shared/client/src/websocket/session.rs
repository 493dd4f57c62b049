//! The task behind a client: it owns the socket, the subscriptions and the requests that wait for an answer.

use super::frames;
use super::handshake::{self, Socket};
use super::{HistoryPage, Options, Published, RequestError, Subscribed};
use crate::failure::chain;
use crate::items::{End, Item, Notice};
use crate::rule::{Follower, Frame, Judged};
use carillon_core::channel::Channel;
use carillon_core::event::EventJson;
use carillon_core::fault::{ErrorCode, Fault};
use carillon_core::limits::FRAME_BYTES;
use carillon_core::position::Position;
use carillon_wire::native::reading::{self, Answer, FrameError, ServerFrame};
use futures_util::{SinkExt, StreamExt};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::{self, Message};

/// How long a frame may take to leave: a peer that takes none for so long is gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the closing handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The furthest away that a server can plan a new connection: API Gateway cuts each after two hours.
const LONGEST_PLAN: Duration = Duration::from_secs(2 * 3600);

/// Where an answer goes.
pub(super) type Caller<T> = oneshot::Sender<Result<T, RequestError>>;

/// What a [`super::Client`] asks of the task.
#[derive(Debug)]
pub(super) enum Command {
    /// Begin a subscription.
    Subscribe { channel: Channel, since: Option<Position>, answer: Caller<Subscribed> },
    /// Anything that is one frame and one answer.
    Request(Asked),
    /// Come to an end.
    Close { answer: oneshot::Sender<()> },
}

/// A request of one frame and one answer.
#[derive(Debug)]
pub(super) enum Asked {
    Unsubscribe {
        channel: Channel,
        answer: Caller<()>,
    },
    Publish {
        channel: Channel,
        event: Box<RawValue>,
        answer: Caller<Published>,
    },
    History {
        channel: Channel,
        from: Option<Position>,
        limit: Option<usize>,
        answer: Caller<HistoryPage>,
    },
    /// Without a caller it is the task's own, and no answer means that the connection is dead.
    Ping {
        answer: Option<Caller<()>>,
    },
}

/// The task's state.
pub(super) struct Session {
    options: Arc<Options>,
    commands: mpsc::Receiver<Command>,
    items: mpsc::Sender<Item>,
    subscriptions: BTreeMap<Channel, Subscription>,
    requests: BTreeMap<u64, Request>,
    last_reference: u64,
    ping_at: Instant,
    /// When the server wants the client to change to a new connection.
    leave_at: Option<Instant>,
    /// Attempts to connect since the last answer.
    attempts: u32,
}

struct Subscription {
    follower: Follower<EventJson>,
    /// Who waits for the first answer.
    caller: Option<Caller<Subscribed>>,
    /// When to subscribe again.
    again_at: Option<Instant>,
    /// Subscribes since the last message or good answer.
    attempts: u32,
}

struct Request {
    waiting: Waiting,
    deadline: Instant,
}

enum Waiting {
    Subscribe(Channel),
    Asked(Asked),
}

/// Why a connection is left.
enum Cut {
    /// The client was closed, or every clone of it is gone.
    Closed(Option<oneshot::Sender<()>>),
    /// Nobody takes items any more.
    Deserted,
    /// The server planned it.
    Planned,
    /// The server said goodbye.
    Bye { code: ErrorCode, reconnect: bool },
    /// It broke.
    Lost(String),
}

impl Session {
    pub(super) fn new(options: Options, commands: mpsc::Receiver<Command>, items: mpsc::Sender<Item>) -> Self {
        Self {
            ping_at: Instant::now() + options.ping_every,
            options: Arc::new(options),
            commands,
            items,
            subscriptions: BTreeMap::new(),
            requests: BTreeMap::new(),
            last_reference: 0,
            leave_at: None,
            attempts: 0,
        }
    }

    /// Runs until the client is closed or at its end.
    pub(super) async fn run(mut self, mut socket: Socket) {
        loop {
            let cut = self.serve(&mut socket).await;
            self.forget_requests();
            // Without a close frame API Gateway notices only when it next writes. An error means that it is closed.
            let _ = timeout(CLOSE_TIMEOUT, socket.close(None)).await;
            let (reason, planned) = match cut {
                Cut::Closed(answer) => return confirm(answer),
                Cut::Deserted => return,
                Cut::Bye { code, reconnect: false } => return self.end(End::Bye(code)).await,
                Cut::Bye { code, reconnect: true } => (format!("the server said goodbye: {code}"), false),
                Cut::Planned => ("the server asked for a new connection".to_owned(), true),
                Cut::Lost(reason) => (reason, false),
            };
            socket = match self.reconnect(reason, planned).await {
                Ok(socket) => socket,
                Err(Away::Closed(answer)) => return confirm(answer),
                Err(Away::Deserted) => return,
                Err(Away::End(end)) => return self.end(end).await,
            };
        }
    }

    async fn end(&self, end: End) {
        tracing::debug!(reason = %end, "the client is at its end");
        // An error means that nobody is there to be told.
        let _ = self.items.send(Item::Notice(Notice::Ended(end))).await;
    }

    /// Serves one connection until it is cut.
    async fn serve(&mut self, socket: &mut Socket) -> Cut {
        self.leave_at = None;
        let now = Instant::now();
        self.ping_at = now + self.options.ping_every;
        for subscription in self.subscriptions.values_mut() {
            subscription.again_at = Some(now);
        }
        loop {
            let timer = self.next_timer();
            let step = tokio::select! {
                command = self.commands.recv() => self.command(socket, command).await,
                message = socket.next() => self.message(message).await,
                () = sleep_until(timer) => self.timers(socket).await,
            };
            if let Err(cut) = step {
                return cut;
            }
        }
    }

    async fn command(&mut self, socket: &mut Socket, command: Option<Command>) -> Result<(), Cut> {
        match command {
            None => Err(Cut::Closed(None)),
            Some(Command::Close { answer }) => Err(Cut::Closed(Some(answer))),
            Some(Command::Subscribe { channel, since, answer }) => {
                self.begin(channel, since, answer);
                self.subscribe_due(socket).await
            }
            Some(Command::Request(asked)) => {
                if let Asked::Unsubscribe { channel, .. } = &asked {
                    self.drop_subscription(channel);
                }
                self.request(socket, Waiting::Asked(asked)).await
            }
        }
    }

    fn begin(&mut self, channel: Channel, since: Option<Position>, answer: Caller<Subscribed>) {
        if self.subscriptions.contains_key(&channel) {
            tell(answer, Err(RequestError::Subscribed(channel)));
            return;
        }
        let subscription =
            Subscription { follower: Follower::new(since), caller: Some(answer), again_at: Some(Instant::now()), attempts: 0 };
        self.subscriptions.insert(channel, subscription);
    }

    /// Ends a subscription on this side; a subscribe that is under way finds nobody.
    fn drop_subscription(&mut self, channel: &Channel) {
        if let Some(caller) = self.subscriptions.remove(channel).and_then(|subscription| subscription.caller) {
            tell(caller, Err(RequestError::Closed));
        }
        self.requests.retain(|_, request| !matches!(&request.waiting, Waiting::Subscribe(other) if other == channel));
    }

    /// Sends the subscribes whose time has come.
    async fn subscribe_due(&mut self, socket: &mut Socket) -> Result<(), Cut> {
        let now = Instant::now();
        let due: Vec<_> = self
            .subscriptions
            .iter()
            .filter(|(_, subscription)| subscription.again_at.is_some_and(|at| at <= now))
            .map(|(channel, _)| channel.clone())
            .collect();
        for channel in due {
            if let Some(subscription) = self.subscriptions.get_mut(&channel) {
                subscription.again_at = None;
                subscription.attempts += 1;
                self.request(socket, Waiting::Subscribe(channel)).await?;
            }
        }
        Ok(())
    }

    /// Sends a request's frame and remembers who waits for its answer.
    async fn request(&mut self, socket: &mut Socket, waiting: Waiting) -> Result<(), Cut> {
        self.last_reference += 1;
        let reference = self.last_reference;
        let frame = match &waiting {
            Waiting::Subscribe(channel) => {
                let since = self.subscriptions.get_mut(channel).and_then(|subscription| subscription.follower.resume());
                frames::subscribe(reference, channel, since)
            }
            Waiting::Asked(Asked::Unsubscribe { channel, .. }) => frames::unsubscribe(reference, channel),
            Waiting::Asked(Asked::Publish { channel, event, .. }) => frames::publish(reference, channel, event),
            Waiting::Asked(Asked::History { channel, from, limit, .. }) => frames::history(reference, channel, *from, *limit),
            Waiting::Asked(Asked::Ping { .. }) => frames::ping(reference),
        };
        if frame.len() > FRAME_BYTES {
            self.fail(waiting, RequestError::TooLarge { bytes: frame.len(), limit: FRAME_BYTES });
            return Ok(());
        }
        let deadline = Instant::now() + self.options.answer_timeout;
        self.requests.insert(reference, Request { waiting, deadline });
        self.ping_at = Instant::now() + self.options.ping_every;
        match timeout(SEND_TIMEOUT, socket.send(Message::text(frame))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Cut::Lost(chain(&error))),
            Err(_) => Err(Cut::Lost(format!("the endpoint took no frame for {} s", SEND_TIMEOUT.as_secs()))),
        }
    }

    async fn message(&mut self, message: Option<Result<Message, tungstenite::Error>>) -> Result<(), Cut> {
        let received_at = Instant::now();
        let text = match message {
            None => return Err(Cut::Lost("the endpoint closed the connection".to_owned())),
            Some(Err(error)) => return Err(Cut::Lost(chain(&error))),
            Some(Ok(Message::Close(close))) => {
                let code = close.map_or(1005, |close| close.code.into());
                return Err(Cut::Lost(format!("the endpoint closed the connection with code {code}")));
            }
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => message.into_text(),
            Some(Ok(_)) => return Ok(()),
        };
        let frame = text.map_err(|error| chain(&error)).and_then(|text| reading::decode(&text).map_err(|error| chain(&error)));
        match frame {
            Ok(frame) => self.frame(frame, received_at).await,
            Err(reason) => {
                tracing::warn!(reason, "a frame of the server cannot be read and is passed over");
                Ok(())
            }
        }
    }

    async fn frame(&mut self, frame: ServerFrame, received_at: Instant) -> Result<(), Cut> {
        match frame {
            ServerFrame::Reply { reference, outcome } => self.answer(reference, outcome, received_at).await,
            ServerFrame::Events { channel, epoch, prev, messages } => {
                self.follow(channel, Frame::Events { epoch, prev, messages }, received_at).await
            }
            ServerFrame::Gap { channel, after, to } => self.follow(channel, Frame::Gap { after, to }, received_at).await,
            ServerFrame::Gateway { message } => self.gateway(message).await,
            ServerFrame::Reconnect { after_ms } => {
                self.leave_at = Some(received_at + Duration::from_millis(after_ms).min(LONGEST_PLAN));
                Ok(())
            }
            ServerFrame::Bye { code, reconnect } => Err(Cut::Bye { code, reconnect }),
            ServerFrame::Other => Ok(()),
        }
    }

    async fn answer(
        &mut self,
        reference: Option<String>,
        answer: Result<Answer, Fault>,
        received_at: Instant,
    ) -> Result<(), Cut> {
        self.attempts = 0;
        // A reference that is no number is none of ours.
        let reference = reference.and_then(|reference| reference.parse().ok());
        let Some(request) = reference.and_then(|reference: u64| self.requests.remove(&reference)) else {
            return Ok(());
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(fault) => {
                let refused = self.fail(request.waiting, RequestError::Fault(fault));
                return self.tell_refused(refused).await;
            }
        };
        match request.waiting {
            Waiting::Subscribe(channel) => match answer.subscribed() {
                Ok(subscribed) => self.acknowledge(channel, subscribed, received_at).await,
                Err(error) => {
                    let refused = self.fail(Waiting::Subscribe(channel), unreadable(&error));
                    self.tell_refused(refused).await
                }
            },
            Waiting::Asked(asked) => {
                match asked {
                    Asked::Unsubscribe { answer, .. } | Asked::Ping { answer: Some(answer) } => tell(answer, Ok(())),
                    Asked::Publish { answer: caller, .. } => tell(caller, answer.published().map_err(|error| unreadable(&error))),
                    Asked::History { answer: caller, .. } => tell(caller, answer.history().map_err(|error| unreadable(&error))),
                    Asked::Ping { answer: None } => {}
                }
                Ok(())
            }
        }
    }

    async fn acknowledge(&mut self, channel: Channel, subscribed: Subscribed, received_at: Instant) -> Result<(), Cut> {
        let Some(subscription) = self.subscriptions.get_mut(&channel) else {
            return Ok(());
        };
        // First the caller, who may not take items before.
        if let Some(caller) = subscription.caller.take() {
            tell(caller, Ok(subscribed));
        }
        let judged = subscription.follower.acknowledge(subscribed.position, subscribed.recovered);
        self.hand_over(channel, judged, received_at).await
    }

    async fn follow(&mut self, channel: Channel, frame: Frame<EventJson>, received_at: Instant) -> Result<(), Cut> {
        // Frames of a subscription that was ended may still be on their way.
        let Some(subscription) = self.subscriptions.get_mut(&channel) else {
            return Ok(());
        };
        let judged = subscription.follower.frame(frame);
        self.hand_over(channel, judged, received_at).await
    }

    async fn hand_over(&mut self, channel: Channel, judged: Vec<Judged<EventJson>>, received_at: Instant) -> Result<(), Cut> {
        let now = Instant::now();
        if let Some(subscription) = self.subscriptions.get_mut(&channel) {
            if judged.iter().any(|item| matches!(item, Judged::Message { .. } | Judged::Gap { .. })) {
                subscription.attempts = 0;
            }
            let follower = &subscription.follower;
            if follower.is_behind() && !follower.is_waiting() {
                // At once where messages came since the last subscribe; else frames of the one before it may still be on their way.
                let at = now + self.options.wait(subscription.attempts);
                subscription.again_at.get_or_insert(at);
            } else if !follower.is_waiting() {
                // What was missing has come.
                subscription.again_at = None;
            }
        }
        for item in judged {
            self.items.send(Item::judged(&channel, item, received_at)).await.map_err(|_| Cut::Deserted)?;
        }
        Ok(())
    }

    /// An error of API Gateway names no request: it is taken for the answer where only one waits.
    async fn gateway(&mut self, message: String) -> Result<(), Cut> {
        if self.requests.len() == 1
            && let Some((_, request)) = self.requests.pop_first()
        {
            let refused = self.fail(request.waiting, RequestError::Gateway(message));
            return self.tell_refused(refused).await;
        }
        self.notice(Notice::Unclaimed { message }).await
    }

    /// Tells whoever waits; a subscription whose first answer was good is tried again, unless the server refuses for good: then
    /// it is over, and the answer says so.
    fn fail(&mut self, waiting: Waiting, error: RequestError) -> Option<(Channel, Fault)> {
        match waiting {
            Waiting::Subscribe(channel) => {
                let subscription = self.subscriptions.get_mut(&channel)?;
                if let Some(caller) = subscription.caller.take() {
                    tell(caller, Err(error));
                    self.subscriptions.remove(&channel);
                    return None;
                }
                if let RequestError::Fault(fault) = error
                    && !fault.code.retry()
                {
                    self.subscriptions.remove(&channel);
                    return Some((channel, fault));
                }
                subscription.again_at = Some(Instant::now() + self.options.wait(subscription.attempts));
            }
            Waiting::Asked(Asked::Unsubscribe { answer, .. } | Asked::Ping { answer: Some(answer) }) => tell(answer, Err(error)),
            Waiting::Asked(Asked::Publish { answer, .. }) => tell(answer, Err(error)),
            Waiting::Asked(Asked::History { answer, .. }) => tell(answer, Err(error)),
            Waiting::Asked(Asked::Ping { answer: None }) => {}
        }
        None
    }

    async fn tell_refused(&self, refused: Option<(Channel, Fault)>) -> Result<(), Cut> {
        match refused {
            Some((channel, fault)) => self.notice(Notice::Refused { channel, fault }).await,
            None => Ok(()),
        }
    }

    async fn notice(&self, notice: Notice) -> Result<(), Cut> {
        self.items.send(Item::Notice(notice)).await.map_err(|_| Cut::Deserted)
    }

    fn next_timer(&self) -> Instant {
        let deadlines = self.requests.values().map(|request| request.deadline);
        let subscribes = self.subscriptions.values().filter_map(|subscription| subscription.again_at);
        deadlines.chain(subscribes).chain(self.leave_at).fold(self.ping_at, Instant::min)
    }

    async fn timers(&mut self, socket: &mut Socket) -> Result<(), Cut> {
        let now = Instant::now();
        if self.leave_at.is_some_and(|at| at <= now) {
            return Err(Cut::Planned);
        }
        let after = self.options.answer_timeout;
        let overdue: Vec<_> =
            self.requests.iter().filter(|(_, request)| request.deadline <= now).map(|(reference, _)| *reference).collect();
        for reference in overdue {
            let Some(request) = self.requests.remove(&reference) else { continue };
            if matches!(request.waiting, Waiting::Asked(Asked::Ping { answer: None })) {
                return Err(Cut::Lost(format!("no answer to a ping within {} s", after.as_secs_f32())));
            }
            self.fail(request.waiting, RequestError::TimedOut { after });
        }
        if self.ping_at <= now {
            self.request(socket, Waiting::Asked(Asked::Ping { answer: None })).await?;
        }
        self.subscribe_due(socket).await
    }

    /// Requests whose answer the connection took with it. Subscribes are sent again on the next connection.
    fn forget_requests(&mut self) {
        for (_, request) in std::mem::take(&mut self.requests) {
            if let Waiting::Asked(_) = request.waiting {
                self.fail(request.waiting, RequestError::Disconnected);
            }
        }
    }
}

/// Why there will be no further connection.
enum Away {
    Closed(Option<oneshot::Sender<()>>),
    Deserted,
    End(End),
}

/// Between two connections.
impl Session {
    async fn reconnect(&mut self, mut reason: String, planned: bool) -> Result<Socket, Away> {
        let Some(backoff) = self.options.reconnect else {
            return Err(Away::End(End::Lost(reason)));
        };
        let mut planned = planned;
        loop {
            let planned = std::mem::take(&mut planned);
            let wait = if planned {
                Duration::ZERO
            } else {
                self.attempts = self.attempts.saturating_add(1);
                backoff.wait(self.attempts, &mut rand::rng())
            };
            tracing::debug!(reason, wait_ms = wait.as_millis(), "the connection is gone, and will be made again");
            self.tell_away(Notice::Disconnected { reason, planned, reconnect_in: wait }).await?;
            let options = Arc::clone(&self.options);
            let mut connecting = pin!(async move {
                sleep(wait).await;
                handshake::connect(&options).await
            });
            let connected = loop {
                tokio::select! {
                    command = self.commands.recv() => self.command_away(command)?,
                    connected = &mut connecting => break connected,
                }
            };
            match connected {
                Ok(socket) => {
                    self.tell_away(Notice::Reconnected).await?;
                    return Ok(socket);
                }
                Err(error) if error.is_refused_token() => return Err(Away::End(End::Refused(chain(&error)))),
                Err(error) => reason = chain(&error),
            }
        }
    }

    /// What is asked while there is no connection: a subscribe waits for the next one, all else has no answer.
    fn command_away(&mut self, command: Option<Command>) -> Result<(), Away> {
        match command {
            None => return Err(Away::Closed(None)),
            Some(Command::Close { answer }) => return Err(Away::Closed(Some(answer))),
            Some(Command::Subscribe { channel, since, answer }) => self.begin(channel, since, answer),
            Some(Command::Request(asked)) => {
                if let Asked::Unsubscribe { channel, .. } = &asked {
                    self.drop_subscription(channel);
                }
                self.fail(Waiting::Asked(asked), RequestError::Disconnected);
            }
        }
        Ok(())
    }

    async fn tell_away(&self, notice: Notice) -> Result<(), Away> {
        self.items.send(Item::Notice(notice)).await.map_err(|_| Away::Deserted)
    }
}

impl Options {
    /// How long to wait before subscribing again after `attempts` subscribes without a message: not at all after none.
    fn wait(&self, attempts: u32) -> Duration {
        if attempts == 0 { Duration::ZERO } else { self.reconnect.unwrap_or_default().wait(attempts, &mut rand::rng()) }
    }
}

/// Answers a caller, who may have stopped waiting.
fn tell<T>(caller: Caller<T>, answer: Result<T, RequestError>) {
    let _ = caller.send(answer);
}

fn unreadable(error: &FrameError) -> RequestError {
    RequestError::Unreadable(chain(error))
}

fn confirm(answer: Option<oneshot::Sender<()>>) {
    if let Some(answer) = answer {
        // Whoever asked for the end may have stopped waiting for it.
        let _ = answer.send(());
    }
}
