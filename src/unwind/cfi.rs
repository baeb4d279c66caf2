//! Call frame instructions to rules: one small machine that follows only what a profiler needs.
//!
//! Three columns are tracked (canonical frame address, frame pointer, return address); all others are skipped.
//! Sections and entries are found by `eh_frame`; this file sees the instruction bytes of one entry.

use super::expression;
use super::reader::Reader;
use super::rows::{CfaRule, FpRule, RaRule, Rule};
use super::{Architecture, eh_frame::PointerEncoding};

/// Depth of `DW_CFA_remember_state`. Compilers use 1; 2 has been seen.
const MAX_REMEMBERED: usize = 16;

impl Architecture {
    /// DWARF number of the stack pointer.
    pub(super) fn sp(self) -> u8 {
        match self {
            Self::X86_64 => 7,
            Self::Aarch64 => 31,
        }
    }

    /// DWARF number of the frame pointer.
    pub(super) fn fp(self) -> u8 {
        match self {
            Self::X86_64 => 6,
            Self::Aarch64 => 29,
        }
    }

    pub(super) fn cfa_from_register(self, register: u8, offset: i32) -> CfaRule {
        if register == self.sp() {
            CfaRule::Sp(offset)
        } else if register == self.fp() {
            CfaRule::Fp(offset)
        } else {
            CfaRule::Register { register, offset }
        }
    }
}

/// How instructions of one entry are to be read: what its CIE says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialect {
    pub(super) architecture: Architecture,
    pub(super) code_alignment: u64,
    pub(super) data_alignment: i64,
    /// Column of the return address.
    pub(super) return_register: u64,
    /// How `DW_CFA_set_loc` writes addresses.
    pub(super) encoding: PointerEncoding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cfa {
    Unset,
    /// Register and offset are kept apart because instructions change one of them.
    Register {
        register: u64,
        offset: i64,
    },
    /// `None`: one that the row model cannot say. `offset` is the last one that was set, as libgcc keeps it:
    /// hand-written code changes it under an expression and names a register afterwards.
    Expression {
        rule: Option<CfaRule>,
        offset: i64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    /// Nothing was said: unchanged for the frame pointer, the convention of the architecture for the return address.
    Unset,
    Undefined,
    Same,
    AtCfa(i64),
    Register(u64),
    /// Saved at register + offset.
    At(expression::BasedOn),
    Unsupported,
}

/// The tracked columns at one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    cfa: Cfa,
    fp: Column,
    ra: Column,
    /// The return address or the frame address is computed by an expression, as only signal frames do.
    computed: bool,
}

impl State {
    pub(super) const EMPTY: Self =
        Self { cfa: Cfa::Unset, fp: Column::Unset, ra: Column::Unset, computed: false };

    /// Whether the return address comes from an expression: the mark of a true signal frame on x86-64.
    pub(super) fn is_computed(&self) -> bool {
        self.computed
    }

    /// The rule of this state; `Err` when the row model cannot say it.
    pub(super) fn rule(&self, architecture: Architecture) -> Result<Rule, Unsupported> {
        let ra = match self.ra {
            Column::Undefined => return Ok(Rule::Stop),
            Column::Unset if architecture == Architecture::X86_64 => RaRule::AtCfa(-8),
            Column::Unset | Column::Same | Column::Register(30) if architecture == Architecture::Aarch64 => {
                RaRule::LinkRegister
            }
            Column::AtCfa(offset) => RaRule::AtCfa(narrow(offset)?),
            Column::Register(register) => RaRule::Register(u8::try_from(register).map_err(|_| Unsupported)?),
            Column::Unset | Column::Same | Column::At(_) | Column::Unsupported => return Err(Unsupported),
        };
        let cfa = match self.cfa {
            Cfa::Register { register, offset } => architecture
                .cfa_from_register(u8::try_from(register).map_err(|_| Unsupported)?, narrow(offset)?),
            Cfa::Expression { rule: Some(rule), .. } => rule,
            Cfa::Unset | Cfa::Expression { rule: None, .. } => return Err(Unsupported),
        };
        let fp = match self.fp {
            Column::Unset | Column::Same => FpRule::Unchanged,
            Column::AtCfa(offset) => FpRule::AtCfa(narrow(offset)?),
            Column::Register(register) if register == u64::from(architecture.fp()) => FpRule::Unchanged,
            // GCC leaves this behind at the end of a realigned frame, where fp is the caller's again: with nothing but
            // the return address on the stack there is no place left that could hold it.
            Column::At(at) if at.register == architecture.fp() && cfa == CfaRule::Sp(8) => FpRule::Unchanged,
            Column::At(at) if at.register == architecture.fp() => FpRule::AtFp(at.offset),
            Column::At(at) if at.register == architecture.sp() => match cfa {
                CfaRule::Sp(offset) => FpRule::AtCfa(at.offset.checked_sub(offset).ok_or(Unsupported)?),
                _ => FpRule::Unknown,
            },
            Column::At(_) | Column::Register(_) | Column::Undefined | Column::Unsupported => FpRule::Unknown,
        };
        Ok(Rule::Frame { cfa, fp, ra })
    }

    fn column(&mut self, register: u64, dialect: &Dialect) -> Option<&mut Column> {
        if register == dialect.return_register {
            Some(&mut self.ra)
        } else if register == u64::from(dialect.architecture.fp()) {
            Some(&mut self.fp)
        } else {
            None
        }
    }

    fn set(&mut self, register: u64, column: Column, dialect: &Dialect) {
        if let Some(slot) = self.column(register, dialect) {
            *slot = column;
        }
    }

    fn restore(&mut self, register: u64, initial: &State, dialect: &Dialect) {
        let mut initial = *initial;
        if let Some(column) = initial.column(register, dialect).copied() {
            self.set(register, column, dialect);
        }
    }
}

/// A rule that the row model has no word for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unsupported;

/// Instruction bytes that make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

fn narrow(offset: i64) -> Result<i32, Unsupported> {
    i32::try_from(offset).map_err(|_| Unsupported)
}

/// What one instruction asks of the location counter.
enum Effect {
    None,
    Advance(u64),
    SetLocation(u64),
}

/// Runs the initial instructions of a CIE.
pub(super) fn initial_state(instructions: &[u8], dialect: &Dialect) -> Result<State, Malformed> {
    let mut remembered = Vec::new();
    let mut machine = Machine::new(State::EMPTY, dialect, &mut remembered);
    let mut reader = Reader::new(instructions);
    while !reader.is_empty() {
        // An initial instruction that moves on is meaningless; the state before it is what holds.
        if !matches!(machine.execute(&mut reader, 0).ok_or(Malformed)?, Effect::None) {
            return Err(Malformed);
        }
    }
    Ok(machine.state)
}

/// The instructions of one entry and all they depend on.
#[derive(Debug)]
pub(super) struct Program<'a> {
    pub(super) instructions: &'a [u8],
    /// ELF address of the first of them.
    pub(super) instructions_address: u64,
    pub(super) dialect: &'a Dialect,
    /// After the instructions of the CIE.
    pub(super) initial: &'a State,
    /// Code that the entry describes.
    pub(super) range: std::ops::Range<u64>,
}

/// Runs the instructions of one entry from its start on and calls `row` with each address and the state that holds from
/// there; addresses only grow. Stops silently at `end`.
///
/// On an error the rows before it have been given and `Err` carries the address from which nothing is known.
pub(super) fn run(
    program: &Program<'_>,
    remembered: &mut Vec<State>,
    mut row: impl FnMut(u64, &State),
) -> Result<(), u64> {
    let Program { instructions, instructions_address, dialect, initial, ref range } = *program;
    remembered.clear();
    let mut machine = Machine::new(*initial, dialect, remembered);
    let mut reader = Reader::new(instructions);
    let mut at = range.start;
    while !reader.is_empty() {
        let next = match machine.execute(&mut reader, instructions_address).ok_or(at)? {
            Effect::None => continue,
            Effect::Advance(delta) => {
                at.checked_add(delta.checked_mul(dialect.code_alignment).ok_or(at)?).ok_or(at)?
            }
            Effect::SetLocation(address) => address,
        };
        if next < at {
            return Err(at);
        }
        if next > at {
            row(at, &machine.state);
            at = next;
        }
        if at >= range.end {
            return Ok(());
        }
    }
    row(at, &machine.state);
    Ok(())
}

/// Where the code of an entry saves `register`, from its frame address; `None` when nowhere or at several places.
pub(super) fn saved_at(program: &Program<'_>, register: u8) -> Option<i32> {
    // One column is kept beside the frame pointer's: that of the return address, whichever register this is said to be.
    let dialect = Dialect { return_register: u64::from(register), ..*program.dialect };
    let initial = State { ra: Column::Unset, ..*program.initial };
    let program = Program { dialect: &dialect, initial: &initial, range: program.range.clone(), ..*program };
    let mut places = Vec::new();
    let outcome = run(&program, &mut Vec::new(), |_, state| match state.ra {
        Column::AtCfa(offset) if places.last() != Some(&offset) => places.push(offset),
        _ => {}
    });
    match places[..] {
        [place] if outcome.is_ok() => narrow(place).ok(),
        _ => None,
    }
}

struct Machine<'a> {
    state: State,
    initial: State,
    dialect: &'a Dialect,
    /// Lent, so that one allocation serves all entries.
    remembered: &'a mut Vec<State>,
}

impl<'a> Machine<'a> {
    fn new(initial: State, dialect: &'a Dialect, remembered: &'a mut Vec<State>) -> Self {
        Self { state: initial, initial, dialect, remembered }
    }

    /// One instruction; `None` when it is malformed.
    #[inline]
    fn execute(&mut self, reader: &mut Reader<'_>, instructions_address: u64) -> Option<Effect> {
        let opcode = reader.u8()?;
        let low = u64::from(opcode & 0x3f);
        match opcode >> 6 {
            1 => return Some(Effect::Advance(low)),
            2 => {
                let offset = self.factored(reader)?;
                self.state.set(low, Column::AtCfa(offset), self.dialect);
                return Some(Effect::None);
            }
            3 => {
                self.state.restore(low, &self.initial, self.dialect);
                return Some(Effect::None);
            }
            _ => {}
        }
        match opcode {
            // nop. AArch64: return addresses are signed from here on, or no longer; the kernel side strips signatures
            // (0x2d is GNU_window_save elsewhere).
            0x00 | 0x2c | 0x2d => {}
            0x01 => {
                let operand_address = instructions_address.wrapping_add(reader.position() as u64);
                let address = self.dialect.encoding.read(reader, operand_address)?;
                return Some(Effect::SetLocation(address));
            }
            0x02 => return Some(Effect::Advance(u64::from(reader.u8()?))),
            0x03 => return Some(Effect::Advance(u64::from(reader.u16()?))),
            0x04 => return Some(Effect::Advance(u64::from(reader.u32()?))),
            0x0a => {
                if self.remembered.len() >= MAX_REMEMBERED {
                    return None;
                }
                self.remembered.push(self.state);
            }
            0x0b => self.state = self.remembered.pop()?,
            0x0c..=0x0f | 0x12 | 0x13 => self.define_cfa(opcode, reader)?,
            0x05..=0x09 | 0x10 | 0x11 | 0x14..=0x16 | 0x2f => self.define_column(opcode, reader)?,
            0x2e => {
                reader.uleb()?; // GNU_args_size
            }
            _ => return None,
        }
        Some(Effect::None)
    }

    fn factored(&self, reader: &mut Reader<'_>) -> Option<i64> {
        i64::try_from(reader.uleb()?).ok()?.checked_mul(self.dialect.data_alignment)
    }

    fn factored_signed(&self, reader: &mut Reader<'_>) -> Option<i64> {
        reader.sleb()?.checked_mul(self.dialect.data_alignment)
    }

    fn define_cfa(&mut self, opcode: u8, reader: &mut Reader<'_>) -> Option<()> {
        self.state.cfa = match (opcode, self.state.cfa) {
            (0x0c, _) => {
                let register = reader.uleb()?;
                Cfa::Register { register, offset: i64::try_from(reader.uleb()?).ok()? }
            }
            (0x12, _) => {
                let register = reader.uleb()?;
                Cfa::Register { register, offset: self.factored_signed(reader)? }
            }
            (0x0d, Cfa::Register { offset, .. } | Cfa::Expression { offset, .. }) => {
                Cfa::Register { register: reader.uleb()?, offset }
            }
            (0x0e, Cfa::Register { register, .. }) => {
                Cfa::Register { register, offset: i64::try_from(reader.uleb()?).ok()? }
            }
            (0x13, Cfa::Register { register, .. }) => {
                Cfa::Register { register, offset: self.factored_signed(reader)? }
            }
            (0x0e, Cfa::Expression { rule, .. }) => {
                Cfa::Expression { rule, offset: i64::try_from(reader.uleb()?).ok()? }
            }
            (0x13, Cfa::Expression { rule, .. }) => {
                Cfa::Expression { rule, offset: self.factored_signed(reader)? }
            }
            (0x0f, before) => {
                let length = reader.uleb()?;
                let bytes = reader.take(length)?;
                let offset = match before {
                    Cfa::Register { offset, .. } | Cfa::Expression { offset, .. } => offset,
                    Cfa::Unset => 0,
                };
                Cfa::Expression { rule: expression::cfa(bytes, self.dialect.architecture), offset }
            }
            // Half of a register rule changed while there is none.
            _ => return None,
        };
        Some(())
    }

    fn define_column(&mut self, opcode: u8, reader: &mut Reader<'_>) -> Option<()> {
        let register = reader.uleb()?;
        let column = match opcode {
            0x05 => Column::AtCfa(self.factored(reader)?),
            0x06 => {
                self.state.restore(register, &self.initial, self.dialect);
                return Some(());
            }
            0x07 => Column::Undefined,
            0x08 => Column::Same,
            0x09 => Column::Register(reader.uleb()?),
            0x11 => Column::AtCfa(self.factored_signed(reader)?),
            // GNU_negative_offset_extended
            0x2f => Column::AtCfa(self.factored(reader)?.checked_neg()?),
            0x10 => {
                let length = reader.uleb()?;
                let bytes = reader.take(length)?;
                self.state.computed |= register == self.dialect.return_register;
                expression::register_plus_offset(bytes).map_or(Column::Unsupported, Column::At)
            }
            0x14 => {
                reader.uleb()?;
                Column::Unsupported
            }
            0x15 => {
                reader.sleb()?;
                Column::Unsupported
            }
            // 0x16: val_expression
            _ => {
                let length = reader.uleb()?;
                reader.skip(length)?;
                self.state.computed |= register == self.dialect.return_register;
                Column::Unsupported
            }
        };
        self.state.set(register, column, self.dialect);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Dialect, Program, State, initial_state, run, saved_at};
    use crate::unwind::eh_frame::PointerEncoding;
    use crate::unwind::{Architecture, CfaRule, FpRule, RaRule, Rule};

    const RBP: u8 = 6;

    fn rules(architecture: Architecture, instructions: &[u8]) -> Vec<(u64, Rule)> {
        let (return_register, initial) = match architecture {
            Architecture::X86_64 => (16, &b"\x0c\x07\x08\x90\x01"[..]),
            Architecture::Aarch64 => (30, &b"\x0c\x1f\x00"[..]),
        };
        let dialect = Dialect {
            architecture,
            code_alignment: 1,
            data_alignment: -8,
            return_register,
            encoding: PointerEncoding::ABSOLUTE,
        };
        let initial = initial_state(initial, &dialect).unwrap();
        let program = Program {
            instructions,
            instructions_address: 0,
            dialect: &dialect,
            initial: &initial,
            range: 0x1000..0x1100,
        };
        let mut found = Vec::new();
        let outcome = run(&program, &mut Vec::new(), |address, state: &State| {
            found.push((address - 0x1000, state.rule(architecture).unwrap_or(Rule::Unknown)));
        });
        assert_eq!(outcome, Ok(()));
        found
    }

    fn frame(cfa: CfaRule, fp: FpRule, ra: RaRule) -> Rule {
        Rule::Frame { cfa, fp, ra }
    }

    #[test]
    fn tells_where_a_register_is_saved() {
        let dialect = Dialect {
            architecture: Architecture::X86_64,
            code_alignment: 1,
            data_alignment: -8,
            return_register: 16,
            encoding: PointerEncoding::ABSOLUTE,
        };
        let initial = initial_state(b"\x0c\x07\x08\x90\x01", &dialect).unwrap();
        let saved = |instructions, register| {
            let (dialect, initial) = (&dialect, &initial);
            let program = Program { instructions, instructions_address: 0, dialect, initial, range: 0..256 };
            saved_at(&program, register)
        };
        // push r13; push rbx; …; pop rbx; pop r13
        let both =
            b"\x42\x0e\x10\x8d\x02\x41\x0e\x18\x83\x03\x60\x0a\xc3\x0e\x10\x41\xcd\x0e\x08\x41\x0b\x41";
        assert_eq!((saved(both, 3), saved(both, 13), saved(both, 12)), (Some(-24), Some(-16), None));
        assert_eq!(saved(b"\x83\x03\x41\x83\x04\x41", 3), None);
        assert_eq!(saved(b"\x83\x03\x41\x3f", 3), None);
    }

    #[test]
    fn knows_a_return_address_in_a_register_as_vfork_has_it() {
        // pop rdi; def_cfa_offset 0; register rip, rdi
        let found = rules(Architecture::X86_64, b"\x41\x0e\x00\x09\x10\x05");
        assert_eq!(found[1].1, frame(CfaRule::Sp(0), FpRule::Unchanged, RaRule::Register(5)));
    }

    #[test]
    fn knows_realigned_stacks() {
        // def_cfa r10, 0; then cfa = *(rbp - 8), rbp at *(rbp)
        let found = rules(Architecture::X86_64, b"\x0c\x0a\x00\x45\x0f\x03\x76\x78\x06\x10\x06\x02\x76\x00");
        let register = CfaRule::Register { register: 10, offset: 0 };
        assert_eq!(found[0].1, frame(register, FpRule::Unchanged, RaRule::AtCfa(-8)));
        let deref = CfaRule::DerefFp { offset: -8, add: 0 };
        assert_eq!(found[1].1, frame(deref, FpRule::AtFp(0), RaRule::AtCfa(-8)));
        // def_cfa rsp, 8 behind the epilogue, with nothing said of rbp.
        let found = rules(Architecture::X86_64, b"\x10\x06\x02\x76\x00\x41\x0c\x07\x08");
        assert_eq!(found[1].1, frame(CfaRule::Sp(8), FpRule::Unchanged, RaRule::AtCfa(-8)));
    }

    #[test]
    fn keeps_the_offset_that_is_set_under_an_expression() {
        let found = rules(Architecture::X86_64, b"\x0f\x03\x77\x08\x06\x41\x0e\x20\x41\x0d\x06");
        assert_eq!(found[1].1, found[0].1);
        assert_eq!(found[2].1, frame(CfaRule::Fp(32), FpRule::Unchanged, RaRule::AtCfa(-8)));
    }

    #[test]
    fn restores_what_was_remembered_and_what_the_common_entry_says() {
        let found = rules(
            Architecture::X86_64,
            &[0x41, 0x0e, 16, 0x86, 2, 0x0a, 0x41, 0x0e, 8, 0xc0 | RBP, 0x41, 0x0b],
        );
        let pushed = frame(CfaRule::Sp(16), FpRule::AtCfa(-16), RaRule::AtCfa(-8));
        let plain = frame(CfaRule::Sp(8), FpRule::Unchanged, RaRule::AtCfa(-8));
        assert_eq!(found, [(0, plain), (1, pushed), (2, plain), (3, pushed)]);
    }

    #[test]
    fn reads_arm64_with_signed_return_addresses() {
        // negate_ra_state; stp x29, x30, [sp, -32]!
        let found = rules(Architecture::Aarch64, b"\x44\x2d\x44\x0e\x20\x9d\x04\x9e\x03");
        let leaf = frame(CfaRule::Sp(0), FpRule::Unchanged, RaRule::LinkRegister);
        assert_eq!(found[0].1, leaf);
        assert_eq!(found[1].1, leaf);
        assert_eq!(found[2].1, frame(CfaRule::Sp(32), FpRule::AtCfa(-32), RaRule::AtCfa(-24)));
    }
}
