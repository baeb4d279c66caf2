//! `web`: query API and page, and the store that they show.

use std::path::Path;

use super::{ElasticsearchOutput, HostPort, Secret, Section, Settings, StoreSection};

/// Settings of the web role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSection {
    /// Listen address.
    pub host: HostPort,
    /// Token that a browser must show once; wanted on every address that is not loopback.
    pub token: Option<Secret>,
    /// Further names under which the page may be reached.
    pub allowed_hosts: Vec<String>,
}

impl Section for WebSection {
    fn read(settings: &Settings) -> Self {
        Self {
            host: settings.host_port("web.host", HostPort::new("127.0.0.1", 8250)),
            token: settings.secret("web.token"),
            allowed_hosts: settings.list("web.allowed_hosts", &[]),
        }
    }
}

/// The web role: the page and where it reads.
#[derive(Clone, Debug, PartialEq)]
pub struct PageSection {
    /// Page and query API.
    pub web: WebSection,
    /// What they show.
    pub store: PageStore,
}

/// The store behind a page.
#[derive(Clone, Debug, PartialEq)]
pub enum PageStore {
    /// `store`, or `output.embedded` of a collector's file: a directory that no other process uses.
    Embedded(StoreSection),
    /// `output.elasticsearch`.
    Elasticsearch(Box<ElasticsearchOutput>),
}

impl Section for PageSection {
    fn read(settings: &Settings) -> Self {
        let store = if settings.has("output.elasticsearch") {
            if settings.has("output.embedded") {
                let message = "expected one output, found elasticsearch and embedded".into();
                settings.problem("output", message, Some("remove one of the two".into()));
            }
            PageStore::Elasticsearch(Box::new(ElasticsearchOutput::read(settings)))
        } else {
            let at = if settings.has("output.embedded") { "output.embedded" } else { "store" };
            PageStore::Embedded(StoreSection::read_at(settings, at, Path::new("/var/lib/everflame")))
        };
        Self { web: WebSection::read(settings), store }
    }
}
