//! One list of questions for both engines: the embedded store and a real Elasticsearch are given the same exports, are
//! asked the same over the routes of the page, and must give the same answers. What the answers must hold stands in
//! `tests/contract/*.yaml`; those numbers were counted in the documents that another exporter made of the exports.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use everflame::collector::mapping;
use everflame::config::{CollectorSection, ElasticsearchOutput, Environment, Layers, OutputSection, resolve};
use everflame::model::{Resource, UnixNanos};
use everflame::net::HostGuard;
use everflame::store::elastic::setup::{Options, Plan};
use everflame::store::elastic::{Client, ElasticReader, Encoder, Generation, Shape};
use everflame::store::embedded::{EmbeddedStore, Settings};
use everflame::store::{Documents, Reader, Writer as _};
use everflame::web::{PageOnly, Parts, WebState, router};
use http::{Request, header};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::Value;
use tower::ServiceExt as _;

use crate::elasticsearch::{Cluster, Kind};

/// When the exports are written, some minutes after the last sample.
const NOW: UnixNanos = UnixNanos::from_millis(1_795_265_000_000);

/// A file of questions.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    /// What is written, in order.
    exports: Vec<Export>,
    /// What is asked.
    questions: Vec<Question>,
}

/// All exports of a folder.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Export {
    /// Folder of `tests/data/otlp`.
    folder: String,
    /// Attributes that every resource gets.
    #[serde(default)]
    resource: BTreeMap<String, String>,
}

impl Export {
    /// Sets the attributes as a processor on the way would.
    fn adorn(&self, resource: &mut Resource) {
        for (name, value) in &self.resource {
            let value: Arc<str> = value.as_str().into();
            match name.as_str() {
                "host.id" => resource.host_id = value,
                "host.name" => resource.host_name = value,
                "container.id" => resource.container_id = value,
                "container.name" => resource.container_name = value,
                "k8s.pod.name" => resource.pod_name = value,
                "k8s.namespace.name" => resource.namespace_name = value,
                "service.name" => resource.service_name = value,
                other => resource.others.push((other.into(), value)),
            }
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    /// Address of a `GET`, or of a `POST` with `body`.
    ask: String,
    /// JSON body.
    body: Option<Value>,
    /// Expected status.
    #[serde(default = "ok")]
    status: u16,
    /// Expected values by JSON pointer.
    #[serde(default)]
    expect: BTreeMap<String, Value>,
    /// Fields that differ between engines, by name.
    #[serde(default)]
    differs: Vec<String>,
}

fn ok() -> u16 {
    200
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn scenarios() -> Vec<(String, Scenario)> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder("contract")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        (name.clone(), serde_yaml_ng::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}")))
    };
    let scenarios: Vec<(String, Scenario)> = files.into_iter().map(read).collect();
    // One set of documents for all, so that a cluster is filled once.
    assert!(scenarios.iter().all(|(_, scenario)| scenario.exports == scenarios[0].1.exports));
    scenarios
}

/// Documents of every export, as the collector makes them.
fn documents(scenario: &Scenario) -> Vec<Documents> {
    let mut all = Vec::new();
    for export in &scenario.exports {
        let mut files: Vec<PathBuf> = std::fs::read_dir(folder("data/otlp").join(&export.folder))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "pb"))
            .collect();
        files.sort();
        for file in files {
            let mut decoded = everflame::wire::otlp::decode(&std::fs::read(&file).unwrap()).unwrap();
            decoded.batch.resources.iter_mut().for_each(|resource| export.adorn(resource));
            all.push(mapping::documents(&decoded.batch).documents);
        }
    }
    all
}

/// The routes of the page over one engine.
struct Engine {
    name: String,
    router: axum::Router,
}

impl Engine {
    fn new(name: &str, reader: Arc<dyn Reader>) -> Self {
        let parts = Parts {
            reader,
            roles: Arc::new(PageOnly),
            clock: Arc::new(|| NOW),
            guard: HostGuard::default(),
            token: None,
            max_queries: 2,
        };
        Self { name: name.to_owned(), router: router(WebState::new(parts)) }
    }

    async fn ask(&self, question: &Question) -> (u16, Value) {
        let method = if question.body.is_some() { "POST" } else { "GET" };
        let body = question.body.as_ref().map(Value::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(question.ask.replace(' ', "%20").replace('"', "%22"))
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body))
            .unwrap();
        let (parts, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes);
        let value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}: {text}", question.ask));
        (parts.status.as_u16(), value)
    }
}

/// An embedded store that holds the documents, in a folder that lives as long.
async fn embedded(documents: &[Documents]) -> (Engine, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { retain_for: None, clock: Arc::new(|| NOW), ..Settings::new(folder.path()) };
    let store = EmbeddedStore::open(settings).unwrap();
    for batch in documents {
        store.write(batch.clone()).await.unwrap();
    }
    (Engine::new("embedded", Arc::new(store)), folder)
}

/// Writes the documents to a cluster in the shape of a generation.
fn fill(cluster: &Cluster, shape: Shape, documents: &[Documents]) {
    let encoder = Encoder::new(shape, 7);
    for batch in documents {
        let body = encoder.encode(batch, NOW).bytes;
        let answer = cluster.send("POST", "/_bulk", "application/x-ndjson", &body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        for item in answer.body["items"].as_array().unwrap() {
            let status = item.as_object().unwrap().values().next().unwrap()["status"].as_u64().unwrap();
            // Documents that are there already are sent again: nothing here remembers what was sent.
            assert!(status < 300 || status == 409, "{item}");
        }
    }
    cluster.refresh();
}

fn client(cluster: &Cluster) -> Arc<Client> {
    Arc::new(Client::new(&output(cluster)).unwrap())
}

fn output(cluster: &Cluster) -> ElasticsearchOutput {
    let settings = Layers::new(Environment::default())
        .overrides([format!("output.elasticsearch.hosts={}", cluster.url()).as_str()])
        .settings();
    let section: CollectorSection = resolve(&settings).unwrap_or_else(|problems| panic!("{problems}"));
    match section.output {
        OutputSection::Elasticsearch(output) => *output,
        OutputSection::Embedded(_) => panic!("another output was set"),
    }
}

/// Where two answers differ. CPU times are sums of parts that are rounded down engine by engine.
fn differences(a: &Value, b: &Value, place: &str, ignored: &[String], found: &mut Vec<String>) {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            for name in a.keys().chain(b.keys().filter(|name| !a.contains_key(*name))) {
                if !ignored.contains(name) {
                    let (a, b) = (a.get(name), b.get(name));
                    let null = &Value::Null;
                    differences(
                        a.unwrap_or(null),
                        b.unwrap_or(null),
                        &format!("{place}/{name}"),
                        ignored,
                        found,
                    );
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                differences(a, b, &format!("{place}/{i}"), ignored, found);
            }
        }
        (Value::Number(a), Value::Number(b))
            if place.ends_with("cpu_ns")
                && a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| (a - b).abs() < 1000.0) => {}
        _ if a == b => {}
        _ => {
            let short = |value: &Value| value.to_string().chars().take(120).collect::<String>();
            found.push(format!("{place}: {} against {}", short(a), short(b)));
        }
    }
}

/// Asks every question of every engine.
async fn compare(file: &str, scenario: &Scenario, engines: &[Engine]) {
    let mut wrong = Vec::new();
    for question in &scenario.questions {
        let mut first: Option<Value> = None;
        for engine in engines {
            let (status, answer) = engine.ask(question).await;
            let place = format!("{file}: {} on {}", question.ask, engine.name);
            if status != question.status {
                wrong.push(format!("{place}: status {status}: {answer}"));
                continue;
            }
            for (pointer, expected) in &question.expect {
                let found = answer.pointer(pointer).unwrap_or(&Value::Null);
                if found != expected {
                    wrong.push(format!("{place}: {pointer}: expected {expected}, found {found}"));
                }
            }
            match &first {
                None => first = Some(answer),
                Some(first) => {
                    let mut found = Vec::new();
                    differences(first, &answer, "", &question.differs, &mut found);
                    found.truncate(5);
                    wrong.extend(found.into_iter().map(|what| format!("{place}: {what}")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_answers_as_the_contract_says() {
    for (file, scenario) in scenarios() {
        let (engine, _folder) = embedded(&documents(&scenario)).await;
        compare(&file, &scenario, &[engine]).await;
    }
}

/// Who has prepared the cluster.
#[derive(Clone, Copy, Debug)]
enum SetUp {
    /// Elastic's own templates, under which some fields have to be read from the documents.
    Elastic,
    /// `everflame setup`.
    Ours(Generation),
}

fn over(kind: Kind, set_up: SetUp) {
    let Some(cluster) = Cluster::take("the contract over Elasticsearch", kind) else { return };
    let client = client(&cluster);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let generation = match set_up {
            SetUp::Elastic => {
                cluster.set_up_by_elastic();
                Generation::Classic
            }
            SetUp::Ours(generation) => {
                let options = Options { generation: Some(generation), ..Options::default() };
                let plan = Plan::make(&client, options).await.unwrap();
                plan.apply(&client, |_, _| ()).await.unwrap();
                generation
            }
        };
        let scenarios = scenarios();
        let documents = documents(&scenarios[0].1);
        fill(&cluster, Shape::of(generation), &documents);
        for (file, mut scenario) in scenarios {
            if generation == Generation::Otel {
                // Which documents are meant is said in the request.
                let bodies = scenario.questions.iter_mut().filter_map(|q| q.body.as_mut()?.as_object_mut());
                bodies.for_each(|body| drop(body.insert("schema".into(), "otel".into())));
            }
            let (embedded, _folder) = embedded(&documents).await;
            let reader = ElasticReader::new(client.clone(), None);
            let elastic = Engine::new(&format!("Elasticsearch, {kind:?}, {set_up:?}"), Arc::new(reader));
            compare(&file, &scenario, &[embedded, elastic]).await;
        }
    });
}

#[test]
fn elasticsearch_with_stored_sources_answers_like_the_embedded_store() {
    over(Kind::Basic, SetUp::Elastic);
}

#[test]
fn elasticsearch_with_synthetic_sources_answers_like_the_embedded_store() {
    over(Kind::Trial, SetUp::Elastic);
}

#[test]
fn a_cluster_set_up_by_everflame_answers_like_the_embedded_store() {
    over(Kind::Basic, SetUp::Ours(Generation::Classic));
}

#[test]
fn documents_of_the_second_generation_answer_like_the_embedded_store() {
    over(Kind::Trial, SetUp::Ours(Generation::Otel));
}
