//! Amazon EventBridge, through a rule that takes events whose detail has a `channel`.
//!
//! It invokes asynchronously, so an answer is read by nobody. Every event that is not published fails the invocation: Lambda tries
//! it twice more and then hands it to the function's on-failure destination. For a malformed event the tries are in vain, but that
//! way it is kept where somebody can look at it.

use crate::{Handler, Invocation};
use carillon_core::fault::Fault;
use carillon_engine::ports::{Clock, Queue, Store};
use carillon_runtime::failure::InvocationFailure;
use carillon_wire::{eventbridge, http};

pub(super) async fn handle<S: Store, Q: Queue, C: Clock>(
    handler: &Handler<S, Q, C>,
    payload: &str,
    invocation: &Invocation,
) -> Result<String, InvocationFailure> {
    let event = eventbridge::decode(payload, handler.engine.now()).map_err(failed)?;
    let outcomes = handler.publish(vec![event], invocation.deadline).await;
    if let Some(fault) = outcomes.iter().find_map(|outcome| outcome.fate.as_ref().err()) {
        return Err(failed(fault.clone()));
    }
    Ok(http::results(&outcomes).body)
}

fn failed(fault: Fault) -> InvocationFailure {
    tracing::error!(error.code = %fault.code, error.message = %fault.message, "an event of EventBridge was not published");
    InvocationFailure(fault)
}
