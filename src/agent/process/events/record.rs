//! Layout of perf side-band records: bytes to [`Event`]. Pure.
//!
//! The bytes come from the kernel, yet every length is checked: a record that does not fit is `None` and counted.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Something that happened to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub(crate) time_ns: u64,
    /// What happened.
    pub(crate) kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    /// Executable memory was mapped, or an existing mapping became executable.
    Map {
        /// Process.
        pid: u32,
        /// What lies where.
        range: MappedRange,
    },
    /// A thread got a name, by itself or by `exec`.
    Comm {
        /// Process.
        pid: u32,
        /// Thread.
        tid: u32,
        /// Name, NUL-padded.
        name: [u8; 16],
        /// The process runs another program from now on; its mappings are gone.
        exec: bool,
    },
    /// A process or thread began.
    Fork {
        /// Process of the new task.
        pid: u32,
        /// Process that made it; equal to `pid` for threads.
        parent_pid: u32,
    },
    /// A thread ended.
    Exit {
        /// Process.
        pid: u32,
        /// Thread; equal to `pid` for the first one.
        tid: u32,
    },
    /// Kernel code appeared or went away: BPF program or trampoline.
    KernelSymbol {
        /// First address.
        start: u64,
        /// Length in bytes.
        bytes: u32,
        /// Went away.
        gone: bool,
        /// Name as kallsyms spells it.
        name: String,
    },
    /// The ring was full; so many records are missing.
    Lost {
        /// Records; 0 when the kernel has not said yet.
        count: u64,
    },
}

/// An executable range of an address space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MappedRange {
    /// First address.
    pub(crate) start: u64,
    /// First address behind.
    pub(crate) end: u64,
    /// Offset of `start` in the file, in bytes.
    pub(crate) file_offset: u64,
    /// Device as major and minor number.
    pub(crate) device: (u32, u32),
    /// Inode; 0 = no file.
    pub(crate) inode: u64,
    /// Path as the process sees it, or a name in brackets, or empty.
    pub(crate) path: Box<Path>,
}

impl MappedRange {
    /// Whether a file lies under it.
    pub(crate) fn is_file(&self) -> bool {
        self.inode != 0
    }

    /// Whether it is the code page that the kernel gives each process.
    pub(crate) fn is_vdso(&self) -> bool {
        self.path.as_os_str() == "[vdso]"
    }
}

const RECORD_LOST: u32 = 2;
const RECORD_COMM: u32 = 3;
const RECORD_EXIT: u32 = 4;
const RECORD_FORK: u32 = 7;
const RECORD_MMAP2: u32 = 10;
const RECORD_KSYMBOL: u32 = 17;

const MISC_COMM_EXEC: u16 = 1 << 13;
const KSYMBOL_UNREGISTER: u16 = 1;

/// Header: type u32, misc u16, size u16.
const HEADER_BYTES: usize = 8;
/// `sample_id` at the end of each record: the time alone.
const TRAILER_BYTES: usize = 8;

/// What a record is for us.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// An event.
    Event(Event),
    /// A kind that nobody asked for (throttling and the like).
    Other,
    /// Does not fit its layout.
    Malformed,
}

/// Decodes one record, header included.
pub(crate) fn parse(record: &[u8]) -> Parsed {
    let Some((kind, misc)) = read_u32(record, 0).zip(read_u16(record, 4)) else { return Parsed::Malformed };
    if !matches!(kind, RECORD_LOST | RECORD_COMM | RECORD_EXIT | RECORD_FORK | RECORD_MMAP2 | RECORD_KSYMBOL)
    {
        return Parsed::Other;
    }
    let event = split(record).and_then(|(body, time_ns)| {
        let kind = match kind {
            RECORD_LOST => EventKind::Lost { count: read_u64(body, 8)? },
            RECORD_COMM => comm(body, misc)?,
            RECORD_EXIT => EventKind::Exit { pid: read_u32(body, 0)?, tid: read_u32(body, 8)? },
            RECORD_FORK => EventKind::Fork { pid: read_u32(body, 0)?, parent_pid: read_u32(body, 4)? },
            RECORD_MMAP2 => mmap(body)?,
            _ => kernel_symbol(body)?,
        };
        Some(Event { time_ns, kind })
    });
    event.map_or(Parsed::Malformed, Parsed::Event)
}

/// Body between header and trailer, and the time from the trailer.
fn split(record: &[u8]) -> Option<(&[u8], u64)> {
    let end = record.len().checked_sub(TRAILER_BYTES)?;
    Some((record.get(HEADER_BYTES..end)?, read_u64(record, end)?))
}

/// pid, tid, name.
fn comm(body: &[u8], misc: u16) -> Option<EventKind> {
    let text = until_nul(body.get(8..)?);
    let mut name = [0; 16];
    let length = text.len().min(15);
    name[..length].copy_from_slice(&text[..length]);
    Some(EventKind::Comm {
        pid: read_u32(body, 0)?,
        tid: read_u32(body, 4)?,
        name,
        exec: misc & MISC_COMM_EXEC != 0,
    })
}

/// pid, tid, addr, len, pgoff, maj, min, ino, ino_generation, prot, flags, filename.
fn mmap(body: &[u8]) -> Option<EventKind> {
    let (start, bytes) = (read_u64(body, 8)?, read_u64(body, 16)?);
    let mut range = MappedRange {
        start,
        end: start.checked_add(bytes)?,
        file_offset: read_u64(body, 24)?,
        device: (read_u32(body, 32)?, read_u32(body, 36)?),
        inode: read_u64(body, 40)?,
        path: Path::new(OsStr::from_bytes(until_nul(body.get(64..)?))).into(),
    };
    if range.path.as_os_str() == "//anon" {
        range.path = Path::new("").into();
    }
    Some(EventKind::Map { pid: read_u32(body, 0)?, range })
}

/// addr u64, len u32, type u16, flags u16, name.
fn kernel_symbol(body: &[u8]) -> Option<EventKind> {
    Some(EventKind::KernelSymbol {
        start: read_u64(body, 0)?,
        bytes: read_u32(body, 8)?,
        gone: read_u16(body, 14)? & KSYMBOL_UNREGISTER != 0,
        name: String::from_utf8_lossy(until_nul(body.get(16..)?)).into_owned(),
    })
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    &bytes[..end]
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u32, misc: u16, body: &[u8], time_ns: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(misc.to_ne_bytes());
        bytes.extend(((HEADER_BYTES + body.len() + TRAILER_BYTES) as u16).to_ne_bytes());
        bytes.extend(body);
        bytes.extend(time_ns.to_ne_bytes());
        bytes
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn mmap_body(path: &[u8]) -> Vec<u8> {
        let mut body = words(&[7, 8]);
        for long in [0x1000u64, 0x2000, 0x3000] {
            body.extend(long.to_ne_bytes());
        }
        body.extend(words(&[8, 1]));
        body.extend(99u64.to_ne_bytes());
        body.extend(0u64.to_ne_bytes());
        body.extend(words(&[5, 2]));
        body.extend(path);
        body.resize(body.len().next_multiple_of(8), 0);
        body
    }

    #[test]
    fn mapping_is_read_with_device_and_inode() {
        let Parsed::Event(event) = parse(&record(RECORD_MMAP2, 2, &mmap_body(b"/lib/x.so\0"), 42)) else {
            panic!("not an event");
        };
        let range = MappedRange {
            start: 0x1000,
            end: 0x3000,
            file_offset: 0x3000,
            device: (8, 1),
            inode: 99,
            path: Path::new("/lib/x.so").into(),
        };
        assert_eq!(event, Event { time_ns: 42, kind: EventKind::Map { pid: 7, range } });
    }

    #[test]
    fn anonymous_memory_has_no_path() {
        let Parsed::Event(Event { kind: EventKind::Map { range, .. }, .. }) =
            parse(&record(RECORD_MMAP2, 2, &mmap_body(b"//anon\0"), 1))
        else {
            panic!("not a mapping");
        };
        assert_eq!(range.path.as_os_str(), "");
    }

    #[test]
    fn exec_is_told_from_a_new_name() {
        let mut body = words(&[7, 7]);
        body.extend(b"sleep\0\0\0");
        let expected = |exec| {
            let mut name = [0; 16];
            name[..5].copy_from_slice(b"sleep");
            Parsed::Event(Event { time_ns: 1, kind: EventKind::Comm { pid: 7, tid: 7, name, exec } })
        };
        assert_eq!(parse(&record(RECORD_COMM, MISC_COMM_EXEC, &body, 1)), expected(true));
        assert_eq!(parse(&record(RECORD_COMM, 0, &body, 1)), expected(false));
    }

    #[test]
    fn beginning_and_end_of_tasks() {
        let body = words(&[9, 7, 9, 7, 0, 0]);
        let fork = EventKind::Fork { pid: 9, parent_pid: 7 };
        assert_eq!(parse(&record(RECORD_FORK, 0, &body, 3)), Parsed::Event(Event { time_ns: 3, kind: fork }));
        let exit = EventKind::Exit { pid: 9, tid: 9 };
        assert_eq!(parse(&record(RECORD_EXIT, 0, &body, 4)), Parsed::Event(Event { time_ns: 4, kind: exit }));
    }

    #[test]
    fn lost_records_are_counted() {
        let body = [0u64.to_ne_bytes(), 12u64.to_ne_bytes()].concat();
        let lost = Event { time_ns: 5, kind: EventKind::Lost { count: 12 } };
        assert_eq!(parse(&record(RECORD_LOST, 0, &body, 5)), Parsed::Event(lost));
    }

    #[test]
    fn every_cut_record_is_malformed_and_never_a_panic() {
        let whole = record(RECORD_MMAP2, 2, &mmap_body(b"/lib/x.so\0"), 42);
        for end in 0..HEADER_BYTES + 64 {
            assert_eq!(parse(&whole[..end]), Parsed::Malformed, "cut at {end}");
        }
        assert_eq!(parse(&record(5, 0, &[], 0)), Parsed::Other);
        let mut huge = mmap_body(b"");
        huge[8..24].fill(0xff);
        assert_eq!(parse(&record(RECORD_MMAP2, 0, &huge, 0)), Parsed::Malformed);
    }
}
