//! Unwind information of executables to compact rows: bytes in, rows out.
//!
//! Pure: no file is opened here, no clock, no allocation that a hostile size could steer. The caller maps the file
//! and hands over sections; `agent::tables` brings rows to the kernel.

mod rows;

pub use rows::{CfaRule, FpRule, RaRule, Row, Rule, Skipped, UnwindTable};
