//! From a file to the finished table of its code: as kept, or built within the byte budget of all workers.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::byte_budget::ByteBudget;
use super::executable::Executable;
use super::table_cache::{CacheError, TableCache};
use super::unwind_image::{self, NoTable};
use crate::agent::tables::TableImage;
use crate::model::FileId;
use crate::symbols::file_id;
use crate::symbols::mapped::ImageFile;

/// Bytes of executables that all workers together hold. Most files need less than 8 MiB, Go programs of 100 MB all of
/// their code; those have it alone.
const BUDGET_BYTES: u64 = 64 << 20;

/// What all workers share.
#[derive(Debug)]
pub struct TableMaker {
    cache: Option<TableCache>,
    cached: AtomicU64,
    budget: ByteBudget,
}

impl TableMaker {
    /// With a directory that keeps finished tables, if one is given.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn new(cache_directory: Option<&Path>) -> Result<Self, CacheError> {
        Ok(Self::with_cache(cache_directory.map(TableCache::open).transpose()?))
    }

    pub(crate) fn with_cache(cache: Option<TableCache>) -> Self {
        Self { cache, cached: AtomicU64::new(0), budget: ByteBudget::new(BUDGET_BYTES) }
    }

    /// The table of the file at `path`.
    ///
    /// # Errors
    /// When the file cannot be read or is none of this machine.
    pub fn image(&self, path: &Path) -> Result<TableImage, NoTable> {
        let file = File::open(path).map_err(|_| NoTable::Gone)?;
        let file_id = file_id::of_file(&ImageFile::open(file)?)?;
        self.image_of(file_id, None, || File::open(path).ok())
    }

    /// The table of a known file, which is opened only if its table was not kept.
    pub(crate) fn image_of(
        &self,
        file_id: FileId,
        origin: Option<&Executable>,
        open: impl FnOnce() -> Option<File>,
    ) -> Result<TableImage, NoTable> {
        if let Some(image) = self.cache.as_ref().and_then(|cache| cache.get(file_id)) {
            self.cached.fetch_add(1, Ordering::Relaxed);
            return Ok(image);
        }
        let file = open().ok_or(NoTable::Gone)?;
        let image = unwind_image::build(file, origin, &self.budget)?;
        if let Some(cache) = &self.cache {
            cache.put(file_id, &image);
        }
        Ok(image)
    }

    /// Tables that had been kept.
    pub fn cached(&self) -> u64 {
        self.cached.load(Ordering::Relaxed)
    }
}
