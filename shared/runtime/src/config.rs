//! What the functions read from their environment. Every mistake is reported in one go, and nothing starts with one.

use carillon_aws::clock::SystemClock;
use carillon_aws::config::{AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI, AWS_ENDPOINT_URL_IOT_DATA_PLANE, AwsConfig, check_url};
use carillon_aws::environment::{Environment, Mistake, Mistakes, Unset, Variable};
use carillon_aws::live::IotLive;
use carillon_aws::mqtt::IotMqtt;
use carillon_aws::posts::ApiGatewayPosts;
use carillon_aws::queue::SqsQueue;
use carillon_aws::store::DynamoStore;
use carillon_core::mqtt::MqttPrefix;
use carillon_core::secret::Secret;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;
use tracing::level_filters::LevelFilter;

/// The table of the log.
pub const CARILLON_LOG_TABLE: &str = "CARILLON_LOG_TABLE";

/// The table of the registry.
pub const CARILLON_REGISTRY_TABLE: &str = "CARILLON_REGISTRY_TABLE";

/// The URL of the wake-up queue.
pub const CARILLON_WAKEUP_QUEUE_URL: &str = "CARILLON_WAKEUP_QUEUE_URL";

/// The shared secret.
pub const CARILLON_SECRET: &str = "CARILLON_SECRET";

/// The first level of the stack's MQTT topics.
pub const CARILLON_MQTT_PREFIX: &str = "CARILLON_MQTT_PREFIX";

/// How long a stream lasts.
pub const CARILLON_STREAM_SECONDS: &str = "CARILLON_STREAM_SECONDS";

/// The least severe level that is logged.
pub const CARILLON_LOG_LEVEL: &str = "CARILLON_LOG_LEVEL";

/// Carillon's own variables.
pub const VARIABLES: [Variable; 7] = [
    Variable {
        name: CARILLON_LOG_TABLE,
        meaning: "the DynamoDB table of the log; all functions but `authorize` need it",
        unset: Unset::Refused,
    },
    Variable {
        name: CARILLON_REGISTRY_TABLE,
        meaning: "the DynamoDB table of the registry; all functions but `authorize` need it",
        unset: Unset::Refused,
    },
    Variable {
        name: CARILLON_WAKEUP_QUEUE_URL,
        meaning: "the URL of the SQS queue of the wake-ups; `websocket`, `publish` and `deliver` need it",
        unset: Unset::Refused,
    },
    Variable {
        name: CARILLON_SECRET,
        meaning: "the shared secret, at least 32 characters; all functions but `deliver` need it",
        unset: Unset::Refused,
    },
    Variable {
        name: CARILLON_MQTT_PREFIX,
        meaning: "the first level of the stack's MQTT topics, 1 to 48 of `A-Z a-z 0-9 _ - . : @ =`; `deliver`, `stream` and `authorize` need it",
        unset: Unset::Refused,
    },
    Variable {
        name: CARILLON_STREAM_SECONDS,
        meaning: "how many seconds a stream lasts at most, 10 to 890; only `stream` reads it",
        unset: Unset::Default("120"),
    },
    Variable {
        name: CARILLON_LOG_LEVEL,
        meaning: "the least severe level that is logged: `error`, `warn`, `info`, `debug` or `trace`",
        unset: Unset::Default(DEFAULT_LOG_LEVEL.as_str()),
    },
];

/// The level where none is set.
const DEFAULT_LOG_LEVEL: LogLevel = LogLevel::Info;

/// A function is not told when its client leaves, so a stream of two minutes costs a minute too many on average, while a client
/// that stays comes back with its position.
const DEFAULT_STREAM_SECONDS: u64 = 120;

/// Under ten seconds a stream would be mostly its beginning. A function lives 900 seconds at most, and ends its stream five
/// seconds before its time-out.
const STREAM_SECONDS: RangeInclusive<u64> = 10..=890;

/// Variables of the command `carillon`. Somebody may have them in the shell that runs a function under `cargo lambda watch`.
const COMMAND_VARIABLES: [&str; 6] = [
    "CARILLON_MQTT_URL",
    "CARILLON_PUBLISH_URL",
    "CARILLON_READY_FILE",
    "CARILLON_STREAM_URL",
    "CARILLON_TOKEN",
    "CARILLON_WEBSOCKET_URL",
];

/// The beginning of every variable of ours.
const PREFIX: &str = "CARILLON_";

/// What every function that works on the tables reads.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The table of the log.
    pub log_table: String,
    /// The table of the registry.
    pub registry_table: String,
    /// The least severe level that is logged.
    pub log_level: LogLevel,
    /// What all clients of AWS services share.
    pub aws: AwsConfig,
}

/// What `websocket`, `publish` and `deliver` read, which wake shards.
#[derive(Clone, Debug)]
pub struct Config {
    /// The tables.
    pub store: StoreConfig,
    /// The URL of the wake-up queue.
    pub wakeup_queue_url: String,
}

/// What a function reads that lets people in and takes events from them: `websocket` and `publish`.
#[derive(Clone, Debug)]
pub struct EntranceConfig {
    /// The tables and the queue.
    pub common: Config,
    /// The secret that opens.
    pub secret: Secret,
}

/// What `deliver` reads.
#[derive(Clone, Debug)]
pub struct DeliverConfig {
    /// The tables and the queue.
    pub common: Config,
    /// The way to the connections.
    pub posts: ApiGatewayPosts,
    /// The way to MQTT subscribers.
    pub mqtt: IotMqtt,
}

/// What `stream` reads.
#[derive(Clone, Debug)]
pub struct StreamConfig {
    /// The tables.
    pub store: StoreConfig,
    /// The secret that opens.
    pub secret: Secret,
    /// What is published, as it is published.
    pub live: IotLive,
    /// How long a stream lasts at most.
    pub length: Duration,
}

/// What `authorize` reads. It calls no service.
#[derive(Clone, Debug)]
pub struct AuthorizeConfig {
    /// The least severe level that is logged.
    pub log_level: LogLevel,
    /// The secret that opens.
    pub secret: Secret,
    /// The first level of the topics that it opens.
    pub prefix: MqttPrefix,
}

/// The least severe level that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Something broke.
    Error,
    /// Something broke that will be done again.
    Warn,
    /// Something that happens seldom.
    Info,
    /// Something that happens often.
    Debug,
    /// Everything.
    Trace,
}

/// The text is no level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is none of error, warn, info, debug and trace")]
pub struct LogLevelError(String);

impl StoreConfig {
    /// Reads what every function reads that works on the tables.
    ///
    /// # Errors
    /// Every mistake in the variables of ours and of the SDK; a `CARILLON_…` variable that nobody reads is one.
    pub fn from_environment(environment: &Environment) -> Result<Self, Mistakes> {
        let mut reading = Reading::of(environment);
        let store = Self::read(&mut reading);
        reading.end(store)
    }

    fn read(reading: &mut Reading<'_>) -> Option<Self> {
        let log_table = reading.need(CARILLON_LOG_TABLE, table_name);
        let registry_table = reading.need(CARILLON_REGISTRY_TABLE, table_name);
        let log_level = reading.log_level();
        let aws = AwsConfig::from_environment(reading.environment);
        let aws = reading.keep(aws);
        Some(Self { log_table: log_table?, registry_table: registry_table?, log_level: log_level?, aws: aws? })
    }

    /// The tables, and the clock that goes with them.
    #[must_use]
    pub fn adapters(&self) -> (DynamoStore, SystemClock) {
        (DynamoStore::new(&self.aws, &self.log_table, &self.registry_table), SystemClock)
    }
}

impl Config {
    /// Reads what the functions read that wake shards.
    ///
    /// # Errors
    /// As [`StoreConfig::from_environment`].
    pub fn from_environment(environment: &Environment) -> Result<Self, Mistakes> {
        let mut reading = Reading::of(environment);
        let config = Self::read(&mut reading);
        reading.end(config)
    }

    fn read(reading: &mut Reading<'_>) -> Option<Self> {
        let wakeup_queue_url = reading.need(CARILLON_WAKEUP_QUEUE_URL, check_url);
        let store = StoreConfig::read(reading);
        Some(Self { store: store?, wakeup_queue_url: wakeup_queue_url? })
    }

    /// The least severe level that is logged.
    #[must_use]
    pub const fn log_level(&self) -> LogLevel {
        self.store.log_level
    }

    /// The tables, the queue and the clock. One HTTP client serves them all.
    #[must_use]
    pub fn adapters(&self) -> (DynamoStore, SqsQueue, SystemClock) {
        let (store, clock) = self.store.adapters();
        (store, SqsQueue::new(&self.store.aws, &self.wakeup_queue_url), clock)
    }
}

impl EntranceConfig {
    /// Reads what `websocket` and `publish` read.
    ///
    /// # Errors
    /// As [`StoreConfig::from_environment`], and when the secret is missing or too short.
    pub fn from_environment(environment: &Environment) -> Result<Self, Mistakes> {
        let mut reading = Reading::of(environment);
        let secret = reading.need(CARILLON_SECRET, secret);
        let common = Config::read(&mut reading);
        reading.end(common.zip(secret).map(|(common, secret)| Self { common, secret }))
    }
}

impl DeliverConfig {
    /// Reads what `deliver` reads.
    ///
    /// # Errors
    /// As [`StoreConfig::from_environment`], and when the address of the connections or of IoT Core is missing.
    pub fn from_environment(environment: &Environment) -> Result<Self, Mistakes> {
        let mut reading = Reading::of(environment);
        let prefix = reading.need(CARILLON_MQTT_PREFIX, mqtt_prefix);
        // Whether they are URLs is for the configuration of the SDK to say.
        reading.need(AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI, anything);
        reading.need(AWS_ENDPOINT_URL_IOT_DATA_PLANE, anything);
        let common = Config::read(&mut reading);
        let (common, prefix) = reading.end(common.zip(prefix))?;
        let posts = ApiGatewayPosts::new(&common.store.aws)?;
        let mqtt = IotMqtt::new(&common.store.aws, prefix)?;
        Ok(Self { common, posts, mqtt })
    }
}

impl StreamConfig {
    /// Reads what `stream` reads.
    ///
    /// # Errors
    /// As [`StoreConfig::from_environment`], and when the secret or the address of IoT Core is missing, or the length is out of
    /// range.
    ///
    /// # Panics
    /// Outside of a Tokio runtime, in which the connection to IoT Core works from here on.
    pub fn from_environment(environment: &Environment) -> Result<Self, Mistakes> {
        let mut reading = Reading::of(environment);
        let secret = reading.need(CARILLON_SECRET, secret);
        let prefix = reading.need(CARILLON_MQTT_PREFIX, mqtt_prefix);
        let length = reading.want(CARILLON_STREAM_SECONDS, stream_length, Duration::from_secs(DEFAULT_STREAM_SECONDS));
        reading.need(AWS_ENDPOINT_URL_IOT_DATA_PLANE, anything);
        let store = StoreConfig::read(&mut reading);
        let ((store, secret), (prefix, length)) = reading.end(store.zip(secret).zip(prefix.zip(length)))?;
        let live = IotLive::new(&store.aws, &prefix)?;
        Ok(Self { store, secret, live, length })
    }
}

impl AuthorizeConfig {
    /// Reads what `authorize` reads.
    ///
    /// # Errors
    /// Every mistake; a `CARILLON_…` variable that nobody reads is one.
    pub fn from_environment(environment: &Environment) -> Result<Self, Mistakes> {
        let mut reading = Reading::of(environment);
        let secret = reading.need(CARILLON_SECRET, secret);
        let prefix = reading.need(CARILLON_MQTT_PREFIX, mqtt_prefix);
        let log_level = reading.log_level();
        let all = secret.zip(prefix).zip(log_level);
        reading.end(all.map(|((secret, prefix), log_level)| Self { log_level, secret, prefix }))
    }
}

impl LogLevel {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl FromStr for LogLevel {
    type Err = LogLevelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let levels = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];
        levels.into_iter().find(|level| level.as_str() == text).ok_or_else(|| LogLevelError(text.to_owned()))
    }
}

impl From<LogLevel> for LevelFilter {
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

/// An environment that is being read, and the mistakes found so far. A value that cannot be had is none, and its mistake is kept.
struct Reading<'a> {
    environment: &'a Environment,
    mistakes: Vec<Mistake>,
}

impl<'a> Reading<'a> {
    fn of(environment: &'a Environment) -> Self {
        Self { environment, mistakes: unknown(environment).collect() }
    }

    /// A variable that must be set.
    fn need<T>(&mut self, name: &'static str, parse: impl FnOnce(&'static str, &str) -> Result<T, Mistake>) -> Option<T> {
        let value = self.environment.get(name).ok_or_else(|| Mistake::missing(name)).and_then(|text| parse(name, text));
        self.keep(value.map_err(Mistakes::from))
    }

    /// A variable that has a default.
    fn want<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&'static str, &str) -> Result<T, Mistake>,
        default: T,
    ) -> Option<T> {
        match self.environment.get(name) {
            Some(text) => self.keep(parse(name, text).map_err(Mistakes::from)),
            None => Some(default),
        }
    }

    fn log_level(&mut self) -> Option<LogLevel> {
        let parse = |name, text: &str| text.parse().map_err(|error: LogLevelError| Mistake::new(name, error));
        self.want(CARILLON_LOG_LEVEL, parse, DEFAULT_LOG_LEVEL)
    }

    fn keep<T>(&mut self, result: Result<T, Mistakes>) -> Option<T> {
        result.map_err(|more| self.mistakes.extend(more.0)).ok()
    }

    /// What was read, or every mistake.
    fn end<T>(self, read: Option<T>) -> Result<T, Mistakes> {
        match read {
            Some(read) if self.mistakes.is_empty() => Ok(read),
            _ => Err(Mistakes(self.mistakes)),
        }
    }
}

/// Variables with our prefix that nobody reads: most likely a name with a slip in it.
fn unknown(environment: &Environment) -> impl Iterator<Item = Mistake> {
    let known = |name: &str| VARIABLES.iter().any(|variable| variable.name == name) || COMMAND_VARIABLES.contains(&name);
    let ours = environment.names().filter(|name| name.starts_with(PREFIX));
    ours.filter(move |name| !known(name)).map(|name| {
        let names = VARIABLES.map(|variable| variable.name).join(", ");
        Mistake::new(name, format_args!("no function reads a variable of this name; there are {names}"))
    })
}

fn secret(variable: &'static str, text: &str) -> Result<Secret, Mistake> {
    Secret::try_new(text).map_err(|error| Mistake::new(variable, error))
}

fn mqtt_prefix(variable: &'static str, text: &str) -> Result<MqttPrefix, Mistake> {
    MqttPrefix::parse(text).map_err(|error| Mistake::new(variable, error))
}

fn stream_length(variable: &'static str, text: &str) -> Result<Duration, Mistake> {
    let seconds = text.parse().ok().filter(|seconds| STREAM_SECONDS.contains(seconds)).map(Duration::from_secs);
    let (least, most) = (STREAM_SECONDS.start(), STREAM_SECONDS.end());
    seconds.ok_or_else(|| Mistake::new(variable, format_args!("'{text}' is no whole number of {least} to {most}")))
}

/// Takes every value: only that there is one counts.
fn anything(_: &'static str, _: &str) -> Result<(), Mistake> {
    Ok(())
}

/// CreateTable's rule for names (DynamoDB API reference, "TableName").
fn table_name(variable: &'static str, text: &str) -> Result<String, Mistake> {
    let fits = (3..=255).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    if fits {
        Ok(text.to_owned())
    } else {
        Err(Mistake::new(variable, format_args!("'{text}' is no table's name: 3 to 255 of A-Z a-z 0-9 _ - .")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    const GOOD: [(&str, &str); 10] = [
        (CARILLON_LOG_TABLE, "carillon-LogTable-1ABC"),
        (CARILLON_REGISTRY_TABLE, "carillon-RegistryTable-1ABC"),
        (CARILLON_WAKEUP_QUEUE_URL, "https://sqs.us-east-1.amazonaws.com/123456789012/wakeups"),
        (CARILLON_SECRET, SECRET),
        (CARILLON_MQTT_PREFIX, "carillon"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "not-a-secret"),
        (AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI, "https://a1b2c3.execute-api.us-east-1.amazonaws.com/prod"),
        (AWS_ENDPOINT_URL_IOT_DATA_PLANE, "https://a1b2c3-ats.iot.us-east-1.amazonaws.com"),
    ];

    fn with(changes: &[(&str, &str)]) -> Environment {
        GOOD.into_iter().chain(changes.iter().copied()).collect()
    }

    #[track_caller]
    fn check<T>(found: Result<T, Mistakes>, expected: &[&str]) {
        let mistakes = found.err().map(|mistakes| mistakes.0).unwrap_or_default();
        let mut texts: Vec<_> = mistakes.iter().map(|Mistake { variable, fault }| format!("{variable}: {fault}")).collect();
        let mut expected = expected.to_vec();
        texts.sort();
        expected.sort_unstable();
        assert_eq!(texts, expected);
    }

    #[tokio::test]
    async fn a_whole_environment_is_taken() {
        let entrance = EntranceConfig::from_environment(&with(&[])).expect("whole");
        assert!(entrance.secret.opens_with(SECRET));
        let Config { store, wakeup_queue_url } = entrance.common;
        assert_eq!(store.log_table, "carillon-LogTable-1ABC");
        assert_eq!(store.registry_table, "carillon-RegistryTable-1ABC");
        assert_eq!(wakeup_queue_url, "https://sqs.us-east-1.amazonaws.com/123456789012/wakeups");
        assert_eq!(store.log_level, LogLevel::Info);
        DeliverConfig::from_environment(&with(&[(CARILLON_SECRET, "")])).expect("it needs no secret");

        let no_queue = (CARILLON_WAKEUP_QUEUE_URL, "");
        assert_eq!(
            StreamConfig::from_environment(&with(&[no_queue])).expect("it needs no queue").length,
            Duration::from_secs(120)
        );
        let long = with(&[no_queue, (CARILLON_STREAM_SECONDS, "890")]);
        assert_eq!(StreamConfig::from_environment(&long).expect("whole").length, Duration::from_secs(890));

        let little = [(CARILLON_SECRET, SECRET), (CARILLON_MQTT_PREFIX, "carillon"), (CARILLON_LOG_LEVEL, "debug")];
        let authorize = AuthorizeConfig::from_environment(&little.into_iter().collect()).expect("it calls no service");
        assert!(authorize.secret.opens_with(SECRET));
        assert_eq!((authorize.prefix.as_str(), authorize.log_level), ("carillon", LogLevel::Debug));
    }

    #[test]
    fn the_default_length_of_a_stream_is_the_one_that_is_documented() {
        let variable = VARIABLES.iter().find(|variable| variable.name == CARILLON_STREAM_SECONDS).expect("it is in the table");
        let seconds = DEFAULT_STREAM_SECONDS.to_string();
        assert!(matches!(variable.unset, Unset::Default(default) if default == seconds), "{variable:?}");
        let range = format!("{} to {};", STREAM_SECONDS.start(), STREAM_SECONDS.end());
        assert!(variable.meaning.contains(&range), "{variable:?}");
    }

    #[test]
    fn all_mistakes_are_reported_in_one_go() {
        let nothing = Environment::default();
        let stored = [
            "CARILLON_LOG_TABLE: is not set",
            "CARILLON_REGISTRY_TABLE: is not set",
            "AWS_REGION: is not set",
            "AWS_ACCESS_KEY_ID: is not set",
            "AWS_SECRET_ACCESS_KEY: is not set",
        ];
        let common = [&stored[..], &["CARILLON_WAKEUP_QUEUE_URL: is not set"]].concat();
        let (secret, prefix) = (["CARILLON_SECRET: is not set"], ["CARILLON_MQTT_PREFIX: is not set"]);
        let iot = ["AWS_ENDPOINT_URL_IOT_DATA_PLANE: is not set"];
        check(StoreConfig::from_environment(&nothing), &stored);
        check(Config::from_environment(&nothing), &common);
        check(EntranceConfig::from_environment(&nothing), &[&common[..], &secret].concat());
        let address = ["AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI: is not set"];
        check(DeliverConfig::from_environment(&nothing), &[&common[..], &prefix, &iot, &address].concat());
        check(StreamConfig::from_environment(&nothing), &[&stored[..], &secret, &prefix, &iot].concat());
        check(AuthorizeConfig::from_environment(&nothing), &[secret, prefix].concat());
    }

    #[test]
    fn each_value_is_checked_and_no_secret_is_repeated() {
        let environment = with(&[
            (CARILLON_LOG_TABLE, "a b"),
            (CARILLON_REGISTRY_TABLE, "ab"),
            (CARILLON_WAKEUP_QUEUE_URL, "wakeups"),
            (CARILLON_SECRET, "short"),
            (CARILLON_LOG_LEVEL, "INFO"),
        ]);
        check(
            EntranceConfig::from_environment(&environment),
            &[
                "CARILLON_LOG_TABLE: 'a b' is no table's name: 3 to 255 of A-Z a-z 0-9 _ - .",
                "CARILLON_REGISTRY_TABLE: 'ab' is no table's name: 3 to 255 of A-Z a-z 0-9 _ - .",
                "CARILLON_WAKEUP_QUEUE_URL: 'wakeups' is no http or https URL",
                "CARILLON_LOG_LEVEL: 'INFO' is none of error, warn, info, debug and trace",
                "CARILLON_SECRET: the secret has 5 characters, and at least 32 are needed",
            ],
        );
        let wrong_address = with(&[(AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI, "a1b2c3")]);
        let expected = "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI: 'a1b2c3' is no http or https URL";
        check(DeliverConfig::from_environment(&wrong_address), &[expected]);
        for seconds in ["9", "891", "-1", "12.5", "two", "99999999999999999999"] {
            let environment = with(&[(CARILLON_STREAM_SECONDS, seconds), (CARILLON_MQTT_PREFIX, "a/b")]);
            let expected = format!("CARILLON_STREAM_SECONDS: '{seconds}' is no whole number of 10 to 890");
            let prefix = "CARILLON_MQTT_PREFIX: an MQTT prefix is made of A-Z a-z 0-9 _ - . : @ = and this one holds '/'";
            check(StreamConfig::from_environment(&environment), &[&expected, prefix]);
        }
    }

    #[test]
    fn a_name_with_a_slip_in_it_is_refused_and_the_command_s_own_are_not() {
        let names = VARIABLES.map(|variable| variable.name).join(", ");
        let expected = format!("CARILLON_LOGLEVEL: no function reads a variable of this name; there are {names}");
        check(Config::from_environment(&with(&[("CARILLON_LOGLEVEL", "debug")])), &[&expected]);
        check(Config::from_environment(&with(&[("CARILLON_TOKEN", SECRET), ("CARRILLON_X", "")])), &[]);
    }

    #[test]
    fn every_level_reads_back() {
        for level in [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace] {
            assert_eq!(level.as_str().parse(), Ok(level));
            assert_eq!(LevelFilter::from(level).to_string(), level.as_str());
        }
    }
}
