//! Reads a SAM template and says what it asks for, with every intrinsic resolved.
//!
//! Reading has three steps, since values refer to addresses that exist only once ports are bound: [`Document::read`] parses,
//! [`Document::resolve`] with [`Endpoints::unbound`] tells which front doors are needed, and a second [`Document::resolve`]
//! with the real [`Endpoints`] gives the values that functions see. Names and ids are the same in both.

mod document;
mod error;
mod globals;
mod kinds;
mod object;
mod parameters;
mod physical;
mod resolver;
mod resources;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub use error::{ParameterError, TemplateError};

use crate::spec::{
    AuthorizerSpec, FunctionSpec, QueueSpec, RuleSpec, SqsMappingSpec, TableSpec, TopicRuleSpec, WebSocketApiSpec,
};

/// The variable by which a function finds the IoT data plane: the SDKs' own.
pub(crate) const IOT_ENDPOINT_VARIABLE: &str = "AWS_ENDPOINT_URL_IOT_DATA_PLANE";

/// A template that was read and not yet resolved.
#[derive(Clone, Debug)]
pub struct Document {
    folder: PathBuf,
    root: Value,
}

/// What a template is resolved with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    /// Values for the template's parameters.
    pub parameters: BTreeMap<String, String>,
    /// The account, the region and the stack's name.
    pub identity: Identity,
}

/// Whose resources they are: this goes into ARNs and names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The account id, 12 digits.
    pub account: String,
    /// The region.
    pub region: String,
    /// The stack's name, which begins every name that the template does not give.
    pub stack: String,
}

/// Where the front doors listen, as functions and clients reach them. URLs have no slash at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// The AWS endpoint, `http://host:port`.
    pub aws: String,
    /// Function logical id to the address of its function URL, `host:port`.
    pub function_urls: BTreeMap<String, String>,
    /// WebSocket API logical id to its address, `host:port`.
    pub websocket_apis: BTreeMap<String, String>,
    /// The address of IoT Core's HTTP port, `host:port`, where the template uses IoT Core.
    pub iot: Option<String>,
    /// The address of IoT Core's MQTT port, `host:port`, where the template uses IoT Core.
    pub mqtt: Option<String>,
}

/// What the template asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Template {
    /// The functions, in the template's order.
    pub functions: Vec<FunctionSpec>,
    /// The WebSocket APIs, in the template's order.
    pub websocket_apis: Vec<WebSocketApiSpec>,
    /// The tables.
    pub tables: Vec<TableSpec>,
    /// The queues.
    pub queues: Vec<QueueSpec>,
    /// The event source mappings between queues and functions.
    pub sqs_mappings: Vec<SqsMappingSpec>,
    /// The names of the event buses, `default` among them.
    pub buses: Vec<String>,
    /// The EventBridge rules.
    pub rules: Vec<RuleSpec>,
    /// The custom authorizers of IoT Core.
    pub authorizers: Vec<AuthorizerSpec>,
    /// The IoT rules.
    pub topic_rules: Vec<TopicRuleSpec>,
    /// The template's outputs, with the addresses of AWS replaced by those of the stack.
    pub outputs: BTreeMap<String, String>,
    /// Logical id to physical id (what `Ref` gives) of every resource that exists.
    pub resources: BTreeMap<String, String>,
    /// The value of the parameter `Secret`, where there is one.
    pub secret: Option<String>,
    /// What the stack leaves out, and what that means.
    pub unknown: Vec<Unknown>,
}

/// Something in the template that the local stack does not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// The resource, and below it, after dots, the property or event source.
    pub logical_id: String,
    /// The resource's type.
    pub kind: String,
    /// What leaving it out means, as the rest of a sentence.
    pub meaning: String,
    /// Whether what runs locally behaves as on AWS all the same.
    pub harmless: bool,
}

impl Document {
    /// Reads a YAML or JSON file.
    ///
    /// # Errors
    /// When the file cannot be read or is neither YAML nor JSON.
    pub fn read(path: &Path) -> Result<Self, TemplateError> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        Ok(Self { root: document::read(path)?, folder: folder.to_owned() })
    }

    /// Takes a template as text; `folder` is where its relative paths begin.
    ///
    /// # Errors
    /// When the text is neither YAML nor JSON.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, TemplateError> {
        let root = document::parse(text).map_err(|source| TemplateError::Syntax { path: folder.join("template"), source })?;
        Ok(Self { root, folder: folder.to_owned() })
    }

    /// Whether the template has a parameter of this name that has no default.
    #[must_use]
    pub fn requires_parameter(&self, name: &str) -> bool {
        let declaration = self.root.get("Parameters").and_then(|parameters| parameters.get(name));
        declaration.is_some_and(|declaration| declaration.get("Default").is_none())
    }

    /// Resolves parameters, conditions and every property that the stack reads.
    ///
    /// # Errors
    /// Names the place in the template and its fault, or all faulty parameters at once.
    pub fn resolve(&self, inputs: &Inputs, endpoints: &Endpoints) -> Result<Template, TemplateError> {
        resources::read(&self.root, &self.folder, inputs, endpoints)
    }
}

impl Template {
    /// Whether anything here has to do with IoT Core: a rule, an authorizer, or a function that is told where its data plane is.
    #[must_use]
    pub fn uses_iot(&self) -> bool {
        let is_told = |function: &FunctionSpec| function.environment.contains_key(IOT_ENDPOINT_VARIABLE);
        !self.topic_rules.is_empty() || !self.authorizers.is_empty() || self.functions.iter().any(is_told)
    }
}

impl Identity {
    /// `AWS::Partition`.
    pub const PARTITION: &str = "aws";
    /// `AWS::URLSuffix`.
    pub const URL_SUFFIX: &str = "amazonaws.com";
    /// The label in the ARN of every table's stream.
    pub const STREAM_LABEL: &str = "2026-01-01T00:00:00.000";

    /// An ARN of this account and region.
    #[must_use]
    pub fn arn(&self, service: &str, resource: &str) -> String {
        format!("arn:{}:{service}:{}:{}:{resource}", Self::PARTITION, self.region, self.account)
    }

    /// The ARN of a function.
    #[must_use]
    pub fn function_arn(&self, name: &str) -> String {
        self.arn("lambda", &format!("function:{name}"))
    }

    /// The name of a resource that the template does not name.
    #[must_use]
    pub fn physical_name(&self, logical_id: &str) -> String {
        physical::generated_name(&self.stack, logical_id)
    }
}

impl Default for Identity {
    fn default() -> Self {
        Self { account: "123456789012".to_owned(), region: "us-east-1".to_owned(), stack: "carillon".to_owned() }
    }
}

impl Endpoints {
    /// The host of every address before any port is bound. It is not valid, on purpose.
    pub const UNBOUND_HOST: &str = "unbound.invalid";

    /// Addresses before any port is bound.
    #[must_use]
    pub fn unbound() -> Self {
        Self { aws: format!("http://{}", Self::UNBOUND_HOST), ..Self::default() }
    }

    /// Where the IoT data plane answers, `host:port`: its own port, or the AWS endpoint, which says then that there is none.
    #[must_use]
    pub fn iot_or_aws(&self) -> String {
        let aws = self.aws.strip_prefix("http://").unwrap_or(&self.aws);
        self.iot.as_deref().unwrap_or(aws).to_owned()
    }

    /// The URL of a function's front door, with the slash that AWS gives it too.
    #[must_use]
    pub fn function_url(&self, logical_id: &str) -> String {
        format!("http://{}/", self.function_urls.get(logical_id).map_or(Self::UNBOUND_HOST, String::as_str))
    }

    /// Replaces the address of a WebSocket API on AWS by its local one: `wss://{id}.execute-api.{region}.amazonaws.com` becomes
    /// `ws://host:port`, and likewise `https` and a bare host.
    #[must_use]
    pub fn localised(&self, text: &str, apis: &[WebSocketApiSpec], identity: &Identity) -> String {
        let mut text = text.to_owned();
        for api in apis {
            let host = format!("{}.execute-api.{}.{}", api.api_id, identity.region, Identity::URL_SUFFIX);
            let Some(address) = self.websocket_apis.get(&api.logical_id).filter(|_| text.contains(&host)) else { continue };
            text = text.replace(&format!("wss://{host}"), &format!("ws://{address}"));
            text = text.replace(&format!("https://{host}"), &format!("http://{address}"));
            text = text.replace(&host, address);
        }
        text
    }
}
