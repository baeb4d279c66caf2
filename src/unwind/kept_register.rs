//! Frames that hang on a register which their callees save.
//!
//! glibc's `_dl_runtime_resolve` makes room for registers whose size only the processor knows, and keeps its old stack
//! pointer in rbx. Of callers only stack and frame pointer are followed; but the function that it calls saves rbx first of
//! all, at a place that this function's own entry tells. So during a call the frame is found in memory.

use super::rows::{CfaRule, RaRule, Rule};
use super::{Architecture, x86_64};
use crate::unwind::instructions::Effect;

/// Calls that are looked at in one file. The loader has three.
pub(super) const MAX_CALLS: usize = 64;

/// Bytes of code that are looked at behind one row.
const LOOKED_AT_BYTES: usize = 4096;

/// A row whose frame hangs on such a register.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hanging {
    /// Bytes from the base of the table.
    pub(super) offset: u32,
    /// Where its function ends.
    pub(super) end: u32,
    pub(super) rule: Rule,
    /// DWARF number.
    register: u8,
}

impl Hanging {
    /// When this rule is one of them: on a register that callees keep (rbx, r12 to r15).
    pub(super) fn of(architecture: Architecture, offset: u32, end: u32, rule: Rule) -> Option<Self> {
        match rule {
            Rule::Frame {
                cfa: CfaRule::Register { register: register @ (3 | 12..=15), .. },
                ra: RaRule::AtCfa(-8),
                ..
            } if architecture == Architecture::X86_64 => Some(Self { offset, end, rule, register }),
            _ => None,
        }
    }

    /// The rule during a call of a function that saves the register so many bytes from its own frame address, which is the
    /// stack pointer on return.
    fn during_call(&self, saved_at: i32) -> Rule {
        match self.rule {
            Rule::Frame { cfa: CfaRule::Register { offset, .. }, fp, ra } => {
                Rule::Frame { cfa: CfaRule::DerefSp { offset: saved_at, add: offset }, fp, ra }
            }
            other => other,
        }
    }

    /// Rows for the calls in `code`, which begins where the row does: from the second byte of a call on, where only a caller
    /// is looked up, and from its end on. `saved_at` answers for the function at this distance from the row.
    pub(super) fn calls(
        &self,
        code: &[u8],
        saved_at: impl Fn(i64, u8) -> Option<i32>,
        mut row: impl FnMut(u32, Rule),
    ) {
        let code = &code[..code.len().min(LOOKED_AT_BYTES)];
        let mut at = 0;
        while let Some(instruction) = code.get(at..).and_then(x86_64::decode) {
            let next = at + usize::from(instruction.len);
            if let Effect::Call(Some(distance)) = instruction.effect
                && let Some(saved_at) =
                    (next as i64).checked_add(distance).and_then(|target| saved_at(target, self.register))
            {
                row(self.offset + at as u32 + 1, self.during_call(saved_at));
                row(self.offset + next as u32, self.rule);
            }
            at = next;
        }
    }
}
