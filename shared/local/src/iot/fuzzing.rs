//! Ways in for the fuzz targets.

use serde_json::Value;
use time::OffsetDateTime;

use super::codec::Decoder;
use super::policy::{Action, Authority, Policies};
use super::signature;

/// What a client sends, in pieces: every packet that is whole is read, until one is refused.
pub fn packets(pieces: &[&[u8]]) {
    let mut decoder = Decoder::default();
    for piece in pieces {
        decoder.buffer.extend_from_slice(piece);
        loop {
            match decoder.next() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

/// An authorizer's policies, as the JSON of a list, and a topic that a client asks for.
pub fn policy(documents: &str, topic: &str) {
    let Ok(documents) = serde_json::from_str::<Vec<Value>>(documents) else { return };
    let Ok(policies) = Policies::parse(&documents, "client", "us-east-1", "000000000000") else { return };
    let authority = Authority::Policies(policies);
    for action in [Action::Connect, Action::Publish, Action::Subscribe, Action::Receive] {
        let _ = authority.allows(action, topic);
    }
}

/// The query of a signed WebSocket address.
pub fn presigned(query: &str) {
    let _ = signature::presigned(query, OffsetDateTime::UNIX_EPOCH);
}
