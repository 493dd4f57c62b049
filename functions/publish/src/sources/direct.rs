//! Direct invocations, with the JSON of `POST /publish`.
//!
//! A mistake is told in the answer, as over HTTP: the invocation did what it could. What may succeed later fails the invocation,
//! because nobody reads the answer of an asynchronous one, and Lambda tries it again only if it fails. Its retries keep the request
//! id, of which the ids of events without one are made, so that nothing is published twice.

use crate::{Handler, Invocation};
use carillon_core::fault::Fault;
use carillon_engine::ports::{Clock, Queue, Store};
use carillon_runtime::failure::InvocationFailure;
use carillon_wire::cloudevents::Defaults;
use carillon_wire::http;

/// The source of events whose publisher names none.
const SOURCE: &str = "carillon:invoke";

pub(super) async fn handle<S: Store, Q: Queue, C: Clock>(
    handler: &Handler<S, Q, C>,
    payload: &str,
    invocation: &Invocation,
) -> Result<String, InvocationFailure> {
    let new_id = |place| id_in(&invocation.request_id, place);
    let events = match http::decode_json(payload, &Defaults::repeatable(SOURCE, handler.engine.now(), &new_id)) {
        Ok(events) => events,
        Err(fault) => {
            log(&fault);
            return Ok(http::refusal(&fault).body);
        }
    };
    let outcomes = handler.publish(events, invocation.deadline).await;
    let faults: Vec<&Fault> = outcomes.iter().filter_map(|outcome| outcome.fate.as_ref().err()).collect();
    if let Some(fault) = faults.iter().find(|fault| fault.code.retry()).or(faults.first()) {
        log(fault);
        if fault.code.retry() {
            return Err(InvocationFailure((*fault).clone()));
        }
    }
    Ok(http::results(&outcomes).body)
}

/// The id of an event without one, made of that of the message it came in and its place there.
pub(super) fn id_in(message: &str, place: Option<usize>) -> String {
    place.map_or_else(|| message.to_owned(), |place| format!("{message}-{place}"))
}

fn log(fault: &Fault) {
    tracing::error!(error.code = %fault.code, error.message = %fault.message, "an event of a direct invocation was not published");
}
