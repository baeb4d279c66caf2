//! What is read off code against what compilers and assemblers say about the same code.

use std::path::Path;
use std::process::Command;

use object::{Object, ObjectSection};

use crate::model::ElfAddr;
use crate::unwind::{Architecture, CfaRule, FpRule, Rule, from_elf, guess, x86_64};

/// Bytes of code by what came of the comparison.
#[derive(Default, Debug)]
struct Agreement {
    same: u64,
    other: u64,
    /// One knows the frame by the stack pointer, the other by another register.
    not_comparable: u64,
    none: u64,
    frame_pointer_same: u64,
    frame_pointer_other: u64,
}

/// Entries that begin within a frame: parts that compilers split off their functions.
fn cold_parts(bytes: &[u8]) -> Vec<(u64, u64)> {
    use gimli::{BaseAddresses, CfaRule, EhFrame, LittleEndian, UnwindContext, UnwindSection};
    let file = object::File::parse(bytes).unwrap();
    let Some(section) = file.section_by_name(".eh_frame") else { return Vec::new() };
    let eh_frame = EhFrame::new(section.data().unwrap(), LittleEndian);
    let bases = BaseAddresses::default().set_eh_frame(section.address());
    let mut context = UnwindContext::new();
    let mut entries = eh_frame.entries(&bases);
    let mut found = Vec::new();
    while let Some(entry) = entries.next().unwrap() {
        let gimli::CieOrFde::Fde(partial) = entry else { continue };
        let fde = partial.parse(EhFrame::cie_from_offset).unwrap();
        let mut rows = fde.rows(&eh_frame, &bases, &mut context).unwrap();
        if let Ok(Some(row)) = rows.next_row() {
            let is_whole =
                matches!(row.cfa(), CfaRule::RegisterAndOffset { register, offset: 8 } if register.0 == 7);
            if !is_whole {
                found.push((fde.initial_address(), fde.end_address()));
            }
        }
    }
    found.sort_unstable();
    found
}

/// Reads the whole of a file's code as if nothing described it, and compares with the description.
fn compare(path: &Path) -> Agreement {
    let bytes = std::fs::read(path).unwrap();
    let table = from_elf(&bytes).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let architecture = match file.architecture() {
        object::Architecture::Aarch64 => Architecture::Aarch64,
        _ => Architecture::X86_64,
    };
    let text = file.section_by_name(".text").unwrap();
    let (code, start) = (text.data().unwrap(), text.address());
    let mut found = Vec::new();
    guess::rows(code, start, architecture, |offset, rule| found.push((u64::from(offset), rule)));
    let mut agreement = Agreement::default();
    let ends = found.iter().skip(1).map(|(at, _)| *at).chain(std::iter::once(code.len() as u64));
    let mut told = table.rows.iter().map(|row| table.base.0 + u64::from(row.offset)).peekable();
    let cold = cold_parts(&bytes);
    let is_cold = |at: u64| {
        let index = cold.partition_point(|(start, _)| *start <= at);
        index.checked_sub(1).is_some_and(|index| at < cold[index].1)
    };
    for (&(from, rule), end) in found.iter().zip(ends) {
        let (mut at, end) = (start + from, start + end);
        while at < end {
            while told.next_if(|&row| row <= at).is_some() {}
            let next = told.peek().copied().unwrap_or(u64::MAX).min(end);
            let len = next - at;
            if is_cold(at) {
                at = next;
                continue;
            }
            match (table.find(ElfAddr(at)), rule) {
                (
                    Some(Rule::Frame { cfa, fp, ra }),
                    Rule::Guess { cfa: found, fp: found_fp, ra: found_ra },
                ) => {
                    let slot = match (cfa, found) {
                        (CfaRule::Sp(_), CfaRule::Sp(_)) if cfa == found && ra == found_ra => {
                            &mut agreement.same
                        }
                        (CfaRule::Sp(_), CfaRule::Sp(_)) => &mut agreement.other,
                        _ if cfa == found => &mut agreement.same,
                        _ => &mut agreement.not_comparable,
                    };
                    *slot += len;
                    // Compilers keep saying where a register was saved after they have restored it.
                    let fits =
                        fp == found_fp || (found_fp == FpRule::Unchanged && matches!(cfa, CfaRule::Sp(8)));
                    *(if fits {
                        &mut agreement.frame_pointer_same
                    } else {
                        &mut agreement.frame_pointer_other
                    }) += len;
                }
                (Some(Rule::Frame { .. }), _) => agreement.none += len,
                _ => {}
            }
            at = next;
        }
    }
    agreement
}

/// Files with the code that guesses are for: C without exceptions, and assembly that describes itself.
const C_AND_ASSEMBLY: [&str; 7] = [
    "/lib/x86_64-linux-gnu/libc.so.6",
    "/lib/x86_64-linux-gnu/libm.so.6",
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/x86_64-linux-gnu/libcrypto.so.3",
    "/bin/bash",
    "/usr/bin/python3",
    "/usr/bin/perl",
];

#[test]
fn reads_off_code_what_compilers_say_about_it() {
    let mut compared = 0;
    for path in C_AND_ASSEMBLY.map(Path::new).into_iter().filter(|path| path.exists()) {
        let found = compare(path);
        let all = found.same + found.other;
        println!("{}: {:.2} % right, {found:?}", path.display(), found.same as f64 * 100.0 / all as f64);
        assert!(all > 10_000 && found.same * 100 >= all * 90, "{}: {found:?}", path.display());
        assert!(found.none * 20 < all, "{}: {found:?}", path.display());
        compared += 1;
    }
    if compared == 0 {
        crate::cannot_run::cannot_run("comparison of guesses", "none of the known files is here");
    }
}

/// Addresses and text of the instructions that objdump finds.
fn disassembled(path: &Path) -> Option<Vec<(u64, String)>> {
    let arguments = ["-d", "-w", "--no-show-raw-insn", "-j", ".text"];
    let output = Command::new("objdump").args(arguments).arg(path).output();
    let output = match output {
        Ok(output) if output.status.success() => output,
        _ => {
            crate::cannot_run::cannot_run("objdump", "it is not installed");
            return None;
        }
    };
    let instruction = |line: &str| {
        let (address, text) = line.trim_start().split_once(":\t")?;
        Some((u64::from_str_radix(address, 16).ok()?, text.trim().to_owned()))
    };
    Some(String::from_utf8_lossy(&output.stdout).lines().filter_map(instruction).collect())
}

#[test]
fn finds_the_same_instructions_as_objdump() {
    // The second is assembly with every vector extension there was at its time.
    for path in ["/lib/x86_64-linux-gnu/libm.so.6", "/usr/lib/x86_64-linux-gnu/libx264.so.164"] {
        let Ok(bytes) = std::fs::read(path) else { continue };
        let file = object::File::parse(&*bytes).unwrap();
        let text = file.section_by_name(".text").unwrap();
        let (code, start) = (text.data().unwrap(), text.address());
        let Some(lines) = disassembled(Path::new(path)) else { return };
        let mut compared = 0;
        for two in lines.windows(2) {
            let (address, text) = &two[0];
            // Two instructions that objdump shows as one.
            if text.starts_with("fst") || text.starts_with("finit") || text.starts_with("fsave") {
                continue;
            }
            let found = x86_64::decode(&code[(address - start) as usize..]).map(|found| u64::from(found.len));
            assert_eq!(found, Some(two[1].0 - address), "{path}: {address:#x} {text}");
            compared += 1;
        }
        println!("{path}: {compared} instructions");
        assert!(compared > 10_000);
    }
}
