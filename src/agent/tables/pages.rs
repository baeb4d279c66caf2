//! Groups of rows to pages: leaves, and inner pages above them. Pure; the layout is that of `bpf/abi.h`.

use super::image::{Group, NO_ROW, RULE_MASK, TableImage};
use super::pool::Page;
use crate::agent::bpf::abi;

/// Groups of one leaf. The first four groups' room holds the groups' first offsets.
pub(super) const LEAF_GROUPS: usize = (abi::LEAF_GROUPS - abi::LEAF_FIRST_GROUP) as usize;
/// Number of a leaf's first group.
pub(super) const FIRST_GROUP: usize = abi::LEAF_FIRST_GROUP as usize;
/// Rows of one group.
pub(super) const GROUP_ROWS: usize = abi::LEAF_GROUP_ROWS as usize;
/// Children of one inner page.
const INNER_KEYS: usize = abi::INNER_KEYS as usize;
/// Word of an inner page behind which the children begin.
pub(super) const CHILDREN: usize = abi::PAGE_WORDS as usize / 2;

/// How many pages of which kind a table takes.
#[derive(Debug)]
pub(super) struct Plan {
    leaves: usize,
    inner: usize,
    levels: u32,
}

impl Plan {
    /// For a number of groups. `None` when they are too many for two inner levels: beyond 15.6 million.
    pub(super) fn new(groups: usize) -> Option<Self> {
        let leaves = groups.div_ceil(LEAF_GROUPS);
        let (inner, levels) = match leaves {
            0 | 1 => (0, 0),
            n if n <= INNER_KEYS => (1, 1),
            n if n <= INNER_KEYS * INNER_KEYS => (n.div_ceil(INNER_KEYS) + 1, 2),
            _ => return None,
        };
        Some(Self { leaves, inner, levels })
    }

    /// Pages needed.
    pub(super) fn pages(&self) -> usize {
        self.leaves + self.inner
    }

    /// Writes all pages, each under one of `ids` (as many as [`Plan::pages`]); returns the root. `numbers` turns the
    /// image's rules into the machine's.
    pub(super) fn write(
        &self,
        image: &TableImage,
        numbers: &[u16],
        ids: &[u32],
        mut write: impl FnMut(u32, &Page),
    ) -> u32 {
        let Some(&first) = ids.first() else { return abi::NO_TABLE };
        let mut page: Page = [0; abi::PAGE_WORDS as usize];
        let mut children: Vec<(u32, u32)> = Vec::with_capacity(self.leaves);
        let leaves = image.firsts.chunks(LEAF_GROUPS).zip(image.groups.chunks(LEAF_GROUPS));
        for ((firsts, groups), &id) in leaves.zip(ids) {
            fill_leaf(&mut page, firsts, groups, numbers);
            write(id, &page);
            children.push((firsts[0], id));
        }
        let mut inner_ids = ids[self.leaves..].iter();
        let mut root = first;
        for _ in 0..self.levels {
            let mut above = Vec::new();
            for chunk in children.chunks(INNER_KEYS) {
                let Some(&id) = inner_ids.next() else { return abi::NO_TABLE };
                fill_inner(&mut page, chunk);
                write(id, &page);
                above.push((chunk[0].0, id));
                root = id;
            }
            children = above;
        }
        self.levels << 24 | root
    }
}

/// One leaf of at most [`LEAF_GROUPS`] groups.
fn fill_leaf(page: &mut Page, firsts: &[u32], groups: &[Group], numbers: &[u16]) {
    // Padding compares as larger than any key.
    page.fill(u32::MAX);
    page[..FIRST_GROUP].fill(0);
    page[FIRST_GROUP..][..firsts.len()].copy_from_slice(firsts);
    for (to, group) in page[FIRST_GROUP * GROUP_ROWS..].chunks_exact_mut(GROUP_ROWS).zip(groups) {
        to.copy_from_slice(&renumbered(group, numbers));
    }
}

/// A group with the machine's numbers.
pub(super) fn renumbered(group: &Group, numbers: &[u16]) -> Group {
    group.map(|row| match row {
        NO_ROW => NO_ROW,
        row => {
            let number = numbers.get((row & RULE_MASK) as usize).copied().unwrap_or(super::rules::UNKNOWN);
            row & !RULE_MASK | u32::from(number)
        }
    })
}

/// One inner page: first offset and id of each child.
fn fill_inner(page: &mut Page, children: &[(u32, u32)]) {
    page.fill(u32::MAX);
    for (i, &(offset, id)) in children.iter().enumerate() {
        page[1 + i] = offset;
        page[CHILDREN + 1 + i] = id;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::super::{rules, search};
    use super::*;
    use crate::model::ElfAddr;
    use crate::unwind::{CfaRule, FpRule, RaRule, Row, Rule, UnwindTable};

    const RULES: u16 = 40;

    fn some_rules() -> Vec<Rule> {
        let rule = |n: u16| Rule::Frame {
            cfa: CfaRule::Sp(i32::from(n) * 8),
            fp: FpRule::Unchanged,
            ra: RaRule::AtCfa(-8),
        };
        (0..RULES).map(rule).collect()
    }

    fn table(mut offsets: Vec<u32>) -> UnwindTable {
        offsets.sort_unstable();
        offsets.dedup();
        let rows = offsets.iter().enumerate().map(|(i, &offset)| Row { offset, rule: i as u16 % RULES });
        UnwindTable { base: ElfAddr(0), rows: rows.collect(), rules: some_rules(), ..UnwindTable::default() }
    }

    fn written(image: &TableImage) -> (HashMap<u32, Page>, u32) {
        let plan = Plan::new(image.groups.len()).unwrap();
        // Not in order, to see that nothing relies on it.
        let ids: Vec<u32> = (1..=plan.pages() as u32).rev().collect();
        let numbers: Vec<u16> = (0..=u16::MAX / 4).map(|n| n + 100).collect();
        let mut pages = HashMap::new();
        let root = plan.write(image, &numbers, &ids, |id, page| {
            assert!(pages.insert(id, *page).is_none(), "page {id} written twice");
        });
        assert_eq!(pages.len(), plan.pages());
        (pages, root)
    }

    fn check(table: &UnwindTable, offsets: impl Iterator<Item = u32>) {
        let image = TableImage::new(table);
        let (pages, root) = written(&image);
        for offset in offsets {
            let found = search::find(&|id, word| pages[&id][word], root, u64::from(offset));
            let found = found.map(|found| image.rules[usize::from(found.rule) - 100].at(found.passed));
            let expected = table.find(ElfAddr(u64::from(offset))).map(|rule| rules::encode(&rule).unwrap());
            assert_eq!(found, expected, "at offset {offset:#x}");
        }
    }

    /// Every row's first byte, the byte before and the last one.
    fn edges(table: &UnwindTable) -> Vec<u32> {
        let edge = |row: &Row| [row.offset.saturating_sub(1), row.offset, row.offset.saturating_add(1)];
        let mut edges: Vec<u32> = table.rows.iter().flat_map(edge).collect();
        edges.extend([0, abi::GROUP_SPAN, abi::GROUP_SPAN + 1, u32::MAX - 1]);
        edges
    }

    #[test]
    fn finds_rows_at_the_limits_of_a_leaf() {
        for count in [1, 15, 16, 17, 959, 960, 961, 1920, 1921] {
            let table = table((0..count).map(|n| 77 + n * 3).collect());
            check(&table, edges(&table).into_iter());
        }
    }

    #[test]
    fn finds_the_last_row_of_a_leaf_far_behind_it() {
        // A function of more than 64 KiB under one row, as in the evaluation loop of Python; one beyond a group's span.
        let span = abi::GROUP_SPAN;
        let table =
            table(vec![0x1000, 0x1004, 0x1_1000, 0x1000 + span - 32, 0x1000 + span, 0x20_0000, 0xffff_fff0]);
        check(&table, edges(&table).into_iter().chain([0x15_0000, 0x8000_0000]));
    }

    #[test]
    fn three_levels_find_what_two_do() {
        // Rows 100 KiB apart leave three to a group: more than 511 leaves.
        let table = table((0..40_000).map(|n| 5 + n * 100_000).collect::<Vec<u32>>());
        assert_eq!(Plan::new(TableImage::new(&table).groups.len()).unwrap().levels, 1);
        check(&table, edges(&table).into_iter());
        let table = self::table((0..600_000).map(|n| 5 + n * 7).collect());
        assert_eq!(Plan::new(TableImage::new(&table).groups.len()).unwrap().levels, 2);
        check(&table, edges(&table).into_iter().step_by(101));
    }

    #[test]
    fn table_without_rows_needs_no_pages() {
        assert_eq!(written(&TableImage::new(&table(vec![]))), (HashMap::new(), abi::NO_TABLE));
    }

    proptest! {
        #[test]
        fn search_equals_the_table(
            gaps in prop::collection::vec(prop_oneof![8 => 1_u32..64, 1 => 1_u32..200_000], 1..4000),
            first in 0_u32..100_000,
            probes in prop::collection::vec(any::<u32>(), 50),
        ) {
            let offsets = gaps.iter().scan(first, |at, gap| { *at = at.checked_add(*gap)?; Some(*at) });
            let table = table(offsets.collect());
            let span = table.rows.last().unwrap().offset.saturating_add(1000);
            let inside = probes.iter().map(|probe| probe % span);
            let legal = |offset: &u32| *offset != u32::MAX;
            check(&table, edges(&table).into_iter().chain(probes.iter().copied()).chain(inside).filter(legal));
        }
    }
}
