//! Names for code: ELF symbol tables, Go tables and kernel lists in, functions and lines out.
//!
//! Pure but for [`mapped`], the one door to a file. Knows nothing of queues, stores and processes. Everything read here
//! was written by strangers: each limit is a named constant next to its use, and exceeding one is an [`Error`].

pub mod demangle;
pub mod elf;
mod error;
pub mod file_id;
pub mod gosym;
#[cfg(test)]
mod hostile;
pub mod jit;
pub mod kallsyms;
pub mod mapped;
pub mod ranges;
pub mod resolve;
pub mod sparse;
#[cfg(test)]
mod testing;

pub use error::{Error, Result};
pub use resolve::SymbolIndex;
