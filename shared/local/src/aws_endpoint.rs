//! One HTTP endpoint for every service: what `AWS_ENDPOINT_URL` points any SDK and the `aws` CLI to.
//!
//! The service of a request is told by `x-amz-target` where the protocol has it, by the path for Lambda, and else by the
//! credential scope of the signature. Signatures are not checked: the stack listens for its own user.

use std::net::SocketAddr;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::json;

use crate::aws_json;
use crate::calls::Calls;
use crate::eventbridge::{self, EventBridge};
use crate::faults::{FaultState, Faults};
use crate::iot::{self, Iot};
use crate::lambda::{self, Functions};
use crate::sqs::{self, Sqs};

/// The largest request of SQS and EventBridge here. Both allow about 1 MiB of content, which JSON may write six times as long.
const MAXIMUM_BODY_BYTES: usize = 8 * 1024 * 1024;

const SERVICES: &str = "dynamodb, events, iotdata, lambda and sqs";

/// What stands for no target in a count: a request that names none.
const NO_TARGET: &str = "";

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
    /// IoT Core's data plane, where the template uses IoT Core.
    pub iot: Option<Iot>,
    /// The switches of the stack.
    pub faults: Faults,
    /// Counts the calls.
    pub calls: Calls,
    /// The `@connections` endpoint of every WebSocket API, for the error that points to it.
    pub management: Vec<String>,
}

#[derive(Clone)]
struct Endpoint {
    services: Services,
    client: Client<HttpConnector, Body>,
}

/// The routes of the endpoint. What is the stack's own, and no service of AWS, is under `/_local/`.
pub fn router(services: Services) -> Router {
    let count = middleware::from_fn_with_state(services.calls.clone(), count_invocation);
    let lambda = lambda::api::router(services.functions.clone()).route_layer(count);
    let client = Client::builder(TokioExecutor::new()).build_http();
    Router::new()
        .route("/_local/calls", get(calls).delete(reset_calls))
        .route("/_local/faults", get(faults).post(set_faults))
        .fallback(dispatch)
        .with_state(Endpoint { services, client })
        .merge(lambda)
}

async fn calls(State(endpoint): State<Endpoint>) -> Response {
    aws_json::response(StatusCode::OK, "application/json", &json!({"calls": endpoint.services.calls.snapshot()}))
}

async fn reset_calls(State(endpoint): State<Endpoint>) -> StatusCode {
    endpoint.services.calls.reset();
    StatusCode::NO_CONTENT
}

async fn faults(State(endpoint): State<Endpoint>) -> Response {
    aws_json::response(StatusCode::OK, "application/json", &json!(endpoint.services.faults.state()))
}

/// Sets the switches that the body has, and answers the state of all.
async fn set_faults(State(endpoint): State<Endpoint>, request: Request) -> Response {
    let body = match read(request).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let refuse = |status, message: &str| aws_json::error(status, "application/json", "InvalidRequestException", message);
    let state: FaultState = match serde_json::from_slice(&body) {
        Ok(state) => state,
        Err(error) => {
            return refuse(StatusCode::BAD_REQUEST, &format!("The body must be {{\"iot\": \"away\"}} or \"back\": {error}."));
        }
    };
    match endpoint.services.faults.apply(state) {
        Ok(()) => faults(State(endpoint)).await,
        Err(error) => refuse(StatusCode::CONFLICT, &error.to_string()),
    }
}

/// Counts a call of Invoke or InvokeWithResponseStream: `/2015-03-31/functions/<name>/invocations`.
async fn count_invocation(State(calls): State<Calls>, request: Request, next: Next) -> Response {
    let mut segments = request.uri().path().split('/').skip_while(|segment| *segment != "functions").skip(1);
    let function = segments.next().map(|name| percent_decode_str(name).decode_utf8_lossy().into_owned()).unwrap_or_default();
    let operation = match segments.next() {
        Some("response-streaming-invocations") => "InvokeWithResponseStream",
        _ => "Invoke",
    };
    calls.record("lambda", operation, &function);
    next.run(request).await
}

async fn dispatch(State(endpoint): State<Endpoint>, request: Request) -> Response {
    let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok()).map(str::to_owned);
    match target.as_deref().and_then(|target| target.split_once('.')) {
        Some(("DynamoDB_20120810" | "DynamoDBStreams_20120810", _)) => endpoint.forward_to_dynamodb(request).await,
        Some(("AmazonSQS", action)) => match read(request).await {
            Ok(body) => {
                endpoint.services.calls.record("sqs", action, &queue_of(&body));
                sqs::api::respond(&endpoint.services.sqs, action, &body).await
            }
            Err(refusal) => refusal,
        },
        Some(("AWSEvents", action)) => match read(request).await {
            Ok(body) => {
                endpoint.services.calls.record("events", action, &bus_of(&body));
                eventbridge::api::respond(&endpoint.services.events, action, &body).await
            }
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
                &json!({"services": ["dynamodb", "events", "iotdata", "lambda", "sqs"]}),
            );
        }
        let service = signed_service(request.headers()).map(str::to_owned);
        let is_iot =
            matches!(service.as_deref(), Some("iotdata" | "iotdevicegateway")) || iot::data_plane::has_path(request.uri().path());
        if is_iot {
            return match &self.services.iot {
                Some(iot) => iot.respond(request).await,
                None => {
                    let message = "The template uses no IoT Core: it has no IoT rule, no authorizer, and no function with the variable \
                                   AWS_ENDPOINT_URL_IOT_DATA_PLANE.";
                    aws_json::error(StatusCode::NOT_FOUND, "application/json", "ResourceNotFoundException", message)
                }
            };
        }
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

/// The queue that a request is for.
fn queue_of(body: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Named {
        queue_url: Option<String>,
        queue_name: Option<String>,
    }
    let Ok(named) = serde_json::from_slice::<Named>(body) else { return NO_TARGET.to_owned() };
    let url = named.queue_url.map(|url| url.rsplit('/').next().unwrap_or_default().to_owned());
    url.or(named.queue_name).unwrap_or_else(|| NO_TARGET.to_owned())
}

/// The bus that a request is for: that of its first entry, `default` where it names none.
fn bus_of(body: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Named {
        #[serde(default)]
        entries: Vec<Entry>,
        event_bus_name: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Entry {
        event_bus_name: Option<String>,
    }
    let Ok(named) = serde_json::from_slice::<Named>(body) else { return NO_TARGET.to_owned() };
    let bus = named.entries.into_iter().next().and_then(|entry| entry.event_bus_name).or(named.event_bus_name);
    // An ARN ends with the name.
    bus.map_or_else(|| "default".to_owned(), |bus| bus.rsplit('/').next().unwrap_or_default().to_owned())
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

    use super::{bus_of, queue_of, signed_service};

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

    #[test]
    fn a_call_is_counted_for_what_it_is_for() {
        assert_eq!(queue_of(br#"{"QueueUrl":"http://host/123456789012/queue","MessageBody":"x"}"#), "queue");
        assert_eq!(queue_of(br#"{"QueueName":"queue"}"#), "queue");
        assert_eq!(queue_of(b"{}"), "");
        assert_eq!(bus_of(br#"{"Entries":[{"EventBusName":"arn:aws:events:r:a:event-bus/own"},{}]}"#), "own");
        assert_eq!(bus_of(br#"{"Entries":[{}]}"#), "default");
        assert_eq!(bus_of(b"["), "");
    }
}
