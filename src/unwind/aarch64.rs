//! arm64 instructions: what they do to stack, frame pointer and link register.

use super::instructions::{Effect, Instruction, Register};

const SP: u32 = 31;
/// The frame pointer.
pub(super) const FRAME_POINTER: Register = 29;
/// The link register.
pub(super) const LINK_REGISTER: Register = 30;

/// Bits `from..from + count` as a signed number.
fn signed(word: u32, from: u32, count: u32) -> i32 {
    ((word << (32 - from - count)) as i32) >> (32 - count)
}

/// Target of a branch whose distance in words stands in these bits, from the end of the instruction.
fn distance(word: u32, from: u32, count: u32) -> i64 {
    i64::from(signed(word, from, count)) * 4 - 4
}

/// Decodes the instruction that `code` starts with; `None` when it is cut off or permanently undefined.
pub(super) fn decode(code: &[u8]) -> Option<Instruction> {
    let word = u32::from_le_bytes(code.get(..4)?.try_into().ok()?);
    // The first 64 Ki words are undefined for good.
    (word >> 16 != 0).then(|| Instruction { len: 4, effect: effect(word) })
}

fn effect(word: u32) -> Effect {
    let (rd, rn, rt2) = (word & 31, word >> 5 & 31, word >> 10 & 31);
    if word == 0xd503_201f {
        return Effect::Padding;
    }
    if word & 0xfc00_0000 == 0x1400_0000 {
        return Effect::Jump(Some(distance(word, 0, 26)));
    }
    if word & 0xfc00_0000 == 0x9400_0000 {
        return Effect::Call(Some(distance(word, 0, 26)));
    }
    // b.cond; cbz, cbnz; tbz, tbnz
    if word & 0xff00_0000 == 0x5400_0000 || word & 0x7e00_0000 == 0x3400_0000 {
        return Effect::Branch(distance(word, 5, 19));
    }
    if word & 0x7e00_0000 == 0x3600_0000 {
        return Effect::Branch(distance(word, 5, 14));
    }
    // br, blr, ret and their forms that check signatures
    if word & 0xfe00_0000 == 0xd600_0000 {
        return match word >> 21 & 7 {
            0 => Effect::Jump(None),
            1 => Effect::Call(None),
            _ => Effect::Return,
        };
    }
    if word & 0xffe0_001f == 0xd420_0000 {
        return Effect::Halt;
    }
    adds_immediate(word, rd, rn)
        .or_else(|| pair(word, rd, rn, rt2))
        .or_else(|| single(word, rd, rn))
        .unwrap_or_else(|| other(word, rd))
}

/// `add` and `sub` with a constant, `mov` to and from the stack pointer.
fn adds_immediate(word: u32, rd: u32, rn: u32) -> Option<Effect> {
    let sign = match word & 0xff80_0000 {
        0x9100_0000 => 1,
        0xd100_0000 => -1,
        _ => return None,
    };
    let immediate = (word >> 10 & 0xfff) << if word & 1 << 22 == 0 { 0 } else { 12 };
    let offset = immediate as i32 * sign;
    Some(match (rd, rn) {
        (SP, SP) => Effect::MoveSp(offset),
        (SP, _) => Effect::SetSp(rn as Register, offset),
        (_, SP) => Effect::CopySp(rd as Register, offset),
        _ => Effect::Write(rd as Register),
    })
}

/// `stp` and `ldp` through the stack pointer, of general and vector registers.
fn pair(word: u32, rt: u32, rn: u32, rt2: u32) -> Option<Effect> {
    if word & 0x3a00_0000 != 0x2800_0000 {
        return None;
    }
    let is_vector = word & 1 << 26 != 0;
    let size = match (word >> 30, is_vector) {
        (0b10, false) | (0b01, true) => 8,
        (0b10, true) => 16,
        _ => 4,
    };
    if rn != SP {
        let is_load = word & 1 << 22 != 0 && !is_vector;
        let loaded = [rt, rt2].into_iter().find(|&register| register == u32::from(FRAME_POINTER));
        return Some(loaded.filter(|_| is_load).map_or(Effect::None, |_| Effect::Write(FRAME_POINTER)));
    }
    let immediate = signed(word, 15, 7) * size;
    let (offset, moved) = match word >> 23 & 3 {
        1 => (0, immediate),         // post-indexed
        3 => (immediate, immediate), // pre-indexed
        _ => (immediate, 0),
    };
    // Only whole general registers are of interest; of others the movement counts.
    if is_vector || size != 8 {
        return Some(if moved == 0 { Effect::None } else { Effect::MoveSp(moved) });
    }
    let (first, second) = (rt as Register, Some(rt2 as Register));
    Some(if word & 1 << 22 == 0 {
        Effect::Store { first, second, offset, moved }
    } else {
        Effect::Load { first, second, offset, moved }
    })
}

/// `str` and `ldr` of one general or vector register through the stack pointer.
fn single(word: u32, rt: u32, rn: u32) -> Option<Effect> {
    let is_load = word & 1 << 22 != 0;
    let (offset, moved, is_general) = match (word & 0xffa0_0c00, word & 0xff80_0000) {
        (0xf800_0400, _) => (0, signed(word, 12, 9), true),
        (0xf800_0c00, _) => (signed(word, 12, 9), signed(word, 12, 9), true),
        (_, 0xf900_0000) => ((word >> 10 & 0xfff) as i32 * 8, 0, true),
        // Vector registers of any size.
        _ if word & 0x3f20_0400 == 0x3c00_0400 => (0, signed(word, 12, 9), false),
        _ => return None,
    };
    let first = rt as Register;
    Some(match (rn == SP, is_general, is_load) {
        (true, true, false) => Effect::Store { first, second: None, offset, moved },
        (true, true, true) => Effect::Load { first, second: None, offset, moved },
        (true, false, _) => Effect::MoveSp(moved),
        (false, true, true) => Effect::Write(first),
        (false, ..) => Effect::None,
    })
}

/// Data processing: what writes the stack pointer or the frame pointer.
fn other(word: u32, rd: u32) -> Effect {
    let is_immediate = word >> 26 & 7 == 0b100;
    let is_register = word >> 25 & 7 == 0b101;
    // and sp, x, mask; add and sub sp, sp, x
    let writes_sp = word & 0xff80_0000 == 0x9200_0000 || word & 0xbfe0_0000 == 0x8b20_0000;
    if rd == SP && writes_sp {
        return Effect::LoseSp;
    }
    if (is_immediate || is_register) && rd != SP { Effect::Write(rd as Register) } else { Effect::None }
}

/// Whether functions begin so: branch target mark, signed return address, registers saved below the stack pointer.
pub(super) fn is_beginning(code: &[u8]) -> bool {
    let Some(word) = code.get(..4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
    else {
        return false;
    };
    // bti c, paciasp, pacibsp
    matches!(word, 0xd503_245f | 0xd503_233f | 0xd503_237f)
        || matches!(effect(word), Effect::Store { moved: i32::MIN..0, .. } | Effect::MoveSp(i32::MIN..0))
}

#[cfg(test)]
mod tests {
    use super::{decode, is_beginning};
    use crate::unwind::instructions::Effect;

    fn effect(word: u32) -> Effect {
        decode(&word.to_le_bytes()).unwrap().effect
    }

    #[test]
    fn knows_what_builds_and_removes_frames() {
        let pair = |offset, moved| Effect::Store { first: 29, second: Some(30), offset, moved };
        assert_eq!(effect(0xa9be_7bfd), pair(-32, -32)); // stp x29, x30, [sp, -32]!
        assert_eq!(effect(0xa901_7bfd), pair(16, 0)); // stp x29, x30, [sp, 16]
        let back = Effect::Load { first: 29, second: Some(30), offset: 0, moved: 32 };
        assert_eq!(effect(0xa8c2_7bfd), back); // ldp x29, x30, [sp], 32
        let one = Effect::Store { first: 30, second: None, offset: -16, moved: -16 };
        assert_eq!(effect(0xf81f_0ffe), one); // str x30, [sp, -16]!
        assert_eq!(effect(0xd100_83ff), Effect::MoveSp(-32)); // sub sp, sp, 32
        assert_eq!(effect(0x9140_07ff), Effect::MoveSp(4096)); // add sp, sp, 1, lsl 12
        assert_eq!(effect(0x9100_03fd), Effect::CopySp(29, 0)); // mov x29, sp
        assert_eq!(effect(0x9100_03bf), Effect::SetSp(29, 0)); // mov sp, x29
        assert_eq!(effect(0xcb20_63ff), Effect::LoseSp); // sub sp, sp, x0
        assert_eq!(effect(0x6dbe_27e8), Effect::MoveSp(-32)); // stp d8, d9, [sp, -32]!
    }

    #[test]
    fn knows_where_control_goes() {
        assert_eq!(effect(0xd65f_03c0), Effect::Return);
        assert_eq!(effect(0xd65f_0bff), Effect::Return); // retaa
        assert_eq!(effect(0xd61f_0200), Effect::Jump(None)); // br x16
        assert_eq!(effect(0xd63f_0020), Effect::Call(None)); // blr x1
        assert_eq!(effect(0x1400_0002), Effect::Jump(Some(4)));
        assert_eq!(effect(0x97ff_ffff), Effect::Call(Some(-8)));
        assert_eq!(effect(0x5400_0040), Effect::Branch(4)); // b.eq
        assert_eq!(effect(0xb400_0040), Effect::Branch(4)); // cbz
        assert_eq!(effect(0x3607_ffe0), Effect::Branch(-8)); // tbz
        assert_eq!(effect(0xd420_0000), Effect::Halt);
        assert_eq!(decode(&[0; 4]), None);
        assert_eq!(decode(&[0; 3]), None);
        assert!(is_beginning(&0xd503_233f_u32.to_le_bytes()) && is_beginning(&0xa9be_7bfd_u32.to_le_bytes()));
    }
}
