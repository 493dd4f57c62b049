//! IoT Core policies: what a client may do.
//!
//! Evaluated are `Effect`, `Action` and `Resource` with `*` and `?`, the variable `${iot:ClientId}` and the escapes `${*}`, `${?}`
//! and `${$}` (AWS IoT Core Developer Guide, "AWS IoT Core policies"). Anything else in a policy is refused rather than ignored:
//! it could make it say less.

use serde::Deserialize;
use serde_json::{Map, Value};

/// The most policies of one client, and the most characters of each (the guide, "Creating and managing custom authorizers").
const MAXIMUM_POLICIES: usize = 10;
const MAXIMUM_POLICY_CHARACTERS: usize = 2048;

/// What a client wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Connect,
    Publish,
    RetainPublish,
    Receive,
    Subscribe,
}

/// What a client may do.
#[derive(Clone, Debug)]
pub(super) enum Authority {
    /// Everything: a caller that signed with IAM credentials, whose policies are not emulated.
    Everything,
    /// What policies say.
    Policies(Policies),
}

/// The policies of one client.
#[derive(Clone, Debug)]
pub(super) struct Policies {
    statements: Vec<Statement>,
    client_id: String,
    /// `arn:aws:iot:<region>:<account>:`.
    arn_prefix: String,
}

#[derive(Clone, Debug)]
struct Statement {
    allows: bool,
    actions: Vec<String>,
    resources: Vec<String>,
}

/// A policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum PolicyError {
    #[error("there are {count} policies, over the limit of {MAXIMUM_POLICIES}")]
    TooMany { count: usize },
    #[error("policy {index} has {characters} characters, over the limit of {MAXIMUM_POLICY_CHARACTERS}")]
    TooLong { index: usize, characters: usize },
    #[error("policy {index} is no JSON of a policy")]
    Syntax {
        index: usize,
        #[source]
        source: serde_json::Error,
    },
    #[error("policy {index} has {name}, which the local stack does not evaluate")]
    NotEvaluated { index: usize, name: String },
    #[error("policy {index} has no {name}")]
    Missing { index: usize, name: &'static str },
    #[error("policy {index} has the Effect {effect}, which is neither Allow nor Deny")]
    Effect { index: usize, effect: String },
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Connect => "iot:Connect",
            Self::Publish => "iot:Publish",
            Self::RetainPublish => "iot:RetainPublish",
            Self::Receive => "iot:Receive",
            Self::Subscribe => "iot:Subscribe",
        }
    }

    fn resource_kind(self) -> &'static str {
        match self {
            Self::Connect => "client",
            Self::Publish | Self::RetainPublish | Self::Receive => "topic",
            Self::Subscribe => "topicfilter",
        }
    }
}

impl Authority {
    /// Whether the client may do this to a client id, a topic or a topic filter. The group of a shared subscription is not part of
    /// the filter here; AWS does not say whether it is.
    pub(super) fn allows(&self, action: Action, resource: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Policies(policies) => policies.allows(action, resource),
        }
    }
}

impl Policies {
    /// Reads an authorizer's `policyDocuments`: objects, or strings that hold one each.
    pub(super) fn parse(documents: &[Value], client_id: &str, region: &str, account: &str) -> Result<Self, PolicyError> {
        if documents.len() > MAXIMUM_POLICIES {
            return Err(PolicyError::TooMany { count: documents.len() });
        }
        let mut statements = Vec::new();
        for (index, document) in documents.iter().enumerate() {
            parse_document(index, document, &mut statements)?;
        }
        Ok(Self { statements, client_id: client_id.to_owned(), arn_prefix: format!("arn:aws:iot:{region}:{account}:") })
    }

    /// A Deny wins over every Allow, and what nothing allows is denied.
    fn allows(&self, action: Action, resource: &str) -> bool {
        let arn = format!("{}{}/{resource}", self.arn_prefix, action.resource_kind());
        let applies = |statement: &&Statement| {
            let acts = statement.actions.iter().any(|pattern| matches(pattern, action.name(), &self.client_id));
            acts && statement.resources.iter().any(|pattern| matches(pattern, &arn, &self.client_id))
        };
        let mut allowed = false;
        for statement in self.statements.iter().filter(applies) {
            if !statement.allows {
                return false;
            }
            allowed = true;
        }
        allowed
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<Item> {
    One(Item),
    Many(Vec<Item>),
}

impl<Item> From<OneOrMany<Item>> for Vec<Item> {
    fn from(items: OneOrMany<Item>) -> Self {
        match items {
            OneOrMany::One(item) => vec![item],
            OneOrMany::Many(items) => items,
        }
    }
}

fn parse_document(index: usize, document: &Value, statements: &mut Vec<Statement>) -> Result<(), PolicyError> {
    let syntax = |source| PolicyError::Syntax { index, source };
    let text = match document {
        Value::String(text) => text.clone(),
        object => object.to_string(),
    };
    let characters = text.chars().count();
    if characters > MAXIMUM_POLICY_CHARACTERS {
        return Err(PolicyError::TooLong { index, characters });
    }
    let mut document: Map<String, Value> = serde_json::from_str(&text).map_err(syntax)?;
    let listed = document.remove("Statement").ok_or(PolicyError::Missing { index, name: "Statement" })?;
    if let Some(name) = document.keys().find(|name| !matches!(name.as_str(), "Version" | "Id")) {
        return Err(PolicyError::NotEvaluated { index, name: name.clone() });
    }
    let listed: OneOrMany<Map<String, Value>> = serde_json::from_value(listed).map_err(syntax)?;
    for mut statement in Vec::from(listed) {
        let mut take = |name: &'static str| statement.remove(name).ok_or(PolicyError::Missing { index, name });
        let effect: String = serde_json::from_value(take("Effect")?).map_err(syntax)?;
        let actions: OneOrMany<String> = serde_json::from_value(take("Action")?).map_err(syntax)?;
        let resources: OneOrMany<String> = serde_json::from_value(take("Resource")?).map_err(syntax)?;
        if let Some(name) = statement.keys().find(|name| *name != "Sid") {
            return Err(PolicyError::NotEvaluated { index, name: name.clone() });
        }
        let allows = match effect.as_str() {
            "Allow" => true,
            "Deny" => false,
            _ => return Err(PolicyError::Effect { index, effect }),
        };
        let (actions, resources) = (Vec::from(actions), Vec::from(resources));
        for resource in &resources {
            if let Some(name) = unknown_variable(resource) {
                return Err(PolicyError::NotEvaluated { index, name: format!("the variable ${{{name}}}") });
            }
        }
        statements.push(Statement { allows, actions, resources });
    }
    Ok(())
}

fn unknown_variable(pattern: &str) -> Option<&str> {
    let mut variables = pattern.split("${").skip(1).map(|rest| rest.split('}').next().unwrap_or(rest));
    variables.find(|name| !matches!(*name, "iot:ClientId" | "*" | "?" | "$"))
}

/// One step of a pattern.
enum Step {
    Any,
    One,
    Exactly(char),
}

/// Whether a pattern with `*`, `?` and variables is the text.
fn matches(pattern: &str, text: &str, client_id: &str) -> bool {
    let steps = steps(pattern, client_id);
    let text = text.chars().collect::<Vec<_>>();
    // The classic walk: on a mismatch, go back to the last `*` and let it take one character more.
    let (mut step, mut position) = (0, 0);
    let mut last_any = None;
    while position < text.len() {
        match steps.get(step) {
            Some(Step::Any) => {
                last_any = Some((step, position));
                step += 1;
            }
            Some(Step::One) => (step, position) = (step + 1, position + 1),
            Some(Step::Exactly(character)) if *character == text[position] => (step, position) = (step + 1, position + 1),
            _ => {
                let Some((any, taken)) = last_any else { return false };
                last_any = Some((any, taken + 1));
                (step, position) = (any + 1, taken + 1);
            }
        }
    }
    steps[step..].iter().all(|step| matches!(step, Step::Any))
}

fn steps(pattern: &str, client_id: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = pattern;
    while let Some(character) = rest.chars().next() {
        if let Some((name, after)) = rest.strip_prefix("${").and_then(|inner| inner.split_once('}')) {
            // A client id is text: a wildcard in it stands for itself.
            let text = if name == "iot:ClientId" { client_id } else { name };
            steps.extend(text.chars().map(Step::Exactly));
            rest = after;
            continue;
        }
        steps.push(match character {
            '*' => Step::Any,
            '?' => Step::One,
            character => Step::Exactly(character),
        });
        rest = &rest[character.len_utf8()..];
    }
    steps
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Action, Policies, matches};

    fn policies(statements: &Value) -> Policies {
        let document = json!({"Version": "2012-10-17", "Statement": statements});
        Policies::parse(&[document], "device+1", "us-east-1", "123456789012").expect("a policy")
    }

    fn error(document: &Value) -> String {
        Policies::parse(std::slice::from_ref(document), "c", "r", "a").expect_err("refused").to_string()
    }

    #[test]
    fn patterns_match() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "anything", true),
            ("a*", "abc", true),
            ("a*c", "abbc", true),
            ("a*c", "abcb", false),
            ("*a*b", "xaxxab", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("topic/${iot:ClientId}/x", "topic/me*/x", true),
            ("topic/${iot:ClientId}/x", "topic/meadow/x", false),
            ("a${*}", "a*", true),
            ("a${*}", "ab", false),
            ("${?}${$}", "?$", true),
            ("abc", "abcd", false),
            ("abcd", "abc", false),
        ] {
            assert_eq!(matches(pattern, text, "me*"), expected, "{pattern} and {text}");
        }
    }

    #[test]
    fn deny_wins_and_nothing_is_allowed_by_itself() {
        let policies = policies(&json!([
            {"Effect": "Allow", "Action": "iot:Connect", "Resource": "arn:aws:iot:us-east-1:123456789012:client/${iot:ClientId}"},
            {"Effect": "Allow", "Action": ["iot:Publish", "iot:Receive"], "Resource": ["arn:aws:iot:*:*:topic/p/*"]},
            {"Effect": "Deny", "Action": "iot:*", "Resource": "*/secret"},
            {"Sid": "X", "Effect": "Allow", "Action": "iot:Subscribe", "Resource": "arn:aws:iot:us-east-1:123456789012:topicfilter/p/#"},
        ]));
        for (action, resource, expected) in [
            (Action::Connect, "device+1", true),
            (Action::Connect, "device+2", false),
            (Action::Publish, "p/a", true),
            (Action::Publish, "p/secret", false),
            (Action::Publish, "q/a", false),
            (Action::RetainPublish, "p/a", false),
            (Action::Receive, "p/a/b", true),
            // A filter's wildcards are characters of the resource.
            (Action::Subscribe, "p/#", true),
            (Action::Subscribe, "p/a", false),
        ] {
            assert_eq!(policies.allows(action, resource), expected, "{action:?} on {resource}");
        }
    }

    #[test]
    fn documents_may_be_text_and_statements_single() {
        let text = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}"#;
        let policies = Policies::parse(&[json!(text)], "c", "r", "a").expect("a policy");
        assert!(policies.allows(Action::Publish, "x"));
        assert!(!Policies::parse(&[], "c", "r", "a").expect("no policy").allows(Action::Publish, "x"));
    }

    #[test]
    fn what_is_not_evaluated_is_refused_by_its_name() {
        let statement = |extra: &str, value: Value| {
            let mut statement = json!({"Effect": "Allow", "Action": "*", "Resource": "*"});
            statement[extra] = value;
            json!({"Version": "2012-10-17", "Statement": [statement]})
        };
        for (document, expected) in [
            (statement("Condition", json!({})), "policy 0 has Condition, which the local stack does not evaluate"),
            (statement("NotResource", json!("*")), "policy 0 has NotResource, which the local stack does not evaluate"),
            (statement("Effect", json!("allow")), "policy 0 has the Effect allow, which is neither Allow nor Deny"),
            (
                statement("Resource", json!("topic/${iot:Connection.Thing.ThingName}")),
                "policy 0 has the variable ${iot:Connection.Thing.ThingName}, which the local stack does not evaluate",
            ),
            (json!({"Version": "2012-10-17"}), "policy 0 has no Statement"),
            (json!("{"), "policy 0 is no JSON of a policy"),
            (json!(" ".repeat(2049)), "policy 0 has 2049 characters, over the limit of 2048"),
        ] {
            assert_eq!(error(&document), expected);
        }
        let many = vec![json!({"Statement": []}); 11];
        let error = Policies::parse(&many, "c", "r", "a").expect_err("too many").to_string();
        assert_eq!(error, "there are 11 policies, over the limit of 10");
    }
}
