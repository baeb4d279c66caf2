//! Mappings of a process to sorted pages. Pure; the layout is that of `bpf/abi.h`.

use super::pool::Page;
use crate::agent::bpf::abi;
use crate::agent::bpf::abi::mapping_page::{BIAS, NO_START, PAGES, ROOT, START};

/// Mappings of one page.
const PER_PAGE: usize = abi::PAGE_MAPPINGS as usize;
/// Mappings of one process that the kernel side can hold.
pub(super) const MAX_MAPPINGS: usize = PER_PAGE * PER_PAGE;
/// Unit of a mapping's length.
const UNIT: u64 = 4096;

/// One mapping with its table resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// First runtime address.
    pub(super) start: u64,
    /// Length, bytes.
    pub(super) len: u64,
    /// Runtime address minus offset in the table, wrapping.
    pub(super) bias: u64,
    /// Root page, or [`abi::NO_TABLE`].
    pub(super) root: u32,
}

/// Joins neighbours without a table: JIT areas that differ in nothing the kernel side looks at.
pub(super) fn join(entries: Vec<Entry>) -> Vec<Entry> {
    let mut joined: Vec<Entry> = Vec::with_capacity(entries.len());
    for entry in entries {
        match joined.last_mut() {
            Some(last)
                if last.root == abi::NO_TABLE
                    && entry.root == abi::NO_TABLE
                    && last.start.checked_add(last.len) == Some(entry.start) =>
            {
                last.len = last.len.saturating_add(entry.len);
            }
            _ => joined.push(entry),
        }
    }
    joined
}

/// Pages needed for `count` mappings.
pub(super) fn pages_needed(count: usize) -> usize {
    if count <= PER_PAGE { 1 } else { 1 + count.div_ceil(PER_PAGE) }
}

/// Writes sorted mappings, at most [`MAX_MAPPINGS`], into pages `ids`; returns the process row.
pub(super) fn write(
    entries: &[Entry],
    stamp: u32,
    ids: &[u32],
    mut write: impl FnMut(u32, &Page),
) -> abi::Process {
    if entries.len() <= PER_PAGE {
        write(ids[0], &page(stamp, entries));
        return abi::Process { stamp, page: ids[0], levels: 0, program: 0 };
    }
    let mut above = Vec::new();
    for (chunk, &id) in entries.chunks(PER_PAGE).zip(&ids[1..]) {
        write(id, &page(stamp, chunk));
        above.push(Entry { root: id, ..chunk[0] });
    }
    write(ids[0], &page(stamp, &above));
    abi::Process { stamp, page: ids[0], levels: 1, program: 0 }
}

fn page(stamp: u32, entries: &[Entry]) -> Page {
    let mut page: Page = [0; abi::PAGE_WORDS as usize];
    put(&mut page, START, 0, u64::from(stamp));
    for i in 1..=PER_PAGE {
        let start = entries.get(i - 1).map_or(NO_START, |entry| entry.start.min(NO_START));
        put(&mut page, START, i, start);
    }
    for (i, entry) in entries.iter().enumerate() {
        put(&mut page, BIAS, i + 1, entry.bias);
        page[ROOT + i + 1] = entry.root;
        page[PAGES + i + 1] = u32::try_from(entry.len.div_ceil(UNIT)).unwrap_or(u32::MAX);
    }
    page
}

/// Stores a 64-bit value as two words.
fn put(page: &mut Page, column: usize, index: usize, value: u64) {
    let bytes = value.to_ne_bytes();
    let half = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    page[column + 2 * index] = half(0);
    page[column + 2 * index + 1] = half(4);
}

#[cfg(test)]
pub(super) mod mirror {
    //! `find_mapping` of `bpf/search.h`, without its cache.

    use std::collections::HashMap;

    use super::{BIAS, Entry, PAGES, Page, ROOT, START};
    use crate::agent::bpf::abi;

    fn get(page: &Page, column: usize, index: usize) -> u64 {
        let low = page[column + 2 * index].to_ne_bytes();
        let high = page[column + 2 * index + 1].to_ne_bytes();
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&low);
        bytes[4..].copy_from_slice(&high);
        u64::from_ne_bytes(bytes)
    }

    fn search(page: &Page, pc: u64) -> usize {
        let mut i = 0;
        for by in [64, 32, 16, 8, 4, 2, 1] {
            let difference = pc.wrapping_sub(get(page, START, i + by));
            i += ((difference >> 63) ^ 1) as usize * by;
        }
        i
    }

    /// The mapping that covers `pc`. Panics when a page carries another stamp than the row.
    pub(in crate::agent::tables) fn find(
        pages: &HashMap<u32, Page>,
        row: abi::Process,
        pc: u64,
    ) -> Option<Entry> {
        let mut page = &pages[&row.page];
        assert_eq!(get(page, START, 0), u64::from(row.stamp));
        if row.levels == 1 {
            match search(page, pc) {
                0 => return None,
                i => page = &pages[&page[ROOT + i]],
            }
            assert_eq!(get(page, START, 0), u64::from(row.stamp));
        }
        let i = search(page, pc);
        let start = get(page, START, i);
        let len = u64::from(page[PAGES + i]) << 12;
        (i > 0 && pc.wrapping_sub(start) < len).then(|| Entry {
            start,
            len,
            bias: get(page, BIAS, i),
            root: page[ROOT + i],
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn entries(count: usize) -> Vec<Entry> {
        let entry = |n: u64| Entry {
            start: 0x7f00_0000_0000 + n * 0x10_0000,
            len: 0x4000,
            bias: n << 33,
            root: n as u32,
        };
        (0..count as u64).map(entry).collect()
    }

    fn written(entries: &[Entry]) -> (HashMap<u32, Page>, abi::Process) {
        let ids: Vec<u32> = (10..10 + pages_needed(entries.len()) as u32).collect();
        let mut pages = HashMap::new();
        let row = write(entries, 42, &ids, |id, page| assert!(pages.insert(id, *page).is_none()));
        assert_eq!(pages.len(), ids.len());
        (pages, row)
    }

    #[test]
    fn finds_every_mapping_at_both_sizes() {
        for count in [0, 1, 2, 126, 127, 128, 129, 254, 255, 3000, MAX_MAPPINGS] {
            let entries = entries(count);
            let (pages, row) = written(&entries);
            assert_eq!(row.levels, u32::from(count > 127));
            for entry in &entries {
                assert_eq!(mirror::find(&pages, row, entry.start), Some(*entry));
                assert_eq!(mirror::find(&pages, row, entry.start + entry.len - 1), Some(*entry));
                assert_eq!(mirror::find(&pages, row, entry.start + entry.len), None);
                assert_eq!(mirror::find(&pages, row, entry.start - 1), None);
            }
            assert_eq!(mirror::find(&pages, row, 0), None);
            assert_eq!(mirror::find(&pages, row, NO_START - 1), None);
        }
    }

    #[test]
    fn joins_only_touching_neighbours_without_a_table() {
        let at = |start: u64, root: u32| Entry { start, len: 0x1000, bias: 0, root };
        let none = abi::NO_TABLE;
        let joined =
            join(vec![at(0x1000, none), at(0x2000, none), at(0x3000, 7), at(0x4000, none), at(0x6000, none)]);
        let shape: Vec<_> = joined.iter().map(|entry| (entry.start, entry.len, entry.root)).collect();
        assert_eq!(
            shape,
            [(0x1000, 0x2000, none), (0x3000, 0x1000, 7), (0x4000, 0x1000, none), (0x6000, 0x1000, none)]
        );
    }

    proptest! {
        #[test]
        fn search_equals_a_scan(
            shape in prop::collection::vec((1_u64..50, 1_u64..20), 1..400),
            probes in prop::collection::vec(0_u64..0x2000_0000, 60),
        ) {
            let mut at = 0x40_0000;
            let entries: Vec<Entry> = shape.iter().enumerate().map(|(n, (gap, pages))| {
                at += gap * 4096;
                let entry = Entry { start: at, len: pages * 4096, bias: n as u64, root: n as u32 };
                at += entry.len;
                entry
            }).collect();
            let (pages, row) = written(&entries);
            for pc in probes {
                let expected = entries.iter().find(|e| pc >= e.start && pc - e.start < e.len).copied();
                prop_assert_eq!(mirror::find(&pages, row, pc), expected);
            }
        }
    }
}
