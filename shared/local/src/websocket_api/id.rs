//! The ids that API Gateway gives to connections, requests and messages.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// The alphabet of real ids (`TXzPWdnOjoECGjA=`), with `-` and `_`. Their unused last bits are not always zero.
const ALPHABET: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// A new random id: 11 bytes make 16 characters that end in `=`, as those of AWS do.
pub(super) fn random_id() -> String {
    ALPHABET.encode(rand::random::<[u8; 11]>())
}

/// The id of a connection, or one that could be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ConnectionId(Arc<str>);

/// The text is no base64, so no connection can have it as its id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a connection id is base64 with padding, in the alphabet with `-` and `_`")]
pub(super) struct MalformedConnectionId;

impl ConnectionId {
    /// An id that no other connection has: 88 random bits.
    pub(super) fn random() -> Self {
        Self(random_id().into())
    }

    /// Reads an id as a caller wrote it. A well-formed one that no connection has is not an error here.
    ///
    /// # Errors
    /// [`MalformedConnectionId`] for an empty text and for what is no base64.
    pub(super) fn parse(text: &str) -> Result<Self, MalformedConnectionId> {
        match ALPHABET.decode(text) {
            Ok(bytes) if !bytes.is_empty() => Ok(Self(text.into())),
            _ => Err(MalformedConnectionId),
        }
    }

    /// The id as it is written.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_look_like_those_of_aws_and_differ() {
        let ids: HashSet<String> = (0..1000).map(|_| random_id()).collect();
        assert_eq!(ids.len(), 1000);
        for id in &ids {
            assert_eq!(id.len(), 16, "{id}");
            assert!(id.ends_with('=') && !id.ends_with("=="), "{id}");
            assert_eq!(ConnectionId::parse(id).map(|parsed| parsed.as_str().to_owned()).as_ref(), Ok(id));
        }
    }

    #[test]
    fn ids_seen_on_aws_are_well_formed() {
        for id in ["TXzPWdnOjoECGjA=", "L1EbTe4ljoECHnA=", "XDmENcnwIE0CFEQ=", "Llf4ceE2NjMCF7w="] {
            assert!(ConnectionId::parse(id).is_ok(), "{id}");
        }
    }

    #[test]
    fn what_is_no_base64_is_malformed() {
        for text in ["", "abc", "not an id", "TXzPWdnOjoECGjA", "TXzPWdnOjoECGjA==", "TXzP+dnOjoECGjA=", "é==="] {
            assert_eq!(ConnectionId::parse(text), Err(MalformedConnectionId), "{text}");
        }
    }
}
