//! Processes as they come: too many mappings, too many of them, restless ones, libraries that come and go, numbers that
//! are used again, children that share their parent's memory. Each beside the real kernel side and the real side-band.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use everflame::agent::{AgentStatus, Settings, StatusReader};
use everflame::model::{Batch, FileId, UnixNanos};

use super::cannot_run::cannot_run;
use super::{
    CHAIN, Ended, check_balance, compile, counter, file_id, functions, now, profile, stacks, tables_are_built,
};

/// A library of three functions that call each other, each with a frame of its own size; `NAME` stands before the names.
const LIBRARY: &str = r"
#include <stdint.h>
static volatile uint64_t sum;
static __attribute__((noinline)) uint64_t NAME_leaf(uint64_t n) { for (uint64_t i = 0; i < n; i++) sum += i; return sum; }
static __attribute__((noinline)) uint64_t NAME_middle(uint64_t n) {
    volatile char room[SIZE];
    room[n % 8] = 1;
    uint64_t result = NAME_leaf(n);
    return result + room[n % 8];
}
uint64_t entry(uint64_t n) {
    volatile char room[3 * SIZE];
    room[n % 8] = 1;
    uint64_t result = NAME_middle(n);
    return result + room[n % 8];
}
";

fn library(directory: &Path, name: &str, size: u32) -> PathBuf {
    let source = LIBRARY.replace("NAME", name).replace("SIZE", &size.to_string());
    // One segment less to think of: the code lies at the offset at which the file has it.
    compile(directory, name, &source, &["-O2", "-shared", "-fPIC", "-fomit-frame-pointer"])
}

/// Starts a program and waits until it has said `ready`.
fn start(command: &mut Command) -> Ended {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    // A pipe that nobody reads would stop those that say more.
    std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
    Ended(child)
}

/// Waits until the agent has taken in so many more samples of all processes.
fn sampled(status: &StatusReader, more: u64) {
    let (before, deadline) = (counter(&status.get(), "received"), Instant::now() + Duration::from_mins(2));
    while counter(&status.get(), "received") < before + more {
        assert!(Instant::now() < deadline, "{:#?}", status.get());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn is_mark(frame: &str) -> bool {
    frame.starts_with("abort-marker:")
}

/// Frames of user code, leaf first, without the mark.
fn user(stack: &[String]) -> Vec<&str> {
    stack
        .iter()
        .map(String::as_str)
        .filter(|frame| !frame.starts_with("kernel:") && !is_mark(frame))
        .collect()
}

/// Samples of one process by what their stacks are.
#[derive(Debug, Default)]
struct Judged {
    /// Ends at `_start`.
    whole: u64,
    /// Says why it does not.
    marked: HashMap<String, u64>,
    /// Neither.
    other: Vec<(Vec<String>, u64)>,
}

impl Judged {
    fn total(&self) -> u64 {
        self.whole
            + self.marked.values().sum::<u64>()
            + self.other.iter().map(|(_, count)| count).sum::<u64>()
    }
}

fn judge(stacks: HashMap<Vec<String>, u64>) -> Judged {
    let mut judged = Judged::default();
    for (stack, count) in stacks {
        match stack.last() {
            Some(root) if root == "_start" => judged.whole += count,
            Some(root) if is_mark(root) => *judged.marked.entry(root.clone()).or_default() += count,
            // In the kernel before there was any user code, or the loader's own entry.
            _ => judged.other.push((stack, count)),
        }
    }
    judged
}

fn names_of(paths: &[&Path]) -> HashMap<FileId, Vec<(u64, u64, String)>> {
    paths.iter().map(|path| (file_id(path), functions(path))).collect()
}

/// The agent's own CPU time, both sides, as far as its counters tell.
fn print_cost(what: &str, status: &AgentStatus) {
    let milliseconds = |name: &str, unit: u64| counter(status, name) / unit;
    println!(
        "{what}: side-band {} ms, kernel side {} ms; {} records, {} lost, {} rescans, {} read again, {} paced; resident {} MB",
        milliseconds("side_band_cpu_us", 1000),
        milliseconds("kernel_ns", 1_000_000),
        counter(status, "side_band_records"),
        counter(status, "side_band_lost"),
        counter(status, "process_rescans"),
        counter(status, "processes_read_again"),
        counter(status, "processes_paced"),
        status.resident_bytes >> 20,
    );
}

/// Maps the code of a library at many places with gaps between, and runs it in the last.
const MANY_MAPPINGS: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
int main(int count, char **argument) {
    int file = open(argument[1], O_RDONLY);
    long places = atol(argument[2]), bytes = atol(argument[3]), entry = atol(argument[4]);
    long apart = (bytes + 8191) / 4096 * 4096;
    char *room = mmap(0, places * apart, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0), *at = 0;
    for (long i = 0; i < places; i++) {
        at = room + i * apart;
        if (mmap(at, bytes, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, file, 0) != at) return 1;
        /* What the code writes to. */
        if (i == places - 1 && mmap(at + bytes / 4096 * 4096, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, -1, 0) == MAP_FAILED) return 1;
    }
    puts("ready");
    fflush(stdout);
    for (;;) ((uint64_t (*)(uint64_t))(at + entry))(20000);
}
"#;

/// Code without any data, so that it runs wherever its file is mapped.
const PURE: &str = r"
#include <stdint.h>
static __attribute__((noinline)) uint64_t pure_leaf(uint64_t n) { uint64_t x = n; for (uint64_t i = 0; i < n; i++) x = x * 31 + (x >> 7); return x; }
static __attribute__((noinline)) uint64_t pure_middle(uint64_t n) { volatile char room[104]; room[n % 8] = 1; return pure_leaf(n) + room[n % 8]; }
uint64_t entry(uint64_t n) { volatile char room[328]; room[n % 8] = 1; return pure_middle(n) + room[n % 8]; }
";

#[test]
fn the_last_of_5000_mappings_has_its_table_and_its_name() {
    const PLACES: u64 = 5000;
    let directory = tempfile::tempdir().unwrap();
    let flags =
        ["-O2", "-shared", "-fPIC", "-fomit-frame-pointer", "-fno-stack-protector", "-fcf-protection=none"];
    let pure = compile(directory.path(), "pure", PURE, &flags);
    let program = compile(directory.path(), "many", MANY_MAPPINGS, &["-O2", "-fomit-frame-pointer"]);
    let symbols = functions(&pure);
    // Sections lie in the file where they lie in memory, up to the data.
    let entry = symbols.iter().find(|(.., name)| name == "entry").unwrap().0;
    let bytes = std::fs::metadata(&pure).unwrap().len() / 4096 * 4096 + 4096;
    let mut command = Command::new(&program);
    command.arg(&pure).args([PLACES, bytes, entry].map(|number| number.to_string()));
    // One that is there when the agent starts, and one that comes later.
    let early = start(&mut command);
    let (mut late, mut from) = (None, UnixNanos::default());
    let Some((batches, status)) = profile(97, |status| {
        late = Some(start(&mut command));
        tables_are_built(status);
        from = now();
        sampled(status, 300);
    }) else {
        return;
    };
    let late = late.unwrap();
    check_balance(&status);
    print_cost("5,000 mappings, twice", &status);
    let names = names_of(&[&pure, &program]);
    for running in [&early, &late] {
        let stacks = stacks(&batches, running.0.id(), from, &names);
        let right: u64 = stacks
            .iter()
            .filter(|(stack, _)| stack.last().is_some_and(|root| root == "_start"))
            .filter(|(stack, _)| {
                let user = user(stack);
                let at = user.iter().position(|name| *name == "entry");
                at.is_some_and(|at| {
                    ["pure_leaf", "pure_middle"].ends_with(&user[..at]) && user[at + 1] == "main"
                }) || user[0] == "main"
            })
            .map(|(_, count)| count)
            .sum();
        let total: u64 = stacks.values().sum();
        println!("{right} of {total} right");
        assert!(total > 10 && right * 100 >= total * 97, "{right} of {total}: {stacks:#?}");
    }
    assert_eq!(counter(&status, "processes_refused"), 0);
    assert_eq!(counter(&status, "processes_over_limit"), 0);
}

fn resident_megabytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() / 256
}

/// Starts a number of processes that wait; ends with its input.
const CROWD: &str = r#"
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>
int main(int count, char **argument) {
    if (count == 1) { prctl(PR_SET_PDEATHSIG, SIGKILL); pause(); return 0; }
    char *arguments[] = {argument[0], 0}, *none[] = {0};
    pid_t pid;
    for (long i = 0; i < atol(argument[1]); i++) if (posix_spawn(&pid, argument[0], 0, 0, arguments, none)) return 1;
    puts("ready");
    fflush(stdout);
    pause();
}
"#;

#[test]
fn start_beside_2000_processes() {
    let directory = tempfile::tempdir().unwrap();
    let crowd = compile(directory.path(), "crowd", CROWD, &["-O2"]);
    let busy = compile(directory.path(), "chain", CHAIN, &["-O2", "-fomit-frame-pointer"]);
    let _busy = Ended(Command::new(&busy).stdin(Stdio::null()).spawn().unwrap());
    for processes in [200_u64, 2000] {
        let mut command = Command::new(&crowd);
        command.arg(processes.to_string());
        let running = start(&mut command);
        // Of this process with all that earlier tests left in it.
        let resident_before = resident_megabytes();
        let (before, mut took, mut there) = (Instant::now(), Duration::ZERO, 0);
        let Some((batches, status)) = profile(97, |status| {
            took = before.elapsed();
            there = status.get().processes;
            sampled(status, 50);
        }) else {
            return;
        };
        drop(running);
        check_balance(&status);
        println!("{processes} processes: started in {took:?}, {resident_before} MB resident before");
        print_cost("beside them", &status);
        assert!(there >= processes, "{there} processes known at start");
        assert!(!batches.is_empty());
    }
}

/// Maps code at ever new places and unmaps it, so many times a second, or as fast as it can (0).
const RESTLESS: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
int main(int count, char **argument) {
    int file = open(argument[1], O_RDONLY);
    long rate = atol(argument[2]), span = 1L << 30;
    char *room = mmap(0, span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    puts("ready");
    fflush(stdout);
    for (long i = 0;; i++) {
        char *at = room + (i * 8192) % span;
        if (mmap(at, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, file, 0) != at) return 1;
        if (mmap(at, 4096, PROT_NONE, MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) != at) return 1;
        if (rate == 0) continue;
        next.tv_nsec += 1000000000 / rate;
        if (next.tv_nsec >= 1000000000) { next.tv_sec++; next.tv_nsec -= 1000000000; }
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, 0);
    }
}
"#;

#[test]
fn processes_that_never_rest_starve_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let restless = compile(directory.path(), "restless", RESTLESS, &["-O2"]);
    let chain = compile(directory.path(), "chain", CHAIN, &["-O2", "-fomit-frame-pointer"]);
    let names = names_of(&[&chain]);
    for rate in ["1000", "0"] {
        let known = Ended(Command::new(&chain).stdin(Stdio::null()).spawn().unwrap());
        let (mut late, mut from) = (None, UnixNanos::default());
        let Some((batches, status)) = profile(97, |status| {
            tables_are_built(status);
            let _restless = start(Command::new(&restless).args(["/bin/true", rate]));
            from = now();
            let before = Instant::now();
            let cpu = counter(&status.get(), "side_band_cpu_us");
            late = Some(Ended(Command::new(&chain).stdin(Stdio::null()).spawn().unwrap()));
            sampled(status, 800);
            let (cpu, wall) = (counter(&status.get(), "side_band_cpu_us") - cpu, before.elapsed());
            println!("{rate} changes a second: side-band took {} ms of {} ms", cpu / 1000, wall.as_millis());
        }) else {
            return;
        };
        check_balance(&status);
        print_cost("beside a restless process", &status);
        let late = late.unwrap();
        for running in [&known, &late] {
            let judged = judge(stacks(&batches, running.0.id(), from, &names));
            println!("{} of {} whole, {:?}", judged.whole, judged.total(), judged.marked);
            let total = judged.total();
            assert!(total > 20 && judged.whole * 100 >= total * 95, "{judged:#?}");
        }
        assert_eq!(counter(&status, "tables_evicted"), 0);
        assert_eq!(counter(&status, "processes_refused"), 0);
    }
}

/// Opens two libraries in turn, runs each for a while, and closes it: the second lies where the first lay.
const TURNS: &str = r#"
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>
static long milliseconds(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000 + t.tv_nsec / 1000000; }
int main(int count, char **argument) {
    puts("ready");
    fflush(stdout);
    for (long i = 0;; i++) {
        void *library = dlopen(argument[1 + i % 2], RTLD_NOW);
        uint64_t (*entry)(uint64_t) = (uint64_t (*)(uint64_t))dlsym(library, "entry");
        if (!entry) return 1;
        for (long until = milliseconds() + 200; milliseconds() < until;) entry(20000);
        dlclose(library);
    }
}
"#;

#[test]
fn libraries_that_come_and_go_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (library(directory.path(), "first", 40), library(directory.path(), "second", 400));
    let program = compile(directory.path(), "turns", TURNS, &["-O2", "-fomit-frame-pointer", "-ldl"]);
    let running = start(Command::new(&program).args([&first, &second]));
    let mut from = UnixNanos::default();
    let Some((batches, status)) = profile(97, |status| {
        tables_are_built(status);
        from = now();
        sampled(status, 800);
    }) else {
        return;
    };
    check_balance(&status);
    print_cost("libraries in turn", &status);
    let stacks = stacks(&batches, running.0.id(), from, &names_of(&[&first, &second, &program]));
    let (mut by_library, mut mixed) = ([0_u64; 2], Vec::new());
    for (stack, count) in &stacks {
        let of = |name: &str| stack.iter().any(|frame| frame.starts_with(name));
        by_library[0] += if of("first_") { *count } else { 0 };
        by_library[1] += if of("second_") { *count } else { 0 };
        if of("first_") && of("second_") {
            mixed.push((stack, count));
        }
    }
    let judged = judge(stacks.clone());
    println!("{by_library:?} samples; {} of {} whole, {:?}", judged.whole, judged.total(), judged.marked);
    assert!(mixed.is_empty(), "{mixed:#?}");
    assert!(by_library.iter().all(|count| *count > 10), "{by_library:?}");
    // Rules of the one followed through the other would end anywhere.
    let unexplained: u64 = judged.other.iter().map(|(_, count)| count).sum();
    assert!(unexplained * 100 <= judged.total(), "neither whole nor marked: {:#?}", judged.other);
    let total = judged.total();
    // A change reaches the kernel side some milliseconds late: of 200 ms less than a twentieth.
    assert!(judged.whole * 100 >= total * 90, "{judged:#?}");
}

/// Runs two programs one after the other under one process number, again and again; says `no` where that cannot be had.
const SAME_NUMBER: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
static pid_t start(pid_t number, char *program) {
    struct clone_args how;
    memset(&how, 0, sizeof(how));
    how.exit_signal = SIGCHLD;
    if (number) { how.set_tid = (uintptr_t)&number; how.set_tid_size = 1; }
    pid_t pid = syscall(SYS_clone3, &how, sizeof(how));
    if (pid == 0) { prctl(PR_SET_PDEATHSIG, SIGKILL); execl(program, program, (char *)0); _exit(1); }
    return pid;
}
int main(int count, char **argument) {
    pid_t number = 0;
    for (long i = 0;; i++) {
        pid_t pid = start(number, argument[1 + i % 2]);
        if (pid < 0) {
            if (errno == EEXIST || errno == EAGAIN) { number = 0; continue; }
            puts("no");
            return 0;
        }
        if (number == 0) number = pid;
        if (i == 1) { puts("ready"); fflush(stdout); }
        struct timespec while_it_runs = {0, 150 * 1000000};
        nanosleep(&while_it_runs, 0);
        kill(pid, SIGKILL);
        waitpid(pid, 0, 0);
    }
}
"#;

#[test]
fn a_number_that_is_used_again_is_another_process() {
    let directory = tempfile::tempdir().unwrap();
    // Other functions, other frames, another name.
    let twin = CHAIN
        .replace("f0(", "g0(")
        .replace("LINK(f", "LINK(g")
        .replace(", f", ", g")
        .replace("f11(1)", "g11(1)");
    let twin = twin.replace("200)", "56)").replace("1000)", "136)");
    assert!(!twin.contains(" f0(") && twin.contains("LINK(g1, g0, 8)"));
    let one = compile(directory.path(), "one", CHAIN, &["-O2", "-fomit-frame-pointer"]);
    let two = compile(directory.path(), "two", &twin, &["-O2", "-fomit-frame-pointer"]);
    let driver = compile(directory.path(), "number", SAME_NUMBER, &["-O2"]);
    let mut child =
        Command::new(&driver).args([&one, &two]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let _driver = Ended(child);
    if line == "no\n" {
        cannot_run("process numbers that are used again", "clone3 with a chosen number is refused");
        return;
    }
    assert_eq!(line, "ready\n");
    let Some((batches, status)) = profile(997, |status| {
        tables_are_built(status);
        sampled(status, 6000);
    }) else {
        return;
    };
    check_balance(&status);
    let mut pids: HashMap<u32, [u64; 2]> = HashMap::new();
    let mut wrong = Vec::new();
    let ids = [(file_id(&one), "one"), (file_id(&two), "two")];
    for batch in &batches {
        for sample in &batch.samples {
            let resource = &batch.resources[batch.profiles[sample.profile as usize].resource as usize];
            let frames = batch.stack(sample.stack).iter().map(|frame| &batch.frames[*frame as usize]);
            let file = |frame: &everflame::model::Frame| {
                batch.executables[frame.executable? as usize]
                    .file_id
                    .and_then(|id| ids.iter().position(|own| own.0 == id))
            };
            for which in frames.filter_map(file) {
                if &*resource.executable_name == ids[which].1 {
                    pids.entry(resource.pid).or_default()[which] += batch.times_of(sample).len() as u64;
                } else {
                    wrong.push((resource.executable_name.clone(), ids[which].1));
                }
            }
        }
    }
    println!("frames of each program by number: {pids:?}");
    assert!(wrong.is_empty(), "frames of one program under the name of the other: {wrong:?}");
    assert!(pids.values().any(|frames| frames.iter().all(|count| *count > 100)), "{pids:?}");
}

/// A child in its parent's memory that works for a while before it ends, again and again.
const BORROWED: &str = "int main(void) { puts(\"ready\"); fflush(stdout); for (;;) { if (vfork() == 0) { for (int i = 0; i < 4000; i++) f11(1); \
     _exit(0); } wait(0); } }";

#[test]
fn a_child_in_its_parents_memory_has_whole_stacks() {
    let directory = tempfile::tempdir().unwrap();
    let source = CHAIN.replace("int main(void) { for (;;) f11(1); }", BORROWED);
    assert_ne!(source, CHAIN);
    let headers = "#include <stdio.h>\n#include <sys/wait.h>\n#include <unistd.h>\n";
    let program = compile(
        directory.path(),
        "borrowed",
        &format!("{headers}{source}"),
        &["-O2", "-fomit-frame-pointer"],
    );
    let running = start(&mut Command::new(&program));
    let mut from = UnixNanos::default();
    let Some((batches, status)) = profile(97, |status| {
        tables_are_built(status);
        from = now();
        sampled(status, 400);
    }) else {
        return;
    };
    check_balance(&status);
    let names = names_of(&[&program]);
    let mut children: Vec<u32> = Vec::new();
    for resource in batches.iter().flat_map(|batch| &batch.resources) {
        if &*resource.executable_name == "borrowed" && resource.pid != running.0.id() {
            children.push(resource.pid);
        }
    }
    children.sort_unstable();
    children.dedup();
    let mut judged = Judged::default();
    for pid in &children {
        let one = judge(stacks(&batches, *pid, from, &names));
        judged.whole += one.whole;
        judged.other.extend(one.other);
        for (mark, count) in one.marked {
            *judged.marked.entry(mark).or_default() += count;
        }
    }
    let total = judged.total();
    println!("{} children: {} of {total} whole, {:?}", children.len(), judged.whole, judged.marked);
    assert!(children.len() > 1 && total > 20, "{children:?}");
    assert!(judged.whole * 100 >= total * 95, "{judged:#?}");
}

/// The first look at all processes meets some that are gone before it has read them.
#[test]
fn start_in_the_middle_of_a_storm() {
    let directory = tempfile::tempdir().unwrap();
    let brief = CHAIN.replace("for (;;) f11(1);", "for (int i = 0; i < 20; i++) f11(1);");
    assert_ne!(brief, CHAIN);
    let program = compile(directory.path(), "gone", &brief, &["-O2", "-fomit-frame-pointer"]);
    let driver = compile(directory.path(), "storm", super::storm::DRIVER, &["-O2"]);
    let chain = compile(directory.path(), "chain", CHAIN, &["-O2", "-fomit-frame-pointer"]);
    let known = Ended(Command::new(&chain).stdin(Stdio::null()).spawn().unwrap());
    let _storm =
        Ended(Command::new(&driver).arg(&program).args(["300", "600"]).stdin(Stdio::null()).spawn().unwrap());
    for _ in 0..3 {
        let mut from = UnixNanos::default();
        let settings = Settings { frequency_hz: 97, ..Settings::default() };
        let Some((batches, status)) = super::profile_with(settings, |status| {
            tables_are_built(status);
            from = now();
            sampled(status, 200);
        }) else {
            return;
        };
        check_balance(&status);
        print_cost("started in a storm", &status);
        let judged = judge(stacks(&batches, known.0.id(), from, &names_of(&[&chain])));
        let total = judged.total();
        assert!(total > 5 && judged.whole * 100 >= total * 90, "{judged:#?}");
        let unexplained = |batch: &Batch| {
            batch.samples.iter().filter(|sample| batch.stack(sample.stack).is_empty()).count()
        };
        assert_eq!(batches.iter().map(unexplained).sum::<usize>(), 0, "each sample has a frame or a mark");
    }
}
