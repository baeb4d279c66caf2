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

fn architecture_of(file: &object::File<'_>) -> Architecture {
    match file.architecture() {
        object::Architecture::Aarch64 => Architecture::Aarch64,
        _ => Architecture::X86_64,
    }
}

/// What gimli's row means in our words, written down a second time. `None`: no opinion.
fn translate(
    row: &UnwindTableRow<usize>,
    eh_frame: &EhFrame<Slice<'_>>,
    architecture: Architecture,
) -> Option<Rule> {
    let (return_address, frame_pointer) = match architecture {
        Architecture::X86_64 => (16, 6),
        Architecture::Aarch64 => (30, 29),
    };
    let ra = match row.register(Register(return_address)) {
        None | Some(RegisterRule::SameValue) if architecture == Architecture::Aarch64 => RaRule::LinkRegister,
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
            architecture.cfa_from_register(register.0 as u8, i32::try_from(*offset).ok()?)
        }
        GimliCfa::Expression(at) => match expression::cfa(&bytes(*at)?, architecture) {
            Some(rule) => rule,
            None => return Some(Rule::Unknown),
        },
    };
    let fp = match row.register(Register(frame_pointer)) {
        None | Some(RegisterRule::SameValue) => FpRule::Unchanged,
        Some(RegisterRule::Offset(offset)) => FpRule::AtCfa(i32::try_from(offset).ok()?),
        Some(RegisterRule::Expression(at)) => match (expression::register_plus_offset(&bytes(at)?), cfa) {
            // GCC says so behind the epilogue, where the register is the caller's again.
            (Some(at), CfaRule::Sp(8)) if at.register == frame_pointer as u8 => FpRule::Unchanged,
            (Some(at), _) if at.register == frame_pointer as u8 => FpRule::AtFp(at.offset),
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
    let architecture = architecture_of(&file);
    let mut eh_frame = EhFrame::new(section.data().unwrap(), LittleEndian);
    if architecture == Architecture::Aarch64 {
        eh_frame.set_vendor(gimli::Vendor::AArch64);
    }
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
            let expected = match translate(row, &eh_frame, architecture) {
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

/// Compiles `frames.c` without linking it to anything.
fn compile_frames(compiler: &str, flags: &[&str]) -> Option<Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("frames.c"), include_str!("programs/frames.c")).unwrap();
    let library = ["-shared", "-fPIC", "-nostdlib", "-Wl,-z,undefs", "-fno-stack-protector"];
    let rest = ["-o", "frames.so", "frames.c"];
    let arguments = [&library[..], flags, &rest].concat();
    let is_there = std::process::Command::new(compiler).arg("--version").output().is_ok();
    (is_there && compile(directory.path(), compiler, &arguments))
        .then(|| std::fs::read(directory.path().join("frames.so")).unwrap())
}

#[test]
fn agrees_with_gimli_on_what_compilers_write() {
    let native = cfg!(target_arch = "x86_64");
    let mut seen = 0;
    for (compiler, flags) in [
        ("gcc", &["-O0"][..]),
        ("gcc", &["-O2"]),
        ("gcc", &["-O3", "-mavx2", "-fcf-protection"]),
        ("gcc", &["-Os", "-mstackrealign", "-maccumulate-outgoing-args"]),
        ("gcc", &["-O2", "-fno-omit-frame-pointer", "-fstack-clash-protection"]),
        ("clang", &["-O2", "-DNO_NESTED"]),
        ("aarch64-linux-gnu-gcc", &["-O2"]),
        ("aarch64-linux-gnu-gcc", &["-O2", "-fomit-frame-pointer", "-mbranch-protection=standard"]),
        ("aarch64-linux-gnu-gcc", &["-O3", "-mbranch-protection=pac-ret+leaf"]),
        ("aarch64-linux-gnu-gcc", &["-O0", "-fstack-clash-protection"]),
    ] {
        if !native && compiler != "aarch64-linux-gnu-gcc" {
            continue;
        }
        let Some(bytes) = compile_frames(compiler, flags) else { continue };
        let table = from_elf(&bytes).unwrap();
        let name = format!("{compiler} {flags:?}");
        let rows = compare(Path::new(&name), &bytes, &table);
        println!("{name}: {rows} rows agree, {:?}", table.skipped);
        assert_eq!(table.skipped.total(), 0, "{name}");
        let is = |kind: fn(&CfaRule) -> bool| {
            table.rules.iter().any(|rule| matches!(rule, Rule::Frame { cfa, .. } if kind(cfa)))
        };
        if compiler == "gcc" && flags.contains(&"-O2") && flags.len() == 1 {
            assert!(is(|cfa| matches!(cfa, CfaRule::DerefFp { .. })), "no frame with a register of its own");
            assert!(
                is(|cfa| matches!(cfa, CfaRule::Fp(_))) && is(|cfa| matches!(cfa, CfaRule::Sp(100_000..)))
            );
        }
        seen += 1;
    }
    assert!(seen > 0 || !native, "no compiler");
}

#[test]
fn the_second_key_of_pointer_authentication_changes_nothing() {
    // gimli does not know its augmentation. The code is the same but for the instructions that sign.
    let with = |protection: &str| compile_frames("aarch64-linux-gnu-gcc", &["-O3", protection]);
    let (Some(a), Some(b)) =
        (with("-mbranch-protection=pac-ret+leaf"), with("-mbranch-protection=pac-ret+leaf+b-key"))
    else {
        return;
    };
    let (a, b) = (from_elf(&a).unwrap(), from_elf(&b).unwrap());
    assert!(a.rows.len() > 20 && b.skipped.total() == 0, "{:?}", b.skipped);
    assert_eq!((a.rows, a.rules), (b.rows, b.rules));
}

#[test]
fn agrees_with_gimli_on_arm64_libraries() {
    for name in ["libc.so.6", "libm.so.6", "ld-linux-aarch64.so.1", "libstdc++.so.6"] {
        for folder in ["/usr/aarch64-linux-gnu/lib", "/lib/aarch64-linux-gnu"] {
            let path = Path::new(folder).join(name);
            let Ok(bytes) = std::fs::read(&path) else { continue };
            let table = from_elf(&bytes).unwrap();
            println!(
                "{}: {} rows agree, {:?}",
                path.display(),
                compare(&path, &bytes, &table),
                table.skipped
            );
        }
    }
}

#[test]
fn the_frame_of_the_lazy_binder_is_found_during_its_calls() {
    let Ok(bytes) = std::fs::read("/lib64/ld-linux-x86-64.so.2") else { return };
    let table = from_elf(&bytes).unwrap();
    let rules: Vec<_> = table.rows.iter().map(|row| table.rules[usize::from(row.rule)]).collect();
    let cfa = |rule: &Rule| if let Rule::Frame { cfa, .. } = rule { Some(*cfa) } else { None };
    // One for each way of saving the processor's registers. rbx has the old stack pointer; the link map, the number of the
    // function and the return address lie above what was saved there.
    let calls: Vec<_> = rules
        .windows(3)
        .filter(|three| matches!(cfa(&three[1]), Some(CfaRule::DerefSp { offset: ..0, add: 32 })))
        .collect();
    assert!(calls.len() >= 2, "{} calls", calls.len());
    for three in calls {
        let by_register = Some(CfaRule::Register { register: 3, offset: 32 });
        assert_eq!((cfa(&three[0]), cfa(&three[2])), (by_register, by_register));
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
