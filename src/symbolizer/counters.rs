//! What the symbolizer did so far, as numbers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::model::UnknownReason;

macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident => $name:literal,)*) => {
        /// Numbers since start. Each only grows, but for `cache_bytes`.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub(super) $field: AtomicU64,)*
        }

        impl Counters {
            /// All numbers with their names, in a fixed order.
            #[must_use]
            pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
                vec![$(($name, self.$field.load(Relaxed)),)*]
            }
        }
    };
}

counters! {
    /// Executables whose symbols were read.
    files_read => "files_read",
    /// Executables that could not be opened.
    files_unavailable => "files_unavailable",
    /// Executables that could not be read.
    files_bad => "files_bad",
    /// Separate debug files that contributed.
    debug_files => "debug_files",
    /// Look-ups answered from an index already in memory, by file.
    cache_hits => "cache_hits",
    /// Memory of indices kept, in bytes; a level, not a count.
    cache_bytes => "cache_bytes",
    /// Frames that got a name.
    named => "frames_named",
    /// Frames without a name because the executable could not be opened.
    unavailable => "frames_unnamed.file_unavailable",
    /// Frames without a name because the executable has no symbols.
    no_symbols => "frames_unnamed.no_symbols",
    /// Frames without a name because no symbol covers them.
    not_covered => "frames_unnamed.not_covered",
    /// Frames without a name because the executable is malformed.
    bad_file => "frames_unnamed.bad_file",
    /// Failed reads and writes of the queue; the work is done again.
    queue_errors => "queue_errors",
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Relaxed);
    }

    pub(super) fn unnamed(&self, reason: &UnknownReason, count: usize) {
        let counter = match reason {
            UnknownReason::Pending | UnknownReason::FileUnavailable(_) => &self.unavailable,
            UnknownReason::NoSymbols => &self.no_symbols,
            UnknownReason::NotCovered => &self.not_covered,
            UnknownReason::BadFile(_) => &self.bad_file,
        };
        Self::add(counter, count);
    }
}
