//! The redb file: opened, re-opened after a failed write, and its errors told apart.
//!
//! After any failed file operation redb refuses to go on until it is opened again, so that is done here and nobody
//! else notices. Space is allocated before it is used: a full disk refuses a growing file instead of tearing a commit.
//! Knows no table. Every transaction of the store passes through [`Database::read`] or [`Database::write`].

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use parking_lot::RwLock;
use redb::{ReadTransaction, ReadableDatabase, StorageBackend, WriteTransaction};
use rustix::fs::FallocateFlags;

use super::super::{Error, Result};
use super::layout;

/// Pages kept in memory. The dictionaries are held as arrays beside it, so only names and the queue profit.
const CACHE_BYTES: usize = 32 << 20;

/// A failure inside a transaction, before it is known what it means for the store.
#[derive(Debug)]
pub(super) enum Fault {
    /// From redb.
    Redb(redb::Error),
    /// From us.
    Store(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

macro_rules! fault_from {
    ($($kind:ident),*) => {
        $(impl From<redb::$kind> for Fault {
            fn from(error: redb::$kind) -> Self {
                Self::Redb(error.into())
            }
        })*
    };
}

fault_from!(StorageError, TableError, TransactionError, CommitError, DatabaseError, SetDurabilityError);

/// The redb file of a store.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    inner: RwLock<Option<redb::Database>>,
}

impl Database {
    /// Opens or creates the file. The caller holds the store's lock.
    pub(super) fn open(path: PathBuf) -> Result<Self> {
        let inner = open(&path)?;
        Ok(Self { path, inner: RwLock::new(Some(inner)) })
    }

    /// Size of the file.
    pub(super) fn bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |m| m.len())
    }

    /// Reads every page. `false` when something was wrong and could be mended.
    pub(super) fn check(&self) -> Result<bool> {
        self.reopen().map_err(|fault| self.settle(fault))?;
        let mut guard = self.inner.write();
        let outcome = guard.as_mut().map_or(Ok(true), redb::Database::check_integrity);
        drop(guard);
        outcome.map_err(|e| self.settle(e.into()))
    }

    /// Runs `question` on a consistent state.
    pub(super) fn read<T>(&self, question: impl Fn(&ReadTransaction) -> Result<T, Fault>) -> Result<T> {
        match self.read_once(&question) {
            // Another thread's failed write has closed the file: once more, on a fresh one.
            Err(Fault::Redb(redb::Error::PreviousIo)) => {
                self.close_failed();
                self.read_once(&question).map_err(|fault| self.settle(fault))
            }
            other => other.map_err(|fault| self.settle(fault)),
        }
    }

    fn read_once<T>(&self, question: impl Fn(&ReadTransaction) -> Result<T, Fault>) -> Result<T, Fault> {
        self.reopen()?;
        let guard = self.inner.read();
        let Some(database) = guard.as_ref() else { return Err(Fault::Redb(redb::Error::PreviousIo)) };
        question(&database.begin_read()?)
    }

    /// Runs `change` and commits it; durable when `Ok`. After an error the change may or may not have happened when
    /// the disk refused the last step, so callers that cannot repeat it must look.
    pub(super) fn write<T>(&self, change: impl FnOnce(&WriteTransaction) -> Result<T, Fault>) -> Result<T> {
        self.write_once(change).map_err(|fault| self.settle(fault))
    }

    fn write_once<T>(&self, change: impl FnOnce(&WriteTransaction) -> Result<T, Fault>) -> Result<T, Fault> {
        self.reopen()?;
        let guard = self.inner.read();
        let Some(database) = guard.as_ref() else { return Err(Fault::Redb(redb::Error::PreviousIo)) };
        let mut transaction = database.begin_write()?;
        // Without it a start after kill -9 reads the whole file (3.7 s for 800 MB against 0.1 s).
        transaction.set_quick_repair(true);
        let outcome = change(&transaction)?;
        transaction.commit()?;
        Ok(outcome)
    }

    fn reopen(&self) -> Result<(), Fault> {
        if self.inner.read().is_some() {
            return Ok(());
        }
        let mut guard = self.inner.write();
        if guard.is_none() {
            *guard = Some(open(&self.path)?);
        }
        Ok(())
    }

    fn close_failed(&self) {
        *self.inner.write() = None;
    }

    /// Names a fault and closes the file when redb will not go on with it.
    fn settle(&self, fault: Fault) -> Error {
        match fault {
            Fault::Store(error) => error,
            Fault::Redb(error) => {
                if matches!(error, redb::Error::Io(_) | redb::Error::PreviousIo) {
                    self.close_failed();
                }
                name_error(&self.path, error)
            }
        }
    }
}

fn open(path: &Path) -> Result<redb::Database> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(|e| layout::io("open", path, e))?;
    redb::Builder::new()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(AllocatedFile(file))
        .map_err(|e| name_error(path, e.into()))
}

fn name_error(path: &Path, error: redb::Error) -> Error {
    match error {
        redb::Error::Io(source) if layout::is_full(&source) => Error::DiskFull { path: path.to_owned() },
        redb::Error::Io(source)
            if matches!(
                source.kind(),
                std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof
            ) =>
        {
            Error::Corrupt { path: path.to_owned(), problem: source.to_string() }
        }
        redb::Error::Io(source) => Error::Io { action: "access", path: path.to_owned(), source },
        redb::Error::Corrupted(problem) => Error::Corrupt { path: path.to_owned(), problem },
        error @ (redb::Error::TableTypeMismatch { .. }
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::UpgradeRequired(_)) => {
            Error::Corrupt { path: path.to_owned(), problem: error.to_string() }
        }
        other => Error::Engine(format!("{}: {other}", path.display())),
    }
}

/// A file whose blocks are allocated when it grows. Exclusive use is guarded by the store's own lock.
#[derive(Debug)]
struct AllocatedFile(File);

impl StorageBackend for AllocatedFile {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        let now = self.0.metadata()?.len();
        if len > now {
            match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), now, len - now) {
                Ok(()) => return Ok(()),
                // Not every file system can; then a full disk shows later and costs a re-open.
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
                Err(e) => {
                    // What was added before the disk was full is given back; if that fails too, it is only unused.
                    let _ = self.0.set_len(now);
                    return Err(e.into());
                }
            }
        }
        self.0.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}
