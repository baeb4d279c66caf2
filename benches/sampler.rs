//! What a sample costs: the kernel's own time for the sampling program, by depth, frequency and object.
//!
//! Needs root and a C compiler. Not a criterion bench: the kernel measures, so one long run says more than many short
//! ones. `cargo bench --bench sampler [-- SECONDS]`. Other load on the machine makes caches colder and numbers worse.

#![cfg(feature = "agent")]
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[path = "../tests/kernel/scene.rs"]
#[allow(dead_code)]
mod scene;

use std::time::{Duration, Instant};

use everflame::agent::bpf::{FilterSettings, Hierarchy, Object, SamplerSettings, StatisticsSwitch};
use scene::{Frames, Program, Scene};

fn main() {
    let Some(_turn) = scene::turn() else { return };
    // Run as a test, it only shows that it works.
    let as_bench = std::env::args().any(|argument| argument == "--bench");
    let asked = std::env::args().find_map(|argument| argument.parse().ok().map(Duration::from_secs));
    let time = asked.unwrap_or(if as_bench { Duration::from_secs(4) } else { Duration::from_millis(300) });
    let _measuring = StatisticsSwitch::on().unwrap();
    println!(
        "object    Hz  mode     depth  samples  frames  us/sample  ns/frame  reads/sample  misses/frame"
    );
    for object in scene::objects() {
        for frequency_hz in [997, 97] {
            for (mode, depths) in [("user", &[5_u32, 30, 100, 500][..]), ("syscall", &[30])] {
                for &depth in depths {
                    measure(object, frequency_hz, mode, depth, time);
                }
            }
        }
        for (what, hierarchy) in
            [("number and name", None), ("number, name and cgroup", Some(Hierarchy::Unified))]
        {
            measure_filtered(object, what, hierarchy, time);
        }
    }
}

/// A tick that hits a process that was not chosen.
fn measure_filtered(object: Object, what: &str, hierarchy: Option<Hierarchy>, time: Duration) {
    let _busy = Program::start(Frames::Omitted, &["user", "30", "2"]);
    let filter = FilterSettings { choose: true, hierarchy, ..FilterSettings::default() };
    let settings = SamplerSettings { frequency_hz: 997, object, filter, ..SamplerSettings::default() };
    let mut scene = Scene::with(&settings);
    scene.sampler.follow_cpus().unwrap();
    std::thread::sleep(time);
    let counters = scene.check_counters();
    let ran = scene.sampler.run_statistics().unwrap();
    println!(
        "{:7} not chosen by {what}: {} ns a tick, {} ticks",
        object.name(),
        ran.run_time_ns / counters["filtered"].max(1),
        counters["filtered"]
    );
}

/// One line of the table: two threads, so that both CPUs of a small machine are full.
fn measure(object: Object, frequency_hz: u32, mode: &str, depth: u32, time: Duration) {
    let program = Program::start(Frames::Omitted, &[mode, &depth.to_string(), "2"]);
    let settings =
        SamplerSettings { frequency_hz, object, only_pid: Some(program.pid()), ..SamplerSettings::default() };
    let mut scene = Scene::with(&settings);
    scene.know(program.pid(), |_| true);
    scene.sampler.follow_cpus().unwrap();
    let deadline = Instant::now() + time;
    while Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
        scene.sampler.drain(|_| ());
    }
    let counters = scene.check_counters();
    let ran = scene.sampler.run_statistics().unwrap();
    // Ticks of other processes end after a look at the process number.
    let filtered_ns = 80 * counters["filtered"];
    let (samples, frames) = (counters["stored"], counters["user_frames"]);
    let busy_ns = ran.run_time_ns.saturating_sub(filtered_ns) as f64;
    let per = |value: u64, of: u64| value as f64 / of.max(1) as f64;
    println!(
        "{:7} {frequency_hz:4}  {mode:8} {depth:5} {samples:8} {:7.0} {:10.2} {:9.1} {:13.2} {:13.4}",
        object.name(),
        per(frames, samples),
        busy_ns / samples.max(1) as f64 / 1000.0,
        busy_ns / frames.max(1) as f64,
        per(counters["stack_reads"], samples),
        per(counters["cache_misses"], frames),
    );
}
