//! The two system calls that read and lower the capabilities of the calling thread. `agent::capabilities` decides which.

use std::io;

/// `_LINUX_CAPABILITY_VERSION_3`: 64 capabilities in two words.
const VERSION: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    /// 0: the calling thread.
    tid: i32,
}

/// `struct __user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Effective capabilities of the calling thread, one bit each.
pub(crate) fn effective() -> io::Result<u64> {
    let data = read()?;
    Ok(u64::from(data[0].effective) | u64::from(data[1].effective) << 32)
}

/// Gives up every capability outside `keep` for the calling thread and the threads it starts from now on.
pub(crate) fn keep_only(keep: u64) -> io::Result<()> {
    let mut data = read()?;
    for (word, data) in data.iter_mut().enumerate() {
        let keep = (keep >> (32 * word)) as u32;
        data.permitted &= keep;
        data.effective &= keep;
        data.inheritable &= keep;
    }
    let header = Header { version: VERSION, tid: 0 };
    // SAFETY: version 3 reads one header and two data structs, which live until the call returns.
    let ret = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn read() -> io::Result<[Data; 2]> {
    let mut header = Header { version: VERSION, tid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 reads one header and writes two data structs, which live until the call returns.
    let ret = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(data) }
}
