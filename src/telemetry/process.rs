//! What the kernel knows of this process. What cannot be read is left out.

use std::fs;

use super::Metric;
use super::metrics::Answers;

/// Clock ticks a second in `/proc`: fixed for programs, whatever the kernel itself counts in.
const USER_HZ: f64 = 100.0;

/// Reads `/proc/self`.
pub(super) fn answer(answers: &mut Answers) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (metric, name, unit) in [
        (Metric::ProcessResidentBytes, "VmRSS:", 1024),
        (Metric::ProcessVirtualBytes, "VmSize:", 1024),
        (Metric::ProcessThreads, "Threads:", 1),
    ] {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        if let Some(value) = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()) {
            answers.put(metric, value * unit);
        }
    }
    if let Some((cpu_seconds, start_seconds)) = times() {
        answers.put_with(Metric::ProcessCpuSeconds, &[], cpu_seconds);
        answers.put_with(Metric::ProcessStartSeconds, &[], start_seconds);
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        // The directory itself is open while it is read.
        answers.put(Metric::ProcessOpenFds, (entries.count() as u64).saturating_sub(1));
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    if let Some(most) = files.and_then(|line| line.split_whitespace().next()?.parse().ok()) {
        answers.put(Metric::ProcessMaxFds, most);
    }
}

/// CPU time so far and the start of the process, both in seconds, the latter since 1970.
fn times() -> Option<(f64, f64)> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the process may hold anything, so count from its closing bracket.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    let cpu = (ticks(11)? + ticks(12)?) / USER_HZ;
    let system = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some((cpu, boot + ticks(19)? / USER_HZ))
}
