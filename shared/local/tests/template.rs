//! What the template reader makes of templates: every intrinsic, every kind of resource, every error.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use carillon_local::spec::{CodeSpec, RouteSpec};
use carillon_local::template::{Document, Endpoints, Inputs, Template, TemplateError};
use serde_json::json;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn inputs(parameters: &[(&str, &str)]) -> Inputs {
    let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Inputs { parameters, ..Inputs::default() }
}

fn endpoints() -> Endpoints {
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, address)| ((*name).to_owned(), (*address).to_owned())).collect()
    };
    Endpoints {
        aws: "http://127.0.0.1:4100".to_owned(),
        function_urls: map(&[("StreamFunction", "127.0.0.1:4110"), ("PublishFunction", "127.0.0.1:4111")]),
        websocket_apis: map(&[("Api", "127.0.0.1:4101")]),
        ..Endpoints::default()
    }
}

fn notifications(parameters: &[(&str, &str)]) -> Template {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates/notifications.yaml");
    let document = Document::read(&path).expect("the file is a template");
    document.resolve(&inputs(parameters), &endpoints()).expect("the template resolves")
}

fn resolve(text: &str, parameters: &[(&str, &str)]) -> Result<Template, TemplateError> {
    Document::parse(text, Path::new(".")).expect("the text parses").resolve(&inputs(parameters), &endpoints())
}

/// One output of a small template, as it resolves.
fn output(value: &str) -> Result<String, TemplateError> {
    let text = format!(
        r#"
Parameters:
  Text: {{ Type: String, Default: "a,b" }}
  Items: {{ Type: CommaDelimitedList, Default: "x, y, z" }}
Mappings: {{ Sizes: {{ us-east-1: {{ small: 1, names: [one, two] }} }} }}
Conditions:
  Yes: !Equals [a, a]
  No: !Not [!Condition Yes]
  Both: !And [!Condition Yes, !Condition No]
  Either: !Or [!Condition Yes, !Condition No]
  Circle: !Not [!Condition Circle]
Resources:
  Queue: {{ Type: AWS::SQS::Queue }}
  Named: {{ Type: AWS::SQS::Queue, Properties: {{ QueueName: !Sub "${{AWS::StackName}}-own" }} }}
  Absent: {{ Type: AWS::SQS::Queue, Condition: No }}
  Selfish: {{ Type: AWS::SNS::Topic }}
  Role: {{ Type: AWS::IAM::Role }}
Outputs: {{ Value: {{ Value: {value} }} }}
"#
    );
    resolve(&text, &[]).map(|template| template.outputs["Value"].clone())
}

#[test]
fn every_intrinsic_resolves() {
    for (value, expected) in [
        ("!Ref Text", "a,b"),
        ("!Ref Queue", "http://127.0.0.1:4100/123456789012/carillon-Queue"),
        ("!Ref Named", "http://127.0.0.1:4100/123456789012/carillon-own"),
        ("!Ref AWS::Region", "us-east-1"),
        ("!Ref AWS::AccountId", "123456789012"),
        ("!Ref AWS::Partition", "aws"),
        ("!Ref AWS::StackName", "carillon"),
        ("!Ref AWS::URLSuffix", "amazonaws.com"),
        ("!Ref AWS::StackId", "arn:aws:cloudformation:us-east-1:123456789012:stack/carillon/local"),
        ("!GetAtt Queue.Arn", "arn:aws:sqs:us-east-1:123456789012:carillon-Queue"),
        ("!GetAtt [Queue, QueueName]", "carillon-Queue"),
        ("{ 'Fn::GetAtt': [Role, Arn] }", "arn:aws:iam::123456789012:role/carillon-Role"),
        ("!Sub 'a ${Text} ${AWS::Region} ${Queue.QueueName} ${!Literal}'", "a a,b us-east-1 carillon-Queue ${Literal}"),
        ("!Sub ['${One}-${Text}', { One: !Ref AWS::Partition }]", "aws-a,b"),
        ("!Join ['-', [a, !Ref Text, 7]]", "a-a,b-7"),
        ("!Join ['', !Ref Items]", "xyz"),
        ("!Join ['.', !FindInMap [Sizes, !Ref AWS::Region, names]]", "one.two"),
        ("!If [Yes, then, else]", "then"),
        ("!If [Both, then, else]", "else"),
        ("!If [Either, then, else]", "then"),
        ("!Join ['', [a, !If [No, b, !Ref AWS::NoValue], c]]", "ac"),
        ("!Select [1, !Ref Items]", "y"),
        ("!Select ['0', !Split [',', !Ref Text]]", "a"),
        ("!FindInMap [Sizes, us-east-1, small]", "1"),
        ("{ 'Fn::FindInMap': [Sizes, us-east-1, large, { DefaultValue: none }] }", "none"),
        ("!Base64 hello", "aGVsbG8="),
        ("!Select [0, !GetAZs '']", "us-east-1a"),
    ] {
        assert_eq!(output(value).unwrap_or_else(|error| panic!("{value}: {error}")), expected, "{value}");
    }
}

#[test]
fn every_broken_intrinsic_names_the_place() {
    for (value, expected) in [
        ("!Ref Nobody", "Outputs.Value.Value.Ref: Nobody is neither a parameter nor a resource of the template"),
        ("!Ref Absent", "Outputs.Value.Value.Ref: Absent does not exist, since its Condition is false"),
        (
            "!GetAtt Queue.Url",
            "Outputs.Value.Value.Fn::GetAtt: AWS::SQS::Queue has no attribute Url, it has Arn, QueueName, QueueUrl",
        ),
        ("!GetAtt Queue", "Outputs.Value.Value.Fn::GetAtt: must be Resource.Attribute"),
        (
            "!Sub '${Nobody}'",
            "Outputs.Value.Value.Fn::Sub ${Nobody}: Nobody is neither a parameter nor a resource of the template",
        ),
        ("!Sub '${Text'", "Outputs.Value.Value.Fn::Sub: has a ${ without its }"),
        ("!Join ['-']", "Outputs.Value.Value.Fn::Join: must be a list of 2"),
        ("!If [Nobody, a, b]", "Outputs.Value.Value.Fn::If: Nobody is not in Conditions"),
        ("!If [Circle, a, b]", "Conditions.Circle.Fn::Not.Condition: Conditions.Circle refers to itself: Conditions.Circle"),
        ("!Select [9, !Ref Items]", "Outputs.Value.Value.Fn::Select: selects item 9 of a list of 3"),
        ("!FindInMap [Sizes, eu, small]", "Outputs.Value.Value.Fn::FindInMap: Mappings.Sizes.eu.small does not exist"),
        (
            "!ImportValue Other",
            "Outputs.Value.Value.Fn::ImportValue: imports from another stack, and there is none here: use a parameter with a default",
        ),
        ("!Transform X", "Outputs.Value.Value.Fn::Transform: Fn::Transform is not an intrinsic that the local stack knows"),
        (
            "!Ref AWS::Nothing",
            "Outputs.Value.Value.Ref: AWS::Nothing is none of the pseudo parameters AWS::AccountId, \
          AWS::NotificationARNs, AWS::NoValue, AWS::Partition, AWS::Region, AWS::StackId, AWS::StackName, AWS::URLSuffix",
        ),
    ] {
        assert_eq!(output(value).expect_err(value).to_string(), expected, "{value}");
    }
}

#[test]
fn functions_have_their_globals_environment_and_urls() {
    let template = notifications(&[("Secret", SECRET)]);
    let function = |name: &str| template.functions.iter().find(|function| function.logical_id == name).expect("it is there");
    assert_eq!(
        template.functions.iter().map(|function| function.logical_id.as_str()).collect::<Vec<_>>(),
        ["StreamFunction", "WebSocketFunction", "PublishFunction"]
    );
    let stream = function("StreamFunction");
    assert_eq!(stream.name, "carillon-StreamFunction");
    assert_eq!(stream.arn, "arn:aws:lambda:us-east-1:123456789012:function:carillon-StreamFunction");
    assert_eq!(stream.code, CodeSpec::Cargo { binary: "stream".to_owned() });
    assert_eq!((stream.timeout, stream.memory_mb), (Duration::from_secs(900), 256));
    assert_eq!(stream.environment, BTreeMap::from([("TABLE".to_owned(), "carillon-Table".to_owned())]));
    let url = stream.url.as_ref().expect("it has a URL");
    assert!(url.streaming);
    let cors = url.cors.as_ref().expect("it has CORS");
    assert_eq!((cors.allow_methods.as_slice(), cors.max_age), (["GET".to_owned()].as_slice(), Some(60)));

    let websocket = function("WebSocketFunction");
    assert_eq!((websocket.timeout, websocket.reserved_concurrency), (Duration::from_secs(15), Some(7)));
    assert_eq!(websocket.environment["AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI"], "http://127.0.0.1:4101/prod");
    assert_eq!(websocket.environment["QUEUE_URL"], "http://127.0.0.1:4100/123456789012/carillon-Queue");
    assert!(!function("PublishFunction").url.as_ref().expect("it has a URL").streaming);
    assert_eq!(template.secret.as_deref(), Some(SECRET));
}

#[test]
fn the_websocket_api_answers_where_both_halves_are_there() {
    let template = notifications(&[("Secret", SECRET)]);
    let [api] = template.websocket_apis.as_slice() else { panic!("one API: {:?}", template.websocket_apis) };
    assert_eq!((api.stage.as_str(), api.route_selection_expression.as_str()), ("prod", "$request.body.action"));
    assert_eq!(api.api_id.len(), 10);
    let route = |two_way| RouteSpec { function: "WebSocketFunction".to_owned(), two_way };
    assert_eq!(
        api.routes,
        BTreeMap::from([
            ("$connect".to_owned(), route(false)),
            ("$default".to_owned(), route(true)),
            ("$disconnect".to_owned(), route(false)),
        ])
    );
}

#[test]
fn tables_queues_mappings_and_rules_are_read() {
    let template = notifications(&[("Secret", SECRET)]);
    let [table] = template.tables.as_slice() else { panic!("one table: {:?}", template.tables) };
    assert_eq!(table.ttl_attribute.as_deref(), Some("exp"));
    assert_eq!(
        table.create,
        json!({
            "TableName": "carillon-Table",
            "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}, {"AttributeName": "sk", "AttributeType": "S"}],
            "BillingMode": "PAY_PER_REQUEST",
            "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            "StreamSpecification": {"StreamEnabled": true, "StreamViewType": "KEYS_ONLY"},
        })
    );
    let [queue, dead_letters] = template.queues.as_slice() else { panic!("two queues: {:?}", template.queues) };
    assert_eq!(queue.redrive, Some((dead_letters.arn.clone(), 3)));
    assert_eq!((queue.visibility, queue.delay), (Duration::from_secs(90), Duration::ZERO));
    assert_eq!((queue.retention, dead_letters.retention), (Duration::from_secs(345_600), Duration::from_secs(1_209_600)));
    let [mapping] = template.sqs_mappings.as_slice() else { panic!("one mapping: {:?}", template.sqs_mappings) };
    assert_eq!((mapping.function.as_str(), &mapping.queue_arn), ("PublishFunction", &queue.arn));
    assert_eq!((mapping.batch_size, mapping.window, mapping.maximum_concurrency), (100, Duration::from_secs(1), Some(5)));
    assert!(mapping.report_batch_item_failures);
    let rules = template.rules.iter().map(|rule| (rule.logical_id.as_str(), rule.bus.as_str(), rule.function.as_str()));
    assert_eq!(
        rules.collect::<Vec<_>>(),
        [("PublishFunctionBus", "default", "PublishFunction"), ("HandwrittenRule", "default", "PublishFunction")]
    );
    assert_eq!(template.buses, ["default"]);
}

#[test]
fn outputs_and_resources_are_local() {
    let template = notifications(&[("Secret", SECRET), ("BusName", "own")]);
    let expected = [
        ("OwnBusArn", "arn:aws:events:us-east-1:123456789012:event-bus/own"),
        ("QueueArn", "arn:aws:sqs:us-east-1:123456789012:carillon-Queue"),
        ("QueueUrl", "http://127.0.0.1:4100/123456789012/carillon-Queue"),
        ("StreamUrl", "http://127.0.0.1:4110/"),
        ("TableName", "carillon-Table"),
        ("WebSocketUrl", "ws://127.0.0.1:4101/prod"),
    ];
    let outputs = template.outputs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect::<Vec<_>>();
    assert_eq!(outputs, expected);
    assert_eq!(template.buses, ["default", "own"]);
    assert_eq!(template.resources["Table"], "carillon-Table");
    assert_eq!(template.resources["Api"], template.websocket_apis[0].api_id);
}

#[test]
fn nothing_is_left_out_in_silence() {
    let template = notifications(&[("Secret", SECRET)]);
    let left_out = template.unknown.iter().map(|unknown| (unknown.logical_id.as_str(), unknown.harmless)).collect::<Vec<_>>();
    assert_eq!(
        left_out,
        [
            ("PublishFunction.Topic", false),
            ("PublishFunction.Nightly", false),
            ("EventsTopic", false),
            ("HandwrittenRule.Targets", false),
            ("HandwrittenPermission", true),
        ]
    );
}

#[test]
fn properties_that_change_behaviour_are_named() {
    let text = r"
Resources:
  Fifo: { Type: AWS::SQS::Queue, Properties: { FifoQueue: true, ReceiveMessageWaitTimeSeconds: 20 } }
  Function:
    Type: AWS::Serverless::Function
    Metadata: { BuildMethod: rust-cargolambda, BuildProperties: { Binary: f } }
    Properties:
      Runtime: provided.al2023
      CodeUri: .
      Layers: [a]
      FunctionUrlConfig: { AuthType: AWS_IAM }
      Events:
        Inbox: { Type: SQS, Properties: { Queue: !GetAtt Fifo.Arn, FilterCriteria: { Filters: [] } } }
        Off: { Type: EventBridgeRule, Properties: { Pattern: { source: [x] }, State: DISABLED } }
        Shaped: { Type: EventBridgeRule, Properties: { Pattern: { source: [x] }, InputPath: $.detail } }
  Other: { Type: AWS::Serverless::Function, Properties: { Runtime: nodejs22.x, CodeUri: . } }
";
    let template = resolve(text, &[]).expect("resolves");
    let left_out = template.unknown.iter().map(|unknown| unknown.logical_id.as_str()).collect::<Vec<_>>();
    assert_eq!(
        left_out,
        [
            "Fifo.ReceiveMessageWaitTimeSeconds",
            "Fifo",
            "Function.Layers",
            "Function.AuthType",
            "Function.Inbox.FilterCriteria",
            "Function.Off",
            "Function.Shaped.InputPath",
            "Other",
        ]
    );
    assert_eq!(template.queues[0].name, "carillon-Fifo.fifo");
    assert_eq!(template.rules.len(), 1);
    assert_eq!(template.functions.len(), 1);
}

#[test]
fn faults_name_the_resource_and_the_property() {
    let function = |properties: &str| {
        format!(
            "Resources: {{ F: {{ Type: AWS::Serverless::Function, \
             Metadata: {{ BuildMethod: rust-cargolambda, BuildProperties: {{ Binary: f }} }}, \
             Properties: {{ Runtime: provided.al2023, {properties} }} }}, Q: {{ Type: AWS::SQS::Queue }} }}"
        )
    };
    for (text, expected) in [
        ("Resources: {}".to_owned(), "Resources: is missing: a template has at least one resource"),
        ("Resources: { A: { Properties: {} } }".to_owned(), "Resources.A.Type: is missing"),
        ("Resources: { A-b: { Type: X } }".to_owned(), "Resources.A-b: a logical id has only letters and digits"),
        (
            function("Timeout: 901"),
            "Resources.F.Properties.Timeout: must be a whole number from 1 to 900, and 901 is none",
        ),
        (function("Environment: { Variables: { A: [1] } }"), "Resources.F.Properties.Environment.Variables.A: must be a string"),
        (
            function("FunctionUrlConfig: { AuthType: NONE, InvokeMode: STREAM }"),
            "Resources.F.Properties.FunctionUrlConfig.InvokeMode: must be BUFFERED or RESPONSE_STREAM, and STREAM is neither",
        ),
        (
            function("Events: { E: { Type: SQS, Properties: { Queue: !GetAtt Q.Arn, BatchSize: 50 } } }"),
            "Resources.F.Properties.Events.E.Properties.BatchSize: \
             50 is over 10 and needs MaximumBatchingWindowInSeconds of at least 1",
        ),
        (
            function("Events: { E: { Type: EventBridgeRule, Properties: { Pattern: { a: [{ regex: x }] } } } }"),
            "Resources.F.Properties.Events.E.Properties.Pattern: the event pattern is not valid at a.regex: regex is not an operator, \
             which are anything-but, cidr, equals-ignore-case, exists, numeric, prefix, suffix, wildcard",
        ),
        (
            "Resources: { F: { Type: AWS::Serverless::Function, Properties: { Runtime: provided.al2023, CodeUri: nowhere } } }".to_owned(),
            "Resources.F.Properties.CodeUri: has no executable at ./nowhere",
        ),
        (
            "Resources: { A: { Type: AWS::Serverless::WebSocketApi, Properties: { RouteSelectionExpression: $request.body.a, \
             Routes: { $connect: { FunctionArn: nobody } } } } }"
                .to_owned(),
            "Resources.A.Properties.Routes.$connect.FunctionArn: nobody is no function of this template",
        ),
        (
            "Resources: { Q: { Type: AWS::SQS::Queue, Properties: { RedrivePolicy: { deadLetterTargetArn: x, maxReceiveCount: 2 } } } }"
                .to_owned(),
            "Resources.Q.Properties.RedrivePolicy.deadLetterTargetArn: x is no queue of this template",
        ),
        ("Resources: { T: { Type: AWS::DynamoDB::Table } }".to_owned(), "Resources.T.Properties.KeySchema: is missing"),
        (
            "Resources: { Q: { Type: AWS::SQS::Queue, Properties: { QueueName: !Ref Q } } }".to_owned(),
            "Resources.Q.Properties.QueueName.Ref: Q refers to itself: Q",
        ),
    ] {
        let error = resolve(&text, &[]).expect_err(&text).to_string();
        assert_eq!(error, expected, "{text}");
    }
}

#[test]
fn parameters_are_checked_together() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates/notifications.yaml");
    let document = Document::read(&path).expect("the file is a template");
    assert!(document.requires_parameter("Secret"));
    assert!(!document.requires_parameter("Arch"));
    let error = document.resolve(&inputs(&[("Arch", "mips")]), &endpoints()).expect_err("two faults").to_string();
    assert_eq!(
        error,
        "parameter Arch is none of AllowedValues: x86_64, arm64; \
         parameter Secret has no value and no default: give it with --parameter Secret=VALUE"
    );
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let error = Document::read(Path::new("/nonexistent/template.yaml")).expect_err("no such file");
    assert_eq!(error.to_string(), "cannot read the template /nonexistent/template.yaml");
    let error = Document::parse("Resources: [", Path::new("here")).expect_err("not YAML");
    assert_eq!(error.to_string(), "the template here/template cannot be parsed");
    assert!(std::error::Error::source(&error).expect("it has a source").to_string().contains("line"));
}

#[test]
fn a_json_template_is_read_too() {
    let text = r#"{"Resources": {"Q": {"Type": "AWS::SQS::Queue"}}, "Outputs": {"Name": {"Value": {"Fn::GetAtt": ["Q", "QueueName"]}}}}"#;
    assert_eq!(resolve(text, &[]).expect("resolves").outputs["Name"], "carillon-Q");
}

const IOT: &str = r"
Resources:
  Function:
    Type: AWS::Serverless::Function
    Metadata: { BuildMethod: rust-cargolambda, BuildProperties: { Binary: f } }
    Properties:
      Runtime: provided.al2023
      CodeUri: .
      Events:
        Device: { Type: IoTRule, Properties: { Sql: SELECT * FROM 'a/#', AwsIotSqlVersion: '2016-03-23' } }
";

#[test]
fn iot_rules_and_authorizers_are_read() {
    let text = format!(
        "{IOT}
  Rule:
    Type: AWS::IoT::TopicRule
    Properties:
      RuleName: own
      TopicRulePayload:
        Sql: SELECT topic() AS topic FROM 'b'
        Actions: [{{ Lambda: {{ FunctionArn: !GetAtt Function.Arn }} }}, {{ S3: {{ BucketName: x }} }}, {{ Lambda: {{ FunctionArn: other }} }}]
        ErrorAction: {{ Sqs: {{}} }}
  Off: {{ Type: AWS::IoT::TopicRule, Properties: {{ TopicRulePayload: {{ RuleDisabled: true, Sql: nonsense, Actions: [] }} }} }}
  Authorizer:
    Type: AWS::IoT::Authorizer
    Properties: {{ AuthorizerFunctionArn: !GetAtt Function.Arn, SigningDisabled: true, Status: ACTIVE, TokenKeyName: key }}
  Signed: {{ Type: AWS::IoT::Authorizer, Properties: {{ AuthorizerName: signed, AuthorizerFunctionArn: !GetAtt Function.Arn }} }}
  Inactive: {{ Type: AWS::IoT::Authorizer, Properties: {{ AuthorizerFunctionArn: !GetAtt Function.Arn, Status: INACTIVE }} }}
"
    );
    let template = resolve(&text, &[]).expect("resolves");
    assert!(template.uses_iot());
    let rules = template.topic_rules.iter().map(|rule| (rule.logical_id.as_str(), rule.name.as_str(), rule.function.as_str()));
    let expected = [("FunctionDevice", "carillon_FunctionDevice", "Function"), ("Rule", "own", "Function")];
    assert_eq!(rules.collect::<Vec<_>>(), expected);
    assert_eq!(template.topic_rules[1].statement.source().as_str(), "b");
    let authorizers = template.authorizers.iter().map(|authorizer| (authorizer.name.as_str(), authorizer.token_key.as_deref()));
    assert_eq!(authorizers.collect::<Vec<_>>(), [("carillon-Authorizer", Some("key")), ("signed", None)]);
    let left_out = template.unknown.iter().map(|unknown| (unknown.logical_id.as_str(), unknown.harmless)).collect::<Vec<_>>();
    assert_eq!(
        left_out,
        [
            ("Rule.ErrorAction", false),
            ("Rule.S3", false),
            ("Rule.Lambda", false),
            ("Off", true),
            ("Signed.SigningDisabled", false),
            ("Inactive", true),
        ]
    );
}

#[test]
fn faults_of_iot_rules_name_their_place() {
    for (from, to, expected) in [
        (
            "SELECT * FROM 'a/#'",
            "SELECT * FROM 'a' WHERE x = 1",
            "Resources.Function.Properties.Events.Device.Properties.Sql: at character 19: WHERE is not evaluated by the local stack",
        ),
        (
            "'2016-03-23'",
            "'2014-01-01'",
            "Resources.Function.Properties.Events.Device.Properties.AwsIotSqlVersion: \
             must be one of 2015-10-08, 2016-03-23, beta, and 2014-01-01 is none",
        ),
        ("Sql: SELECT * FROM 'a/#', ", "", "Resources.Function.Properties.Events.Device.Properties.Sql: is missing"),
    ] {
        let text = IOT.replace(from, to);
        assert_ne!(text, IOT);
        assert_eq!(resolve(&text, &[]).expect_err(expected).to_string(), expected);
    }
}
