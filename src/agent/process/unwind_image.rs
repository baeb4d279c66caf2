//! Which parts of an executable its unwind table is built from.
//!
//! Entries and Go's tables in full; of the code as much as is needed to recognise entry points, stubs and signal
//! trampolines, and all that no entry describes. Of Go code everything: its prologues decide where its text begins.

use std::fs::File;
use std::ops::Range;

use super::byte_budget::ByteBudget;
use super::debug_file;
use super::executable::Executable;
use crate::agent::tables::TableImage;
use crate::model::{ElfAddr, FileOffset};
use crate::symbols::elf::{Elf, Section};
use crate::symbols::mapped::{Bytes, ImageFile};
use crate::symbols::sparse::SparseImage;
use crate::symbols::{Error, Result};
use crate::unwind::{self, UnwindTable};

/// Most bytes that are copied of one file. The `.eh_frame` of the largest programs known is about 60 MB; Go programs
/// of 200 MB exist.
const MAX_COPIED_BYTES: u64 = 256 << 20;
/// Code sections up to this size are copied whole: 4 MiB covers every C library.
const WHOLE_CODE_BYTES: u64 = 4 << 20;
/// Of larger ones the beginning, where the linker puts entry code.
const CODE_HEAD_BYTES: u64 = 64 << 10;
/// Sections that are neither code nor unwind information, up to this size: `.go.module`, `.data.rel.ro` and the like.
const MAX_DATA_BYTES: u64 = 8 << 20;
/// Files without section headers are copied by segment up to this size in total.
const MAX_SEGMENTS_BYTES: u64 = 64 << 20;
/// Code without entries from which on a debug file is looked for. Every program has some hundred bytes of start code.
const WORTH_A_SEARCH_BYTES: u64 = 1024;
/// File header, and program headers where linkers put them.
const HEADER_BYTES: u64 = 4096;
/// Code around the entry point.
const ENTRY_BYTES: u64 = 4096;
/// Sections whose content is the unwind information.
const TABLES: [&[u8]; 6] = [
    b".eh_frame",
    b".eh_frame_hdr",
    b".debug_frame",
    b".zdebug_frame",
    b".gopclntab",
    b".data.rel.ro.gopclntab",
];
/// `SHF_ALLOC`.
const ALLOCATED: u64 = 2;

/// Length of the 64-bit file header, and where in it stand `e_entry`, `e_phoff`, `e_shoff` and `e_shstrndx`. Files of 32 bits get
/// no table, so nothing is lost if these fields mean something else there.
const FILE_HEADER_BYTES: u64 = 64;
const ENTRY_AT: u64 = 24;
const PROGRAM_HEADERS_AT: u64 = 32;
const SECTION_HEADERS_AT: u64 = 40;
const NAMES_INDEX_AT: u64 = 62;
/// Length of a 64-bit program header.
const PROGRAM_HEADER_BYTES: u64 = 56;
/// Length of a 64-bit section header.
const SECTION_HEADER_BYTES: u64 = 64;

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub enum NoTable {
    /// The file cannot be read.
    #[error("{0}")]
    File(#[from] Error),
    /// It can, but not as a program of this machine.
    #[error("{0}")]
    Unwind(#[from] unwind::Error),
    /// Nobody can open it any more.
    #[error("executable is gone")]
    Gone,
}

/// The finished table of an executable; with `origin`, its separate debug file is looked for where it says too little.
/// Waits until `budget` has room for the parts that it copies.
///
/// # Errors
/// When the file cannot be read or is none of this machine. One without unwind information gives a table without rows.
pub(super) fn build(
    file: File,
    origin: Option<&Executable>,
    budget: &ByteBudget,
) -> std::result::Result<TableImage, NoTable> {
    Ok(TableImage::new(&rows(file, origin, budget)?))
}

/// Its rows, before they are packed.
pub(super) fn rows(
    file: File,
    origin: Option<&Executable>,
    budget: &ByteBudget,
) -> std::result::Result<UnwindTable, NoTable> {
    let length = |ranges: &[Range<u64>]| {
        ranges.iter().fold(0u64, |sum, range| sum.saturating_add(range.end.saturating_sub(range.start)))
    };
    let elf = Elf::open(ImageFile::open(file)?)?;
    let ranges = parts(&elf)?;
    // Held until the rows are there.
    let mut share = budget.take(length(&ranges).min(MAX_COPIED_BYTES));
    let mut image = SparseImage::copy(elf.image(), &ranges, MAX_COPIED_BYTES)?;
    let undescribed = unwind::undescribed(&image)?;
    let bytes = length(&undescribed);
    let mut debug = None;
    if bytes >= WORTH_A_SEARCH_BYTES {
        let found = origin.and_then(|executable| debug_file::find(&elf, executable));
        debug = found
            .and_then(|found| SparseImage::copy(found.image(), &parts(&found).ok()?, MAX_COPIED_BYTES).ok());
        share.grow(bytes);
        image.add(elf.image(), &undescribed);
    }
    drop(elf);
    Ok(unwind::from_elf_and_debug_file(&image, debug.as_deref())?)
}

/// File ranges to copy.
fn parts(elf: &Elf) -> Result<Vec<Range<u64>>> {
    let mut parts = Vec::with_capacity(64);
    parts.push(0..HEADER_BYTES);
    // The file header tells where the headers of segments and sections stand and where the program begins. Optimisers
    // that rewrite finished programs (BOLT) move the segments' headers away from the beginning.
    let header = elf.image().window("ELF header", FileOffset(0), FILE_HEADER_BYTES, FILE_HEADER_BYTES)?;
    let header = Bytes(&header);
    if let Some(offset) = header.u64(PROGRAM_HEADERS_AT) {
        parts.push(offset..offset.saturating_add(elf.segments().len() as u64 * PROGRAM_HEADER_BYTES));
    }
    let sections = elf.sections()?;
    if sections.all().is_empty() {
        let loads = elf.segments().iter().filter(|segment| segment.is_load());
        let total: u64 = loads.clone().fold(0, |sum, load| sum.saturating_add(load.file_bytes));
        for load in loads {
            let whole = total <= MAX_SEGMENTS_BYTES || !load.is_executable();
            let bytes = if whole { load.file_bytes } else { load.file_bytes.min(CODE_HEAD_BYTES) };
            parts.push(load.offset.0..load.offset.0.saturating_add(bytes));
        }
        return Ok(parts);
    }
    let is_go = sections.all().iter().any(|section| sections.name(section).ends_with(b"gopclntab"));
    let range = |section: &Section, bytes: u64| section.offset.0..section.offset.0.saturating_add(bytes);
    for section in sections.all().iter().filter(|section| section.is_in_file()) {
        if TABLES.contains(&sections.name(section)) {
            parts.push(range(section, section.bytes));
        } else if section.is_code() {
            let whole = is_go || section.bytes <= WHOLE_CODE_BYTES;
            parts.push(range(section, if whole { section.bytes } else { CODE_HEAD_BYTES }));
        } else if section.flags & ALLOCATED != 0 && section.bytes <= MAX_DATA_BYTES {
            parts.push(range(section, section.bytes));
        }
    }
    // Section headers and names stand at the end of the file.
    if let Some(offset) = header.u64(SECTION_HEADERS_AT) {
        parts.push(offset..offset.saturating_add(sections.all().len() as u64 * SECTION_HEADER_BYTES));
    }
    let names = header.u16(NAMES_INDEX_AT).map(|index| match index {
        u16::MAX => sections.all().first().map_or(0, |first| first.link as usize),
        index => usize::from(index),
    });
    if let Some(names) = names.and_then(|index| sections.all().get(index)) {
        parts.push(range(names, names.bytes.min(MAX_DATA_BYTES)));
    }
    if let Some(entry) = header.u64(ENTRY_AT).and_then(|entry| elf.offset_of(ElfAddr(entry))) {
        parts.push(entry.0..entry.0.saturating_add(ENTRY_BYTES));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::Rule;

    fn own() -> File {
        File::open(std::env::current_exe().unwrap()).unwrap()
    }

    #[test]
    fn sparse_copy_gives_the_same_table_as_the_whole_file() {
        let whole = unwind::from_elf(&std::fs::read(std::env::current_exe().unwrap()).unwrap()).unwrap();
        let sparse = rows(own(), None, &ByteBudget::new(0)).unwrap();
        assert!(whole.rows.len() > 1000);
        assert!(
            whole == sparse,
            "{} rows of the whole file, {} of its parts",
            whole.rows.len(),
            sparse.rows.len()
        );
        assert!(sparse.rules.contains(&Rule::Stop));
    }

    /// The compiler's own libraries come rewritten by BOLT: segment headers in the middle, two code segments.
    #[test]
    fn rewritten_libraries_of_the_compiler_have_the_same_table() {
        let sysroot =
            std::process::Command::new("rustc").args(["--print", "sysroot"]).output().unwrap().stdout;
        let folder = std::path::PathBuf::from(String::from_utf8(sysroot).unwrap().trim()).join("lib");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.to_string_lossy().contains("librustc_driver") {
                let table = rows(File::open(&path).unwrap(), None, &ByteBudget::new(0)).unwrap();
                let whole = unwind::from_elf(&std::fs::read(&path).unwrap()).unwrap();
                assert!(table.rows.len() > 100_000 && table == whole, "{}", path.display());
                seen += 1;
            }
        }
        assert!(seen > 0, "no compiler library found");
    }

    #[test]
    fn every_library_of_this_process_has_a_table() {
        for range in crate::agent::process::procfs::maps(std::process::id()).unwrap().ranges {
            if range.is_file() {
                let table = rows(File::open(&range.path).unwrap(), None, &ByteBudget::new(0)).unwrap();
                let whole = unwind::from_elf(&std::fs::read(&range.path).unwrap()).unwrap();
                assert!(table == whole, "{} differs from the whole file", range.path.display());
            }
        }
    }

    #[test]
    fn program_headers_may_stand_at_the_end_of_the_file() {
        // As an optimiser of finished programs leaves them behind.
        let mut bytes = std::fs::read("/bin/sleep").unwrap();
        let at = usize::try_from(Bytes(&bytes).u64(PROGRAM_HEADERS_AT).unwrap()).unwrap();
        let headers = bytes[at..at + usize::from(Bytes(&bytes).u16(56).unwrap()) * 56].to_vec();
        bytes[at..at + headers.len()].fill(0);
        bytes.resize(bytes.len().next_multiple_of(8).max(1 << 20), 0);
        let new_at = bytes.len() as u64;
        bytes.extend(headers);
        bytes[32..40].copy_from_slice(&new_at.to_le_bytes());
        let file = crate::agent::host::memory_file(c"moved", &bytes).unwrap();
        let table = rows(file, None, &ByteBudget::new(0)).unwrap();
        assert_eq!(table, unwind::from_elf(&std::fs::read("/bin/sleep").unwrap()).unwrap());
    }
}
