//! Keeps the process table true and the kernel side informed: start-up scan, events, recovery, finished tables.
//!
//! Lives on the agent's thread and never blocks on it: files are read here only as far as an identity needs
//! (8 KiB and headers), tables are built elsewhere.

mod resolver;
mod tell;

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;

use resolver::FileResolver;

use super::address_space::Content;
use super::describe::{Description, Descriptions};
use super::events::{EventKind, Events};
use super::executable::Executable;
use super::executables::Executables;
use super::kernel_side::{KernelSide, ProcessMapping};
use super::procfs;
use super::shares::Shares;
use super::table::{Changes, Image, ProcessTable, Scan};
use super::table_builder::{TableBuilder, TableCounts, TableState};
use super::table_cache::TableCache;
use crate::agent::host::clock::{monotonic_ns, thread_cpu_ns};
use crate::agent::kernel_symbols::KernelNames;
use crate::model::ElfAddr;
use crate::unwind::Rule;

/// Workers that build tables. Two: start-up of a machine with large programs is a second or two of work.
const WORKERS: usize = 2;
/// How long ended processes and replaced mappings are kept beyond the last converted sample, in nanoseconds: 2 s.
const KEEP_ENDED_NS: u64 = 2_000_000_000;
/// Shortest time between two scans of all processes after lost records, in nanoseconds: 1 s.
const SCAN_AGAIN_NS: u64 = 1_000_000_000;
/// Such scans rest this many times as long as the last one took: 5 % of a CPU while records are lost all the time.
const SCAN_REST: u64 = 20;
/// Time between two sweeps of the registry, in nanoseconds: 30 s.
const SWEEP_NS: u64 = 30_000_000_000;
/// Heat of a file in which samples lie: before all that are only mapped.
const SAMPLED_HEAT: i64 = 1 << 40;

/// Counts of the process room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FollowCounts {
    /// Times that the side-band was looked at.
    pub(crate) looks: u64,
    /// CPU time that this took, nanoseconds.
    pub(crate) cpu_ns: u64,
    /// Side-band records applied.
    pub(crate) events: u64,
    /// Side-band records that the kernel could not deliver.
    pub(crate) lost: u64,
    /// Side-band records that did not fit their layout.
    pub(crate) malformed: u64,
    /// Scans of all processes because of lost records.
    pub(crate) rescans: u64,
    /// Processes read again because of their many mappings.
    pub(crate) crowded: u64,
    /// Times that the kernel side was told later because a process changes too often.
    pub(crate) paced: u64,
    /// Processes or mappings beyond a limit.
    pub(crate) over_limit: u64,
    /// Processes that the kernel side did not take.
    pub(crate) refused: u64,
    /// Tables.
    pub(crate) tables: TableCounts,
}

/// What lies at a code address.
#[derive(Clone, Debug)]
pub(crate) enum Code {
    /// This rule holds.
    Rule(Rule),
    /// Its table is being made.
    TablePending(Arc<Executable>),
    /// There is none and will be none.
    WithoutTable,
    /// Nothing is mapped there.
    Unmapped,
}

/// The process room at work.
#[derive(Debug)]
pub(crate) struct Follower {
    events: Events,
    table: ProcessTable,
    executables: Arc<Executables>,
    builder: TableBuilder,
    descriptions: Descriptions,
    changes: Changes,
    mappings: Vec<ProcessMapping>,
    /// Young images, and restless ones, that the kernel side does not know: when it is to be told, and which.
    young: BTreeSet<(u64, u32)>,
    /// Shares of processes that change their mappings all the time.
    shares: Shares,
    counts: FollowCounts,
    /// All events before this time are applied.
    followed_ns: u64,
    /// All events since then may be missing some.
    rescan_since_ns: Option<u64>,
    scanned_ns: u64,
    /// CPU time that the last scan took.
    scan_cost_ns: u64,
    swept_ns: u64,
    how: FollowSettings,
    /// What is given up for a while.
    without: GivenUp,
}

/// Work that is left undone to stay below a ceiling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GivenUp {
    /// Containers, pods and environments of new processes stay unknown.
    pub(crate) descriptions: bool,
    /// No tables are built.
    pub(crate) tables: bool,
}

/// How much is done for each process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FollowSettings {
    /// Tables are built for a process once it is sampled, not when it begins: where only some are sampled.
    pub(crate) only_sampled: bool,
    /// Environment variables whose values are reported.
    pub(crate) env_vars: Vec<String>,
    /// Where finished tables are kept between two starts.
    pub(crate) cache_directory: Option<PathBuf>,
}

impl Follower {
    /// Opens the side-band and then looks at all processes, so that nothing falls between.
    ///
    /// # Errors
    /// When the side-band cannot be opened.
    pub(crate) fn start(executables: &Arc<Executables>, how: FollowSettings) -> io::Result<Self> {
        let events = Events::open()?;
        let cache = how.cache_directory.as_deref().and_then(|directory| {
            let cache = TableCache::open(directory);
            cache.inspect_err(|error| tracing::warn!("unwind tables are not kept: {error}")).ok()
        });
        let builder = TableBuilder::start(executables, WORKERS, cache)?;
        let now_ns = monotonic_ns();
        let mut follower = Self {
            events,
            table: ProcessTable::default(),
            executables: Arc::clone(executables),
            builder,
            descriptions: Descriptions::default(),
            changes: Changes::default(),
            mappings: Vec::new(),
            young: BTreeSet::new(),
            shares: Shares::default(),
            counts: FollowCounts::default(),
            followed_ns: now_ns,
            rescan_since_ns: None,
            scanned_ns: now_ns,
            scan_cost_ns: 0,
            swept_ns: now_ns,
            how,
            without: GivenUp::default(),
        };
        follower.descriptions.set_variables(&follower.how.env_vars);
        follower.scan_all(0);
        Ok(follower)
    }

    /// Takes all events, publishes finished tables, tells the kernel side. On return every event up to the time of the
    /// call is applied.
    pub(crate) fn follow(&mut self, kernel: &mut dyn KernelSide, names: &mut KernelNames) {
        let (now_ns, cpu_ns) = (monotonic_ns(), thread_cpu_ns());
        self.executables.set_time(now_ns);
        let ask = self.asks_early();
        let mut resolver =
            FileResolver { executables: &self.executables, builder: &mut self.builder, heat: 0, ask };
        self.shares.begin_look();
        for event in self.events.drain() {
            self.counts.events += 1;
            if let EventKind::Map { pid, .. } = event.kind
                && !self.shares.takes_map(pid)
            {
                self.changes.crowded.insert(pid);
                continue;
            }
            if let EventKind::KernelSymbol { start, bytes, gone, name } = event.kind {
                if gone {
                    names.remove_program(start);
                } else {
                    names.add_program(start, bytes, name.into());
                }
                continue;
            }
            self.table.apply(event, &mut resolver, &mut self.changes);
        }
        self.counts.lost += std::mem::take(&mut self.changes.lost);
        if std::mem::take(&mut self.changes.incomplete) {
            self.rescan_since_ns.get_or_insert(self.followed_ns);
        }
        self.read_crowded(now_ns);
        self.followed_ns = now_ns;
        let rest_ns = SCAN_AGAIN_NS.max(self.scan_cost_ns.saturating_mul(SCAN_REST));
        if let Some(since_ns) = self.rescan_since_ns
            && now_ns.saturating_sub(self.scanned_ns) >= rest_ns
        {
            self.rescan_since_ns = None;
            self.counts.rescans += 1;
            self.scan_all(since_ns);
        }
        self.publish(kernel);
        self.flush(kernel, now_ns);
        self.counts.looks += 1;
        self.counts.cpu_ns += thread_cpu_ns().saturating_sub(cpu_ns);
    }

    /// Whether a table is wanted as soon as its file is mapped: it is there when the process is old enough to be told of.
    fn asks_early(&self) -> bool {
        !self.how.only_sampled && !self.without.tables
    }

    /// Leaves work undone, or takes it up again.
    pub(crate) fn give_up(&mut self, without: GivenUp) {
        self.without = without;
    }

    /// Time up to which all events are applied.
    pub(crate) fn followed_ns(&self) -> u64 {
        self.followed_ns
    }

    /// The image that `pid` was at `time_ns`. An unknown process is looked up once.
    pub(crate) fn image(&mut self, pid: u32, time_ns: u64) -> Option<&mut Image> {
        if self.table.at(pid, time_ns).is_none() {
            let scan = Scan::read(pid, monotonic_ns(), 0)?;
            let mut resolver = FileResolver {
                executables: &self.executables,
                builder: &mut self.builder,
                heat: SAMPLED_HEAT,
                ask: !self.without.tables,
            };
            self.table.scanned(pid, scan, &mut resolver, &mut self.changes);
        }
        let image = self.table.at(pid, time_ns)?;
        if image.described.is_none() && !image.kernel_thread {
            let looked = if self.without.descriptions { None } else { self.descriptions.of(pid) };
            let known = looked.or_else(|| image.inherited.clone());
            image.described = Some(known.unwrap_or_else(|| self.descriptions.nowhere()));
            if self.how.only_sampled && !self.without.tables {
                for mapping in image.space.live() {
                    if let Content::Executable(executable, _) = &mapping.content {
                        self.builder.ask(executable, SAMPLED_HEAT);
                    }
                }
            }
        }
        Some(image)
    }

    /// Where a process without an image runs.
    pub(crate) fn nowhere(&self) -> Arc<Description> {
        self.descriptions.nowhere()
    }

    /// Samples fall into this file and it has no table: build it before others.
    pub(crate) fn want_table(&mut self, executable: &Arc<Executable>) {
        if !self.without.tables {
            self.builder.ask(executable, SAMPLED_HEAT);
        }
    }

    /// All samples before `time_ns` are converted: what ended before may be forgotten. Also the seldom work.
    pub(crate) fn converted(&mut self, time_ns: u64, kernel: &mut dyn KernelSide) {
        self.shares.forget_rested(time_ns);
        if self.table.has_past() {
            self.table.forget_before(time_ns.saturating_sub(KEEP_ENDED_NS));
        }
        if time_ns.saturating_sub(self.swept_ns) >= SWEEP_NS {
            self.swept_ns = time_ns;
            let forgotten = self.executables.sweep();
            self.builder.forget(&forgotten, kernel);
        }
    }

    /// Follows CPUs that were switched on since.
    pub(crate) fn follow_cpus(&mut self) {
        match self.events.follow_cpus() {
            Ok(true) => {
                self.rescan_since_ns.get_or_insert(self.followed_ns);
            }
            Ok(false) => {}
            Err(error) => tracing::warn!("cannot follow processes on a new CPU: {error}"),
        }
    }

    /// Descriptors that become readable when there is something to follow.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.events.descriptors().chain(std::iter::once(self.builder.descriptor()))
    }

    /// When the kernel side is to be told of the next young image.
    pub(crate) fn next_due_ns(&self) -> Option<u64> {
        self.young.first().map(|(due_ns, _)| *due_ns)
    }

    /// The code at an address, as `image` had it mapped at `time_ns`.
    pub(crate) fn code_at(&self, image: &Image, address: u64, time_ns: u64, kernel: &dyn KernelSide) -> Code {
        let Some(mapping) = image.space.find(address, time_ns) else { return Code::Unmapped };
        let Content::Executable(executable, bias) = &mapping.content else { return Code::WithoutTable };
        match self.builder.table(executable) {
            TableState::Published(table) => {
                Code::Rule(kernel.rule(table, ElfAddr(address.wrapping_sub(*bias))))
            }
            TableState::Pending => Code::TablePending(Arc::clone(executable)),
            TableState::None => Code::WithoutTable,
        }
    }

    /// The image that `pid` was at `time_ns`, if it is known.
    pub(crate) fn known_image(&self, pid: u32, time_ns: u64) -> Option<&Image> {
        self.table.known_at(pid, time_ns)
    }

    /// Living processes.
    pub(crate) fn processes(&self) -> usize {
        self.table.len()
    }

    /// Tables that wait or are in work.
    pub(crate) fn pending_tables(&self) -> usize {
        self.builder.pending()
    }

    /// Executables held open.
    pub(crate) fn open_executables(&self) -> usize {
        self.executables.handles()
    }

    /// Counts so far.
    pub(crate) fn counts(&self) -> FollowCounts {
        FollowCounts {
            malformed: self.events.malformed(),
            over_limit: self.table.over_limit(),
            tables: self.builder.counts(),
            ..self.counts
        }
    }

    /// Reads the mappings of crowded processes again: which of them are gone, and which were too many to be applied.
    fn read_crowded(&mut self, now_ns: u64) {
        if self.changes.crowded.is_empty() {
            return;
        }
        for pid in std::mem::take(&mut self.changes.crowded) {
            if self.table.live(pid).is_none() {
                continue;
            }
            if !self.shares.may_read(pid, now_ns) {
                self.changes.crowded.insert(pid);
                continue;
            }
            let cpu_ns = thread_cpu_ns();
            if let Some(scan) = Scan::read(pid, monotonic_ns(), self.followed_ns) {
                self.counts.crowded += 1;
                let ask = self.asks_early();
                let mut resolver =
                    FileResolver { executables: &self.executables, builder: &mut self.builder, heat: 0, ask };
                self.table.scanned(pid, scan, &mut resolver, &mut self.changes);
            }
            self.shares.was_read(pid, now_ns, thread_cpu_ns().saturating_sub(cpu_ns));
        }
    }

    /// Looks at all processes. Findings count since `since_ns`; tables of the busiest come first.
    fn scan_all(&mut self, since_ns: u64) {
        let cpu_ns = thread_cpu_ns();
        let mut alive = HashSet::new();
        for pid in procfs::pids() {
            let Some(scan) = Scan::read(pid, monotonic_ns(), since_ns) else { continue };
            alive.insert(pid);
            let heat = i64::try_from(scan.stat.cpu_ticks).unwrap_or(i64::MAX).min(SAMPLED_HEAT - 1);
            let ask = self.asks_early();
            let mut resolver =
                FileResolver { executables: &self.executables, builder: &mut self.builder, heat, ask };
            self.table.scanned(pid, scan, &mut resolver, &mut self.changes);
        }
        self.scanned_ns = monotonic_ns();
        self.scan_cost_ns = thread_cpu_ns().saturating_sub(cpu_ns);
        self.table.end_missing(self.followed_ns, &mut self.changes, |pid| alive.contains(&pid));
    }
}

#[cfg(test)]
mod tests;
