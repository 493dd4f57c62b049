//! Custom authorizers: which one a client means, what its function is asked, and what its answer allows.
//!
//! The event and the answer are those of the AWS IoT Core Developer Guide, "Creating and managing custom authorizers". Tokens are
//! not verified against public keys (`signatureVerified` is always false); the function is not asked again after
//! `refreshAfterInSeconds`; answers are not cached.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::limits::AUTHORIZER_TIME;
use super::policy::{Authority, Policies, PolicyError};
use crate::invoker::{InvokeError, Invoker, Outcome};
use crate::spec::AuthorizerSpec;

/// The name of the parameter, in a query, a header or a user name, that chooses an authorizer.
const NAME_KEY: &str = "x-amz-customauthorizer-name";

/// The range of `disconnectAfterInSeconds` and of `refreshAfterInSeconds` (the guide).
const TIMER_SECONDS: std::ops::RangeInclusive<u64> = 300..=86_400;

/// The longest `principalId`, in characters (the guide).
const MAXIMUM_PRINCIPAL_CHARACTERS: usize = 128;

/// The authorizers of a template.
#[derive(Clone)]
pub(super) struct Authorizers {
    specs: Vec<AuthorizerSpec>,
    invoker: Arc<dyn Invoker>,
    account: String,
    region: String,
}

/// What a client shows.
#[derive(Debug)]
pub(super) struct Credentials<'a> {
    pub(super) client_id: &'a str,
    pub(super) user_name: Option<&'a str>,
    pub(super) password: Option<&'a [u8]>,
    /// The name of the server that the client meant: the TLS server name on AWS.
    pub(super) server_name: &'a str,
    /// The handshake's headers and query, where the client came over WebSocket.
    pub(super) http: Option<Http<'a>>,
    /// The connection's own id.
    pub(super) connection_id: &'a str,
}

/// The request that became a WebSocket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Http<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) query: Option<&'a str>,
}

/// A client that an authorizer let in.
#[derive(Debug)]
pub(super) struct Principal {
    pub(super) id: String,
    pub(super) authority: Authority,
    /// How long the connection may last.
    pub(super) lasts: Option<Duration>,
}

/// A client is not let in.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error(
        "nobody can be let in: the template has no AWS::IoT::Authorizer, and the request is not signed with Signature Version 4"
    )]
    NoAuthorizer,
    #[error("the template has no authorizer {name}, it has {known}")]
    UnknownAuthorizer { name: String, known: String },
    #[error("the client names no authorizer, and the template has several: {known}")]
    SeveralAuthorizers { known: String },
    #[error("the authorizer {name} says no")]
    NotAuthenticated { name: String },
    #[error("the authorizer {name} took longer than {} s", AUTHORIZER_TIME.as_secs())]
    TimedOut { name: String },
    #[error("the function of the authorizer {name} could not be invoked")]
    NotInvoked {
        name: String,
        #[source]
        source: InvokeError,
    },
    #[error("the function of the authorizer {name} failed")]
    Failed { name: String },
    #[error("the answer of the authorizer {name} is not valid")]
    Answer {
        name: String,
        #[source]
        source: AnswerError,
    },
}

/// An authorizer's answer cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    #[error("it is no JSON of an authorizer's answer")]
    Syntax(#[source] serde_json::Error),
    #[error("principalId must be 1 to {MAXIMUM_PRINCIPAL_CHARACTERS} letters and digits")]
    PrincipalId,
    #[error("{name} is {seconds} and must be from {} to {}", TIMER_SECONDS.start(), TIMER_SECONDS.end())]
    Timer { name: &'static str, seconds: u64 },
    #[error("a policy is refused")]
    Policy(#[source] PolicyError),
}

impl Authorizers {
    pub(super) fn new(specs: Vec<AuthorizerSpec>, invoker: Arc<dyn Invoker>, account: &str, region: &str) -> Self {
        Self { specs, invoker, account: account.to_owned(), region: region.to_owned() }
    }

    /// Asks the authorizer that the client means.
    pub(super) async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Principal, Refusal> {
        let spec = self.choose(credentials)?;
        let name = || spec.name.clone();
        let event = event(spec, credentials);
        let payload = Bytes::from(serde_json::to_vec(&event).expect("texts under text keys are always JSON"));
        let invocation = self.invoker.invoke(&spec.function, payload);
        let outcome = tokio::time::timeout(AUTHORIZER_TIME, invocation).await.map_err(|_| Refusal::TimedOut { name: name() })?;
        let answer = match outcome.map_err(|source| Refusal::NotInvoked { name: name(), source })? {
            Outcome::Success(answer) => answer,
            Outcome::FunctionError(_) => return Err(Refusal::Failed { name: name() }),
        };
        let principal = read_answer(&answer, credentials.client_id, &self.region, &self.account)
            .map_err(|source| Refusal::Answer { name: name(), source })?;
        principal.ok_or_else(|| Refusal::NotAuthenticated { name: name() })
    }

    /// The authorizer that the user name, the query or a header names, and else the only one, which then is the account's default.
    fn choose(&self, credentials: &Credentials<'_>) -> Result<&AuthorizerSpec, Refusal> {
        let known = || self.specs.iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>().join(", ");
        if self.specs.is_empty() {
            return Err(Refusal::NoAuthorizer);
        }
        if let Some(name) = credentials.parameter(NAME_KEY) {
            let spec = self.specs.iter().find(|spec| spec.name == name);
            return spec.ok_or_else(|| Refusal::UnknownAuthorizer { name, known: known() });
        }
        match self.specs.as_slice() {
            [only] => Ok(only),
            _ => Err(Refusal::SeveralAuthorizers { known: known() }),
        }
    }
}

impl Credentials<'_> {
    /// A parameter of the user name, of the query or of the headers.
    fn parameter(&self, key: &str) -> Option<String> {
        let in_user_name = self.user_name.and_then(|name| name.split_once('?')).map(|(_, parameters)| parameters);
        let in_query = self.http.and_then(|http| http.query);
        let queries = in_user_name.into_iter().chain(in_query);
        let named = queries.flat_map(|query| query.split('&')).filter_map(|pair| pair.split_once('='));
        let named = named.filter(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value);
        let named = named.map(|value| percent_decode_str(value).decode_utf8_lossy().into_owned()).next();
        named.or_else(|| {
            let value = self.http?.headers.get(key).map(HeaderValue::as_bytes)?;
            Some(String::from_utf8_lossy(value).into_owned())
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AuthorizerEvent<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    signature_verified: bool,
    protocols: &'a [&'a str],
    protocol_data: ProtocolData<'a>,
    connection_metadata: ConnectionMetadata<'a>,
}

#[derive(Serialize)]
struct ProtocolData<'a> {
    tls: Tls<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<HttpData>,
    mqtt: Mqtt<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Tls<'a> {
    server_name: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HttpData {
    headers: Map<String, Value>,
    query_string: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Mqtt<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
    client_id: &'a str,
}

#[derive(Serialize)]
struct ConnectionMetadata<'a> {
    id: &'a str,
}

/// The event in the order of the guide's example. TLS ends before the stack, where it is used at all, and is in the event all the
/// same, so that functions see what they see on AWS.
fn event<'a>(spec: &AuthorizerSpec, credentials: &Credentials<'a>) -> AuthorizerEvent<'a> {
    let http = credentials.http.map(|http| {
        let names = http.headers.keys().map(http::HeaderName::as_str);
        let headers = names.map(|name| {
            let values = http.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
            (name.to_owned(), values.collect::<Vec<_>>().join(",").into())
        });
        let query_string = http.query.map(|query| format!("?{query}")).unwrap_or_default();
        HttpData { headers: headers.collect(), query_string }
    });
    AuthorizerEvent {
        token: spec.token_key.as_deref().and_then(|key| credentials.parameter(key)),
        signature_verified: false,
        protocols: if http.is_some() { &["tls", "http", "mqtt"] } else { &["tls", "mqtt"] },
        protocol_data: ProtocolData {
            tls: Tls { server_name: credentials.server_name },
            http,
            mqtt: Mqtt {
                username: credentials.user_name,
                password: credentials.password.map(|password| BASE64.encode(password)),
                client_id: credentials.client_id,
            },
        },
        connection_metadata: ConnectionMetadata { id: credentials.connection_id },
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    is_authenticated: bool,
    #[serde(default)]
    principal_id: String,
    disconnect_after_in_seconds: Option<u64>,
    refresh_after_in_seconds: Option<u64>,
    #[serde(default)]
    policy_documents: Vec<Value>,
}

/// Nothing, where the answer says that the client is not authenticated.
fn read_answer(answer: &[u8], client_id: &str, region: &str, account: &str) -> Result<Option<Principal>, AnswerError> {
    let answer: Answer = serde_json::from_slice(answer).map_err(AnswerError::Syntax)?;
    if !answer.is_authenticated {
        return Ok(None);
    }
    let id = answer.principal_id;
    if !(1..=MAXIMUM_PRINCIPAL_CHARACTERS).contains(&id.len()) || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(AnswerError::PrincipalId);
    }
    for (name, seconds) in [
        ("disconnectAfterInSeconds", answer.disconnect_after_in_seconds),
        ("refreshAfterInSeconds", answer.refresh_after_in_seconds),
    ] {
        if let Some(seconds) = seconds.filter(|seconds| !TIMER_SECONDS.contains(seconds)) {
            return Err(AnswerError::Timer { name, seconds });
        }
    }
    let policies = Policies::parse(&answer.policy_documents, client_id, region, account).map_err(AnswerError::Policy)?;
    Ok(Some(Principal {
        id,
        authority: Authority::Policies(policies),
        lasts: answer.disconnect_after_in_seconds.map(Duration::from_secs),
    }))
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use http::HeaderMap;

    use super::{Credentials, Http, read_answer};

    fn principal(answer: &str) -> Result<Option<String>, String> {
        read_answer(answer.as_bytes(), "c", "us-east-1", "123456789012")
            .map(|principal| principal.map(|principal| principal.id))
            .map_err(|error| match error.source() {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            })
    }

    #[test]
    fn answers_are_read_strictly() {
        let policies = r#""policyDocuments":[{"Version":"2012-10-17","Statement":[]}]"#;
        let timers = r#""disconnectAfterInSeconds":300,"refreshAfterInSeconds":86400"#;
        let valid = format!(r#"{{"isAuthenticated":true,"principalId":"A1",{timers},{policies}}}"#);
        assert_eq!(principal(&valid), Ok(Some("A1".to_owned())));
        assert_eq!(principal(r#"{"isAuthenticated":false}"#), Ok(None));
        let principal_id = "principalId must be 1 to 128 letters and digits";
        for (answer, expected) in [
            (r#"{"isAuthenticated":true}"#, principal_id),
            (r#"{"isAuthenticated":true,"principalId":"a-b"}"#, principal_id),
            (
                r#"{"isAuthenticated":true,"principalId":"a","disconnectAfterInSeconds":299}"#,
                "disconnectAfterInSeconds is 299 and must be from 300 to 86400",
            ),
            (
                r#"{"isAuthenticated":true,"principalId":"a","refreshAfterInSeconds":86401}"#,
                "refreshAfterInSeconds is 86401 and must be from 300 to 86400",
            ),
            (
                r#"{"isAuthenticated":true,"principalId":"a","policyDocuments":[{}]}"#,
                "a policy is refused: policy 0 has no Statement",
            ),
        ] {
            assert_eq!(principal(answer), Err(expected.to_owned()), "{answer}");
        }
        assert!(principal("null").expect_err("no answer").starts_with("it is no JSON of an authorizer's answer"));
    }

    #[test]
    fn parameters_are_found_in_every_place() {
        let mut headers = HeaderMap::new();
        headers.insert("x-key", "header".parse().expect("a header"));
        let credentials = |user_name, query, headers| Credentials {
            client_id: "c",
            user_name,
            password: None,
            server_name: "localhost",
            http: Some(Http { headers, query }),
            connection_id: "id",
        };
        let none = HeaderMap::new();
        for (user_name, query, headers, expected) in [
            (Some("token?a=b&X-Key=user%20name"), Some("x-key=query"), &headers, Some("user name")),
            (Some("token"), Some("a=b&x-key=query"), &headers, Some("query")),
            (None, None, &headers, Some("header")),
            (Some("token?x-keys=1"), Some("x-key"), &none, None),
        ] {
            let found = credentials(user_name, query, headers).parameter("x-key");
            assert_eq!(found.as_deref(), expected, "{user_name:?} {query:?}");
        }
    }
}
