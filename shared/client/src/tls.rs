//! One TLS configuration for every client: ring, and Mozilla's roots as webpki-roots carries them.

use rustls::{ClientConfig, RootCertStore};
use std::sync::{Arc, LazyLock};

static CONFIG: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    // The provider is named here, so that nobody has to install one for the whole process.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring's suites cover TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
});

/// The configuration.
pub(crate) fn config() -> Arc<ClientConfig> {
    Arc::clone(&CONFIG)
}
