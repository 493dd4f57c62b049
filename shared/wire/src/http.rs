//! `POST /publish`. Specified in docs/protocol.md; the CloudEvents in it follow the HTTP protocol binding 1.0.2:
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md>.
//!
//! The same JSON is what a message of an SQS queue and a direct invocation carry, see [`decode_json`]. A request is taken or
//! refused as a whole: nothing of it is published when any of it is malformed.

use crate::cloudevents::{self, Defaults, Draft, SPEC_VERSION, data_of_bytes, essence};
use crate::fault::{self, FaultBody};
use crate::json::{self, Kind, Members, ObjectWriter, missing};
use carillon_core::channel::Channel;
use carillon_core::event::{Attribute, Event, Extension, ExtensionName};
use carillon_core::fault::{ErrorCode, Fault};
use carillon_core::limits::{EVENT_BYTES, PUBLISH_BATCH, PUBLISH_BYTES};
use carillon_core::position::{Epoch, Position};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The content type of every answer.
pub const ANSWER_TYPE: &str = "application/json";

/// What the header of a CloudEvents attribute begins with (section 3.1.3.1 of the binding).
const ATTRIBUTE_PREFIX: &str = "ce-";

/// What became of one event of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The event's channel.
    pub channel: String,
    /// The event's id.
    pub id: String,
    /// Where it is, or why it is not.
    pub fate: Result<Placed, Fault>,
}

/// Where a published event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its position; that of the first time, where it is a duplicate.
    pub position: Position,
    /// Whether the log had it already under the same source and id.
    pub duplicate: bool,
}

/// An answer as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The JSON of the body.
    pub body: String,
}

/// The answer cannot be read: it is none of ours.
#[derive(Debug, thiserror::Error)]
#[error("the answer is none to a publish")]
pub struct AnswerError(#[from] serde_json::Error);

/// Reads the body of a request with these headers; their names count in any case.
///
/// # Errors
/// When anything of it is malformed or over a limit; the fault names the field, in a list with the place of its element.
pub fn decode(headers: &[(&str, &str)], body: &[u8], defaults: &Defaults<'_>) -> Result<Vec<Event>, Fault> {
    if body.len() > PUBLISH_BYTES {
        return Err(Fault::too_large("body", body.len(), PUBLISH_BYTES));
    }
    let content_type = header(headers, "content-type");
    match content_type.map(essence).as_deref() {
        Some("application/cloudevents+json") => {
            let members = Members::of("body", json::parse("body", utf8(body)?)?)?;
            Ok(vec![cloudevents::decode(members, defaults, None)?])
        }
        Some("application/cloudevents-batch+json") => {
            list(json::parse("body", utf8(body)?)?, |members, place| cloudevents::decode(members, defaults, Some(place)))
        }
        Some(other) if other.starts_with("application/cloudevents") => Err(unserved(other)),
        _ if header(headers, "ce-specversion").is_some() => Ok(vec![binary(headers, content_type, body, defaults)?]),
        Some("application/json") => decode_json(utf8(body)?, defaults),
        Some(other) => Err(unserved(other)),
        None => Err(missing("content-type").within("header ")),
    }
}

/// Reads the JSON of a publish: one message or an array of them. A message that has `specversion` is a CloudEvent.
///
/// # Errors
/// As [`decode`].
pub fn decode_json(text: &str, defaults: &Defaults<'_>) -> Result<Vec<Event>, Fault> {
    let value = json::parse("body", text)?;
    if json::kind(value) == Kind::Array {
        return list(value, |members, place| message(members, defaults, Some(place)));
    }
    Ok(vec![message(Members::of("body", value)?, defaults, None)?])
}

/// The answer to a request that was taken. Its status is 200 if every event is published, so whoever looks at the status alone is
/// not deceived; else that of the first failure, which `error` then repeats.
#[must_use]
pub fn results(outcomes: &[Outcome]) -> Answer {
    let results: Vec<String> = outcomes.iter().map(result).collect();
    let results = format!("[{}]", results.join(","));
    let mut object = ObjectWriter::new();
    let first = outcomes.iter().find_map(|outcome| outcome.fate.as_ref().err());
    if let Some(fault) = first {
        object.raw("error", fault::encode(fault));
    }
    object.raw("results", results);
    Answer { status: first.map_or(200, |fault| fault.code.http_status()), body: object.finish() }
}

/// The answer to a request that was refused as a whole.
#[must_use]
pub fn refusal(fault: &Fault) -> Answer {
    let mut object = ObjectWriter::new();
    object.raw("error", fault::encode(fault));
    Answer { status: fault.code.http_status(), body: object.finish() }
}

/// Reads an answer's body, as a client does: what became of each event, or why the request was refused.
///
/// # Errors
/// When it is none of ours.
pub fn decode_answer(body: &[u8]) -> Result<Result<Vec<Outcome>, Fault>, AnswerError> {
    let body: AnswerBody = serde_json::from_slice(body)?;
    match (body.results, body.error) {
        (Some(results), _) => Ok(Ok(results.into_iter().map(ResultBody::outcome).collect::<Result<_, _>>()?)),
        (None, Some(error)) => Ok(Err(error.into())),
        (None, None) => Err(AnswerError(serde::de::Error::custom("neither results nor error"))),
    }
}

#[derive(Deserialize)]
struct AnswerBody {
    results: Option<Vec<ResultBody>>,
    error: Option<FaultBody>,
}

#[derive(Deserialize)]
struct ResultBody {
    channel: String,
    id: String,
    epoch: Option<String>,
    offset: Option<u64>,
    #[serde(default)]
    duplicate: bool,
    error: Option<FaultBody>,
}

impl ResultBody {
    fn outcome(self) -> Result<Outcome, serde_json::Error> {
        let fate = match (self.error, self.epoch, self.offset) {
            (Some(error), ..) => Err(error.into()),
            (None, Some(epoch), Some(offset)) => {
                let epoch: Epoch = epoch.parse().map_err(serde::de::Error::custom)?;
                Ok(Placed { position: Position::new(epoch, offset), duplicate: self.duplicate })
            }
            _ => return Err(serde::de::Error::custom("a result has neither a position nor an error")),
        };
        Ok(Outcome { channel: self.channel, id: self.id, fate })
    }
}

fn result(outcome: &Outcome) -> String {
    let mut object = ObjectWriter::new();
    object.string("channel", &outcome.channel);
    object.string("id", &outcome.id);
    match &outcome.fate {
        Ok(placed) => {
            object.string("epoch", &placed.position.epoch.to_string());
            object.raw("offset", placed.position.offset);
            object.raw("duplicate", placed.duplicate);
        }
        Err(fault) => {
            object.raw("error", fault::encode(fault));
        }
    }
    object.finish()
}

fn list<'text>(
    value: &'text RawValue,
    read: impl Fn(Members<'text>, usize) -> Result<Event, Fault>,
) -> Result<Vec<Event>, Fault> {
    let elements = json::elements("body", value)?;
    let found = elements.len();
    if found > PUBLISH_BATCH {
        let fault = format!("body: {found} messages are over the limit of {PUBLISH_BATCH}");
        return Err(Fault::new(ErrorCode::TooLarge, fault));
    }
    let events = elements.into_iter().enumerate().map(|(place, element)| {
        let members = Members::of(&format!("[{place}]"), element)?;
        read(members, place).map_err(|fault| fault.within(&format!("[{place}].")))
    });
    events.collect()
}

/// One message of plain JSON.
fn message(mut members: Members<'_>, defaults: &Defaults<'_>, place: Option<usize>) -> Result<Event, Fault> {
    if members.has("specversion") {
        return cloudevents::decode(members, defaults, place);
    }
    let channel = json::string("channel", members.need("channel")?)?;
    let channel = Channel::parse(&channel).map_err(|error| error.in_field("channel"))?;
    let draft = Draft {
        id: members.take_string("id")?,
        source: members.take_string("source")?,
        kind: members.take_string("type")?,
        data: members.take_nullable("data").map(cloudevents::plain_data).transpose()?,
        ..Draft::default()
    };
    members.finish(&["channel", "id", "type", "source", "data"])?;
    draft.into_event(channel, defaults, place)
}

/// Binary mode: attributes in headers, data in the body (section 3.1 of the binding).
fn binary(headers: &[(&str, &str)], content_type: Option<&str>, body: &[u8], defaults: &Defaults<'_>) -> Result<Event, Fault> {
    let mut draft = Draft::default();
    let mut subject = None;
    for (header, value) in headers {
        let Some(name) = attribute_name(header) else { continue };
        let value = header_value(header, value)?;
        match name.as_str() {
            "specversion" if value != SPEC_VERSION => {
                return Err(Fault::bad_request("ce-specversion", format_args!("{value:?} is not served; {SPEC_VERSION:?} is")));
            }
            "specversion" => {}
            "id" => draft.id = Some(value),
            "source" => draft.source = Some(value),
            "type" => draft.kind = Some(value),
            "subject" => subject = Some(value),
            "time" => draft.time = Some(value),
            "dataschema" => draft.schema = Some(value),
            _ => {
                let extension = Extension::Text(Attribute::try_new(&name, value, EVENT_BYTES)?);
                draft.extensions.push((ExtensionName::try_new(&name)?, extension));
            }
        }
    }
    let subject = subject.ok_or_else(|| missing("ce-subject"))?;
    let channel = Channel::parse(&subject).map_err(|error| error.in_field("ce-subject"))?;
    draft.require().map_err(|fault| fault.within("ce-"))?;
    if !body.is_empty() {
        draft.data = Some(data_of_bytes("body", content_type, body)?);
    }
    draft.into_event(channel, defaults, None)
}

fn attribute_name(header: &str) -> Option<String> {
    header.to_ascii_lowercase().strip_prefix(ATTRIBUTE_PREFIX).map(str::to_owned)
}

/// The value of an attribute's header: quotes are taken off, as older senders put them, then one round of percent-decoding
/// (section 3.1.3.2 of the binding).
fn header_value(name: &str, value: &str) -> Result<String, Fault> {
    let unquoted = unquote(value);
    let decoded = percent_decode_str(&unquoted).decode_utf8();
    let decoded = decoded.map_err(|_| Fault::bad_request(name, "is not UTF-8 after percent-decoding"))?;
    Ok(decoded.into_owned())
}

/// Takes the quotes off a quoted string (RFC 9110 section 5.6.4).
fn unquote(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return value.to_owned();
    };
    let mut text = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        text.push(if character == '\\' { characters.next().unwrap_or(character) } else { character });
    }
    text
}

fn header<'a>(headers: &[(&str, &'a str)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
}

fn utf8(body: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(body).map_err(|error| Fault::bad_request("body", format_args!("is not UTF-8: {error}")))
}

fn unserved(content_type: &str) -> Fault {
    let fault = format_args!(
        "{content_type:?} is not served; there are application/json, application/cloudevents+json, \
         application/cloudevents-batch+json, and any type with ce- headers"
    );
    Fault::bad_request("content-type", fault)
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::event::{Data, Identity};
    use carillon_core::time::Millis;
    use proptest::prelude::*;

    fn id(place: Option<usize>) -> String {
        place.map_or("made".to_owned(), |place| format!("made-{place}"))
    }

    fn defaults() -> Defaults<'static> {
        Defaults::unrepeatable("carillon:http", Millis(1_000), &id)
    }

    fn post(content_type: &str, body: &str) -> Result<Vec<Event>, String> {
        decode(&[("Content-Type", content_type)], body.as_bytes(), &defaults()).map_err(|fault| fault.message.into_owned())
    }

    #[track_caller]
    fn refused(content_type: &str, body: &str, message: &str) {
        assert_eq!(post(content_type, body).expect_err(body), message);
    }

    #[test]
    fn plain_json_is_one_message_or_a_list() {
        let events =
            post("application/json; charset=utf-8", r#"{"channel":"a","id":"7","type":"t","source":"s","data":{"x": 1}}"#);
        let events = events.expect("an event");
        assert_eq!((events.len(), events[0].data.clone()), (1, Data::Json(r#"{"x": 1}"#.into())));
        assert_eq!(events[0].identity, Some(Identity::new("s", "7")));
        let events = post("application/json", r#"[{"channel":"a"},{"channel":"b","data":null}]"#).expect("events");
        assert_eq!(events.iter().map(|event| event.id.as_str()).collect::<Vec<_>>(), ["made-0", "made-1"]);
        assert_eq!((&events[0].data, &events[1].data), (&Data::None, &Data::Json("null".into())));
        assert_eq!(post("application/json", "[]"), Ok(Vec::new()));
        let event = r#"{"specversion":"1.0","id":"7","source":"s","type":"t","subject":"a","traceid":"x"}"#;
        assert_eq!(post("application/json", event).expect("an event")[0].extensions.len(), 1);
    }

    #[test]
    fn cloudevents_are_taken_in_their_three_modes() {
        let event =
            r#"{"specversion":"1.0","id":"7","source":"s","type":"t","subject":"a/b","time":"2026-11-24T09:30:24Z","data":1}"#;
        let structured = post("application/cloudevents+json; charset=utf-8", event).expect("an event");
        let batch = post("application/cloudevents-batch+json", &format!("[{event}]")).expect("an event");
        let headers = [
            ("Ce-SpecVersion", "1.0"),
            ("ce-id", "7"),
            ("ce-source", "s"),
            ("ce-type", "t"),
            ("ce-subject", "a/b"),
            ("ce-time", "2026-11-24T09:30:24Z"),
            ("content-type", "application/json"),
            ("x-forwarded-for", "203.0.113.7"),
        ];
        let binary = decode(&headers, b"1", &defaults()).expect("an event");
        assert_eq!(cloudevents::encode(&structured[0]), event);
        assert_eq!((&batch, &binary), (&structured, &structured));
    }

    #[test]
    fn header_values_are_unquoted_and_percent_decoded_once() {
        for (value, text) in [
            ("plain", "plain"),
            ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
            ("100%2525", "100%25"),
            ("50% off %", "50% off %"),
            (r#""a \"quoted\" b\\c""#, r#"a "quoted" b\c"#),
            (r#"""#, r#"""#),
        ] {
            assert_eq!(header_value("ce-id", value).expect(value), text);
        }
        assert_eq!(header_value("ce-id", "%FF").expect_err("no UTF-8").message, "ce-id: is not UTF-8 after percent-decoding");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let json = "application/json";
        refused(json, "{", "body: is not JSON: EOF while parsing an object at line 1 column 1");
        refused(json, "7", "body: is a number, and an object is needed");
        refused(json, "{}", "channel: is missing");
        refused(json, r#"[{"channel":"a"},7]"#, "[1]: is a number, and an object is needed");
        refused(json, r#"[{"channel":"a"},{"channel":"a","id":7}]"#, "[1].id: is a number, and a string is needed");
        refused(json, r#"{"channel":"a","dta":1}"#, "dta: is no field here; there are channel, id, type, source, data");
        refused(
            "application/cloudevents+json",
            r#"{"specversion":"1.0","id":"1","source":"s","subject":"a"}"#,
            "type: is missing",
        );
        refused("application/cloudevents-batch+json", "{}", "body: is an object, and an array is needed");
        let there = "there are application/json, application/cloudevents+json, application/cloudevents-batch+json, and any type with ce- headers";
        refused("text/plain", "{}", &format!("content-type: \"text/plain\" is not served; {there}"));
        refused(
            "application/cloudevents+avro",
            "{}",
            &format!("content-type: \"application/cloudevents+avro\" is not served; {there}"),
        );
        assert_eq!(decode(&[], b"{}", &defaults()).expect_err("no type").message, "header content-type: is missing");
        let none = decode(&[("ce-specversion", "1.0"), ("ce-subject", "a"), ("ce-id", "1")], b"", &defaults());
        assert_eq!(none.expect_err("no source").message, "ce-source: is missing");
        let fault = decode(&[("content-type", json)], b"\xff", &defaults()).expect_err("no UTF-8");
        assert!(fault.message.starts_with("body: is not UTF-8: "), "{fault}");
    }

    #[test]
    fn the_limits_of_a_request_are_named() {
        let many = format!("[{}]", vec![r#"{"channel":"a"}"#; 101].join(","));
        refused("application/json", &many, "body: 101 messages are over the limit of 100");
        let fault = decode(&[], &vec![b' '; PUBLISH_BYTES + 1], &defaults()).expect_err("too large");
        assert_eq!((fault.code, &*fault.message), (ErrorCode::TooLarge, "body: 4194305 bytes are over the limit of 4194304"));
    }

    #[test]
    fn the_status_is_200_only_if_every_event_is_published() {
        let position = Position::new(Epoch(1_700), 1);
        let good = Outcome { channel: "a".into(), id: "1".into(), fate: Ok(Placed { position, duplicate: false }) };
        let bad = Outcome { channel: "b".into(), id: "2".into(), fate: Err(Fault::unavailable()) };
        let answer = results(std::slice::from_ref(&good));
        assert_eq!(
            (answer.status, &*answer.body),
            (200, r#"{"results":[{"channel":"a","id":"1","epoch":"1700","offset":1,"duplicate":false}]}"#)
        );
        let answer = results(&[good.clone(), bad.clone()]);
        assert_eq!(answer.status, 503);
        assert!(answer.body.starts_with(r#"{"error":{"code":"unavailable","#), "{}", answer.body);
        assert_eq!(decode_answer(answer.body.as_bytes()).expect("an answer"), Ok(vec![good, bad]));
        let fault = Fault::bad_request("channel", "is missing");
        let answer = refusal(&fault);
        assert_eq!(answer.status, 400);
        assert_eq!(decode_answer(answer.body.as_bytes()).expect("an answer"), Err(fault));
        for body in ["", "{}", r#"{"Message":null}"#, r#"{"results":[{"channel":"a","id":"1"}]}"#] {
            assert!(decode_answer(body.as_bytes()).is_err(), "{body}");
        }
    }

    proptest! {
        #[test]
        fn a_header_reads_back_as_the_binding_writes_it(text in "[^\\p{Cc}]{1,40}") {
            // Section 3.1.3.2: space, double quote, percent and whatever is not printable ASCII are encoded.
            let written: String = text
                .bytes()
                .map(|byte| match byte {
                    b' ' | b'"' | b'%' => format!("%{byte:02X}"),
                    0x21..=0x7e => char::from(byte).to_string(),
                    _ => format!("%{byte:02X}"),
                })
                .collect();
            prop_assert_eq!(header_value("ce-id", &written).expect("UTF-8"), text);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(
            body in proptest::collection::vec(any::<u8>(), 0..200), text in ".*", name in "ce-[a-z]{0,10}", value in ".*",
        ) {
            for content_type in ["application/json", "application/cloudevents+json", "application/cloudevents-batch+json", "text/plain"] {
                let headers = [("content-type", content_type), (name.as_str(), value.as_str()), ("ce-specversion", "1.0")];
                for headers in [&headers[..], &headers[..2]] {
                    let _ = decode(headers, &body, &defaults());
                    let _ = decode(headers, text.as_bytes(), &defaults());
                }
            }
            let _ = decode_answer(&body);
        }
    }
}
