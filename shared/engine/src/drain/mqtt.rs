//! Draining a channel's MQTT shard: its messages go to IoT Core, in order (P2).
//!
//! What a crash repeats, MQTT's QoS 1 may repeat anyway. IoT Core away delays nobody else: the drain sends itself a wake-up for later
//! and has succeeded, so that an outage fills no dead-letter queue.

use super::{CHECKPOINT_EVERY_MS, Drain, Ended, Hold, POST_AGAIN_AFTER};
use crate::engine::life;
use crate::ports::{Answer, Clock, Mqtt, Posts, Queue, Store};
use crate::rows::{Logged, MqttOutcome, Released, Shard, ShardKey};
use crate::wakeup::Wakeup;
use carillon_core::namespace::NamespaceOptions;
use carillon_core::position::Position;
use carillon_wire::cloudevents;
use std::time::Duration;

/// How long a publish that was not answered may still land, on the service's side of a connection that we have given up.
const MAY_LAND: Duration = Duration::from_secs(2);

/// Unanswered publishes of one message before IoT Core counts as away.
const UNANSWERED: usize = 2;

/// A publish begins this long before the drain has to stop, in milliseconds, or not at all: two seconds of trying, and two in which
/// it may land late, are under the lease then.
const STOP_EARLIER_MS: u64 = 4_000;

/// The longest wait for another look at an IoT Core that is away, in seconds: so late is the first message after an outage.
const LONGEST_DELAY_S: u64 = 15;

/// Clocks may be so far apart, in milliseconds.
const SKEW_MS: u64 = 2_000;

/// What became of publishing one message.
enum Published {
    Done,
    Away,
}

/// How far a round has come, and why it ended there.
enum RoundEnd {
    /// The whole window is published.
    Whole,
    /// IoT Core is away.
    Away,
    /// The time ran out.
    Stopped,
    /// The lease is another's.
    Lost,
}

impl<S: Store, Q: Queue, P: Posts, M: Mqtt, C: Clock> Drain<S, Q, P, M, C> {
    /// Makes the shard's row: no subscriber does, so its first wake-up has to.
    pub(super) async fn make_mqtt_shard(&self, key: &ShardKey) -> Answer<()> {
        let now = self.clock.now();
        let options = self.namespaces.get(&self.store, &key.channel.namespace(), now).await?;
        self.store.arrive(key, life(&options, None, now), now).await?;
        Ok(())
    }

    /// Publishes what comes after the shard's cursor, until there is nothing more.
    pub(super) async fn publish_rounds(&self, hold: &Hold<'_>, wakeup: &Wakeup, mut shard: Shard) -> Answer<Ended> {
        // The wake-up that is waited for may be here a little early by this clock. One that was delivered twice finds that the next
        // is on its way.
        let early_ms = if wakeup.put_off > 0 { SKEW_MS } else { 0 };
        if shard.retry_at.is_some_and(|retry_at| retry_at > self.clock.now().plus(early_ms)) {
            // IoT Core is away, and a wake-up is on its way that drains this message too.
            self.store.release(hold.key, hold.owner, None, None).await?;
            return Ok(Ended::Done);
        }
        self.keep_alive(hold.key, &shard).await?;
        let channel = &hold.key.channel;
        loop {
            let options = self.namespaces.get(&self.store, &channel.namespace(), self.clock.now()).await?;
            // D4: the head before the window. An epoch that the head had left then has nothing more than the window shows.
            let head = self.store.head(channel, self.clock.now()).await?;
            let Some(head) = head.filter(|_| options.mqtt) else {
                self.store.release(hold.key, hold.owner, None, None).await?;
                return Ok(Ended::Done);
            };
            let start = shard.cursor.unwrap_or(Position::new(head.epoch, 0));
            let window = self.window(hold.key, start).await?;
            let mut at = start;
            match self.publish_window(hold, &options, &window.messages, &mut at).await? {
                RoundEnd::Whole => {}
                RoundEnd::Lost => return self.lost(hold),
                RoundEnd::Away => return self.put_off(hold, wakeup, at).await,
                RoundEnd::Stopped => {
                    if !self.store.advance(hold.key, hold.owner, at).await? {
                        return self.lost(hold);
                    }
                    return self.stop(hold, wakeup).await;
                }
            }
            let more = window.full || head.epoch > start.epoch;
            if window.messages.is_empty() && head.epoch > start.epoch {
                at = Position::new(head.epoch, 0);
            }
            if !more {
                match self.store.release(hold.key, hold.owner, Some(at), Some(shard.generation)).await? {
                    Released::Done => return Ok(Ended::Done),
                    Released::Lost => return self.lost(hold),
                    Released::Changed => {}
                }
            }
            if !self.store.advance(hold.key, hold.owner, at).await? {
                return self.lost(hold);
            }
            let Some(next) = self.store.shard(hold.key, self.clock.now()).await? else { return Ok(Ended::Done) };
            shard = next;
        }
    }

    /// Publishes a window's messages in order; `at` is what is published. It writes down about every second how far it has come.
    async fn publish_window(
        &self,
        hold: &Hold<'_>,
        options: &NamespaceOptions,
        messages: &[Logged],
        at: &mut Position,
    ) -> Answer<RoundEnd> {
        let mut written = self.clock.now();
        for message in messages {
            let now = self.clock.now();
            if now.plus(STOP_EARLIER_MS) >= hold.stop_at {
                return Ok(RoundEnd::Stopped);
            }
            if now.since(written) >= CHECKPOINT_EVERY_MS {
                if !self.store.advance(hold.key, hold.owner, *at).await? {
                    return Ok(RoundEnd::Lost);
                }
                written = now;
            }
            let position = Position::new(at.epoch, message.offset);
            if options.sends_over_mqtt(message.ts)
                && let Published::Away = self.publish(hold, message, position, options.retain).await?
            {
                return Ok(RoundEnd::Away);
            }
            *at = position;
        }
        Ok(RoundEnd::Whole)
    }

    async fn publish(&self, hold: &Hold<'_>, message: &Logged, position: Position, retain: bool) -> Answer<Published> {
        let json = message.event.as_ref().and_then(|event| cloudevents::placed(event, position));
        let Some(json) = json else {
            // MQTT has no frame for a gap. Subscribers see it by the offsets.
            tracing::error!(shard.key = %hold.key, position = %position, "a message cannot be read and is missing over MQTT");
            return Ok(Published::Done);
        };
        let mut waits = POST_AGAIN_AFTER.into_iter();
        let mut unanswered = 0;
        loop {
            match self.mqtt.publish(&hold.key.channel, position, &json, retain).await? {
                MqttOutcome::Taken => return Ok(Published::Done),
                MqttOutcome::Unknown => {
                    // It may land late, and nothing newer may be there before: the lease is kept until it cannot any more.
                    tokio::time::sleep(MAY_LAND).await;
                    unanswered += 1;
                    if unanswered == UNANSWERED || self.is_near_its_end(hold) {
                        return Ok(Published::Away);
                    }
                }
                MqttOutcome::Away => match waits.next().filter(|_| !self.is_near_its_end(hold)) {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => return Ok(Published::Away),
                },
            }
        }
    }

    fn is_near_its_end(&self, hold: &Hold<'_>) -> bool {
        self.clock.now().plus(STOP_EARLIER_MS) >= hold.stop_at
    }

    /// Gives the lease back until IoT Core can be reached again, with one wake-up on its way that looks: however many publishes
    /// come meanwhile, there is no second one. Written down first and sent then, so that it cannot come before the lease is free;
    /// should this invocation die in between, its own message comes back.
    async fn put_off(&self, hold: &Hold<'_>, wakeup: &Wakeup, at: Position) -> Answer<Ended> {
        let next = wakeup.put_off();
        let delay_s = delay_s(next.put_off);
        tracing::warn!(
            shard.key = %hold.key,
            position = %at,
            delay_s,
            "IoT Core does not take messages; MQTT subscribers wait, and nobody else does"
        );
        let retry_at = self.clock.now().plus(delay_s * 1_000);
        if !self.store.postpone(hold.key, hold.owner, Some(at), retry_at).await? {
            return self.lost(hold);
        }
        self.queue.send(std::slice::from_ref(&next), Duration::from_secs(delay_s)).await?;
        Ok(Ended::Done)
    }
}

/// 1, 2, 4, 8, then 15 seconds.
fn delay_s(put_off: u32) -> u64 {
    1_u64.checked_shl(put_off.saturating_sub(1)).map_or(LONGEST_DELAY_S, |seconds| seconds.min(LONGEST_DELAY_S))
}

#[cfg(test)]
mod tests {
    use super::delay_s;

    #[test]
    fn waits_grow_up_to_their_limit() {
        assert_eq!([1, 2, 3, 4, 5, 6, 64, 65, u32::MAX].map(delay_s), [1, 2, 4, 8, 15, 15, 15, 15, 15]);
    }
}
