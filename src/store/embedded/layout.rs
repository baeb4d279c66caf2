//! Where things lie in the data directory, and the careful way to put them there.
//!
//! Knows names and file operations, not contents. `docs/store.md` describes the same layout for people.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::super::{Error, Result};

/// Version of the layout that this program writes, and the newest it reads.
pub(super) const VERSION: u32 = 1;

/// Ending of files that are not yet published.
const UNPUBLISHED: &str = "tmp";

/// The directories and files of one store.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    root: PathBuf,
}

/// Kinds of Parquet files that belong to one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Part {
    /// One row per sample.
    Events,
    /// Samples per resource, stack and thread name over the whole segment.
    Totals,
    /// Samples per resource, thread name and minute.
    Minutes,
}

impl Part {
    /// All of them; events first, for they are what must not be lost.
    pub(super) const ALL: [Self; 3] = [Self::Events, Self::Totals, Self::Minutes];

    fn folder(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Totals => "totals",
            Self::Minutes => "minutes",
        }
    }
}

/// Folder of the dictionaries in Parquet form.
const DICTIONARIES: &str = "dictionaries";
/// Folder where `repair` puts what it cannot read.
const QUARANTINE: &str = "quarantine";

impl Layout {
    /// Makes the directories that are missing and checks the version.
    pub(super) fn open(root: &Path) -> Result<Self> {
        let layout = Self { root: root.to_owned() };
        for folder in Part::ALL.map(Part::folder).into_iter().chain([DICTIONARIES]) {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(|e| io("create", &path, e))?;
        }
        layout.check_version()?;
        Ok(layout)
    }

    fn check_version(&self) -> Result<()> {
        let path = self.root.join("LAYOUT");
        match fs::read_to_string(&path) {
            Ok(text) => {
                let found = text.strip_prefix("everflame store layout ").and_then(|v| v.trim().parse().ok());
                match found {
                    Some(found) if found > VERSION => {
                        Err(Error::Version { path: self.root.clone(), found, supported: VERSION })
                    }
                    Some(_) => Ok(()),
                    None => Err(Error::Corrupt {
                        path,
                        problem: format!(
                            "expected \"everflame store layout {VERSION}\", found {:?}",
                            clip(&text)
                        ),
                    }),
                }
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                Self::publish(&path, |file| writeln!(file, "everflame store layout {VERSION}"))
            }
            Err(e) => Err(io("read", &path, e)),
        }
    }

    /// The data directory.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The redb file.
    pub(super) fn database(&self) -> PathBuf {
        self.root.join("store.redb")
    }

    /// One file of a segment.
    pub(super) fn segment(&self, id: u64, part: Part) -> PathBuf {
        self.root.join(part.folder()).join(format!("{id:08}.parquet"))
    }

    /// The folder of one kind of segment file.
    pub(super) fn folder(&self, part: Part) -> PathBuf {
        self.root.join(part.folder())
    }

    /// The folder of the dictionaries in Parquet form.
    pub(super) fn dictionaries(&self) -> PathBuf {
        self.root.join(DICTIONARIES)
    }

    /// Moves a damaged file out of the way and returns its new place.
    pub(super) fn quarantine(&self, path: &Path) -> Result<PathBuf> {
        let folder = self.root.join(QUARANTINE);
        fs::create_dir_all(&folder).map_err(|e| io("create", &folder, e))?;
        let relative = path.strip_prefix(&self.root).unwrap_or(path);
        let name = relative.to_string_lossy().replace('/', "-");
        let mut target = folder.join(&name);
        for attempt in 1.. {
            if !target.exists() {
                break;
            }
            target = folder.join(format!("{name}.{attempt}"));
        }
        fs::rename(path, &target).map_err(|e| io("move", path, e))?;
        Ok(target)
    }

    /// Takes the store for this process; the lock goes with the returned file.
    pub(super) fn lock(&self) -> Result<File> {
        let path = self.root.join("LOCK");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| io("open", &path, e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // The holder's pid is a courtesy: without it the message is shorter.
                let _ = file.read_to_string(&mut text);
                return Err(Error::InUse { path: self.root.clone(), pid: text.trim().parse().ok() });
            }
            Err(TryLockError::Error(e)) => return Err(io("lock", &path, e)),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(|e| io("write", &path, e))?;
        Ok(file)
    }

    /// Writes a file so that after a crash it is there whole or not at all: beside, synced, renamed, folder synced.
    fn publish(path: &Path, write: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<()> {
        let beside = Self::unpublished(path);
        let written = (|| {
            let mut file = File::create(&beside)?;
            write(&mut file)?;
            file.sync_all()
        })();
        if let Err(e) = written {
            // Nobody refers to it; if it stays, the next start removes it.
            let _ = fs::remove_file(&beside);
            return Err(io("write", &beside, e));
        }
        Self::rename_into_place(path)
    }

    /// Name under which `path` is written before it is published.
    pub(super) fn unpublished(path: &Path) -> PathBuf {
        path.with_extension(UNPUBLISHED)
    }

    /// Gives a written and synced file its real name, durably.
    pub(super) fn rename_into_place(path: &Path) -> Result<()> {
        let beside = Self::unpublished(path);
        fs::rename(&beside, path).map_err(|e| io("rename", &beside, e))?;
        if let Some(folder) = path.parent() {
            File::open(folder).and_then(|f| f.sync_all()).map_err(|e| io("sync", folder, e))?;
        }
        Ok(())
    }

    /// Deletes what `keep` does not name in `folder`; unpublished files always go. Returns how many went.
    pub(super) fn sweep(folder: &Path, keep: impl Fn(&str) -> bool) -> Result<usize> {
        let mut removed = 0;
        for entry in fs::read_dir(folder).map_err(|e| io("read", folder, e))? {
            let path = entry.map_err(|e| io("read", folder, e))?.path();
            let unpublished = path.extension() == Some(OsStr::new(UNPUBLISHED));
            let name = path.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
            if (unpublished || !keep(&name)) && path.is_file() {
                fs::remove_file(&path).map_err(|e| io("delete", &path, e))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Free bytes on the disk of the store, `None` when the system does not say.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(&self.root).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// The error for a refused file operation; a full disk has its own kind.
pub(super) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Error {
    if is_full(&source) {
        Error::DiskFull { path: path.to_owned() }
    } else {
        Error::Io { action, path: path.to_owned(), source }
    }
}

/// Whether the system refused for want of room.
pub(super) fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

fn clip(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_newer_layout_and_a_strange_one() {
        let dir = tempfile::tempdir().unwrap();
        Layout::open(dir.path()).unwrap();
        fs::write(dir.path().join("LAYOUT"), "everflame store layout 99\n").unwrap();
        assert!(matches!(
            Layout::open(dir.path()),
            Err(Error::Version { found: 99, supported: VERSION, .. })
        ));
        fs::write(dir.path().join("LAYOUT"), "shopping list").unwrap();
        assert!(matches!(Layout::open(dir.path()), Err(Error::Corrupt { .. })));
    }

    #[test]
    fn second_lock_names_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path()).unwrap();
        let held = layout.lock().unwrap();
        let pid = std::process::id();
        assert!(matches!(layout.lock(), Err(Error::InUse { pid: Some(p), .. }) if p == pid));
        drop(held);
        layout.lock().unwrap();
    }

    #[test]
    fn sweep_removes_unpublished_and_unnamed_files_only() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path()).unwrap();
        let folder = layout.folder(Part::Events);
        for name in ["00000001.parquet", "00000002.parquet", "00000003.tmp"] {
            fs::write(folder.join(name), "x").unwrap();
        }
        assert_eq!(Layout::sweep(&folder, |name| name == "00000001.parquet").unwrap(), 2);
        assert!(folder.join("00000001.parquet").exists());
    }
}
