//! Who is right where our walk and gdb's differ, and for what reason.
//!
//! gdb is wrong at times: it knows no rule of ours for hand-written code, it gives up where two frames look alike, and
//! signed addresses puzzle it. A third witness decides: the code itself. A true return address follows a call. Where both or
//! neither hold against that, the walk counts as wrong.

use everflame::agent::bpf::UserFrame;
use everflame::unwind::Architecture;

use super::gdb::GdbThread;
use super::machine::Walk;

/// Longest call instruction of x86-64 without prefixes.
const LONGEST_CALL: u64 = 7;

/// Outcome of one comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Frame by frame the same, up to the thread's entry.
    Equal,
    /// As far as ours goes it is right; it says itself that it is not whole. The end reason.
    Cut(String),
    /// The oracle is refuted, ours is not. How.
    OracleWrong(String),
    /// Ours is wrong, or neither is refuted. How.
    Wrong(String),
}

impl Verdict {
    /// Ends at the entry and nothing speaks against it.
    pub(crate) fn is_right(&self) -> bool {
        matches!(self, Self::Equal | Self::OracleWrong(_))
    }

    /// Class for a table, without details.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Equal => "equal".to_owned(),
            Self::Cut(reason) => format!("cut: {reason}"),
            Self::OracleWrong(how) => format!("gdb refuted: {how}"),
            Self::Wrong(how) => format!("wrong: {how}"),
        }
    }
}

/// Code bytes of the process: up to so many before an address; fewer when they cannot be read.
pub(crate) type CodeBefore<'c> = &'c dyn Fn(u64, u64) -> Vec<u8>;

/// Our address list made comparable with gdb's: `None` stands for frames that were left out.
fn ours_in_full(walk: &Walk) -> Vec<Option<UserFrame>> {
    let mut frames: Vec<Option<UserFrame>> = walk.frames.iter().copied().map(Some).collect();
    if walk.skipped > 0 {
        let at = frames.len() / 2;
        frames.splice(at..at, std::iter::repeat_n(None, walk.skipped as usize));
    }
    frames
}

/// First frame in which both differ, if any.
pub(crate) fn first_difference(walk: &Walk, oracle: &GdbThread) -> Option<usize> {
    let ours = ours_in_full(walk);
    let same = |n: usize| match (ours.get(n), oracle.frames.get(n)) {
        (Some(Some(ours)), Some(theirs)) => ours.address() == theirs.pc,
        (Some(None), Some(_)) => true,
        _ => false,
    };
    (0..ours.len().max(oracle.frames.len())).find(|&n| !same(n))
}

/// Compares one thread's two stacks.
pub(crate) fn judge(walk: &Walk, oracle: &GdbThread, code: CodeBefore<'_>) -> Verdict {
    let architecture = oracle.registers.architecture;
    let is_whole = walk.end == "Complete";
    let Some(at) = first_difference(walk, oracle) else {
        return if is_whole { Verdict::Equal } else { Verdict::Cut(walk.end.clone()) };
    };
    let ours = ours_in_full(walk);
    let follows = |pc: u64| follows_call(architecture, &code(pc, LONGEST_CALL));
    // What was interrupted by a signal made no call.
    let theirs_hold =
        oracle.frames.iter().enumerate().skip(at).all(|(n, frame)| {
            n == 0 || oracle.frames[n - 1].is_signal || frame.is_signal || follows(frame.pc)
        });
    // Nobody calls an entry: Go makes up the return address of a goroutine's.
    let called = if is_whole { ours.len() - 1 } else { ours.len() };
    let mut returns = ours[..called].iter().skip(at).flatten().filter(|frame| frame.is_return_address());
    let ours_hold = returns.all(|frame| follows(frame.address()));
    if at == ours.len() {
        return match (is_whole, theirs_hold) {
            (false, _) => Verdict::Cut(walk.end.clone()),
            (true, false) => Verdict::OracleWrong("goes on behind the entry".to_owned()),
            (true, true) => Verdict::Wrong("ends before the entry, as if complete".to_owned()),
        };
    }
    if at == oracle.frames.len() {
        return match (ours_hold, is_whole) {
            (true, true) => Verdict::OracleWrong(format!("ends early, {}", oracle.stopped_by)),
            (true, false) => Verdict::Cut(walk.end.clone()),
            (false, _) => Verdict::Wrong("goes on behind gdb's end".to_owned()),
        };
    }
    match (ours_hold, theirs_hold) {
        (true, false) if is_whole => Verdict::OracleWrong("its return address follows no call".to_owned()),
        (true, true) => Verdict::Wrong("another return address, both follow a call".to_owned()),
        (true, false) => Verdict::Wrong("another return address, and not whole".to_owned()),
        (false, _) => Verdict::Wrong("return address follows no call".to_owned()),
    }
}

/// Whether these bytes end with a call (or a system call, which also returns behind itself).
pub(crate) fn follows_call(architecture: Architecture, before: &[u8]) -> bool {
    if architecture == Architecture::Aarch64 {
        let Some(last) = before.last_chunk::<4>() else { return false };
        let word = u32::from_le_bytes(*last);
        // bl; blr and its signed kin; svc.
        return word >> 26 == 0x25 || word & 0xfee0_0000 == 0xd620_0000 || word & 0xffe0_001f == 0xd400_0001;
    }
    let n = before.len();
    if n >= 5 && before[n - 5] == 0xe8 || n >= 2 && before[n - 2..] == [0x0f, 0x05] {
        return true;
    }
    // ff /2: call through a register or memory; its length follows from the second byte.
    (2..=n.min(LONGEST_CALL as usize)).any(|length| {
        let call = &before[n - length..];
        let (mode, register, base) = (call[1] >> 6, call[1] >> 3 & 7, call[1] & 7);
        let index = usize::from(mode != 3 && base == 4);
        let displacement = match mode {
            0 if base == 5 || index == 1 && call.get(2).is_some_and(|sib| sib & 7 == 5) => 4,
            1 => 1,
            2 => 4,
            _ => 0,
        };
        call[0] == 0xff && register == 2 && length == 2 + index + displacement
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_recognised_by_their_bytes() {
        let x86 = |bytes: &[u8]| follows_call(Architecture::X86_64, bytes);
        for call in [
            &[0x90, 0x90, 0xe8, 1, 2, 3, 4][..],
            &[0x90, 0xff, 0xd0],
            &[0x90, 0xff, 0x15, 1, 2, 3, 4],
            &[0xff, 0x14, 0xc5, 1, 2, 3, 4],
            &[0x41, 0xff, 0x54, 0x24, 0x08],
            &[0xff, 0x94, 0x24, 1, 2, 3, 4],
            &[0xff, 0x50, 0x18],
        ] {
            assert!(x86(call), "{call:x?}");
        }
        for other in [&[0x90; 7][..], &[0x48, 0x89, 0xe5], &[0xff, 0xe0], &[], &[0xff, 0x75, 0x08]] {
            assert!(!x86(other), "{other:x?}");
        }
        let arm = |word: u32| follows_call(Architecture::Aarch64, &word.to_le_bytes());
        assert!(arm(0x9400_0010) && arm(0xd63f_0020) && arm(0xd73f_0801) && arm(0xd400_0001));
        assert!(!arm(0xd65f_03c0) && !arm(0x1400_0010) && !arm(0xd503_201f));
    }
}
