//! Right or not, by gdb: the same registers and the same memory, walked by both.
//!
//! For programs whose chains nobody wrote down, at random moments; and for our own, at every instruction of a function.
//! The comparison itself is the one of `tests/replay`.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::chain::{Matcher, Part};
use crate::measure::Compared;
use crate::replay::compare::{Row, Session};
use crate::running::processes_of;

/// Processes of a program that are looked at, those first that use most CPU time.
const PROCESSES: usize = 3;
/// Longest that a process runs between two stops: odd, and longer than what a program does between two system calls.
const LONGEST_RUN: Duration = Duration::from_millis(7);
/// Instructions looked at of one function; a loop would never end.
const MOST_STEPS: usize = 90;
/// Longest that one program is looked at.
const DEADLINE: Duration = Duration::from_mins(1);

/// Stops the processes of these executables at random moments until `wanted` stacks are compared.
pub(crate) fn at_random(paths: &HashSet<PathBuf>, wanted: u64) -> Compared {
    let mut compared = Compared::default();
    let start = Instant::now();
    while compared.stacks < wanted && start.elapsed() < DEADLINE {
        let mut pids = processes_of(paths);
        pids.sort_by_key(|pid| std::cmp::Reverse(cpu_time(*pid)));
        pids.truncate(PROCESSES);
        if pids.is_empty() {
            // Between two short processes.
            std::thread::sleep(Duration::from_millis(5));
        }
        let each = (wanted - compared.stacks).div_ceil(pids.len().max(1) as u64);
        for pid in pids {
            let before = compared.stacks;
            let Ok(mut session) = Session::attach(pid) else { continue };
            while compared.stacks - before < each && start.elapsed() < DEADLINE {
                match session.stop_at_random(LONGEST_RUN) {
                    Ok(Some(rows)) => rows.iter().for_each(|row| add(&mut compared, row, None)),
                    Ok(None) => break,
                    Err(why) => {
                        compared.problem = Some(why);
                        break;
                    }
                }
            }
        }
    }
    compared
}

/// Runs a program of our own and looks at every instruction of these functions, calls stepped over.
pub(crate) fn step_by_step(
    program: &Path,
    functions: &[&str],
    matcher: &Matcher,
) -> Result<Compared, String> {
    let mut command = std::process::Command::new(program);
    let mut child = command.arg("300").stdin(Stdio::null()).spawn().map_err(|error| error.to_string())?;
    let mut compared = Compared::default();
    let looked = Session::attach(child.id()).and_then(|mut session| {
        for function in functions {
            let rows = session.step_through(function, MOST_STEPS)?;
            for row in &rows {
                add(&mut compared, row, Some(matcher));
            }
        }
        Ok(())
    });
    let _ = child.kill();
    let _ = child.wait();
    looked.map(|()| compared)
}

fn add(compared: &mut Compared, row: &Row, matcher: Option<&Matcher>) {
    compared.stacks += 1;
    if row.ours.end != "Complete" {
        *compared.incomplete.entry(format!("gdb: {}", row.verdict.reason())).or_default() += 1;
        compared.examples.push(row.to_string());
        return;
    }
    compared.complete += 1;
    let names =
        || row.gdb.frames.iter().map(|frame| Part::Frame(vec![frame.name.clone()])).collect::<Vec<_>>();
    // gdb reads the same tables; where the chain is known, that decides.
    let is_chain = matcher.is_none_or(|matcher| matcher.is_right(&names()) != Some(false));
    if row.verdict.is_right() && (is_chain || row.first_difference.is_some()) {
        compared.right += 1;
    } else {
        compared.examples.push(row.to_string());
        *compared.wrong.entry(row.verdict.reason()).or_default() += 1;
    }
}

/// Clock ticks that a process has used; 0 when it is gone.
fn cpu_time(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let number = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    number(11) + number(12)
}

/// Texts by how often they were said.
pub(crate) fn most_first(counts: &HashMap<String, u64>) -> Vec<(String, u64)> {
    let mut counts: Vec<_> = counts.iter().map(|(text, count)| (text.clone(), *count)).collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts
}
