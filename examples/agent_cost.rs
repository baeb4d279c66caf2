//! Runs the agent on this machine for a while and says what it cost and what it saw. Needs root.
//!
//! `cargo run --profile profiling --example agent_cost -- SECONDS HZ`
#![allow(clippy::print_stdout, reason = "it is what this program is for")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use everflame::agent::reporter::{ReportError, Sink};
use everflame::agent::{Agent, Settings};
use everflame::model::{Batch, FrameKind};
use everflame::net::Shutdown;
use parking_lot::Mutex;

/// What was seen.
#[derive(Default)]
struct Seen(Mutex<Totals>);

/// Samples by mark at the root, and all and complete ones by process.
type Totals = (HashMap<String, u64>, HashMap<String, (u64, u64)>);

#[async_trait]
impl Sink for Seen {
    async fn report(&self, batch: &Batch) -> Result<(), ReportError> {
        let mut seen = self.0.lock();
        for sample in &batch.samples {
            let count = u64::from(sample.times.end - sample.times.start);
            let root = batch.stack(sample.stack).last().map(|frame| &batch.frames[*frame as usize]);
            let mark = root
                .filter(|root| root.kind == FrameKind::ABORT)
                .map(|root| root.lines[0].function.to_string());
            let resource = batch.profiles[sample.profile as usize].resource as usize;
            let process = seen.1.entry(batch.resources[resource].executable_name.to_string()).or_default();
            process.0 += count;
            process.1 += if mark.is_none() { count } else { 0 };
            let mark = mark.map(|mark| format!("{mark} of {}", batch.resources[resource].executable_name));
            *seen.0.entry(mark.unwrap_or_else(|| "complete".into())).or_default() += count;
        }
        Ok(())
    }
}

/// CPU time of each thread of this process in milliseconds.
fn threads() -> Vec<(String, u64)> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let cost = |task: std::fs::DirEntry| {
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let runs = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        Some((name.trim().to_owned(), runs.split(' ').next()?.parse::<u64>().ok()? / 1_000_000))
    };
    tasks.filter_map(cost).collect()
}

#[tokio::main(worker_threads = 1)]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default| arguments.next().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (seconds, frequency_hz) = (number(10), number(20));
    let seen = Arc::new(Seen::default());
    let start = Instant::now();
    let settings = Settings { frequency_hz, ..Settings::default() };
    let agent = Agent::build(settings, Arc::clone(&seen) as Arc<dyn Sink>)?;
    println!("ticking after {:?}", start.elapsed());
    let shutdown = Shutdown::new();
    let handle = agent.spawn(shutdown.clone())?;
    tokio::time::sleep(Duration::from_secs(u64::from(seconds))).await;
    println!("threads, CPU ms: {:?}", threads());
    let status = handle.status();
    shutdown.cancel();
    handle.joined().await?;
    let status = status.get();
    println!("{status:#?}");
    let seen = seen.0.lock();
    let mut marks: Vec<_> = seen.0.iter().collect();
    marks.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    marks.iter().take(25).for_each(|(mark, count)| println!("{count:8} {mark}"));
    let mut processes: Vec<_> = seen.1.iter().collect();
    processes.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.0));
    processes.iter().take(15).for_each(|(name, (all, complete))| println!("{all:8} {complete:8} {name}"));
    Ok(())
}
