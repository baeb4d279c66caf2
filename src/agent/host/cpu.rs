//! CPUs of this host and how busy they were: `/sys/devices/system/cpu`, `/proc/stat`, `/proc/self/statm`.
//!
//! Parsers are pure; readers return `None` instead of a made-up number.

use std::fs;

/// CPU numbers in a kernel list such as `0-3,8,10-11`. At most [`MAX_CPUS`]; a malformed part ends the list.
#[must_use]
pub fn parse_cpu_list(text: &str) -> Vec<u32> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) else { break };
        if last >= MAX_CPUS || first > last {
            break;
        }
        cpus.extend(first..=last);
    }
    cpus
}

/// Largest CPU number plus one that is believed (the kernel's `NR_CPUS` maximum is 8192).
pub const MAX_CPUS: u32 = 8192;

/// CPUs that are switched on, ascending. CPU 0 when the list cannot be read.
#[must_use]
pub fn online_cpus() -> Vec<u32> {
    let cpus = fs::read_to_string("/sys/devices/system/cpu/online").map(|text| parse_cpu_list(&text));
    cpus.ok().filter(|cpus| !cpus.is_empty()).unwrap_or_else(|| vec![0])
}

/// Time that all CPUs together spent since boot, in ticks of the kernel's user clock (100 per second).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// User, nice, system, interrupt and soft interrupt time: what a timer on the CPU clock can see.
    pub busy: u64,
    /// Idle and waiting for disks.
    pub idle: u64,
    /// Taken by the hypervisor.
    pub stolen: u64,
}

/// Ticks per second of [`CpuTime`] (`USER_HZ`, 100 on every architecture we run on).
pub const CPU_TIME_HZ: u64 = 100;

/// First line of `/proc/stat`.
#[must_use]
pub fn parse_cpu_time(text: &str) -> Option<CpuTime> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let mut fields = line.split_ascii_whitespace().map(|field| field.parse::<u64>().ok());
    let mut next = || fields.next().flatten();
    let (user, nice, system, idle) = (next()?, next()?, next()?, next()?);
    let (waiting, interrupt, soft, stolen) =
        (next().unwrap_or(0), next().unwrap_or(0), next().unwrap_or(0), next().unwrap_or(0));
    Some(CpuTime { busy: user + nice + system + interrupt + soft, idle: idle + waiting, stolen })
}

/// [`CpuTime`] now.
#[must_use]
pub fn cpu_time() -> Option<CpuTime> {
    parse_cpu_time(&fs::read_to_string("/proc/stat").ok()?)
}

/// Resident memory of this process in bytes.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_read_up_to_the_first_nonsense() {
        assert_eq!(parse_cpu_list("0-3,8,10-11\n"), [0, 1, 2, 3, 8, 10, 11]);
        assert_eq!(parse_cpu_list("0"), [0]);
        assert_eq!(parse_cpu_list(""), [] as [u32; 0]);
        assert_eq!(parse_cpu_list("2,1-"), [2]);
        assert_eq!(parse_cpu_list("0-4294967295"), [] as [u32; 0]);
    }

    #[test]
    fn cpu_time_adds_what_a_timer_can_see() {
        let text = "cpu  10 1 20 400 5 2 3 7 0 0\ncpu0 1 2 3\n";
        assert_eq!(parse_cpu_time(text), Some(CpuTime { busy: 36, idle: 405, stolen: 7 }));
        assert_eq!(parse_cpu_time("cpu  10 1"), None);
        assert!(cpu_time().is_some_and(|time| time.busy > 0));
    }

    #[test]
    fn own_memory_is_known() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
