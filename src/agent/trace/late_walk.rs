//! The walk that the kernel side could not do: over a stack copy, once the process and its tables are known.
//!
//! The same steps as `bpf/native.bpf.c`, with frame pointers where no rule helps. Bounded by the frames of a sample.

use std::sync::Arc;

use crate::agent::bpf::{EndReason, RawTrace, StackCopy, UserFrame, limits};
use crate::agent::process::{Code, Executable, Follower, KernelSide};
use crate::unwind::{Architecture, Registers, Rule, Trouble, step};

/// What came of a late walk.
#[derive(Debug)]
pub(crate) enum Late<'w> {
    /// The sample as it is now.
    Done(RawTrace<'w>, Walked),
    /// The table of this file is being made: better later.
    Wait(Arc<Executable>),
}

/// What was done to a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walked {
    /// Nothing, or nothing better was found.
    AsItCame,
    /// Its copy led to the root.
    Completed,
    /// Its copy led further than the kernel side had come.
    Further,
    /// Frames were taken away: beyond, rules were followed of what lay there before.
    Cut,
}

/// Walks stack copies; keeps its memory.
#[derive(Debug)]
pub(crate) struct LateWalker {
    frames: Vec<UserFrame>,
    /// Bits of a code pointer that hold its signature.
    signature_bits: u64,
}

impl LateWalker {
    /// A walker for code pointers with these bits of signature.
    pub(crate) fn new(signature_bits: u64) -> Self {
        Self { frames: Vec::new(), signature_bits }
    }

    /// The sample with the longer of both walks. `may_wait` = it may come again.
    pub(crate) fn walk<'w>(
        &'w mut self,
        raw: &RawTrace<'w>,
        processes: &mut Follower,
        kernel: &dyn KernelSide,
        may_wait: bool,
    ) -> Late<'w> {
        let Some(copy) = raw.stack_copy else {
            let Some(frames) = trusted(raw, processes) else { return Late::Done(*raw, Walked::AsItCame) };
            let (user, end) = (&raw.user[..frames], EndReason::UnknownProcess);
            return Late::Done(RawTrace { user, gap_at: 0, end, ..*raw }, Walked::Cut);
        };
        // Looks at `/proc` if nothing is known.
        processes.image(raw.pid, raw.time_ns);
        let Some(image) = processes.known_image(raw.pid, raw.time_ns) else {
            return Late::Done(*raw, Walked::AsItCame);
        };
        let code_at = |address| processes.code_at(image, address, raw.time_ns, kernel);
        let (end, pending) = walk(copy, &mut self.frames, self.signature_bits, code_at);
        if let Some(executable) = pending.filter(|_| may_wait) {
            return Late::Wait(executable);
        }
        let how = match end {
            EndReason::Complete => Walked::Completed,
            _ if self.frames.len() < raw.user.len() => return Late::Done(*raw, Walked::AsItCame),
            _ => Walked::Further,
        };
        Late::Done(RawTrace { user: &self.frames, gap_at: 0, end, stack_copy: None, ..*raw }, how)
    }
}

/// Number of frames that can be trusted where that is not all: the kernel side had not yet been told of the mapping that the
/// last of them lies in, and found its caller by the rules of what lay there before.
fn trusted(raw: &RawTrace<'_>, processes: &Follower) -> Option<usize> {
    let image = processes.known_image(raw.pid, raw.time_ns)?;
    let known_ns = image.told.known_at(raw.time_ns);
    if image.space.replaced_ns() <= known_ns {
        return None;
    }
    let is_new = |frame: &UserFrame| {
        let mapping = image.space.find(frame.code_address(), raw.time_ns);
        mapping.is_some_and(|mapping| mapping.from_ns > known_ns && mapping.from_ns <= raw.time_ns)
    };
    raw.user.iter().position(is_new).map(|at| at + 1).filter(|frames| *frames < raw.user.len())
}

/// Fills `frames`, leaf first; says why they end, and which table was waited for in vain.
fn walk(
    copy: &StackCopy,
    frames: &mut Vec<UserFrame>,
    signature_bits: u64,
    code_at: impl Fn(u64) -> Code,
) -> (EndReason, Option<Arc<Executable>>) {
    let mut registers = copy.registers;
    let mut pending = None;
    // How the current frame was found: by a rule, or by frame pointer for this reason.
    let mut approximate: Option<EndReason> = None;
    frames.clear();
    while frames.len() < limits::MAX_USER_FRAMES {
        let code = code_at(registers.pc.wrapping_sub(u64::from(registers.is_return_address)));
        if let (Code::Unmapped, Some(why)) = (&code, approximate) {
            // A frame pointer is believed only if it leads into code.
            return (why, pending);
        }
        frames.push(frame(&registers, approximate.is_some()));
        let is_guess = matches!(&code, Code::Rule(rule) if rule.is_guess());
        let (why, found) = match code {
            Code::Rule(Rule::Unknown) => (EndReason::NoRule, None),
            Code::Rule(rule) => {
                match step(Some(rule), Architecture::HOST, &registers, |address| copy.word(address)) {
                    // A zero that a guess led to is no proof of the root.
                    Ok(None) if is_guess => return (EndReason::NoRule, pending),
                    Ok(None) => return (EndReason::Complete, pending),
                    Ok(Some(caller)) if is_guess => (EndReason::NoRule, Some(caller)),
                    Ok(Some(caller)) => (EndReason::Complete, Some(caller)),
                    Err(Trouble::NoRule | Trouble::Register(_)) => return (EndReason::NoRule, pending),
                    Err(Trouble::Goroutine) => return (EndReason::UnreadableStack, pending),
                    Err(Trouble::Memory(address)) => return (unreadable(copy, address), pending),
                    Err(Trouble::NotGrowing { .. }) => return (EndReason::NotGrowing, pending),
                }
            }
            Code::TablePending(executable) => {
                pending.get_or_insert(executable);
                (EndReason::TablePending, None)
            }
            Code::WithoutTable => (EndReason::NoTable, None),
            Code::Unmapped => (EndReason::NoMapping, None),
        };
        approximate = (found.is_none() || is_guess).then_some(why);
        let caller = found.or_else(|| by_frame_pointer(&registers, copy));
        let caller = caller.map(|caller| Registers { pc: caller.pc & !signature_bits, ..caller });
        registers = match caller {
            Some(caller) if is_code_address(caller.pc) => caller,
            Some(_) if approximate.is_none() => return (EndReason::BadReturnAddress, pending),
            _ => return (why, pending),
        };
    }
    (EndReason::TooDeep, pending)
}

fn frame(registers: &Registers, approximate: bool) -> UserFrame {
    let mut word = registers.pc & (UserFrame::APPROXIMATE - 1);
    if registers.is_return_address {
        word |= UserFrame::RETURN_ADDRESS;
    }
    if approximate {
        word |= UserFrame::APPROXIMATE;
    }
    UserFrame(word)
}

fn is_code_address(pc: u64) -> bool {
    pc >= limits::LOWEST_CODE && pc >> limits::USER_BITS == 0
}

fn unreadable(copy: &StackCopy, address: u64) -> EndReason {
    if address >= copy.start + copy.bytes.len() as u64 {
        EndReason::StackCopyEnded
    } else {
        EndReason::UnreadableStack
    }
}

fn by_frame_pointer(registers: &Registers, copy: &StackCopy) -> Option<Registers> {
    let Registers { sp, fp, .. } = *registers;
    if fp < sp || fp - sp > limits::MAX_APPROXIMATE_FRAME || !fp.is_multiple_of(8) {
        return None;
    }
    let next_fp = copy.word(fp)?;
    Some(Registers {
        pc: copy.word(fp + 8)?,
        // As `caller_sp` in `bpf/regs.h`: on arm64 the record lies at the low end of the frame.
        sp: match Architecture::HOST {
            Architecture::X86_64 => fp + 16,
            Architecture::Aarch64 => next_fp.max(fp + 16),
        },
        fp: next_fp,
        all: None,
        is_return_address: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::{CfaRule, FpRule, RaRule};

    /// A stack at 0x7000: words from there on.
    fn copy(pc: u64, fp: u64, words: &[u64]) -> StackCopy {
        StackCopy {
            registers: Registers { pc, sp: 0x7000, fp, all: Some([0; 32]), is_return_address: false },
            start: 0x7000,
            bytes: words.iter().flat_map(|word| word.to_ne_bytes()).collect(),
        }
    }

    fn by_sp(offset: i32) -> Code {
        let (cfa, fp, ra) = (CfaRule::Sp(offset), FpRule::Unchanged, RaRule::AtCfa(-8));
        Code::Rule(Rule::Frame { cfa, fp, ra })
    }

    fn walked(copy: &StackCopy, code_at: impl Fn(u64) -> Code) -> (Vec<u64>, EndReason) {
        let mut frames = Vec::new();
        let (end, _) = walk(copy, &mut frames, 0, code_at);
        (frames.iter().map(|frame| frame.address()).collect(), end)
    }

    #[test]
    fn rules_lead_to_the_root() {
        let copy = copy(0x40_0010, 0, &[0, 0x40_0020, 0x40_0030]);
        let code = |address| match address {
            0x40_0010 => by_sp(16),
            0x40_001f => by_sp(8),
            _ => Code::Rule(Rule::Stop),
        };
        assert_eq!(walked(&copy, code), (vec![0x40_0010, 0x40_0020, 0x40_0030], EndReason::Complete));
    }

    #[test]
    fn signatures_are_no_part_of_an_address() {
        let copy = copy(0x40_0010, 0, &[0, 0x7f_0000_0040_0020]);
        let code = |address| if address == 0x40_0010 { by_sp(16) } else { Code::Rule(Rule::Stop) };
        let mut frames = Vec::new();
        let (end, _) = walk(&copy, &mut frames, 0x7f_0000_0000_0000, code);
        assert_eq!((frames[1].address(), end), (0x40_0020, EndReason::Complete));
    }

    #[test]
    fn copy_that_is_too_short_says_so() {
        let copy = copy(0x40_0010, 0, &[0, 0x40_0020]);
        assert_eq!(walked(&copy, |_| by_sp(16)), (vec![0x40_0010, 0x40_0020], EndReason::StackCopyEnded));
        let below = |_| by_sp(-64);
        assert_eq!(walked(&copy, below), (vec![0x40_0010], EndReason::UnreadableStack));
    }

    #[test]
    fn frame_pointers_are_followed_into_code_only() {
        // rbp at 0x7008: next rbp 0x7018, return address; there: rbp, an address outside code.
        let copy = copy(0x40_0010, 0x7008, &[0, 0x7018, 0x40_0020, 0x7018, 0x99_0000]);
        let code = |address: u64| if address >> 16 == 0x40 { Code::WithoutTable } else { Code::Unmapped };
        let mut frames = Vec::new();
        let (end, _) = walk(&copy, &mut frames, 0, code);
        assert_eq!(end, EndReason::NoTable);
        assert_eq!(frames.len(), 2);
        assert!(!frames[0].is_approximate() && frames[1].is_approximate() && frames[1].is_return_address());
        // Not a chain that grows.
        let circle = super::tests::copy(0x40_0010, 0x6ff8, &[0; 8]);
        assert_eq!(walked(&circle, |_| Code::WithoutTable), (vec![0x40_0010], EndReason::NoTable));
    }

    #[test]
    fn endless_stacks_end_at_the_limit() {
        let words = vec![0x40_0020; 4096];
        let (frames, end) = walked(&copy(0x40_0010, 0, &words), |_| by_sp(8));
        assert_eq!((frames.len(), end), (limits::MAX_USER_FRAMES, EndReason::TooDeep));
    }
}
