//! Go's tables in every layout there has been, written here by hand: read right, and hurt in every way.
//!
//! Programs of the Go versions that are installed are walked in `sampled`; older ones cannot be had everywhere.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::check;
use crate::model::ElfAddr;
use crate::unwind::{CfaRule, FpRule, RaRule, Rule, UnwindTable, from_elf};

const CODE: u64 = 0x40_1000;
const TABLES: u64 = 0x50_0000;

/// Layouts by the first version that wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Layout {
    Go1_2,
    Go1_16,
    Go1_18,
    Go1_20,
}

const LAYOUTS: [Layout; 4] = [Layout::Go1_2, Layout::Go1_16, Layout::Go1_18, Layout::Go1_20];

struct Function {
    name: &'static str,
    code: &'static [u8],
    flags: u8,
    /// Bytes of code and how far the stack pointer has moved there.
    stack: &'static [(u8, i64)],
}

/// sub rsp, 24; mov [rsp + 16], rbp; lea rbp, [rsp + 16]; mov rbp, [rsp + 16]; add rsp, 24; ret; padding
const FRAMED: &[u8] = b"\x48\x83\xec\x18\x48\x89\x6c\x24\x10\x48\x8d\x6c\x24\x10\x48\x8b\x6c\x24\x10\x48\x83\xc4\x18\xc3\xcc\xcc\xcc\xcc\xcc\xcc\xcc\xcc";
/// mov rsp, [rdx + 56]; call [rdi]; mov rsp, [rax + 56]; ret; padding
const SWITCHING: &[u8] = b"\x48\x8b\x62\x38\xff\x17\x48\x8b\x60\x38\xc3\xcc\xcc\xcc\xcc\xcc";

const FUNCTIONS: [Function; 3] = [
    Function { name: "runtime.goexit", code: &[0x90; 16], flags: 5, stack: &[(16, 0)] },
    Function { name: "main.work", code: FRAMED, flags: 0, stack: &[(4, 0), (19, 24), (9, 0)] },
    Function { name: "runtime.systemstack", code: SWITCHING, flags: 6, stack: &[(16, 0)] },
];

fn code() -> Vec<u8> {
    FUNCTIONS.iter().flat_map(|function| function.code).copied().collect()
}

/// The bytes of `.gopclntab`.
fn table(layout: Layout) -> Vec<u8> {
    let mut names = vec![0];
    let mut values = vec![0];
    let mut records = Vec::new();
    let mut map = Vec::new();
    let (is_wide, is_old) = (layout <= Layout::Go1_16, layout == Layout::Go1_2);
    // In the oldest layout everything hangs off the beginning of the table: lay the parts out first.
    let map_bytes = if is_wide { FUNCTIONS.len() * 16 + 8 } else { FUNCTIONS.len() * 8 + 4 };
    let header_bytes = if is_old { 16 } else { 72 };
    let map_bytes = map_bytes + if is_old { 4 } else { 0 };
    let record_bytes = 64;
    let names_at = header_bytes + map_bytes + FUNCTIONS.len() * record_bytes;
    let values_at = names_at + 64;
    let base = |at: usize| if is_old { at as u32 } else { 0 };
    let records_at = if is_old { header_bytes + map_bytes } else { map_bytes };
    let mut start = 0_u64;
    for function in &FUNCTIONS {
        let name = base(names_at) + names.len() as u32;
        names.extend_from_slice(function.name.as_bytes());
        names.push(0);
        let stack = base(values_at) + values.len() as u32;
        let mut last = -1;
        for &(bytes, moved) in function.stack {
            let delta = moved - last;
            values.push(((delta << 1) ^ (delta >> 63)) as u8);
            values.push(bytes);
            last = moved;
        }
        values.push(0);
        let record = records_at + records.len();
        if is_wide {
            map.extend_from_slice(&(CODE + start).to_le_bytes());
            map.extend_from_slice(&(record as u64).to_le_bytes());
            records.extend_from_slice(&(CODE + start).to_le_bytes());
        } else {
            map.extend_from_slice(&(start as u32).to_le_bytes());
            map.extend_from_slice(&(record as u32).to_le_bytes());
            records.extend_from_slice(&(start as u32).to_le_bytes());
        }
        for word in [name, 0, 0, stack, 0, 0, 0] {
            records.extend_from_slice(&word.to_le_bytes());
        }
        if !is_old {
            records.extend_from_slice(&[0; 4]); // compilation unit
        }
        if layout == Layout::Go1_20 {
            records.extend_from_slice(&[0; 4]); // first line
        }
        // Flags since 1.17, which still had the layout of 1.16.
        records.extend_from_slice(&[0, if layout > Layout::Go1_16 { function.flags } else { 0 }, 0, 0]);
        records.resize(records.len().next_multiple_of(record_bytes), 0);
        start += function.code.len() as u64;
    }
    let end =
        if is_wide { (CODE + start).to_le_bytes().to_vec() } else { (start as u32).to_le_bytes().to_vec() };
    map.extend_from_slice(&end);
    let magic = match layout {
        Layout::Go1_2 => 0xffff_fffb_u32,
        Layout::Go1_16 => 0xffff_fffa,
        Layout::Go1_18 => 0xffff_fff0,
        Layout::Go1_20 => 0xffff_fff1,
    };
    let mut bytes = magic.to_le_bytes().to_vec();
    bytes.extend_from_slice(&[0, 0, 1, 8]);
    bytes.extend_from_slice(&(FUNCTIONS.len() as u64).to_le_bytes());
    if is_old {
        map.extend_from_slice(&[0; 4]); // files
    } else {
        bytes.extend_from_slice(&[0; 8]); // files
        if !is_wide {
            bytes.extend_from_slice(&CODE.to_le_bytes());
        }
        for at in [names_at, 0, 0, values_at, header_bytes] {
            bytes.extend_from_slice(&(at as u64).to_le_bytes());
        }
        bytes.resize(header_bytes, 0);
    }
    bytes.extend_from_slice(&map);
    bytes.extend_from_slice(&records);
    bytes.resize(names_at, 0);
    bytes.extend_from_slice(&names);
    bytes.resize(values_at, 0);
    bytes.extend_from_slice(&values);
    bytes
}

/// A program of this code and these tables.
fn program(code: &[u8], tables: &[u8]) -> Vec<u8> {
    let names = b"\0.text\0.gopclntab\0.shstrtab\0";
    let (code_at, tables_at) = (0x1000_usize, 0x1000 + code.len());
    let names_at = tables_at + tables.len();
    let sections_at = (names_at + names.len()).next_multiple_of(8);
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    let words = |values: &[u64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
    file.extend(words(&[0, 64, sections_at as u64]));
    file.extend_from_slice(b"\0\0\0\0\x40\0\x38\0\x01\0\x40\0\x04\0\x03\0");
    file.extend_from_slice(b"\x01\0\0\0\x05\0\0\0");
    file.extend(words(&[code_at as u64, CODE, CODE, code.len() as u64, code.len() as u64, 4096]));
    file.resize(code_at, 0);
    file.extend_from_slice(code);
    file.extend_from_slice(tables);
    file.extend_from_slice(names);
    file.resize(sections_at + 64, 0);
    for (name, kind, flags, address, at, len) in [
        (1_u32, 1_u32, 6_u64, CODE, code_at, code.len()),
        (7, 1, 2, TABLES, tables_at, tables.len()),
        (18, 3, 0, 0, names_at, names.len()),
    ] {
        file.extend_from_slice(&name.to_le_bytes());
        file.extend_from_slice(&kind.to_le_bytes());
        file.extend(words(&[flags, address, at as u64, len as u64, 0, 8, 0]));
    }
    file
}

fn build(file: &[u8]) -> Option<UnwindTable> {
    let started = Instant::now();
    let table = from_elf(file).ok();
    // Far more than any of them may take.
    assert!(started.elapsed() < Duration::from_secs(10));
    if let Some(table) = &table {
        check(table);
        assert!(table.rows.len() < 10_000);
    }
    table
}

#[test]
fn reads_every_layout() {
    let frame = |cfa, fp| Some(Rule::Frame { cfa: CfaRule::Sp(cfa), fp, ra: RaRule::AtCfa(-8) });
    for layout in LAYOUTS {
        let table = build(&program(&code(), &table(layout))).unwrap();
        let find = |offset: u64| table.find(ElfAddr(CODE + offset));
        assert_eq!(find(16), frame(8, FpRule::Unchanged), "{layout:?}");
        assert_eq!(find(19), frame(8, FpRule::Unchanged), "{layout:?}");
        assert_eq!(find(20), frame(32, FpRule::AtCfa(-16)), "{layout:?}");
        assert_eq!(find(38), frame(32, FpRule::AtCfa(-16)), "{layout:?}");
        assert_eq!(find(39), frame(8, FpRule::Unchanged), "{layout:?}");
        assert_eq!(find(0), Some(Rule::Stop), "{layout:?}");
        // On another stack without a frame of its own.
        assert_eq!(find(48), frame(8, FpRule::Unchanged), "{layout:?}");
        assert_eq!(find(53), Some(Rule::BorrowedFramePointer), "{layout:?}");
        assert_eq!(table.skipped.total(), 0, "{layout:?}");
    }
}

#[test]
fn survives_every_byte_changed_and_every_cut() {
    for layout in LAYOUTS {
        let tables = table(layout);
        let whole = program(&code(), &tables);
        for at in 0..tables.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut hurt = tables.clone();
                hurt[at] = value;
                build(&program(&code(), &hurt));
            }
            build(&program(&code(), &tables[..at]));
        }
        for end in 0..whole.len() {
            build(&whole[..end]);
        }
    }
}

#[test]
fn what_is_broken_is_counted() {
    for layout in LAYOUTS {
        let mut tables = table(layout);
        // Stack tables that end in the middle of a number.
        let len = tables.len();
        tables.truncate(len - 3);
        tables.push(0x80);
        let found = build(&program(&code(), &tables)).unwrap();
        assert!(found.skipped.malformed > 0, "{layout:?}: {:?}", found.skipped);
        // More functions than the table has room for: no Go table at all.
        let mut tables = table(layout);
        tables[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        let found = build(&program(&code(), &tables)).unwrap();
        assert!(!found.rules.contains(&Rule::Stop), "{layout:?}");
    }
}

/// Hand-made tables, each wrong in one way.
#[test]
fn answers_each_hand_made_table_the_same_way() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus/gopclntab");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "bin"))
        .collect();
    files.sort();
    let mut text = String::new();
    for path in files {
        let tables = std::fs::read(&path).unwrap();
        let name = path.file_stem().unwrap().display().to_string();
        let found = build(&program(&code(), &tables)).unwrap();
        writeln!(text, "{name}: {:?}", found.skipped).unwrap();
        for row in &found.rows {
            writeln!(text, "  {:#x} {:?}", row.offset, found.rules[usize::from(row.rule)]).unwrap();
        }
        if name == "whole" {
            assert_eq!(tables, table(Layout::Go1_20));
        }
    }
    insta::assert_snapshot!(text);
}
