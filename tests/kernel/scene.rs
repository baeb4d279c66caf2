//! A program with a known chain, the sampler on it, and what is expected of its stacks. Shared by tests and benches.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

#[path = "../cannot_run/mod.rs"]
mod reason;

pub(crate) use reason::cannot_run;

use everflame::agent::bpf::{
    CounterClass, EndReason, Features, KernelMaps, Object, Sampler, SamplerSettings, StackCopy, UserFrame,
};
use everflame::agent::capabilities::Capabilities;
use everflame::agent::process::{KernelSide, ProcessMapping, TableId};
use everflame::agent::tables::Tables;
use everflame::model::RuntimeAddr;
use everflame::unwind;
use object::{Object as _, ObjectSegment, ObjectSymbol};

/// How long to wait for samples before a test fails.
pub(crate) const DEADLINE: Duration = Duration::from_mins(2);
pub(crate) const POOL_BYTES: u64 = 16 << 20;

/// One at a time: they share two CPUs and want whole ticks. `None`, and why, where the kernel cannot be used.
pub(crate) fn turn() -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    let lacking = Capabilities::effective().unwrap().lacking();
    if let Some(fatal) = lacking.iter().find(|lacking| lacking.fatal) {
        cannot_run("the kernel side", &fatal.to_string());
        return None;
    }
    if chain(Frames::Omitted).is_none() {
        cannot_run("the kernel side", "no C compiler (cc) found");
        return None;
    }
    Some(TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

#[derive(Clone, Copy)]
pub(crate) enum Frames {
    Omitted,
    Kept,
}

/// The program with the known chain, compiled once; or where `EVERFLAME_CHAIN_DIR` says it lies, for machines without a
/// compiler (`tests/kernels/image` puts them there): `omitted` and `kept`.
pub(crate) fn chain(frames: Frames) -> Option<&'static Path> {
    static BUILT: OnceLock<(PathBuf, Option<tempfile::TempDir>, bool)> = OnceLock::new();
    static PATHS: OnceLock<[PathBuf; 2]> = OnceLock::new();
    let (directory, _, works) = BUILT.get_or_init(|| {
        if let Some(directory) = std::env::var_os("EVERFLAME_CHAIN_DIR") {
            return (directory.into(), None, true);
        }
        let directory = tempfile::tempdir().unwrap();
        let compile = |name: &str, flag: &str| {
            let mut compiler = Command::new("cc");
            compiler.args(["-O2", "-pthread", flag, "-fno-optimize-sibling-calls", "-o"]);
            compiler.arg(directory.path().join(name)).arg("tests/data/chain.c");
            compiler.status().is_ok_and(|status| status.success())
        };
        let works = compile("omitted", "-fomit-frame-pointer") && compile("kept", "-fno-omit-frame-pointer");
        (directory.path().to_owned(), Some(directory), works)
    });
    let paths = PATHS.get_or_init(|| ["omitted", "kept"].map(|name| directory.join(name)));
    works.then(|| paths[frames as usize].as_path())
}

/// An endless loop of two instructions in 32-bit code, compiled, or ready beside the chain programs; `None` where the
/// compiler makes none.
pub(crate) fn loop_of_32_bits(directory: &Path) -> Option<PathBuf> {
    if let Some(ready) = std::env::var_os("EVERFLAME_CHAIN_DIR") {
        return Some(PathBuf::from(ready).join("loop")).filter(|path| path.exists());
    }
    let (source, path) = (directory.join("loop.s"), directory.join("loop"));
    fs::write(&source, ".globl _start\n_start: jmp _start\n").unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-m32", "-nostdlib", "-static", "-no-pie", "-o"]).arg(&path).arg(&source);
    compiler.status().is_ok_and(|status| status.success()).then_some(path)
}

/// The program that runs another one behind a seccomp filter which refuses `bpf` and `perf_event_open`.
pub(crate) fn refuser(directory: &Path) -> Option<PathBuf> {
    if let Some(ready) = std::env::var_os("EVERFLAME_CHAIN_DIR") {
        return Some(PathBuf::from(ready).join("refuse"));
    }
    let path = directory.join("refuse");
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-o"]).arg(&path).arg("tests/data/refuse.c");
    compiler.status().is_ok_and(|status| status.success()).then_some(path)
}

/// A program with an io_uring whose poller works all the time; `None` where it cannot be compiled or gets no ring.
pub(crate) fn ring_with_a_poller(directory: &Path) -> Option<PathBuf> {
    if let Some(ready) = std::env::var_os("EVERFLAME_CHAIN_DIR") {
        return Some(PathBuf::from(ready).join("poller")).filter(|path| path.exists());
    }
    let path = directory.join("poller");
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-o"]).arg(&path).arg("tests/data/poller.c");
    let works = compiler.status().is_ok_and(|status| status.success())
        && Command::new(&path).arg("try").status().is_ok_and(|status| status.success());
    works.then_some(path)
}

/// Whether the poller of the program's ring is one of its threads; before Linux 5.12 it is a kernel thread.
pub(crate) fn polls_as_its_own_thread(program: &Program) -> bool {
    let is_named = |directory: &str, name: &str| {
        let names = fs::read_dir(directory).into_iter().flatten().flatten();
        let mut names = names.filter_map(|entry| fs::read_to_string(entry.path().join("comm")).ok());
        names.any(|found| found.starts_with(name))
    };
    let deadline = Instant::now() + DEADLINE;
    loop {
        assert!(Instant::now() < deadline, "no poller");
        if is_named(&format!("/proc/{}/task", program.pid()), "iou-sqp-") {
            return true;
        }
        if is_named("/proc", "io_uring-sq") {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Objects that the running kernel can be expected to take; says so when it is not both.
pub(crate) fn objects() -> Vec<Object> {
    let features = Features::probe();
    if features.allows_modern() {
        return vec![Object::Modern, Object::Legacy];
    }
    eprintln!("only the legacy object can be tested here: {features:?}");
    vec![Object::Legacy]
}

/// A running program, killed at the end.
pub(crate) struct Program {
    child: Child,
    symbols: Symbols,
}

impl Program {
    pub(crate) fn start(frames: Frames, arguments: &[&str]) -> Self {
        let path = chain(frames).expect("`turn` has built it");
        let mut child = Command::new(path).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let symbols = Symbols::of(child.id(), path);
        Self { child, symbols }
    }

    /// Any other program, without its symbols; `None` where it cannot be executed.
    pub(crate) fn other(path: &Path) -> Option<Self> {
        let child = Command::new(path).spawn().ok()?;
        Some(Self { child, symbols: Symbols(BTreeMap::new()) })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Function at an address.
    pub(crate) fn name(&self, address: u64) -> &str {
        self.symbols.name(address)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Functions of the program by runtime address.
pub(crate) struct Symbols(BTreeMap<u64, (u64, String)>);

impl Symbols {
    pub(crate) fn of(pid: u32, path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let bias = mappings(pid).iter().find(|m| m.path == path.to_str().unwrap()).unwrap().bias(&bytes);
        let function = |symbol: object::Symbol<'_, '_>| {
            (symbol.address().wrapping_add(bias), (symbol.size().max(1), symbol.name().unwrap().to_owned()))
        };
        Self(file.symbols().filter(|s| s.kind() == object::SymbolKind::Text).map(function).collect())
    }

    pub(crate) fn name(&self, address: u64) -> &str {
        match self.0.range(..=address).next_back() {
            Some((start, (size, name))) if address - start < *size => name,
            _ => "?",
        }
    }
}

/// One executable line of `/proc/PID/maps`.
pub(crate) struct Mapping {
    pub(crate) start: u64,
    pub(crate) end: u64,
    offset: u64,
    pub(crate) path: String,
}

impl Mapping {
    /// Runtime address minus ELF address.
    pub(crate) fn bias(&self, image: &[u8]) -> u64 {
        let file = object::File::parse(image).unwrap();
        // A segment need not begin at a page of the file, its mapping does.
        let covers = |segment: &object::Segment<'_, '_>| {
            let (offset, size) = segment.file_range();
            let object::SegmentFlags::Elf { p_flags, .. } = segment.flags() else { return false };
            let executable = p_flags.0 & object::elf::PF_X.0 != 0;
            executable && offset & !0xfff <= self.offset && self.offset < offset + size
        };
        let segment = file.segments().find(covers).unwrap();
        self.start
            .wrapping_sub(segment.address().wrapping_add(self.offset).wrapping_sub(segment.file_range().0))
    }
}

pub(crate) fn mappings(pid: u32) -> Vec<Mapping> {
    let text = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let parse = |line: &str| {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        if !fields.next()?.contains('x') {
            return None;
        }
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let offset = hex(fields.next()?)?;
        Some(Mapping {
            start: hex(start)?,
            end: hex(end)?,
            offset,
            path: fields.nth(2).unwrap_or("").to_owned(),
        })
    };
    text.lines().filter_map(parse).collect()
}

/// The file behind a mapping, or the memory itself for the vDSO.
pub(crate) fn image(pid: u32, mapping: &Mapping) -> Option<Vec<u8>> {
    if mapping.path.starts_with('/') {
        return fs::read(&mapping.path).ok();
    }
    if mapping.path != "[vdso]" {
        return None;
    }
    let mut memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    memory.seek(SeekFrom::Start(mapping.start)).unwrap();
    let mut bytes = vec![0; (mapping.end - mapping.start) as usize];
    memory.read_exact(&mut bytes).unwrap();
    Some(bytes)
}

/// What a test keeps of a sample.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    pub(crate) comm: String,
    pub(crate) kernel: usize,
    pub(crate) user: Vec<UserFrame>,
    pub(crate) gap_at: u32,
    pub(crate) end: EndReason,
    pub(crate) stack_copy: Option<StackCopy>,
}

/// Sampler and tables for one program.
pub(crate) struct Scene {
    pub(crate) sampler: Sampler,
    pub(crate) tables: Tables<KernelMaps>,
}

impl Scene {
    pub(crate) fn load(object: Object, only_pid: Option<u32>) -> Self {
        Self::with(&SamplerSettings { frequency_hz: 997, object, only_pid, ..SamplerSettings::default() })
    }

    pub(crate) fn with(settings: &SamplerSettings) -> Self {
        // Where the kernel's own type information was hidden to test this.
        let kernel_types = std::env::var_os("EVERFLAME_KERNEL_TYPES").map(PathBuf::from);
        let sampler = Sampler::load(&SamplerSettings { kernel_types, ..settings.clone() }).unwrap();
        if settings.object != Object::Auto {
            assert_eq!(sampler.object(), settings.object);
        }
        let tables = Tables::new(sampler.maps().unwrap(), POOL_BYTES);
        Self { sampler, tables }
    }

    /// Publishes a table for each file of the process that `wanted` accepts, and its mappings.
    pub(crate) fn know(&mut self, pid: u32, wanted: impl Fn(&str) -> bool) -> Vec<TableId> {
        self.know_mappings(pid, pid, wanted)
    }

    /// Gives the mappings of one process out as those of another.
    pub(crate) fn know_as(&mut self, of: u32, pid: u32) {
        self.know_mappings(of, pid, |_| true);
    }

    fn know_mappings(&mut self, pid: u32, known_as: u32, wanted: impl Fn(&str) -> bool) -> Vec<TableId> {
        let (mut ids, mut known) = (Vec::new(), Vec::new());
        for mapping in mappings(pid) {
            let image = image(pid, &mapping);
            let table = image.as_ref().filter(|_| wanted(&mapping.path)).map(|bytes| {
                let table = unwind::from_elf(bytes).unwrap();
                self.tables.publish(&table).unwrap()
            });
            ids.extend(table);
            known.push(ProcessMapping {
                start: RuntimeAddr(mapping.start),
                len: mapping.end - mapping.start,
                bias: image.map_or(0, |bytes| mapping.bias(&bytes)),
                table,
                pending: false,
            });
        }
        self.tables.set_process(known_as, &known).unwrap();
        ids
    }

    /// Samples that `accept` takes, until there are `count`.
    pub(crate) fn collect(&mut self, count: usize, accept: impl Fn(&Sample) -> bool) -> Vec<Sample> {
        let deadline = Instant::now() + DEADLINE;
        let mut samples = Vec::new();
        self.sampler.follow_cpus().unwrap();
        while samples.len() < count {
            assert!(
                Instant::now() < deadline,
                "{} samples of {count} before the deadline; counters {:?}",
                samples.len(),
                self.sampler.counters()
            );
            std::thread::sleep(Duration::from_millis(20));
            self.sampler.drain(|trace| {
                let comm = trace.comm.split(|byte| *byte == 0).next().unwrap();
                let sample = Sample {
                    pid: trace.pid,
                    tid: trace.tid,
                    comm: String::from_utf8_lossy(comm).into_owned(),
                    kernel: trace.kernel.len(),
                    user: trace.user.to_vec(),
                    gap_at: trace.gap_at,
                    end: trace.end,
                    stack_copy: trace.stack_copy.cloned(),
                };
                if accept(&sample) {
                    samples.push(sample);
                }
            });
        }
        samples
    }

    /// After the last tick each one is in exactly one counter.
    pub(crate) fn check_counters(&mut self) -> HashMap<&'static str, u64> {
        self.sampler.stop();
        let counters = self.sampler.classed_counters();
        let sum = |class| counters.iter().filter(|c| c.0 == class).map(|c| c.2).sum::<u64>();
        assert_eq!(sum(CounterClass::Whole), sum(CounterClass::Part), "{counters:?}");
        assert!(sum(CounterClass::Whole) > 0);
        counters.into_iter().map(|(_, name, value)| (name, value)).collect()
    }
}

pub(crate) fn names<'s>(program: &'s Program, sample: &Sample) -> Vec<&'s str> {
    sample.user.iter().map(|frame| program.symbols.name(frame.code_address())).collect()
}

/// Names of the chain, leaf first: the innermost is number `depth`.
pub(crate) fn expected_chain(depth: usize) -> Vec<&'static str> {
    (0..depth).map(|n| ["step_a", "step_b", "step_c", "step_d"][n % 4]).rev().collect()
}

pub(crate) fn is_step(name: &str) -> bool {
    name.starts_with("step_")
}

/// Compares whole chains; failing prints the scene.
pub(crate) fn check_chain(program: &Program, sample: &Sample, depth: usize, root: &str) {
    check_names(program, sample, depth, root);
    assert!(sample.user.iter().all(|frame| !frame.is_approximate()), "{sample:x?}");
}

/// The same where frame pointers may have been followed.
pub(crate) fn check_names(program: &Program, sample: &Sample, depth: usize, root: &str) {
    let names = names(program, sample);
    let scene = || format!("{sample:x?}\n{names:?}");
    assert_eq!(sample.end, EndReason::Complete, "{}", scene());
    let steps: Vec<&str> = names.iter().copied().filter(|name| is_step(name)).collect();
    assert_eq!(steps, expected_chain(depth), "{}", scene());
    let last = names.iter().rposition(|name| is_step(name)).unwrap();
    assert_eq!(names[last + 1], root, "{}", scene());
    assert!(names[..names.iter().position(|n| is_step(n)).unwrap()].contains(&"leaf"), "{}", scene());
    assert_eq!(sample.gap_at, 0);
}

/// Spins. `spin` itself may have no frame pointer, and its caller is then passed over.
pub(crate) fn spins(program: &Program, sample: &Sample) -> bool {
    sample.pid == program.pid() && names(program, sample)[0] == "spin"
}

/// Has reached the end of the chain: before, there are fewer frames.
pub(crate) fn at_the_leaf(program: &Program, sample: &Sample) -> bool {
    sample.pid == program.pid() && names(program, sample).contains(&"leaf")
}
