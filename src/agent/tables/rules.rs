//! Rules as the kernel side wants them, each once for the whole machine.

use std::collections::HashMap;

use super::Memory;
use crate::agent::bpf::abi;
use crate::unwind::{CfaRule, FpRule, RaRule, Rule};

/// The rule that says nothing: the kernel side then follows the frame pointer.
pub(super) const UNKNOWN: u16 = 0;

/// New rules one table may bring. The whole of a machine had 4,198; a damaged or hostile table must not take them all.
/// What is beyond becomes [`UNKNOWN`].
pub(super) const MAX_NEW_RULES: usize = 2048;

/// Numbers given to rules; never taken back, for cached results may name them.
#[derive(Debug)]
pub(super) struct RuleIds {
    ids: HashMap<abi::Rule, u16>,
}

impl RuleIds {
    /// Only the rule that says nothing.
    pub(super) fn new(memory: &mut impl Memory) -> Self {
        let unknown = abi::Rule::default();
        memory.write_rule(UNKNOWN, unknown.words());
        Self { ids: HashMap::from([(unknown, UNKNOWN)]) }
    }

    /// Number of each rule of a table, and how many could not be expressed or numbered. `None` when there is no room for
    /// a single new one though one is needed.
    pub(super) fn number(&mut self, rules: &[Rule], memory: &mut impl Memory) -> Option<(Vec<u16>, u64)> {
        let (mut new, mut lost) = (0, 0);
        let mut numbers = Vec::with_capacity(rules.len());
        for rule in rules {
            let encoded = encode(rule);
            lost += u64::from(encoded.is_none());
            let encoded = encoded.unwrap_or_default();
            let number = if let Some(number) = self.ids.get(&encoded) {
                *number
            } else if self.ids.len() >= abi::MAX_RULES as usize {
                return None;
            } else if new == MAX_NEW_RULES {
                lost += 1;
                UNKNOWN
            } else {
                new += 1;
                let number = self.ids.len() as u16;
                memory.write_rule(number, encoded.words());
                self.ids.insert(encoded, number);
                number
            };
            numbers.push(number);
        }
        Some((numbers, lost))
    }

    /// Distinct rules so far.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }
}

/// The rule as the kernel side reads it; `None` when it cannot be expressed there.
pub(super) fn encode(rule: &Rule) -> Option<abi::Rule> {
    let kind = |cfa: u32| abi::Rule { cfa: cfa as u8, ..abi::Rule::default() };
    let Rule::Frame { cfa, fp, ra } = *rule else {
        return Some(match rule {
            Rule::FramePointer => kind(abi::CFA_FRAME_POINTER),
            Rule::Signal => kind(abi::CFA_SIGNAL),
            Rule::Stop => kind(abi::CFA_STOP),
            Rule::Frame { .. } | Rule::Unknown => kind(abi::CFA_UNKNOWN),
        });
    };
    let mut slot = None;
    let (cfa, cfa_offset, add) = match cfa {
        CfaRule::Sp(offset) => (abi::CFA_SP, offset, None),
        CfaRule::Fp(offset) => (abi::CFA_FP, offset, None),
        CfaRule::Plt { threshold } => (abi::CFA_PLT, i32::from(threshold), None),
        CfaRule::DerefSp { offset, add } => (abi::CFA_DEREF_SP, offset, Some(add)),
        CfaRule::DerefFp { offset, add } => (abi::CFA_DEREF_FP, offset, Some(add)),
        CfaRule::Register { register, offset } => {
            slot = Some(abi::register_slot(register)?);
            (abi::CFA_REGISTER, offset, None)
        }
    };
    let (fp, fp_offset) = match fp {
        FpRule::Unchanged => (abi::FP_UNCHANGED, 0),
        FpRule::AtCfa(offset) => (abi::FP_AT_CFA, offset),
        FpRule::AtFp(offset) => (abi::FP_AT_FP, offset),
        FpRule::Unknown => (abi::FP_UNKNOWN, 0),
    };
    let register = match ra {
        RaRule::AtCfa(_) => None,
        RaRule::LinkRegister => Some(abi::LINK_REGISTER?),
        RaRule::Register(register) => Some(register),
    };
    let (ra, ra_offset) = match (ra, register, add) {
        (_, Some(register), None) => {
            let wanted = abi::register_slot(register)?;
            // One place for both registers: they must be the same.
            if slot.is_some_and(|slot| slot != wanted) {
                return None;
            }
            slot = Some(wanted);
            (abi::RA_REGISTER, 0)
        }
        (RaRule::AtCfa(offset), None, None) => (abi::RA_AT_CFA, offset),
        // The sum takes the place of the offset, which is then -8.
        (RaRule::AtCfa(-8), None, Some(add)) => (abi::RA_AT_CFA, add),
        _ => return None,
    };
    Some(abi::Rule {
        cfa: cfa as u8,
        fp: fp as u8,
        ra: ra as u8,
        slot: slot.unwrap_or(0),
        cfa_offset,
        fp_offset,
        ra_offset,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::tables::recorded::Recorded;

    fn frame(cfa: CfaRule) -> Rule {
        Rule::Frame { cfa, fp: FpRule::Unchanged, ra: RaRule::AtCfa(-8) }
    }

    #[test]
    fn gives_equal_rules_one_number() {
        let mut memory = Recorded::default();
        let mut ids = RuleIds::new(&mut memory);
        let (first, second) = (frame(CfaRule::Sp(8)), frame(CfaRule::Sp(16)));
        assert_eq!(ids.number(&[first, second, Rule::Unknown], &mut memory), Some((vec![1, 2, 0], 0)));
        assert_eq!(ids.number(&[second, Rule::Stop], &mut memory), Some((vec![2, 3], 0)));
        assert_eq!(ids.len(), 4);
        assert_eq!(memory.rules[&2], encode(&second).unwrap().words());
    }

    #[test]
    fn a_table_cannot_take_all_rules() {
        let mut memory = Recorded::default();
        let mut ids = RuleIds::new(&mut memory);
        let many = |from: i32| (from..from + 3000).map(|n| frame(CfaRule::Sp(n))).collect::<Vec<_>>();
        let (numbers, lost) = ids.number(&many(0), &mut memory).unwrap();
        assert_eq!((numbers[2047], numbers[2048], lost), (2048, UNKNOWN, 952));
        for from in 1..8 {
            let _ = ids.number(&many(from * 10_000), &mut memory);
        }
        assert_eq!(ids.number(&many(-10_000), &mut memory), None);
        assert_eq!(ids.len(), abi::MAX_RULES as usize);
        assert!(ids.number(&many(0)[..10], &mut memory).is_some());
    }

    #[test]
    fn what_cannot_be_expressed_is_refused() {
        let deref = CfaRule::DerefFp { offset: -16, add: 8 };
        assert_eq!(encode(&frame(deref)).map(|rule| rule.ra_offset), Some(8));
        let fp = FpRule::Unchanged;
        assert_eq!(encode(&Rule::Frame { cfa: deref, fp, ra: RaRule::AtCfa(-16) }), None);
        assert_eq!(encode(&frame(CfaRule::Register { register: 99, offset: 0 })), None);
        let two = CfaRule::Register { register: 0, offset: 0 };
        assert_eq!(encode(&Rule::Frame { cfa: two, fp, ra: RaRule::Register(5) }), None);
    }
}
