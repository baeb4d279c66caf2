//! One entry of `hosts`: the documented shorthand to a URL.

use std::net::IpAddr;

use reqwest::Url;

use super::ClientError;

/// Port of a host that names none, whatever its scheme.
const DEFAULT_PORT: u16 = 9200;

/// Where one server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostUrl {
    /// Scheme, host, port and path, which ends with a slash. Holds no credentials.
    pub(super) base: Url,
    /// `host:port` for messages.
    pub(super) shown: String,
    /// User and password that stood in the URL.
    pub(super) credentials: Option<(String, String)>,
}

impl HostUrl {
    /// Reads `host`, `host:port` or a URL. `protocol` and `path` stand in for what it does not say; a path of its own
    /// wants a scheme.
    pub(super) fn parse(text: &str, protocol: &str, path: Option<&str>) -> Result<Self, ClientError> {
        let text = text.trim();
        let wrong = |hint| ClientError::Host { found: without_credentials(text).to_owned(), hint };
        let has_scheme = text.contains("://");
        if !has_scheme && text.contains('/') {
            return Err(wrong("a host with a path needs its scheme, as in https://localhost:9200/path"));
        }
        let whole = if has_scheme { text.to_owned() } else { format!("{protocol}://{text}") };
        let unbracketed = whole.rsplit_once('@').map_or(whole.as_str(), |(_, rest)| rest);
        if !unbracketed.contains('[')
            && unbracketed.matches(':').count() > 1 + usize::from(unbracketed.len() == whole.len())
        {
            return Err(wrong("write an IPv6 address in brackets, as in https://[2001:db8::1]:9200"));
        }
        let mut base =
            Url::parse(&whole).map_err(|_| wrong("write localhost:9200 or https://localhost:9200"))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(wrong("the scheme is http or https"));
        }
        if base.host_str().is_none_or(str::is_empty) || base.query().is_some() || base.fragment().is_some() {
            return Err(wrong("write localhost:9200 or https://localhost:9200"));
        }
        let credentials = (!base.username().is_empty())
            .then(|| (decoded(base.username()), decoded(base.password().unwrap_or_default())));
        // A URL with a host takes all of these.
        let cannot = |()| wrong("write localhost:9200 or https://localhost:9200");
        base.set_username("").and_then(|()| base.set_password(None)).map_err(cannot)?;
        if !names_port(&whole) {
            base.set_port(Some(DEFAULT_PORT)).map_err(cannot)?;
        }
        let own_path = base.path().trim_matches('/').to_owned();
        let path = if own_path.is_empty() { path.unwrap_or_default().trim_matches('/') } else { &own_path };
        base.set_path(&if path.is_empty() { "/".to_owned() } else { format!("/{path}/") });
        let port = base.port_or_known_default().unwrap_or(DEFAULT_PORT);
        let shown = format!("{}:{port}", base.host_str().unwrap_or_default());
        Ok(Self { base, shown, credentials })
    }

    /// URL of a call.
    pub(super) fn join(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        url.set_path(&format!("{}{}", self.base.path(), path.trim_start_matches('/')));
        url.set_query(query);
        url
    }

    pub(super) fn is_https(&self) -> bool {
        self.base.scheme() == "https"
    }

    /// Whether the server runs on this machine, where the environment's proxy has nothing to do.
    pub(super) fn is_loopback(&self) -> bool {
        let host = self.base.host_str().unwrap_or_default().trim_matches(['[', ']']);
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

/// Whether the text says a port; the URL type hides the one that is the scheme's own.
fn names_port(whole: &str) -> bool {
    let rest = whole.split_once("://").map_or(whole, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let after = host.rsplit_once(']').map_or(host, |(_, after)| after);
    after.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty())
}

/// Text of a percent-encoded part of a URL.
fn decoded(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = || {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            u8::from_str_radix(digits, 16).ok()
        };
        if let (b'%', Some(byte)) = (first, escaped()) {
            bytes.push(byte);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The text without what may be a password.
fn without_credentials(text: &str) -> &str {
    text.rsplit_once('@').map_or(text, |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, protocol: &str, path: Option<&str>, expected: &str) {
        let host = HostUrl::parse(text, protocol, path).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(host.base.as_str(), expected, "{text}");
        assert!(host.base.username().is_empty() && host.base.password().is_none());
    }

    #[test]
    fn what_is_left_out_comes_from_protocol_path_and_the_default_port() {
        check("localhost", "http", None, "http://localhost:9200/");
        check("localhost:9201", "https", None, "https://localhost:9201/");
        check(" es.example ", "https", Some("/elasticsearch"), "https://es.example:9200/elasticsearch/");
        check("https://es.example", "http", None, "https://es.example:9200/");
        // The port of the scheme is said, so it stays.
        check("https://es.example:443", "http", None, "https://es.example/");
        check("http://localhost:9200/path", "https", Some("other"), "http://localhost:9200/path/");
        check("https://[2001:db8::1]:9200", "http", None, "https://[2001:db8::1]:9200/");
        check("[::1]", "http", None, "http://[::1]:9200/");
        check("https://u:p%40s@es:9243/a/b/", "http", None, "https://es:9243/a/b/");
    }

    #[test]
    fn credentials_are_taken_out_and_never_shown() {
        let host = HostUrl::parse("https://u:p%40s@es:9243", "http", None).unwrap();
        assert_eq!(host.credentials, Some(("u".into(), "p@s".into())));
        assert_eq!(host.shown, "es:9243");
        let error = HostUrl::parse("ftp://u:secret@es", "http", None).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn what_is_no_host_is_told_with_a_cure() {
        for (text, cure) in [
            ("localhost:9200/path", "needs its scheme"),
            ("2001:db8::1", "brackets"),
            ("https://2001:db8::1", "brackets"),
            ("ftp://es", "http or https"),
            ("", "localhost:9200"),
            ("http://es?x=1", "localhost:9200"),
            ("es:port", "localhost:9200"),
        ] {
            let error = HostUrl::parse(text, "http", None).expect_err(text);
            assert!(error.hint().is_some_and(|hint| hint.contains(cure)), "{text}: {error}");
        }
    }

    #[test]
    fn calls_are_below_the_path() {
        let host = HostUrl::parse("http://es/below", "http", None).unwrap();
        assert_eq!(host.join("/_bulk?refresh=true").as_str(), "http://es:9200/below/_bulk?refresh=true");
        assert_eq!(host.join("_search").as_str(), "http://es:9200/below/_search");
    }

    #[test]
    fn only_addresses_of_this_machine_are_loopback() {
        for (text, expected) in
            [("localhost", true), ("127.0.0.3", true), ("[::1]:1", true), ("es", false), ("10.0.0.1", false)]
        {
            assert_eq!(HostUrl::parse(text, "http", None).unwrap().is_loopback(), expected, "{text}");
        }
    }
}
