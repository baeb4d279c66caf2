//! Real files, real processes: removed files, memory files, other mount namespaces, replaced libraries.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::agent::process::byte_budget::ByteBudget;
use crate::agent::process::procfs;

/// Ends a child whatever the test does.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        loop {
            match command.spawn() {
                Ok(child) => return Self(child),
                // A child that another test has just forked still holds our descriptor of the fresh program.
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                    std::thread::yield_now();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits until a file with `name` is mapped, in this process or a descendant, and tells which process and where.
    pub(crate) fn mapping_of(&self, name: &str) -> (u32, MappedRange) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            for pid in std::iter::once(self.pid()).chain(descendants(self.pid())) {
                let ranges = procfs::maps(pid).map(|maps| maps.ranges).unwrap_or_default();
                let named = |range: &&MappedRange| {
                    strip_deleted(&range.path)
                        .file_name()
                        .is_some_and(|file| file == OsString::from(name).as_os_str())
                };
                if let Some(range) = ranges.iter().find(named) {
                    return (pid, range.clone());
                }
            }
            assert!(Instant::now() < deadline, "{name} did not appear in process {}", self.pid());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn descendants(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children: Vec<u32> = children.split_whitespace().filter_map(|child| child.parse().ok()).collect();
    children.iter().flat_map(|child| std::iter::once(*child).chain(descendants(*child))).collect()
}

fn resolved(executables: &Executables, pid: u32, range: &MappedRange) -> Arc<Executable> {
    match executables.resolve(pid, range) {
        Resolved::Executable(executable) => executable,
        other => panic!("{} of {pid}: {other:?}", range.path.display()),
    }
}

fn file_id(path: &Path) -> FileId {
    crate::symbols::file_id::of_bytes(&std::fs::read(path).unwrap())
}

fn copy_of_sleep(directory: &Path, name: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::copy("/bin/sleep", &path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn same_file_is_found_once_and_opens_by_identity() {
    let executables = Executables::default();
    let pid = std::process::id();
    let maps = procfs::maps(pid).unwrap();
    let own = std::env::current_exe().unwrap();
    let range = maps.ranges.iter().find(|range| *range.path == *own).unwrap();
    let first = resolved(&executables, pid, range);
    let second = resolved(&executables, pid, range);
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(executables.handles(), 1);
    let opened = executables.open(first.file_id).unwrap();
    assert_eq!(opened.metadata().unwrap().len(), own.metadata().unwrap().len());
    let unknown = executables.open(FileId([9; 16])).unwrap_err();
    assert_eq!(unknown.to_string(), "executable not available: not mapped by any process of this host");
}

#[test]
fn removed_program_stays_readable_even_after_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = copy_of_sleep(directory.path(), "removed");
    let id = file_id(&path);
    let mut running = Running::start(Command::new(&path).arg("60"));
    let (pid, _) = running.mapping_of("removed");
    std::fs::remove_file(&path).unwrap();
    let (_, range) = running.mapping_of("removed");
    assert!(range.path.to_string_lossy().ends_with(" (deleted)"));
    let executables = Executables::default();
    let executable = resolved(&executables, pid, &range);
    assert_eq!((executable.file_id, &*executable.name), (id, "removed"));
    let _ = running.0.kill();
    let _ = running.0.wait();
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut executables.open(id).unwrap(), &mut bytes).unwrap();
    assert_eq!(crate::symbols::file_id::of_bytes(&bytes), id);
    assert!(executables.handle(&executable).is_some());
}

#[test]
fn program_that_exists_in_memory_only() {
    let file = memory_file(c"in-memory", &std::fs::read("/bin/sleep").unwrap()).unwrap();
    let running = Running::start(
        Command::new(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())).arg("60"),
    );
    let (pid, range) = running.mapping_of("memfd:in-memory");
    let executables = Executables::default();
    assert_eq!(resolved(&executables, pid, &range).file_id, file_id(Path::new("/bin/sleep")));
}

#[test]
fn replaced_library_is_another_executable() {
    let directory = tempfile::tempdir().unwrap();
    let path = copy_of_sleep(directory.path(), "replaced");
    let old = Running::start(Command::new(&path).arg("60"));
    let (old_pid, old_range) = old.mapping_of("replaced");
    let executables = Executables::default();
    let first = resolved(&executables, old_pid, &old_range);
    // As a package manager does it: a new file takes the name.
    let mut bytes = std::fs::read("/bin/sleep").unwrap();
    bytes.extend(b"another build");
    let other = directory.path().join("other");
    std::fs::write(&other, bytes).unwrap();
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&other, &path).unwrap();
    let new = Running::start(Command::new(&path).arg("60"));
    let (new_pid, new_range) = new.mapping_of("replaced");
    let second = resolved(&executables, new_pid, &new_range);
    assert_ne!(first.file_id, second.file_id);
    assert_eq!(first.file_id, resolved(&executables, old_pid, &old_range).file_id);
    assert!(executables.open(first.file_id).is_ok() && executables.open(second.file_id).is_ok());
}

#[test]
fn overwritten_file_is_noticed_although_its_inode_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = copy_of_sleep(directory.path(), "overwritten");
    let running = Running::start(Command::new(&path).arg("60"));
    let (pid, range) = running.mapping_of("overwritten");
    let executables = Executables::default();
    let first = resolved(&executables, pid, &range);
    drop(running);
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"more").unwrap();
    drop(file);
    let running = Running::start(Command::new(&path).arg("60"));
    let (pid, range) = running.mapping_of("overwritten");
    assert_eq!(first.key.inode, range.inode);
    assert_ne!(first.file_id, resolved(&executables, pid, &range).file_id);
    assert!(executables.open(first.file_id).is_err(), "the old content is gone");
}

/// A directory with a program and the libraries it needs, as the root of a container.
fn small_root(directory: &Path, name: &str) {
    for folder in ["usr/bin", "usr/lib", "proc", "lib64", "lib/x86_64-linux-gnu"] {
        std::fs::create_dir_all(directory.join(folder)).unwrap();
    }
    copy_of_sleep(&directory.join("usr/bin"), name);
    for range in procfs::maps(std::process::id()).unwrap().ranges {
        let name = range.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with("libc.so") || name.starts_with("ld-linux") {
            for folder in ["lib64", "lib/x86_64-linux-gnu"] {
                std::fs::copy(&range.path, directory.join(folder).join(&name)).unwrap();
            }
        }
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn program_in_a_root_and_mount_namespace_of_its_own() {
    if !is_root() {
        crate::cannot_run::cannot_run("a program in a root of its own", "changing the root needs root");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    small_root(directory.path(), "contained");
    let id = file_id(&directory.path().join("usr/bin/contained"));
    let running = Running::start(
        Command::new("unshare")
            .args(["-m", "chroot"])
            .arg(directory.path())
            .args(["/usr/bin/contained", "60"]),
    );
    let (pid, range) = running.mapping_of("contained");
    let executables = Executables::default();
    assert_eq!(resolved(&executables, pid, &range).file_id, id);
    // Without the door through the mapping: the paths that remain must lead to the same file, not to a namesake.
    let elsewhere = MappedRange { start: 0x1000, end: 0x2000, ..range };
    assert_eq!(resolved(&Executables::default(), pid, &elsewhere).file_id, id);
    let wrong = MappedRange { inode: elsewhere.inode + 1, ..elsewhere };
    assert!(matches!(Executables::default().resolve(pid, &wrong), Resolved::Unavailable));
}

#[test]
fn namesake_on_the_host_is_not_mistaken_for_a_contained_file() {
    if !is_root() {
        crate::cannot_run::cannot_run("a namesake on the host", "mounting needs root");
        return;
    }
    // A mount namespace in which another file lies over /bin/sleep: same path, other inode.
    let directory = tempfile::tempdir().unwrap();
    let mut bytes = std::fs::read("/bin/sleep").unwrap();
    bytes.extend(b"contained");
    let inside = directory.path().join("sleep");
    std::fs::write(&inside, &bytes).unwrap();
    std::fs::set_permissions(&inside, std::fs::Permissions::from_mode(0o755)).unwrap();
    let sleep = std::fs::canonicalize("/bin/sleep").unwrap();
    let script =
        format!("mount --bind {} {} && exec {} 60", inside.display(), sleep.display(), sleep.display());
    let running = Running::start(Command::new("unshare").args(["-m", "sh", "-c", &script]));
    let (pid, range) = running.mapping_of("sleep");
    assert_eq!(*range.path, *sleep);
    let expected = file_id(&inside);
    assert_ne!(expected, file_id(&sleep));
    assert_eq!(resolved(&Executables::default(), pid, &range).file_id, expected);
    let by_path_only = MappedRange { start: 0x1000, end: 0x2000, ..range };
    assert_eq!(resolved(&Executables::default(), pid, &by_path_only).file_id, expected);
}

#[test]
fn mapped_data_is_no_executable() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    std::fs::write(&path, [0; 8192]).unwrap();
    let metadata = std::fs::metadata(&path).unwrap();
    let range = MappedRange {
        start: 0x1000,
        end: 0x2000,
        file_offset: 0,
        device: device_of(&metadata),
        inode: metadata.ino(),
        path: path.as_path().into(),
    };
    let executables = Executables::default();
    for _ in 0..2 {
        assert!(matches!(executables.resolve(std::process::id(), &range), Resolved::NotElf));
    }
}

#[test]
fn vdso_is_read_from_memory_and_opens_like_a_file() {
    let executables = Executables::default();
    let pid = std::process::id();
    let maps = procfs::maps(pid).unwrap();
    let range = maps.ranges.iter().find(|range| range.is_vdso()).unwrap();
    let Resolved::Executable(vdso) = executables.resolve_vdso(pid, range) else { panic!("no vdso") };
    assert_eq!(&*vdso.name, "[vdso]");
    assert_eq!(vdso.bias(range.start, 0), Some(range.start));
    let file = executables.open(vdso.file_id).unwrap();
    assert_eq!(file.metadata().unwrap().len(), range.end - range.start);
    let table = crate::agent::process::unwind_image::build(file, None, &ByteBudget::new(0)).unwrap();
    assert!(!table.is_empty());
}

#[test]
fn unmapped_files_are_closed_and_later_forgotten() {
    let executables = Executables::default();
    let running = Running::start(Command::new("sleep").arg("60"));
    let (pid, range) = running.mapping_of("sleep");
    let executable = resolved(&executables, pid, &range);
    let file_id = executable.file_id;
    executables.set_time(KEEP_EXECUTABLE_NS * 2);
    assert!(executables.sweep().is_empty(), "a process maps it");
    drop(executable);
    executables.set_time(KEEP_EXECUTABLE_NS * 2 + KEEP_HANDLE_NS + 1);
    assert!(executables.sweep().is_empty());
    assert_eq!(executables.handles(), 0);
    assert!(executables.open(file_id).is_ok(), "the path still leads to it");
    executables.set_time(KEEP_EXECUTABLE_NS * 4);
    assert_eq!(executables.sweep(), [file_id]);
    assert!(executables.open(file_id).is_err());
}

#[test]
fn handles_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let executables = Executables::default();
    let bytes = std::fs::read("/bin/sleep").unwrap();
    for number in 0..MAX_HANDLES as u64 + 20 {
        let path = directory.path().join(number.to_string());
        std::fs::write(&path, &bytes).unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        let range = MappedRange {
            start: 0x1000,
            end: 0x2000,
            file_offset: 0,
            device: device_of(&metadata),
            inode: metadata.ino(),
            path: path.as_path().into(),
        };
        executables.set_time(number);
        resolved(&executables, std::process::id(), &range);
    }
    assert!(executables.handles() <= MAX_HANDLES);
}
