//! The native matrix: programs of every compiler and runtime under load, their recorded stacks against the truth.
//!
//! One agent samples the machine while the rows run, two side by side. Each row says how its program is built and
//! loaded, where its stacks must end, and which call chains are true. Two measures: *complete* (the stack reaches the
//! thread's real entry) and *right* (frame by frame a chain that the program can have). The table is printed; a row below
//! the aims fails the test. What the measures mean: `docs/truth.md`.
//!
//! `EVERFLAME_TRUTH=all` runs every row (`make truth`), otherwise a short choice of them runs. `EVERFLAME_TRUTH_SECONDS`
//! is the CPU time sampled of each row, `EVERFLAME_TRUTH_ROWS` keeps rows whose name contains one of these words (or is one,
//! written `=name`). With `EVERFLAME_TRUTH_SHOW`, stacks that are not whole are shown of all rows.
#![cfg(feature = "agent")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that tells what it saw")]

mod against_gdb;
mod build;
#[path = "../cannot_run/mod.rs"]
mod cannot_run;
mod chain;
mod measure;
mod names;
mod recorder;
#[path = "../replay/mod.rs"]
#[allow(dead_code, reason = "the recorder's side is of use elsewhere")]
mod replay;
mod row;
mod rows;
mod running;
mod table;

use std::sync::Mutex;
use std::time::Duration;

use measure::Measured;
use recorder::Recorder;
use row::Row;

/// Samples per second and CPU: odd, so that no program keeps step, and high, so that a row takes seconds.
const FREQUENCY_HZ: u32 = 499;
/// Rows that run at the same time: as many as this machine has CPUs, but their build and start need some, too.
const SIDE_BY_SIDE: usize = 2;

/// Stacks that gdb judges for each second that is sampled: it takes some 20 ms for one.
const STACKS_PER_SECOND: f64 = 100.0;

/// CPU time of each row that is sampled: from the environment, else enough for a first word.
fn seconds_each() -> f64 {
    std::env::var("EVERFLAME_TRUTH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2.0)
}

/// The rows that this run is about.
fn chosen() -> Vec<Row> {
    let all = std::env::var("EVERFLAME_TRUTH").is_ok_and(|text| text == "all");
    let words = std::env::var("EVERFLAME_TRUTH_ROWS").unwrap_or_default();
    let words: Vec<&str> = words.split([',', ' ']).filter(|word| !word.is_empty()).collect();
    let wanted = |row: &Row| match &words[..] {
        [] => all || row.short,
        words => words.iter().any(|word| match word.strip_prefix('=') {
            Some(whole) => row.name == whole,
            None => row.name.contains(word),
        }),
    };
    rows::all().into_iter().filter(wanted).collect()
}

#[test]
fn native_stacks_are_complete_and_right() {
    let rows = chosen();
    assert!(!rows.is_empty(), "no row has such a name");
    // Everything is built before anything is sampled: compilers would take the CPUs from the programs.
    let programs: Vec<_> = rows.iter().map(build::program).collect();
    let Some(recorder) = Recorder::start(FREQUENCY_HZ) else { return };
    recorder.wait_for_tables(Duration::from_mins(2));

    let wanted = (seconds_each() * f64::from(FREQUENCY_HZ)) as u64;
    let stacks = (seconds_each() * STACKS_PER_SECOND) as u64;
    let waiting = Mutex::new(rows.iter().zip(programs).enumerate().rev().collect::<Vec<_>>());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                loop {
                    let Some((index, (row, program))) = waiting.lock().unwrap().pop() else { return };
                    let measured = match program {
                        Ok(program) => running::measure(row, &program, &recorder, wanted, stacks),
                        Err(why) => Measured::not_run(row, why),
                    };
                    println!("{}", table::line(&measured));
                    done.lock().unwrap().push((index, measured));
                }
            });
        }
    });
    recorder.stop();
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(index, _)| *index);
    let done: Vec<Measured> = done.into_iter().map(|(_, measured)| measured).collect();
    println!("\n{}", table::whole(&done));
    for row in done.iter().filter(|row| row.not_run.is_some()) {
        cannot_run::cannot_run(&row.name, row.not_run.as_deref().unwrap_or_default());
    }
    let missed: Vec<&Measured> = done.iter().filter(|row| !row.meets_the_aims()).collect();
    // A wrong stack is worth a look also where a row keeps to the aims; others on request.
    let shows_all = std::env::var_os("EVERFLAME_TRUTH_SHOW").is_some();
    for row in done.iter().filter(|row| shows_all || row.right < row.compared || !row.meets_the_aims()) {
        println!("{}", row.scene());
    }
    assert!(
        missed.is_empty(),
        "rows below the aims: {}",
        missed.iter().map(|row| row.name.as_str()).collect::<Vec<_>>().join(", ")
    );
}
