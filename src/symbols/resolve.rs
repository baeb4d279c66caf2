//! One executable's names: all sources weighed once, then address by address.
//!
//! Best source first, per address: tables that know lines and inlined calls ([`Lines`]: Go today, DWARF when its reader
//! arrives), then the settled symbols of all symbol tables. A source that cannot be read does not spoil the others;
//! what was wrong with it is told for the addresses that remain without a name.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::demangle::demangle;
use super::elf::{Elf, Sections, mini_debug_info, plt, symtab};
use super::mapped::Window;
use super::ranges::{Builder, NameId, RangeTable};
use super::{Error, Result, gosym};
use crate::model::{ElfAddr, SourceLine, UnknownReason};

/// A source that knows lines, and perhaps what was inlined.
pub trait Lines: Send + Sync + fmt::Debug {
    /// Functions at an address, outermost first; `None` when this source does not cover it.
    fn lines(&self, address: ElfAddr) -> Option<Vec<SourceLine>>;

    /// Memory held, in bytes.
    fn bytes(&self) -> usize;
}

/// Most names that are kept ready in their final form: 65,536, some 6 MiB. The distinct functions that a host samples
/// in one file are a few thousand.
const MAX_READY_NAMES: usize = 64 << 10;
/// Memory of one ready name beside its text: entry of the map, two counters of the `Arc`.
const READY_NAME_BYTES: usize = 48;

/// Everything that is known of one executable's addresses.
#[derive(Debug)]
pub struct SymbolIndex {
    /// Best first.
    detailed: Vec<Box<dyn Lines>>,
    table: RangeTable,
    /// Names already demangled.
    ready: Mutex<HashMap<NameId, Arc<str>>>,
    /// What could not be read, in words.
    faults: Vec<String>,
    sources: Vec<Source>,
}

/// Where names come from, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Go's tables: functions, lines, inlined calls.
    GoTable,
    /// `.symtab` of a separate debug file.
    DebugFile,
    /// `.symtab` of the file.
    SymbolTable,
    /// `.symtab` in `.gnu_debugdata`.
    MiniDebugInfo,
    /// `.dynsym`.
    DynamicSymbols,
    /// Calls through the procedure linkage table.
    Stubs,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GoTable => ".gopclntab",
            Self::DebugFile => "debug file",
            Self::SymbolTable => ".symtab",
            Self::MiniDebugInfo => ".gnu_debugdata",
            Self::DynamicSymbols => ".dynsym",
            Self::Stubs => "procedure linkage table",
        })
    }
}

impl SymbolIndex {
    /// Reads all that `elf`, and its separate debug file if there is one, have to say. The caller made sure that the
    /// two belong together (same build ID).
    ///
    /// # Errors
    /// When nothing can be placed at all: no readable section headers, or addresses that count per section.
    pub fn build(elf: &Elf, debug: Option<&Elf>) -> Result<Self> {
        if elf.is_relocatable() {
            let expected = "an executable or shared library";
            return Err(Error::Unsupported { what: "ELF type", expected, found: 1 });
        }
        let sections = elf.sections()?;
        let mut build =
            Build { builder: Builder::new(code(elf, &sections)), faults: Vec::new(), sources: Vec::new() };
        let mut detailed: Vec<Box<dyn Lines>> = Vec::new();

        let go = gosym::find(elf, &sections);
        if let Some(go) = build.note(Source::GoTable, go).flatten() {
            build.sources.push(Source::GoTable);
            detailed.push(Box::new(go));
        }
        if let Some(debug) = debug {
            build.add(Source::DebugFile, |builder| {
                symtab::add(debug, &debug.sections()?, symtab::Table::Full, builder)
            });
        }
        build.add(Source::SymbolTable, |builder| symtab::add(elf, &sections, symtab::Table::Full, builder));
        build.add(Source::MiniDebugInfo, |builder| add_mini_debug_info(elf, &sections, builder));
        build.add(Source::DynamicSymbols, |builder| {
            symtab::add(elf, &sections, symtab::Table::Dynamic, builder)
        });
        build.add(Source::Stubs, |builder| plt::add(elf, &sections, builder));

        let (table, dropped) = build.builder.finish();
        if dropped > 0 {
            build.faults.push(format!("{dropped} symbols are beyond the limit of one file"));
        }
        let (faults, sources) = (build.faults, build.sources);
        Ok(Self { detailed, table, ready: Mutex::default(), faults, sources })
    }

    /// Functions at an ELF address, **outermost first** as in the documents. Only the function is known of a frame
    /// that comes from a symbol table.
    ///
    /// # Errors
    /// The reason why nothing is known, for the person who looks at the frame.
    pub fn lookup(&self, address: ElfAddr) -> std::result::Result<Vec<SourceLine>, UnknownReason> {
        if let Some(lines) = self.detailed.iter().find_map(|source| source.lines(address)) {
            return Ok(lines);
        }
        match self.table.find(address) {
            Some(name) => Ok(vec![SourceLine { function: self.ready(name), ..SourceLine::default() }]),
            None if !self.faults.is_empty() => Err(UnknownReason::BadFile(self.faults.join("; "))),
            None if self.is_empty() => Err(UnknownReason::NoSymbols),
            None => Err(UnknownReason::NotCovered),
        }
    }

    fn ready(&self, name: NameId) -> Arc<str> {
        if let Some(ready) = self.ready.lock().get(&name) {
            return Arc::clone(ready);
        }
        // Not under the lock: a demangler may take its time.
        let text: Arc<str> = demangle(self.table.raw_name(name)).into();
        let mut ready = self.ready.lock();
        if ready.len() >= MAX_READY_NAMES {
            ready.clear();
        }
        ready.insert(name, Arc::clone(&text));
        text
    }

    /// Whether no address has a name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.detailed.is_empty() && self.table.is_empty()
    }

    /// What contributed, best first.
    #[must_use]
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// What could not be read, in words.
    #[must_use]
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// Memory held, in bytes, names made ready so far included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let ready = self.ready.lock();
        let ready_bytes: usize = ready.values().map(|name| name.len() + READY_NAME_BYTES).sum();
        let detailed: usize = self.detailed.iter().map(|source| source.bytes()).sum();
        detailed + self.table.bytes() + ready_bytes
    }
}

/// Where code is: by sections, or by segments in a file without section headers.
fn code(elf: &Elf, sections: &Sections) -> Vec<(ElfAddr, ElfAddr)> {
    let by_section = sections.all().iter().filter(|section| section.is_code());
    let code: Vec<_> = by_section.map(|section| (section.address, section.end())).collect();
    if !code.is_empty() {
        return code;
    }
    let by_segment = elf.segments().iter().filter(|segment| segment.is_load() && segment.is_executable());
    by_segment.map(|segment| (segment.address, segment.end())).collect()
}

#[derive(Debug)]
struct Build {
    builder: Builder,
    faults: Vec<String>,
    sources: Vec<Source>,
}

impl Build {
    fn add(&mut self, source: Source, read: impl FnOnce(&mut Builder) -> Result<bool>) {
        let read = read(&mut self.builder);
        if self.note(source, read) == Some(true) {
            self.sources.push(source);
        }
    }

    fn note<T>(&mut self, source: Source, outcome: Result<T>) -> Option<T> {
        outcome.map_err(|error| self.faults.push(format!("{source}: {error}"))).ok()
    }
}

fn add_mini_debug_info(elf: &Elf, sections: &Sections, builder: &mut Builder) -> Result<bool> {
    let Some(section) = sections.by_name(".gnu_debugdata").filter(|section| section.is_in_file()) else {
        return Ok(false);
    };
    let packed = elf.section_bytes(".gnu_debugdata", section, mini_debug_info::MAX_PACKED_BYTES)?;
    let inner = mini_debug_info::unpack(&packed)?;
    drop(packed);
    // One level only: what is inside is asked for its symbol table and nothing else.
    let inner = Elf::open(super::mapped::ImageFile::from(Window::from(inner)))?;
    symtab::add(&inner, &inner.sections()?, symtab::Table::Full, builder)
}
