//! Elasticsearch stopped and started again under load, with a disk queue and without.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use everflame::store::Writer as _;
use everflame::store::elastic::bulk::{Counter, ElasticWriter};
use everflame::store::elastic::queue::DiskQueue;
use tempfile::TempDir;

use crate::elasticsearch::{DEADLINE, Kind, Node, available, free_port};
use crate::scene::{batch, count, output, writer};

const SAMPLES: u64 = 40;
/// Senders at the same time, each with a batch at a time.
const SENDERS: u64 = 4;

/// Seconds without Elasticsearch.
fn outage() -> Duration {
    let seconds = std::env::var("EVERFLAME_OUTAGE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(5))
}

/// What senders of one host have done.
#[derive(Default)]
struct Load {
    number: AtomicU64,
    acknowledged: AtomicU64,
    refused: AtomicU64,
    stop: AtomicBool,
}

/// Sends batch after batch, each once: what is refused is counted and not sent again.
async fn send(writer: Arc<ElasticWriter>, host: &'static str, load: Arc<Load>) {
    while !load.stop.load(Ordering::Relaxed) {
        let number = load.number.fetch_add(1, Ordering::Relaxed);
        match writer.write(batch(host, number, SAMPLES)).await {
            Ok(written) => {
                load.acknowledged.fetch_add(SAMPLES - written.rejected_samples, Ordering::Relaxed);
            }
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                load.refused.fetch_add(SAMPLES, Ordering::Relaxed);
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn set_up(port: u16) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/elasticsearch/server/profiling-setup.sh");
    let output = Command::new(script).arg(format!("http://127.0.0.1:{port}")).output().expect("bash runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn elasticsearch_stopped_under_load_loses_nothing_that_was_acknowledged() {
    if !available("an outage of Elasticsearch") {
        return;
    }
    let (folder, queue_folder, port) = (TempDir::new().unwrap(), TempDir::new().unwrap(), free_port());
    let node = Node::start(Kind::Basic, port, Some(folder.path()));
    set_up(port);
    let (address, url) = (format!("127.0.0.1:{port}"), format!("http://127.0.0.1:{port}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let queue = Arc::new(DiskQueue::open(queue_folder.path(), 1 << 30).unwrap());
        let with = writer(&output(&address), Some(queue.clone())).await;
        let without = writer(&output(&address), None).await;
        let loads: [Arc<Load>; 2] = Default::default();
        let mut senders = Vec::new();
        for _ in 0..SENDERS {
            senders.push(tokio::spawn(send(with.clone(), "with", loads[0].clone())));
            senders.push(tokio::spawn(send(without.clone(), "without", loads[1].clone())));
        }
        let reached = async |load: &Load, samples: u64| {
            let start = Instant::now();
            while load.acknowledged.load(Ordering::Relaxed) < samples {
                assert!(start.elapsed() < DEADLINE, "no progress");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        for load in &loads {
            reached(load, 50 * SAMPLES).await;
        }
        // In the middle of requests.
        tokio::task::spawn_blocking(move || node.stop()).await.unwrap();
        let before = loads[0].acknowledged.load(Ordering::Relaxed);
        tokio::time::sleep(outage()).await;
        assert!(loads[1].refused.load(Ordering::Relaxed) > 0, "nothing was refused");
        assert!(without.problem().is_some(), "it does not know");
        // The one with a queue goes on as if nothing had happened.
        reached(&loads[0], before + 10 * SAMPLES).await;
        let node = tokio::task::spawn_blocking({
            let folder = folder.path().to_owned();
            move || Node::start(Kind::Basic, port, Some(&folder))
        });
        let node = node.await.unwrap();
        let again = loads[1].acknowledged.load(Ordering::Relaxed);
        reached(&loads[1], again + 20 * SAMPLES).await;
        for load in &loads {
            load.stop.store(true, Ordering::Relaxed);
        }
        for sender in senders {
            sender.await.unwrap();
        }
        let sum = |load: &Load| {
            (
                load.acknowledged.load(Ordering::Relaxed),
                load.refused.load(Ordering::Relaxed),
                load.number.load(Ordering::Relaxed) * SAMPLES,
            )
        };
        let (acknowledged, refused, sent) = sum(&loads[0]);
        assert_eq!((acknowledged, refused), (sent, 0), "the queue has to take everything");
        let start = Instant::now();
        let mut stored = 0;
        while stored < sent {
            assert!(start.elapsed() < DEADLINE, "{stored} of {sent} arrived");
            tokio::time::sleep(Duration::from_millis(200)).await;
            stored = count(&url, "with");
        }
        assert_eq!(stored, sent, "with a queue everything arrives once");
        println!("with queue: {sent} sent, {stored} stored");
        let (acknowledged, refused, sent) = sum(&loads[1]);
        let stored = count(&url, "without");
        assert_eq!(acknowledged + refused, sent);
        // An answer that was not heard may have been a success.
        assert!((acknowledged..=sent).contains(&stored), "{acknowledged} acknowledged, {stored} stored");
        assert!(without.counters().get(Counter::RefusedUnavailable) > 0);
        println!("without: {sent} sent, {acknowledged} acknowledged, {refused} refused, {stored} stored");
        with.close().await;
        without.close().await;
        drop(node);
    });
}
