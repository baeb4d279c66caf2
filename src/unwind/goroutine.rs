//! Where Go's runtime keeps the registers of a goroutine that it works for, read off its own code.
//!
//! `morestack` goes to the stack of the system without leaving anything there that leads back. Where the goroutine is
//! found (thread, its m, the goroutine that m runs, the record in it) differs between versions of Go; `systemstack`, which
//! goes back that way, and `morestack`, which fills the record, show it in their instructions. Nothing else is looked at.

use super::rows::Goroutine;
use super::{Architecture, x86_64};

/// Number of the register in which arm64 keeps g.
const G_AARCH64: usize = 28;
/// Frame pointers as instructions number them.
const RBP: u8 = 5;
const RSP: u8 = 4;
const X29: u32 = 29;
const X30_BEFORE_X29: u16 = 8;

/// What a register holds, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Other,
    Number(i32),
    /// The g of the thread.
    G,
    /// Its m.
    M,
    /// A word of m: the goroutine, or one of the g for special purposes.
    Field(u16),
    /// A word of a g that a field of m points at.
    Saved {
        field: u16,
        offset: u16,
    },
}

/// What was seen so far.
#[derive(Debug)]
struct Reading {
    registers: [Value; 32],
    thread_offset: Option<i32>,
    m: Option<u16>,
    /// Field of m and offset in that g from which the stack pointer comes at last.
    stack: Option<(u16, u16)>,
    /// Where a frame pointer is stored in a g.
    fp: Option<u16>,
}

/// From the code of both functions; `None` when they do not look as expected.
pub(super) fn find(architecture: Architecture, systemstack: &[u8], morestack: &[u8]) -> Option<Goroutine> {
    let mut reading =
        Reading { registers: [Value::Other; 32], thread_offset: None, m: None, stack: None, fp: None };
    match architecture {
        Architecture::X86_64 => {
            reading.x86_64(systemstack);
            reading.fp = None;
            reading.x86_64(morestack);
        }
        Architecture::Aarch64 => {
            reading.thread_offset = Some(0);
            reading.aarch64(systemstack);
            reading.fp = None;
            reading.aarch64(morestack);
        }
    }
    let (goroutine, saved) = reading.stack?;
    let found =
        Goroutine { g: reading.thread_offset?, m: reading.m?, goroutine, saved, saved_fp: reading.fp? };
    // Stack pointer, program counter, g, context, perhaps a result, link register, frame pointer.
    matches!(found.saved_fp.checked_sub(saved), Some(40 | 48)).then_some(found)
}

impl Reading {
    /// A word is read from a g or an m: what it is then.
    fn load(&mut self, base: Value, offset: i32) -> Value {
        let Ok(offset) = u16::try_from(offset) else { return Value::Other };
        match base {
            Value::G if self.m.is_none() => {
                self.m = Some(offset);
                Value::M
            }
            Value::G | Value::Field(_) if self.m == Some(offset) => Value::M,
            Value::Field(field) => Value::Saved { field, offset },
            Value::M => Value::Field(offset),
            _ => Value::Other,
        }
    }

    /// The stack pointer becomes this value. Field 0 of m is the g of the system's stack, not of a goroutine.
    fn set_stack(&mut self, value: Value) {
        if let Value::Saved { field, offset } = value
            && field != 0
        {
            self.stack = Some((field, offset));
        }
    }

    fn x86_64(&mut self, code: &[u8]) {
        self.registers = [Value::Other; 32];
        let mut at = 0;
        while let Some(instruction) = code.get(at..).and_then(x86_64::decode) {
            let next = at + usize::from(instruction.len);
            self.x86_64_instruction(&code[at..next]);
            at = next;
        }
    }

    fn x86_64_instruction(&mut self, code: &[u8]) {
        let is_thread_local = code.first() == Some(&0x64);
        let Some(&[rex @ 0x48..=0x4f, opcode, modrm, ref rest @ ..]) =
            code.get(usize::from(is_thread_local)..)
        else {
            return;
        };
        let register = modrm >> 3 & 7 | (rex & 4) << 1;
        let low = modrm & 7 | (rex & 1) << 3;
        let is_register = modrm >> 6 == 3;
        let memory = || memory_operand(rex, modrm, rest);
        match opcode {
            0x8b if !is_register => {
                let Some((base, offset)) = memory() else {
                    self.registers[usize::from(register)] = Value::Other;
                    return;
                };
                let base = base.map_or(Value::Number(0), |base| self.registers[usize::from(base)]);
                let value = match base {
                    Value::Number(number) if is_thread_local => {
                        self.thread_offset = Some(number.wrapping_add(offset));
                        Value::G
                    }
                    _ => self.load(base, offset),
                };
                if register == RSP {
                    self.set_stack(value);
                }
                self.registers[usize::from(register)] = value;
            }
            0x89 if !is_register && register == RBP => {
                if let Some((Some(base), offset)) = memory()
                    && base != RSP
                {
                    self.fp = u16::try_from(offset).ok();
                }
            }
            0x89 if is_register => {
                self.registers[usize::from(low)] = self.registers[usize::from(register)];
            }
            0xc7 if is_register => {
                let number =
                    rest.try_into().map_or(Value::Other, |four| Value::Number(i32::from_le_bytes(four)));
                self.registers[usize::from(low)] = number;
            }
            0x8d => self.registers[usize::from(register)] = Value::Other,
            _ => {}
        }
    }

    fn aarch64(&mut self, code: &[u8]) {
        self.registers = [Value::Other; 32];
        self.registers[G_AARCH64] = Value::G;
        for word in code.chunks_exact(4) {
            let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            let (to, from) = (word & 31, word >> 5 & 31);
            let offset = (word >> 10 & 0xfff) * 8;
            if word & 0xffc0_0000 == 0xf940_0000 {
                // ldr
                let value = self.load(self.registers[from as usize], offset as i32);
                self.registers[to as usize] = value;
            } else if word & 0xffc0_0000 == 0xf900_0000 && to == X29 {
                // str
                self.fp = u16::try_from(offset).ok();
            } else if word & 0xffe0_ffe0 == 0xaa00_03e0 {
                // mov
                self.registers[to as usize] = self.registers[(word >> 16 & 31) as usize];
            } else if word & 0xffff_fc1f == 0x9100_001f {
                // mov sp
                self.set_stack(self.registers[from as usize]);
            }
        }
    }
}

/// Base register, if any, and displacement.
fn memory_operand(rex: u8, modrm: u8, rest: &[u8]) -> Option<(Option<u8>, i32)> {
    let mode = modrm >> 6;
    let (base, rest) = match modrm & 7 {
        4 => {
            let (&sib, rest) = rest.split_first()?;
            // Without an index.
            if sib >> 3 & 7 != 4 || rex & 2 != 0 {
                return None;
            }
            ((sib & 7 != 5 || mode != 0).then_some(sib & 7 | (rex & 1) << 3), rest)
        }
        // Relative to the instruction.
        5 if mode == 0 => return None,
        base => (Some(base | (rex & 1) << 3), rest),
    };
    let offset = match (mode, base) {
        (0, Some(_)) => 0,
        (1, _) => i32::from(*rest.first()? as i8),
        _ => i32::from_le_bytes(rest.get(..4)?.try_into().ok()?),
    };
    Some((base, offset))
}

impl Goroutine {
    /// Where in the record the link register lies, which only arm64 has: the frame pointer follows.
    #[must_use]
    pub fn saved_link_register(self) -> u16 {
        self.saved_fp.saturating_sub(X30_BEFORE_X29)
    }
}

#[cfg(test)]
mod tests {
    use super::{Goroutine, find};
    use crate::unwind::Architecture;

    /// mov rax, fs:[-8]; mov rbx, [rax + 48]; mov rdx, [rbx]; mov rsp, [rdx + 56]; call [rdi];
    /// mov rax, fs:[-8]; mov rbx, [rax + 48]; mov rax, [rbx + 184]; mov fs:[-8], rax; mov rsp, [rax + 56]; mov rbp, [rax + 96]; ret
    const SYSTEMSTACK: &[u8] = b"\x64\x48\x8b\x04\x25\xf8\xff\xff\xff\x48\x8b\x58\x30\x48\x8b\x13\x48\x8b\x62\x38\xff\x17\
        \x64\x48\x8b\x04\x25\xf8\xff\xff\xff\x48\x8b\x58\x30\x48\x8b\x83\xb8\0\0\0\x64\x48\x89\x04\x25\xf8\xff\xff\xff\
        \x48\x8b\x60\x38\x48\x8b\x68\x60\xc3";
    /// mov rdi, fs:[-8]; mov rbx, [rdi + 48]; mov [rdi + 96], rbp; mov rbx, [rbx]; mov rsp, [rbx + 56]; call
    const MORESTACK: &[u8] =
        b"\x64\x48\x8b\x3c\x25\xf8\xff\xff\xff\x48\x8b\x5f\x30\x48\x89\x6f\x60\x48\x8b\x1b\
        \x48\x8b\x63\x38\xe8\0\0\0\0";

    const X86: Architecture = Architecture::X86_64;
    const FOUND: Goroutine = Goroutine { g: -8, m: 48, goroutine: 184, saved: 56, saved_fp: 96 };

    #[test]
    fn reads_the_way_to_the_goroutine() {
        assert_eq!(find(X86, SYSTEMSTACK, MORESTACK), Some(FOUND));
        // Position-independent programs load the distance first: mov rcx, -8; mov rax, fs:[rcx].
        let mut code = b"\x48\xc7\xc1\xf8\xff\xff\xff\x64\x48\x8b\x01".to_vec();
        code.extend_from_slice(&SYSTEMSTACK[31..]);
        assert_eq!(find(X86, &code, MORESTACK), Some(FOUND));
    }

    #[test]
    fn code_that_looks_otherwise_gives_nothing() {
        assert_eq!(find(X86, &SYSTEMSTACK[..40], MORESTACK), None);
        assert_eq!(find(X86, SYSTEMSTACK, &MORESTACK[..13]), None);
        assert_eq!(find(X86, &[], &[]), None);
        // Frame pointer saved at a place that is none of the record's.
        let mut other = MORESTACK.to_vec();
        other[16] = 0x40;
        assert_eq!(find(X86, SYSTEMSTACK, &other), None);
        for end in 0..SYSTEMSTACK.len() {
            find(X86, &SYSTEMSTACK[..end], &SYSTEMSTACK[end..]);
        }
    }

    #[test]
    fn reads_the_same_on_arm64() {
        // ldr x3, [x28, 48]; ldr x0, [x3, 184]; mov x28, x0; ldr x0, [x28, 56]; mov sp, x0
        let back = [0xf940_1b83_u32, 0xf940_5c60, 0xaa00_03fc, 0xf940_1f80, 0x9100_001f];
        // str x29, [x28, 96]
        let save = [0xf900_339d_u32];
        let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
        let found = find(Architecture::Aarch64, &bytes(&back), &bytes(&save));
        assert_eq!(found, Some(Goroutine { g: 0, ..FOUND }));
    }
}
