//! All processes through time: applies events, answers "who was PID at that time, and what lay at this address".
//!
//! A number stands for a chain of images: one from fork or first sight to the next `exec`, number reuse or end. Ended
//! images stay until the samples of their time are converted. Opens nothing itself: the [`Resolver`] knows files.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::address_space::{AddressSpace, Content, Mapping};
use super::events::{Event, EventKind, MappedRange};
use super::maps::Maps;
use super::procfs::{self, Stat};
use super::told::Told;

/// Most images that are held, living and ended. `pid_max` allows 4 million; a host with 30,000 processes is large.
const MAX_IMAGES: usize = 100_000;

/// A process whose mappings grow to this many, or to twice as many as were there, is read from `/proc` again: the kernel
/// tells what is mapped but not what is unmapped.
const READ_AGAIN_AT: usize = 512;

/// First address that belongs to the kernel on every 64-bit architecture.
const FIRST_KERNEL_ADDRESS: u64 = 1 << 62;

/// Who knows what lies under a mapping.
pub(crate) trait Resolver {
    /// Content of a range that process `pid` has mapped.
    fn resolve(&mut self, pid: u32, range: &MappedRange) -> Content;

    /// Whether a process still runs although its first thread has ended.
    fn still_runs(&self, pid: u32) -> bool;
}

/// One program in one process, from fork or `exec` to `exec` or end.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// Never used twice.
    pub(crate) serial: u64,
    /// Process.
    pub(crate) pid: u32,
    /// Since when (`CLOCK_MONOTONIC`); 0 = before anybody looked.
    pub(crate) from_ns: u64,
    /// Until when; `u64::MAX` = still.
    pub(crate) until_ns: u64,
    /// Name of the first thread, NUL-padded.
    pub(crate) comm: [u8; 16],
    /// Has no user memory and never will.
    pub(crate) kernel_thread: bool,
    /// Path of the program; empty for kernel threads and while unknown.
    pub(crate) executable_path: Arc<str>,
    /// Executable mappings.
    pub(crate) space: AddressSpace,
    /// Facts that cost a look at `/proc`, taken at the first sample.
    pub(crate) described: Option<Arc<super::describe::Description>>,
    /// Those of the parent: the best guess when the process is gone before anybody looked.
    pub(crate) inherited: Option<Arc<super::describe::Description>>,
    /// What the kernel side was told of it.
    pub(crate) told: Told,
    /// Threads besides the first.
    other_threads: u32,
    /// Events before this time are contained in what `/proc` told.
    seen_ns: u64,
    /// Number of mappings at which `/proc` is asked which of them are still there.
    read_again_at: usize,
}

/// What came of a batch of events.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Processes whose mappings the kernel side must learn.
    pub(crate) changed: HashSet<u32>,
    /// Processes that are gone.
    pub(crate) gone: HashSet<u32>,
    /// Processes to be read from `/proc` again: too many mappings, some of which may be gone.
    pub(crate) crowded: HashSet<u32>,
    /// Side-band records that the kernel could not deliver.
    pub(crate) lost: u64,
    /// Some are missing, as far as anybody can tell.
    pub(crate) incomplete: bool,
}

impl Changes {
    fn changed(&mut self, pid: u32) {
        self.gone.remove(&pid);
        self.changed.insert(pid);
    }

    fn gone(&mut self, pid: u32) {
        self.changed.remove(&pid);
        self.gone.insert(pid);
    }
}

/// All processes.
#[derive(Debug, Default)]
pub(crate) struct ProcessTable {
    /// Images of each number, oldest first. Never empty.
    images: HashMap<u32, Vec<Image>>,
    /// Images ended and waiting to be forgotten.
    ended: usize,
    /// Mappings were replaced and wait to be forgotten.
    replaced: bool,
    next_serial: u64,
    /// Mappings or processes beyond a limit.
    over_limit: u64,
}

impl ProcessTable {
    /// Number of living processes, kernel threads included.
    pub(crate) fn len(&self) -> usize {
        self.images.values().filter(|images| images.last().is_some_and(Image::is_live)).count()
    }

    /// Mappings and processes left out because of limits.
    pub(crate) fn over_limit(&self) -> u64 {
        self.over_limit
    }

    /// The living image of a process.
    pub(crate) fn live(&self, pid: u32) -> Option<&Image> {
        self.images.get(&pid)?.last().filter(|image| image.is_live())
    }

    /// What the kernel side was told of a living image.
    pub(crate) fn told(&mut self, pid: u32) -> Option<&mut Told> {
        let image = self.images.get_mut(&pid)?.last_mut().filter(|image| image.is_live())?;
        Some(&mut image.told)
    }

    /// All living images.
    pub(crate) fn all_live(&self) -> impl Iterator<Item = &Image> {
        self.images.values().filter_map(|images| images.last().filter(|image| image.is_live()))
    }

    /// The image that `pid` was at `time_ns`: the latest that had begun, however long ago it ended (a process runs a
    /// little behind its exit record); the first one when the sample is older than everything known.
    pub(crate) fn at(&mut self, pid: u32, time_ns: u64) -> Option<&mut Image> {
        let images = self.images.get_mut(&pid)?;
        let index = index_at(images, time_ns);
        images.get_mut(index)
    }

    /// [`ProcessTable::at`] for readers.
    pub(crate) fn known_at(&self, pid: u32, time_ns: u64) -> Option<&Image> {
        let images = self.images.get(&pid)?;
        images.get(index_at(images, time_ns))
    }

    /// Takes what `/proc` tells about a process at `time_ns`. Known mappings stay, missing ones go, new ones come.
    pub(crate) fn scanned(
        &mut self,
        pid: u32,
        scan: Scan,
        resolver: &mut impl Resolver,
        changes: &mut Changes,
    ) {
        let since_ns = scan.since_ns;
        let known = self.live(pid).is_some_and(|image| {
            let path = scan.executable_path.as_deref();
            path.is_none_or(|path| image.executable_path.is_empty() || *image.executable_path == *path)
        });
        if !known {
            if self.images.len() + self.ended >= MAX_IMAGES {
                self.over_limit += 1;
                return;
            }
            self.begin(pid, since_ns, AddressSpace::default());
        }
        let Some(image) = self.images.get_mut(&pid).and_then(|images| images.last_mut()) else { return };
        image.comm = scan.stat.comm;
        image.kernel_thread = scan.stat.kernel_thread;
        image.other_threads = scan.stat.threads.saturating_sub(1);
        image.seen_ns = scan.time_ns;
        if let Some(path) = scan.executable_path {
            image.executable_path = path;
        }
        let ranges = &scan.maps.ranges;
        let still_there = |mapping: &Mapping| {
            let at = ranges.partition_point(|range| range.end <= mapping.start);
            ranges.get(at).is_some_and(|range| {
                range.start < mapping.end && (range.device, range.inode) == mapping.source
            })
        };
        image.space.retain(scan.time_ns, still_there);
        for range in ranges {
            self.over_limit += u64::from(!image.map(range, since_ns, resolver));
        }
        image.read_again_at = READ_AGAIN_AT.max(2 * image.space.live().len());
        self.replaced |= image.space.has_past();
        self.over_limit += scan.maps.skipped;
        changes.changed(pid);
    }

    /// Applies one event.
    pub(crate) fn apply(&mut self, event: Event, resolver: &mut impl Resolver, changes: &mut Changes) {
        let time_ns = event.time_ns;
        match event.kind {
            EventKind::Fork { pid, parent_pid } if pid == parent_pid => {
                if let Some(image) = self.writable(pid, time_ns) {
                    image.other_threads = image.other_threads.saturating_add(1);
                }
            }
            EventKind::Fork { pid, parent_pid } => self.fork(pid, parent_pid, time_ns, changes),
            EventKind::Comm { pid, tid, name, exec } => {
                if exec {
                    self.exec(pid, time_ns, changes);
                }
                if pid == tid
                    && let Some(image) = self.writable(pid, time_ns)
                {
                    image.comm = name;
                }
            }
            EventKind::Map { pid, range } => {
                if self.live(pid).is_none() {
                    // Its beginning was lost. The rest of its mappings comes with the scan that lost records ask for.
                    self.begin(pid, time_ns, AddressSpace::default());
                }
                let Some(image) = self.writable(pid, time_ns) else { return };
                if image.executable_path.is_empty() && range.is_file() {
                    // The kernel maps the program first, then its interpreter.
                    image.executable_path = path_text(procfs::strip_deleted(&range.path)).into();
                }
                let mapped = image.map(&range, time_ns, resolver);
                let crowded = !mapped || image.space.live().len() >= image.read_again_at;
                let replaced = image.space.has_past();
                self.replaced |= replaced;
                self.over_limit += u64::from(!mapped);
                changes.changed(pid);
                if crowded {
                    changes.crowded.insert(pid);
                }
            }
            EventKind::Exit { pid, tid } => self.exit(pid, tid, time_ns, resolver, changes),
            EventKind::Lost { count } => {
                changes.lost += count;
                changes.incomplete = true;
            }
            EventKind::KernelSymbol { .. } => {}
        }
    }

    /// Ends processes that `is_alive` refuses: the answer to lost exit records.
    pub(crate) fn end_missing(
        &mut self,
        time_ns: u64,
        changes: &mut Changes,
        is_alive: impl Fn(u32) -> bool,
    ) {
        let missing: Vec<u32> =
            self.all_live().map(|image| image.pid).filter(|pid| !is_alive(*pid)).collect();
        for pid in missing {
            self.end(pid, time_ns, changes);
        }
    }

    /// Forgets images and mappings that ended before `time_ns`: all samples of that time are converted.
    pub(crate) fn forget_before(&mut self, time_ns: u64) {
        let (mut ended, mut replaced) = (0, false);
        self.images.retain(|_, images| {
            images.retain_mut(|image| {
                image.space.forget_before(time_ns);
                image.told.forget_before(time_ns);
                replaced |= image.space.has_past();
                image.until_ns >= time_ns
            });
            ended += images.iter().filter(|image| !image.is_live()).count();
            !images.is_empty()
        });
        (self.ended, self.replaced) = (ended, replaced);
    }

    /// Whether anything waits to be forgotten.
    pub(crate) fn has_past(&self) -> bool {
        self.ended > 0 || self.replaced
    }

    fn fork(&mut self, pid: u32, parent_pid: u32, time_ns: u64, changes: &mut Changes) {
        if self.images.len() + self.ended >= MAX_IMAGES {
            self.over_limit += 1;
            return;
        }
        if self.live(pid).is_some_and(|image| image.seen_ns > time_ns) {
            return; // Already scanned.
        }
        let parent = self.at(parent_pid, time_ns).map(|image| image.clone());
        let space = parent.as_ref().map(|parent| parent.space.clone()).unwrap_or_default();
        let image = self.begin(pid, time_ns, space);
        if let Some(parent) = parent {
            image.comm = parent.comm;
            image.kernel_thread = parent.kernel_thread;
            image.executable_path = parent.executable_path;
            image.inherited = parent.described.or(parent.inherited);
        }
        changes.changed(pid);
    }

    fn exec(&mut self, pid: u32, time_ns: u64, changes: &mut Changes) {
        if self.live(pid).is_some_and(|image| image.seen_ns > time_ns) {
            return;
        }
        let before = self.live(pid).map(|image| image.described.clone().or_else(|| image.inherited.clone()));
        let image = self.begin(pid, time_ns, AddressSpace::default());
        image.inherited = before.flatten();
        changes.changed(pid);
    }

    fn exit(&mut self, pid: u32, tid: u32, time_ns: u64, resolver: &impl Resolver, changes: &mut Changes) {
        let Some(image) = self.writable(pid, time_ns) else { return };
        if pid != tid {
            image.other_threads = image.other_threads.saturating_sub(1);
            return;
        }
        // The first thread may end before the others, or be replaced by another that calls exec.
        if image.other_threads > 0 && resolver.still_runs(pid) {
            return;
        }
        self.end(pid, time_ns, changes);
    }

    fn end(&mut self, pid: u32, time_ns: u64, changes: &mut Changes) {
        if let Some(image) = self.images.get_mut(&pid).and_then(|images| images.last_mut())
            && image.is_live()
        {
            image.until_ns = time_ns;
            self.ended += 1;
            changes.gone(pid);
        }
    }

    /// Begins an image; what the number stood for before has ended.
    fn begin(&mut self, pid: u32, from_ns: u64, space: AddressSpace) -> &mut Image {
        self.next_serial += 1;
        let serial = self.next_serial;
        let images = self.images.entry(pid).or_default();
        if let Some(last) = images.last_mut().filter(|image| image.is_live()) {
            last.until_ns = from_ns;
            self.ended += 1;
        }
        images.push(Image {
            serial,
            pid,
            from_ns,
            until_ns: u64::MAX,
            comm: [0; 16],
            kernel_thread: false,
            executable_path: Arc::from(""),
            space,
            described: None,
            inherited: None,
            told: Told::default(),
            other_threads: 0,
            seen_ns: 0,
            read_again_at: READ_AGAIN_AT,
        });
        let last = images.len() - 1;
        &mut images[last]
    }

    /// The living image, unless a scan has already seen the state after `time_ns`.
    fn writable(&mut self, pid: u32, time_ns: u64) -> Option<&mut Image> {
        self.images.get_mut(&pid)?.last_mut().filter(|image| image.is_live() && image.seen_ns <= time_ns)
    }
}

/// Place of the latest image that had begun at `time_ns`.
fn index_at(images: &[Image], time_ns: u64) -> usize {
    images.partition_point(|image| image.from_ns <= time_ns).saturating_sub(1)
}

impl Image {
    /// Whether it still runs.
    pub(crate) fn is_live(&self) -> bool {
        self.until_ns == u64::MAX
    }

    /// Maps a range unless the same is mapped already. Says whether there was room.
    fn map(&mut self, range: &MappedRange, from_ns: u64, resolver: &mut impl Resolver) -> bool {
        // The legacy vsyscall page lies in the kernel's half; no user frame is ever looked up there.
        if range.start >= FIRST_KERNEL_ADDRESS || self.space.has(range) {
            return true;
        }
        let content = resolver.resolve(self.pid, range);
        let source = (range.device, range.inode);
        let (start, end, file_offset) = (range.start, range.end, range.file_offset);
        self.space.insert(Mapping { start, end, file_offset, source, content, from_ns })
    }
}

/// What `/proc` told about one process.
#[derive(Debug)]
pub(crate) struct Scan {
    /// When reading began: events before are contained.
    pub(crate) time_ns: u64,
    /// Since when new findings count: 0 at start, the last good time after lost records.
    pub(crate) since_ns: u64,
    /// Numbers.
    pub(crate) stat: Stat,
    /// Program; `None` for kernel threads and when not allowed.
    pub(crate) executable_path: Option<Arc<str>>,
    /// Executable ranges.
    pub(crate) maps: Maps,
}

impl Scan {
    /// Reads `/proc/PID`; `None` when the process is gone or a zombie.
    pub(crate) fn read(pid: u32, time_ns: u64, since_ns: u64) -> Option<Self> {
        let stat = procfs::stat(pid)?;
        if matches!(stat.state, b'Z' | b'X') && stat.threads <= 1 {
            return None;
        }
        let maps = if stat.kernel_thread { Maps::default() } else { procfs::maps(pid)? };
        let path = if stat.kernel_thread { None } else { procfs::executable_path(pid) };
        Some(Self {
            time_ns,
            since_ns,
            stat,
            executable_path: path.map(|path: PathBuf| path_text(&path).into()),
            maps,
        })
    }
}

fn path_text(path: &std::path::Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
