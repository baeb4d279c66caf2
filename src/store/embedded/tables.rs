//! The tables of the redb file. A change here is a change of [`super::layout::VERSION`].

use redb::TableDefinition;

/// Append-only values of a dictionary: number of the first value → encoded values.
pub(super) type LogTable = TableDefinition<'static, u32, &'static [u8]>;

/// Resources of events.
pub(super) const RESOURCES: LogTable = TableDefinition::new("resources");
/// Thread names.
pub(super) const THREADS: LogTable = TableDefinition::new("threads");
/// Frames.
pub(super) const FRAMES: LogTable = TableDefinition::new("frames");
/// Nodes of the call-path trie.
pub(super) const NODES: LogTable = TableDefinition::new("nodes");
/// Stacks.
pub(super) const STACKS: LogTable = TableDefinition::new("stacks");

/// Stacks whose frames came after their first event: stack → node.
pub(super) const LATE_STACKS: TableDefinition<'static, u32, u32> = TableDefinition::new("late_stacks");

/// File ID → name and build ID.
pub(super) const EXECUTABLES: TableDefinition<'static, [u8; 16], &'static [u8]> =
    TableDefinition::new("executables");
/// Host ID → name and facts.
pub(super) const HOSTS: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("hosts");
/// Frame ID → lines.
pub(super) const NAMES: TableDefinition<'static, [u8; 24], &'static [u8]> = TableDefinition::new("names");
/// Frame ID → attempts and date of the next one.
pub(super) const UNNAMED: TableDefinition<'static, [u8; 24], &'static [u8]> = TableDefinition::new("unnamed");
/// Frame ID → why it has no name.
pub(super) const REASONS: TableDefinition<'static, [u8; 24], &'static [u8]> = TableDefinition::new("reasons");

/// Sequence number → events of one commit that are in no segment yet.
pub(super) const HEAD: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("head");
/// Segment → what its files hold.
pub(super) const SEGMENTS: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("segments");
/// (Dictionary, number of its first value) → number behind its last value and file number.
pub(super) const EXPORTS: TableDefinition<'static, (&'static str, u32), (u32, u64)> =
    TableDefinition::new("exports");
/// Counters that must never go back.
pub(super) const COUNTERS: TableDefinition<'static, &'static str, u64> = TableDefinition::new("counters");

/// In [`COUNTERS`]: sequence number of the next commit.
pub(super) const NEXT_SEQUENCE: &str = "next_sequence";
/// In [`COUNTERS`]: number of the next file.
pub(super) const NEXT_FILE: &str = "next_file";
