//! Address ranges with names, as small as they get: disjoint, sorted, one arena of text.
//!
//! Symbols of real files overlap, nest, share addresses and lack sizes. [`Builder`] settles all that once, so that a
//! look-up is one binary search. Costs 8 bytes a range and each used name once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::model::ElfAddr;
use crate::symbols::Error;
use crate::symbols::mapped::{Bytes, Window};

/// Most symbols that are weighed for one table: 2 Mi, 16 bytes each, 32 MiB while building and at most 32 MiB after.
/// Chromium with symbols has about 1.5 million functions.
pub const MAX_SYMBOLS: usize = 2 << 20;
/// Longest name that is kept, in bytes; longer ones are cut. Mangled C++ of real programs reaches about 6 KiB.
pub const MAX_NAME_BYTES: usize = 8 << 10;
/// Largest arena: 128 MiB, which is 64 bytes for each of [`MAX_SYMBOLS`]. Hostile symbols may share the tail of one
/// name, so the size of the string table alone bounds nothing.
const MAX_ARENA_BYTES: usize = 128 << 20;
/// Most string tables that feed one table; a name is then 4 bits of table and 28 bits of offset.
const MAX_STRING_TABLES: usize = 16;
/// Largest string table: 28 bits of offset would allow 256 MiB, memory allows half.
pub const MAX_STRINGS_BYTES: u64 = 128 << 20;
const OFFSET_BITS: u32 = 28;
/// Name of a range without one.
const GAP: u32 = u32::MAX;

/// How much a symbol's word counts where several claim an address; lower numbers win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Function with a size.
    Sized = 0,
    /// Stub of the procedure linkage table, found in its code.
    Stub = 1,
    /// Function without a size: reaches to the next symbol.
    Unsized = 2,
    /// Label without a type in code (hand-written assembly).
    Label = 3,
}

/// One symbol as a table claims it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// First address.
    pub start: ElfAddr,
    /// Length in bytes; 0 reaches to the next symbol or the end of the code around it.
    pub bytes: u64,
    /// Weight.
    pub rank: Rank,
    /// Known in this file only.
    pub is_local: bool,
    /// May be overridden.
    pub is_weak: bool,
    /// Offset of the name in the string table it came with.
    pub name: u32,
}

/// Weighs symbols against each other.
#[derive(Debug)]
pub struct Builder {
    /// Where code is, sorted, disjoint; symbols count inside only.
    code: Vec<(u64, u64)>,
    strings: Vec<Window>,
    candidates: Vec<Candidate>,
    /// Symbols that found no room.
    dropped: u64,
}

/// 16 bytes; addresses relative to the start of the code.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    start: u32,
    /// Equal to `start` until [`Builder::finish`] knows where an unsized one ends.
    end: u32,
    /// Lower wins among equal starts: rank, local, leading underscores, weak, length.
    preference: u32,
    /// String table and offset.
    name: u32,
}

impl Candidate {
    fn rank(&self) -> u32 {
        self.preference >> 29
    }

    /// Smaller is better: rank, then the nearest start, then preference.
    fn key(&self) -> (u32, Reverse<u32>, u32, u32) {
        (self.rank(), Reverse(self.start), self.preference, self.name)
    }
}

/// Packs what decides between names of one address into 32 bits, lower is better. People know `write`, not
/// `__GI___write`: after rank and visibility the fewest leading underscores win, then strong over weak, then short.
fn preference(symbol: &Symbol, name: &[u8]) -> u32 {
    let underscores = name.iter().take_while(|byte| **byte == b'_').count().min(15) as u32;
    let length = name.len().min((1 << 23) - 1) as u32;
    (symbol.rank as u32) << 29
        | u32::from(symbol.is_local) << 28
        | underscores << 24
        | u32::from(symbol.is_weak) << 23
        | length
}

impl Builder {
    /// For a file whose code lies in `code` (half-open address ranges, in any order).
    /// Ranges further than 4 GiB behind the first one cannot be addressed and are left out.
    #[must_use]
    pub fn new(code: impl IntoIterator<Item = (ElfAddr, ElfAddr)>) -> Self {
        let mut ranges: Vec<(u64, u64)> = code.into_iter().map(|(start, end)| (start.0, end.0)).collect();
        ranges.retain(|(start, end)| start < end);
        ranges.sort_unstable();
        let mut code: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
        for (start, end) in ranges {
            match code.last_mut() {
                // Overlapping, not merely touching: an unsized symbol ends with its section.
                Some(last) if start < last.1 => last.1 = last.1.max(end),
                _ => code.push((start, end)),
            }
        }
        let base = code.first().map_or(0, |first| first.0);
        // One less than 4 GiB, so that an end fits too.
        let limit = base.saturating_add(u64::from(u32::MAX));
        code.retain_mut(|(start, end)| {
            *end = (*end).min(limit);
            start < end
        });
        Self { code, strings: Vec::new(), candidates: Vec::new(), dropped: 0 }
    }

    fn base(&self) -> u64 {
        self.code.first().map_or(0, |first| first.0)
    }

    /// Whether this address lies in code.
    #[must_use]
    pub fn is_code(&self, address: ElfAddr) -> bool {
        self.code_around(address.0).is_some()
    }

    fn code_around(&self, address: u64) -> Option<(u64, u64)> {
        let behind = self.code.partition_point(|(start, _)| *start <= address);
        let range = *self.code.get(behind.checked_sub(1)?)?;
        (address < range.1).then_some(range)
    }

    /// Adds the symbols of one table. Those outside code are ignored, those beyond a limit counted.
    ///
    /// # Errors
    /// When `strings` is too large, or one table too many.
    pub fn add(
        &mut self,
        strings: Window,
        symbols: impl IntoIterator<Item = Symbol>,
    ) -> crate::symbols::Result<()> {
        if strings.len() as u64 > MAX_STRINGS_BYTES {
            let found = strings.len() as u64;
            return Err(Error::TooLarge { what: "string table in bytes", found, limit: MAX_STRINGS_BYTES });
        }
        if self.strings.len() >= MAX_STRING_TABLES {
            let limit = MAX_STRING_TABLES as u64;
            return Err(Error::TooLarge { what: "string tables", found: limit + 1, limit });
        }
        let table = self.strings.len() as u32;
        let (base, names) = (self.base(), Bytes(&strings));
        for symbol in symbols {
            let Some((_, code_end)) = self.code_around(symbol.start.0) else { continue };
            let Some(name) = name_at(names, symbol.name) else { continue };
            if self.candidates.len() >= MAX_SYMBOLS {
                self.dropped += 1;
                continue;
            }
            let start = symbol.start.0;
            let end = start.saturating_add(symbol.bytes).min(code_end);
            // Both differences fit: `new` keeps code within 4 GiB of `base`.
            self.candidates.push(Candidate {
                start: (start - base) as u32,
                end: (end - base) as u32,
                preference: preference(&symbol, name),
                name: table << OFFSET_BITS | symbol.name,
            });
        }
        self.strings.push(strings);
        Ok(())
    }

    fn name(&self, name: u32) -> &[u8] {
        let table = (name >> OFFSET_BITS) as usize;
        let offset = name & ((1 << OFFSET_BITS) - 1);
        self.strings.get(table).and_then(|strings| name_at(Bytes(strings), offset)).unwrap_or_default()
    }

    /// Gives unsized symbols their end: the next start of any symbol, or the end of the code around.
    fn close_unsized(&mut self) {
        let base = self.base();
        let mut next_start = u32::MAX;
        let mut here = u32::MAX;
        for at in (0..self.candidates.len()).rev() {
            let Some(mut candidate) = self.candidates.get(at).copied() else { continue };
            if candidate.start != here {
                next_start = here;
                here = candidate.start;
            }
            if candidate.end == candidate.start {
                let code_end = self
                    .code_around(base + u64::from(candidate.start))
                    .map_or(candidate.start, |(_, end)| (end - base) as u32);
                candidate.end = next_start.min(code_end);
                self.candidates[at] = candidate;
            }
        }
    }

    /// The settled table, and how many symbols or names found no room in it.
    #[must_use]
    pub fn finish(mut self) -> (RangeTable, u64) {
        self.candidates
            .sort_unstable_by_key(|candidate| (candidate.start, candidate.preference, candidate.name));
        self.close_unsized();
        let (starts, names) = sweep(&self.candidates);
        self.candidates = Vec::new();

        let mut used: Vec<u32> = names.iter().copied().filter(|name| *name != GAP).collect();
        used.sort_unstable();
        used.dedup();
        let mut arena = Vec::new();
        let mut offsets = Vec::with_capacity(used.len());
        for name in &used {
            let text = self.name(*name);
            let text = text.get(..MAX_NAME_BYTES).unwrap_or(text);
            if arena.len() + text.len() + 1 > MAX_ARENA_BYTES {
                self.dropped += 1;
                offsets.push(GAP);
                continue;
            }
            offsets.push(arena.len() as u32);
            arena.extend_from_slice(text);
            arena.push(0);
        }
        let place =
            |name: &u32| used.binary_search(name).ok().and_then(|at| offsets.get(at).copied()).unwrap_or(GAP);
        let table = RangeTable {
            base: self.base(),
            starts: starts.into_boxed_slice(),
            names: names.iter().map(place).collect(),
            arena: arena.into_boxed_slice(),
        };
        (table, self.dropped)
    }
}

/// Name at an offset, cut at [`MAX_NAME_BYTES`]; `None` when it is empty, or outside the table.
fn name_at(strings: Bytes<'_>, offset: u32) -> Option<&[u8]> {
    if offset >= 1 << OFFSET_BITS {
        return None;
    }
    let tail = strings.tail(u64::from(offset))?;
    let head = tail.get(..MAX_NAME_BYTES).unwrap_or(tail);
    let end = head.iter().position(|byte| *byte == 0).unwrap_or(head.len());
    head.get(..end).filter(|name| !name.is_empty())
}

/// Walks over all starts and ends in order and notes who wins from each on. `sorted` is sorted by start.
/// Gives at most two ranges for each candidate: one boundary per start, one per end.
fn sweep(sorted: &[Candidate]) -> (Vec<u32>, Vec<u32>) {
    let mut boundaries: Vec<u32> = sorted.iter().flat_map(|symbol| [symbol.start, symbol.end]).collect();
    boundaries.sort_unstable();
    boundaries.dedup();
    let (mut starts, mut names) = (Vec::new(), Vec::new());
    let mut waiting = sorted.iter().peekable();
    let mut active = BinaryHeap::new();
    let mut last = GAP;
    for boundary in boundaries {
        while let Some(symbol) = waiting.next_if(|symbol| symbol.start <= boundary) {
            active.push((Reverse(symbol.key()), symbol.end));
        }
        while active.peek().is_some_and(|(_, end)| *end <= boundary) {
            active.pop();
        }
        let winner = active.peek().map_or(GAP, |(Reverse((.., name)), _)| *name);
        if winner != last {
            starts.push(boundary);
            names.push(winner);
            last = winner;
        }
    }
    (starts, names)
}

/// Settled address ranges of one file.
#[derive(Debug, Default)]
pub struct RangeTable {
    /// ELF address that the starts count from.
    base: u64,
    /// Sorted starts, in bytes from `base`. A range ends where the next begins; the last is a gap.
    starts: Box<[u32]>,
    /// Per range the offset of its name in `arena`, or [`GAP`].
    names: Box<[u32]>,
    /// Names, each closed by NUL, as the file spells them.
    arena: Box<[u8]>,
}

/// Names one entry of a [`RangeTable`]; equal names of one table are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NameId(u32);

impl RangeTable {
    /// Who covers this address.
    #[must_use]
    pub fn find(&self, address: ElfAddr) -> Option<NameId> {
        let relative = u32::try_from(address.0.checked_sub(self.base)?).ok()?;
        let behind = self.starts.partition_point(|start| *start <= relative);
        let name = *self.names.get(behind.checked_sub(1)?)?;
        (name != GAP).then_some(NameId(name))
    }

    /// The name as the file spells it (mangled), at most [`MAX_NAME_BYTES`] long.
    #[must_use]
    pub fn raw_name(&self, name: NameId) -> &[u8] {
        Bytes(&self.arena).c_text(u64::from(name.0), MAX_NAME_BYTES).unwrap_or_default()
    }

    /// Whether no address has a name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Ranges, gaps between them included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Memory held, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        (self.starts.len() + self.names.len()) * 4 + self.arena.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn symbol(start: u64, bytes: u64, rank: Rank, name: u32) -> Symbol {
        Symbol { start: ElfAddr(start), bytes, rank, is_local: false, is_weak: false, name }
    }

    /// One-letter names: the letter at offset `2 * n`.
    fn letters() -> Window {
        Window::from((b'a'..=b'z').flat_map(|letter| [letter, 0]).collect::<Vec<u8>>())
    }

    fn table(code: &[(u64, u64)], symbols: &[Symbol]) -> RangeTable {
        let mut builder = Builder::new(code.iter().map(|(start, end)| (ElfAddr(*start), ElfAddr(*end))));
        builder.add(letters(), symbols.iter().copied()).unwrap();
        let (table, dropped) = builder.finish();
        assert_eq!(dropped, 0);
        table
    }

    fn picture(table: &RangeTable, addresses: std::ops::Range<u64>) -> String {
        let name = |address| table.find(ElfAddr(address)).map(|name| table.raw_name(name)[0] as char);
        addresses.map(|address| name(address).unwrap_or('.')).collect()
    }

    #[test]
    fn inner_symbols_win_and_outer_ones_go_on_behind_them() {
        let symbols = [symbol(10, 10, Rank::Sized, 0), symbol(13, 3, Rank::Sized, 2)];
        assert_eq!(picture(&table(&[(8, 30)], &symbols), 8..22), "..aaabbbaaaa..");
    }

    #[test]
    fn unsized_symbols_end_at_the_next_symbol_or_with_their_section() {
        let symbols = [
            symbol(10, 0, Rank::Unsized, 0),
            symbol(14, 2, Rank::Sized, 2),
            symbol(16, 0, Rank::Label, 4),
            symbol(25, 0, Rank::Unsized, 6),
        ];
        assert_eq!(picture(&table(&[(10, 20), (20, 28)], &symbols), 9..30), ".aaaabbcccc.....ddd..");
    }

    #[test]
    fn a_size_beats_a_label_inside_and_code_ends_what_reaches_too_far() {
        let symbols = [symbol(10, u64::MAX, Rank::Sized, 0), symbol(12, 0, Rank::Label, 2)];
        assert_eq!(picture(&table(&[(10, 16)], &symbols), 9..18), ".aaaaaa..");
    }

    #[test]
    fn people_see_the_plain_one_of_several_names() {
        let strings = Window::from(b"\0__libc_write\0write\0__GI___write\0writev2\0".to_vec());
        let names = [1u32, 14, 20, 33];
        let mut builder = Builder::new([(ElfAddr(0x1000), ElfAddr(0x2000))]);
        let symbols = names.map(|name| Symbol {
            is_weak: name == 14 || name == 33,
            is_local: name == 20,
            ..symbol(0x1000, 16, Rank::Sized, name)
        });
        builder.add(strings, symbols).unwrap();
        let (table, _) = builder.finish();
        let name = table.find(ElfAddr(0x100f)).unwrap();
        assert_eq!(table.raw_name(name), b"write");
        assert_eq!(table.find(ElfAddr(0x1010)), None);
    }

    #[test]
    fn shared_tails_of_one_name_stay_within_the_arena() {
        let strings = Window::from(vec![b'x'; 64 << 10]);
        let mut builder = Builder::new([(ElfAddr(0), ElfAddr(1 << 30))]);
        let symbols = (0..40_000u32).map(|n| symbol(u64::from(n) * 4, 4, Rank::Sized, n));
        builder.add(strings, symbols).unwrap();
        let (table, dropped) = builder.finish();
        assert!(table.bytes() <= MAX_ARENA_BYTES + 40_001 * 8);
        assert!(dropped > 0);
    }

    /// The rule in its plainest form: of all that cover the address the best by key.
    fn scan(symbols: &[Symbol], code: (u64, u64), address: u64) -> Option<u32> {
        let next = |start: u64| symbols.iter().map(|s| s.start.0).filter(|s| *s > start && *s < code.1).min();
        symbols
            .iter()
            .filter(|s| (code.0..code.1).contains(&s.start.0))
            .filter(|s| {
                let end = match s.bytes {
                    0 => next(s.start.0).unwrap_or(code.1),
                    bytes => s.start.0.saturating_add(bytes),
                };
                (s.start.0..end.min(code.1)).contains(&address)
            })
            .min_by_key(|s| (s.rank, Reverse(s.start), s.is_local, s.is_weak, s.name))
            .map(|s| s.name)
    }

    proptest! {
        #[test]
        fn look_up_equals_linear_scan(
            raw in prop::collection::vec((0u64..80, 0u64..30, 0u8..4, any::<bool>(), any::<bool>(), 0u32..26), 0..24)
        ) {
            let symbols: Vec<Symbol> = raw.iter().map(|(start, bytes, rank, is_local, is_weak, name)| Symbol {
                start: ElfAddr(*start),
                bytes: *bytes,
                rank: [Rank::Sized, Rank::Stub, Rank::Unsized, Rank::Label][usize::from(*rank)],
                is_local: *is_local,
                is_weak: *is_weak,
                name: name * 2,
            }).collect();
            let table = table(&[(5, 70)], &symbols);
            for address in 0..110 {
                let expected = scan(&symbols, (5, 70), address).map(|name| letters()[name as usize]);
                let found = table.find(ElfAddr(address)).map(|name| table.raw_name(name)[0]);
                prop_assert_eq!(found, expected, "address {}", address);
            }
        }
    }
}
