//! CPU time of this process, or of the agent's own threads where other roles share the process.

use std::collections::HashMap;
use std::fs;

use super::clock::process_cpu_ns;

/// Names of the agent's threads begin with it.
const THREADS: &str = "agent";

/// Measures from look to look.
#[derive(Debug, Default)]
pub struct OwnCpu {
    whole_process: bool,
    /// Time of each thread so far; `None` = not the agent's. Ended ones stay, so that the sum never shrinks.
    threads: HashMap<u32, Option<u64>>,
}

impl OwnCpu {
    /// Counts everything that this process does, or only what the agent's threads do.
    #[must_use]
    pub fn new(whole_process: bool) -> Self {
        Self { whole_process, threads: HashMap::new() }
    }

    /// CPU time so far, user and system, in nanoseconds.
    pub fn now_ns(&mut self) -> u64 {
        if self.whole_process {
            return process_cpu_ns();
        }
        let entries = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        for tid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
            let read = |name: &str| fs::read_to_string(format!("/proc/self/task/{tid}/{name}"));
            let thread = self
                .threads
                .entry(tid)
                .or_insert_with(|| read("comm").is_ok_and(|name| name.starts_with(THREADS)).then_some(0));
            if let Some(before) = thread {
                let now = read("schedstat").ok().and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
                *before = now.unwrap_or(0).max(*before);
            }
        }
        self.threads.values().flatten().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_threads_of_the_agent_count() {
        let spin = |name: &str| {
            std::thread::Builder::new().name(name.into()).spawn(|| {
                let mut own = OwnCpu::new(false);
                let start_ns = crate::agent::host::clock::thread_cpu_ns();
                while crate::agent::host::clock::thread_cpu_ns() - start_ns < 20_000_000 {}
                own.now_ns()
            })
        };
        let agent = spin("agent-test").unwrap().join().unwrap();
        assert!(agent >= 15_000_000, "{agent}");
        let mut whole = OwnCpu::new(true);
        let before = whole.now_ns();
        spin("other").unwrap().join().unwrap();
        assert!(whole.now_ns() - before >= 20_000_000);
    }
}
