//! `AWS::SQS::Queue`.

use std::time::Duration;

use super::super::error::TemplateError;
use super::super::{kinds, physical};
use super::Reader;
use crate::spec::QueueSpec;

const READ: &[&str] = &[
    "QueueName",
    "FifoQueue",
    "ContentBasedDeduplication",
    "DeduplicationScope",
    "FifoThroughputLimit",
    "DelaySeconds",
    "MessageRetentionPeriod",
    "VisibilityTimeout",
    "RedrivePolicy",
];
const HARMLESS: &[&str] =
    &["KmsDataKeyReusePeriodSeconds", "KmsMasterKeyId", "RedriveAllowPolicy", "SqsManagedSseEnabled", "Tags"];

/// Reads one queue. Ranges and defaults: AWS::SQS::Queue in the CloudFormation Template Reference.
pub(super) fn read(reader: &mut Reader<'_>, logical_id: &str) -> Result<(), TemplateError> {
    let properties = reader.properties(logical_id, kinds::QUEUE, READ, HARMLESS)?;
    let name = physical::queue_name(reader.resolver, logical_id)?;
    let fifo = properties.boolean("FifoQueue")?.unwrap_or(false);
    if fifo != name.to_ascii_lowercase().ends_with(".fifo") {
        return Err(properties.fault("QueueName", "ends with .fifo exactly where FifoQueue is true"));
    }
    if fifo {
        reader.leave_out(
            logical_id,
            kinds::QUEUE,
            "is a FIFO queue and behaves like a standard one here: no order, no deduplication",
            false,
        );
    }
    let redrive = match properties.object("RedrivePolicy")? {
        Some(policy) => {
            let count = policy.integer("maxReceiveCount", 1..=1000)?;
            let count = count.ok_or_else(|| policy.fault("maxReceiveCount", "is missing"))?;
            Some((policy.required_string("deadLetterTargetArn")?, u32::try_from(count).expect("the range fits")))
        }
        None => None,
    };
    let visibility = properties.integer("VisibilityTimeout", 0..=43_200)?.unwrap_or(30);
    let delay = properties.integer("DelaySeconds", 0..=900)?.unwrap_or(0);
    let retention = properties.integer("MessageRetentionPeriod", 60..=1_209_600)?.unwrap_or(345_600);
    reader.template.queues.push(QueueSpec {
        logical_id: logical_id.to_owned(),
        arn: reader.resolver.identity.arn("sqs", &name),
        name,
        visibility: Duration::from_secs(visibility),
        delay: Duration::from_secs(delay),
        retention: Duration::from_secs(retention),
        redrive,
    });
    Ok(())
}
