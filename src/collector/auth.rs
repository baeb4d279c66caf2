//! Who may send.

use http::HeaderMap;

use crate::net::{Token, bearer};
use crate::wire::otlp::TOKEN_METADATA;

/// Whether the headers carry the token: raw as `secrettoken`, as profiling agents send it, or as
/// `authorization: Bearer`, as OTLP clients do. Without a configured token everybody may send.
#[must_use]
pub fn is_authorized(token: Option<&Token>, headers: &HeaderMap) -> bool {
    let Some(token) = token else { return true };
    let raw = headers.get(TOKEN_METADATA).map(http::HeaderValue::as_bytes);
    raw.into_iter().chain(bearer(headers)).any(|offered| token.matches(offered))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&'static str, &str)], expected: bool) {
        let map = headers.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), http::HeaderValue::from_str(value).unwrap())
        });
        let token = Token::new("secret16chars").unwrap();
        assert_eq!(is_authorized(Some(&token), &map.collect()), expected, "{headers:?}");
    }

    #[test]
    fn either_header_opens_the_door() {
        check(&[("secrettoken", "secret16chars")], true);
        check(&[("authorization", "Bearer secret16chars")], true);
        check(&[("secrettoken", "old"), ("authorization", "Bearer secret16chars")], true);
    }

    #[test]
    fn nothing_else_does() {
        check(&[], false);
        check(&[("secrettoken", "")], false);
        check(&[("secrettoken", "Bearer secret16chars")], false);
        check(&[("authorization", "secret16chars")], false);
        check(&[("authorization", "Basic secret16chars")], false);
        check(&[("authorization", "Bearer Secret16chars")], false);
    }

    #[test]
    fn without_a_token_everybody_may_send() {
        assert!(is_authorized(None, &HeaderMap::new()));
    }
}
