//! The physical ids and attributes that `Ref` and `Fn::GetAtt` give, per kind of resource.
//!
//! What each kind returns is in its page of the AWS CloudFormation Template Reference, under "Return values". Names that the
//! template does not give are `<stack>-<logical id>`, as CloudFormation makes them but for its random suffix: a local stack
//! has the same names at every start.

use std::collections::BTreeMap;

use md5::{Digest, Md5};
use serde_json::Value;

use super::error::TemplateError;
use super::resolver::{Generated, Resolver, Resource};
use super::{Identity, kinds};

/// Names are cut to this many characters, the shortest limit among the services here (Lambda: 64).
const MAXIMUM_NAME: usize = 64;

/// An API id is this long on AWS too.
const API_ID_LENGTH: usize = 10;

/// What `Ref` gives for a resource of the template.
pub(super) fn reference(resolver: &Resolver<'_>, logical_id: &str) -> Result<String, TemplateError> {
    let identity = resolver.identity;
    let kind = resolver.kind(logical_id).unwrap_or_default();
    Ok(match kind {
        kinds::SERVERLESS_FUNCTION | kinds::LAMBDA_FUNCTION => name(resolver, logical_id, "FunctionName")?,
        kinds::TABLE | kinds::SIMPLE_TABLE => name(resolver, logical_id, "TableName")?,
        kinds::QUEUE => queue_url(resolver, &queue_name(resolver, logical_id)?),
        kinds::WEBSOCKET_API => api_id(identity, logical_id),
        kinds::EVENT_BUS => name(resolver, logical_id, "Name")?,
        kinds::RULE => name(resolver, logical_id, "Name")?,
        kinds::LAMBDA_URL => url_target(resolver, logical_id)?,
        kinds::TOPIC_RULE => topic_rule_name(resolver, logical_id)?,
        kinds::AUTHORIZER => name(resolver, logical_id, "AuthorizerName")?,
        // These return ARNs or URLs rather than names.
        "AWS::SNS::Topic" => identity.arn("sns", &identity.physical_name(logical_id)),
        _ => identity.physical_name(logical_id),
    })
}

/// What `Fn::GetAtt` gives for a resource of the template.
pub(super) fn attribute(
    resolver: &Resolver<'_>,
    logical_id: &str,
    attribute: &str,
    place: &str,
) -> Result<String, TemplateError> {
    let identity = resolver.identity;
    let kind = resolver.kind(logical_id).unwrap_or_default();
    let unknown = |known: &str| TemplateError::at(place, format!("{kind} has no attribute {attribute}, it has {known}"));
    match kind {
        kinds::SERVERLESS_FUNCTION | kinds::LAMBDA_FUNCTION => match attribute {
            "Arn" => Ok(identity.function_arn(&reference(resolver, logical_id)?)),
            _ => Err(unknown("Arn")),
        },
        kinds::TABLE | kinds::SIMPLE_TABLE => {
            let arn = identity.arn("dynamodb", &format!("table/{}", reference(resolver, logical_id)?));
            match attribute {
                "Arn" => Ok(arn),
                // The label is the moment the stream was made; one fixed label keeps values equal from start to start.
                "StreamArn" if resolver.raw_property(logical_id, "StreamSpecification").is_some() => {
                    Ok(format!("{arn}/stream/{}", Identity::STREAM_LABEL))
                }
                "StreamArn" => Err(TemplateError::at(place, format!("{logical_id} has no StreamSpecification, so no StreamArn"))),
                _ => Err(unknown("Arn, StreamArn")),
            }
        }
        kinds::QUEUE => {
            let name = queue_name(resolver, logical_id)?;
            match attribute {
                "Arn" => Ok(identity.arn("sqs", &name)),
                "QueueName" => Ok(name),
                "QueueUrl" => Ok(queue_url(resolver, &name)),
                _ => Err(unknown("Arn, QueueName, QueueUrl")),
            }
        }
        kinds::WEBSOCKET_API => {
            let id = api_id(identity, logical_id);
            match attribute {
                "ApiId" => Ok(id),
                "ApiEndpoint" => Ok(format!("wss://{id}.execute-api.{}.{}", identity.region, Identity::URL_SUFFIX)),
                _ => Err(unknown("ApiEndpoint, ApiId")),
            }
        }
        kinds::EVENT_BUS => {
            let name = reference(resolver, logical_id)?;
            match attribute {
                "Arn" => Ok(identity.arn("events", &format!("event-bus/{name}"))),
                "Name" => Ok(name),
                _ => Err(unknown("Arn, Name")),
            }
        }
        kinds::RULE => match attribute {
            "Arn" => Ok(identity.arn("events", &format!("rule/{}", reference(resolver, logical_id)?))),
            _ => Err(unknown("Arn")),
        },
        kinds::TOPIC_RULE => match attribute {
            "Arn" => Ok(identity.arn("iot", &format!("rule/{}", reference(resolver, logical_id)?))),
            _ => Err(unknown("Arn")),
        },
        kinds::AUTHORIZER => match attribute {
            "Arn" => Ok(identity.arn("iot", &format!("authorizer/{}", reference(resolver, logical_id)?))),
            _ => Err(unknown("Arn")),
        },
        kinds::LAMBDA_URL => {
            let arn = url_target(resolver, logical_id)?;
            let function = function_by_name(resolver, &arn)?.ok_or_else(|| {
                TemplateError::at(
                    format!("Resources.{logical_id}.Properties.TargetFunctionArn"),
                    format!("{arn} is no function of this template"),
                )
            })?;
            function_url_attribute(resolver, &function, attribute, place)
        }
        // A resource that is not emulated: a well-formed placeholder, so that a policy or a variable that names it resolves.
        _ => Ok(match attribute {
            "Arn" | "TopicArn" => placeholder_arn(identity, kind, logical_id),
            other => format!("{}.{other}", identity.physical_name(logical_id)),
        }),
    }
}

/// The attributes of an `AWS::Lambda::Url`, given the function that it belongs to.
pub(super) fn function_url_attribute(
    resolver: &Resolver<'_>,
    function: &str,
    name: &str,
    place: &str,
) -> Result<String, TemplateError> {
    match name {
        "FunctionUrl" => Ok(resolver.endpoints.function_url(function)),
        "FunctionArn" => attribute(resolver, function, "Arn", place),
        _ => Err(TemplateError::at(place, format!("AWS::Lambda::Url has no attribute {name}, it has FunctionArn, FunctionUrl"))),
    }
}

/// The logical id of the function that a name, an ARN, an ARN with a qualifier or an API Gateway integration URI means.
pub(super) fn function_by_name(resolver: &Resolver<'_>, text: &str) -> Result<Option<String>, TemplateError> {
    // …:lambda:path/2015-03-31/functions/<ARN>/invocations
    let text = text.split_once("/functions/").map_or(text, |(_, rest)| rest.strip_suffix("/invocations").unwrap_or(rest));
    for Resource { logical_id, kind, .. } in resolver.resources()? {
        if !matches!(kind, kinds::SERVERLESS_FUNCTION | kinds::LAMBDA_FUNCTION) {
            continue;
        }
        let name = reference(resolver, logical_id)?;
        let arn = resolver.identity.function_arn(&name);
        if text == name || text == arn || text.strip_prefix(&arn).is_some_and(|qualifier| qualifier.starts_with(':')) {
            return Ok(Some(logical_id.to_owned()));
        }
    }
    Ok(None)
}

/// The physical name: the property where it is given.
pub(super) fn name(resolver: &Resolver<'_>, logical_id: &str, property: &str) -> Result<String, TemplateError> {
    let given = resolver.properties(logical_id, &[property])?.string(property)?;
    Ok(given.unwrap_or_else(|| resolver.identity.physical_name(logical_id)))
}

/// The name of an IoT rule, the property where it is given.
fn topic_rule_name(resolver: &Resolver<'_>, logical_id: &str) -> Result<String, TemplateError> {
    let given = resolver.properties(logical_id, &["RuleName"])?.string("RuleName")?;
    Ok(given.unwrap_or_else(|| generated_topic_rule_name(resolver.identity, logical_id)))
}

/// The name of an IoT rule that the template does not name. It has letters, digits and underscores alone (CreateTopicRule).
pub(super) fn generated_topic_rule_name(identity: &Identity, logical_id: &str) -> String {
    identity.physical_name(logical_id).replace(|character: char| !character.is_ascii_alphanumeric(), "_")
}

/// A queue's name. A FIFO queue's ends with `.fifo`, as on AWS.
pub(super) fn queue_name(resolver: &Resolver<'_>, logical_id: &str) -> Result<String, TemplateError> {
    let properties = resolver.properties(logical_id, &["QueueName", "FifoQueue"])?;
    if let Some(name) = properties.string("QueueName")? {
        return Ok(name);
    }
    let suffix = if properties.boolean("FifoQueue")?.unwrap_or(false) { ".fifo" } else { "" };
    Ok(format!("{}{suffix}", resolver.identity.physical_name(logical_id)))
}

fn queue_url(resolver: &Resolver<'_>, name: &str) -> String {
    format!("{}/{}/{name}", resolver.endpoints.aws, resolver.identity.account)
}

fn url_target(resolver: &Resolver<'_>, logical_id: &str) -> Result<String, TemplateError> {
    resolver.properties(logical_id, &["TargetFunctionArn"])?.required_string("TargetFunctionArn")
}

/// A stable id of ten letters and digits, made of the stack's name and the logical id.
pub(super) fn api_id(identity: &Identity, logical_id: &str) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let digest = Md5::digest(format!("{}/{logical_id}", identity.stack));
    digest.iter().take(API_ID_LENGTH).map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}

/// The name of a resource that the template does not name.
pub(super) fn generated_name(stack: &str, logical_id: &str) -> String {
    let name = format!("{stack}-{logical_id}");
    if name.len() <= MAXIMUM_NAME {
        return name;
    }
    // Cut names must stay different from each other.
    let digest = Md5::digest(name.as_bytes());
    let mark = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect::<String>();
    let kept: String = name.chars().take(MAXIMUM_NAME - 9).collect();
    format!("{kept}-{mark}")
}

fn placeholder_arn(identity: &Identity, kind: &str, logical_id: &str) -> String {
    let mut parts = kind.split("::").skip(1);
    let service = parts.next().unwrap_or("unknown").to_ascii_lowercase();
    let what = parts.next().unwrap_or("resource").to_ascii_lowercase();
    let name = identity.physical_name(logical_id);
    match service.as_str() {
        "iam" => format!("arn:{}:iam::{}:{what}/{name}", Identity::PARTITION, identity.account),
        "s3" => format!("arn:{}:s3:::{}", Identity::PARTITION, name.to_ascii_lowercase()),
        "sns" => identity.arn("sns", &name),
        "logs" => identity.arn("logs", &format!("log-group:{name}:*")),
        _ => identity.arn(&service, &format!("{what}/{name}")),
    }
}

/// The logical ids that SAM's transform makes (aws-sam-translator 1.110: `sam_resources.py`, `websocket_api_generator.py`).
pub(super) fn generated(resolver: &Resolver<'_>) -> Result<BTreeMap<String, Generated>, TemplateError> {
    let mut ids = BTreeMap::new();
    let identity = resolver.identity;
    for Resource { logical_id, kind, .. } in resolver.resources()? {
        match kind {
            kinds::SERVERLESS_FUNCTION => {
                if resolver.raw_property(logical_id, "FunctionUrlConfig").is_some() {
                    ids.insert(format!("{logical_id}Url"), Generated::FunctionUrl(logical_id.to_owned()));
                }
                if resolver.raw_property(logical_id, "Role").is_none() {
                    let role = format!("{logical_id}Role");
                    let id = identity.physical_name(&role);
                    let arn = Some(placeholder_arn(identity, "AWS::IAM::Role", &role));
                    ids.insert(role, Generated::Other { id, arn });
                }
                let events = resolver.raw_property(logical_id, "Events").and_then(Value::as_object);
                for (event, definition) in events.into_iter().flatten() {
                    let id = format!("{logical_id}{event}");
                    let kind = definition.get("Type").and_then(Value::as_str);
                    let physical = match kind {
                        Some("IoTRule") => generated_topic_rule_name(identity, &id),
                        _ => identity.physical_name(&id),
                    };
                    let arn = match kind {
                        Some("EventBridgeRule" | "CloudWatchEvent" | "Schedule") => {
                            Some(identity.arn("events", &format!("rule/{physical}")))
                        }
                        Some("IoTRule") => Some(identity.arn("iot", &format!("rule/{physical}"))),
                        _ => None,
                    };
                    ids.insert(id, Generated::Other { id: physical, arn });
                }
            }
            kinds::WEBSOCKET_API => {
                let routes = resolver.raw_property(logical_id, "Routes").and_then(Value::as_object);
                for route in routes.into_iter().flat_map(|routes| routes.keys()) {
                    for suffix in ["Route", "Integration", "Permission"] {
                        let id = generated_route_id(logical_id, route, suffix);
                        ids.insert(id.clone(), Generated::Other { id: api_id(identity, &id), arn: None });
                    }
                }
                let stage = resolver.raw_property(logical_id, "StageName");
                let (prefix, name) = match stage {
                    None => ("Default", "default".to_owned()),
                    Some(Value::String(name)) if name == "default" => ("Default", name.clone()),
                    Some(Value::String(name)) => (name.as_str(), name.clone()),
                    Some(_) => ("", "stage".to_owned()),
                };
                ids.insert(format!("{logical_id}{prefix}Stage"), Generated::Other { id: name, arn: None });
            }
            _ => {}
        }
    }
    // What the template writes itself wins over what a transform would make.
    ids.retain(|id, _| resolver.kind(id).is_none());
    Ok(ids)
}

/// The physical id of a WebSocket API's route.
pub(super) fn route_id(identity: &Identity, api: &str, route_key: &str) -> String {
    api_id(identity, &generated_route_id(api, route_key, "Route"))
}

fn generated_route_id(api: &str, route_key: &str, suffix: &str) -> String {
    format!("{api}{}{suffix}", capitalised(route_key.trim_start_matches('$')))
}

/// Python's `str.capitalize`, which the transform uses: the first letter upper case, the rest lower case.
fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_uppercase().chain(characters.flat_map(char::to_lowercase)).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::{MAXIMUM_NAME, capitalised, generated_name};

    #[test]
    fn long_names_are_cut_and_stay_different() {
        let long = "A".repeat(80);
        let one = generated_name("stack", &format!("{long}1"));
        let two = generated_name("stack", &format!("{long}2"));
        assert_eq!((one.len(), two.len()), (MAXIMUM_NAME, MAXIMUM_NAME));
        assert_ne!(one, two);
        assert_eq!(generated_name("stack", "Log"), "stack-Log");
    }

    #[test]
    fn route_keys_are_capitalised_as_the_transform_does() {
        assert_eq!(capitalised("default"), "Default");
        assert_eq!(capitalised("sendMessage"), "Sendmessage");
    }
}
