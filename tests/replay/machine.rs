//! The C of `bpf/`, compiled for this machine's processor, as a long-lived child: tables go in, walks come out.
//!
//! Tables reach it through the agent's own `Tables`, so that pages, rules and mappings are exactly the kernel's.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

use everflame::agent::bpf::{Object, UserFrame};
use everflame::agent::process::{KernelSide, TableId};
use everflame::agent::tables::{Memory, Page, TableImage, Tables};
use everflame::unwind::{Architecture, UnwindTable};

use super::registers::Registers;

const POOL_BYTES: u64 = 64 << 20;
const MAX_PROCESSES: u32 = 60;
/// As in replay.c.
const KERNEL_STACK_BYTES: u32 = 16384;
/// Frames at the leaf end, behind which a deep stack is cut; `ABI_INNER_FRAMES`.
const INNER_FRAMES: usize = 256;

/// How the child is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Build {
    /// With the compiler's address and undefined-behaviour checks: any finding ends the child.
    Checked,
    /// Without, for hundreds of walks of living processes.
    Fast,
}

/// Where a sampled thread was interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    User,
    /// In the kernel: the user registers lie at the top of its stack there.
    Kernel,
    KernelThread,
}

/// One sample to replay.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    pub(crate) mode: Mode,
    pub(crate) registers: Registers,
}

/// What the sampling program made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Walk {
    /// Name of the end reason.
    pub(crate) end: String,
    /// Leaf first; of a deep stack both ends.
    pub(crate) frames: Vec<UserFrame>,
    /// Frames left out behind the first 256.
    pub(crate) skipped: u64,
    /// Kernel frames in front of the user frames.
    pub(crate) kernel_frames: u64,
    /// Address and length of each successful read of user memory.
    pub(crate) reads: Vec<(u64, u64)>,
    /// The last address that could not be read.
    pub(crate) unreadable: Option<u64>,
    /// Counters of this one tick.
    pub(crate) counters: BTreeMap<String, u64>,
}

/// The way into the child.
#[derive(Clone, Debug)]
pub(crate) struct Link(Arc<Mutex<BufWriter<ChildStdin>>>);

impl Link {
    fn send(&self, kind: char, parts: &[&[u8]]) {
        let mut pipe = self.0.lock().unwrap();
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        pipe.write_all(&(kind as u32).to_le_bytes()).unwrap();
        pipe.write_all(&(bytes as u32).to_le_bytes()).unwrap();
        for part in parts {
            pipe.write_all(part).unwrap();
        }
    }
}

fn bytes_of(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

impl Memory for Link {
    fn add_part(&mut self) -> Result<(), i32> {
        Ok(())
    }

    fn write_page(&mut self, id: u32, page: &Page) {
        self.send('P', &[&id.to_le_bytes(), &bytes_of(page)]);
    }

    fn page_word(&self, _id: u32, _word: usize) -> u32 {
        panic!("the child searches the pages")
    }

    fn write_word(&mut self, id: u32, word: usize, value: u32) {
        self.send('W', &[&bytes_of(&[id, word as u32, value])]);
    }

    fn write_rule(&mut self, id: u16, rule: [u32; 4]) {
        self.send('R', &[&u32::from(id).to_le_bytes(), &bytes_of(&rule)]);
    }

    fn set_process(&mut self, pid: u32, row: [u32; 4]) -> Result<(), i32> {
        self.send('S', &[&pid.to_le_bytes(), &bytes_of(&row)]);
        Ok(())
    }

    fn remove_process(&mut self, pid: u32) -> Result<(), i32> {
        self.send('D', &[&pid.to_le_bytes()]);
        Ok(())
    }

    fn max_processes(&self) -> u32 {
        MAX_PROCESSES
    }
}

/// The running child.
pub(crate) struct Machine {
    child: Child,
    architecture: Architecture,
    link: Link,
    results: BufReader<ChildStdout>,
    pub(crate) tables: Tables<Link>,
}

impl Machine {
    /// Starts one; `None` where there is no C compiler.
    pub(crate) fn start(architecture: Architecture, object: Object, build: Build) -> Option<Self> {
        let path = program(architecture, object, build)?;
        let mut command = Command::new(path);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let link = Link(Arc::new(Mutex::new(BufWriter::new(child.stdin.take().unwrap()))));
        let results = BufReader::new(child.stdout.take().unwrap());
        let tables = Tables::new(link.clone(), POOL_BYTES);
        let mut machine = Self { child, architecture, link, results, tables };
        machine.set_pac_mask(0);
        Some(machine)
    }

    /// Stores a table as the agent does; `None` when there is no room.
    pub(crate) fn publish(&mut self, table: &UnwindTable) -> Option<TableId> {
        self.tables.publish_image(&TableImage::of(self.architecture, table)).ok()
    }

    /// Bits of a code pointer that hold its signature (arm64).
    pub(crate) fn set_pac_mask(&mut self, mask: u64) {
        // `struct abi_settings`: every process, the size of the child's kernel stack, one ring.
        let settings = [&bytes_of(&[0, KERNEL_STACK_BYTES])[..], &mask.to_le_bytes(), &[0; 8]];
        self.link.send('C', &settings);
    }

    /// Bytes of the sampled process.
    pub(crate) fn add_memory(&mut self, start: u64, bytes: &[u8]) {
        self.link.send('M', &[&start.to_le_bytes(), bytes]);
    }

    /// Forgets all memory and everything cached.
    pub(crate) fn forget_memory(&mut self) {
        self.link.send('Z', &[]);
    }

    /// Reads the memory of a living, stopped process from now on.
    pub(crate) fn read_memory_of(&mut self, pid: u32) {
        self.link.send('L', &[&pid.to_le_bytes()]);
    }

    /// One tick.
    pub(crate) fn walk(&mut self, sample: &Sample) -> Walk {
        let kernel_frames = if sample.mode == Mode::User { 0 } else { 3 };
        let head = bytes_of(&[sample.pid, sample.tid, sample.mode as u32, kernel_frames]);
        self.link.send('W', &[&head, &sample.registers.bytes()]);
        self.link.0.lock().unwrap().flush().unwrap();
        let mut line = String::new();
        self.results.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the replaying process ended, see its message above");
        decode(&line)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn decode(line: &str) -> Walk {
    let value: serde_json::Value = serde_json::from_str(line).unwrap();
    let number = |name: &str| value[name].as_u64().unwrap_or_else(|| panic!("no {name} in {line}"));
    let words = |value: &serde_json::Value| -> Vec<u64> {
        value.as_array().unwrap().iter().map(|word| word.as_u64().unwrap()).collect()
    };
    let mut frames: Vec<UserFrame> = words(&value["frames"]).into_iter().map(UserFrame).collect();
    if number("skipped") > 0 {
        frames[INNER_FRAMES..].rotate_left(number("ring_start") as usize);
    }
    let reads = value["reads"].as_array().unwrap().iter().map(|read| {
        let read = words(read);
        (read[0], read[1])
    });
    let counters = value["counters"].as_object().unwrap();
    Walk {
        end: value["end"].as_str().unwrap().to_owned(),
        frames,
        skipped: number("skipped"),
        kernel_frames: number("kernel_frames"),
        reads: reads.collect(),
        unreadable: Some(number("unreadable")).filter(|&address| address != 0),
        counters: counters.iter().map(|(name, count)| (name.clone(), count.as_u64().unwrap())).collect(),
    }
}

/// The compiled child, made once for each way of compiling it.
fn program(architecture: Architecture, object: Object, build: Build) -> Option<PathBuf> {
    static BUILT: Mutex<BTreeMap<String, Option<PathBuf>>> = Mutex::new(BTreeMap::new());
    let target = match architecture {
        Architecture::X86_64 => "x86",
        Architecture::Aarch64 => "arm64",
    };
    let name = format!("replay-{target}-{}-{build:?}", object.name());
    let mut built = BUILT.lock().unwrap();
    let compile = || {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/replay/machine");
        // Other tests compile the same at the same time: each its own, then put in place at once.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (path, own) = (folder.join(&name), folder.join(format!("{name}.{}", std::process::id())));
        let mut compiler = Command::new("cc");
        compiler.args(["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]);
        compiler.args((object == Object::Legacy).then_some("-DEVERFLAME_LEGACY"));
        if build == Build::Checked {
            compiler.args(["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]);
        }
        compiler.arg(format!("-D__TARGET_ARCH_{target}")).arg("-I").arg(&here).arg("-o").arg(&own);
        let status = compiler.arg(here.join("replay.c")).status().ok()?;
        assert!(
            status.success(),
            "replay.c does not compile; a new helper or map is added there and in bpf/"
        );
        std::fs::rename(own, &path).unwrap();
        Some(path)
    };
    built.entry(name.clone()).or_insert_with(compile).clone()
}
