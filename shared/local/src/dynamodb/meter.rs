//! What stands before DynamoDB and counts: every call by operation and table, with the capacity that it consumed.
//!
//! The capacity is what dynoxide answers to `ReturnConsumedCapacity: TOTAL`, which is asked for in the name of callers that do not
//! and taken out of their answers again. An error carries none, so a failed condition counts as a call without units, where AWS
//! bills the write.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::aws_json;
use crate::calls::{Calls, Units};

/// The largest request, in bytes: that of a BatchWriteItem (Amazon DynamoDB Developer Guide, "Quotas": 16 MB).
const MAXIMUM_REQUEST_BYTES: usize = 16 * 1024 * 1024;

/// The largest answer that is looked into, in bytes; a page is 1 MB of items, which JSON may write several times as long. Our
/// choice.
const MAXIMUM_RESPONSE_BYTES: usize = 64 * 1024 * 1024;

/// The member of requests by which capacity is asked for, and the one of answers that has it.
const ASKED: &str = "ReturnConsumedCapacity";
const CONSUMED: &str = "ConsumedCapacity";

#[derive(Clone)]
struct Meter {
    client: Client<HttpConnector, Body>,
    dynamodb: SocketAddr,
    calls: Calls,
}

/// Which units an operation consumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Capacity {
    Read,
    Write,
    /// The operation says nothing of capacity.
    None,
}

/// What of a request matters here.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Named<'a> {
    #[serde(borrow)]
    table_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    stream_arn: Option<Cow<'a, str>>,
    #[serde(borrow)]
    request_items: Option<BTreeMap<Cow<'a, str>, &'a RawValue>>,
    #[serde(borrow)]
    transact_items: Option<Vec<BTreeMap<Cow<'a, str>, InTransaction<'a>>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InTransaction<'a> {
    #[serde(borrow)]
    table_name: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Consumed {
    One(ConsumedByTable),
    Many(Vec<ConsumedByTable>),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ConsumedByTable {
    #[serde(default)]
    capacity_units: f64,
}

/// A router that hands every request on to DynamoDB.
pub(super) fn router(dynamodb: SocketAddr, calls: Calls) -> Router {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).build(connector);
    Router::new().fallback(forward).with_state(Meter { client, dynamodb, calls })
}

async fn forward(State(meter): State<Meter>, request: Request) -> Response {
    let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok());
    let operation = target.and_then(|target| target.split_once('.')).map(|(_, operation)| operation.to_owned());
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAXIMUM_REQUEST_BYTES).await else {
        let message = format!("The request could not be read, or its body is over {MAXIMUM_REQUEST_BYTES} bytes.");
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        return aws_json::error(status, aws_json::VERSION_1_0, "RequestEntityTooLargeException", &message);
    };
    let Some(operation) = operation else { return meter.send(parts, body).await };
    let capacity = capacity_of(&operation);
    let table = table_of(&body);
    let asking = if capacity == Capacity::None { None } else { asking_for_capacity(&body) };
    let was_asked = asking.is_none();
    let response = meter.send(parts, asking.unwrap_or(body)).await;
    if capacity == Capacity::None || response.status() != StatusCode::OK {
        meter.calls.record("dynamodb", &operation, &table);
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAXIMUM_RESPONSE_BYTES).await else { return unreachable_answer() };
    let (units, stripped) = consumed(&body);
    let units = match capacity {
        Capacity::Write => Units { write: units, read: 0.0 },
        _ => Units { read: units, write: 0.0 },
    };
    meter.calls.record_with_units("dynamodb", &operation, &table, units);
    let body = match stripped {
        Some(stripped) if !was_asked => {
            // The checksum is of the body that has gone, and SDKs check it where it is there.
            parts.headers.remove("x-amz-crc32");
            parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(stripped.len()));
            Bytes::from(stripped)
        }
        _ => body,
    };
    Response::from_parts(parts, Body::from(body))
}

impl Meter {
    async fn send(&self, mut parts: Parts, body: Bytes) -> Response {
        let path = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str).to_owned();
        let uri = Uri::builder().scheme("http").authority(self.dynamodb.to_string()).path_and_query(path).build();
        parts.uri = uri.expect("an address is an authority");
        // The client sets those of its own connection and body.
        for name in [header::HOST, header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
            parts.headers.remove(name);
        }
        match self.client.request(Request::from_parts(parts, Body::from(body))).await {
            Ok(response) => response.map(Body::new).into_response(),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "DynamoDB could not be reached");
                unreachable_answer()
            }
        }
    }
}

fn unreachable_answer() -> Response {
    let message = "The local stack's DynamoDB could not be reached.";
    aws_json::error(StatusCode::INTERNAL_SERVER_ERROR, aws_json::VERSION_1_0, "InternalServerError", message)
}

fn capacity_of(operation: &str) -> Capacity {
    match operation {
        "BatchGetItem" | "GetItem" | "Query" | "Scan" | "TransactGetItems" => Capacity::Read,
        "BatchWriteItem" | "DeleteItem" | "PutItem" | "TransactWriteItems" | "UpdateItem" => Capacity::Write,
        _ => Capacity::None,
    }
}

/// The table of a request, or its tables in their order and joined by commas, or nothing.
fn table_of(body: &[u8]) -> String {
    let Ok(named) = serde_json::from_slice::<Named<'_>>(body) else { return String::new() };
    if let Some(table) = named.table_name {
        return table.into_owned();
    }
    if let Some(arn) = named.stream_arn {
        // …:table/<name>/stream/<label>
        return arn.split('/').nth(1).unwrap_or_default().to_owned();
    }
    let mut tables = BTreeSet::new();
    tables.extend(named.request_items.into_iter().flat_map(BTreeMap::into_keys));
    let actions = named.transact_items.into_iter().flatten().flat_map(BTreeMap::into_values);
    tables.extend(actions.filter_map(|action| action.table_name));
    tables.into_iter().collect::<Vec<_>>().join(",")
}

/// The request with the capacity asked for, or nothing where the caller asks for it, or where the request is none.
fn asking_for_capacity(body: &[u8]) -> Option<Bytes> {
    let mut members: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_slice(body).ok()?;
    if members.get(ASKED).is_some_and(|asked| asked.get() != "\"NONE\"") {
        return None;
    }
    let total = serde_json::from_str("\"TOTAL\"").expect("a text is JSON");
    members.insert(ASKED.into(), total);
    serde_json::to_vec(&members).ok().map(Bytes::from)
}

/// The units of an answer, and the answer without them.
fn consumed(body: &[u8]) -> (f64, Option<Vec<u8>>) {
    let Ok(mut members) = serde_json::from_slice::<BTreeMap<Cow<'_, str>, &RawValue>>(body) else { return (0.0, None) };
    let Some(consumed) = members.remove(CONSUMED) else { return (0.0, None) };
    let units = match serde_json::from_str(consumed.get()) {
        Ok(Consumed::One(table)) => table.capacity_units,
        Ok(Consumed::Many(tables)) => tables.iter().map(|table| table.capacity_units).sum(),
        Err(_) => 0.0,
    };
    (units, serde_json::to_vec(&members).ok())
}

#[cfg(test)]
mod tests {
    use super::{asking_for_capacity, consumed, table_of};

    #[test]
    fn every_form_of_a_request_names_its_tables() {
        for (body, expected) in [
            (r#"{"TableName":"a","Key":{"pk":{"S":"x"}}}"#, "a"),
            (r#"{"RequestItems":{"b":{"Keys":[]},"a":[]}}"#, "a,b"),
            (r#"{"TransactItems":[{"Put":{"TableName":"b"}},{"Update":{"TableName":"a"}},{"Delete":{"TableName":"b"}}]}"#, "a,b"),
            (r#"{"StreamArn":"arn:aws:dynamodb:us-east-1:1:table/a/stream/x"}"#, "a"),
            ("{}", ""),
            ("no JSON", ""),
        ] {
            assert_eq!(table_of(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn capacity_is_asked_for_where_the_caller_does_not() {
        let asked = |body: &str| asking_for_capacity(body.as_bytes()).map(|body| String::from_utf8_lossy(&body).into_owned());
        let expected = Some(r#"{"ReturnConsumedCapacity":"TOTAL","TableName":"a"}"#.to_owned());
        assert_eq!(asked(r#"{"TableName":"a"}"#), expected);
        assert_eq!(asked(r#"{"TableName":"a","ReturnConsumedCapacity":"NONE"}"#), expected);
        assert_eq!(asked(r#"{"TableName":"a","ReturnConsumedCapacity":"INDEXES"}"#), None);
        assert_eq!(asked("["), None);
    }

    #[test]
    fn consumed_capacity_is_added_up_and_taken_out() {
        let one = br#"{"Item":{"n":{"N":"1.0"}},"ConsumedCapacity":{"TableName":"a","CapacityUnits":0.5}}"#;
        assert_eq!(consumed(one), (0.5, Some(br#"{"Item":{"n":{"N":"1.0"}}}"#.to_vec())));
        let many = br#"{"ConsumedCapacity":[{"CapacityUnits":2.0},{"CapacityUnits":4.0}]}"#;
        assert_eq!(consumed(many), (6.0, Some(b"{}".to_vec())));
        assert_eq!(consumed(b"{}"), (0.0, None));
    }
}
