//! Where the stack is: flags, then the environment, then the ready file of a running local stack.

use crate::exit::Exit;
use crate::failure::{Context, Failure, Outcome};
use carillon_client::token::Token;
use carillon_core::mqtt::MqttPrefix;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Where a local stack says where it listens, unless `--ready-file` names another file.
pub(crate) const DEFAULT_READY_FILE: &str = ".carillon/ready.json";

/// The environment's names of what the flags say.
pub(crate) mod variables {
    /// The WebSocket endpoint.
    pub(crate) const WEBSOCKET_URL: &str = "CARILLON_WEBSOCKET_URL";
    /// The base URL of streams.
    pub(crate) const STREAM_URL: &str = "CARILLON_STREAM_URL";
    /// The MQTT endpoint.
    pub(crate) const MQTT_URL: &str = "CARILLON_MQTT_URL";
    /// The base URL of `POST /publish`.
    pub(crate) const PUBLISH_URL: &str = "CARILLON_PUBLISH_URL";
    /// The token.
    pub(crate) const TOKEN: &str = "CARILLON_TOKEN";
    /// The ready file.
    pub(crate) const READY_FILE: &str = "CARILLON_READY_FILE";
    /// The name of the registry table.
    pub(crate) const REGISTRY_TABLE: &str = "CARILLON_REGISTRY_TABLE";

    /// All of them, for the test of `--help`.
    #[cfg(test)]
    pub(crate) const ALL: [&str; 7] = [WEBSOCKET_URL, STREAM_URL, MQTT_URL, PUBLISH_URL, TOKEN, READY_FILE, REGISTRY_TABLE];
}

/// What the ready file says, as far as these commands need it; what is unknown is passed over, for it may be of a newer version.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct ReadyFile {
    /// The WebSocket endpoint.
    #[serde(default)]
    pub(crate) websocket: Option<String>,
    /// The base URL of streams.
    #[serde(default)]
    pub(crate) stream: Option<String>,
    /// MQTT over TCP.
    #[serde(default)]
    pub(crate) mqtt: Option<String>,
    /// MQTT over WebSocket.
    #[serde(default)]
    pub(crate) mqtt_ws: Option<String>,
    /// What MQTT topics begin with.
    #[serde(default)]
    pub(crate) mqtt_prefix: Option<String>,
    /// The base URL of `POST /publish`.
    #[serde(default)]
    pub(crate) publish: Option<String>,
    /// The AWS endpoint.
    #[serde(default)]
    pub(crate) aws: Option<String>,
    /// The region of the AWS endpoint.
    #[serde(default)]
    pub(crate) region: Option<String>,
    /// The token.
    #[serde(default)]
    pub(crate) token: Option<String>,
    /// Logical id to physical id.
    #[serde(default)]
    pub(crate) resources: BTreeMap<String, String>,
}

/// An endpoint and what opens it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Its URL.
    pub(crate) url: String,
    /// Its token.
    pub(crate) token: Token,
}

/// Which endpoint a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `websocket`.
    WebSocket,
    /// `stream`.
    Stream,
    /// `mqtt`, or `mqtt_ws` where it is asked for.
    Mqtt,
    /// `publish`.
    Publish,
}

/// What flags and environment say; a flag wins.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    url: Option<String>,
    token: Option<String>,
}

impl Given {
    /// What was given; an empty text counts as nothing, as everywhere in the environment.
    pub(crate) fn new(url: Option<String>, token: Option<String>) -> Self {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        Self { url: given(url), token: given(token) }
    }

    /// The same with the environment's URL of this kind, where no flag says another.
    pub(crate) fn or_variable(self, kind: Kind) -> Self {
        if self.url.is_some() { self } else { Self::new(std::env::var(kind.variable()).ok(), self.token) }
    }
}

/// Finds an endpoint and its token.
///
/// The ready file's token goes to the ready file's URL alone: whoever names another URL names its token too.
///
/// # Errors
/// With [`Exit::NotReachable`] where nobody says where the endpoint is or what opens it; the hint names all three ways.
pub(crate) fn resolve(kind: Kind, given: Given, ready_file: &Path) -> Outcome<Endpoint> {
    if let Given { url: Some(url), token: Some(token) } = given {
        return Ok(Endpoint { url, token: Token::new(token) });
    }
    let ready = match read(ready_file) {
        Ok(ready) => ready,
        Err(error) => {
            let missing = if given.url.is_some() { "token" } else { kind.name() };
            return Err(unknown(missing, kind, Context::new(format!("cannot use {}", ready_file.display()), error)));
        }
    };
    let mut local = kind.of(&ready);
    let file = ready_file.display();
    let url = match (given.url, local.next()) {
        (Some(url), first) if !first.into_iter().chain(local).any(|local| local == url) => {
            return Err(unknown("token", kind, format!("{url} is not the endpoint of {file}, so the token there is not for it")));
        }
        (Some(url), _) => url,
        (None, Some(url)) => url.to_owned(),
        (None, None) => return Err(unknown(kind.name(), kind, format!("{file} names no {}", kind.name()))),
    };
    match given.token.or_else(|| ready.token.clone()) {
        Some(token) => Ok(Endpoint { url, token: Token::new(token) }),
        None => Err(unknown("token", kind, format!("{file} holds no token"))),
    }
}

/// Finds what the topics of the MQTT endpoint `url` begin with. The ready file's prefix is that of its own endpoints alone.
///
/// # Errors
/// With [`Exit::NotReachable`] where nobody says it.
pub(crate) fn mqtt_prefix(given: Option<MqttPrefix>, url: &str, ready_file: &Path) -> Outcome<MqttPrefix> {
    if let Some(prefix) = given {
        return Ok(prefix);
    }
    let unknown = |why: Box<dyn std::error::Error + Send + Sync>| {
        Failure::new(Exit::NotReachable, Context::new("nobody says which MQTT prefix to use", why))
            .hint("give --mqtt-prefix: the stack's parameter MqttPrefix, by default the stack's name")
    };
    let file = ready_file.display();
    let ready = read(ready_file).map_err(|error| unknown(Context::new(format!("cannot use {file}"), error).into()))?;
    if !Kind::Mqtt.of(&ready).any(|local| local == url) {
        return Err(unknown(format!("{url} is not the endpoint of {file}").into()));
    }
    let prefix = ready.mqtt_prefix.ok_or_else(|| unknown(format!("{file} holds no MQTT prefix").into()))?;
    MqttPrefix::parse(&prefix).map_err(|error| unknown(error.into()))
}

/// Reads a ready file.
///
/// # Errors
/// When it cannot be read or is no ready file.
pub(crate) fn read(path: &Path) -> io::Result<ReadyFile> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "WebSocket URL",
            Self::Stream => "stream URL",
            Self::Mqtt => "MQTT URL",
            Self::Publish => "publish URL",
        }
    }

    const fn variable(self) -> &'static str {
        match self {
            Self::WebSocket => variables::WEBSOCKET_URL,
            Self::Stream => variables::STREAM_URL,
            Self::Mqtt => variables::MQTT_URL,
            Self::Publish => variables::PUBLISH_URL,
        }
    }

    /// The ready file's endpoints of this kind, the usual one first.
    fn of(self, ready: &ReadyFile) -> impl Iterator<Item = &str> {
        let endpoints = match self {
            Self::WebSocket => [ready.websocket.as_deref(), None],
            Self::Stream => [ready.stream.as_deref(), None],
            Self::Mqtt => [ready.mqtt.as_deref(), ready.mqtt_ws.as_deref()],
            Self::Publish => [ready.publish.as_deref(), None],
        };
        endpoints.into_iter().flatten()
    }
}

fn unknown(what: &str, kind: Kind, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    let error = Context::new(format!("nobody says which {what} to use"), why);
    Failure::new(Exit::NotReachable, error).hint(format!(
        "give --url and --token,\nor set {} and {},\nor start a stack here with `carillon local`, or name its ready file with --ready-file",
        kind.variable(),
        variables::TOKEN
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    const READY: &str = r#"{"websocket":"ws://127.0.0.1:3001/prod","publish":"http://127.0.0.1:3002/","aws":"http://127.0.0.1:3000",
        "region":"us-east-1","token":"local","resources":{"RegistryTable":"carillon-registry"},"stream":"http://127.0.0.1:3003/","mqtt":"mqtt://127.0.0.1:1883",
        "mqtt_ws":"ws://127.0.0.1:3004/mqtt","mqtt_prefix":"dev","of_a_newer_version":{}}"#;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn with(text: &str) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            std::fs::write(folder.path().join("ready.json"), text).expect("written");
            Self(folder)
        }

        fn file(&self) -> PathBuf {
            self.0.path().join("ready.json")
        }
    }

    fn given(url: Option<&str>, token: Option<&str>) -> Given {
        Given::new(url.map(str::to_owned), token.map(str::to_owned))
    }

    fn endpoint(url: &str, token: &str) -> Endpoint {
        Endpoint { url: url.to_owned(), token: Token::new(token) }
    }

    #[test]
    fn what_is_given_wins_over_the_ready_file() {
        let folder = Folder::with(READY);
        let resolved = |kind, given| resolve(kind, given, &folder.file()).expect("an endpoint");
        assert_eq!(resolved(Kind::WebSocket, given(None, None)), endpoint("ws://127.0.0.1:3001/prod", "local"));
        assert_eq!(resolved(Kind::Publish, given(None, None)), endpoint("http://127.0.0.1:3002/", "local"));
        assert_eq!(resolved(Kind::Stream, given(None, None)), endpoint("http://127.0.0.1:3003/", "local"));
        assert_eq!(resolved(Kind::Mqtt, given(None, None)), endpoint("mqtt://127.0.0.1:1883", "local"));
        let over_websocket = given(Some("ws://127.0.0.1:3004/mqtt"), None);
        assert_eq!(resolved(Kind::Mqtt, over_websocket), endpoint("ws://127.0.0.1:3004/mqtt", "local"));
        assert_eq!(resolved(Kind::Publish, given(None, Some("mine"))), endpoint("http://127.0.0.1:3002/", "mine"));
        let both = given(Some("wss://example.com/prod"), Some("mine"));
        assert_eq!(resolved(Kind::WebSocket, both), endpoint("wss://example.com/prod", "mine"));
    }

    #[test]
    fn the_prefix_is_that_of_the_endpoint() {
        let file = Folder::with(READY);
        let prefix = |given: Option<&str>, url| {
            let given = given.map(|text| MqttPrefix::parse(text).expect("a prefix"));
            mqtt_prefix(given, url, &file.file()).map(|prefix| prefix.to_string())
        };
        for url in ["mqtt://127.0.0.1:1883", "ws://127.0.0.1:3004/mqtt"] {
            assert_eq!(prefix(None, url).expect("that of the file"), "dev");
        }
        assert_eq!(prefix(Some("mine"), "mqtt://127.0.0.1:1883").expect("the flag's"), "mine");
        let failure = prefix(None, "wss://example.com/mqtt").expect_err("another stack");
        assert_eq!(failure.exit(), Exit::NotReachable);
        assert!(failure.to_string().contains("--mqtt-prefix"), "{failure}");
        let nothing = Folder::with(r#"{"mqtt":"mqtt://127.0.0.1:1883"}"#);
        assert!(mqtt_prefix(None, "mqtt://127.0.0.1:1883", &nothing.file()).is_err());
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        let folder = Folder::with(READY);
        let resolved = resolve(Kind::Publish, given(Some(""), Some("")), &folder.file()).expect("an endpoint");
        assert_eq!(resolved, endpoint("http://127.0.0.1:3002/", "local"));
    }

    #[test]
    fn no_ready_file_is_needed_where_both_are_given() {
        let both = given(Some("wss://example.com/prod"), Some("mine"));
        assert!(resolve(Kind::WebSocket, both, Path::new("/nowhere/ready.json")).is_ok());
    }

    #[test]
    fn the_local_token_never_goes_to_another_url() {
        let folder = Folder::with(READY);
        let failure =
            resolve(Kind::WebSocket, given(Some("wss://example.com/prod"), None), &folder.file()).expect_err("no token");
        assert_eq!(failure.exit(), Exit::NotReachable);
        assert!(failure.to_string().starts_with("error: nobody says which token to use\n"), "{failure}");
        let same = given(Some("ws://127.0.0.1:3001/prod"), None);
        assert!(resolve(Kind::WebSocket, same, &folder.file()).is_ok());
    }

    #[test]
    fn where_nothing_is_known_the_hint_names_all_three_ways() {
        for text in ["{}", "no JSON"] {
            let failure = resolve(Kind::Publish, given(None, None), &Folder::with(text).file()).expect_err("nothing there");
            assert_eq!(failure.exit(), Exit::NotReachable);
            let text = failure.to_string();
            for way in ["--url", "--token", variables::PUBLISH_URL, variables::TOKEN, "carillon local", "--ready-file"] {
                assert!(text.contains(way), "{way} is not in {text}");
            }
        }
    }
}
