//! Programs that live a few milliseconds: over before anybody could look at them, and yet their stacks are whole.

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use everflame::model::Batch;

use super::{CHAIN, compile, counter, profile, tables_are_built};

/// The chain again, for a millisecond or two.
const BRIEF_MAIN: &str = "int main(void) { for (int i = 0; i < 50; i++) f11(1); }";
/// Programs started a second.
const RATE: &str = "500";

/// Starts a program so many times a second, for so many seconds; says how often it did.
pub(super) const DRIVER: &str = r"
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
int main(int count, char **argument) {
    long rate = atol(argument[2]), runs = rate * atol(argument[3]);
    char *arguments[] = {argument[1], 0}, *none[] = {0};
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    for (long run = 0; run < runs; run++) {
        pid_t pid;
        if (posix_spawn(&pid, argument[1], 0, 0, arguments, none)) return 1;
        while (waitpid(-1, 0, WNOHANG) > 0) {}
        next.tv_nsec += 1000000000 / rate;
        if (next.tv_nsec >= 1000000000) { next.tv_sec++; next.tv_nsec -= 1000000000; }
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, 0);
    }
    while (waitpid(-1, 0, 0) > 0) {}
    return 0;
}
";

/// Ends of the stacks of one program: entry function by presence of a mark.
#[derive(Debug, Default)]
struct Ends {
    whole: u64,
    marked: HashMap<String, u64>,
    neither: u64,
}

fn ends(batches: &[Batch], program: &str) -> Ends {
    let mut ends = Ends::default();
    for batch in batches {
        for sample in &batch.samples {
            let resource = batch.profiles[sample.profile as usize].resource;
            if &*batch.resources[resource as usize].executable_name != program {
                continue;
            }
            let count = batch.times_of(sample).len() as u64;
            let root = batch.stack(sample.stack).last().map(|frame| &batch.frames[*frame as usize]);
            let mark =
                root.and_then(|frame| frame.lines.first()).filter(|line| line.function.starts_with('['));
            match (mark, root.and_then(|frame| frame.executable)) {
                (Some(line), _) => *ends.marked.entry(line.function.to_string()).or_default() += count,
                // `_start` of the program or of its loader, or the kernel before there was any user code.
                (None, Some(_)) => ends.whole += count,
                (None, None) => ends.neither += count,
            }
        }
    }
    ends
}

/// `make truth` runs it for a minute at the usual frequency.
#[test]
fn programs_that_live_two_milliseconds_have_whole_stacks() {
    let directory = tempfile::tempdir().unwrap();
    let source = CHAIN.replace("int main(void) { for (;;) f11(1); }", BRIEF_MAIN);
    assert_ne!(source, CHAIN);
    let program = compile(directory.path(), "brief", &source, &["-O2", "-fomit-frame-pointer"]);
    let driver = compile(directory.path(), "storm", DRIVER, &["-O2"]);
    let long = std::env::var("EVERFLAME_STORM_SECONDS").ok();
    let (frequency_hz, seconds) = long.as_deref().map_or((499, "4"), |seconds| (97, seconds));
    let mut took = Duration::ZERO;
    let Some((batches, status)) = profile(frequency_hz, |status| {
        tables_are_built(status);
        let start = Instant::now();
        let done = Command::new(&driver).arg(&program).args([RATE, seconds]).stdin(Stdio::null()).status();
        assert!(done.unwrap().success());
        took = start.elapsed();
    }) else {
        return;
    };
    let ends = ends(&batches, "brief");
    let total = ends.whole + ends.neither + ends.marked.values().sum::<u64>();
    println!(
        "{RATE} a second for {seconds} s, in {took:?}: {total} samples, {} whole, rest {:?}",
        ends.whole, ends.marked
    );
    println!("{:?}", status.counters);
    assert!(total > 200, "{total} samples");
    assert_eq!(ends.neither, 0, "every stack is whole or says why not");
    assert!(ends.whole * 100 >= total * 95, "{ends:?}");
    let dropped: u64 =
        status.counters.iter().filter(|(name, _)| name.starts_with("dropped.")).map(|(_, value)| value).sum();
    assert_eq!(counter(&status, "ticks"), counter(&status, "stored") + dropped);
    assert_eq!(dropped, 0);
}
