//! Code that processes compile as they run: its names from the lists that they write, and stacks through it.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use everflame::agent::{Filter, Settings, StatusReader};
use everflame::model::{Batch, Frame, FrameKind, UnixNanos};

use super::cannot_run::cannot_run;
use super::{Ended, check_balance, counter, file_id, functions, now, profile_with, stacks};

/// The smallest compiler there is, built once for each test.
fn program(directory: &Path) -> PathBuf {
    let path = directory.join("jit");
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-fno-omit-frame-pointer", "-o"]).arg(&path).arg("tests/data/jit.c");
    assert!(compiler.status().unwrap().success());
    path
}

/// Runs a program until it says `ready`.
fn start(command: &mut Command) -> Ended {
    let mut running = Ended(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap());
    let mut output = BufReader::new(running.0.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("ready") {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "{command:?} ended before it was ready");
    }
    // Whatever else it writes is thrown away, so that it never waits for a reader.
    std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
    running
}

/// Profiles these processes only.
fn profile(
    running: &[&Ended],
    meanwhile: impl FnOnce(&StatusReader),
) -> Option<(Vec<Batch>, everflame::agent::AgentStatus)> {
    let filter = Filter { pids: running.iter().map(|running| running.0.id()).collect(), ..Filter::default() };
    let monitor_interval = Duration::from_millis(200);
    profile_with(Settings { frequency_hz: 197, filter, monitor_interval, ..Settings::default() }, meanwhile)
}

/// Waits until they have been sampled and all their tables are there.
fn warmed_up(status: &StatusReader) -> UnixNanos {
    sampled(status, 50);
    super::tables_are_built(status);
    now()
}

/// Waits until so many samples more have come.
fn sampled(status: &StatusReader, samples: u64) {
    let from = counter(&status.get(), "received");
    let deadline = Instant::now() + Duration::from_mins(2);
    while counter(&status.get(), "received") < from + samples {
        assert!(Instant::now() < deadline, "{:#?}", status.get());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Files that a process leaves behind.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn compiled_code_is_named_by_maps_and_dumps_and_stacks_go_through_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = program(directory.path());
    let start = |how: &str| start(Command::new(&path).arg(how).current_dir(directory.path()));
    let running = ["map", "dump", "none"].map(start);
    let _map = Removed(format!("/tmp/perf-{}.map", running[0].0.id()).into());
    let mut from = now();
    let Some((batches, status)) = profile(&running.each_ref(), |status| {
        from = warmed_up(status);
        sampled(status, 600);
    }) else {
        return;
    };
    println!("{:#?}", status.counters);
    check_balance(&status);
    let names = HashMap::from([(file_id(&path), functions(&path))]);
    for (how, pid) in ["map", "dump", "none"].into_iter().zip(running.iter().map(|running| running.0.id())) {
        let stacks = stacks(&batches, pid, from, &names);
        let (mut right, mut total) = (0, 0);
        for (stack, count) in &stacks {
            let user: Vec<&str> =
                stack.iter().map(String::as_str).filter(|f| !f.starts_with("kernel:")).collect();
            if user.first() != Some(&"burn") {
                continue;
            }
            total += count;
            let is_named = user.get(1..4) == Some(&["native:inner", "native:outer", "main"]);
            // Without a list there are two addresses in their place.
            let is_bare =
                user.get(3) == Some(&"main") && user[1..3].iter().all(|frame| frame.starts_with("0x"));
            let is_right = if how == "none" { is_bare } else { is_named };
            if is_right && user.last() == Some(&"_start") {
                right += count;
            } else {
                println!("{how}: {count} × {stack:?}");
            }
        }
        println!("{how}: {right} of {total} stacks are named and whole");
        assert!(total > 20, "{how}: {total} samples");
        assert!(right * 100 >= total * 99, "{how}: {right} of {total}");
    }
    // A dump says where code comes from; its frames are of no file, and said to be compiled at run time.
    let frames = batches.iter().flat_map(|batch| batch.frames.iter().map(move |frame| (batch, frame)));
    let (batch, frame) =
        frames.into_iter().find(|(_, frame)| is_line(frame, "inner") && frame.lines[0].line > 0).unwrap();
    assert_eq!(frame.lines[0].line, 77);
    assert_eq!((&*frame.lines[0].file, frame.kind, frame.address), ("made.src", FrameKind::NATIVE, 0));
    let executable = &batch.executables[frame.executable.unwrap() as usize];
    assert_eq!((&*executable.name, executable.file_id), ("[jit]", None));
}

fn is_line(frame: &Frame, name: &str) -> bool {
    frame.lines.first().is_some_and(|line| &*line.function == name)
}

#[test]
fn map_of_another_user_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = program(directory.path());
    let running = start(Command::new(&path).arg("none"));
    let pid = running.0.id();
    let map = Removed(format!("/tmp/perf-{pid}.map").into());
    std::fs::write(&map.0, "0 ffffffffffffff lie\n1000 7fffffffffff lie\n").unwrap();
    if std::os::unix::fs::chown(&map.0, Some(12_345), None).is_err() {
        cannot_run("a perf map of another user", "not run as root");
        return;
    }
    let mut taken = 0;
    let Some((batches, status)) = profile(&[&running], |status| {
        warmed_up(status);
        sampled(status, 300);
        taken = counter(&status.get(), "jit_lists_refused.owner");
    }) else {
        return;
    };
    assert_eq!(taken, 1, "counted once: {:#?}", status.counters);
    assert_eq!(counter(&status, "jit_lists"), 0);
    let stacks = stacks(&batches, pid, now(), &HashMap::new());
    assert!(stacks.is_empty());
    assert!(!batches.iter().flat_map(|batch| &batch.frames).any(|frame| is_line(frame, "lie")));
}

#[test]
fn code_that_takes_the_place_of_other_code_has_its_own_name_in_its_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = program(directory.path());
    let running = start(Command::new(&path).arg("reuse").current_dir(directory.path()));
    let pid = running.0.id();
    let Some((batches, _)) = profile(&[&running], |status| {
        warmed_up(status);
        sampled(status, 600);
    }) else {
        return;
    };
    let stacks = stacks(&batches, pid, UnixNanos(0), &HashMap::new());
    let of = |name: &str| -> u64 {
        stacks
            .iter()
            .filter(|(stack, _)| stack.iter().any(|frame| frame == name))
            .map(|(_, count)| count)
            .sum()
    };
    let (first, second) = (of("native:inner"), of("native:inner-2"));
    println!("inner {first}, inner-2 {second}");
    // They run in turn, equally long.
    assert!(first > 30 && second > 30 && first.abs_diff(second) * 4 < first + second, "{first} {second}");
}

/// Samples of one process that lead through compiled code.
#[derive(Debug, Default)]
struct Through {
    samples: u64,
    /// Every frame of compiled code has a name.
    named: u64,
    /// Nothing is missing at the root.
    whole: u64,
    unnamed: BTreeMap<String, u64>,
    ends: BTreeMap<String, u64>,
    functions: HashMap<String, u64>,
}

fn through(batches: &[Batch], pid: u32, from: UnixNanos) -> Through {
    let mut through = Through::default();
    for batch in batches {
        for sample in &batch.samples {
            let profile = batch.profiles[sample.profile as usize];
            if batch.resources[profile.resource as usize].pid != pid {
                continue;
            }
            let count = batch.times_of(sample).iter().filter(|time| **time >= from).count() as u64;
            let frames: Vec<_> =
                batch.stack(sample.stack).iter().map(|at| &batch.frames[*at as usize]).collect();
            let is_jit = |frame: &&&Frame| {
                frame.kind == FrameKind::NATIVE
                    && frame.executable.is_none_or(|at| &*batch.executables[at as usize].name == "[jit]")
            };
            let jit: Vec<_> = frames.iter().filter(is_jit).collect();
            if jit.is_empty() || count == 0 {
                continue;
            }
            through.samples += count;
            let unnamed = jit.iter().find(|frame| frame.lines.is_empty());
            match unnamed {
                None => through.named += count,
                Some(frame) => *through.unnamed.entry(format!("{:#x}", frame.address)).or_default() += count,
            }
            for frame in jit.iter().filter(|frame| !frame.lines.is_empty()) {
                *through.functions.entry(frame.lines[0].function.to_string()).or_default() += count;
            }
            match frames.last().filter(|frame| frame.kind.is_error()) {
                None => through.whole += count,
                Some(frame) => {
                    let place = |frame: &&Frame| {
                        let executable = frame.executable.map(|at| &*batch.executables[at as usize].name);
                        format!("{}+{:#x}", executable.unwrap_or("?"), frame.address)
                    };
                    let near: Vec<_> = frames.iter().rev().skip(1).take(5).map(place).collect();
                    let end = format!("{} {near:?}", frame.lines[0].function);
                    *through.ends.entry(end).or_default() += count;
                }
            }
        }
    }
    through
}

impl Through {
    /// Samples that lead through a function with this in its name.
    fn of(&self, part: &str) -> u64 {
        self.functions
            .iter()
            .filter(|(name, _)| name.contains(part))
            .map(|(_, count)| *count)
            .max()
            .unwrap_or(0)
    }

    fn check(&self, what: &str, named_percent: u64, whole_percent: u64) {
        let mut functions: Vec<_> = self.functions.iter().collect();
        functions.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        functions.truncate(25);
        println!("{what}: {} samples, {} named, {} whole", self.samples, self.named, self.whole);
        println!("{functions:#?}\nends {:#?}", self.ends);
        let mut unnamed: Vec<_> = self.unnamed.iter().collect();
        unnamed.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        println!("unnamed {:?}", &unnamed[..unnamed.len().min(20)]);
        assert!(self.samples >= 200, "{what}: {} samples", self.samples);
        assert!(
            self.named * 100 >= self.samples * named_percent,
            "{what}: {} of {} named",
            self.named,
            self.samples
        );
        assert!(
            self.whole * 100 >= self.samples * whole_percent,
            "{what}: {} of {} whole",
            self.whole,
            self.samples
        );
    }
}

const SCRIPT: &str = "
function leaf(n) { let s = 0; for (let i = 0; i < n; i++) s = (s + i * 31) % 1000003; return s; }
function middle(n) { return leaf(n) + 1; }
function outer(n) { return [n, n + 1].map(x => middle(x)).reduce((a, b) => a + b, 0); }
for (let i = 0; i < 300; i++) outer(2000);
console.log('ready');
function turn() { const end = Date.now() + 50; while (Date.now() < end) outer(20000); setImmediate(turn); }
turn();
";

/// Whether a program is there.
fn has(program: &str, argument: &str) -> bool {
    Command::new(program)
        .arg(argument)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

#[test]
fn functions_of_node_are_named_by_its_map_and_its_dump() {
    if !has("node", "--version") {
        cannot_run("JavaScript", "no node found");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("script.js"), SCRIPT).unwrap();
    let node = |options: &[&str]| {
        start(Command::new("node").args(options).arg("script.js").current_dir(directory.path()))
    };
    let by_map = node(&["--perf-basic-prof", "--interpreted-frames-native-stack"]);
    let by_dump = node(&["--perf-prof"]);
    let _map = Removed(format!("/tmp/perf-{}.map", by_map.0.id()).into());
    let mut from = now();
    let Some((batches, status)) = profile(&[&by_map, &by_dump], |status| {
        from = warmed_up(status);
        sampled(status, 1500);
    }) else {
        return;
    };
    println!("{:#?}", status.counters);
    check_balance(&status);
    let map = through(&batches, by_map.0.id(), from);
    map.check("node, perf map", 97, 95);
    // The optimizer inlines the rest into it.
    assert!(map.of("turn ") * 2 > map.samples, "{} of {}", map.of("turn "), map.samples);
    // V8 writes its dump in large steps: how much has a name yet is a matter of luck.
    through(&batches, by_dump.0.id(), from).check("node, jitdump", 0, 95);
}

const CLASS: &str = "
public class Burn {
    static int leaf(int n) { int s = 0; for (int i = 0; i < n; i++) s = (s + i * 31) % 1000003; return s; }
    static int middle(int n) { return leaf(n) + 1; }
    static int outer(int n) { return middle(n) + middle(n + 1); }
    public static void main(String[] arguments) {
        int sum = 0;
        for (int i = 0; i < 30000; i++) sum += outer(1000);
        System.out.println(\"ready\");
        for (;;) { sum += outer(20000); if (sum == 1) System.out.println(sum); }
    }
}
";

#[test]
fn methods_of_java_are_named_by_the_map_that_it_writes_when_asked() {
    if !has("javac", "-version") || !has("jcmd", "-l") {
        cannot_run("Java", "no JDK found");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("Burn.java");
    std::fs::write(&source, CLASS).unwrap();
    assert!(Command::new("javac").arg(&source).status().unwrap().success());
    // Not inlined, so that each method has a frame.
    let options =
        ["-XX:+PreserveFramePointer", "-XX:CompileCommand=quiet", "-XX:CompileCommand=dontinline,Burn::*"];
    let running = start(Command::new("java").args(options).arg("Burn").current_dir(directory.path()));
    let pid = running.0.id();
    let _map = Removed(format!("/tmp/perf-{pid}.map").into());
    let asked = Command::new("jcmd").args([&pid.to_string(), "Compiler.perfmap"]).output().unwrap();
    let said = String::from_utf8_lossy(&asked.stdout).into_owned();
    if !Path::new(&format!("/tmp/perf-{pid}.map")).exists() {
        cannot_run("methods of Java", &format!("this Java writes no perf map: {said}"));
        return;
    }
    let mut from = now();
    let Some((batches, status)) = profile(&[&running], |status| {
        from = warmed_up(status);
        sampled(status, 600);
    }) else {
        return;
    };
    println!("{:#?}", status.counters);
    let java = through(&batches, pid, from);
    java.check("Java, perf map", 95, 95);
    for name in ["Burn.leaf", "Burn.middle", "Burn.outer"] {
        assert!(java.of(name) * 2 > java.samples, "{name}: {} of {}", java.of(name), java.samples);
    }
}

const PYTHON: &str = "
def leaf(n):
    return sum(i * 31 % 1000003 for i in range(n))
def middle(n):
    return leaf(n) + 1
def outer(n):
    return middle(n) + middle(n + 1)
outer(100)
print('ready', flush=True)
while True:
    outer(5000)
";

/// A CPython that puts a piece of code of its own in front of each function, for profilers: on the path, or one of pyenv's.
fn python() -> Option<PathBuf> {
    let versions = std::env::home_dir().map(|home| home.join(".pyenv/versions")).unwrap_or_default();
    let installed = std::fs::read_dir(versions).into_iter().flatten().flatten();
    let mut programs: Vec<PathBuf> = installed.map(|version| version.path().join("bin/python3")).collect();
    programs.extend(["python3", "python3.12", "python3.13", "python3.14"].map(PathBuf::from));
    let can = |program: &PathBuf| {
        let asked = ["-X", "perf", "-c", "import sys; sys.exit(not sys.is_stack_trampoline_active())"];
        let asked = Command::new(program).args(asked).stdout(Stdio::null()).stderr(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    };
    programs.into_iter().find(can)
}

#[test]
fn functions_of_python_are_named_and_their_stacks_whole() {
    let Some(python) = python() else {
        cannot_run("CPython with names for profilers", "no Python from 3.12 on found that has them");
        return;
    };
    let running = start(Command::new(&python).args(["-X", "perf", "-c", PYTHON]));
    let pid = running.0.id();
    let _map = Removed(format!("/tmp/perf-{pid}.map").into());
    let mut from = now();
    let Some((batches, status)) = profile(&[&running], |status| {
        from = warmed_up(status);
        sampled(status, 600);
    }) else {
        return;
    };
    println!("{:#?}", status.counters);
    check_balance(&status);
    let through = through(&batches, pid, from);
    through.check(&python.display().to_string(), 97, 98);
    // Not only the innermost: each stands on its caller.
    for name in ["py::leaf", "py::middle", "py::outer", "py::<module>"] {
        assert!(
            through.of(name) * 10 > through.samples * 9,
            "{name}: {} of {}",
            through.of(name),
            through.samples
        );
    }
    // What gives that memory its table is nobody's business.
    let names = batches.iter().flat_map(|batch| &batch.executables).map(|executable| &*executable.name);
    assert!(!names.clone().any(|name| name == "JIT code"), "{:?}", names.collect::<Vec<_>>());
}
