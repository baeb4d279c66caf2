//! `bpf/abi.h` in Rust: constants made by the build script, structs mirrored by hand with their sizes asserted.
//!
//! Nothing here talks to the kernel. Structs are turned into words and back field by field, so no layout is trusted
//! that the assertions below do not hold.

use std::mem::{offset_of, size_of};

use super::EndReason;
use crate::unwind::Architecture;

include!(concat!(env!("OUT_DIR"), "/abi.rs"));

/// What a counter is for. The sum of [`CounterClass::Whole`] equals the sum of [`CounterClass::Part`], exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterClass {
    /// What came in: ticks.
    Whole,
    /// Where each tick ended: stored, or dropped for a reason.
    Part,
    /// How the work went.
    Detail,
}

/// `struct abi_rule`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub(crate) struct Rule {
    pub(crate) cfa: u8,
    pub(crate) fp: u8,
    pub(crate) ra: u8,
    pub(crate) slot: u8,
    pub(crate) cfa_offset: i32,
    pub(crate) fp_offset: i32,
    pub(crate) ra_offset: i32,
}

impl std::hash::Hash for Rule {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        // In two words instead of seven: tables of a million rows are hashed row by row.
        let [first, second, third, fourth] = self.words();
        state.write_u64(u64::from(first) << 32 | u64::from(second));
        state.write_u64(u64::from(third) << 32 | u64::from(fourth));
    }
}

impl Rule {
    /// As the kernel side reads it.
    pub(crate) fn words(self) -> [u32; 4] {
        [
            u32::from_ne_bytes([self.cfa, self.fp, self.ra, self.slot]),
            self.cfa_offset as u32,
            self.fp_offset as u32,
            self.ra_offset as u32,
        ]
    }

    /// Whether it speaks of several stack pointers, by the bytes passed since its row.
    pub(crate) fn is_run(self) -> bool {
        matches!(u32::from(self.cfa), CFA_PUSHES | CFA_POPS)
    }

    /// The plain rule that it is `passed` bytes behind its row, at most [`MAX_PASSED`].
    pub(crate) fn at(self, passed: u32) -> Self {
        if !self.is_run() {
            return self;
        }
        let steps = self.ra_offset as u32 & (2_u32 << passed.min(MAX_PASSED)).wrapping_sub(1);
        let moved = 8 * steps.count_ones() as i32;
        let moved = if u32::from(self.cfa) == CFA_PUSHES { moved } else { -moved };
        let (fp, fp_offset) =
            if passed < u32::from(self.slot) { (FP_UNCHANGED as u8, 0) } else { (self.fp, self.fp_offset) };
        Self {
            cfa: CFA_SP as u8,
            fp,
            slot: 0,
            cfa_offset: self.cfa_offset.wrapping_add(moved),
            fp_offset,
            ra_offset: -8,
            ..self
        }
    }
}

/// `struct abi_process`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Process {
    pub(crate) stamp: u32,
    pub(crate) page: u32,
    pub(crate) levels: u32,
    pub(crate) program: u32,
}

impl Process {
    /// As the kernel side reads it.
    pub(crate) fn words(self) -> [u32; 4] {
        [self.stamp, self.page, self.levels, self.program]
    }
}

/// `struct abi_settings`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Settings {
    pub(crate) only_pid: u32,
    pub(crate) kernel_stack_bytes: u32,
    pub(crate) pac_mask: u64,
    pub(crate) per_cpu_buffers: u32,
    pub(crate) reserved: u32,
}

impl Settings {
    /// As the kernel side reads it.
    pub(crate) fn bytes(self) -> [u8; SETTINGS_BYTES as usize] {
        let mut bytes = [0; SETTINGS_BYTES as usize];
        bytes[0..4].copy_from_slice(&self.only_pid.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.kernel_stack_bytes.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.pac_mask.to_ne_bytes());
        bytes[16..20].copy_from_slice(&self.per_cpu_buffers.to_ne_bytes());
        bytes
    }
}

/// `struct abi_filter`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Filter {
    pub(crate) min_age_ns: u64,
    pub(crate) choose: u32,
    pub(crate) hierarchy: u32,
    pub(crate) idle: u32,
    pub(crate) reserved: u32,
}

impl Filter {
    /// As the kernel side reads it.
    pub(crate) fn bytes(self) -> [u8; FILTER_BYTES as usize] {
        let mut bytes = [0; FILTER_BYTES as usize];
        bytes[0..8].copy_from_slice(&self.min_age_ns.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.choose.to_ne_bytes());
        bytes[12..16].copy_from_slice(&self.hierarchy.to_ne_bytes());
        bytes[16..20].copy_from_slice(&self.idle.to_ne_bytes());
        bytes
    }
}

/// `struct abi_mapping_page`: only its offsets are used, in 32-bit words.
#[repr(C)]
struct MappingPageLayout {
    start: [u64; 128],
    bias: [u64; 128],
    root: [u32; 128],
    pages: [u32; 128],
    unused: [u32; 256],
}

/// First word of each column of a mapping page.
pub(crate) mod mapping_page {
    use super::{MappingPageLayout, offset_of};

    pub(crate) const START: usize = offset_of!(MappingPageLayout, start) / 4;
    pub(crate) const BIAS: usize = offset_of!(MappingPageLayout, bias) / 4;
    pub(crate) const ROOT: usize = offset_of!(MappingPageLayout, root) / 4;
    pub(crate) const PAGES: usize = offset_of!(MappingPageLayout, pages) / 4;
    /// Start of an entry that is not used: the largest address for a comparison by sign.
    pub(crate) const NO_START: u64 = i64::MAX as u64;
}

/// `struct abi_trace_event`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct TraceEvent {
    pub(crate) version: u16,
    pub(crate) end: u16,
    pub(crate) cpu: u32,
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    pub(crate) time_ns: u64,
    pub(crate) comm: [u8; 16],
    pub(crate) kernel_frames: u16,
    pub(crate) user_frames: u16,
    pub(crate) ring_start: u16,
    pub(crate) flags: u16,
    pub(crate) skipped: u32,
    pub(crate) reserved2: u32,
}

impl TraceEvent {
    /// Reads the header at the start of a record; `None` when the record is too short for one.
    pub(crate) fn read(record: &[u8]) -> Option<Self> {
        if record.len() < size_of::<Self>() {
            return None;
        }
        Some(Self {
            version: u16::from_ne_bytes(at(record, offset_of!(Self, version))?),
            end: u16::from_ne_bytes(at(record, offset_of!(Self, end))?),
            cpu: u32::from_ne_bytes(at(record, offset_of!(Self, cpu))?),
            pid: u32::from_ne_bytes(at(record, offset_of!(Self, pid))?),
            tid: u32::from_ne_bytes(at(record, offset_of!(Self, tid))?),
            time_ns: u64::from_ne_bytes(at(record, offset_of!(Self, time_ns))?),
            comm: at(record, offset_of!(Self, comm))?,
            kernel_frames: u16::from_ne_bytes(at(record, offset_of!(Self, kernel_frames))?),
            user_frames: u16::from_ne_bytes(at(record, offset_of!(Self, user_frames))?),
            ring_start: u16::from_ne_bytes(at(record, offset_of!(Self, ring_start))?),
            flags: u16::from_ne_bytes(at(record, offset_of!(Self, flags))?),
            skipped: u32::from_ne_bytes(at(record, offset_of!(Self, skipped))?),
            reserved2: 0,
        })
    }

    /// The reason behind `end`; `None` for a number that this build does not know.
    pub(crate) fn end_reason(&self) -> Option<EndReason> {
        END_REASONS.iter().find(|(number, _)| *number == self.end).map(|(_, reason)| *reason)
    }
}

/// `struct abi_stack_copy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct StackCopy {
    pub(crate) version: u16,
    pub(crate) kind: u16,
    pub(crate) cpu: u32,
    pub(crate) time_ns: u64,
    pub(crate) stack_start: u64,
    pub(crate) stack_bytes: u32,
    pub(crate) is_return: u32,
    pub(crate) reg: [u64; 36],
}

impl StackCopy {
    /// Reads the header at the start of a record; `None` when the record is too short for one, or of another kind.
    pub(crate) fn read(record: &[u8]) -> Option<Self> {
        let kind = u16::from_ne_bytes(at(record, offset_of!(Self, kind))?);
        if record.len() < size_of::<Self>() || u32::from(kind) != STACK_COPY {
            return None;
        }
        let mut reg = [0; 36];
        for (number, word) in reg.iter_mut().enumerate() {
            *word = u64::from_ne_bytes(at(record, offset_of!(Self, reg) + 8 * number)?);
        }
        Some(Self {
            version: u16::from_ne_bytes(at(record, offset_of!(Self, version))?),
            kind,
            cpu: u32::from_ne_bytes(at(record, offset_of!(Self, cpu))?),
            time_ns: u64::from_ne_bytes(at(record, offset_of!(Self, time_ns))?),
            stack_start: u64::from_ne_bytes(at(record, offset_of!(Self, stack_start))?),
            stack_bytes: u32::from_ne_bytes(at(record, offset_of!(Self, stack_bytes))?),
            is_return: u32::from_ne_bytes(at(record, offset_of!(Self, is_return))?),
            reg,
        })
    }
}

fn at<const N: usize>(record: &[u8], offset: usize) -> Option<[u8; N]> {
    record.get(offset..offset + N)?.try_into().ok()
}

const _: () = {
    assert!(size_of::<StackCopy>() == STACK_COPY_BYTES as usize);
    assert!(size_of::<Rule>() == RULE_BYTES as usize);
    assert!(size_of::<Process>() == PROCESS_BYTES as usize);
    assert!(size_of::<Settings>() == SETTINGS_BYTES as usize);
    assert!(size_of::<Filter>() == FILTER_BYTES as usize);
    assert!(size_of::<MappingPageLayout>() == MAPPING_PAGE_BYTES as usize);
    assert!(size_of::<TraceEvent>() == TRACE_EVENT_BYTES as usize);
    assert!(INNER_FRAMES + OUTER_FRAMES == MAX_USER_FRAMES);
    assert!(MAX_KERNEL_FRAMES + MAX_USER_FRAMES <= FRAME_WORDS);
    assert!(super::UserFrame::RETURN_ADDRESS == 1 << RETURN_ADDRESS_BIT);
    assert!(super::UserFrame::APPROXIMATE == 1 << APPROXIMATE_BIT);
};

/// Where the kernel side keeps a register, by DWARF number; `None` for one it does not keep.
pub(crate) fn register_slot(architecture: Architecture, dwarf: u8) -> Option<u8> {
    // DWARF: rax rdx rcx rbx rsi rdi rbp rsp r8..r15; kept: r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi.
    const X86_64_SLOTS: [u8; 16] = [10, 12, 11, 5, 13, 14, 4, 19, 9, 8, 7, 6, 3, 2, 1, 0];
    match architecture {
        Architecture::X86_64 => X86_64_SLOTS.get(usize::from(dwarf)).copied(),
        // x0..x30, sp: both number them alike.
        Architecture::Aarch64 => (dwarf <= 31).then_some(dwarf),
    }
}

/// DWARF number of the register that the kernel side keeps in a slot: [`register_slot`] the other way round.
pub(crate) fn slot_register(slot: u8) -> Option<u8> {
    (0..32).find(|dwarf| register_slot(Architecture::HOST, *dwarf) == Some(slot))
}

/// Slots of program counter, stack pointer and frame pointer.
pub(crate) const PC_SP_FP_SLOTS: [usize; 3] = match Architecture::HOST {
    Architecture::X86_64 => [16, 19, 4],
    Architecture::Aarch64 => [32, 31, 29],
};

/// DWARF number of the register that holds the return address of a leaf; `None` where a call pushes it.
pub(crate) fn link_register(architecture: Architecture) -> Option<u8> {
    (architecture == Architecture::Aarch64).then_some(30)
}

/// Bytes of a kernel stack. Not in BTF; 16 KiB on both architectures without KASAN and with 4 KiB pages.
pub(crate) const KERNEL_STACK_BYTES: u32 = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_reason_has_one_number() {
        for (i, (number, reason)) in END_REASONS.iter().enumerate() {
            assert!(END_REASONS[..i].iter().all(|(n, r)| n != number && r != reason));
        }
        assert_eq!(END_REASONS.len(), 15);
    }

    #[test]
    fn counters_begin_with_the_whole() {
        assert_eq!(COUNTERS[0], (CounterClass::Whole, "ticks"));
        assert!(COUNTERS.contains(&(CounterClass::Part, "stored")));
    }
}
