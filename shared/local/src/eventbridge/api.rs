//! The actions of EventBridge in its JSON protocol (Amazon EventBridge API Reference; botocore's model `events/2015-10-07`).

use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::EventBridge;
use crate::aws_json;

/// The most entries of one PutEvents.
pub const MAXIMUM_ENTRIES: usize = 10;

/// "The total entry size must be less than 256KB" (PutEvents). AWS's pages of 2026 still say so.
pub const MAXIMUM_BYTES: usize = 256 * 1024;

/// What a time counts towards the size (Amazon EventBridge User Guide, "Calculating PutEvents event entry size").
const TIME_BYTES: usize = 14;

/// The longest detail-type, in characters (PutEventsRequestEntry).
const MAXIMUM_DETAIL_TYPE: usize = 128;

/// Answers one action. `body` is the JSON of the request.
pub async fn respond(events: &EventBridge, action: &str, body: &[u8]) -> Response {
    let answer = match action {
        "PutEvents" => put_events(events, body),
        "ListEventBuses" => list_event_buses(events, body),
        "ListRules" => list_rules(events, body),
        "TestEventPattern" => test_event_pattern(body),
        _ => Err(Fault {
            kind: "UnknownOperationException",
            message: format!(
                "{action} is not an action of the local stack's EventBridge, which has PutEvents, ListEventBuses, ListRules and \
                 TestEventPattern. Buses and rules are those of the template."
            ),
        }),
    };
    match answer {
        Ok(body) => aws_json::response(StatusCode::OK, aws_json::VERSION_1_1, &body),
        Err(Fault { kind, message }) => aws_json::error(StatusCode::BAD_REQUEST, aws_json::VERSION_1_1, kind, &message),
    }
}

#[derive(Debug)]
struct Fault {
    kind: &'static str,
    message: String,
}

impl Fault {
    fn validation(message: impl Into<String>) -> Self {
        Self { kind: "ValidationException", message: message.into() }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutEventsRequest {
    entries: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    time: Option<f64>,
    source: Option<String>,
    #[serde(default)]
    resources: Vec<String>,
    detail_type: Option<String>,
    detail: Option<String>,
    event_bus_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListRequest {
    name_prefix: Option<String>,
    event_bus_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TestRequest {
    event_pattern: String,
    event: String,
}

fn parse<'b, Request: Deserialize<'b>>(body: &'b [u8]) -> Result<Request, Fault> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| Fault { kind: "SerializationException", message: error.to_string() })
}

fn put_events(events: &EventBridge, body: &[u8]) -> Result<Value, Fault> {
    let request: PutEventsRequest = parse(body)?;
    let entries = request.entries.unwrap_or_default();
    let constraint = |rule: &str| {
        Fault::validation(format!(
            "1 validation error detected: Value '[PutEventsRequestEntry]' at 'entries' failed to satisfy constraint: Member must have length {rule}"
        ))
    };
    if entries.is_empty() {
        return Err(constraint("greater than or equal to 1"));
    }
    if entries.len() > MAXIMUM_ENTRIES {
        return Err(constraint(&format!("less than or equal to {MAXIMUM_ENTRIES}")));
    }
    let total: usize = entries.iter().map(Entry::size).sum();
    if total >= MAXIMUM_BYTES {
        return Err(Fault::validation(format!(
            "Total size of the entries in the request is over the limit: {total} of {MAXIMUM_BYTES} bytes."
        )));
    }
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).expect("0 is a number of nanoseconds");
    let mut failed = 0;
    let mut results = Vec::with_capacity(entries.len());
    for entry in entries {
        match accept(events, entry, now) {
            Ok((bus, event)) => {
                events.deliver(&bus, &event);
                results.push(json!({"EventId": event["id"]}));
            }
            Err((code, message)) => {
                failed += 1;
                results.push(json!({"ErrorCode": code, "ErrorMessage": message}));
            }
        }
    }
    Ok(json!({"FailedEntryCount": failed, "Entries": results}))
}

impl Entry {
    fn size(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let resources: usize = self.resources.iter().map(String::len).sum();
        self.time.map_or(0, |_| TIME_BYTES) + text(&self.source) + text(&self.detail_type) + text(&self.detail) + resources
    }
}

/// Makes an event of an entry: the bus, and the JSON that rules match and targets receive.
fn accept(events: &EventBridge, entry: Entry, now: OffsetDateTime) -> Result<(String, Value), (&'static str, String)> {
    let required = |name: &str, value: Option<String>| {
        value
            .filter(|value| !value.is_empty())
            .ok_or_else(|| ("InvalidArgument", format!("Parameter {name} is not valid. Reason: {name} is a required argument.")))
    };
    let source = required("Source", entry.source)?;
    let detail_type = required("DetailType", entry.detail_type)?;
    let detail = required("Detail", entry.detail)?;
    if source.starts_with("aws.") {
        return Err(("NotAuthorizedForSourceException", "Not authorized for the source.".to_owned()));
    }
    if detail_type.chars().count() > MAXIMUM_DETAIL_TYPE {
        let reason = format!("Parameter DetailType is not valid. Reason: It has more than {MAXIMUM_DETAIL_TYPE} characters.");
        return Err(("InvalidArgument", reason));
    }
    let malformed = || ("MalformedDetail", "Detail is malformed.".to_owned());
    let detail: Map<String, Value> = serde_json::from_str(&detail).map_err(|_| malformed())?;
    // A name, or an ARN that ends with it.
    let bus = entry.event_bus_name.unwrap_or_else(|| "default".to_owned());
    let bus = bus.rsplit_once(":event-bus/").map_or(bus.as_str(), |(_, name)| name).to_owned();
    let at = match entry.time {
        None => now,
        Some(seconds) => from_seconds(seconds)
            .ok_or_else(|| ("InvalidArgument", "Parameter Time is not valid. Reason: It is out of range.".to_owned()))?,
    };
    if !events.has_bus(&bus) {
        // AWS accepts the entry and drops the event; here a mistyped name should be seen.
        tracing::warn!(bus.name = %bus, "an event went to a bus that the template does not have, and reaches nobody");
    }
    let event = json!({
        "version": "0",
        "id": uuid::Uuid::new_v4().to_string(),
        "detail-type": detail_type,
        "source": source,
        "account": events.shared.account,
        "time": at.format(&Rfc3339).map_err(|_| malformed())?,
        "region": events.shared.region,
        "resources": entry.resources,
        "detail": detail,
    });
    Ok((bus, event))
}

/// Events have whole seconds (Amazon EventBridge User Guide, "Events in Amazon EventBridge": `2017-12-22T18:43:48Z`).
fn from_seconds(seconds: f64) -> Option<OffsetDateTime> {
    #[expect(clippy::cast_possible_truncation, reason = "a number out of range saturates, and is then refused")]
    OffsetDateTime::from_unix_timestamp(seconds.floor() as i64).ok()
}

fn list_event_buses(events: &EventBridge, body: &[u8]) -> Result<Value, Fault> {
    let request: ListRequest = parse(body)?;
    let prefix = request.name_prefix.unwrap_or_default();
    let buses = events.shared.buses.iter().filter(|name| name.starts_with(&prefix));
    let buses = buses.map(|name| json!({"Name": name, "Arn": arn(events, &format!("event-bus/{name}"))})).collect::<Vec<_>>();
    Ok(json!({"EventBuses": buses}))
}

fn list_rules(events: &EventBridge, body: &[u8]) -> Result<Value, Fault> {
    let request: ListRequest = parse(body)?;
    let prefix = request.name_prefix.unwrap_or_default();
    let bus = request.event_bus_name.unwrap_or_else(|| "default".to_owned());
    let bus = bus.rsplit('/').next().unwrap_or_default();
    if !events.has_bus(bus) {
        return Err(Fault { kind: "ResourceNotFoundException", message: format!("Event bus {bus} does not exist.") });
    }
    let rules = events.shared.rules.iter().map(|rule| &rule.spec);
    let rules = rules.filter(|rule| rule.bus == bus && rule.logical_id.starts_with(&prefix)).map(|rule| {
        json!({
            "Name": rule.logical_id,
            "Arn": arn(events, &format!("rule/{}", rule.logical_id)),
            "EventPattern": rule.pattern.to_string(),
            "State": "ENABLED",
            "EventBusName": rule.bus,
        })
    });
    Ok(json!({"Rules": rules.collect::<Vec<_>>()}))
}

fn test_event_pattern(body: &[u8]) -> Result<Value, Fault> {
    let request: TestRequest = parse(body)?;
    let invalid = |message: String| Fault { kind: "InvalidEventPatternException", message };
    let pattern: Value = serde_json::from_str(&request.event_pattern).map_err(|error| invalid(error.to_string()))?;
    let pattern = super::pattern::Pattern::parse(&pattern).map_err(|error| invalid(error.to_string()))?;
    let event: Value = serde_json::from_str(&request.event).map_err(|error| Fault::validation(error.to_string()))?;
    Ok(json!({"Result": pattern.matches(&event)}))
}

fn arn(events: &EventBridge, resource: &str) -> String {
    format!("arn:aws:events:{}:{}:{resource}", events.shared.region, events.shared.account)
}
