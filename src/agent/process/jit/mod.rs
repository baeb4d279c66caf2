//! Names of code that processes compile as they run, from the lists that they write themselves: perf maps and jitdump files.
//!
//! The agent's thread asks and never waits: one worker reads files (they lie where strangers put them) into maps that both
//! share. A sample whose code has no name yet may wait for the next look (`Name::Later`). See `docs/jit.md`.

mod reading;
mod source;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use parking_lot::Mutex;
use reading::{Look, Reading};

use super::address_space::Content;
use super::table::Image;
use crate::agent::host::clock::monotonic_ns;
use crate::symbols::jit::{Change, CodeMap, Found};

/// Most bytes of names of one process, and of all: 12 MiB hold some 70,000 functions of Java.
const MAX_BYTES: usize = 12 << 20;
const MAX_BYTES_OF_ALL: usize = 24 << 20;
/// Most processes whose lists are looked for.
const MAX_PROCESSES: usize = 4096;
/// Shortest time between two looks at the list of one process, in nanoseconds: 200 ms.
const LOOK_AGAIN_NS: u64 = 200_000_000;
/// Longest one, where no list has been found: 10 s.
const LOOK_SELDOM_NS: u64 = 10_000_000_000;
/// A look may take one part in so many of the time until the next.
const LOOK_SHARE: u64 = 20;
/// A look that takes longer than this is not waited for, in nanoseconds: 3 s.
const STUCK_NS: u64 = 3_000_000_000;
/// How long the names of a process without samples are kept, in nanoseconds: 60 s.
const KEEP_NS: u64 = 60_000_000_000;
/// Processes that may wait for the worker. Others are asked for again.
const MAX_WAITING: usize = 256;
/// Changes applied before others get the map.
const BATCH: usize = 256;

/// Words of refusal, as counted.
const REFUSALS: [(&str, &str); 6] = [
    ("kind", "jit_lists_refused.kind"),
    ("owner", "jit_lists_refused.owner"),
    ("writable", "jit_lists_refused.writable"),
    ("stale", "jit_lists_refused.stale"),
    ("open", "jit_lists_refused.open"),
    ("content", "jit_lists_refused.content"),
];

/// What is known of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// This code.
    Known(Found),
    /// This code, as of the last look: other code may have taken its place. The next look tells.
    Outdated(Found),
    /// Perhaps after the next look.
    Later,
    /// Nothing, and nothing will come for a sample of that time.
    Unknown,
}

/// Counts by public name.
pub(crate) type JitCounts = Vec<(&'static str, u64)>;

/// Sums over all processes.
#[derive(Debug, Default)]
struct Totals {
    bytes: AtomicUsize,
    looks: AtomicU64,
    skipped: AtomicU64,
    over_limit: AtomicU64,
    refused: [AtomicU64; REFUSALS.len()],
}

/// One process, shared with the worker.
#[derive(Debug)]
struct Process {
    pid: u32,
    map: Mutex<CodeMap>,
    reading: Mutex<Reading>,
    /// Raised when an address may mean something else than before.
    generation: AtomicU64,
    /// When the last complete look began.
    looked_ns: AtomicU64,
    /// When the next one may begin.
    due_ns: AtomicU64,
    /// When the last look that found changes ended.
    changed_ns: AtomicU64,
    /// The last look found changes.
    is_compiling: AtomicBool,
    asked: AtomicBool,
    has_list: AtomicBool,
    totals: Arc<Totals>,
}

#[derive(Debug)]
struct Known {
    process: Arc<Process>,
    asked_ns: u64,
    used_ns: u64,
}

/// What the worker is asked.
#[derive(Debug)]
struct Job {
    process: Arc<Process>,
    /// A page of a jitdump file is mapped.
    has_dump: bool,
}

/// Names of all processes.
#[derive(Debug, Default)]
pub(crate) struct JitNames {
    /// By serial number of the image.
    processes: HashMap<u64, Known>,
    totals: Arc<Totals>,
    worker: Option<SyncSender<Job>>,
    /// No thread could be had.
    without_worker: bool,
}

impl JitNames {
    /// Changes whenever an address of the image may have another name than before. `None` for times whose names must not
    /// be remembered: other code lay there later, or may have, for the process is compiling and nobody has looked since.
    pub(crate) fn generation(&self, image: &Image, time_ns: u64) -> Option<u64> {
        let known = if self.processes.is_empty() { None } else { self.processes.get(&image.serial) };
        let Some(Known { process, .. }) = known else { return Some(0) };
        let is_settled =
            time_ns >= process.changed_ns.load(Ordering::Acquire) && !process.may_have_changed(time_ns);
        is_settled.then(|| process.generation.load(Ordering::Acquire))
    }

    /// A sample of the image is there: looks at its list if it has one and it is time to.
    pub(crate) fn sampled(&mut self, image: &Image) {
        if !self.processes.is_empty() && self.processes.contains_key(&image.serial) {
            self.ask(image, monotonic_ns());
        }
    }

    /// What lay at `address`, outside all files, at `time_ns`.
    pub(crate) fn find(&mut self, image: &Image, address: u64, time_ns: u64) -> Name {
        let now_ns = monotonic_ns();
        if !self.processes.contains_key(&image.serial) {
            if self.processes.len() >= MAX_PROCESSES || self.without_worker {
                return Name::Unknown;
            }
            let process = Arc::new(Process::new(image.pid, &self.totals));
            self.processes.insert(image.serial, Known { process, asked_ns: 0, used_ns: now_ns });
            self.ask(image, now_ns);
        }
        let Some(known) = self.processes.get_mut(&image.serial) else { return Name::Unknown };
        known.used_ns = now_ns;
        let process = &known.process;
        let asked = process.asked.load(Ordering::Acquire);
        let is_stuck = asked && now_ns.saturating_sub(known.asked_ns) > STUCK_NS;
        if let Some(found) = process.map.lock().find(address, time_ns) {
            let is_old = process.may_have_changed(time_ns) && !is_stuck && image.is_live();
            return if is_old { Name::Outdated(found) } else { Name::Known(found) };
        }
        let is_seen = process.looked_ns.load(Ordering::Acquire) > time_ns;
        if is_seen || is_stuck || !image.is_live() {
            return Name::Unknown;
        }
        // Where there is a list it is looked at again soon.
        if asked || process.has_list.load(Ordering::Acquire) { Name::Later } else { Name::Unknown }
    }

    /// Forgets processes that are no longer sampled.
    pub(crate) fn sweep(&mut self) {
        if !self.processes.is_empty() {
            let now_ns = monotonic_ns();
            self.processes.retain(|_, known| now_ns.saturating_sub(known.used_ns) <= KEEP_NS);
        }
    }

    /// Counts so far.
    pub(crate) fn counts(&self) -> JitCounts {
        let totals = &self.totals;
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let lists = self.processes.values().filter(|known| known.process.has_list.load(Ordering::Relaxed));
        let mut counts = vec![
            ("jit_lists", lists.count() as u64),
            ("jit_looks", load(&totals.looks)),
            ("jit_name_bytes", totals.bytes.load(Ordering::Relaxed) as u64),
            ("jit_lines_skipped", load(&totals.skipped)),
            ("jit_names_over_limit", load(&totals.over_limit)),
        ];
        counts.extend(REFUSALS.iter().zip(&totals.refused).map(|((_, name), count)| (*name, load(count))));
        counts
    }

    fn ask(&mut self, image: &Image, now_ns: u64) {
        let Some(known) = self.processes.get_mut(&image.serial) else { return };
        known.used_ns = now_ns;
        let process = &known.process;
        if now_ns < process.due_ns.load(Ordering::Acquire)
            || !image.is_live()
            || process.asked.swap(true, Ordering::AcqRel)
        {
            return;
        }
        known.asked_ns = now_ns;
        let has_dump =
            image.space.live().iter().any(
                |mapping| matches!(&mapping.content, Content::Nameless(name) if source::is_dump_name(name)),
            );
        let job = Job { process: Arc::clone(process), has_dump };
        if self.worker.is_none() && !self.without_worker {
            let (worker, jobs) = sync_channel(MAX_WAITING);
            let thread = std::thread::Builder::new().name("agent-jit".into());
            match thread.spawn(move || work(&jobs)) {
                Ok(_) => self.worker = Some(worker),
                Err(error) => {
                    self.without_worker = true;
                    tracing::warn!("no names of code compiled at run time: cannot start a thread: {error}");
                }
            }
        }
        if let Some(Err(_)) | None = self.worker.as_ref().map(|worker| worker.try_send(job))
            && let Some(known) = self.processes.get(&image.serial)
        {
            known.process.asked.store(false, Ordering::Release);
        }
    }
}

impl Process {
    fn new(pid: u32, totals: &Arc<Totals>) -> Self {
        Self {
            pid,
            map: Mutex::default(),
            reading: Mutex::default(),
            generation: AtomicU64::new(0),
            looked_ns: AtomicU64::new(0),
            due_ns: AtomicU64::new(0),
            changed_ns: AtomicU64::new(0),
            is_compiling: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            has_list: AtomicBool::new(false),
            totals: Arc::clone(totals),
        }
    }

    /// Whether nobody knows yet what lay where at `time_ns`.
    fn may_have_changed(&self, time_ns: u64) -> bool {
        self.is_compiling.load(Ordering::Acquire) && time_ns >= self.looked_ns.load(Ordering::Acquire)
    }

    /// One look, by the worker.
    fn look(&self, has_dump: bool) {
        let began_ns = monotonic_ns();
        let since_ns = self.looked_ns.load(Ordering::Acquire);
        let mut reading = self.reading.lock();
        let (skipped, over_limit) = (reading.skipped(), self.map.lock().over_limit());
        let changes = self.map.lock().changes();
        let mut batch = Vec::with_capacity(BATCH);
        let mut take = |change| {
            batch.push(change);
            if batch.len() == BATCH {
                self.apply(&mut batch, since_ns);
            }
        };
        let look = reading.look(self.pid, has_dump, &mut take);
        self.apply(&mut batch, since_ns);

        let totals = &self.totals;
        totals.looks.fetch_add(1, Ordering::Relaxed);
        totals.skipped.fetch_add(reading.skipped() - skipped, Ordering::Relaxed);
        let map = self.map.lock();
        totals.over_limit.fetch_add(map.over_limit().saturating_sub(over_limit), Ordering::Relaxed);
        let is_changed = map.changes() != changes;
        if is_changed {
            self.generation.fetch_add(1, Ordering::AcqRel);
            self.changed_ns.store(monotonic_ns(), Ordering::Release);
        }
        self.is_compiling.store(is_changed, Ordering::Release);
        drop(map);
        self.tell(&look);
        self.has_list.store(look.found, Ordering::Release);
        if look.at_end {
            self.looked_ns.store(began_ns, Ordering::Release);
        }
        let now_ns = monotonic_ns();
        let before = self.due_ns.load(Ordering::Acquire).saturating_sub(since_ns);
        let pause = if look.found {
            LOOK_AGAIN_NS.max((now_ns - began_ns).saturating_mul(LOOK_SHARE))
        } else {
            // Twice as long as the last time.
            before.saturating_mul(2).clamp(LOOK_AGAIN_NS, LOOK_SELDOM_NS)
        };
        self.due_ns.store(began_ns + pause, Ordering::Release);
    }

    fn apply(&self, batch: &mut Vec<Change>, since_ns: u64) {
        let mut map = self.map.lock();
        let before = map.bytes();
        let of_others = self.totals.bytes.load(Ordering::Relaxed).saturating_sub(before);
        let room = MAX_BYTES.min(MAX_BYTES_OF_ALL.saturating_sub(of_others));
        for change in batch.drain(..) {
            map.apply(change, since_ns, room);
        }
        let after = map.bytes();
        if after >= before {
            self.totals.bytes.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.totals.bytes.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    fn tell(&self, look: &Look) {
        for refused in &look.refused {
            if let Some(at) = REFUSALS.iter().position(|(word, _)| *word == refused.why.word()) {
                self.totals.refused[at].fetch_add(1, Ordering::Relaxed);
            }
            tracing::warn!(pid = self.pid, "names of code compiled at run time refused: {refused}");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.totals.bytes.fetch_sub(self.map.get_mut().bytes(), Ordering::Relaxed);
    }
}

fn work(jobs: &Receiver<Job>) {
    for Job { process, has_dump } in jobs {
        process.look(has_dump);
        process.asked.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
