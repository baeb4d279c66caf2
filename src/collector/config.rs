//! What the collector needs to know, resolved.

use std::fs;

use crate::config::{CollectorSection, HostPort, ServerTls};
use crate::net::{Budget, Limits, Token};

/// What the program takes beside requests and queues: code, caches of what the store holds, threads.
const PROGRAM_BYTES: u64 = 96 << 20;
/// Part of the memory left that connections may take, whatever they send.
const CONNECTIONS_SHARE: u64 = 4;
/// Least memory that exports and queues have: less could not read one export.
const LEAST_BYTES: u64 = 64 << 20;
/// Part of the machine's memory when nothing is said.
const MACHINE_SHARE: u64 = 4;
/// Memory of the machine when it cannot be learnt.
const USUAL_MACHINE: u64 = 2 << 30;

/// Settings of one collector.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address to listen on.
    pub listen: HostPort,
    /// What senders must show; `None` = everybody may send.
    pub token: Option<Token>,
    /// TLS of the port; `None` = plain text.
    pub tls: Option<ServerTls>,
    /// Bounds of the listener.
    pub limits: Limits,
    /// Bytes that exports and the queues behind them may hold together.
    pub budget: Budget,
}

impl Config {
    /// From the section of the configuration.
    #[must_use]
    pub fn resolve(section: &CollectorSection) -> Self {
        let token = section.secret_token.as_ref().and_then(|secret| Token::new(secret.reveal()));
        let limit = match section.memory_limit {
            Some(limit) => limit.0,
            None => machine_bytes().unwrap_or(USUAL_MACHINE) / MACHINE_SHARE,
        };
        let (connections, exports) = shares(limit);
        Self {
            listen: section.host.clone(),
            token,
            tls: section.tls.enabled.then(|| section.tls.clone()),
            limits: Limits::within(connections),
            budget: Budget::new(exports),
        }
    }

    /// Whether anybody on the network may send. The caller says so loudly.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.token.is_none() && !self.listen.is_loopback()
    }
}

/// How much of `limit` connections may take, and how much exports and queues.
fn shares(limit: u64) -> (u64, u64) {
    let left = limit.saturating_sub(PROGRAM_BYTES);
    let connections = left / CONNECTIONS_SHARE;
    (connections, (left - connections).max(LEAST_BYTES))
}

/// Memory of this machine, or what its control group may use of it.
fn machine_bytes() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let total: u64 = total.split_whitespace().next()?.parse().ok()?;
    let group = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    Some(group.unwrap_or(u64::MAX).min(total * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_a_limit_stay_below_it() {
        for limit in [256 << 20, 500 << 20, 4 << 30] {
            let (connections, exports) = shares(limit);
            assert!(connections + exports + PROGRAM_BYTES <= limit, "{limit}: {connections} and {exports}");
            assert!(exports >= limit / 3, "{limit}: {exports}");
        }
        assert_eq!(shares(0), (0, LEAST_BYTES));
        assert!(machine_bytes().is_some_and(|bytes| bytes > 64 << 20));
    }
}
