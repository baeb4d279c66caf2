//! Rows to pages: grouped leaves, and inner pages above them. Pure; the layout is that of `bpf/abi.h`.

use super::pool::Page;
use crate::agent::bpf::abi;
use crate::unwind::Row;

/// Rows of one leaf: groups 2 to 63 of 16 rows; the first two groups' room holds the base and the groups' keys.
const LEAF_ROWS: usize = ((abi::LEAF_GROUPS - abi::LEAF_FIRST_GROUP) * abi::LEAF_GROUP_ROWS) as usize;
/// Children of one inner page.
const INNER_KEYS: usize = abi::INNER_KEYS as usize;
/// Word of an inner page behind which the children begin.
const CHILDREN: usize = abi::PAGE_WORDS as usize / 2;

/// Which rows go into which leaf, and how many pages that makes.
#[derive(Debug)]
pub(super) struct Plan {
    /// First row of each leaf.
    leaves: Vec<usize>,
    inner: usize,
    levels: u32,
}

impl Plan {
    /// Cuts the rows into leaves. `None` when they are too many for two inner levels: beyond 259 million.
    pub(super) fn new(rows: &[Row]) -> Option<Self> {
        let mut leaves: Vec<usize> = Vec::new();
        for (i, row) in rows.iter().enumerate() {
            let fits = leaves.last().is_some_and(|&first| {
                i - first < LEAF_ROWS && row.offset - rows[first].offset <= abi::LEAF_SPAN
            });
            if !fits {
                leaves.push(i);
            }
        }
        let (inner, levels) = match leaves.len() {
            0 | 1 => (0, 0),
            n if n <= INNER_KEYS => (1, 1),
            n if n <= INNER_KEYS * INNER_KEYS => (n.div_ceil(INNER_KEYS) + 1, 2),
            _ => return None,
        };
        Some(Self { leaves, inner, levels })
    }

    /// Pages needed.
    pub(super) fn pages(&self) -> usize {
        self.leaves.len() + self.inner
    }

    /// Writes all pages, each under one of `ids` (as many as [`Plan::pages`]); returns the root. `numbers` turns the
    /// table's rules into the machine's.
    pub(super) fn write(
        &self,
        rows: &[Row],
        numbers: &[u16],
        ids: &[u32],
        mut write: impl FnMut(u32, &Page),
    ) -> u32 {
        let (Some(&first), leaf_ids) = (ids.first(), ids) else { return abi::NO_TABLE };
        let mut page: Page = [0; abi::PAGE_WORDS as usize];
        let ends = self.leaves.iter().skip(1).copied().chain([rows.len()]);
        for ((&from, to), &id) in self.leaves.iter().zip(ends).zip(leaf_ids) {
            fill_leaf(&mut page, &rows[from..to], numbers);
            write(id, &page);
        }
        let mut children: Vec<(u32, u32)> =
            self.leaves.iter().zip(leaf_ids).map(|(&row, &id)| (rows[row].offset, id)).collect();
        let mut inner_ids = ids[self.leaves.len()..].iter();
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

/// One leaf of at most [`LEAF_ROWS`] rows within [`abi::LEAF_SPAN`] bytes.
fn fill_leaf(page: &mut Page, rows: &[Row], numbers: &[u16]) {
    let base = rows[0].offset;
    // Padding compares as larger than any key.
    page.fill(u32::MAX);
    page[0] = base;
    for (group, rows) in rows.chunks(abi::LEAF_GROUP_ROWS as usize).enumerate() {
        let group = group + abi::LEAF_FIRST_GROUP as usize;
        let low = rows[0].offset - base;
        // Two groups' keys share a word; the lower half is the even one (both architectures are little-endian).
        let word = &mut page[group / 2];
        *word =
            if group.is_multiple_of(2) { *word & 0xffff_0000 | low } else { *word & 0x0000_ffff | low << 16 };
        for (i, row) in rows.iter().enumerate() {
            let number = numbers.get(usize::from(row.rule)).copied().unwrap_or(super::rules::UNKNOWN);
            page[group * 16 + i] = (row.offset - base) << 16 | u32::from(number);
        }
    }
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
pub(super) mod mirror {
    //! The search of `bpf/search.h`, step by step, over recorded pages.

    use std::collections::HashMap;

    use super::{CHILDREN, Page};
    use crate::agent::bpf::abi;

    fn step(index: &mut usize, by: usize, key: u64, at: impl Fn(usize) -> u64) {
        let difference = key.wrapping_sub(at(*index + by));
        *index += ((difference >> 63) ^ 1) as usize * by;
    }

    fn search_inner(page: &Page, offset: u64) -> usize {
        let mut i = 0;
        for by in [256, 128, 64, 32, 16, 8, 4, 2, 1] {
            step(&mut i, by, offset, |i| u64::from(page[i]));
        }
        i
    }

    fn search_leaf(page: &Page, low: u64) -> usize {
        let halfword = |i: usize| u64::from(page[i / 2] >> (16 * (i % 2)) & 0xffff);
        let mut group = 0;
        for by in [32, 16, 8, 4, 2, 1] {
            step(&mut group, by, low, halfword);
        }
        let group = group << 4;
        let (mut row, key) = (0, low << 16 | 0xfffe);
        for by in [8, 4, 2, 1] {
            step(&mut row, by, key, |row| u64::from(page[group + row]));
        }
        group + row
    }

    /// Number of the rule at `offset`; `None` before the first row.
    pub(in crate::agent::tables) fn find(pages: &HashMap<u32, Page>, root: u32, offset: u64) -> Option<u16> {
        if root == abi::NO_TABLE || offset >= 0xffff_ffff {
            return None;
        }
        let mut id = root & 0x00ff_ffff;
        for _ in 0..root >> 24 {
            let page = &pages[&id];
            match search_inner(page, offset) {
                0 => return None,
                i => id = page[CHILDREN + i],
            }
        }
        let page = &pages[&id];
        let low = offset.checked_sub(u64::from(page[0]))?.min(u64::from(abi::LEAF_SPAN));
        Some((page[search_leaf(page, low)] & 0xffff) as u16)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::model::ElfAddr;
    use crate::unwind::{CfaRule, FpRule, RaRule, Rule, UnwindTable};

    const RULES: u16 = 40;

    fn rules() -> Vec<Rule> {
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
        UnwindTable { base: ElfAddr(0), rows: rows.collect(), rules: rules(), ..UnwindTable::default() }
    }

    fn written(table: &UnwindTable) -> (HashMap<u32, Page>, u32) {
        let plan = Plan::new(&table.rows).unwrap();
        // Not in order, to see that nothing relies on it.
        let ids: Vec<u32> = (1..=plan.pages() as u32).rev().collect();
        let numbers: Vec<u16> = (0..RULES).map(|n| n + 100).collect();
        let mut pages = HashMap::new();
        let root = plan.write(&table.rows, &numbers, &ids, |id, page| {
            assert!(pages.insert(id, *page).is_none(), "page {id} written twice");
        });
        assert_eq!(pages.len(), plan.pages());
        (pages, root)
    }

    fn check(table: &UnwindTable, offsets: impl Iterator<Item = u32>) {
        let (pages, root) = written(table);
        for offset in offsets {
            let found = mirror::find(&pages, root, u64::from(offset));
            let found = found.map(|number| table.rules[usize::from(number) - 100]);
            assert_eq!(found, table.find(ElfAddr(u64::from(offset))), "at offset {offset:#x}");
        }
    }

    /// Every row's first byte, the byte before and the last one.
    fn edges(table: &UnwindTable) -> Vec<u32> {
        let edge = |row: &Row| [row.offset.saturating_sub(1), row.offset, row.offset.saturating_add(1)];
        let mut edges: Vec<u32> = table.rows.iter().flat_map(edge).collect();
        edges.extend([0, 0xfffe, 0xffff, 0x1_0000, u32::MAX - 1]);
        edges
    }

    #[test]
    fn finds_rows_at_the_limits_of_a_leaf() {
        for count in [1, 15, 16, 17, 991, 992, 993, 1984, 1985] {
            let table = table((0..count).map(|n| 77 + n * 3).collect());
            check(&table, edges(&table).into_iter());
        }
    }

    #[test]
    fn finds_the_last_row_of_a_leaf_far_behind_it() {
        // A function of more than 64 KiB under one row, as in the evaluation loop of Python.
        let table = table(vec![0x1000, 0x1004, 0x1000 + 65_534, 0x1000 + 65_535, 0x20_0000, 0xffff_fff0]);
        check(&table, edges(&table).into_iter().chain([0x15_0000, 0x8000_0000]));
    }

    #[test]
    fn three_levels_find_what_two_do() {
        // Rows 64 KiB apart fill one leaf each: more than 511 leaves.
        let table = table((0..2000).map(|n| 5 + n * 65_536).collect());
        assert_eq!(Plan::new(&table.rows).unwrap().levels, 2);
        check(&table, edges(&table).into_iter());
    }

    #[test]
    fn table_without_rows_needs_no_pages() {
        assert_eq!(written(&table(vec![])), (HashMap::new(), abi::NO_TABLE));
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
