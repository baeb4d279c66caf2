//! The numbers of one process: counted here, or read where they are kept when somebody looks.
//!
//! Text for Prometheus comes from the exporter's recorder, which is not a global one: every collector of a test has its
//! own numbers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Key, Label, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::names::{Metric, Shape};
use super::process;

const META: Metadata<'static> = Metadata::new("everflame", Level::INFO, None);
/// Upper ends of buckets, in seconds: those of other gRPC servers, so that their pictures fit.
const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// The recorder keeps each duration until it is sorted into its bucket.
const UNSORTED: u64 = 1024;

/// Labels of one number.
type Labels = Vec<(&'static str, String)>;
type Asked = Box<dyn Fn(&mut Answers) + Send + Sync>;

/// All numbers of one process. Clones are the same numbers.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    recorder: PrometheusRecorder,
    page: PrometheusHandle,
    kept: Mutex<BTreeMap<(Metric, Labels), Kept>>,
    asked: Mutex<Vec<Asked>>,
}

/// A number that is kept here.
#[derive(Clone)]
enum Kept {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

/// A number that only grows.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds to it.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Its value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// Durations in buckets.
#[derive(Clone)]
pub struct Histogram {
    buckets: metrics::Histogram,
    page: PrometheusHandle,
    count: Arc<AtomicU64>,
    sum_us: Arc<AtomicU64>,
}

impl Histogram {
    /// Adds one duration.
    pub fn record(&self, time: Duration) {
        self.buckets.record(time.as_secs_f64());
        self.sum_us.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
        if self.count.fetch_add(1, Ordering::Relaxed) % UNSORTED == UNSORTED - 1 {
            // Nobody may ever look at the page, so it is not left to the page.
            self.page.run_upkeep();
        }
    }
}

impl std::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Histogram").field("count", &self.count).finish_non_exhaustive()
    }
}

/// Takes numbers that are kept elsewhere.
#[derive(Debug, Default)]
pub struct Answers(Vec<(Metric, Labels, f64)>);

impl Answers {
    /// One number without labels.
    pub fn put(&mut self, metric: Metric, value: u64) {
        self.put_with(metric, &[], value as f64);
    }

    /// One number with labels.
    pub fn put_with(&mut self, metric: Metric, labels: &[(&'static str, &str)], value: f64) {
        self.0.push((metric, owned(labels), value));
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// The numbers of a process, so far only those that the kernel keeps.
    #[must_use]
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&BUCKETS)
            .expect("the list of buckets is not empty")
            .build_recorder();
        for metric in Metric::ALL {
            let (name, help) = (metric.name().into(), metric.help().into());
            match metric.shape() {
                Shape::Counter => recorder.describe_counter(name, None, help),
                Shape::Gauge => recorder.describe_gauge(name, None, help),
                Shape::Histogram => recorder.describe_histogram(name, None, help),
            }
        }
        let page = recorder.handle();
        let metrics =
            Self(Arc::new(Inner { recorder, page, kept: Mutex::default(), asked: Mutex::default() }));
        metrics.ask(process::answer);
        metrics
    }

    /// A counter to add to. The same metric and labels give the same counter.
    #[must_use]
    pub fn counter(&self, metric: Metric, labels: &[(&'static str, &str)]) -> Counter {
        debug_assert_eq!(metric.shape(), Shape::Counter, "{metric:?}");
        let mut kept = self.0.kept.lock();
        match kept.entry((metric, owned(labels))).or_insert_with(|| Kept::Counter(Counter::default())) {
            Kept::Counter(counter) => counter.clone(),
            Kept::Gauge(_) | Kept::Histogram(_) => Counter::default(),
        }
    }

    /// A gauge to set. The same metric and labels give the same gauge.
    #[must_use]
    pub fn gauge(&self, metric: Metric, labels: &[(&'static str, &str)]) -> Gauge {
        debug_assert_eq!(metric.shape(), Shape::Gauge, "{metric:?}");
        let mut kept = self.0.kept.lock();
        match kept.entry((metric, owned(labels))).or_insert_with(|| Kept::Gauge(Gauge::default())) {
            Kept::Gauge(gauge) => gauge.clone(),
            Kept::Counter(_) | Kept::Histogram(_) => Gauge::default(),
        }
    }

    /// A histogram to record durations in.
    #[must_use]
    pub fn histogram(&self, metric: Metric, labels: &[(&'static str, &str)]) -> Histogram {
        debug_assert_eq!(metric.shape(), Shape::Histogram, "{metric:?}");
        let fresh = || Histogram {
            buckets: self.0.recorder.register_histogram(&key(metric, &owned(labels)), &META),
            page: self.0.page.clone(),
            count: Arc::default(),
            sum_us: Arc::default(),
        };
        let mut kept = self.0.kept.lock();
        match kept.entry((metric, owned(labels))).or_insert_with(|| Kept::Histogram(fresh())) {
            Kept::Histogram(histogram) => histogram.clone(),
            Kept::Counter(_) | Kept::Gauge(_) => fresh(),
        }
    }

    /// Asks `read` each time somebody looks: for numbers that are kept elsewhere. It must not block.
    pub fn ask(&self, read: impl Fn(&mut Answers) + Send + Sync + 'static) {
        self.0.asked.lock().push(Box::new(read));
    }

    /// The page for Prometheus.
    #[must_use]
    pub fn prometheus(&self) -> String {
        for (metric, labels, value) in self.numbers() {
            let key = key(metric, &labels);
            match metric.shape() {
                Shape::Counter => self.0.recorder.register_counter(&key, &META).absolute(value as u64),
                Shape::Gauge => self.0.recorder.register_gauge(&key, &META).set(value),
                Shape::Histogram => {}
            }
        }
        self.0.page.render()
    }

    /// The page in JSON: one flat object, values of labels behind the name.
    #[must_use]
    pub fn json(&self) -> String {
        let mut page = Map::new();
        for (metric, labels, value) in self.numbers() {
            let mut name = metric.name().to_owned();
            for (_, value) in &labels {
                name.extend([".", value]);
            }
            let whole = value.fract() == 0.0 && value.abs() < 2f64.powi(53);
            page.insert(name, if whole { Value::from(value as i64) } else { Value::from(value) });
        }
        for ((metric, _), kept) in &*self.0.kept.lock() {
            if let Kept::Histogram(histogram) = kept {
                let count = histogram.count.load(Ordering::Relaxed);
                let sum = histogram.sum_us.load(Ordering::Relaxed) as f64 / 1e6;
                page.insert(format!("{}.count", metric.name()), count.into());
                page.insert(format!("{}.sum", metric.name()), sum.into());
            }
        }
        Value::Object(page).to_string()
    }

    /// Everything but histograms.
    fn numbers(&self) -> Vec<(Metric, Labels, f64)> {
        let mut answers = Answers::default();
        for read in &*self.0.asked.lock() {
            read(&mut answers);
        }
        for ((metric, labels), kept) in &*self.0.kept.lock() {
            let value = match kept {
                Kept::Counter(counter) => counter.get(),
                Kept::Gauge(gauge) => gauge.0.load(Ordering::Relaxed),
                Kept::Histogram(_) => continue,
            };
            answers.0.push((*metric, labels.clone(), value as f64));
        }
        answers.0
    }
}

fn owned(labels: &[(&'static str, &str)]) -> Labels {
    labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

fn key(metric: Metric, labels: &[(&'static str, String)]) -> Key {
    let labels: Vec<_> = labels.iter().map(|(name, value)| Label::new(*name, value.clone())).collect();
    Key::from_parts(metric.name(), labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line<'a>(page: &'a str, start: &str) -> &'a str {
        page.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no {start} in\n{page}"))
    }

    #[test]
    fn what_is_counted_and_what_is_asked_for_stand_on_both_pages() {
        let metrics = Metrics::new();
        let index = [("index", "profiling-events-all")];
        metrics.counter(Metric::DocumentsWritten, &index).add(3);
        metrics.counter(Metric::DocumentsWritten, &index).add(4);
        metrics.gauge(Metric::BudgetUsedBytes, &[]).set(9);
        metrics.ask(|answers| answers.put_with(Metric::GrpcHandled, &[("grpc_code", "OK")], 5.0));
        let text = metrics.prometheus();
        let name = "collection_agent_indexing_document_count{index=\"profiling-events-all\"}";
        assert_eq!(line(&text, name), format!("{name} 7"));
        assert_eq!(
            line(&text, "grpc_server_handled_total{"),
            "grpc_server_handled_total{grpc_code=\"OK\"} 5"
        );
        assert_eq!(line(&text, "everflame_memory_used_bytes"), "everflame_memory_used_bytes 9");
        assert!(text.contains("# TYPE grpc_server_handled_total counter"), "{text}");
        let json: Value = serde_json::from_str(&metrics.json()).unwrap();
        assert_eq!(json["collection_agent.indexing.document_count.profiling-events-all"], 7);
        assert_eq!(json["grpc_server_handled_total.OK"], 5);
        // Another process's numbers are not these.
        assert!(!Metrics::new().prometheus().contains("grpc_server_handled_total{"));
    }

    #[test]
    fn durations_fall_into_buckets_whether_or_not_anybody_looks() {
        let metrics = Metrics::new();
        let histogram = metrics.histogram(Metric::GrpcHandlingSeconds, &[]);
        for _ in 0..=UNSORTED {
            histogram.record(Duration::from_millis(20));
        }
        histogram.record(Duration::from_mins(1));
        let text = metrics.prometheus();
        let bucket = |end: &str| format!("grpc_server_handling_seconds_bucket{{le=\"{end}\"}}");
        assert!(line(&text, &bucket("0.01")).ends_with(" 0"));
        assert!(line(&text, &bucket("0.025")).ends_with(" 1025"));
        assert!(line(&text, &bucket("10")).ends_with(" 1025"));
        assert!(line(&text, &bucket("+Inf")).ends_with(" 1026"));
        let json: Value = serde_json::from_str(&metrics.json()).unwrap();
        assert_eq!(json["grpc_server_handling_seconds.count"], 1026);
        assert!((json["grpc_server_handling_seconds.sum"].as_f64().unwrap() - 80.5).abs() < 0.01);
    }

    #[test]
    fn the_process_tells_about_itself() {
        let json: Value = serde_json::from_str(&Metrics::new().json()).unwrap();
        for name in
            ["process_resident_memory_bytes", "process_open_fds", "process_max_fds", "process_threads"]
        {
            assert!(json[name].as_f64().is_some_and(|value| value >= 1.0), "{name} in {json}");
        }
        assert!(json["process_cpu_seconds_total"].as_f64().is_some());
        let start = json["process_start_time_seconds"].as_f64().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(start > now - 86_400.0 && start <= now + 1.0, "{start} and {now}");
    }
}
