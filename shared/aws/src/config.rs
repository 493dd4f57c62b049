//! How the SDK's clients are set up: by hand, because the loader of `aws-config` costs a cold start several milliseconds and a
//! binary several megabytes, and a Lambda function has its region and credentials in its environment anyway.

use crate::environment::{Environment, Mistake, Mistakes, Unset, Variable};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_dynamodb::config::{BehaviorVersion, IdentityCache, StalledStreamProtectionConfig};
use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};
use aws_smithy_async::time::{SharedTimeSource, SystemTimeSource};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SdkConfig;
use aws_types::region::Region;
use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The region. AWS_DEFAULT_REGION is read where it is unset.
pub const AWS_REGION: &str = "AWS_REGION";

/// The region as the `aws` command has it.
pub const AWS_DEFAULT_REGION: &str = "AWS_DEFAULT_REGION";

/// The access key's id.
pub const AWS_ACCESS_KEY_ID: &str = "AWS_ACCESS_KEY_ID";

/// The access key's secret.
pub const AWS_SECRET_ACCESS_KEY: &str = "AWS_SECRET_ACCESS_KEY";

/// The token of temporary credentials.
pub const AWS_SESSION_TOKEN: &str = "AWS_SESSION_TOKEN";

/// The endpoint of every service that has none of its own.
pub const AWS_ENDPOINT_URL: &str = "AWS_ENDPOINT_URL";

/// The endpoint of DynamoDB.
pub const AWS_ENDPOINT_URL_DYNAMODB: &str = "AWS_ENDPOINT_URL_DYNAMODB";

/// The endpoint of SQS.
pub const AWS_ENDPOINT_URL_SQS: &str = "AWS_ENDPOINT_URL_SQS";

/// The WebSocket API's @connections, with its stage.
pub const AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI: &str = "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI";

/// IoT Core's data plane: the account's own endpoint (`aws iot describe-endpoint --endpoint-type iot:Data-ATS`).
pub const AWS_ENDPOINT_URL_IOT_DATA_PLANE: &str = "AWS_ENDPOINT_URL_IOT_DATA_PLANE";

/// A file of certificate authorities (PEM) that are trusted beside Amazon's.
pub const AWS_CA_BUNDLE: &str = "AWS_CA_BUNDLE";

/// The variables that [`AwsConfig`] reads.
pub const VARIABLES: [Variable; 10] = [
    Variable { name: AWS_REGION, meaning: "the region; AWS_DEFAULT_REGION serves where it is unset", unset: Unset::Refused },
    Variable { name: AWS_ACCESS_KEY_ID, meaning: "the access key's id", unset: Unset::Refused },
    Variable { name: AWS_SECRET_ACCESS_KEY, meaning: "the access key's secret", unset: Unset::Refused },
    Variable { name: AWS_SESSION_TOKEN, meaning: "the token of temporary credentials", unset: Unset::Nothing },
    Variable {
        name: AWS_ENDPOINT_URL,
        meaning: "the endpoint of every service that has none of its own below, in place of AWS's",
        unset: Unset::Nothing,
    },
    Variable { name: AWS_ENDPOINT_URL_DYNAMODB, meaning: "the endpoint of DynamoDB", unset: Unset::Default("AWS_ENDPOINT_URL") },
    Variable { name: AWS_ENDPOINT_URL_SQS, meaning: "the endpoint of SQS", unset: Unset::Default("AWS_ENDPOINT_URL") },
    Variable {
        name: AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI,
        meaning: "the WebSocket API's @connections with its stage; `deliver` needs it",
        unset: Unset::Nothing,
    },
    Variable {
        name: AWS_ENDPOINT_URL_IOT_DATA_PLANE,
        meaning: "IoT Core's data plane, for MQTT; `deliver` and `stream` need it",
        unset: Unset::Nothing,
    },
    Variable {
        name: AWS_CA_BUNDLE,
        meaning: "a PEM file of certificate authorities that are trusted beside Amazon's, which are built in",
        unset: Unset::Nothing,
    },
];

/// How long a connection may take to be made, for every service: clients that differ here do not share their connections.
///
/// Within a region a handshake takes a few milliseconds; a second covers one lost packet.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long one try of a call to DynamoDB or SQS may take, the answer's body included.
///
/// They answer in 5 to 50 ms; what takes longer than this is lost, and the next try goes to another host.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long such a call may take with its retries: within the 15 s of a function.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(10);

/// Tries of such a call, the first included: the SDKs' standard.
const ATTEMPTS: u32 = 3;

/// The first wait between two tries is a random part of this, and doubles.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);

/// The longest wait between two tries.
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);

/// The authorities behind every AWS endpoint (<https://www.amazontrust.com/repository/>): Amazon Root CA 1 to 4 and Starfield
/// Services G2. They are embedded because reading the machine's own store costs a cold start milliseconds.
const AMAZON_ROOTS: &[u8] = include_bytes!("../roots/amazon.pem");

/// Services whose endpoints can be set, by the ids that the SDK's models give them, with the variable that does so.
const ENDPOINTS: [(&str, &str); 4] = [
    ("DynamoDB", AWS_ENDPOINT_URL_DYNAMODB),
    ("SQS", AWS_ENDPOINT_URL_SQS),
    ("ApiGatewayManagementApi", AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI),
    ("IoT Data Plane", AWS_ENDPOINT_URL_IOT_DATA_PLANE),
];

/// What all clients of AWS services share: region, credentials, endpoints, timeouts and one HTTP client.
///
/// The credentials are those of the environment and are never renewed: Lambda ends an environment before its credentials expire.
#[derive(Clone, Debug)]
pub struct AwsConfig {
    sdk: SdkConfig,
    endpoints: Endpoints,
    region: String,
    credentials: Credentials,
    roots: Arc<RootCertStore>,
    authorities: Arc<[CertificateDer<'static>]>,
}

/// The authorities that are trusted, in the three forms that clients want them in.
struct Trust {
    sdk: TrustStore,
    roots: RootCertStore,
    certificates: Vec<CertificateDer<'static>>,
}

/// The endpoints that the environment names, by service id.
#[derive(Clone, Debug)]
struct Endpoints(BTreeMap<&'static str, String>);

impl AwsConfig {
    /// Reads the environment's `AWS_…` variables.
    ///
    /// # Errors
    /// Every mistake: a missing region or key, an endpoint that is no HTTP URL, a bundle that cannot be read.
    pub fn from_environment(environment: &Environment) -> Result<Self, Mistakes> {
        let mut mistakes = Vec::new();
        let region = environment.get(AWS_REGION).or_else(|| environment.get(AWS_DEFAULT_REGION)).map(str::to_owned);
        if region.is_none() {
            mistakes.push(Mistake::missing(AWS_REGION));
        }
        let [key_id, key] = [AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY].map(|variable| {
            let value = environment.get(variable);
            if value.is_none() {
                mistakes.push(Mistake::missing(variable));
            }
            value.unwrap_or_default()
        });
        let token = environment.get(AWS_SESSION_TOKEN).map(str::to_owned);
        // The SDK panics where a request meets an endpoint that is no URL.
        let mut endpoint = |variable| match environment.get(variable).map(|url| check_url(variable, url)) {
            None => None,
            Some(Ok(url)) => Some(url),
            Some(Err(mistake)) => {
                mistakes.push(mistake);
                None
            }
        };
        let general = endpoint(AWS_ENDPOINT_URL);
        let endpoints =
            Endpoints(ENDPOINTS.iter().filter_map(|(service, variable)| Some((*service, endpoint(variable)?))).collect());
        let trust = trust(environment.get(AWS_CA_BUNDLE).map(Path::new)).unwrap_or_else(|mistake| {
            mistakes.push(mistake);
            Trust { sdk: TrustStore::empty(), roots: RootCertStore::empty(), certificates: Vec::new() }
        });
        if !mistakes.is_empty() {
            return Err(Mistakes(mistakes));
        }
        let region = region.unwrap_or_default();
        let credentials = Credentials::new(key_id, key, token, None, "environment");
        let mut sdk = SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(region.clone()))
            .credentials_provider(SharedCredentialsProvider::new(credentials.clone()))
            // There is nothing to cache in credentials that never change.
            .identity_cache(IdentityCache::no_cache())
            .retry_config(retries())
            .timeout_config(timeouts())
            // The attempt's timeout covers the body too.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
            .time_source(SharedTimeSource::new(SystemTimeSource::new()))
            .http_client(http_client(trust.sdk))
            .service_config(endpoints.clone());
        sdk.set_endpoint_url(general);
        let (roots, authorities) = (Arc::new(trust.roots), trust.certificates.into());
        Ok(Self { sdk: sdk.build(), endpoints, region, credentials, roots, authorities })
    }

    pub(crate) const fn sdk(&self) -> &SdkConfig {
        &self.sdk
    }

    /// For requests that are signed here and not by the SDK.
    pub(crate) const fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    pub(crate) fn region(&self) -> &str {
        &self.region
    }

    /// The clock that signatures are dated by.
    pub(crate) fn clock(&self) -> SharedTimeSource {
        self.sdk.time_source().expect("it is set above")
    }

    /// TLS for connections that the SDK does not make: the same authorities, the same cryptography, no ALPN yet.
    pub(crate) fn tls_client(&self) -> rustls::ClientConfig {
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has what both versions need")
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth()
    }

    /// The same authorities as certificates, for clients that bring their own TLS.
    pub(crate) fn authorities(&self) -> Arc<[CertificateDer<'static>]> {
        Arc::clone(&self.authorities)
    }

    #[cfg(test)]
    pub(crate) fn with_clock(mut self, clock: SharedTimeSource) -> Self {
        self.sdk = self.sdk.into_builder().time_source(clock).build();
        self
    }

    /// The address of the WebSocket API's @connections, where the environment names it.
    pub(crate) fn management_endpoint(&self) -> Option<&str> {
        self.endpoints.0.get("ApiGatewayManagementApi").map(String::as_str)
    }

    /// The address of IoT Core's data plane, where the environment names it.
    pub(crate) fn iot_endpoint(&self) -> Option<&str> {
        self.endpoints.0.get("IoT Data Plane").map(String::as_str)
    }
}

impl LoadServiceConfig for Endpoints {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        if key.env() == AWS_ENDPOINT_URL { self.0.get(key.service_id()).cloned() } else { None }
    }
}

/// Takes the URL that `variable` holds.
///
/// # Errors
/// When it is no http or https URL with a host.
pub fn check_url(variable: &'static str, url: &str) -> Result<String, Mistake> {
    let fits = url
        .parse::<http::Uri>()
        .is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty()));
    if fits { Ok(url.to_owned()) } else { Err(Mistake::new(variable, format_args!("'{url}' is no http or https URL"))) }
}

/// Amazon's authorities and those of the bundle.
fn trust(bundle: Option<&Path>) -> Result<Trust, Mistake> {
    let mut certificates = Vec::new();
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(AMAZON_ROOTS) {
        let root = root.expect("a test reads them all");
        roots.add(root.clone()).expect("a test reads them all");
        certificates.push(root);
    }
    let sdk = TrustStore::empty().with_pem_certificate(AMAZON_ROOTS);
    let Some(path) = bundle else {
        return Ok(Trust { sdk, roots, certificates });
    };
    let mistake = |fault: String| Mistake::new(AWS_CA_BUNDLE, format_args!("'{}' {fault}", path.display()));
    let pem = std::fs::read(path).map_err(|error| mistake(format!("cannot be read: {error}")))?;
    // The SDK's HTTP client takes the file as it is and panics at the first call where it is malformed.
    let embedded = certificates.len();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| mistake(format!("is no PEM file: {error}")))?;
        roots.add(certificate.clone()).map_err(|error| mistake(format!("holds a malformed certificate: {error}")))?;
        certificates.push(certificate);
    }
    if certificates.len() == embedded {
        return Err(mistake("holds no certificate".to_owned()));
    }
    Ok(Trust { sdk: sdk.with_pem_certificate(pem), roots, certificates })
}

fn http_client(trust: TrustStore) -> aws_smithy_runtime_api::client::http::SharedHttpClient {
    let context = TlsContext::builder().with_trust_store(trust).build().expect("a trust store is all that it takes");
    aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(context).build_https()
}

fn retries() -> RetryConfig {
    RetryConfig::standard().with_max_attempts(ATTEMPTS).with_initial_backoff(FIRST_BACKOFF).with_max_backoff(LONGEST_BACKOFF)
}

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .operation_timeout(OPERATION_TIMEOUT)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const GOOD: [(&str, &str); 3] =
        [(AWS_REGION, "eu-central-1"), (AWS_ACCESS_KEY_ID, "AKIDEXAMPLE"), (AWS_SECRET_ACCESS_KEY, "secret")];

    fn with(more: &[(&str, &str)]) -> Result<AwsConfig, Mistakes> {
        AwsConfig::from_environment(&GOOD.into_iter().chain(more.iter().copied()).collect())
    }

    fn endpoint(config: &AwsConfig, service: &str) -> Option<String> {
        let key = ServiceConfigKey::builder().service_id(service).profile("endpoint_url").env(AWS_ENDPOINT_URL).build();
        let own = config.sdk.service_config().expect("it is set").load_config(key.expect("a whole key"));
        own.or_else(|| config.sdk.endpoint_url().map(str::to_owned))
    }

    #[test]
    fn all_mistakes_are_reported_at_once_and_no_secret_is_printed() {
        let environment: Environment =
            [(AWS_SECRET_ACCESS_KEY, "hidden"), (AWS_ENDPOINT_URL, "localhost:8000"), (AWS_CA_BUNDLE, "/nowhere.pem")]
                .into_iter()
                .collect();
        let mistakes = AwsConfig::from_environment(&environment).expect_err("nearly everything is wrong");
        let variables: Vec<_> = mistakes.0.iter().map(|mistake| mistake.variable.as_str()).collect();
        assert_eq!(variables, [AWS_REGION, AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, AWS_CA_BUNDLE]);
        assert!(!mistakes.to_string().contains("hidden"), "{mistakes}");
    }

    #[test]
    fn credentials_are_not_printed() {
        let text = format!("{:?}", with(&[(AWS_SESSION_TOKEN, "a-token")]).expect("whole"));
        assert!(!text.contains("a-token") && !text.contains("\"secret\""), "{text}");
    }

    #[test]
    fn a_service_s_own_endpoint_wins_and_an_empty_one_counts_as_unset() {
        let config = with(&[
            (AWS_ENDPOINT_URL, "http://127.0.0.1:1"),
            (AWS_ENDPOINT_URL_DYNAMODB, "http://127.0.0.1:2"),
            (AWS_ENDPOINT_URL_SQS, ""),
        ])
        .expect("whole");
        assert_eq!(endpoint(&config, "DynamoDB").as_deref(), Some("http://127.0.0.1:2"));
        assert_eq!(endpoint(&config, "SQS").as_deref(), Some("http://127.0.0.1:1"));
        assert_eq!(config.management_endpoint(), None);
        assert_eq!(endpoint(&with(&[(AWS_ENDPOINT_URL, "")]).expect("whole"), "SQS"), None);
    }

    #[test]
    fn an_endpoint_keeps_its_path() {
        let url = "https://a1b2c3.execute-api.eu-central-1.amazonaws.com/prod";
        let config = with(&[(AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI, url)]).expect("whole");
        assert_eq!(config.management_endpoint(), Some(url));
    }

    #[test]
    fn what_is_no_url_is_refused_before_the_sdk_can_panic() {
        for url in ["localhost", "localhost:8000", "ftp://host", "http://", "http:///prod", "/prod"] {
            let mistakes = with(&[(AWS_ENDPOINT_URL_SQS, url)]).expect_err(url);
            assert_eq!(mistakes.to_string(), format!("AWS_ENDPOINT_URL_SQS: '{url}' is no http or https URL"));
        }
    }

    #[test]
    fn the_region_of_the_aws_command_serves_too() {
        let environment = GOOD.into_iter().skip(1).chain([(AWS_DEFAULT_REGION, "us-west-2")]).collect();
        let config = AwsConfig::from_environment(&environment).expect("whole");
        assert_eq!(config.sdk.region(), Some(&Region::from_static("us-west-2")));
    }

    #[test]
    fn the_embedded_roots_are_amazon_s_five_and_mozilla_still_trusts_them() {
        let roots: Vec<_> = CertificateDer::pem_slice_iter(AMAZON_ROOTS).map(|root| root.expect("PEM")).collect();
        assert_eq!(roots.len(), 5);
        for root in &roots {
            assert!(webpki_root_certs::TLS_SERVER_ROOT_CERTS.contains(root), "a root that Mozilla does not list");
        }
        for name in
            [&b"Amazon Root CA 1"[..], b"Amazon Root CA 2", b"Amazon Root CA 3", b"Amazon Root CA 4", b"Starfield Services"]
        {
            assert!(roots.iter().any(|root| root.windows(name.len()).any(|part| part == name)), "{}", name.escape_ascii());
        }
    }

    #[test]
    fn a_bundle_is_taken_beside_amazon_s_roots_and_a_malformed_one_is_refused() {
        let path_of = |content: &[u8]| {
            let mut file = tempfile::NamedTempFile::new().expect("a file");
            file.write_all(content).expect("written");
            file
        };
        let good = path_of(AMAZON_ROOTS);
        assert!(with(&[(AWS_CA_BUNDLE, good.path().to_str().expect("Unicode"))]).is_ok());

        let malformed = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (content, fault) in [(&b""[..], "holds no certificate"), (malformed, "holds a malformed certificate")] {
            let file = path_of(content);
            let mistakes = with(&[(AWS_CA_BUNDLE, file.path().to_str().expect("Unicode"))]).expect_err(fault);
            assert!(mistakes.to_string().contains(fault), "{mistakes}");
        }
    }
}
