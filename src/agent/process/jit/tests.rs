//! Lists of this process, read as the agent reads them.

use std::fs;
use std::path::PathBuf;

use super::*;

/// The perf map of this test process: one, so these tests are one.
struct OwnMap(PathBuf);

impl OwnMap {
    fn write(text: &str) -> Self {
        let path = PathBuf::from(format!("/tmp/perf-{}.map", std::process::id()));
        fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for OwnMap {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn found(process: &Process, address: u64) -> Option<String> {
    process.map.lock().find(address, monotonic_ns()).map(|found| found.name.to_string())
}

fn refused(process: &Process) -> Vec<(&'static str, u64)> {
    let counts = REFUSALS.iter().zip(&process.totals.refused);
    counts.map(|((word, _), count)| (*word, count.load(Ordering::Relaxed))).filter(|(_, n)| *n > 0).collect()
}

#[test]
fn own_list_is_read_on_and_refused_when_it_is_somebody_elses() {
    let totals = Arc::new(Totals::default());
    let process = Process::new(std::process::id(), &totals);
    process.look(false);
    let first_pause = process.due_ns.load(Ordering::Relaxed) - process.looked_ns.load(Ordering::Relaxed);
    process.look(false);
    let second_pause = process.due_ns.load(Ordering::Relaxed) - process.looked_ns.load(Ordering::Relaxed);
    assert_eq!((first_pause, second_pause), (LOOK_AGAIN_NS, 2 * LOOK_AGAIN_NS), "seldom where there is none");
    assert!(!process.has_list.load(Ordering::Relaxed) && found(&process, 0x1000).is_none());

    let own = OwnMap::write("1000 10 one\nnonsense\n");
    process.look(false);
    assert_eq!(found(&process, 0x1008).as_deref(), Some("one"));
    let generation = process.generation.load(Ordering::Relaxed);
    assert_eq!((generation, totals.skipped.load(Ordering::Relaxed)), (1, 1));
    process.look(false);
    assert_eq!(process.generation.load(Ordering::Relaxed), generation, "nothing new");
    fs::write(&own.0, "1000 10 two\n").unwrap();
    process.look(false);
    assert_eq!(found(&process, 0x1008).as_deref(), Some("two"));
    assert_ne!(process.generation.load(Ordering::Relaxed), generation);
    assert!(refused(&process).is_empty() && totals.bytes.load(Ordering::Relaxed) > 0);

    if std::os::unix::fs::chown(&own.0, Some(12_345), None).is_ok() {
        // A process of root's believes root only.
        process.look(false);
        process.look(false);
        assert_eq!(refused(&process), [("owner", 1)], "told once");
        assert!(!process.has_list.load(Ordering::Relaxed));
    } else {
        crate::cannot_run::cannot_run("files of other users", "not run as root");
    }
    drop(process);
    assert_eq!(totals.bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn memory_of_all_is_bounded() {
    let totals = Arc::new(Totals::default());
    let processes: Vec<Process> = (0..4).map(|pid| Process::new(pid, &totals)).collect();
    for round in 0..40 {
        for process in &processes {
            let made = |n: u64| {
                let start = (round * 1000 + n) << 8;
                let name = "x".repeat(200).into();
                Change::Made(crate::symbols::jit::Code {
                    start: start + 1,
                    end: start + 9,
                    from_ns: None,
                    name,
                    source: None,
                })
            };
            process.apply(&mut (0..1000).map(made).collect(), 0);
        }
        assert!(totals.bytes.load(Ordering::Relaxed) <= MAX_BYTES_OF_ALL);
    }
    assert!(processes.iter().all(|process| process.map.lock().bytes() <= MAX_BYTES));
    assert!(processes[3].map.lock().over_limit() > 0);
}
