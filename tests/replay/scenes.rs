//! Programs that stand where a stack is worth recording, and the recorder itself.
//!
//! `make record PID=…` records any thread of this machine; `record_all` makes the committed cases anew. Both are asked for by
//! name only, for they write files.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use everflame::unwind::Architecture;

use super::replay::compare::{REMOTE_PAC_MASK, Row, Session};
use super::replay::record;

/// A program that is killed at the end.
pub(crate) struct Program(pub(crate) Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Program {
    /// Starts one and waits for its line.
    pub(crate) fn start(path: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(path);
        let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }
}

/// Compiles a C program; `None` when there is no such compiler.
pub(crate) fn compile(compiler: &str, source: &str, name: &str, flags: &[&str]) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut command = Command::new(compiler);
    command
        .args(["-O2", "-pthread", "-fno-optimize-sibling-calls"])
        .args(flags)
        .arg("-o")
        .arg(&path)
        .arg(source);
    let status = command.status().ok()?;
    assert!(status.success(), "{source} does not compile with {compiler} {flags:?}");
    Some(path)
}

/// `tests/replay/programs/frames.c` for this machine.
pub(crate) fn frames(name: &str, flags: &[&str]) -> Option<PathBuf> {
    compile("cc", "tests/replay/programs/frames.c", name, flags)
}

/// The same for arm64, static.
pub(crate) fn frames_arm64(name: &str, flags: &[&str]) -> Option<PathBuf> {
    let flags: Vec<&str> = flags.iter().copied().chain(["-static"]).collect();
    compile("aarch64-linux-gnu-gcc", "tests/replay/programs/frames.c", name, &flags)
}

/// An arm64 program under QEMU's user mode, standing before its first instruction. Says what is missing.
pub(crate) fn arm64(path: &Path, arguments: &[&str]) -> Result<(Program, Session), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let socket = folder.path().join("gdb");
    let mut command = Command::new("qemu-aarch64");
    command.args(["-cpu", "max", "-g"]).arg(&socket).arg(path).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut program = Program(command.spawn().map_err(|error| format!("qemu-aarch64: {error}"))?);
    while !socket.exists() {
        if let Ok(Some(status)) = program.0.try_wait() {
            return Err(format!("qemu-aarch64 ended: {status}"));
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let session = Session::remote(Architecture::Aarch64, path, &socket)?;
    Ok((program, session))
}

/// Writes one row as a case.
fn write(session: &mut Session, row: &Row, name: &str, story: &str) {
    let pac_mask =
        if row.sample.registers.architecture == Architecture::Aarch64 { REMOTE_PAC_MASK } else { 0 };
    let case = record::case(session, row, story, pac_mask).unwrap();
    let path = PathBuf::from("tests/data/replay").join(format!("{name}.case"));
    fs::write(&path, case.print()).unwrap();
    eprintln!("{}: {} bytes\n{row}", path.display(), fs::metadata(&path).unwrap().len());
}

/// `EVERFLAME_RECORD_PID`: all threads are shown beside gdb's view; those that differ, or the first, become cases.
#[test]
#[ignore = "writes files; use make record"]
fn record_process() {
    let pid = std::env::var("EVERFLAME_RECORD_PID").unwrap().parse().unwrap();
    let out = std::env::var("EVERFLAME_RECORD_OUT").ok().filter(|out| !out.is_empty());
    let out = PathBuf::from(out.unwrap_or_else(|| format!("target/recorded-{pid}.case")));
    let mut session = Session::attach(pid).unwrap();
    let rows = session.look().unwrap();
    for row in &rows {
        eprintln!("{row}");
    }
    let row = rows.iter().find(|row| !row.verdict.is_right()).or(rows.first()).unwrap();
    let story = format!("Recorded: {}. Say here what it is.", row.verdict.reason());
    let mask = if row.sample.registers.architecture == Architecture::Aarch64 { REMOTE_PAC_MASK } else { 0 };
    let case = record::case(&mut session, row, &story, mask).unwrap();
    fs::write(&out, case.print()).unwrap();
    eprintln!("thread {} is in {}", row.sample.tid, out.display());
}

/// The first row whose stack holds all these names.
fn row_with<'r>(rows: &'r [Row], names: &[&str]) -> &'r Row {
    let has = |row: &Row, name: &str| row.gdb.frames.iter().any(|frame| frame.name == name);
    let found = rows.iter().find(|row| names.iter().all(|name| has(row, name)));
    found.unwrap_or_else(|| {
        for row in rows {
            eprintln!("{row}");
        }
        panic!("no stack with {names:?}")
    })
}

#[test]
#[ignore = "writes the committed cases"]
fn record_all_x86_64() {
    let omitted = frames("frames-omitted", &["-fomit-frame-pointer", "-Wl,-z,lazy"]).unwrap();
    for (mode, names, story) in [
        (
            "drap",
            &["aligned", "stay"][..],
            "A function that realigns its stack and changes its size: the frame address is read from memory (DRAP).",
        ),
        (
            "alloca",
            &["grows", "stay"],
            "A frame of changing size: the frame pointer is the base though the program is compiled without.",
        ),
        (
            "altstack",
            &["on_signal", "interrupted"],
            "A signal handler on a stack of its own: the caller's stack lies lower, and that is right behind a signal frame.",
        ),
        ("nested", &["on_signal", "interrupted"], "A signal that interrupts a handler: two signal frames."),
        (
            "blocked",
            &["blocked"],
            "Sampled in a system call: the user registers come from the top of the kernel stack, and the first address follows the instruction at work.",
        ),
        ("chain", &["chain_d", "main"], "Plain functions of C without frame pointers."),
    ] {
        let program = Program::start(&omitted, &[mode]);
        let mut session = Session::attach(program.0.id()).unwrap();
        let rows = loop {
            let rows = session.stop_at_random(std::time::Duration::from_millis(5)).unwrap().unwrap();
            if rows[0].gdb.frames.iter().any(|frame| frame.name == names[0])
                && (mode == "blocked" || rows[0].gdb.frames[0].name == "stay")
            {
                break rows;
            }
        };
        write(&mut session, row_with(&rows, names), &format!("x86_64-{mode}"), story);
    }
    // The first call through a lazily bound stub: it pushes a number, and so does the common stub behind it.
    let mut program = Program::start(&omitted, &["plt"]);
    let mut session = Session::attach(program.0.id()).unwrap();
    session.gdb().run("tbreak *'getppid@plt'").unwrap();
    program.0.stdin.take().unwrap().write_all(b"\n").unwrap();
    let (_, text) = session.gdb().run("continue").unwrap();
    eprintln!("{text}");
    for n in 0..6 {
        let row = session.look_at_current().unwrap();
        write(
            &mut session,
            &row,
            &format!("x86_64-plt-{n}"),
            "In a lazily bound stub, before or behind its push.",
        );
        session.gdb().run("stepi").unwrap();
    }
}
