//! Files that lie: hand-made ones, real ones with bytes changed, and one cut at every byte.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use object::{Object, ObjectSection};

use super::check;
use crate::model::ElfAddr;
use crate::unwind::{MAX_RULES, Rule, UnwindTable, from_elf};

const CODE: u64 = 0x40_0000;
const CODE_LEN: usize = 0x1_0000;
const SECTION: u64 = 0x50_0000;

/// Far beyond what any of these files may take, even in a debug build on a busy machine.
const HANG: Duration = Duration::from_secs(20);

/// An executable whose `.eh_frame` is these bytes.
fn wrap(eh_frame: &[u8]) -> Vec<u8> {
    let names = b"\0.eh_frame\0.shstrtab\0";
    let code_at = 0x1000_u64;
    let frame_at = code_at + CODE_LEN as u64;
    let names_at = frame_at + eh_frame.len() as u64;
    let sections_at = (names_at + names.len() as u64).next_multiple_of(8);
    let mut file = Vec::new();
    let mut put = |values: &[(u64, usize)]| {
        for (value, len) in values {
            file.extend_from_slice(&value.to_le_bytes()[..*len]);
        }
    };
    put(&[(0x0001_0102_464c_457f, 8), (0, 8), (2, 2), (62, 2), (1, 4), (0, 8), (64, 8), (sections_at, 8)]);
    put(&[(0, 4), (64, 2), (56, 2), (1, 2), (64, 2), (3, 2), (2, 2)]);
    put(&[
        (1, 4),
        (5, 4),
        (code_at, 8),
        (CODE, 8),
        (CODE, 8),
        (CODE_LEN as u64, 8),
        (CODE_LEN as u64, 8),
        (4096, 8),
    ]);
    file.resize(frame_at as usize, 0x90);
    file.extend_from_slice(eh_frame);
    file.extend_from_slice(names);
    file.resize(sections_at as usize + 64, 0);
    let mut section = |name: u64, kind: u64, address: u64, at: u64, len: u64| {
        for (value, size) in
            [(name, 4), (kind, 4), (2, 8), (address, 8), (at, 8), (len, 8), (0, 8), (8, 8), (0, 8)]
        {
            file.extend_from_slice(&u64::to_le_bytes(value)[..size]);
        }
    };
    section(1, 1, SECTION, frame_at, eh_frame.len() as u64);
    section(11, 3, 0, names_at, names.len() as u64);
    file
}

fn build(bytes: &[u8]) -> Option<UnwindTable> {
    let started = Instant::now();
    let table = from_elf(bytes).ok();
    assert!(started.elapsed() < HANG);
    if let Some(table) = &table {
        check(table);
    }
    table
}

fn corpus(extension: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus/eh_frame");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

#[test]
fn answers_each_hand_made_lie_the_same_way() {
    let mut text = String::new();
    for path in corpus("bin") {
        let table = build(&wrap(&std::fs::read(&path).unwrap())).unwrap();
        writeln!(text, "{}: {:?}", path.file_stem().unwrap().display(), table.skipped).unwrap();
        for row in table.rows.iter().take(24) {
            writeln!(text, "  {:#x} {:?}", row.offset, table.rules[usize::from(row.rule)]).unwrap();
        }
        if table.rows.len() > 24 {
            writeln!(text, "  … {} rows", table.rows.len()).unwrap();
        }
    }
    insta::assert_snapshot!(text);
}

#[test]
fn survives_a_cut_at_every_byte() {
    let path = corpus("elf").into_iter().next().unwrap();
    let bytes = std::fs::read(path).unwrap();
    let whole = build(&bytes).unwrap();
    assert_eq!(whole.find(ElfAddr(0x40_0080)), Some(Rule::Stop));
    for end in 0..bytes.len() {
        build(&bytes[..end]);
    }
}

/// A small generator: the same numbers each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

/// Changes some bytes of `range`, runs `work`, and puts them back.
fn mutate(
    bytes: &mut [u8],
    range: std::ops::Range<usize>,
    numbers: &mut Numbers,
    work: impl FnOnce(&[u8], &mut Numbers),
) {
    let mut before = Vec::new();
    for _ in 0..=numbers.below(8) {
        let at = range.start + numbers.below(range.len());
        before.push((at, bytes[at]));
        bytes[at] = match numbers.below(4) {
            0 => 0,
            1 => 0xff,
            2 => bytes[at] ^ (1 << numbers.below(8)),
            _ => numbers.below(256) as u8,
        };
    }
    work(bytes, numbers);
    for (at, byte) in before.into_iter().rev() {
        bytes[at] = byte;
    }
}

#[test]
fn survives_changed_bytes_in_a_small_file() {
    let mut bytes = std::fs::read(corpus("elf").into_iter().next().unwrap()).unwrap();
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    let all = 0..bytes.len();
    for _ in 0..50_000 {
        mutate(&mut bytes, all.clone(), &mut numbers, |bytes, _| {
            build(bytes);
        });
    }
}

#[test]
fn survives_changed_bytes_in_real_files() {
    let files = [
        "/lib64/ld-linux-x86-64.so.2",
        "/lib/x86_64-linux-gnu/libm.so.6",
        "/bin/true",
        "/usr/local/go/pkg/tool/linux_amd64/buildid",
        "/usr/local/go/bin/gofmt",
        // Code that nothing describes.
        "/usr/lib/x86_64-linux-gnu/libx264.so.164",
        "/usr/lib/x86_64-linux-musl/libc.so",
    ];
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for path in files {
        let Ok(mut bytes) = std::fs::read(path) else { continue };
        let file = object::File::parse(&*bytes).unwrap();
        let mut ranges: Vec<_> = std::iter::once(0..2048.min(bytes.len())).collect();
        for name in [".eh_frame", ".eh_frame_hdr", ".gopclntab", ".debug_frame", ".text"] {
            let range = file.section_by_name(name).and_then(|section| section.file_range());
            ranges.extend(range.map(|(start, len)| start as usize..(start + len) as usize));
            // The beginning is where the lengths are.
            ranges.extend(range.map(|(start, len)| start as usize..(start + len.min(512)) as usize));
        }
        for round in 0..150 {
            let range = ranges[round % ranges.len()].clone();
            mutate(&mut bytes, range, &mut numbers, |bytes, numbers| {
                let end = if numbers.below(4) == 0 { numbers.below(bytes.len()) } else { bytes.len() };
                build(&bytes[..end]);
            });
        }
    }
}

#[test]
fn keeps_to_the_limit_of_rules_and_says_so() {
    // def_cfa_offset with another value at each byte.
    let mut instructions = Vec::new();
    for value in 0..20_000_u32 {
        instructions.extend_from_slice(&[0x41, 0x0e]);
        let value = 8 + 8 * value;
        instructions.extend_from_slice(&[value as u8 | 0x80, (value >> 7) as u8 | 0x80, (value >> 14) as u8]);
    }
    let mut section = b"\x14\0\0\0\0\0\0\0\x01zR\0\x01\x78\x10\x01\x1b\x0c\x07\x08\x90\x01\0\0".to_vec();
    section.extend_from_slice(&(13 + instructions.len() as u32).to_le_bytes());
    section.extend_from_slice(&0x1c_u32.to_le_bytes());
    section.extend_from_slice(&(CODE.wrapping_sub(SECTION + 0x20) as u32).to_le_bytes());
    section.extend_from_slice(&(CODE_LEN as u32).to_le_bytes());
    section.push(0);
    section.extend_from_slice(&instructions);
    let table = build(&wrap(&section)).unwrap();
    assert_eq!(table.rules.len(), MAX_RULES);
    assert_eq!(table.skipped.malformed, 0);
    assert!(table.skipped.over_limit > 3000, "{:?}", table.skipped);
    assert_eq!(table.find(ElfAddr(CODE + 19_000)), Some(Rule::Unknown));
}

#[test]
fn any_bytes_may_stand_for_code() {
    use crate::unwind::{Architecture, guess};
    // What branches and frames are made of, so that they come together in every way.
    const PIECES: [&[u8]; 16] = [
        b"\x55",
        b"\x48\x89\xe5",
        b"\x48\x83\xec\x7f",
        b"\x48\x81\xec\xff\xff\xff\x7f",
        b"\xc9",
        b"\xc3",
        b"\xeb\xfe",
        b"\x74\x80",
        b"\x0f\x84\x00\x01\x00\x00",
        b"\xe9\x00\xff\xff\xff",
        b"\xff\xe0",
        b"\xe8\x10\x00\x00\x00",
        b"\x48\x83\xe4\xe0",
        b"\x48\x8b\x64\x24\x38",
        b"\xcc",
        b"\x90",
    ];
    let mut numbers = Numbers(0x1234_5678_9abc_def1);
    for round in 0..400 {
        let mut code = Vec::new();
        while code.len() < 20_000 {
            match round % 4 {
                0 => code.push(numbers.below(256) as u8),
                _ => code.extend_from_slice(PIECES[numbers.below(PIECES.len())]),
            }
        }
        for architecture in [Architecture::X86_64, Architecture::Aarch64] {
            let started = Instant::now();
            let (mut last, mut count) = (0, 0);
            guess::rows(&code, numbers.below(1 << 20) as u64, architecture, |offset, _| {
                assert!(offset >= last && (offset as usize) < code.len());
                (last, count) = (offset, count + 1);
            });
            assert!(started.elapsed() < HANG && count <= code.len());
        }
    }
}

#[test]
fn work_on_one_long_chain_of_branches_is_bounded() {
    use crate::unwind::{Architecture, guess};
    // Each branch leads to the one before it, so that every round learns one more.
    let code = [0x74, 0xfc].repeat(4 << 20);
    let started = Instant::now();
    let mut count = 0;
    guess::rows(&code, 0, Architecture::X86_64, |_, _| count += 1);
    assert!(started.elapsed() < HANG && count < 1000, "{count} rows");
}
