//! Address spaces as types, so that a number never has to be guessed.

use std::fmt;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

address! {
    /// Virtual address as the ELF file itself numbers it (`p_vaddr` space), in bytes.
    ElfAddr
}
address! {
    /// Address inside a running process, in bytes.
    RuntimeAddr
}
address! {
    /// Offset from the start of a file, in bytes.
    FileOffset
}
