//! Frames towards clients: API Gateway's @connections.
//!
//! A drain does little else than post, so the POST is made by hand and not by the SDK: one pooled HTTP/1.1 client, a signing key
//! that is derived once a day, everything about the requests that never changes made once, and a frame hashed once for all the
//! connections that get it. What goes over the wire is what the SDK sends, without its user agents; closing a connection,
//! which is rare, is left to the SDK.

mod http_client;
mod signer;

#[cfg(test)]
mod tests;

use crate::config::{AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI, AwsConfig, CONNECT_TIMEOUT};
use crate::environment::{Mistake, Mistakes};
use crate::failure::{CallError, failed};
use aws_sdk_apigatewaymanagement::Client;
use aws_sdk_apigatewaymanagement::config::Builder;
use aws_sdk_apigatewaymanagement::error::SdkError;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use carillon_core::connection::ConnectionId;
use carillon_engine::ports::{Answer, PortError, Posts};
use carillon_engine::rows::PostOutcome;
use http::StatusCode;
use http_client::{Failed, HttpClient, Received};
use signer::{Endpoint, Signer};
use std::sync::Arc;
use std::time::Duration;

/// How long the one try of a post may take: a drain has other connections to serve (D7).
pub const POST_TIMEOUT: Duration = Duration::from_secs(2);

const POST: &str = "posting to a connection";
const CLOSE: &str = "closing a connection";

/// Frames towards clients, through API Gateway's @connections. Clones share their HTTP connections.
///
/// A post is tried once: to send a 429 or 5xx again for up to two seconds, as the SDK would, holds up a shard for one slow client.
#[derive(Clone, Debug)]
pub struct ApiGatewayPosts {
    posting: Arc<Posting>,
    closing: Client,
}

#[derive(Debug)]
struct Posting {
    signer: Signer,
    http: HttpClient,
    timeout: Duration,
}

impl ApiGatewayPosts {
    /// The connections of the WebSocket API that the environment names.
    ///
    /// # Errors
    /// When AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI is unset: without it a post would go to an address that is nobody's, and an
    /// event's domain name and stage would be wrong behind a custom domain. When it has a query or a path that no signature
    /// could be right for, and when the region or a credential cannot stand in a header.
    pub fn new(config: &AwsConfig) -> Result<Self, Mistakes> {
        Self::with_timeout(config, POST_TIMEOUT)
    }

    /// The same with another time for a try.
    ///
    /// # Errors
    /// As [`ApiGatewayPosts::new`].
    pub fn with_timeout(config: &AwsConfig, timeout: Duration) -> Result<Self, Mistakes> {
        let Some(url) = config.management_endpoint() else {
            return Err(Mistake::missing(AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI).into());
        };
        let endpoint = Endpoint::parse(url)
            .map_err(|fault| Mistake::new(AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI, format_args!("'{url}' {fault}")))?;
        let posting = Posting { signer: Signer::new(config, endpoint)?, http: HttpClient::new(config.tls_client()), timeout };
        let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_attempt_timeout(timeout).build();
        let own = Builder::from(config.sdk()).retry_config(RetryConfig::disabled()).timeout_config(timeouts).build();
        Ok(Self { posting: Arc::new(posting), closing: Client::from_conf(own) })
    }
}

impl Posts for ApiGatewayPosts {
    async fn post(&self, connection: &ConnectionId, frame: &Arc<str>) -> Answer<PostOutcome> {
        let Posting { signer, http, timeout } = &*self.posting;
        let Some(request) = signer.post(connection, frame) else { return Ok(PostOutcome::Gone) };
        match tokio::time::timeout(*timeout, http.send(request)).await {
            Ok(Ok(received)) => outcome(received),
            Ok(Err(Failed::Unreachable(error))) => Err(PortError::new(POST, CallError::Unreachable(error))),
            Ok(Err(Failed::Broken)) | Err(_) => Ok(PostOutcome::Throttled),
        }
    }

    async fn close(&self, connection: &ConnectionId) -> Answer<()> {
        // Boxed, because the SDK's future is six times as large as that of a post, and a drain holds room for both.
        match Box::pin(self.closing.delete_connection().connection_id(connection.as_str()).send()).await {
            Ok(_) => Ok(()),
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(failed(CLOSE, error)),
        }
    }
}

/// What an answer means, by its status and not by the error's type, which is in a header that an answer may lack.
fn outcome(received: Received) -> Answer<PostOutcome> {
    match received.status {
        status if status.is_success() => Ok(PostOutcome::Taken),
        StatusCode::GONE => Ok(PostOutcome::Gone),
        StatusCode::TOO_MANY_REQUESTS => Ok(PostOutcome::Throttled),
        status if status.is_server_error() => Ok(PostOutcome::Throttled),
        _ => Err(PortError::new(POST, received.refusal())),
    }
}

fn is_gone<E>(error: &SdkError<E>) -> bool {
    error.raw_response().is_some_and(|response| response.status().as_u16() == StatusCode::GONE.as_u16())
}
