//! The figures of this machine beside their budgets: agent, tables, collector. The store has its own table (`store`).
//!
//! `make bench` runs both. Needs root and a C compiler for the agent's part and says so without. Other load on the
//! machine makes every figure worse; the table begins with how much there was.

#![cfg(feature = "agent")]
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[path = "../tests/kernel/scene.rs"]
#[allow(dead_code)]
mod scene;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use everflame::agent::bpf::{Object, SamplerSettings, StatisticsSwitch};
use everflame::agent::reporter::{ReportError, Sink};
use everflame::agent::{self, Agent};
use everflame::collector::mapping::documents;
use everflame::model::Batch;
use everflame::net::Shutdown;
use everflame::wire::otlp::decode;
use scene::{Frames, Program, Scene};

fn main() {
    // Run as a test, it only shows that it works.
    let as_bench = std::env::args().any(|argument| argument == "--bench");
    let length = if as_bench { Duration::from_secs(20) } else { Duration::from_secs(2) };
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load at the start: {}", load.trim());
    println!("{:<58} {:>14}   budget", "figure", "measured");
    // `-- PART` for some of it: chain, mixed, kernel, tables, collector.
    let parts: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
    if let Some(_turn) = scene::turn() {
        // First, so that the memory of this process is the agent's.
        for (name, load) in [("chain", Load::chain as fn() -> Load), ("mixed", Load::mixed)] {
            for frequency_hz in [20, 97].into_iter().filter(|_| wanted(name)) {
                agent_at(frequency_hz, name, load, length);
            }
        }
        if wanted("kernel") {
            kernel_side(length, if as_bench { 100_000 } else { 1000 });
        }
    }
    if wanted("tables") {
        tables();
    }
    if wanted("collector") {
        collector(length / 4);
    }
}

fn row(figure: &str, measured: &str, budget: &str) {
    println!("{figure:<58} {measured:>14}   {budget}");
}

/// Takes batches and counts their samples.
#[derive(Default)]
struct Counting(AtomicU64);

#[async_trait]
impl Sink for Counting {
    async fn report(&self, batch: &Batch) -> Result<(), ReportError> {
        self.0.fetch_add(batch.sample_count(), Ordering::Relaxed);
        Ok(())
    }
}

/// Programs that fill the CPUs, ended with it.
struct Load {
    _chain: Program,
    groups: Vec<Child>,
}

impl Load {
    /// Stacks 30 deep on both CPUs.
    fn chain() -> Self {
        Self { _chain: Program::start(Frames::Omitted, &["user", "30", "2"]), groups: Vec::new() }
    }

    /// What people run: a compiler started again and again, a compressor, an interpreter, system calls.
    fn mixed() -> Self {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.process_group(0).spawn().unwrap()
        };
        let groups = [
            "while :; do cc -O2 -c tests/data/chain.c -o /dev/null; done",
            "while :; do xz -c /proc/self/exe >/dev/null; done",
            "exec python3 -c 'd = {}\nwhile True:\n  for i in range(9999): d[str(i)] = d.get(str(i), 0) + 1'",
        ];
        let groups = groups.map(shell).into_iter().collect();
        Self { _chain: Program::start(Frames::Omitted, &["syscall", "30", "1"]), groups }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for group in &mut self.groups {
            let number = rustix::process::Pid::from_child(group);
            let _ = rustix::process::kill_process_group(number, rustix::process::Signal::KILL);
            let _ = group.wait();
        }
    }
}

/// The whole agent on a machine whose CPUs are full: what its own threads and the kernel side take, and its memory.
fn agent_at(frequency_hz: u32, name: &str, load: fn() -> Load, length: Duration) {
    let _load = load();
    let sink = Arc::new(Counting::default());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let start = Instant::now();
    let (handle, shutdown) = runtime.block_on(async {
        let settings = agent::Settings { frequency_hz, ..agent::Settings::default() };
        let agent = Agent::build(settings, sink.clone()).unwrap();
        let shutdown = Shutdown::new();
        (agent.spawn(shutdown.clone()).unwrap(), shutdown)
    });
    let started = start.elapsed();
    let status = handle.status();
    // The start, with its scan and tables, is told apart from the steady state: some seconds without a table in the making.
    let deadline = Instant::now() + Duration::from_mins(1);
    let is_calm = |status: &agent::StatusReader| {
        let counters = status.get().counters;
        counters.iter().any(|(name, value)| *name == "tables_pending" && *value == 0)
            && counters.iter().any(|(name, value)| *name == "batches" && *value > 0)
    };
    let mut calm_since = Instant::now();
    while calm_since.elapsed() < length / 4 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
        if !is_calm(&status) {
            calm_since = Instant::now();
        }
    }
    let count =
        |name: &str| status.get().counters.iter().find(|(n, _)| *n == name).map_or(0, |(_, value)| *value);
    let read = || {
        let side_band = ["side_band_cpu_us", "side_band_records", "side_band_looks"].map(count);
        (([own_cpu_ns(), count("kernel_ns"), count("ticks")], cpu_ns_of("agent-tables")), side_band)
    };
    let ((before, tables_before), side_band_before) = read();
    std::thread::sleep(length);
    let ((after, tables_after), side_band_after) = read();
    let [user, kernel, ticks] = [0, 1, 2].map(|n: usize| after[n] - before[n]);
    let [follow_us, records, looks] = [0, 1, 2].map(|n: usize| side_band_after[n] - side_band_before[n]);
    // Pages of the table pool are mapped here, but belong to the kernel's own budget.
    let now = status.get();
    let (resident, processes) = (now.resident_bytes.saturating_sub(now.pool_bytes), now.processes);
    shutdown.cancel();
    runtime.block_on(handle.joined()).unwrap();
    let per_tick = |ns: u64| format!("{:.1} µs", ns as f64 / ticks.max(1) as f64 / 1e3);
    let at = format!("{name} load, {frequency_hz} Hz");
    row(&format!("{at}: start to ticking"), &format!("{started:.0?}"), "< 300 ms warm, < 1 s cold");
    row(&format!("{at}: user side, CPU per sample"), &per_tick(user), "");
    row(&format!("{at}: kernel side, CPU per sample"), &per_tick(kernel), "");
    let per_second = |count: u64| count as f64 / length.as_secs_f64();
    row(
        &format!(
            "{at}: side-band, {:.0} records and {:.0} looks a second",
            per_second(records),
            per_second(looks)
        ),
        &format!("{:.2} ms/s", per_second(follow_us) / 1e3),
        "",
    );
    row(
        &format!("{at}: tables of new programs"),
        &format!("{:.2} ms/s", per_second(tables_after - tables_before) / 1e6),
        "",
    );
    let share = (user + kernel) as f64 / length.as_nanos() as f64 / cpus() * 100.0;
    let budget = if frequency_hz == 20 { "< 0.05 %" } else { "< 0.2 %" };
    row(&format!("{at}: both sides, share of the machine"), &format!("{share:.3} %"), budget);
    row(
        &format!("{at}: resident beside the pool, {processes} processes"),
        &format!("{:.1} MB", resident as f64 / 1e6),
        "< 60 MB with 50, < 100 MB with 200",
    );
}

/// CPU time of this process, nanoseconds. The load is a process of its own.
fn own_cpu_ns() -> u64 {
    cpu_ns_of("")
}

/// CPU time of the threads of this process whose name begins so, nanoseconds.
fn cpu_ns_of(name: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks
        .filter(|task| {
            let of = std::fs::read_to_string(task.path().join("comm"));
            of.is_ok_and(|of| of.starts_with(name))
        })
        .filter_map(|task| {
            let runs = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            runs.split(' ').next()?.parse::<u64>().ok()
        })
        .sum()
}

fn cpus() -> f64 {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as f64
}

/// The kernel's own figure for the sampling program, stacks 30 deep: `warm_samples` at 997 Hz, for `length` at 97 Hz.
fn kernel_side(length: Duration, warm_samples: u64) {
    let _measuring = StatisticsSwitch::on().unwrap();
    for (frequency_hz, budget) in [(997, "2 µs warm"), (97, "5 µs cold")] {
        let program = Program::start(Frames::Omitted, &["user", "30", "2"]);
        let settings = SamplerSettings {
            frequency_hz,
            object: Object::Auto,
            only_pid: Some(program.pid()),
            ..SamplerSettings::default()
        };
        let mut scene = Scene::with(&settings);
        scene.know(program.pid(), |_| true);
        scene.sampler.follow_cpus().unwrap();
        let (deadline, mut taken) = (Instant::now() + length, 0);
        while if frequency_hz == 97 { Instant::now() < deadline } else { taken < warm_samples } {
            std::thread::sleep(Duration::from_millis(100));
            taken += scene.sampler.drain(|_| ());
        }
        let counters = scene.check_counters();
        let ran = scene.sampler.run_statistics().unwrap();
        // Ticks of other processes end after a look at the process number: about 80 ns each.
        let busy = ran.run_time_ns.saturating_sub(80 * counters["filtered"]) as f64;
        let samples = counters["stored"].max(1) as f64;
        row(
            &format!("kernel side, {frequency_hz} Hz, depth 30, {samples} samples"),
            &format!("{:.2} µs", busy / samples / 1e3),
            budget,
        );
        // Each frame is looked up once among the cached return addresses; what is not there, in the tables.
        let per_frame = |name: &str| counters[name] as f64 / counters["user_frames"].max(1) as f64;
        row(
            &format!("kernel side, {frequency_hz} Hz, look-ups in tables per frame"),
            &format!("{:.5}", per_frame("cache_misses")),
            "≤ 1",
        );
        row(
            &format!("kernel side, {frequency_hz} Hz, reads of the stack per frame"),
            &format!("{:.3}", per_frame("stack_reads")),
            "",
        );
    }
}

/// Rows from `.eh_frame`, the best of three: libc and the largest library of the toolchain.
fn tables() {
    let mut files: Vec<PathBuf> = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6"]
        .iter()
        .map(PathBuf::from)
        .filter(|p| p.exists())
        .take(1)
        .collect();
    let sysroot = std::process::Command::new("rustc").args(["--print", "sysroot"]).output().unwrap().stdout;
    let library = Path::new(String::from_utf8(sysroot).unwrap().trim()).join("lib");
    files.extend(
        std::fs::read_dir(library)
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.to_string_lossy().contains("librustc_driver")),
    );
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        let (mut best, mut rows) = (Duration::MAX, 0);
        for _ in 0..3 {
            let start = Instant::now();
            rows = everflame::unwind::from_elf(&bytes).unwrap().rows.len();
            best = best.min(start.elapsed());
        }
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let name = name.split('-').next().unwrap_or_default();
        row(
            &format!("table of {name}, {rows} rows"),
            &format!("{:.0} ns/row", best.as_nanos() as f64 / rows.max(1) as f64),
            "< 100 ns/row",
        );
    }
}

/// Bytes of captured exports to documents, on one core.
fn collector(length: Duration) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/otlp");
    let folders = std::fs::read_dir(root).unwrap().flatten().map(|entry| entry.path());
    let captures: Vec<Vec<u8>> = folders
        .filter(|path| path.is_dir())
        .flat_map(|folder| std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "pb"))
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    let (mut events, cpu) = (0u64, own_cpu_ns());
    let start = Instant::now();
    while start.elapsed() < length {
        for bytes in &captures {
            let decoded = decode(bytes).unwrap();
            events += decoded.batch.sample_count();
            std::hint::black_box(documents(&decoded.batch));
        }
    }
    let seconds = (own_cpu_ns() - cpu) as f64 / 1e9;
    row(
        "collector, bytes to documents, captured mix",
        &format!("{:.2} M/s", events as f64 / seconds / 1e6),
        "≥ 0.5 M events/s per core",
    );
}
