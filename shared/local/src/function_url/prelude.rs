//! The beginning of a streamed answer: JSON with status, headers and cookies, then eight NUL, then the body.

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::invoker::StreamBroken;

/// What ends the prelude.
const DELIMITER: [u8; 8] = [0; 8];

/// The delimiter has to come within the first 16 KB (Amazon API Gateway Developer Guide, "Stream the integration response
/// for your proxy integrations", which uses the same format).
const MAX_PRELUDE_BYTES: usize = 16 * 1024;

/// Status, headers and cookies.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(super) struct Prelude {
    #[serde(default = "ok")]
    pub(super) status_code: u16,
    #[serde(default)]
    pub(super) headers: Map<String, Value>,
    #[serde(default)]
    pub(super) cookies: Vec<String>,
}

/// Why there is no prelude.
#[derive(Debug, thiserror::Error)]
pub(super) enum PreludeError {
    #[error("no eight NUL within the first {MAX_PRELUDE_BYTES} bytes")]
    TooLong,
    #[error("the stream ended before its prelude did")]
    Unfinished,
    #[error("the prelude is not the JSON of a status, headers and cookies")]
    NotJson(#[source] serde_json::Error),
    #[error("the stream broke off before its prelude ended")]
    Broken(#[source] StreamBroken),
}

/// Finds the end of the prelude, wherever the chunks are cut.
#[derive(Debug, Default)]
pub(super) struct PreludeParser {
    received: BytesMut,
}

impl PreludeParser {
    /// Takes a chunk. Returns the prelude when it is whole, with what follows it.
    ///
    /// # Errors
    /// [`PreludeError::TooLong`], [`PreludeError::NotJson`].
    pub(super) fn push(&mut self, chunk: &[u8]) -> Result<Option<(Prelude, Bytes)>, PreludeError> {
        // The delimiter may have begun in what is here already.
        let from = self.received.len().saturating_sub(DELIMITER.len() - 1);
        self.received.extend_from_slice(chunk);
        let found = self.received[from..].windows(DELIMITER.len()).position(|window| window == DELIMITER);
        let Some(end) = found.map(|position| from + position) else {
            // What ends with the beginning of the delimiter may still turn out to be short enough.
            if self.received.len() >= MAX_PRELUDE_BYTES + DELIMITER.len() {
                return Err(PreludeError::TooLong);
            }
            return Ok(None);
        };
        if end > MAX_PRELUDE_BYTES {
            return Err(PreludeError::TooLong);
        }
        let json = self.received.split_to(end);
        let body = self.received.split_off(DELIMITER.len()).freeze();
        let prelude = serde_json::from_slice(&json).map_err(PreludeError::NotJson)?;
        Ok(Some((prelude, body)))
    }
}

fn ok() -> u16 {
    200
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"{\"statusCode\":201,\"headers\":{\"content-type\":\"text/event-stream\"},\"cookies\":[\"a=b\"]}\0\0\0\0\0\0\0\0hello\0\0\0\0\0\0\0\0";

    #[test]
    fn the_delimiter_is_found_wherever_chunks_are_cut() {
        for size in 1..=STREAM.len() {
            let mut parser = PreludeParser::default();
            let mut rest = None;
            let mut consumed = 0;
            for chunk in STREAM.chunks(size) {
                consumed += chunk.len();
                if let Some((prelude, body)) = parser.push(chunk).expect("a good prelude") {
                    assert_eq!(prelude.status_code, 201);
                    assert_eq!(prelude.cookies, ["a=b"]);
                    assert_eq!(prelude.headers["content-type"], "text/event-stream");
                    rest = Some([&body[..], &STREAM[consumed..]].concat());
                    break;
                }
            }
            assert_eq!(rest.as_deref(), Some(&b"hello\0\0\0\0\0\0\0\0"[..]), "chunks of {size}");
        }
    }

    #[test]
    fn everything_but_the_delimiter_has_a_default() {
        let whole = PreludeParser::default().push(b"{}\0\0\0\0\0\0\0\0").expect("an empty object is a prelude");
        let (prelude, body) = whole.expect("it is whole");
        assert_eq!(prelude, Prelude { status_code: 200, headers: Map::new(), cookies: Vec::new() });
        assert!(body.is_empty());
    }

    #[test]
    fn a_prelude_ends_within_16_kilobytes() {
        let padded = |length: usize| {
            let mut bytes = b"{}".to_vec();
            bytes.resize(length, b' ');
            bytes.extend_from_slice(&DELIMITER);
            bytes
        };
        assert!(PreludeParser::default().push(&padded(MAX_PRELUDE_BYTES)).expect("the limit itself").is_some());
        assert!(matches!(PreludeParser::default().push(&padded(MAX_PRELUDE_BYTES + 1)), Err(PreludeError::TooLong)));
        let mut endless = PreludeParser::default();
        let error = (0..).find_map(|_| endless.push(&[b' '; 1000]).err());
        assert!(matches!(error, Some(PreludeError::TooLong)));
    }

    #[test]
    fn a_prelude_is_json() {
        let result = PreludeParser::default().push(b"hello\0\0\0\0\0\0\0\0");
        assert!(matches!(result, Err(PreludeError::NotJson(_))), "{result:?}");
    }
}
