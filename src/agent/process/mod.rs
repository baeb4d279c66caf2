//! Which processes run and what they have mapped: `/proc` at start, perf side-band events afterwards.

mod kernel_side;

pub use kernel_side::{KernelSide, KernelSideError, ProcessMapping, TableId};
