//! Symbol tables: `.symtab`, `.dynsym`.

use super::{Class, Elf, Section, Sections};
use crate::model::{ElfAddr, FileOffset};
use crate::symbols::mapped::{Bytes, Window};
use crate::symbols::ranges::{Builder, MAX_STRINGS_BYTES, Rank, Symbol};
use crate::symbols::{Error, Result};

/// Most entries of one symbol table that are looked at: 16 Mi, 384 MiB of file read piece by piece. Debug files of
/// browsers have about 4 million.
const MAX_ENTRIES: u64 = 16 << 20;
/// Entries that are read at once: 1.5 MiB of memory.
const PIECE_ENTRIES: u64 = 64 << 10;

const SHT_SYMTAB: u32 = 2;
const SHT_DYNSYM: u32 = 11;
const STT_NOTYPE: u8 = 0;
const STT_FUNC: u8 = 2;
const STT_GNU_IFUNC: u8 = 10;
const STB_LOCAL: u8 = 0;
const STB_WEAK: u8 = 2;
const SHN_UNDEF: u16 = 0;
const SHN_LORESERVE: u16 = 0xff00;
const SHN_XINDEX: u16 = 0xffff;

/// Which table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// `.symtab`: everything the linker knew; taken out by `strip`.
    Full,
    /// `.dynsym`: what other files may use; always there.
    Dynamic,
}

impl Table {
    fn section_kind(self) -> u32 {
        match self {
            Self::Full => SHT_SYMTAB,
            Self::Dynamic => SHT_DYNSYM,
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Full => ".symtab",
            Self::Dynamic => ".dynsym",
        }
    }
}

/// One entry as it stands in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) name: u32,
    info: u8,
    section: u16,
    value: u64,
    bytes: u64,
}

pub(super) fn parse_entry(class: Class, entry: &[u8]) -> Option<Entry> {
    let entry = Bytes(entry);
    Some(match class {
        Class::Elf64 => Entry {
            name: entry.u32(0)?,
            info: entry.u8(4)?,
            section: entry.u16(6)?,
            value: entry.u64(8)?,
            bytes: entry.u64(16)?,
        },
        Class::Elf32 => Entry {
            name: entry.u32(0)?,
            value: entry.u32(4)?.into(),
            bytes: entry.u32(8)?.into(),
            info: entry.u8(12)?,
            section: entry.u16(14)?,
        },
    })
}

pub(super) fn entry_bytes(class: Class) -> u64 {
    match class {
        Class::Elf64 => 24,
        Class::Elf32 => 16,
    }
}

impl Entry {
    /// The function it describes, if it describes one.
    fn function(&self, table: Table) -> Option<Symbol> {
        if self.section == SHN_UNDEF || (self.section >= SHN_LORESERVE && self.section != SHN_XINDEX) {
            return None;
        }
        // 0 and 1 are what linkers leave of functions that they threw away.
        if self.value <= 1 {
            return None;
        }
        let (binding, kind) = (self.info >> 4, self.info & 15);
        let (rank, bytes) = match (kind, table) {
            (STT_FUNC | STT_GNU_IFUNC, _) if self.bytes > 0 => (Rank::Sized, self.bytes),
            (STT_FUNC | STT_GNU_IFUNC, Table::Full) => (Rank::Unsized, 0),
            // Exported labels are sparse: the next one may be a megabyte away, so they speak for their address only.
            (STT_FUNC | STT_GNU_IFUNC, Table::Dynamic) => (Rank::Unsized, 1),
            (STT_NOTYPE, Table::Full) => (Rank::Label, self.bytes),
            _ => return None,
        };
        Some(Symbol {
            start: ElfAddr(self.value),
            bytes,
            rank,
            is_local: binding == STB_LOCAL,
            is_weak: binding == STB_WEAK,
            name: self.name,
        })
    }
}

/// Where a table and its strings are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) symbols: Section,
    pub(super) strings: Section,
}

pub(super) fn place(sections: &Sections, table: Table) -> Result<Option<Place>> {
    let Some(symbols) = sections.by_kind(table.section_kind()).filter(|section| section.is_in_file()) else {
        return Ok(None);
    };
    let Some(strings) = sections.all().get(symbols.link as usize) else {
        let offset = symbols.offset.0;
        return Err(Error::Malformed { what: table.what(), offset, why: "its string table is no section" });
    };
    Ok(Some(Place { symbols: *symbols, strings: *strings }))
}

/// Adds the functions of one table of `elf`. Gives whether the file has that table.
///
/// # Errors
/// When the table or its strings lie outside the file or are beyond a limit.
pub fn add(elf: &Elf, sections: &Sections, table: Table, builder: &mut Builder) -> Result<bool> {
    let Some(place) = place(sections, table)? else { return Ok(false) };
    if place.symbols.is_compressed() || place.strings.is_compressed() {
        let offset = place.symbols.offset.0;
        return Err(Error::Malformed {
            what: table.what(),
            offset,
            why: "compressed symbol tables do not exist",
        });
    }
    let strings = elf.section_bytes("names of symbols", &place.strings, MAX_STRINGS_BYTES)?;
    let mut reader = Reader::new(elf, table, &place.symbols)?;
    builder.add(strings, reader.by_ref())?;
    reader.finish().map(|()| true)
}

/// Functions of one table, read piece by piece.
#[derive(Debug)]
struct Reader<'a> {
    elf: &'a Elf,
    table: Table,
    offset: u64,
    /// Entries not yet read from the file.
    left: u64,
    piece: Window,
    /// Position in `piece`, in bytes.
    at: usize,
    failed: Option<Error>,
}

impl<'a> Reader<'a> {
    fn new(elf: &'a Elf, table: Table, symbols: &Section) -> Result<Self> {
        let left = symbols.bytes / entry_bytes(elf.class());
        if left > MAX_ENTRIES {
            return Err(Error::TooLarge { what: "symbols of a table", found: left, limit: MAX_ENTRIES });
        }
        let piece = Window::from(Vec::new());
        Ok(Self { elf, table, offset: symbols.offset.0, left, piece, at: 0, failed: None })
    }

    fn finish(self) -> Result<()> {
        self.failed.map_or(Ok(()), Err)
    }

    fn refill(&mut self) -> Option<()> {
        let count = self.left.min(PIECE_ENTRIES);
        if count == 0 {
            return None;
        }
        let bytes = count * entry_bytes(self.elf.class());
        match self.elf.image().window(self.table.what(), FileOffset(self.offset), bytes, bytes) {
            Ok(piece) => self.piece = piece,
            Err(error) => {
                self.failed = Some(error);
                self.left = 0;
                return None;
            }
        }
        self.at = 0;
        self.left -= count;
        // The window was inside the file, so this does not overflow.
        self.offset += bytes;
        Some(())
    }
}

impl Iterator for Reader<'_> {
    type Item = Symbol;

    fn next(&mut self) -> Option<Symbol> {
        let bytes = entry_bytes(self.elf.class()) as usize;
        loop {
            if self.at >= self.piece.len() {
                self.refill()?;
            }
            let entry = self.piece.get(self.at..self.at + bytes)?;
            self.at += bytes;
            if let Some(symbol) =
                parse_entry(self.elf.class(), entry).and_then(|entry| entry.function(self.table))
            {
                return Some(symbol);
            }
        }
    }
}
