//! The access token of a page that is open to the network: header, cookie, and the address that sets the cookie.

use std::fmt;

use http::{HeaderMap, HeaderValue, Uri, header};
use sha2::{Digest, Sha256};

use crate::net::{Token, bearer};

/// What the page asks for: the token itself, or the cookie given for it. Neither can be printed.
#[derive(Clone)]
pub struct AccessToken {
    token: Token,
    /// Value of the cookie: derived, so that it is of no use as a token elsewhere.
    cookie: String,
    cookie_check: Token,
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl AccessToken {
    /// Takes the token as configured; `None` for the empty one, which means that everybody may come in.
    #[must_use]
    pub fn new(token: &str) -> Option<Self> {
        let cookie = hex(&Sha256::digest(format!("everflame cookie\n{token}")));
        Some(Self { token: Token::new(token)?, cookie_check: Token::new(&cookie)?, cookie })
    }

    /// Whether the headers carry the token or the cookie made of it.
    pub(super) fn is_shown(&self, headers: &HeaderMap) -> bool {
        if bearer(headers).is_some_and(|token| self.token.matches(token)) {
            return true;
        }
        let name = self.cookie_name();
        headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .any(|(found, value)| found == name && self.cookie_check.matches(value.as_bytes()))
    }

    /// Whether this is the token.
    pub(super) fn is(&self, token: &str) -> bool {
        self.token.matches(token.as_bytes())
    }

    /// Cookie that stands for the token until the browser closes. Scripts cannot read it, other sites cannot send it.
    pub(super) fn set_cookie(&self) -> HeaderValue {
        let text = format!("{}={}; Path=/; HttpOnly; SameSite=Strict", self.cookie_name(), self.cookie);
        HeaderValue::try_from(text).expect("hex digits and ASCII words")
    }

    /// Cookies are shared by all ports of a host: the name tells this page's from that of another everflame.
    fn cookie_name(&self) -> String {
        format!("everflame-{}", &self.cookie[..8])
    }
}

/// The token in an address, and the address without it.
pub(super) fn in_address(uri: &Uri) -> Option<(String, String)> {
    let query = uri.query()?;
    let axum::extract::Query(pairs) =
        axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri).ok()?;
    let (_, token) = pairs.into_iter().find(|(name, _)| name == "token")?;
    let rest: Vec<&str> = query.split('&').filter(|pair| pair.split('=').next() != Some("token")).collect();
    // One slash in front: "//host" would lead to another host.
    let path = uri.path().trim_start_matches(['/', '\\']);
    let address = if rest.is_empty() { format!("/{path}") } else { format!("/{path}?{}", rest.join("&")) };
    Some((token, address))
}

/// Lower-case hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).expect("four bits are one hex digit");
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(token: &AccessToken, name: http::HeaderName, value: &str) -> bool {
        token.is_shown(&HeaderMap::from_iter([(name, value.parse().unwrap())]))
    }

    #[test]
    fn the_token_is_shown_by_header_or_by_its_cookie() {
        let token = AccessToken::new("s3cret").unwrap();
        assert!(shown(&token, header::AUTHORIZATION, "Bearer s3cret"));
        assert!(shown(&token, header::AUTHORIZATION, "bearer  s3cret"));
        for wrong in ["Bearer s3cre", "Bearer", "Basic s3cret", "s3cret", "Bearer "] {
            assert!(!shown(&token, header::AUTHORIZATION, wrong), "{wrong}");
        }
        let set = token.set_cookie();
        let pair = set.to_str().unwrap().split(';').next().unwrap().to_owned();
        assert!(shown(&token, header::COOKIE, &format!("a=b; {pair}")));
        assert!(!shown(&AccessToken::new("other").unwrap(), header::COOKIE, &pair));
        assert!(AccessToken::new("").is_none());
        assert!(!pair.contains("s3cret") && !format!("{token:?}").contains("s3cret"));
    }

    #[test]
    fn the_token_leaves_the_address() {
        for (uri, expected) in [
            ("/?token=abc", Some(("abc", "/"))),
            ("/flamegraph?from=1&token=a%20b&to=2", Some(("a b", "/flamegraph?from=1&to=2"))),
            ("//evil.example/?token=abc", Some(("abc", "/evil.example/"))),
            ("/?tokens=abc", None),
            ("/", None),
        ] {
            let found = in_address(&uri.parse().unwrap_or_else(|_| Uri::from_static("/")));
            let found = found.as_ref().map(|(token, rest)| (token.as_str(), rest.as_str()));
            assert_eq!(found, expected, "{uri}");
        }
    }
}
