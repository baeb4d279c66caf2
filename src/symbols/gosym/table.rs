//! `.gopclntab`: from an address to function, file, line and the calls inlined there.

use crate::model::{ElfAddr, SourceLine};
use crate::symbols::demangle::clean;
use crate::symbols::mapped::{Bytes, Window};
use crate::symbols::{Error, Result};

/// Most steps of one pc-value table that are walked: 262,144. One step covers an instruction at least; the largest
/// generated functions have some ten thousand.
const MAX_STEPS: usize = 1 << 18;
/// Most calls inlined into each other at one address: 256. Real code has up to about 20.
const MAX_INLINE_DEPTH: usize = 256;
/// Longest function or file name that is read, in bytes. Names of generic functions reach some hundred.
const MAX_NAME_BYTES: usize = 8 << 10;
/// Most functions of one program: 8 Mi. Kubernetes has about 60,000.
const MAX_FUNCTIONS: u64 = 8 << 20;

const WHAT: &str = ".gopclntab";
/// Index of the pc-value table that numbers inlined calls.
const PCDATA_INLINE_INDEX: u64 = 2;
/// Index of the function data that describe inlined calls.
const FUNCDATA_INLINE_TREE: u64 = 3;
/// "No function data" since Go 1.18.
const NO_FUNCDATA: u32 = u32::MAX;

/// Layout of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    /// Go 1.16 and 1.17.
    Go116,
    /// Go 1.18 and 1.19: addresses as 32-bit offsets.
    Go118,
    /// Go 1.20 and later: functions know their first line.
    Go120,
}

/// Head of the table: everything at fixed places.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) version: Version,
    /// Bytes of the smallest instruction: 1 or 4.
    quantum: u64,
    pub(super) word_bytes: u64,
    functions: u64,
    /// Start of the code as the header says; 0 when it does not (Go 1.26, position-independent code).
    pub(super) text: u64,
    names: u64,
    units: u64,
    files: u64,
    values: u64,
    /// Offset of the function map, and of what its entries point to.
    map: u64,
}

impl Header {
    /// Reads the head. All offsets are checked to be inside `table`.
    pub(super) fn parse(table: &[u8]) -> Result<Self> {
        let bytes = Bytes(table);
        let short = || Error::Truncated { what: WHAT, offset: 0, wanted: 72, end: table.len() as u64 };
        let magic = bytes.u32(0).ok_or_else(short)?;
        let version = match magic {
            0xffff_fffa => Version::Go116,
            0xffff_fff0 => Version::Go118,
            0xffff_fff1 => Version::Go120,
            _ => {
                let expected = "a table of Go 1.16 or later";
                return Err(Error::Unsupported {
                    what: "magic of .gopclntab",
                    expected,
                    found: magic.into(),
                });
            }
        };
        let quantum = u64::from(bytes.u8(6).ok_or_else(short)?);
        let word_bytes = u64::from(bytes.u8(7).ok_or_else(short)?);
        if !matches!(quantum, 1 | 2 | 4) || !matches!(word_bytes, 4 | 8) || bytes.u16(4) != Some(0) {
            return Err(Error::Malformed {
                what: WHAT,
                offset: 4,
                why: "instruction or word size out of range",
            });
        }
        let word = |index: u64| word_at(bytes, 8 + index * word_bytes, word_bytes).ok_or_else(short);
        let functions = word(0)?;
        if functions > MAX_FUNCTIONS {
            return Err(Error::TooLarge { what: "Go functions", found: functions, limit: MAX_FUNCTIONS });
        }
        // Word 1 counts files; since 1.18 word 2 is the start of the code.
        let (text, first) = if version == Version::Go116 { (0, 2) } else { (word(2)?, 3) };
        let header = Self {
            version,
            quantum,
            word_bytes,
            functions,
            text,
            names: word(first)?,
            units: word(first + 1)?,
            files: word(first + 2)?,
            values: word(first + 3)?,
            map: word(first + 4)?,
        };
        let end = table.len() as u64;
        for offset in [header.names, header.units, header.files, header.values, header.map] {
            if offset > end {
                return Err(Error::Truncated { what: WHAT, offset, wanted: 1, end });
            }
        }
        // One entry more than functions: it ends the last one.
        let map_bytes = (functions + 1) * header.map_entry_bytes() - header.map_field_bytes();
        if header.map + map_bytes > end {
            return Err(Error::Truncated {
                what: "function map of .gopclntab",
                offset: header.map,
                wanted: map_bytes,
                end,
            });
        }
        Ok(header)
    }

    fn map_field_bytes(&self) -> u64 {
        if self.version == Version::Go116 { self.word_bytes } else { 4 }
    }

    fn map_entry_bytes(&self) -> u64 {
        2 * self.map_field_bytes()
    }

    /// Offset of the names of functions from the start of the table.
    pub(super) fn names_offset(&self) -> u64 {
        self.names
    }
}

pub(super) fn word_at(bytes: Bytes<'_>, offset: u64, word_bytes: u64) -> Option<u64> {
    if word_bytes == 8 { bytes.u64(offset) } else { bytes.u32(offset).map(u64::from) }
}

/// The tables of one program.
#[derive(Debug)]
pub struct GoTable {
    header: Header,
    table: Window,
    /// Address that the function map counts from (0 for Go 1.16, whose map has whole addresses).
    text: u64,
    inlines: Option<InlineData>,
}

/// Bytes of the function data, with the address of their first.
#[derive(Debug)]
pub(super) struct InlineData {
    pub(super) bytes: Window,
    pub(super) address: u64,
    /// What function data offsets count from (Go 1.18); before, they are addresses.
    pub(super) base: u64,
}

/// One entry of the function map with the record it points to.
#[derive(Clone, Copy, Debug)]
struct Function {
    entry: u64,
    /// Offset of the record in the table.
    record: u64,
    name: u32,
}

impl GoTable {
    /// Takes a table whose code starts at `text`.
    pub(super) fn new(header: Header, table: Window, text: u64, inlines: Option<InlineData>) -> Self {
        let text = if header.version == Version::Go116 { 0 } else { text };
        Self { header, table, text, inlines }
    }

    /// Memory held, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.table.len() + self.inlines.as_ref().map_or(0, |inlines| inlines.bytes.len())
    }

    /// Number of functions.
    #[must_use]
    pub fn functions(&self) -> u64 {
        self.header.functions
    }

    /// Whether inlined calls can be told.
    #[must_use]
    pub fn has_inlines(&self) -> bool {
        self.inlines.is_some()
    }

    /// Function at an address and what is inlined there, outermost first; `None` when no Go function covers it.
    #[must_use]
    pub fn lines(&self, address: ElfAddr) -> Option<Vec<SourceLine>> {
        let function = self.function(address.0)?;
        let mut lines = Vec::new();
        let mut pc = address.0;
        // Innermost first: the position of each step belongs to the innermost function not yet named.
        while lines.len() < MAX_INLINE_DEPTH {
            let Some((name, call_site)) = self.inlined_at(&function, pc) else { break };
            lines.push(self.source_line(&function, pc, name));
            pc = call_site;
        }
        lines.push(self.source_line(&function, pc, function.name));
        lines.reverse();
        Some(lines)
    }

    fn bytes_at(&self) -> Bytes<'_> {
        Bytes(&self.table)
    }

    fn map_address(&self, index: u64) -> Option<u64> {
        let at = self.header.map + index * self.header.map_entry_bytes();
        let value = word_at(self.bytes_at(), at, self.header.map_field_bytes())?;
        self.text.checked_add(value)
    }

    fn function(&self, address: u64) -> Option<Function> {
        // Binary search for the last entry that starts at or before the address. A map out of order gives a wrong
        // function at worst.
        let (mut low, mut high) = (0, self.header.functions);
        if address < self.map_address(0)? || address >= self.map_address(high)? {
            return None;
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.map_address(middle)? <= address {
                low = middle;
            } else {
                high = middle;
            }
        }
        let entry = self.map_address(low)?;
        let field = self.header.map_field_bytes();
        let at = self.header.map + low * self.header.map_entry_bytes() + field;
        let record = self.header.map.checked_add(word_at(self.bytes_at(), at, field)?)?;
        let name = self.bytes_at().u32(record.checked_add(self.entry_bytes())?)?;
        Some(Function { entry, record, name })
    }

    /// Bytes of the first field of a function record.
    fn entry_bytes(&self) -> u64 {
        if self.header.version == Version::Go116 { self.header.word_bytes } else { 4 }
    }

    /// 32-bit field of a function record, counted from behind its entry: 0 name, 1 args, 2 deferreturn, 3 pcsp,
    /// 4 pcfile, 5 pcln, 6 npcdata, 7 unit, 8 start line (Go 1.20).
    fn field(&self, function: &Function, index: u64) -> Option<u32> {
        self.bytes_at().u32(function.record.checked_add(self.entry_bytes() + 4 * index)?)
    }

    fn source_line(&self, function: &Function, pc: u64, name: u32) -> SourceLine {
        let file = self.file(function, pc).unwrap_or_default();
        let line = self.field(function, 5).and_then(|table| self.value(function, table, pc));
        SourceLine {
            function: self.name(name).into(),
            file: file.into(),
            line: line.and_then(|line| u32::try_from(line).ok()).unwrap_or(0),
            column: 0,
        }
    }

    fn text_at(&self, offset: Option<u64>) -> String {
        let text =
            offset.and_then(|offset| self.bytes_at().c_text(offset, MAX_NAME_BYTES)).unwrap_or_default();
        let mut text = String::from_utf8_lossy(text).into_owned();
        clean(&mut text);
        text
    }

    fn name(&self, offset: u32) -> String {
        self.text_at(self.header.names.checked_add(offset.into()))
    }

    fn file(&self, function: &Function, pc: u64) -> Option<String> {
        let in_unit = self.value(function, self.field(function, 4)?, pc)?;
        let in_unit = u64::try_from(in_unit).ok()?;
        let index = u64::from(self.field(function, 7)?).checked_add(in_unit)?;
        let offset = self.bytes_at().u32(self.header.units.checked_add(index.checked_mul(4)?)?)?;
        if offset == u32::MAX {
            return None;
        }
        Some(self.text_at(self.header.files.checked_add(offset.into())))
    }

    /// Value at `pc` of the pc-value table at `offset`: deltas of value and address in turn, from -1 and the entry.
    fn value(&self, function: &Function, offset: u32, pc: u64) -> Option<i32> {
        if offset == 0 {
            return None;
        }
        let tail = self.bytes_at().tail(self.header.values.checked_add(offset.into())?)?;
        let mut bytes = tail.iter().copied();
        let (mut value, mut at) = (-1i32, function.entry);
        for step in 0..MAX_STEPS {
            let delta = varint(&mut bytes)?;
            // A zero ends the table; a first value of -1 is a zero too.
            if delta == 0 && step > 0 {
                return None;
            }
            // Zig-zag: the lowest bit is the sign.
            value = value.wrapping_add((delta >> 1) as i32 ^ -((delta & 1) as i32));
            at = at.checked_add(u64::from(varint(&mut bytes)?).checked_mul(self.header.quantum)?)?;
            if pc < at {
                return Some(value);
            }
        }
        None
    }

    /// Name of the innermost call that was inlined around `pc`, and an address whose position is its call site.
    fn inlined_at(&self, function: &Function, pc: u64) -> Option<(u32, u64)> {
        let inlines = self.inlines.as_ref()?;
        let pcdata_count = u64::from(self.field(function, 6)?);
        // Behind the fields: four bytes, the last of which counts function data.
        let fields = if self.header.version == Version::Go120 { 9 } else { 8 };
        let tail = function.record.checked_add(self.entry_bytes() + 4 * fields)?;
        let funcdata_count = u64::from(self.bytes_at().u8(tail.checked_add(3)?)?);
        if pcdata_count <= PCDATA_INLINE_INDEX || funcdata_count <= FUNCDATA_INLINE_TREE {
            return None;
        }
        let pcdata = tail.checked_add(4)?;
        let index_table = self.bytes_at().u32(pcdata.checked_add(4 * PCDATA_INLINE_INDEX)?)?;
        let index = u64::try_from(self.value(function, index_table, pc)?).ok()?;
        let funcdata = pcdata.checked_add(4 * pcdata_count)?;
        let tree = if self.header.version == Version::Go116 {
            let word_bytes = self.header.word_bytes;
            let at = funcdata.next_multiple_of(word_bytes).checked_add(word_bytes * FUNCDATA_INLINE_TREE)?;
            word_at(self.bytes_at(), at, word_bytes)?
        } else {
            let offset = self.bytes_at().u32(funcdata.checked_add(4 * FUNCDATA_INLINE_TREE)?)?;
            if offset == NO_FUNCDATA {
                return None;
            }
            inlines.base.checked_add(offset.into())?
        };
        // Go 1.20: id, name, parent pc, start line. Before: parent and id, file, line, name, parent pc.
        let (entry_bytes, name_at, call_at) = match self.header.version {
            Version::Go120 => (16, 4, 8),
            _ => (20, 12, 16),
        };
        let entry = tree.checked_sub(inlines.address)?.checked_add(index.checked_mul(entry_bytes)?)?;
        let data = Bytes(&inlines.bytes);
        let name = data.u32(entry.checked_add(name_at)?)?;
        let call_site = u64::try_from(data.i32(entry.checked_add(call_at)?)?).ok()?;
        Some((name, function.entry.checked_add(call_site)?))
    }
}

fn varint(bytes: &mut impl Iterator<Item = u8>) -> Option<u32> {
    let mut value = 0u32;
    for shift in (0..35).step_by(7) {
        let byte = bytes.next()?;
        value |= u32::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

impl super::super::resolve::Lines for GoTable {
    fn lines(&self, address: ElfAddr) -> Option<Vec<SourceLine>> {
        Self::lines(self, address)
    }

    fn bytes(&self) -> usize {
        Self::bytes(self)
    }
}
