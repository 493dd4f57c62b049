//! The task behind a client: it owns the stream and the channels' places.

use super::Options;
use super::blocks::Blocks;
use super::frames::{self, Acknowledged, Frame};
use super::request::{Request, Start};
use crate::failure::chain;
use crate::items::{End, Item, Notice, Stop};
use crate::positioned::Positioned;
use crate::rule::{self, Follower, Judged};
use carillon_core::channel::Channel;
use carillon_core::event::EventJson;
use carillon_core::fault::Fault;
use carillon_core::position::Position;
use futures_util::stream;
use reqwest::Response;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

/// The longest wait that the server can ask for: whoever is told to wait for longer looks in between.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The task's state.
pub(super) struct Session {
    options: Options,
    request: Request,
    items: mpsc::Sender<Item>,
    followers: BTreeMap<Channel, Follower<EventJson>>,
    /// The id of the last block that had one, on whichever stream.
    last_id: Option<String>,
    /// The server's `retry`.
    retry: Duration,
    /// Attempts to connect since something came.
    attempts: u32,
    /// Whether the subscriber was told that the subscriptions have begun.
    has_begun: bool,
}

/// Why a stream is left.
enum Cut {
    /// Nobody takes items any more.
    Deserted,
    /// The server planned it.
    Planned(Duration),
    /// Messages are missing: they are asked for by position.
    Behind,
    /// The server cannot go on for now.
    Fault(Fault),
    /// The server will not go on.
    Declined(Fault),
    /// It broke.
    Lost(String),
}

/// Why there is no further stream.
enum Away {
    Deserted,
    End(End),
}

impl Session {
    pub(super) fn new(options: Options, request: Request, items: mpsc::Sender<Item>) -> Self {
        let followers = options.channels.iter().map(|(channel, since)| (channel.clone(), Follower::new(*since))).collect();
        Self { options, request, items, followers, last_id: None, retry: Duration::ZERO, attempts: 0, has_begun: false }
    }

    /// Runs until the client shall end, nobody takes items any more, or the server will not go on.
    pub(super) async fn run(mut self, response: Response, stop: Stop) {
        let items = self.items.clone();
        tokio::select! {
            // Done by a message and by the other half's end alike.
            _ = stop => {}
            () = items.closed() => {}
            () = self.follow(response) => {}
        }
    }

    async fn follow(&mut self, mut response: Response) {
        loop {
            let cut = self.serve(response).await;
            response = match self.reconnect(cut).await {
                Ok(response) => response,
                Err(Away::Deserted) => return,
                Err(Away::End(end)) => {
                    tracing::debug!(reason = %end, "the client is at its end");
                    // An error means that nobody is there to be told.
                    let _ = self.items.send(Item::Notice(Notice::Ended(end))).await;
                    return;
                }
            };
        }
    }

    /// Takes one stream until it is cut.
    async fn serve(&mut self, response: Response) -> Cut {
        let parts = stream::unfold(response, |mut response| async move {
            response.chunk().await.map_err(reqwest::Error::without_url).transpose().map(|part| (part, response))
        });
        let mut blocks = Blocks::new(parts, self.options.silence);
        loop {
            let block = match blocks.next().await {
                None => return Cut::Lost("the endpoint closed the stream".to_owned()),
                Some(Err(error)) => return Cut::Lost(chain(&error)),
                Some(Ok(block)) => block,
            };
            let received_at = Instant::now();
            if let Some(milliseconds) = block.retry {
                self.retry = Duration::from_millis(milliseconds).min(LONGEST_WAIT);
            }
            if let Some(id) = &block.id {
                // An empty one takes back the one before (HTML, "Server-sent events").
                self.last_id = Some(id.clone()).filter(|id| !id.is_empty());
            }
            match frames::decode(&block) {
                Ok(frame) => {
                    if let Err(cut) = self.frame(frame, received_at).await {
                        return cut;
                    }
                }
                Err(error) => tracing::warn!(%error, "an event of the stream cannot be read and is passed over"),
            }
        }
    }

    async fn frame(&mut self, frame: Frame, received_at: Instant) -> Result<(), Cut> {
        match frame {
            Frame::Subscribed(channels) => self.acknowledge(channels, received_at).await,
            Frame::Message(Positioned { channel, position, event }) => {
                // A stream is one sequence, and says itself where something is left out: the first of an epoch continues whatever
                // came before.
                let prev = self.followers.get(&channel).and_then(Follower::position).filter(|_| position.offset == 1);
                let messages = vec![(position.offset, event)];
                self.judge(channel, rule::Frame::Events { epoch: position.epoch, prev, messages }, received_at).await
            }
            Frame::Gap { channel, after, to } => {
                let position = self.followers.get(&channel).and_then(Follower::position);
                let after = after.or(position).unwrap_or(to);
                self.judge(channel, rule::Frame::Gap { after, to }, received_at).await
            }
            Frame::Error { fault, retry: true } => Err(Cut::Fault(fault)),
            Frame::Error { fault, retry: false } => Err(Cut::Declined(fault)),
            Frame::End { reconnect_in } => Err(Cut::Planned(reconnect_in.min(LONGEST_WAIT))),
            Frame::Nothing => Ok(()),
        }
    }

    async fn acknowledge(&mut self, channels: Vec<Acknowledged>, received_at: Instant) -> Result<(), Cut> {
        self.attempts = 0;
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        for Acknowledged { channel, position, recovered } in channels {
            let Some(follower) = self.followers.get_mut(&channel) else {
                tracing::warn!(channel.name = %channel, "the stream has a channel that was not asked for");
                continue;
            };
            let judged = follower.acknowledge(position, recovered);
            if is_first {
                let channel = channel.clone();
                self.notice(Notice::Subscribed { channel, position: Some(position), recovered }).await?;
            }
            self.hand_over(&channel, judged, received_at).await?;
        }
        Ok(())
    }

    async fn judge(&mut self, channel: Channel, frame: rule::Frame<EventJson>, received_at: Instant) -> Result<(), Cut> {
        let Some(follower) = self.followers.get_mut(&channel) else {
            tracing::warn!(channel.name = %channel, "the stream has a message of a channel that was not asked for");
            return Ok(());
        };
        let judged = follower.frame(frame);
        let is_behind = follower.is_behind() && !follower.is_waiting();
        self.hand_over(&channel, judged, received_at).await?;
        if is_behind { Err(Cut::Behind) } else { Ok(()) }
    }

    async fn hand_over(&mut self, channel: &Channel, judged: Vec<Judged<EventJson>>, received_at: Instant) -> Result<(), Cut> {
        for item in judged {
            self.items.send(Item::judged(channel, item, received_at)).await.map_err(|_| Cut::Deserted)?;
        }
        Ok(())
    }

    async fn notice(&self, notice: Notice) -> Result<(), Cut> {
        self.items.send(Item::Notice(notice)).await.map_err(|_| Cut::Deserted)
    }
}

/// Between two streams.
impl Session {
    async fn reconnect(&mut self, cut: Cut) -> Result<Response, Away> {
        let mut planned = None;
        let mut at_least = self.retry;
        let mut reason = match cut {
            Cut::Deserted => return Err(Away::Deserted),
            Cut::Declined(fault) => return Err(Away::End(End::Declined(format!("{}: {}", fault.code, fault.message)))),
            Cut::Planned(wait) => {
                planned = Some(wait);
                "the stream came to its planned end".to_owned()
            }
            Cut::Behind => {
                // The id counts what was passed over.
                self.last_id = None;
                "messages are missing".to_owned()
            }
            Cut::Fault(fault) => {
                let wait = Duration::from_millis(u64::from(fault.retry_after_ms.unwrap_or_default()));
                at_least = at_least.max(wait.min(LONGEST_WAIT));
                format!("{}: {}", fault.code, fault.message)
            }
            Cut::Lost(reason) => reason,
        };
        let Some(backoff) = self.options.reconnect else {
            return Err(Away::End(End::Lost(reason)));
        };
        loop {
            let is_planned = planned.is_some();
            let wait = planned.take().unwrap_or_else(|| {
                self.attempts = self.attempts.saturating_add(1);
                backoff.wait(self.attempts, &mut rand::rng()).max(at_least)
            });
            tracing::debug!(reason, wait_ms = wait.as_millis(), "the stream is over, and will be asked for again");
            self.tell_away(Notice::Disconnected { reason, planned: is_planned, reconnect_in: wait }).await?;
            sleep(wait).await;
            let start = self.start();
            match self.request.send(&start).await {
                Ok(response) => {
                    self.tell_away(Notice::Reconnected).await?;
                    return Ok(response);
                }
                Err(error) if error.is_refused_token() => return Err(Away::End(End::Refused(chain(&error)))),
                Err(error) if error.is_permanent() => return Err(Away::End(End::Declined(chain(&error)))),
                Err(error) => reason = chain(&error),
            }
        }
    }

    /// Where the next stream begins. What is kept of the one before is forgotten: it comes again.
    fn start(&mut self) -> Start {
        let channels: Vec<Channel> = self.options.channels.iter().map(|(channel, _)| channel.clone()).collect();
        let places: BTreeMap<&Channel, Option<Position>> =
            self.followers.iter_mut().map(|(channel, follower)| (channel, follower.resume())).collect();
        if let Some(id) = self.last_id.clone() {
            return Start::LastEvent { channels, id };
        }
        let positions = channels.into_iter().map(|channel| {
            let place = places.get(&channel).copied().flatten();
            (channel, place)
        });
        Start::Positions(positions.collect())
    }

    async fn tell_away(&self, notice: Notice) -> Result<(), Away> {
        self.items.send(Item::Notice(notice)).await.map_err(|_| Away::Deserted)
    }
}
