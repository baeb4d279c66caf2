//! From raw samples to what is reported: whose they are, what their addresses mean, when they were taken.
//!
//! Pure but for the clock and the questions to `process` and `kernel_symbols`. A stack that is not whole says so.

mod cache;
mod clock;
mod convert;
mod interner;
mod marks;

pub(crate) use convert::{Converter, Sample};
pub(crate) use interner::{Interner, ResourceNumber, StackNumber, ThreadNumber};
