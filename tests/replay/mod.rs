//! The sampling program outside the kernel: recorded cases, a recorder, and the comparison with gdb.
//!
//! Included by `#[path]` where a test needs it; README.md of this folder tells how each part is used. `machine` runs the
//! C of `bpf/` as a child process, `case` is one recorded stack as text, `process` is what the agent would know of a live
//! process, `gdb` the oracle, `compare` brings both together, `record` turns a stop into a case.

pub(crate) mod case;
pub(crate) mod compare;
pub(crate) mod gdb;
pub(crate) mod judge;
pub(crate) mod machine;
pub(crate) mod process;
pub(crate) mod record;
pub(crate) mod registers;
pub(crate) mod rule_text;
