//! Perf buffer of one CPU: opens the event, maps its buffer, hands over records as bytes.
//!
//! Knows the layout of `perf_event_attr` and of the control page, not that of the records
//! (`agent::process::events::record`, `agent::bpf::per_cpu_buffers`). The kernel samples nothing by itself here: a dummy
//! event makes it tell which processes and mappings come and go, an output event holds what BPF programs send.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// `perf_event_attr` up to `PERF_ATTR_SIZE_VER5` (112 bytes, Linux 4.1), which knows every bit used here.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_bytes: u32,
    breakpoint_type: u32,
    config1: u64,
    config2: u64,
    branch_sample_type: u64,
    sample_regs_user: u64,
    sample_stack_user: u32,
    clock: i32,
    sample_regs_intr: u64,
    aux_watermark: u32,
    sample_max_stack: u16,
    reserved: u16,
}

const _: () = assert!(size_of::<Attributes>() == 112);

const TYPE_SOFTWARE: u32 = 1;
const COUNT_SW_DUMMY: u64 = 9;
const COUNT_SW_BPF_OUTPUT: u64 = 10;
const SAMPLE_TIME: u64 = 1 << 2;
const SAMPLE_RAW: u64 = 1 << 10;
const FLAG_CLOEXEC: libc::c_ulong = 8;

/// Bits of [`Attributes::flags`].
mod flag {
    pub(super) const MMAP: u64 = 1 << 8;
    pub(super) const COMM: u64 = 1 << 9;
    pub(super) const TASK: u64 = 1 << 13;
    pub(super) const WATERMARK: u64 = 1 << 14;
    pub(super) const SAMPLE_ID_ALL: u64 = 1 << 18;
    pub(super) const MMAP2: u64 = 1 << 23;
    pub(super) const COMM_EXEC: u64 = 1 << 24;
    pub(super) const USE_CLOCK: u64 = 1 << 25;
    /// Linux 5.1.
    pub(super) const KERNEL_SYMBOL: u64 = 1 << 29;
}

/// Offsets in the control page (`struct perf_event_mmap_page`), in bytes.
mod control {
    pub(super) const DATA_HEAD: usize = 1024;
    pub(super) const DATA_TAIL: usize = 1032;
}

/// Header of each record: type u32, misc u16, size u16.
const HEADER_BYTES: usize = 8;

/// No ordinary record is larger: a mapping with a path of 4096 bytes.
const LARGE_RECORD_BYTES: usize = 4096 + 128;

/// Buffer of one CPU.
#[derive(Debug)]
pub struct PerfRing {
    descriptor: OwnedFd,
    base: *mut u8,
    page_bytes: usize,
    data_bytes: usize,
    /// Copy of the record in hand; records are at most 64 KiB because their size field has 16 bits.
    record: Vec<u8>,
}

// SAFETY: the map belongs to this value alone and is used through `&mut self`; no thread-local state is involved.
unsafe impl Send for PerfRing {}

impl PerfRing {
    /// Opens the side-band of `cpu` with `data_pages` pages (a power of two). The descriptor becomes readable with the
    /// first record.
    ///
    /// # Errors
    /// `EACCES` or `EPERM` without `CAP_PERFMON`, `ENODEV` when the CPU is off, `EPERM` when the memory lock limit is
    /// reached.
    pub fn open(cpu: u32, data_pages: usize) -> io::Result<Self> {
        let base_flags = flag::MMAP
            | flag::COMM
            | flag::TASK
            | flag::WATERMARK
            | flag::SAMPLE_ID_ALL
            | flag::MMAP2
            | flag::COMM_EXEC
            | flag::USE_CLOCK;
        // Kernel symbol records came with 5.1; an older kernel refuses the bit with EINVAL.
        let side_band = |flags| Attributes {
            config: COUNT_SW_DUMMY,
            sample_type: SAMPLE_TIME,
            flags,
            wakeup_bytes: 1,
            clock: libc::CLOCK_MONOTONIC,
            ..Attributes::default()
        };
        let descriptor = match open_event(cpu, side_band(base_flags | flag::KERNEL_SYMBOL)) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                open_event(cpu, side_band(base_flags))?
            }
            other => other?,
        };
        Self::map(descriptor, data_pages)
    }

    /// Opens a buffer on `cpu` for what BPF programs send, with `data_pages` pages (a power of two). Nobody is woken.
    ///
    /// # Errors
    /// As [`PerfRing::open`].
    pub fn open_output(cpu: u32, data_pages: usize) -> io::Result<Self> {
        let output = Attributes {
            config: COUNT_SW_BPF_OUTPUT,
            sample_period: 1,
            sample_type: SAMPLE_RAW,
            flags: flag::WATERMARK,
            wakeup_bytes: u32::MAX,
            ..Attributes::default()
        };
        Self::map(open_event(cpu, output)?, data_pages)
    }

    fn map(descriptor: OwnedFd, data_pages: usize) -> io::Result<Self> {
        // SAFETY: a plain question to the C library.
        let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let data_bytes = data_pages.next_power_of_two() * page_bytes;
        // SAFETY: a fresh shared map of the event's own buffer, at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                page_bytes + data_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                descriptor.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { descriptor, base: base.cast(), page_bytes, data_bytes, record: Vec::new() })
    }

    /// Hands each waiting record (header included) to `take` and frees its place. Returns the bytes read.
    pub fn drain(&mut self, mut take: impl FnMut(&[u8])) -> usize {
        // Acquire: what the kernel wrote before it moved the head is visible behind this load.
        let head = self.control(control::DATA_HEAD).load(Ordering::Acquire);
        let mut tail = self.control(control::DATA_TAIL).load(Ordering::Relaxed);
        let start = tail;
        let mut record = std::mem::take(&mut self.record);
        while head.wrapping_sub(tail) >= HEADER_BYTES as u64 {
            let mut header = [0; HEADER_BYTES];
            self.copy(tail, &mut header);
            let size = usize::from(u16::from_le_bytes([header[6], header[7]]));
            if size < HEADER_BYTES || size as u64 > head.wrapping_sub(tail) {
                // Cannot happen with a sound kernel. Nothing behind it can be trusted, so start over at the head.
                tail = head;
                break;
            }
            record.resize(size, 0);
            self.copy(tail, &mut record);
            take(&record);
            tail = tail.wrapping_add(size as u64);
        }
        self.record = record;
        // Release: our reads are done before the kernel may write there again.
        self.control(control::DATA_TAIL).store(tail, Ordering::Release);
        tail.wrapping_sub(start) as usize
    }

    /// Whether a drain of `bytes` found the ring so full that the next record may not have fitted. The kernel reports
    /// losses only with the next record that fits, which may be long after.
    #[must_use]
    pub fn was_full(&self, bytes: usize) -> bool {
        bytes + LARGE_RECORD_BYTES > self.data_bytes
    }

    /// Bytes of records that wait.
    #[must_use]
    pub fn waiting_bytes(&self) -> u64 {
        let head = self.control(control::DATA_HEAD).load(Ordering::Acquire);
        head.wrapping_sub(self.control(control::DATA_TAIL).load(Ordering::Relaxed))
    }

    fn control(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: both offsets lie inside the control page that `open` mapped and `drop` unmaps, are multiples of 8, and
        // the kernel treats these words as atomics too.
        #[expect(clippy::cast_ptr_alignment, reason = "a page is aligned, and so are multiples of 8 in it")]
        unsafe {
            &*self.base.add(offset).cast::<AtomicU64>()
        }
    }

    /// Copies from the data area, position modulo its size.
    fn copy(&self, position: u64, into: &mut [u8]) {
        let at = (position % self.data_bytes as u64) as usize;
        let first = into.len().min(self.data_bytes - at);
        // SAFETY: `at + first` ends inside the data area, and the rest wraps to its start; callers ask for no more than
        // `data_bytes` (a record is smaller than head - tail, which the kernel keeps within the area). The kernel does
        // not write between tail and head, and the tail moves only after this copy.
        unsafe {
            let data = self.base.add(self.page_bytes);
            std::ptr::copy_nonoverlapping(data.add(at), into.as_mut_ptr(), first);
            std::ptr::copy_nonoverlapping(data, into.as_mut_ptr().add(first), into.len() - first);
        }
    }
}

impl AsFd for PerfRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for PerfRing {
    fn drop(&mut self) {
        // SAFETY: exactly the map that `open` made; no borrow of it outlives `self`.
        unsafe { libc::munmap(self.base.cast(), self.page_bytes + self.data_bytes) };
    }
}

/// Opens a software event on one CPU, for all processes.
fn open_event(cpu: u32, attributes: Attributes) -> io::Result<OwnedFd> {
    let attributes = Attributes { kind: TYPE_SOFTWARE, size: size_of::<Attributes>() as u32, ..attributes };
    // SAFETY: `attributes` is a valid structure of the size that it states, alive for the length of the call.
    let descriptor = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            -1 as libc::pid_t,
            cpu as libc::c_int,
            -1 as libc::c_int,
            FLAG_CLOEXEC,
        )
    };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above has just returned this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as i32) })
}
