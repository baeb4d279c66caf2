//! Shared secrets of agents: compared without telling by time how much of a guess was right.

use std::fmt;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};

/// A configured secret. Only its hash is kept, so nothing can print it.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl Token {
    /// Takes a secret; `None` for the empty one, which means that everybody may come in.
    #[must_use]
    pub fn new(secret: &str) -> Option<Self> {
        (!secret.is_empty()).then(|| Self(Sha256::digest(secret).into()))
    }

    /// Whether `offered` is the secret. Takes the same time for every wrong one of the same length.
    #[must_use]
    pub fn matches(&self, offered: &[u8]) -> bool {
        let offered: [u8; 32] = Sha256::digest(offered).into();
        let difference = self.0.iter().zip(offered).fold(0, |sum, (a, b)| sum | (a ^ b));
        std::hint::black_box(difference) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Token of `authorization: Bearer TOKEN`; the scheme is not case-sensitive (RFC 9110).
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let at = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, token) = value.split_at(at);
    scheme.eq_ignore_ascii_case(b"bearer").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_secret_matches() {
        let token = Token::new("abcDEF123").unwrap();
        assert!(token.matches(b"abcDEF123"));
        for wrong in ["", "abcDEF12", "abcDEF1234", "abcdef123"] {
            assert!(!token.matches(wrong.as_bytes()), "{wrong}");
        }
        assert!(Token::new("").is_none());
        assert_eq!(format!("{token:?}"), "[redacted]");
    }

    #[test]
    fn bearer_takes_the_token_behind_the_scheme() {
        for (header, expected) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Basic abc", None),
            ("Bearer", None),
            ("abc", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, header.parse().unwrap());
            assert_eq!(bearer(&headers), expected.map(str::as_bytes), "{header}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
