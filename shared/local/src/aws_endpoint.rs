//! One HTTP endpoint for every service: what `AWS_ENDPOINT_URL` points any SDK and the `aws` CLI to.
//!
//! The service of a request is told by `x-amz-target` where the protocol has it, by the path for Lambda, and else by the
//! credential scope of the signature. Signatures are not checked: the stack listens for its own user.

use std::net::SocketAddr;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::json;

use crate::aws_json;
use crate::eventbridge::{self, EventBridge};
use crate::lambda::{self, Functions};
use crate::sqs::{self, Sqs};

/// The largest request of SQS and EventBridge here. Both allow about 1 MiB of content, which JSON may write six times as long.
const MAXIMUM_BODY_BYTES: usize = 8 * 1024 * 1024;

const SERVICES: &str = "dynamodb, events, lambda and sqs";

/// The services behind the endpoint.
#[derive(Clone, Debug)]
pub struct Services {
    /// SQS.
    pub sqs: Sqs,
    /// EventBridge.
    pub events: EventBridge,
    /// The functions.
    pub functions: Functions,
    /// Where DynamoDB listens.
    pub dynamodb: SocketAddr,
    /// The `@connections` endpoint of every WebSocket API, for the error that points to it.
    pub management: Vec<String>,
}

#[derive(Clone)]
struct Endpoint {
    services: Services,
    client: Client<HttpConnector, Body>,
}

/// The routes of the endpoint.
pub fn router(services: Services) -> Router {
    let lambda = lambda::api::router(services.functions.clone());
    let client = Client::builder(TokioExecutor::new()).build_http();
    Router::new().fallback(dispatch).with_state(Endpoint { services, client }).merge(lambda)
}

async fn dispatch(State(endpoint): State<Endpoint>, request: Request) -> Response {
    let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok()).map(str::to_owned);
    match target.as_deref().and_then(|target| target.split_once('.')) {
        Some(("DynamoDB_20120810" | "DynamoDBStreams_20120810", _)) => endpoint.forward_to_dynamodb(request).await,
        Some(("AmazonSQS", action)) => match read(request).await {
            Ok(body) => sqs::api::respond(&endpoint.services.sqs, action, &body).await,
            Err(refusal) => refusal,
        },
        Some(("AWSEvents", action)) => match read(request).await {
            Ok(body) => eventbridge::api::respond(&endpoint.services.events, action, &body).await,
            Err(refusal) => refusal,
        },
        Some((service, _)) => {
            let message = format!("The local stack has no service {service}, it has {SERVICES}.");
            aws_json::error(StatusCode::BAD_REQUEST, aws_json::VERSION_1_1, "UnknownOperationException", &message)
        }
        None => endpoint.untargeted(request).await,
    }
}

impl Endpoint {
    async fn untargeted(&self, request: Request) -> Response {
        if request.method() == Method::GET && request.uri().path() == "/" && signed_service(request.headers()).is_none() {
            return aws_json::response(
                StatusCode::OK,
                aws_json::VERSION_1_0,
                &json!({"services": ["dynamodb", "events", "lambda", "sqs"]}),
            );
        }
        let service = signed_service(request.headers()).map(str::to_owned);
        let is_form = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/x-www-form-urlencoded"));
        match service.as_deref() {
            Some("sqs") => query_protocol_of_sqs(),
            // An unsigned query, as curl sends it.
            None if is_form && self.services.sqs.by_url(request.uri().path()).is_ok() => query_protocol_of_sqs(),
            Some("dynamodb") => missing_target("DynamoDB_20120810"),
            Some("events") => missing_target("AWSEvents"),
            Some("lambda") => {
                let message = format!(
                    "The local stack's Lambda has Invoke and InvokeWithResponseStream, and no {} {}. Functions are those of the template.",
                    request.method(),
                    request.uri().path(),
                );
                aws_json::error(StatusCode::NOT_FOUND, "application/json", "UnknownOperationException", &message)
            }
            Some("execute-api") => {
                let message = format!(
                    "@connections is not at this endpoint but at {}: set AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI to it.",
                    if self.services.management.is_empty() {
                        "no URL, since the template has no WebSocket API".to_owned()
                    } else {
                        self.services.management.join(" or ")
                    },
                );
                aws_json::error(StatusCode::NOT_FOUND, "application/json", "NotFoundException", &message)
            }
            service => {
                let message = match service {
                    Some(service) => format!("The local stack has no service {service}, it has {SERVICES}."),
                    None => format!(
                        "This is the AWS endpoint of a local stack, for SDKs and the aws CLI; it has {SERVICES}. The request names none: it has neither x-amz-target nor a signature."
                    ),
                };
                if is_form || service == Some("s3") {
                    xml_error(&message)
                } else {
                    aws_json::error(StatusCode::BAD_REQUEST, aws_json::VERSION_1_1, "UnknownOperationException", &message)
                }
            }
        }
    }

    /// DynamoDB has a listener of its own, to which functions talk directly; others come through here.
    async fn forward_to_dynamodb(&self, request: Request) -> Response {
        let (mut parts, body) = request.into_parts();
        let uri = Uri::builder().scheme("http").authority(self.services.dynamodb.to_string()).path_and_query("/").build();
        parts.uri = uri.expect("an address is an authority");
        // The client sets the one of its own connection.
        parts.headers.remove(header::HOST);
        parts.headers.remove(header::CONNECTION);
        match self.client.request(Request::from_parts(parts, body)).await {
            Ok(response) => response.map(Body::new).into_response(),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "DynamoDB could not be reached");
                let message = "The local stack's DynamoDB could not be reached.";
                aws_json::error(StatusCode::INTERNAL_SERVER_ERROR, aws_json::VERSION_1_0, "InternalServerError", message)
            }
        }
    }
}

/// The service in the credential scope: `Credential=KEY/20260101/us-east-1/sqs/aws4_request`.
fn signed_service(headers: &HeaderMap) -> Option<&str> {
    let authorization = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let credential = authorization.split_once("Credential=")?.1.split([',', ' ']).next()?;
    credential.split('/').nth(3)
}

async fn read(request: Request) -> Result<Bytes, Response> {
    axum::body::to_bytes(request.into_body(), MAXIMUM_BODY_BYTES).await.map_err(|_| {
        let message = format!("The request could not be read, or its body is over {MAXIMUM_BODY_BYTES} bytes.");
        aws_json::error(StatusCode::PAYLOAD_TOO_LARGE, aws_json::VERSION_1_0, "RequestEntityTooLargeException", &message)
    })
}

fn missing_target(prefix: &str) -> Response {
    let message = format!("The request has no header x-amz-target, which names the action: {prefix}.<action>.");
    aws_json::error(StatusCode::BAD_REQUEST, aws_json::VERSION_1_0, "MissingActionException", &message)
}

/// SDKs from before November 2023 speak a form-encoded protocol to SQS, and expect XML.
fn query_protocol_of_sqs() -> Response {
    xml_error(
        "The local stack speaks the AWS JSON protocol to SQS, and this request is of the older query protocol. SDKs speak JSON since \
         November 2023 (boto3 1.28.82, botocore 1.31.82; the page \"Amazon SQS AWS JSON protocol FAQs\" of the Amazon SQS Developer \
         Guide has the others): use one of those or a newer one.",
    )
}

fn xml_error(message: &str) -> Response {
    let message = message.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let request_id = uuid::Uuid::new_v4();
    let body = format!(
        "<ErrorResponse><Error><Type>Sender</Type><Code>InvalidAction</Code><Message>{message}</Message></Error>\
         <RequestId>{request_id}</RequestId></ErrorResponse>"
    );
    let mut response = (StatusCode::BAD_REQUEST, body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/xml"));
    response
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue, header};

    use super::signed_service;

    #[test]
    fn the_credential_scope_names_the_service() {
        let check = |authorization: &'static str, expected: Option<&str>| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(authorization))]);
            assert_eq!(signed_service(&headers), expected, "{authorization}");
        };
        let signed = "AWS4-HMAC-SHA256 Credential=AKID/20260101/us-east-1/sns/aws4_request, SignedHeaders=host, Signature=0";
        check(signed, Some("sns"));
        check("Bearer x", None);
        check("AWS4-HMAC-SHA256 Credential=AKID", None);
    }
}
