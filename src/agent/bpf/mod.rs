//! The kernel side as seen from user space: load, attach, drain, count. `unsafe` lives here.

mod raw_trace;

pub use raw_trace::{EndReason, RawTrace, UserFrame};
