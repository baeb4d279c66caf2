//! `output`: where documents go.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{ByteSize, ClientTls, Secret, Settings, StoreSection};

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
    /// Prefix of every request path, where a host has none of its own.
    pub path: Option<String>,
    /// `id:key` or the encoded form.
    pub api_key: Option<Secret>,
    /// User of basic authentication.
    pub username: Option<String>,
    /// Password of basic authentication.
    pub password: Option<Secret>,
    /// Proxy URL; may hold a password, so it is never printed whole.
    pub proxy_url: Option<Secret>,
    /// Connect directly, whatever the environment says.
    pub proxy_disable: bool,
    /// Further headers of every request.
    pub headers: BTreeMap<String, Secret>,
    /// gzip level of request bodies, 0 = none.
    pub compression_level: u32,
    /// Attempts per operation beyond the first.
    pub max_retries: u32,
    /// Upper end of the first pause between attempts; each further one is twice as long.
    pub backoff_init: Duration,
    /// Upper end of every pause.
    pub backoff_max: Duration,
    /// Longest time for one request, answer included.
    pub timeout: Duration,
    /// Shape of the documents; `None` = found out by asking the cluster.
    pub generation: Option<GenerationChoice>,
    /// Where documents wait on disk while Elasticsearch cannot take them.
    pub disk_queue: Option<DiskQueue>,
    /// TLS.
    pub tls: ClientTls,
}

/// `output.elasticsearch.generation` where it is not `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenerationChoice {
    /// `profiling-*` with flat fields.
    Classic,
    /// `profiling-*.otel-default`.
    Otel,
}

/// `output.elasticsearch.queue.disk`, or `queue.disk` as Beats spell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskQueue {
    /// Directory; created when missing.
    pub path: PathBuf,
    /// Bytes on disk, at most.
    pub max_size: ByteSize,
}

/// 90 s as in Beats: long enough for a bulk request that waits for a busy cluster, short enough to leave a dead one.
const TIMEOUT: Duration = Duration::from_secs(90);
/// Senders wait while their documents are tried again: three pauses from here on stay below two seconds.
const BACKOFF_INIT: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_mins(1);
const QUEUE_SIZE: ByteSize = ByteSize(10 << 30);
/// Room for a few segments.
const SMALLEST_QUEUE: ByteSize = ByteSize(32 << 20);

impl Default for ElasticsearchOutput {
    fn default() -> Self {
        Self {
            hosts: vec!["localhost:9200".into()],
            protocol: "http".into(),
            path: None,
            api_key: None,
            username: None,
            password: None,
            proxy_url: None,
            proxy_disable: false,
            headers: BTreeMap::new(),
            compression_level: 0,
            max_retries: 3,
            backoff_init: BACKOFF_INIT,
            backoff_max: BACKOFF_MAX,
            timeout: TIMEOUT,
            generation: None,
            disk_queue: None,
            tls: ClientTls::default(),
        }
    }
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
    /// Reads the section; the `setup` and `web` roles read it too.
    pub(super) fn read(settings: &Settings) -> Self {
        let key = |name: &str| format!("output.elasticsearch.{name}");
        let pause = Duration::from_millis(1)..=Duration::from_hours(1);
        let output = Self {
            hosts: settings.list(&key("hosts"), &["localhost:9200"]),
            protocol: settings
                .word(&key("protocol"), "http", &[("http", "http"), ("https", "https")])
                .to_owned(),
            path: settings.optional_text(&key("path")),
            api_key: settings.secret(&key("api_key")),
            username: settings.optional_text(&key("username")),
            password: settings.secret(&key("password")),
            proxy_url: settings.secret(&key("proxy_url")),
            proxy_disable: settings.bool(&key("proxy_disable"), false),
            headers: settings.secrets(&key("headers")),
            compression_level: settings.number(&key("compression_level"), 0, 0..=9) as u32,
            max_retries: settings.number(&key("max_retries"), 3, 0..=100) as u32,
            backoff_init: settings.duration(&key("backoff.init"), BACKOFF_INIT, pause.clone()),
            backoff_max: settings.duration(&key("backoff.max"), BACKOFF_MAX, pause),
            timeout: settings.duration(
                &key("timeout"),
                TIMEOUT,
                Duration::from_millis(100)..=Duration::from_hours(1),
            ),
            generation: settings.word(
                &key("generation"),
                None,
                &[
                    ("auto", None),
                    ("classic", Some(GenerationChoice::Classic)),
                    ("otel", Some(GenerationChoice::Otel)),
                ],
            ),
            disk_queue: DiskQueue::read(settings),
            tls: ClientTls::read(settings, "output.elasticsearch.ssl"),
        };
        if output.hosts.is_empty() {
            settings.problem(&key("hosts"), "expected at least one host, found an empty list".into(), None);
        }
        if output.api_key.is_some() && (output.username.is_some() || output.password.is_some()) {
            settings.problem(&key("api_key"), "cannot set both api_key and username/password".into(), None);
        }
        if output.backoff_init > output.backoff_max {
            settings.problem(
                &key("backoff.init"),
                "expected at most backoff.max, found a longer pause".into(),
                None,
            );
        }
        output
    }
}

impl DiskQueue {
    fn read(settings: &Settings) -> Option<Self> {
        let sections = ["output.elasticsearch.queue.disk", "queue.disk"];
        if sections.iter().all(|section| settings.has(section)) {
            let message =
                "expected one disk queue, found queue.disk and output.elasticsearch.queue.disk".into();
            settings.problem("queue.disk", message, Some("remove one of the two".into()));
        }
        let section = sections.into_iter().find(|section| settings.has(section))?;
        let queue = Self {
            path: settings.text(&format!("{section}.path"), "/var/lib/everflame/queue").into(),
            max_size: settings.size(&format!("{section}.max_size"), Some(QUEUE_SIZE)).unwrap_or(QUEUE_SIZE),
        };
        if queue.max_size < SMALLEST_QUEUE {
            settings.problem(
                &format!("{section}.max_size"),
                format!("expected at least {SMALLEST_QUEUE}, found {}", queue.max_size),
                None,
            );
        }
        Some(queue)
    }
}
