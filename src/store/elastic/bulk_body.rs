//! Bytes of a bulk request, and what each of its items is.

/// What an item of a bulk request writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// One sample in the stream of all events.
    Event,
    /// One sample in a down-sampled stream, level 1 to [`super::LEVELS`].
    SampledEvent(u8),
    /// A call stack.
    StackTrace,
    /// Names of a frame.
    StackFrame,
    /// Name of an executable.
    Executable,
    /// Facts of a host.
    Host,
    /// Entry of the symbolization queue of executables.
    QueuedExecutable,
    /// Entry of the symbolization queue of leaf frames.
    QueuedFrame,
}

/// One action with its document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it writes.
    pub kind: Kind,
    /// End of its lines in [`BulkBody::bytes`]; they begin where the item before ends.
    pub end: usize,
}

/// Newline-delimited actions and documents, ready to be sent to `_bulk`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BulkBody {
    /// NDJSON, each line ended by a line feed.
    pub bytes: Vec<u8>,
    /// Items in the order of the bytes.
    pub items: Vec<Item>,
}
