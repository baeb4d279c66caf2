//! A real Elasticsearch for the tests of one binary: one server of each [`Kind`], started when first asked for and shared.
//!
//! The names of what everflame writes are fixed, so tests take turns: [`Cluster::take`] waits for the server, empties it and
//! keeps others away until it is dropped. Where no server can be had, the test says so through `cannot_run`.
//!
//! ```ignore
//! #[path = "../elasticsearch/mod.rs"]
//! mod elasticsearch;
//! let Some(cluster) = Cluster::take("a set-up on a fresh cluster", Kind::Basic) else { return };
//! cluster.put("/_cluster/settings", &json!({…}));
//! ```

#![allow(
    dead_code,
    clippy::print_stderr,
    reason = "shared by several test binaries, each uses a part; tests tell what they do"
)]

#[path = "../scenes/http.rs"]
pub(crate) mod http;
mod node;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};

pub(crate) use node::{Kind, Node, available, free_port};

/// How long a condition may take before the test fails.
pub(crate) const DEADLINE: Duration = Duration::from_mins(2);

/// Component template by which tests have one shard where Elastic's templates have 4 or 16: each shard costs time.
const FEW_SHARDS: &str = "profiling-ilm@custom";

/// Servers of this process by kind. They are never dropped: they end with the process.
static SERVERS: [Mutex<Option<Node>>; 3] = [const { Mutex::new(None) }; 3];

/// A clean cluster that nobody else uses.
pub(crate) struct Cluster {
    node: MutexGuard<'static, Option<Node>>,
    kind: Kind,
}

/// An answer of any status.
#[derive(Debug)]
pub(crate) struct Answer {
    /// HTTP status.
    pub(crate) status: u16,
    /// Body; null when it is no JSON.
    pub(crate) body: Value,
}

impl Cluster {
    /// Waits for the turn on the server of this kind, starts it where that has not happened yet, and empties it.
    pub(crate) fn take(test: &str, kind: Kind) -> Option<Self> {
        if !available(test) {
            return None;
        }
        let mut node = SERVERS[kind as usize].lock();
        if node.is_none() {
            *node = Some(Node::start(kind, free_port(), None));
        }
        let cluster = Self { node, kind };
        cluster.clean();
        Some(cluster)
    }

    /// `127.0.0.1:port`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.node.as_ref().expect("a started server").port)
    }

    /// `http://127.0.0.1:port`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// What the server was started as.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// One call as the user `elastic`, any status.
    pub(crate) fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        self.send(method, path, "application/json", &bytes)
    }

    /// One call with any body.
    pub(crate) fn send(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> Answer {
        let login = self
            .kind
            .password()
            .map(|password| format!("Basic {}", BASE64_STANDARD.encode(format!("elastic:{password}"))));
        self.send_as(login.as_deref(), method, path, content_type, body)
    }

    /// One call with this `Authorization` header, for example `ApiKey …`.
    pub(crate) fn send_as(
        &self,
        authorization: Option<&str>,
        method: &str,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> Answer {
        let address = self.address();
        let mut headers = vec![("Host", address.as_str()), ("Content-Type", content_type)];
        headers.extend(authorization.map(|value| ("Authorization", value)));
        let answer = http::request(&address, method, path, &headers, body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        Answer { status: answer.status, body: serde_json::from_str(&answer.body).unwrap_or(Value::Null) }
    }

    /// One call that has to succeed.
    pub(crate) fn must(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let answer = self.call(method, path, body);
        assert!(answer.status < 300, "{method} {path}: {} {}", answer.status, answer.body);
        answer.body
    }

    /// GET that has to succeed.
    pub(crate) fn get(&self, path: &str) -> Value {
        self.must("GET", path, None)
    }

    /// PUT that has to succeed.
    pub(crate) fn put(&self, path: &str, body: &Value) -> Value {
        self.must("PUT", path, Some(body))
    }

    /// Makes everything written so far visible to searches.
    pub(crate) fn refresh(&self) {
        self.must("POST", "/_all/_refresh?expand_wildcards=all", None);
    }

    /// Documents that a search finds, after a refresh; 0 where the name does not exist.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let refresh = self.call("POST", &format!("/{name}/_refresh"), None);
        if refresh.status == 404 {
            return 0;
        }
        self.get(&format!("/{name}/_count"))["count"].as_u64().expect("a count")
    }

    /// Documents with their IDs and sources, at most 10,000, after a refresh.
    pub(crate) fn documents(&self, name: &str) -> Vec<Value> {
        self.must("POST", &format!("/{name}/_refresh"), None);
        let found = self.must("POST", &format!("/{name}/_search"), Some(&json!({ "size": 10_000 })));
        found["hits"]["hits"].as_array().expect("hits").clone()
    }

    /// Elastic's own profiling templates, streams and indices, as its plugin creates them.
    pub(crate) fn set_up_by_elastic(&self) {
        assert_eq!(self.kind.password(), None, "the script does not log in");
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/elasticsearch/server/profiling-setup.sh");
        let output = Command::new(script).args([&self.url(), "--full"]).output().expect("bash runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// An API key with these role descriptors, in the encoded form.
    pub(crate) fn api_key(&self, name: &str, roles: &Value) -> String {
        let key = self.must(
            "POST",
            "/_security/api_key",
            Some(&json!({ "name": name, "role_descriptors": roles })),
        );
        key["encoded"].as_str().expect("an encoded key").to_owned()
    }

    /// Everything that a set-up or a test leaves behind. Blocks go first: they also keep indices from being deleted.
    fn clean(&self) {
        let settings = json!({ "persistent": { "*": null }, "transient": { "*": null } });
        self.put("/_cluster/settings", &settings);
        let names = "profiling-*,.profiling-*,profiles-*,everflame-*,test-*";
        let blocks = json!({ "index.blocks.read_only": null, "index.blocks.read_only_allow_delete": null, "index.blocks.write": null });
        self.forgiving("PUT", &format!("/{names}/_settings?expand_wildcards=all"), Some(&blocks));
        for stream in ["profiling-*", "profiles-*", "everflame-*", "test-*"] {
            self.forgiving("DELETE", &format!("/_data_stream/{stream}?expand_wildcards=all"), None);
        }
        self.forgiving("DELETE", &format!("/{names}?expand_wildcards=all"), None);
        for part in ["profiling*", "everflame*", "test*"] {
            self.forgiving("DELETE", &format!("/_index_template/{part}"), None);
            self.forgiving("DELETE", &format!("/_component_template/{part}"), None);
        }
        for policy in self.get("/_ilm/policy").as_object().into_iter().flatten().map(|(name, _)| name) {
            if ["profiling", "everflame", "test"].iter().any(|start| policy.starts_with(start)) {
                self.forgiving("DELETE", &format!("/_ilm/policy/{policy}"), None);
            }
        }
        // The hook that operators have for the same.
        let one = json!({ "template": { "settings": { "index": { "number_of_shards": 1 } } } });
        self.put(&format!("/_component_template/{FEW_SHARDS}"), &one);
        if self.kind.password().is_some() {
            let own = json!({ "username": "elastic", "realm_name": "reserved" });
            self.forgiving("DELETE", "/_security/api_key", Some(&own));
        }
    }

    /// Lets templates decide on the number of shards, as in production: some 130 instead of 25.
    pub(crate) fn with_all_shards(&self) {
        self.forgiving("DELETE", &format!("/_component_template/{FEW_SHARDS}"), None);
    }

    /// A call that may find nothing to do.
    fn forgiving(&self, method: &str, path: &str, body: Option<&Value>) {
        let answer = self.call(method, path, body);
        let fine = answer.status < 300 || answer.status == 404;
        assert!(fine, "{method} {path}: {} {}", answer.status, answer.body);
    }
}

/// Waits until a condition holds; fails with what was waited for.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "{what} took longer than {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
