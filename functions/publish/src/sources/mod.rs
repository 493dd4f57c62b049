//! The sources of events. A new one is a file here and a row in [`detect`].

mod direct;
mod eventbridge;
mod http;
mod iot;
mod sqs;

use crate::{Handler, Invocation};
use carillon_core::fault::Fault;
use carillon_engine::ports::{Clock, Queue, Store};
use carillon_runtime::failure::InvocationFailure;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// Who invoked the function.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Http,
    Sqs,
    EventBridge,
    Iot,
    Direct,
    /// One that AWS has and this function does not serve, by its name in the event.
    Unserved(String),
}

/// Hands a payload to the source it is from.
pub(crate) async fn handle<S: Store, Q: Queue, C: Clock>(
    handler: &Handler<S, Q, C>,
    payload: &str,
    invocation: &Invocation,
) -> Result<String, InvocationFailure> {
    match detect(payload) {
        Source::Http => http::handle(handler, payload, invocation).await,
        Source::Sqs => sqs::handle(handler, payload, invocation).await,
        Source::EventBridge => eventbridge::handle(handler, payload, invocation).await,
        Source::Iot => iot::handle(handler, payload, invocation).await,
        Source::Direct => direct::handle(handler, payload, invocation).await,
        Source::Unserved(name) => {
            let fault = Fault::bad_request("eventSource", format_args!("{name:?} is not served; there is aws:sqs"));
            tracing::error!(source.name = name, "events of a source that is not served were refused");
            Err(InvocationFailure(fault))
        }
    }
}

/// What tells the sources apart, as AWS documents their events.
///
/// | source | told by |
/// |---|---|
/// | HTTP: a function URL, payload format 2.0 | `requestContext.http` |
/// | SQS | `Records[0].eventSource` is `aws:sqs` |
/// | SNS, S3, DynamoDB and Kinesis streams | another `Records[0].eventSource`, which SNS writes `EventSource` |
/// | EventBridge | `detail-type`, `source` and `detail` |
/// | a rule of IoT Core, whose envelope is our own | `topic`, `payload` and `client`, without `channel` and `specversion` |
/// | a direct invocation | none of these, which no message has: its fields are its own, and CloudEvents' names have no capital and no hyphen |
fn detect(payload: &str) -> Source {
    // What is an array, or has one of the names with another kind of value, can only be meant as a message.
    let Ok(shape) = serde_json::from_str::<Shape>(payload) else { return Source::Direct };
    if let Some(record) = shape.records.into_iter().flatten().next() {
        return match record.source {
            Some(source) if source == "aws:sqs" => Source::Sqs,
            source => Source::Unserved(source.unwrap_or_default()),
        };
    }
    if shape.request_context.is_some_and(|context| context.http.is_some()) {
        return Source::Http;
    }
    if shape.detail_type.is_some() && shape.source.is_some() && shape.detail.is_some() {
        return Source::EventBridge;
    }
    let enveloped = shape.topic.is_some() && shape.payload.is_some() && shape.client.is_some();
    if enveloped && shape.channel.is_none() && shape.specversion.is_none() {
        return Source::Iot;
    }
    Source::Direct
}

#[derive(Deserialize)]
struct Shape {
    #[serde(rename = "Records")]
    records: Option<Vec<Record>>,
    #[serde(rename = "requestContext")]
    request_context: Option<RequestContext>,
    #[serde(rename = "detail-type")]
    detail_type: Option<IgnoredAny>,
    source: Option<IgnoredAny>,
    detail: Option<IgnoredAny>,
    topic: Option<IgnoredAny>,
    payload: Option<IgnoredAny>,
    client: Option<IgnoredAny>,
    channel: Option<IgnoredAny>,
    specversion: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Record {
    #[serde(rename = "eventSource", alias = "EventSource")]
    source: Option<String>,
}

#[derive(Deserialize)]
struct RequestContext {
    http: Option<IgnoredAny>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_is_told_by_what_aws_documents() {
        for (payload, source) in [
            (r#"{"version":"2.0","requestContext":{"http":{"method":"GET"}}}"#, Source::Http),
            (r#"{"Records":[{"eventSource":"aws:sqs"}]}"#, Source::Sqs),
            (r#"{"Records":[{"EventSource":"aws:sns"}]}"#, Source::Unserved("aws:sns".to_owned())),
            (r#"{"Records":[{"eventSource":"aws:s3"}]}"#, Source::Unserved("aws:s3".to_owned())),
            (r#"{"detail-type":"x","source":"y","detail":{}}"#, Source::EventBridge),
            (r#"{"detail-type":"x","source":"y","detail":7}"#, Source::EventBridge),
            (r#"{"payload":"MQ==","topic":"t/p/a","client":"n/a"}"#, Source::Iot),
            (r#"{"payload":"MQ==","topic":"t/p/a","client":"c","trace":"e37e"}"#, Source::Iot),
            (r#"{"payload":"MQ==","topic":"t/p/a"}"#, Source::Direct),
            (r#"{"channel":"a","payload":"MQ==","topic":"t/p/a","client":"c"}"#, Source::Direct),
            (r#"{"specversion":"1.0","payload":"MQ==","topic":"t/p/a","client":"c"}"#, Source::Direct),
            (r#"{"channel":"a","source":"y"}"#, Source::Direct),
            (r#"[{"channel":"a"}]"#, Source::Direct),
            (r#"{"Records":7}"#, Source::Direct),
            ("7", Source::Direct),
        ] {
            assert_eq!(detect(payload), source, "{payload}");
        }
    }
}
