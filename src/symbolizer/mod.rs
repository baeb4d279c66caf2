//! Names for native frames: takes unnamed frames off the store's queue, reads executables, writes names back.
//!
//! Knows nothing of agents and engines: executables come through [`ExecutableSource`], work and results through
//! `store::Queue`. Loses nothing: an address either gets its name or the reason why it has none, with a date for the
//! next attempt; what is interrupted stays on the queue.

mod cache;
mod counters;
mod debug_files;
mod naming;
mod pool;
mod retry;
mod worker;

use std::fs::File;

pub use counters::Counters;
pub use worker::{Config, Dependencies, Handle, Symbolizer};

use crate::model::{FileId, UnknownReason};

/// Where executables can be opened by identity. Owned here, implemented by whoever has seen the files.
pub trait ExecutableSource: Send + Sync {
    /// Opens the executable for reading, or says why not.
    fn open(&self, file: FileId) -> Result<File, UnknownReason>;
}
