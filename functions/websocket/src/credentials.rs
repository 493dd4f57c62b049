//! Where a connecting client may put its token.

use crate::event::Event;
use carillon_wire::bearer;

/// The places, for the client that has none right.
pub(crate) const PLACES: &str = "it stands in the header Authorization: Bearer, in the query as token, \
                                 or in the list of subprotocols as bearer.<token> beside carillon.v1";

/// What a connecting client offers.
pub(crate) struct Offer<'a> {
    /// Every token; one that opens is enough.
    pub(crate) tokens: Vec<&'a str>,
    /// Whether the native subprotocol is to be echoed. A browser fails a connection whose list of subprotocols is not answered;
    /// API Gateway answers it with nothing but this echo.
    pub(crate) native: bool,
}

/// Looks in each place.
pub(crate) fn offered(event: &Event) -> Offer<'_> {
    let mut tokens: Vec<&str> = event.header("authorization").into_iter().filter_map(bearer::of_authorization).collect();
    tokens.extend(event.query_string_parameters.get(bearer::QUERY_PARAMETER).map(String::as_str));
    let mut native = false;
    for list in event.header("sec-websocket-protocol") {
        let offered = bearer::of_subprotocols(list);
        native |= offered.native;
        tokens.extend(offered.token);
    }
    Offer { tokens, native }
}
