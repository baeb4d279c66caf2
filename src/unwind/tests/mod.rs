//! Real files and hostile ones against independent oracles.

mod go_tables;
mod guesses;
mod hostile;
mod live;
mod oracle;
mod sampled;
mod walk;

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use crate::model::ElfAddr;
use crate::unwind::{CfaRule, FpRule, MAX_ROWS, MAX_RULES, RaRule, Row, Rule, Skipped, UnwindTable};

/// What every table promises, whatever it was built from.
fn check(table: &UnwindTable) {
    assert!(table.rows.is_sorted_by(|a, b| a.offset < b.offset && a.rule != b.rule));
    assert!(table.rows.iter().all(|row| usize::from(row.rule) < table.rules.len()));
    assert!(table.rows.len() <= MAX_ROWS && table.rules.len() <= MAX_RULES);
}

proptest! {
    #[test]
    fn finds_the_row_that_a_naive_search_finds(
        base in 0..u64::MAX / 2,
        offsets in proptest::collection::btree_set(0_u32..2000, 0..100),
        asked in 0_u64..2100,
    ) {
        let rule = |offset: u32| Rule::Frame {
            cfa: CfaRule::Sp(offset as i32),
            fp: FpRule::Unchanged,
            ra: RaRule::AtCfa(-8),
        };
        let table = UnwindTable {
            base: ElfAddr(base),
            rows: offsets.iter().enumerate().map(|(at, &offset)| Row { offset, rule: at as u16 }).collect(),
            rules: offsets.iter().map(|&offset| rule(offset)).collect(),
            skipped: Skipped::default(),
        };
        check(&table);
        let naive = offsets.iter().rfind(|&&offset| u64::from(offset) <= asked).map(|&offset| rule(offset));
        prop_assert_eq!(table.find(ElfAddr(base + asked)), naive);
        prop_assert_eq!(table.find(ElfAddr(base.wrapping_sub(1 + asked))), None);
    }
}

/// Files of every kind that an ordinary machine may have; those missing are left out.
fn real_files() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = [
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/lib/x86_64-linux-gnu/libstdc++.so.6",
        "/lib/x86_64-linux-gnu/libm.so.6",
        "/lib/x86_64-linux-gnu/libcrypto.so.3",
        "/lib64/ld-linux-x86-64.so.2",
        "/usr/bin/python3",
        "/usr/bin/gdb",
        "/usr/lib/chromium/chromium",
        "/usr/lib/llvm-14/lib/libLLVM-14.so.1",
        "/bin/bash",
    ]
    .iter()
    .map(PathBuf::from)
    .collect();
    files.extend(std::env::current_exe().ok());
    files.extend(rustc_driver());
    files.retain(|path| path.exists());
    files
}

fn rustc_driver() -> Option<PathBuf> {
    let sysroot = std::process::Command::new("rustc").args(["--print", "sysroot"]).output().ok()?;
    let library = Path::new(String::from_utf8(sysroot.stdout).ok()?.trim()).join("lib");
    let is_driver = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("librustc_driver"))
    };
    std::fs::read_dir(library).ok()?.flatten().map(|entry| entry.path()).find(is_driver)
}

/// The same file as a tool that removes all section headers leaves it.
fn without_section_headers(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[0x28..0x30].fill(0);
    bytes[0x3c..0x40].fill(0);
    bytes
}
