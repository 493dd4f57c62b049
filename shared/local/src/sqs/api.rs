//! The actions of SQS in its JSON protocol (Amazon SQS API Reference; botocore's model `sqs/2012-11-05`).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::attributes::{MessageAttributes, md5_of};
use super::error::SqsError;
use super::queue::{Delivery, MAXIMUM_IN_FLIGHT, NewMessage, Receipt, VisibilityFault};
use super::{QueueCell, Sqs};
use crate::aws_json;

/// "The maximum is 1 MiB (1,048,576 bytes)", of a message and of a batch (SendMessageBatch).
pub const MAXIMUM_MESSAGE_BYTES: usize = 1_048_576;

/// The most entries of a batch, and of one receive.
pub const MAXIMUM_ENTRIES: usize = 10;

/// The longest poll in seconds.
const MAXIMUM_WAIT_SECONDS: i64 = 20;

/// The longest delay in seconds.
const MAXIMUM_DELAY_SECONDS: i64 = 900;

/// The longest visibility in seconds.
const MAXIMUM_VISIBILITY_SECONDS: i64 = 43_200;

/// Who sent every message: the shape of a user's id, as AWS gives it to callers with an access key.
pub(super) const SENDER_ID: &str = "AIDACARILLONLOCAL0000";

/// The largest page of ListQueues.
const MAXIMUM_QUEUES: usize = 1000;

/// Answers one action. `body` is the JSON of the request.
pub async fn respond(sqs: &Sqs, action: &str, body: &[u8]) -> Response {
    match answer(sqs, action, body).await {
        Ok(body) => aws_json::response(StatusCode::OK, aws_json::VERSION_1_0, &body),
        Err(error) => error.into_response(),
    }
}

async fn answer(sqs: &Sqs, action: &str, body: &[u8]) -> Result<Value, SqsError> {
    match action {
        "SendMessage" => send_message(sqs, &parse(body)?),
        "SendMessageBatch" => send_message_batch(sqs, &parse(body)?),
        "ReceiveMessage" => receive_message(sqs, parse(body)?).await,
        "DeleteMessage" => delete_message(sqs, &parse(body)?),
        "DeleteMessageBatch" => delete_message_batch(sqs, &parse(body)?),
        "ChangeMessageVisibility" => change_message_visibility(sqs, &parse(body)?),
        "ChangeMessageVisibilityBatch" => change_message_visibility_batch(sqs, &parse(body)?),
        "GetQueueUrl" => get_queue_url(sqs, &parse(body)?),
        "GetQueueAttributes" => get_queue_attributes(sqs, &parse(body)?),
        "PurgeQueue" => {
            let request: QueueRequest = parse(body)?;
            sqs.purge(queue(sqs, request.queue_url.as_deref())?);
            Ok(json!({}))
        }
        "ListQueues" => list_queues(sqs, &parse(body)?),
        "ListDeadLetterSourceQueues" => list_dead_letter_source_queues(sqs, &parse(body)?),
        "ListQueueTags" => {
            let request: QueueRequest = parse(body)?;
            queue(sqs, request.queue_url.as_deref())?;
            Ok(json!({"Tags": {}}))
        }
        "CreateQueue" | "DeleteQueue" | "SetQueueAttributes" | "AddPermission" | "RemovePermission" | "TagQueue"
        | "UntagQueue" => Err(SqsError::modelled(
            "UnsupportedOperation",
            format!("{action}: the local stack's queues are those of its template."),
        )),
        _ => Err(SqsError::modelled("UnsupportedOperation", format!("{action} is not an action of the local stack's SQS."))),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct QueueRequest {
    queue_url: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SendRequest {
    queue_url: Option<String>,
    #[serde(flatten)]
    entry: SendEntry,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SendEntry {
    id: Option<String>,
    message_body: Option<String>,
    delay_seconds: Option<i64>,
    message_attributes: Option<Value>,
    message_system_attributes: Option<Value>,
    message_group_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BatchRequest<Entry> {
    queue_url: Option<String>,
    #[serde(default = "Vec::new")]
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ReceiveRequest {
    queue_url: Option<String>,
    max_number_of_messages: Option<i64>,
    visibility_timeout: Option<i64>,
    wait_time_seconds: Option<i64>,
    #[serde(default)]
    attribute_names: Vec<String>,
    #[serde(default)]
    message_system_attribute_names: Vec<String>,
    #[serde(default)]
    message_attribute_names: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ReceiptEntry {
    id: Option<String>,
    queue_url: Option<String>,
    receipt_handle: Option<String>,
    visibility_timeout: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListRequest {
    queue_url: Option<String>,
    queue_name: Option<String>,
    queue_name_prefix: Option<String>,
    next_token: Option<String>,
    max_results: Option<usize>,
    #[serde(default)]
    attribute_names: Vec<String>,
}

fn parse<'b, Request: Deserialize<'b>>(body: &'b [u8]) -> Result<Request, SqsError> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body)
        .map_err(|error| SqsError::malformed(format!("The request is not the JSON of this action: {error}.")))
}

fn queue<'s>(sqs: &'s Sqs, url: Option<&str>) -> Result<&'s Arc<QueueCell>, SqsError> {
    sqs.by_url(url.ok_or_else(|| SqsError::missing_parameter("QueueUrl"))?)
}

fn send_message(sqs: &Sqs, request: &SendRequest) -> Result<Value, SqsError> {
    let queue = queue(sqs, request.queue_url.as_deref())?;
    let message = new_message(&request.entry)?;
    check_size(size_of(&message))?;
    Ok(Value::Object(sent(sqs, queue, message)))
}

fn send_message_batch(sqs: &Sqs, request: &BatchRequest<SendEntry>) -> Result<Value, SqsError> {
    let queue = queue(sqs, request.queue_url.as_deref())?;
    let ids = batch_ids(request.entries.iter().map(|entry| entry.id.as_deref()))?;
    let messages = request.entries.iter().map(new_message).collect::<Vec<_>>();
    let total: usize = messages.iter().flatten().map(size_of).sum();
    if total > MAXIMUM_MESSAGE_BYTES {
        return Err(SqsError::modelled(
            "BatchRequestTooLong",
            format!("Batch requests cannot be longer than {MAXIMUM_MESSAGE_BYTES} bytes. You have sent {total} bytes."),
        ));
    }
    Ok(batch_answer(ids.into_iter().zip(messages), |message| Ok(sent(sqs, queue, message?))))
}

fn sent(sqs: &Sqs, queue: &QueueCell, message: NewMessage) -> Map<String, Value> {
    let mut answer = Map::new();
    answer.insert("MD5OfMessageBody".to_owned(), md5_of(&message.body).into());
    if !message.attributes.is_empty() {
        answer.insert("MD5OfMessageAttributes".to_owned(), message.attributes.md5().into());
    }
    if let Some(header) = &message.trace_header {
        answer.insert("MD5OfMessageSystemAttributes".to_owned(), trace_attributes(header).md5().into());
    }
    answer.insert("MessageId".to_owned(), sqs.send(queue, message).into());
    answer
}

fn new_message(entry: &SendEntry) -> Result<NewMessage, SqsError> {
    let body =
        entry.message_body.clone().filter(|body| !body.is_empty()).ok_or_else(|| SqsError::missing_parameter("MessageBody"))?;
    if let Some(character) = body.chars().find(|character| !is_allowed(*character)) {
        let code = u32::from(character);
        return Err(SqsError::modelled(
            "InvalidMessageContents",
            format!(
                "Invalid binary character '#x{code:X}' was found in the message body, the set of allowed characters is #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF."
            ),
        ));
    }
    let delay = match entry.delay_seconds {
        None => None,
        Some(seconds) => Some(seconds_within("DelaySeconds", seconds, MAXIMUM_DELAY_SECONDS)?),
    };
    let system = MessageAttributes::parse(entry.message_system_attributes.as_ref())?;
    let trace_header = system.text("AWSTraceHeader").map(str::to_owned);
    if trace_header.is_none() && !system.is_empty() {
        return Err(SqsError::invalid_parameter("Message system attribute name is invalid: the only one is AWSTraceHeader."));
    }
    Ok(NewMessage {
        body,
        attributes: MessageAttributes::parse(entry.message_attributes.as_ref())?,
        trace_header,
        group_id: entry.message_group_id.clone(),
        delay,
    })
}

/// The characters that a message may have (SendMessage).
fn is_allowed(character: char) -> bool {
    matches!(character, '\u{9}' | '\u{A}' | '\u{D}' | '\u{20}'..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..='\u{10FFFF}')
}

fn size_of(message: &NewMessage) -> usize {
    message.body.len() + message.attributes.size()
}

fn check_size(size: usize) -> Result<(), SqsError> {
    if size <= MAXIMUM_MESSAGE_BYTES {
        return Ok(());
    }
    Err(SqsError::invalid_parameter(format!(
        "One or more parameters are invalid. Reason: Message must be shorter than {MAXIMUM_MESSAGE_BYTES} bytes."
    )))
}

async fn receive_message(sqs: &Sqs, request: ReceiveRequest) -> Result<Value, SqsError> {
    let queue = Arc::clone(queue(sqs, request.queue_url.as_deref())?);
    let maximum = request.max_number_of_messages.unwrap_or(1);
    let maximum = usize::try_from(maximum).ok().filter(|maximum| (1..=MAXIMUM_ENTRIES).contains(maximum)).ok_or_else(|| {
        SqsError::invalid_parameter(format!(
            "Value {maximum} for parameter MaxNumberOfMessages is invalid. Reason: Must be between 1 and {MAXIMUM_ENTRIES}, if provided."
        ))
    })?;
    let visibility = match request.visibility_timeout {
        None => queue.spec().visibility,
        Some(seconds) => seconds_within("VisibilityTimeout", seconds, MAXIMUM_VISIBILITY_SECONDS)?,
    };
    let wait = seconds_within("WaitTimeSeconds", request.wait_time_seconds.unwrap_or(0), MAXIMUM_WAIT_SECONDS)?;
    if sqs.counts(&queue).in_flight >= MAXIMUM_IN_FLIGHT {
        return Err(SqsError::modelled("OverLimit", format!("More than {MAXIMUM_IN_FLIGHT} messages are in flight.")));
    }
    let mut system = request.attribute_names;
    system.extend(request.message_system_attribute_names);
    let deliveries = sqs.receive(&queue, maximum, visibility, wait).await;
    if deliveries.is_empty() {
        return Ok(json!({}));
    }
    let messages = deliveries.iter().map(|delivery| received(delivery, &system, &request.message_attribute_names));
    Ok(json!({"Messages": messages.collect::<Vec<_>>()}))
}

fn received(delivery: &Delivery, system: &[String], attributes: &[String]) -> Value {
    let message = &delivery.message;
    let mut answer = json!({
        "MessageId": message.id,
        "ReceiptHandle": receipt_handle(delivery.receipt),
        "MD5OfBody": md5_of(&message.body),
        "Body": message.body,
    });
    let all = system.iter().any(|name| name == "All");
    let mut chosen = system_attributes(delivery);
    chosen.retain(|name, _| all || system.iter().any(|wanted| wanted == name));
    if !chosen.is_empty() {
        answer["Attributes"] = Value::Object(chosen);
    }
    let selected = message.attributes.selected(attributes);
    if !selected.is_empty() {
        answer["MD5OfMessageAttributes"] = selected.md5().into();
        answer["MessageAttributes"] = selected.to_api();
    }
    answer
}

/// What SQS itself knows of a message, every value a string.
pub(super) fn system_attributes(delivery: &Delivery) -> Map<String, Value> {
    let message = &delivery.message;
    let mut attributes = Map::new();
    let mut insert = |name: &str, value: String| attributes.insert(name.to_owned(), Value::String(value));
    insert("ApproximateReceiveCount", message.receives.to_string());
    if let Some(header) = &message.trace_header {
        insert("AWSTraceHeader", header.clone());
    }
    insert("SentTimestamp", message.sent_at.to_string());
    insert("SenderId", SENDER_ID.to_owned());
    insert("ApproximateFirstReceiveTimestamp", message.first_received_at.unwrap_or(message.sent_at).to_string());
    if let Some(group_id) = &message.group_id {
        insert("MessageGroupId", group_id.clone());
    }
    if let Some(source) = &message.dead_letter_source {
        insert("DeadLetterQueueSourceArn", source.clone());
    }
    attributes
}

/// An opaque text that names a receive.
pub(super) fn receipt_handle(receipt: Receipt) -> String {
    URL_SAFE_NO_PAD.encode(format!("carillon:{}:{}", receipt.number, receipt.receive))
}

fn receipt(handle: Option<&str>) -> Result<Receipt, SqsError> {
    let handle = handle.ok_or_else(|| SqsError::missing_parameter("ReceiptHandle"))?;
    let parsed = URL_SAFE_NO_PAD.decode(handle).ok().and_then(|bytes| {
        let text = String::from_utf8(bytes).ok()?;
        let (number, receive) = text.strip_prefix("carillon:")?.split_once(':')?;
        Some(Receipt { number: number.parse().ok()?, receive: receive.parse().ok()? })
    });
    parsed.ok_or_else(|| {
        SqsError::modelled(
            "ReceiptHandleIsInvalid",
            format!("The input receipt handle \"{handle}\" is not a valid receipt handle."),
        )
    })
}

fn delete_message(sqs: &Sqs, request: &ReceiptEntry) -> Result<Value, SqsError> {
    let queue = queue(sqs, request.queue_url.as_deref())?;
    sqs.delete(queue, receipt(request.receipt_handle.as_deref())?);
    Ok(json!({}))
}

fn delete_message_batch(sqs: &Sqs, request: &BatchRequest<ReceiptEntry>) -> Result<Value, SqsError> {
    let queue = queue(sqs, request.queue_url.as_deref())?;
    let ids = batch_ids(request.entries.iter().map(|entry| entry.id.as_deref()))?;
    Ok(batch_answer(ids.into_iter().zip(&request.entries), |entry| {
        sqs.delete(queue, receipt(entry.receipt_handle.as_deref())?);
        Ok(Map::new())
    }))
}

fn change_message_visibility(sqs: &Sqs, request: &ReceiptEntry) -> Result<Value, SqsError> {
    let queue = queue(sqs, request.queue_url.as_deref())?;
    change_one(sqs, queue, request)?;
    Ok(json!({}))
}

fn change_message_visibility_batch(sqs: &Sqs, request: &BatchRequest<ReceiptEntry>) -> Result<Value, SqsError> {
    let queue = queue(sqs, request.queue_url.as_deref())?;
    let ids = batch_ids(request.entries.iter().map(|entry| entry.id.as_deref()))?;
    Ok(batch_answer(ids.into_iter().zip(&request.entries), |entry| {
        change_one(sqs, queue, entry)?;
        Ok(Map::new())
    }))
}

fn change_one(sqs: &Sqs, queue: &QueueCell, entry: &ReceiptEntry) -> Result<(), SqsError> {
    let receipt = receipt(entry.receipt_handle.as_deref())?;
    let seconds = entry.visibility_timeout.ok_or_else(|| SqsError::missing_parameter("VisibilityTimeout"))?;
    let visibility = seconds_within("VisibilityTimeout", seconds, MAXIMUM_VISIBILITY_SECONDS)?;
    sqs.change_visibility(queue, receipt, visibility).map_err(|fault| {
        let handle = entry.receipt_handle.as_deref().unwrap_or_default();
        match fault {
            VisibilityFault::NotInFlight => SqsError::modelled("MessageNotInflight", "The specified message isn't in flight."),
            VisibilityFault::Gone => SqsError::invalid_parameter(format!(
                "Value {handle} for parameter ReceiptHandle is invalid. Reason: Message does not exist or is not available for visibility timeout change."
            )),
            VisibilityFault::TooLong => SqsError::invalid_parameter(format!(
                "Value {seconds} for parameter VisibilityTimeout is invalid. Reason: Total VisibilityTimeout for the message is beyond the limit [{MAXIMUM_VISIBILITY_SECONDS} seconds]."
            )),
        }
    })
}

fn get_queue_url(sqs: &Sqs, request: &ListRequest) -> Result<Value, SqsError> {
    let name = request.queue_name.as_deref().ok_or_else(|| SqsError::missing_parameter("QueueName"))?;
    sqs.by_name(name).ok_or_else(SqsError::no_such_queue)?;
    Ok(json!({"QueueUrl": sqs.url(name)}))
}

fn list_queues(sqs: &Sqs, request: &ListRequest) -> Result<Value, SqsError> {
    let prefix = request.queue_name_prefix.as_deref().unwrap_or_default();
    let maximum = request.max_results.unwrap_or(MAXIMUM_QUEUES);
    if !(1..=MAXIMUM_QUEUES).contains(&maximum) {
        return Err(SqsError::invalid_parameter(format!(
            "Value {maximum} for parameter MaxResults is invalid. Reason: Must be between 1 and {MAXIMUM_QUEUES}."
        )));
    }
    // The token is the last name of the page before.
    let after = request.next_token.as_deref().unwrap_or_default();
    let mut names = sqs.names().filter(|name| name.starts_with(prefix) && *name > after);
    let page = names.by_ref().take(maximum).collect::<Vec<_>>();
    let mut answer = Map::new();
    if !page.is_empty() {
        answer.insert("QueueUrls".to_owned(), page.iter().map(|name| sqs.url(name)).collect());
    }
    // Without MaxResults SQS gives no token.
    if let (Some(_), Some(last), Some(_)) = (request.max_results, page.last(), names.next()) {
        answer.insert("NextToken".to_owned(), Value::from(*last));
    }
    Ok(Value::Object(answer))
}

fn list_dead_letter_source_queues(sqs: &Sqs, request: &QueueRequest) -> Result<Value, SqsError> {
    let target = queue(sqs, request.queue_url.as_deref())?;
    let is_source = |name: &&str| {
        let redrive = sqs.by_name(name).and_then(|cell| cell.spec().redrive.as_ref());
        redrive.is_some_and(|(arn, _)| *arn == target.spec().arn)
    };
    Ok(json!({"queueUrls": sqs.names().filter(is_source).map(|name| sqs.url(name)).collect::<Vec<_>>()}))
}

fn get_queue_attributes(sqs: &Sqs, request: &ListRequest) -> Result<Value, SqsError> {
    const UNSET: [&str; 4] = ["Policy", "KmsMasterKeyId", "KmsDataKeyReusePeriodSeconds", "RedriveAllowPolicy"];
    const FIFO_ONLY: [&str; 4] = ["FifoQueue", "ContentBasedDeduplication", "DeduplicationScope", "FifoThroughputLimit"];
    let queue = queue(sqs, request.queue_url.as_deref())?;
    let (spec, counts) = (queue.spec(), sqs.counts(queue));
    let created = (queue.created_at / 1000).to_string();
    let mut attributes = Map::new();
    let mut insert = |name: &str, value: String| attributes.insert(name.to_owned(), Value::String(value));
    insert("ApproximateNumberOfMessages", counts.visible.to_string());
    insert("ApproximateNumberOfMessagesNotVisible", counts.in_flight.to_string());
    insert("ApproximateNumberOfMessagesDelayed", counts.delayed.to_string());
    insert("CreatedTimestamp", created.clone());
    insert("LastModifiedTimestamp", created);
    insert("DelaySeconds", spec.delay.as_secs().to_string());
    insert("MaximumMessageSize", MAXIMUM_MESSAGE_BYTES.to_string());
    insert("MessageRetentionPeriod", spec.retention.as_secs().to_string());
    insert("QueueArn", spec.arn.clone());
    insert("ReceiveMessageWaitTimeSeconds", "0".to_owned());
    insert("SqsManagedSseEnabled", "false".to_owned());
    insert("VisibilityTimeout", spec.visibility.as_secs().to_string());
    if let Some((arn, count)) = &spec.redrive {
        insert("RedrivePolicy", json!({"deadLetterTargetArn": arn, "maxReceiveCount": count}).to_string());
    }
    let wanted = &request.attribute_names;
    let known = |name: &str| {
        name == "All"
            || name == "RedrivePolicy"
            || attributes.contains_key(name)
            || UNSET.contains(&name)
            || FIFO_ONLY.contains(&name)
    };
    if let Some(name) = wanted.iter().find(|name| !known(name)) {
        return Err(SqsError::modelled("InvalidAttributeName", format!("Unknown Attribute {name}.")));
    }
    let all = wanted.iter().any(|name| name == "All");
    attributes.retain(|name, _| all || wanted.contains(name));
    Ok(if attributes.is_empty() { json!({}) } else { json!({"Attributes": attributes}) })
}

/// The ids of a batch's entries, checked as SQS does before it looks at the entries.
fn batch_ids<'e>(ids: impl Iterator<Item = Option<&'e str>>) -> Result<Vec<String>, SqsError> {
    let ids =
        ids.map(|id| id.map(str::to_owned).ok_or_else(|| SqsError::missing_parameter("Id"))).collect::<Result<Vec<_>, _>>()?;
    if ids.is_empty() {
        return Err(SqsError::modelled("EmptyBatchRequest", "There should be at least one entry in the request."));
    }
    if ids.len() > MAXIMUM_ENTRIES {
        return Err(SqsError::modelled(
            "TooManyEntriesInBatchRequest",
            format!("Maximum number of entries per request are {MAXIMUM_ENTRIES}. You have sent {}.", ids.len()),
        ));
    }
    let is_valid = |id: &String| {
        (1..=80).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if !ids.iter().all(is_valid) {
        return Err(SqsError::modelled(
            "InvalidBatchEntryId",
            "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most 80 letters long.",
        ));
    }
    let mut seen = HashSet::new();
    if let Some(repeated) = ids.iter().find(|id| !seen.insert(*id)) {
        return Err(SqsError::modelled("BatchEntryIdsNotDistinct", format!("Id {repeated} repeated.")));
    }
    Ok(ids)
}

fn batch_answer<Entry>(
    entries: impl Iterator<Item = (String, Entry)>,
    mut work: impl FnMut(Entry) -> Result<Map<String, Value>, SqsError>,
) -> Value {
    let (mut successful, mut failed) = (Vec::new(), Vec::new());
    for (id, entry) in entries {
        match work(entry) {
            Ok(mut answer) => {
                answer.insert("Id".to_owned(), id.into());
                successful.push(Value::Object(answer));
            }
            Err(error) => {
                failed.push(json!({"Id": id, "SenderFault": true, "Code": error.code(), "Message": error.to_string()}));
            }
        }
    }
    let mut answer = Map::new();
    if !successful.is_empty() {
        answer.insert("Successful".to_owned(), Value::Array(successful));
    }
    if !failed.is_empty() {
        answer.insert("Failed".to_owned(), Value::Array(failed));
    }
    Value::Object(answer)
}

fn seconds_within(name: &str, seconds: i64, maximum: i64) -> Result<Duration, SqsError> {
    if !(0..=maximum).contains(&seconds) {
        return Err(SqsError::invalid_parameter(format!(
            "Value {seconds} for parameter {name} is invalid. Reason: Must be >= 0 and <= {maximum}, if provided."
        )));
    }
    Ok(Duration::from_secs(seconds.unsigned_abs()))
}

fn trace_attributes(header: &str) -> MessageAttributes {
    MessageAttributes::one_text("AWSTraceHeader", header)
}
