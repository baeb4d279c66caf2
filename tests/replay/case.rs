//! One recorded stack as text: what is needed to walk it again, and what the walk has to find.
//!
//! The format is described in README.md of this folder. A file that makes no sense fails the test with its name and line.

use std::fmt::Write as _;

use everflame::agent::bpf::UserFrame;
use everflame::agent::process::{KernelSide, ProcessMapping};
use everflame::model::{ElfAddr, RuntimeAddr};
use everflame::unwind::{Architecture, Row, Rule, UnwindTable};

use super::machine::{Machine, Mode, Sample, Walk};
use super::registers::Registers;
use super::rule_text;

/// Process and thread that a case runs as.
const PID: u32 = 4711;

/// One executable mapping with the rows that were needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CaseMapping {
    pub(crate) start: u64,
    pub(crate) len: u64,
    /// Runtime minus ELF address, wrapping.
    pub(crate) bias: u64,
    /// File and build id, for people.
    pub(crate) name: String,
    /// ELF address and rule, ascending; `None` when the mapping has no table.
    pub(crate) rows: Option<Vec<(u64, Rule)>>,
}

/// A frame that the walk has to find, with its name for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CaseFrame {
    pub(crate) frame: UserFrame,
    pub(crate) name: String,
}

/// One case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    /// What it is and which mistake it keeps away.
    pub(crate) story: String,
    pub(crate) mode: Mode,
    pub(crate) registers: Registers,
    pub(crate) pac_mask: u64,
    /// Whether the kernel side knows the process.
    pub(crate) known: bool,
    pub(crate) mappings: Vec<CaseMapping>,
    /// Start and words of each run of memory; `None` for a word that does not matter.
    pub(crate) memory: Vec<(u64, Vec<Option<u64>>)>,
    pub(crate) end: String,
    pub(crate) skipped: u64,
    pub(crate) frames: Vec<CaseFrame>,
}

impl Case {
    /// Puts mappings, rules and memory into a machine and walks.
    pub(crate) fn run(&self, machine: &mut Machine) -> Walk {
        machine.forget_memory();
        machine.set_pac_mask(self.pac_mask);
        machine.tables.remove_process(PID);
        if self.known {
            let mut mappings: Vec<ProcessMapping> = Vec::new();
            for mapping in &self.mappings {
                let table = mapping.rows.as_ref().map(|rows| machine.publish(&table(rows)).unwrap());
                mappings.push(ProcessMapping {
                    start: RuntimeAddr(mapping.start),
                    len: mapping.len,
                    bias: mapping.bias,
                    table,
                    pending: false,
                });
            }
            machine.tables.set_process(PID, &mappings).unwrap();
        }
        for (start, words) in &self.memory {
            let mut address = *start;
            for run in words.chunk_by(|a, b| a.is_some() == b.is_some()) {
                let bytes: Vec<u8> = run.iter().flatten().flat_map(|word| word.to_le_bytes()).collect();
                if !bytes.is_empty() {
                    machine.add_memory(address, &bytes);
                }
                address += 8 * run.len() as u64;
            }
        }
        let sample = Sample { pid: PID, tid: PID + 1, mode: self.mode, registers: self.registers.clone() };
        machine.walk(&sample)
    }

    /// Takes out every word and register without which the walk is the same: stacks hold what is nobody's business.
    pub(crate) fn minimise(&mut self, machine: &mut Machine) {
        let result = |case: &Self, machine: &mut Machine| {
            let walk = case.run(machine);
            (walk.end, walk.frames, walk.skipped)
        };
        let wanted = result(self, machine);
        for run in 0..self.memory.len() {
            // Many at once, then one by one where that was too much.
            for size in [64, 8, 1] {
                for first in (0..self.memory[run].1.len()).step_by(size) {
                    let end = self.memory[run].1.len().min(first + size);
                    let before = self.memory[run].1[first..end].to_vec();
                    if before.iter().all(Option::is_none) {
                        continue;
                    }
                    self.memory[run].1[first..end].fill(None);
                    if result(self, machine) != wanted {
                        self.memory[run].1[first..end].copy_from_slice(&before);
                    }
                }
            }
        }
        for (start, words) in &mut self.memory {
            let leading = words.iter().take_while(|word| word.is_none()).count();
            words.drain(..leading);
            *start += 8 * leading as u64;
            let trailing = words.iter().rev().take_while(|word| word.is_none()).count();
            words.truncate(words.len() - trailing);
        }
        self.memory.retain(|(_, words)| !words.is_empty());
        let blank = Registers::new(self.registers.architecture);
        // What a walk begins with stays, whatever the rule of the first frame makes of it.
        let kept = ["rip", "rsp", "rbp", "pc", "sp", "x29"];
        for (name, value) in self.registers.clone().all().filter(|(name, _)| !kept.contains(&name.as_str())) {
            self.registers.set(&name, blank.get(&name));
            if result(self, machine) != wanted {
                self.registers.set(&name, value);
            }
        }
    }

    /// What is wrong with a walk; empty when nothing is.
    pub(crate) fn differences(&self, walk: &Walk) -> String {
        let mut text = String::new();
        let mut differs = |what: &str, expected: &dyn std::fmt::Debug, found: &dyn std::fmt::Debug| {
            if format!("{expected:?}") != format!("{found:?}") {
                let _ = writeln!(text, "{what}: expected {expected:?}, found {found:?}");
            }
        };
        differs("end", &self.end, &walk.end);
        differs("skipped frames", &self.skipped, &walk.skipped);
        differs("number of frames", &self.frames.len(), &walk.frames.len());
        let expected: Vec<UserFrame> = self.frames.iter().map(|frame| frame.frame).collect();
        let first =
            (0..expected.len().max(walk.frames.len())).find(|&n| expected.get(n) != walk.frames.get(n));
        if let Some(n) = first {
            let name = self.frames.get(n).map_or("nothing", |frame| &frame.name);
            let show = |frame: Option<&UserFrame>| frame.map(|frame| print_frame(*frame));
            let (expected, found) = (show(expected.get(n)), show(walk.frames.get(n)));
            let _ = writeln!(text, "frame {n} ({name}): expected {expected:?}, found {found:?}");
        }
        text
    }

    /// The text of a case file.
    pub(crate) fn parse(text: &str) -> Self {
        let mut lines = text.lines().enumerate().peekable();
        let mut case: Option<Self> = None;
        let mut story = String::new();
        while let Some((number, line)) = lines.next() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let place = format!("line {}", number + 1);
            let (key, value) = line.split_once(':').unwrap_or_else(|| panic!("{place}: expected key: value"));
            let value = value.trim();
            let mut items = Vec::new();
            while let Some((_, item)) = lines.next_if(|(_, line)| line.starts_with(' ')) {
                items.push(item.trim());
            }
            if key == "story" {
                let whole: Vec<&str> = std::iter::once(value).chain(items).collect();
                whole.join("\n").trim().clone_into(&mut story);
                continue;
            }
            if key == "architecture" {
                let architecture = match value {
                    "x86_64" => Architecture::X86_64,
                    "aarch64" => Architecture::Aarch64,
                    _ => panic!("{place}: no architecture {value}"),
                };
                case = Some(Self {
                    story: story.clone(),
                    mode: Mode::User,
                    registers: Registers::new(architecture),
                    pac_mask: 0,
                    known: true,
                    mappings: Vec::new(),
                    memory: Vec::new(),
                    end: String::new(),
                    skipped: 0,
                    frames: Vec::new(),
                });
                continue;
            }
            let case = case.as_mut().unwrap_or_else(|| panic!("{place}: architecture comes before {key}"));
            case.take(key, value, &items, &place);
        }
        case.expect("a case names its architecture")
    }

    fn take(&mut self, key: &str, value: &str, items: &[&str], place: &str) {
        match key {
            "mode" => {
                self.mode = match value {
                    "user" => Mode::User,
                    "kernel" => Mode::Kernel,
                    "kernel thread" => Mode::KernelThread,
                    _ => panic!("{place}: no mode {value}"),
                }
            }
            "registers" => {
                for pair in items.iter().flat_map(|item| item.split_whitespace()) {
                    let (name, value) =
                        pair.split_once('=').unwrap_or_else(|| panic!("{place}: expected name=value"));
                    self.registers.set(name, number(value, place));
                }
            }
            "pac mask" => self.pac_mask = number(value, place),
            "process" => self.known = value != "unknown",
            "mapping" => self.mappings.push(parse_mapping(value, items, place)),
            "memory" => {
                let words = items.iter().flat_map(|item| item.split_whitespace());
                self.memory.push((number(value, place), parse_words(words, place)));
            }
            "end" => value.clone_into(&mut self.end),
            "skipped" => self.skipped = number(value, place),
            "frames" => {
                for item in items {
                    let (times, item) = item.split_once(" x ").unwrap_or(("1", item));
                    let frame = parse_frame(item, place);
                    let times = number(times, place) as usize;
                    self.frames.extend(std::iter::repeat_n(frame, times));
                }
            }
            _ => panic!("{place}: no key {key}"),
        }
    }

    /// As a file.
    pub(crate) fn print(&self) -> String {
        let mut text = String::from("story:\n");
        for line in self.story.lines() {
            let _ = writeln!(text, "  {line}");
        }
        let architecture = match self.registers.architecture {
            Architecture::X86_64 => "x86_64",
            Architecture::Aarch64 => "aarch64",
        };
        let mode = match self.mode {
            Mode::User => "user",
            Mode::Kernel => "kernel",
            Mode::KernelThread => "kernel thread",
        };
        let _ = writeln!(text, "architecture: {architecture}\nmode: {mode}");
        if self.pac_mask != 0 {
            let _ = writeln!(text, "pac mask: {:#x}", self.pac_mask);
        }
        if !self.known {
            text.push_str("process: unknown\n");
        }
        let blank = Registers::new(self.registers.architecture);
        let set = self.registers.all().filter(|(name, value)| *value != blank.get(name));
        let pairs: Vec<String> = set.map(|(name, value)| format!("{name}={value:#x}")).collect();
        text.push_str("registers:\n");
        for line in pairs.chunks(5) {
            let _ = writeln!(text, "  {}", line.join(" "));
        }
        for mapping in &self.mappings {
            let (start, len, bias) = (mapping.start, mapping.len, mapping.bias);
            let _ = writeln!(text, "mapping: {start:#x} {len:#x} {bias:#x} {}", mapping.name);
            match &mapping.rows {
                Some(rows) => {
                    for (address, rule) in rows {
                        let _ = writeln!(text, "  {address:#x} {}", rule_text::print(rule));
                    }
                }
                None => text.push_str("  no table\n"),
            }
        }
        for (start, words) in &self.memory {
            let _ = writeln!(text, "memory: {start:#x}");
            for line in print_words(words).chunks(6) {
                let _ = writeln!(text, "  {}", line.join(" "));
            }
        }
        let _ = writeln!(text, "end: {}", self.end);
        if self.skipped > 0 {
            let _ = writeln!(text, "skipped: {:#x}", self.skipped);
        }
        text.push_str("frames:\n");
        for same in self.frames.chunk_by(|a, b| a == b) {
            let times = if same.len() > 1 { format!("{} x ", same.len()) } else { String::new() };
            let _ = writeln!(text, "  {times}{} {}", print_frame(same[0].frame), same[0].name);
        }
        text
    }
}

/// A table of only these rows.
fn table(rows: &[(u64, Rule)]) -> UnwindTable {
    let base = rows.first().map_or(0, |(address, _)| *address);
    let row = |(index, (address, _)): (usize, &(u64, Rule))| Row {
        offset: u32::try_from(address - base).expect("rows of one file span less than 4 GiB"),
        rule: index as u16,
    };
    UnwindTable {
        base: ElfAddr(base),
        rows: rows.iter().enumerate().map(row).collect(),
        rules: rows.iter().map(|(_, rule)| *rule).collect(),
        ..UnwindTable::default()
    }
}

fn number(text: &str, place: &str) -> u64 {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.unwrap_or_else(|_| panic!("{place}: {text:?} is no number"))
}

fn parse_mapping(value: &str, items: &[&str], place: &str) -> CaseMapping {
    let mut fields = value.splitn(4, ' ');
    let mut field = || number(fields.next().unwrap_or_default(), place);
    let (start, len, bias) = (field(), field(), field());
    let rows = (items != ["no table"]).then(|| {
        let row = |item: &&str| {
            let (address, rule) =
                item.split_once(' ').unwrap_or_else(|| panic!("{place}: expected address and rule"));
            (number(address, place), rule_text::parse(rule))
        };
        items.iter().map(row).collect()
    });
    CaseMapping { start, len, bias, name: fields.next().unwrap_or_default().to_owned(), rows }
}

/// `0x1 - zero*3 -*20 (0x1 -)*900`, where `-` is a word that does not matter.
fn parse_words<'t>(mut words: impl Iterator<Item = &'t str>, place: &str) -> Vec<Option<u64>> {
    let one = |word: &str| (word != "-").then(|| number(word, place));
    let mut memory = Vec::new();
    while let Some(word) = words.next() {
        if let Some(times) = word.strip_prefix("zero*") {
            memory.resize(memory.len() + number(times, place) as usize, Some(0));
        } else if let Some(times) = word.strip_prefix("-*") {
            memory.resize(memory.len() + number(times, place) as usize, None);
        } else if let Some(first) = word.strip_prefix('(') {
            let mut group = Vec::new();
            let mut word = first;
            let times = loop {
                if let Some((last, times)) = word.split_once(")*") {
                    group.push(one(last));
                    break number(times, place);
                }
                group.push(one(word));
                word = words.next().unwrap_or_else(|| panic!("{place}: a group is not closed"));
            };
            (0..times).for_each(|_| memory.extend(&group));
        } else {
            memory.push(one(word));
        }
    }
    memory
}

fn print_words(words: &[Option<u64>]) -> Vec<String> {
    let one = |word: &Option<u64>| word.map_or_else(|| "-".to_owned(), |word| format!("{word:#x}"));
    let mut text = Vec::new();
    let mut rest = words;
    while let Some(first) = rest.first() {
        // The frames of a recursion are alike.
        let times = |period: usize| rest.chunks(period).take_while(|chunk| *chunk == &rest[..period]).count();
        let group = (2..=16.min(rest.len())).map(|period| (period, times(period))).max_by_key(|(p, t)| p * t);
        let same = times(1);
        let taken = match group {
            _ if same > 1 && *first == Some(0) => {
                text.push(format!("zero*{same}"));
                same
            }
            _ if same > 1 && first.is_none() => {
                text.push(format!("-*{same}"));
                same
            }
            Some((period, times)) if times > 3 => {
                let words: Vec<String> = rest[..period].iter().map(one).collect();
                text.push(format!("({})*{times}", words.join(" ")));
                period * times
            }
            _ => {
                text.push(one(first));
                1
            }
        };
        rest = &rest[taken..];
    }
    text
}

/// `0x401136 return approximate name`.
fn parse_frame(item: &str, place: &str) -> CaseFrame {
    let (address, mut rest) = item.split_once(' ').unwrap_or((item, ""));
    let mut frame = number(address, place);
    for (word, flag) in [("return", UserFrame::RETURN_ADDRESS), ("approximate", UserFrame::APPROXIMATE)] {
        if let Some(behind) =
            rest.strip_prefix(word).filter(|behind| behind.is_empty() || behind.starts_with(' '))
        {
            frame |= flag;
            rest = behind.trim_start();
        }
    }
    CaseFrame { frame: UserFrame(frame), name: rest.to_owned() }
}

fn print_frame(frame: UserFrame) -> String {
    let flag = |set: bool, word: &'static str| if set { word } else { "" };
    let is_return = flag(frame.is_return_address(), " return");
    format!("{:#x}{is_return}{}", frame.address(), flag(frame.is_approximate(), " approximate"))
}
