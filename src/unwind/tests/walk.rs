//! Walks a whole stack with our tables: mappings to files to rows, rule by rule.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use object::{Object, ObjectSegment, ObjectSymbol, SegmentFlags};

use crate::model::ElfAddr;
use crate::unwind::{Architecture, Registers, Trouble, UnwindTable, from_elf, step};

const MAX_FRAMES: usize = 1024;

/// One executable mapping of a process.
pub(super) struct Mapping {
    pub(super) pid: u32,
    pub(super) start: u64,
    pub(super) len: u64,
    /// In the file.
    pub(super) offset: u64,
    pub(super) path: PathBuf,
}

struct Symbol {
    start: u64,
    len: u64,
    name: String,
}

pub(super) struct Binary {
    table: UnwindTable,
    /// File offset, ELF address and length of each executable segment.
    segments: Vec<(u64, u64, u64)>,
    /// Sorted by start.
    symbols: Vec<Symbol>,
}

impl Binary {
    /// `twin` has the same code and still has symbols.
    fn load(bytes: &[u8], twin: Option<&[u8]>) -> Option<Self> {
        let file = object::File::parse(bytes).ok()?;
        let segments = file
            .segments()
            .filter(
                |segment| matches!(segment.flags(), SegmentFlags::Elf { p_flags, .. } if p_flags.0 & 1 != 0),
            )
            .map(|segment| (segment.file_range().0, segment.address(), segment.size()))
            .collect();
        let named = object::File::parse(twin.unwrap_or(bytes)).ok()?;
        let mut symbols: Vec<_> = named
            .symbols()
            .chain(named.dynamic_symbols())
            .filter(|symbol| symbol.kind() == object::SymbolKind::Text && symbol.is_definition())
            .map(|symbol| Symbol {
                start: symbol.address(),
                len: symbol.size(),
                name: symbol.name().unwrap_or("?").to_owned(),
            })
            .collect();
        symbols.sort_by_key(|symbol| (symbol.start, symbol.len));
        Some(Self { table: from_elf(bytes).ok()?, segments, symbols })
    }

    fn name(&self, address: u64) -> &str {
        let at = self.symbols.partition_point(|symbol| symbol.start <= address);
        let symbol = at.checked_sub(1).map(|at| &self.symbols[at]);
        symbol.filter(|symbol| address - symbol.start < symbol.len.max(1)).map_or("?", |symbol| &symbol.name)
    }
}

/// How a walk went.
#[derive(Debug)]
pub(super) struct Stack {
    /// Leaf first: (name, address in its file or process).
    pub(super) frames: Vec<(String, u64)>,
    pub(super) end: Result<(), Trouble>,
}

impl Stack {
    pub(super) fn names(&self) -> Vec<&str> {
        self.frames.iter().map(|(name, _)| name.as_str()).collect()
    }
}

impl std::fmt::Display for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, address) in &self.frames {
            write!(f, "{name} {address:#x} < ")?;
        }
        write!(f, "{:?}", self.end)
    }
}

/// Files by path, and the places where they are mapped.
#[derive(Default)]
pub(super) struct Walker {
    pub(super) binaries: HashMap<PathBuf, Option<Binary>>,
    pub(super) mappings: Vec<Mapping>,
    /// Files without symbols, and the same with.
    pub(super) twins: HashMap<PathBuf, PathBuf>,
}

impl Walker {
    /// Reads the files of all mappings that were not read yet.
    pub(super) fn load(&mut self) {
        for mapping in &self.mappings {
            let twin = self.twins.get(&mapping.path);
            self.binaries.entry(mapping.path.clone()).or_insert_with(|| {
                let bytes = if mapping.path == Path::new("[vdso]") {
                    vdso_image()?
                } else {
                    std::fs::read(&mapping.path).ok()?
                };
                let twin = twin.map(|twin| std::fs::read(twin).unwrap());
                Binary::load(&bytes, twin.as_deref())
            });
        }
    }

    fn find(&self, pid: u32, address: u64) -> Option<(&Binary, u64)> {
        // The latest word about an address counts.
        let mapping = self
            .mappings
            .iter()
            .rev()
            .find(|mapping| mapping.pid == pid && address.wrapping_sub(mapping.start) < mapping.len)?;
        let binary = self.binaries.get(&mapping.path)?.as_ref()?;
        let offset = if mapping.path == Path::new("[vdso]") { 0 } else { mapping.offset };
        let in_file = address - mapping.start + offset;
        let (start, elf, _) =
            binary.segments.iter().rfind(|(start, _, len)| in_file.wrapping_sub(*start) < *len)?;
        Some((binary, in_file - start + elf))
    }

    pub(super) fn walk(
        &self,
        pid: u32,
        mut registers: Registers,
        read: impl Fn(u64) -> Option<u64>,
    ) -> Stack {
        let mut frames = Vec::new();
        loop {
            let pc = registers.pc - u64::from(registers.is_return_address);
            let found = self.find(pid, pc);
            frames.push(match found {
                Some((binary, address)) => (binary.name(address).to_owned(), address),
                None => ("?".to_owned(), pc),
            });
            let rule = found.and_then(|(binary, address)| binary.table.find(ElfAddr(address)));
            match step(rule, Architecture::X86_64, &registers, &read) {
                Ok(Some(caller)) if frames.len() < MAX_FRAMES => registers = caller,
                Ok(_) => return Stack { frames, end: Ok(()) },
                Err(trouble) => return Stack { frames, end: Err(trouble) },
            }
        }
    }
}

/// Executable mappings out of `/proc/pid/maps`.
pub(super) fn mappings_of(pid: u32) -> Vec<Mapping> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
    maps.lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (start, end) = fields.next()?.split_once('-')?;
            let is_code = fields.next()?.contains('x');
            let offset = hex(fields.next()?);
            let path = PathBuf::from(fields.nth(2)?);
            let start = hex(start);
            is_code.then_some(Mapping { pid, start, len: hex(end) - start, offset, path })
        })
        .collect()
}

/// This process's own copy: the same for all.
pub(super) fn vdso_image() -> Option<Vec<u8>> {
    use std::io::{Read, Seek, SeekFrom};
    let maps = mappings_of(std::process::id());
    let vdso = maps.iter().find(|mapping| mapping.path == Path::new("[vdso]"))?;
    let mut file = std::fs::File::open("/proc/self/mem").ok()?;
    file.seek(SeekFrom::Start(vdso.start)).ok()?;
    let mut bytes = vec![0; vdso.len as usize];
    file.read_exact(&mut bytes).ok()?;
    Some(bytes)
}
