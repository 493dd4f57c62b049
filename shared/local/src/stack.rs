//! The whole stack: a template, and everything that it asks for, running.

mod error;
mod lock;
mod ready;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

pub use error::StackError;
pub use ready::{Ready, ReadyApi, ReadyFunction};

use crate::aws_endpoint::{self, Services};
use crate::calls::{CallCount, Calls};
use crate::dynamodb::{DynamoDb, Storage};
use crate::eventbridge::EventBridge;
use crate::faults::Faults;
use crate::front_door::FrontDoor;
use crate::function_url::{self, UrlInfo};
use crate::invoker::Invoker;
use crate::iot::{Iot, IotOptions};
use crate::lambda::builder::{self, Profile};
use crate::lambda::{DeployedFunction, FailureDestinations, Functions, LambdaOptions};
use crate::spec::{CodeSpec, FunctionSpec};
use crate::sqs::Sqs;
use crate::sqs::event_source::EventSource;
use crate::sqs::queue::NewMessage;
use crate::template::{Document, Endpoints, IOT_ENDPOINT_VARIABLE, Identity, Inputs, Template, Unknown};
use crate::websocket_api::{TimeLimits, WebSocketApi, WebSocketApiOptions};

use lock::FolderLock;

/// The parameter that the stack makes up where the template wants one and nobody gave it.
const SECRET_PARAMETER: &str = "Secret";

/// The parameter that gets the local address of IoT Core where the template wants one and nobody gave it.
const IOT_ENDPOINT_PARAMETER: &str = "IotDataEndpoint";

/// 256 bits, written as 64 hexadecimal digits.
const SECRET_BYTES: usize = 32;

/// Processes get this long between being asked to end and being killed. With the rest it keeps the shutdown under three seconds.
const FUNCTION_GRACE: Duration = Duration::from_secs(1);

/// What a stack is started with.
#[derive(Clone)]
pub struct StackOptions {
    /// The template.
    pub template: PathBuf,
    /// Builds the functions with the release profile.
    pub release: bool,
    /// Values for the template's parameters.
    pub parameters: BTreeMap<String, String>,
    /// Where tables are kept; without it they are gone with the stack.
    pub data: Option<PathBuf>,
    /// The address that everything listens on.
    pub host: IpAddr,
    /// The ports.
    pub ports: Ports,
    /// How many times faster than on AWS the clock of WebSocket connections and retries runs, for tests. MQTT's times are agreed
    /// with its clients, and stay.
    pub time_scale: NonZeroU32,
    /// Executables by binary name. With it cargo is not called.
    pub prebuilt: Option<BTreeMap<String, PathBuf>>,
    /// `AWS_REGION` of everything.
    pub region: String,
    /// The stack's name, which begins every name that the template does not give.
    pub name: String,
    /// Where each function's log is also written.
    pub logs: Option<PathBuf>,
    /// The most processes of one function at a time.
    pub maximum_environments: usize,
    /// Hears of the start's progress.
    pub observer: Option<Observer>,
}

/// Hears of the start's progress.
pub type Observer = Arc<dyn Fn(Progress) + Send + Sync>;

/// A step of the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Something in the template is not emulated.
    LeftOut(Unknown),
    /// Cargo builds these binaries.
    Building(Vec<String>),
    /// Cargo is done.
    Built,
    /// Everything accepts connections.
    Ready,
}

/// The first port of each kind; 0 takes any that is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The AWS endpoint.
    pub aws: u16,
    /// The first WebSocket API; the next ones follow upwards.
    pub websocket: u16,
    /// MQTT over TCP, where the template uses IoT Core.
    pub mqtt: u16,
    /// IoT Core's HTTP data plane and MQTT over WebSocket, where the template uses IoT Core.
    pub iot: u16,
    /// The first function URL; the next ones follow upwards, in the template's order.
    pub url: u16,
}

/// A running stack. Dropping it ends it too, less politely than [`Stack::shutdown`].
#[derive(Debug)]
pub struct Stack {
    ready: Ready,
    template: Template,
    functions: Functions,
    sqs: Sqs,
    websocket_apis: BTreeMap<String, WebSocketApi>,
    iot: Option<Iot>,
    /// What accepts clients of WebSocket APIs and of MQTT.
    accepting: TaskTracker,
    event_sources: Vec<EventSource>,
    faults: Faults,
    calls: Calls,
    doors: Vec<FrontDoor>,
    dynamodb: Mutex<Option<DynamoDb>>,
    ready_file: Mutex<Option<PathBuf>>,
    _data_lock: Option<FolderLock>,
}

impl StackOptions {
    /// The options of a stack for a template: tables that are gone with it, fixed ports on 127.0.0.1, AWS's times.
    #[must_use]
    pub fn new(template: impl Into<PathBuf>) -> Self {
        let identity = Identity::default();
        Self {
            template: template.into(),
            release: false,
            parameters: BTreeMap::new(),
            data: None,
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            ports: Ports::default(),
            time_scale: NonZeroU32::MIN,
            prebuilt: None,
            region: identity.region,
            name: identity.stack,
            logs: None,
            maximum_environments: crate::lambda::default_environments(),
            observer: None,
        }
    }

    fn notify(&self, progress: Progress) {
        if let Some(observer) = &self.observer {
            observer(progress);
        }
    }
}

impl std::fmt::Debug for StackOptions {
    /// Without the values of parameters, which may be secrets.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("StackOptions")
            .field("template", &self.template)
            .field("release", &self.release)
            .field("parameters", &self.parameters.keys().collect::<Vec<_>>())
            .field("data", &self.data)
            .field("host", &self.host)
            .field("ports", &self.ports)
            .field("time_scale", &self.time_scale)
            .field("region", &self.region)
            .field("name", &self.name)
            .field("logs", &self.logs)
            .finish_non_exhaustive()
    }
}

impl Ports {
    /// Any free ports.
    pub const FREE: Self = Self { aws: 0, websocket: 0, mqtt: 0, iot: 0, url: 0 };
}

impl Default for Ports {
    fn default() -> Self {
        Self { aws: 4100, websocket: 4101, mqtt: 4102, iot: 4103, url: 4110 }
    }
}

impl Stack {
    /// Reads the template, takes the ports, builds the functions and starts everything. When it returns, everything accepts
    /// connections. Dropping the future ends what was started.
    ///
    /// # Errors
    /// [`StackError`], which names the place in the template, the port and its flag, or the function.
    pub async fn start(options: StackOptions) -> Result<Self, StackError> {
        raise_open_files_limit();
        let document = Document::read(&options.template)?;
        let mut parameters = options.parameters.clone();
        if document.requires_parameter(SECRET_PARAMETER) {
            parameters.entry(SECRET_PARAMETER.to_owned()).or_insert_with(new_secret);
        }
        let identity = Identity { region: options.region.clone(), stack: options.name.clone(), ..Identity::default() };
        let takes_iot_endpoint =
            document.requires_parameter(IOT_ENDPOINT_PARAMETER) && !parameters.contains_key(IOT_ENDPOINT_PARAMETER);
        let mut inputs = Inputs { parameters, identity };
        if takes_iot_endpoint {
            inputs.parameters.insert(IOT_ENDPOINT_PARAMETER.to_owned(), Endpoints::UNBOUND_HOST.to_owned());
        }
        let wanted = document.resolve(&inputs, &Endpoints::unbound())?;
        for unknown in &wanted.unknown {
            tracing::debug!(resource = %unknown.logical_id, resource.kind = %unknown.kind, meaning = %unknown.meaning, "not emulated");
            options.notify(Progress::LeftOut(unknown.clone()));
        }
        let data_lock = options.data.as_deref().map(FolderLock::take).transpose()?;
        let listeners = Listeners::bind(&options, &wanted).await?;
        let endpoints = listeners.endpoints(&wanted);
        if takes_iot_endpoint {
            inputs.parameters.insert(IOT_ENDPOINT_PARAMETER.to_owned(), endpoints.iot_or_aws());
        }
        let template = document.resolve(&inputs, &endpoints)?;
        let deployed = executables(&options, template.functions.clone()).await?;
        Self::assemble(&options, &inputs.identity, template, deployed, listeners, data_lock)
    }

    fn assemble(
        options: &StackOptions,
        identity: &Identity,
        template: Template,
        deployed: Vec<DeployedFunction>,
        listeners: Listeners,
        data_lock: Option<FolderLock>,
    ) -> Result<Self, StackError> {
        let endpoints = listeners.endpoints(&template);
        let storage = options.data.as_ref().map_or(Storage::Temporary, |folder| Storage::Kept(folder.clone()));
        let calls = Calls::default();
        let dynamodb = DynamoDb::start(listeners.dynamodb, &template.tables, &storage, calls.clone())?;
        let managements = managements(&template, &endpoints);
        let sqs = Sqs::new(&template.queues, &endpoints.aws, &identity.account);
        let functions = Functions::start(
            deployed,
            &LambdaOptions {
                region: options.region.clone(),
                variables: endpoint_variables(&endpoints, dynamodb.address(), managements.first()),
                own_endpoints: managements.clone(),
                max_environments: options.maximum_environments,
                time_scale: 1.0 / f64::from(options.time_scale.get()),
                log_directory: options.logs.clone(),
                failure_destinations: failure_destinations(sqs.clone()),
            },
        )?;
        let invoker: Arc<dyn Invoker> = Arc::new(functions.clone());
        let events =
            EventBridge::new(&template.buses, template.rules.clone(), invoker.clone(), &identity.account, &identity.region)?;

        let (mut websocket_apis, accepting) = (BTreeMap::new(), TaskTracker::new());
        let time_limits = TimeLimits::AWS.divided_by(options.time_scale);
        for (spec, listener) in template.websocket_apis.iter().zip(listeners.websocket) {
            let api_options = WebSocketApiOptions { time_limits, calls: calls.clone() };
            let api = WebSocketApi::new(spec.clone(), invoker.clone(), api_options);
            let api = api.map_err(|source| StackError::RouteSelection { api: spec.logical_id.clone(), source })?;
            accepting.spawn({
                let api = api.clone();
                async move { api.serve(listener).await }
            });
            websocket_apis.insert(spec.logical_id.clone(), api);
        }

        let mut doors = Vec::new();
        let iot = match listeners.iot {
            Some(listeners) => {
                let options = IotOptions {
                    authorizers: template.authorizers.clone(),
                    rules: template.topic_rules.clone(),
                    account: identity.account.clone(),
                    region: identity.region.clone(),
                    mqtt_address: listeners.mqtt.local_addr().map_err(StackError::Address)?,
                    http_address: listeners.http.local_addr().map_err(StackError::Address)?,
                    calls: calls.clone(),
                };
                let iot = Iot::start(options, invoker.clone());
                accepting.spawn({
                    let iot = iot.clone();
                    async move { iot.serve_mqtt(listeners.mqtt).await }
                });
                doors.push(FrontDoor::start(listeners.http, iot.router()));
                Some(iot)
            }
            None => None,
        };
        let faults = Faults::new(iot.clone());

        let services = Services {
            sqs: sqs.clone(),
            events,
            functions: functions.clone(),
            dynamodb: dynamodb.address(),
            iot: iot.clone(),
            faults: faults.clone(),
            calls: calls.clone(),
            management: managements,
        };
        doors.push(FrontDoor::start(listeners.aws, aws_endpoint::router(services)));
        for (function, listener) in functions_with_urls(&template).zip(listeners.urls) {
            let port = listener.local_addr().map_err(StackError::Address)?.port();
            let info = UrlInfo { url_id: url_id(identity, &function.logical_id), region: identity.region.clone(), port };
            let spec = function.url.as_ref().expect("only functions with URLs are here");
            let router = function_url::router(spec, function.logical_id.clone(), invoker.clone(), info);
            doors.push(FrontDoor::start(listener, router));
        }

        let mappings = template.sqs_mappings.iter().cloned();
        let event_sources = mappings
            .map(|mapping| EventSource::start(sqs.clone(), mapping, invoker.clone(), &identity.region))
            .collect::<Result<Vec<_>, _>>()?;
        let stack = Self {
            ready: Ready::of(&template, &endpoints, identity),
            template,
            functions,
            sqs,
            websocket_apis,
            iot,
            accepting,
            event_sources,
            faults,
            calls,
            doors,
            dynamodb: Mutex::new(Some(dynamodb)),
            ready_file: Mutex::new(None),
            _data_lock: data_lock,
        };
        options.notify(Progress::Ready);
        Ok(stack)
    }

    /// Where everything is.
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// The template, resolved.
    #[must_use]
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// The functions: their logs, their counters, and the fault of killing their processes.
    #[must_use]
    pub fn functions(&self) -> &Functions {
        &self.functions
    }

    /// The queues.
    #[must_use]
    pub fn sqs(&self) -> &Sqs {
        &self.sqs
    }

    /// A WebSocket API, by its logical id.
    #[must_use]
    pub fn websocket_api(&self, logical_id: &str) -> Option<&WebSocketApi> {
        self.websocket_apis.get(logical_id)
    }

    /// IoT Core, where the template uses it.
    #[must_use]
    pub fn iot(&self) -> Option<&Iot> {
        self.iot.as_ref()
    }

    /// The switches that make services fail.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// What the services were asked since the start, or since [`Stack::reset_calls`].
    #[must_use]
    pub fn calls(&self) -> Vec<CallCount> {
        self.calls.snapshot()
    }

    /// Begins to count calls anew.
    pub fn reset_calls(&self) {
        self.calls.reset();
    }

    /// Writes the ready file, whole or not at all, readable by its owner alone since it holds the token. The shutdown removes it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_ready_file(&self, path: &Path) -> Result<(), StackError> {
        self.ready.write(path).map_err(|source| StackError::ReadyFile { path: path.to_owned(), source })?;
        *self.ready_file.lock().unwrap_or_else(PoisonError::into_inner) = Some(path.to_owned());
        Ok(())
    }

    /// Ends everything within three seconds and leaves no process behind.
    pub async fn shutdown(self) {
        self.remove_ready_file();
        // Messages stop first, so that no invocation begins that nobody waits for.
        futures_util::future::join_all(self.event_sources.iter().map(EventSource::shutdown)).await;
        tokio::join!(
            futures_util::future::join_all(self.websocket_apis.values().map(WebSocketApi::shutdown)),
            futures_util::future::join_all(self.iot.iter().map(Iot::shutdown)),
            futures_util::future::join_all(self.doors.iter().map(FrontDoor::shutdown)),
            self.functions.shutdown(FUNCTION_GRACE),
        );
        self.accepting.close();
        self.accepting.wait().await;
        // Functions talk to it until they end.
        let dynamodb = self.dynamodb.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(dynamodb) = dynamodb {
            dynamodb.shutdown().await;
        }
    }

    fn remove_ready_file(&self) {
        let path = self.ready_file.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(path) = path {
            self.ready.remove(&path);
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.remove_ready_file();
        if let Some(iot) = &self.iot {
            iot.cut();
        }
    }
}

/// Every bound listener.
struct Listeners {
    aws: TcpListener,
    /// In the order of the template's APIs.
    websocket: Vec<TcpListener>,
    /// In the order of the template's functions with URLs.
    urls: Vec<TcpListener>,
    iot: Option<IotListeners>,
    dynamodb: std::net::TcpListener,
    addresses: Addresses,
}

/// The listeners of IoT Core.
struct IotListeners {
    mqtt: TcpListener,
    http: TcpListener,
}

struct Addresses {
    aws: SocketAddr,
    /// MQTT and HTTP.
    iot: Option<(SocketAddr, SocketAddr)>,
    websocket: Vec<SocketAddr>,
    urls: Vec<SocketAddr>,
}

impl Listeners {
    async fn bind(options: &StackOptions, template: &Template) -> Result<Self, StackError> {
        let (host, ports) = (options.host, options.ports);
        let aws = bind(host, ports.aws, 0, "--aws-port").await?;
        let mut websocket = Vec::new();
        for index in 0..template.websocket_apis.len() {
            websocket.push(bind(host, ports.websocket, index, "--websocket-port").await?);
        }
        let mut urls = Vec::new();
        for index in 0..functions_with_urls(template).count() {
            urls.push(bind(host, ports.url, index, "--url-port").await?);
        }
        let iot = if template.uses_iot() {
            let mqtt = bind(host, ports.mqtt, 0, "--mqtt-port").await?;
            let http = bind(host, ports.iot, 0, "--iot-port").await?;
            Some(IotListeners { mqtt, http })
        } else {
            None
        };
        let dynamodb = std::net::TcpListener::bind((host, 0)).map_err(StackError::Address)?;
        let address = |listener: &TcpListener| listener.local_addr().map_err(StackError::Address);
        let addresses = Addresses {
            aws: address(&aws)?,
            iot: match &iot {
                Some(iot) => Some((address(&iot.mqtt)?, address(&iot.http)?)),
                None => None,
            },
            websocket: websocket.iter().map(address).collect::<Result<_, _>>()?,
            urls: urls.iter().map(address).collect::<Result<_, _>>()?,
        };
        Ok(Self { aws, websocket, urls, iot, dynamodb, addresses })
    }

    fn endpoints(&self, template: &Template) -> Endpoints {
        let named = |ids: Vec<&String>, addresses: &[SocketAddr]| {
            ids.into_iter().cloned().zip(addresses.iter().map(|address| reachable(*address).to_string())).collect()
        };
        Endpoints {
            aws: format!("http://{}", reachable(self.addresses.aws)),
            function_urls: named(
                functions_with_urls(template).map(|function| &function.logical_id).collect(),
                &self.addresses.urls,
            ),
            websocket_apis: named(template.websocket_apis.iter().map(|api| &api.logical_id).collect(), &self.addresses.websocket),
            mqtt: self.addresses.iot.map(|(mqtt, _)| reachable(mqtt).to_string()),
            iot: self.addresses.iot.map(|(_, http)| reachable(http).to_string()),
        }
    }
}

async fn bind(host: IpAddr, first: u16, index: usize, flag: &'static str) -> Result<TcpListener, StackError> {
    let port = match first {
        0 => 0,
        first => u16::try_from(usize::from(first) + index).map_err(|_| StackError::NoPort { first, flag })?,
    };
    TcpListener::bind((host, port)).await.map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => StackError::PortBusy { port, flag, source },
        _ => StackError::Bind { address: SocketAddr::new(host, port), flag, source },
    })
}

/// An address to connect to: a listener on all addresses is reached on the loopback one.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(ip, address.port())
}

fn functions_with_urls(template: &Template) -> impl Iterator<Item = &FunctionSpec> {
    template.functions.iter().filter(|function| function.url.is_some())
}

/// The executable of every function: taken as built, or built now.
async fn executables(options: &StackOptions, functions: Vec<FunctionSpec>) -> Result<Vec<DeployedFunction>, StackError> {
    let folder = options.template.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    if let Some(prebuilt) = &options.prebuilt {
        let executable = |spec: FunctionSpec| {
            let executable = match &spec.code {
                CodeSpec::Bootstrap { path } => path.clone(),
                CodeSpec::Cargo { binary } => prebuilt
                    .get(binary)
                    .cloned()
                    .ok_or_else(|| StackError::NotPrebuilt { function: spec.logical_id.clone(), binary: binary.clone() })?,
            };
            Ok(DeployedFunction { spec, executable })
        };
        return functions.into_iter().map(executable).collect();
    }
    let binaries = functions.iter().filter_map(|function| match &function.code {
        CodeSpec::Cargo { binary } => Some(binary.clone()),
        CodeSpec::Bootstrap { .. } => None,
    });
    let binaries = binaries.collect::<std::collections::BTreeSet<_>>();
    if !binaries.is_empty() {
        options.notify(Progress::Building(binaries.into_iter().collect()));
    }
    let profile = if options.release { Profile::Release } else { Profile::Development };
    let deployed = builder::build(folder, functions, profile).await?;
    options.notify(Progress::Built);
    Ok(deployed)
}

/// Records of asynchronous events that were given up go to the queues of the template.
fn failure_destinations(sqs: Sqs) -> FailureDestinations {
    FailureDestinations::new(move |arn, record| {
        let queue = sqs.by_arn(arn);
        queue.map(|queue| sqs.send(queue, NewMessage { body: record, ..NewMessage::default() })).is_some()
    })
}

/// The `@connections` endpoint of each WebSocket API, in the template's order.
fn managements(template: &Template, endpoints: &Endpoints) -> Vec<String> {
    let apis = template.websocket_apis.iter();
    apis.map(|api| format!("http://{}/{}", endpoints.websocket_apis[&api.logical_id], api.stage)).collect()
}

/// What the SDKs in functions read. It replaces what the template says under these names, unless that is one of the stack's own
/// endpoints already.
fn endpoint_variables(endpoints: &Endpoints, dynamodb: SocketAddr, management: Option<&String>) -> BTreeMap<String, String> {
    let dynamodb = format!("http://{}", reachable(dynamodb));
    let mut variables = BTreeMap::from([
        ("AWS_ENDPOINT_URL".to_owned(), endpoints.aws.clone()),
        ("AWS_ENDPOINT_URL_DYNAMODB".to_owned(), dynamodb.clone()),
        ("AWS_ENDPOINT_URL_DYNAMODB_STREAMS".to_owned(), dynamodb),
        ("AWS_ENDPOINT_URL_SQS".to_owned(), endpoints.aws.clone()),
    ]);
    if let Some(iot) = &endpoints.iot {
        variables.insert(IOT_ENDPOINT_VARIABLE.to_owned(), format!("http://{iot}"));
    }
    if let Some(management) = management {
        variables.insert("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI".to_owned(), management.clone());
    }
    variables
}

/// Function URLs have an id of 32 letters and digits on AWS.
fn url_id(identity: &Identity, logical_id: &str) -> String {
    use md5::{Digest, Md5};
    let digest = Md5::digest(format!("{}/{logical_id}/url", identity.stack));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn new_secret() -> String {
    let bytes: [u8; SECRET_BYTES] = rand::random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Ten thousand clients are ten thousand files. The soft limit may be raised to the hard one by anybody.
fn raise_open_files_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        // macOS names no limit and refuses it.
        let wanted = if cfg!(target_os = "macos") { hard.min(10_240) } else { hard };
        if soft >= wanted { Ok(()) } else { setrlimit(Resource::RLIMIT_NOFILE, wanted, hard) }
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit on open files could not be raised, so fewer clients can connect");
    }
}
