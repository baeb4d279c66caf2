//! Where a process's own list of its compiled code lies, and whether to believe it.
//!
//! The list is read as root and its names are shown to people, so the file must be what the process itself (or root) has
//! written: a regular file, reached without links, owned by the process's user, writable by nobody else, not left over
//! from another process with this number.

use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::super::events::MappedRange;
use super::super::executables::open_mapped;
use super::super::procfs::{self, Status};

/// How much older than its process a file may seem: clocks are set, and start times have steps of 10 ms.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(2);

/// Why a file is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// A link, pipe, directory or device.
    #[error("it is no regular file")]
    Kind,
    /// Written by somebody else.
    #[error("expected owner {expected} or 0, found {found}")]
    Owner {
        /// Effective user of the process.
        expected: u32,
        /// Owner of the file.
        found: u32,
    },
    /// Somebody else can write it.
    #[error("everybody may write it, mode {0:o}")]
    Writable(u32),
    /// Left over.
    #[error("it is older than the process")]
    Stale,
    /// The system does not let us.
    #[error("cannot be opened: {0}")]
    Open(io::ErrorKind),
    /// What is in it cannot be of this process.
    #[error("{0}")]
    Content(String),
}

impl Refusal {
    /// One word for counting.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::Owner { .. } => "owner",
            Self::Writable(_) => "writable",
            Self::Stale => "stale",
            Self::Open(_) => "open",
            Self::Content(_) => "content",
        }
    }
}

/// What a list is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Lines of text.
    PerfMap,
    /// Binary records, of the process that calls itself by this number.
    Dump(u32),
}

/// A list that may be read.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) file: File,
    pub(crate) metadata: Metadata,
    pub(crate) format: Format,
    pub(crate) path: PathBuf,
}

/// A file that was found and not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) path: PathBuf,
    pub(crate) why: Refusal,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.why)
    }
}

/// Whether a mapping of this name says that the process writes a jitdump file: `jit-NUMBER.dump`.
pub(crate) fn is_dump_name(name: &str) -> bool {
    name.strip_prefix("jit-").and_then(|rest| rest.strip_suffix(".dump")).is_some()
}

/// The list of process `pid`: its jitdump file, if it has one mapped, else its perf map. Files that are not believed go to
/// `refused`.
pub(crate) fn find(pid: u32, has_dump: bool, refused: &mut Vec<Refused>) -> Option<Source> {
    let status = procfs::status(pid)?;
    let started = started(pid)?;
    let mut check = |path: &Path, opened: Result<(File, Metadata), Refusal>, format| match opened
        .and_then(|(file, metadata)| believe(&metadata, &status, started).map(|()| (file, metadata)))
    {
        Ok((file, metadata)) => Some(Source { file, metadata, format, path: path.to_owned() }),
        Err(Refusal::Open(io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)) => None,
        Err(why) => {
            refused.push(Refused { path: path.to_owned(), why });
            None
        }
    };
    let own_pid = status.ns_pids.last().copied().unwrap_or(pid);
    if has_dump {
        for range in dumps(pid) {
            let opened = open_mapped(pid, &range).ok_or(Refusal::Open(io::ErrorKind::Other));
            if let Some(source) = check(&range.path, opened, Format::Dump(own_pid)) {
                return Some(source);
            }
        }
    }
    // Inside the root of the process under the number that it knows itself by, else under ours; else outside.
    let inside = procfs::proc_path(pid, "root/tmp");
    let mut places = vec![(inside.clone(), own_pid), (inside, pid), (PathBuf::from("/tmp"), pid)];
    places.dedup();
    places.into_iter().find_map(|(directory, number)| {
        let name = format!("perf-{number}.map");
        check(&directory.join(&name), open_inside(&directory, &name), Format::PerfMap)
    })
}

/// Jitdump files are found by the page of them that their writers map executable.
fn dumps(pid: u32) -> Vec<MappedRange> {
    let maps = procfs::maps(pid).unwrap_or_default();
    let is_dump =
        |range: &MappedRange| range.path.file_name().and_then(|name| name.to_str()).is_some_and(is_dump_name);
    maps.ranges.into_iter().filter(|range| range.is_file() && is_dump(range)).collect()
}

/// Opens a file of a directory that somebody else controls: neither may be a link (an absolute one would lead out of the
/// root of the process), and nothing is waited for.
fn open_inside(directory: &Path, name: &str) -> Result<(File, Metadata), Refusal> {
    let refusal = |error: io::Error| match error.raw_os_error() {
        Some(libc::ELOOP) => Refusal::Kind,
        _ => Refusal::Open(error.kind()),
    };
    let directory = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(directory)
        .map_err(refusal)?;
    let path = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(refusal)?;
    let metadata = file.metadata().map_err(refusal)?;
    Ok((file, metadata))
}

fn believe(metadata: &Metadata, status: &Status, started: SystemTime) -> Result<(), Refusal> {
    if !metadata.is_file() {
        return Err(Refusal::Kind);
    }
    if metadata.uid() != 0 && metadata.uid() != status.effective_uid {
        return Err(Refusal::Owner { expected: status.effective_uid, found: metadata.uid() });
    }
    if metadata.mode() & 0o002 != 0 {
        return Err(Refusal::Writable(metadata.mode() & 0o7777));
    }
    match metadata.modified() {
        Ok(modified) if modified + CLOCK_TOLERANCE < started => Err(Refusal::Stale),
        _ => Ok(()),
    }
}

/// When a process began, on the wall.
fn started(pid: u32) -> Option<SystemTime> {
    let ticks = procfs::stat(pid)?.start_ticks;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime = Duration::try_from_secs_f64(uptime.split(' ').next()?.parse().ok()?).ok()?;
    // USER_HZ is 100 on both architectures.
    let age = uptime.saturating_sub(Duration::from_millis(ticks.saturating_mul(10)));
    SystemTime::now().checked_sub(age)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn status(effective_uid: u32) -> Status {
        Status { effective_uid, ns_pids: Vec::new() }
    }

    fn own_uid() -> u32 {
        procfs::status(std::process::id()).unwrap().effective_uid
    }

    fn opened(directory: &Path, name: &str, status: &Status, started: SystemTime) -> Result<(), Refusal> {
        let (_, metadata) = open_inside(directory, name)?;
        believe(&metadata, status, started)
    }

    #[test]
    fn only_own_plain_files_are_believed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("perf-1.map");
        fs::write(&path, "1000 10 f\n").unwrap();
        let own = status(own_uid());
        let long_ago = SystemTime::now() - Duration::from_hours(1);
        let check = |name: &str, status: &Status| opened(directory.path(), name, status, long_ago);
        assert_eq!(check("perf-1.map", &own), Ok(()));
        assert_eq!(
            opened(directory.path(), "perf-1.map", &own, SystemTime::now() + Duration::from_hours(1)),
            Err(Refusal::Stale)
        );
        assert_eq!(check("perf-2.map", &own), Err(Refusal::Open(io::ErrorKind::NotFound)));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(check("perf-1.map", &own), Err(Refusal::Writable(0o666)));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
        assert_eq!(check("perf-1.map", &own), Ok(()));
        symlink(&path, directory.path().join("link.map")).unwrap();
        assert_eq!(check("link.map", &own), Err(Refusal::Kind));
        fs::create_dir(directory.path().join("directory.map")).unwrap();
        assert_eq!(check("directory.map", &own), Err(Refusal::Kind));
        let fifo = directory.path().join("pipe.map");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        assert_eq!(check("pipe.map", &own), Err(Refusal::Kind), "nor is a writer waited for");
        symlink(directory.path(), directory.path().join("tmp")).unwrap();
        assert_eq!(
            opened(&directory.path().join("tmp"), "perf-1.map", &own, long_ago).map_err(|why| why.word()),
            Err("open"),
            "a directory behind a link"
        );
    }

    #[test]
    fn file_of_another_user_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("perf-1.map");
        fs::write(&path, "1000 10 f\n").unwrap();
        if std::os::unix::fs::chown(&path, Some(12_345), None).is_err() {
            crate::cannot_run::cannot_run("files of other users", "not run as root");
            return;
        }
        let found = opened(directory.path(), "perf-1.map", &status(1000), SystemTime::UNIX_EPOCH);
        assert_eq!(found, Err(Refusal::Owner { expected: 1000, found: 12_345 }));
        assert_eq!(opened(directory.path(), "perf-1.map", &status(12_345), SystemTime::UNIX_EPOCH), Ok(()));
    }

    #[test]
    fn own_start_is_in_the_past() {
        let age = SystemTime::now().duration_since(started(std::process::id()).unwrap()).unwrap();
        assert!(age < Duration::from_hours(24), "{age:?}");
    }

    #[test]
    fn names_of_dumps() {
        assert!(is_dump_name("jit-123.dump") && is_dump_name("jit-123-1.dump"));
        assert!(!is_dump_name("jit-123.dump.old") && !is_dump_name("libjit.so") && !is_dump_name("JIT code"));
    }
}
