//! Makes specifications of the template's resources, and names what is left out.

mod function;
mod iot;
mod mapping;
mod queue;
mod rule;
mod table;
mod websocket_api;

use std::path::Path;

use serde_json::Value;

use super::error::TemplateError;
use super::object::Object;
use super::resolver::{Resolver, Resource};
use super::{Endpoints, Inputs, Template, Unknown, kinds, parameters, physical};

/// Reads everything.
pub(super) fn read(root: &Value, folder: &Path, inputs: &Inputs, endpoints: &Endpoints) -> Result<Template, TemplateError> {
    let (values, unchecked) = parameters::resolve(root.get("Parameters"), &inputs.parameters)?;
    let secret = values.get("Secret").and_then(Value::as_str).map(str::to_owned);
    let resolver = Resolver::new(root, values, &inputs.identity, endpoints)?;
    let mut reader = Reader {
        resolver: &resolver,
        folder,
        template: Template { buses: vec!["default".to_owned()], secret, ..Template::default() },
    };
    for name in unchecked {
        reader.leave_out(
            &format!("Parameters.{name}.AllowedPattern"),
            "AllowedPattern",
            "is not checked here: it uses an expression that only AWS's engine knows",
            false,
        );
    }
    let resources = resolver.resources()?;
    for Resource { logical_id, kind, definition } in resources.iter().copied() {
        match kind {
            kinds::SERVERLESS_FUNCTION | kinds::LAMBDA_FUNCTION => function::read(&mut reader, logical_id, kind, definition)?,
            // These are read where they belong: with the function, and with the API.
            kinds::LAMBDA_URL | kinds::ROUTE_RESPONSE => {}
            kinds::EVENT_SOURCE_MAPPING => mapping::read_resource(&mut reader, logical_id)?,
            kinds::WEBSOCKET_API => websocket_api::read(&mut reader, logical_id)?,
            kinds::TABLE => table::read(&mut reader, logical_id)?,
            kinds::SIMPLE_TABLE => table::read_simple(&mut reader, logical_id)?,
            kinds::QUEUE => queue::read(&mut reader, logical_id)?,
            kinds::EVENT_BUS => rule::read_bus(&mut reader, logical_id)?,
            kinds::RULE => rule::read_resource(&mut reader, logical_id)?,
            kinds::TOPIC_RULE => iot::read_rule(&mut reader, logical_id)?,
            kinds::AUTHORIZER => iot::read_authorizer(&mut reader, logical_id)?,
            other => {
                let (meaning, harmless) = kinds::meaning(other);
                reader.leave_out(logical_id, other, meaning, harmless);
            }
        }
        let id = physical::reference(&resolver, logical_id)?;
        reader.template.resources.insert(logical_id.to_owned(), id);
    }
    function::attach_urls(&mut reader, &resources)?;
    websocket_api::attach_route_responses(&mut reader, &resources)?;
    reader.check_dead_letter_queues()?;
    reader.read_outputs(root)?;
    let Reader { mut template, .. } = reader;
    for function in &mut template.functions {
        for value in function.environment.values_mut() {
            *value = endpoints.localised(value, &template.websocket_apis, &inputs.identity);
        }
    }
    for value in template.outputs.values_mut() {
        *value = endpoints.localised(value, &template.websocket_apis, &inputs.identity);
    }
    Ok(template)
}

/// What the readers of the single kinds work on.
struct Reader<'a> {
    resolver: &'a Resolver<'a>,
    folder: &'a Path,
    template: Template,
}

impl Reader<'_> {
    fn leave_out(&mut self, logical_id: &str, kind: &str, meaning: impl Into<String>, harmless: bool) {
        self.template.unknown.push(Unknown {
            logical_id: logical_id.to_owned(),
            kind: kind.to_owned(),
            meaning: meaning.into(),
            harmless,
        });
    }

    /// The properties that a reader knows. Every other one that changes behaviour is named; `harmless` lists those that do not.
    fn properties(&mut self, logical_id: &str, kind: &str, read: &[&str], harmless: &[&str]) -> Result<Object, TemplateError> {
        let resolver = self.resolver;
        for name in resolver.property_names(logical_id) {
            if !read.contains(&name) && !harmless.contains(&name) {
                self.leave_out(&format!("{logical_id}.{name}"), kind, left_out_property(name), false);
            }
        }
        resolver.properties(logical_id, read)
    }

    /// The keys of a nested map that nobody reads.
    fn name_others(&mut self, logical_id: &str, kind: &str, object: &Object, known: &[&str]) {
        for name in object.values().keys().filter(|name| !known.contains(&name.as_str())) {
            self.leave_out(&format!("{logical_id}.{name}"), kind, left_out_property(name), false);
        }
    }

    /// The function that a property names.
    fn function(&self, object: &Object, property: &str) -> Result<String, TemplateError> {
        let text = object.required_string(property)?;
        physical::function_by_name(self.resolver, &text)?
            .ok_or_else(|| object.fault(property, format!("{text} is no function of this template")))
    }

    fn check_dead_letter_queues(&self) -> Result<(), TemplateError> {
        let queues = &self.template.queues;
        for queue in queues {
            let Some((arn, _)) = &queue.redrive else { continue };
            if !queues.iter().any(|other| other.arn == *arn) {
                return Err(TemplateError::at(
                    format!("Resources.{}.Properties.RedrivePolicy.deadLetterTargetArn", queue.logical_id),
                    format!("{arn} is no queue of this template"),
                ));
            }
        }
        for mapping in &self.template.sqs_mappings {
            if !queues.iter().any(|queue| queue.arn == mapping.queue_arn) {
                return Err(TemplateError::at(
                    format!("Resources.{}", mapping.function),
                    format!("has an event source {}, which is no queue of this template", mapping.queue_arn),
                ));
            }
        }
        Ok(())
    }

    fn read_outputs(&mut self, root: &Value) -> Result<(), TemplateError> {
        let Some(outputs) = root.get("Outputs").filter(|outputs| !outputs.is_null()) else { return Ok(()) };
        let outputs = outputs.as_object().ok_or_else(|| TemplateError::at("Outputs", "must be a map"))?;
        for (name, output) in outputs {
            let place = format!("Outputs.{name}");
            let output = output.as_object().ok_or_else(|| TemplateError::at(&place, "must be a map with a Value"))?;
            if !self.resolver.holds(output, &place)? {
                continue;
            }
            let value = output.get("Value").ok_or_else(|| TemplateError::at(format!("{place}.Value"), "is missing"))?;
            let value = self.resolver.resolve(value, &format!("{place}.Value"))?;
            let text = value.as_ref().and_then(parameters::scalar_text);
            let text = text.ok_or_else(|| TemplateError::at(format!("{place}.Value"), "must be a string"))?;
            self.template.outputs.insert(name.clone(), text);
        }
        Ok(())
    }
}

/// What leaving out a property means.
fn left_out_property(name: &str) -> String {
    match name {
        "DeadLetterQueue" | "DeadLetterConfig" => {
            format!("{name} is not emulated: an asynchronous event that failed three times is dropped, with a line in the log")
        }
        "Layers" => "Layers are not emulated: the function runs with its own files alone".to_owned(),
        "VpcConfig" => "VpcConfig is not emulated: the function reaches what this machine reaches".to_owned(),
        "Auth" => "Auth is not emulated: no authorizer is asked".to_owned(),
        _ => format!("the property {name} is not emulated"),
    }
}
