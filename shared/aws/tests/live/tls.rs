//! A line over TLS: whom it trusts.

use crate::broker::{Broker, Seen};
use crate::{channel, message, next, prefix, support};
use carillon_aws::live::IotLive;
use carillon_engine::ports::{Live, LiveEvent};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::PathBuf;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

#[tokio::test]
async fn an_authority_of_the_bundle_is_trusted() {
    let broker = Broker::start_with(Some(acceptor())).await;
    let bundle = file("certificate.pem");
    let config = support::config(&[
        ("AWS_ENDPOINT_URL_IOT_DATA_PLANE", broker.address()),
        ("AWS_CA_BUNDLE", bundle.to_str().expect("Unicode")),
    ]);
    let live = IotLive::new(&config, &prefix()).expect("the address is set");
    let mut feed = live.listen(&[channel("a")]);
    assert_eq!(next(&mut feed).await, LiveEvent::Joined);
    broker.publish_at("dev/c/a", 1);
    assert_eq!(next(&mut feed).await, message("a", 1));
}

#[tokio::test]
async fn anybody_else_is_not() {
    let broker = Broker::start_with(Some(acceptor())).await;
    let config = support::config(&[("AWS_ENDPOINT_URL_IOT_DATA_PLANE", broker.address())]);
    let live = IotLive::new(&config, &prefix()).expect("the address is set");
    let feed = live.listen(&[channel("a")]);
    let refused = |seen: &[Seen]| seen.iter().filter(|event| matches!(event, Seen::Refused)).count();
    broker.until(|seen| refused(seen) >= 2).await;
    assert_eq!(broker.count(|event| !matches!(event, Seen::Refused)), 0, "nothing was said to a stranger");
    drop(feed);
}

fn acceptor() -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_file(file("certificate.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(file("key.pem")).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has both")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("they belong together");
    TlsAcceptor::from(Arc::new(config))
}

/// The certificate of 127.0.0.1 that the tests of posts use.
fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/wire/tls").join(name)
}
