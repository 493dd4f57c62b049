//! Reading request bodies within a limit.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use super::limits::MAX_DRAINED_BYTES;

/// Why a body could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// It is longer than the limit.
    #[error("body is over the limit of {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The sender broke off.
    #[error("body broke off")]
    Broken(#[source] axum::Error),
}

/// Reads a body to its end.
///
/// # Errors
/// [`BodyError::TooLarge`] over `limit` bytes: the rest is read and thrown away first, up to [`MAX_DRAINED_BYTES`].
pub(crate) async fn read(mut body: Body, limit: usize) -> Result<Bytes, BodyError> {
    let mut collected = BytesMut::new();
    let mut total = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(BodyError::Broken)?.into_data() else {
            continue;
        };
        total += data.len();
        if total <= limit {
            collected.extend_from_slice(&data);
        } else if total > MAX_DRAINED_BYTES {
            break;
        }
    }
    if total > limit {
        return Err(BodyError::TooLarge { limit });
    }
    Ok(collected.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_limit_is_the_last_length_that_passes() {
        assert_eq!(&read(Body::from("12345"), 5).await.expect("five bytes")[..], b"12345");
        assert!(matches!(read(Body::from("123456"), 5).await, Err(BodyError::TooLarge { limit: 5 })));
    }
}
