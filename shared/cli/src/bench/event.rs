//! The event that benchmarks publish.

use carillon_core::channel::Channel;
use carillon_core::event::{Attribute, Data, Event};
use carillon_core::fault::Fault;

/// An event as an application sends one: a few fields, and an id that the log need not remember.
pub(super) fn plain(channel: &Channel) -> Result<Event, Fault> {
    Ok(Event {
        channel: channel.clone(),
        id: Attribute::id("8f14e45f-ceea-467f-9538-1c2d3e4f5a6b")?,
        source: Attribute::source("carillon.bench")?,
        kind: Attribute::kind("order.changed")?,
        time: Attribute::try_new("time", "2026-01-31T12:00:00.000Z", 64)?,
        schema: None,
        data: Data::Json(r#"{"order":42,"state":"shipped","carrier":"a carrier","at":"2026-01-31T12:00:00Z"}"#.into()),
        extensions: Vec::new(),
        identity: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_well_formed() {
        let channel = Channel::parse("bench/event").expect("a channel");
        plain(&channel).expect("attributes").check().expect("an event");
    }
}
