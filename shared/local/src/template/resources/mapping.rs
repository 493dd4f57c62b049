//! Event source mappings: `AWS::Lambda::EventSourceMapping` and the SAM event `SQS`.

use std::time::Duration;

use super::super::error::TemplateError;
use super::super::kinds;
use super::super::object::Object;
use super::Reader;
use crate::spec::SqsMappingSpec;

/// AWS::Lambda::EventSourceMapping in the CloudFormation Template Reference, for Amazon SQS.
const BATCH_SIZE: std::ops::RangeInclusive<u64> = 1..=10_000;
const DEFAULT_BATCH_SIZE: u64 = 10;
const WINDOW_SECONDS: std::ops::RangeInclusive<u64> = 0..=300;
const MAXIMUM_CONCURRENCY: std::ops::RangeInclusive<u64> = 2..=1000;
/// A larger batch needs a window, else AWS refuses the mapping.
const LARGEST_BATCH_WITHOUT_WINDOW: u64 = 10;

const READ: &[&str] = &[
    "BatchSize",
    "Enabled",
    "FilterCriteria",
    "FunctionResponseTypes",
    "MaximumBatchingWindowInSeconds",
    "ScalingConfig",
    "EventSourceArn",
    "FunctionName",
    "Queue",
];

/// A mapping that is a resource of its own.
pub(super) fn read_resource(reader: &mut Reader<'_>, logical_id: &str) -> Result<(), TemplateError> {
    let kind = kinds::EVENT_SOURCE_MAPPING;
    let properties = reader.properties(logical_id, kind, READ, &["Tags"])?;
    let source = properties.string("EventSourceArn")?.unwrap_or_default();
    if !source.contains(":sqs:") {
        reader.leave_out(
            logical_id,
            kind,
            "only mappings on SQS queues are emulated: this one sends its function nothing",
            false,
        );
        return Ok(());
    }
    let function = reader.function(&properties, "FunctionName")?;
    read(reader, logical_id, &function, &properties, source)
}

/// A mapping that SAM makes of a function's event.
pub(super) fn read_event(reader: &mut Reader<'_>, id: &str, function: &str, properties: &Object) -> Result<(), TemplateError> {
    reader.name_others(id, "SQS", properties, READ);
    let source = properties.required_string("Queue")?;
    read(reader, id, function, properties, source)
}

fn read(reader: &mut Reader<'_>, id: &str, function: &str, properties: &Object, queue_arn: String) -> Result<(), TemplateError> {
    if properties.boolean("Enabled")? == Some(false) {
        reader.leave_out(id, "SQS", "is disabled in the template, so the queue's messages stay where they are", true);
        return Ok(());
    }
    if properties.get("FilterCriteria").is_some() {
        reader.leave_out(
            &format!("{id}.FilterCriteria"),
            "SQS",
            "filters are not applied here: the function gets every message, and on AWS only those that match",
            false,
        );
    }
    let batch_size = properties.integer("BatchSize", BATCH_SIZE)?.unwrap_or(DEFAULT_BATCH_SIZE);
    let window = properties.integer("MaximumBatchingWindowInSeconds", WINDOW_SECONDS)?.unwrap_or(0);
    if batch_size > LARGEST_BATCH_WITHOUT_WINDOW && window == 0 {
        let fault =
            format!("{batch_size} is over {LARGEST_BATCH_WITHOUT_WINDOW} and needs MaximumBatchingWindowInSeconds of at least 1");
        return Err(properties.fault("BatchSize", fault));
    }
    let scaling = properties.object("ScalingConfig")?;
    let concurrency = scaling.map(|scaling| scaling.integer("MaximumConcurrency", MAXIMUM_CONCURRENCY)).transpose()?.flatten();
    let responses = properties.strings("FunctionResponseTypes")?;
    if let Some(other) = responses.iter().find(|response| *response != "ReportBatchItemFailures") {
        return Err(properties.fault("FunctionResponseTypes", format!("must be ReportBatchItemFailures, and {other} is not")));
    }
    reader.template.sqs_mappings.push(SqsMappingSpec {
        queue_arn,
        function: function.to_owned(),
        batch_size: usize::try_from(batch_size).expect("the range fits"),
        window: Duration::from_secs(window),
        maximum_concurrency: concurrency.map(|concurrency| usize::try_from(concurrency).expect("the range fits")),
        report_batch_item_failures: !responses.is_empty(),
    });
    Ok(())
}
