//! The few DWARF expressions that occur in call frame information, recognised as patterns.
//!
//! Nothing is evaluated here: an expression that fits no pattern is `None` and its row becomes unknown.

use super::Architecture;
use super::reader::Reader;
use super::rows::CfaRule;

const DW_OP_DEREF: u8 = 0x06;
const DW_OP_CONST1U: u8 = 0x08;
const DW_OP_AND: u8 = 0x1a;
const DW_OP_PLUS: u8 = 0x22;
const DW_OP_PLUS_UCONST: u8 = 0x23;
const DW_OP_SHL: u8 = 0x24;
const DW_OP_GE: u8 = 0x2a;
const DW_OP_LIT0: u8 = 0x30;
const DW_OP_BREG0: u8 = 0x70;

/// `register + offset`, the base of every expression known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BasedOn {
    /// DWARF number.
    pub(super) register: u8,
    pub(super) offset: i32,
}

/// An expression that is one register plus a constant and nothing else.
pub(super) fn register_plus_offset(expression: &[u8]) -> Option<BasedOn> {
    let mut reader = Reader::new(expression);
    let based = base(&mut reader)?;
    reader.is_empty().then_some(based)
}

/// An expression for the canonical frame address.
pub(super) fn cfa(expression: &[u8], architecture: Architecture) -> Option<CfaRule> {
    if let Some(threshold) = plt_threshold(expression, architecture) {
        return Some(CfaRule::Plt { threshold });
    }
    let mut reader = Reader::new(expression);
    let BasedOn { register, offset } = base(&mut reader)?;
    if reader.is_empty() {
        return Some(architecture.cfa_from_register(register, offset));
    }
    if reader.u8()? != DW_OP_DEREF {
        return None;
    }
    let add = if reader.is_empty() { 0 } else { addend(&mut reader)? };
    if !reader.is_empty() {
        return None;
    }
    if register == architecture.sp() {
        Some(CfaRule::DerefSp { offset, add })
    } else if register == architecture.fp() {
        Some(CfaRule::DerefFp { offset, add })
    } else {
        None
    }
}

/// What linkers write for lazy-binding stubs: `rsp + 8 + ((rip & 15) >= threshold) * 8`.
fn plt_threshold(expression: &[u8], architecture: Architecture) -> Option<u8> {
    const RIP: u8 = 16;
    let sp = DW_OP_BREG0 + Architecture::X86_64.sp();
    match *expression {
        [
            base,
            8,
            rip,
            0,
            mask,
            DW_OP_AND,
            literal @ DW_OP_LIT0..=0x3f,
            DW_OP_GE,
            shift,
            DW_OP_SHL,
            DW_OP_PLUS,
        ] if architecture == Architecture::X86_64
            && base == sp
            && rip == DW_OP_BREG0 + RIP
            && mask == DW_OP_LIT0 + 15
            && shift == DW_OP_LIT0 + 3 =>
        {
            Some(literal - DW_OP_LIT0)
        }
        _ => None,
    }
}

fn base(reader: &mut Reader<'_>) -> Option<BasedOn> {
    let register = reader.u8()?.checked_sub(DW_OP_BREG0).filter(|&register| register < 32)?;
    let offset = i32::try_from(reader.sleb()?).ok()?;
    Some(BasedOn { register, offset })
}

/// `+ constant` in each of the ways that producers write it.
fn addend(reader: &mut Reader<'_>) -> Option<i32> {
    let value = match reader.u8()? {
        DW_OP_PLUS_UCONST => return i32::try_from(reader.uleb()?).ok(),
        DW_OP_CONST1U => i32::from(reader.u8()?),
        literal @ DW_OP_LIT0..=0x4f => i32::from(literal - DW_OP_LIT0),
        _ => return None,
    };
    (reader.u8()? == DW_OP_PLUS).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::{BasedOn, cfa, register_plus_offset};
    use crate::unwind::{Architecture, CfaRule};

    const X86: Architecture = Architecture::X86_64;

    #[test]
    fn knows_every_linker_s_plt() {
        for threshold in [9_u8, 10, 11] {
            let bytes = [0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x30 + threshold, 0x2a, 0x33, 0x24, 0x22];
            assert_eq!(cfa(&bytes, X86), Some(CfaRule::Plt { threshold }));
            assert_eq!(cfa(&bytes, Architecture::Aarch64), None);
        }
    }

    #[test]
    fn knows_realigned_stacks() {
        assert_eq!(cfa(&[0x76, 0x78, 0x06], X86), Some(CfaRule::DerefFp { offset: -8, add: 0 }));
        assert_eq!(
            cfa(&[0x77, 0xc0, 0x00, 0x06, 0x23, 8], X86),
            Some(CfaRule::DerefSp { offset: 64, add: 8 })
        );
        assert_eq!(cfa(&[0x77, 0x10, 0x06, 0x38, 0x22], X86), Some(CfaRule::DerefSp { offset: 16, add: 8 }));
        assert_eq!(register_plus_offset(&[0x76, 0x00]), Some(BasedOn { register: 6, offset: 0 }));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for bytes in [&[][..], &[0x06], &[0x77], &[0x77, 8, 0x06, 0x06], &[0x72, 0, 0x06], &[0x77, 0x80]] {
            assert_eq!(cfa(bytes, X86), None, "{bytes:x?}");
        }
    }
}
