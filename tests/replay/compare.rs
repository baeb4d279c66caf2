//! Our walk beside gdb's, at the very same state of a process. Used by the replay tests, the recorder and `make truth`.
//!
//! ```ignore
//! let mut session = Session::attach(pid)?;
//! let rows = session.stop_often(200, Duration::from_millis(10))?;     // all threads at each stop
//! let more = session.step_through("step_d", 60)?;                     // at each instruction of a function
//! let tally = Tally::of(&rows);
//! ```
//! The process is stopped while it is looked at, runs in between, and runs on when the session is dropped.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use everflame::agent::bpf::Object;
use everflame::unwind::Architecture;
use rustix::process::{Pid, Signal, kill_process};

use super::gdb::{Gdb, GdbThread};
use super::judge::{Verdict, first_difference, judge};
use super::machine::{Build, Machine, Mode, Sample, Walk};
use super::process::{Files, View};

/// Threads looked at in one stop.
const MOST_THREADS: usize = 16;
/// Memory above the stack pointer that is fetched of a process behind a remote target, bytes.
const REMOTE_STACK_BYTES: u64 = 256 << 10;
/// Other places of its memory that are fetched when a walk leads there, and bytes of each.
const REMOTE_PLACES: usize = 16;
const REMOTE_PLACE_BYTES: u64 = 8 << 10;
/// How long a process may take to reach a function, or to come back from a call that is stepped over.
const LONGEST_RUN: Duration = Duration::from_secs(10);
/// Bits of arm64 code pointers that hold a signature under 48-bit addresses, as QEMU has them.
pub(crate) const REMOTE_PAC_MASK: u64 = 0x007f_0000_0000_0000;

/// One thread at one stop.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Number of the stop.
    pub(crate) stop: u64,
    pub(crate) sample: Sample,
    pub(crate) ours: Walk,
    pub(crate) gdb: GdbThread,
    pub(crate) verdict: Verdict,
    /// First frame that differs.
    pub(crate) first_difference: Option<usize>,
}

/// Counts over many rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) rows: u64,
    /// Ended at the entry, whether right or wrong.
    pub(crate) complete: u64,
    /// Complete and not refuted.
    pub(crate) right: u64,
    /// By reason, `equal` among them.
    pub(crate) reasons: BTreeMap<String, u64>,
}

impl Tally {
    pub(crate) fn of<'r>(rows: impl IntoIterator<Item = &'r Row>) -> Self {
        let mut tally = Self::default();
        for row in rows {
            tally.rows += 1;
            tally.complete += u64::from(row.ours.end == "Complete");
            tally.right += u64::from(row.verdict.is_right());
            *tally.reasons.entry(row.verdict.reason()).or_default() += 1;
        }
        tally
    }
}

/// Where the process's memory is read.
enum Memory {
    Process(File),
    Remote,
}

/// A process, its oracle, and both objects of the sampling program.
pub(crate) struct Session {
    gdb: Gdb,
    pid: u32,
    files: Files,
    pub(crate) view: View,
    modern: Machine,
    legacy: Machine,
    memory: Memory,
    stops: u64,
    random: u64,
}

impl Session {
    /// Stops a living process of this machine. Says why that does not go.
    pub(crate) fn attach(pid: u32) -> Result<Self, String> {
        let memory =
            File::open(format!("/proc/{pid}/mem")).map_err(|error| format!("process {pid}: {error}"))?;
        let gdb = Gdb::start(Architecture::HOST, &["-p", &pid.to_string()])?;
        let mut session = Self::new(Architecture::HOST, gdb, pid, Memory::Process(memory))?;
        session.modern.read_memory_of(pid);
        session.legacy.read_memory_of(pid);
        session.refresh()?;
        Ok(session)
    }

    /// A static program that waits behind a gdb stub on a Unix socket, as `qemu-aarch64 -g SOCKET` does.
    pub(crate) fn remote(architecture: Architecture, program: &Path, socket: &Path) -> Result<Self, String> {
        let mut gdb = Gdb::start(architecture, &[&program.display().to_string()])?;
        let (_, text) = gdb.run(&format!("target remote {}", socket.display()))?;
        if text.starts_with("error") {
            return Err(text);
        }
        let mut session = Self::new(architecture, gdb, 1, Memory::Remote)?;
        session.view = View::of_static_program(program);
        session.publish();
        Ok(session)
    }

    fn new(architecture: Architecture, gdb: Gdb, pid: u32, memory: Memory) -> Result<Self, String> {
        let machine =
            |object| Machine::start(architecture, object, Build::Fast).ok_or("no C compiler (cc) found");
        let (mut modern, mut legacy) = (machine(Object::Modern)?, machine(Object::Legacy)?);
        if architecture == Architecture::Aarch64 {
            modern.set_pac_mask(REMOTE_PAC_MASK);
            legacy.set_pac_mask(REMOTE_PAC_MASK);
        }
        let (files, view) = (Files::default(), View::default());
        // Any odd number: the moments differ from run to run anyhow.
        let random = 0x9e37_79b9_7f4a_7c15 ^ u64::from(pid) << 1;
        Ok(Self { gdb, pid, files, view, modern, legacy, memory, stops: 0, random })
    }

    /// A program of this machine from its very first instruction on, which is the loader's.
    pub(crate) fn launch(program: &Path, arguments: &[&str]) -> Result<Self, String> {
        let path = program.display().to_string();
        let mut gdb = Gdb::start(Architecture::HOST, &[&["--args", &path], arguments].concat())?;
        for command in ["set startup-with-shell off", "starti"] {
            let (_, text) = gdb.run(command)?;
            if text.starts_with("error") {
                return Err(text);
            }
        }
        let pid = gdb.current()?.tid;
        let memory =
            File::open(format!("/proc/{pid}/mem")).map_err(|error| format!("process {pid}: {error}"))?;
        let mut session = Self::new(Architecture::HOST, gdb, pid, Memory::Process(memory))?;
        session.modern.read_memory_of(pid);
        session.legacy.read_memory_of(pid);
        session.refresh()?;
        Ok(session)
    }

    /// The oracle, for commands of one's own.
    pub(crate) fn gdb(&mut self) -> &mut Gdb {
        &mut self.gdb
    }

    /// All threads as they stand now.
    pub(crate) fn look(&mut self) -> Result<Vec<Row>, String> {
        self.refresh()?;
        self.stops += 1;
        let threads = self.gdb.threads(MOST_THREADS)?;
        threads.into_iter().map(|thread| self.compare(thread)).collect()
    }

    /// The thread that was stopped last, as it stands now.
    pub(crate) fn look_at_current(&mut self) -> Result<Row, String> {
        self.refresh()?;
        self.stops += 1;
        let thread = self.gdb.current()?;
        self.compare(thread)
    }

    /// Lets the process run for a random time up to `longest`, and looks; `None` when it has ended.
    pub(crate) fn stop_at_random(&mut self, longest: Duration) -> Result<Option<Vec<Row>>, String> {
        self.gdb.begin("continue")?;
        self.wait_until_it_runs();
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        std::thread::sleep(Duration::from_nanos(self.random % longest.as_nanos().max(1) as u64));
        self.signal_stop();
        let (alive, _) = self.gdb.finish()?;
        if alive { self.look().map(Some) } else { Ok(None) }
    }

    /// As many random stops; fewer when the process ends before.
    pub(crate) fn stop_often(&mut self, stops: usize, longest: Duration) -> Result<Vec<Row>, String> {
        let mut rows = Vec::new();
        for _ in 0..stops {
            let Some(more) = self.stop_at_random(longest)? else { break };
            rows.extend(more);
        }
        Ok(rows)
    }

    /// Runs to the first instruction of a function and looks at each one up to its return, at most `steps`; calls are
    /// stepped over. No row when the function is not reached.
    pub(crate) fn step_through(&mut self, function: &str, steps: usize) -> Result<Vec<Row>, String> {
        // gdb's own look-up may find a variable of the same name in a library.
        let address = self.view.address(function).ok_or_else(|| format!("no function {function}"))?;
        self.gdb.run(&format!("tbreak *{address:#x}"))?;
        let mut rows = Vec::new();
        if !self.run_for_a_while("continue")? {
            return Ok(rows);
        }
        let row = self.look_at_current()?;
        let (thread, sp) = (row.sample.tid, row.sample.registers.sp());
        let caller = row.ours.frames.get(1).map(|frame| frame.address());
        rows.push(row);
        for _ in 0..steps {
            if !self.run_for_a_while("nexti")? {
                break;
            }
            let row = self.look_at_current()?;
            let here = &row.sample.registers;
            let left = here.sp() >= sp && Some(here.pc()) == caller || row.sample.tid != thread;
            rows.push(row);
            if left {
                break;
            }
        }
        Ok(rows)
    }

    /// Runs a command that ends when the process stands; ends it after [`LONGEST_RUN`]. Whether it got there by itself.
    fn run_for_a_while(&mut self, command: &str) -> Result<bool, String> {
        let remote = matches!(self.memory, Memory::Remote);
        if remote {
            let (alive, text) = self.gdb.run(command)?;
            return if text.starts_with("error") { Err(text) } else { Ok(alive) };
        }
        let (pid, deadline) = (self.pid, Instant::now() + LONGEST_RUN);
        self.gdb.begin(command)?;
        let (done, ended) = std::sync::mpsc::channel::<()>();
        let watch = std::thread::spawn(move || {
            let late = ended.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let is_late = late == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
            if is_late {
                stop(pid);
            }
            is_late
        });
        let outcome = self.gdb.finish();
        drop(done);
        let was_late = watch.join().unwrap_or(true);
        let (alive, text) = outcome?;
        if text.starts_with("error") {
            return Err(format!("{command}: {text}"));
        }
        Ok(alive && !was_late)
    }

    fn signal_stop(&self) {
        stop(self.pid);
    }

    /// gdb has let it go: it is no longer in a tracing stop.
    fn wait_until_it_runs(&self) {
        let deadline = Instant::now() + Duration::from_secs(1);
        while Instant::now() < deadline {
            let status = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
            if !status.rsplit(')').next().unwrap_or_default().starts_with(" t") {
                return;
            }
            std::thread::yield_now();
        }
    }

    /// Mappings as they are now, to both machines.
    fn refresh(&mut self) -> Result<(), String> {
        if matches!(self.memory, Memory::Process(_))
            && let Some(view) = self.files.look(self.pid)?
        {
            self.view = view;
            self.publish();
        }
        Ok(())
    }

    /// Brings the mappings to both machines, after a change of [`Session::view`].
    pub(crate) fn publish(&mut self) {
        self.view.publish(self.pid, &mut self.modern);
        self.view.publish(self.pid, &mut self.legacy);
    }

    fn compare(&mut self, gdb: GdbThread) -> Result<Row, String> {
        let registers = gdb.registers.clone();
        let mode = if registers.in_system_call() { Mode::Kernel } else { Mode::User };
        if matches!(self.memory, Memory::Remote) {
            let stack = self.gdb.memory(registers.sp() & !7, REMOTE_STACK_BYTES)?;
            for machine in [&mut self.modern, &mut self.legacy] {
                machine.forget_memory();
                machine.add_memory(registers.sp() & !7, &stack);
            }
        }
        let sample = Sample { pid: self.pid, tid: gdb.tid, mode, registers };
        let mut ours = self.modern.walk(&sample);
        if matches!(self.memory, Memory::Remote) {
            for _ in 0..REMOTE_PLACES {
                let Some(missing) = ours.unreadable.filter(|_| ours.end == "UnreadableStack") else { break };
                let start = missing & !4095;
                let more = self.gdb.memory(start, REMOTE_PLACE_BYTES)?;
                for machine in [&mut self.modern, &mut self.legacy] {
                    machine.add_memory(start, &more);
                }
                ours = self.modern.walk(&sample);
            }
        }
        let theirs = self.legacy.walk(&sample);
        let mut code = std::collections::HashMap::new();
        for pc in
            ours.frames.iter().map(|frame| frame.address()).chain(gdb.frames.iter().map(|frame| frame.pc))
        {
            code.entry(pc).or_insert_with(Vec::new);
        }
        let first_difference = first_difference(&ours, &gdb);
        if first_difference.is_some() {
            for (pc, before) in &mut code {
                *before = self.bytes_before(*pc);
            }
        }
        let mut verdict = judge(&ours, &gdb, &|pc, _| code.get(&pc).cloned().unwrap_or_default());
        if (&ours.end, &ours.frames) != (&theirs.end, &theirs.frames) {
            verdict = Verdict::Wrong("both objects differ".to_owned());
        }
        Ok(Row { stop: self.stops, sample, ours, gdb, verdict, first_difference })
    }

    fn bytes_before(&mut self, pc: u64) -> Vec<u8> {
        let start = pc.saturating_sub(7);
        match &self.memory {
            Memory::Process(memory) => {
                let mut bytes = vec![0; 7];
                if memory.read_exact_at(&mut bytes, start).is_ok() { bytes } else { Vec::new() }
            }
            Memory::Remote => self.gdb.memory(start, 7).unwrap_or_default(),
        }
    }

    /// The words that a walk read, from the process as it stands: runs of memory, ascending.
    pub(crate) fn memory_of(&mut self, walk: &Walk) -> Result<Vec<(u64, Vec<u64>)>, String> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        let mut reads: Vec<(u64, u64)> = walk
            .reads
            .iter()
            .map(|(start, bytes)| (start & !7, (start + bytes).next_multiple_of(8)))
            .collect();
        reads.sort_unstable();
        for (start, end) in reads {
            match ranges.last_mut() {
                Some(last) if last.1 >= start => last.1 = last.1.max(end),
                _ => ranges.push((start, end)),
            }
        }
        let mut memory = Vec::new();
        for (start, end) in ranges {
            let bytes = match &self.memory {
                Memory::Process(file) => {
                    let mut bytes = vec![0; (end - start) as usize];
                    file.read_exact_at(&mut bytes, start).map_err(|error| error.to_string())?;
                    bytes
                }
                Memory::Remote => self.gdb.memory(start, end - start)?,
            };
            let word = |chunk: &[u8]| u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
            memory.push((start, bytes.chunks_exact(8).map(word).collect()));
        }
        Ok(memory)
    }
}

fn stop(pid: u32) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        // An error means that it is gone, which gdb will say.
        let _ = kill_process(pid, Signal::STOP);
    }
}

/// Both stacks side by side, for a person.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = format!("{} ({} left out)", self.ours.end, self.ours.skipped);
        writeln!(
            f,
            "thread {}: {}; ours ends: {end}; gdb: {}",
            self.sample.tid,
            self.verdict.reason(),
            self.gdb.stopped_by
        )?;
        for n in 0..self.ours.frames.len().max(self.gdb.frames.len()) {
            let ours = self.ours.frames.get(n).map(|frame| format!("{frame:?}")).unwrap_or_default();
            let (pc, name) = self.gdb.frames.get(n).map_or((0, ""), |frame| (frame.pc, frame.name.as_str()));
            let mark = if self.first_difference == Some(n) { "  <- first difference" } else { "" };
            writeln!(f, "  {n:4} {ours:>20} {pc:#18x} {name}{mark}")?;
        }
        Ok(())
    }
}

/// Looks at a living process at random moments: the whole of it in one call.
pub(crate) fn compare(pid: u32, stops: usize, longest: Duration) -> Result<Vec<Row>, String> {
    Session::attach(pid)?.stop_often(stops, longest)
}
