//! Host and Origin guard: keeps web pages of strangers from talking to a server on this machine.
//!
//! A page can make a browser send requests to `127.0.0.1`, and by DNS rebinding it can even read the answers, because
//! its own name then points here. Such a request carries the stranger's name as Host or Origin, and is refused.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Uri};

/// Names under which this server may be addressed.
#[derive(Clone, Debug, Default)]
pub struct HostGuard {
    names: Vec<String>,
}

/// A request that came under a foreign name. Answer it with 403.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No name at all, or one that cannot be read.
    #[error("host: expected the name of this server, found none")]
    NoHost,
    /// Not one of ours.
    #[error("host: expected an address, localhost or a configured name, found \"{0}\"")]
    Host(String),
    /// The page that sent the request is not ours.
    #[error("origin: expected a page of this server, found \"{0}\"")]
    Origin(String),
}

impl HostGuard {
    /// Accepts addresses, `localhost` and these names (without port, case does not matter).
    #[must_use]
    pub fn new(names: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        Self { names: names.into_iter().map(|name| plain(name.as_ref())).collect() }
    }

    /// Checks one request.
    ///
    /// # Errors
    /// Says which name was foreign.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refused> {
        let host = match (uri.authority(), headers.get(HOST)) {
            // HTTP/2 sends the name as part of the target.
            (Some(authority), _) => authority.clone(),
            (None, Some(host)) => match Authority::try_from(host.as_bytes()) {
                Ok(authority) => authority,
                Err(_) => return Err(Refused::Host(shown(host.as_bytes()))),
            },
            (None, None) => return Err(Refused::NoHost),
        };
        if !self.is_ours(host.host()) {
            return Err(Refused::Host(shown(host.as_str().as_bytes())));
        }
        let mut origins = headers.get_all(ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => Ok(()),
            (Some(origin), None) if self.is_our_page(origin.as_bytes(), &host) => Ok(()),
            (Some(origin), _) => Err(Refused::Origin(shown(origin.as_bytes()))),
        }
    }

    fn is_ours(&self, host: &str) -> bool {
        let name = plain(host);
        let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&name);
        address.parse::<IpAddr>().is_ok()
            || name == "localhost"
            || name.ends_with(".localhost")
            || self.names.contains(&name)
    }

    /// A page is ours when it was loaded from the address it now asks, or from a configured name (a proxy in front of
    /// us may have rewritten the Host).
    fn is_our_page(&self, origin: &[u8], host: &Authority) -> bool {
        let Some(uri) = std::str::from_utf8(origin).ok().and_then(|origin| origin.parse::<Uri>().ok()) else {
            return false;
        };
        let (Some("http" | "https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return false;
        };
        authority.as_str().eq_ignore_ascii_case(host.as_str())
            || self.names.contains(&plain(authority.host()))
    }
}

/// Lower case, without the dot that ends a fully qualified name.
fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// As much of a stranger's text as a message shows.
fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(100)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: &str, origin: &str, accepted: bool) {
        let guard = HostGuard::new(["Profiles.example.org"]);
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if !origin.is_empty() {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        let found = guard.check(&Uri::from_static("/api/v1/status"), &headers);
        assert_eq!(found.is_ok(), accepted, "host {host:?}, origin {origin:?}: {found:?}");
    }

    #[test]
    fn addresses_loopback_names_and_configured_names_are_ours() {
        for host in [
            "127.0.0.1:8250",
            "10.1.2.3",
            "[::1]:8250",
            "localhost",
            "LOCALHOST:8250",
            "everflame.localhost:8250",
            "profiles.example.org",
            "PROFILES.EXAMPLE.ORG.:443",
        ] {
            check(host, "", true);
        }
    }

    #[test]
    fn foreign_names_are_refused() {
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "notlocalhost",
            "x.profiles.example.org",
            "evil.example#@127.0.0.1",
            "",
        ] {
            check(host, "", false);
        }
    }

    #[test]
    fn a_page_must_come_from_where_it_asks() {
        check("127.0.0.1:8250", "http://127.0.0.1:8250", true);
        check("localhost:8250", "http://localhost:8250", true);
        check("127.0.0.1:8250", "https://profiles.example.org", true);
        for origin in
            ["null", "http://evil.example", "http://127.0.0.1:3000", "http://localhost:8250", "file://", "x"]
        {
            check("127.0.0.1:8250", origin, false);
        }
    }

    #[test]
    fn http2_names_the_host_in_the_target() {
        let guard = HostGuard::default();
        let target = Uri::from_static("http://evil.example/");
        assert_eq!(guard.check(&target, &HeaderMap::new()), Err(Refused::Host("evil.example".into())));
        assert_eq!(guard.check(&Uri::from_static("/"), &HeaderMap::new()), Err(Refused::NoHost));
    }
}
