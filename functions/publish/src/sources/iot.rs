//! AWS IoT Core, through a rule that takes what devices publish over MQTT and hands it over in an envelope of ours.
//!
//! A rule invokes asynchronously, and MQTT has no answer for the device beyond the broker's acknowledgement. So every message
//! that is not published fails the invocation, as an event of EventBridge does: Lambda tries it twice more and then hands it to
//! the function's on-failure destination, where somebody can look at it. The log counts it.

use crate::{Handler, Invocation};
use carillon_core::fault::Fault;
use carillon_engine::ports::{Clock, Queue, Store};
use carillon_runtime::failure::InvocationFailure;
use carillon_wire::{http, iot};

pub(super) async fn handle<S: Store, Q: Queue, C: Clock>(
    handler: &Handler<S, Q, C>,
    payload: &str,
    invocation: &Invocation,
) -> Result<String, InvocationFailure> {
    let event = iot::decode(payload, handler.engine.now(), &invocation.request_id).map_err(failed)?;
    let outcomes = handler.publish(vec![event], invocation.deadline).await;
    if let Some(fault) = outcomes.iter().find_map(|outcome| outcome.fate.as_ref().err()) {
        return Err(failed(fault.clone()));
    }
    Ok(http::results(&outcomes).body)
}

fn failed(fault: Fault) -> InvocationFailure {
    // A field to count by, for a metric filter. Lambda tries what is malformed again too, so it is counted three times.
    tracing::error!(
        device_messages.failed = 1,
        error.code = %fault.code,
        error.message = %fault.message,
        "a message of a device was not published"
    );
    InvocationFailure(fault)
}
