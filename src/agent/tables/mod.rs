//! Unwind tables and mappings as the sampling program sees them: the process room's [`KernelSide`].
//!
//! Decides which page holds what, and when it may hold something else; writes through [`Memory`] only. Knows no file, no
//! process beyond its number, and no clock but the one it is given. Content is shared: the same table published twice is
//! stored once, a rule once for the machine. A table without users stays as long as there is room for it.

mod image;
mod image_file;
mod pages;
mod pool;
mod processes;
#[cfg(test)]
mod recorded;
mod rules;
mod runs;
mod search;
mod shelf;

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use image::Content;
pub use image::TableImage;
pub(crate) use image_file::MAX_FILE_BYTES as MAX_IMAGE_FILE_BYTES;
pub use pool::Page;
use pool::{GRACE, Pool, Refusal};
use processes::Entry;
use rules::{NoRoom, RuleIds};
use shelf::{Place, Shelves};

use crate::agent::bpf::abi;
use crate::agent::process::{KernelSide, KernelSideError, ProcessMapping, TableId};
use crate::model::ElfAddr;
use crate::unwind::{Rule, UnwindTable};

/// Where pages, rules and process rows are stored. `agent::bpf::KernelMaps` is the kernel's; errors are errno values.
pub trait Memory {
    /// Adds the next part of pages.
    fn add_part(&mut self) -> Result<(), i32>;
    /// Stores a page of an added part, which no process row leads to yet.
    fn write_page(&mut self, id: u32, page: &Page);
    /// One word of a page that was written.
    fn page_word(&self, id: u32, word: usize) -> u32;
    /// Stores one word of a page that programs may be searching; others see the old one or the new one.
    fn write_word(&mut self, id: u32, word: usize, value: u32);
    /// Stores a rule (`struct abi_rule`) that no page names yet.
    fn write_rule(&mut self, id: u16, rule: [u32; 4]);
    /// Stores a process row (`struct abi_process`); everything written before is visible to who reads it.
    fn set_process(&mut self, pid: u32, row: [u32; 4]) -> Result<(), i32>;
    /// Removes a process row, if there is one.
    fn remove_process(&mut self, pid: u32) -> Result<(), i32>;
    /// Most processes.
    fn max_processes(&self) -> u32;
}

/// How much is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes taken from the system for pages.
    pub pool_bytes: u64,
    /// Bytes of pages in use or resting.
    pub used_bytes: u64,
    /// Tables stored, used or not.
    pub tables: usize,
    /// Distinct rules.
    pub rules: usize,
    /// Processes with mappings.
    pub processes: usize,
    /// Tables thrown out for want of room.
    pub evicted_tables: u64,
    /// Mappings left out because a process had too many.
    pub dropped_mappings: u64,
    /// Rules that the kernel side cannot express or had no room for.
    pub dropped_rules: u64,
}

/// One part in this many of the budget is kept for mappings: without them the best table is useless.
const RESERVE_DIVISOR: u64 = 16;

#[derive(Debug)]
struct Table {
    root: u32,
    base: u64,
    pages: Vec<u32>,
    /// Where on a shared leaf it lies, if it does; it then has no pages of its own.
    place: Option<Place>,
    content: Content,
    /// Times published and not retired.
    published: u32,
    /// Mappings of processes that lead to it.
    mapped: u32,
    /// Since when nobody uses it.
    idle_since: Option<Instant>,
}

#[derive(Debug)]
struct Process {
    pages: Vec<u32>,
    tables: Vec<TableId>,
}

/// The kernel side's tables and processes.
pub struct Tables<M> {
    memory: M,
    clock: Box<dyn Fn() -> Instant + Send>,
    pool: Pool,
    budget_bytes: u64,
    shelves: Shelves,
    reserve_pages: usize,
    rules: RuleIds,
    stored: BTreeMap<TableId, Table>,
    by_content: HashMap<Content, TableId>,
    processes: HashMap<u32, Process>,
    last_table: u32,
    last_stamp: u32,
    evicted: u64,
    dropped_mappings: u64,
    dropped_rules: u64,
}

impl<M> std::fmt::Debug for Tables<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (tables, processes) = (self.stored.len(), self.processes.len());
        f.debug_struct("Tables")
            .field("tables", &tables)
            .field("processes", &processes)
            .finish_non_exhaustive()
    }
}

impl<M: Memory> Tables<M> {
    /// Nothing stored; pages may take up to `pool_budget_bytes`, in whole parts of 4 MiB, at least one.
    pub fn new(mut memory: M, pool_budget_bytes: u64) -> Self {
        let rules = RuleIds::new(&mut memory);
        let pool = Pool::new(pool_budget_bytes);
        let reserve_pages = (pool.budget_bytes() / RESERVE_DIVISOR / u64::from(abi::PAGE_WORDS * 4)) as usize;
        Self {
            memory,
            clock: Box::new(Instant::now),
            pool,
            budget_bytes: pool_budget_bytes,
            shelves: Shelves::default(),
            reserve_pages,
            rules,
            stored: BTreeMap::new(),
            by_content: HashMap::new(),
            processes: HashMap::new(),
            last_table: 0,
            last_stamp: 0,
            evicted: 0,
            dropped_mappings: 0,
            dropped_rules: 0,
        }
    }

    /// With another clock, for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> Instant + Send + 'static) -> Self {
        self.clock = Box::new(clock);
        self
    }

    /// Takes no more memory from the system than now: tables that nobody uses make room for others. `allowed` takes it
    /// back.
    pub fn set_growth(&mut self, allowed: bool) {
        self.pool.set_growth(allowed, self.budget_bytes);
    }

    /// How much is in use.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage {
            pool_bytes: self.pool.bytes(),
            used_bytes: self.pool.used_bytes(),
            tables: self.stored.len(),
            rules: self.rules.len(),
            processes: self.processes.len(),
            evicted_tables: self.evicted,
            dropped_mappings: self.dropped_mappings,
            dropped_rules: self.dropped_rules,
        }
    }

    /// Pages for a table or a process; throws out tables that nobody uses when there are too few.
    fn take_pages(&mut self, count: usize, reserve: usize) -> Result<Vec<u32>, KernelSideError> {
        let now = (self.clock)();
        loop {
            match self.pool.take(count, reserve, now, &mut self.memory) {
                Ok(pages) => return Ok(pages),
                Err(Refusal::Kernel(errno)) => return Err(KernelSideError::Kernel(errno)),
                Err(Refusal::Full) if self.evict_one(now) => {}
                Err(Refusal::Full) => {
                    return Err(KernelSideError::PoolFull {
                        used_bytes: self.pool.used_bytes(),
                        budget_bytes: self.pool.budget_bytes(),
                    });
                }
            }
        }
    }

    /// Throws out the table that was idle longest, if any was so for long enough that no program can still read it.
    fn evict_one(&mut self, now: Instant) -> bool {
        let rested =
            |table: &Table| table.idle_since.filter(|&since| now.saturating_duration_since(since) >= GRACE);
        let oldest = self.stored.iter().filter_map(|(&id, table)| Some((rested(table)?, id))).min();
        let Some(table) = oldest.and_then(|(_, id)| self.stored.remove(&id)) else { return false };
        self.by_content.remove(&table.content);
        self.pool.give_back_rested(table.pages);
        let emptied = table.place.and_then(|place| self.shelves.give_back(place));
        self.pool.give_back_rested(emptied);
        self.evicted += 1;
        true
    }

    /// Takes one use off a table.
    fn release(&mut self, id: TableId, mapped: bool) {
        let now = (self.clock)();
        let Some(table) = self.stored.get_mut(&id) else { return };
        let uses = if mapped { &mut table.mapped } else { &mut table.published };
        *uses = uses.saturating_sub(1);
        if table.published == 0 && table.mapped == 0 {
            table.idle_since = Some(now);
        }
    }

    /// A mapping as the kernel side wants it; one whose table is gone counts as one without.
    fn resolve(&self, mapping: &ProcessMapping, mut each: impl FnMut(Entry)) {
        let table = mapping.table.and_then(|id| self.stored.get(&id));
        let place = table.and_then(|table| table.place);
        let base = table.map_or(0, |table| place.map_or(table.base, |place| place.bias(table.base)));
        let entry = Entry {
            start: mapping.start.0,
            len: mapping.len,
            bias: mapping.bias.wrapping_add(base),
            root: match (table, mapping.pending) {
                (Some(table), _) => table.root,
                (None, true) => abi::TABLE_PENDING,
                (None, false) => abi::NO_TABLE,
            },
        };
        match place {
            Some(place) => place.clip(entry, each),
            None => each(entry),
        }
    }

    /// A place on a shared leaf.
    fn take_place(&mut self, groups: usize) -> Result<Place, KernelSideError> {
        let full = KernelSideError::PoolFull {
            used_bytes: self.pool.used_bytes(),
            budget_bytes: self.pool.budget_bytes(),
        };
        if let Some(place) = self.shelves.take(groups) {
            return Ok(place);
        }
        let page = self.take_pages(1, self.reserve_pages)?.first().copied().ok_or(full)?;
        self.memory.write_page(page, &shelf::empty_leaf());
        self.shelves.add(page);
        self.shelves.take(groups).ok_or(full)
    }

    /// Writes a table; returns its root, its pages, and its place if it has none.
    fn store(
        &mut self,
        image: &TableImage,
        numbers: &[u16],
    ) -> Result<(u32, Vec<u32>, Option<Place>), KernelSideError> {
        if let Some(image) = shelf::fitting(image) {
            // The same rules in the order in which rows name them.
            let numbers = self.rules.number(&image.rules, &mut self.memory);
            let numbers = numbers.map_err(|_| KernelSideError::RulesFull { limit: abi::MAX_RULES })?;
            let place = self.take_place(image.groups.len())?;
            for (word, value) in place.words(&image, &numbers.numbers) {
                self.memory.write_word(place.page, word, value);
            }
            return Ok((place.page, Vec::new(), Some(place)));
        }
        let full = KernelSideError::PoolFull {
            used_bytes: self.pool.used_bytes(),
            budget_bytes: self.pool.budget_bytes(),
        };
        let plan = pages::Plan::new(image.groups.len()).ok_or(full)?;
        let ids = self.take_pages(plan.pages(), self.reserve_pages)?;
        let root = plan.write(image, numbers, &ids, |id, page| self.memory.write_page(id, page));
        Ok((root, ids, None))
    }

    fn next_stamp(&mut self) -> u32 {
        // 0 means unknown. After 4 billion changes a stamp comes back; by then no cache holds its first use.
        self.last_stamp = self.last_stamp.checked_add(1).unwrap_or(1);
        self.last_stamp
    }

    fn forget(&mut self, process: Process) {
        let now = (self.clock)();
        self.pool.give_back(process.pages, now);
        for table in process.tables {
            self.release(table, true);
        }
    }
}

impl<M: Memory> KernelSide for Tables<M> {
    fn publish(&mut self, table: &UnwindTable) -> Result<TableId, KernelSideError> {
        self.publish_image(&TableImage::new(table))
    }

    fn publish_image(&mut self, image: &TableImage) -> Result<TableId, KernelSideError> {
        let content = image.content();
        if let Some(&id) = self.by_content.get(&content)
            && let Some(known) = self.stored.get_mut(&id)
        {
            known.published += 1;
            known.idle_since = None;
            return Ok(id);
        }
        let expanded;
        let (image, numbers) = match self.rules.number(&image.rules, &mut self.memory) {
            Ok(numbers) => (image, Ok(numbers)),
            Err(NoRoom::ForRuns) => {
                expanded = image.expanded();
                let numbers = self.rules.number(&expanded.rules, &mut self.memory);
                (&expanded, numbers)
            }
            Err(NoRoom::AtAll) => (image, Err(NoRoom::AtAll)),
        };
        let numbers = numbers.map_err(|_| KernelSideError::RulesFull { limit: abi::MAX_RULES })?;
        let (root, pages, place) = self.store(image, &numbers.numbers)?;
        self.dropped_rules += numbers.lost + image.lost_rules;
        self.last_table += 1;
        let id = TableId(self.last_table);
        let base = image.base;
        let stored = Table { root, base, pages, place, content, published: 1, mapped: 0, idle_since: None };
        self.stored.insert(id, stored);
        self.by_content.insert(content, id);
        Ok(id)
    }

    fn retire(&mut self, table: TableId) {
        self.release(table, false);
    }

    fn rule(&self, table: TableId, address: ElfAddr) -> Rule {
        let found = self.stored.get(&table).and_then(|table| {
            let offset = match table.place {
                Some(place) => place.offset(table.base, address.0)?,
                None => address.0.checked_sub(table.base)?,
            };
            search::find(&|id, word| self.memory.page_word(id, word), table.root, offset)
        });
        found.map_or(Rule::Unknown, |found| self.rules.rule(found))
    }

    fn set_process(&mut self, pid: u32, mappings: &[ProcessMapping]) -> Result<(), KernelSideError> {
        if !self.processes.contains_key(&pid) && self.processes.len() >= self.memory.max_processes() as usize
        {
            return Err(KernelSideError::ProcessesFull { limit: self.memory.max_processes() });
        }
        let mut entries = Vec::with_capacity(mappings.len());
        for mapping in mappings {
            self.resolve(mapping, |entry| entries.push(entry));
        }
        let mut entries = processes::join(entries);
        self.dropped_mappings += entries.len().saturating_sub(processes::MAX_MAPPINGS) as u64;
        entries.truncate(processes::MAX_MAPPINGS);
        // Before the pages are taken, so that taking them cannot throw out a table of this process.
        let tables: Vec<TableId> = mappings.iter().filter_map(|mapping| mapping.table).collect();
        for id in &tables {
            if let Some(table) = self.stored.get_mut(id) {
                table.mapped += 1;
                table.idle_since = None;
            }
        }
        let stamp = self.next_stamp();
        let stored = self.take_pages(processes::pages_needed(entries.len()), 0).and_then(|pages| {
            let row = processes::write(&entries, stamp, &pages, |id, page| self.memory.write_page(id, page));
            match self.memory.set_process(pid, row.words()) {
                Ok(()) => Ok(pages),
                Err(errno) => {
                    self.pool.give_back_rested(pages);
                    let limit = self.memory.max_processes();
                    Err(match errno {
                        libc::E2BIG => KernelSideError::ProcessesFull { limit },
                        errno => KernelSideError::Kernel(errno),
                    })
                }
            }
        });
        match stored {
            Ok(pages) => {
                if let Some(before) = self.processes.insert(pid, Process { pages, tables }) {
                    self.forget(before);
                }
                Ok(())
            }
            Err(error) => {
                for id in tables {
                    self.release(id, true);
                }
                Err(error)
            }
        }
    }

    fn remove_process(&mut self, pid: u32) {
        let Some(process) = self.processes.remove(&pid) else { return };
        if let Err(errno) = self.memory.remove_process(pid) {
            // The row may still lead to its pages: they are lost, but never wrong.
            tracing::warn!(pid, errno, "kernel refused to remove a process");
            return;
        }
        self.forget(process);
    }
}

#[cfg(test)]
mod tests;
