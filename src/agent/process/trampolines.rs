//! Code that CPython copies into memory of its own for profilers (`-X perf`, 3.12 and later): one small function for each
//! Python function, all with the same instructions. They keep no frame pointer and nothing describes them, so stacks would
//! end there.
//!
//! Recognised by their first bytes. In their place stands an ELF file made up here, with the same code at the same places
//! and a description of it: so such memory has a table like any other code, one for all processes of a kind. Made from what
//! was recognised, never from what a process wrote.

use super::events::MappedRange;
use super::remote_memory;
use crate::model::RuntimeAddr;

/// sub rsp, 8; call rcx; add rsp, 8; ret
const CODE: [u8; 11] = *b"\x48\x83\xec\x08\xff\xd1\x48\x83\xc4\x08\xc3";
/// Branch target mark in front of it, where CPython is built with them.
const MARK: [u8; 4] = *b"\xf3\x0f\x1e\xfa";
/// From the start of the code: behind which instruction a frame of 8 bytes more is there, and before which no longer.
const FRAME: std::ops::Range<u64> = 4..10;
/// Bytes of memory that are looked at: two of them and what lies between.
const LOOKED_AT_BYTES: usize = 64;
/// Largest such memory: CPython takes 64 KiB at a time.
const MAX_BYTES: u64 = 1 << 20;
/// Most bytes from one to the next.
const MAX_STEP: usize = 32;

/// What memory with them is called, as other memory of no file.
pub(super) const NAME: &str = "JIT code";
/// Where the code lies in the file.
pub(super) const CODE_AT: u64 = 4096;
const FILE_HEADER_BYTES: u64 = 64;
const NAMES: &[u8] = b"\0.text\0.eh_frame\0.shstrtab\0";

/// Trampolines in one mapping. Those that are equal lie at the same places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Trampolines {
    bytes: u64,
    /// From one to the next.
    step: u64,
    has_mark: bool,
}

impl Trampolines {
    /// Looks whether that is what lies in a mapping of no file.
    pub(super) fn of(pid: u32, range: &MappedRange) -> Option<Self> {
        let bytes = range.end.saturating_sub(range.start);
        if cfg!(not(target_arch = "x86_64")) || bytes > MAX_BYTES {
            return None;
        }
        let mut head = [0; LOOKED_AT_BYTES];
        let read = remote_memory::read(pid, RuntimeAddr(range.start), &mut head).ok()?;
        Self::in_bytes(&head[..read], bytes)
    }

    fn in_bytes(head: &[u8], bytes: u64) -> Option<Self> {
        let has_mark = head.starts_with(&MARK);
        let one = |at: usize| {
            let rest = head.get(at..)?;
            let code = if has_mark { rest.strip_prefix(&MARK)? } else { rest };
            code.starts_with(&CODE).then_some(at)
        };
        one(0)?;
        let step = (CODE.len()..=MAX_STEP).find_map(one)? as u64;
        Some(Self { bytes, step, has_mark })
    }

    /// The file that stands in their place.
    pub(super) fn image(self) -> Vec<u8> {
        let text_at = CODE_AT;
        let frames = self.eh_frame();
        let frames_at = (text_at + self.bytes).next_multiple_of(8);
        let names_at = frames_at + frames.len() as u64;
        let sections_at = (names_at + NAMES.len() as u64).next_multiple_of(8);
        // 64 bits, little-endian, shared object for x86-64; headers follow.
        let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0".to_vec();
        let words = |file: &mut Vec<u8>, values: &[u64]| {
            file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        };
        words(&mut file, &[0, FILE_HEADER_BYTES, sections_at]);
        // No flags; sizes and numbers of headers: one segment, four sections, the last with the names.
        file.extend_from_slice(b"\0\0\0\0\x40\0\x38\0\x01\0\x40\0\x04\0\x03\0");
        // Readable and executable, all of it, at address 0.
        file.extend_from_slice(b"\x01\0\0\0\x05\0\0\0");
        words(&mut file, &[0, 0, 0, names_at, names_at, CODE_AT]);
        file.resize(text_at as usize, 0);
        for _ in 0..self.count() {
            let end = file.len() + self.step as usize;
            if self.has_mark {
                file.extend_from_slice(&MARK);
            }
            file.extend_from_slice(&CODE);
            file.resize(end, 0);
        }
        file.resize(frames_at as usize, 0);
        file.extend_from_slice(&frames);
        file.extend_from_slice(NAMES);
        file.resize(sections_at as usize + 64, 0);
        for (name, kind, flags, at, len) in [
            (1_u32, 1_u32, 6_u64, text_at, self.bytes),
            (7, 1, 2, frames_at, frames.len() as u64),
            (17, 3, 0, names_at, NAMES.len() as u64),
        ] {
            file.extend_from_slice(&name.to_le_bytes());
            file.extend_from_slice(&kind.to_le_bytes());
            words(&mut file, &[flags, at, at, len, 0, 8, 0]);
        }
        file
    }

    /// How many there are. What is left at the end is no code.
    fn count(self) -> u64 {
        self.bytes / self.step
    }

    /// One common entry and one entry for all of them.
    fn eh_frame(self) -> Vec<u8> {
        // Version 1, no augmentation, code in bytes, data in words downwards, return address in column 16;
        // frame at rsp + 8, return address at its end.
        let mut common = b"\0\0\0\0\x01\0\x01\x78\x10\x0c\x07\x08\x90\x01".to_vec();
        common.resize(20, 0);
        let mut entry = (common.len() as u32 + 8).to_le_bytes().to_vec();
        entry.extend_from_slice(&CODE_AT.to_le_bytes());
        entry.extend_from_slice(&(self.count() * self.step).to_le_bytes());
        let body = if self.has_mark { MARK.len() as u64 } else { 0 };
        let mut at = 0;
        let mut advance = |entry: &mut Vec<u8>, to: u64| {
            // Never more than the step, which fits the six bits.
            entry.push(0x40 | (to - at) as u8);
            at = to;
        };
        for number in 0..self.count() {
            let start = number * self.step + body;
            advance(&mut entry, start + FRAME.start);
            entry.extend_from_slice(b"\x0e\x10");
            advance(&mut entry, start + FRAME.end);
            entry.extend_from_slice(b"\x0e\x08");
        }
        entry.resize(entry.len().next_multiple_of(4), 0);
        let mut section = Vec::new();
        for part in [common, entry] {
            section.extend_from_slice(&(part.len() as u32).to_le_bytes());
            section.extend_from_slice(&part);
        }
        section.extend_from_slice(&[0; 4]);
        section
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ElfAddr;
    use crate::unwind::{CfaRule, FpRule, RaRule, Rule, from_elf};

    fn frame(cfa: i32) -> Rule {
        Rule::Frame { cfa: CfaRule::Sp(cfa), fp: FpRule::Unchanged, ra: RaRule::AtCfa(-8) }
    }

    #[test]
    fn each_instruction_of_each_of_them_has_its_rule() {
        for (step, mark) in [(11, &[][..]), (16, &[]), (15, &MARK), (16, &MARK)] {
            let mut one = mark.to_vec();
            one.extend_from_slice(&CODE);
            one.resize(step, 0);
            let memory = one.repeat(4096 / step);
            let found = Trampolines::in_bytes(&memory[..LOOKED_AT_BYTES], 4096).unwrap();
            assert_eq!((found.step, found.has_mark), (step as u64, !mark.is_empty()));
            let image = found.image();
            assert_eq!(image[CODE_AT as usize..][..memory.len()], memory);
            let table = from_elf(&image).unwrap();
            for number in 0..4096 / step {
                let start = CODE_AT + (number * step + mark.len()) as u64;
                let cfa = |offset: u64| table.find(ElfAddr(start + offset));
                assert_eq!(
                    [0, 4, 5, 6, 9, 10].map(cfa),
                    [8, 16, 16, 16, 16, 8].map(frame).map(Some),
                    "{step} {number}"
                );
            }
            // Two rows each, and what lies around.
            assert!(table.rows.len() < 2 * 4096 / step + 8);
        }
    }

    #[test]
    fn other_code_is_left_alone() {
        let twice = [CODE, CODE].concat();
        assert!(Trampolines::in_bytes(&twice, 4096).is_some());
        assert_eq!(Trampolines::in_bytes(&CODE, 4096), None);
        assert_eq!(Trampolines::in_bytes(&twice[1..], 4096), None);
        assert_eq!(Trampolines::in_bytes(&[MARK.as_slice(), &twice].concat(), 4096), None);
        assert_eq!(Trampolines::in_bytes(&[], 0), None);
        // Shorter than one of them.
        assert!(from_elf(&Trampolines { bytes: 5, step: 11, has_mark: false }.image()).is_ok());
    }
}
