//! What the threads of one store share, and the order in which it becomes visible.
//!
//! A sample is visible once its commit has succeeded: the ingest thread appends it to the head, upkeep moves it from the
//! head into a segment in one step under the same lock. A question takes a [`Snapshot`] and is not disturbed afterwards.

use std::fs::File;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::database::Database;
use super::dictionary::Dictionaries;
use super::dictionary::logs::Marks;
use super::head::Columns;
use super::layout::Layout;
use super::queue::PendingFiles;
use super::segment::Segment;
use super::settings::Settings;
use super::upkeep::UpkeepState;

/// Small commits are gathered into chunks of about this many samples.
const CHUNK_ROWS: usize = 8192;

/// Everything that the threads of one store share.
#[derive(Debug)]
pub(super) struct Core {
    /// Settings.
    pub(super) settings: Settings,
    /// Directories and files.
    pub(super) layout: Layout,
    /// The redb file.
    pub(super) database: Database,
    /// Numbered values. Locked after `marks`, before nothing.
    pub(super) dictionaries: RwLock<Dictionaries>,
    /// How far the dictionaries are on disk. Held by whoever changes their tables, from before the transaction until
    /// the marks are moved.
    pub(super) marks: Mutex<LogMarks>,
    /// Head and segments.
    pub(super) state: RwLock<State>,
    /// Executables with unnamed frames.
    pub(super) pending: Mutex<PendingFiles>,
    /// What upkeep remembers; held for a whole round.
    pub(super) upkeep: Mutex<UpkeepState>,
    /// Why writing is refused.
    pub(super) refusing: Mutex<Option<String>>,
    /// Keeps other processes out.
    pub(super) _lock: File,
}

impl Core {
    /// Milliseconds since 1970.
    pub(super) fn now_ms(&self) -> i64 {
        (self.settings.clock)().millis() as i64
    }

    /// What a question reads.
    pub(super) fn snapshot(&self) -> Snapshot {
        let state = self.state.read();
        Snapshot {
            head: state.head.iter().map(|chunk| Arc::clone(&chunk.columns)).collect(),
            segments: state.segments.clone(),
        }
    }
}

/// How far the dictionaries are on disk.
#[derive(Debug)]
pub(super) struct LogMarks {
    /// Durable.
    pub(super) persisted: Marks,
    /// In long runs.
    pub(super) gathered: Marks,
    /// First stack that got its frames after its number and may be exported without them.
    pub(super) late: Option<u32>,
}

/// Head and segments as everybody sees them.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Samples in no segment, by commit.
    pub(super) head: Vec<Chunk>,
    /// Sequence number of the last commit that upkeep is about to move; its chunks do not grow.
    pub(super) sealed: Option<u64>,
    /// Segments that count.
    pub(super) segments: Vec<Arc<Segment>>,
}

/// Samples of one or more commits.
#[derive(Debug)]
pub(super) struct Chunk {
    /// First commit.
    first_sequence: u64,
    /// Last commit.
    pub(super) last_sequence: u64,
    /// When the first commit was made, in milliseconds since 1970.
    pub(super) committed_ms: i64,
    /// Samples.
    pub(super) columns: Arc<Columns>,
}

impl State {
    /// Appends the samples of one commit.
    pub(super) fn append(&mut self, sequence: u64, committed_ms: i64, columns: Columns) {
        if let Some(last) = self.head.last_mut()
            && self.sealed.is_none_or(|sealed| last.first_sequence > sealed)
            && last.columns.len() + columns.len() <= CHUNK_ROWS
        {
            let chunk = Arc::make_mut(&mut last.columns);
            (0..columns.len()).for_each(|i| chunk.push(columns.row(i)));
            last.last_sequence = sequence;
            return;
        }
        let columns = Arc::new(columns);
        self.head.push(Chunk { first_sequence: sequence, last_sequence: sequence, committed_ms, columns });
    }

    /// Samples in the head.
    pub(super) fn head_rows(&self) -> usize {
        self.head.iter().map(|chunk| chunk.columns.len()).sum()
    }
}

/// A state of the store that does not change any more.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    /// Samples in no segment.
    pub(super) head: Vec<Arc<Columns>>,
    /// Segments.
    pub(super) segments: Vec<Arc<Segment>>,
}
