//! Programs that live a few milliseconds: over before anybody could look at them, and yet their stacks are whole.

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use everflame::model::Batch;

use super::{CHAIN, compile, counter, profile, tables_are_built};

/// The chain again, for some three milliseconds.
const BRIEF_MAIN: &str = "int main(void) { for (int i = 0; i < 100; i++) f11(1); }";

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

#[test]
fn programs_that_live_three_milliseconds_have_whole_stacks() {
    let directory = tempfile::tempdir().unwrap();
    let source = CHAIN.replace("int main(void) { for (;;) f11(1); }", BRIEF_MAIN);
    assert_ne!(source, CHAIN);
    let program = compile(directory.path(), "brief", &source, &["-O2", "-fomit-frame-pointer"]);
    let mut runs = 0;
    let Some((batches, status)) = profile(997, |status| {
        tables_are_built(status);
        let end = Instant::now() + Duration::from_secs(4);
        while Instant::now() < end {
            assert!(Command::new(&program).stdin(Stdio::null()).status().unwrap().success());
            runs += 1;
        }
    }) else {
        return;
    };
    let ends = ends(&batches, "brief");
    let total = ends.whole + ends.neither + ends.marked.values().sum::<u64>();
    println!("{runs} runs, {total} samples: {ends:#?}");
    println!("{:#?}", status.counters);
    assert!(total > 200, "{total} samples of {runs} runs");
    assert_eq!(ends.neither, 0, "every stack is whole or says why not");
    assert!(ends.whole * 100 >= total * 95, "{ends:?}");
    let dropped: u64 =
        status.counters.iter().filter(|(name, _)| name.starts_with("dropped.")).map(|(_, value)| value).sum();
    assert_eq!(counter(&status, "ticks"), counter(&status, "stored") + dropped);
    assert_eq!(dropped, 0);
}
