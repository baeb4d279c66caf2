//! Who is sampled: `filter-…` and `pin-cpu-ids`.

use std::time::Duration;

use super::super::settings::Expected;
use super::super::{Section, Settings};
use super::AgentSection;

/// Most names, numbers, paths or containers of one list.
const MAX_ENTRIES: usize = 1000;
/// Largest CPU number plus one that is believed (the kernel's `NR_CPUS` maximum is 8192).
const MAX_CPUS: u32 = 8192;

/// Which processes and CPUs are sampled. A process is when any of the four lists names it, or when all are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterSection {
    /// Processes by number; what they start is not meant.
    pub pids: Vec<u32>,
    /// Processes by the name of their first thread, of which the kernel keeps 15 bytes.
    pub names: Vec<String>,
    /// Cgroups by path below the hierarchy's mount, with everything below them.
    pub cgroups: Vec<String>,
    /// Containers by the start of their ID, or LXC containers by name.
    pub containers: Vec<String>,
    /// Age at which a process begins to be sampled.
    pub min_process_age: Duration,
    /// CPUs that are sampled; `None` = all.
    pub cpus: Option<Vec<u32>>,
}

impl Section for FilterSection {
    fn read(settings: &Settings) -> Self {
        let key = |name: &str| format!("{}.{name}", AgentSection::NAME);
        let list = |name: &str| {
            let mut entries = settings.list(&key(name), &[]);
            if entries.len() > MAX_ENTRIES {
                let found = entries.len();
                let message = format!("expected a list of at most {MAX_ENTRIES}, found {found}");
                settings.problem(&key(name), message, None);
                entries.truncate(MAX_ENTRIES);
            }
            entries
        };
        let numbers = list("filter-pids");
        let pids = numbers.iter().filter_map(|text| match text.parse() {
            Ok(pid) if pid > 0 => Some(pid),
            _ => {
                let message = format!("expected numbers of processes with commas between, found \"{text}\"");
                let hint = "processes are chosen by name with filter-names".to_owned();
                settings.problem(&key("filter-pids"), message, Some(hint));
                None
            }
        });
        Self {
            pids: pids.collect(),
            names: list("filter-names"),
            cgroups: list("filter-cgroups"),
            containers: list("filter-containers"),
            min_process_age: settings.duration(
                &key("filter-min-process-age"),
                Duration::ZERO,
                Duration::ZERO..=Duration::from_hours(24 * 365),
            ),
            cpus: cpus(settings, &key("pin-cpu-ids")),
        }
    }
}

/// A list such as `0-15,20,31`; empty = all.
fn cpus(settings: &Settings, key: &str) -> Option<Vec<u32>> {
    let show = |cpus: &Option<Vec<u32>>| {
        cpus.as_ref().map_or_else(
            || "all".into(),
            |cpus| cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(","),
        )
    };
    settings.field(key, None, show, |value| {
        let text = super::super::fields::text(value).unwrap_or_default();
        match parse_cpus(&text) {
            Some(cpus) => Ok((!cpus.is_empty()).then_some(cpus)),
            None => Err(Expected::new(format!("CPU numbers below {MAX_CPUS} such as 0-15,20,31"))),
        }
    })
}

fn parse_cpus(text: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if last >= MAX_CPUS || first > last {
            return None;
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_taken_whole_or_not_at_all() {
        assert_eq!(parse_cpus("20, 0-2,1"), Some(vec![0, 1, 2, 20]));
        assert_eq!(parse_cpus(""), Some(vec![]));
        for text in ["a", "3-1", "0-8192", "1-", "-1"] {
            assert_eq!(parse_cpus(text), None, "{text}");
        }
    }
}
