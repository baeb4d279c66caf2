//! ELF files: headers, segments, sections and notes. Symbol tables come with `symtab`.
//!
//! Little endian, 32 and 64 bit. Segments and sections are read apart, so that a file with damaged section headers can
//! still be placed in memory.

mod header;
mod notes;

pub use header::{Class, Elf, MAX_SECTIONS, MAX_SEGMENTS, Machine, Section, Sections, Segment};
pub use notes::{Note, notes};
