//! The collector over a real Elasticsearch: latency that it adds to an agent's export, and memory under full load.
//!
//! Give the address of an Elasticsearch that is set up with `EVERFLAME_BENCH_ELASTICSEARCH=127.0.0.1:9200`; without it one
//! is started. Minutes of full load: `EVERFLAME_BENCH_MINUTES`, 2 unless said. Senders run in this process too, so memory
//! is that of the collector and of its senders.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench tells what it saw and ends when it cannot go on"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use everflame::collector::{Collector, Config, Ingest};
use everflame::config::{ElasticsearchOutput, HostPort};
use everflame::model::{Batch, UnixNanos};
use everflame::net::{Budget, Limits, Shutdown};
use everflame::store::elastic::Client;
use everflame::store::elastic::bulk::{Counter, ElasticWriter};
use everflame::telemetry::Metrics;
use everflame::wire::otlp::{Client as Sender, ClientOptions, decode, encode};
use parking_lot::Mutex;

/// Pause between exports of one connection while latency is measured: agents report every five seconds, so 500 of them
/// send 100 exports a second.
const CALM: Duration = Duration::from_secs(5);
/// Time of one measurement of latency.
const MEASURED: Duration = Duration::from_secs(30);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Elasticsearch of this bench; ended with it.
struct Server {
    child: Option<Child>,
    address: String,
}

impl Server {
    fn start() -> Self {
        if let Ok(address) = std::env::var("EVERFLAME_BENCH_ELASTICSEARCH") {
            return Self { child: None, address };
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let scripts = root().join("tests/elasticsearch/server");
        let mut child = Command::new(scripts.join("run.sh"))
            .arg(port.to_string())
            .env("ES_FOLLOW_STDIN", "1")
            .env("ES_KEEP_DATA", "0")
            .env("ES_FAST_START", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
        assert!(
            lines.map_while(Result::ok).any(|line| line.starts_with("READY ")),
            "Elasticsearch did not start"
        );
        let address = format!("127.0.0.1:{port}");
        let set_up = Command::new(scripts.join("profiling-setup.sh"))
            .arg(format!("http://{address}"))
            .output()
            .unwrap();
        assert!(set_up.status.success(), "{}", String::from_utf8_lossy(&set_up.stderr));
        Self { child: Some(child), address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

/// The captures, small and large, C, Go, Node.js and Python.
fn captures() -> Vec<Batch> {
    let folder = root().join("tests/data/otlp");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .flat_map(|path| {
            std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "pb"))
        .collect();
    paths.sort();
    paths.iter().filter_map(|path| Some(decode(&std::fs::read(path).unwrap()).ok()?.batch)).collect()
}

/// One export of a capture, as if it had been taken at another time: its events are new.
fn export(captures: &[Batch], number: u64) -> (Bytes, u64) {
    let mut batch = captures[number as usize % captures.len()].clone();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let first = batch.times.iter().map(|time| time.0).min().unwrap_or_default();
    for time in &mut batch.times {
        *time = UnixNanos(now + number + (time.0 - first));
    }
    (encode(&batch).messages.remove(0).into(), batch.sample_count())
}

/// What senders have seen.
#[derive(Default)]
struct Seen {
    latencies: Mutex<Vec<Duration>>,
    samples: AtomicU64,
    refused: AtomicU64,
}

/// `connections` senders, each with one export at a time and `pause` between them.
async fn load(
    address: &str,
    connections: u64,
    pause: Duration,
    time: Duration,
    captures: &Arc<Vec<Batch>>,
) -> Arc<Seen> {
    let seen = Arc::new(Seen::default());
    let end = Instant::now() + time;
    let senders = (0..connections).map(|number| {
        let (seen, captures, address) = (seen.clone(), captures.clone(), address.to_owned());
        tokio::spawn(async move {
            let options =
                ClientOptions { address, export_time: Duration::from_mins(1), ..ClientOptions::default() };
            let sender = Sender::new(&options).unwrap();
            // Spread over the first pause.
            tokio::time::sleep(pause.mul_f64(number as f64 / connections as f64)).await;
            let mut turn = number;
            while Instant::now() < end {
                let (message, samples) = export(&captures, turn);
                turn += connections;
                let start = Instant::now();
                if sender.send(message).await.is_ok() {
                    seen.samples.fetch_add(samples, Ordering::Relaxed);
                    seen.latencies.lock().push(start.elapsed());
                } else {
                    seen.refused.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                tokio::time::sleep(pause.saturating_sub(start.elapsed())).await;
            }
        })
    });
    for sender in senders.collect::<Vec<_>>() {
        sender.await.unwrap();
    }
    seen
}

fn tell(what: &str, seen: &Seen) {
    let mut latencies = seen.latencies.lock();
    latencies.sort_unstable();
    let at = |share: f64| {
        latencies.get(((latencies.len() as f64 * share) as usize).min(latencies.len().saturating_sub(1)))
    };
    println!(
        "{what}: {} exports, p50 {:.1?}, p99 {:.1?}, {} refused",
        latencies.len(),
        at(0.5).copied().unwrap_or_default(),
        at(0.99).copied().unwrap_or_default(),
        seen.refused.load(Ordering::Relaxed)
    );
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn main() {
    // `cargo test --benches` only wants to know that it starts.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let minutes: u64 =
        std::env::var("EVERFLAME_BENCH_MINUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let server = Server::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let output =
            ElasticsearchOutput { hosts: vec![server.address.clone()], ..ElasticsearchOutput::default() };
        let writer = ElasticWriter::start(&output, Arc::new(Client::new(&output).unwrap()), None);
        while writer.shape().is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let ingest = Arc::new(Ingest::new(writer.clone()));
        let config = Config {
            listen: HostPort::new("127.0.0.1", 0),
            token: None,
            tls: None,
            limits: Limits::default(),
            budget: Budget::new(512 << 20),
        };
        let collector =
            Collector::bind(&config, ingest.clone(), Some(writer.clone()), &Metrics::new()).await.unwrap();
        let (address, shutdown) = (collector.address().to_string(), Shutdown::new());
        let serving = tokio::spawn(collector.serve(shutdown.clone()));
        let captures = Arc::new(captures());
        // Stack traces and names are written once; then there are only events, as in a fleet that has run for a while.
        load(&address, 4, Duration::ZERO, Duration::from_secs(10), &captures).await;

        for connections in [1, 500] {
            let seen = load(
                &address,
                connections,
                if connections == 1 { Duration::from_millis(100) } else { CALM },
                MEASURED,
                &captures,
            )
            .await;
            tell(&format!("{connections} connections, calm"), &seen);
        }
        println!("full load, {minutes} min, 32 connections:");
        let start = Instant::now();
        let watching = tokio::spawn(async move {
            let mut seen = Vec::new();
            loop {
                tokio::time::sleep(Duration::from_secs(10)).await;
                seen.push(resident());
                println!(
                    "  after {:>3} s: {} MiB resident",
                    start.elapsed().as_secs(),
                    seen[seen.len() - 1] >> 20
                );
            }
        });
        let seen = load(&address, 32, Duration::ZERO, Duration::from_secs(60 * minutes), &captures).await;
        watching.abort();
        tell("32 connections, full load", &seen);
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "  {:.0} samples/s; what Elasticsearch takes on this machine is the limit",
            seen.samples.load(Ordering::Relaxed) as f64 / seconds
        );
        for counter in Counter::ALL {
            println!("  {}: {}", counter.name(), writer.counters().get(counter));
        }
        shutdown.cancel();
        serving.await.unwrap();
        writer.close().await;
    });
}
