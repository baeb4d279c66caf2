//! Unwind information of executables to compact rows: bytes in, rows out.
//!
//! Pure: no file is opened here, no clock, no allocation that a hostile size could steer. The caller maps the file
//! and hands over its bytes; `agent::tables` brings rows to the kernel. Read in this order: `rows` (what comes out),
//! `elf` (what goes in), `eh_frame` and `cfi` (DWARF call frame information), `kept_register` (frames that hang on other
//! registers), `gopclntab` and `goroutine` (Go), `entry` (code that is known by its bytes), `guess` (rules read off code
//! that nothing describes), `compact` (all of them to one sorted table), `step` (a rule executed, for tests and tools).

mod aarch64;
mod cfi;
mod compact;
mod eh_frame;
mod elf;
mod entry;
mod expression;
mod gopclntab;
mod goroutine;
mod guess;
mod instructions;
mod kept_register;
mod reader;
mod rows;
mod step;
#[cfg(test)]
mod tests;
mod x86_64;

pub use elf::{from_elf, from_elf_and_debug_file, undescribed};
pub use rows::{CfaRule, FpRule, Goroutine, RaRule, Row, Rule, Skipped, UnwindTable};
pub use step::{Registers, Trouble, step};

/// Rows of one table: 64 MiB at 8 bytes each. The largest known file (a browser with complete tables) has some 8 million.
pub const MAX_ROWS: usize = 8 << 20;

/// Distinct rules of one table. A full desktop has 4,200 over all its files.
pub const MAX_RULES: usize = 16_384;

/// Entries (functions) of one table: 28 bytes each while building.
pub const MAX_ENTRIES: usize = 2 << 20;

/// Common information entries of one section. Linkers merge equal ones; `.debug_frame` has one per compilation unit.
pub const MAX_CIES: usize = 1 << 16;

/// Program headers that are looked at. Real files have a dozen.
pub const MAX_SEGMENTS: usize = 256;

/// Section headers that are looked at. Real executables have some forty.
pub const MAX_SECTIONS: usize = 4096;

/// Code without any description that is read, in one file: 16 MiB. A large video encoder has 13.
pub const MAX_GUESSED_BYTES: u64 = 16 << 20;

/// Uncompressed size of a compressed section.
pub const MAX_UNCOMPRESSED_BYTES: u64 = 256 << 20;

/// Instruction set of an executable, with its DWARF register numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// AMD64: rbp is 6, rsp 7, the return address column 16.
    X86_64,
    /// ARM64: fp is x29, lr x30, sp 31.
    Aarch64,
}

impl Architecture {
    /// That of this program, and so of every process it meets.
    pub const HOST: Self = if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 };
}

/// Why no table could be built at all. What is missing within a table is counted in [`Skipped`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No ELF header.
    #[error("not an ELF file")]
    NotElf,
    /// 32-bit or big-endian.
    #[error(
        "elf header: expected a 64-bit little-endian file, found class {class} and data encoding {encoding}"
    )]
    Class {
        /// `EI_CLASS`.
        class: u8,
        /// `EI_DATA`.
        encoding: u8,
    },
    /// Another processor.
    #[error("elf header: expected machine x86-64 (62) or aarch64 (183), found {0}")]
    Machine(u16),
    /// Nothing in it can run, or the file ends before it.
    #[error("program headers: expected an executable segment with bytes in the file, found none")]
    NoExecutableSegment,
}
