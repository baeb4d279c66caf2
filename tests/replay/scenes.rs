//! Programs that stand where a stack is worth recording, and the recorder itself.
//!
//! `make record PID=…` records any thread of this machine; `record_all` makes the committed cases anew. Both are asked for by
//! name only, for they write files.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use everflame::agent::bpf::{Object, UserFrame};
use everflame::model::ElfAddr;
use everflame::unwind::{Architecture, CfaRule, Row as TableRow, Rule, UnwindTable};

use super::replay::case::{Case, CaseFrame};
use super::replay::compare::{REMOTE_PAC_MASK, Row, Session};
use super::replay::machine::{Build, Machine, Mode};
use super::replay::process::{FileFacts, Mapping};
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
    // A cross compiler may have come without a C library.
    assert!(status.success() || compiler != "cc", "{source} does not compile with {compiler} {flags:?}");
    status.success().then_some(path)
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

/// `tests/replay/programs/stacks.go`; `None` without a Go compiler.
pub(crate) fn go(name: &str, architecture: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut command = Command::new("go");
    command.args(["build", "-o"]).arg(&path).arg("tests/replay/programs/stacks.go");
    let status = command.env("GOARCH", architecture).env("CGO_ENABLED", "0").status().ok()?;
    assert!(status.success(), "stacks.go does not compile for {architecture}");
    Some(path)
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
        std::thread::sleep(Duration::from_millis(2));
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

/// Random stops until one has all these names, in this order from the leaf on; the first may be anywhere.
fn stop_with(session: &mut Session, names: &[&str]) -> Row {
    for _ in 0..400 {
        let rows = session.stop_at_random(Duration::from_millis(5)).unwrap().unwrap();
        for row in rows {
            let name = |frame: &UserFrame| {
                let mapping = session.view.find(frame.code_address()).map(|mapping| mapping.name.as_str());
                session.view.name(frame.code_address()).or(mapping).map(|name| name.trim_end_matches(".abi0"))
            };
            let mut walked = row.ours.frames.iter().map(name);
            if row.ours.end == "Complete" && names.iter().all(|name| walked.any(|known| known == Some(*name)))
            {
                return row;
            }
        }
    }
    panic!("no stack with {names:?} in 400 stops");
}

/// The same case with one thing changed; what it walks like then is written and must be judged by whoever commits it.
fn derive(from: &str, name: &str, story: &str, change: impl Fn(&mut Case)) {
    let folder = Path::new("tests/data/replay");
    let mut case = Case::parse(&fs::read_to_string(folder.join(format!("{from}.case"))).unwrap());
    let before = case.frames.clone();
    change(&mut case);
    story.clone_into(&mut case.story);
    let mut machine = Machine::start(case.registers.architecture, Object::Modern, Build::Fast).unwrap();
    let walk = case.run(&mut machine);
    let name_of = |frame: UserFrame| {
        let known = before.iter().find(|known| known.frame.address() == frame.address());
        known.map_or_else(String::new, |known| known.name.clone())
    };
    case.frames = walk.frames.iter().map(|&frame| CaseFrame { frame, name: name_of(frame) }).collect();
    (case.end, case.skipped) = (walk.end, walk.skipped);
    fs::write(folder.join(format!("{name}.case")), case.print()).unwrap();
    eprintln!("{name}: {} with {} frames", case.end, case.frames.len());
}

#[test]
#[ignore = "writes the committed cases"]
#[allow(clippy::too_many_lines, reason = "a list of scenes")]
fn record_all_x86_64() {
    let omitted = frames("frames-omitted", &["-fomit-frame-pointer", "-Wl,-z,lazy"]).unwrap();
    let kept = frames("frames-kept", &["-fno-omit-frame-pointer"]).unwrap();
    let chain = compile("cc", "tests/data/chain.c", "chain-vdso", &["-fomit-frame-pointer"]).unwrap();
    for (program, arguments, name, names, story) in [
        (
            &omitted,
            &["chain"][..],
            "chain",
            &["stay", "chain_d", "chain_b", "main"][..],
            "Plain C without frame pointers.",
        ),
        (
            &omitted,
            &["drap"],
            "drap",
            &["stay", "aligned", "main"],
            "A function that realigns its stack and changes its size: the frame address is read from memory (DRAP).",
        ),
        (
            &omitted,
            &["alloca"],
            "alloca",
            &["stay", "grows", "main"],
            "A frame of changing size: its base is the frame pointer, though the program is compiled without.",
        ),
        (
            &omitted,
            &["altstack"],
            "altstack",
            &["stay", "on_signal", "interrupted", "main"],
            "A handler on a stack of its own: the interrupted stack lies elsewhere, and behind a signal frame that is right.",
        ),
        (
            &omitted,
            &["nested"],
            "nested",
            &["stay", "on_signal", "on_signal", "interrupted"],
            "A signal that interrupts a handler: two signal frames.",
        ),
        (
            &omitted,
            &["blocked"],
            "blocked",
            &["blocked", "main"],
            "Sampled in a system call: the user registers come from the top of the kernel's stack, and the first address follows the instruction at work.",
        ),
        (
            &omitted,
            &["recursion"],
            "recursion",
            &["stay", "recursion", "main"],
            "More than 512 frames: the innermost and the outermost 256 are kept.",
        ),
        (&kept, &["chain"], "kept", &["stay", "chain_d", "chain_b", "main"], "Plain C with frame pointers."),
        (
            &chain,
            &["vdso", "3"],
            "vdso",
            &["[vdso]", "leaf", "main"],
            "In the vDSO, whose table comes from memory instead of a file.",
        ),
    ] {
        let process = Program::start(program, arguments);
        let mut session = Session::attach(process.0.id()).unwrap();
        let row = stop_with(&mut session, names);
        write(&mut session, &row, &format!("x86_64-{name}"), story);
    }
    // The first call through a lazily bound stub: it pushes a number, and so does the common stub before the loader's code.
    let mut process = Program::start(&omitted, &["plt"]);
    let mut session = Session::attach(process.0.id()).unwrap();
    let call = session.view.address("stubs").unwrap();
    session.gdb().run("tbreak *'getppid@plt'").unwrap();
    process.0.stdin.take().unwrap().write_all(b"\n").unwrap();
    session.gdb().run("continue").unwrap();
    let mut number = 0;
    for _ in 0..20 {
        let row = session.look_at_current().unwrap();
        let pc = row.sample.registers.pc();
        let mapping = session.view.find(pc).unwrap();
        let rule = mapping.file.table.as_ref().unwrap().find(ElfAddr(pc.wrapping_sub(mapping.bias)));
        if matches!(rule, Some(Rule::Frame { cfa: CfaRule::Plt { .. }, .. })) && pc.abs_diff(call) < 1 << 20 {
            number += 1;
            let story = "In a lazily bound stub, before or behind its push: the frame depends on the address within 16 bytes.";
            write(&mut session, &row, &format!("x86_64-plt-{number}"), story);
        }
        session.gdb().run("stepi").unwrap();
    }
    assert!(number > 0, "no stub was seen");
    drop(session);
    // The loader at work, before the program's first instruction.
    let mut session = Session::launch(&omitted, &["chain"]).unwrap();
    let row = loop {
        session.gdb().run("stepi 997").unwrap();
        let row = session.look_at_current().unwrap();
        if row.ours.frames.len() > 4 {
            break row;
        }
    };
    write(
        &mut session,
        &row,
        "x86_64-loader",
        "The dynamic loader at work, before any other library is mapped: the stack ends at its entry.",
    );
    drop(session);
    let go = go("stacks-go", "amd64").unwrap();
    let process = Program::start(&go, &[]);
    let mut session = Session::attach(process.0.id()).unwrap();
    for (name, names, story) in [
        ("go", &["main.leaf", "main.deep", "runtime.goexit"][..], "A goroutine of Go."),
        (
            "go-systemstack",
            &["runtime.systemstack", "main.allocates", "runtime.goexit"],
            "Go's runtime on the system stack, called by a goroutine: the stacks lie anywhere, only the frame pointer leads back.",
        ),
    ] {
        let row = stop_with(&mut session, names);
        write(&mut session, &row, &format!("x86_64-{name}"), story);
    }
    derive(
        "x86_64-kept",
        "x86_64-frame-pointers",
        "No table for the program: its frame pointers are followed and marked up to code with a table; `_start`, without either, is the end.",
        |case| {
            case.mappings
                .iter_mut()
                .filter(|mapping| mapping.name.starts_with("frames-kept"))
                .for_each(|mapping| mapping.rows = None);
        },
    );
    derive(
        "x86_64-kept",
        "x86_64-unknown-process",
        "A process that the kernel side has never heard of: frame pointers, marked, as far as they go.",
        |case| case.known = false,
    );
    derive(
        "x86_64-chain",
        "x86_64-unreadable",
        "The stack's next page is not in memory: what was found so far is kept, with the reason.",
        |case| {
            // A page border behind the first return address, and nothing beyond.
            let (start, words) = case.memory.first_mut().unwrap();
            words.truncate(1);
            let down = start.wrapping_sub(*start & !0xfff | 0xff8);
            *start = start.wrapping_sub(down);
            case.registers.set("rsp", case.registers.sp().wrapping_sub(down));
            case.memory.truncate(1);
        },
    );
    derive("x86_64-chain", "x86_64-kernel-thread", "A kernel thread has no user stack.", |case| {
        case.mode = Mode::KernelThread;
    });
}

#[test]
#[ignore = "writes the committed cases"]
fn record_lazy_binding() {
    let omitted = frames("frames-omitted", &["-fomit-frame-pointer", "-Wl,-z,lazy"]).unwrap();
    let mut process = Program::start(&omitted, &["plt"]);
    let mut session = Session::attach(process.0.id()).unwrap();
    session.gdb().run("tbreak *'getppid@plt'").unwrap();
    process.0.stdin.take().unwrap().write_all(b"\n").unwrap();
    session.gdb().run("continue").unwrap();
    // Through the stubs into the resolver, and on into what it calls.
    let caller = session.view.address("stubs").unwrap();
    for _ in 0..2000 {
        session.gdb().run("stepi").unwrap();
        let row = session.look_at_current().unwrap();
        let from_stub = row.ours.frames.iter().position(|frame| frame.address().abs_diff(caller) < 1 << 12);
        if row.ours.end == "Complete" && row.verdict.is_right() && from_stub.is_some_and(|at| at >= 3) {
            return write(
                &mut session,
                &row,
                "x86_64-lazy-binding",
                "The linker binds a function at its first call: the frame of its resolver hangs on rbx, which the function it calls has saved.",
            );
        }
    }
    panic!("no stack through the resolver");
}

#[test]
#[ignore = "writes the committed cases"]
fn record_go_growth() {
    let go = go("stacks-go", "amd64").unwrap();
    let mut session = Session::launch(&go, &[]).unwrap();
    session.gdb().run("break runtime.copystack").unwrap();
    for _ in 0..200 {
        session.gdb().run("continue").unwrap();
        let row = session.look_at_current().unwrap();
        let names = super::walked(&session, &row);
        if names.iter().filter(|name| *name == "main.deep").count() > 2 {
            return write(
                &mut session,
                &row,
                "x86_64-go-growth",
                "A goroutine's stack grows: the runtime works on the system stack, where nothing leads back to the goroutine but its own record.",
            );
        }
    }
    panic!("no stack of a goroutine grew");
}

#[test]
#[ignore = "writes the committed cases"]
fn record_go_growth_arm64() {
    let path = go("stacks-go-arm64", "arm64").unwrap();
    let (_program, mut session) = arm64(&path, &[]).unwrap();
    let address = session.view.address("runtime.copystack").unwrap();
    session.gdb().run(&format!("break *{address:#x}")).unwrap();
    for _ in 0..200 {
        session.gdb().run("continue").unwrap();
        let row = session.look_at_current().unwrap();
        eprintln!("{row}");
        if super::walked(&session, &row).iter().filter(|name| *name == "main.deep").count() > 2 {
            return write(
                &mut session,
                &row,
                "aarch64-go-growth",
                "A goroutine's stack grows on arm64: g is a register of the sample, and the link register of the function that asked lies in the goroutine's record.",
            );
        }
    }
    panic!("no stack of a goroutine grew");
}

#[test]
#[ignore = "writes the committed cases"]
fn record_all_arm64() {
    let signed = &["-mbranch-protection=standard"][..];
    let plain = &["-mbranch-protection=none"][..];
    for (flags, program, function, at, name, story) in [
        (
            plain,
            "records",
            "leaf",
            1,
            "leaf",
            "A leaf function: its return address is in the link register and nowhere else.",
        ),
        (
            plain,
            "records",
            "chain_c",
            0,
            "entry",
            "The first instruction of a function: nothing is saved yet.",
        ),
        (
            plain,
            "records",
            "chain_c",
            6,
            "frame-record",
            "A function with a frame record: frame pointer and return address lie at the bottom of the frame.",
        ),
        (plain, "records", "grows", 8, "alloca", "A frame of changing size: the frame pointer is the base."),
        (plain, "records", "aligned", 14, "aligned", "A realigned frame of changing size."),
        (
            signed,
            "signed",
            "chain_d",
            5,
            "signed",
            "Signed return addresses (pointer authentication): the signature is taken off before a caller is looked up.",
        ),
        (
            signed,
            "signed",
            "leaf",
            2,
            "signed-leaf",
            "A leaf of a program with signed return addresses: its own is not signed.",
        ),
    ] {
        let path = frames_arm64(&format!("frames-arm64-{program}"), flags).unwrap();
        let (_program, mut session) = arm64(&path, &["calls"]).unwrap();
        let rows = session.step_through(function, at).unwrap();
        write(&mut session, rows.last().unwrap(), &format!("aarch64-{name}"), story);
    }
    let path = frames_arm64("frames-arm64-records", plain).unwrap();
    let (_program, mut session) = arm64(&path, &["nested"]).unwrap();
    let address = session.view.address("stay").unwrap();
    session.gdb().run(&format!("tbreak *{address:#x}")).unwrap();
    session.gdb().run("continue").unwrap();
    // The emulator makes up its own trampoline; a kernel's lies in the vDSO, whose table says the same.
    let cut = session.look_at_current().unwrap();
    let unknown = cut.ours.frames.iter().find(|frame| session.view.find(frame.code_address()).is_none());
    let trampoline = unknown.unwrap_or_else(|| panic!("no trampoline: {cut}")).address();
    let rules = vec![Rule::Signal];
    let table = UnwindTable {
        base: ElfAddr(0),
        rows: vec![TableRow { offset: 0, rule: 0 }],
        rules,
        ..UnwindTable::default()
    };
    session.view.mappings.push(Mapping {
        start: trampoline & !0xfff,
        len: 4096,
        bias: trampoline & !0xfff,
        name: "[trampoline]".to_owned(),
        file: Arc::new(FileFacts::of_table(table)),
    });
    session.view.mappings.sort_by_key(|mapping| mapping.start);
    session.publish();
    let row = session.look_at_current().unwrap();
    write(
        &mut session,
        &row,
        "aarch64-nested",
        "A signal that interrupts a handler: two signal frames, each with all registers.",
    );
    drop(session);
    let path = go("stacks-go-arm64", "arm64").unwrap();
    let (_program, mut session) = arm64(&path, &[]).unwrap();
    let rows = session.step_through("main.leaf", 0).unwrap();
    write(
        &mut session,
        rows.last().unwrap(),
        "aarch64-go",
        "A goroutine of Go on arm64 at a leaf function: its return address is in the link register.",
    );
}
