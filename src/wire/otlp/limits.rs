//! How much one export may hold. Each bound is far above what agents send and keeps what a stranger can make us
//! allocate near ten times the message.

/// Bytes of one export after decompression: what OTLP agents send at most.
pub const MAX_MESSAGE_BYTES: usize = 32 << 20;
/// Entries of one dictionary table. A table holds 16 bytes an entry: 16 MiB.
pub const MAX_TABLE_ENTRIES: usize = 1 << 20;
/// Resources and profiles, each counted over the whole export.
pub const MAX_PROFILES: usize = 1 << 18;
/// Samples over the whole export. 5 s at 97 Hz on 1,024 CPUs are half of it, all stacks distinct.
pub const MAX_SAMPLES: usize = 1 << 20;
/// Time stamps over the whole export: what fits into a message at 8 bytes each.
pub const MAX_TIMES: usize = 1 << 22;
/// Frames of one stack: several times what any unwinder reports.
pub const MAX_STACK_FRAMES: usize = 1 << 13;
/// Frames of all stacks together: 64 MiB.
pub const MAX_FRAMES_IN_STACKS: usize = 1 << 24;
/// Source lines (inlined functions) of one frame.
pub const MAX_LINES: usize = 1 << 10;
/// Source lines of all frames together.
pub const MAX_LINES_IN_EXPORT: usize = 1 << 21;
/// Attributes of resources, scopes and profiles over the whole export, references counted each time.
pub const MAX_ATTRIBUTES: usize = 1 << 20;
/// Attributes of one resource, scope, profile, sample, frame or executable.
pub const MAX_ATTRIBUTES_OF_ONE: usize = 1 << 9;
/// Bytes kept of one text; what is longer is cut at a character.
pub const MAX_TEXT_BYTES: usize = 4096;
/// Levels of lists inside attribute values.
pub const MAX_VALUE_DEPTH: usize = 8;
