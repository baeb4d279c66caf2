//! How much of the code below some folders can be unwound, and where the rest lies.
//!
//! `cargo run --example unwind_survey -- [FOLDER | FILE]...` (without arguments: all programs and libraries of this
//! machine). Prints bytes of code by kind of rule, entries left out by reason, and the files and functions that have
//! most code without a rule.
#![allow(clippy::print_stdout, reason = "it is what this program is for")]

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use everflame::model::ElfAddr;
use everflame::unwind::{CfaRule, RaRule, Rule, Skipped, UnwindTable, from_elf};
use object::{Object, ObjectSection, ObjectSymbol, SectionKind};

/// Files and stretches that are listed.
const LISTED: usize = 25;

/// Stretches of one file that are named.
const NAMED: usize = 3;

/// Where an ordinary distribution keeps programs and libraries.
const EVERYWHERE: [&str; 7] = ["/bin", "/sbin", "/lib", "/lib64", "/usr", "/opt", "/root"];

/// What was found in one file, or in all.
#[derive(Default)]
struct Findings {
    /// Bytes of code by the kind of their rule.
    bytes: BTreeMap<&'static str, u64>,
    rows: u64,
    skipped: Skipped,
    /// Code without a rule, longest first: bytes and what symbols call it.
    stretches: Vec<(u64, String)>,
}

impl Findings {
    fn code(&self) -> u64 {
        self.bytes.values().sum()
    }

    fn unknown(&self) -> u64 {
        self.bytes.get(UNKNOWN).copied().unwrap_or(0)
    }
}

const UNKNOWN: &str = "no rule";

fn kind(rule: Option<Rule>) -> &'static str {
    match rule {
        None | Some(Rule::Unknown) => UNKNOWN,
        Some(Rule::Guess { .. }) => "guessed",
        Some(Rule::Stop) => "stop",
        Some(Rule::Signal) => "signal",
        Some(Rule::Goroutine(_)) => "goroutine's own record",
        Some(Rule::FramePointer | Rule::BorrowedFramePointer) => "frame pointer",
        Some(Rule::Frame { ra: RaRule::Register(_), .. }) => "return address in a register",
        Some(Rule::Frame { cfa, .. }) => match cfa {
            CfaRule::Sp(_) => "stack pointer + n",
            CfaRule::Fp(_) => "frame pointer + n",
            CfaRule::Plt { .. } => "lazy-binding stub",
            CfaRule::DerefSp { .. } | CfaRule::DerefFp { .. } => "from memory",
            CfaRule::Register { .. } => "other register + n",
        },
    }
}

/// Stretches with one rule inside `range`.
fn stretches(table: &UnwindTable, range: Range<u64>) -> Vec<(Range<u64>, Option<Rule>)> {
    let inside = table.rows.iter().map(|row| table.base.0 + u64::from(row.offset));
    let mut starts: Vec<_> = inside.filter(|at| range.contains(at)).collect();
    starts.insert(0, range.start);
    let ends = starts.clone().into_iter().skip(1).chain(std::iter::once(range.end));
    let rule = |start: u64| table.find(ElfAddr(start));
    starts.into_iter().zip(ends).map(|(start, end)| (start..end, rule(start))).collect()
}

/// Without what linkers and assemblers fill up with.
fn without_padding(code: &[u8]) -> usize {
    let is_padding = |byte: &u8| matches!(byte, 0 | 0x90 | 0xcc);
    code.len() - code.iter().rev().take_while(|byte| is_padding(byte)).count()
}

fn survey(bytes: &[u8]) -> Option<Findings> {
    let table = from_elf(bytes).ok()?;
    let file = object::File::parse(bytes).ok()?;
    let mut findings =
        Findings { rows: table.rows.len() as u64, skipped: table.skipped, ..Findings::default() };
    let mut symbols: Vec<_> = file
        .symbols()
        .chain(file.dynamic_symbols())
        .filter(|symbol| symbol.is_definition() && symbol.address() != 0)
        .filter_map(|symbol| Some((symbol.address(), symbol.name().ok()?.to_owned())))
        .collect();
    symbols.sort();
    let name = |address: u64| {
        let at = symbols.partition_point(|(start, _)| *start <= address);
        at.checked_sub(1)
            .map_or_else(String::new, |at| format!(" {}+{:#x}", symbols[at].1, address - symbols[at].0))
    };
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        let code = section.data().unwrap_or_default();
        let start = section.address();
        for (range, rule) in stretches(&table, start..start + code.len() as u64) {
            let code = &code[(range.start - start) as usize..(range.end - start) as usize];
            let kind = kind(rule);
            let len = if kind == UNKNOWN { without_padding(code) as u64 } else { code.len() as u64 };
            *findings.bytes.entry(kind).or_default() += len;
            if kind == UNKNOWN && len > 0 {
                let place =
                    format!("{} {:#x}{}", section.name().unwrap_or("?"), range.start, name(range.start));
                findings.stretches.push((len, place));
            }
        }
    }
    findings.stretches.sort_by_key(|(len, _)| std::cmp::Reverse(*len));
    Some(findings)
}

/// All files below, each inode once.
fn files(path: &Path, seen: &mut HashSet<(u64, u64)>, found: &mut Vec<PathBuf>) {
    let Ok(metadata) = path.symlink_metadata() else { return };
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            files(&entry.path(), seen, found);
        }
    } else if metadata.is_file() && metadata.len() > 64 && seen.insert((metadata.dev(), metadata.ino())) {
        found.push(path.to_owned());
    }
}

/// Whether it starts as an ELF file that is linked: a program or a library.
fn is_linked(path: &Path) -> bool {
    use std::io::Read;
    let mut header = [0; 18];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut header));
    read.is_ok() && header.starts_with(b"\x7fELF") && matches!(header[16], 2 | 3)
}

fn main() {
    let mut arguments: Vec<_> = std::env::args().skip(1).map(PathBuf::from).collect();
    if arguments.is_empty() {
        arguments.extend(EVERYWHERE.map(PathBuf::from));
    }
    let (mut seen, mut paths) = (HashSet::new(), Vec::new());
    for argument in arguments {
        // What was named may be a link; what lies below is not followed.
        files(&argument.canonicalize().unwrap_or(argument), &mut seen, &mut paths);
    }
    let (mut all, mut worst, mut count) = (Findings::default(), Vec::new(), 0);
    for path in paths.into_iter().filter(|path| is_linked(path)) {
        let Some(findings) = std::fs::read(&path).ok().and_then(|bytes| survey(&bytes)) else { continue };
        count += 1;
        for (kind, bytes) in &findings.bytes {
            *all.bytes.entry(kind).or_default() += bytes;
        }
        all.rows += findings.rows;
        all.skipped += findings.skipped;
        let (code, unknown, skipped) = (findings.code(), findings.unknown(), findings.skipped);
        let named: Vec<_> = findings.stretches.into_iter().take(NAMED).collect();
        worst.push((unknown, code, path, skipped, named));
    }
    println!("{count} files, {} bytes of code, {} rows", all.code(), all.rows);
    for (kind, bytes) in &all.bytes {
        println!("{bytes:>12} {:>7.3} % {kind}", *bytes as f64 * 100.0 / all.code().max(1) as f64);
    }
    println!("left out: {:?}", all.skipped);
    worst.sort_by_key(|(unknown, ..)| std::cmp::Reverse(*unknown));
    for (unknown, code, path, skipped, named) in worst.into_iter().take(LISTED) {
        println!("{unknown:>12} of {code} bytes without a rule: {} {skipped:?}", path.display());
        for (len, place) in named {
            println!("{len:>24} {place}");
        }
    }
}
