#![doc = include_str!("../README.md")]

mod event;

pub use event::{Request, Response};

use base64::prelude::{BASE64_STANDARD, Engine};
use carillon_core::mqtt::MqttPrefix;
use carillon_core::secret::Secret;
use event::{Mqtt, Policy, Statement};

/// The user name that stands for the shared secret.
const USER: &str = "token";

/// Who everybody is under the shared secret. IoT Core takes letters and digits only.
const PRINCIPAL: &str = "shared";

/// The version of IoT Core's policy language.
const POLICY_VERSION: &str = "2012-10-17";

/// How long a connection may last: IoT Core's longest.
const DISCONNECT_AFTER_SECONDS: u32 = 86_400;

/// How often IoT Core asks again, of 300 to 86,400 seconds. So long a secret that was changed still opens what is open; each time
/// costs an invocation for each connection.
const REFRESH_AFTER_SECONDS: u32 = 3_600;

/// Decides who comes in.
pub struct Handler {
    secret: Secret,
    prefix: MqttPrefix,
}

/// Why a client does not come in, for the log: IoT Core tells clients no more than that they are not authorised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("the request is none over MQTT")]
    NotMqtt,
    #[error("the user name is not '{USER}'")]
    User,
    #[error("there is no password")]
    NoPassword,
    #[error("the password is not the secret")]
    Password,
    #[error("the function's own ARN is none, so none can be made for IoT Core")]
    OwnArn,
}

impl Handler {
    /// A handler that opens the topics below this prefix to who has this secret.
    #[must_use]
    pub const fn new(secret: Secret, prefix: MqttPrefix) -> Self {
        Self { secret, prefix }
    }

    /// Decides about a client. `function` is the ARN of the function itself, which says in which account and region it is.
    pub fn handle(&self, request: &Request, function: &str) -> Response {
        match self.admit(request, function) {
            Ok(policy) => {
                tracing::debug!("an MQTT client was let in");
                Response::with(true, vec![policy])
            }
            Err(Refusal::OwnArn) => {
                tracing::error!(function.arn = function, error.message = %Refusal::OwnArn, "an MQTT client was refused");
                Response::with(false, Vec::new())
            }
            Err(refusal) => {
                tracing::info!(error.message = %refusal, "an MQTT client was refused");
                Response::with(false, Vec::new())
            }
        }
    }

    fn admit(&self, request: &Request, function: &str) -> Result<Policy, Refusal> {
        let mqtt = request.protocol_data.as_ref().and_then(|data| data.mqtt.as_ref()).ok_or(Refusal::NotMqtt)?;
        self.authenticate(mqtt)?;
        self.policy(mqtt.client_id.as_deref(), function)
    }

    fn authenticate(&self, mqtt: &Mqtt) -> Result<(), Refusal> {
        // What follows the question mark names the authorizer and is read by IoT Core.
        let user = mqtt.username.as_deref().and_then(|name| name.split('?').next());
        if user != Some(USER) {
            return Err(Refusal::User);
        }
        let password = mqtt.password.as_deref().filter(|password| !password.is_empty()).ok_or(Refusal::NoPassword)?;
        let password = BASE64_STANDARD.decode(password).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        match password {
            Some(password) if self.secret.opens_with(&password) => Ok(()),
            _ => Err(Refusal::Password),
        }
    }

    /// What a client may do. iot:RetainPublish is not among it: what is retained is for the namespace to say.
    fn policy(&self, client: Option<&str>, function: &str) -> Result<Policy, Refusal> {
        let arn = |resource: &str| arn(function, resource).ok_or(Refusal::OwnArn);
        let allow = |action, resource: &str| Ok::<_, Refusal>(Statement { effect: "Allow", action, resource: arn(resource)? });
        let prefix = &self.prefix;
        // A client that names no id of its own is given one by IoT Core. Wildcards in an id widen nothing: the policy is that of
        // one connection, which has one id.
        let client = client.filter(|id| !id.is_empty()).unwrap_or("*");
        let statement = vec![
            allow("iot:Connect", &format!("client/{client}"))?,
            allow("iot:Subscribe", &format!("topicfilter/{prefix}/c/*"))?,
            allow("iot:Receive", &format!("topic/{prefix}/c/*"))?,
            allow("iot:Publish", &format!("topic/{prefix}/p/*"))?,
        ];
        Ok(Policy { version: POLICY_VERSION, statement })
    }
}

impl Response {
    /// The same timers whatever the answer is: IoT Core wants them in every response.
    const fn with(is_authenticated: bool, policy_documents: Vec<Policy>) -> Self {
        Self {
            is_authenticated,
            principal_id: PRINCIPAL,
            disconnect_after_in_seconds: DISCONNECT_AFTER_SECONDS,
            refresh_after_in_seconds: REFRESH_AFTER_SECONDS,
            policy_documents,
        }
    }
}

/// The ARN of a resource of IoT Core in the account and region of a function: `arn:<partition>:lambda:<region>:<account>:…`.
fn arn(function: &str, resource: &str) -> Option<String> {
    let mut parts = function.split(':');
    let mut next = || parts.next().filter(|part| !part.is_empty());
    let (Some("arn"), Some(partition), Some("lambda"), Some(region), Some(account)) = (next(), next(), next(), next(), next())
    else {
        return None;
    };
    Some(format!("arn:{partition}:iot:{region}:{account}:{resource}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lambda_events::iot::{IoTCoreCustomAuthorizerRequest, IoTCoreCustomAuthorizerResponse};
    use serde_json::{Value, json};
    use std::path::Path;

    const SECRET: &str = "example-secret-of-at-least-32-characters";
    const FUNCTION: &str = "arn:aws:lambda:eu-central-1:123456789012:function:carillon-AuthorizeFunction-1A2B3C";

    /// Characters of the longest policy that IoT Core takes from an authorizer.
    const POLICY_CHARACTERS: usize = 2_048;

    fn handler(prefix: &str) -> Handler {
        Handler::new(Secret::try_new(SECRET).expect("a secret"), MqttPrefix::parse(prefix).expect("a prefix"))
    }

    fn request(mqtt: Value) -> Value {
        json!({
            "signatureVerified": false,
            "protocols": ["tls", "http", "mqtt"],
            "protocolData": {
                "tls": {"serverName": "a1b2c3-ats.iot.eu-central-1.amazonaws.com"},
                "http": {"headers": {"user-agent": "Größe"}, "queryString": ""},
                "mqtt": mqtt,
            },
            "connectionMetadata": {"id": "e56f08c3-c559-490f-aa9f-7e8427d0f57b"},
        })
    }

    fn answer(handler: &Handler, request: &Value) -> Value {
        let request: Request = serde_json::from_value(request.clone()).expect("a request");
        let response = serde_json::to_value(handler.handle(&request, FUNCTION)).expect("JSON");
        // What IoT Core requires of every response, whatever it says.
        let read: IoTCoreCustomAuthorizerResponse = serde_json::from_value(response.clone()).expect("a response");
        assert!((300..=86_400).contains(&read.disconnect_after_in_seconds));
        assert!((300..=86_400).contains(&read.refresh_after_in_seconds));
        let principal = read.principal_id.expect("a principal");
        assert!((1..=128).contains(&principal.len()) && principal.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        for policy in response["policyDocuments"].as_array().expect("a list") {
            assert!(policy.to_string().chars().count() <= POLICY_CHARACTERS);
        }
        response
    }

    fn credentials(user: &str, password: &str) -> Value {
        request(json!({"username": user, "password": BASE64_STANDARD.encode(password), "clientId": "till-7"}))
    }

    #[test]
    fn the_secret_opens_this_stack_s_topics_and_nothing_else() {
        for user in ["token", "token?x-amz-customauthorizer-name=carillon-MqttAuthorizer-1A2B", "token?"] {
            let response = answer(&handler("shop"), &credentials(user, SECRET));
            let arn = |resource: &str| format!("arn:aws:iot:eu-central-1:123456789012:{resource}");
            let allowed = [
                ("iot:Connect", arn("client/till-7")),
                ("iot:Subscribe", arn("topicfilter/shop/c/*")),
                ("iot:Receive", arn("topic/shop/c/*")),
                ("iot:Publish", arn("topic/shop/p/*")),
            ];
            let statement = allowed.map(|(action, resource)| json!({"Effect": "Allow", "Action": action, "Resource": resource}));
            let expected = json!({
                "isAuthenticated": true,
                "principalId": "shared",
                "disconnectAfterInSeconds": 86_400,
                "refreshAfterInSeconds": 3_600,
                "policyDocuments": [{"Version": "2012-10-17", "Statement": statement}],
            });
            assert_eq!(response, expected, "{user}");
        }
    }

    #[test]
    fn nobody_else_comes_in() {
        let refused = [
            credentials("token", "wrong"),
            credentials("token", ""),
            credentials("token", &format!("{SECRET} ")),
            credentials("Token", SECRET),
            credentials("", SECRET),
            credentials("?token", SECRET),
            request(json!({"username": "token", "clientId": "till-7"})),
            request(json!({"username": "token", "password": SECRET})),
            request(json!({"username": "token", "password": "/w=="})),
            request(json!({"password": BASE64_STANDARD.encode(SECRET)})),
            request(json!({})),
            request(Value::Null),
            json!({"protocols": ["tls", "http"], "protocolData": {"http": {"queryString": "?token=x"}}}),
            json!({}),
        ];
        for request in refused {
            let response = answer(&handler("shop"), &request);
            assert_eq!(response["isAuthenticated"], false, "{request}");
            assert_eq!(response["policyDocuments"], json!([]), "{request}");
        }
    }

    #[test]
    fn without_an_account_nobody_comes_in() {
        let request: Request = serde_json::from_value(credentials("token", SECRET)).expect("a request");
        for function in [
            "",
            "No header lambda-runtime-invoked-function-arn found.",
            "arn:aws:lambda::123456789012:function:x",
            "arn:aws:s3:::x",
        ] {
            assert!(!handler("shop").handle(&request, function).is_authenticated, "{function}");
        }
        assert_eq!(
            arn("arn:aws-cn:lambda:cn-north-1:123456789012:function:x:7", "topic/a"),
            Some("arn:aws-cn:iot:cn-north-1:123456789012:topic/a".to_owned())
        );
    }

    #[test]
    fn a_client_without_an_id_gets_one_of_iot_core_s() {
        for client in [json!(null), json!("")] {
            let request = request(json!({"username": "token", "password": BASE64_STANDARD.encode(SECRET), "clientId": client}));
            let response = answer(&handler("shop"), &request);
            let connect = &response["policyDocuments"][0]["Statement"][0];
            assert_eq!(connect["Resource"], "arn:aws:iot:eu-central-1:123456789012:client/*");
        }
    }

    #[test]
    fn the_longest_policy_is_short_enough() {
        let client = "\"".repeat(128);
        let request = request(json!({"username": "token", "password": BASE64_STANDARD.encode(SECRET), "clientId": client}));
        assert_eq!(answer(&handler(&"p".repeat(48)), &request)["isAuthenticated"], true);
    }

    #[test]
    fn nothing_prints_credentials() {
        let request: Request = serde_json::from_value(credentials("token", SECRET)).expect("a request");
        assert_eq!(format!("{request:?}"), "Request(…)");
    }

    #[test]
    fn every_sample_event_is_answered_as_its_readme_says() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../events/authorize");
        let mut files = 0;
        for entry in std::fs::read_dir(&folder).expect("the samples") {
            let path = entry.expect("a file").path();
            let text = std::fs::read_to_string(&path).expect("a sample");
            let _: IoTCoreCustomAuthorizerRequest = serde_json::from_str(&text).expect("a request by others' types too");
            let response = answer(&handler("carillon"), &serde_json::from_str(&text).expect("JSON"));
            let admitted = !path.to_string_lossy().contains("wrong");
            assert_eq!(response["isAuthenticated"], admitted, "{}", path.display());
            files += 1;
        }
        assert!(files >= 3, "{files} samples");
    }
}
