//! From raw samples to what is reported: whose they are, what their addresses mean, when they were taken.
//!
//! Pure but for the clock and the questions to `process` and `kernel_symbols`. A stack that is not whole says so.

mod cache;
mod clock;
mod convert;
mod interner;
mod late_walk;
mod marks;
mod pending;

pub(crate) use convert::{Converter, Sample};
#[cfg(test)]
pub(crate) use interner::ThreadNumber;
pub(crate) use interner::{Interner, ResourceNumber, StackNumber};
pub(crate) use late_walk::{Late, LateWalker, Walked};
pub(crate) use pending::Pending;
