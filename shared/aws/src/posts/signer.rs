//! Signed POSTs to @connections: Signature Version 4 (AWS Identity and Access Management User Guide, "Create a signed AWS API
//! request"), with everything that one post has in common with the next made once.

use crate::config::{AWS_ACCESS_KEY_ID, AWS_REGION, AWS_SESSION_TOKEN, AwsConfig};
use crate::environment::Mistake;
use aws_credential_types::Credentials;
use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
use aws_smithy_async::time::SharedTimeSource;
use bytes::Bytes;
use carillon_core::connection::ConnectionId;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Request, Uri};
use http_body_util::Full;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use time::OffsetDateTime;
use time::macros::format_description;

/// The service that @connections is signed for (Amazon API Gateway Developer Guide, "Use @connections commands in your backend
/// service").
const SERVICE: &str = "execute-api";

/// What the SDK sends.
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

const AGENT: HeaderValue = HeaderValue::from_static(concat!("carillon/", env!("CARGO_PKG_VERSION")));

const X_AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");
const X_AMZ_SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// All but the unreserved characters of RFC 3986, section 2.3: what a path segment has encoded.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The same for a whole path.
const PATH: &AsciiSet = &SEGMENT.remove(b'/');

/// Where posts go.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    scheme: Scheme,
    authority: Authority,
    host: HeaderValue,
    /// The path up to the connection's id.
    path: String,
}

/// Why an address is no endpoint of posts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EndpointFault {
    #[error("is no http or https URL")]
    NotHttp,
    #[error("has a query")]
    Query,
    #[error("has an empty segment, '.' or '..' in its path")]
    Segments,
}

/// Makes signed POSTs.
pub(super) struct Signer {
    endpoint: Endpoint,
    /// `POST` and the canonical path up to the connection's id.
    canonical_start: String,
    /// The canonical headers from the content type up to the date.
    canonical_headers: String,
    /// What follows the date: the token's header, and the names of all.
    canonical_end: String,
    signed_headers: &'static str,
    credentials: Credentials,
    token: Option<HeaderValue>,
    region: String,
    clock: SharedTimeSource,
    moment: Mutex<Option<Arc<Moment>>>,
    frame: Mutex<Option<Arc<HashedFrame>>>,
}

/// What signatures of the same second share. Of the key, those of the same day.
struct Moment {
    second: i64,
    /// As `20260131T235959Z`.
    date_time: String,
    header: HeaderValue,
    /// Algorithm, date and scope: the string to sign without the request's hash.
    to_sign: String,
    /// The Authorization header up to the signature.
    authorization: String,
    /// Days since 1970 began, and the key of that day.
    key: (i64, [u8; 32]),
}

/// A frame as it goes to many connections: a round of a drain posts the same one to all of them.
struct HashedFrame {
    frame: Arc<str>,
    body: Bytes,
    hash: String,
}

/// Lets a body share the frame's memory.
struct Shared(Arc<str>);

impl Endpoint {
    /// Takes the URL of an API with its stage. A slash at its end means nothing.
    ///
    /// # Errors
    /// When it is no http or https URL, has a query, or has segments that an HTTP library or a proxy would take out, so that the
    /// signature would be that of another path.
    pub(super) fn parse(url: &str) -> Result<Self, EndpointFault> {
        let uri = url.parse::<Uri>().map_err(|_| EndpointFault::NotHttp)?;
        let scheme = uri.scheme().filter(|scheme| matches!(scheme.as_str(), "http" | "https")).ok_or(EndpointFault::NotHttp)?;
        let authority = uri.authority().ok_or(EndpointFault::NotHttp)?;
        if uri.query().is_some() {
            return Err(EndpointFault::Query);
        }
        let stage = uri.path().trim_end_matches('/');
        if stage.split('/').skip(1).any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(EndpointFault::Segments);
        }
        let usual = if *scheme == Scheme::HTTPS { 443 } else { 80 };
        let host = match authority.port_u16().filter(|port| *port != usual) {
            None => authority.host().to_owned(),
            Some(port) => format!("{}:{port}", authority.host()),
        };
        let host = HeaderValue::try_from(host).map_err(|_| EndpointFault::NotHttp)?;
        Ok(Self { scheme: scheme.clone(), authority: authority.clone(), host, path: format!("{stage}/@connections/") })
    }
}

impl Signer {
    /// Signs with the configuration's credentials, for its region, at the times of its clock.
    ///
    /// # Errors
    /// When the region or a credential cannot stand in a header. The fault does not repeat it.
    pub(super) fn new(config: &AwsConfig, endpoint: Endpoint) -> Result<Self, Mistake> {
        let header = |variable, value: &str| {
            HeaderValue::from_str(value).map_err(|_| Mistake::new(variable, "holds characters that no header may have"))
        };
        let credentials = config.credentials().clone();
        let region = config.region().to_owned();
        header(AWS_ACCESS_KEY_ID, credentials.access_key_id())?;
        header(AWS_REGION, &region)?;
        let token = credentials.session_token().map(|token| header(AWS_SESSION_TOKEN, token)).transpose()?;
        let token = token.map(|mut token| {
            token.set_sensitive(true);
            token
        });
        let signed_headers = match token {
            None => "content-length;content-type;host;x-amz-date",
            Some(_) => "content-length;content-type;host;x-amz-date;x-amz-security-token",
        };
        let token_line = credentials.session_token().map(|token| format!("x-amz-security-token:{token}\n"));
        let host = endpoint.host.to_str().expect("it was made of text");
        Ok(Self {
            // The path is encoded twice in the canonical request: every service but S3 wants it so.
            canonical_start: format!("POST\n{}", utf8_percent_encode(&endpoint.path, PATH)),
            canonical_headers: format!("content-type:application/octet-stream\nhost:{host}\nx-amz-date:"),
            canonical_end: format!("\n{}\n{signed_headers}\n", token_line.unwrap_or_default()),
            signed_headers,
            endpoint,
            credentials,
            token,
            region,
            clock: config.clock(),
            moment: Mutex::default(),
            frame: Mutex::default(),
        })
    }

    /// The request that posts a frame to a connection. None for an id that no path can name, which is nobody's.
    pub(super) fn post(&self, connection: &ConnectionId, frame: &Arc<str>) -> Option<Request<Full<Bytes>>> {
        if matches!(connection.as_str(), "." | "..") {
            return None;
        }
        let frame = self.hashed(frame);
        let moment = self.moment(self.clock.now());
        let id = utf8_percent_encode(connection.as_str(), SEGMENT).to_string();
        let length = frame.body.len();
        let canonical = [
            &self.canonical_start,
            // Encoded once more, it has nothing but these to encode.
            &id.replace('%', "%25"),
            "\n\ncontent-length:",
            &length.to_string(),
            "\n",
            &self.canonical_headers,
            &moment.date_time,
            &self.canonical_end,
            &frame.hash,
        ]
        .concat();
        let to_sign = format!("{}{}", moment.to_sign, sha256(canonical.as_bytes()));
        let signature = calculate_signature(moment.key.1, to_sign.as_bytes());
        let authorization = HeaderValue::try_from(format!("{}{signature}", moment.authorization));
        let mut authorization = authorization.expect("its parts were checked at the start");
        authorization.set_sensitive(true);

        let path = PathAndQuery::from_maybe_shared(Bytes::from(format!("{}{id}", self.endpoint.path)));
        let uri = Uri::builder()
            .scheme(self.endpoint.scheme.clone())
            .authority(self.endpoint.authority.clone())
            .path_and_query(path.expect("a path of a URL, and an encoded segment"))
            .build()
            .expect("all three parts are there");
        let mut request = Request::new(Full::new(frame.body.clone()));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.reserve(7);
        headers.insert(HOST, self.endpoint.host.clone());
        headers.insert(CONTENT_TYPE, OCTETS);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        headers.insert(USER_AGENT, AGENT);
        headers.insert(X_AMZ_DATE, moment.header.clone());
        headers.insert(AUTHORIZATION, authorization);
        if let Some(token) = &self.token {
            headers.insert(X_AMZ_SECURITY_TOKEN, token.clone());
        }
        Some(request)
    }

    fn moment(&self, now: SystemTime) -> Arc<Moment> {
        let now = OffsetDateTime::from(now);
        let mut last = self.moment.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = last.as_ref().filter(|last| last.second == now.unix_timestamp()) {
            return Arc::clone(last);
        }
        let day = i64::from(now.to_julian_day());
        let key = last.as_ref().map(|last| last.key).filter(|(of, _)| *of == day).unwrap_or_else(|| (day, self.key(now)));
        let moment = Arc::new(Moment::new(now, key, self));
        *last = Some(Arc::clone(&moment));
        moment
    }

    fn key(&self, now: OffsetDateTime) -> [u8; 32] {
        let key = generate_signing_key(self.credentials.secret_access_key(), now.into(), &self.region, SERVICE);
        key.as_ref().try_into().expect("an HMAC-SHA256 has 32 bytes")
    }

    fn hashed(&self, frame: &Arc<str>) -> Arc<HashedFrame> {
        let mut last = self.frame.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = last.as_ref().filter(|last| Arc::ptr_eq(&last.frame, frame)) {
            return Arc::clone(last);
        }
        let body = Bytes::from_owner(Shared(Arc::clone(frame)));
        let hashed = Arc::new(HashedFrame { frame: Arc::clone(frame), hash: sha256(&body), body });
        *last = Some(Arc::clone(&hashed));
        hashed
    }
}

impl Moment {
    fn new(now: OffsetDateTime, key: (i64, [u8; 32]), signer: &Signer) -> Self {
        let date_time = now.format(format_description!("[year][month][day]T[hour][minute][second]Z"));
        let date_time = date_time.expect("every time of this clock has these parts");
        let scope = format!("{}/{}/{SERVICE}/aws4_request", &date_time[..8], signer.region);
        let (access_key_id, signed_headers) = (signer.credentials.access_key_id(), signer.signed_headers);
        Self {
            second: now.unix_timestamp(),
            header: HeaderValue::from_str(&date_time).expect("digits and two letters"),
            to_sign: format!("AWS4-HMAC-SHA256\n{date_time}\n{scope}\n"),
            authorization: format!(
                "AWS4-HMAC-SHA256 Credential={access_key_id}/{scope}, SignedHeaders={signed_headers}, Signature="
            ),
            date_time,
            key,
        }
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Without credentials, keys and frames.
impl fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Signer").field("endpoint", &self.endpoint).field("region", &self.region).finish_non_exhaustive()
    }
}
