//! ELF files: headers, segments, sections, notes, and what they say about functions.
//!
//! Little endian, 32 and 64 bit. Segments and sections are read apart, so that a file with damaged section headers can
//! still be placed in memory.

mod header;
pub mod mini_debug_info;
mod notes;
pub mod plt;
pub mod symtab;

pub use header::{Class, Elf, MAX_SECTIONS, MAX_SEGMENTS, Machine, Section, Sections, Segment};
pub use notes::{Note, notes};
