//! The sampling program outside the kernel: recorded stacks of every architecture, and living processes beside gdb.
//!
//! Needs a C compiler; the comparison also needs gdb and the right to trace. No test looks at the time.

#![cfg(feature = "agent")]
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stderr)]

#[path = "cannot_run/mod.rs"]
mod cannot_run;
#[path = "replay/mod.rs"]
#[allow(dead_code)]
mod replay;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cannot_run::cannot_run;
use everflame::agent::bpf::Object;
use everflame::unwind::Architecture;
use replay::case::Case;
use replay::compare::{Session, Tally};
use replay::machine::{Build, Machine};

fn cases() -> Vec<(PathBuf, Case)> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir("tests/data/replay").unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "case"));
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), Case::parse(&fs::read_to_string(path).unwrap()))).collect()
}

#[test]
fn every_recorded_stack_is_walked_as_it_was() {
    let mut failed = String::new();
    let cases = cases();
    assert!(!cases.is_empty());
    for architecture in [Architecture::X86_64, Architecture::Aarch64] {
        for object in [Object::Modern, Object::Legacy] {
            let Some(mut machine) = Machine::start(architecture, object, Build::Checked) else {
                cannot_run("recorded stacks", "no C compiler (cc) found");
                return;
            };
            for (path, case) in cases.iter().filter(|(_, case)| case.registers.architecture == architecture) {
                // The second walk finds rules and mappings remembered from the first.
                for round in ["cold", "warm"] {
                    let walk = case.run(&mut machine);
                    let differences = case.differences(&walk);
                    if !differences.is_empty() {
                        let place = format!("{} ({} object, {round})", path.display(), object.name());
                        failed += &format!("{place}:\n{}\n{differences}\n", case.story);
                    }
                    assert_eq!((walk.counters["ticks"], walk.counters["stored"]), (1, 1));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{failed}");
}

#[test]
fn case_files_say_the_same_after_printing() {
    for (path, case) in cases() {
        assert!(!case.story.is_empty(), "{} tells no story", path.display());
        assert_eq!(Case::parse(&case.print()), case, "{}", path.display());
    }
}

/// A program that is killed at the end.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `tests/data/chain.c`, compiled and running.
fn chain(name: &str, flags: &[&str], arguments: &[&str]) -> Option<Program> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chain-{name}"));
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-pthread", "-fno-optimize-sibling-calls"]).args(flags).arg("-o").arg(&path);
    let built = compiler.arg("tests/data/chain.c").status().is_ok_and(|status| status.success());
    if !built {
        cannot_run("comparison with gdb", "no C compiler (cc) found");
        return None;
    }
    let mut child = Command::new(path).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    Some(Program(child))
}

/// A session with a process, or why there is none.
fn attach(pid: u32) -> Option<Session> {
    Session::attach(pid).map_err(|why| cannot_run("comparison with gdb", &why)).ok()
}

#[test]
fn walks_as_gdb_does_at_random_moments() {
    for (name, arguments) in [
        ("user", ["user", "40", "0"]),
        ("syscall", ["syscall", "25", "0"]),
        ("vdso", ["vdso", "10", "0"]),
        ("signal", ["signal", "20", "0"]),
        ("threads", ["user", "15", "3"]),
    ] {
        let Some(program) = chain(name, &["-fomit-frame-pointer"], &arguments) else { return };
        let Some(mut session) = attach(program.0.id()) else { return };
        let rows = session.stop_often(40, Duration::from_millis(3)).unwrap();
        let tally = Tally::of(&rows);
        eprintln!("{name}: {tally:?}");
        let wrong = rows.iter().find(|row| !row.verdict.is_right());
        assert!(wrong.is_none(), "{name}: {}", wrong.unwrap());
        assert!(rows.len() >= 40);
    }
}
