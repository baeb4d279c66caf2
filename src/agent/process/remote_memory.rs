//! Reading the memory of another process: a copy, bounded by the caller's buffer.
#![allow(unsafe_code)]

use std::io;

use crate::model::RuntimeAddr;

/// Copies up to `buffer.len()` bytes from `address` of process `pid`. Returns how many were there; fewer than asked
/// means that the rest is not mapped.
///
/// # Errors
/// `ESRCH` when the process is gone, `EPERM` without `CAP_SYS_PTRACE`, `EFAULT` when nothing is mapped there.
pub fn read(pid: u32, address: RuntimeAddr, buffer: &mut [u8]) -> io::Result<usize> {
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let remote = libc::iovec { iov_base: address.0 as *mut libc::c_void, iov_len: buffer.len() };
    // SAFETY: `local` describes `buffer`, which is borrowed mutably for the whole call; the kernel writes nothing
    // behind its length. `remote` is an address in the other process, which the kernel checks itself.
    let read =
        unsafe { libc::process_vm_readv(pid as libc::pid_t, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_there_and_refuses_the_rest() {
        let text = *b"memory of this test";
        let mut copy = [0; 19];
        let own = std::process::id();
        assert_eq!(read(own, RuntimeAddr(text.as_ptr() as u64), &mut copy).unwrap(), 19);
        assert_eq!(copy, text);
        assert_eq!(read(own, RuntimeAddr(8), &mut copy).unwrap_err().raw_os_error(), Some(libc::EFAULT));
        let gone = read(4_194_305, RuntimeAddr(8), &mut copy).unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(libc::ESRCH));
    }
}
