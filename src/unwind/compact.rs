//! Entries of all sources to one table: sorted, without overlaps, equal neighbours merged, gaps marked.
//!
//! First every source adds the spans of code it can speak about, then each span is turned into rows in the order of
//! addresses, so the table grows only at its end. Merging push/pop pairs would go into [`Table::push`].

use std::cell::Cell;
use std::collections::HashMap;

use super::cfi::{self, Program, State};
use super::eh_frame::{Cies, Fde, Format, Section};
use super::gopclntab::{CodeAt, GoTable};
use super::kept_register::{Hanging, MAX_CALLS};
use super::rows::{Row, Rule, Skipped, UnwindTable};
use super::{Architecture, MAX_ENTRIES, MAX_ROWS, MAX_RULES};
use crate::model::ElfAddr;

/// Code without an entry inherits the rule before it up to this many bytes: padding between functions.
const LARGEST_INHERITED_GAP: u32 = 15;

/// Bytes of an entry that is read to learn where a called function saves a register. Real ones are some hundred bytes long.
const MAX_CALLED_ENTRY: u32 = 1 << 16;

/// Who speaks about a span. The smaller one wins where two do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Fixed,
    Go,
    EhFrame,
    DebugFrame,
    Guess,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    /// One rule for all of it: index in `Spans::fixed`.
    Fixed(u32),
    /// A Go function by its index.
    Go(u32),
    /// Rows read off the code: so many from this index on in `Spans::guessed`.
    Guessed {
        from: u32,
        len: u32,
    },
    Fde {
        section: u8,
        cie: u32,
        instructions: u32,
        instructions_len: u32,
    },
}

/// A run of code, in bytes from the base of the table.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    end: u32,
    rank: Rank,
    source: Source,
}

/// A section of call frame information with its common entries.
#[derive(Debug)]
pub(super) struct Frames<'a> {
    pub(super) section: Section<'a>,
    pub(super) cies: Cies,
}

impl Frames<'_> {
    /// What is needed to run an entry for the code `range`.
    fn program(
        &self,
        cie: u32,
        instructions: u32,
        instructions_len: u32,
        range: std::ops::Range<u64>,
    ) -> Program<'_> {
        let cie = &self.cies.list[cie as usize];
        let from = instructions as usize;
        Program {
            instructions: self.section.bytes.get(from..from + instructions_len as usize).unwrap_or_default(),
            instructions_address: self.section.address.wrapping_add(u64::from(instructions)),
            dialect: &cie.dialect,
            initial: &cie.initial,
            range,
        }
    }

    /// Whether an entry marked as signal frame computes its return address, as a true one must on x86-64. (The mark
    /// alone also stands at functions whose callers are to be looked up without the usual correction by one byte.)
    pub(super) fn is_computed_signal(&self, fde: &Fde) -> bool {
        let program = self.program(fde.cie, fde.instructions, fde.instructions_len, fde.start..fde.end);
        let mut computed = false;
        let outcome = cfi::run(&program, &mut Vec::new(), |_, state| computed |= state.is_computed());
        computed && outcome.is_ok()
    }
}

/// Executable code of a file, sorted and disjoint.
#[derive(Clone, Debug, Default)]
pub(super) struct CodeRanges {
    pub(super) ranges: Vec<std::ops::Range<u64>>,
}

impl CodeRanges {
    /// The range that holds `address`.
    pub(super) fn containing(&self, address: u64) -> Option<&std::ops::Range<u64>> {
        let at = self.ranges.partition_point(|range| range.end <= address);
        self.ranges.get(at).filter(|range| range.start <= address)
    }
}

/// Collects what each source knows.
#[derive(Debug)]
pub(super) struct Spans {
    base: u64,
    code: CodeRanges,
    list: Vec<Span>,
    fixed: Vec<Rule>,
    /// Bytes from the base, and the rule from there on.
    guessed: Vec<(u32, Rule)>,
    pub(super) skipped: Skipped,
}

impl Spans {
    pub(super) fn new(code: CodeRanges) -> Self {
        let base = code.ranges.first().map_or(0, |range| range.start);
        Self {
            base,
            code,
            list: Vec::new(),
            fixed: Vec::new(),
            guessed: Vec::new(),
            skipped: Skipped::default(),
        }
    }

    /// One rule for `start..end`.
    pub(super) fn add_fixed(&mut self, start: u64, end: u64, rule: Rule) {
        self.fixed.push(rule);
        self.add(start, end, Rank::Fixed, Source::Fixed(self.fixed.len() as u32 - 1));
    }

    /// One rule for `start..end`, unless anything else speaks about it.
    pub(super) fn add_guess(&mut self, start: u64, end: u64, rule: Rule) {
        self.fixed.push(rule);
        self.add(start, end, Rank::Guess, Source::Fixed(self.fixed.len() as u32 - 1));
    }

    /// Rows for `start..end`, in the order of addresses, unless anything else speaks about it. They are taken as they
    /// come, up to as many as a table can hold.
    pub(super) fn add_guessed(&mut self, start: u64, end: u64, rows: impl FnOnce(&mut dyn FnMut(u32, Rule))) {
        let from = self.guessed.len();
        let base = u32::try_from(start.saturating_sub(self.base)).unwrap_or(u32::MAX);
        rows(&mut |offset, rule| {
            if self.guessed.len() < MAX_ROWS {
                self.guessed.push((base.saturating_add(offset), rule));
            }
        });
        let (from, len) = (from as u32, (self.guessed.len() - from) as u32);
        self.add(start, end, Rank::Guess, Source::Guessed { from, len });
    }

    /// Function number `index` of the Go table.
    pub(super) fn add_go(&mut self, start: u64, end: u64, index: u32) {
        self.add(start, end, Rank::Go, Source::Go(index));
    }

    /// An entry of section number `section`.
    pub(super) fn add_fde(&mut self, fde: Fde, format: Format, section: u8) {
        let Fde { start, end, cie, instructions, instructions_len } = fde;
        let rank = match format {
            Format::EhFrame => Rank::EhFrame,
            Format::DebugFrame => Rank::DebugFrame,
        };
        self.add(start, end, rank, Source::Fde { section, cie, instructions, instructions_len });
    }

    fn add(&mut self, start: u64, end: u64, rank: Rank, source: Source) {
        if self.list.len() >= MAX_ENTRIES {
            self.skipped.over_limit += 1;
            return;
        }
        // Entries of code that the linker threw away point to address 0 or to data.
        let span = self.code.containing(start).and_then(|range| {
            let start = u32::try_from(start - self.base).ok()?;
            let end = u32::try_from(end.min(range.end) - self.base).unwrap_or(u32::MAX);
            (start < end).then_some(Span { start, end, rank, source })
        });
        match span {
            Some(span) => self.list.push(span),
            None => self.skipped.out_of_range += 1,
        }
    }

    /// Sorts and removes overlaps: a better rank hides a worse one; within a rank the later start wins from there on,
    /// as a binary search over starts would decide; of two with one start the longer wins.
    pub(super) fn settle(&mut self) {
        self.list.sort_by_key(|span| (span.start, span.rank, std::cmp::Reverse(span.end)));
        let mut kept = 0;
        for at in 0..self.list.len() {
            let span = self.list[at];
            // Walk back over kept spans that a better one cuts at its start.
            let hidden = match self.list[..kept].last_mut() {
                Some(before) if before.end > span.start => {
                    let same_rank = before.rank == span.rank;
                    self.skipped.overlapping += u64::from(same_rank);
                    let hidden = before.rank < span.rank || before.start == span.start;
                    if !hidden {
                        before.end = span.start;
                    }
                    hidden
                }
                _ => false,
            };
            if !hidden {
                self.list[kept] = span;
                kept += 1;
            }
        }
        self.list.truncate(kept);
    }

    /// The longest function that holds `address`.
    pub(super) fn covering(&self, address: u64) -> Option<std::ops::Range<u64>> {
        let offset = u32::try_from(address.checked_sub(self.base)?).ok()?;
        let holds = |span: &&Span| span.start <= offset && offset < span.end && span.rank != Rank::Guess;
        let span = self.list.iter().filter(holds).max_by_key(|span| span.end - span.start)?;
        Some(self.base + u64::from(span.start)..self.base + u64::from(span.end))
    }

    /// Stretches of code that no source speaks about, after [`Spans::settle`].
    pub(super) fn gaps(&self) -> impl Iterator<Item = std::ops::Range<u64>> {
        self.code.ranges.iter().flat_map(|range| {
            let offset = |address: u64| u32::try_from(address - self.base).unwrap_or(u32::MAX);
            let (first, last) = (offset(range.start), offset(range.end));
            let inside = self.list.partition_point(|span| span.end <= first);
            let inside = self.list[inside..].iter().take_while(move |span| span.start < last);
            let ends = std::iter::once(first).chain(inside.clone().map(|span| span.end));
            let starts = inside.map(|span| span.start).chain(std::iter::once(last));
            ends.zip(starts)
                .filter(|(end, start)| end < start)
                .map(|(end, start)| self.base + u64::from(end)..self.base + u64::from(start))
        })
    }

    /// Runs all spans to rows. They must be settled.
    pub(super) fn into_table(
        self,
        architecture: Architecture,
        frames: &[Frames<'_>],
        go: Option<&GoTable<'_>>,
        code_at: CodeAt<'_>,
    ) -> UnwindTable {
        let mut table = Table::new(self.base, self.skipped);
        let mut remembered: Vec<State> = Vec::new();
        let mut hanging = Vec::new();
        for (at, span) in self.list.iter().enumerate() {
            if table.is_full() {
                table.skipped.over_limit += 1;
                continue;
            }
            match span.source {
                Source::Fixed(index) => table.push(span.start, self.fixed[index as usize]),
                Source::Go(index) => {
                    if let Some(go) = go {
                        let end = self.base + u64::from(span.end);
                        let known = go.rows(index, end, |address, rule| {
                            if let Some(offset) = within(span, self.base, address) {
                                table.push(offset, rule);
                            }
                        });
                        if let Err(address) = known {
                            table.give_up(span, address);
                        }
                    }
                }
                Source::Guessed { from, len } => {
                    for &(offset, rule) in &self.guessed[from as usize..][..len as usize] {
                        if (span.start..span.end).contains(&offset) {
                            table.push(offset, rule);
                        }
                    }
                }
                Source::Fde { section, cie, instructions, instructions_len } => {
                    let range = self.base + u64::from(span.start)..self.base + u64::from(span.end);
                    let program =
                        frames[usize::from(section)].program(cie, instructions, instructions_len, range);
                    let outcome = cfi::run(&program, &mut remembered, |address, state| {
                        let rule = state.rule(architecture).unwrap_or_else(|_| {
                            table.skipped.unsupported += 1;
                            Rule::Unknown
                        });
                        if let Some(offset) = within(span, self.base, address) {
                            table.push(offset, rule);
                            hanging.extend(Hanging::of(architecture, offset, span.end, rule));
                        }
                    });
                    if let Err(address) = outcome {
                        table.give_up(span, address);
                    }
                }
            }
            let next = self.list.get(at + 1).map_or(u32::MAX, |next| next.start);
            if next - span.end > LARGEST_INHERITED_GAP {
                table.push(span.end, Rule::Unknown);
            }
        }
        table.insert(&self.rows_at_calls(&table, &hanging, frames, code_at));
        table.finish()
    }

    /// What holds during the calls that functions make whose frames hang on a register.
    fn rows_at_calls(
        &self,
        table: &Table,
        hanging: &[Hanging],
        frames: &[Frames<'_>],
        code_at: CodeAt<'_>,
    ) -> Vec<(u32, Rule)> {
        let mut rows = Vec::new();
        // Entries may be long, and code may be nothing but calls.
        let calls_left = Cell::new(MAX_CALLS);
        for hanging in hanging.iter().filter(|hanging| table.rule_at(hanging.offset) == Some(hanging.rule)) {
            if calls_left.get() == 0 {
                break;
            }
            let end = table.next_row(hanging.offset).unwrap_or(u32::MAX).min(hanging.end);
            let code = code_at(self.base + u64::from(hanging.offset), u64::from(end - hanging.offset));
            let saved_at = |target: i64, register: u8| {
                calls_left.set(calls_left.get().checked_sub(1)?);
                self.saved_at(frames, u64::from(hanging.offset).checked_add_signed(target)?, register)
            };
            hanging
                .calls(code, saved_at, |offset, rule| rows.extend((offset < end).then_some((offset, rule))));
        }
        rows
    }

    /// Where the function that begins so many bytes from the base saves a register, from its frame address.
    fn saved_at(&self, frames: &[Frames<'_>], start: u64, register: u8) -> Option<i32> {
        let start = u32::try_from(start).ok()?;
        let at = self.list.binary_search_by_key(&start, |span| span.start).ok()?;
        let Span { end, source: Source::Fde { section, cie, instructions, instructions_len }, .. } =
            self.list[at]
        else {
            return None;
        };
        if instructions_len > MAX_CALLED_ENTRY {
            return None;
        }
        let range = self.base + u64::from(start)..self.base + u64::from(end);
        let program = frames.get(usize::from(section))?.program(cie, instructions, instructions_len, range);
        cfi::saved_at(&program, register)
    }
}

fn within(span: &Span, base: u64, address: u64) -> Option<u32> {
    let offset = u32::try_from(address.checked_sub(base)?).ok()?;
    (span.start..span.end).contains(&offset).then_some(offset)
}

/// Rules met lately, by a cheap hash, so that the map is asked seldom.
const RECENT: usize = 256;

/// A table that grows at its end.
#[derive(Debug)]
struct Table {
    base: u64,
    rows: Vec<Row>,
    rules: Vec<Rule>,
    numbers: HashMap<Rule, u16>,
    recent: Box<[Option<(Rule, u16)>; RECENT]>,
    last: Option<Rule>,
    skipped: Skipped,
}

impl Table {
    fn new(base: u64, skipped: Skipped) -> Self {
        Self {
            base,
            rows: Vec::new(),
            rules: Vec::new(),
            numbers: HashMap::new(),
            recent: Box::new([None; RECENT]),
            last: None,
            skipped,
        }
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= MAX_ROWS
    }

    /// From `offset` on, `rule` holds. Offsets never go down; the last word about an offset counts.
    #[inline]
    fn push(&mut self, offset: u32, rule: Rule) {
        debug_assert!(self.rows.last().is_none_or(|row| row.offset <= offset), "rows come in order");
        if self.last == Some(rule) || self.is_full() {
            return;
        }
        // The last row of a full table says that nothing more is known.
        let rule = if self.rows.len() + 1 == MAX_ROWS { Rule::Unknown } else { rule };
        let number = self.number(rule);
        let rule = self.rules[usize::from(number)];
        if self.rows.last().is_some_and(|row| row.offset == offset) {
            self.rows.pop();
            self.last = self.rows.last().map(|row| self.rules[usize::from(row.rule)]);
        }
        if self.last != Some(rule) {
            self.rows.push(Row { offset, rule: number });
            self.last = Some(rule);
        }
    }

    /// Position of the row that begins at `offset`.
    fn row(&self, offset: u32) -> Option<usize> {
        self.rows.binary_search_by_key(&offset, |row| row.offset).ok()
    }

    /// The rule of the row that begins at `offset`.
    fn rule_at(&self, offset: u32) -> Option<Rule> {
        self.row(offset).map(|at| self.rules[usize::from(self.rows[at].rule)])
    }

    /// Where the row behind that at `offset` begins.
    fn next_row(&self, offset: u32) -> Option<u32> {
        self.rows.get(self.row(offset)? + 1).map(|row| row.offset)
    }

    /// Adds a few rows between others.
    fn insert(&mut self, rows: &[(u32, Rule)]) {
        for &(offset, rule) in rows {
            let at = self.rows.partition_point(|row| row.offset < offset);
            let is_taken = self.rows.get(at).is_some_and(|row| row.offset == offset);
            if !is_taken && self.rows.len() < MAX_ROWS {
                let rule = self.number(rule);
                self.rows.insert(at, Row { offset, rule });
            }
        }
    }

    /// Nothing is known of `span` from `address` on; rows before it stand.
    fn give_up(&mut self, span: &Span, address: u64) {
        self.skipped.malformed += 1;
        if let Some(offset) = within(span, self.base, address) {
            self.push(offset, Rule::Unknown);
        }
    }

    fn number(&mut self, rule: Rule) -> u16 {
        let slot = slot(&rule);
        if let Some((known, number)) = self.recent[slot]
            && known == rule
        {
            return number;
        }
        let number = match self.numbers.get(&rule) {
            Some(&number) => number,
            // One place is kept for `Unknown`, which stands for all rules that no longer fit.
            None if self.rules.len() + 1 >= MAX_RULES && rule != Rule::Unknown => {
                self.skipped.over_limit += 1;
                return self.number(Rule::Unknown);
            }
            None => {
                let number = self.rules.len() as u16;
                self.rules.push(rule);
                self.numbers.insert(rule, number);
                number
            }
        };
        self.recent[slot] = Some((rule, number));
        number
    }

    fn finish(mut self) -> UnwindTable {
        self.rows.shrink_to_fit();
        UnwindTable { base: ElfAddr(self.base), rows: self.rows, rules: self.rules, skipped: self.skipped }
    }
}

/// Spreads the common rules (small multiples of 8 from the stack pointer) over the slots of `recent`.
fn slot(rule: &Rule) -> usize {
    use super::rows::{CfaRule, FpRule};
    let (Rule::Frame { cfa, fp, .. } | Rule::Guess { cfa, fp, .. }) = rule else { return 0 };
    let (kind, offset) = match *cfa {
        CfaRule::Sp(offset) => (0, offset),
        CfaRule::Fp(offset) => (1, offset),
        CfaRule::Plt { threshold } => (2, i32::from(threshold)),
        CfaRule::DerefSp { offset, .. } => (3, offset),
        CfaRule::DerefFp { offset, .. } => (4, offset),
        CfaRule::Register { offset, .. } => (5, offset),
    };
    let saved = match *fp {
        FpRule::Unchanged | FpRule::Unknown => 0,
        FpRule::AtCfa(offset) | FpRule::AtFp(offset) => offset,
    };
    let key = (offset as u32).wrapping_mul(0x9e37_79b1) ^ (saved as u32).wrapping_mul(0x85eb_ca6b) ^ kind;
    (key ^ key >> 16) as usize % RECENT
}
