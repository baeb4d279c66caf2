//! Rules as the kernel side wants them, each once for the whole machine.

use std::collections::HashMap;

use super::Memory;
use super::search::Found;
use crate::agent::bpf::abi;
use crate::unwind::{Architecture, CfaRule, FpRule, Goroutine, RaRule, Rule};

/// The rule that says nothing: the kernel side then follows the frame pointer.
pub(super) const UNKNOWN: u16 = 0;

/// New rules one table may bring. The whole of a machine had 4,198; a damaged or hostile table must not take them all.
/// What is beyond becomes [`UNKNOWN`].
pub(super) const MAX_NEW_RULES: usize = 2048;

/// Rules kept for those that say one thing: a rule for runs only saves rows.
const KEPT_FOR_PLAIN_RULES: usize = 4096;

/// The machine's numbers of an image's rules.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    /// In the image's order.
    pub(super) numbers: Vec<u16>,
    /// How many became [`UNKNOWN`] for want of room.
    pub(super) lost: u64,
}

/// Why no numbers were given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// Without rules for runs it may be different.
    ForRuns,
    /// Not a single new one fits though one is needed.
    AtAll,
}

/// Numbers given to rules; never taken back, for cached results may name them.
#[derive(Debug)]
pub(super) struct RuleIds {
    ids: HashMap<abi::Rule, u16>,
    by_id: Vec<abi::Rule>,
}

impl RuleIds {
    /// Only the rule that says nothing.
    pub(super) fn new(memory: &mut impl Memory) -> Self {
        let unknown = abi::Rule::default();
        memory.write_rule(UNKNOWN, unknown.words());
        Self { ids: HashMap::from([(unknown, UNKNOWN)]), by_id: vec![unknown] }
    }

    /// What a row means, so many bytes behind it.
    pub(super) fn rule(&self, found: Found) -> Rule {
        let rule = self.by_id.get(usize::from(found.rule)).map(|rule| rule.at(found.passed));
        rule.and_then(|rule| decode(&rule)).unwrap_or(Rule::Unknown)
    }

    /// Number of each rule of an image.
    pub(super) fn number(
        &mut self,
        rules: &[abi::Rule],
        memory: &mut impl Memory,
    ) -> Result<Numbers, NoRoom> {
        let is_new = |rule: &&abi::Rule| !self.ids.contains_key(*rule);
        let new = rules.iter().filter(is_new).count();
        let room = abi::MAX_RULES as usize - self.ids.len();
        if rules.iter().any(|rule| rule.is_run())
            && (new > MAX_NEW_RULES || room < new + KEPT_FOR_PLAIN_RULES)
        {
            return Err(NoRoom::ForRuns);
        }
        if new > 0 && room == 0 {
            return Err(NoRoom::AtAll);
        }
        let mut left = MAX_NEW_RULES;
        let mut numbers = Numbers { numbers: Vec::with_capacity(rules.len()), lost: 0 };
        for rule in rules {
            let number = if let Some(number) = self.ids.get(rule) {
                *number
            } else if left == 0 || self.ids.len() >= abi::MAX_RULES as usize {
                numbers.lost += 1;
                UNKNOWN
            } else {
                left -= 1;
                let number = self.ids.len() as u16;
                memory.write_rule(number, rule.words());
                self.ids.insert(*rule, number);
                self.by_id.push(*rule);
                number
            };
            numbers.numbers.push(number);
        }
        Ok(numbers)
    }

    /// Distinct rules so far.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }
}

/// The rule as the kernel side reads it; `None` when it cannot be expressed there.
#[cfg(test)]
pub(super) fn encode(rule: &Rule) -> Option<abi::Rule> {
    encode_for(Architecture::HOST, rule)
}

/// The same for processes of `architecture`: registers have other places there.
pub(super) fn encode_for(architecture: Architecture, rule: &Rule) -> Option<abi::Rule> {
    if let Rule::Guess { cfa, fp, ra } = *rule {
        let mut guess = encode_for(architecture, &Rule::Frame { cfa, fp, ra })?;
        guess.ra |= abi::RA_GUESS as u8;
        return Some(guess);
    }
    let kind = |cfa: u32| abi::Rule { cfa: cfa as u8, ..abi::Rule::default() };
    let Rule::Frame { cfa, fp, ra } = *rule else {
        return Some(match rule {
            Rule::FramePointer => kind(abi::CFA_FRAME_POINTER),
            Rule::BorrowedFramePointer => {
                abi::Rule { ra: abi::RA_GUESS as u8, ..kind(abi::CFA_FRAME_POINTER) }
            }
            Rule::Goroutine(goroutine) => abi::Rule {
                slot: goroutine_slot(architecture),
                cfa_offset: goroutine.g,
                fp_offset: halves(goroutine.m, goroutine.goroutine),
                ra_offset: halves(goroutine.saved, goroutine.saved_link_register()),
                ..kind(abi::CFA_GOROUTINE)
            },
            Rule::Signal => kind(abi::CFA_SIGNAL),
            Rule::Stop => kind(abi::CFA_STOP),
            Rule::Frame { .. } | Rule::Guess { .. } | Rule::Unknown => kind(abi::CFA_UNKNOWN),
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
            slot = Some(abi::register_slot(architecture, register)?);
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
        RaRule::LinkRegister => Some(abi::link_register(architecture)?),
        RaRule::Register(register) => Some(register),
    };
    let (ra, ra_offset) = match (ra, register, add) {
        (_, Some(register), None) => {
            let wanted = abi::register_slot(architecture, register)?;
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

/// Slot of the register that holds Go's g; without one it lies in memory.
fn goroutine_slot(architecture: Architecture) -> u8 {
    match architecture {
        Architecture::X86_64 => 0,
        Architecture::Aarch64 => 28,
    }
}

/// Two offsets in one word, and back.
fn halves(low: u16, high: u16) -> i32 {
    (u32::from(low) | u32::from(high) << 16) as i32
}

fn from_halves(word: i32) -> (u16, u16) {
    (word as u16, (word as u32 >> 16) as u16)
}

/// [`encode`] the other way round.
fn decode(rule: &abi::Rule) -> Option<Rule> {
    let is_guess = u32::from(rule.ra) & abi::RA_GUESS != 0;
    let register = || abi::slot_register(rule.slot);
    let offset = rule.cfa_offset;
    let is_deref = matches!(u32::from(rule.cfa), abi::CFA_DEREF_SP | abi::CFA_DEREF_FP);
    let cfa = match u32::from(rule.cfa) {
        abi::CFA_SP => CfaRule::Sp(offset),
        abi::CFA_FP => CfaRule::Fp(offset),
        abi::CFA_PLT => CfaRule::Plt { threshold: u8::try_from(offset).ok()? },
        abi::CFA_DEREF_SP => CfaRule::DerefSp { offset, add: rule.ra_offset },
        abi::CFA_DEREF_FP => CfaRule::DerefFp { offset, add: rule.ra_offset },
        abi::CFA_REGISTER => CfaRule::Register { register: register()?, offset },
        abi::CFA_FRAME_POINTER if is_guess => return Some(Rule::BorrowedFramePointer),
        abi::CFA_FRAME_POINTER => return Some(Rule::FramePointer),
        abi::CFA_GOROUTINE => {
            let (m, goroutine) = from_halves(rule.fp_offset);
            let (saved, link_register) = from_halves(rule.ra_offset);
            let saved_fp = link_register.checked_add(8)?;
            return Some(Rule::Goroutine(Goroutine { g: offset, m, goroutine, saved, saved_fp }));
        }
        abi::CFA_SIGNAL => return Some(Rule::Signal),
        abi::CFA_STOP => return Some(Rule::Stop),
        _ => return None,
    };
    let fp = match u32::from(rule.fp) {
        abi::FP_UNCHANGED => FpRule::Unchanged,
        abi::FP_AT_CFA => FpRule::AtCfa(rule.fp_offset),
        abi::FP_AT_FP => FpRule::AtFp(rule.fp_offset),
        _ => FpRule::Unknown,
    };
    let ra = match u32::from(rule.ra) & !abi::RA_GUESS {
        abi::RA_AT_CFA if is_deref => RaRule::AtCfa(-8),
        abi::RA_AT_CFA => RaRule::AtCfa(rule.ra_offset),
        _ => match register()? {
            register if Some(register) == abi::link_register(Architecture::HOST) => RaRule::LinkRegister,
            register => RaRule::Register(register),
        },
    };
    Some(if is_guess { Rule::Guess { cfa, fp, ra } } else { Rule::Frame { cfa, fp, ra } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::tables::recorded::Recorded;

    #[test]
    fn rules_come_back_as_they_went_in() {
        let fp = [FpRule::Unchanged, FpRule::AtCfa(-16), FpRule::AtFp(8), FpRule::Unknown];
        let cfa = [
            CfaRule::Sp(8),
            CfaRule::Fp(-16),
            CfaRule::Plt { threshold: 11 },
            CfaRule::DerefSp { offset: -8, add: 16 },
            CfaRule::DerefFp { offset: -8, add: 0 },
            CfaRule::Register { register: 5, offset: 8 },
        ];
        let frames = cfa.iter().flat_map(|cfa| fp.map(|fp| (*cfa, fp)));
        let frames = frames.map(|(cfa, fp)| Rule::Frame { cfa, fp, ra: RaRule::AtCfa(-8) });
        let goroutine = Goroutine { g: -8, m: 48, goroutine: 0xb8, saved: 56, saved_fp: 96 };
        let whole = [Rule::FramePointer, Rule::Signal, Rule::Stop, Rule::Goroutine(goroutine)];
        let popped = Rule::Frame { cfa: CfaRule::Sp(0), fp: FpRule::Unchanged, ra: RaRule::Register(5) };
        for rule in frames.chain(whole).chain([popped]) {
            assert_eq!(decode(&encode(&rule).unwrap()), Some(rule));
        }
        assert_eq!(decode(&encode(&Rule::Unknown).unwrap()), None);
    }

    fn frame(cfa: CfaRule) -> Rule {
        Rule::Frame { cfa, fp: FpRule::Unchanged, ra: RaRule::AtCfa(-8) }
    }

    #[test]
    fn gives_equal_rules_one_number() {
        let mut memory = Recorded::default();
        let mut ids = RuleIds::new(&mut memory);
        let [first, second] = [8, 16].map(|offset| encode(&frame(CfaRule::Sp(offset))).unwrap());
        let stop = encode(&Rule::Stop).unwrap();
        let mut number = |rules: &[abi::Rule]| ids.number(rules, &mut memory).unwrap().numbers;
        assert_eq!(number(&[first, second, abi::Rule::default()]), [1, 2, 0]);
        assert_eq!(number(&[second, stop]), [2, 3]);
        assert_eq!(ids.len(), 4);
        assert_eq!(memory.rules[&2], second.words());
    }

    #[test]
    fn a_table_cannot_take_all_rules() {
        let mut memory = Recorded::default();
        let mut ids = RuleIds::new(&mut memory);
        let many = |from: i32| {
            (from..from + 3000).map(|n| encode(&frame(CfaRule::Sp(n))).unwrap()).collect::<Vec<_>>()
        };
        let first = ids.number(&many(0), &mut memory).unwrap();
        assert_eq!((first.numbers[2047], first.numbers[2048], first.lost), (2048, UNKNOWN, 952));
        for from in 1..8 {
            let _ = ids.number(&many(from * 10_000), &mut memory);
        }
        assert_eq!(ids.number(&many(-10_000), &mut memory), Err(NoRoom::AtAll));
        assert_eq!(ids.len(), abi::MAX_RULES as usize);
        assert!(ids.number(&many(0)[..10], &mut memory).is_ok());
    }

    #[test]
    fn rules_for_runs_leave_room_for_others() {
        let mut memory = Recorded::default();
        let mut ids = RuleIds::new(&mut memory);
        let runs = |from: i32| {
            let run = |ra_offset| abi::Rule { cfa: abi::CFA_PUSHES as u8, ra_offset, ..abi::Rule::default() };
            (from..from + 2000).map(run).collect::<Vec<_>>()
        };
        let taken = (0..20).take_while(|n| ids.number(&runs(n * 2000), &mut memory).is_ok()).count();
        assert_eq!(taken, 6);
        assert_eq!(ids.number(&runs(99_000), &mut memory), Err(NoRoom::ForRuns));
        let plain = encode(&frame(CfaRule::Sp(8))).unwrap();
        assert_eq!(ids.number(&[plain], &mut memory).unwrap().lost, 0);
    }

    #[test]
    fn what_cannot_be_expressed_is_refused() {
        let Rule::Frame { cfa, fp, ra } = frame(CfaRule::Sp(24)) else { unreachable!() };
        let guess = encode(&Rule::Guess { cfa, fp, ra }).unwrap();
        assert_eq!((guess.ra, guess.cfa_offset), (abi::RA_GUESS as u8 | abi::RA_AT_CFA as u8, 24));
        for rule in [Rule::Guess { cfa, fp, ra }, Rule::BorrowedFramePointer, Rule::FramePointer] {
            assert_eq!(decode(&encode(&rule).unwrap()), Some(rule));
        }
        let deref = CfaRule::DerefFp { offset: -16, add: 8 };
        assert_eq!(encode(&frame(deref)).map(|rule| rule.ra_offset), Some(8));
        let fp = FpRule::Unchanged;
        assert_eq!(encode(&Rule::Frame { cfa: deref, fp, ra: RaRule::AtCfa(-16) }), None);
        assert_eq!(encode(&frame(CfaRule::Register { register: 99, offset: 0 })), None);
        let two = CfaRule::Register { register: 0, offset: 0 };
        assert_eq!(encode(&Rule::Frame { cfa: two, fp, ra: RaRule::Register(5) }), None);
    }
}
