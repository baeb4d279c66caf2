//! The words of the house: identifiers, addresses, times, frames, batches, selections.
//!
//! No I/O, no serde, no clock, no foreign crate. Every other room imports this one; it imports nobody.

mod address;
mod batch;
mod frame;
pub mod hash;
mod ids;
mod selection;
mod time;

pub use address::{ElfAddr, FileOffset, RuntimeAddr};
pub use batch::{Batch, Executable, ProfileInfo, Resource, Sample, SampleKind};
pub use frame::{Frame, FrameKind, SourceLine, UnknownReason};
pub use ids::{FileId, FrameId, ParseIdError, StackId, stack_id};
pub use selection::{Dimension, Filter, Pattern, Selection};
pub use time::{TimeRange, UnixNanos};
