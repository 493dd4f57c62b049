//! The shared secret that opens everything until tokens with grants exist.

use crate::limits::SECRET_CHARACTERS;
use std::fmt;
use subtle::ConstantTimeEq;

/// The shared secret. It is never printed and compared in constant time.
#[derive(Clone)]
pub struct Secret(String);

/// The secret is too short.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the secret has {found} characters, and at least {SECRET_CHARACTERS} are needed")]
pub struct SecretTooShort {
    found: usize,
}

impl Secret {
    /// Takes a secret.
    ///
    /// # Errors
    /// When it has fewer than [`SECRET_CHARACTERS`] characters.
    pub fn try_new(text: impl Into<String>) -> Result<Self, SecretTooShort> {
        let text = text.into();
        let found = text.chars().count();
        if found < SECRET_CHARACTERS { Err(SecretTooShort { found }) } else { Ok(Self(text)) }
    }

    /// Whether `offered` is the secret. The time it takes depends on the length of `offered` alone.
    #[must_use]
    pub fn opens_with(&self, offered: &str) -> bool {
        self.0.as_bytes().ct_eq(offered.as_bytes()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn only_the_secret_opens() {
        let secret = Secret::try_new(TEXT).expect("long enough");
        assert!(secret.opens_with(TEXT));
        for wrong in ["", "0", &TEXT[1..], &TEXT.to_uppercase(), &format!("{TEXT} ")] {
            assert!(!secret.opens_with(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn a_short_secret_is_refused_and_a_secret_is_never_printed() {
        assert_eq!(
            Secret::try_new("short").expect_err("too short").to_string(),
            "the secret has 5 characters, and at least 32 are needed"
        );
        assert_eq!(format!("{:?}", Secret::try_new(TEXT)), "Ok(Secret(…))");
    }
}
