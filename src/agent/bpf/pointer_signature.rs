//! Which bits of a code pointer hold its signature: arm64 pointer authentication.
//!
//! Return addresses on the stack of a program built with `-mbranch-protection` are signed. Which bits that takes depends on how
//! many the kernel uses for addresses, and the processor itself is the one that knows: it is asked to strip a pointer.

/// All ones but bit 55, which tells the kernel's addresses from ours.
#[cfg(target_arch = "aarch64")]
const ALL_BITS: u64 = !(1 << 55);

/// Bits to clear in a user code pointer; 0 where pointers are not signed.
#[cfg(target_arch = "aarch64")]
pub(crate) fn mask() -> u64 {
    let stripped: u64;
    // SAFETY: XPACLRI changes x30 only, which is the operand; a processor without signatures takes it for a NOP.
    unsafe {
        std::arch::asm!(
            "hint #7",
            inout("x30") ALL_BITS => stripped,
            options(nomem, nostack, preserves_flags)
        );
    }
    ALL_BITS & !stripped
}

/// Bits to clear in a user code pointer: x86-64 signs none.
#[cfg(not(target_arch = "aarch64"))]
pub(crate) fn mask() -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn leaves_addresses_of_this_program_alone() {
        let code = mask as fn() -> u64 as usize as u64;
        assert_eq!(code & !mask(), code);
    }
}
