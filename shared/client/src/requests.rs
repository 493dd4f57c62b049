//! How this crate's HTTP clients are built.

use crate::tls;
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Url};
use std::time::Duration;

/// How long TCP and TLS may take.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a foreign answer's body that are told.
pub(crate) const BODY_BYTES: usize = 512;

/// The URL of `path` under `base`, where that is an HTTP URL.
pub(crate) fn url(base: &str, path: &[&str]) -> Option<Url> {
    let mut url = Url::parse(base).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    url.path_segments_mut().ok()?.pop_if_empty().extend(path);
    Some(url)
}

/// A client for `url`, to which nothing but a time limit is to be added.
pub(crate) fn builder(url: &Url) -> ClientBuilder {
    let builder = Client::builder()
        .tls_backend_preconfigured(tls::config().as_ref().clone())
        .connect_timeout(CONNECT_TIMEOUT)
        // No endpoint of ours sends anybody elsewhere, and a token goes nowhere else.
        .redirect(Policy::none());
    // A proxy of the environment is not on this machine's own loopback.
    if matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) { builder.no_proxy() } else { builder }
}

/// The beginning of a body, as far as it is told.
pub(crate) fn beginning(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(BODY_BYTES)]).trim().to_owned()
}
