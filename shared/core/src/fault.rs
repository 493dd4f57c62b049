//! Every error that a caller may see: one closed list of codes, and what each means on every wire.

use std::borrow::Cow;
use std::fmt;

/// What kind of error it is. The list is closed; a new wire adds a function here, never a new list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The request breaks a rule that its text names.
    BadRequest,
    /// No such action.
    UnknownAction,
    /// No token, or one that opens nothing.
    Unauthorized,
    /// The token was good once.
    TokenExpired,
    /// The token does not grant this.
    Forbidden,
    /// The thing named is not there.
    NotFound,
    /// Over a limit of size that its text names.
    TooLarge,
    /// Over a limit of rate.
    RateLimited,
    /// Somebody else changed the same thing.
    Conflict,
    /// Too many at once on one channel; the same request may succeed later.
    Busy,
    /// A service behind us did not answer; the same request may succeed later.
    Unavailable,
    /// Our fault.
    Internal,
}

/// What a client does about its connection after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconnect {
    /// The connection stays good.
    Stay,
    /// Connect again, with a new token.
    WithNewToken,
    /// Do not connect again with the same credentials.
    Never,
}

impl ErrorCode {
    /// Every code, for tables and tests.
    pub const ALL: [Self; 12] = [
        Self::BadRequest,
        Self::UnknownAction,
        Self::Unauthorized,
        Self::TokenExpired,
        Self::Forbidden,
        Self::NotFound,
        Self::TooLarge,
        Self::RateLimited,
        Self::Conflict,
        Self::Busy,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The code's name on the wire, and its label in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::UnknownAction => "unknown_action",
            Self::Unauthorized => "unauthorized",
            Self::TokenExpired => "token_expired",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::TooLarge => "too_large",
            Self::RateLimited => "rate_limited",
            Self::Conflict => "conflict",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status (RFC 9110 section 15, RFC 6585 section 4 for 429).
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::BadRequest | Self::UnknownAction => 400,
            Self::Unauthorized | Self::TokenExpired => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::RateLimited => 429,
            Self::Internal => 500,
            Self::Busy | Self::Unavailable => 503,
        }
    }

    /// The code of Connect and gRPC (Connect protocol, "Error Codes").
    #[must_use]
    pub const fn rpc_code(self) -> &'static str {
        match self {
            Self::BadRequest => "invalid_argument",
            Self::UnknownAction => "unimplemented",
            Self::Unauthorized | Self::TokenExpired => "unauthenticated",
            Self::Forbidden => "permission_denied",
            Self::NotFound => "not_found",
            Self::TooLarge => "out_of_range",
            Self::RateLimited => "resource_exhausted",
            Self::Conflict => "aborted",
            Self::Busy | Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    /// Whether the same request, sent again unchanged, may succeed.
    #[must_use]
    pub const fn retry(self) -> bool {
        matches!(self, Self::RateLimited | Self::Conflict | Self::Busy | Self::Unavailable | Self::Internal)
    }

    /// What the client does about its connection.
    #[must_use]
    pub const fn reconnect(self) -> Reconnect {
        match self {
            Self::TokenExpired => Reconnect::WithNewToken,
            Self::Unauthorized => Reconnect::Never,
            _ => Reconnect::Stay,
        }
    }
}

/// An error written for the caller: it names the field, the value's fault and the limit. The cause goes to the log only.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// What kind.
    pub code: ErrorCode,
    /// For people; no final dot.
    pub message: Cow<'static, str>,
    /// How long to wait before trying again, in milliseconds, where we know.
    pub retry_after_ms: Option<u32>,
}

impl Fault {
    /// An error of this kind.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), retry_after_ms: None }
    }

    /// A [`ErrorCode::BadRequest`] about `field`.
    #[must_use]
    pub fn bad_request(field: &str, fault: impl fmt::Display) -> Self {
        Self::new(ErrorCode::BadRequest, format!("{field}: {fault}"))
    }

    /// A [`ErrorCode::TooLarge`] about `field`.
    #[must_use]
    pub fn too_large(field: &str, found: usize, limit: usize) -> Self {
        Self::new(ErrorCode::TooLarge, format!("{field}: {found} bytes are over the limit of {limit}"))
    }

    /// An [`ErrorCode::Unavailable`]; what was done is safe to do again.
    #[must_use]
    pub fn unavailable() -> Self {
        Self::new(ErrorCode::Unavailable, "a service behind this one did not answer; the same request may be sent again")
            .retry_after(1_000)
    }

    /// An [`ErrorCode::Internal`].
    #[must_use]
    pub fn internal() -> Self {
        Self::new(ErrorCode::Internal, "an error on the server's side; its log says more")
    }

    /// The same with a time to wait, in milliseconds.
    #[must_use]
    pub fn retry_after(mut self, milliseconds: u32) -> Self {
        self.retry_after_ms = Some(milliseconds);
        self
    }

    /// The same about an element of a list: `events[3].` goes before the message.
    #[must_use]
    pub fn within(mut self, place: &str) -> Self {
        self.message = format!("{place}{}", self.message).into();
        self
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_has_a_name_of_its_own() {
        let names: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), ErrorCode::ALL.len());
    }

    #[test]
    fn an_error_that_may_be_tried_again_is_never_a_client_error_of_http_but_429_and_409() {
        for code in ErrorCode::ALL {
            let status = code.http_status();
            assert_eq!(code.retry(), status >= 500 || status == 429 || status == 409, "{code}");
        }
    }
}
