//! The errors that API Gateway itself sends to a client, byte for byte, the uneven spaces included.
//!
//! A client gets them as text frames on an open connection and as the body of a refused handshake.

use super::id::ConnectionId;

/// What API Gateway says of a message it could not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GatewayError {
    /// No route took the message.
    Forbidden,
    /// The function failed, crashed, ran into its own time limit or answered what no WebSocket API understands.
    InternalServerError,
    /// The function took longer than API Gateway waits (as seen in Kludex/mangum issue 128 and aws/chalice issue 1406).
    EndpointRequestTimedOut,
    /// The function was throttled at `$connect`.
    TooManyRequests,
    /// The local stack is about to end.
    ServiceUnavailable,
}

impl GatewayError {
    /// The text of the frame or body.
    pub(super) fn text(self, connection: &ConnectionId, request_id: &str) -> String {
        let message = self.message();
        format!(r#"{{"message": "{message}", "connectionId":"{connection}", "requestId":"{request_id}"}}"#)
    }

    fn message(self) -> &'static str {
        match self {
            Self::Forbidden => "Forbidden",
            Self::InternalServerError => "Internal server error",
            Self::EndpointRequestTimedOut => "Endpoint request timed out",
            Self::TooManyRequests => "Too Many Requests",
            Self::ServiceUnavailable => "Service Unavailable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_aws() {
        let connection = ConnectionId::parse("XDmENcnwIE0CFEQ=").expect("an id seen on AWS");
        assert_eq!(
            GatewayError::Forbidden.text(&connection, "XDmGEE2RoE0FRdQ="),
            r#"{"message": "Forbidden", "connectionId":"XDmENcnwIE0CFEQ=", "requestId":"XDmGEE2RoE0FRdQ="}"#
        );
        let connection = ConnectionId::parse("Llf4ceE2NjMCF7w=").expect("an id seen on AWS");
        assert_eq!(
            GatewayError::EndpointRequestTimedOut.text(&connection, "Llf7PFSNNjMFZeA="),
            r#"{"message": "Endpoint request timed out", "connectionId":"Llf4ceE2NjMCF7w=", "requestId":"Llf7PFSNNjMFZeA="}"#
        );
    }
}
