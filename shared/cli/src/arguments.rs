//! The command line, as clap reads it.

use crate::bench;
use crate::endpoints::{DEFAULT_READY_FILE, variables};
use crate::exit;
use carillon_core::channel::{Channel, Namespace};
use carillon_core::fault::Fault;
use carillon_core::mqtt::MqttPrefix;
use carillon_core::namespace::OptionSpec;
use carillon_core::position::Position;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::IpAddr;
use std::path::PathBuf;

/// One publish reaches every subscriber: the local stack, and a client for it and for deployed ones.
#[derive(Debug, Parser)]
#[command(name = "carillon", version, after_help = after_help(), max_term_width = 110)]
pub(crate) struct Arguments {
    /// Results as JSON, one value a line on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Where a local stack says where it listens: written by `local`, read by the others
    #[arg(long, global = true, value_name = "FILE", env = variables::READY_FILE, default_value = DEFAULT_READY_FILE)]
    pub(crate) ready_file: PathBuf,
    /// The least severe level that this program logs to standard error
    #[arg(long, global = true, value_name = "LEVEL", value_enum, default_value_t = LogLevel::Warn)]
    pub(crate) log_level: LogLevel,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the stack of a SAM template on this machine, with the real function binaries
    Local(Local),
    /// Publish one message to a channel
    Publish(Publish),
    /// Print the messages of channels as they come, over every reconnection
    Subscribe(Subscribe),
    /// Read and set the options of namespaces
    #[command(subcommand)]
    Namespace(NamespaceCommand),
    /// Measure what Carillon costs on this machine, beside what others cost
    Bench(bench::Options),
    /// A part of a benchmark that has a process of its own
    #[command(subcommand, hide = true)]
    BenchWorker(bench::Worker),
}

impl Command {
    /// Whether everything that functions log is wanted.
    pub(crate) const fn is_verbose(&self) -> bool {
        matches!(self, Self::Local(Local { verbose: true, .. }))
    }
}

/// `local`.
#[derive(Args, Debug)]
#[command(
    after_help = "Ctrl-C or SIGTERM ends the stack within three seconds; a second one ends it at once.",
    args_conflicts_with_subcommands = true
)]
pub(crate) struct Local {
    #[command(subcommand)]
    pub(crate) command: Option<LocalCommand>,
    /// The SAM template
    #[arg(long, value_name = "FILE", default_value = "template.yaml")]
    pub(crate) template: PathBuf,
    /// Build the functions with optimisation, as they are deployed
    #[arg(long)]
    pub(crate) release: bool,
    /// Keep the tables in this folder; without it they go when the stack ends
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Take any free ports instead of the fixed ones
    #[arg(long, conflicts_with_all = ["aws_port", "websocket_port", "mqtt_port", "iot_port", "url_port"])]
    pub(crate) free_ports: bool,
    /// The address to listen on. Anyone who reaches it can call the AWS endpoint, which asks for no credentials
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) host: IpAddr,
    /// The port of the AWS endpoint
    #[arg(long, value_name = "PORT")]
    pub(crate) aws_port: Option<u16>,
    /// The port of the WebSocket APIs
    #[arg(long, value_name = "PORT")]
    pub(crate) websocket_port: Option<u16>,
    /// The port of MQTT over TCP
    #[arg(long, value_name = "PORT")]
    pub(crate) mqtt_port: Option<u16>,
    /// The port of IoT Core's HTTP data plane and of MQTT over WebSocket
    #[arg(long, value_name = "PORT")]
    pub(crate) iot_port: Option<u16>,
    /// The port of the first function URL; each further one takes the next
    #[arg(long, value_name = "PORT")]
    pub(crate) url_port: Option<u16>,
    /// A parameter of the template; may be given several times
    #[arg(long = "parameter", value_name = "NAME=VALUE", value_parser = parameter)]
    pub(crate) parameters: Vec<(String, String)>,
    /// Show what the functions log
    #[arg(long, short)]
    pub(crate) verbose: bool,
    /// Connect subscribers, send an event through EventBridge and show when each receives it
    #[arg(long)]
    pub(crate) demo: bool,
    /// End after the demo: with 0 only if every subscriber received the event exactly once
    #[arg(long, requires = "demo")]
    pub(crate) once: bool,
}

/// `local …`.
#[derive(Debug, Subcommand)]
pub(crate) enum LocalCommand {
    /// Take a service of the running stack away, or bring it back
    #[command(
        after_help = "A service that is away cuts its connections and answers nobody; what it keeps stays. Without a state the present one is printed."
    )]
    Fault {
        /// The service
        #[arg(value_enum)]
        service: FaultyService,
        /// What becomes of it
        #[arg(value_enum)]
        state: Option<FaultState>,
    },
}

/// A service that can be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FaultyService {
    /// IoT Core: MQTT, its HTTP data plane and its rules
    Iot,
}

/// What becomes of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FaultState {
    /// It answers nobody
    Away,
    /// It works again
    Back,
}

/// `publish`.
#[derive(Args, Debug)]
#[command(after_help = "Without --data, --text and --file the data is read from standard input, as JSON.")]
pub(crate) struct Publish {
    /// The channel
    #[arg(value_parser = Channel::parse)]
    pub(crate) channel: Channel,
    #[command(flatten)]
    pub(crate) data: DataSource,
    /// The event's id; publishing again under the same id and source is dropped
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// The event's type
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) kind: Option<String>,
    /// The base URL of `POST /publish`
    #[arg(long, env = variables::PUBLISH_URL)]
    pub(crate) url: Option<String>,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// Where a message's data comes from.
#[derive(Args, Debug)]
#[group(multiple = false)]
pub(crate) struct DataSource {
    /// The data, as JSON
    #[arg(long, value_name = "JSON")]
    pub(crate) data: Option<String>,
    /// The data, as text: it becomes a JSON string
    #[arg(long)]
    pub(crate) text: Option<String>,
    /// A file that holds the data as JSON; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// `subscribe`.
#[derive(Args, Debug)]
#[command(after_help = subscribe_help())]
pub(crate) struct Subscribe {
    /// The channels
    #[arg(required = true, value_name = "CHANNEL", value_parser = Channel::parse)]
    pub(crate) channels: Vec<Channel>,
    /// The protocol
    #[arg(long, value_name = "PROTOCOL", value_enum, default_value_t = Via::Websocket)]
    pub(crate) via: Via,
    /// Begin after this position, as printed with each message over any protocol; one per channel, in their order. MQTT has no replay
    #[arg(long, value_name = "EPOCH-OFFSET", value_parser = position)]
    pub(crate) since: Vec<Position>,
    /// End after this many messages
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// The endpoint of the protocol
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// What the stack's MQTT topics begin with: its parameter MqttPrefix, by default its name
    #[arg(long, value_name = "PREFIX", value_parser = MqttPrefix::parse)]
    pub(crate) mqtt_prefix: Option<MqttPrefix>,
    /// The IoT custom authorizer that checks the token over MQTT, where it is not the account's default one
    #[arg(long, value_name = "NAME")]
    pub(crate) mqtt_authorizer: Option<String>,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// A protocol of subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Via {
    /// The WebSocket API: ordered, resumes
    Websocket,
    /// MQTT 5: in the order that the broker keeps, begins at no position
    Mqtt,
    /// Server-sent events: ordered, resumes
    Sse,
}

/// What opens an endpoint.
#[derive(Args, Debug)]
pub(crate) struct Access {
    /// The token. Prefer the variable: arguments are seen by every user of the machine
    #[arg(long, env = variables::TOKEN, hide_env_values = true)]
    pub(crate) token: Option<String>,
}

/// `namespace …`.
#[derive(Debug, Subcommand)]
pub(crate) enum NamespaceCommand {
    /// Print a namespace's options
    Get {
        /// The namespace: the first segment of its channels
        #[arg(value_parser = Namespace::parse)]
        namespace: Namespace,
        #[command(flatten)]
        table: Table,
    },
    /// Set options of a namespace; those that are not named stay
    #[command(after_help = options_help())]
    Set {
        /// The namespace: the first segment of its channels
        #[arg(value_parser = Namespace::parse)]
        namespace: Namespace,
        /// The options
        #[arg(required = true, value_name = "OPTION=VALUE", value_parser = option)]
        options: Vec<(String, u64)>,
        #[command(flatten)]
        table: Table,
    },
    /// Print the options of every namespace that has any set
    List {
        #[command(flatten)]
        table: Table,
    },
}

/// Where the options are kept.
#[derive(Args, Debug)]
pub(crate) struct Table {
    /// The registry table of a deployed stack, reached by the AWS_… variables; without it that of the running local stack
    #[arg(long, value_name = "NAME", env = variables::REGISTRY_TABLE)]
    pub(crate) registry_table: Option<String>,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    /// Errors.
    Error,
    /// And warnings.
    Warn,
    /// And what happens.
    Info,
    /// And how.
    Debug,
    /// Everything.
    Trace,
}

impl From<LogLevel> for tracing::Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

fn after_help() -> String {
    let variables = [
        (variables::WEBSOCKET_URL, "the WebSocket endpoint (subscribe --url)"),
        (variables::STREAM_URL, "the base URL of streams (subscribe --via sse --url)"),
        (variables::MQTT_URL, "the MQTT endpoint (subscribe --via mqtt --url)"),
        (variables::PUBLISH_URL, "the base URL of POST /publish (publish --url)"),
        (variables::TOKEN, "the token (--token)"),
        (variables::REGISTRY_TABLE, "the registry table (namespace --registry-table)"),
        (variables::READY_FILE, "the ready file (--ready-file)"),
    ];
    let lines: String = variables.iter().map(|(name, meaning)| format!("  {name:<23}  {meaning}\n")).collect();
    format!(
        "Where a stack is, and its token: flags win over variables, and these over the ready file of a running local stack.\n\n\
         Variables:\n{lines}\n{}",
        exit::help()
    )
}

fn subscribe_help() -> String {
    format!(
        "Without --url the endpoint is {} for websocket, {} for sse (/sse is added) or {} for mqtt (mqtt://, mqtts://, ws:// or wss://), \
         else that of the ready file.",
        variables::WEBSOCKET_URL,
        variables::STREAM_URL,
        variables::MQTT_URL
    )
}

/// Whether an option is a switch, which people turn with words.
pub(crate) const fn is_switch(option: &OptionSpec) -> bool {
    option.range.0 == 0 && option.range.1 == 1
}

/// The words of a switch, off and on.
pub(crate) const SWITCH: [&str; 2] = ["no", "yes"];

fn options_help() -> String {
    let lines = carillon_core::namespace::OPTIONS.map(|option| {
        let (least, most) = option.range;
        let OptionSpec { name, meaning, unit, default, .. } = option;
        if is_switch(&option) {
            return format!("  {name}: {meaning}; {} by default\n", SWITCH[usize::from(default == 1)]);
        }
        format!("  {name}: {meaning}; {least} to {most} {unit}, {default} by default\n")
    });
    format!("Options:\n{}", lines.concat())
}

fn parameter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a parameter is given as NAME=VALUE".to_owned()),
    }
}

fn option(text: &str) -> Result<(String, u64), String> {
    let (name, value) = text.split_once('=').ok_or("an option is given as OPTION=VALUE")?;
    let is_switch = carillon_core::namespace::OPTIONS.iter().any(|option| option.name == name && is_switch(option));
    if let Some(number) = SWITCH.iter().position(|word| *word == value).filter(|_| is_switch) {
        return Ok((name.to_owned(), u64::from(number == 1)));
    }
    let value = value.parse().map_err(|_| format!("{name}: '{value}' is no whole number"))?;
    Ok((name.to_owned(), value))
}

fn position(text: &str) -> Result<Position, Fault> {
    carillon_wire::position::decode_text("since", text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::position::Epoch;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(std::iter::once("carillon").chain(line.split_whitespace()))
    }

    #[track_caller]
    fn refused(line: &str) -> ErrorKind {
        parse(line).expect_err(line).kind()
    }

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn wrong_arguments_end_with_the_documented_code() {
        let error = parse("publish a//b --data 1").expect_err("no channel");
        assert_eq!(error.exit_code(), i32::from(exit::Exit::Usage.code()));
        assert!(error.to_string().contains("segment 2 is empty"), "{error}");
    }

    #[test]
    fn every_command_takes_json_and_the_ready_file() {
        for command in
            ["local", "publish a", "subscribe a", "namespace get a", "namespace set a history_size=1", "namespace list"]
        {
            let arguments = parse(&format!("{command} --json --ready-file r.json")).expect(command);
            assert!(arguments.json && arguments.ready_file.ends_with("r.json"), "{command}");
        }
    }

    #[test]
    fn local_has_defaults_and_its_flags_are_checked() {
        let Command::Local(local) = parse("local").expect("defaults").command else { panic!("local") };
        assert_eq!(local.template, PathBuf::from("template.yaml"));
        assert!(local.host.is_loopback() && !local.release && !local.free_ports && !local.demo);
        let Command::Local(local) = parse("local --parameter A=b=c --parameter D=").expect("parameters").command else {
            panic!("local")
        };
        assert_eq!(local.parameters, [("A".to_owned(), "b=c".to_owned()), ("D".to_owned(), String::new())]);
        assert_eq!(refused("local --once"), ErrorKind::MissingRequiredArgument);
        assert_eq!(refused("local --free-ports --aws-port 1"), ErrorKind::ArgumentConflict);
        assert_eq!(refused("local --parameter A"), ErrorKind::ValueValidation);
        assert_eq!(refused("local --host everywhere"), ErrorKind::ValueValidation);
        assert_eq!(refused("local --free-ports --mqtt-port 1"), ErrorKind::ArgumentConflict);
    }

    #[test]
    fn a_fault_has_a_service_and_a_state() {
        let fault = |line: &str| match parse(line).expect(line).command {
            Command::Local(Local { command: Some(LocalCommand::Fault { service, state }), .. }) => (service, state),
            other => panic!("{other:?}"),
        };
        assert_eq!(fault("local fault iot away"), (FaultyService::Iot, Some(FaultState::Away)));
        assert_eq!(fault("local fault iot back"), (FaultyService::Iot, Some(FaultState::Back)));
        assert_eq!(fault("local fault iot --ready-file r.json"), (FaultyService::Iot, None));
        assert_eq!(refused("local fault"), ErrorKind::MissingRequiredArgument);
        assert_eq!(refused("local fault dynamodb away"), ErrorKind::InvalidValue);
        assert_eq!(refused("local fault iot gone"), ErrorKind::InvalidValue);
        assert_eq!(refused("local --release fault iot away"), ErrorKind::ArgumentConflict);
    }

    #[test]
    fn data_comes_from_one_place() {
        assert_eq!(refused("publish a --data 1 --text b"), ErrorKind::ArgumentConflict);
        assert_eq!(refused("publish a --file f --text b"), ErrorKind::ArgumentConflict);
        assert!(parse("publish a").is_ok());
    }

    #[test]
    fn a_position_is_read_as_it_is_printed() {
        let position = Position::new(Epoch(1_700_000_000_000), 41);
        let Command::Subscribe(subscribe) = parse(&format!("subscribe a --since {position}")).expect("a position").command else {
            panic!("subscribe")
        };
        assert_eq!(subscribe.since, [position]);
        for wrong in ["1", "-1", "1-", "a-1", "1-b", "1-+1"] {
            assert_eq!(refused(&format!("subscribe a --since={wrong}")), ErrorKind::ValueValidation, "{wrong}");
        }
        assert_eq!(refused("subscribe a --count 0"), ErrorKind::ValueValidation);
        assert_eq!(refused("subscribe"), ErrorKind::MissingRequiredArgument);
    }

    #[test]
    fn a_subscriber_chooses_its_protocol() {
        let subscribe = |line: &str| match parse(line).expect(line).command {
            Command::Subscribe(subscribe) => subscribe,
            other => panic!("{other:?}"),
        };
        assert_eq!(subscribe("subscribe a").via, Via::Websocket);
        assert_eq!(subscribe("subscribe a --via sse").via, Via::Sse);
        let mqtt = subscribe("subscribe a --via mqtt --mqtt-prefix dev --mqtt-authorizer mine");
        assert_eq!((mqtt.via, mqtt.mqtt_prefix.expect("a prefix").as_str()), (Via::Mqtt, "dev"));
        assert_eq!(refused("subscribe a --via carrier-pigeon"), ErrorKind::InvalidValue);
        assert_eq!(refused("subscribe a --via mqtt --mqtt-prefix a/b"), ErrorKind::ValueValidation);
    }

    #[test]
    fn options_are_numbers_under_a_name() {
        let Command::Namespace(NamespaceCommand::Set { options, .. }) =
            parse("namespace set orders history_size=5 history_age_s=60").expect("options").command
        else {
            panic!("set")
        };
        assert_eq!(options, [("history_size".to_owned(), 5), ("history_age_s".to_owned(), 60)]);
        let line = "namespace set orders mqtt=no retain=yes mqtt=1";
        let Command::Namespace(NamespaceCommand::Set { options, .. }) = parse(line).expect("switches").command else {
            panic!("set")
        };
        assert_eq!(options, [("mqtt", 0), ("retain", 1), ("mqtt", 1)].map(|(name, value)| (name.to_owned(), value)));
        for wrong in ["history_size", "history_size=many", "history_size=-1", "history_size=yes", "mqtt=maybe"] {
            assert_eq!(refused(&format!("namespace set orders {wrong}")), ErrorKind::ValueValidation, "{wrong}");
        }
        assert_eq!(refused("namespace get orders/42"), ErrorKind::ValueValidation);
    }

    #[test]
    fn the_help_names_every_variable_and_exit_code() {
        let help = Arguments::command().render_long_help().to_string();
        for (exit, meaning) in exit::TABLE {
            assert!(help.contains(&exit.code().to_string()) && help.contains(&meaning[..12]), "{exit:?}");
        }
        for name in variables::ALL {
            assert!(help.contains(name), "{name}");
        }
    }
}
