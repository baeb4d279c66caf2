//! Running programs with known call chains, caught anywhere and unwound by our tables.
//!
//! Both "complete" and "right" are checked, at whatever instruction the clock hit: prologues, signal frames, stubs and
//! changes of stack included. Skipped, aloud, where perf or a compiler is missing.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use super::live::{Recording, Stopped, record};
use super::walk::{Stack, Walker, mappings_of};
use super::without_section_headers;
use crate::model::ElfAddr;
use crate::unwind::{Rule, Trouble, from_elf};

pub(super) fn compile(directory: &Path, command: &str, arguments: &[&str]) -> bool {
    let done =
        Command::new(command).args(arguments).current_dir(directory).env("GO111MODULE", "off").output();
    match done {
        Ok(done) if done.status.success() => true,
        Ok(done) => panic!("{command} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr)),
        Err(missing) => {
            crate::cannot_run::cannot_run(command, &missing.to_string());
            false
        }
    }
}

/// Counts of one program, with the commonest failures kept for the message.
#[derive(Default)]
struct Tally {
    all: u32,
    complete: u32,
    right: u32,
    /// Lead outside the stack that perf copied.
    beyond: u32,
    failures: HashMap<String, (u32, String)>,
}

impl Tally {
    fn add(&mut self, stack: &Stack, is_right: bool) {
        // A thread in the moment of its birth stands in its parent's function on a stack of its own: no table can say
        // where it came from, and for the parent the same instruction has a caller.
        if stack.end.is_err() && stack.names().iter().any(|name| name.starts_with("runtime.clone")) {
            self.beyond += 1;
            return;
        }
        self.all += 1;
        self.complete += u32::from(stack.end.is_ok());
        self.right += u32::from(is_right && stack.end.is_ok());
        if stack.end.is_err() || !is_right {
            let end = stack.end.err().map_or("wrong".to_owned(), |trouble| format!("{trouble:?}"));
            let (name, address) = stack.frames.last().unwrap();
            let kind = end.split(['(', ' ']).next().unwrap();
            let key = format!("{kind} in {name} {address:#x}");
            self.failures.entry(key).or_insert((0, stack.to_string())).0 += 1;
        }
    }

    /// Prints the scene; fails below 99.5 %.
    fn judge(self, name: &str) {
        let Self { all, complete, right, beyond, failures } = self;
        println!("{name}: {all} stacks, {complete} complete, {right} right, {beyond} left the copied stack");
        let mut failures: Vec<_> = failures.into_iter().collect();
        failures.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
        for (key, (count, example)) in failures.iter().take(12) {
            println!("  {count} × {key}\n      {example}");
        }
        assert!(all + beyond > 20, "{name}: only {all} samples");
        let allowed = (all / 200).max(1);
        assert!(complete + allowed >= all, "{name}: {complete} of {all} stacks complete");
        assert!(right + allowed >= complete, "{name}: {right} of {complete} complete stacks right");
    }
}

/// Walks every sample. `crosses` says where a step may lead to another stack, which perf did not copy.
fn walk_all(
    recording: Recording,
    walker: &mut Walker,
    crosses: impl Fn(&[&str]) -> bool,
    is_right: impl Fn(&[&str]) -> bool,
) -> Tally {
    walker.mappings = recording.mappings;
    walker.load();
    let mut tally = Tally::default();
    for sample in &recording.samples {
        let base = sample.registers.sp;
        let stack = walker.walk(sample.pid, sample.registers, |address| {
            let at = usize::try_from(address.checked_sub(base)?).ok()?;
            Some(u64::from_le_bytes(sample.stack.get(at..at.checked_add(8)?)?.try_into().ok()?))
        });
        let names = stack.names();
        let is_beyond = match stack.end {
            // Compilers do not say in epilogues that the frame pointer was popped: its slot is then right below the
            // stack pointer, in the red zone, where the kernel side can read it and perf does not copy it.
            Err(Trouble::Memory(address)) => (base - 128..base).contains(&address) || crosses(&names),
            Err(Trouble::Goroutine) => true,
            _ => false,
        };
        if is_beyond {
            tally.beyond += 1;
        } else {
            tally.add(&stack, is_right(&names));
        }
    }
    tally
}

#[test]
fn walks_c_with_threads_signals_and_callbacks_without_frame_pointers() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("chain.c"), include_str!("programs/chain.c")).unwrap();
    for (compiler, name, flags) in [
        ("gcc", "dynamic", &["-O2", "-fomit-frame-pointer"][..]),
        ("gcc", "static", &["-O2", "-fomit-frame-pointer", "-static"]),
        ("gcc", "static-pie", &["-O2", "-fomit-frame-pointer", "-static-pie"]),
        ("gcc", "lazy", &["-O1", "-no-pie", "-Wl,-z,lazy"]),
        // Nothing describes the library; with the second, not even the program.
        ("musl-gcc", "musl", &["-O2", "-fomit-frame-pointer", "-static"]),
        (
            "musl-gcc",
            "silent",
            &["-O2", "-fomit-frame-pointer", "-static", "-fno-asynchronous-unwind-tables"],
        ),
    ] {
        if compiler == "musl-gcc" && Command::new(compiler).arg("--version").output().is_err() {
            println!("{name}: {compiler} is not installed");
            continue;
        }
        let program = directory.path().join(name);
        let mut arguments = flags.to_vec();
        arguments.extend(["-fno-optimize-sibling-calls", "-pthread", "chain.c", "-lm", "-o", name]);
        if !compile(directory.path(), compiler, &arguments) {
            return;
        }
        let Some(recording) = record(directory.path(), &program, &[]) else { return };
        walk_all(
            recording,
            &mut Walker::default(),
            |_| false,
            |names| {
                // Whatever was hit: all of the chain that was begun is there, and its root is what starts threads.
                let links = names.iter().filter(|name| name.starts_with("chain")).count();
                let at_leaf = names.iter().any(|name| name.starts_with("leaf") || name.starts_with("sort"));
                let in_chain = links == 41 || (links < 41 && !at_leaf) || names.contains(&"on_tick");
                let root = names.last().unwrap();
                in_chain && (root.contains("start") || root.contains("clone") || *root == "?")
            },
        )
        .judge(name);
    }
}

fn is_go_root(name: &str) -> bool {
    const ROOTS: [&str; 8] = [
        "runtime.goexit",
        "runtime.mstart",
        "runtime.mcall",
        "runtime.rt0_go",
        "runtime.gogo",
        "gogo",
        "_rt0_",
        "_start",
    ];
    ROOTS.iter().any(|root| name.starts_with(root)) || name.contains("clone") || name == "?"
}

fn is_right_in_go(names: &[&str]) -> bool {
    let count = |wanted: &str| names.iter().filter(|name| **name == wanted).count();
    let has = |wanted: &str| count(wanted) > 0;
    let chain = !has("main.burn") || count("main.rec") == 31;
    let crossing = (!has("goCallback") && !has("c_inner")) || (has("c_outer") && has("main.work"));
    let callback = !has("main.goCallback") || (has("c_inner") && has("main.main"));
    let main = !has("main.main") || has("runtime.main");
    chain && crossing && callback && main && is_go_root(names.last().unwrap())
}

/// Functions of the Go runtime that go on with another stack.
fn crosses_in_go(names: &[&str]) -> bool {
    let last = names.last().unwrap();
    // Signal handlers run on a stack of their own.
    let in_signal = names.iter().any(|name| name.starts_with("runtime.sigtramp"));
    let functions = [
        "runtime.systemstack",
        "runtime.asmcgocall",
        "runtime.cgocallback",
        "time.now",
        "runtime.nanotime1",
        "runtime.walltime",
    ];
    in_signal || functions.iter().any(|known| last.starts_with(known))
}

#[test]
fn walks_go_in_every_way_it_is_linked() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("plain.go"), include_str!("programs/plain.go")).unwrap();
    std::fs::write(at("cgo.go"), include_str!("programs/cgo.go")).unwrap();
    let builds: [(&str, &str, &[&str], Option<&str>); 8] = [
        ("plain", "plain.go", &[], None),
        ("stripped", "plain.go", &["-ldflags=-s -w"], Some("plain")),
        ("pie", "plain.go", &["-buildmode=pie"], None),
        ("pie-stripped", "plain.go", &["-buildmode=pie", "-ldflags=-s -w"], Some("pie")),
        ("cgo", "cgo.go", &[], None),
        ("cgo-stripped", "cgo.go", &["-ldflags=-s -w"], Some("cgo")),
        ("cgo-pie", "cgo.go", &["-buildmode=pie"], None),
        ("cgo-pie-stripped", "cgo.go", &["-buildmode=pie", "-ldflags=-s -w"], Some("cgo-pie")),
    ];
    for (name, source, flags, twin) in builds {
        let mut arguments = vec!["build"];
        arguments.extend(flags);
        arguments.extend(["-o", name, source]);
        if !compile(directory.path(), "go", &arguments) {
            return;
        }
        let twins: HashMap<_, _> = twin.map(|twin| (at(name), at(twin))).into_iter().collect();
        let mut walker = Walker { twins: twins.clone(), ..Walker::default() };
        // Any instruction where all of the stack is at hand; where it is not, stopping shows the rest.
        if ["plain", "pie-stripped"].contains(&name)
            && let Some(recording) = record(directory.path(), &at(name), &["600ms"])
        {
            walk_all(recording, &mut walker, crosses_in_go, is_right_in_go).judge(name);
        }
        walk_stopped(&at(name), twins).judge(&format!("{name}, stopped"));
        let bytes = std::fs::read(at(name)).unwrap();
        let rules = from_elf(&bytes).unwrap().rules;
        let ways = rules.iter().filter(|rule| matches!(rule, Rule::Goroutine(_))).count();
        assert_eq!(ways, 1, "{name}: no way from morestack to the goroutine");
        if !name.starts_with("cgo") {
            // No C code: all but the stubs behind it is found without section headers too.
            let (with, without) =
                (from_elf(&bytes).unwrap(), from_elf(&without_section_headers(bytes)).unwrap());
            let rows = without.rows.len() - 1;
            assert!(rows > 1000, "{name}");
            for row in &without.rows[..rows] {
                let address = ElfAddr(without.base.0 + u64::from(row.offset));
                let (expected, found) = (with.find(address), without.find(address));
                // Bytes that are no function are read as code only where sections say that it is.
                let is_guess = matches!(expected, Some(Rule::Guess { .. })) && found == Some(Rule::Unknown);
                assert!(expected == found || is_guess, "{name}: {address:?}: {expected:?}, {found:?}");
            }
        }
    }
}

/// How often a program is stopped.
const STOPS: u32 = 50;

/// Stops a program again and again and walks all its threads, changes of stack included.
fn walk_stopped(program: &Path, twins: HashMap<std::path::PathBuf, std::path::PathBuf>) -> Tally {
    let mut child = Command::new(program)
        .arg("60s")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = child.id();
    let mut walker = Walker { twins, ..Walker::default() };
    let mut tally = Tally::default();
    for _ in 0..STOPS {
        std::thread::sleep(std::time::Duration::from_millis(2));
        let Some(stopped) = Stopped::stop(pid) else { continue };
        walker.mappings = mappings_of(pid);
        walker.load();
        for tid in stopped.threads() {
            let Some(registers) = stopped.registers(tid) else { continue };
            let stack = walker.walk(pid, registers, |address| stopped.read(address));
            // The rule wanted the frame pointer of the innermost frame.
            if matches!(stack.end, Err(Trouble::Memory(..4096) | Trouble::Goroutine)) {
                tally.beyond += 1;
            } else {
                let is_right = is_right_in_go(&stack.names());
                tally.add(&stack, is_right);
            }
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    tally
}
