//! Frames towards clients: API Gateway's @connections.

use crate::config::{AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI, AwsConfig, CONNECT_TIMEOUT};
use crate::environment::{Mistake, Mistakes};
use crate::failure::{failed, is_timeout};
use aws_sdk_apigatewaymanagement::Client;
use aws_sdk_apigatewaymanagement::config::Builder;
use aws_sdk_apigatewaymanagement::error::SdkError;
use aws_sdk_apigatewaymanagement::primitives::Blob;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use carillon_core::connection::ConnectionId;
use carillon_engine::ports::{Answer, Posts};
use carillon_engine::rows::PostOutcome;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

/// How long the one try of a post may take: a drain has other connections to serve (D7).
pub const POST_TIMEOUT: Duration = Duration::from_secs(2);

const POST: &str = "posting to a connection";
const CLOSE: &str = "closing a connection";

/// Frames towards clients, through API Gateway's @connections. Clones share the client.
///
/// The SDK's retries are off: it would send a 429 or 5xx again for up to two seconds, and one slow client would hold up a shard.
#[derive(Clone, Debug)]
pub struct ApiGatewayPosts {
    client: Client,
}

impl ApiGatewayPosts {
    /// The connections of the WebSocket API that the environment names.
    ///
    /// # Errors
    /// When AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI is unset: without it the SDK would post to an address that is nobody's, and an
    /// event's domain name and stage would be wrong behind a custom domain.
    pub fn new(config: &AwsConfig) -> Result<Self, Mistakes> {
        Self::with_timeout(config, POST_TIMEOUT)
    }

    /// The same with another time for a try.
    ///
    /// # Errors
    /// As [`ApiGatewayPosts::new`].
    pub fn with_timeout(config: &AwsConfig, timeout: Duration) -> Result<Self, Mistakes> {
        if config.management_endpoint().is_none() {
            return Err(Mistake::missing(AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI).into());
        }
        let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_attempt_timeout(timeout).build();
        let own = Builder::from(config.sdk()).retry_config(RetryConfig::disabled()).timeout_config(timeouts).build();
        Ok(Self { client: Client::from_conf(own) })
    }
}

impl Posts for ApiGatewayPosts {
    async fn post(&self, connection: &ConnectionId, frame: &Arc<str>) -> Answer<PostOutcome> {
        let request = self.client.post_to_connection().connection_id(connection.as_str()).data(Blob::new(frame.as_bytes()));
        match request.send().await {
            Ok(_) => Ok(PostOutcome::Taken),
            Err(error) if is_gone(&error) => Ok(PostOutcome::Gone),
            Err(error) if is_transient(&error) => Ok(PostOutcome::Throttled),
            Err(error) => Err(failed(POST, error)),
        }
    }

    async fn close(&self, connection: &ConnectionId) -> Answer<()> {
        match self.client.delete_connection().connection_id(connection.as_str()).send().await {
            Ok(_) => Ok(()),
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(failed(CLOSE, error)),
        }
    }
}

/// By the status and not by the SDK's type, which needs a header beside it that an answer may lack.
fn is_gone<E>(error: &SdkError<E>) -> bool {
    status(error) == Some(410)
}

/// 429, 5xx, no answer in time, or a connection that broke before the answer was there.
fn is_transient<E>(error: &SdkError<E>) -> bool {
    match status(error) {
        Some(status) => status == 429 || status >= 500,
        None => is_timeout(error) || broke(error),
    }
}

fn status<E>(error: &SdkError<E>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

/// Whether a connection broke that had been made. One that could not be made is something else: nobody is at the address.
fn broke<E>(error: &SdkError<E>) -> bool {
    let SdkError::DispatchFailure(failure) = error else { return false };
    let mut cause: Option<&(dyn Error + 'static)> = failure.as_connector_error().map(|error| error as _);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
            return !error.is_connect();
        }
        cause = error.source();
    }
    false
}
