//! What `/proc/PID` tells: the start-up scan and the way back after lost records.
//!
//! Reads files, decides nothing. A process may vanish between two reads: that is an answer (`None`), not an error.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::maps::{self, Maps};

/// Largest small file (`stat`, `cgroup`, `comm`) that is read: 64 KiB.
const MAX_SMALL_BYTES: u64 = 64 << 10;

/// Numbers of `/proc/PID/stat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Name, NUL-padded.
    pub(crate) comm: [u8; 16],
    /// Run state: `R`, `S`, `Z`, …
    pub(crate) state: u8,
    /// Kernel thread (`PF_KTHREAD`).
    pub(crate) kernel_thread: bool,
    /// User and system time since its start, in ticks of 10 ms.
    pub(crate) cpu_ticks: u64,
    /// Threads.
    pub(crate) threads: u32,
    /// Start in ticks of 10 ms since boot: tells two processes with one number apart.
    pub(crate) start_ticks: u64,
}

/// Lines of `/proc/PID/status` that are of interest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// Effective user.
    pub(crate) effective_uid: u32,
    /// Its numbers, from our PID namespace down to its own.
    pub(crate) ns_pids: Vec<u32>,
}

/// `PF_KTHREAD` of `include/linux/sched.h`.
const KERNEL_THREAD_FLAG: u64 = 0x0020_0000;

/// Parses `/proc/PID/stat`. The name may hold blanks and parentheses, so fields are counted behind its last one.
pub(crate) fn parse_stat(text: &[u8]) -> Option<Stat> {
    let open = text.iter().position(|byte| *byte == b'(')?;
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let name = text.get(open + 1..close)?;
    let mut comm = [0; 16];
    let length = name.len().min(15);
    comm[..length].copy_from_slice(&name[..length]);
    let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // Field numbers of proc(5) minus 3: state is field 3.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        comm,
        state: *fields.first()?.as_bytes().first()?,
        kernel_thread: number(9)? & KERNEL_THREAD_FLAG != 0,
        cpu_ticks: number(14)?.saturating_add(number(15)?),
        threads: number(20)? as u32,
        start_ticks: number(22)?,
    })
}

/// Numbers of all processes, ascending as the kernel lists them.
pub(crate) fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// `/proc/PID/stat`.
pub(crate) fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&small_file(pid, "stat")?)
}

/// `/proc/PID/status`.
pub(crate) fn status(pid: u32) -> Option<Status> {
    parse_status(&small_file(pid, "status")?)
}

/// Parses `/proc/PID/status`. Its first line holds a name that may be anything but a line end.
fn parse_status(text: &[u8]) -> Option<Status> {
    let text = String::from_utf8_lossy(text);
    let numbers = |line: &str| line.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
    let mut effective_uid = None;
    let mut ns_pids = Vec::new();
    for line in text.lines() {
        if let Some(uids) = line.strip_prefix("Uid:") {
            let uids: Vec<u32> = numbers(uids);
            effective_uid = uids.get(1).copied();
        } else if let Some(pids) = line.strip_prefix("NSpid:") {
            ns_pids = numbers(pids);
        }
    }
    Some(Status { effective_uid: effective_uid?, ns_pids })
}

/// Executable ranges of a process. The first thread may be gone while others run; then one of those answers.
pub(crate) fn maps(pid: u32) -> Option<Maps> {
    let own = open_maps(&proc_path(pid, "maps"))?;
    if !own.ranges.is_empty() {
        return Some(own);
    }
    let threads = fs::read_dir(proc_path(pid, "task")).ok()?;
    for thread in threads.flatten().take(64) {
        if let Some(maps) = open_maps(&thread.path().join("maps"))
            && !maps.ranges.is_empty()
        {
            return Some(maps);
        }
    }
    Some(own)
}

fn open_maps(path: &Path) -> Option<Maps> {
    maps::read(BufReader::with_capacity(32 << 10, File::open(path).ok()?)).ok()
}

/// Path of the program, as seen from the process; without the ` (deleted)` of a removed file.
pub(crate) fn executable_path(pid: u32) -> Option<PathBuf> {
    fs::read_link(proc_path(pid, "exe")).ok().map(|path| strip_deleted(&path).to_owned())
}

/// Text of `/proc/PID/cgroup`.
pub(crate) fn cgroup(pid: u32) -> Option<String> {
    String::from_utf8(small_file(pid, "cgroup")?).ok()
}

/// Value of one variable in the environment that a process was started with.
pub(crate) fn environment_value(environment: &[u8], name: &str) -> Option<String> {
    environment
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
        .and_then(|value| String::from_utf8(value.to_vec()).ok())
}

/// Start of `/proc/PID/environ`.
pub(crate) fn environment(pid: u32) -> Option<Vec<u8>> {
    small_file(pid, "environ")
}

/// A small regular file under the root of a process. The process may put a pipe there: that is not waited for.
pub(crate) fn root_file(pid: u32, path: &str) -> Option<String> {
    let path = proc_path(pid, "root").join(path.trim_start_matches('/'));
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    file.take(MAX_SMALL_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Whether a process runs although its first thread has ended.
pub(crate) fn still_runs(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| stat.threads > 1 || !matches!(stat.state, b'Z' | b'X'))
}

/// `/proc/PID/NAME`.
pub(crate) fn proc_path(pid: u32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{name}"))
}

/// Path without the mark that the kernel puts behind the names of removed files.
pub(crate) fn strip_deleted(path: &Path) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    match path.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
        Some(plain) => Path::new(std::ffi::OsStr::from_bytes(plain)),
        None => path,
    }
}

fn small_file(pid: u32, name: &str) -> Option<Vec<u8>> {
    read_small(&proc_path(pid, name))
}

fn read_small(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_SMALL_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_of_a_name_that_tries_to_confuse() {
        let text = b"17 (a) R 1 2 (x)) S 1 17 17 0 -1 4194304 101 0 0 0 30 12 0 0 20 0 3 0 177843 3133440 358 18446744073709551615";
        let stat = parse_stat(text).unwrap();
        assert_eq!(&stat.comm[..15], b"a) R 1 2 (x)\0\0\0");
        assert_eq!((stat.state, stat.kernel_thread), (b'S', false));
        assert_eq!((stat.cpu_ticks, stat.threads, stat.start_ticks), (42, 3, 177_843));
    }

    #[test]
    fn nonsense_is_not_a_stat() {
        for text in [
            &b""[..],
            b"1",
            b"1 (x",
            b"1 )x(",
            b"1 (x) ",
            b"1 (x) S 1 2 3",
            b"1 (x) S a b c d e f g h i j k l m n o p q r s t",
        ] {
            assert_eq!(parse_stat(text), None, "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn status_has_user_and_numbers() {
        let text = b"Name:\tUid:\nUmask:\t0022\nUid:\t1000\t1001\t1002\t1003\nNSpid:\t4711\t12\n";
        assert_eq!(parse_status(text), Some(Status { effective_uid: 1001, ns_pids: vec![4711, 12] }));
        assert_eq!(parse_status(b"Name:\tx\nUid:\t5\n"), None);
        assert_eq!(status(std::process::id()).unwrap().ns_pids[0], std::process::id());
    }

    #[test]
    fn own_process_is_found() {
        let pid = std::process::id();
        assert!(pids().any(|found| found == pid));
        let stat = stat(pid).unwrap();
        assert!(stat.threads >= 1 && !stat.kernel_thread && stat.start_ticks > 0);
        let maps = maps(pid).unwrap();
        assert_eq!(maps.skipped, 0);
        let exe = executable_path(pid).unwrap();
        assert!(maps.ranges.iter().any(|range| *range.path == *exe));
        assert!(maps.ranges.iter().any(super::super::events::MappedRange::is_vdso));
        assert!(cgroup(pid).is_some());
    }

    #[test]
    fn vanished_process_is_none() {
        // Above the largest possible number (4,194,304).
        assert!(stat(4_194_305).is_none() && maps(4_194_305).is_none() && cgroup(4_194_305).is_none());
    }

    #[test]
    fn environment_names_must_match_whole() {
        let environment = b"HOSTNAMES=x\0HOSTNAME=web-1\0A=b";
        assert_eq!(environment_value(environment, "HOSTNAME").as_deref(), Some("web-1"));
        assert_eq!(environment_value(environment, "HOST"), None);
    }
}
