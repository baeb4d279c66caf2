//! Rules for code that nothing describes, read off its instructions.
//!
//! Hand-written loops of codecs and cryptography, C libraries and whole programs built without call frame information:
//! the code itself shows how far the stack pointer has moved. Instructions are walked in the order of addresses and along
//! branches, with what is known at each of them: distance to the caller's frame, and where the frame pointer went.
//! Where functions begin is guessed (alignment, what follows a return), so all rules found here are marked as guesses.
//!
//! Code is looked at group by group: up to a place where one function has ended and no branch leads beyond. Work is
//! linear in the size of the code, memory is bounded by [`GROUP_BYTES`].

use std::collections::HashMap;

use super::instructions::{Effect, Instruction, Register};
use super::rows::{CfaRule, FpRule, RaRule, Rule};
use super::{Architecture, aarch64, x86_64};

/// Code that is looked at together. Unrolled transforms reach 40 KiB.
const GROUP_BYTES: usize = 1 << 17;

/// Times that a group is walked at most: what comes from branches back is known in the second round.
const MAX_ROUNDS: u32 = 4;

/// Functions begin at multiples of this.
const ALIGNMENT: u64 = 16;

/// A branch that leads farther forward leaves its function.
const MAX_BRANCH: usize = 1 << 16;

/// A jump without condition that leads farther forward does so.
const MAX_JUMP: usize = 1 << 12;

/// Largest frame that is believed.
const MAX_FRAME: i32 = 1 << 24;

impl Architecture {
    fn decode(self, code: &[u8]) -> Option<Instruction> {
        match self {
            Self::X86_64 => x86_64::decode(code),
            Self::Aarch64 => aarch64::decode(code),
        }
    }

    fn frame_pointer(self) -> Register {
        match self {
            Self::X86_64 => x86_64::FRAME_POINTER,
            Self::Aarch64 => aarch64::FRAME_POINTER,
        }
    }

    fn dwarf_number(self, register: Register) -> u8 {
        match self {
            Self::X86_64 => x86_64::dwarf_number(register),
            Self::Aarch64 => register,
        }
    }
}

/// Where a register of the caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Saved {
    /// Still in the register.
    No,
    /// At CFA + offset.
    At(i32),
    Lost,
}

/// What is known before an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    /// CFA = sp + depth.
    depth: Option<i32>,
    /// CFA = register + offset.
    base: Option<(Register, i32)>,
    /// CFA = `[sp + offset]` + add.
    slot: Option<(i32, i32)>,
    fp: Saved,
    ra: Saved,
    /// Rests on a guess about where control comes from.
    is_weak: bool,
}

impl State {
    fn at_entry(architecture: Architecture, is_weak: bool) -> Self {
        let (depth, ra) = match architecture {
            Architecture::X86_64 => (8, Saved::At(-8)),
            Architecture::Aarch64 => (0, Saved::No),
        };
        Self { depth: Some(depth), base: None, slot: None, fp: Saved::No, ra, is_weak }
    }

    fn rule(&self, architecture: Architecture) -> Rule {
        let cfa = match *self {
            // Surer than a distance that was counted: arguments may be pushed in a loop.
            Self { base: Some((register, offset)), .. } if register == architecture.frame_pointer() => {
                CfaRule::Fp(offset)
            }
            Self { depth: Some(depth), .. } => CfaRule::Sp(depth),
            Self { slot: Some((offset, add)), .. } => CfaRule::DerefSp { offset, add },
            Self { base: Some((register, offset)), .. } => {
                CfaRule::Register { register: architecture.dwarf_number(register), offset }
            }
            _ => return Rule::Unknown,
        };
        let fp = match self.fp {
            Saved::No => FpRule::Unchanged,
            Saved::At(offset) => FpRule::AtCfa(offset),
            Saved::Lost => FpRule::Unknown,
        };
        let ra = match self.ra {
            Saved::No => RaRule::LinkRegister,
            Saved::At(offset) => RaRule::AtCfa(offset),
            Saved::Lost => return Rule::Unknown,
        };
        Rule::Guess { cfa, fp, ra }
    }

    /// Adds to the stack pointer.
    fn move_sp(&mut self, by: i32) {
        let moved = |value: i32| value.checked_sub(by).filter(|value| value.abs() < MAX_FRAME);
        self.depth = self.depth.and_then(moved).filter(|&depth| depth >= 0);
        self.slot = self.slot.and_then(|(offset, add)| Some((moved(offset)?, add)));
    }

    fn write(&mut self, register: Register, architecture: Architecture) {
        if self.base.is_some_and(|(base, _)| base == register) {
            self.base = None;
        }
        if register == architecture.frame_pointer() && self.fp == Saved::No {
            self.fp = Saved::Lost;
        }
        if architecture == Architecture::Aarch64 && register == aarch64::LINK_REGISTER && self.ra == Saved::No
        {
            self.ra = Saved::Lost;
        }
    }

    /// `register` is stored at sp + offset.
    fn store(&mut self, register: Register, offset: i32, architecture: Architecture) {
        if let Some((base, add)) = self.base
            && base == register
            && self.depth.is_none()
        {
            self.slot = Some((offset, add));
        }
        let at = self.depth.and_then(|depth| offset.checked_sub(depth));
        if register == architecture.frame_pointer() && self.fp == Saved::No && self.base_is_not(register) {
            self.fp = at.map_or(self.fp, Saved::At);
        }
        if architecture == Architecture::Aarch64 && register == aarch64::LINK_REGISTER && self.ra == Saved::No
        {
            self.ra = at.map_or(self.ra, Saved::At);
        }
    }

    fn base_is_not(&self, register: Register) -> bool {
        self.base.is_none_or(|(base, _)| base != register)
    }

    /// `register` is read from sp + offset.
    fn load(&mut self, register: Register, offset: i32, architecture: Architecture) {
        let at = self.depth.and_then(|depth| offset.checked_sub(depth));
        let restored = |saved: Saved| matches!(saved, Saved::At(place) if Some(place) == at);
        let (from_fp, from_ra) = (restored(self.fp), restored(self.ra));
        self.write(register, architecture);
        if register == architecture.frame_pointer() && from_fp {
            self.fp = Saved::No;
        }
        if architecture == Architecture::Aarch64 && register == aarch64::LINK_REGISTER && from_ra {
            self.ra = Saved::No;
        }
        if let Some((slot, add)) = self.slot
            && slot == offset
        {
            self.base = Some((register, add));
        }
    }

    /// Applies one instruction.
    fn apply(&mut self, effect: Effect, architecture: Architecture) {
        match effect {
            Effect::Push(register) => {
                if let Some(register) = register {
                    self.store(register, -8, architecture);
                }
                self.move_sp(-8);
            }
            Effect::Pop(register) => {
                if let Some(register) = register {
                    self.load(register, 0, architecture);
                    // Whatever was there: at the end of a function it is the caller's.
                    if register == architecture.frame_pointer() {
                        self.fp = Saved::No;
                    }
                }
                self.move_sp(8);
            }
            Effect::MoveSp(by) => self.move_sp(by),
            Effect::LoseSp => {
                self.depth = None;
                self.slot = None;
            }
            Effect::CopySp(register, offset) => {
                self.write(register, architecture);
                // A frame pointer stays what it is when the stack pointer is copied elsewhere too, to be compared or kept.
                if let Some(depth) = self.depth
                    && self.base.is_none_or(|(base, _)| base != architecture.frame_pointer())
                {
                    self.base = depth.checked_sub(offset).map(|offset| (register, offset));
                }
            }
            Effect::SetSp(register, offset) => {
                self.depth = self
                    .base
                    .filter(|(base, _)| *base == register)
                    .and_then(|(_, add)| add.checked_sub(offset))
                    .filter(|depth| (0..MAX_FRAME).contains(depth));
                self.slot = None;
            }
            Effect::LoadSp(offset) => {
                self.depth = self.slot.filter(|(slot, _)| *slot == offset).map(|(_, add)| add);
                self.slot = None;
            }
            Effect::Store { first, second, offset, moved } => {
                self.store(first, offset, architecture);
                if let Some(second) = second {
                    self.store(second, offset + 8, architecture);
                }
                self.move_sp(moved);
            }
            Effect::Load { first, second, offset, moved } => {
                self.load(first, offset, architecture);
                if let Some(second) = second {
                    self.load(second, offset + 8, architecture);
                }
                self.move_sp(moved);
            }
            Effect::Write(register) => self.write(register, architecture),
            Effect::Leave => {
                self.apply(Effect::SetSp(x86_64::FRAME_POINTER, 0), architecture);
                self.apply(Effect::Pop(Some(x86_64::FRAME_POINTER)), architecture);
            }
            Effect::Call(_) if architecture == Architecture::Aarch64 => {
                self.write(aarch64::LINK_REGISTER, architecture);
            }
            _ => {}
        }
    }

    /// Two ways meet: the surer one wins; of two equally sure ones the first, less what they disagree about.
    fn meet(self, other: Self) -> Self {
        match (self.is_weak, other.is_weak) {
            (true, false) => other,
            (false, true) => self,
            _ => Self {
                base: self.base.filter(|_| self.base == other.base),
                slot: self.slot.filter(|_| self.slot == other.slot),
                ..self
            },
        }
    }
}

/// Whether an instruction gives stack back, as a function does before it returns.
fn is_release(effect: Effect) -> bool {
    match effect {
        Effect::Pop(_) | Effect::Leave | Effect::LoadSp(_) | Effect::SetSp(..) | Effect::Load { .. } => true,
        Effect::MoveSp(by) => by > 0,
        _ => false,
    }
}

/// How the walk came to an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// By the one before it.
    Fall,
    /// The same, which was a call: it may never return.
    Call,
    /// There is no way from the one before it.
    End,
    /// The one before jumps to where a table says: this may be one of the places.
    Switch,
    /// Bytes that are no instruction.
    Junk,
}

/// Walks code and finds rules.
#[derive(Debug)]
struct Walk<'a> {
    code: &'a [u8],
    /// ELF address of the code.
    address: u64,
    architecture: Architecture,
    called: Places,
    /// Places that some branch leads to: the keys of `targets`, and some of earlier groups.
    reached: Places,
    /// What branches say about their targets.
    targets: HashMap<u32, State>,
    /// Rows of the group.
    rows: Vec<(u32, Rule)>,
    /// What was known where the group was cut off, and how it began itself.
    resumed: Option<State>,
    begun: Option<State>,
    /// Whether the last round learnt something about code it had passed.
    learnt: bool,
}

/// A set of places in code.
#[derive(Debug)]
struct Places(Vec<u64>);

impl Places {
    fn none_in(len: usize) -> Self {
        Self(vec![0; len.div_ceil(64)])
    }

    fn add(&mut self, at: usize) {
        if let Some(word) = self.0.get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }

    fn contains(&self, at: usize) -> bool {
        self.0.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }
}

/// Places that some instruction of the same code calls: there functions begin.
fn called(code: &[u8], architecture: Architecture) -> Places {
    let mut called = Places::none_in(code.len());
    let mut at = 0;
    while at < code.len() {
        let Some(Instruction { len, effect }) = architecture.decode(&code[at..]) else {
            at += 4;
            continue;
        };
        at += usize::from(len);
        if let Effect::Call(Some(distance)) = effect
            && distance != 0
            && let Some(target) = (at as i64).checked_add(distance).and_then(|to| usize::try_from(to).ok())
        {
            called.add(target);
        }
    }
    called
}

/// Gives the rules of `code`, which lies at `address`, by offset in it. The last one holds up to the end.
pub(super) fn rows(code: &[u8], address: u64, architecture: Architecture, mut row: impl FnMut(u32, Rule)) {
    let code = code.get(..u32::MAX as usize).unwrap_or(code);
    let mut walk = Walk {
        code,
        address,
        architecture,
        called: called(code, architecture),
        reached: Places::none_in(code.len()),
        targets: HashMap::new(),
        rows: Vec::new(),
        resumed: None,
        begun: None,
        learnt: false,
    };
    let mut at = 0;
    while at < code.len() {
        walk.targets.clear();
        let end = walk.round(at, None);
        for _ in 1..MAX_ROUNDS {
            if !walk.learnt {
                break;
            }
            walk.round(at, Some(end));
        }
        for &(offset, rule) in &walk.rows {
            row(offset, rule);
        }
        walk.begun = walk.resumed;
        at = end.max(at + 1);
    }
}

impl Walk<'_> {
    fn is_aligned(&self, at: usize) -> bool {
        self.address.wrapping_add(at as u64).is_multiple_of(ALIGNMENT)
    }

    /// Whether functions begin so.
    fn begins(&self, at: usize) -> bool {
        match self.architecture {
            Architecture::X86_64 => x86_64::is_beginning(&self.code[at..]),
            Architecture::Aarch64 => aarch64::is_beginning(&self.code[at..]),
        }
    }

    /// Walks from `start` to `end`, or to where a group ends; returns that.
    fn round(&mut self, start: usize, end: Option<usize>) -> usize {
        let limit = end.unwrap_or_else(|| self.code.len().min(start + GROUP_BYTES));
        let entry = |is_weak| State::at_entry(self.architecture, is_weak);
        let (surely, maybe) = (entry(false), entry(true));
        self.rows.clear();
        self.learnt = false;
        let mut at = start;
        let mut state = self.begun.unwrap_or(surely);
        let mut body = state;
        let mut before = Before::Fall;
        let mut is_padded = false;
        let mut farthest = 0;
        let (mut has_returned, mut has_switched) = (false, false);
        while at < limit {
            let Some(Instruction { len, effect }) = self.architecture.decode(&self.code[at..]) else {
                self.push(at, Rule::Unknown);
                let address = self.address.wrapping_add(at as u64);
                at += (ALIGNMENT - address % ALIGNMENT) as usize;
                (before, is_padded) = (Before::Junk, false);
                continue;
            };
            let next = at + usize::from(len);
            let is_filler = effect == Effect::Padding || effect == Effect::Halt;
            // Most places are no target: the bit is asked first.
            let known =
                if self.reached.contains(at) { self.targets.get(&(at as u32)).copied() } else { None };
            if is_filler && known.is_none() && before != Before::Fall {
                is_padded = true;
                at = next;
                continue;
            }
            let is_called = self.called.contains(at);
            let looks_like_one = self.begins(at);
            // A call that never returns may be all that ends a function.
            let nothing_pends = has_returned && at >= farthest;
            let follows_last_call = before == Before::Call
                && self.is_aligned(at)
                && known.is_none_or(|known| known.depth == surely.depth)
                && match (is_padded, looks_like_one) {
                    (true, true) => true,
                    (true, false) | (false, true) => nothing_pends,
                    (false, false) => false,
                };
            let begins = is_called || follows_last_call;
            let falls = matches!(before, Before::Fall | Before::Call) && !begins;
            // Behind a jump through a table there may be more of the function than branches tell.
            let may_go_on = has_switched && body.depth != maybe.depth && !looks_like_one;
            let is_over = !falls
                && at > start
                && at >= farthest
                && (is_called || follows_last_call || (before != Before::Switch && !may_go_on));
            if is_over && end.is_none() {
                self.resumed = None;
                return at;
            }
            state = match known {
                _ if is_called => surely,
                Some(known) if falls => state.meet(known),
                Some(known) if !known.is_weak => known,
                _ if falls => state,
                _ if before == Before::Switch => State { is_weak: true, ..body },
                Some(known) => known,
                None if is_over || (is_padded && !may_go_on) => maybe,
                None => State { is_weak: true, ..body },
            };
            is_padded = false;
            self.push(at, state.rule(self.architecture));
            if !is_release(effect) && effect != Effect::Return {
                body = state;
            }
            state.apply(effect, self.architecture);
            if let Effect::Jump(Some(distance)) | Effect::Branch(distance) = effect {
                let target = (next as i64).checked_add(distance).and_then(|to| usize::try_from(to).ok());
                if let Some(target) = target.filter(|&target| target >= start && target < limit) {
                    let reach = if matches!(effect, Effect::Jump(_)) { MAX_JUMP } else { MAX_BRANCH };
                    if target > at && target - at <= reach {
                        farthest = farthest.max(target + 1);
                    }
                    self.learn(target, state, at);
                }
            }
            before = match effect {
                Effect::Return | Effect::Halt | Effect::Jump(Some(_)) => Before::End,
                Effect::Jump(None) => Before::Switch,
                Effect::Call(_) => Before::Call,
                _ => Before::Fall,
            };
            has_returned |= effect == Effect::Return;
            has_switched |= effect == Effect::Jump(None);
            at = next;
        }
        if end.is_none() || self.resumed.is_some() {
            self.resumed = Some(state);
        }
        at
    }

    /// A branch at `from` leads to `target` with this state.
    fn learn(&mut self, target: usize, state: State, from: usize) {
        let known = self.targets.get(&(target as u32)).copied();
        let met = known.map_or(state, |known| known.meet(state));
        if known != Some(met) {
            self.targets.insert(target as u32, met);
            self.reached.add(target);
            self.learnt |= target <= from;
        }
    }

    fn push(&mut self, at: usize, rule: Rule) {
        if self.rows.last().is_none_or(|(_, last)| *last != rule) {
            self.rows.push((at as u32, rule));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::rows;
    use crate::unwind::{Architecture, CfaRule, FpRule, RaRule, Rule};

    fn x86(code: &[u8]) -> Vec<(u32, CfaRule, FpRule)> {
        let mut found = Vec::new();
        rows(code, 0x1000, Architecture::X86_64, |at, rule| match rule {
            Rule::Guess { cfa, fp, ra: RaRule::AtCfa(-8) } => {
                // As the table does with neighbours that say the same.
                if found.last().is_none_or(|&(_, last_cfa, last_fp)| (last_cfa, last_fp) != (cfa, fp)) {
                    found.push((at, cfa, fp));
                }
            }
            other => panic!("{other:?} at {at:#x}"),
        });
        found
    }

    const SAME: FpRule = FpRule::Unchanged;

    #[test]
    fn follows_pushes_pops_and_a_branch_over_a_return() {
        // push rbx; push rbp; test; je +3; pop rbp; pop rbx; ret; nop; pop rbp; pop rbx; ret
        let found = x86(b"\x53\x55\x85\xc0\x74\x03\x5d\x5b\xc3\x90\x5d\x5b\xc3");
        let saved = FpRule::AtCfa(-24);
        let body = CfaRule::Sp(24);
        assert_eq!(found[..3], [(0, CfaRule::Sp(8), SAME), (1, CfaRule::Sp(16), SAME), (2, body, saved)]);
        assert_eq!(found[3..5], [(7, CfaRule::Sp(16), SAME), (8, CfaRule::Sp(8), SAME)]);
        // The branch leads to the nop: behind the return the frame is there again.
        assert!(found.iter().any(|row| row.0 >= 9 && row.1 == body), "{found:?}");
    }

    #[test]
    fn follows_an_aligned_stack_through_the_word_that_keeps_the_old_one() {
        // mov rax, rsp; and rsp, -32; sub rsp, 64; mov [rsp + 56], rax; nop; mov rsp, [rsp + 56]; ret
        let found = x86(
            b"\x48\x89\xe0\x48\x83\xe4\xe0\x48\x83\xec\x40\x48\x89\x44\x24\x38\x90\x48\x8b\x64\x24\x38\xc3",
        );
        let rax = CfaRule::Register { register: 0, offset: 8 };
        let memory = CfaRule::DerefSp { offset: 56, add: 8 };
        let expected =
            [(0, CfaRule::Sp(8), SAME), (7, rax, SAME), (16, memory, SAME), (22, CfaRule::Sp(8), SAME)];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_function_begins_behind_another_one_that_is_over() {
        // push rbx; sub rsp, 16; add rsp, 16; pop rbx; ret; padding to 16; ret
        let mut code = b"\x53\x48\x83\xec\x10\x48\x83\xc4\x10\x5b\xc3".to_vec();
        code.resize(16, 0xcc);
        code.push(0xc3);
        let found = x86(&code);
        assert_eq!(found.last(), Some(&(10, CfaRule::Sp(8), SAME)));
        // Without the epilogue it is a call that never returns.
        let mut code = b"\x53\xe8\0\x01\0\0".to_vec();
        code.resize(16, 0x90);
        code.extend_from_slice(b"\x55\x5d\xc3");
        assert!(x86(&code).contains(&(16, CfaRule::Sp(8), SAME)));
    }

    #[test]
    fn what_is_no_instruction_has_no_rule() {
        let mut code = vec![0xc3];
        code.resize(64, 0);
        code.push(0xc3);
        let mut found = Vec::new();
        rows(&code, 0, Architecture::X86_64, |at, rule| found.push((at, rule)));
        assert!(matches!(found[0], (0, Rule::Guess { .. })));
        assert_eq!(found[1], (1, Rule::Unknown));
        assert!(matches!(found.last(), Some((64, Rule::Guess { .. }))));
    }

    #[test]
    fn follows_arm64_frames() {
        // stp x29, x30, [sp, -32]!; mov x29, sp; bl; ldp x29, x30, [sp], 32; ret
        let code: Vec<u8> = [0xa9be_7bfd_u32, 0x9100_03fd, 0x9400_0100, 0xa8c2_7bfd, 0xd65f_03c0]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        let mut found = Vec::new();
        rows(&code, 0, Architecture::Aarch64, |at, rule| found.push((at, rule)));
        let leaf = Rule::Guess { cfa: CfaRule::Sp(0), fp: SAME, ra: RaRule::LinkRegister };
        let framed = Rule::Guess { cfa: CfaRule::Sp(32), fp: FpRule::AtCfa(-32), ra: RaRule::AtCfa(-24) };
        let by_pointer = Rule::Guess { cfa: CfaRule::Fp(32), fp: FpRule::AtCfa(-32), ra: RaRule::AtCfa(-24) };
        assert_eq!(found, [(0, leaf), (4, framed), (8, by_pointer), (16, leaf)]);
    }

    /// As the kernel's code page has them, which nothing describes: no frame, several ends, a system call as last resort.
    #[test]
    fn follows_arm64_leaves_with_signed_return_addresses() {
        // paciasp; cmp w0, 15; b.hi last; ldr w7, [x3]; tbnz w7, 0, waits; add x4, sp, x4; mov w0, 0; autiasp; ret;
        // last: mov x8, 113; svc 0; autiasp; ret; waits: yield; b back
        let words = [
            0xd503_233f_u32,
            0x7100_3c1f,
            0x5400_00e8,
            0xb940_0067,
            0x3700_0127,
            0x8b24_63e4,
            0x5280_0000,
            0xd503_23bf,
            0xd65f_03c0,
            0xd280_0e28,
            0xd400_0001,
            0xd503_23bf,
            0xd65f_03c0,
            0xd503_203f,
            0x17ff_fff5,
        ];
        let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut found = Vec::new();
        rows(&code, 0x2d0, Architecture::Aarch64, |at, rule| found.push((at, rule)));
        let leaf = Rule::Guess { cfa: CfaRule::Sp(0), fp: SAME, ra: RaRule::LinkRegister };
        assert_eq!(found, [(0, leaf)]);
    }

    #[test]
    fn frame_pointer_is_surer_than_counted_pushes() {
        // push rbp; mov rbp, rsp; mov r10, rsp; push [rbx] in a loop; call; mov rsp, rbp; pop rbp; ret
        let code = [
            0x55, 0x48, 0x89, 0xe5, 0x49, 0x89, 0xe2, 0xff, 0x33, 0x48, 0xff, 0xc9, 0x7d, 0xf9, 0xe8, 0, 1,
            0, 0, 0x48, 0x89, 0xec, 0x5d, 0xc3,
        ];
        let mut found = Vec::new();
        rows(&code, 0, Architecture::X86_64, |at, rule| found.push((at, rule)));
        let at = |address: u32| found.iter().rev().find(|(at, _)| *at <= address).map(|(_, rule)| *rule);
        let pushed = Rule::Guess { cfa: CfaRule::Fp(16), fp: FpRule::AtCfa(-16), ra: RaRule::AtCfa(-8) };
        for address in [4, 7, 9, 14, 18, 19, 22] {
            assert_eq!(at(address), Some(pushed), "{address}");
        }
        let entry = Rule::Guess { cfa: CfaRule::Sp(8), fp: SAME, ra: RaRule::AtCfa(-8) };
        assert_eq!((at(0), at(23)), (Some(entry), Some(entry)));
    }
}
