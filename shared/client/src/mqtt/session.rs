//! The task behind a client: it owns the connection and what has come of each channel.

use super::link::{Arrived, Link, Step};
use super::order::{Order, Taken};
use super::{ConnectError, Options};
use crate::failure::chain;
use crate::items::{Delivery, End, Item, Notice, Stop};
use crate::positioned::{self, Positioned};
use carillon_core::channel::Channel;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

/// The task's state.
pub(super) struct Session {
    options: Options,
    client_id: String,
    items: mpsc::Sender<Item>,
    orders: BTreeMap<Channel, Order>,
    /// Attempts to connect since the last good one.
    attempts: u32,
}

/// Nobody takes items any more.
struct Deserted;

/// Why there is no further connection.
enum Away {
    Deserted,
    End(End),
}

impl Session {
    pub(super) fn new(options: Options, client_id: String, items: mpsc::Sender<Item>) -> Self {
        Self { options, client_id, items, orders: BTreeMap::new(), attempts: 0 }
    }

    /// Runs until the client shall end, nobody takes items any more, or the broker refuses for good.
    pub(super) async fn run(mut self, link: Link, stop: Stop) {
        let items = self.items.clone();
        let mut link = Some(link);
        tokio::select! {
            // Done by a message and by the other half's end alike.
            _ = stop => {}
            () = items.closed() => {}
            () = self.follow(&mut link) => {}
        }
        if let Some(link) = link {
            link.close().await;
        }
    }

    /// Follows the broker over every connection. `link` is the one that holds, if any does.
    async fn follow(&mut self, link: &mut Option<Link>) {
        if self.begin().await.is_err() {
            return;
        }
        while let Some(open) = link {
            let Ok(reason) = self.serve(open).await else { return };
            if let Some(lost) = link.take() {
                lost.end().await;
            }
            match self.reconnect(reason).await {
                Ok(opened) => *link = Some(opened),
                Err(Away::Deserted) => return,
                Err(Away::End(end)) => {
                    tracing::debug!(reason = %end, "the client is at its end");
                    // An error means that nobody is there to be told.
                    let _ = self.items.send(Item::Notice(Notice::Ended(end))).await;
                    return;
                }
            }
        }
    }

    async fn begin(&self) -> Result<(), Deserted> {
        for channel in &self.options.channels {
            let channel = channel.clone();
            self.tell(Item::Notice(Notice::Subscribed { channel, position: None, recovered: None })).await?;
        }
        Ok(())
    }

    /// Takes one connection's messages until it is lost, and answers with the reason.
    async fn serve(&mut self, link: &mut Link) -> Result<String, Deserted> {
        loop {
            match link.next().await {
                Step::Lost(reason) => return Ok(reason),
                Step::Message(message) => {
                    self.message(&message).await?;
                    // After the subscriber's side has it, so that the broker sends no faster than it is taken.
                    message.acknowledge();
                }
            }
        }
    }

    async fn message(&mut self, message: &Arrived) -> Result<(), Deserted> {
        let Ok(channel) = self.options.prefix.channel_of_topic(&message.topic) else {
            return Ok(());
        };
        let read = std::str::from_utf8(&message.payload).map_err(|error| chain(&error));
        match read.and_then(|text| positioned::decode(text).map_err(|error| chain(&error))) {
            Ok(event) => {
                for item in judge(self.orders.entry(channel.clone()).or_default(), &channel, event, message.received_at) {
                    self.tell(item).await?;
                }
            }
            Err(reason) => {
                tracing::warn!(channel.name = %channel, reason, "a message of the broker cannot be read and is passed over");
            }
        }
        Ok(())
    }

    async fn reconnect(&mut self, mut reason: String) -> Result<Link, Away> {
        let Some(backoff) = self.options.reconnect else {
            return Err(Away::End(End::Lost(reason)));
        };
        loop {
            self.attempts = self.attempts.saturating_add(1);
            let wait: Duration = backoff.wait(self.attempts, &mut rand::rng());
            tracing::debug!(reason, wait_ms = wait.as_millis(), "the connection is gone, and will be made again");
            self.tell_away(Notice::Disconnected { reason, planned: false, reconnect_in: wait }).await?;
            sleep(wait).await;
            match Link::open(&self.options, &self.client_id).await {
                Ok(link) => {
                    self.attempts = 0;
                    if let Err(away) = self.tell_away(Notice::Reconnected).await {
                        link.close().await;
                        return Err(away);
                    }
                    return Ok(link);
                }
                Err(error @ ConnectError::Token { .. }) => return Err(Away::End(End::Refused(chain(&error)))),
                Err(error) if error.is_permanent() => return Err(Away::End(End::Declined(chain(&error)))),
                Err(error) => reason = chain(&error),
            }
        }
    }

    async fn tell(&self, item: Item) -> Result<(), Deserted> {
        self.items.send(item).await.map_err(|_| Deserted)
    }

    async fn tell_away(&self, notice: Notice) -> Result<(), Away> {
        self.tell(Item::Notice(notice)).await.map_err(|Deserted| Away::Deserted)
    }
}

/// What a subscriber is told of a message.
fn judge(order: &mut Order, channel: &Channel, event: Positioned, received_at: Instant) -> Vec<Item> {
    let channel = channel.clone();
    let Positioned { position, event, .. } = event;
    let delivery = |channel| Item::Delivery(Delivery { channel, position, event, received_at });
    match order.take(position) {
        Taken::Repeat => vec![Item::Notice(Notice::Repeat { channel, position })],
        Taken::New { missed: None } | Taken::Late => vec![delivery(channel)],
        Taken::New { missed: Some(after) } => {
            let missed = Notice::Missed { channel: channel.clone(), after, found: position };
            vec![Item::Notice(missed), delivery(channel)]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::position::{Epoch, Position};

    #[test]
    fn repeats_are_dropped_and_holes_told_before_the_message_behind_them() {
        let channel = Channel::parse("orders/42").expect("a channel");
        let at = |offset| Position::new(Epoch(1_700), offset);
        let mut order = Order::default();
        let mut items = Vec::new();
        for offset in [4, 4, 6, 5, 5] {
            let text = format!(r#"{{"id":"{offset}","subject":"orders/42","epoch":"1700","offset":{offset}}}"#);
            items.extend(judge(&mut order, &channel, positioned::decode(&text).expect("an event"), Instant::now()));
        }
        let told: Vec<_> = items
            .into_iter()
            .map(|item| match item {
                Item::Delivery(delivery) => {
                    assert_eq!(
                        delivery.event.as_str(),
                        format!(r#"{{"id":"{}","subject":"orders/42"}}"#, delivery.position.offset)
                    );
                    ("message", delivery.position)
                }
                Item::Notice(Notice::Repeat { position, .. }) => ("repeat", position),
                Item::Notice(Notice::Missed { after, found, .. }) if (after, found) == (at(4), at(6)) => ("missed", found),
                other => panic!("{other:?}"),
            })
            .collect();
        let expected =
            [("message", at(4)), ("repeat", at(4)), ("missed", at(6)), ("message", at(6)), ("message", at(5)), ("repeat", at(5))];
        assert_eq!(told, expected);
    }
}
