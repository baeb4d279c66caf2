//! What an administrator or a container forbids although the kernel could do it, read from where the kernel tells.
//!
//! Decides nothing: it explains a refusal that has happened, or a loss that is to come.

use std::fs;

/// How far the kernel protects itself from root (`kernel_lockdown(7)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lockdown {
    /// Not at all, or it does not tell.
    #[default]
    Off,
    /// Nothing may be changed in the kernel; reading is allowed, so sampling works.
    Integrity,
    /// Nothing may be read from the kernel either.
    Confidentiality,
}

/// What is forbidden here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restrictions {
    /// Lockdown of the kernel.
    pub lockdown: Lockdown,
    /// System calls of this process pass a filter: a container's seccomp profile.
    pub seccomp: bool,
    /// BPF programs are interpreted (`net.core.bpf_jit_enable` is 0).
    pub jit_off: bool,
}

impl Restrictions {
    /// Reads them. What cannot be read counts as not forbidden.
    #[must_use]
    pub fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let mut lockdown = parse_lockdown(&text("/sys/kernel/security/lockdown"));
        if lockdown == Lockdown::Off {
            // securityfs is seldom mounted in containers.
            lockdown = lockdown_of_command_line(&text("/proc/cmdline"));
        }
        Self {
            lockdown,
            seccomp: has_seccomp_filter(&text("/proc/self/status")),
            jit_off: text("/proc/sys/net/core/bpf_jit_enable").trim() == "0",
        }
    }
}

/// The mode in brackets, as in `none [integrity] confidentiality`.
fn parse_lockdown(text: &str) -> Lockdown {
    if text.contains("[confidentiality]") {
        Lockdown::Confidentiality
    } else if text.contains("[integrity]") {
        Lockdown::Integrity
    } else {
        Lockdown::Off
    }
}

fn lockdown_of_command_line(text: &str) -> Lockdown {
    match text.split_whitespace().rev().find_map(|word| word.strip_prefix("lockdown=")) {
        Some("confidentiality") => Lockdown::Confidentiality,
        Some("integrity") => Lockdown::Integrity,
        _ => Lockdown::Off,
    }
}

/// Mode 2 of `Seccomp:` is a filter.
fn has_seccomp_filter(status: &str) -> bool {
    status.lines().filter_map(|line| line.strip_prefix("Seccomp:")).any(|mode| mode.trim() == "2")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_mode_of_lockdown() {
        assert_eq!(parse_lockdown("[none] integrity confidentiality\n"), Lockdown::Off);
        assert_eq!(parse_lockdown("none [integrity] confidentiality\n"), Lockdown::Integrity);
        assert_eq!(parse_lockdown("none integrity [confidentiality]\n"), Lockdown::Confidentiality);
        assert_eq!(parse_lockdown(""), Lockdown::Off);
        assert_eq!(lockdown_of_command_line("quiet lockdown=confidentiality ro"), Lockdown::Confidentiality);
        assert_eq!(lockdown_of_command_line("quiet nolockdown=integrity"), Lockdown::Off);
    }

    #[test]
    fn tells_a_filter_from_none() {
        assert!(has_seccomp_filter("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n"));
        assert!(!has_seccomp_filter("Name:\tx\nSeccomp:\t0\nSeccomp_filters:\t0\n"));
    }
}
