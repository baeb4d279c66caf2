//! Memory that an export takes while it is read, and that its documents take until they are written.
//!
//! Estimates from above: `tests/otlp_allocs.rs` measures what really happens and holds these functions to it.

use crate::store::Documents;

/// Bytes that a hostile message can become, for each of its own.
const WORST_RATIO: usize = 64;
/// Where the limits on entries end any further growth.
const WORST: usize = 256 << 20;

/// Most bytes held while a message of `length` bytes is decoded and mapped, itself not counted.
#[must_use]
pub fn most_while_decoding(length: usize) -> usize {
    length.saturating_mul(WORST_RATIO).min(WORST)
}

/// Bytes that documents hold. Texts are shared with each other and counted once for each place that can introduce them.
#[must_use]
pub fn of(documents: &Documents) -> u64 {
    const ALLOCATION: usize = 32;
    let list = |entries: usize, each: usize| entries * each;
    let events: usize = documents.events.iter().map(|e| 96 + ALLOCATION + 8 * e.times.capacity()).sum();
    let stacks: usize =
        documents.stacktraces.iter().map(|s| 48 + ALLOCATION + 40 * s.frames.capacity()).sum();
    let frames: usize =
        documents.stackframes.iter().map(|f| 64 + f.lines.iter().map(|_| 256).sum::<usize>()).sum();
    let rest = list(documents.resources.len(), 1024)
        + list(documents.executables.len(), 256)
        + list(documents.hosts.len(), 4096)
        + list(documents.unnamed.len(), 32)
        + list(documents.unnamed_files.len(), 24);
    (events + stacks + frames + rest) as u64
}
