//! One rule executed: from the registers of a frame to those of its caller.
//!
//! The kernel side does the same in C under its own limits; this is the plain version that tests, tools and cores are
//! measured with. Memory is an argument.

use super::Architecture;
use super::rows::{CfaRule, FpRule, RaRule, Rule};

/// Words of the signal frame, from the stack pointer on: registers of the interrupted code.
mod signal_frame {
    /// x86-64: the words of `uc_mcontext`, by DWARF number; behind them rip.
    pub(super) const X86_64: [u8; 16] = [8, 9, 10, 11, 12, 13, 14, 15, 5, 4, 6, 3, 1, 0, 2, 7];
    pub(super) const X86_64_R8: u64 = 40;
    pub(super) const X86_64_RIP: u64 = X86_64_R8 + 16 * 8;
    /// arm64: x0 … x30, sp, pc.
    pub(super) const AARCH64_X0: u64 = 312;
}

/// What a frame's registers are known to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// Program counter: the next instruction, or the return address of a call.
    pub pc: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer; 0 when it is not known.
    pub fp: u64,
    /// All registers by DWARF number, where this is the interrupted frame itself.
    pub all: Option<[u64; 32]>,
    /// `pc` is a return address: its rule is that of the byte before.
    pub is_return_address: bool,
}

/// Why a step failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The rule is [`Rule::Unknown`] or there is none.
    #[error("no rule for this code")]
    NoRule,
    /// The memory reader said no.
    #[error("memory at {0:#x} cannot be read")]
    Memory(u64),
    /// A rule wants a register that is known for the interrupted frame only.
    #[error("register {0} is not known in this frame")]
    Register(u8),
    /// The way leads through the thread's own memory, which whoever has a stack has not.
    #[error("the goroutine's registers lie elsewhere in memory")]
    Goroutine,
    /// The caller's stack would not lie above this frame's.
    #[error("stack pointer does not grow: {from:#x} to {to:#x}")]
    NotGrowing {
        /// This frame's.
        from: u64,
        /// The caller's.
        to: u64,
    },
}

/// Executes `rule`; `None` when this was the outermost frame. `read` gives the 8 bytes at an address.
///
/// # Errors
/// See [`Trouble`]; the stack is then known up to this frame only.
pub fn step(
    rule: Option<Rule>,
    architecture: Architecture,
    registers: &Registers,
    read: impl Fn(u64) -> Option<u64>,
) -> Result<Option<Registers>, Trouble> {
    let read = |address: u64| read(address).ok_or(Trouble::Memory(address));
    let caller = match rule.unwrap_or(Rule::Unknown) {
        Rule::Unknown => return Err(Trouble::NoRule),
        Rule::Stop => return Ok(None),
        Rule::FramePointer | Rule::BorrowedFramePointer if registers.fp == 0 => return Ok(None),
        // May lead to another stack, so it need not grow.
        Rule::FramePointer | Rule::BorrowedFramePointer => Registers {
            pc: read(registers.fp.wrapping_add(8))?,
            sp: registers.fp.wrapping_add(16),
            fp: read(registers.fp)?,
            all: None,
            is_return_address: true,
        },
        Rule::Goroutine(_) => return Err(Trouble::Goroutine),
        Rule::Signal => return interrupted(architecture, registers.sp, read).map(Some),
        Rule::Frame { cfa, fp, ra } | Rule::Guess { cfa, fp, ra } => {
            let cfa = frame_address(cfa, registers, read)?;
            let caller = Registers {
                pc: match ra {
                    RaRule::AtCfa(offset) => read(add(cfa, offset))?,
                    RaRule::LinkRegister => register(registers, 30)?,
                    RaRule::Register(number) => register(registers, number)?,
                },
                sp: cfa,
                fp: match fp {
                    FpRule::Unchanged => registers.fp,
                    FpRule::AtCfa(offset) => read(add(cfa, offset))?,
                    FpRule::AtFp(offset) => read(add(registers.fp, offset))?,
                    FpRule::Unknown => 0,
                },
                all: None,
                is_return_address: true,
            };
            // Only a leaf can return without giving stack back.
            let is_leaf = registers.all.is_some() && !matches!(ra, RaRule::AtCfa(_));
            if cfa < registers.sp || (cfa == registers.sp && !is_leaf && registers.is_return_address) {
                return Err(Trouble::NotGrowing { from: registers.sp, to: cfa });
            }
            caller
        }
    };
    Ok((caller.pc != 0).then_some(caller))
}

fn frame_address(
    cfa: CfaRule,
    registers: &Registers,
    read: impl Fn(u64) -> Result<u64, Trouble>,
) -> Result<u64, Trouble> {
    Ok(match cfa {
        CfaRule::Sp(offset) => add(registers.sp, offset),
        CfaRule::Fp(offset) => add(registers.fp, offset),
        CfaRule::Plt { threshold } => {
            registers.sp.wrapping_add(if registers.pc & 15 >= u64::from(threshold) { 16 } else { 8 })
        }
        CfaRule::DerefSp { offset, add: more } => add(read(add(registers.sp, offset))?, more),
        CfaRule::DerefFp { offset, add: more } => add(read(add(registers.fp, offset))?, more),
        CfaRule::Register { register: number, offset } => add(register(registers, number)?, offset),
    })
}

/// Registers that the kernel saved in the signal frame at `sp`.
fn interrupted(
    architecture: Architecture,
    sp: u64,
    read: impl Fn(u64) -> Result<u64, Trouble>,
) -> Result<Registers, Trouble> {
    use signal_frame::{AARCH64_X0, X86_64, X86_64_R8, X86_64_RIP};
    let word = |offset: u64| read(sp.wrapping_add(offset));
    Ok(match architecture {
        Architecture::X86_64 => {
            let mut all = [0; 32];
            for (at, dwarf) in X86_64.into_iter().enumerate() {
                all[usize::from(dwarf)] = word(X86_64_R8 + at as u64 * 8)?;
            }
            Registers {
                pc: word(X86_64_RIP)?,
                sp: all[7],
                fp: all[6],
                all: Some(all),
                is_return_address: false,
            }
        }
        Architecture::Aarch64 => {
            let mut all = [0; 32];
            for (number, register) in all.iter_mut().enumerate() {
                *register = word(AARCH64_X0 + number as u64 * 8)?;
            }
            Registers {
                pc: word(AARCH64_X0 + 32 * 8)?,
                sp: all[31],
                fp: all[29],
                all: Some(all),
                is_return_address: false,
            }
        }
    })
}

fn register(registers: &Registers, number: u8) -> Result<u64, Trouble> {
    registers
        .all
        .as_ref()
        .and_then(|all| all.get(usize::from(number)).copied())
        .ok_or(Trouble::Register(number))
}

fn add(base: u64, offset: i32) -> u64 {
    base.wrapping_add_signed(i64::from(offset))
}
