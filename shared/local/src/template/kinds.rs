//! The kinds of resources that the local stack emulates, and what leaving the others out means.

pub(super) const SERVERLESS_FUNCTION: &str = "AWS::Serverless::Function";
pub(super) const LAMBDA_FUNCTION: &str = "AWS::Lambda::Function";
pub(super) const LAMBDA_URL: &str = "AWS::Lambda::Url";
pub(super) const EVENT_SOURCE_MAPPING: &str = "AWS::Lambda::EventSourceMapping";
pub(super) const WEBSOCKET_API: &str = "AWS::Serverless::WebSocketApi";
pub(super) const ROUTE_RESPONSE: &str = "AWS::ApiGatewayV2::RouteResponse";
pub(super) const TABLE: &str = "AWS::DynamoDB::Table";
pub(super) const SIMPLE_TABLE: &str = "AWS::Serverless::SimpleTable";
pub(super) const QUEUE: &str = "AWS::SQS::Queue";
pub(super) const EVENT_BUS: &str = "AWS::Events::EventBus";
pub(super) const RULE: &str = "AWS::Events::Rule";
pub(super) const TOPIC_RULE: &str = "AWS::IoT::TopicRule";
pub(super) const AUTHORIZER: &str = "AWS::IoT::Authorizer";

/// What a resource of this kind does locally, where it does nothing: `(meaning, harmless)`.
pub(super) fn meaning(kind: &str) -> (&'static str, bool) {
    const PERMISSIONS: &str = "has no effect locally: nothing is denied here, so a missing permission shows only on AWS";
    const OBSERVING: &str = "has no effect locally: --verbose shows what functions log, and there are no metrics or alarms";
    const LIFE_CYCLE: &str = "has no effect locally: the newest code always runs";
    if kind.starts_with("AWS::IAM::") || kind.starts_with("AWS::KMS::") {
        return (PERMISSIONS, true);
    }
    if ["AWS::Logs::", "AWS::CloudWatch::", "AWS::XRay::", "AWS::ApplicationInsights::", "AWS::Synthetics::", "AWS::Budgets::"]
        .iter()
        .any(|prefix| kind.starts_with(prefix))
    {
        return (OBSERVING, true);
    }
    match kind {
        "AWS::Lambda::Permission"
        | "AWS::SQS::QueuePolicy"
        | "AWS::SQS::QueueInlinePolicy"
        | "AWS::SNS::TopicPolicy"
        | "AWS::Events::EventBusPolicy"
        | "AWS::ApiGateway::Account" => (PERMISSIONS, true),
        "AWS::Lambda::Version" | "AWS::Lambda::Alias" | "AWS::ApiGatewayV2::Deployment" => (LIFE_CYCLE, true),
        "AWS::ApplicationAutoScaling::ScalableTarget" | "AWS::ApplicationAutoScaling::ScalingPolicy" => {
            ("has no effect locally: nothing is scaled or throttled by capacity here", true)
        }
        "AWS::Lambda::EventInvokeConfig" => {
            ("is not emulated: asynchronous invocations have the default two retries and no destinations", false)
        }
        "AWS::SNS::Topic" | "AWS::SNS::Subscription" => {
            ("is not emulated: nothing can be published to it, and what subscribes to it receives nothing", false)
        }
        _ => ("is not emulated: it does nothing, and a reference to it is a placeholder", false),
    }
}
