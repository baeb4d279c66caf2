//! The whole agent on this machine: known programs, their true stacks, and the balance of every tick.
#![cfg(feature = "agent")]
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, reason = "a test")]

mod cannot_run;
#[path = "agent/jit.rs"]
mod jit;
#[path = "agent/processes.rs"]
mod processes;
#[path = "agent/storm.rs"]
mod storm;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cannot_run::cannot_run;
use everflame::agent::reporter::{ReportError, Sink};
use everflame::agent::{Agent, AgentStatus, Ceilings, Error, Filter, Settings, StatusReader};
use everflame::model::{Batch, FileId, UnixNanos};
use everflame::net::Shutdown;
use parking_lot::Mutex;

/// Keeps everything.
#[derive(Default)]
struct Keep(Mutex<Vec<Batch>>);

#[async_trait]
impl Sink for Keep {
    async fn report(&self, batch: &Batch) -> Result<(), ReportError> {
        assert!(batch.check(), "agents build valid batches");
        self.0.lock().push(batch.clone());
        Ok(())
    }
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the agent for as long as `meanwhile` takes. `None` where the machine does not allow it, which is said.
fn profile(frequency_hz: u32, meanwhile: impl FnOnce(&StatusReader)) -> Option<(Vec<Batch>, AgentStatus)> {
    profile_with(Settings { frequency_hz, ..Settings::default() }, meanwhile)
}

fn profile_with(
    settings: Settings,
    meanwhile: impl FnOnce(&StatusReader),
) -> Option<(Vec<Batch>, AgentStatus)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _inside = runtime.enter();
    let sink = Arc::new(Keep::default());
    let settings = Settings { report_interval: Duration::from_secs(1), ..settings };
    let agent = match Agent::build(settings, Arc::clone(&sink) as Arc<dyn Sink>) {
        Ok(agent) => agent,
        Err(error @ Error::Privilege(_)) => {
            cannot_run("the whole agent", &error.to_string());
            return None;
        }
        Err(error) => panic!("{error} ({:?})", error.hint()),
    };
    let shutdown = Shutdown::new();
    let handle = agent.spawn(shutdown.clone()).unwrap();
    let status = handle.status();
    meanwhile(&status);
    shutdown.cancel();
    runtime.block_on(handle.joined()).unwrap();
    let batches = std::mem::take(&mut *sink.0.lock());
    Some((batches, status.get()))
}

fn now() -> UnixNanos {
    UnixNanos(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64)
}

/// Waits until the tables of what runs now are there: in an unoptimised build that takes a while.
fn tables_are_built(status: &StatusReader) {
    let deadline = Instant::now() + Duration::from_mins(2);
    let mut calm = 0;
    while calm < 3 {
        std::thread::sleep(Duration::from_millis(500));
        calm = if counter(&status.get(), "tables_pending") == 0 { calm + 1 } else { 0 };
        assert!(Instant::now() < deadline, "{:#?}", status.get());
    }
}

fn counter(status: &AgentStatus, name: &str) -> u64 {
    status.counters.iter().find(|(found, _)| *found == name).unwrap_or_else(|| panic!("no counter {name}")).1
}

fn compile(directory: &Path, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(path.with_extension("c"), source).unwrap();
    let status =
        Command::new("cc").arg("-o").arg(&path).arg(path.with_extension("c")).args(flags).status().unwrap();
    assert!(status.success());
    path
}

/// Samples of one process: stacks as function names or marks, leaf first, with counts.
fn stacks(
    batches: &[Batch],
    pid: u32,
    from: UnixNanos,
    names: &HashMap<FileId, Vec<(u64, u64, String)>>,
) -> HashMap<Vec<String>, u64> {
    let mut stacks = HashMap::new();
    for batch in batches {
        for sample in &batch.samples {
            let profile = batch.profiles[sample.profile as usize];
            if batch.resources[profile.resource as usize].pid != pid {
                continue;
            }
            let name = |index: &u32| {
                let frame = &batch.frames[*index as usize];
                if let Some(line) = frame.lines.first() {
                    return format!("{}:{}", frame.kind.otlp_name(), line.function);
                }
                let executable = frame.executable.map(|executable| &batch.executables[executable as usize]);
                let symbols = executable.and_then(|executable| names.get(&executable.file_id?));
                let symbol = symbols.and_then(|symbols| {
                    symbols.iter().find(|(start, size, _)| (*start..start + size).contains(&frame.address))
                });
                match (symbol, executable) {
                    (Some((.., name)), _) => name.clone(),
                    (None, Some(executable)) => format!("{}+{:#x}", executable.name, frame.address),
                    (None, None) => format!("{:#x}", frame.address),
                }
            };
            let stack: Vec<String> = batch.stack(sample.stack).iter().map(name).collect();
            *stacks.entry(stack).or_default() +=
                batch.times_of(sample).iter().filter(|time| **time >= from).count() as u64;
        }
    }
    stacks.retain(|_, count| *count > 0);
    stacks
}

/// Functions of an executable by `nm`: start, size, name.
fn functions(path: &Path) -> Vec<(u64, u64, String)> {
    let output = Command::new("nm").args(["-S", "--defined-only"]).arg(path).output().unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let [start, size, "t" | "T", name] = fields[..] else { return None };
            Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(size, 16).ok()?, name.to_owned()))
        })
        .collect()
}

fn file_id(path: &Path) -> FileId {
    everflame::symbols::file_id::of_bytes(&std::fs::read(path).unwrap())
}

/// A chain of twelve functions, each with a frame of another size and no frame pointer.
const CHAIN: &str = r"
#include <stdint.h>
volatile uint64_t sum;
__attribute__((noinline)) uint64_t f0(uint64_t n) { for (uint64_t i = 0; i < 20000; i++) sum += i * n; return sum; }
#define LINK(name, callee, bytes) \
    __attribute__((noinline)) uint64_t name(uint64_t n) { \
        volatile char room[bytes]; \
        room[n % 8] = 1; \
        uint64_t result = callee(n + 1); \
        return result + room[n % 8]; \
    }
LINK(f1, f0, 8) LINK(f2, f1, 64) LINK(f3, f2, 24) LINK(f4, f3, 200) LINK(f5, f4, 16) LINK(f6, f5, 1000)
LINK(f7, f6, 40) LINK(f8, f7, 9) LINK(f9, f8, 333) LINK(f10, f9, 72) LINK(f11, f10, 88)
int main(void) { for (;;) f11(1); }
";

#[test]
fn stacks_of_a_program_without_frame_pointers_are_true_and_every_tick_is_accounted_for() {
    let directory = tempfile::tempdir().unwrap();
    let program = compile(directory.path(), "chain", CHAIN, &["-O2", "-fomit-frame-pointer"]);
    let running = Ended(Command::new(&program).stdin(Stdio::null()).spawn().unwrap());
    let pid = running.0.id();
    let mut late_pid = 0;
    let mut from = UnixNanos::default();
    let Some((batches, status)) = profile(97, |status| {
        tables_are_built(status);
        from = now();
        std::thread::sleep(Duration::from_secs(2));
        // One that starts while the agent runs.
        let late = Ended(Command::new(&program).stdin(Stdio::null()).spawn().unwrap());
        late_pid = late.0.id();
        std::thread::sleep(Duration::from_secs(3));
    }) else {
        return;
    };
    drop(running);
    println!("{status:#?}");

    // Balance: every tick is stored or counted as dropped, and nothing is on its way.
    let dropped: u64 =
        status.counters.iter().filter(|(name, _)| name.starts_with("dropped.")).map(|(_, value)| value).sum();
    assert_eq!(counter(&status, "ticks"), counter(&status, "stored") + dropped);
    assert_eq!(counter(&status, "stored"), batches.iter().map(Batch::sample_count).sum::<u64>());
    assert_eq!(dropped, 0);
    assert!(!status.running);

    let names = HashMap::from([(file_id(&program), functions(&program))]);
    let chain: Vec<String> = (0..12).map(|level| format!("f{level}")).chain(["main".into()]).collect();
    for pid in [pid, late_pid] {
        let stacks = stacks(&batches, pid, from, &names);
        let total: u64 = stacks.values().sum();
        let (mut whole, mut marked) = (0, 0);
        for (stack, count) in &stacks {
            let user: Vec<&String> = stack.iter().filter(|frame| !frame.starts_with("kernel:")).collect();
            let entry = user.last().is_some_and(|frame| *frame == "_start");
            // Any part of the chain may be the leaf; from there on it must be whole.
            let from = user.first().and_then(|leaf| chain.iter().position(|name| name == *leaf));
            let right = from.is_some_and(|from| {
                user.len() > chain.len() - from && user.iter().zip(&chain[from..]).all(|(a, b)| *a == b)
            });
            if right && entry {
                whole += count;
            } else {
                println!("{count} × {stack:?}");
                marked += if stack.last().is_some_and(|root| root.starts_with("abort-marker:")) {
                    *count
                } else {
                    0
                };
            }
        }
        println!("process {pid}: {whole} of {total} samples whole and right, {marked} say why not");
        assert!(total > 10, "process {pid}: {total} samples");
        // A stack is right or says why it is not. The first moments of a process are seen before its mappings are.
        assert_eq!(whole + marked, total, "process {pid}");
        assert!(marked <= 3 + total * 3 / 100, "process {pid}: {marked} of {total} incomplete");
    }
    let resource =
        batches.iter().flat_map(|batch| &batch.resources).find(|resource| resource.pid == pid).unwrap();
    assert_eq!(
        (&*resource.executable_name, &*resource.executable_path),
        ("chain", program.to_str().unwrap())
    );
    assert!(!resource.host_id.is_empty() && !resource.host_name.is_empty());
    let now = UnixNanos(
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64,
    );
    assert!(batches.iter().flat_map(|batch| &batch.times).all(|time| now.0 - time.0 < 300_000_000_000));
    let share = status.tick_share.expect("two busy CPUs for five seconds");
    assert!((0.85..=1.05).contains(&share), "ticks against busy time: {share}");
}

/// Sums of the balance: everything that ticked is stored or dropped for a reason.
fn check_balance(status: &AgentStatus) {
    let dropped: u64 =
        status.counters.iter().filter(|(name, _)| name.starts_with("dropped.")).map(|(_, value)| value).sum();
    assert_eq!(counter(status, "ticks"), counter(status, "stored") + dropped, "{status:#?}");
}

#[test]
fn only_chosen_processes_are_reported_whole_and_with_the_variables_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let start = |name: &str| {
        let program = compile(directory.path(), name, CHAIN, &["-O2", "-fomit-frame-pointer"]);
        let variables = [("SERVICE", "search"), ("TOKEN", "secret")];
        Ended(Command::new(&program).envs(variables).stdin(Stdio::null()).spawn().unwrap())
    };
    // A name that no other test run on this machine has.
    let name = format!("chosen{}", std::process::id());
    let (chosen, _other) = (start(&name), start("other"));
    let pid = chosen.0.id();
    let filter = Filter { names: vec![name.clone()], ..Filter::default() };
    let env_vars = vec!["SERVICE".into()];
    let settings = Settings { frequency_hz: 97, filter, env_vars, ..Settings::default() };
    let mut late_pid = 0;
    let Some((batches, status)) = profile_with(settings, |status| {
        // The kernel side knows by the name, so a process of this name that starts later is chosen at once.
        let late = start(&name);
        late_pid = late.0.id();
        let deadline = Instant::now() + Duration::from_mins(1);
        while counter(&status.get(), "received") < 300 {
            assert!(Instant::now() < deadline, "{:#?}", status.get());
            std::thread::sleep(Duration::from_millis(100));
        }
    }) else {
        return;
    };
    check_balance(&status);
    assert!(counter(&status, "filtered") > 0);
    let mut seen: Vec<u32> = batches.iter().flat_map(|batch| &batch.resources).map(|r| r.pid).collect();
    seen.sort_unstable();
    seen.dedup();
    let mut expected = [pid, late_pid];
    expected.sort_unstable();
    assert_eq!(seen, expected);
    for resource in batches.iter().flat_map(|batch| &batch.resources) {
        let variable =
            resource.others.iter().find(|(name, _)| &**name == "process.environment_variable.SERVICE");
        assert_eq!(variable.map(|(_, value)| &**value), Some("search"), "{resource:?}");
        assert!(!format!("{resource:?}").contains("secret"), "{resource:?}");
    }
    // Facts about the host travel once a batch; those that take a while come with a later one.
    let carry = |batch: &Batch, name: &str| {
        let others = batch.resources.iter().flat_map(|resource| &resource.others);
        others.filter(|(found, value)| &**found == name && !value.is_empty()).count()
    };
    assert!(batches.iter().all(|batch| carry(batch, "profiling.agent.version") == 1));
    assert_eq!(carry(batches.last().unwrap(), "profiling.host.kernel_version"), 1);
    assert_eq!(carry(batches.last().unwrap(), "profiling.agent.config.present_cpu_cores"), 1);
    // Tables are built for chosen processes only, and for those soon enough.
    let names =
        HashMap::from([(file_id(&directory.path().join(&name)), functions(&directory.path().join(&name)))]);
    let stacks = stacks(&batches, pid, UnixNanos::default(), &names);
    let whole: u64 =
        stacks.iter().filter(|(stack, _)| stack.last().is_some_and(|f| f == "_start")).map(|(_, n)| n).sum();
    let total: u64 = stacks.values().sum();
    println!("{whole} of {total} whole; {} tables", status.tables);
    assert!(whole * 2 > total, "{whole} of {total}: {stacks:#?}");
}

#[test]
fn an_interval_that_is_not_drawn_is_not_sampled_and_says_so() {
    let settings = Settings {
        frequency_hz: 97,
        probabilistic: Some((50, Duration::from_mins(5))),
        ..Settings::default()
    };
    let Some((batches, status)) = profile_with(settings, |_| std::thread::sleep(Duration::from_secs(2)))
    else {
        return;
    };
    check_balance(&status);
    let sampling = status.notes == ["probabilistic mode: sampling in this interval, the chance is 50 %"];
    let not_sampling =
        status.notes == ["probabilistic mode: not sampling in this interval, the chance is 50 %"];
    assert!(sampling != not_sampling, "{:?}", status.notes);
    assert_eq!(batches.is_empty(), not_sampling);
    for resource in batches.iter().flat_map(|batch| &batch.resources) {
        let threshold = resource
            .others
            .iter()
            .find(|(name, _)| &**name == "profiling.agent.config.probabilistic_threshold");
        assert_eq!(threshold.map(|(_, value)| &**value), Some("50"), "{resource:?}");
    }
    // What is sampled keeps its true period.
    assert!(
        batches
            .iter()
            .flat_map(|batch| &batch.profiles)
            .all(|profile| profile.period_ns == 1_000_000_000 / 97)
    );
}

#[test]
fn marks_can_be_left_out() {
    let settings = Settings { frequency_hz: 97, mark_truncated: false, ..Settings::default() };
    let Some((batches, status)) = profile_with(settings, |_| std::thread::sleep(Duration::from_secs(2)))
    else {
        return;
    };
    check_balance(&status);
    let frames = batches.iter().flat_map(|batch| &batch.frames);
    assert!(frames.clone().count() > 0);
    assert!(frames.into_iter().all(|frame| frame.kind.otlp_name() != "abort-marker"));
}

#[test]
fn ceilings_are_kept_by_giving_up_in_order_and_the_reported_period_stays_true() {
    let ceilings = Ceilings { cpu_share: Some(1e-9), memory_bytes: Some(1 << 20), whole_process: true };
    let settings = Settings { frequency_hz: 97, ceilings, ..Settings::default() };
    let directory = tempfile::tempdir().unwrap();
    let program = compile(directory.path(), "busy", CHAIN, &["-O2"]);
    let _busy = Ended(Command::new(&program).stdin(Stdio::null()).spawn().unwrap());
    let mut seen = Vec::new();
    let Some((batches, status)) = profile_with(settings, |status| {
        let deadline = Instant::now() + Duration::from_mins(2);
        while status.get().frequency_hz > 24 {
            assert!(Instant::now() < deadline, "{:#?}", status.get());
            std::thread::sleep(Duration::from_millis(200));
            for note in status.get().notes {
                if !seen.contains(&note) {
                    seen.push(note);
                }
            }
        }
        // At the lower rate too something is sampled and reported.
        let before = counter(&status.get(), "stored");
        while counter(&status.get(), "stored") < before + 40 {
            assert!(Instant::now() < deadline, "{:#?}", status.get());
            std::thread::sleep(Duration::from_millis(200));
        }
    }) else {
        return;
    };
    check_balance(&status);
    let of = |what: &str| seen.iter().filter(|note| note.contains(what)).cloned().collect::<Vec<_>>();
    assert_eq!(
        of("CPU time")[..3],
        [
            "ceiling of CPU time: short-lived processes are looked after less often",
            "ceiling of CPU time: containers and environments of new processes are not read",
            "ceiling of CPU time: sampling rate divided by 2"
        ]
    );
    assert_eq!(
        of("memory")[..2],
        [
            "ceiling of memory: stacks and names are forgotten after each window",
            "ceiling of memory: unwind tables take no more room"
        ]
    );
    assert!(counter(&status, "kernel_ns") > 0 && counter(&status, "ceiling_changes") >= 5);
    // Samples of one batch were taken at one rate, and their times show that it is the reported one.
    let periods: Vec<u64> = batches.iter().map(|batch| batch.profiles[0].period_ns).collect();
    assert!(
        periods.contains(&(1_000_000_000 / 97)) && periods.contains(&(1_000_000_000 / 24)),
        "{periods:?}"
    );
    for batch in &batches {
        assert!(batch.profiles.iter().all(|profile| profile.period_ns == batch.profiles[0].period_ns));
    }
    let slow = batches.iter().filter(|batch| batch.profiles[0].period_ns == 1_000_000_000 / 24);
    for batch in slow {
        let mut times: HashMap<u32, Vec<u64>> = HashMap::new();
        for sample in &batch.samples {
            times.entry(sample.tid).or_default().extend(batch.times_of(sample).iter().map(|time| time.0));
        }
        for times in times.values_mut() {
            times.sort_unstable();
            // A thread is on one CPU at a time: two of its samples lie a period apart, unless it moved between two.
            let close = times.windows(2).filter(|pair| pair[1] - pair[0] < 1_000_000_000 / 97).count();
            assert!(close * 2 <= times.len(), "{times:?}");
        }
    }
}
