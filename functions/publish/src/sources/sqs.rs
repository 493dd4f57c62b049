//! Amazon SQS: <https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html>. The body of a message is the JSON of `POST /publish`.
//!
//! All messages of a batch are published in one go, so several on one channel make one log entry. A message of which anything was
//! not published is reported as failed, and comes again: what is malformed ends in the dead-letter queue, where somebody can look
//! at it. What was published of it already is known by its id. A FIFO queue's messages are published one after the other, up to the
//! first failure, because those after it must wait for it.

use crate::{Handler, Invocation};
use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent, SqsMessage};
use carillon_core::event::Event;
use carillon_core::fault::{ErrorCode, Fault};
use carillon_core::time::Millis;
use carillon_engine::ports::{Clock, Queue, Store};
use carillon_runtime::failure::InvocationFailure;
use carillon_wire::cloudevents::Defaults;
use carillon_wire::http;

/// How the names of FIFO queues end.
const FIFO_SUFFIX: &str = ".fifo";

/// A message, by the queue's names for it.
struct Message<'a> {
    id: &'a str,
    queue: &'a str,
    body: &'a str,
}

pub(super) async fn handle<S: Store, Q: Queue, C: Clock>(
    handler: &Handler<S, Q, C>,
    payload: &str,
    invocation: &Invocation,
) -> Result<String, InvocationFailure> {
    let malformed =
        |text: String| InvocationFailure(Fault::new(ErrorCode::BadRequest, format!("the event is none of SQS: {text}")));
    let event: SqsEvent = serde_json::from_str(payload).map_err(|error| malformed(format!("{:?}", error.classify())))?;
    let messages: Option<Vec<Message<'_>>> = event.records.iter().map(Message::of).collect();
    let messages = messages.ok_or_else(|| malformed("a record lacks messageId or eventSourceARN".to_owned()))?;

    let mut response = SqsBatchResponse::default();
    let fifo = messages.first().is_some_and(|message| message.queue.ends_with(FIFO_SUFFIX));
    let failed = if fifo {
        in_order(handler, &messages, invocation.deadline).await
    } else {
        together(handler, &messages, invocation.deadline).await
    };
    for (message, failed) in messages.iter().zip(failed) {
        if failed {
            response.add_failure(message.id);
        }
    }
    Ok(serde_json::to_string(&response).expect("a response has string keys"))
}

/// Publishes the messages in one go. Answers, for each, whether it failed.
async fn together<S: Store, Q: Queue, C: Clock>(
    handler: &Handler<S, Q, C>,
    messages: &[Message<'_>],
    deadline: Option<Millis>,
) -> Vec<bool> {
    let now = handler.engine.now();
    let mut failed = vec![false; messages.len()];
    let mut events = Vec::new();
    // Which message each event is of.
    let mut of = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        match message.events(now) {
            Ok(list) => {
                of.extend(std::iter::repeat_n(index, list.len()));
                events.extend(list);
            }
            Err(fault) => {
                message.log(&fault);
                failed[index] = true;
            }
        }
    }
    for (index, outcome) in of.into_iter().zip(handler.publish(events, deadline).await) {
        if let Err(fault) = outcome.fate {
            // A message is told once, with what went wrong first.
            if !failed[index] {
                messages[index].log(&fault);
            }
            failed[index] = true;
        }
    }
    failed
}

/// Publishes the messages one by one up to the first that fails; with it all after it fail.
async fn in_order<S: Store, Q: Queue, C: Clock>(
    handler: &Handler<S, Q, C>,
    messages: &[Message<'_>],
    deadline: Option<Millis>,
) -> Vec<bool> {
    let mut failed = vec![true; messages.len()];
    for (index, message) in messages.iter().enumerate() {
        if together(handler, std::slice::from_ref(message), deadline).await[0] {
            break;
        }
        failed[index] = false;
    }
    failed
}

impl<'a> Message<'a> {
    fn of(record: &'a SqsMessage) -> Option<Self> {
        let body = record.body.as_deref().unwrap_or_default();
        Some(Self { id: record.message_id.as_deref()?, queue: record.event_source_arn.as_deref()?, body })
    }

    fn events(&self, now: Millis) -> Result<Vec<Event>, Fault> {
        let new_id = |place| super::direct::id_in(self.id, place);
        http::decode_json(self.body, &Defaults::repeatable(self.queue, now, &new_id))
    }

    fn log(&self, fault: &Fault) {
        tracing::error!(
            message.id = self.id,
            error.code = %fault.code,
            error.message = %fault.message,
            "a message of a queue was not published and stays in the queue"
        );
    }
}
