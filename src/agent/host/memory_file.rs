//! Files that exist in memory only, so that an image read from a process looks like any other executable.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::FromRawFd;

/// Puts `bytes` into an anonymous file. `name` is what `/proc/self/fd` shows.
///
/// # Errors
/// When the kernel has no memory files (before 3.17) or no memory.
pub fn memory_file(name: &std::ffi::CStr, bytes: &[u8]) -> io::Result<File> {
    // SAFETY: `name` is a valid C string for the length of the call.
    let descriptor = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above has just returned this descriptor, and nobody else knows it.
    let mut file = unsafe { File::from_raw_fd(descriptor) };
    file.write_all(bytes)?;
    Ok(file)
}

/// Gives memory that was freed back to the system. Worth its while after large tables: the allocator keeps what it once
/// had, and the agent promises to stay small.
pub fn release_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number and touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn holds_what_was_put_in() {
        let file = memory_file(c"test", b"content").unwrap();
        let mut bytes = [0; 7];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"content");
        assert_eq!(file.metadata().unwrap().len(), 7);
    }
}
