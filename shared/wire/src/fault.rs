//! Errors on the wire: `{"code":"…","message":"…","retry":false,"retry_after_ms":…}`, the same in replies and in HTTP answers.
//! Specified in docs/protocol.md.

use crate::json::ObjectWriter;
use carillon_core::fault::{ErrorCode, Fault};
use serde::Deserialize;

/// Bytes of an error's message; a longer one is cut. Messages may quote what the caller sent, and a reply has to fit a frame even
/// where every byte is escaped into six.
pub const MESSAGE_BYTES: usize = 1_024;

/// The error as a JSON object.
#[must_use]
pub fn encode(fault: &Fault) -> String {
    let mut object = ObjectWriter::new();
    object.string("code", fault.code.as_str());
    object.string("message", &cut(&fault.message));
    object.raw("retry", fault.code.retry());
    if let Some(milliseconds) = fault.retry_after_ms {
        object.raw("retry_after_ms", milliseconds);
    }
    object.finish()
}

/// The code of that name; one that this code does not know, of a newer server, counts as `internal`.
#[must_use]
pub fn code(name: &str) -> ErrorCode {
    ErrorCode::ALL.into_iter().find(|code| code.as_str() == name).unwrap_or(ErrorCode::Internal)
}

/// An error as it is read.
#[derive(Deserialize)]
pub(crate) struct FaultBody {
    code: String,
    message: String,
    retry_after_ms: Option<u32>,
}

impl From<FaultBody> for Fault {
    fn from(body: FaultBody) -> Self {
        Self { retry_after_ms: body.retry_after_ms, ..Self::new(code(&body.code), body.message) }
    }
}

fn cut(message: &str) -> String {
    if message.len() <= MESSAGE_BYTES {
        return message.to_owned();
    }
    let end = (0..=MESSAGE_BYTES - '…'.len_utf8()).rev().find(|end| message.is_char_boundary(*end)).unwrap_or_default();
    format!("{}…", &message[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_back_as_it_was_written() {
        for code in ErrorCode::ALL {
            let fault = Fault::new(code, "channel: \"is\" missing").retry_after(250);
            let body: FaultBody = serde_json::from_str(&encode(&fault)).expect("an error");
            assert_eq!(Fault::from(body), fault);
        }
        assert_eq!(code("brand_new"), ErrorCode::Internal);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        for length in 0..4 {
            let cut = cut(&format!("{}{}", "x".repeat(length), "ü".repeat(2_000)));
            assert!((MESSAGE_BYTES - 1..=MESSAGE_BYTES).contains(&cut.len()), "{}", cut.len());
            assert!(cut.ends_with("ü…"));
        }
    }
}
