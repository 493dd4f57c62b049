//! Bearer tokens: in `Authorization` (RFC 6750 section 2.1), and in a WebSocket's list of subprotocols (RFC 6455 section 11.3.4),
//! which is the only place where a browser can put one but the URL.

use crate::native::SUBPROTOCOL;

/// What stands before a token in a list of subprotocols. Such an item is never echoed.
pub const SUBPROTOCOL_PREFIX: &str = "bearer.";

/// The name of the query parameter that carries a token.
pub const QUERY_PARAMETER: &str = "token";

/// What a client offered in `Sec-WebSocket-Protocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offered<'a> {
    /// Whether Carillon's own subprotocol is among it; only then it is echoed.
    pub native: bool,
    /// The token, where one is among it.
    pub token: Option<&'a str>,
}

/// The token in the value of an `Authorization` header.
#[must_use]
pub fn of_authorization(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    // RFC 9110 section 11.1: the scheme's case does not count.
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start())
}

/// What the value of a `Sec-WebSocket-Protocol` header offers.
#[must_use]
pub fn of_subprotocols(value: &str) -> Offered<'_> {
    let mut offered = Offered::default();
    for item in value.split(',').map(str::trim) {
        offered.native |= item == SUBPROTOCOL;
        offered.token = offered.token.or(item.strip_prefix(SUBPROTOCOL_PREFIX));
    }
    offered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_bearer_in_any_case() {
        for value in ["Bearer x.y", "bearer x.y", "BEARER  x.y", " Bearer x.y "] {
            assert_eq!(of_authorization(value), Some("x.y"), "{value:?}");
        }
        for value in ["", "x.y", "Bearer", "Basic x.y", "Bearerx.y"] {
            assert_eq!(of_authorization(value), None, "{value:?}");
        }
    }

    #[test]
    fn a_list_of_subprotocols_is_read_with_and_without_spaces() {
        let both = Offered { native: true, token: Some("x.y") };
        for value in ["carillon.v1, bearer.x.y", "bearer.x.y,carillon.v1", " carillon.v1 ,mqtt,\tbearer.x.y "] {
            assert_eq!(of_subprotocols(value), both, "{value:?}");
        }
        assert_eq!(of_subprotocols("bearer.x"), Offered { native: false, token: Some("x") });
        for value in ["", ",", "mqtt", "Carillon.v1", "carillon.v1.1"] {
            assert_eq!(of_subprotocols(value), Offered::default(), "{value:?}");
        }
    }
}
