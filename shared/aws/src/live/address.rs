//! Where IoT Core's WebSocket is, and the signature that opens it.

use crate::config::{AWS_ENDPOINT_URL_IOT_DATA_PLANE, AwsConfig};
use crate::environment::{Mistake, Mistakes};
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, SessionTokenMode, SignableBody, SignableRequest, SignatureLocation, SigningError, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use carillon_core::time::Millis;
use http::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::time::{Duration, UNIX_EPOCH};

/// The path of IoT Core's WebSocket (<https://docs.aws.amazon.com/iot/latest/developerguide/protocols.html>).
const PATH: &str = "/mqtt";

/// The name that the WebSocket's signatures are made for, on the same page. The HTTP API has another, `iotdata`.
const SERVICE: &str = "iotdevicegateway";

/// How long a signature opens the WebSocket. It is made anew for every try, so this covers a slow handshake and clocks that differ.
const VALID_FOR: Duration = Duration::from_secs(300);

/// What stays as it is in a query (RFC 3986 section 2.3, which Signature Version 4 follows).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The WebSocket of one account's IoT Core, and what it takes to sign for it.
#[derive(Debug)]
pub(super) struct Address {
    secure: bool,
    /// Host, and port where it is not the scheme's own: a signature covers the header `host`, which leaves that one out.
    authority: String,
    region: String,
    credentials: Credentials,
}

impl Address {
    /// The address that belongs to the endpoint of IoT Core's data plane: `http` makes `ws`, `https` makes `wss`.
    ///
    /// # Errors
    /// When AWS_ENDPOINT_URL_IOT_DATA_PLANE is unset or has a path or a query.
    pub(super) fn new(config: &AwsConfig) -> Result<Self, Mistakes> {
        let Some(url) = config.iot_endpoint() else {
            return Err(Mistake::missing(AWS_ENDPOINT_URL_IOT_DATA_PLANE).into());
        };
        let mistake = |fault: &str| Mistake::new(AWS_ENDPOINT_URL_IOT_DATA_PLANE, format_args!("'{url}' {fault}"));
        let uri: Uri = url.parse().map_err(|_| mistake("is no http or https URL"))?;
        if uri.path_and_query().is_some_and(|rest| rest.as_str() != "/") {
            return Err(mistake("has a path, and IoT Core's WebSocket has its own").into());
        }
        let secure = uri.scheme_str() == Some("https");
        let host = uri.host().ok_or_else(|| mistake("has no host"))?;
        let own_port = if secure { 443 } else { 80 };
        let authority = match uri.port_u16() {
            Some(port) if port != own_port => format!("{host}:{port}"),
            _ => host.to_owned(),
        };
        let (region, credentials) = (config.region().to_owned(), config.credentials().clone());
        Ok(Self { secure, authority, region, credentials })
    }

    /// Whether TLS is spoken there.
    pub(super) const fn is_secure(&self) -> bool {
        self.secure
    }

    /// The URL without a signature.
    pub(super) fn url(&self) -> String {
        let scheme = if self.secure { "wss" } else { "ws" };
        format!("{scheme}://{}{PATH}", self.authority)
    }

    /// The URL with a signature that is good for five minutes from `now` on. A session token comes after the signature, which does not
    /// cover it: that is how IoT Core wants it.
    ///
    /// # Errors
    /// When region or credentials cannot be signed with.
    pub(super) fn signed_url(&self, now: Millis) -> Result<Uri, AddressError> {
        let identity = self.credentials.clone().into();
        let mut settings = SigningSettings::default();
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(VALID_FOR);
        settings.session_token_mode = SessionTokenMode::Exclude;
        settings.payload_checksum_kind = PayloadChecksumKind::NoHeader;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(SERVICE)
            .time(UNIX_EPOCH + Duration::from_millis(now.0))
            .settings(settings)
            .build()?
            .into();
        // The scheme is not part of what is signed, and the signer knows HTTP's only.
        let url = format!("https://{}{PATH}", self.authority);
        let request = SignableRequest::new("GET", &url, std::iter::empty(), SignableBody::Bytes(b""))?;
        let (instructions, _) = sign(request, &parameters)?.into_parts();
        // They come in the order that was signed, then the signature, then the token.
        let query: Vec<String> =
            instructions.params().iter().map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, ESCAPED))).collect();
        Ok(format!("{}?{}", self.url(), query.join("&")).parse()?)
    }
}

/// Why there is no signed URL.
#[derive(Debug, thiserror::Error)]
pub(super) enum AddressError {
    /// Something that a signature needs is missing.
    #[error("the signature lacks something")]
    Incomplete(#[from] v4::signing_params::BuildError),
    /// It cannot be made.
    #[error("the signature cannot be made")]
    Unsigned(#[from] SigningError),
    /// It makes no URL.
    #[error("the signed address is no URL")]
    NoUrl(#[from] http::uri::InvalidUri),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AWS_ACCESS_KEY_ID, AWS_REGION, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN};

    fn address(region: &str, key_id: &str, secret: &str, token: &str, endpoint: &str) -> Result<Address, Mistakes> {
        let environment = [
            (AWS_REGION, region),
            (AWS_ACCESS_KEY_ID, key_id),
            (AWS_SECRET_ACCESS_KEY, secret),
            (AWS_SESSION_TOKEN, token),
            (AWS_ENDPOINT_URL_IOT_DATA_PLANE, endpoint),
        ];
        Address::new(&AwsConfig::from_environment(&environment.into_iter().collect()).expect("whole"))
    }

    fn at(endpoint: &str) -> Result<Address, Mistakes> {
        address("us-east-1", "local", "local", "", endpoint)
    }

    /// 2026-07-04T09:08:07Z
    const SUMMER: Millis = Millis(1_783_156_087_000);

    /// 2024-12-31T23:59:59Z
    const WINTER: Millis = Millis(1_735_689_599_000);

    // The expected addresses were computed by botocore 1.43.11, with its clock set to the moment:
    //
    //     request = AWSRequest("GET", url)
    //     SigV4QueryAuth(Credentials(key_id, secret), "iotdevicegateway", region, expires=300).add_auth(request)
    //
    // and, where there is a token, with "&X-Amz-Security-Token=" + urllib.parse.quote(token, safe="-_.~") after it.
    #[track_caller]
    fn check(address: &Address, now: Millis, expected: &[&str]) {
        assert_eq!(address.signed_url(now).expect("signed").to_string(), expected.concat());
    }

    #[test]
    fn a_signature_is_botocore_s() {
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let endpoint = "https://a1b2c3d4e5f6g7-ats.iot.eu-central-1.amazonaws.com";
        check(
            &address("eu-central-1", "AKIDEXAMPLE", secret, "", endpoint).expect("an address"),
            SUMMER,
            &[
                "wss://a1b2c3d4e5f6g7-ats.iot.eu-central-1.amazonaws.com/mqtt?X-Amz-Algorithm=AWS4-HMAC-SHA256",
                "&X-Amz-Credential=AKIDEXAMPLE%2F20260704%2Feu-central-1%2Fiotdevicegateway%2Faws4_request",
                "&X-Amz-Date=20260704T090807Z&X-Amz-Expires=300&X-Amz-SignedHeaders=host",
                "&X-Amz-Signature=f817b0492be6aa9e0f896958f22c327b72950136bca11e28c6e0e939e3afb5b3",
            ],
        );
    }

    #[test]
    fn a_token_comes_once_and_after_the_signature() {
        let token = "IQoJb3JpZ2luX2VjE//+token/with=signs";
        let endpoint = "https://a1b2c3d4e5f6g7-ats.iot.us-east-1.amazonaws.com";
        check(
            &address("us-east-1", "ASIAEXAMPLE", "secret", token, endpoint).expect("an address"),
            SUMMER,
            &[
                "wss://a1b2c3d4e5f6g7-ats.iot.us-east-1.amazonaws.com/mqtt?X-Amz-Algorithm=AWS4-HMAC-SHA256",
                "&X-Amz-Credential=ASIAEXAMPLE%2F20260704%2Fus-east-1%2Fiotdevicegateway%2Faws4_request",
                "&X-Amz-Date=20260704T090807Z&X-Amz-Expires=300&X-Amz-SignedHeaders=host",
                "&X-Amz-Signature=8eadf851267c81e47515b1b7ae79071f860c207b589a9e5c28b4e525c08b91f7",
                "&X-Amz-Security-Token=IQoJb3JpZ2luX2VjE%2F%2F%2Btoken%2Fwith%3Dsigns",
            ],
        );
    }

    #[test]
    fn a_port_of_its_own_is_signed_with_the_host() {
        check(
            &at("http://127.0.0.1:4103").expect("an address"),
            WINTER,
            &[
                "ws://127.0.0.1:4103/mqtt?X-Amz-Algorithm=AWS4-HMAC-SHA256",
                "&X-Amz-Credential=local%2F20241231%2Fus-east-1%2Fiotdevicegateway%2Faws4_request",
                "&X-Amz-Date=20241231T235959Z&X-Amz-Expires=300&X-Amz-SignedHeaders=host",
                "&X-Amz-Signature=cfe0a98a1b43b0638f861054290aadc8160c25abee03779c96af70ca2aa48d86",
            ],
        );
        check(
            &at("http://[::1]:4103").expect("an address"),
            WINTER,
            &[
                "ws://[::1]:4103/mqtt?X-Amz-Algorithm=AWS4-HMAC-SHA256",
                "&X-Amz-Credential=local%2F20241231%2Fus-east-1%2Fiotdevicegateway%2Faws4_request",
                "&X-Amz-Date=20241231T235959Z&X-Amz-Expires=300&X-Amz-SignedHeaders=host",
                "&X-Amz-Signature=0e6a9c056b194559c93f241a182297086d0fef7fcba7cf46c8947a73c8224ab5",
            ],
        );
    }

    #[test]
    fn the_scheme_s_own_port_is_left_out() {
        for (endpoint, url) in [
            ("https://iot.example:443", "wss://iot.example/mqtt"),
            ("https://iot.example/", "wss://iot.example/mqtt"),
            ("https://iot.example:80", "wss://iot.example:80/mqtt"),
            ("http://iot.example:80", "ws://iot.example/mqtt"),
            ("http://iot.example:443", "ws://iot.example:443/mqtt"),
        ] {
            assert_eq!(at(endpoint).expect("an address").url(), url);
        }
    }

    #[test]
    fn an_endpoint_that_is_missing_or_has_a_path_is_a_mistake() {
        let check = |endpoint: &str, fault: &str| {
            let mistakes = at(endpoint).expect_err(endpoint);
            assert_eq!(mistakes.to_string(), format!("AWS_ENDPOINT_URL_IOT_DATA_PLANE: {fault}"));
        };
        check("", "is not set");
        check("http://127.0.0.1:1/iot", "'http://127.0.0.1:1/iot' has a path, and IoT Core's WebSocket has its own");
        check("http://127.0.0.1:1?a=b", "'http://127.0.0.1:1?a=b' has a path, and IoT Core's WebSocket has its own");
    }
}
