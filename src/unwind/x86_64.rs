//! x86-64 instructions: their length, and what they do to the stack.
//!
//! Lengths of everything up to AVX-512, AVX10 and AMD's XOP, since hand-written loops are full of them; effects of the
//! few instructions that build, move and remove frames. Not a disassembler.

use super::instructions::{Effect, Instruction, Register};
use super::reader::Reader;

const RSP: Register = 4;
const RBP: Register = 5;

/// Longest instruction there is.
const MAX_LEN: usize = 15;

/// Opcode maps by the number that VEX, EVEX and XOP prefixes give them.
mod map {
    pub(super) const ONE_BYTE: u8 = 0;
    pub(super) const TWO_BYTES: u8 = 1;
    pub(super) const THREE_BYTES_38: u8 = 2;
    pub(super) const THREE_BYTES_3A: u8 = 3;
    /// Half-precision numbers.
    pub(super) const EVEX_5: u8 = 5;
    pub(super) const EVEX_6: u8 = 6;
    pub(super) const XOP_8: u8 = 8;
    pub(super) const XOP_9: u8 = 9;
    pub(super) const XOP_A: u8 = 10;
}

/// The prefix was VEX, EVEX or XOP.
const VECTOR: u8 = 16;

/// What stands in front of the opcode.
#[derive(Clone, Copy, Debug, Default)]
struct Prefixes {
    operand_16: bool,
    address_32: bool,
    repeat: bool,
    /// Bits W, R, X, B, and [`VECTOR`].
    rex: u8,
}

impl Prefixes {
    fn is_vector(self) -> bool {
        self.rex & VECTOR != 0
    }

    fn is_wide(self) -> bool {
        self.rex & 8 != 0
    }

    /// Register number with its high bit from the prefix.
    fn reg(self, modrm: u8) -> Register {
        modrm >> 3 & 7 | (self.rex & 4) << 1
    }

    fn rm(self, modrm: u8) -> Register {
        modrm & 7 | (self.rex & 1) << 3
    }

    /// Immediate of the operand's size: 2 or 4 bytes.
    fn immediate(self) -> u64 {
        if self.operand_16 { 2 } else { 4 }
    }
}

/// The operand that a ModRM byte describes.
#[derive(Clone, Copy, Debug)]
struct Operand {
    modrm: u8,
    /// `[register + displacement]` without index, where it is one.
    memory: Option<(Register, i32)>,
}

impl Operand {
    fn is_register(self) -> bool {
        self.modrm >= 0xc0
    }

    /// Opcode extension.
    fn extension(self) -> u8 {
        self.modrm >> 3 & 7
    }
}

/// Decodes the instruction that `code` starts with; `None` when it is none or is cut off.
pub(super) fn decode(code: &[u8]) -> Option<Instruction> {
    let mut reader = Reader::new(code.get(..MAX_LEN).unwrap_or(code));
    let mut prefixes = Prefixes::default();
    let mut opcode = reader.u8()?;
    loop {
        match opcode {
            0x66 => prefixes.operand_16 = true,
            0x67 => prefixes.address_32 = true,
            0xf2 | 0xf3 => prefixes.repeat = true,
            0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0xf0 => {}
            _ => break,
        }
        opcode = reader.u8()?;
    }
    if opcode & 0xf0 == 0x40 {
        prefixes.rex = opcode & 15;
        opcode = reader.u8()?;
    }
    let (map, opcode) = opcode_map(opcode, &mut prefixes, &mut reader)?;
    let effect = match map {
        map::ONE_BYTE => one_byte(opcode, prefixes, &mut reader)?,
        map::TWO_BYTES if !prefixes.is_vector() => two_bytes(opcode, prefixes, &mut reader)?,
        _ => {
            let has_operand = map != map::TWO_BYTES || opcode != 0x77;
            let operand = if has_operand { Some(operand(prefixes, &mut reader)?) } else { None };
            let immediate = match (map, opcode) {
                (map::TWO_BYTES, 0x70..=0x73 | 0xc2 | 0xc4..=0xc6)
                | (map::THREE_BYTES_3A | map::XOP_8, _) => 1,
                (map::XOP_A, _) => 4,
                _ => 0,
            };
            reader.skip(immediate)?;
            general_destination(map, opcode, prefixes, operand)
        }
    };
    Some(Instruction { len: reader.position() as u8, effect })
}

/// Vector instructions that write general registers: bit fiddling, moves of masks.
fn general_destination(map: u8, opcode: u8, prefixes: Prefixes, operand: Option<Operand>) -> Effect {
    let Some(operand) = operand else { return Effect::None };
    match (map, opcode) {
        // andn, bzhi, pext, pdep, mulx, bextr, sarx, rorx; movbe; crc32
        (map::THREE_BYTES_38, 0xf0..=0xf2 | 0xf5..=0xf7) | (map::THREE_BYTES_3A, 0xf0) => {
            Effect::Write(prefixes.reg(operand.modrm))
        }
        // movmskps, pmovmskb, kmov; cvt to integer
        (map::TWO_BYTES, 0x50 | 0xd7 | 0x93 | 0x2c | 0x2d) => Effect::Write(prefixes.reg(operand.modrm)),
        // movd, movq, pextr
        (map::TWO_BYTES, 0x7e) | (map::THREE_BYTES_3A, 0x14..=0x17) if operand.is_register() => {
            Effect::Write(prefixes.rm(operand.modrm))
        }
        _ => Effect::None,
    }
}

/// Reads what escapes lead to: the map, and the opcode in it.
fn opcode_map(opcode: u8, prefixes: &mut Prefixes, reader: &mut Reader<'_>) -> Option<(u8, u8)> {
    Some(match opcode {
        0x0f => match reader.u8()? {
            0x38 => (map::THREE_BYTES_38, reader.u8()?),
            0x3a => (map::THREE_BYTES_3A, reader.u8()?),
            opcode => (map::TWO_BYTES, opcode),
        },
        0xc5 => {
            let byte = reader.u8()?;
            vector_prefix(prefixes, !byte >> 5 & 4, false);
            (map::TWO_BYTES, reader.u8()?)
        }
        0xc4 => {
            let (first, second) = (reader.u8()?, reader.u8()?);
            vector_prefix(prefixes, !first >> 5 & 7, second & 0x80 != 0);
            let map = first & 31;
            (matches!(map, map::TWO_BYTES..=map::THREE_BYTES_3A).then_some(map)?, reader.u8()?)
        }
        0x62 => {
            let (first, second, _) = (reader.u8()?, reader.u8()?, reader.u8()?);
            vector_prefix(prefixes, !first >> 5 & 7, second & 0x80 != 0);
            let map = first & 7;
            let is_known = matches!(map, map::TWO_BYTES..=map::THREE_BYTES_3A | map::EVEX_5 | map::EVEX_6);
            // One bit is always set.
            (is_known && second & 4 != 0).then_some(())?;
            (map, reader.u8()?)
        }
        0x8f => {
            // pop of a memory operand, unless the byte behind it cannot be its ModRM.
            let mut ahead = *reader;
            let first = ahead.u8()?;
            let map = first & 31;
            if first & 0x38 == 0 || !matches!(map, map::XOP_8 | map::XOP_9 | map::XOP_A) {
                return Some((map::ONE_BYTE, opcode));
            }
            let second = ahead.u8()?;
            vector_prefix(prefixes, !first >> 5 & 7, second & 0x80 != 0);
            *reader = ahead;
            (map, reader.u8()?)
        }
        opcode => (map::ONE_BYTE, opcode),
    })
}

fn vector_prefix(prefixes: &mut Prefixes, register_bits: u8, is_wide: bool) {
    prefixes.rex = VECTOR | register_bits | u8::from(is_wide) << 3;
}

fn operand(prefixes: Prefixes, reader: &mut Reader<'_>) -> Option<Operand> {
    let modrm = reader.u8()?;
    let (mode, rm) = (modrm >> 6, modrm & 7);
    if mode == 3 {
        return Some(Operand { modrm, memory: None });
    }
    let mut base = Some(prefixes.rm(modrm));
    let mut displacement_bytes = [0, 1, 4][usize::from(mode)];
    if rm == 4 {
        let sib = reader.u8()?;
        let index = sib >> 3 & 7 | (prefixes.rex & 2) << 2;
        base = (index == 4).then_some(sib & 7 | (prefixes.rex & 1) << 3);
        if sib & 7 == 5 && mode == 0 {
            (base, displacement_bytes) = (None, 4);
        }
    } else if rm == 5 && mode == 0 {
        (base, displacement_bytes) = (None, 4);
    }
    let displacement = match displacement_bytes {
        0 => 0,
        1 => i32::from(reader.u8()? as i8),
        _ => reader.u32()? as i32,
    };
    Some(Operand { modrm, memory: base.filter(|_| !prefixes.address_32).map(|base| (base, displacement)) })
}

fn one_byte(opcode: u8, prefixes: Prefixes, reader: &mut Reader<'_>) -> Option<Effect> {
    let low = opcode & 7 | (prefixes.rex & 1) << 3;
    Some(match opcode {
        0x06
        | 0x07
        | 0x0e
        | 0x16
        | 0x17
        | 0x1e
        | 0x1f
        | 0x27
        | 0x2f
        | 0x37
        | 0x3f
        | 0x60..=0x62
        | 0x82
        | 0x9a
        | 0xce
        | 0xd4..=0xd6
        | 0xea => return None,
        // add [rax], al is never written, but zero bytes look like it.
        0x00 if prefixes.rex == 0 && Reader::u8(&mut reader.clone())? == 0 => return None,
        0x00..=0x3f => arithmetic(opcode, prefixes, reader)?,
        0x50..=0x57 if !prefixes.operand_16 => Effect::Push(Some(low)),
        0x58..=0x5f if !prefixes.operand_16 => Effect::Pop(Some(low)),
        0x50..=0x5f => Effect::LoseSp,
        0x63 | 0x84..=0x8e => moves(opcode, prefixes, reader)?,
        0x68 => {
            reader.skip(prefixes.immediate())?;
            Effect::Push(None)
        }
        0x6a => {
            reader.skip(1)?;
            Effect::Push(None)
        }
        0x69 | 0x6b => {
            let operand = operand(prefixes, reader)?;
            reader.skip(if opcode == 0x69 { prefixes.immediate() } else { 1 })?;
            Effect::Write(prefixes.reg(operand.modrm))
        }
        0x70..=0x7f => Effect::Branch(i64::from(reader.u8()? as i8)),
        0x80 | 0x81 | 0x83 => immediate_arithmetic(opcode, prefixes, reader)?,
        0x8f => {
            operand(prefixes, reader)?;
            Effect::Pop(None)
        }
        0x90 if prefixes.rex & 1 == 0 => Effect::Padding,
        0x90..=0x97 => Effect::Write(low),
        0x9c => Effect::Push(None),
        0x9d => Effect::Pop(None),
        0xa0..=0xa3 => {
            reader.skip(if prefixes.address_32 { 4 } else { 8 })?;
            Effect::None
        }
        0xa8 | 0xb0..=0xb7 => {
            reader.skip(1)?;
            Effect::None
        }
        0xa9 => {
            reader.skip(prefixes.immediate())?;
            Effect::None
        }
        0xb8..=0xbf => {
            reader.skip(if prefixes.is_wide() { 8 } else { prefixes.immediate() })?;
            Effect::Write(low)
        }
        0xc0.. => high_byte(opcode, prefixes, reader)?,
        _ => Effect::None,
    })
}

/// One-byte opcodes from 0xc0 on: shifts, returns, the coprocessor, jumps, groups.
fn high_byte(opcode: u8, prefixes: Prefixes, reader: &mut Reader<'_>) -> Option<Effect> {
    Some(match opcode {
        0xc0 | 0xc1 | 0xc6 | 0xc7 => {
            let operand = operand(prefixes, reader)?;
            reader.skip(if opcode == 0xc7 { prefixes.immediate() } else { 1 })?;
            written(prefixes, operand)
        }
        0xc2 | 0xca => {
            reader.skip(2)?;
            Effect::Return
        }
        0xc3 | 0xcb | 0xcf => Effect::Return,
        0xc8 => {
            reader.skip(3)?;
            Effect::LoseSp
        }
        0xc9 => Effect::Leave,
        0xcc | 0xf4 => Effect::Halt,
        0xd0..=0xd3 => {
            let operand = operand(prefixes, reader)?;
            written(prefixes, operand)
        }
        0xd8..=0xdf => {
            operand(prefixes, reader)?;
            Effect::None
        }
        0xe8 => Effect::Call(Some(i64::from(reader.u32()? as i32))),
        0xe9 => Effect::Jump(Some(i64::from(reader.u32()? as i32))),
        0xeb => Effect::Jump(Some(i64::from(reader.u8()? as i8))),
        0xf6 | 0xf7 => {
            let operand = operand(prefixes, reader)?;
            if operand.extension() < 2 {
                reader.skip(if opcode == 0xf6 { 1 } else { prefixes.immediate() })?;
            }
            if matches!(operand.extension(), 2 | 3) { written(prefixes, operand) } else { Effect::None }
        }
        0xfe | 0xff => {
            let operand = operand(prefixes, reader)?;
            match (opcode, operand.extension()) {
                (0xff, 2 | 3) => Effect::Call(None),
                (0xff, 4 | 5) => Effect::Jump(None),
                (0xff, 6) => Effect::Push(None),
                (_, 0 | 1) => written(prefixes, operand),
                _ => return None,
            }
        }
        0xcd | 0xe4..=0xe7 => {
            reader.skip(1)?;
            Effect::None
        }
        0xe0..=0xe3 => Effect::Branch(i64::from(reader.u8()? as i8)),
        _ => Effect::None,
    })
}

/// Writes to the general register that the operand is, if it is one.
fn written(prefixes: Prefixes, operand: Operand) -> Effect {
    if operand.is_register() { lost_or_written(prefixes.rm(operand.modrm)) } else { Effect::None }
}

fn lost_or_written(register: Register) -> Effect {
    if register == RSP { Effect::LoseSp } else { Effect::Write(register) }
}

/// Two-operand arithmetic without immediate, or with the accumulator.
fn arithmetic(opcode: u8, prefixes: Prefixes, reader: &mut Reader<'_>) -> Option<Effect> {
    let is_compare = opcode & 0x38 == 0x38;
    Some(match opcode & 7 {
        4 => {
            reader.skip(1)?;
            Effect::None
        }
        5 => {
            reader.skip(prefixes.immediate())?;
            Effect::None
        }
        form => {
            let operand = operand(prefixes, reader)?;
            match form {
                _ if is_compare => Effect::None,
                1 => written(prefixes, operand),
                3 => lost_or_written(prefixes.reg(operand.modrm)),
                // Bytes: rsp is then another register.
                _ => Effect::None,
            }
        }
    })
}

fn immediate_arithmetic(opcode: u8, prefixes: Prefixes, reader: &mut Reader<'_>) -> Option<Effect> {
    let operand = operand(prefixes, reader)?;
    let immediate = match opcode {
        0x81 if prefixes.operand_16 => i32::from(reader.u16()? as i16),
        0x81 => reader.u32()? as i32,
        _ => i32::from(reader.u8()? as i8),
    };
    let is_sp = operand.is_register() && prefixes.rm(operand.modrm) == RSP && opcode != 0x80;
    Some(match operand.extension() {
        7 => Effect::None,
        0 if is_sp && prefixes.is_wide() => Effect::MoveSp(immediate),
        5 if is_sp && prefixes.is_wide() => Effect::MoveSp(immediate.checked_neg()?),
        _ if opcode == 0x80 => Effect::None,
        _ => written(prefixes, operand),
    })
}

/// `mov`, `lea`, `movsxd`, `xchg` and `test`.
fn moves(opcode: u8, prefixes: Prefixes, reader: &mut Reader<'_>) -> Option<Effect> {
    let operand = operand(prefixes, reader)?;
    let reg = prefixes.reg(operand.modrm);
    let rm = prefixes.rm(operand.modrm);
    let is_wide = prefixes.is_wide();
    Some(match (opcode, operand.memory) {
        (0x89, _) if operand.is_register() && is_wide => copied(rm, reg),
        (0x8b, _) if operand.is_register() && is_wide => copied(reg, rm),
        (0x89, Some((RSP, offset))) if is_wide => {
            Effect::Store { first: reg, second: None, offset, moved: 0 }
        }
        (0x8b, Some((RSP, offset))) if is_wide && reg == RSP => Effect::LoadSp(offset),
        (0x8b, Some((RSP, offset))) if is_wide => Effect::Load { first: reg, second: None, offset, moved: 0 },
        (0x8d, Some((RSP, offset))) if is_wide && reg == RSP => Effect::MoveSp(offset),
        (0x8d, Some((RSP, offset))) if is_wide => Effect::CopySp(reg, offset),
        (0x8d, Some((base, offset))) if is_wide && reg == RSP => Effect::SetSp(base, offset),
        (0x63 | 0x8b | 0x8d, _) => lost_or_written(reg),
        (0x87, _) => lost_or_written(if reg == RSP || !operand.is_register() { reg } else { rm }),
        (0x89, _) => written(prefixes, operand),
        _ => Effect::None,
    })
}

fn copied(to: Register, from: Register) -> Effect {
    match (to, from) {
        (RSP, RSP) => Effect::None,
        (RSP, from) => Effect::SetSp(from, 0),
        (to, RSP) => Effect::CopySp(to, 0),
        (to, _) => Effect::Write(to),
    }
}

fn two_bytes(opcode: u8, prefixes: Prefixes, reader: &mut Reader<'_>) -> Option<Effect> {
    Some(match opcode {
        0x04 | 0x0a | 0x0c | 0x24..=0x27 | 0x36 | 0x39..=0x3f => return None,
        0x0b => Effect::Halt,
        0x05..=0x09 | 0x0e | 0x30..=0x35 | 0x37 | 0x77 | 0xa2 | 0xaa => Effect::None,
        0xa0 | 0xa8 => Effect::Push(None),
        0xa1 | 0xa9 => Effect::Pop(None),
        0x80..=0x8f => Effect::Branch(i64::from(reader.u32()? as i32)),
        0xc8..=0xcf => Effect::Write(opcode & 7 | (prefixes.rex & 1) << 3),
        0x0f | 0x70..=0x73 | 0xa4 | 0xac | 0xba | 0xc2 | 0xc4..=0xc6 => {
            operand(prefixes, reader)?;
            reader.skip(1)?;
            Effect::None
        }
        // extrq and insertq of SSE4a
        0x78 if prefixes.operand_16 || prefixes.repeat => {
            operand(prefixes, reader)?;
            reader.skip(2)?;
            Effect::None
        }
        // endbr64 belongs to the function behind it.
        0x1e if prefixes.repeat => {
            operand(prefixes, reader)?;
            Effect::None
        }
        0x1f => {
            operand(prefixes, reader)?;
            Effect::Padding
        }
        // cmov, movzx, movsx, imul, bsf, bsr, popcnt, tzcnt, lzcnt
        0x40..=0x4f | 0xaf | 0xb6..=0xb8 | 0xbc..=0xbf => {
            let operand = operand(prefixes, reader)?;
            lost_or_written(prefixes.reg(operand.modrm))
        }
        _ => {
            let operand = operand(prefixes, reader)?;
            general_destination(map::TWO_BYTES, opcode, prefixes, Some(operand))
        }
    })
}

/// DWARF number of a register.
pub(super) fn dwarf_number(register: Register) -> u8 {
    const LOW: [u8; 8] = [0, 2, 1, 3, 7, 6, 4, 5];
    LOW.get(usize::from(register)).copied().unwrap_or(register)
}

/// Whether functions begin so: branch target mark, saved register, room on the stack.
pub(super) fn is_beginning(code: &[u8]) -> bool {
    code.starts_with(b"\xf3\x0f\x1e\xfa")
        || matches!(
            decode(code).map(|instruction| instruction.effect),
            Some(Effect::Push(Some(_)) | Effect::MoveSp(i32::MIN..0))
        )
}

/// The frame pointer.
pub(super) const FRAME_POINTER: Register = RBP;

#[cfg(test)]
mod tests {
    use super::{decode, dwarf_number, is_beginning};
    use crate::unwind::instructions::Effect;

    fn effect(code: &[u8]) -> Effect {
        let found = decode(code).unwrap();
        assert_eq!(usize::from(found.len), code.len(), "{code:x?}");
        found.effect
    }

    #[test]
    fn knows_what_builds_and_removes_frames() {
        assert_eq!(effect(b"\x55"), Effect::Push(Some(5)));
        assert_eq!(effect(b"\x41\x57"), Effect::Push(Some(15)));
        assert_eq!(effect(b"\x41\x5f"), Effect::Pop(Some(15)));
        assert_eq!(effect(b"\x48\x83\xec\x28"), Effect::MoveSp(-40));
        assert_eq!(effect(b"\x48\x81\xc4\x00\x01\0\0"), Effect::MoveSp(256));
        assert_eq!(effect(b"\x48\x83\xe4\xe0"), Effect::LoseSp);
        assert_eq!(effect(b"\x48\x29\xc4"), Effect::LoseSp);
        assert_eq!(effect(b"\x48\x89\xe5"), Effect::CopySp(5, 0));
        assert_eq!(effect(b"\x4c\x8d\x54\x24\x08"), Effect::CopySp(10, 8));
        assert_eq!(effect(b"\x48\x8d\x65\xd8"), Effect::SetSp(5, -40));
        assert_eq!(effect(b"\x48\x8b\xa4\x24\x80\0\0\0"), Effect::LoadSp(128));
        let saved = Effect::Store { first: 5, second: None, offset: 16, moved: 0 };
        assert_eq!(effect(b"\x48\x89\x6c\x24\x10"), saved);
        assert_eq!(effect(b"\xc9"), Effect::Leave);
        // The low half of a push is no push of eight bytes; cmp rsp, 8 changes nothing.
        assert_eq!(effect(b"\x66\x50"), Effect::LoseSp);
        assert_eq!(effect(b"\x48\x83\xfc\x08"), Effect::None);
    }

    #[test]
    fn knows_where_control_goes() {
        assert_eq!(effect(b"\xe8\x10\0\0\0"), Effect::Call(Some(16)));
        assert_eq!(effect(b"\xff\x24\xc5\0\0\0\0"), Effect::Jump(None));
        assert_eq!(effect(b"\x3e\xff\xe0"), Effect::Jump(None));
        assert_eq!(effect(b"\x0f\x85\xf0\xff\xff\xff"), Effect::Branch(-16));
        assert_eq!(effect(b"\xeb\xfe"), Effect::Jump(Some(-2)));
        assert_eq!(effect(b"\xf3\xc3"), Effect::Return);
        assert_eq!(effect(b"\x0f\x0b"), Effect::Halt);
    }

    #[test]
    fn measures_every_kind_of_prefix() {
        // vpaddd ymm; vpermq with immediate; AVX-512 with mask; rorx; XOP vpcmov, vprotd, bextr; movabs; far too long
        for code in [
            &b"\xc5\xfd\xfe\x04\x24"[..],
            b"\xc4\xe3\xfd\x00\xc0\xd8",
            b"\x62\xf1\x7d\xc9\xfe\x44\x24\x01",
            b"\xc4\xe3\xfb\xf0\xc0\x03",
            b"\x8f\xe8\x78\xa2\xc1\x20",
            b"\x8f\xe9\x78\x92\xc1",
            b"\x8f\xea\x78\x10\xc0\x04\x03\0\0",
            b"\x48\xb8\x01\x02\x03\x04\x05\x06\x07\x08",
            b"\x66\x66\x2e\x0f\x1f\x84\0\0\0\0\0",
            b"\xc5\xf8\x77",
        ] {
            effect(code);
        }
        assert_eq!(decode(&[0x66; 16]), None);
        assert_eq!(decode(b"\x00\x00"), None);
        assert_eq!(decode(b"\xe8\x00\x00"), None);
        assert_eq!(decode(b""), None);
    }

    #[test]
    fn numbers_registers_as_dwarf_does() {
        let named: Vec<_> = (0..16).map(dwarf_number).collect();
        assert_eq!(named, [0, 2, 1, 3, 7, 6, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert!(is_beginning(b"\xf3\x0f\x1e\xfa") && is_beginning(b"\x41\x56") && !is_beginning(b"\xc3"));
    }
}
