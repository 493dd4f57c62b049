//! `AWS::Serverless::Function`, `AWS::Lambda::Function` and `AWS::Lambda::Url`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::super::error::TemplateError;
use super::super::object::Object;
use super::super::parameters::scalar_text;
use super::super::resolver::Resource;
use super::super::{kinds, physical};
use super::{Reader, iot, mapping, rule};
use crate::spec::{AsynchronousSpec, CodeSpec, CorsSpec, FunctionSpec, FunctionUrlSpec};

const READ: &[&str] = &[
    "FunctionName",
    "Runtime",
    "PackageType",
    "Handler",
    "CodeUri",
    "Code",
    "Environment",
    "Timeout",
    "MemorySize",
    "ReservedConcurrentExecutions",
    "FunctionUrlConfig",
    "EventInvokeConfig",
    "Events",
];
const HARMLESS: &[&str] = &[
    "Architectures",
    "AssumeRolePolicyDocument",
    "CodeSigningConfigArn",
    "DeploymentPreference",
    "Description",
    "EphemeralStorage",
    "KmsKeyArn",
    "LoggingConfig",
    "PermissionsBoundary",
    "Policies",
    "PropagateTags",
    "ProvisionedConcurrencyConfig",
    "RecursiveLoop",
    "Role",
    "RolePath",
    "RuntimeManagementConfig",
    "SourceKMSKeyArn",
    "Tags",
    "Tracing",
    "TracingConfig",
    "VersionDeletionPolicy",
];

/// Lambda's limits and defaults (AWS Lambda Developer Guide, "Lambda quotas"; AWS::Lambda::Function in the CloudFormation
/// Template Reference).
const TIMEOUT_SECONDS: std::ops::RangeInclusive<u64> = 1..=900;
const DEFAULT_TIMEOUT_SECONDS: u64 = 3;
const MEMORY_MB: std::ops::RangeInclusive<u64> = 128..=10_240;
const DEFAULT_MEMORY_MB: u64 = 128;
const MAXIMUM_ENVIRONMENT_BYTES: usize = 4096;

/// Reads one function and its event sources.
pub(super) fn read(
    reader: &mut Reader<'_>,
    logical_id: &str,
    kind: &str,
    resource: &Map<String, Value>,
) -> Result<(), TemplateError> {
    let properties = reader.properties(logical_id, kind, READ, HARMLESS)?;
    if properties.string("PackageType")?.is_some_and(|package| package != "Zip") {
        reader.leave_out(
            logical_id,
            kind,
            "is a container image and is not run: invoking it answers ResourceNotFoundException",
            false,
        );
        return Ok(());
    }
    let runtime = properties.required_string("Runtime")?;
    if !runtime.starts_with("provided.") {
        let meaning = format!(
            "needs the runtime {runtime} and is not run: only provided.al2023 is; invoking it answers ResourceNotFoundException"
        );
        reader.leave_out(logical_id, kind, meaning, false);
        return Ok(());
    }
    let name = physical::reference(reader.resolver, logical_id)?;
    let timeout = properties.integer("Timeout", TIMEOUT_SECONDS)?.unwrap_or(DEFAULT_TIMEOUT_SECONDS);
    let memory = properties.integer("MemorySize", MEMORY_MB)?.unwrap_or(DEFAULT_MEMORY_MB);
    let concurrency = properties.integer("ReservedConcurrentExecutions", 0..=u64::from(u32::MAX))?;
    let function = FunctionSpec {
        logical_id: logical_id.to_owned(),
        arn: reader.resolver.identity.function_arn(&name),
        name,
        code: code(reader, &properties, resource, logical_id)?,
        environment: environment(&properties)?,
        timeout: Duration::from_secs(timeout),
        memory_mb: u32::try_from(memory).expect("the range fits"),
        reserved_concurrency: concurrency.map(|concurrency| u32::try_from(concurrency).expect("the range fits")),
        url: match properties.object("FunctionUrlConfig")? {
            Some(url) => Some(function_url(reader, logical_id, kind, &url)?),
            None => None,
        },
        asynchronous: match properties.object("EventInvokeConfig")? {
            Some(config) => asynchronous(reader, logical_id, kind, &config)?,
            None => AsynchronousSpec::default(),
        },
    };
    reader.template.functions.push(function);
    match properties.object("Events")? {
        Some(events) if kind == kinds::SERVERLESS_FUNCTION => read_events(reader, logical_id, &events),
        _ => Ok(()),
    }
}

/// Reads `EventInvokeConfig` (AWS::Lambda::EventInvokeConfig in the CloudFormation Template Reference has the ranges).
fn asynchronous(
    reader: &mut Reader<'_>,
    logical_id: &str,
    kind: &str,
    config: &Object,
) -> Result<AsynchronousSpec, TemplateError> {
    let defaults = AsynchronousSpec::default();
    let retries = config.integer("MaximumRetryAttempts", 0..=2)?;
    let age = config.integer("MaximumEventAgeInSeconds", 60..=21_600)?;
    let destinations = config.object("DestinationConfig")?;
    let on_failure = destinations.as_ref().map(|destinations| destinations.object("OnFailure")).transpose()?.flatten();
    let on_failure = on_failure.map(|destination| destination.required_string("Destination")).transpose()?;
    let is_queue = |arn: &String| arn.split(':').nth(2) == Some("sqs");
    if on_failure.as_ref().is_some_and(|arn| !is_queue(arn)) {
        let meaning = "OnFailure is emulated for SQS queues alone: an event that is given up is dropped, with a line in the log";
        reader.leave_out(&format!("{logical_id}.EventInvokeConfig"), kind, meaning, false);
    }
    if destinations.is_some_and(|destinations| destinations.get("OnSuccess").is_some()) {
        let meaning = "OnSuccess is not emulated: nobody hears of events that succeed";
        reader.leave_out(&format!("{logical_id}.EventInvokeConfig"), kind, meaning, false);
    }
    Ok(AsynchronousSpec {
        maximum_retries: retries.map_or(defaults.maximum_retries, |retries| usize::try_from(retries).expect("the range fits")),
        maximum_age: age.map_or(defaults.maximum_age, Duration::from_secs),
        on_failure: on_failure.filter(is_queue),
    })
}

fn code(
    reader: &Reader<'_>,
    properties: &Object,
    resource: &Map<String, Value>,
    logical_id: &str,
) -> Result<CodeSpec, TemplateError> {
    let metadata = Object::new(
        format!("Resources.{logical_id}.Metadata"),
        resource.get("Metadata").and_then(Value::as_object).cloned().unwrap_or_default(),
    );
    if let Some(method) = metadata.string("BuildMethod")? {
        if method != "rust-cargolambda" {
            return Err(metadata.fault("BuildMethod", format!("must be rust-cargolambda, and {method} is not built here")));
        }
        let build = metadata.object("BuildProperties")?;
        let binary = build.as_ref().map(|build| build.string("Binary")).transpose()?.flatten();
        // Without Binary, cargo-lambda's workflow takes the handler's name.
        let handler = properties.string("Handler")?.filter(|handler| handler != "bootstrap");
        let binary = binary.or(handler).ok_or_else(|| {
            metadata.fault("BuildProperties.Binary", "is missing: it names the binary that cargo builds for this function")
        })?;
        return Ok(CodeSpec::Cargo { binary });
    }
    let property = if properties.get("CodeUri").is_some() { "CodeUri" } else { "Code" };
    let Some(Value::String(path)) = properties.get(property) else {
        return Err(properties.fault(property, "must be the path of a folder with the executable `bootstrap`"));
    };
    let path = reader.folder.join(path);
    if path.extension().is_some_and(|extension| extension == "zip") {
        return Err(properties.fault(property, "is a zip archive: unpack it and give the folder that holds `bootstrap`"));
    }
    let path = if path.is_dir() { path.join("bootstrap") } else { path };
    if !path.is_file() {
        return Err(properties.fault(property, format!("has no executable at {}", path.display())));
    }
    Ok(CodeSpec::Bootstrap { path })
}

fn environment(properties: &Object) -> Result<BTreeMap<String, String>, TemplateError> {
    let mut environment = BTreeMap::new();
    let Some(variables) = properties.object("Environment")?.map(|section| section.object("Variables")).transpose()?.flatten()
    else {
        return Ok(environment);
    };
    for (name, value) in variables.values() {
        let text = scalar_text(value).ok_or_else(|| variables.fault(name, "must be a string"))?;
        environment.insert(name.clone(), text);
    }
    let size: usize = environment.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > MAXIMUM_ENVIRONMENT_BYTES {
        let fault = format!("has {size} bytes of names and values, over Lambda's limit of {MAXIMUM_ENVIRONMENT_BYTES}");
        return Err(TemplateError::at(variables.place(), fault));
    }
    Ok(environment)
}

fn function_url(reader: &mut Reader<'_>, logical_id: &str, kind: &str, url: &Object) -> Result<FunctionUrlSpec, TemplateError> {
    let streaming = match url.string("InvokeMode")?.as_deref() {
        None | Some("BUFFERED") => false,
        Some("RESPONSE_STREAM") => true,
        Some(other) => {
            return Err(url.fault("InvokeMode", format!("must be BUFFERED or RESPONSE_STREAM, and {other} is neither")));
        }
    };
    match url.required_string("AuthType")?.as_str() {
        "NONE" => {}
        "AWS_IAM" => reader.leave_out(
            &format!("{logical_id}.AuthType"),
            kind,
            "signatures are not checked here: the function URL is open to whoever reaches this machine's port",
            false,
        ),
        other => return Err(url.fault("AuthType", format!("must be NONE or AWS_IAM, and {other} is neither"))),
    }
    reader.name_others(logical_id, kind, url, &["AuthType", "InvokeMode", "Cors", "TargetFunctionArn", "Qualifier"]);
    let cors = url.object("Cors")?.map(|cors| -> Result<_, TemplateError> {
        Ok(CorsSpec {
            allow_origins: cors.strings("AllowOrigins")?,
            allow_methods: cors.strings("AllowMethods")?,
            allow_headers: cors.strings("AllowHeaders")?,
            expose_headers: cors.strings("ExposeHeaders")?,
            allow_credentials: cors.boolean("AllowCredentials")?.unwrap_or(false),
            max_age: cors.integer("MaxAge", 0..=86_400)?.map(|seconds| u32::try_from(seconds).expect("the range fits")),
        })
    });
    Ok(FunctionUrlSpec { streaming, cors: cors.transpose()? })
}

/// `AWS::Lambda::Url` resources belong to functions that may come after them.
pub(super) fn attach_urls(reader: &mut Reader<'_>, resources: &[Resource<'_>]) -> Result<(), TemplateError> {
    for Resource { logical_id, kind, .. } in resources.iter().filter(|resource| resource.kind == kinds::LAMBDA_URL) {
        let properties =
            reader.properties(logical_id, kind, &["TargetFunctionArn", "AuthType", "InvokeMode", "Cors", "Qualifier"], &[])?;
        let target = reader.function(&properties, "TargetFunctionArn")?;
        let url = function_url(reader, logical_id, kind, &properties)?;
        let Some(function) = reader.template.functions.iter_mut().find(|function| function.logical_id == target) else {
            continue;
        };
        if function.url.is_some() {
            return Err(properties.fault("TargetFunctionArn", format!("{target} has a function URL already")));
        }
        function.url = Some(url);
    }
    Ok(())
}

fn read_events(reader: &mut Reader<'_>, logical_id: &str, events: &Object) -> Result<(), TemplateError> {
    for name in events.values().keys() {
        let event = events.object(name)?.ok_or_else(|| events.fault(name, "must be a map with a Type"))?;
        let properties = match event.object("Properties")? {
            Some(properties) => properties,
            None => Object::new(event.place_of("Properties"), Map::new()),
        };
        let id = format!("{logical_id}.{name}");
        let event_type = event.required_string("Type")?;
        match event_type.as_str() {
            "SQS" => mapping::read_event(reader, &id, logical_id, &properties)?,
            "EventBridgeRule" | "CloudWatchEvent" => rule::read_event(reader, &id, logical_id, &properties)?,
            "IoTRule" => iot::read_event(reader, &id, logical_id, &properties)?,
            "Schedule" | "ScheduleV2" => {
                reader.leave_out(&id, &event_type, "schedules are not run here: invoke the function by hand", false);
            }
            other => reader.leave_out(&id, other, "this event source is not emulated: it sends the function nothing", false),
        }
    }
    Ok(())
}
