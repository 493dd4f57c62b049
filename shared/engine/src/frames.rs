//! What one subscriber gets of a stretch of the log, as frames: in order, and with every hole told.

use crate::rows::{Dialect, Head, Logged};
use carillon_core::channel::Channel;
use carillon_core::event::EventJson;
use carillon_core::position::{Epoch, Position};
use carillon_wire::native::server;
use std::sync::Arc;

/// A stretch of one epoch's log.
#[derive(Clone, Copy)]
pub(crate) struct Stretch<'a> {
    pub(crate) epoch: Epoch,
    pub(crate) messages: &'a [Logged],
}

/// A frame, and what its receiver has when it has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) text: Arc<str>,
    pub(crate) end: Position,
}

/// What comes next for a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// A message; `prev` where it is the first of an epoch and continues the one before.
    Message { offset: u64, event: &'a EventJson, prev: Option<Position> },
    /// Messages after `after`, up to and with `to`, are missing.
    Gap { after: Position, to: Position },
}

/// What comes after `base`. A first of a new epoch carries `prev` where it continues `base`; where it does not, and wherever a
/// message is missing or cannot be decoded, a gap goes before it. `previous` is the position after which the head's epoch goes on.
pub(crate) fn steps(head: Epoch, previous: Option<Position>, base: Position, stretch: Stretch<'_>) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    let mut missing_after = None;
    let mut position = base;
    for message in stretch.messages {
        let here = Position::new(stretch.epoch, message.offset);
        if here <= base {
            continue;
        }
        let continues = here.epoch == position.epoch && here.offset == position.offset + 1;
        let follows_epoch = here.epoch == head && here.offset == 1 && position.epoch < here.epoch && previous == Some(position);
        if !continues && !follows_epoch {
            missing_after.get_or_insert(position);
        }
        match &message.event {
            None => {
                missing_after.get_or_insert(position);
            }
            Some(event) => {
                let gap = missing_after.take();
                steps.extend(gap.map(|after| Step::Gap { after, to: Position::new(here.epoch, here.offset - 1) }));
                let prev = previous.filter(|_| follows_epoch && gap.is_none());
                steps.push(Step::Message { offset: message.offset, event, prev });
            }
        }
        position = here;
    }
    steps.extend(missing_after.map(|after| Step::Gap { after, to: position }));
    steps
}

/// Encodes what comes after `base`, several messages in a frame.
pub(crate) fn encode(dialect: Dialect, channel: &Channel, head: &Head, base: Position, stretch: Stretch<'_>) -> Vec<Frame> {
    let Dialect::Native = dialect;
    let mut frames = Vec::new();
    let mut run: Vec<(u64, &EventJson)> = Vec::new();
    let mut run_prev = None;
    let previous = head.prev.and_then(|prev| prev.position());
    for step in steps(head.epoch, previous, base, stretch) {
        match step {
            Step::Message { offset, event, prev } => {
                run_prev = run_prev.or(prev);
                run.push((offset, event));
            }
            Step::Gap { after, to } => {
                frames.append(&mut flush(channel, stretch.epoch, &mut run, run_prev.take()));
                frames.push(gap(channel, after, to));
            }
        }
    }
    frames.append(&mut flush(channel, stretch.epoch, &mut run, run_prev));
    frames
}

fn gap(channel: &Channel, after: Position, end: Position) -> Frame {
    Frame { text: server::gap(channel, after, end), end }
}

fn flush(channel: &Channel, epoch: Epoch, run: &mut Vec<(u64, &EventJson)>, prev: Option<Position>) -> Vec<Frame> {
    if run.is_empty() {
        return Vec::new();
    }
    let frames = server::events(channel, epoch, &std::mem::take(run), prev);
    frames.into_iter().map(|frame| Frame { text: frame.text, end: Position::new(epoch, frame.last) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Previous;
    use carillon_core::time::{Millis, Seconds};

    fn head(prev: Option<u64>) -> Head {
        Head {
            epoch: Epoch(20),
            started: true,
            prev: Some(Previous { epoch: Epoch(10), last: prev }),
            newest_shard: 0,
            listed: [0].into(),
            exp: Seconds(0),
        }
    }

    /// The frames for a subscriber at `base` when `offsets` of epoch 20 are read; a negative one cannot be decoded.
    fn shown(base: (u64, u64), prev: Option<u64>, offsets: &[i64]) -> Vec<String> {
        let messages: Vec<Logged> = offsets
            .iter()
            .map(|offset| Logged {
                offset: offset.unsigned_abs(),
                event: (*offset > 0).then(|| EventJson::from_log(offset.to_string())),
                ts: Millis(0),
                exp: Seconds(0),
            })
            .collect();
        let channel = Channel::parse("a").expect("a channel");
        let stretch = Stretch { epoch: Epoch(20), messages: &messages };
        encode(Dialect::Native, &channel, &head(prev), Position::new(Epoch(base.0), base.1), stretch)
            .iter()
            .map(|frame| frame.text.to_string())
            .collect()
    }

    fn events(prev: &str, offsets: &[u64]) -> String {
        let list: Vec<_> = offsets.iter().map(|offset| format!(r#"{{"offset":{offset},"event":{offset}}}"#)).collect();
        format!(r#"{{"type":"events","channel":"a","epoch":"20"{prev},"events":[{}]}}"#, list.join(","))
    }

    fn gap(after: (u64, u64), to: u64) -> String {
        let (epoch, offset) = after;
        format!(r#"{{"type":"gap","channel":"a","after":{{"epoch":"{epoch}","offset":{offset}}},"epoch":"20","offset":{to}}}"#)
    }

    #[test]
    fn what_continues_the_position_goes_out_in_one_frame_and_what_is_known_does_not() {
        assert_eq!(shown((20, 2), None, &[1, 2, 3, 4]), [events("", &[3, 4])]);
        assert_eq!(shown((20, 4), None, &[1, 2, 3, 4]), [""; 0]);
    }

    #[test]
    fn d4_the_first_of_a_new_epoch_carries_prev_where_it_continues_the_position() {
        let prev = r#","prev":{"epoch":"10","offset":7}"#;
        assert_eq!(shown((10, 7), Some(7), &[1, 2]), [events(prev, &[1, 2])]);
    }

    #[test]
    fn d4_where_the_new_epoch_does_not_continue_the_position_a_gap_says_so() {
        assert_eq!(shown((10, 6), Some(7), &[1]), [gap((10, 6), 0), events("", &[1])]);
        assert_eq!(shown((10, 7), None, &[1]), [gap((10, 7), 0), events("", &[1])]);
        assert_eq!(shown((9, 3), Some(7), &[1]), [gap((9, 3), 0), events("", &[1])]);
        assert_eq!(shown((10, 7), Some(7), &[3]), [gap((10, 7), 2), events("", &[3])]);
    }

    #[test]
    fn what_the_log_has_lost_is_told() {
        assert_eq!(shown((20, 1), None, &[2, 5, 6]), [events("", &[2]), gap((20, 2), 4), events("", &[5, 6])]);
    }

    #[test]
    fn d7_what_cannot_be_decoded_is_told_and_the_rest_goes_on() {
        assert_eq!(shown((20, 0), None, &[1, -2, -3, 4]), [events("", &[1]), gap((20, 1), 3), events("", &[4])]);
        assert_eq!(shown((20, 0), None, &[1, -2]), [events("", &[1]), gap((20, 1), 2)]);
        assert_eq!(shown((20, 0), None, &[-1]), [gap((20, 0), 1)]);
    }
}
