//! Stubs of the procedure linkage table: `malloc@plt` for the few instructions that jump to `malloc`.
//!
//! The stubs have no symbols. Each one jumps through one word of the global offset table, and a relocation says whose
//! address that word holds; so the code is read, and not the order of the entries trusted, which differs by linker.

use std::collections::HashMap;

use super::symtab::{self, Table, entry_bytes, parse_entry};
use super::{Class, Elf, Machine, Section, Sections};
use crate::model::ElfAddr;
use crate::symbols::Result;
use crate::symbols::mapped::{Bytes, Window};
use crate::symbols::ranges::{Builder, MAX_STRINGS_BYTES, Rank, Symbol};

/// Most code of stubs: 4 MiB, 262,144 stubs of 16 bytes. Large programs have a few thousand.
const MAX_STUB_BYTES: u64 = 4 << 20;
/// Most relocations for words that stubs use: 24 MiB, one million. `.rela.dyn` of a browser is larger, and left out.
const MAX_RELOCATION_BYTES: u64 = 24 << 20;
/// Largest `.dynsym` in which names are looked up: 24 MiB, one million.
const MAX_SYMBOL_BYTES: u64 = 24 << 20;
/// Bytes of one relocation with addend, 64 bit.
const RELA_BYTES: usize = 24;

/// Adds stubs of `.plt`, `.plt.sec` and `.plt.got`. Gives whether there were any.
///
/// # Errors
/// When one of the sections involved lies outside the file.
pub fn add(elf: &Elf, sections: &Sections, builder: &mut Builder) -> Result<bool> {
    if elf.class() != Class::Elf64 || !matches!(elf.machine(), Machine::X86_64 | Machine::Aarch64) {
        return Ok(false);
    }
    let Some(place) = symtab::place(sections, Table::Dynamic)? else { return Ok(false) };
    if place.symbols.bytes > MAX_SYMBOL_BYTES {
        return Ok(false);
    }
    let words = jump_words(elf, sections)?;
    if words.is_empty() {
        return Ok(false);
    }
    let symbols = elf.section_bytes(".dynsym", &place.symbols, MAX_SYMBOL_BYTES)?;
    let strings = elf.section_bytes("names of symbols", &place.strings, MAX_STRINGS_BYTES)?;

    let mut names = Vec::new();
    let mut stubs = Vec::new();
    for name in [".plt.sec", ".plt", ".plt.got"] {
        let Some(section) = sections.by_name(name).filter(|section| section.is_code()) else { continue };
        let code = elf.section_bytes("stubs", section, MAX_STUB_BYTES)?;
        for (start, bytes, word) in jumps(elf.machine(), &code, section) {
            let Some(symbol) = words.get(&word) else { continue };
            let at = u64::from(*symbol) * entry_bytes(elf.class());
            let entry = Bytes(&symbols).slice(at, entry_bytes(elf.class()));
            let Some(entry) = entry.and_then(|entry| parse_entry(elf.class(), entry)) else { continue };
            let limit = crate::symbols::ranges::MAX_NAME_BYTES;
            let name = Bytes(&strings).c_text(u64::from(entry.name), limit).unwrap_or_default();
            if name.is_empty() || names.len() as u64 + name.len() as u64 > MAX_STRINGS_BYTES / 8 {
                continue;
            }
            stubs.push(Symbol {
                start: ElfAddr(start),
                bytes,
                rank: Rank::Stub,
                is_local: false,
                is_weak: false,
                name: names.len() as u32,
            });
            names.extend_from_slice(name);
            names.extend_from_slice(b"@plt\0");
        }
    }
    let found = !stubs.is_empty();
    builder.add(Window::from(names), stubs)?;
    Ok(found)
}

/// Address of each word that holds the address of a function, with the index of its dynamic symbol.
fn jump_words(elf: &Elf, sections: &Sections) -> Result<HashMap<u64, u32>> {
    // JUMP_SLOT and GLOB_DAT
    let kinds = if elf.machine() == Machine::X86_64 { [7, 6] } else { [1026, 1025] };
    let mut words = HashMap::new();
    for name in [".rela.plt", ".rela.dyn"] {
        let Some(section) = sections.by_name(name).filter(|section| section.is_in_file()) else { continue };
        if section.bytes > MAX_RELOCATION_BYTES {
            continue;
        }
        let relocations = elf.section_bytes("relocations", section, MAX_RELOCATION_BYTES)?;
        for entry in relocations.chunks_exact(RELA_BYTES).map(Bytes) {
            let (Some(place), Some(info)) = (entry.u64(0), entry.u64(8)) else { continue };
            if kinds.contains(&(info & 0xffff_ffff)) {
                words.insert(place, (info >> 32) as u32);
            }
        }
    }
    Ok(words)
}

/// Start, length and word of each stub in a section.
fn jumps(machine: Machine, code: &[u8], section: &Section) -> Vec<(u64, u64, u64)> {
    let base = section.address.0;
    let step = if section.entry_bytes == 8 { 8 } else { 16 };
    let chunks = code.chunks_exact(step).enumerate();
    let found = chunks.filter_map(|(index, stub)| {
        let start = base.checked_add((index * step) as u64)?;
        let word = match machine {
            Machine::X86_64 => x86_word(stub, start),
            _ => arm_word(stub, start),
        }?;
        Some((start, step as u64, word))
    });
    found.collect()
}

/// `jmp *displacement(%rip)` within the first bytes, behind an `endbr64` and with or without `bnd` prefix.
fn x86_word(stub: &[u8], start: u64) -> Option<u64> {
    let at = stub.windows(2).take(6).position(|pair| pair == [0xff, 0x25])? as u64;
    let displacement = Bytes(stub).i32(at + 2)?;
    start.checked_add(at + 6)?.checked_add_signed(displacement.into())
}

/// `adrp x16, page; ldr x17, [x16, #offset]`, behind a `bti c` or not.
fn arm_word(stub: &[u8], start: u64) -> Option<u64> {
    let stub = Bytes(stub);
    let is_adrp = |at: &u64| stub.u32(*at).is_some_and(|code| code & 0x9f00_001f == 0x9000_0010);
    let at = [0, 4].into_iter().find(is_adrp)?;
    let (adrp, ldr) = (stub.u32(at)?, stub.u32(at + 4)?);
    if ldr & 0xffc0_03ff != 0xf940_0211 {
        return None;
    }
    // 21 bits of pages, the lowest two apart from the rest, signed.
    let pages = (adrp >> 5 & 0x7_ffff) << 2 | (adrp >> 29 & 3);
    let pages = i64::from((pages << 11) as i32 >> 11);
    let page = (start.checked_add(at)? & !0xfff).checked_add_signed(pages << 12)?;
    page.checked_add(u64::from(ldr >> 10 & 0xfff) * 8)
}
