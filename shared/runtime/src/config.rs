//! What the functions read from their environment. Every mistake is reported in one go, and nothing starts with one.

use carillon_aws::clock::SystemClock;
use carillon_aws::config::{AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI, AwsConfig, check_url};
use carillon_aws::environment::{Environment, Mistake, Mistakes, Unset, Variable};
use carillon_aws::posts::ApiGatewayPosts;
use carillon_aws::queue::SqsQueue;
use carillon_aws::store::DynamoStore;
use carillon_core::secret::Secret;
use std::str::FromStr;
use tracing::level_filters::LevelFilter;

/// The table of the log.
pub const CARILLON_LOG_TABLE: &str = "CARILLON_LOG_TABLE";

/// The table of the registry.
pub const CARILLON_REGISTRY_TABLE: &str = "CARILLON_REGISTRY_TABLE";

/// The URL of the wake-up queue.
pub const CARILLON_WAKEUP_QUEUE_URL: &str = "CARILLON_WAKEUP_QUEUE_URL";

/// The shared secret.
pub const CARILLON_SECRET: &str = "CARILLON_SECRET";

/// The least severe level that is logged.
pub const CARILLON_LOG_LEVEL: &str = "CARILLON_LOG_LEVEL";

/// Carillon's own variables.
pub const VARIABLES: [Variable; 5] = [
    Variable { name: CARILLON_LOG_TABLE, meaning: "the DynamoDB table of the log", unset: Unset::Refused },
    Variable { name: CARILLON_REGISTRY_TABLE, meaning: "the DynamoDB table of the registry", unset: Unset::Refused },
    Variable { name: CARILLON_WAKEUP_QUEUE_URL, meaning: "the URL of the SQS queue of the wake-ups", unset: Unset::Refused },
    Variable {
        name: CARILLON_SECRET,
        meaning: "the shared secret, at least 32 characters; `websocket` and `publish` need it, `deliver` does not read it",
        unset: Unset::Refused,
    },
    Variable {
        name: CARILLON_LOG_LEVEL,
        meaning: "the least severe level that is logged: `error`, `warn`, `info`, `debug` or `trace`",
        unset: Unset::Default(DEFAULT_LOG_LEVEL.as_str()),
    },
];

/// The level where none is set.
const DEFAULT_LOG_LEVEL: LogLevel = LogLevel::Info;

/// Variables of the command `carillon`. Somebody may have them in the shell that runs a function under `cargo lambda watch`.
const COMMAND_VARIABLES: [&str; 4] = ["CARILLON_PUBLISH_URL", "CARILLON_READY_FILE", "CARILLON_TOKEN", "CARILLON_WEBSOCKET_URL"];

/// The beginning of every variable of ours.
const PREFIX: &str = "CARILLON_";

/// What all functions read.
#[derive(Clone, Debug)]
pub struct Config {
    /// The table of the log.
    pub log_table: String,
    /// The table of the registry.
    pub registry_table: String,
    /// The URL of the wake-up queue.
    pub wakeup_queue_url: String,
    /// The least severe level that is logged.
    pub log_level: LogLevel,
    /// What all clients of AWS services share.
    pub aws: AwsConfig,
}

/// What a function reads that lets people in: `websocket` and `publish`.
#[derive(Clone, Debug)]
pub struct EntranceConfig {
    /// What all functions read.
    pub common: Config,
    /// The secret that opens.
    pub secret: Secret,
}

/// What `deliver` reads.
#[derive(Clone, Debug)]
pub struct DeliverConfig {
    /// What all functions read.
    pub common: Config,
    /// The way to the connections.
    pub posts: ApiGatewayPosts,
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

impl Config {
    /// Reads what all functions read.
    ///
    /// # Errors
    /// Every mistake in the variables of ours and of the SDK; a `CARILLON_…` variable that nobody reads is one.
    pub fn from_environment(environment: &Environment) -> Result<Self, Mistakes> {
        let mut mistakes: Vec<Mistake> = unknown(environment).collect();
        let log_table = keep(&mut mistakes, read(environment, CARILLON_LOG_TABLE, table_name));
        let registry_table = keep(&mut mistakes, read(environment, CARILLON_REGISTRY_TABLE, table_name));
        let wakeup_queue_url = keep(&mut mistakes, read(environment, CARILLON_WAKEUP_QUEUE_URL, check_url));
        let log_level = keep(&mut mistakes, log_level(environment));
        let aws = AwsConfig::from_environment(environment).map_err(|more| mistakes.extend(more.0)).ok();
        match (log_table, registry_table, wakeup_queue_url, log_level, aws) {
            (Some(log_table), Some(registry_table), Some(wakeup_queue_url), Some(log_level), Some(aws))
                if mistakes.is_empty() =>
            {
                Ok(Self { log_table, registry_table, wakeup_queue_url, log_level, aws })
            }
            _ => Err(Mistakes(mistakes)),
        }
    }

    /// The adapters that every function needs. One HTTP client serves them all.
    #[must_use]
    pub fn adapters(&self) -> (DynamoStore, SqsQueue, SystemClock) {
        let store = DynamoStore::new(&self.aws, &self.log_table, &self.registry_table);
        (store, SqsQueue::new(&self.aws, &self.wakeup_queue_url), SystemClock)
    }
}

impl EntranceConfig {
    /// Reads what `websocket` and `publish` read.
    ///
    /// # Errors
    /// As [`Config::from_environment`], and when the secret is missing or too short.
    pub fn from_environment(environment: &Environment) -> Result<Self, Mistakes> {
        let secret =
            read(environment, CARILLON_SECRET, |name, text| Secret::try_new(text).map_err(|error| Mistake::new(name, error)));
        let (common, secret) = both(Config::from_environment(environment), secret.map_err(Into::into))?;
        Ok(Self { common, secret })
    }
}

impl DeliverConfig {
    /// Reads what `deliver` reads.
    ///
    /// # Errors
    /// As [`Config::from_environment`], and when the address of the connections is missing.
    pub fn from_environment(environment: &Environment) -> Result<Self, Mistakes> {
        // Whether it is a URL is for the configuration of the SDK to say.
        let address = read(environment, AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI, |_, _| Ok(()));
        let (common, ()) = both(Config::from_environment(environment), address.map_err(Into::into))?;
        let posts = ApiGatewayPosts::new(&common.aws)?;
        Ok(Self { common, posts })
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

/// Variables with our prefix that nobody reads: most likely a name with a slip in it.
fn unknown(environment: &Environment) -> impl Iterator<Item = Mistake> {
    let known = |name: &str| VARIABLES.iter().any(|variable| variable.name == name) || COMMAND_VARIABLES.contains(&name);
    let ours = environment.names().filter(|name| name.starts_with(PREFIX));
    ours.filter(move |name| !known(name)).map(|name| {
        let names = VARIABLES.map(|variable| variable.name).join(", ");
        Mistake::new(name, format_args!("no function reads a variable of this name; there are {names}"))
    })
}

fn read<T>(
    environment: &Environment,
    name: &'static str,
    parse: impl FnOnce(&'static str, &str) -> Result<T, Mistake>,
) -> Result<T, Mistake> {
    environment.get(name).ok_or_else(|| Mistake::missing(name)).and_then(|text| parse(name, text))
}

fn log_level(environment: &Environment) -> Result<LogLevel, Mistake> {
    match environment.get(CARILLON_LOG_LEVEL) {
        Some(text) => text.parse().map_err(|error| Mistake::new(CARILLON_LOG_LEVEL, error)),
        None => Ok(DEFAULT_LOG_LEVEL),
    }
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

fn keep<T>(mistakes: &mut Vec<Mistake>, result: Result<T, Mistake>) -> Option<T> {
    result.map_err(|mistake| mistakes.push(mistake)).ok()
}

/// Both, or the mistakes of both.
fn both<A, B>(first: Result<A, Mistakes>, second: Result<B, Mistakes>) -> Result<(A, B), Mistakes> {
    match (first, second) {
        (Ok(first), Ok(second)) => Ok((first, second)),
        (Ok(_), Err(mistakes)) | (Err(mistakes), Ok(_)) => Err(mistakes),
        (Err(mut mistakes), Err(more)) => {
            mistakes.0.extend(more.0);
            Err(mistakes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    const GOOD: [(&str, &str); 8] = [
        (CARILLON_LOG_TABLE, "carillon-LogTable-1ABC"),
        (CARILLON_REGISTRY_TABLE, "carillon-RegistryTable-1ABC"),
        (CARILLON_WAKEUP_QUEUE_URL, "https://sqs.us-east-1.amazonaws.com/123456789012/wakeups"),
        (CARILLON_SECRET, SECRET),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "not-a-secret"),
        (AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI, "https://a1b2c3.execute-api.us-east-1.amazonaws.com/prod"),
    ];

    fn with(changes: &[(&str, &str)]) -> Environment {
        GOOD.into_iter().chain(changes.iter().copied()).collect()
    }

    #[track_caller]
    fn check<T>(found: Result<T, Mistakes>, expected: &[&str]) {
        let mistakes = found.err().map(|mistakes| mistakes.0).unwrap_or_default();
        let texts: Vec<_> = mistakes.iter().map(|Mistake { variable, fault }| format!("{variable}: {fault}")).collect();
        assert_eq!(texts, expected);
    }

    #[test]
    fn a_whole_environment_is_taken() {
        let entrance = EntranceConfig::from_environment(&with(&[])).expect("whole");
        assert!(entrance.secret.opens_with(SECRET));
        let common = entrance.common;
        assert_eq!(common.log_table, "carillon-LogTable-1ABC");
        assert_eq!(common.registry_table, "carillon-RegistryTable-1ABC");
        assert_eq!(common.wakeup_queue_url, "https://sqs.us-east-1.amazonaws.com/123456789012/wakeups");
        assert_eq!(common.log_level, LogLevel::Info);
        DeliverConfig::from_environment(&with(&[(CARILLON_SECRET, "")])).expect("it needs no secret");
    }

    #[test]
    fn all_mistakes_are_reported_in_one_go() {
        let nothing = Environment::default();
        let common = [
            "CARILLON_LOG_TABLE: is not set",
            "CARILLON_REGISTRY_TABLE: is not set",
            "CARILLON_WAKEUP_QUEUE_URL: is not set",
            "AWS_REGION: is not set",
            "AWS_ACCESS_KEY_ID: is not set",
            "AWS_SECRET_ACCESS_KEY: is not set",
        ];
        check(Config::from_environment(&nothing), &common);
        let secret = ["CARILLON_SECRET: is not set"];
        check(EntranceConfig::from_environment(&nothing), &[&common[..], &secret].concat());
        let address = ["AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI: is not set"];
        check(DeliverConfig::from_environment(&nothing), &[&common[..], &address].concat());
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
    }

    #[test]
    fn a_name_with_a_slip_in_it_is_refused_and_the_command_s_own_are_not() {
        let names = "CARILLON_LOG_TABLE, CARILLON_REGISTRY_TABLE, CARILLON_WAKEUP_QUEUE_URL, CARILLON_SECRET, CARILLON_LOG_LEVEL";
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
