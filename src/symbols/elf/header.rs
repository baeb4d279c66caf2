//! File header, program headers, section headers.

use crate::model::{ElfAddr, FileOffset};
use crate::symbols::mapped::{Bytes, ImageFile, Window};
use crate::symbols::{Error, Result};

/// Most program headers: 1024. Executables have about 15; the table then takes 56 KiB at most.
pub const MAX_SEGMENTS: u64 = 1024;
/// Most section headers: 65,536. Executables have about 40, kernel images some hundred; 4 MiB at most.
pub const MAX_SECTIONS: u64 = 65_536;
/// Largest table of section names: 1 MiB, 16 bytes for each of [`MAX_SECTIONS`].
const MAX_SECTION_NAMES_BYTES: u64 = 1 << 20;
/// Largest note segment that is read: 64 KiB. Build IDs take 36 bytes; core files have more and are not our business.
const MAX_NOTE_BYTES: u64 = 64 << 10;
/// Most note segments or sections that are read; executables have 1 to 4.
const MAX_NOTE_PARTS: usize = 16;

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const PF_X: u32 = 1;
const SHT_NOTE: u32 = 7;
const SHT_NOBITS: u32 = 8;
const SHF_ALLOC: u64 = 2;
const SHF_EXECINSTR: u64 = 4;
const SHF_COMPRESSED: u64 = 0x800;
const ET_REL: u16 = 1;
const ET_DYN: u16 = 3;
const PN_XNUM: u64 = 0xffff;
const SHN_XINDEX: u64 = 0xffff;

/// Width of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// 32 bit.
    Elf32,
    /// 64 bit.
    Elf64,
}

/// Instruction set, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// AMD and Intel, 64 bit.
    X86_64,
    /// ARM, 64 bit.
    Aarch64,
    /// Any other, `e_machine`.
    Other(u16),
}

/// Part of the file that is loaded or described as one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// `p_type`
    pub kind: u32,
    /// `p_flags`
    pub flags: u32,
    /// Start in the file.
    pub offset: FileOffset,
    /// Start in memory.
    pub address: ElfAddr,
    /// Bytes in the file.
    pub file_bytes: u64,
    /// Bytes in memory; what exceeds `file_bytes` is zero.
    pub memory_bytes: u64,
}

impl Segment {
    /// Whether it is mapped into the process.
    #[must_use]
    pub fn is_load(&self) -> bool {
        self.kind == PT_LOAD
    }

    /// Whether its bytes may be executed.
    #[must_use]
    pub fn is_executable(&self) -> bool {
        self.flags & PF_X != 0
    }

    /// Address behind the last byte in memory, cut at the end of the address space.
    #[must_use]
    pub fn end(&self) -> ElfAddr {
        ElfAddr(self.address.0.saturating_add(self.memory_bytes))
    }
}

/// Part of the file with one purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// Offset of the name in the table of section names.
    name: u32,
    /// `sh_type`
    pub kind: u32,
    /// `sh_flags`
    pub flags: u64,
    /// Start in memory, 0 when not loaded.
    pub address: ElfAddr,
    /// Start in the file.
    pub offset: FileOffset,
    /// Length in bytes; of no bytes in the file when [`Section::is_in_file`] says so.
    pub bytes: u64,
    /// Index of a related section, by kind.
    pub link: u32,
    /// Further information, by kind.
    pub info: u32,
    /// Length of one entry in bytes, 0 when it is no table.
    pub entry_bytes: u64,
}

impl Section {
    /// Whether the file holds its bytes (debug files keep headers of sections whose bytes were taken out).
    #[must_use]
    pub fn is_in_file(&self) -> bool {
        self.kind != SHT_NOBITS && self.bytes > 0
    }

    /// Whether it holds code that is loaded.
    #[must_use]
    pub fn is_code(&self) -> bool {
        self.flags & (SHF_ALLOC | SHF_EXECINSTR) == SHF_ALLOC | SHF_EXECINSTR
    }

    /// Whether its bytes are compressed.
    #[must_use]
    pub fn is_compressed(&self) -> bool {
        self.flags & SHF_COMPRESSED != 0
    }

    /// Address behind the last byte, cut at the end of the address space.
    #[must_use]
    pub fn end(&self) -> ElfAddr {
        ElfAddr(self.address.0.saturating_add(self.bytes))
    }
}

/// An ELF file with its header and segments read.
#[derive(Debug)]
pub struct Elf {
    image: ImageFile,
    class: Class,
    machine: Machine,
    kind: u16,
    segments: Box<[Segment]>,
    section_table: SectionTable,
}

/// Where the section headers are said to be.
#[derive(Clone, Copy, Debug)]
struct SectionTable {
    offset: u64,
    entry_bytes: u64,
    count: u64,
    names_index: u64,
}

impl Elf {
    /// Reads file header and program headers.
    ///
    /// # Errors
    /// When it is no little-endian ELF file, or its program headers are outside the file or beyond a limit.
    pub fn open(image: ImageFile) -> Result<Self> {
        let header_bytes = image.size().min(64);
        let header = image.window("ELF header", FileOffset(0), header_bytes, 64)?;
        let bytes = Bytes(&header);
        if bytes.slice(0, 4) != Some(b"\x7fELF") {
            let found = u64::from(bytes.array(0).map_or(0, u32::from_be_bytes));
            return Err(Error::Unsupported { what: "file magic", expected: "an ELF file", found });
        }
        let short = || Error::Truncated { what: "ELF header", offset: 0, wanted: 64, end: header_bytes };
        let class = match bytes.u8(4).ok_or_else(short)? {
            1 => Class::Elf32,
            2 => Class::Elf64,
            other => {
                let found = u64::from(other);
                return Err(Error::Unsupported {
                    what: "ELF class",
                    expected: "1 (32 bit) or 2 (64 bit)",
                    found,
                });
            }
        };
        let order = bytes.u8(5).ok_or_else(short)?;
        if order != 1 {
            let found = u64::from(order);
            return Err(Error::Unsupported { what: "ELF byte order", expected: "1 (little endian)", found });
        }
        let wide = class == Class::Elf64;
        let kind = bytes.u16(16).ok_or_else(short)?;
        let machine = match bytes.u16(18).ok_or_else(short)? {
            62 => Machine::X86_64,
            183 => Machine::Aarch64,
            other => Machine::Other(other),
        };
        let word = |narrow: u64, wide_at: u64| {
            if wide { bytes.u64(wide_at) } else { bytes.u32(narrow).map(u64::from) }.ok_or_else(short)
        };
        let half = |narrow: u64, wide_at: u64| {
            bytes.u16(if wide { wide_at } else { narrow }).map(u64::from).ok_or_else(short)
        };
        let program_offset = word(28, 32)?;
        let program_entry_bytes = half(42, 54)?;
        let mut program_count = half(44, 56)?;
        let mut section_table = SectionTable {
            offset: word(32, 40)?,
            entry_bytes: half(46, 58)?,
            count: half(48, 60)?,
            names_index: half(50, 62)?,
        };
        drop(header);
        let mut elf = Self { image, class, machine, kind, segments: Box::default(), section_table };
        // Counts that do not fit into 16 bits are in the first section header (gABI, "extended numbering").
        let extended = (section_table.count == 0 && section_table.offset != 0)
            || program_count == PN_XNUM
            || section_table.names_index == SHN_XINDEX;
        if extended {
            section_table.count = section_table.count.max(1);
            elf.section_table = section_table;
            let first = elf.section_at(0)?;
            section_table.count = first.bytes.max(section_table.count);
            if section_table.names_index == SHN_XINDEX {
                section_table.names_index = u64::from(first.link);
            }
            if program_count == PN_XNUM {
                program_count = u64::from(first.info);
            }
            elf.section_table = section_table;
        }
        elf.segments = elf.read_segments(program_offset, program_entry_bytes, program_count)?;
        Ok(elf)
    }

    fn read_segments(&self, offset: u64, entry_bytes: u64, count: u64) -> Result<Box<[Segment]>> {
        if count == 0 {
            return Ok(Box::default());
        }
        if count > MAX_SEGMENTS {
            return Err(Error::TooLarge { what: "program headers", found: count, limit: MAX_SEGMENTS });
        }
        let wide = self.class == Class::Elf64;
        let expected = if wide { 56 } else { 32 };
        if entry_bytes != expected {
            let expected = "56 (64 bit) or 32 (32 bit)";
            return Err(Error::Unsupported {
                what: "size of a program header",
                expected,
                found: entry_bytes,
            });
        }
        let table = self.image.window(
            "program headers",
            FileOffset(offset),
            count * entry_bytes,
            MAX_SEGMENTS * entry_bytes,
        )?;
        let segments = table.chunks_exact(entry_bytes as usize).filter_map(|entry| {
            let entry = Bytes(entry);
            let word =
                |narrow, wide_at| if wide { entry.u64(wide_at) } else { entry.u32(narrow).map(u64::from) };
            Some(Segment {
                kind: entry.u32(0)?,
                flags: entry.u32(if wide { 4 } else { 24 })?,
                offset: FileOffset(word(4, 8)?),
                address: ElfAddr(word(8, 16)?),
                file_bytes: word(16, 32)?,
                memory_bytes: word(20, 40)?,
            })
        });
        Ok(segments.collect())
    }

    fn section_entry_bytes(&self) -> u64 {
        if self.class == Class::Elf64 { 64 } else { 40 }
    }

    fn parse_section(&self, entry: &[u8]) -> Option<Section> {
        let wide = self.class == Class::Elf64;
        let entry = Bytes(entry);
        let word = |narrow, wide_at| if wide { entry.u64(wide_at) } else { entry.u32(narrow).map(u64::from) };
        Some(Section {
            name: entry.u32(0)?,
            kind: entry.u32(4)?,
            flags: word(8, 8)?,
            address: ElfAddr(word(12, 16)?),
            offset: FileOffset(word(16, 24)?),
            bytes: word(20, 32)?,
            link: entry.u32(if wide { 40 } else { 24 })?,
            info: entry.u32(if wide { 44 } else { 28 })?,
            entry_bytes: word(36, 56)?,
        })
    }

    fn section_at(&self, index: u64) -> Result<Section> {
        let bytes = self.section_entry_bytes();
        let offset = index.checked_mul(bytes).and_then(|at| at.checked_add(self.section_table.offset));
        let offset = FileOffset(offset.unwrap_or(u64::MAX));
        let entry = self.image.window("section header", offset, bytes, bytes)?;
        let short =
            Error::Truncated { what: "section header", offset: offset.0, wanted: bytes, end: offset.0 };
        self.parse_section(&entry).ok_or(short)
    }

    /// Reads all section headers and their names.
    ///
    /// # Errors
    /// When they are outside the file or beyond a limit. A file without section headers gives an empty list.
    pub fn sections(&self) -> Result<Sections> {
        let table = self.section_table;
        if table.offset == 0 || table.count == 0 {
            return Ok(Sections { all: Box::default(), names: Window::from(Vec::new()) });
        }
        let expected = self.section_entry_bytes();
        if table.entry_bytes != expected {
            let found = table.entry_bytes;
            let expected = "64 (64 bit) or 40 (32 bit)";
            return Err(Error::Unsupported { what: "size of a section header", expected, found });
        }
        if table.count > MAX_SECTIONS {
            return Err(Error::TooLarge { what: "section headers", found: table.count, limit: MAX_SECTIONS });
        }
        let headers = self.image.window(
            "section headers",
            FileOffset(table.offset),
            table.count * expected,
            MAX_SECTIONS * expected,
        )?;
        let all: Box<[Section]> =
            headers.chunks_exact(expected as usize).filter_map(|entry| self.parse_section(entry)).collect();
        // A file without names is odd, but its sections still have kinds.
        let names = match all.get(table.names_index as usize) {
            Some(names) if names.is_in_file() => {
                self.image.window("section names", names.offset, names.bytes, MAX_SECTION_NAMES_BYTES)?
            }
            _ => Window::from(Vec::new()),
        };
        Ok(Sections { all, names })
    }

    /// The file underneath.
    #[must_use]
    pub fn image(&self) -> &ImageFile {
        &self.image
    }

    /// Width of addresses.
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    /// Instruction set.
    #[must_use]
    pub fn machine(&self) -> Machine {
        self.machine
    }

    /// Whether its addresses count from where it is loaded (shared library, position-independent executable).
    #[must_use]
    pub fn is_position_independent(&self) -> bool {
        self.kind == ET_DYN
    }

    /// Whether addresses count per section (object file, kernel module).
    #[must_use]
    pub fn is_relocatable(&self) -> bool {
        self.kind == ET_REL
    }

    /// All program headers, in file order.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// ELF address of the byte at `offset` in the file, by the loaded segments: what a mapping's file offset means.
    /// `None` when no loaded segment holds that byte.
    #[must_use]
    pub fn address_of(&self, offset: FileOffset) -> Option<ElfAddr> {
        self.segments.iter().filter(|segment| segment.is_load()).find_map(|segment| {
            let inside = offset.0.checked_sub(segment.offset.0)?;
            (inside < segment.file_bytes).then(|| segment.address.0.checked_add(inside).map(ElfAddr))?
        })
    }

    /// File offset of the byte at `address`, by the loaded segments.
    /// `None` when no loaded segment takes that byte from the file.
    #[must_use]
    pub fn offset_of(&self, address: ElfAddr) -> Option<FileOffset> {
        self.segments.iter().filter(|segment| segment.is_load()).find_map(|segment| {
            let inside = address.0.checked_sub(segment.address.0)?;
            (inside < segment.file_bytes).then(|| segment.offset.0.checked_add(inside).map(FileOffset))?
        })
    }

    /// Bytes of a section as they are in the file, none for a section without. `what` names it in errors.
    ///
    /// # Errors
    /// When it lies outside the file or is longer than `limit` bytes.
    pub fn section_bytes(&self, what: &'static str, section: &Section, limit: u64) -> Result<Window> {
        if section.is_in_file() {
            self.image.window(what, section.offset, section.bytes, limit)
        } else {
            Ok(Window::from(Vec::new()))
        }
    }

    /// Note segments, or note sections where there are none (object files, debug files). Unreadable ones are left out.
    ///
    /// # Errors
    /// When there are no note segments and the section headers cannot be read.
    pub fn note_windows(&self) -> Result<Vec<Window>> {
        let read = |(offset, bytes): (FileOffset, u64)| {
            self.image.window("notes", offset, bytes, MAX_NOTE_BYTES).ok()
        };
        let segments =
            self.segments.iter().filter(|segment| segment.kind == PT_NOTE && segment.file_bytes > 0);
        let windows: Vec<_> = segments
            .map(|segment| (segment.offset, segment.file_bytes))
            .take(MAX_NOTE_PARTS)
            .filter_map(read)
            .collect();
        if !windows.is_empty() {
            return Ok(windows);
        }
        let sections = self.sections()?;
        let notes = sections.all.iter().filter(|section| section.kind == SHT_NOTE && section.is_in_file());
        Ok(notes
            .map(|section| (section.offset, section.bytes))
            .take(MAX_NOTE_PARTS)
            .filter_map(read)
            .collect())
    }
}

/// All sections of a file with their names.
#[derive(Debug)]
pub struct Sections {
    all: Box<[Section]>,
    names: Window,
}

impl Sections {
    /// In file order; the position is the section's index.
    #[must_use]
    pub fn all(&self) -> &[Section] {
        &self.all
    }

    /// Name of a section, empty when it has none.
    #[must_use]
    pub fn name(&self, section: &Section) -> &[u8] {
        Bytes(&self.names)
            .c_text(u64::from(section.name), MAX_SECTION_NAMES_BYTES as usize)
            .unwrap_or_default()
    }

    /// First section of that name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Section> {
        self.all.iter().find(|section| self.name(section) == name.as_bytes())
    }

    /// First section of that kind (`sh_type`).
    #[must_use]
    pub fn by_kind(&self, kind: u32) -> Option<&Section> {
        self.all.iter().find(|section| section.kind == kind)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::symbols::file_id;

    fn own() -> Elf {
        let file = File::open(std::env::current_exe().unwrap()).unwrap();
        Elf::open(ImageFile::open(file).unwrap()).unwrap()
    }

    #[test]
    fn reads_this_very_program() {
        let elf = own();
        assert_eq!(elf.class(), Class::Elf64);
        let sections = elf.sections().unwrap();
        let text = *sections.by_name(".text").unwrap();
        assert!(text.is_code() && text.is_in_file());
        assert_eq!(elf.address_of(text.offset), Some(text.address));
        assert_eq!(elf.offset_of(text.address), Some(text.offset));
        assert!(elf.segments().iter().any(|segment| segment.is_load() && segment.is_executable()));
        assert!(file_id::build_ids(&elf).unwrap().gnu.is_some());
    }

    #[test]
    fn says_what_is_wrong_with_other_files() {
        let file = File::open("/etc/passwd").unwrap();
        let error = Elf::open(ImageFile::open(file).unwrap()).unwrap_err().to_string();
        assert_eq!(error, "file magic: expected an ELF file, found 0x726f6f74");
    }
}
