//! EventBridge: `AWS::Events::Rule`, `AWS::Events::EventBus` and the SAM events `EventBridgeRule` and `CloudWatchEvent`.

use serde_json::Value;

use super::super::error::TemplateError;
use super::super::object::Object;
use super::super::{kinds, physical};
use super::Reader;
use crate::spec::RuleSpec;

/// What a rule or its target may have that changes what the function receives.
const TRANSFORMS: &[&str] = &["Input", "InputPath", "InputTransformer"];

/// A bus of the template.
pub(super) fn read_bus(reader: &mut Reader<'_>, logical_id: &str) -> Result<(), TemplateError> {
    let harmless = &["Description", "KmsKeyIdentifier", "LogConfig", "Policy", "Tags"];
    let properties = reader.properties(logical_id, kinds::EVENT_BUS, &["Name"], harmless)?;
    // CloudFormation requires the name.
    let name = properties.required_string("Name")?;
    if !reader.template.buses.contains(&name) {
        reader.template.buses.push(name);
    }
    Ok(())
}

/// A rule that is a resource of its own.
pub(super) fn read_resource(reader: &mut Reader<'_>, logical_id: &str) -> Result<(), TemplateError> {
    let kind = kinds::RULE;
    let read = &["EventBusName", "EventPattern", "ScheduleExpression", "State", "Targets"];
    let properties = reader.properties(logical_id, kind, read, &["Description", "Name", "RoleArn", "Tags"])?;
    if is_disabled(reader, logical_id, kind, &properties)? {
        return Ok(());
    }
    if properties.get("ScheduleExpression").is_some() {
        reader.leave_out(logical_id, kind, "schedules are not run here: invoke the function by hand", false);
    }
    let Some(pattern) = properties.get("EventPattern").cloned() else {
        if properties.get("ScheduleExpression").is_none() {
            return Err(properties.fault("EventPattern", "is missing, and there is no ScheduleExpression either"));
        }
        return Ok(());
    };
    for target in properties.objects("Targets")? {
        let arn = target.required_string("Arn")?;
        let Some(function) = physical::function_by_name(reader.resolver, &arn)? else {
            let meaning = format!("the target {arn} is no function of this template and receives nothing");
            reader.leave_out(&format!("{logical_id}.Targets"), kind, meaning, false);
            continue;
        };
        name_transforms(reader, &format!("{logical_id}.Targets"), kind, &target);
        push(reader, logical_id, &function, &properties, "EventPattern", pattern.clone())?;
    }
    Ok(())
}

/// A rule that SAM makes of a function's event.
pub(super) fn read_event(reader: &mut Reader<'_>, id: &str, function: &str, properties: &Object) -> Result<(), TemplateError> {
    let kind = "EventBridgeRule";
    if is_disabled(reader, id, kind, properties)? {
        return Ok(());
    }
    name_transforms(reader, id, kind, properties);
    let known = ["EventBusName", "Pattern", "State", "Enabled", "RuleName", "Target", "DeadLetterConfig", "RetryPolicy"];
    let known = known.iter().chain(TRANSFORMS).copied().collect::<Vec<_>>();
    reader.name_others(id, kind, properties, &known);
    let pattern = properties.get("Pattern").cloned().ok_or_else(|| properties.fault("Pattern", "is missing"))?;
    push(reader, &id.replace('.', ""), function, properties, "Pattern", pattern)
}

fn is_disabled(reader: &mut Reader<'_>, id: &str, kind: &str, properties: &Object) -> Result<bool, TemplateError> {
    let state = properties.string("State")?;
    let disabled = state.as_deref() == Some("DISABLED") || properties.boolean("Enabled")? == Some(false);
    if disabled {
        reader.leave_out(id, kind, "is disabled in the template, so it sends nothing", true);
    }
    Ok(disabled)
}

fn name_transforms(reader: &mut Reader<'_>, id: &str, kind: &str, target: &Object) {
    for name in TRANSFORMS.iter().filter(|name| target.get(name).is_some()) {
        reader.leave_out(
            &format!("{id}.{name}"),
            kind,
            format!("{name} is not applied here: the function receives the whole event"),
            false,
        );
    }
    for name in ["DeadLetterConfig", "RetryPolicy"].iter().filter(|name| target.get(name).is_some()) {
        reader.leave_out(
            &format!("{id}.{name}"),
            kind,
            format!("{name} is not applied here: a failed invocation is retried twice and then dropped"),
            false,
        );
    }
}

fn push(
    reader: &mut Reader<'_>,
    id: &str,
    function: &str,
    properties: &Object,
    property: &str,
    pattern: Value,
) -> Result<(), TemplateError> {
    let bus = properties.string("EventBusName")?.unwrap_or_else(|| "default".to_owned());
    // An ARN ends with the name.
    let bus = bus.rsplit('/').next().unwrap_or_default().to_owned();
    if let Err(error) = crate::eventbridge::pattern::Pattern::parse(&pattern) {
        return Err(properties.fault(property, error.to_string()));
    }
    // A bus that only a parameter names exists elsewhere on AWS; here it begins to exist with its first rule.
    if !reader.template.buses.contains(&bus) {
        reader.template.buses.push(bus.clone());
    }
    reader.template.rules.push(RuleSpec { logical_id: id.to_owned(), bus, pattern, function: function.to_owned() });
    Ok(())
}
