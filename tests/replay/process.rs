//! What the agent would know of a process: its executable mappings, each with the table that we extract.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use everflame::agent::process::{KernelSide, ProcessMapping};
use everflame::model::RuntimeAddr;
use everflame::unwind::{self, UnwindTable};
use object::{Object as _, ObjectSegment, ObjectSymbol};

use super::machine::Machine;

/// One file: table, and where its segments lie.
#[derive(Debug, Default)]
pub(crate) struct FileFacts {
    pub(crate) table: Option<UnwindTable>,
    /// File offset, ELF address and length of each executable segment.
    segments: Vec<(u64, u64, u64)>,
    /// Hexadecimal; empty when it has none.
    pub(crate) build_id: String,
    /// Where its symbols are read when a name is wanted.
    source: PathBuf,
    /// Size and name of each function by ELF address.
    symbols: OnceLock<BTreeMap<u64, (u64, String)>>,
}

impl FileFacts {
    /// Of a whole image; its symbols are read from `source`, if ever.
    pub(crate) fn of(image: &[u8], source: PathBuf) -> Self {
        let Ok(file) = object::File::parse(image) else { return Self::default() };
        let executable = |segment: &object::Segment<'_, '_>| match segment.flags() {
            object::SegmentFlags::Elf { p_flags, .. } => p_flags.0 & object::elf::PF_X.0 != 0,
            _ => false,
        };
        let place = |segment: object::Segment<'_, '_>| {
            (segment.file_range().0, segment.address(), segment.file_range().1)
        };
        let build_id = file.build_id().ok().flatten().unwrap_or_default();
        Self {
            table: unwind::from_elf(image).ok(),
            segments: file.segments().filter(executable).map(place).collect(),
            build_id: hexadecimal(build_id),
            source,
            symbols: OnceLock::new(),
        }
    }

    /// Size and name of each function by ELF address.
    fn symbols(&self) -> &BTreeMap<u64, (u64, String)> {
        let read = || -> Option<BTreeMap<u64, (u64, String)>> {
            let image = fs::read(&self.source).ok()?;
            let file = object::File::parse(&*image).ok()?;
            let function = |symbol: object::Symbol<'_, '_>| {
                Some((symbol.address(), (symbol.size().max(1), symbol.name().ok()?.to_owned())))
            };
            let text = |symbol: &object::Symbol<'_, '_>| symbol.kind() == object::SymbolKind::Text;
            Some(file.symbols().chain(file.dynamic_symbols()).filter(text).filter_map(function).collect())
        };
        self.symbols.get_or_init(|| read().unwrap_or_default())
    }

    /// Function at an ELF address.
    fn name(&self, address: u64) -> Option<&str> {
        let symbols = self.symbols();
        let (start, (size, name)) = symbols.range(..=address).next_back()?;
        (address - start < *size).then_some(name)
    }

    /// Of code without a file.
    pub(crate) fn of_table(table: UnwindTable) -> Self {
        Self { table: Some(table), ..Self::default() }
    }

    /// Runtime minus ELF address of a mapping at `start` that begins at `offset` of the file.
    fn bias(&self, start: u64, offset: u64) -> Option<u64> {
        // A segment need not begin at a page of the file, its mapping does.
        let covers =
            |segment: &&(u64, u64, u64)| segment.0 & !0xfff <= offset && offset < segment.0 + segment.2;
        let (file_offset, address, _) = self.segments.iter().find(covers)?;
        Some(start.wrapping_sub(address.wrapping_add(offset).wrapping_sub(*file_offset)))
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// One executable mapping.
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    pub(crate) start: u64,
    pub(crate) len: u64,
    pub(crate) bias: u64,
    /// Path, or the kernel's word for it.
    pub(crate) name: String,
    pub(crate) file: Arc<FileFacts>,
}

/// All executable mappings, sorted.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) mappings: Vec<Mapping>,
}

impl View {
    /// A program at its own addresses.
    pub(crate) fn of_static_program(path: &Path) -> Self {
        let file = Arc::new(FileFacts::of(&fs::read(path).unwrap(), path.to_owned()));
        let mapping = |&(_, address, bytes): &(u64, u64, u64)| {
            let start = address & !0xfff;
            let len = (address + bytes - start).next_multiple_of(4096);
            Mapping { start, len, bias: 0, name: path.display().to_string(), file: Arc::clone(&file) }
        };
        Self { mappings: file.segments.iter().map(mapping).collect() }
    }

    pub(crate) fn find(&self, address: u64) -> Option<&Mapping> {
        self.mappings.iter().find(|mapping| address.wrapping_sub(mapping.start) < mapping.len)
    }

    /// Function at a code address, by the symbols of its file.
    pub(crate) fn name(&self, code_address: u64) -> Option<&str> {
        let mapping = self.find(code_address)?;
        mapping.file.name(code_address.wrapping_sub(mapping.bias))
    }

    /// First address of a function, of the first file that has it.
    pub(crate) fn address(&self, name: &str) -> Option<u64> {
        self.mappings.iter().find_map(|mapping| {
            let (address, _) = mapping.file.symbols().iter().find(|(_, (_, known))| known == name)?;
            Some(address.wrapping_add(mapping.bias))
        })
    }

    /// Brings all of it to a machine.
    pub(crate) fn publish(&self, pid: u32, machine: &mut Machine) {
        let mut known = Vec::new();
        for mapping in &self.mappings {
            let table = mapping.file.table.as_ref().and_then(|table| machine.publish(table));
            known.push(ProcessMapping {
                start: RuntimeAddr(mapping.start),
                len: mapping.len,
                bias: mapping.bias,
                table,
                pending: false,
            });
        }
        machine.tables.set_process(pid, &known).unwrap();
    }
}

/// Files seen so far, so that each is read once.
#[derive(Debug, Default)]
pub(crate) struct Files {
    known: HashMap<String, Arc<FileFacts>>,
    last: String,
}

impl Files {
    /// The process's mappings now; `None` when they are what they were the time before.
    pub(crate) fn look(&mut self, pid: u32) -> Result<Option<View>, String> {
        let text = fs::read_to_string(format!("/proc/{pid}/maps")).map_err(|error| error.to_string())?;
        let executable = |line: &&str| line.split(' ').nth(1).is_some_and(|flags| flags.contains('x'));
        let lines: Vec<&str> = text.lines().filter(executable).collect();
        let now = lines.join("\n");
        if now == self.last {
            return Ok(None);
        }
        let mappings = lines.iter().filter_map(|line| self.mapping(pid, line)).collect();
        self.last = now;
        Ok(Some(View { mappings }))
    }

    fn mapping(&mut self, pid: u32, line: &str) -> Option<Mapping> {
        let mut fields = line.splitn(6, ' ');
        let (range, _, offset) = (fields.next()?, fields.next()?, fields.next()?);
        let (device, inode) = (fields.next()?, fields.next()?);
        let name = fields.next().unwrap_or_default().trim().to_owned();
        let (start, end) = range.split_once('-')?;
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let (start, end, offset) = (hex(start)?, hex(end)?, hex(offset)?);
        if start >> 63 != 0 {
            return None;
        }
        let image = || -> Option<Vec<u8>> {
            if name == "[vdso]" {
                let mut bytes = vec![0; (end - start) as usize];
                let memory = fs::File::open(format!("/proc/{pid}/mem")).ok()?;
                return memory.read_exact_at(&mut bytes, start).is_ok().then_some(bytes);
            }
            // The link in map_files also leads to deleted files and into other mount namespaces.
            let link = format!("/proc/{pid}/map_files/{start:x}-{end:x}");
            fs::read(link).or_else(|_| fs::read(&name)).ok()
        };
        let source = PathBuf::from(format!("/proc/{pid}/root{name}"));
        let facts =
            || Arc::new(image().map_or_else(FileFacts::default, |bytes| FileFacts::of(&bytes, source)));
        let is_file = inode != "0";
        let key = if is_file { format!("{device} {inode} {name}") } else { format!("{pid} {range}") };
        let file = if is_file || name == "[vdso]" {
            Arc::clone(self.known.entry(key).or_insert_with(facts))
        } else {
            Arc::default()
        };
        let bias = file.bias(start, offset).unwrap_or(0);
        Some(Mapping { start, len: end - start, bias, name, file })
    }
}
