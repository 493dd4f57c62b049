//! Signature Version 4, as far as it is looked at: that a request is signed for this service and that the signature is not over.
//! Signatures themselves are not verified, and whoever signed may do everything: the stack has no credentials and emulates no IAM.

use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use percent_encoding::percent_decode_str;
use time::format_description::FormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// The names that SDKs and the guide sign with: `iotdata` for the HTTP API, `iotdevicegateway` for WebSockets.
const SERVICES: [&str; 2] = ["iotdevicegateway", "iotdata"];

/// How long a signature without `X-Amz-Expires` holds, and how far clocks may differ: 5 minutes (AWS General Reference,
/// "Signature Version 4": requests are accepted within five minutes of their time stamp).
const TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// The longest `X-Amz-Expires`: 7 days (Amazon S3 API Reference, "Authenticating Requests: Using Query Parameters"; the guide to
/// IoT Core names none).
const MAXIMUM_EXPIRES_SECONDS: i64 = 7 * 24 * 60 * 60;

const DATE: &[FormatItem<'_>] = format_description!("[year][month][day]T[hour][minute][second]Z");

/// A query is signed in a way that is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SignatureError {
    #[error("X-Amz-Algorithm is not {ALGORITHM}")]
    Algorithm,
    #[error("{0} is missing or malformed")]
    Parameter(&'static str),
    #[error("the credential scope's service is {0}, neither iotdevicegateway nor iotdata")]
    Service(String),
    #[error("the signature is of the future or has expired")]
    Expired,
}

/// The access key of a pre-signed query, or nothing where the query has no signature at all.
///
/// # Errors
/// When it is signed, and not so that IoT Core would take it.
pub(super) fn presigned(query: &str, now: OffsetDateTime) -> Result<Option<String>, SignatureError> {
    let parameter = |wanted: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let mut values = pairs.filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value);
        values.next().map(|value| percent_decode_str(value).decode_utf8_lossy().into_owned())
    };
    let Some(algorithm) = parameter("X-Amz-Algorithm") else { return Ok(None) };
    if algorithm != ALGORITHM {
        return Err(SignatureError::Algorithm);
    }
    let credential = parameter("X-Amz-Credential").ok_or(SignatureError::Parameter("X-Amz-Credential"))?;
    let [key, _, _, service, "aws4_request"] = credential.split('/').collect::<Vec<_>>()[..] else {
        return Err(SignatureError::Parameter("X-Amz-Credential"));
    };
    if !SERVICES.contains(&service) {
        return Err(SignatureError::Service(service.to_owned()));
    }
    let is_digest = |text: &String| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    parameter("X-Amz-Signature").filter(is_digest).ok_or(SignatureError::Parameter("X-Amz-Signature"))?;
    let date = parameter("X-Amz-Date").and_then(|date| PrimitiveDateTime::parse(&date, DATE).ok());
    let signed_at = date.ok_or(SignatureError::Parameter("X-Amz-Date"))?.assume_utc();
    let lasts = match parameter("X-Amz-Expires") {
        None => TOLERANCE,
        Some(seconds) => {
            let seconds = seconds.parse().ok().filter(|seconds| (1..=MAXIMUM_EXPIRES_SECONDS).contains(seconds));
            let seconds = seconds.ok_or(SignatureError::Parameter("X-Amz-Expires"))?;
            Duration::from_secs(seconds.unsigned_abs())
        }
    };
    if now + TOLERANCE < signed_at || now > signed_at + lasts {
        return Err(SignatureError::Expired);
    }
    Ok(Some(key.to_owned()))
}

/// Whether a request has a signature, in its header or its query.
pub(super) fn is_signed(headers: &HeaderMap, query: Option<&str>) -> bool {
    let in_header = headers.get(AUTHORIZATION).is_some_and(|value| value.as_bytes().starts_with(ALGORITHM.as_bytes()));
    in_header || query.is_some_and(|query| query.split('&').any(|pair| pair.starts_with("X-Amz-Signature=")))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::{SignatureError, presigned};

    fn query(credential: &str, date: &str, rest: &str) -> String {
        let signature = "0".repeat(64);
        format!(
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date={date}\
             &X-Amz-SignedHeaders=host&X-Amz-Signature={signature}{rest}"
        )
    }

    #[test]
    fn a_presigned_query_is_looked_at() {
        let now = datetime!(2026-11-24 12:00:00 UTC);
        let scope = "AKID%2F20261124%2Fus-east-1%2Fiotdevicegateway%2Faws4_request";
        let early = "20261124T115959Z";
        let key = Ok(Some("AKID".to_owned()));
        for (query, expected) in [
            ("a=b".to_owned(), Ok(None)),
            (query(scope, early, ""), key.clone()),
            (query(scope, early, "&X-Amz-Expires=300&X-Amz-Security-Token=t"), key.clone()),
            (query(&scope.replace("iotdevicegateway", "iotdata"), early, ""), key.clone()),
            (query(scope, "20261124T115000Z", "&X-Amz-Expires=601"), key),
            (query(scope, "20261124T115000Z", "&X-Amz-Expires=599"), Err(SignatureError::Expired)),
            (query(scope, "20261124T115459Z", ""), Err(SignatureError::Expired)),
            (query(scope, "20261124T120501Z", ""), Err(SignatureError::Expired)),
            (query(scope, early, "&X-Amz-Expires=0"), Err(SignatureError::Parameter("X-Amz-Expires"))),
            (query(scope, "yesterday", ""), Err(SignatureError::Parameter("X-Amz-Date"))),
            (query("AKID", early, ""), Err(SignatureError::Parameter("X-Amz-Credential"))),
            (query(&scope.replace("iotdevicegateway", "sqs"), early, ""), Err(SignatureError::Service("sqs".to_owned()))),
            (query(scope, early, "").replace(&"0".repeat(64), "0"), Err(SignatureError::Parameter("X-Amz-Signature"))),
            (query(scope, early, "").replace("SHA256&", "SHA1&"), Err(SignatureError::Algorithm)),
        ] {
            assert_eq!(presigned(&query, now), expected, "{query}");
        }
    }
}
