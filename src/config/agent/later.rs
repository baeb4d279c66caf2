//! Options of the reference agent that this one does not have: each is refused with a sentence where it asks for
//! something, and none is ignored in silence.

use super::super::Settings;
use super::AgentSection;

/// An option that asks for something that is not built.
struct Later {
    name: &'static str,
    /// Values that ask for nothing.
    off: &'static [&'static str],
    message: &'static str,
    hint: &'static str,
}

const LATER: [Later; 9] = [
    Later {
        name: "off-cpu-threshold",
        off: &["0", "0.0"],
        message: "sampling of waiting threads is not built yet",
        hint: "leave it out or set 0: only time on the CPU is sampled",
    },
    Later {
        name: "probe-link",
        off: &[""],
        message: "stacks at probes are not built yet",
        hint: "leave it out",
    },
    Later {
        name: "pprof",
        off: &[""],
        message: "the agent serves no profile of itself",
        hint: "leave it out: the agent samples itself, look for the process everflame",
    },
    Later {
        name: "enable-pprof",
        off: &["false"],
        message: "the agent serves no profile of itself",
        hint: "leave it out: the agent samples itself, look for the process everflame",
    },
    Later {
        name: "save-cpuprofile",
        off: &["false"],
        message: "the agent writes no profile of itself",
        hint: "leave it out: the agent samples itself, look for the process everflame",
    },
    Later {
        name: "obi-process-ctx",
        off: &["false"],
        message: "contexts of OpenTelemetry eBPF instrumentation are not read yet",
        hint: "leave it out",
    },
    Later {
        name: "bpffs-root",
        off: &["/sys/fs/bpf/", "/sys/fs/bpf"],
        message: "nothing is pinned below a BPF file system yet",
        hint: "leave it out",
    },
    Later {
        name: "elastic",
        off: &["false"],
        message: "running under Elastic Agent is not built yet",
        hint: "start the agent as a service of its own",
    },
    Later {
        name: "private-environment-type",
        off: &[""],
        message: "the environment is always found out, never set",
        hint: "leave it out",
    },
];

/// Notes a mistake for each option that asks for what is not built, and a warning for those that cannot matter.
pub(super) fn refuse(settings: &Settings) {
    let key = |name: &str| format!("{}.{name}", AgentSection::NAME);
    for later in &LATER {
        let asked = settings.list(&key(later.name), &[]);
        if asked.iter().any(|value| !later.off.contains(&value.as_str())) {
            settings.problem(&key(later.name), later.message.to_owned(), Some(later.hint.to_owned()));
        }
    }
    if settings.has(&key("bpf-log-size")) {
        settings.number(&key("bpf-log-size"), 0, 0..=u64::MAX);
        settings.warn(&key("bpf-log-size"), "has no effect: the log takes the room that it needs", None);
    }
}
