//! What a client asks for: `GET /sse?channel=orders/42&channel=news`.

use super::vector::{LOST, PositionVector, VectorError};
use crate::position;
use carillon_core::channel::{Channel, ChannelError};
use carillon_core::fault::Fault;
use carillon_core::limits::STREAM_CHANNELS;
use carillon_core::position::Position;
use std::borrow::Cow;

/// The query parameter with the last `id`, for clients that cannot set the header.
const LAST_EVENT_ID: &str = "last_event_id";

/// The query's parameters.
const PARAMETERS: [&str; 5] = ["channel", "since", LAST_EVENT_ID, "named", "token"];

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The channels, 1 to [`STREAM_CHANNELS`], each once, with where the client was in it.
    pub channels: Vec<(Channel, Option<Position>)>,
    /// Whether messages come with their type as the event's name.
    pub named: bool,
}

/// Reads the query, as it stands in the URL, and the header `Last-Event-ID`, which goes before the query's `last_event_id`. Where
/// the id has a channel's position, that goes before the query's `since`: a browser that connects again repeats the query.
///
/// An id of a version that is not known here was given out by a newer server. It is no fault of the client's, whose `EventSource`
/// would never connect again after a refusal: all its channels resume with a gap.
///
/// # Errors
/// When a parameter is malformed, missing or none of ours, there are too many channels, or the id is none.
pub fn decode(query: &str, last_event_id: Option<&str>) -> Result<Request, Fault> {
    let query = Query::read(query)?;
    let channels = query.channels()?;
    let since = query.since(channels.len())?;
    let named = query.named()?;
    let vector = query.vector(last_event_id)?;
    let resumed = |channel: &Channel, since| match &vector {
        None => since,
        Some(Id::Known(vector)) => vector.position_of(channel).or(since),
        Some(Id::OfAnotherVersion) => Some(LOST),
    };
    let channels = channels.into_iter().zip(since).map(|(channel, since)| {
        let position = resumed(&channel, since);
        (channel, position)
    });
    Ok(Request { channels: channels.collect(), named })
}

/// The parameters in their order, decoded as those of an HTML form (URL standard, section 5.1).
struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

enum Id {
    Known(PositionVector),
    OfAnotherVersion,
}

impl<'a> Query<'a> {
    fn read(query: &'a str) -> Result<Self, Fault> {
        let parameters: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
        match parameters.iter().find(|(name, _)| !PARAMETERS.contains(&&**name)) {
            None => Ok(Self(parameters)),
            Some((name, _)) => {
                let known = PARAMETERS.join(", ");
                Err(Fault::bad_request(name, format_args!("is no parameter here; there are {known}")))
            }
        }
    }

    fn channels(&self) -> Result<Vec<Channel>, Fault> {
        let found = self.all("channel").count();
        if found == 0 {
            return Err(Fault::bad_request("channel", "is missing"));
        }
        if found > STREAM_CHANNELS {
            return Err(Fault::bad_request("channel", format_args!("{found} are over the limit of {STREAM_CHANNELS} a stream")));
        }
        let mut channels = Vec::with_capacity(found);
        for name in self.all("channel") {
            let channel = Channel::parse(name).map_err(|error| refused(&error))?;
            if channels.contains(&channel) {
                return Err(Fault::bad_request("channel", format_args!("{channel} stands there twice")));
            }
            channels.push(channel);
        }
        Ok(channels)
    }

    /// One for each channel in their order, or none at all.
    fn since(&self, channels: usize) -> Result<Vec<Option<Position>>, Fault> {
        let found = self.all("since").count();
        if found == 0 {
            return Ok(vec![None; channels]);
        }
        if found != channels {
            let fault =
                format_args!("there are {found} for {channels} channels; there is one for each, empty where it is unknown");
            return Err(Fault::bad_request("since", fault));
        }
        let read = |text: &str| if text.is_empty() { Ok(None) } else { position::decode_text("since", text).map(Some) };
        self.all("since").map(read).collect()
    }

    fn named(&self) -> Result<bool, Fault> {
        match self.one("named")? {
            None | Some("0") => Ok(false),
            Some("1") => Ok(true),
            Some(other) => Err(Fault::bad_request("named", format_args!("{other:?} is neither 0 nor 1"))),
        }
    }

    fn vector(&self, header: Option<&str>) -> Result<Option<Id>, Fault> {
        let (field, text) = match header.filter(|text| !text.is_empty()) {
            Some(text) => ("Last-Event-ID", text),
            None => (LAST_EVENT_ID, self.one(LAST_EVENT_ID)?.unwrap_or_default()),
        };
        if text.is_empty() {
            return Ok(None);
        }
        match PositionVector::decode(text) {
            Ok(vector) => Ok(Some(Id::Known(vector))),
            Err(VectorError::Version(_)) => Ok(Some(Id::OfAnotherVersion)),
            Err(error) => Err(Fault::bad_request(field, format_args!("is no id of this server's: {error}"))),
        }
    }

    fn all<'s>(&'s self, wanted: &'s str) -> impl Iterator<Item = &'s str> {
        self.0.iter().filter(move |(name, _)| name == wanted).map(|(_, value)| &**value)
    }

    /// The value of a parameter that stands there once at most.
    fn one(&self, wanted: &str) -> Result<Option<&str>, Fault> {
        let mut values = self.0.iter().filter(|(name, _)| name == wanted).map(|(_, value)| &**value);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            (_, Some(_)) => Err(Fault::bad_request(wanted, "stands there twice")),
        }
    }
}

fn refused(error: &ChannelError) -> Fault {
    match error {
        ChannelError::Wildcard(segment) => {
            Fault::bad_request("channel", format_args!("segment {segment} is a wildcard, and streams serve no patterns yet"))
        }
        other => other.in_field("channel"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::vector::Positions;
    use super::*;
    use carillon_core::position::Epoch;
    use proptest::prelude::*;

    fn channel(name: &str) -> Channel {
        Channel::parse(name).expect("a channel")
    }

    fn position(epoch: u64, offset: u64) -> Position {
        Position::new(Epoch(epoch), offset)
    }

    fn id(places: &[(&str, Position)]) -> String {
        let places: Vec<_> = places.iter().map(|(name, position)| (channel(name), *position)).collect();
        let mut positions = Positions::of(places.iter().map(|(channel, _)| channel));
        for (channel, position) in &places {
            positions.set(channel, *position);
        }
        positions.vector().encode()
    }

    #[track_caller]
    fn read(query: &str, header: Option<&str>) -> Vec<(String, Option<Position>)> {
        let request = decode(query, header).unwrap_or_else(|fault| panic!("{query}: {fault}"));
        request.channels.into_iter().map(|(channel, position)| (channel.to_string(), position)).collect()
    }

    #[track_caller]
    fn check(query: &str, header: Option<&str>, message: &str) {
        assert_eq!(decode(query, header).expect_err(query).message, message);
    }

    #[test]
    fn channels_come_in_their_order_and_escaped_or_not() {
        assert_eq!(read("channel=orders/42", None), [("orders/42".to_owned(), None)]);
        let two = [("b".to_owned(), None), ("orders/4:2".to_owned(), None)];
        assert_eq!(read("channel=b&token=x&channel=orders%2F4%3A2&named=0", None), two);
        assert!(decode("channel=a&named=1", None).expect("a request").named);
        assert!(!decode("channel=a", None).expect("a request").named);
    }

    #[test]
    fn positions_come_from_the_header_then_the_query_s_id_then_since() {
        let (old, new) = (id(&[("a", position(7, 1))]), id(&[("a", position(7, 2))]));
        let query = format!("channel=a&channel=b&since=7-0&since=7-9&last_event_id={old}");
        let of = |a, b| [("a".to_owned(), Some(a)), ("b".to_owned(), Some(b))];
        assert_eq!(read(&query, Some(&new)), of(position(7, 2), position(7, 9)));
        assert_eq!(read(&query, Some("")), of(position(7, 1), position(7, 9)));
        assert_eq!(
            read("channel=a&channel=b&since=&since=7-9", None),
            [("a".to_owned(), None), ("b".to_owned(), Some(position(7, 9)))]
        );
    }

    #[test]
    fn an_id_of_a_newer_server_makes_gaps_and_no_refusal() {
        assert_eq!(read("channel=a&since=7-1", Some("AgABAgM")), [("a".to_owned(), Some(LOST))]);
    }

    #[test]
    fn each_fault_names_its_parameter() {
        check("", None, "channel: is missing");
        check("channel=", None, "channel: a channel has 1 to 6 segments, and this one is empty");
        check("channel=a//b", None, "channel: segment 2 is empty: no channel begins or ends with '/' or holds '//'");
        check("channel=a/*", None, "channel: segment 2 is a wildcard, and streams serve no patterns yet");
        check("channel=a/**", None, "channel: segment 2 is a wildcard, and streams serve no patterns yet");
        check("channel=a&channel=b&channel=a", None, "channel: a stands there twice");
        let many: Vec<_> = (0..51).map(|number| format!("channel=c{number}")).collect();
        check(&many.join("&"), None, "channel: 51 are over the limit of 50 a stream");
        check("chanel=a", None, "chanel: is no parameter here; there are channel, since, last_event_id, named, token");
        check(
            "channel=a&since=7-1&since=7-2",
            None,
            "since: there are 2 for 1 channels; there is one for each, empty where it is unknown",
        );
        check("channel=a&since=41", None, "since: \"41\" is no position of the form <epoch>-<offset>");
        check("channel=a&named=yes", None, "named: \"yes\" is neither 0 nor 1");
        check("channel=a&named=1&named=1", None, "named: stands there twice");
        check("channel=a", Some("?"), "Last-Event-ID: is no id of this server's: it is not base64url without padding");
        check("channel=a&last_event_id=AQ", None, "last_event_id: is no id of this server's: it is cut off");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_decoder_panic(query in ".*", rest in ".*", header in proptest::option::of(".*")) {
            let _ = decode(&query, header.as_deref());
            let _ = decode(&format!("channel=a&{rest}"), header.as_deref());
        }
    }
}
