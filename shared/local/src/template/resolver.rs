//! Resolves the intrinsics: `Ref`, `Fn::Sub` and their kin become the values they stand for.
//!
//! The behaviour is that of the AWS CloudFormation User Guide, "Intrinsic function reference".

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::error::TemplateError;
use super::globals;
use super::object::Object;
use super::parameters::scalar_text;
use super::physical;
use super::{Endpoints, Identity};

/// The template with everything that its values may refer to.
pub(super) struct Resolver<'a> {
    /// The account, the region and the stack's name.
    pub(super) identity: &'a Identity,
    /// Where the front doors listen.
    pub(super) endpoints: &'a Endpoints,
    root: &'a Value,
    parameters: BTreeMap<String, Value>,
    /// `Resources`, with `Globals` merged in.
    resources: Map<String, Value>,
    /// Logical ids that SAM's transform makes, with the resource that each comes from.
    generated: BTreeMap<String, Generated>,
    /// What is being resolved right now, to find a circle.
    busy: RefCell<Vec<String>>,
}

/// A resource that the template writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resource<'r> {
    pub(super) logical_id: &'r str,
    pub(super) kind: &'r str,
    /// The whole of it, `Metadata` and `Condition` included.
    pub(super) definition: &'r Map<String, Value>,
}

/// A resource that the template does not write but SAM's transform makes.
#[derive(Clone, Debug)]
pub(super) enum Generated {
    /// `<Function>Url`: an `AWS::Lambda::Url` of the function.
    FunctionUrl(String),
    /// Anything else (a route, a stage, a role): its physical id, and its ARN where it has one.
    Other { id: String, arn: Option<String> },
}

const PSEUDO_PARAMETERS: &str = "AWS::AccountId, AWS::NotificationARNs, AWS::NoValue, AWS::Partition, AWS::Region, AWS::StackId, AWS::StackName, AWS::URLSuffix";

impl<'a> Resolver<'a> {
    pub(super) fn new(
        root: &'a Value,
        parameters: BTreeMap<String, Value>,
        identity: &'a Identity,
        endpoints: &'a Endpoints,
    ) -> Result<Self, TemplateError> {
        let resources = resources_with_globals(root)?;
        let mut resolver =
            Self { identity, endpoints, root, parameters, resources, generated: BTreeMap::new(), busy: RefCell::default() };
        resolver.generated = physical::generated(&resolver)?;
        Ok(resolver)
    }

    /// The resources that exist under the template's conditions, in the template's order.
    pub(super) fn resources(&self) -> Result<Vec<Resource<'_>>, TemplateError> {
        let mut present = Vec::new();
        for (logical_id, resource) in &self.resources {
            if self.exists(logical_id)? {
                let definition = resource.as_object().expect("checked when the resources were read");
                let kind = definition.get("Type").and_then(Value::as_str).expect("checked when the resources were read");
                present.push(Resource { logical_id, kind, definition });
            }
        }
        Ok(present)
    }

    /// The resource's type, where there is such a resource.
    pub(super) fn kind(&self, logical_id: &str) -> Option<&str> {
        self.resources.get(logical_id)?.get("Type")?.as_str()
    }

    /// The named properties of a resource, resolved; the others stay unread.
    pub(super) fn properties(&self, logical_id: &str, names: &[&str]) -> Result<Object, TemplateError> {
        let place = format!("Resources.{logical_id}.Properties");
        let raw = self.raw_properties(logical_id, &place)?;
        let mut values = Map::new();
        for name in names {
            let Some(value) = raw.and_then(|raw| raw.get(*name)) else { continue };
            if let Some(value) = self.resolve(value, &format!("{place}.{name}"))? {
                values.insert((*name).to_owned(), value);
            }
        }
        Ok(Object::new(place, values))
    }

    /// The names of all properties that the resource has.
    pub(super) fn property_names(&self, logical_id: &str) -> Vec<&str> {
        let raw = self.resources.get(logical_id).and_then(|resource| resource.get("Properties")).and_then(Value::as_object);
        raw.map(|raw| raw.keys().map(String::as_str).collect()).unwrap_or_default()
    }

    /// A property as it is written.
    pub(super) fn raw_property(&self, logical_id: &str, name: &str) -> Option<&Value> {
        self.resources.get(logical_id)?.get("Properties")?.get(name)
    }

    fn raw_properties(&self, logical_id: &str, place: &str) -> Result<Option<&Map<String, Value>>, TemplateError> {
        match self.resources.get(logical_id).and_then(|resource| resource.get("Properties")) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(raw)) => Ok(Some(raw)),
            Some(_) => Err(TemplateError::at(place, "must be a map")),
        }
    }

    /// Whether a resource's or an output's `Condition` holds.
    pub(super) fn holds(&self, owner: &Map<String, Value>, place: &str) -> Result<bool, TemplateError> {
        match owner.get("Condition") {
            None => Ok(true),
            Some(Value::String(name)) => self.condition(name, &format!("{place}.Condition")),
            Some(_) => Err(TemplateError::at(format!("{place}.Condition"), "must be the name of a condition")),
        }
    }

    fn exists(&self, logical_id: &str) -> Result<bool, TemplateError> {
        match self.resources.get(logical_id).and_then(Value::as_object) {
            Some(resource) => self.holds(resource, &format!("Resources.{logical_id}")),
            None => Ok(false),
        }
    }

    /// Resolves a value. `None` is `AWS::NoValue`: the property, key or item is to be left out.
    pub(super) fn resolve(&self, value: &Value, place: &str) -> Result<Option<Value>, TemplateError> {
        match value {
            Value::Object(map) if globals::is_intrinsic(map) => {
                let (name, argument) = map.iter().next().expect("an intrinsic has one key");
                self.intrinsic(name, argument, place)
            }
            Value::Object(map) => {
                let mut resolved = Map::new();
                for (key, value) in map {
                    if let Some(value) = self.resolve(value, &format!("{place}.{key}"))? {
                        resolved.insert(key.clone(), value);
                    }
                }
                Ok(Some(Value::Object(resolved)))
            }
            Value::Array(items) => {
                let mut resolved = Vec::new();
                for (index, item) in items.iter().enumerate() {
                    resolved.extend(self.resolve(item, &format!("{place}[{index}]"))?);
                }
                Ok(Some(Value::Array(resolved)))
            }
            scalar => Ok(Some(scalar.clone())),
        }
    }

    fn intrinsic(&self, name: &str, argument: &Value, place: &str) -> Result<Option<Value>, TemplateError> {
        let place = &format!("{place}.{name}");
        let value = match name {
            "Ref" => return self.reference(self.literal(argument, place)?, place),
            "Fn::GetAtt" => self.get_att(argument, place)?,
            "Fn::Sub" => self.sub(argument, place)?.into(),
            "Fn::Join" => self.join(argument, place)?.into(),
            "Fn::If" => {
                let [condition, then, otherwise] = self.items(argument, place)?;
                let chosen = if self.condition(self.literal(condition, place)?, place)? { then } else { otherwise };
                return self.resolve(chosen, place);
            }
            "Fn::Select" => self.select(argument, place)?,
            "Fn::Split" => {
                let [separator, text] = self.items(argument, place)?;
                let separator = self.text(separator, place)?;
                if separator.is_empty() {
                    return Err(TemplateError::at(place, "needs a separator of at least one character"));
                }
                self.text(text, place)?.split(&separator).map(Value::from).collect()
            }
            "Fn::FindInMap" => self.find_in_map(argument, place)?,
            "Fn::Base64" => {
                use base64::Engine;
                base64::engine::general_purpose::STANDARD.encode(self.text(argument, place)?).into()
            }
            "Fn::GetAZs" => ["a", "b", "c"].iter().map(|zone| format!("{}{zone}", self.identity.region)).collect(),
            "Fn::Equals" | "Fn::Not" | "Fn::And" | "Fn::Or" | "Condition" => {
                self.boolean(&Value::Object(Map::from_iter([(name.to_owned(), argument.clone())])), place)?.into()
            }
            "Fn::ImportValue" => {
                return Err(TemplateError::at(
                    place,
                    "imports from another stack, and there is none here: use a parameter with a default",
                ));
            }
            other => return Err(TemplateError::at(place, format!("{other} is not an intrinsic that the local stack knows"))),
        };
        Ok(Some(value))
    }

    fn reference(&self, name: &str, place: &str) -> Result<Option<Value>, TemplateError> {
        let identity = self.identity;
        if name.starts_with("AWS::") {
            return Ok(Some(match name {
                "AWS::NoValue" => return Ok(None),
                "AWS::AccountId" => identity.account.clone().into(),
                "AWS::NotificationARNs" => Value::Array(Vec::new()),
                "AWS::Partition" => Identity::PARTITION.into(),
                "AWS::Region" => identity.region.clone().into(),
                "AWS::StackId" => identity.arn("cloudformation", &format!("stack/{}/local", identity.stack)).into(),
                "AWS::StackName" => identity.stack.clone().into(),
                "AWS::URLSuffix" => Identity::URL_SUFFIX.into(),
                _ => {
                    return Err(TemplateError::at(place, format!("{name} is none of the pseudo parameters {PSEUDO_PARAMETERS}")));
                }
            }));
        }
        if let Some(value) = self.parameters.get(name) {
            return Ok(Some(value.clone()));
        }
        if let Some(generated) = self.generated.get(name) {
            return Ok(Some(match generated {
                Generated::FunctionUrl(function) => physical::attribute(self, function, "Arn", place)?.into(),
                Generated::Other { id, .. } => id.clone().into(),
            }));
        }
        self.present(name, place)?;
        self.guarded(name, place, || physical::reference(self, name)).map(|id| Some(id.into()))
    }

    fn get_att(&self, argument: &Value, place: &str) -> Result<Value, TemplateError> {
        let (name, attribute) = match argument {
            Value::Array(parts) if parts.len() == 2 => (self.text(&parts[0], place)?, self.text(&parts[1], place)?),
            Value::String(text) => match text.split_once('.') {
                Some((name, attribute)) => (name.to_owned(), attribute.to_owned()),
                None => return Err(TemplateError::at(place, "must be Resource.Attribute")),
            },
            _ => return Err(TemplateError::at(place, "must be [Resource, Attribute]")),
        };
        self.attribute(&name, &attribute, place).map(Value::from)
    }

    /// `Fn::GetAtt` of one attribute.
    pub(super) fn attribute(&self, name: &str, attribute: &str, place: &str) -> Result<String, TemplateError> {
        match self.generated.get(name) {
            Some(Generated::FunctionUrl(function)) => return physical::function_url_attribute(self, function, attribute, place),
            Some(Generated::Other { arn: Some(arn), .. }) if attribute == "Arn" => return Ok(arn.clone()),
            Some(Generated::Other { id, .. }) => return Ok(id.clone()),
            None => {}
        }
        self.present(name, place)?;
        self.guarded(&format!("{name}.{attribute}"), place, || physical::attribute(self, name, attribute, place))
    }

    /// A name must be a resource that exists.
    fn present(&self, name: &str, place: &str) -> Result<(), TemplateError> {
        if !self.resources.contains_key(name) {
            return Err(TemplateError::at(place, format!("{name} is neither a parameter nor a resource of the template")));
        }
        if !self.exists(name)? {
            return Err(TemplateError::at(place, format!("{name} does not exist, since its Condition is false")));
        }
        Ok(())
    }

    fn guarded<T>(&self, what: &str, place: &str, work: impl FnOnce() -> Result<T, TemplateError>) -> Result<T, TemplateError> {
        if self.busy.borrow().iter().any(|busy| busy == what) {
            return Err(TemplateError::at(place, format!("{what} refers to itself: {}", self.busy.borrow().join(" -> "))));
        }
        self.busy.borrow_mut().push(what.to_owned());
        let result = work();
        self.busy.borrow_mut().pop();
        result
    }

    fn sub(&self, argument: &Value, place: &str) -> Result<String, TemplateError> {
        let empty = Map::new();
        let (text, variables) = match argument {
            Value::String(text) => (text, &empty),
            Value::Array(parts) => match parts.as_slice() {
                [Value::String(text), Value::Object(variables)] => (text, variables),
                _ => return Err(TemplateError::at(place, "must be a string, or a string and a map")),
            },
            _ => return Err(TemplateError::at(place, "must be a string, or a string and a map")),
        };
        let mut output = String::new();
        let mut rest = text.as_str();
        while let Some(start) = rest.find("${") {
            output.push_str(&rest[..start]);
            let Some(length) = rest[start..].find('}') else {
                return Err(TemplateError::at(place, "has a ${ without its }"));
            };
            let name = rest[start + 2..start + length].trim();
            rest = &rest[start + length + 1..];
            if let Some(literal) = name.strip_prefix('!') {
                output.push_str("${");
                output.push_str(literal);
                output.push('}');
                continue;
            }
            let place = &format!("{place} ${{{name}}}");
            let value = match (variables.get(name), name.split_once('.')) {
                (Some(value), _) => self.text(value, place)?,
                (None, Some((resource, attribute))) => self.attribute(resource, attribute, place)?,
                (None, None) => match self.reference(name, place)? {
                    Some(value) => scalar_text(&value).ok_or_else(|| TemplateError::at(place, "is a list, not a string"))?,
                    None => return Err(TemplateError::at(place, "has no value")),
                },
            };
            output.push_str(&value);
        }
        output.push_str(rest);
        Ok(output)
    }

    fn join(&self, argument: &Value, place: &str) -> Result<String, TemplateError> {
        let [separator, items] = self.items(argument, place)?;
        let separator = self.text(separator, place)?;
        let items = self.list(items, place)?;
        let texts = items.iter().map(|item| {
            scalar_text(item).ok_or_else(|| TemplateError::at(place, "joins strings, and one item is a list or a map"))
        });
        Ok(texts.collect::<Result<Vec<_>, _>>()?.join(&separator))
    }

    fn select(&self, argument: &Value, place: &str) -> Result<Value, TemplateError> {
        let [index, items] = self.items(argument, place)?;
        let index = self.text(index, place)?;
        let index: usize =
            index.parse().map_err(|_| TemplateError::at(place, format!("needs an index from 0, and {index} is none")))?;
        let items = self.list(items, place)?;
        let count = items.len();
        items.into_iter().nth(index).ok_or_else(|| TemplateError::at(place, format!("selects item {index} of a list of {count}")))
    }

    fn find_in_map(&self, argument: &Value, place: &str) -> Result<Value, TemplateError> {
        let parts = argument.as_array().filter(|parts| parts.len() == 3 || parts.len() == 4);
        let parts = parts.ok_or_else(|| TemplateError::at(place, "must be [map, first key, second key]"))?;
        let [map, first, second] = [self.text(&parts[0], place)?, self.text(&parts[1], place)?, self.text(&parts[2], place)?];
        let found = self.root.get("Mappings").and_then(|maps| maps.get(&map)?.get(&first)?.get(&second));
        if let Some(found) = found {
            return Ok(found.clone());
        }
        match parts.get(3).and_then(|options| options.get("DefaultValue")) {
            Some(default) => self.required(default, place),
            None => Err(TemplateError::at(place, format!("Mappings.{map}.{first}.{second} does not exist"))),
        }
    }

    /// The value of a condition of the section `Conditions`.
    pub(super) fn condition(&self, name: &str, place: &str) -> Result<bool, TemplateError> {
        let Some(condition) = self.root.get("Conditions").and_then(|conditions| conditions.get(name)) else {
            return Err(TemplateError::at(place, format!("{name} is not in Conditions")));
        };
        self.guarded(&format!("Conditions.{name}"), place, || self.boolean(condition, &format!("Conditions.{name}")))
    }

    fn boolean(&self, value: &Value, place: &str) -> Result<bool, TemplateError> {
        let fault = || TemplateError::at(place, "must be Fn::Equals, Fn::Not, Fn::And, Fn::Or or Condition");
        if let Some(text) = scalar_text(value) {
            return text.parse().map_err(|_| fault());
        }
        let (name, argument) =
            value.as_object().filter(|map| map.len() == 1).and_then(|map| map.iter().next()).ok_or_else(fault)?;
        let place = &format!("{place}.{name}");
        match name.as_str() {
            "Condition" => self.condition(self.literal(argument, place)?, place),
            "Fn::Equals" => {
                let [left, right] = self.items(argument, place)?;
                let [left, right] = [self.required(left, place)?, self.required(right, place)?];
                Ok(match (scalar_text(&left), scalar_text(&right)) {
                    (Some(left), Some(right)) => left == right,
                    _ => left == right,
                })
            }
            "Fn::Not" => {
                let [operand] = self.items(argument, place)?;
                Ok(!self.boolean(operand, place)?)
            }
            "Fn::And" | "Fn::Or" => {
                let operands = argument.as_array().filter(|operands| (2..=10).contains(&operands.len()));
                let operands = operands.ok_or_else(|| TemplateError::at(place, "takes 2 to 10 conditions"))?;
                let values = operands.iter().map(|operand| self.boolean(operand, place)).collect::<Result<Vec<_>, _>>()?;
                Ok(if name == "Fn::And" { values.iter().all(|value| *value) } else { values.contains(&true) })
            }
            _ => Err(fault()),
        }
    }

    fn required(&self, value: &Value, place: &str) -> Result<Value, TemplateError> {
        self.resolve(value, place)?.ok_or_else(|| TemplateError::at(place, "AWS::NoValue is not allowed here"))
    }

    fn text(&self, value: &Value, place: &str) -> Result<String, TemplateError> {
        let value = self.required(value, place)?;
        scalar_text(&value).ok_or_else(|| TemplateError::at(place, "must be a string"))
    }

    fn list(&self, value: &Value, place: &str) -> Result<Vec<Value>, TemplateError> {
        match self.required(value, place)? {
            Value::Array(items) => Ok(items),
            _ => Err(TemplateError::at(place, "must be a list")),
        }
    }

    fn literal<'v>(&self, value: &'v Value, place: &str) -> Result<&'v str, TemplateError> {
        value.as_str().ok_or_else(|| TemplateError::at(place, "must be a name"))
    }

    fn items<'v, const COUNT: usize>(&self, value: &'v Value, place: &str) -> Result<&'v [Value; COUNT], TemplateError> {
        let items = value.as_array().and_then(|items| items.as_slice().try_into().ok());
        items.ok_or_else(|| TemplateError::at(place, format!("must be a list of {COUNT}")))
    }
}

fn resources_with_globals(root: &Value) -> Result<Map<String, Value>, TemplateError> {
    let resources = root.get("Resources").and_then(Value::as_object).filter(|resources| !resources.is_empty());
    let resources =
        resources.ok_or_else(|| TemplateError::at("Resources", "is missing: a template has at least one resource"))?;
    let mut merged = Map::new();
    for (logical_id, resource) in resources {
        let place = format!("Resources.{logical_id}");
        if logical_id.is_empty() || !logical_id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(TemplateError::at(place, "a logical id has only letters and digits"));
        }
        let mut resource = resource.as_object().cloned().ok_or_else(|| TemplateError::at(&place, "must be a map with a Type"))?;
        let Some(kind) = resource.get("Type").and_then(Value::as_str) else {
            return Err(TemplateError::at(format!("{place}.Type"), "is missing"));
        };
        if let Some(section) = kind.strip_prefix("AWS::Serverless::") {
            let section = root.get("Globals").and_then(|globals| globals.get(section)).and_then(Value::as_object);
            let own = match resource.get("Properties") {
                None | Some(Value::Null) => Map::new(),
                Some(Value::Object(own)) => own.clone(),
                Some(_) => return Err(TemplateError::at(format!("{place}.Properties"), "must be a map")),
            };
            let properties = globals::merge(section, &own, resource.get("IgnoreGlobals"));
            resource.insert("Properties".to_owned(), Value::Object(properties));
        }
        merged.insert(logical_id.clone(), Value::Object(resource));
    }
    Ok(merged)
}
