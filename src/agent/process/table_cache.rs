//! Finished unwind tables on disk, so that a restart reads megabytes instead of parsing hundreds of them.
//!
//! A convenience that may fail at any time: what cannot be read is built, what cannot be written is not kept. Whoever can
//! write to the folder could tell the agent wrong stacks, so one that others may write to is refused.

use std::fs::{self, File, OpenOptions};
use std::hash::Hasher;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use parking_lot::Mutex;
use twox_hash::XxHash64;

use crate::agent::tables::{MAX_IMAGE_FILE_BYTES, TableImage};
use crate::model::FileId;

/// Most bytes that are kept: tables of everything that is installed on a desktop take 120 MB.
const MAX_BYTES: u64 = 256 << 20;
/// Share that is kept when there are too many: a few at once, so that the folder is not listed for each new table.
const KEEP: (u64, u64) = (7, 8);
/// Folder inside the cache directory, and how its files end.
const FOLDER: &str = "tables";
const EXTENSION: &str = "table";

/// Why the cache is not used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It cannot be made or looked at.
    #[error("{path}: {source}")]
    Io {
        /// Folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else could have written there.
    #[error(
        "{path}: expected a directory of user {expected} that only this user may write to, found one of user {found} with mode {mode:o}"
    )]
    Open {
        /// Folder.
        path: PathBuf,
        /// Who we are.
        expected: u32,
        /// Owner.
        found: u32,
        /// Permissions.
        mode: u32,
    },
}

/// The folder of finished tables.
#[derive(Debug)]
pub(crate) struct TableCache {
    folder: PathBuf,
    maker: u64,
    max_bytes: u64,
    /// Bytes of all files, as far as we know. Other agents may share the folder.
    bytes: Mutex<u64>,
}

impl TableCache {
    /// Opens `directory`, making it if it is missing.
    ///
    /// # Errors
    /// When it cannot be made, or others may write to it.
    pub(crate) fn open(directory: &Path) -> Result<Self, CacheError> {
        Self::with_limit(directory, MAX_BYTES, maker())
    }

    fn with_limit(directory: &Path, max_bytes: u64, maker: u64) -> Result<Self, CacheError> {
        let folder = directory.join(FOLDER);
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| CacheError::Io { path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(at(&folder))?;
        let us = rustix::process::geteuid().as_raw();
        for path in [directory, &folder] {
            // The folder itself, not what a link of that name leads to.
            let metadata = fs::symlink_metadata(path).map_err(at(path))?;
            let (found, mode) = (metadata.uid(), metadata.mode() & 0o7777);
            if !metadata.is_dir() || found != us || mode & 0o022 != 0 {
                return Err(CacheError::Open { path: path.to_owned(), expected: us, found, mode });
            }
        }
        let cache = Self { folder, maker, max_bytes, bytes: Mutex::new(0) };
        *cache.bytes.lock() = cache.shrink(0);
        Ok(cache)
    }

    /// The table of a file, if it was kept and is whole.
    pub(crate) fn get(&self, file_id: FileId) -> Option<TableImage> {
        let path = self.path(file_id);
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path)
            .ok()?;
        let metadata = file.metadata().ok()?;
        if !metadata.is_file() || metadata.len() > MAX_IMAGE_FILE_BYTES {
            return None;
        }
        let mut bytes = Vec::with_capacity(metadata.len() as usize);
        (&file).take(MAX_IMAGE_FILE_BYTES).read_to_end(&mut bytes).ok()?;
        let image = TableImage::from_bytes(&bytes, file_id, self.maker);
        if image.is_some() {
            // The time of change says when it was used last; failing costs only the order in which tables go.
            let _ = file.set_modified(SystemTime::now());
        } else {
            tracing::debug!(path = %path.display(), "kept table is not of this program or damaged");
        }
        image
    }

    /// Keeps a table. What cannot be kept is not.
    pub(crate) fn put(&self, file_id: FileId, image: &TableImage) {
        let bytes = image.to_bytes(file_id, self.maker);
        let length = bytes.len() as u64;
        if length > MAX_IMAGE_FILE_BYTES.min(self.max_bytes / 4) {
            return;
        }
        {
            let mut held = self.bytes.lock();
            if *held + length > self.max_bytes {
                *held = self.shrink(length);
            }
            *held += length;
        }
        if let Err(error) = self.write(file_id, &bytes) {
            tracing::debug!(folder = %self.folder.display(), "cannot keep a table: {error}");
        }
    }

    /// All of it under a name of its own first, so that nobody ever reads a part.
    fn write(&self, file_id: FileId, bytes: &[u8]) -> io::Result<()> {
        let unfinished = self.folder.join(format!("{file_id}.{}.unfinished", std::process::id()));
        // Left behind by a process of our number that was killed.
        let _ = fs::remove_file(&unfinished);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        let written = file.write_all(bytes).and_then(|()| fs::rename(&unfinished, self.path(file_id)));
        if written.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    /// Removes tables used longest ago until `more` bytes fit, and whatever else lies there. Returns the bytes left.
    fn shrink(&self, more: u64) -> u64 {
        let Ok(entries) = fs::read_dir(&self.folder) else { return 0 };
        let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in entries.flatten() {
            let path = entry.path();
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let is_table = path.extension().is_some_and(|extension| extension == EXTENSION);
            // One being written by another agent is young.
            let is_old = used.elapsed().is_ok_and(|age| age.as_secs() > 3600);
            if metadata.is_file() && (is_table || is_old) {
                files.push((if is_table { used } else { SystemTime::UNIX_EPOCH }, metadata.len(), path));
            }
        }
        files.sort();
        let mut held: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        let is_over = held + more > self.max_bytes;
        let limit = if is_over { self.max_bytes / KEEP.1 * KEEP.0 } else { self.max_bytes };
        for (used, bytes, path) in files {
            if held + more > limit || used == SystemTime::UNIX_EPOCH {
                let _ = fs::remove_file(path);
                held -= bytes;
            }
        }
        held
    }

    fn path(&self, file_id: FileId) -> PathBuf {
        self.folder.join(format!("{file_id}.{EXTENSION}"))
    }
}

/// A number for this build of the program: another one may read executables differently.
fn maker() -> u64 {
    let mut hash = XxHash64::with_seed(0);
    hash.write(env!("CARGO_PKG_VERSION").as_bytes());
    if let Ok(own) = File::open("/proc/self/exe").and_then(|file| file.metadata()) {
        for number in [own.size(), own.mtime() as u64, own.mtime_nsec() as u64] {
            hash.write_u64(number);
        }
    }
    hash.finish()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;
    use crate::unwind;

    fn file(n: u64) -> FileId {
        FileId::from_words(7, n)
    }

    fn image() -> TableImage {
        TableImage::new(&unwind::from_elf(&fs::read("/bin/sleep").unwrap()).unwrap())
    }

    #[test]
    fn tables_are_there_after_a_restart_and_only_we_may_read_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        let image = image();
        TableCache::open(&path).unwrap().put(file(1), &image);
        let cache = TableCache::open(&path).unwrap();
        assert_eq!(cache.get(file(1)), Some(image));
        assert_eq!(cache.get(file(2)), None);
        assert_eq!(fs::metadata(&cache.folder).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(fs::metadata(cache.path(file(1))).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(&cache.folder).unwrap().count(), 1);
        // Of another build of the program: built anew.
        assert_eq!(TableCache::with_limit(&path, MAX_BYTES, 1).unwrap().get(file(1)), None);
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        let cache = TableCache::open(&path).unwrap();
        for (path, mode) in [(&path, 0o777), (&path, 0o720), (&cache.folder, 0o702)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            let error = TableCache::open(directory.path().join("cache").as_path()).unwrap_err();
            assert!(matches!(error, CacheError::Open { mode: found, .. } if found == mode), "{error}");
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
        }
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(TableCache::open(&link), Err(CacheError::Open { .. })));
        let occupied = directory.path().join("file");
        fs::write(&occupied, "").unwrap();
        assert!(matches!(TableCache::open(&occupied), Err(CacheError::Io { .. })));
    }

    #[test]
    fn the_table_used_longest_ago_goes_first() {
        let directory = tempfile::tempdir().unwrap();
        let image = image();
        let length = image.to_bytes(file(0), 0).len() as u64;
        let cache = TableCache::with_limit(directory.path(), 8 * length + 1, 0).unwrap();
        let past = SystemTime::now() - Duration::from_secs(1000);
        for n in 0..8 {
            cache.put(file(n), &image);
            let handle = OpenOptions::new().write(true).open(cache.path(file(n))).unwrap();
            handle.set_modified(past + Duration::from_secs(n)).unwrap();
        }
        assert_eq!(cache.get(file(0)).as_ref(), Some(&image));
        cache.put(file(8), &image);
        let there: Vec<bool> = (0..9).map(|n| cache.path(file(n)).exists()).collect();
        assert_eq!(there, [true, false, false, true, true, true, true, true, true]);
        assert_eq!(*cache.bytes.lock(), 7 * length);
    }

    #[test]
    fn hostile_content_is_a_miss() {
        let directory = tempfile::tempdir().unwrap();
        let cache = TableCache::open(directory.path()).unwrap();
        cache.put(file(1), &image());
        let good = fs::read(cache.path(file(1))).unwrap();
        let mut damaged = good.clone();
        damaged[100] ^= 1;
        for bytes in [&good[..good.len() / 2], &damaged, b"", &[0xff; 5000]] {
            fs::write(cache.path(file(1)), bytes).unwrap();
            assert_eq!(cache.get(file(1)), None);
        }
        // Another file's table under this name.
        fs::write(cache.path(file(2)), &good).unwrap();
        assert_eq!(cache.get(file(2)), None);
        fs::remove_file(cache.path(file(1))).unwrap();
        std::os::unix::fs::symlink(cache.path(file(2)), cache.path(file(1))).unwrap();
        assert_eq!(cache.get(file(1)), None);
    }
}
