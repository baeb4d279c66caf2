//! Storms of real processes, followed through the real side-band. The kernel side only takes notes.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::super::executables::tests::Running;
use super::super::table_builder::tests::Notes;
use super::*;
use crate::agent::process::TableId;

/// A follower, or the reason why there is none here.
fn follower() -> Option<(Follower, Notes, KernelNames)> {
    match Follower::start(&Arc::new(Executables::default()), FollowSettings::default()) {
        Ok(follower) => Some((follower, Notes::with_room(10_000), KernelNames::default())),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => {
            crate::cannot_run::cannot_run("following processes", &format!("needs CAP_PERFMON: {error}"));
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Follows until `done` or the deadline.
fn until(
    follower: &mut Follower,
    notes: &mut Notes,
    names: &mut KernelNames,
    mut done: impl FnMut(&mut Follower, &Notes) -> bool,
) {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        follower.follow(notes, names);
        if done(follower, notes) {
            return;
        }
        assert!(Instant::now() < deadline, "{:#?}", follower.counts());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The kernel side knows all that is known of a process.
fn is_told(follower: &Follower, notes: &Notes, pid: u32) -> bool {
    let waits = follower.young.iter().any(|(_, young)| *young == pid);
    follower.pending_tables() == 0 && !waits && notes.processes.contains_key(&pid)
}

fn names_at(follower: &mut Follower, pid: u32, time_ns: u64) -> Vec<String> {
    let Some(image) = follower.image(pid, time_ns) else { return Vec::new() };
    image.space.live().iter().map(|mapping| mapping.name().to_string()).collect()
}

#[test]
fn start_up_scan_finds_this_process_with_tables() {
    let Some((mut follower, mut notes, mut names)) = follower() else { return };
    let pid = std::process::id();
    until(&mut follower, &mut notes, &mut names, |follower, notes| is_told(follower, notes, pid));
    let here = start_up_scan_finds_this_process_with_tables as *const () as u64;
    let mappings = &notes.processes[&pid];
    let own = mappings.iter().find(|m| m.start.0 <= here && here < m.start.0 + m.len).expect("own code");
    assert!(own.table.is_some(), "{mappings:#x?}");
    assert!(mappings.windows(2).all(|pair| pair[0].start.0 + pair[0].len <= pair[1].start.0));
    let image = follower.image(pid, monotonic_ns()).unwrap();
    assert_eq!(&*image.executable_path, std::env::current_exe().unwrap().to_str().unwrap());
    let Content::Executable(executable, bias) = &image.space.find(here, monotonic_ns()).unwrap().content
    else {
        panic!("no executable at {here:#x}");
    };
    assert_eq!(
        (*bias, executable.file_id),
        (own.bias, {
            let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
            crate::symbols::file_id::of_bytes(&bytes)
        })
    );
    assert!(follower.processes() > 1);
}

#[test]
fn kernel_threads_have_a_name_and_no_mappings() {
    let Some((mut follower, mut notes, mut names)) = follower() else { return };
    follower.follow(&mut notes, &mut names);
    let Some(kthreadd) = procfs::stat(2).filter(|stat| stat.kernel_thread) else {
        crate::cannot_run::cannot_run("names of kernel threads", "none is visible");
        return;
    };
    let image = follower.image(2, monotonic_ns()).unwrap();
    assert!(image.kernel_thread && image.comm == kthreadd.comm && image.executable_path.is_empty());
    assert!(!notes.processes.contains_key(&2));
}

/// A thousand processes of a few milliseconds each: all of them must have been seen with what they had mapped, although
/// each is gone when its records are read.
#[test]
fn storm_of_short_processes_is_followed() {
    let Some((mut follower, mut notes, mut names)) = follower() else { return };
    let before = monotonic_ns();
    let mut pids = Vec::new();
    for _ in 0..200 {
        let mut child =
            Command::new("sh").args(["-c", "/bin/true; /bin/true"]).stdin(Stdio::null()).spawn().unwrap();
        pids.push(child.id());
        child.wait().unwrap();
        follower.follow(&mut notes, &mut names);
    }
    assert_eq!(follower.counts().lost, 0, "{:?}", follower.counts());
    let after = monotonic_ns();
    for pid in &pids {
        let image = follower.table.at(*pid, after).unwrap_or_else(|| panic!("process {pid} is unknown"));
        let (from, until) = (image.from_ns, image.until_ns);
        assert!(from >= before && until <= after, "{pid}: {before} {from} {until} {after} {image:?}");
        assert!(image.executable_path.ends_with("sh"), "{} is {}", pid, image.executable_path);
        let mapped: Vec<_> = image.space.live().iter().map(|mapping| mapping.name().to_string()).collect();
        assert!(mapped.iter().any(|name| name.starts_with("libc.so")), "{mapped:?}");
        assert!(
            image.space.live().iter().any(|mapping| matches!(mapping.content, Content::Executable(..))),
            "{mapped:?}"
        );
        assert!(!notes.processes.contains_key(pid));
    }
    follower.converted(monotonic_ns() + 10 * KEEP_ENDED_NS, &mut notes);
    assert!(pids.iter().all(|pid| follower.table.at(*pid, after).is_none()));
}

#[test]
fn program_that_replaces_itself_is_two_images() {
    let Some((mut follower, mut notes, mut names)) = follower() else { return };
    let running = Running::start(Command::new("sh").args(["-c", "sleep 0.3; exec sleep 60"]));
    let pid = running.pid();
    until(&mut follower, &mut notes, &mut names, |follower, _| {
        follower.table.live(pid).is_some_and(|image| image.executable_path.ends_with("sleep"))
    });
    let serials: Vec<u64> = [monotonic_ns() - 150_000_000, monotonic_ns()]
        .into_iter()
        .map(|time_ns| follower.table.at(pid, time_ns).unwrap().serial)
        .collect();
    let first = follower.table.live(pid).unwrap().from_ns - 1;
    assert!(follower.table.at(pid, first).unwrap().executable_path.ends_with("sh"));
    assert!(serials[1] >= serials[0]);
    assert!(names_at(&mut follower, pid, monotonic_ns()).contains(&"sleep".to_owned()));
    // The kernel side is told when the image is no longer young.
    until(&mut follower, &mut notes, &mut names, |_, notes| notes.processes.contains_key(&pid));
    drop(running);
    until(&mut follower, &mut notes, &mut names, |_, notes| !notes.processes.contains_key(&pid));
}

/// C program that opens and closes a library a thousand times, with threads, a fork and a vfork on the way.
const STORM: &str = r#"
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
static void *idle(void *unused) { usleep(1000); return unused; }
int main(int argc, char **argv) {
    for (int i = 0; i < 300; i++) {
        void *handle = dlopen(argv[1], RTLD_NOW);
        if (!handle) { fprintf(stderr, "%s\n", dlerror()); return 1; }
        pthread_t thread;
        pthread_create(&thread, NULL, idle, NULL);
        if (i % 50 == 0) {
            pid_t child = fork();
            if (child == 0) _exit(0);
            waitpid(child, NULL, 0);
            child = vfork();
            if (child == 0) { execl("/bin/true", "true", NULL); _exit(1); }
            waitpid(child, NULL, 0);
        }
        pthread_join(thread, NULL);
        if (i < 299) dlclose(handle);
    }
    sleep(60);
    return 0;
}
"#;

#[test]
fn storm_of_libraries_threads_and_forks_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    let compile = |name: &str, source: &str, flags: &[&str]| {
        let path = directory.path().join(name);
        std::fs::write(path.with_extension("c"), source).unwrap();
        let status =
            Command::new("cc").arg("-o").arg(&path).arg(path.with_extension("c")).args(flags).status();
        match status {
            Ok(status) => assert!(status.success()),
            Err(error) => {
                crate::cannot_run::cannot_run("a compiled program", &format!("no C compiler: {error}"));
                return None;
            }
        }
        Some(path)
    };
    let Some(library) = compile("libstorm.so", "int storm(void) { return 42; }", &["-shared", "-fPIC"])
    else {
        return;
    };
    let Some(program) = compile("storm", STORM, &["-ldl", "-lpthread"]) else { return };
    let Some((mut follower, mut notes, mut names)) = follower() else { return };
    let running = Running::start(Command::new(&program).arg(&library));
    let pid = running.pid();
    let sleeps = |pid| {
        std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default().contains("nanosleep")
            && procfs::stat(pid).is_some_and(|stat| stat.threads == 1)
    };
    let mut calm = 0;
    until(&mut follower, &mut notes, &mut names, |follower, notes| {
        calm = if sleeps(pid) { calm + 1 } else { 0 };
        calm > 50 && is_told(follower, notes, pid)
    });
    let now = monotonic_ns();
    assert!(follower.table.live(pid).is_some());
    // What /proc says now is what the events have built up.
    let truth: Vec<_> = procfs::maps(pid)
        .unwrap()
        .ranges
        .iter()
        .filter(|r| r.start < 1 << 62)
        .map(|r| (r.start, r.end))
        .collect();
    let image = follower.image(pid, now).unwrap();
    for (start, end) in &truth {
        let mapping = image.space.find(*start, now).unwrap_or_else(|| panic!("nothing at {start:#x}"));
        assert!(mapping.end >= *end, "{start:#x}-{end:#x} against {mapping:?}");
    }
    assert!(image.space.live().iter().any(|mapping| &**mapping.name() == "libstorm.so"));
    assert!(image.executable_path.ends_with("storm"));
    assert!(
        notes.processes[&pid].iter().filter(|m| m.table.is_some()).count() >= 3,
        "{:#x?}",
        notes.processes[&pid]
    );
    let live = follower.table.all_live().filter(|image| image.executable_path.ends_with("/storm")).count();
    assert_eq!(live, 1, "children must be gone");
}

#[test]
fn lost_records_lead_to_a_scan() {
    let Some((mut follower, mut notes, mut names)) = follower() else { return };
    // Far more records than the rings hold, while nobody reads them.
    for _ in 0..60 {
        let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do /bin/true; done";
        let status = Command::new("sh").args(["-c", script]).status().unwrap();
        assert!(status.success());
    }
    let running = Running::start(Command::new("sleep").arg("60"));
    running.mapping_of("sleep");
    let pid = running.pid();
    until(&mut follower, &mut notes, &mut names, |follower, _| follower.counts().rescans > 0);
    assert!(names_at(&mut follower, pid, monotonic_ns()).contains(&"sleep".to_owned()));
    until(&mut follower, &mut notes, &mut names, |_, notes| notes.processes.contains_key(&pid));
}

#[test]
fn kernel_side_is_told_once_per_change() {
    let Some((mut follower, mut notes, mut names)) = follower() else { return };
    let pid = std::process::id();
    until(&mut follower, &mut notes, &mut names, |follower, notes| is_told(follower, notes, pid));
    notes.processes.remove(&pid);
    follower.follow(&mut notes, &mut names);
    assert!(!notes.processes.contains_key(&pid), "nothing changed");
    assert!(
        notes.tables.iter().map(|(table, _)| *table).collect::<HashSet<TableId>>().len()
            == notes.tables.len()
    );
}

/// C program that maps code at ever new addresses, in bursts, and unmaps it again: never more than a few at a time.
const RESTLESS: &str = r"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
int main(int argc, char **argv) {
    int file = open(argv[1], O_RDONLY), rounds = atoi(argv[2]);
    char *room = mmap(0, 1L << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    for (long i = 0; i < rounds; i++) {
        char *at = room + (i * 8192) % (1L << 30);
        if (mmap(at, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, file, 0) != at) return 1;
        if (mmap(at, 4096, PROT_NONE, MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) != at) return 1;
        if (i % 100 == 99) usleep(1000);
    }
    close(1);
    sleep(60);
    return 0;
}
";

/// The kernel tells of mappings, not of their end: without another look the list would only grow, up to its limit.
#[test]
fn restless_process_is_read_again_and_shares_are_kept() {
    const ROUNDS: usize = 40_000;
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("restless");
    std::fs::write(program.with_extension("c"), RESTLESS).unwrap();
    let compiled = Command::new("cc").arg("-o").arg(&program).arg(program.with_extension("c")).status();
    if !compiled.is_ok_and(|status| status.success()) {
        crate::cannot_run::cannot_run("a compiled program", "no C compiler");
        return;
    }
    let Some((mut follower, mut notes, mut names)) = follower() else { return };
    let mut command = Command::new(&program);
    command.arg("/bin/true").arg(ROUNDS.to_string()).stdout(Stdio::piped());
    let mut running = command.spawn().unwrap();
    let pid = running.id();
    let mut most = 0;
    let closed = |pid| !std::path::Path::new(&format!("/proc/{pid}/fd/1")).exists();
    until(&mut follower, &mut notes, &mut names, |follower, _| {
        most = most.max(follower.table.live(pid).map_or(0, |image| image.space.live().len()));
        closed(pid)
    });
    until(&mut follower, &mut notes, &mut names, |follower, notes| {
        is_told(follower, notes, pid) && !follower.changes.crowded.contains(&pid)
    });
    running.kill().unwrap();
    running.wait().unwrap();
    let counts = follower.counts();
    println!("{ROUNDS} mappings, at most {most} held: {counts:?}");
    assert!(counts.crowded > 0 && counts.paced > 0, "{counts:?}");
    assert_eq!(counts.over_limit, 0);
    assert!(most > 0 && most < ROUNDS / 4, "{most} mappings held");
}
