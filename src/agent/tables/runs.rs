//! Runs of push and pop instructions under one rule: fewer rows that say exactly the same.
//!
//! A function that saves six registers has a row for each push, each a byte or two behind the one before and 8 bytes
//! further from the CFA; the same again for its pops. One row and a rule that knows at which bytes the stack pointer moves
//! answer every address as those rows do. Pure; `bpf/abi.h` says how the rule is read, [`abi::Rule::at`] mirrors it.

use std::collections::HashMap;

use crate::agent::bpf::abi;

/// From `offset` on, up to the next row, `rule` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) offset: u32,
    pub(super) rule: abi::Rule,
}

/// Longest distance between two rows of a run. Pushes and pops take 1 or 2 bytes; compilers put a move between some.
const MAX_GAP: u32 = 4;

/// Rows that a rule for runs must save within one table. Rules are scarce (16,384 for the machine): 2,828 files needed
/// 22,625 without this bound, 8,654 with it, for 3 % more rows.
const LEAST_SAVED: usize = 16;

/// Merges the runs of sorted rows.
pub(super) fn merge(rows: &[Row]) -> Vec<Row> {
    let mut saved: HashMap<abi::Rule, usize> = HashMap::new();
    each_run(rows, |run| {
        if run.len() > 1 {
            *saved.entry(rule_of(run)).or_default() += run.len() - 1;
        }
    });
    let mut merged = Vec::with_capacity(rows.len());
    each_run(rows, |run| {
        let rule = rule_of(run);
        if run.len() > 1 && saved.get(&rule).is_some_and(|&saved| saved >= LEAST_SAVED) {
            merged.push(Row { offset: run[0].offset, rule });
        } else {
            merged.extend_from_slice(run);
        }
    });
    merged.shrink_to_fit();
    merged
}

/// The rows that were merged, for when there is no room for rules. Steps beyond the next row, which only a damaged rule
/// has, are left out.
pub(super) fn expand(rows: &[Row]) -> Vec<Row> {
    let ends = rows.iter().skip(1).map(|next| next.offset).chain([u32::MAX]);
    let each = rows.iter().zip(ends).flat_map(|(row, end)| {
        let steps = if row.rule.is_run() { row.rule.ra_offset as u32 & !1 } else { 0 };
        let stepped = (1..=abi::MAX_PASSED).filter(move |passed| steps >> passed & 1 == 1);
        std::iter::once(0).chain(stepped).filter_map(move |passed| {
            let offset = row.offset.checked_add(passed).filter(|offset| *offset < end || passed == 0)?;
            Some(Row { offset, rule: row.rule.at(passed) })
        })
    });
    each.collect()
}

/// Cuts rows into the longest runs, most of them one row long.
fn each_run<'r>(rows: &'r [Row], mut each: impl FnMut(&'r [Row])) {
    let mut rest = rows;
    while !rest.is_empty() {
        let (run, behind) = rest.split_at(run_length(rest));
        each(run);
        rest = behind;
    }
}

/// How many rows from the first on one rule can say; at least 1.
fn run_length(rows: &[Row]) -> usize {
    let first = rows[0];
    if !moves_stack_pointer_only(first.rule) {
        return 1;
    }
    let (mut direction, mut fp_changed, mut length) = (0, false, 1);
    for pair in rows.windows(2) {
        let (before, next) = (pair[0], pair[1]);
        let moved = i64::from(next.rule.cfa_offset) - i64::from(before.rule.cfa_offset);
        let fits = moves_stack_pointer_only(next.rule)
            && next.offset - before.offset <= MAX_GAP
            && next.offset - first.offset <= abi::MAX_PASSED
            && (moved == 8 || moved == -8)
            && (direction == 0 || direction == moved);
        if !fits {
            break;
        }
        if saved_fp(next.rule) != saved_fp(before.rule) {
            // The frame pointer may be saved once on the way.
            if fp_changed || before.rule.fp != abi::FP_UNCHANGED as u8 {
                break;
            }
            fp_changed = true;
        }
        direction = moved;
        length += 1;
    }
    length
}

fn saved_fp(rule: abi::Rule) -> (u8, i32) {
    (rule.fp, rule.fp_offset)
}

/// Stack pointer + offset, return address right below the CFA.
fn moves_stack_pointer_only(rule: abi::Rule) -> bool {
    rule.cfa == abi::CFA_SP as u8 && rule.ra == abi::RA_AT_CFA as u8 && rule.ra_offset == -8 && rule.slot == 0
}

/// The rule that says what all rows of a run say.
fn rule_of(run: &[Row]) -> abi::Rule {
    let (first, last) = (run[0], run[run.len() - 1]);
    if run.len() == 1 {
        return first.rule;
    }
    let passed = |row: &Row| row.offset - first.offset;
    let kind = if last.rule.cfa_offset > first.rule.cfa_offset { abi::CFA_PUSHES } else { abi::CFA_POPS };
    let fp_from = run.iter().find(|row| saved_fp(row.rule) == saved_fp(last.rule)).map_or(0, passed);
    abi::Rule {
        cfa: kind as u8,
        slot: fp_from as u8,
        ra_offset: run[1..].iter().fold(0u32, |steps, row| steps | 1 << passed(row)) as i32,
        fp: last.rule.fp,
        fp_offset: last.rule.fp_offset,
        ..first.rule
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(cfa_offset: i32, fp_offset: Option<i32>) -> abi::Rule {
        abi::Rule {
            cfa: abi::CFA_SP as u8,
            fp: if fp_offset.is_some() { abi::FP_AT_CFA } else { abi::FP_UNCHANGED } as u8,
            cfa_offset,
            fp_offset: fp_offset.unwrap_or(0),
            ra_offset: -8,
            ..abi::Rule::default()
        }
    }

    /// What rows say at an offset.
    fn at(rows: &[Row], offset: u32) -> Option<abi::Rule> {
        let row = rows[..rows.partition_point(|row| row.offset <= offset)].last()?;
        Some(row.rule.at((offset - row.offset).min(abi::MAX_PASSED)))
    }

    /// Saves six registers, runs, restores them; `times` such functions.
    fn functions(times: u32) -> Vec<Row> {
        let pushes =
            [(0, 8, None), (1, 16, Some(-16)), (3, 24, Some(-16)), (5, 32, Some(-16)), (6, 40, Some(-16))];
        let pops = [(70, 32), (71, 24), (73, 16), (75, 8)].map(|(at, cfa)| (at, cfa, Some(-16)));
        let body = [(10, 240, Some(-16)), (69, 40, Some(-16))];
        let one = pushes.into_iter().chain(body).chain(pops);
        let all = (0..times).flat_map(|n| one.clone().map(move |(at, cfa, fp)| (n * 100 + at, cfa, fp)));
        all.map(|(offset, cfa, fp)| Row { offset, rule: rule(cfa, fp) }).collect()
    }

    #[test]
    fn a_function_that_saves_six_registers_has_three_rows() {
        let rows = functions(20);
        let merged = merge(&rows);
        assert_eq!(merged.len(), 3 * 20);
        for offset in 0..2200 {
            assert_eq!(at(&merged, offset), at(&rows, offset), "at {offset}");
        }
        assert_eq!(expand(&merged), rows);
    }

    #[test]
    fn a_rare_run_is_not_worth_a_rule() {
        let rows = functions(1);
        assert_eq!(merge(&rows), rows);
    }

    /// Steps between rows: mostly pushes and pops, close together.
    fn steps() -> impl Strategy<Value = Vec<(u32, i32, u8)>> {
        let gap = prop_oneof![6 => 1_u32..5, 1 => 5_u32..60];
        let moved = prop_oneof![5 => Just(8), 5 => Just(-8), 1 => Just(16), 1 => Just(0)];
        let fp = prop_oneof![8 => Just(0_u8), 1 => 1_u8..4];
        prop::collection::vec((gap, moved, fp), 1..60)
    }

    proptest! {
        #[test]
        fn merged_rows_answer_every_address_alike(steps in steps(), repeated in 1_u32..20) {
            let mut rows: Vec<Row> = Vec::new();
            let mut offset = 5;
            for _ in 0..repeated {
                let (mut cfa, mut fp) = (8, None);
                for &(gap, moved, change) in &steps {
                    match change {
                        1 => fp = Some(-16),
                        2 => fp = Some(-24),
                        3 => fp = None,
                        _ => {}
                    }
                    let rule = rule(cfa, fp);
                    if rows.last().is_none_or(|last| last.rule != rule) {
                        rows.push(Row { offset, rule });
                    }
                    offset += gap;
                    cfa += moved;
                }
                // Another kind ends each function.
                rows.push(Row { offset, rule: abi::Rule::default() });
                offset += 1;
            }
            let merged = merge(&rows);
            prop_assert!(merged.len() <= rows.len());
            for offset in 0..offset + 40 {
                prop_assert_eq!(at(&merged, offset), at(&rows, offset), "at {}", offset);
            }
            prop_assert_eq!(expand(&merged), rows);
        }
    }
}
