//! The sampling program in the running kernel: true stacks of programs with a known call chain.
//!
//! Needs root (or `CAP_BPF` and `CAP_PERFMON`) and a C compiler; where one is missing each test says so and ends.
//! Both objects are tested; nothing here waits for a time, only for samples, with a deadline.

#![cfg(feature = "agent")]
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stderr)]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use everflame::agent::bpf::{CounterClass, EndReason, KernelMaps, Object, Sampler, SamplerSettings};
use everflame::agent::capabilities::Capabilities;
use everflame::agent::process::{KernelSide, ProcessMapping, TableId};
use everflame::agent::tables::Tables;
use everflame::model::RuntimeAddr;
use everflame::unwind;
use object::{Object as _, ObjectSegment, ObjectSymbol};

/// How long to wait for samples before a test fails.
const DEADLINE: Duration = Duration::from_mins(1);
const POOL_BYTES: u64 = 16 << 20;

/// One at a time: they share two CPUs and want whole ticks. `None`, and why, where the kernel cannot be used.
fn turn() -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    let lacking = Capabilities::effective().unwrap().lacking();
    if let Some(fatal) = lacking.iter().find(|lacking| lacking.fatal) {
        eprintln!("cannot run here: {fatal}");
        return None;
    }
    if chain(Frames::Omitted).is_none() {
        eprintln!("cannot run here: no C compiler (cc) found");
        return None;
    }
    Some(TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

#[derive(Clone, Copy)]
enum Frames {
    Omitted,
    Kept,
}

/// The program with the known chain, compiled once.
fn chain(frames: Frames) -> Option<&'static Path> {
    static BUILT: OnceLock<(tempfile::TempDir, bool)> = OnceLock::new();
    static PATHS: OnceLock<[PathBuf; 2]> = OnceLock::new();
    let (directory, works) = BUILT.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let compile = |name: &str, flag: &str| {
            let mut compiler = Command::new("cc");
            compiler.args(["-O2", "-pthread", flag, "-fno-optimize-sibling-calls", "-o"]);
            compiler.arg(directory.path().join(name)).arg("tests/data/chain.c");
            compiler.status().is_ok_and(|status| status.success())
        };
        let works = compile("omitted", "-fomit-frame-pointer") && compile("kept", "-fno-omit-frame-pointer");
        (directory, works)
    });
    let paths = PATHS.get_or_init(|| ["omitted", "kept"].map(|name| directory.path().join(name)));
    works.then(|| paths[frames as usize].as_path())
}

/// A running program, killed at the end.
struct Program {
    child: Child,
    symbols: Symbols,
}

impl Program {
    fn start(frames: Frames, arguments: &[&str]) -> Self {
        let path = chain(frames).expect("`turn` has built it");
        let mut child = Command::new(path).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let symbols = Symbols::of(child.id(), path);
        Self { child, symbols }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Functions of the program by runtime address.
struct Symbols(BTreeMap<u64, (u64, String)>);

impl Symbols {
    fn of(pid: u32, path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let bias = mappings(pid).iter().find(|m| m.path == path.to_str().unwrap()).unwrap().bias(&bytes);
        let function = |symbol: object::Symbol<'_, '_>| {
            (symbol.address().wrapping_add(bias), (symbol.size().max(1), symbol.name().unwrap().to_owned()))
        };
        Self(file.symbols().filter(|s| s.kind() == object::SymbolKind::Text).map(function).collect())
    }

    fn name(&self, address: u64) -> &str {
        match self.0.range(..=address).next_back() {
            Some((start, (size, name))) if address - start < *size => name,
            _ => "?",
        }
    }
}

/// One executable line of `/proc/PID/maps`.
struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
    path: String,
}

impl Mapping {
    /// Runtime address minus ELF address.
    fn bias(&self, image: &[u8]) -> u64 {
        let file = object::File::parse(image).unwrap();
        let covers = |segment: &object::Segment<'_, '_>| {
            let (offset, size) = segment.file_range();
            offset <= self.offset && self.offset < offset + size.max(1)
        };
        let segment = file.segments().filter(covers).last().unwrap();
        self.start.wrapping_sub(segment.address() + self.offset - segment.file_range().0)
    }
}

fn mappings(pid: u32) -> Vec<Mapping> {
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
fn image(pid: u32, mapping: &Mapping) -> Option<Vec<u8>> {
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
struct Sample {
    pid: u32,
    tid: u32,
    comm: String,
    kernel: usize,
    user: Vec<everflame::agent::bpf::UserFrame>,
    gap_at: u32,
    end: EndReason,
}

/// Sampler and tables for one program.
struct Scene {
    sampler: Sampler,
    tables: Tables<KernelMaps>,
}

impl Scene {
    fn load(object: Object, only_pid: Option<u32>) -> Self {
        let settings = SamplerSettings { frequency_hz: 997, object, only_pid, ..SamplerSettings::default() };
        let sampler = Sampler::load(&settings).unwrap();
        assert_eq!(sampler.object(), object);
        let tables = Tables::new(sampler.maps().unwrap(), POOL_BYTES);
        Self { sampler, tables }
    }

    /// Publishes a table for each file of the process that `wanted` accepts, and its mappings.
    fn know(&mut self, pid: u32, wanted: impl Fn(&str) -> bool) -> Vec<TableId> {
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
            });
        }
        self.tables.set_process(pid, &known).unwrap();
        ids
    }

    /// Samples that `accept` takes, until there are `count`.
    fn collect(&mut self, count: usize, accept: impl Fn(&Sample) -> bool) -> Vec<Sample> {
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
                };
                if accept(&sample) {
                    samples.push(sample);
                }
            });
        }
        samples
    }

    /// After the last tick each one is in exactly one counter.
    fn check_counters(&mut self) -> HashMap<&'static str, u64> {
        self.sampler.stop();
        let counters = self.sampler.classed_counters();
        let sum = |class| counters.iter().filter(|c| c.0 == class).map(|c| c.2).sum::<u64>();
        assert_eq!(sum(CounterClass::Whole), sum(CounterClass::Part), "{counters:?}");
        assert!(sum(CounterClass::Whole) > 0);
        counters.into_iter().map(|(_, name, value)| (name, value)).collect()
    }
}

fn names<'s>(program: &'s Program, sample: &Sample) -> Vec<&'s str> {
    sample.user.iter().map(|frame| program.symbols.name(frame.code_address())).collect()
}

/// Names of the chain, leaf first: the innermost is number `depth`.
fn expected_chain(depth: usize) -> Vec<&'static str> {
    (0..depth).map(|n| ["step_a", "step_b", "step_c", "step_d"][n % 4]).rev().collect()
}

fn is_step(name: &str) -> bool {
    name.starts_with("step_")
}

/// Compares whole chains; failing prints the scene.
fn check_chain(program: &Program, sample: &Sample, depth: usize, root: &str) {
    let names = names(program, sample);
    let scene = || format!("{sample:x?}\n{names:?}");
    assert_eq!(sample.end, EndReason::Complete, "{}", scene());
    let steps: Vec<&str> = names.iter().copied().filter(|name| is_step(name)).collect();
    assert_eq!(steps, expected_chain(depth), "{}", scene());
    let last = names.iter().rposition(|name| is_step(name)).unwrap();
    assert_eq!(names[last + 1], root, "{}", scene());
    assert!(names[..names.iter().position(|n| is_step(n)).unwrap()].contains(&"leaf"), "{}", scene());
    assert!(sample.user.iter().all(|frame| !frame.is_approximate()), "{}", scene());
    assert_eq!(sample.gap_at, 0);
}

/// Spins. `spin` itself may have no frame pointer, and its caller is then passed over.
fn spins(program: &Program, sample: &Sample) -> bool {
    sample.pid == program.pid() && names(program, sample)[0] == "spin"
}

/// Has reached the end of the chain: before, there are fewer frames.
fn at_the_leaf(program: &Program, sample: &Sample) -> bool {
    sample.pid == program.pid() && names(program, sample).contains(&"leaf")
}

const OBJECTS: [Object; 2] = [Object::Modern, Object::Legacy];

#[test]
fn whole_chain_at_every_depth() {
    let Some(_turn) = turn() else { return };
    for object in OBJECTS {
        for depth in [1, 5, 30, 100, 500] {
            let program = Program::start(Frames::Omitted, &["user", &depth.to_string()]);
            let mut scene = Scene::load(object, Some(program.pid()));
            scene.know(program.pid(), |_| true);
            let all = scene.collect(200, |sample| sample.pid == program.pid());
            let at_leaf: Vec<_> = all.iter().filter(|sample| at_the_leaf(&program, sample)).collect();
            assert!(at_leaf.len() * 100 >= all.len() * 95, "{} of {}", at_leaf.len(), all.len());
            for sample in at_leaf {
                check_chain(&program, sample, depth, "main");
                assert_eq!((sample.comm.as_str(), sample.tid), ("omitted", program.pid()));
            }
            scene.check_counters();
        }
    }
}

#[test]
fn whole_chain_inside_system_calls() {
    let Some(_turn) = turn() else { return };
    for object in OBJECTS {
        let program = Program::start(Frames::Omitted, &["syscall", "40"]);
        let mut scene = Scene::load(object, Some(program.pid()));
        scene.know(program.pid(), |_| true);
        let samples = scene.collect(300, |sample| at_the_leaf(&program, sample));
        for sample in &samples {
            check_chain(&program, sample, 40, "main");
        }
        let in_kernel = samples.iter().filter(|sample| sample.kernel > 0).count();
        assert!(in_kernel > 20, "{in_kernel} of 300 samples in the kernel");
    }
}

#[test]
fn whole_chain_through_a_signal_frame() {
    let Some(_turn) = turn() else { return };
    for object in OBJECTS {
        let program = Program::start(Frames::Omitted, &["signal", "25"]);
        let mut scene = Scene::load(object, Some(program.pid()));
        scene.know(program.pid(), |_| true);
        for sample in scene.collect(200, |sample| names(&program, sample).contains(&"handler")) {
            check_chain(&program, &sample, 25, "main");
        }
    }
}

#[test]
fn whole_chain_in_the_vdso() {
    let Some(_turn) = turn() else { return };
    let program = Program::start(Frames::Omitted, &["vdso", "10"]);
    let mut scene = Scene::load(Object::Modern, Some(program.pid()));
    scene.know(program.pid(), |_| true);
    for sample in scene.collect(200, |sample| at_the_leaf(&program, sample)) {
        check_chain(&program, &sample, 10, "main");
    }
}

#[test]
fn whole_chain_of_every_thread() {
    let Some(_turn) = turn() else { return };
    for object in OBJECTS {
        let program = Program::start(Frames::Omitted, &["user", "60", "3"]);
        let mut scene = Scene::load(object, Some(program.pid()));
        scene.know(program.pid(), |_| true);
        let samples = scene.collect(300, |sample| at_the_leaf(&program, sample));
        let mut threads: Vec<u32> = samples.iter().map(|sample| sample.tid).collect();
        for sample in &samples {
            // `run` has become part of the function that pthread_create started, or stands for itself.
            check_chain(&program, sample, 60, "run");
        }
        threads.sort_unstable();
        threads.dedup();
        assert_eq!(threads.len(), 3);
        assert!(!threads.contains(&program.pid()));
    }
}

#[test]
fn both_ends_of_a_deep_stack() {
    let Some(_turn) = turn() else { return };
    for object in OBJECTS {
        let depth = 3000;
        let program = Program::start(Frames::Omitted, &["user", &depth.to_string()]);
        let mut scene = Scene::load(object, Some(program.pid()));
        scene.know(program.pid(), |_| true);
        for sample in scene.collect(100, |sample| at_the_leaf(&program, sample)) {
            let names = names(&program, &sample);
            assert_eq!((sample.end, sample.gap_at), (EndReason::Complete, 256), "{names:?}");
            assert_eq!(names.len(), 512);
            let chain = expected_chain(depth);
            let inner = names[..256].iter().position(|name| is_step(name)).unwrap();
            assert_eq!(names[inner..256], chain[..256 - inner]);
            let outer = names.iter().rposition(|name| is_step(name)).unwrap() + 1;
            assert_eq!(names[256..outer], chain[depth - (outer - 256)..]);
            assert_eq!(names[outer], "main");
        }
        scene.check_counters();
    }
}

#[test]
fn too_deep_a_stack_says_so() {
    let Some(_turn) = turn() else { return };
    for object in OBJECTS {
        let program = Program::start(Frames::Omitted, &["user", "6000"]);
        let mut scene = Scene::load(object, Some(program.pid()));
        scene.know(program.pid(), |_| true);
        for sample in scene.collect(50, |sample| at_the_leaf(&program, sample)) {
            assert_eq!((sample.end, sample.gap_at, sample.user.len()), (EndReason::TooDeep, 256, 512));
        }
    }
}

#[test]
fn unknown_process_is_followed_by_frame_pointers() {
    let Some(_turn) = turn() else { return };
    for object in OBJECTS {
        let program = Program::start(Frames::Kept, &["user", "20"]);
        let mut scene = Scene::load(object, Some(program.pid()));
        for sample in scene.collect(100, |sample| spins(&program, sample)) {
            let names = names(&program, &sample);
            assert_eq!(sample.end, EndReason::UnknownProcess, "{names:?}");
            let steps: Vec<&str> = names.iter().copied().filter(|name| is_step(name)).collect();
            assert_eq!(steps, expected_chain(20), "{names:?}");
            assert!(sample.user[1..].iter().all(|frame| frame.is_approximate()));
        }
    }
}

#[test]
fn file_without_a_table_is_followed_by_frame_pointers_up_to_the_next_table() {
    let Some(_turn) = turn() else { return };
    for object in OBJECTS {
        let program = Program::start(Frames::Kept, &["user", "20"]);
        let mut scene = Scene::load(object, Some(program.pid()));
        scene.know(program.pid(), |path| !path.ends_with("/kept"));
        for sample in scene.collect(100, |sample| spins(&program, sample)) {
            let names = names(&program, &sample);
            let steps: Vec<&str> = names.iter().copied().filter(|name| is_step(name)).collect();
            assert_eq!(steps, expected_chain(20), "{names:?}");
            // `_start` has no frame pointer and here no table: the walk ends there, in sight of the root.
            assert_eq!(sample.end, EndReason::NoTable, "{sample:x?}");
            assert_eq!(*names.last().unwrap(), "_start", "{names:?}");
        }
    }
}

#[test]
fn without_table_and_frame_pointer_the_reason_is_told() {
    let Some(_turn) = turn() else { return };
    let program = Program::start(Frames::Omitted, &["user", "20"]);
    let mut scene = Scene::load(Object::Modern, Some(program.pid()));
    scene.know(program.pid(), |path| !path.ends_with("/omitted"));
    for sample in scene.collect(50, |sample| sample.pid == program.pid()) {
        assert_eq!(sample.end, EndReason::NoTable, "{sample:x?}");
    }
    // The same without any mapping.
    scene.tables.set_process(program.pid(), &[]).unwrap();
    let found = scene.collect(20, |sample| sample.end == EndReason::NoMapping);
    assert!(found.iter().all(|sample| sample.user.len() == 1));
}

#[test]
fn table_that_comes_later_is_used_at_once_and_one_that_goes_is_not() {
    let Some(_turn) = turn() else { return };
    for object in OBJECTS {
        let program = Program::start(Frames::Omitted, &["user", "50"]);
        let mut scene = Scene::load(object, Some(program.pid()));
        for round in 0..5 {
            scene.know(program.pid(), |path| !path.ends_with("/omitted"));
            // What was sampled before the change.
            scene.sampler.drain(|_| ());
            for sample in scene.collect(20, |_| true) {
                assert_eq!(sample.end, EndReason::NoTable, "round {round}: {sample:x?}");
            }
            scene.know(program.pid(), |_| true);
            scene.sampler.drain(|_| ());
            for sample in scene.collect(20, |sample| at_the_leaf(&program, sample)) {
                check_chain(&program, &sample, 50, "main");
            }
        }
    }
}

#[test]
fn many_mappings_use_the_second_level() {
    let Some(_turn) = turn() else { return };
    let program = Program::start(Frames::Omitted, &["user", "30"]);
    let mut scene = Scene::load(Object::Modern, Some(program.pid()));
    let table = |path: &str| unwind::from_elf(&fs::read(path).unwrap()).unwrap();
    let mut known: Vec<ProcessMapping> = Vec::new();
    // Decoys below and above, a page apart so that they are not joined.
    for base in [0x1000_0000_u64, 0x7fff_8000_0000] {
        let decoy = |n: u64| ProcessMapping {
            start: RuntimeAddr(base + n * 0x2000),
            len: 0x1000,
            bias: 0,
            table: None,
        };
        known.extend((0..400).map(decoy));
    }
    for mapping in mappings(program.pid()).iter().filter(|mapping| mapping.path.starts_with('/')) {
        let id = scene.tables.publish(&table(&mapping.path)).unwrap();
        known.push(ProcessMapping {
            start: RuntimeAddr(mapping.start),
            len: mapping.end - mapping.start,
            bias: mapping.bias(&fs::read(&mapping.path).unwrap()),
            table: Some(id),
        });
    }
    known.sort_by_key(|mapping| mapping.start);
    scene.tables.set_process(program.pid(), &known).unwrap();
    for sample in scene.collect(100, |sample| at_the_leaf(&program, sample)) {
        check_chain(&program, &sample, 30, "main");
    }
}

#[test]
fn every_tick_of_the_machine_is_accounted_for() {
    let Some(_turn) = turn() else { return };
    for object in OBJECTS {
        let program = Program::start(Frames::Omitted, &["syscall", "3", "4"]);
        let mut scene = Scene::load(object, None);
        scene.know(program.pid(), |_| true);
        let mut stored = scene.collect(1500, |_| true).len() as u64;
        scene.sampler.stop();
        stored += scene.sampler.drain(|_| ());
        let counters = scene.check_counters();
        assert_eq!(counters["stored"], stored, "{counters:?}");
        assert_eq!(counters["filtered"], 0);
        assert_eq!(counters["dropped.malformed"], 0);
    }
}

#[test]
fn full_ring_is_counted() {
    let Some(_turn) = turn() else { return };
    let program = Program::start(Frames::Omitted, &["user", "500", "2"]);
    let settings = SamplerSettings { frequency_hz: 5000, ring_bytes: 1, ..SamplerSettings::default() };
    let mut sampler = Sampler::load(&settings).unwrap();
    let mut tables = Tables::new(sampler.maps().unwrap(), POOL_BYTES);
    tables.set_process(program.pid(), &[]).unwrap();
    sampler.follow_cpus().unwrap();
    let deadline = Instant::now() + DEADLINE;
    let full = |sampler: &Sampler| {
        sampler.counters().iter().any(|(name, value)| *name == "dropped.ring_full" && *value > 100)
    };
    while !full(&sampler) {
        assert!(Instant::now() < deadline, "{:?}", sampler.counters());
        std::thread::sleep(Duration::from_millis(20));
    }
    sampler.stop();
    let drained = sampler.drain(|_| ());
    let mut scene = Scene { sampler, tables };
    assert_eq!(scene.check_counters()["stored"], drained);
}

#[test]
fn verifier_has_little_to_walk() {
    let Some(_turn) = turn() else { return };
    for object in OBJECTS {
        let scene = Scene::load(object, None);
        let statistics = scene.sampler.run_statistics().unwrap();
        eprintln!("{} object: {statistics:?}", object.name());
        assert!(statistics.verified_instructions < 20_000, "{statistics:?}");
    }
}
