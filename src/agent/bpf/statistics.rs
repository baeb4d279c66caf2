//! What the kernel itself measures of the sampling program: runs, time, size.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libbpf_rs::libbpf_sys;

/// The kernel's numbers for the sampling program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunStatistics {
    /// Runs on all CPUs while measuring was on.
    pub run_count: u64,
    /// Time these runs took, nanoseconds.
    pub run_time_ns: u64,
    /// Runs that were skipped because the program was already running on the CPU.
    pub recursion_misses: u64,
    /// Instructions the verifier walked; 0 where the kernel does not say (before 5.16).
    pub verified_instructions: u32,
    /// Bytes of machine code.
    pub machine_code_bytes: u32,
}

/// Measuring is on while this lives; it costs two clock reads per run.
#[derive(Debug)]
pub struct StatisticsSwitch(#[expect(dead_code, reason = "closing it is what it is for")] OwnedFd);

impl StatisticsSwitch {
    /// Switches run statistics on for all BPF programs of the machine.
    pub fn on() -> io::Result<Self> {
        // SAFETY: takes a number, returns a descriptor or an error.
        let fd = unsafe { libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME) };
        if fd < 0 {
            return Err(io::Error::from_raw_os_error(-fd));
        }
        // SAFETY: the call has just returned this descriptor, so nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}

/// Asks the kernel about one program.
pub(super) fn of_program(program: BorrowedFd<'_>) -> io::Result<RunStatistics> {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut bytes = size_of::<libbpf_sys::bpf_prog_info>() as u32;
    // SAFETY: `info` is zeroed, so it asks for no arrays, and `bytes` is its size; both live until the call returns.
    let ret =
        unsafe { libbpf_sys::bpf_prog_get_info_by_fd(program.as_raw_fd(), &raw mut info, &raw mut bytes) };
    if ret < 0 {
        return Err(io::Error::from_raw_os_error(-ret));
    }
    Ok(RunStatistics {
        run_count: info.run_cnt,
        run_time_ns: info.run_time_ns,
        recursion_misses: info.recursion_misses,
        verified_instructions: info.verified_insns,
        machine_code_bytes: info.jited_prog_len,
    })
}
