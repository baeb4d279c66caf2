//! Files that were made to hurt: every one ends in names or in a reason, with bounded memory and without a panic.

use std::time::{Duration, Instant};

use super::elf::Elf;
use super::mapped::{ImageFile, Window};
use super::testing::{CODE, SectionSpec, file, go_table, symbol, with_symbols};
use super::{Result, SymbolIndex, file_id};
use crate::model::{ElfAddr, UnknownReason};

const FUNCTION: u8 = 0x12;

fn read(bytes: &[u8]) -> Result<SymbolIndex> {
    let elf = Elf::open(ImageFile::from(Window::from(bytes.to_vec())))?;
    file_id::build_ids(&elf)?;
    SymbolIndex::build(&elf, None)
}

fn name(index: &SymbolIndex, address: u64) -> String {
    match index.lookup(ElfAddr(address)) {
        Ok(lines) => lines
            .iter()
            .map(|line| format!("{} {}:{}", line.function, line.file, line.line))
            .collect::<Vec<_>>()
            .join(" > "),
        Err(reason) => format!("[{reason}]"),
    }
}

/// Everything we read in one small file: symbols, a Go table, a compressed file inside, notes.
fn everything() -> Vec<u8> {
    let inner = with_symbols(b"\0inner\0", &[symbol(1, 2, 1, CODE + 96, 16)], &[]);
    let mut packed = Vec::new();
    lzma_rs::xz_compress(&mut &*inner, &mut packed).unwrap();
    let more = [
        SectionSpec {
            name: ".gopclntab",
            kind: 1,
            flags: 2,
            address: 0x50_0000,
            content: go_table(),
            ..Default::default()
        },
        SectionSpec { name: ".gnu_debugdata", kind: 1, content: packed, ..Default::default() },
        SectionSpec {
            name: ".dynsym",
            kind: 11,
            link: 7,
            content: symbol(1, FUNCTION, 1, CODE + 64, 16),
            ..Default::default()
        },
        SectionSpec { name: ".dynstr", kind: 3, content: b"\0exported\0".to_vec(), ..Default::default() },
    ];
    let symbols =
        [symbol(0, 0, 0, 0, 0), symbol(1, FUNCTION, 1, CODE + 32, 32), symbol(7, FUNCTION, 1, CODE + 112, 0)];
    with_symbols(b"\0sized\0open\0", &symbols, &more)
}

#[test]
fn the_seed_itself_is_read_from_every_source() {
    let index = read(&everything()).unwrap();
    assert_eq!(index.faults(), [""; 0]);
    let names: Vec<String> =
        [0, 8, 16, 32, 63, 64, 80, 96, 112, 255].map(|at| name(&index, CODE + at)).into();
    let expected = [
        "main.main /src/main.go:7",
        "main.main /src/main.go:9",
        "main.spin /src/main.go:7",
        "sized :0",
        "sized :0",
        "exported :0",
        "[no symbol covers this address]",
        "inner :0",
        "open :0",
        "open :0",
    ];
    assert_eq!(names, expected);
}

/// Reads and asks, whatever comes; the answer does not matter, that there is one does.
fn survive(bytes: &[u8]) {
    if let Ok(index) = read(bytes) {
        assert!(index.bytes() < 1 << 20, "{} bytes", index.bytes());
        for at in (0..288).step_by(8) {
            let _ = index.lookup(ElfAddr(CODE - 16 + at));
        }
        let _ = (index.lookup(ElfAddr(0)), index.lookup(ElfAddr(u64::MAX)));
    }
}

#[test]
fn truncated_at_every_byte() {
    let seed = everything();
    for end in 0..seed.len() {
        survive(&seed[..end]);
    }
}

#[test]
fn every_byte_replaced() {
    let seed = everything();
    for at in 0..seed.len() {
        for value in [0x00, 0x7f, 0xff, seed[at] ^ 1] {
            let mut bytes = seed.clone();
            bytes[at] = value;
            survive(&bytes);
        }
    }
}

#[test]
fn every_word_replaced_by_sizes_that_overflow() {
    let seed = everything();
    for at in (0..seed.len() - 8).step_by(4) {
        for value in [u64::MAX - 7, 1 << 63, u64::from(u32::MAX), CODE] {
            let mut bytes = seed.clone();
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            survive(&bytes);
        }
        let mut bytes = seed.clone();
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        survive(&bytes);
    }
}

#[test]
fn the_reason_says_where() {
    let seed = everything();
    let error = |bytes: &[u8]| match read(bytes) {
        Ok(index) => name(&index, CODE + 80),
        Err(error) => format!("[{}]", UnknownReason::from(&error)),
    };
    let mut bytes = seed.clone();
    bytes[40..48].copy_from_slice(&0x1_0000u64.to_le_bytes());
    assert_eq!(
        error(&bytes),
        format!(
            "[executable not readable: section headers: expected 576 bytes at offset 0x10000, found an end at {:#x}]",
            seed.len()
        )
    );
    // Size of the first symbol table: one gigabyte.
    let mut bytes = seed.clone();
    let headers = u64::from_le_bytes(seed[40..48].try_into().unwrap()) as usize;
    bytes[headers + 2 * 64 + 32..][..8].copy_from_slice(&(1u64 << 30).to_le_bytes());
    assert_eq!(
        error(&bytes),
        "[executable not readable: .symtab: symbols of a table: expected at most 16777216, found 44739242]"
    );
    assert_eq!(name(&read(&bytes).unwrap(), CODE + 64), "exported :0", "the other sources still speak");
}

#[test]
fn a_file_without_symbols_says_so() {
    let text = SectionSpec {
        name: ".text",
        kind: 1,
        flags: 6,
        address: CODE,
        content: vec![0; 64],
        ..Default::default()
    };
    let index = read(&file(&[text])).unwrap();
    assert_eq!(name(&index, CODE), "[executable has no symbols]");
}

#[test]
fn many_symbols_over_each_other_take_bounded_time_and_memory() {
    // 200,000 functions that all start at different places and all end at the end.
    let count = 200_000u64;
    let symbols: Vec<Vec<u8>> =
        (0..count).map(|at| symbol(1 + (at % 3) as u32, FUNCTION, 1, CODE + at, u64::MAX / 2)).collect();
    let text = SectionSpec {
        name: ".text",
        kind: 1,
        flags: 6,
        address: CODE,
        content: vec![0; count as usize],
        ..Default::default()
    };
    let table =
        SectionSpec { name: ".symtab", kind: 2, link: 3, content: symbols.concat(), ..Default::default() };
    let strings =
        SectionSpec { name: ".strtab", kind: 3, content: b"\0abc\0".to_vec(), ..Default::default() };
    let started = Instant::now();
    let index = read(&file(&[text, table, strings])).unwrap();
    assert_eq!(name(&index, CODE + count - 1), "bc :0");
    assert!(index.bytes() <= count as usize * 2 * 8 + 64, "{} bytes", index.bytes());
    assert!(started.elapsed() < Duration::from_mins(1));
}

#[test]
fn a_go_table_that_runs_in_circles_ends() {
    // All pc-value tables point at bytes that never move on; the function map is upside down.
    let mut table = go_table();
    let values_at = u64::from_le_bytes(table[8 + 6 * 8..][..8].try_into().unwrap()) as usize;
    for byte in &mut table[values_at + 1..values_at + 9] {
        *byte = 0x80;
    }
    let go = SectionSpec {
        name: ".gopclntab",
        kind: 1,
        flags: 2,
        address: 0x50_0000,
        content: table,
        ..Default::default()
    };
    let index = read(&with_symbols(b"\0", &[], &[go])).unwrap();
    assert_eq!(name(&index, CODE + 4), "main.main :0");
}
