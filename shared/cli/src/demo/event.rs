//! The demo's event, as an AWS application sends it.

use crate::exit::Exit;
use crate::failure::{Context, Failure, Outcome};
use aws_sdk_eventbridge::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use aws_sdk_eventbridge::{Client, Config};
use carillon_core::channel::Channel;
use carillon_local::stack::Ready;
use serde_json::json;
use std::error::Error;

/// Puts the event on the stack's bus.
pub(super) async fn put(ready: &Ready, bus: &str, channel: &Channel, id: &str) -> Outcome {
    let detail = json!({"channel": channel.as_str(), "id": id, "data": {"text": "hello from EventBridge"}});
    let entry = PutEventsRequestEntry::builder()
        .event_bus_name(bus)
        .source("carillon.demo")
        .detail_type("carillon.demo.hello")
        .detail(detail.to_string())
        .build();
    let failed = |error: Box<dyn Error + Send + Sync>| {
        Failure::new(Exit::Failed, Context::new("EventBridge did not take the event", error))
    };
    let answer = client(ready).put_events().entries(entry).send().await.map_err(|error| failed(error.into()))?;
    match answer.entries().iter().find(|entry| entry.error_code().is_some()) {
        Some(entry) => {
            let (code, message) = (entry.error_code().unwrap_or_default(), entry.error_message().unwrap_or_default());
            Err(failed(format!("{code}: {message}").into()))
        }
        None => Ok(()),
    }
}

/// A client for the local endpoint: with dummy credentials, never with those of the person at the keyboard.
pub(crate) fn client(ready: &Ready) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(ready.region.clone()))
        .credentials_provider(Credentials::new("local", "local", None, None, "local stack"))
        .endpoint_url(&ready.aws)
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    Client::from_conf(config)
}
