//! CloudEvents 1.0.2 in the JSON event format (`application/cloudevents+json`):
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>.

use crate::json::{self, Kind, Members, ObjectWriter, missing};
use base64::prelude::{BASE64_STANDARD, Engine};
use carillon_core::channel::Channel;
use carillon_core::event::{Attribute, DEFAULT_TYPE, Data, Event, EventJson, Extension, ExtensionName, Identity};
use carillon_core::fault::Fault;
use carillon_core::limits::{EVENT_BYTES, EVENT_SOURCE_BYTES};
use carillon_core::position::Position;
use carillon_core::time::Millis;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The version of the specification that we read and write.
pub const SPEC_VERSION: &str = "1.0";

/// Bytes of `time`: a date, nine digits of a second and an offset take 35.
const TIME_BYTES: usize = 64;

/// Bytes of `datacontenttype`: RFC 6838 section 4.2 allows 127 for each half of a type; the rest is for parameters.
const CONTENT_TYPE_BYTES: usize = 512;

/// The content type of bytes whose publisher named none (RFC 2046 section 4.5.1).
const BYTES_TYPE: &str = "application/octet-stream";

/// The content type of data that names none (section 3.1 of the format).
const APPLICATION_JSON: &str = "application/json";

/// What an event gets that its publisher left out.
pub struct Defaults<'a> {
    /// The source.
    pub source: &'a str,
    /// The type; mostly [`DEFAULT_TYPE`].
    pub kind: &'a str,
    /// The time.
    pub time: Millis,
    /// Makes the id of an event, given its place in the list it came in.
    pub id: &'a dyn Fn(Option<usize>) -> String,
    /// Whether an id made here comes again when the same event is handed in again, so that the repeat is known as one.
    pub repeats: bool,
}

/// An event as far as its publisher described it.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) id: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) time: Option<String>,
    pub(crate) schema: Option<String>,
    pub(crate) data: Option<Data>,
    pub(crate) extensions: Vec<(ExtensionName, Extension)>,
}

/// The event as CloudEvents JSON. `subject` is the channel; data that is JSON already stands in it byte for byte as its
/// publisher wrote it.
#[must_use]
pub fn encode(event: &Event) -> String {
    let mut object = ObjectWriter::new();
    object.string("specversion", SPEC_VERSION);
    object.string("id", event.id.as_str());
    object.string("source", event.source.as_str());
    object.string("type", event.kind.as_str());
    object.string("subject", event.channel.as_str());
    object.string("time", event.time.as_str());
    // Without `datacontenttype` the data is application/json (section 3.1 of the format).
    match &event.data {
        Data::JsonOf { content_type, .. } | Data::Text { content_type, .. } | Data::Bytes { content_type, .. } => {
            object.string("datacontenttype", content_type.as_str());
        }
        Data::None | Data::Json(_) => {}
    }
    if let Some(schema) = &event.schema {
        object.string("dataschema", schema.as_str());
    }
    for (name, value) in &event.extensions {
        match value {
            Extension::Boolean(value) => object.raw(name.as_str(), value),
            Extension::Integer(value) => object.raw(name.as_str(), value),
            Extension::Text(value) => object.string(name.as_str(), value.as_str()),
        };
    }
    match &event.data {
        Data::None => {}
        Data::Json(json) | Data::JsonOf { json, .. } => {
            object.raw("data", json);
        }
        Data::Text { text, .. } => {
            object.string("data", text);
        }
        Data::Bytes { bytes, .. } => {
            object.string("data_base64", &BASE64_STANDARD.encode(bytes));
        }
    }
    object.finish()
}

/// The event with its position in it, as MQTT and SSE carry it: the members `epoch` and `offset` at its end. No event has them of
/// its own, since no extension can have their names.
///
/// None where the text is no JSON object, which the log never held.
#[must_use]
pub fn placed(event: &EventJson, position: Position) -> Option<String> {
    let members = event.as_str().strip_suffix('}')?;
    let comma = if members.trim_end().ends_with('{') { "" } else { "," };
    Some(format!(r#"{members}{comma}"epoch":"{}","offset":{}}}"#, position.epoch, position.offset))
}

/// A moment as RFC 3339 writes it, in UTC.
#[must_use]
pub fn encode_time(time: Millis) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(time.0) * 1_000_000)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        // Only a clock beyond the year 9999 comes here.
        .unwrap_or_else(|| "9999-12-31T23:59:59.999Z".to_owned())
}

/// Reads one event in the JSON format. All that the specification requires must be there, and `subject`, which is the channel.
pub(crate) fn decode(mut members: Members<'_>, defaults: &Defaults<'_>, place: Option<usize>) -> Result<Event, Fault> {
    check_version(&mut members, true)?;
    let subject = json::string("subject", members.need("subject")?)?;
    let channel = Channel::parse(&subject).map_err(|error| error.in_field("subject"))?;
    let draft = draft(members)?;
    draft.require()?;
    draft.into_event(channel, defaults, place)
}

/// Reads the `event` of a frame: an event in the JSON format whose channel stands beside it. What it leaves out is filled in;
/// `specversion` and `subject` may be there, so that a received event can be published again as it is.
pub(crate) fn decode_on(channel: Channel, mut members: Members<'_>, defaults: &Defaults<'_>) -> Result<Event, Fault> {
    check_version(&mut members, false)?;
    if let Some(subject) = members.take_string("subject")?
        && subject != channel.as_str()
    {
        return Err(Fault::bad_request("subject", format_args!("{subject:?} is not the channel, which is {channel}")));
    }
    draft(members)?.into_event(channel, defaults, None)
}

/// What makes data of bytes that came with a content type of their own, as in HTTP.
pub(crate) fn data_of_bytes(field: &str, content_type: Option<&str>, bytes: &[u8]) -> Result<Data, Fault> {
    let content_type = content_type.unwrap_or(BYTES_TYPE);
    let text = std::str::from_utf8(bytes);
    if is_json(content_type) {
        let text = text.map_err(|error| Fault::bad_request(field, format_args!("is not JSON: {error}")))?;
        return json_data(field, content_type, json::parse(field, text)?);
    }
    let content_type = content_type_attribute(content_type)?;
    match text {
        Ok(text) if is_text(content_type.as_str()) => Ok(Data::Text { content_type, text: text.to_owned() }),
        _ => Ok(Data::Bytes { content_type, bytes: bytes.to_vec() }),
    }
}

/// Data given as a JSON value without a content type.
pub(crate) fn plain_data(value: &RawValue) -> Result<Data, Fault> {
    json_data("data", APPLICATION_JSON, value)
}

/// The content type without its parameters, in lower case (RFC 9110 section 8.3.1).
pub(crate) fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

impl<'a> Defaults<'a> {
    /// Defaults with the usual type and ids that never come again.
    pub fn unrepeatable(source: &'a str, time: Millis, id: &'a dyn Fn(Option<usize>) -> String) -> Self {
        Self { source, kind: DEFAULT_TYPE, time, id, repeats: false }
    }

    /// Defaults with the usual type and ids that come again with their event.
    pub fn repeatable(source: &'a str, time: Millis, id: &'a dyn Fn(Option<usize>) -> String) -> Self {
        Self { source, kind: DEFAULT_TYPE, time, id, repeats: true }
    }
}

impl Draft {
    /// Refuses a draft without one of the attributes that the specification requires.
    pub(crate) fn require(&self) -> Result<(), Fault> {
        let required = [("id", &self.id), ("source", &self.source), ("type", &self.kind)];
        match required.into_iter().find(|(_, value)| value.is_none()) {
            Some((name, _)) => Err(missing(name)),
            None => Ok(()),
        }
    }

    /// The event, with what is left out filled in.
    pub(crate) fn into_event(self, channel: Channel, defaults: &Defaults<'_>, place: Option<usize>) -> Result<Event, Fault> {
        let named = self.id.is_some();
        let id = Attribute::id(self.id.unwrap_or_else(|| (defaults.id)(place)))?;
        let source = Attribute::source(self.source.unwrap_or_else(|| defaults.source.to_owned()))?;
        let kind = Attribute::kind(self.kind.unwrap_or_else(|| defaults.kind.to_owned()))?;
        let time = match self.time {
            Some(time) => time_attribute(time)?,
            None => Attribute::try_new("time", encode_time(defaults.time), TIME_BYTES)?,
        };
        let schema = self.schema.map(|schema| Attribute::try_new("dataschema", schema, EVENT_SOURCE_BYTES)).transpose()?;
        let identity = (named || defaults.repeats).then(|| Identity::new(source.as_str(), id.as_str()));
        let data = self.data.unwrap_or(Data::None);
        let event = Event { channel, id, source, kind, time, schema, data, extensions: self.extensions, identity };
        event.check()?;
        Ok(event)
    }
}

fn draft(mut members: Members<'_>) -> Result<Draft, Fault> {
    let content_type = members.take_string("datacontenttype")?;
    let data = match (members.take_nullable("data"), members.take_string("data_base64")?) {
        (Some(_), Some(_)) => return Err(Fault::bad_request("data_base64", "stands beside data; an event has one of the two")),
        (Some(value), None) => Some(member_data(content_type.as_deref(), value)?),
        (None, Some(text)) => Some(base64_data(content_type.as_deref(), &text)?),
        (None, None) => None,
    };
    let mut draft = Draft {
        id: members.take_string("id")?,
        source: members.take_string("source")?,
        kind: members.take_string("type")?,
        time: members.take_string("time")?,
        schema: members.take_string("dataschema")?,
        data,
        extensions: Vec::new(),
    };
    for (name, value) in members.rest() {
        let extension_name = ExtensionName::try_new(&name)?;
        if let Some(value) = extension(&name, value)? {
            draft.extensions.push((extension_name, value));
        }
    }
    Ok(draft)
}

fn check_version(members: &mut Members<'_>, required: bool) -> Result<(), Fault> {
    match members.take_string("specversion")? {
        None if required => Err(missing("specversion")),
        Some(version) if version != SPEC_VERSION => {
            Err(Fault::bad_request("specversion", format_args!("{version:?} is not served; {SPEC_VERSION:?} is")))
        }
        _ => Ok(()),
    }
}

/// `data`: a JSON value, or the text of a content type that is no JSON (section 3.1 of the format).
fn member_data(content_type: Option<&str>, value: &RawValue) -> Result<Data, Fault> {
    let content_type = content_type.unwrap_or(APPLICATION_JSON);
    if is_json(content_type) {
        return json_data("data", content_type, value);
    }
    let found = json::kind(value);
    if found != Kind::Text {
        let fault = format_args!("is {found}, and {} takes a string; bytes go into data_base64", essence(content_type));
        return Err(Fault::bad_request("data", fault));
    }
    Ok(Data::Text { content_type: content_type_attribute(content_type)?, text: json::string("data", value)? })
}

/// `data_base64`: bytes (section 3.1 of the format).
fn base64_data(content_type: Option<&str>, text: &str) -> Result<Data, Fault> {
    let bytes = BASE64_STANDARD.decode(text);
    let bytes = bytes.map_err(|_| Fault::bad_request("data_base64", "is not base64 of RFC 4648 section 4"))?;
    match content_type {
        Some(content_type) if is_json(content_type) => data_of_bytes("data_base64", Some(content_type), &bytes),
        content_type => Ok(Data::Bytes { content_type: content_type_attribute(content_type.unwrap_or(BYTES_TYPE))?, bytes }),
    }
}

fn json_data(field: &str, content_type: &str, value: &RawValue) -> Result<Data, Fault> {
    let json = json::data(field, value)?.into();
    if essence(content_type) == APPLICATION_JSON {
        return Ok(Data::Json(json));
    }
    Ok(Data::JsonOf { content_type: content_type_attribute(content_type)?, json })
}

/// An extension's value; one that is null counts as absent (section 2.2 of the format).
fn extension(name: &str, value: &RawValue) -> Result<Option<Extension>, Fault> {
    let fault = |found: &dyn std::fmt::Display| {
        let fault = format_args!("is {found}, and an extension attribute is a string, a boolean or a whole number of 32 bits");
        Fault::bad_request(name, fault)
    };
    Ok(Some(match json::kind(value) {
        Kind::Null => return Ok(None),
        Kind::Text => Extension::Text(Attribute::try_new(name, json::string(name, value)?, EVENT_BYTES)?),
        Kind::Boolean => Extension::Boolean(value.get() == "true"),
        Kind::Number => Extension::Integer(value.get().parse().map_err(|_| fault(&value.get()))?),
        found @ (Kind::Object | Kind::Array) => return Err(fault(&found)),
    }))
}

fn time_attribute(time: String) -> Result<Attribute, Fault> {
    let attribute = Attribute::try_new("time", time, TIME_BYTES)?;
    match OffsetDateTime::parse(attribute.as_str(), &Rfc3339) {
        Ok(_) => Ok(attribute),
        Err(_) => Err(Fault::bad_request("time", format_args!("{:?} is no date and time of RFC 3339", attribute.as_str()))),
    }
}

fn content_type_attribute(content_type: &str) -> Result<Attribute, Fault> {
    Attribute::try_new("datacontenttype", content_type, CONTENT_TYPE_BYTES)
}

/// Whether data of this type is a JSON value (section 3.1 of the format).
fn is_json(content_type: &str) -> bool {
    let essence = essence(content_type);
    let subtype = essence.split_once('/').map(|(_, subtype)| subtype).unwrap_or_default();
    subtype == "json" || subtype.ends_with("+json")
}

/// Whether bytes of this type that are UTF-8 can be told as text.
fn is_text(content_type: &str) -> bool {
    let essence = essence(content_type);
    let told_otherwise = content_type.to_ascii_lowercase().split(';').skip(1).any(|parameter| {
        let charset = parameter.trim().strip_prefix("charset=").map(|charset| charset.trim_matches('"').to_owned());
        charset.is_some_and(|charset| !matches!(charset.as_str(), "utf-8" | "utf8" | "us-ascii"))
    });
    let textual = essence.starts_with("text/") || essence.ends_with("/xml") || essence.ends_with("+xml");
    textual && !told_otherwise
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::position::Epoch;
    use proptest::prelude::*;

    fn defaults() -> Defaults<'static> {
        Defaults::unrepeatable("carillon:test", Millis(1_700_000_000_123), &|_| "made".to_owned())
    }

    fn read(text: &str) -> Result<Event, String> {
        let value = json::parse("event", text);
        let event = value.and_then(|value| Members::of("event", value)).and_then(|members| decode(members, &defaults(), None));
        event.map_err(|fault| fault.message.into_owned())
    }

    #[test]
    fn a_position_is_the_event_s_last_two_members() {
        let at = |json: &str| placed(&EventJson::from_log(json), Position::new(Epoch(1_700), 41));
        assert_eq!(at(r#"{"id":"1"}"#).as_deref(), Some(r#"{"id":"1","epoch":"1700","offset":41}"#));
        assert_eq!(at("{}").as_deref(), Some(r#"{"epoch":"1700","offset":41}"#));
        assert_eq!(at("7"), None);
    }

    #[track_caller]
    fn refused(rest: &str, message: &str) {
        let text = format!(r#"{{"specversion":"1.0","id":"1","source":"s","type":"t","subject":"a/b"{rest}}}"#);
        assert_eq!(read(&text).expect_err(rest), message);
    }

    #[test]
    fn every_kind_of_data_reads_back_as_it_was_written() {
        for data in [
            "",
            r#","data":{"total": 19.90,"big":123456789012345678901234567890}"#,
            r#","data":null"#,
            r#","datacontenttype":"application/vnd.example+json","data":[1,2]"#,
            r#","datacontenttype":"text/plain","data":"good \"morning\"\n""#,
            r#","datacontenttype":"application/octet-stream","data_base64":"AP8=""#,
        ] {
            let head = r#"{"specversion":"1.0","id":"1","source":"s","type":"t","subject":"a/b","time":"2026-11-24T09:30:24Z""#;
            let text = format!("{head}{data}}}");
            assert_eq!(encode(&read(&text).expect(&text)), text);
        }
    }

    #[test]
    fn each_fault_names_its_field() {
        refused(r#","data":1,"data_base64":"AA==""#, "data_base64: stands beside data; an event has one of the two");
        refused(r#","data_base64":"?""#, "data_base64: is not base64 of RFC 4648 section 4");
        refused(
            r#","datacontenttype":"text/plain","data":{}"#,
            "data: is an object, and text/plain takes a string; bytes go into data_base64",
        );
        refused(
            r#","datacontenttype":"application/json","data_base64":"AA==""#,
            "data_base64: is not JSON: expected value at line 1 column 1",
        );
        refused(r#","Type":"x""#, "Type: an extension attribute's name is 1 to 20 of a-z and 0-9");
        refused(r#","offset":1"#, "offset: the name is reserved and cannot be an extension attribute");
        refused(
            r#","traceid":{}"#,
            "traceid: is an object, and an extension attribute is a string, a boolean or a whole number of 32 bits",
        );
        refused(
            r#","size":4294967296"#,
            "size: is 4294967296, and an extension attribute is a string, a boolean or a whole number of 32 bits",
        );
        assert_eq!(read(r#"{"specversion":"1.0","id":"1","source":"s","type":"t"}"#).expect_err("none"), "subject: is missing");
        assert_eq!(read(r#"{"specversion":"0.3"}"#).expect_err("old"), r#"specversion: "0.3" is not served; "1.0" is"#);
        let many: String = (0..33).map(|number| format!(r#","x{number}":1"#)).collect();
        refused(&many, "extensions: 33 are over the limit of 32");
        let time = read(r#"{"specversion":"1.0","id":"1","source":"s","type":"t","subject":"a","time":"yesterday"}"#);
        assert_eq!(time.expect_err("no time"), r#"time: "yesterday" is no date and time of RFC 3339"#);
    }

    #[test]
    fn what_a_publisher_leaves_out_is_filled_in_and_an_id_made_here_names_no_repeat() {
        let channel = Channel::parse("a/b").expect("a channel");
        let members = |text| Members::of("event", json::parse("event", text).expect("JSON")).expect("an object");
        let event = decode_on(channel.clone(), members(r#"{"data":1}"#), &defaults()).expect("an event");
        assert_eq!(
            encode(&event),
            r#"{"specversion":"1.0","id":"made","source":"carillon:test","type":"carillon.message","subject":"a/b","time":"2023-11-14T22:13:20.123Z","data":1}"#
        );
        assert_eq!(event.identity, None);
        let event = decode_on(channel.clone(), members(r#"{"id":"7","subject":"a/b"}"#), &defaults()).expect("an event");
        assert_eq!(event.identity, Some(Identity::new("carillon:test", "7")));
        let fault = decode_on(channel, members(r#"{"subject":"a/c"}"#), &defaults()).expect_err("another channel");
        assert_eq!(fault.message, r#"subject: "a/c" is not the channel, which is a/b"#);
    }

    #[test]
    fn bytes_are_told_as_what_their_type_says() {
        let json = |text: &str| Ok(Data::Json(text.into()));
        assert_eq!(data_of_bytes("body", Some("Application/JSON; charset=utf-8"), b"{}"), json("{}"));
        let text = data_of_bytes("body", Some("text/plain"), "ü".as_bytes()).expect("text");
        assert!(matches!(text, Data::Text { text, .. } if text == "ü"));
        for (content_type, bytes) in [
            (Some("text/plain; charset=ISO-8859-1"), &b"\xfc"[..]),
            (Some("text/plain; charset=ISO-8859-1"), b"u"),
            (Some("text/plain"), b"\xfc"),
            (Some("image/png"), b"png"),
            (None, b"x"),
        ] {
            let data = data_of_bytes("body", content_type, bytes).expect("bytes");
            assert!(matches!(data, Data::Bytes { bytes: kept, .. } if kept == bytes), "{content_type:?}");
        }
    }

    #[test]
    fn a_clock_out_of_its_mind_makes_a_time_still() {
        assert_eq!(encode_time(Millis(0)), "1970-01-01T00:00:00Z");
        assert_eq!(encode_time(Millis(u64::MAX)), "9999-12-31T23:59:59.999Z");
    }

    fn attribute() -> impl Strategy<Value = String> {
        "[^\\p{Cc}]{1,40}"
    }

    fn data() -> impl Strategy<Value = Data> {
        let content_type = |text: &str| Attribute::try_new("datacontenttype", text, 64).expect("a type");
        prop_oneof![
            Just(Data::None),
            ".*".prop_map(|text| Data::Json(json::quote(&text).into())),
            any::<i64>().prop_map(move |number| Data::JsonOf {
                content_type: content_type("application/x+json"),
                json: format!("[{number}]").into()
            }),
            ".*".prop_map(move |text| Data::Text { content_type: content_type("text/plain"), text }),
            proptest::collection::vec(any::<u8>(), 0..50)
                .prop_map(move |bytes| Data::Bytes { content_type: content_type("image/png"), bytes }),
        ]
    }

    fn extensions() -> impl Strategy<Value = Vec<(ExtensionName, Extension)>> {
        let value = prop_oneof![
            any::<bool>().prop_map(Extension::Boolean),
            any::<i32>().prop_map(Extension::Integer),
            attribute().prop_map(|text| Extension::Text(Attribute::try_new("x", text, 400).expect("no control characters"))),
        ];
        proptest::collection::btree_map("x[a-z0-9]{0,19}", value, 0..5).prop_map(|map| {
            map.into_iter().map(|(name, value)| (ExtensionName::try_new(&name).expect("a name"), value)).collect()
        })
    }

    proptest! {
        #[test]
        fn an_event_reads_back_as_it_was_written(
            id in attribute(), source in attribute(), kind in attribute(), schema in proptest::option::of(attribute()),
            data in data(), extensions in extensions(), time in 0..253_402_300_800_000_u64,
        ) {
            let event = Event {
                channel: Channel::parse("a/b").expect("a channel"),
                identity: Some(Identity::new(&source, &id)),
                id: Attribute::id(id).expect("an id"),
                source: Attribute::source(source).expect("a source"),
                kind: Attribute::kind(kind).expect("a type"),
                time: Attribute::try_new("time", encode_time(Millis(time)), 64).expect("a time"),
                schema: schema.map(|schema| Attribute::try_new("dataschema", schema, 512).expect("a schema")),
                data,
                extensions,
            };
            prop_assert_eq!(read(&encode(&event)), Ok(event));
        }

        #[test]
        fn no_text_makes_the_decoder_panic(text in ".*", rest in ".*") {
            let _ = read(&text);
            let _ = read(&format!(r#"{{"specversion":"1.0","id":"1","source":"s","type":"t","subject":"a/b",{rest}}}"#));
        }
    }
}
