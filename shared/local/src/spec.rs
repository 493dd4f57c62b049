//! What the template asks for, resolved: the typed view between the template reader and the emulated services.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::iot::sql::Statement;

/// A function of the template with every intrinsic resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionSpec {
    /// The resource's logical id.
    pub logical_id: String,
    /// The function's name, as Invoke takes it.
    pub name: String,
    /// The ARN made of the local account and region.
    pub arn: String,
    /// Where the code is.
    pub code: CodeSpec,
    /// The template's variables; the stack adds what Lambda sets and its own endpoints.
    pub environment: BTreeMap<String, String>,
    /// `Timeout`, 3 seconds where absent (Lambda's default).
    pub timeout: Duration,
    /// `MemorySize` in MB, 128 where absent (Lambda's default).
    pub memory_mb: u32,
    /// `ReservedConcurrentExecutions`.
    pub reserved_concurrency: Option<u32>,
    /// `FunctionUrlConfig`.
    pub url: Option<FunctionUrlSpec>,
    /// `EventInvokeConfig`.
    pub asynchronous: AsynchronousSpec,
}

/// What becomes of a function's asynchronous events that fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsynchronousSpec {
    /// `MaximumRetryAttempts`, 2 where absent.
    pub maximum_retries: usize,
    /// `MaximumEventAgeInSeconds`, 6 hours where absent.
    pub maximum_age: Duration,
    /// `DestinationConfig.OnFailure`: the ARN of a queue of the template, which gets a record of each event that is given up.
    pub on_failure: Option<String>,
}

impl Default for AsynchronousSpec {
    /// Lambda's own (AWS Lambda Developer Guide, "How Lambda handles errors and retries with asynchronous invocation").
    fn default() -> Self {
        Self { maximum_retries: 2, maximum_age: Duration::from_secs(6 * 60 * 60), on_failure: None }
    }
}

/// Where a function's binary comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodeSpec {
    /// `Metadata.BuildProperties.Binary` with `BuildMethod: rust-cargolambda`: built by cargo under this name.
    Cargo {
        /// The binary's name.
        binary: String,
    },
    /// A folder or file of `CodeUri` that holds `bootstrap`.
    Bootstrap {
        /// The executable.
        path: PathBuf,
    },
}

/// A function URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionUrlSpec {
    /// `InvokeMode: RESPONSE_STREAM`.
    pub streaming: bool,
    /// `Cors`, answered by the URL itself.
    pub cors: Option<CorsSpec>,
}

/// `FunctionUrlConfig.Cors`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CorsSpec {
    /// `AllowOrigins`.
    pub allow_origins: Vec<String>,
    /// `AllowMethods`.
    pub allow_methods: Vec<String>,
    /// `AllowHeaders`.
    pub allow_headers: Vec<String>,
    /// `ExposeHeaders`.
    pub expose_headers: Vec<String>,
    /// `AllowCredentials`.
    pub allow_credentials: bool,
    /// `MaxAge` in seconds.
    pub max_age: Option<u32>,
}

/// An API Gateway WebSocket API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocketApiSpec {
    /// The resource's logical id.
    pub logical_id: String,
    /// The physical API id (10 characters).
    pub api_id: String,
    /// `StageName`.
    pub stage: String,
    /// `RouteSelectionExpression`.
    pub route_selection_expression: String,
    /// Route key to its target.
    pub routes: BTreeMap<String, RouteSpec>,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    /// The logical id of the function.
    pub function: String,
    /// Whether the function's answer goes back to the client: `RouteResponseSelectionExpression: $default` on the route
    /// **and** a RouteResponse `$default` (Amazon API Gateway Developer Guide, "Set up a WebSocket API route response").
    pub two_way: bool,
}

/// A DynamoDB table, as the JSON that CreateTable takes, and its TTL attribute.
#[derive(Clone, Debug, PartialEq)]
pub struct TableSpec {
    /// The resource's logical id.
    pub logical_id: String,
    /// The physical name.
    pub name: String,
    /// CreateTable's input.
    pub create: serde_json::Value,
    /// `TimeToLiveSpecification.AttributeName` where enabled.
    pub ttl_attribute: Option<String>,
}

/// A standard SQS queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSpec {
    /// The resource's logical id.
    pub logical_id: String,
    /// The physical name.
    pub name: String,
    /// The ARN.
    pub arn: String,
    /// `VisibilityTimeout`, 30 s where absent.
    pub visibility: Duration,
    /// `DelaySeconds`.
    pub delay: Duration,
    /// `MessageRetentionPeriod`, 4 days where absent.
    pub retention: Duration,
    /// `RedrivePolicy`: the dead-letter queue's ARN and `maxReceiveCount`.
    pub redrive: Option<(String, u32)>,
}

/// An SQS event source mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqsMappingSpec {
    /// The ARN of the queue.
    pub queue_arn: String,
    /// The logical id of the function.
    pub function: String,
    /// `BatchSize`, 10 where absent.
    pub batch_size: usize,
    /// `MaximumBatchingWindowInSeconds`.
    pub window: Duration,
    /// `ScalingConfig.MaximumConcurrency`.
    pub maximum_concurrency: Option<usize>,
    /// `FunctionResponseTypes: [ReportBatchItemFailures]`.
    pub report_batch_item_failures: bool,
}

/// An EventBridge rule with one function as its target.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSpec {
    /// The resource's logical id.
    pub logical_id: String,
    /// The bus's name.
    pub bus: String,
    /// The event pattern.
    pub pattern: serde_json::Value,
    /// The logical id of the function.
    pub function: String,
}

/// A custom authorizer of IoT Core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizerSpec {
    /// The resource's logical id.
    pub logical_id: String,
    /// `AuthorizerName`, by which clients choose it.
    pub name: String,
    /// The logical id of the function.
    pub function: String,
    /// `TokenKeyName`: the parameter or header whose value the function gets as `token`.
    pub token_key: Option<String>,
}

/// An IoT rule with one function as its target.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicRuleSpec {
    /// The resource's logical id.
    pub logical_id: String,
    /// `RuleName`, by which basic ingest finds it.
    pub name: String,
    /// `Sql`.
    pub statement: Statement,
    /// The logical id of the function.
    pub function: String,
}
