//! Who is sampled: processes, names, cgroups, age, CPUs, idle CPUs. What is not wanted is counted as filtered.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use everflame::agent::bpf::{Choice, FilterSettings, Hierarchy, Object, SamplerSettings};
use everflame::agent::host::clock::monotonic_ns;

use super::scene::{Frames, Program, Scene, cannot_run, chain, objects, turn};

fn load(object: Object, filter: FilterSettings) -> Scene {
    Scene::with(&SamplerSettings { frequency_hz: 997, object, filter, ..SamplerSettings::default() })
}

/// Samples for a moment and checks that all of them are of `wanted`, that there are some, and that the rest is counted.
fn check(mut scene: Scene, choice: Choice, wanted: u32) {
    scene.sampler.choose(choice, true).unwrap();
    let mut samples = scene.collect(100, |_| true);
    let filtered =
        |scene: &Scene| scene.sampler.counters().into_iter().find(|c| c.0 == "filtered").unwrap().1;
    // The others may get little of a crowded machine.
    while filtered(&scene) <= 20 {
        samples.extend(scene.collect(20, |_| true));
    }
    let strangers: Vec<_> = samples.iter().filter(|sample| sample.pid != wanted).collect();
    assert!(strangers.is_empty(), "{choice}: {strangers:x?}");
    scene.check_counters();
}

#[test]
fn chosen_processes_and_names_are_sampled_and_nothing_else() {
    let Some(_turn) = turn() else { return };
    for object in objects() {
        let (wanted, _other) =
            (Program::start(Frames::Omitted, &["user", "5"]), Program::start(Frames::Kept, &["user", "5"]));
        let choosing = FilterSettings { choose: true, ..FilterSettings::default() };
        check(load(object, choosing), Choice::Process(wanted.pid()), wanted.pid());
        // A name that no other test run on this machine has, and shorter than that of the thread it was forked from.
        let directory = tempfile::tempdir().unwrap();
        let name = format!("n{}", std::process::id());
        let path = directory.path().join(&name);
        fs::copy(chain(Frames::Omitted).unwrap(), &path).unwrap();
        let named = Named(Command::new(&path).args(["user", "5"]).stdout(Stdio::null()).spawn().unwrap());
        check(load(object, choosing), Choice::name(&name), named.0.id());
    }
}

#[test]
fn what_is_no_longer_chosen_is_no_longer_sampled() {
    let Some(_turn) = turn() else { return };
    let program = Program::start(Frames::Omitted, &["user", "5"]);
    let mut scene = load(Object::Auto, FilterSettings { choose: true, ..FilterSettings::default() });
    let choice = Choice::Process(program.pid());
    scene.sampler.choose(choice, true).unwrap();
    scene.collect(20, |_| true);
    scene.sampler.choose(choice, false).unwrap();
    scene.sampler.choose(choice, false).unwrap();
    // A tick may have been at work; what comes after the next drain is what counts.
    scene.collect(0, |_| true);
    scene.sampler.drain(|_| {});
    let before = scene.sampler.counters().into_iter().find(|c| c.0 == "filtered").unwrap().1;
    let filtered =
        |scene: &Scene| scene.sampler.counters().into_iter().find(|c| c.0 == "filtered").unwrap().1;
    let deadline = Instant::now() + super::scene::DEADLINE;
    while filtered(&scene) < before + 100 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut late = 0;
    scene.sampler.drain(|_| late += 1);
    assert_eq!(late, 0);
}

/// A program of another name, killed at the end.
struct Named(Child);

impl Drop for Named {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Directories of cgroups, removed at the end.
struct Group(PathBuf);

impl Group {
    fn new(mount: &Path) -> Option<Self> {
        let top = mount.join(format!("everflame-test-{}", std::process::id()));
        fs::create_dir_all(top.join("below")).ok()?;
        Some(Self(top))
    }

    fn take(&self, pid: u32) -> bool {
        fs::write(self.0.join("below/cgroup.procs"), pid.to_string()).is_ok()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.0.join("below"));
        let _ = fs::remove_dir(&self.0);
    }
}

/// Where hierarchies are mounted.
fn mounts() -> Vec<(Hierarchy, PathBuf)> {
    let text = fs::read_to_string("/proc/self/mounts").unwrap();
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let hierarchy = match fields[2] {
            "cgroup2" => Hierarchy::Unified,
            "cgroup" if fields[3].split(',').any(|option| option == "memory") => Hierarchy::Memory,
            "cgroup" if fields[3].split(',').any(|option| option == "cpu") => Hierarchy::Cpu,
            "cgroup" if fields[3].split(',').any(|option| option == "pids") => Hierarchy::Pids,
            _ => return None,
        };
        Some((hierarchy, PathBuf::from(fields[1])))
    };
    text.lines().filter_map(parse).collect()
}

#[test]
fn chosen_cgroups_are_sampled_with_all_below() {
    let Some(_turn) = turn() else { return };
    let mut tried = 0;
    for (hierarchy, mount) in mounts() {
        let Some(group) = Group::new(&mount) else { continue };
        for object in objects() {
            let (wanted, _other) = (
                Program::start(Frames::Omitted, &["user", "5"]),
                Program::start(Frames::Omitted, &["user", "5"]),
            );
            if !group.take(wanted.pid()) {
                continue;
            }
            tried += 1;
            // Shown when it fails.
            println!("{hierarchy:?} at {}, {} object", mount.display(), object.name());
            let settings =
                FilterSettings { choose: true, hierarchy: Some(hierarchy), ..FilterSettings::default() };
            check(
                load(object, settings),
                Choice::Cgroup(fs::metadata(&group.0).unwrap().ino()),
                wanted.pid(),
            );
            drop(wanted);
        }
    }
    if tried == 0 {
        cannot_run("choosing cgroups", "no cgroup can be made here");
    }
}

#[test]
fn young_processes_wait() {
    let Some(_turn) = turn() else { return };
    for object in objects() {
        let min_age_ns = 1_500_000_000;
        let mut scene = load(object, FilterSettings { min_age_ns, ..FilterSettings::default() });
        // `stat` counts from boot, in steps of 10 ms; samples count without the time that the machine slept.
        let started = |pid: u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            let ticks: u64 = stat.rsplit_once(')').unwrap().1.split(' ').nth(20).unwrap().parse().unwrap();
            let uptime = fs::read_to_string("/proc/uptime").unwrap();
            let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
            ticks * 10_000_000 - ((uptime * 1e9) as u64).saturating_sub(monotonic_ns())
        };
        let program = Program::start(Frames::Omitted, &["user", "5"]);
        let (mut first, started, pid) = (u64::MAX, started(program.pid()), program.pid());
        scene.sampler.follow_cpus().unwrap();
        let deadline = Instant::now() + super::scene::DEADLINE;
        while first == u64::MAX {
            assert!(Instant::now() < deadline, "{:?}", scene.sampler.counters());
            std::thread::sleep(Duration::from_millis(20));
            scene.sampler.drain(|trace| {
                if trace.pid == pid {
                    first = first.min(trace.time_ns);
                }
            });
        }
        assert!(first + 20_000_000 >= started + min_age_ns, "{} ns old", first - started);
        scene.check_counters();
    }
}

#[test]
fn only_the_named_cpus_tick() {
    let Some(_turn) = turn() else { return };
    let _program = Program::start(Frames::Omitted, &["user", "5", "4"]);
    let settings =
        SamplerSettings { frequency_hz: 997, cpus: Some(vec![0, 60_000]), ..SamplerSettings::default() };
    let mut scene = Scene::with(&settings);
    scene.sampler.follow_cpus().unwrap();
    assert_eq!(scene.sampler.cpus(), 1);
    let mut cpus = std::collections::HashSet::new();
    let deadline = Instant::now() + super::scene::DEADLINE;
    while scene.sampler.drain(|trace| assert!(cpus.insert(trace.cpu) || trace.cpu == 0)) == 0 {
        assert!(Instant::now() < deadline, "{:?}", scene.sampler.counters());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(cpus, [0].into());
}

/// Time that all CPUs were idle, in units of 10 ms.
fn idle_time() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    stat.split_ascii_whitespace().nth(4).unwrap().parse().unwrap()
}

/// On a full machine no CPU is ever idle. What then holds is that the clock of the machine says so too.
#[test]
fn idle_cpus_are_sampled_when_asked_for() {
    /// Of all processes: a second of a machine with two CPUs.
    const ENOUGH_SAMPLES: u64 = 2000;
    /// In units of 10 ms. Seconds, for on some virtual machines only the first CPU ticks while it is idle.
    const CLEARLY_IDLE: u64 = 1000;
    let Some(_turn) = turn() else { return };
    for object in objects() {
        let mut scene = load(object, FilterSettings { idle: true, ..FilterSettings::default() });
        scene.sampler.follow_cpus().unwrap();
        // From here on all CPUs tick.
        let before = idle_time();
        let deadline = Instant::now() + super::scene::DEADLINE;
        let (mut idle_samples, mut samples, mut idle) = (0, 0, 0);
        while idle_samples == 0 && samples < ENOUGH_SAMPLES && idle < CLEARLY_IDLE {
            assert!(Instant::now() < deadline, "{samples} samples: {:?}", scene.sampler.counters());
            std::thread::sleep(Duration::from_millis(5));
            // Read first: of all that is idle time by now the samples are in the ring.
            idle = idle_time() - before;
            samples += scene.sampler.drain(|trace| {
                if trace.pid == 0 {
                    assert!(trace.user.is_empty() && !trace.kernel.is_empty());
                    idle_samples += 1;
                }
            });
        }
        assert!(
            idle_samples > 0 || idle < CLEARLY_IDLE,
            "idle for {idle}0 ms and not seen: {:?}",
            scene.sampler.counters()
        );
        println!("{object:?}: {idle_samples} of {samples} samples idle, {idle}0 ms of idle time");
        assert_eq!(scene.check_counters()["idle"], 0);
    }
}
