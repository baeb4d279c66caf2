//! Registry of the executables that processes map: finds each file once, keeps it open, opens it again on demand.
//!
//! A mapping names a file by device and inode. The registry opens it through the process that maps it, so that removed
//! files, memory files and files of other mount namespaces are found too, and holds the handle: from then on nothing
//! that happens to the path matters. Handles are bounded; those of files that nobody maps any more are closed after a
//! while, so that no file system stays busy because of us.

use std::collections::HashMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::events::MappedRange;
use super::executable::{Executable, FileKey, Origin, Stamp};
use super::procfs::{proc_path, strip_deleted};
use super::remote_memory;
use super::trampolines::{self, Trampolines};
use crate::agent::host::memory_file;
use crate::model::{FileId, RuntimeAddr, UnknownReason};
use crate::symbols::mapped::ImageFile;

/// Most handles that are held at once.
const MAX_HANDLES: usize = 512;
/// Most executables that are remembered. One takes about 500 bytes.
const MAX_EXECUTABLES: usize = 8192;
/// How long the handle of a file that nobody maps stays open, in nanoseconds: 5 minutes, so that a symbolizer that
/// works in rounds gets to it.
const KEEP_HANDLE_NS: u64 = 300_000_000_000;
/// How long a file that nobody maps is remembered, in nanoseconds: 30 minutes.
const KEEP_EXECUTABLE_NS: u64 = 1_800_000_000_000;
/// Largest vDSO image that is read. Today's have two to four pages.
const MAX_VDSO_BYTES: u64 = 64 << 10;
/// Most kinds of trampolines: one for each way of building an interpreter, and not as many as a process makes up.
const MAX_TRAMPOLINES: usize = 16;
/// Below this address only 32-bit processes have their vDSO.
const FOUR_GIB: u64 = 1 << 32;

/// What a mapping turned out to be.
#[derive(Clone, Debug)]
pub(crate) enum Resolved {
    /// A file with code.
    Executable(Arc<Executable>),
    /// A file, but no ELF file.
    NotElf,
    /// Nobody can open it any more.
    Unavailable,
}

/// The registry. Shared: the agent's thread fills it, the symbolizer opens files from it.
#[derive(Debug, Default)]
pub struct Executables {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_key: HashMap<FileKey, Known>,
    by_file_id: HashMap<FileId, Vec<Arc<Executable>>>,
    vdso: HashMap<(u64, bool), Option<Arc<Executable>>>,
    trampolines: HashMap<Trampolines, Arc<Executable>>,
    now_ns: u64,
}

#[derive(Debug)]
struct Known {
    /// `None`: no ELF file.
    executable: Option<Arc<Executable>>,
    stamp: Stamp,
    handle: Option<Arc<File>>,
    used_ns: u64,
    removed: bool,
}

impl Executables {
    /// Moves the clock by which handles and memories age.
    pub(crate) fn set_time(&self, now_ns: u64) {
        self.inner.lock().now_ns = now_ns;
    }

    /// The executable under a mapping of a file. Opens and reads it when it is new.
    pub(crate) fn resolve(&self, pid: u32, range: &MappedRange) -> Resolved {
        let key = FileKey { device: range.device, inode: range.inode };
        if let Some(known) = self.still_known(key) {
            return known;
        }
        let Some((file, metadata)) = open_mapped(pid, range) else {
            // The process is gone. What the number meant last is what it means now, as far as anybody can tell.
            let inner = self.inner.lock();
            return inner.by_key.get(&key).map_or(Resolved::Unavailable, Known::resolved);
        };
        let stamp = stamp(&metadata);
        if let Some(known) = self.inner.lock().reattach(key, stamp, &file) {
            return known;
        }
        let path = strip_deleted(&range.path).to_owned();
        let origin = Origin { path, pid, key, stamp, is_stand_in: false };
        let executable = read(&file, origin);
        self.inner.lock().insert(
            key,
            Known {
                executable: executable.clone(),
                stamp,
                handle: Some(Arc::new(file)),
                used_ns: 0,
                removed: metadata.nlink() == 0,
            },
        );
        executable.map_or(Resolved::NotElf, Resolved::Executable)
    }

    /// The code page of the kernel, read from the memory of a process that has it. Read once per size and word size:
    /// all processes of one kind share the page.
    pub(crate) fn resolve_vdso(&self, pid: u32, range: &MappedRange) -> Resolved {
        let kind = (range.end - range.start, range.start < FOUR_GIB);
        if let Some(known) = self.inner.lock().vdso.get(&kind) {
            return known.clone().map_or(Resolved::NotElf, Resolved::Executable);
        }
        let Ok(file) = copy_vdso(pid, range) else { return Resolved::Unavailable };
        let Some((key, known)) = known_in_memory(file, "[vdso]", pid, false) else {
            return Resolved::Unavailable;
        };
        let mut inner = self.inner.lock();
        let executable = known.executable.clone();
        inner.vdso.insert(kind, executable.clone());
        inner.insert(key, known);
        executable.map_or(Resolved::NotElf, Resolved::Executable)
    }

    /// What stands for memory of no file, where its code is known, and where in it the mapping begins.
    pub(crate) fn resolve_stand_in(&self, pid: u32, range: &MappedRange) -> Option<(Arc<Executable>, u64)> {
        let trampolines = Trampolines::of(pid, range)?;
        let mut inner = self.inner.lock();
        if !inner.trampolines.contains_key(&trampolines) && inner.trampolines.len() < MAX_TRAMPOLINES {
            let file = memory_file(c"trampolines", &trampolines.image()).ok()?;
            let (key, known) = known_in_memory(file, trampolines::NAME, pid, true)?;
            inner.trampolines.insert(trampolines, known.executable.clone()?);
            inner.insert(key, known);
        }
        inner.trampolines.get(&trampolines).map(|executable| (Arc::clone(executable), trampolines::CODE_AT))
    }

    /// Opens an executable by identity, removed ones too; for whoever names frames.
    ///
    /// # Errors
    /// When no process of this host maps it, or it can no longer be opened.
    pub fn open(&self, file: FileId) -> Result<File, UnknownReason> {
        let (held, known) = {
            let inner = self.inner.lock();
            let known = inner.by_file_id.get(&file).cloned().unwrap_or_default();
            (known.iter().find_map(|executable| inner.held(executable)), known)
        };
        if let Some(file) = held.and_then(|file| reopen(&file).ok()) {
            return Ok(file);
        }
        let Some(first) = known.first() else {
            return Err(UnknownReason::FileUnavailable("not mapped by any process of this host".into()));
        };
        known.iter().find_map(|executable| open_by_path(executable).ok()).ok_or_else(|| {
            UnknownReason::FileUnavailable(format!("{} is gone or was replaced", first.path.display()))
        })
    }

    /// A private handle on an executable for the table builder.
    pub(crate) fn handle(&self, executable: &Executable) -> Option<File> {
        let held = self.inner.lock().held(executable);
        held.and_then(|file| reopen(&file).ok()).or_else(|| open_by_path(executable).ok())
    }

    /// Closes handles and forgets executables that nobody needs. Returns those forgotten.
    pub(crate) fn sweep(&self) -> Vec<FileId> {
        self.inner.lock().sweep()
    }

    /// Number of handles held.
    pub(crate) fn handles(&self) -> usize {
        self.inner.lock().by_key.values().filter(|known| known.handle.is_some()).count()
    }

    /// Fast path: known, and held open, so that the inode cannot have become another file.
    fn still_known(&self, key: FileKey) -> Option<Resolved> {
        let mut inner = self.inner.lock();
        let now_ns = inner.now_ns;
        let known = inner.by_key.get_mut(&key)?;
        let metadata = known.handle.as_ref()?.metadata().ok()?;
        if stamp(&metadata) != known.stamp {
            return None;
        }
        known.used_ns = known.used_ns.max(now_ns);
        Some(known.resolved())
    }
}

impl Known {
    fn resolved(&self) -> Resolved {
        self.executable.clone().map_or(Resolved::NotElf, Resolved::Executable)
    }

    /// Nobody but the registry (here and by identity) holds it.
    fn is_idle(&self) -> bool {
        self.executable.as_ref().is_none_or(|executable| Arc::strong_count(executable) <= 2)
    }
}

impl Inner {
    fn insert(&mut self, key: FileKey, mut known: Known) {
        known.used_ns = known.used_ns.max(self.now_ns);
        if let Some(executable) = &known.executable {
            let same = self.by_file_id.entry(executable.file_id).or_default();
            same.retain(|other| other.key != key);
            same.push(Arc::clone(executable));
        }
        self.by_key.insert(key, known);
        self.bound_handles();
    }

    /// A known file whose handle was closed meanwhile: same content, new handle.
    fn reattach(&mut self, key: FileKey, stamp: Stamp, file: &File) -> Option<Resolved> {
        let now_ns = self.now_ns;
        let known = self.by_key.get_mut(&key).filter(|known| known.stamp == stamp)?;
        known.handle = file.try_clone().ok().map(Arc::new);
        known.used_ns = known.used_ns.max(now_ns);
        let resolved = known.resolved();
        self.bound_handles();
        Some(resolved)
    }

    fn held(&self, executable: &Executable) -> Option<Arc<File>> {
        let known = self.by_key.get(&executable.key)?;
        (known.stamp == executable.stamp).then(|| known.handle.clone())?
    }

    /// Closes the handle used longest ago when there are too many; removed files last, nobody could open them again.
    fn bound_handles(&mut self) {
        let open = self.by_key.values().filter(|known| known.handle.is_some()).count();
        if open <= MAX_HANDLES {
            return;
        }
        // A few at once, so that this search is not made for each new file.
        let mut by_age: Vec<_> = self
            .by_key
            .iter()
            .filter(|(_, known)| known.handle.is_some() && known.used_ns != u64::MAX)
            .map(|(key, known)| (known.removed, known.used_ns, *key))
            .collect();
        by_age.sort_by_key(|(removed, used_ns, _)| (*removed, *used_ns));
        for (_, _, key) in by_age.into_iter().take(MAX_HANDLES / 8) {
            if let Some(known) = self.by_key.get_mut(&key) {
                known.handle = None;
            }
        }
    }

    fn sweep(&mut self) -> Vec<FileId> {
        let now_ns = self.now_ns;
        let crowded = self.by_key.len() > MAX_EXECUTABLES;
        for known in self.by_key.values_mut() {
            if !known.is_idle() {
                known.used_ns = known.used_ns.max(now_ns);
            } else if now_ns.saturating_sub(known.used_ns) > KEEP_HANDLE_NS {
                known.handle = None;
            }
        }
        let keep_ns = if crowded { 0 } else { KEEP_EXECUTABLE_NS };
        let mut forgotten = Vec::new();
        self.by_key.retain(|_, known| {
            let keep = !known.is_idle() || now_ns.saturating_sub(known.used_ns) <= keep_ns;
            if let Some(executable) = known.executable.as_ref().filter(|_| !keep) {
                forgotten.push(executable.file_id);
            }
            keep
        });
        let by_key = &self.by_key;
        self.by_file_id.retain(|_, same| {
            same.retain(|executable| {
                Arc::strong_count(executable) > 1
                    || by_key
                        .get(&executable.key)
                        .and_then(|known| known.executable.as_ref())
                        .is_some_and(|known| Arc::ptr_eq(known, executable))
            });
            !same.is_empty()
        });
        forgotten.retain(|file_id| !self.by_file_id.contains_key(file_id));
        forgotten
    }
}

/// Opens the file under a mapping: by the mapping itself, else by path inside the process's root, else by plain path
/// (of a process that was only put into another directory the kernel tells the outside path). The last two count only
/// when device and inode are those of the mapping: the same path may be another file elsewhere.
pub(super) fn open_mapped(pid: u32, range: &MappedRange) -> Option<(File, Metadata)> {
    let by_mapping = proc_path(pid, "map_files").join(format!("{:x}-{:x}", range.start, range.end));
    if let Ok(found) = open_regular(&by_mapping) {
        return Some(found);
    }
    let key = FileKey { device: range.device, inode: range.inode };
    paths(pid, &range.path)
        .into_iter()
        .find_map(|path| open_regular(&path).ok().filter(|(_, metadata)| is_at(metadata, key)))
}

fn paths(pid: u32, path: &Path) -> [PathBuf; 2] {
    let plain = strip_deleted(path);
    let inside = plain.strip_prefix("/").unwrap_or(plain);
    [proc_path(pid, "root").join(inside), plain.to_owned()]
}

fn is_at(metadata: &Metadata, key: FileKey) -> bool {
    metadata.ino() == key.inode && device_of(metadata) == key.device
}

/// Opens again what was known before, if it still is the same.
fn open_by_path(executable: &Executable) -> io::Result<File> {
    for path in paths(executable.seen_in, &executable.path) {
        if let Ok((file, metadata)) = open_regular(&path)
            && is_at(&metadata, executable.key)
            && stamp(&metadata) == executable.stamp
        {
            return Ok(file);
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// A path may have become a pipe or a terminal meanwhile: do not wait for it, do not adopt it.
pub(super) fn open_regular(path: &Path) -> io::Result<(File, Metadata)> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok((file, metadata)) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// A second handle with a cursor of its own, even on a removed file.
fn reopen(file: &File) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).or_else(|_| file.try_clone())
}

fn read(file: &File, origin: Origin) -> Option<Arc<Executable>> {
    let path = origin.path.clone();
    let image = file.try_clone().ok().and_then(|file| ImageFile::open(file).ok())?;
    match Executable::read(image, origin) {
        Ok(executable) => Some(Arc::new(executable)),
        Err(error) => {
            tracing::debug!(path = %path.display(), "mapped file is no executable that we read: {error}");
            None
        }
    }
}

fn copy_vdso(pid: u32, range: &MappedRange) -> io::Result<File> {
    let bytes = range.end.saturating_sub(range.start);
    if bytes > MAX_VDSO_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut image = vec![0; bytes as usize];
    let read = remote_memory::read(pid, RuntimeAddr(range.start), &mut image)?;
    image.truncate(read);
    memory_file(c"vdso", &image)
}

/// Something that lies in a file of ours, for good.
fn known_in_memory(file: File, name: &str, pid: u32, is_stand_in: bool) -> Option<(FileKey, Known)> {
    let metadata = file.metadata().ok()?;
    let stamp = stamp(&metadata);
    let key = FileKey { device: device_of(&metadata), inode: metadata.ino() };
    let executable = read(&file, Origin { path: PathBuf::from(name), pid, key, stamp, is_stand_in });
    let known = Known { executable, stamp, handle: Some(Arc::new(file)), used_ns: u64::MAX, removed: true };
    Some((key, known))
}

fn stamp(metadata: &Metadata) -> Stamp {
    Stamp { size: metadata.size(), changed: (metadata.mtime(), metadata.mtime_nsec()) }
}

fn device_of(metadata: &Metadata) -> (u32, u32) {
    (libc::major(metadata.dev()), libc::minor(metadata.dev()))
}

#[cfg(test)]
pub(crate) mod tests;
