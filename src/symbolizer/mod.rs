//! Names for native frames: takes unnamed frames off the store's queue, reads executables, writes names back.

use std::fs::File;

use crate::model::{FileId, UnknownReason};

/// Where executables can be opened by identity. Owned here, implemented by whoever has seen the files.
pub trait ExecutableSource: Send + Sync {
    /// Opens the executable for reading, or says why not.
    fn open(&self, file: FileId) -> Result<File, UnknownReason>;
}
