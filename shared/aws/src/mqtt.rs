//! Messages towards MQTT subscribers: IoT Core's HTTP `Publish`.

use crate::config::{AWS_ENDPOINT_URL_IOT_DATA_PLANE, AwsConfig, CONNECT_TIMEOUT};
use crate::environment::{Mistake, Mistakes};
use crate::failure::failed;
use aws_sdk_iotdataplane::Client;
use aws_sdk_iotdataplane::config::Builder;
use aws_sdk_iotdataplane::error::SdkError;
use aws_sdk_iotdataplane::primitives::Blob;
use aws_sdk_iotdataplane::types::PayloadFormatIndicator;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use carillon_core::channel::Channel;
use carillon_core::mqtt::MqttPrefix;
use carillon_core::position::Position;
use carillon_engine::ports::{Answer, Mqtt};
use carillon_engine::rows::MqttOutcome;
use serde_json::json;
use std::error::Error;
use std::time::Duration;

/// How long the one try of a publish may take: a drain has other channels to serve (D7).
pub const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);

/// What the payload is (CloudEvents' JSON event format 1.0, section 3). MQTT 5 subscribers see it.
const CONTENT_TYPE: &str = "application/cloudevents+json";

/// At least once. IoT Core hands a message on at the lower of the publisher's and the subscriber's quality.
const QOS: i32 = 1;

const PUBLISH: &str = "publishing to IoT Core";

/// Messages towards MQTT subscribers, through IoT Core. Clones share the client.
///
/// The SDK's retries are off: whether a message is sent again is the drain's decision, which knows the order of messages (P2).
#[derive(Clone, Debug)]
pub struct IotMqtt {
    client: Client,
    prefix: MqttPrefix,
}

impl IotMqtt {
    /// The topics below `prefix` in the IoT Core that the environment names.
    ///
    /// # Errors
    /// When AWS_ENDPOINT_URL_IOT_DATA_PLANE is unset: the endpoint is the account's own, and the one that the SDK would guess is not it.
    pub fn new(config: &AwsConfig, prefix: MqttPrefix) -> Result<Self, Mistakes> {
        Self::with_timeout(config, prefix, PUBLISH_TIMEOUT)
    }

    /// The same with another time for a try.
    ///
    /// # Errors
    /// As [`IotMqtt::new`].
    pub fn with_timeout(config: &AwsConfig, prefix: MqttPrefix, timeout: Duration) -> Result<Self, Mistakes> {
        if config.iot_endpoint().is_none() {
            return Err(Mistake::missing(AWS_ENDPOINT_URL_IOT_DATA_PLANE).into());
        }
        let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_attempt_timeout(timeout).build();
        let own = Builder::from(config.sdk()).retry_config(RetryConfig::disabled()).timeout_config(timeouts).build();
        Ok(Self { client: Client::from_conf(own), prefix })
    }
}

impl Mqtt for IotMqtt {
    async fn publish(&self, channel: &Channel, position: Position, json: &str, retain: bool) -> Answer<MqttOutcome> {
        let request = self
            .client
            .publish()
            .topic(self.prefix.topic(channel))
            .qos(QOS)
            .retain(retain)
            .content_type(CONTENT_TYPE)
            .payload_format_indicator(PayloadFormatIndicator::Utf8Data)
            .user_properties(user_properties(position))
            .payload(Blob::new(json.as_bytes()));
        match request.send().await {
            Ok(_) => Ok(MqttOutcome::Taken),
            Err(error) => outcome(&error).map_or_else(|| Err(failed(PUBLISH, error)), Ok),
        }
    }
}

/// The array of objects with one member each that the API wants; both values are text, as MQTT 5 has them. The SDK puts it into
/// base64.
fn user_properties(position: Position) -> String {
    json!([{ "epoch": position.epoch.to_string() }, { "offset": position.offset.to_string() }]).to_string()
}

/// What became of a message whose publish failed; none where IoT Core refuses us altogether.
fn outcome<E>(error: &SdkError<E>) -> Option<MqttOutcome> {
    if let Some(response) = error.raw_response() {
        return match response.status().as_u16() {
            429 | 500.. => Some(MqttOutcome::Away),
            // It said yes, and broke off.
            200..300 => Some(MqttOutcome::Unknown),
            _ => None,
        };
    }
    match error {
        SdkError::TimeoutError(_) => Some(MqttOutcome::Unknown),
        SdkError::DispatchFailure(failure) => {
            let error = failure.as_connector_error()?;
            if error.is_user() {
                return None;
            }
            Some(if was_connected(error) { MqttOutcome::Unknown } else { MqttOutcome::Away })
        }
        _ => None,
    }
}

/// Whether the connection had been made, so that the request may have left. Where that cannot be told it may have.
fn was_connected(error: &ConnectorError) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
            return !error.is_connect();
        }
        cause = error.source();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::position::Epoch;

    #[test]
    fn the_position_goes_along_as_text() {
        let position = Position::new(Epoch(1_700_000_000_000), 41);
        assert_eq!(user_properties(position), r#"[{"epoch":"1700000000000"},{"offset":"41"}]"#);
    }
}
