//! Posts on the wire: what is sent to @connections, and what each answer means.

use crate::server::{Reply, Server};
use carillon_aws::posts::ApiGatewayPosts;
use carillon_core::connection::ConnectionId;
use carillon_engine::ports::{Answer, Posts};
use carillon_engine::rows::PostOutcome;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

/// How long a test waits for an answer that never comes.
const SHORT: Duration = Duration::from_millis(200);

/// How long a test waits for one that does, however busy the machine is.
const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_frame_goes_as_it_is_to_the_connection_below_the_stage() {
    let server = Server::start([Reply::status(200)]).await;
    assert_eq!(post(&server).await.expect("an answer"), PostOutcome::Taken);
    let asked = server.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].method.as_str(), asked[0].path.as_str()), ("POST", "/prod/@connections/L0SM9cOFvHcCIhw%3D"));
    assert_eq!(asked[0].body, r#"{"type":"events"}"#);
    let authorization = asked[0].headers["authorization"].to_str().expect("text");
    assert!(authorization.contains("/us-east-1/execute-api/aws4_request"), "{authorization}");
}

#[tokio::test]
async fn g1_410_is_gone_with_the_type_and_without_it() {
    // A real 410 has an empty body and the type in a header.
    for reply in [Reply::status(410), Reply::status(410).with_header("x-amzn-errortype", "GoneException")] {
        let server = Server::start([reply]).await;
        assert_eq!(post(&server).await.expect("an answer"), PostOutcome::Gone);
        assert_eq!(server.asked().len(), 1);
    }
}

#[tokio::test]
async fn d7_429_and_5xx_are_throttled_after_one_try() {
    let limit = Reply::status(429).with_header("x-amzn-errortype", "LimitExceededException");
    for reply in [Reply::status(429), limit, Reply::status(500), Reply::status(502), Reply::status(503)] {
        let server = Server::start([reply]).await;
        assert_eq!(post(&server).await.expect("an answer"), PostOutcome::Throttled);
        assert_eq!(server.asked().len(), 1, "it is tried once");
    }
}

#[tokio::test]
async fn d7_no_answer_in_time_is_throttled_after_one_try() {
    let server = Server::start([Reply::Silence]).await;
    let began = Instant::now();
    let posts = posts_within(server.address(), SHORT);
    assert_eq!(posts.post(&connection(), &frame()).await.expect("an outcome"), PostOutcome::Throttled);
    assert!(began.elapsed() >= SHORT);
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_throttled() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("http://{}/prod", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.expect("a connection");
            socket.readable().await.expect("a request");
            // Closed with the request unread: the client sees a reset, or an end before the answer.
            drop(socket);
        }
    });
    assert_eq!(post_to(&address).await.expect("an outcome"), PostOutcome::Throttled);
}

#[tokio::test]
async fn a_refusal_of_us_is_no_connection_s_fault() {
    let forbidden = Reply::json(403, r#"{"message":"User is not authorized"}"#)
        .with_header("x-amzn-errortype", "ForbiddenException")
        .with_header("x-amzn-requestid", "request-1");
    let server = Server::start([forbidden]).await;
    let error = post(&server).await.expect_err("refused");
    assert_eq!(error.to_string(), "posting to a connection failed");
    let reason = error.source().expect("a reason").to_string();
    let expected = "the service answered 403 ForbiddenException: User is not authorized (request request-1)";
    assert_eq!(reason, expected);

    for status in [400, 404, 413] {
        let server = Server::start([Reply::status(status)]).await;
        assert!(post(&server).await.is_err(), "{status}");
    }
}

#[tokio::test]
async fn an_address_where_nobody_listens_is_no_connection_s_fault() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let error = post_to(&address).await.expect_err("nobody listens");
    assert_eq!(error.source().expect("a reason").to_string(), "the service could not be reached");
}

#[tokio::test]
async fn tls_trusts_the_authorities_of_the_bundle_and_no_others() {
    let address = tls_server().await;
    let bundle = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/tls/certificate.pem");
    let post = async |more: &[(&str, &str)]| {
        let variables = [&[("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI", address.as_str())], more].concat();
        let posts = ApiGatewayPosts::with_timeout(&crate::support::config(&variables), LONG).expect("whole");
        posts.post(&connection(), &frame()).await
    };
    assert_eq!(post(&[("AWS_CA_BUNDLE", bundle)]).await.expect("an answer"), PostOutcome::Taken);
    let error = post(&[]).await.expect_err("nobody vouches for it");
    assert_eq!(error.source().expect("a reason").to_string(), "the service could not be reached");
}

#[tokio::test]
async fn closing_a_connection_that_is_gone_is_no_error() {
    for status in [204, 200, 410] {
        let server = Server::start([Reply::status(status)]).await;
        posts(&format!("{}/prod", server.address())).close(&connection()).await.expect("closed");
        let asked = server.asked();
        let request = (asked[0].method.as_str(), asked[0].path.as_str());
        assert_eq!(request, ("DELETE", "/prod/@connections/L0SM9cOFvHcCIhw%3D"));
    }
    let server = Server::start([Reply::status(403)]).await;
    assert!(posts(server.address()).close(&connection()).await.is_err());
}

#[tokio::test]
async fn no_post_goes_to_an_address_that_was_guessed() {
    let config = crate::support::config(&[("AWS_ENDPOINT_URL", "http://127.0.0.1:1")]);
    let mistakes = ApiGatewayPosts::new(&config).expect_err("the API's own address is missing");
    assert_eq!(mistakes.to_string(), "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI: is not set");
}

/// Answers every request with 200, over TLS with a certificate of its own for 127.0.0.1. It and its key were made for this test,
/// for a hundred years: `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500 -subj "/CN=Carillon's test"
/// -addext "subjectAltName=IP:127.0.0.1" -addext "basicConstraints=critical,CA:FALSE" -out certificate.pem -keyout key.pem`.
async fn tls_server() -> String {
    let certificate = CertificateDer::from_pem_slice(include_bytes!("tls/certificate.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/key.pem")).expect("a key");
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has what both versions need")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("they belong together");
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("https://{}/prod", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.expect("a connection");
            // A client that does not trust us breaks the handshake off.
            let Ok(mut stream) = acceptor.accept(socket).await else { continue };
            let mut request = Vec::new();
            while !request.ends_with(frame().as_bytes()) {
                assert!(stream.read_buf(&mut request).await.expect("a whole request") > 0, "it broke off");
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.expect("the client waits");
        }
    });
    address
}

fn connection() -> ConnectionId {
    ConnectionId::try_new("L0SM9cOFvHcCIhw=").expect("an id")
}

fn frame() -> Arc<str> {
    Arc::from(r#"{"type":"events"}"#)
}

fn posts(address: &str) -> ApiGatewayPosts {
    posts_within(address, LONG)
}

fn posts_within(address: &str, timeout: Duration) -> ApiGatewayPosts {
    let config = crate::support::config(&[("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI", address)]);
    ApiGatewayPosts::with_timeout(&config, timeout).expect("the address is set")
}

async fn post(server: &Server) -> Answer<PostOutcome> {
    post_to(&format!("{}/prod", server.address())).await
}

async fn post_to(address: &str) -> Answer<PostOutcome> {
    posts(address).post(&connection(), &frame()).await
}
