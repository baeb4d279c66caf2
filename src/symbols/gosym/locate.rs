//! Where the tables of a Go program are: by section, else by their first bytes; start of code and inline data by the
//! module data that the linker leaves for the runtime.

use super::table::{GoTable, Header, InlineData, Version, word_at};
use crate::model::{ElfAddr, FileOffset};
use crate::symbols::Result;
use crate::symbols::elf::{Class, Elf, Machine, Section, Sections};
use crate::symbols::mapped::{Bytes, Window};

/// Largest table: 128 MiB. Kubernetes' largest program has about 40 MiB.
const MAX_TABLE_BYTES: u64 = 128 << 20;
/// Largest part of the read-only data that is kept for inlined calls: 64 MiB.
const MAX_INLINE_BYTES: u64 = 64 << 20;
/// How much of a file without sections is searched for the head of the table: 256 MiB, in pieces.
const MAX_SEARCHED_BYTES: u64 = 256 << 20;
/// Bytes searched at once.
const PIECE_BYTES: u64 = 1 << 20;
/// Most relocations that are looked through: 4 Mi, 96 MiB of file read in pieces.
const MAX_RELOCATIONS: u64 = 4 << 20;
/// Bytes of one relocation with addend, 64 bit.
const RELA_BYTES: u64 = 24;

const SHT_RELA: u32 = 4;
/// Words of the module data up to the one that says where function data are, at most.
const MODULE_WORDS: u64 = 41;
/// Word of the module data that holds the start of the code.
const MODULE_TEXT: u64 = 22;

/// The tables of a Go program; `None` when `elf` is none.
///
/// # Errors
/// When it is a Go program by its sections and the table cannot be read.
pub fn find(elf: &Elf, sections: &Sections) -> Result<Option<GoTable>> {
    let Some((table, address)) = find_table(elf, sections)? else { return Ok(None) };
    let header = Header::parse(&table)?;
    let module = Module::find(elf, sections, &header, address);
    let text = match (header.text, module.as_ref().map_or(0, |module| module.word(MODULE_TEXT))) {
        (0, 0) => sections.by_name(".text").map_or(0, |section| section.address.0),
        (0, text) | (text, _) => text,
    };
    let inlines = module.and_then(|module| inline_data(elf, sections, &header, &module));
    Ok(Some(GoTable::new(header, table, text, inlines)))
}

/// The table with its address.
fn find_table(elf: &Elf, sections: &Sections) -> Result<Option<(Window, u64)>> {
    for name in [".gopclntab", ".data.rel.ro.gopclntab"] {
        if let Some(section) = sections.by_name(name).filter(|section| section.is_in_file()) {
            let table = elf.section_bytes(".gopclntab", section, MAX_TABLE_BYTES)?;
            return Ok(Some((table, section.address.0)));
        }
    }
    let is_go = sections.by_name(".go.buildinfo").is_some() || sections.all().is_empty();
    if !is_go {
        return Ok(None);
    }
    search_table(elf)
}

/// Looks for the head of the table in everything that is loaded. Only for files without helpful sections.
fn search_table(elf: &Elf) -> Result<Option<(Window, u64)>> {
    let quantum = if elf.machine() == Machine::X86_64 { 1 } else { 4 };
    let word_bytes = if elf.class() == Class::Elf64 { 8 } else { 4 };
    let mut searched = 0;
    for segment in elf.segments().iter().filter(|segment| segment.is_load()) {
        let mut done = 0;
        while done < segment.file_bytes && searched < MAX_SEARCHED_BYTES {
            // The table is aligned to 8 bytes at least, so its first eight never straddle two pieces.
            let length = (segment.file_bytes - done).min(PIECE_BYTES);
            let at = FileOffset(segment.offset.0.saturating_add(done));
            let piece = elf.image().window("search for .gopclntab", at, length, PIECE_BYTES)?;
            for (index, head) in piece.chunks_exact(8).enumerate() {
                if !matches!(head, [0xf0 | 0xf1 | 0xfa, 0xff, 0xff, 0xff, 0, 0, q, w] if (*q, *w) == (quantum, word_bytes))
                {
                    continue;
                }
                let inside = done + index as u64 * 8;
                let length = (segment.file_bytes - inside).min(MAX_TABLE_BYTES);
                let at = FileOffset(segment.offset.0.saturating_add(inside));
                let table = elf.image().window(".gopclntab", at, length, MAX_TABLE_BYTES)?;
                if Header::parse(&table).is_ok() {
                    return Ok(Some((table, segment.address.0.saturating_add(inside))));
                }
            }
            done += length;
            searched += length;
        }
    }
    Ok(None)
}

/// The runtime's description of the program, as the loader would leave it.
#[derive(Debug)]
struct Module {
    words: Vec<u64>,
}

impl Module {
    fn word(&self, index: u64) -> u64 {
        self.words.get(index as usize).copied().unwrap_or(0)
    }

    /// By its section (Go 1.26), else by its first word: the address of the table.
    fn find(elf: &Elf, sections: &Sections, header: &Header, table_address: u64) -> Option<Self> {
        let is_ours = |module: &Self| {
            let names = table_address.checked_add(header.names_offset());
            module.word(0) == table_address && Some(module.word(1)) == names
        };
        let relocations = Relocations::of(elf, sections);
        if let Some(section) = sections.by_name(".go.module") {
            let module = Self::read(elf, &relocations, header, section.address.0);
            return module.filter(is_ours);
        }
        // Position-independent code: a relocation writes the word.
        let mut candidates = relocations.places_of(table_address);
        let writable =
            [".noptrdata", ".data", ".data.rel.ro"].into_iter().filter_map(|name| sections.by_name(name));
        for section in writable {
            candidates.extend(search_word(elf, section, header.word_bytes, table_address));
        }
        candidates.into_iter().filter_map(|at| Self::read(elf, &relocations, header, at)).find(is_ours)
    }

    fn read(elf: &Elf, relocations: &Relocations, header: &Header, address: u64) -> Option<Self> {
        let word_bytes = header.word_bytes;
        let length = MODULE_WORDS * word_bytes;
        let offset = elf.offset_of(ElfAddr(address))?;
        let bytes = elf.image().window("Go module data", offset, length, length).ok()?;
        let words = (0..MODULE_WORDS).map(|index| word_at(Bytes(&bytes), index * word_bytes, word_bytes));
        let mut words: Vec<u64> = words.collect::<Option<_>>()?;
        for (index, word) in words.iter_mut().enumerate() {
            if let Some(value) = relocations.value_at(address + index as u64 * word_bytes) {
                *word = value;
            }
        }
        Some(Self { words })
    }
}

/// Addresses of aligned words of a section that hold `wanted`; at most 16.
fn search_word(elf: &Elf, section: &Section, word_bytes: u64, wanted: u64) -> Vec<u64> {
    let mut found = Vec::new();
    let mut done = 0;
    while section.is_in_file() && done < section.bytes.min(MAX_SEARCHED_BYTES) && found.len() < 16 {
        let length = (section.bytes - done).min(PIECE_BYTES);
        let at = FileOffset(section.offset.0.saturating_add(done));
        let Ok(piece) = elf.image().window("search for Go module data", at, length, PIECE_BYTES) else {
            break;
        };
        let words = piece.chunks_exact(word_bytes as usize).enumerate();
        let hits = words.filter(|(_, word)| word_at(Bytes(word), 0, word_bytes) == Some(wanted));
        let start = section.address.0.saturating_add(done);
        found.extend(hits.map(|(index, _)| start.saturating_add(index as u64 * word_bytes)).take(16));
        done += length;
    }
    found
}

/// What the loader writes into position-independent code: (place, value), sorted by place. Empty for other code.
#[derive(Debug, Default)]
struct Relocations(Vec<(u64, u64)>);

impl Relocations {
    /// Unreadable relocations count as none: names do not depend on them, only lines of inlined calls.
    fn of(elf: &Elf, sections: &Sections) -> Self {
        let kind = match elf.machine() {
            // R_X86_64_RELATIVE, R_AARCH64_RELATIVE
            Machine::X86_64 => 8,
            Machine::Aarch64 => 1027,
            Machine::Other(_) => return Self::default(),
        };
        if !elf.is_position_independent() || elf.class() != Class::Elf64 {
            return Self::default();
        }
        let Some(module) = Self::wanted(sections) else { return Self::default() };
        let mut found = Vec::new();
        for section in
            sections.all().iter().filter(|section| section.kind == SHT_RELA && section.is_in_file())
        {
            let count = (section.bytes / RELA_BYTES).min(MAX_RELOCATIONS);
            let (mut done, step) = (0, PIECE_BYTES / RELA_BYTES);
            while done < count {
                let length = (count - done).min(step) * RELA_BYTES;
                let at = FileOffset(section.offset.0.saturating_add(done * RELA_BYTES));
                let Ok(piece) = elf.image().window("relocations", at, length, PIECE_BYTES) else { break };
                for entry in piece.chunks_exact(RELA_BYTES as usize).map(Bytes) {
                    let (place, info) = (entry.u64(0).unwrap_or(0), entry.u64(8).unwrap_or(0));
                    if info == kind && module.iter().any(|range| range.contains(&place)) {
                        found.push((place, entry.u64(16).unwrap_or(0)));
                    }
                }
                done += step;
            }
        }
        found.sort_unstable();
        Self(found)
    }

    /// Sections that may hold module data.
    fn wanted(sections: &Sections) -> Option<Vec<std::ops::Range<u64>>> {
        let names = [".go.module", ".noptrdata", ".data", ".data.rel.ro"];
        let found: Vec<_> = names
            .into_iter()
            .filter_map(|name| sections.by_name(name))
            .map(|section| section.address.0..section.end().0)
            .collect();
        (!found.is_empty()).then_some(found)
    }

    fn value_at(&self, place: u64) -> Option<u64> {
        let at = self.0.binary_search_by_key(&place, |(place, _)| *place).ok()?;
        self.0.get(at).map(|(_, value)| *value)
    }

    /// Places where `value` is written; at most 16.
    fn places_of(&self, value: u64) -> Vec<u64> {
        self.0.iter().filter(|(_, written)| *written == value).map(|(place, _)| *place).take(16).collect()
    }
}

/// Bytes that hold the trees of inlined calls: from the start of function data to the end of the section around.
fn inline_data(elf: &Elf, sections: &Sections, header: &Header, module: &Module) -> Option<InlineData> {
    // Where the word stands depends on the version: 1.20 put two words of coverage counters before it.
    let base = match header.version {
        Version::Go120 => module.word(40),
        Version::Go118 => module.word(38),
        // Function data are addresses, anywhere in read-only data.
        Version::Go116 => sections.by_name(".rodata")?.address.0,
    };
    let section = sections.all().iter().find(|section| {
        section.is_in_file() && section.address.0 != 0 && (section.address.0..section.end().0).contains(&base)
    })?;
    let inside = base - section.address.0;
    let length = (section.bytes - inside).min(MAX_INLINE_BYTES);
    let offset = FileOffset(section.offset.0.checked_add(inside)?);
    let bytes = elf.image().window("Go function data", offset, length, MAX_INLINE_BYTES).ok()?;
    Some(InlineData { bytes, address: base, base })
}
