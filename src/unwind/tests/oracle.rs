//! Every row of real files against gimli's own evaluation.

use std::collections::BTreeMap;
use std::path::Path;

use gimli::{
    BaseAddresses, CfaRule as GimliCfa, EhFrame, EndianSlice, LittleEndian, Register, RegisterRule,
    UnwindContext, UnwindSection, UnwindTableRow,
};
use object::{Object, ObjectSection, ObjectSymbol};

use super::sampled::compile;
use super::walk::vdso_image;
use super::{check, real_files, without_section_headers};

use crate::model::ElfAddr;
use crate::unwind::{
    Architecture, CfaRule, FpRule, RaRule, Rule, UnwindTable, expression, from_elf, from_elf_and_debug_file,
};

type Slice<'a> = EndianSlice<'a, LittleEndian>;

const X86: Architecture = Architecture::X86_64;

/// What gimli's row means in our words, written down a second time. `None`: no opinion.
fn translate(row: &UnwindTableRow<usize>, eh_frame: &EhFrame<Slice<'_>>) -> Option<Rule> {
    let ra = match row.register(Register(16)) {
        Some(RegisterRule::Undefined) | None => return Some(Rule::Stop),
        Some(RegisterRule::Offset(offset)) => RaRule::AtCfa(i32::try_from(offset).ok()?),
        Some(RegisterRule::Register(register)) => RaRule::Register(register.0 as u8),
        _ => return None,
    };
    let bytes = |at: gimli::UnwindExpression<usize>| {
        at.get(eh_frame).ok().map(|expression| expression.0.slice().to_vec())
    };
    let cfa = match row.cfa() {
        GimliCfa::RegisterAndOffset { register, offset } => {
            X86.cfa_from_register(register.0 as u8, i32::try_from(*offset).ok()?)
        }
        GimliCfa::Expression(at) => match expression::cfa(&bytes(*at)?, X86) {
            Some(rule) => rule,
            None => return Some(Rule::Unknown),
        },
    };
    let fp = match row.register(Register(6)) {
        None | Some(RegisterRule::SameValue) => FpRule::Unchanged,
        Some(RegisterRule::Offset(offset)) => FpRule::AtCfa(i32::try_from(offset).ok()?),
        Some(RegisterRule::Expression(at)) => match (expression::register_plus_offset(&bytes(at)?), cfa) {
            (Some(at), _) if at.register == 6 => FpRule::AtFp(at.offset),
            (Some(at), CfaRule::Sp(offset)) if at.register == 7 => FpRule::AtCfa(at.offset - offset),
            _ => FpRule::Unknown,
        },
        Some(_) => FpRule::Unknown,
    };
    Some(Rule::Frame { cfa, fp, ra })
}

/// Compares a table with all entries of its file; returns how many rows were compared.
fn compare(path: &Path, bytes: &[u8], table: &UnwindTable) -> u64 {
    let file = object::File::parse(bytes).unwrap();
    let section = file.section_by_name(".eh_frame").unwrap();
    let eh_frame = EhFrame::new(section.data().unwrap(), LittleEndian);
    let bases = BaseAddresses::default().set_eh_frame(section.address());
    let mut context = UnwindContext::new();
    let mut entries = eh_frame.entries(&bases);
    let mut cies = BTreeMap::new();
    // Start of each function that another source decides: the entry point, signal frames.
    let mut compared = 0;
    let mut fdes = Vec::new();
    while let Some(entry) = entries.next().unwrap() {
        if let gimli::CieOrFde::Fde(partial) = entry {
            let fde = partial
                .parse(|section, bases, offset| {
                    cies.entry(offset.0).or_insert_with(|| section.cie_from_offset(bases, offset)).clone()
                })
                .unwrap();
            if fde.len() > 0 {
                fdes.push(fde);
            }
        }
    }
    fdes.sort_by_key(|fde| (fde.initial_address(), std::cmp::Reverse(fde.len())));
    for (at, fde) in fdes.iter().enumerate() {
        let end = fdes.get(at + 1).map_or(u64::MAX, gimli::FrameDescriptionEntry::initial_address);
        let is_entry = fde.contains(file.entry());
        let mut rows = fde.rows(&eh_frame, &bases, &mut context).unwrap();
        while let Some(row) = rows.next_row().unwrap() {
            let last = row.end_address().min(end).saturating_sub(1);
            if last < row.start_address() {
                continue;
            }
            let expected = match translate(row, &eh_frame) {
                _ if is_entry => Some(Rule::Stop),
                _ if fde.is_signal_trampoline() => Some(Rule::Signal),
                expected => expected,
            };
            for address in [row.start_address(), last] {
                let found = table.find(ElfAddr(address));
                assert!(
                    expected.is_none() || found == expected,
                    "{}: {address:#x} of function {:#x}..{:#x}: expected {expected:?}, found {found:?}",
                    path.display(),
                    fde.initial_address(),
                    fde.end_address()
                );
            }
            compared += 1;
        }
    }
    check(table);
    assert!(compared > 0, "{}", path.display());
    assert_eq!(table.skipped.malformed, 0, "{}", path.display());
    compared
}

#[test]
fn agrees_with_gimli_on_every_row_of_real_files() {
    for path in real_files() {
        let started = std::time::Instant::now();
        let bytes = std::fs::read(&path).unwrap();
        let table = from_elf(&bytes).unwrap();
        println!(
            "{}: {} rows agree, {} rows and {} rules kept, {:?}, {:?}",
            path.display(),
            compare(&path, &bytes, &table),
            table.rows.len(),
            table.rules.len(),
            table.skipped,
            started.elapsed()
        );
    }
}

#[test]
fn agrees_with_gimli_on_the_vdso() {
    let Some(bytes) = vdso_image() else { return };
    compare(Path::new("[vdso]"), &bytes, &from_elf(&bytes).unwrap());
}

#[test]
fn needs_no_section_headers() {
    for path in real_files().into_iter().take(5) {
        let bytes = std::fs::read(&path).unwrap();
        let table = from_elf(&without_section_headers(bytes.clone())).unwrap();
        compare(&path, &bytes, &table);
    }
}

#[test]
fn reads_debug_frame_plain_compressed_or_in_another_file() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("chain.c"), include_str!("programs/chain.c")).unwrap();
    let silent = ["-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-g"];
    for (name, flags) in [
        ("eh_frame", &[][..]),
        ("debug_frame", &silent),
        ("zlib", &[&silent[..], &["-Wl,--compress-debug-sections=zlib"]].concat()),
    ] {
        let mut arguments = flags.to_vec();
        arguments.extend(["-O2", "-fomit-frame-pointer", "-pthread", "chain.c", "-lm", "-o", name]);
        if !compile(directory.path(), "gcc", &arguments) {
            return;
        }
    }
    let read = |name: &str| std::fs::read(at(name)).unwrap();
    let (reference, zlib) = (read("eh_frame"), read("zlib"));
    let expected = from_elf(&reference).unwrap();
    let stripped = {
        std::fs::copy(at("zlib"), at("stripped")).unwrap();
        compile(directory.path(), "strip", &["stripped"]);
        read("stripped")
    };
    let in_two = from_elf_and_debug_file(&stripped, Some(&zlib)).unwrap();
    let tables = [from_elf(&read("debug_frame")).unwrap(), from_elf(&zlib).unwrap(), in_two];
    let start_of = |file: &[u8], name: &str| {
        let file = object::File::parse(file).unwrap();
        let symbol = file.symbols().find(|symbol| symbol.name() == Ok(name));
        symbol.map(|symbol| (symbol.address(), symbol.size()))
    };
    let mut compared = 0;
    for function in ["leaf", "sort", "chain", "thread", "on_tick", "main"] {
        // The compiler may have inlined or renamed some.
        let (Some((there, len)), Some((here, _))) =
            (start_of(&reference, function), start_of(&zlib, function))
        else {
            continue;
        };
        compared += 1;
        for offset in 0..len {
            let expected = expected.find(ElfAddr(there + offset));
            assert!(matches!(expected, Some(Rule::Frame { .. })));
            for table in &tables {
                assert_eq!(table.find(ElfAddr(here + offset)), expected, "{function}+{offset:#x}");
            }
        }
    }
    assert!(compared >= 3, "only {compared} functions were found");
}
