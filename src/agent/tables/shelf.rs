//! Small tables side by side in one leaf, so that a hundred rows do not take 4 KiB.
//!
//! The offsets of a leaf are 32 bits wide. Each table on it gets 64 MiB of them, a window, and a mapping's bias leads
//! into the window of its table: the search is that of any leaf, at no cost. The first row of a window says that nothing
//! is known, so an address before a table's rows never finds those of its neighbour, and [`Place::clip`] keeps mappings
//! inside.
//!
//! Groups are written while programs search the same leaf for other tables. They cannot go wrong: each word is stored
//! whole, and every first offset that is written, before and after, lies in the window of the table that comes or in
//! padding, on the same side of all other windows.

use super::image::{Group, NO_ROW, TableImage};
use super::pages::{FIRST_GROUP, GROUP_ROWS, LEAF_GROUPS, renumbered};
use super::processes::Entry;
use super::runs::Row;
use crate::agent::bpf::abi;

/// Offsets of a window.
const WINDOW_BYTES: u32 = 1 << 26;
/// How far into its window a table's offset 0 lies: mappings begin before the first row. Within the reach of one group.
const BEFORE: u32 = 128 << 10;
/// Largest table: half a leaf. Larger ones leave little of a leaf of their own.
const MAX_GROUPS: usize = LEAF_GROUPS / 2;
/// Windows of one leaf.
const WINDOWS: usize = (1 << 32) / WINDOW_BYTES as usize;
/// Unit of a mapping.
const UNIT: u64 = 4096;

/// Where on which leaf a table lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) page: u32,
    window: usize,
    /// First of its groups, counted from the leaf's first.
    group: usize,
    groups: usize,
}

impl Place {
    fn window_start(&self) -> u32 {
        self.window as u32 * WINDOW_BYTES
    }

    /// What is added to a mapping's bias (runtime minus ELF address) so that it leads to a table of this base.
    pub(super) fn bias(&self, base: u64) -> u64 {
        base.wrapping_sub(u64::from(self.window_start() + BEFORE))
    }

    /// Where on the leaf an address of a table of this base is looked up; `None` outside its window.
    pub(super) fn offset(&self, base: u64, address: u64) -> Option<u64> {
        let offset = address.wrapping_sub(self.bias(base));
        let inside = offset.wrapping_sub(u64::from(self.window_start()));
        (inside < u64::from(WINDOW_BYTES) - UNIT).then_some(offset)
    }

    /// The entry cut to the window; what lies outside has no table.
    pub(super) fn clip(&self, entry: Entry, mut each: impl FnMut(Entry)) {
        let first = entry.bias.wrapping_add(u64::from(self.window_start()));
        // As signed distances: a bias may be negative.
        let before = first.wrapping_sub(entry.start) as i64;
        let before = u64::try_from(before).unwrap_or(0).next_multiple_of(UNIT).min(entry.len);
        let window_left = i64::from(WINDOW_BYTES) - (entry.start + before).wrapping_sub(first) as i64;
        // The last bytes of a window are kept for groups without rows.
        let inside = (u64::try_from(window_left).unwrap_or(0) / UNIT * UNIT).saturating_sub(UNIT);
        let inside = inside.min(entry.len - before);
        let parts = [
            (0, before, abi::NO_TABLE),
            (before, inside, entry.root),
            (before + inside, u64::MAX, abi::NO_TABLE),
        ];
        for (from, len, root) in parts {
            let len = len.min(entry.len - from);
            if len > 0 {
                each(Entry { start: entry.start + from, len, root, ..entry });
            }
        }
    }

    /// Every word to store, in this order: rows before the first offsets that lead to them.
    pub(super) fn words(&self, image: &TableImage, numbers: &[u16]) -> Vec<(usize, u32)> {
        let mut words = Vec::with_capacity(self.groups * (GROUP_ROWS + 1));
        let nothing: Group = std::array::from_fn(|row| if row == 0 { 0 } else { NO_ROW });
        for n in 0..self.groups {
            let group = image.groups.get(n).map_or(nothing, |group| renumbered(group, numbers));
            let at = (FIRST_GROUP + self.group + n) * GROUP_ROWS;
            words.extend(group.iter().enumerate().map(|(row, word)| (at + row, *word)));
        }
        let end = self.window_start() + (WINDOW_BYTES - self.groups as u32);
        words.extend((0..self.groups).map(|n| {
            let first = image.firsts.get(n).map_or(end + n as u32, |first| self.window_start() + first);
            (FIRST_GROUP + self.group + n, first)
        }));
        words
    }
}

/// The image as it lies on a shelf; `None` when it is too large or too wide for one.
pub(super) fn fitting(image: &TableImage) -> Option<TableImage> {
    if image.groups.len() > MAX_GROUPS || image.firsts.last().is_none_or(|last| *last > WINDOW_BYTES / 2) {
        return None;
    }
    let head = Row { offset: 0, rule: abi::Rule::default() };
    let rows = image.rows().map(|row| Row { offset: row.offset + BEFORE, ..row });
    let shifted = TableImage::of_rows(image.base, &std::iter::once(head).chain(rows).collect::<Vec<_>>());
    Some(TableImage { source_rows: image.source_rows, ..shifted })
}

#[derive(Debug)]
struct Run {
    group: usize,
    groups: usize,
    used: bool,
}

#[derive(Debug)]
struct Shelf {
    page: u32,
    /// By place; number n has window n.
    runs: Vec<Run>,
}

/// All leaves that several tables share.
#[derive(Debug, Default)]
pub(super) struct Shelves {
    list: Vec<Shelf>,
}

impl Shelves {
    /// A place for this many groups on a leaf that is there: a gap that fits best, else behind the last table.
    pub(super) fn take(&mut self, groups: usize) -> Option<Place> {
        let gaps = self.list.iter().enumerate().flat_map(|(at, shelf)| {
            shelf.runs.iter().enumerate().map(move |(window, run)| (run, at, window))
        });
        let fits = |run: &Run| !run.used && run.groups >= groups && run.groups <= 2 * groups;
        let gap = gaps.filter(|(run, ..)| fits(run)).min_by_key(|(run, ..)| run.groups);
        if let Some((at, window)) = gap.map(|(_, at, window)| (at, window)) {
            let shelf = &mut self.list[at];
            let run = &mut shelf.runs[window];
            run.used = true;
            return Some(Place { page: shelf.page, window, group: run.group, groups: run.groups });
        }
        // The fullest leaf that has room: others stay free for larger tables.
        let roomy = |shelf: &&mut Shelf| shelf.end() + groups <= LEAF_GROUPS && shelf.runs.len() < WINDOWS;
        let shelf = self.list.iter_mut().filter(roomy).max_by_key(|shelf| shelf.end())?;
        let (window, group) = (shelf.runs.len(), shelf.end());
        shelf.runs.push(Run { group, groups, used: true });
        Some(Place { page: shelf.page, window, group, groups })
    }

    /// A new leaf; its page holds [`empty_leaf`].
    pub(super) fn add(&mut self, page: u32) {
        self.list.push(Shelf { page, runs: Vec::new() });
    }

    /// Gives a place back that no program has reached for the pool's grace. Returns the page when nothing else lies there.
    pub(super) fn give_back(&mut self, place: Place) -> Option<u32> {
        let at = self.list.iter().position(|shelf| shelf.page == place.page)?;
        if let Some(run) = self.list[at].runs.get_mut(place.window) {
            run.used = false;
        }
        let empty = self.list[at].runs.iter().all(|run| !run.used);
        empty.then(|| self.list.swap_remove(at).page)
    }
}

impl Shelf {
    fn end(&self) -> usize {
        self.runs.last().map_or(0, |run| run.group + run.groups)
    }
}

/// A leaf without tables.
pub(super) fn empty_leaf() -> super::Page {
    let mut page = [u32::MAX; abi::PAGE_WORDS as usize];
    page[..FIRST_GROUP].fill(0);
    page
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::search;
    use super::*;

    fn rule(n: u32) -> abi::Rule {
        abi::Rule { cfa: abi::CFA_FP as u8, cfa_offset: n as i32, ..abi::Rule::default() }
    }

    /// A table of its own rules: row n says `salt` + n.
    fn image(gaps: &[u32], salt: u32) -> TableImage {
        let mut offset = 0;
        let rows = gaps.iter().enumerate().map(|(n, gap)| {
            offset += gap;
            Row { offset, rule: rule(salt * 1000 + n as u32) }
        });
        TableImage::of_rows(0x1000, &rows.collect::<Vec<_>>())
    }

    /// A leaf in memory with what lies on it.
    struct Leaf {
        page: super::super::Page,
        tables: Vec<(Place, TableImage, Vec<u16>)>,
        rules: Vec<abi::Rule>,
    }

    impl Leaf {
        /// What each table on the leaf says equals what its image says.
        fn check(&self) {
            for (place, image, _) in &self.tables {
                let rows: Vec<Row> = image.rows().collect();
                let window = place.window_start();
                let probes =
                    rows.iter().flat_map(|row| [row.offset.saturating_sub(1), row.offset, row.offset + 1]);
                for offset in probes.chain([0, WINDOW_BYTES / 2, WINDOW_BYTES - 4096]) {
                    let expected = rows[..rows.partition_point(|row| row.offset <= offset)].last();
                    let read = |_: u32, word: usize| self.page[word];
                    let found = search::find(&read, place.page, u64::from(window + offset));
                    let found = found.map(|found| self.rules[usize::from(found.rule)]);
                    assert_eq!(found, expected.map(|row| row.rule), "{place:?} at {offset:#x}");
                }
            }
        }

        /// Stores a table word by word; programs may search for the others between any two.
        fn store(&mut self, place: Place, image: TableImage) {
            let numbers = image.rules.iter().map(|rule| {
                let known = self.rules.iter().position(|known| known == rule);
                known.unwrap_or_else(|| {
                    self.rules.push(*rule);
                    self.rules.len() - 1
                }) as u16
            });
            let numbers: Vec<u16> = numbers.collect();
            for (step, (word, value)) in place.words(&image, &numbers).into_iter().enumerate() {
                self.page[word] = value;
                if step % 7 == 0 {
                    self.check();
                }
            }
            self.tables.push((place, image, numbers));
            self.check();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn tables_come_and_go_and_the_others_never_notice(
            tables in prop::collection::vec((prop::collection::vec(1_u32..3000, 1..200), any::<bool>(), any::<prop::sample::Index>()), 1..25),
        ) {
            let mut shelves = Shelves::default();
            shelves.add(1);
            let mut leaf = Leaf { page: empty_leaf(), tables: Vec::new(), rules: vec![abi::Rule::default()] };
            for (salt, (gaps, goes, which)) in tables.iter().enumerate() {
                if *goes && leaf.tables.len() > 1 {
                    let (place, ..) = leaf.tables.swap_remove(which.index(leaf.tables.len()));
                    prop_assert_eq!(shelves.give_back(place), None);
                }
                let image = fitting(&image(gaps, salt as u32)).unwrap();
                if let Some(place) = shelves.take(image.groups.len()) {
                    let overlaps = |other: &Place| place.group < other.group + other.groups && other.group < place.group + place.groups;
                    prop_assert!(leaf.tables.iter().all(|(other, ..)| !overlaps(other) && other.window != place.window));
                    leaf.store(place, image);
                }
            }
            while let Some((place, ..)) = leaf.tables.pop() {
                prop_assert_eq!(shelves.give_back(place), leaf.tables.is_empty().then_some(1));
            }
        }

        #[test]
        fn mappings_stay_inside_their_window(
            window in 0_usize..64, start in 0_u64..1 << 40, len in 1_u64..1 << 20, distance in -(1_i64 << 28)..1 << 28,
        ) {
            let place = Place { page: 1, window, group: 0, groups: 3 };
            let (start, len) = (start << 12, len << 12);
            let bias = start.wrapping_add_signed(distance);
            let mut parts = Vec::new();
            place.clip(Entry { start, len, bias, root: 1 }, |part| parts.push(part));
            prop_assert_eq!(parts.iter().map(|part| part.len).sum::<u64>(), len);
            let mut at = start;
            for part in parts {
                prop_assert_eq!(part.start, at);
                at += part.len;
                let offset = |address: u64| address.wrapping_sub(bias).wrapping_sub(u64::from(place.window_start()));
                if part.root == 1 {
                    prop_assert!(offset(part.start) < u64::from(WINDOW_BYTES) && offset(at - 1) < u64::from(WINDOW_BYTES) - 3);
                } else {
                    let far = |address: u64| offset(address) >= u64::from(WINDOW_BYTES) - 2 * UNIT || offset(address) < UNIT;
                    prop_assert!(far(part.start) && far(at - 1), "{part:x?}");
                }
            }
        }
    }

    #[test]
    fn large_and_wide_tables_have_leaves_of_their_own() {
        assert!(fitting(&image(&[5; 480], 0)).is_some());
        assert!(fitting(&image(&[5; 481], 0)).is_none());
        assert!(fitting(&image(&[5, WINDOW_BYTES], 0)).is_none());
        assert!(fitting(&TableImage::default()).is_none());
    }
}
