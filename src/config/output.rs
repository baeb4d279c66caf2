//! `output`: where documents go.

use std::path::Path;

use super::{ClientTls, Secret, Settings, StoreSection};

/// The `output` section of a server role: exactly one engine.
#[derive(Clone, Debug, PartialEq)]
pub enum OutputSection {
    /// `output.elasticsearch`.
    Elasticsearch(Box<ElasticsearchOutput>),
    /// `output.embedded`: the store of this machine.
    Embedded(EmbeddedOutput),
}

/// `output.embedded`.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddedOutput {
    /// Store settings, the same as `store` of all-in-one.
    pub store: StoreSection,
}

/// `output.elasticsearch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElasticsearchOutput {
    /// Servers: `host`, `host:port` or URL.
    pub hosts: Vec<String>,
    /// Scheme where a host has none.
    pub protocol: String,
    /// Prefix of every request path.
    pub path: Option<String>,
    /// `id:key` or the encoded form.
    pub api_key: Option<Secret>,
    /// User of basic authentication.
    pub username: Option<String>,
    /// Password of basic authentication.
    pub password: Option<Secret>,
    /// Proxy URL.
    pub proxy_url: Option<String>,
    /// gzip level of request bodies, 0 = none.
    pub compression_level: u32,
    /// Attempts per operation.
    pub max_retries: u32,
    /// TLS.
    pub tls: ClientTls,
}

impl OutputSection {
    pub(super) fn read(settings: &Settings) -> Self {
        if settings.has("output.embedded") {
            if settings.has("output.elasticsearch") {
                let message = "expected one output, found elasticsearch and embedded".into();
                settings.problem("output", message, Some("remove one of the two".into()));
            }
            let store = StoreSection::read_at(settings, "output.embedded", Path::new("/var/lib/everflame"));
            return Self::Embedded(EmbeddedOutput { store });
        }
        Self::Elasticsearch(Box::new(ElasticsearchOutput::read(settings)))
    }
}

impl ElasticsearchOutput {
    fn read(settings: &Settings) -> Self {
        let key = |name: &str| format!("output.elasticsearch.{name}");
        let output = Self {
            hosts: settings.list(&key("hosts"), &["localhost:9200"]),
            protocol: settings
                .word(&key("protocol"), "http", &[("http", "http"), ("https", "https")])
                .to_owned(),
            path: settings.optional_text(&key("path")),
            api_key: settings.secret(&key("api_key")),
            username: settings.optional_text(&key("username")),
            password: settings.secret(&key("password")),
            proxy_url: settings.optional_text(&key("proxy_url")),
            compression_level: settings.number(&key("compression_level"), 0, 0..=9) as u32,
            max_retries: settings.number(&key("max_retries"), 3, 0..=100) as u32,
            tls: ClientTls::read(settings, "output.elasticsearch.ssl"),
        };
        if output.hosts.is_empty() {
            settings.problem(&key("hosts"), "expected at least one host, found an empty list".into(), None);
        }
        if output.api_key.is_some() && (output.username.is_some() || output.password.is_some()) {
            settings.problem(&key("api_key"), "cannot set both api_key and username/password".into(), None);
        }
        output
    }
}
