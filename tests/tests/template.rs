//! What template.yaml promises beyond what the linters see: least privilege, what is kept, and the numbers of docs/delivery.md.

use std::collections::BTreeMap;
use std::time::Duration;

use carillon_local::spec::{FunctionSpec, QueueSpec};
use carillon_local::template::{Document, Endpoints, Inputs, Template};
use carillon_tests::repository;
use serde_yaml_ng::Value;

const SECRET: &str = "a-secret-of-at-least-32-characters-in-all";

/// The template as the local stack reads it, with addresses that do not exist.
fn resolved() -> Template {
    resolved_with(&[])
}

/// The same with more parameters.
fn resolved_with(more: &[(&str, &str)]) -> Template {
    let given = [("Secret", SECRET), ("IotDataEndpoint", "iot.test")];
    let parameters: BTreeMap<_, _> =
        given.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let document = Document::read(&repository::path("template.yaml")).expect("it is a template");
    let endpoints = Endpoints {
        aws: "http://aws.test".to_owned(),
        function_urls: BTreeMap::from([
            ("PublishFunction".to_owned(), "publish.test".to_owned()),
            ("StreamFunction".to_owned(), "stream.test".to_owned()),
        ]),
        websocket_apis: BTreeMap::from([("WebSocketApi".to_owned(), "websocket.test".to_owned())]),
        iot: Some("iot.test".to_owned()),
        mqtt: Some("mqtt.test".to_owned()),
    };
    document.resolve(&Inputs { parameters, ..Inputs::default() }, &endpoints).expect("it resolves")
}

/// The template as it is written, for what only AWS reads.
fn written() -> Value {
    serde_yaml_ng::from_str(&repository::read("template.yaml")).expect("it is YAML")
}

fn resources(template: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let resources = template["Resources"].as_mapping().expect("a map").iter();
    resources.map(|(name, resource)| (name.as_str().expect("a name"), resource))
}

fn of_kind<'template>(template: &'template Value, kind: &str) -> Vec<(&'template str, &'template Value)> {
    let found: Vec<_> = resources(template).filter(|(_, resource)| resource["Type"].as_str() == Some(kind)).collect();
    assert!(!found.is_empty(), "the template has no {kind}");
    found
}

/// A scalar or a list, as a list.
fn list(value: &Value) -> Vec<&Value> {
    match value {
        Value::Sequence(values) => values.iter().collect(),
        // What stands under a tag such as `!Sub` is one value.
        other => vec![other],
    }
}

/// A text, also one under a tag such as `!Sub`, there with or without its variables.
fn text(value: &Value) -> &str {
    match value {
        Value::Tagged(tagged) => text(&tagged.value),
        Value::Sequence(values) => text(&values[0]),
        other => other.as_str().unwrap_or_else(|| panic!("no text: {other:?}")),
    }
}

fn function<'template>(template: &'template Template, logical_id: &str) -> &'template FunctionSpec {
    template.functions.iter().find(|function| function.logical_id == logical_id).expect("the template has it")
}

fn queue<'template>(template: &'template Template, logical_id: &str) -> &'template QueueSpec {
    template.queues.iter().find(|queue| queue.logical_id == logical_id).expect("the template has it")
}

/// Every statement of every role: role, actions, resources.
fn statements(template: &Value) -> Vec<(&str, Vec<&str>, Vec<&str>)> {
    let mut found = Vec::new();
    for (role, resource) in of_kind(template, "AWS::IAM::Role") {
        assert!(
            resource["Properties"]["ManagedPolicyArns"].is_null(),
            "{role} has a managed policy, which allows more than it needs"
        );
        for policy in list(&resource["Properties"]["Policies"]) {
            for statement in list(&policy["PolicyDocument"]["Statement"]) {
                assert_eq!(statement["Effect"].as_str(), Some("Allow"), "{role}");
                let actions = list(&statement["Action"]).into_iter().map(text).collect();
                found.push((role, actions, list(&statement["Resource"]).into_iter().map(text).collect()));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

/// What only a wildcard can name: the ids of connections are API Gateway's; clients and topics of IoT Core are no resources.
const WILDCARDS: [&str; 4] =
    ["/@connections/*", ":client/${Prefix}-stream-*", ":topic/${Prefix}/c/*", ":topicfilter/${Prefix}/c/*"];

#[test]
fn no_role_allows_more_than_its_function_needs() {
    let template = written();
    for (role, actions, resources) in statements(&template) {
        for action in actions {
            assert!(!action.contains('*'), "{role} allows {action}");
        }
        for resource in resources {
            assert_ne!(resource, "*", "{role} allows something on everything");
            let is_exact = !resource.contains('*') || WILDCARDS.iter().any(|wildcard| resource.ends_with(wildcard));
            assert!(is_exact, "{role} allows something on {resource}");
        }
    }
}

#[test]
fn a1_nothing_deletes_or_changes_an_entry_of_the_log() {
    let template = written();
    let on_the_log = statements(&template).into_iter().filter(|(_, _, resources)| resources.contains(&"LogTable.Arn"));
    let mut seen = 0;
    for (role, actions, _) in on_the_log {
        seen += 1;
        for action in actions {
            assert!(!matches!(action, "dynamodb:DeleteItem" | "dynamodb:UpdateItem"), "{role} allows {action} on the log");
        }
    }
    assert_eq!(seen, 4, "four functions use the log");
}

#[test]
fn every_function_has_a_role_and_a_log_group_of_its_own() {
    let template = written();
    let functions = of_kind(&template, "AWS::Serverless::Function");
    for property in ["Role", "LoggingConfig"] {
        let mut values: Vec<_> = functions
            .iter()
            .map(|(name, function)| {
                let value = &function["Properties"][property];
                assert!(!value.is_null(), "{name} has no {property}");
                serde_yaml_ng::to_string(value).expect("it is YAML")
            })
            .collect();
        values.sort();
        values.dedup();
        assert_eq!(values.len(), functions.len(), "two functions share a {property}");
    }
}

#[test]
fn tables_forget_by_exp_and_can_be_restored() {
    let written = written();
    let tables = of_kind(&written, "AWS::DynamoDB::Table");
    assert_eq!(tables.len(), resolved().tables.len());
    for (name, table) in tables {
        let properties = &table["Properties"];
        assert_eq!(properties["BillingMode"].as_str(), Some("PAY_PER_REQUEST"), "{name}");
        let recovery = &properties["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"];
        assert_eq!(recovery.as_bool(), Some(true), "{name}");
        for policy in ["DeletionPolicy", "UpdateReplacePolicy"] {
            assert!(
                table[policy].as_str().is_some_and(|policy| policy.starts_with("Retain")),
                "{name} is deleted with its stack"
            );
        }
    }
    for table in resolved().tables {
        assert_eq!(table.ttl_attribute.as_deref(), Some("exp"), "{}", table.logical_id);
        let keys: Vec<_> =
            table.create["KeySchema"].as_array().expect("a list").iter().map(|key| &key["AttributeName"]).collect();
        assert_eq!(keys, ["pk", "sk"], "{}", table.logical_id);
    }
}

#[test]
fn d7_the_drain_has_its_numbers() {
    let template = resolved();
    assert_eq!(function(&template, "DeliverFunction").timeout, Duration::from_secs(15));
    let wakeups = queue(&template, "WakeupQueue");
    assert_eq!(wakeups.visibility, Duration::from_secs(30));
    assert_eq!(wakeups.delay, Duration::ZERO);
    let dead = queue(&template, "WakeupDeadLetterQueue");
    assert_eq!(wakeups.redrive, Some((dead.arn.clone(), 10)));
    let mapping = template.sqs_mappings.iter().find(|mapping| mapping.queue_arn == wakeups.arn).expect("something drains it");
    assert_eq!((mapping.function.as_str(), mapping.batch_size), ("DeliverFunction", 10));
    assert_eq!(mapping.window, Duration::ZERO);
    assert!(mapping.report_batch_item_failures);
    assert!(!wakeups.name.ends_with(".fifo"), "wake-ups need no order");
}

#[test]
fn every_queue_that_is_read_has_a_dead_letter_queue_and_partial_failures() {
    let template = resolved();
    assert!(!template.sqs_mappings.is_empty());
    for mapping in &template.sqs_mappings {
        let queue = template.queues.iter().find(|queue| queue.arn == mapping.queue_arn).expect("the queue is there");
        let (dead, _) = queue.redrive.as_ref().unwrap_or_else(|| panic!("{} has no dead-letter queue", queue.logical_id));
        let dead = template.queues.iter().find(|other| &other.arn == dead).expect("the dead-letter queue is there");
        assert!(dead.retention >= queue.retention, "{} forgets before it is looked at", dead.logical_id);
        assert!(mapping.report_batch_item_failures, "{}", queue.logical_id);
        let timeout = function(&template, &mapping.function).timeout;
        assert!(queue.visibility >= timeout, "AWS refuses a visibility under the function's time-out: {}", queue.logical_id);
    }
}

#[test]
fn every_endpoint_is_an_output() {
    let template = resolved();
    let outputs = &template.outputs;
    let mut wanted = vec![
        ("WebSocketUrl", "ws://websocket.test/prod".to_owned()),
        ("ManagementUrl", "http://websocket.test/prod".to_owned()),
        ("PublishUrl", "http://publish.test/".to_owned()),
        ("StreamUrl", "http://stream.test/".to_owned()),
        ("MqttEndpoint", "iot.test".to_owned()),
        ("MqttPrefix", "carillon".to_owned()),
        ("EventBusName", "default".to_owned()),
    ];
    let physical = |logical_id: &str| template.resources[logical_id].clone();
    wanted.extend(template.queues.iter().map(|queue| (queue.logical_id.as_str(), physical(&queue.logical_id))));
    wanted.extend(template.tables.iter().map(|table| (table.logical_id.as_str(), physical(&table.logical_id))));
    wanted.extend(template.functions.iter().map(|function| (function.logical_id.as_str(), physical(&function.logical_id))));
    for (name, value) in wanted {
        let found = outputs.iter().find(|(output, found)| output.starts_with(name) && **found == value);
        assert!(found.is_some(), "no output {name}… has the value {value}: {outputs:#?}");
    }
    assert!(outputs.values().all(|value| !value.contains(SECRET)), "an output tells the secret");
}

#[test]
fn the_default_processor_is_arm() {
    let template = written();
    let architecture = &template["Parameters"]["Architecture"];
    assert_eq!(architecture["Default"].as_str(), Some("arm64"));
    let global = &template["Globals"]["Function"]["Architectures"];
    assert_eq!(list(global).into_iter().map(text).collect::<Vec<_>>(), ["Architecture"]);
    for (name, function) in of_kind(&template, "AWS::Serverless::Function") {
        assert!(function["Properties"]["Architectures"].is_null(), "{name} has a processor of its own");
    }
}

#[test]
fn the_secret_is_long_and_never_shown() {
    let template = written();
    let secret = &template["Parameters"]["Secret"];
    assert_eq!(secret["NoEcho"].as_bool(), Some(true));
    let least = secret["MinLength"].as_u64().expect("it has a least length");
    assert_eq!(usize::try_from(least).expect("it is small"), carillon_core::limits::SECRET_CHARACTERS);
    assert!(secret["Default"].is_null(), "a secret with a default is none");
    let with = |logical_id: &str| function(&resolved(), logical_id).environment.get("CARILLON_SECRET").cloned();
    assert_eq!(with("WebSocketFunction").as_deref(), Some(SECRET));
    assert_eq!(with("PublishFunction").as_deref(), Some(SECRET));
    assert_eq!(with("StreamFunction").as_deref(), Some(SECRET));
    assert_eq!(with("AuthorizeFunction").as_deref(), Some(SECRET));
    assert_eq!(with("DeliverFunction"), None, "it meets no client's credentials");
}

#[test]
fn two_way_replies_and_warm_routes() {
    let template = resolved();
    let [api] = template.websocket_apis.as_slice() else { panic!("one API: {:?}", template.websocket_apis) };
    assert_eq!(api.routes.keys().map(String::as_str).collect::<Vec<_>>(), ["$connect", "$default", "$disconnect"]);
    assert!(api.routes["$default"].two_way, "replies go by route response");
    assert!(api.routes.values().all(|route| route.function == "WebSocketFunction"));
}

#[test]
fn the_mqtt_prefix_is_the_stack_s_name_unless_one_is_given() {
    for (template, prefix) in [(resolved(), "carillon"), (resolved_with(&[("MqttPrefix", "shop")]), "shop")] {
        for logical_id in ["DeliverFunction", "StreamFunction", "AuthorizeFunction"] {
            let found = function(&template, logical_id).environment.get("CARILLON_MQTT_PREFIX");
            assert_eq!(found.map(String::as_str), Some(prefix), "{logical_id}");
        }
        assert_eq!(template.outputs["MqttPrefix"], prefix);
    }
    let written = written();
    let pattern = text(&written["Parameters"]["MqttPrefix"]["AllowedPattern"]);
    let most = carillon_core::limits::MQTT_PREFIX_BYTES;
    assert!(pattern.ends_with(&format!("{{0,{most}}}")), "{pattern} allows other lengths than the functions");
}

#[test]
fn what_devices_publish_reaches_publish_in_the_envelope_that_it_reads() {
    let written = written();
    let [(name, rule)] = of_kind(&written, "AWS::IoT::TopicRule")[..] else { panic!("one rule") };
    let payload = &rule["Properties"]["TopicRulePayload"];
    let documented = repository::read("shared/wire/src/iot.rs");
    let sql: Vec<_> = text(&payload["Sql"]).split_whitespace().collect();
    let sql = sql.join(" ").replace("${Prefix}", "<prefix>");
    assert!(documented.contains(&format!("//! {sql}\n")), "{sql}");
    assert_eq!(payload["AwsIotSqlVersion"].as_str(), Some("2016-03-23"));
    let template = resolved();
    let found: Vec<_> = template.topic_rules.iter().map(|rule| (rule.logical_id.as_str(), rule.function.as_str())).collect();
    assert_eq!(found, [(name, "PublishFunction")]);
}

#[test]
fn mqtt_clients_are_let_in_by_authorize() {
    let template = resolved();
    let [authorizer] = template.authorizers.as_slice() else { panic!("one authorizer: {:?}", template.authorizers) };
    assert_eq!((authorizer.function.as_str(), &authorizer.name), ("AuthorizeFunction", &template.outputs["MqttAuthorizerName"]));
    let user = format!("token?x-amz-customauthorizer-name={}", authorizer.name);
    assert_eq!(template.outputs["MqttUserName"], user);
    assert_eq!(function(&template, "AuthorizeFunction").timeout, Duration::from_secs(5), "IoT Core waits no longer");
}

/// Lambda's service principals have a function to themselves, and IoT Core one rule or authorizer: nobody else's may invoke it.
#[test]
fn every_permission_names_who_may_invoke() {
    let written = written();
    for (name, permission) in of_kind(&written, "AWS::Lambda::Permission") {
        let properties = &permission["Properties"];
        assert_eq!(properties["Action"].as_str(), Some("lambda:InvokeFunction"), "{name}");
        assert!(text(&properties["SourceArn"]).ends_with(".Arn"), "{name} lets other accounts invoke");
    }
}

#[test]
fn a_stream_ends_before_its_function_does() {
    let template = resolved();
    let stream = function(&template, "StreamFunction");
    assert_eq!(stream.timeout, Duration::from_secs(900), "Lambda's longest");
    let url = stream.url.as_ref().expect("it has a URL");
    assert!(url.streaming);
    let cors = url.cors.as_ref().expect("browsers may ask");
    assert_eq!((&cors.allow_origins[..], &cors.allow_methods[..]), (&["*".to_owned()][..], &["GET".to_owned()][..]));
    let written = written();
    let seconds = &written["Parameters"]["StreamSeconds"];
    let range =
        format!("{} to {};", seconds["MinValue"].as_u64().expect("a number"), seconds["MaxValue"].as_u64().expect("a number"));
    let documented = repository::read("docs/configuration.md");
    let row = documented.lines().find(|line| line.starts_with("| `CARILLON_STREAM_SECONDS` |")).expect("it is documented");
    assert!(row.contains(&range), "{row}");
    assert!(row.ends_with(&format!("| `{}` |", seconds["Default"].as_u64().expect("a number"))), "{row}");
}

#[test]
fn what_runs_locally_is_what_deploys() {
    let missing: Vec<_> = resolved().unknown.into_iter().filter(|unknown| !unknown.harmless).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}
