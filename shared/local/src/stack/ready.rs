//! The ready file: where a running stack is, for the other commands and for tests.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::spec::{CodeSpec, FunctionSpec};
use crate::template::{Endpoints, Identity, Template};

/// The variable of functions that says what MQTT topics begin with.
const MQTT_PREFIX_VARIABLE: &str = "CARILLON_MQTT_PREFIX";

/// Where everything is. Its JSON is the contract of the ready file; services that the template does not have are `null`.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Ready {
    /// The first WebSocket API, `ws://host:port/stage`.
    pub websocket: Option<String>,
    /// The URL of the function that serves streams: logical id `StreamFunction`, or binary `stream`.
    pub stream: Option<String>,
    /// The URL of the function that publishes: logical id `PublishFunction`, or binary `publish`.
    pub publish: Option<String>,
    /// The MQTT broker.
    pub mqtt: Option<String>,
    /// The MQTT broker over WebSocket.
    pub mqtt_ws: Option<String>,
    /// What MQTT topics begin with: the value of the variable `CARILLON_MQTT_PREFIX` of the first function that has it.
    pub mqtt_prefix: Option<String>,
    /// The AWS endpoint.
    pub aws: String,
    /// The `@connections` endpoint of the first WebSocket API.
    pub management: Option<String>,
    /// The region.
    pub region: String,
    /// The value of the parameter `Secret`, where the template has one.
    pub token: Option<String>,
    /// Every function.
    pub functions: BTreeMap<String, ReadyFunction>,
    /// Every WebSocket API.
    pub apis: BTreeMap<String, ReadyApi>,
    /// Logical id to physical id of every resource.
    pub resources: BTreeMap<String, String>,
}

/// A function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReadyFunction {
    /// Its function URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// A WebSocket API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReadyApi {
    /// Its URL.
    pub url: String,
}

impl Ready {
    pub(super) fn of(template: &Template, endpoints: &Endpoints, identity: &Identity) -> Self {
        let url = |function: &FunctionSpec| function.url.as_ref().map(|_| endpoints.function_url(&function.logical_id));
        let url_of = |logical_id: &str, name: &str| {
            let by_id = template.functions.iter().find(|function| function.logical_id == logical_id);
            let is_binary = |function: &&FunctionSpec| matches!(&function.code, CodeSpec::Cargo { binary } if binary == name);
            by_id.or_else(|| template.functions.iter().find(is_binary)).and_then(url)
        };
        let apis = template.websocket_apis.iter();
        let first = template.websocket_apis.first();
        let address = |logical_id: &str, stage: &str| format!("{}/{stage}", endpoints.websocket_apis[logical_id]);
        Self {
            websocket: first.map(|api| format!("ws://{}", address(&api.logical_id, &api.stage))),
            stream: url_of("StreamFunction", "stream"),
            publish: url_of("PublishFunction", "publish"),
            mqtt: endpoints.mqtt.as_ref().map(|address| format!("mqtt://{address}")),
            mqtt_ws: endpoints.iot.as_ref().map(|address| format!("ws://{address}/mqtt")),
            mqtt_prefix: endpoints.mqtt.as_ref().and_then(|_| mqtt_prefix(template)),
            aws: endpoints.aws.clone(),
            management: first.map(|api| format!("http://{}", address(&api.logical_id, &api.stage))),
            region: identity.region.clone(),
            token: template.secret.clone(),
            functions: template
                .functions
                .iter()
                .map(|function| (function.logical_id.clone(), ReadyFunction { url: url(function) }))
                .collect(),
            apis: apis
                .map(|api| {
                    let url = format!("ws://{}", address(&api.logical_id, &api.stage));
                    (api.logical_id.clone(), ReadyApi { url })
                })
                .collect(),
            resources: template.resources.clone(),
        }
    }

    /// The JSON of the ready file.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and maps with string keys always serialise")
    }

    /// Writes a file beside the path, for its owner alone, and moves it there: a reader sees all of it or nothing.
    pub(super) fn write(&self, path: &Path) -> std::io::Result<()> {
        let folder =
            path.parent().filter(|folder| !folder.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), Path::to_owned);
        std::fs::create_dir_all(&folder)?;
        let name = path.file_name().ok_or(std::io::ErrorKind::IsADirectory)?.to_string_lossy();
        let temporary = folder.join(format!(".{name}.{}", uuid::Uuid::new_v4().simple()));
        let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).and_then(|mut file| {
            file.write_all(self.to_json().as_bytes())?;
            file.write_all(b"\n")?;
            std::fs::rename(&temporary, path)
        });
        if written.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        written
    }

    /// Removes the file, unless another stack has written its own there since.
    pub(super) fn remove(&self, path: &Path) {
        if std::fs::read_to_string(path).is_ok_and(|text| text.trim_end() == self.to_json()) {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl std::fmt::Debug for Ready {
    /// Without the token.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Ready")
            .field("websocket", &self.websocket)
            .field("stream", &self.stream)
            .field("publish", &self.publish)
            .field("mqtt", &self.mqtt)
            .field("mqtt_ws", &self.mqtt_ws)
            .field("aws", &self.aws)
            .field("management", &self.management)
            .field("region", &self.region)
            .field("functions", &self.functions)
            .field("apis", &self.apis)
            .field("resources", &self.resources)
            .finish_non_exhaustive()
    }
}

fn mqtt_prefix(template: &Template) -> Option<String> {
    template.functions.iter().find_map(|function| function.environment.get(MQTT_PREFIX_VARIABLE)).cloned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::{Value, json};

    use super::{Ready, ReadyApi, ReadyFunction};

    fn ready(token: &str) -> Ready {
        let url = Some("http://127.0.0.1:4110/".to_owned());
        Ready {
            websocket: Some("ws://127.0.0.1:4101/prod".to_owned()),
            stream: None,
            publish: url.clone(),
            mqtt: None,
            mqtt_ws: None,
            mqtt_prefix: None,
            aws: "http://127.0.0.1:4100".to_owned(),
            management: Some("http://127.0.0.1:4101/prod".to_owned()),
            region: "us-east-1".to_owned(),
            token: Some(token.to_owned()),
            functions: [("One", url), ("Two", None)]
                .into_iter()
                .map(|(id, url)| (id.to_owned(), ReadyFunction { url }))
                .collect(),
            apis: [("Api".to_owned(), ReadyApi { url: "ws://127.0.0.1:4101/prod".to_owned() })].into(),
            resources: [("Table".to_owned(), "carillon-Table".to_owned())].into(),
        }
    }

    #[test]
    fn the_json_is_the_contract() {
        let json: Value = serde_json::from_str(&ready("secret").to_json()).expect("it is JSON");
        assert_eq!(
            json,
            json!({
                "websocket": "ws://127.0.0.1:4101/prod",
                "stream": null,
                "publish": "http://127.0.0.1:4110/",
                "mqtt": null,
                "mqtt_ws": null,
                "mqtt_prefix": null,
                "aws": "http://127.0.0.1:4100",
                "management": "http://127.0.0.1:4101/prod",
                "region": "us-east-1",
                "token": "secret",
                "functions": {"One": {"url": "http://127.0.0.1:4110/"}, "Two": {}},
                "apis": {"Api": {"url": "ws://127.0.0.1:4101/prod"}},
                "resources": {"Table": "carillon-Table"},
            })
        );
    }

    #[test]
    fn the_file_is_for_its_owner_and_only_its_writer_removes_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("deep/ready.json");
        let (one, other) = (ready("one"), ready("other"));
        one.write(&path).expect("written");
        assert_eq!(std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
        other.write(&path).expect("written over");
        one.remove(&path);
        assert!(path.exists());
        other.remove(&path);
        assert_eq!(std::fs::read_dir(path.parent().expect("it has one")).expect("readable").count(), 0);
    }

    #[test]
    fn the_token_does_not_reach_a_log() {
        assert!(!format!("{:?}", ready("sesame")).contains("sesame"));
    }
}
