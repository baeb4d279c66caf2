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
#[path = "replay/scenes.rs"]
mod scenes;

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use cannot_run::cannot_run;
use everflame::agent::bpf::Object;
use everflame::unwind::Architecture;
use replay::case::Case;
use replay::compare::{Row, Session, Tally};
use replay::machine::{Build, Machine};
use scenes::{Program, arm64, compile, frames, frames_arm64};

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
                        let _ = writeln!(failed, "{place}:\n{}\n{differences}", case.story);
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
        let flags = ["-fomit-frame-pointer"];
        let Some(path) = compile("cc", "tests/data/chain.c", &format!("chain-{name}"), &flags) else {
            cannot_run("comparison with gdb", "no C compiler (cc) found");
            return;
        };
        let program = Program::start(&path, &arguments);
        let Some(mut session) = attach(program.0.id()) else { return };
        let rows = session.stop_often(40, Duration::from_millis(3)).unwrap();
        let tally = Tally::of(&rows);
        eprintln!("{name}: {tally:?}");
        let wrong = rows.iter().find(|row| !row.verdict.is_right());
        assert!(wrong.is_none(), "{name}: {}", wrong.unwrap());
        assert!(rows.len() >= 40);
    }
}

#[test]
fn walks_as_gdb_does_at_each_instruction() {
    for (name, flags) in [
        ("omitted", &["-fomit-frame-pointer"][..]),
        ("kept", &["-fno-omit-frame-pointer"]),
        ("unoptimised", &["-O0"]),
    ] {
        let Some(path) = frames(&format!("frames-{name}"), flags) else {
            cannot_run("comparison with gdb", "no C compiler (cc) found");
            return;
        };
        let program = Program::start(&path, &["calls"]);
        let Some(mut session) = attach(program.0.id()) else { return };
        for function in ["chain_b", "chain_c", "chain_d", "leaf", "grows", "aligned"] {
            let rows = session.step_through(function, 100).unwrap();
            eprintln!("{name} {function}: {:?}", Tally::of(&rows));
            let wrong = rows.iter().find(|row| !row.verdict.is_right());
            assert!(wrong.is_none(), "{name} {function}: {}", wrong.unwrap());
            // Up to the instruction behind the call.
            assert!(rows.len() > 3 && rows.len() < 100, "{name} {function}: {} instructions", rows.len());
        }
    }
}

/// Functions of both stacks, leaf first, for a program whose symbols are all known.
pub(crate) fn walked(session: &Session, row: &Row) -> Vec<String> {
    let name = |frame: &everflame::agent::bpf::UserFrame| {
        session.view.name(frame.code_address()).unwrap_or("?").to_owned()
    };
    row.ours.frames.iter().map(name).collect()
}

#[test]
fn walks_arm64_programs_at_each_instruction() {
    for (name, flags) in [
        ("records", &["-mbranch-protection=none"][..]),
        ("omitted", &["-fomit-frame-pointer", "-mbranch-protection=none"]),
        ("signed", &["-mbranch-protection=standard"]),
        // Nothing describes the code, as in the kernel's code page.
        ("undescribed", &["-fno-asynchronous-unwind-tables", "-fno-exceptions", "-mbranch-protection=none"]),
    ] {
        let Some(path) = frames_arm64(&format!("frames-arm64-{name}"), flags) else {
            cannot_run("arm64 programs", "no compiler for them (aarch64-linux-gnu-gcc) found");
            return;
        };
        let (_program, mut session) = match arm64(&path, &["calls"]) {
            Ok(both) => both,
            Err(why) => return cannot_run("arm64 programs", &why),
        };
        for function in ["chain_b", "chain_c", "chain_d", "leaf", "grows", "aligned"] {
            let rows = session.step_through(function, 100).unwrap();
            eprintln!("{name} {function}: {:?}", Tally::of(&rows));
            for row in &rows[..rows.len() - 1] {
                let walked = walked(&session, row);
                // The chain is known: gdb does not see through signed addresses behind this stub.
                let above =
                    walked.iter().position(|name| name == function).unwrap_or_else(|| panic!("{row}"));
                let expected: &[&str] = match function {
                    "chain_c" => &["chain_b", "calls", "main"],
                    "chain_d" => &["chain_c", "chain_b", "calls", "main"],
                    _ => &["calls", "main"],
                };
                assert_eq!(walked[above + 1..][..expected.len()], *expected, "{name} {function}: {row}");
                assert_eq!(row.ours.end, "Complete", "{name} {function}: {row}");
                assert!(row.verdict.is_right() || name == "signed", "{name} {function}: {row}");
            }
            assert!(rows.len() > 3 && rows.len() < 100, "{name} {function}: {} instructions", rows.len());
        }
    }
}
