//! What the agent says of itself: its status, and what it tells of this host with its samples.

use std::sync::Arc;

use super::Engine;
use crate::agent::config::Settings;
use crate::agent::counters::Counter;
use crate::agent::host::{Host, clock::realtime_ns, cpu};
use crate::agent::status::AgentStatus;

impl Engine {
    /// What is different from a plain run now.
    fn notes(&self) -> Vec<String> {
        let lottery = self.lottery.as_ref().map(|lottery| {
            let doing = if lottery.is_sampling() { "sampling" } else { "not sampling" };
            format!("probabilistic mode: {doing} in this interval, the chance is {} %", lottery.threshold())
        });
        lottery.into_iter().chain(self.governor.notes()).collect()
    }

    /// Brings the status up to date.
    pub(super) fn show(&mut self) {
        let classed = self.sampler.classed_counters();
        let value =
            |name: &str| classed.iter().find(|(_, found, _)| *found == name).map_or(0, |(.., value)| *value);
        let ticks = value("ticks").saturating_sub(value("idle")).saturating_sub(value("filtered"));
        let follow = self.follower.counts();
        let mut list = vec![("ticks", ticks)];
        list.extend(Counter::ALL.map(|counter| (counter.name(), self.counters.get(counter))));
        list.extend(classed.iter().filter(|(_, name, _)| *name != "ticks").map(|(_, name, value)| {
            // `stored` is said of what a receiver answers for; here it is what the ring took.
            (if *name == "stored" { "sampled" } else { *name }, *value)
        }));
        list.extend([
            ("stacks_known", self.converter.hits),
            ("stacks_completed_late", self.stacks_completed_late),
            ("stacks_cut_at_new_mapping", self.stacks_cut),
            ("side_band_looks", follow.looks),
            ("side_band_cpu_us", follow.cpu_ns / 1000),
            ("side_band_records", follow.events),
            ("side_band_lost", follow.lost),
            ("side_band_malformed", follow.malformed),
            ("process_rescans", follow.rescans),
            ("processes_read_again", follow.crowded),
            ("processes_paced", follow.paced),
            ("processes_over_limit", follow.over_limit),
            ("processes_refused", follow.refused),
            ("executables_without_table", follow.tables.without),
            ("tables_refused", follow.tables.refused),
            ("tables_retired", follow.tables.retired),
            ("tables_evicted", follow.tables.evicted),
            ("tables_from_cache", follow.tables.cached),
            ("executables_open", self.follower.open_executables() as u64),
            ("tables_pending", self.follower.pending_tables() as u64),
        ]);
        list.push(("ceiling_changes", self.governor.changes()));
        list.extend(self.converter.jit_counts());
        let usage = self.tables.usage();
        let problem = self.converter.names().problem();
        let tick_share =
            self.tick_share.zip(cpu::cpu_time()).and_then(|(share, now)| share.of(self.busy_ticks(), now));
        let fresh = AgentStatus {
            running: true,
            problem: problem.map(|(problem, _)| problem.to_owned()),
            hint: problem.map(|(_, hint)| hint.to_owned()),
            cpus: self.sampler.cpus() as u32,
            processes: self.follower.processes() as u64,
            tables: usage.tables as u64,
            pool_bytes: usage.pool_bytes,
            resident_bytes: cpu::resident_bytes().unwrap_or(0),
            counters: list,
            tick_share,
            notes: self.notes(),
            ..self.status.get()
        };
        self.status.update(|status| *status = fresh);
    }
}

/// What the agent was told, as facts about the host.
pub(super) fn configured(settings: &Settings) -> Vec<(Arc<str>, Arc<str>)> {
    let mut facts: Vec<(Arc<str>, Arc<str>)> = vec![
        ("profiling.agent.version".into(), env!("CARGO_PKG_VERSION").into()),
        ("profiling.agent.start_time".into(), (realtime_ns() / 1_000_000).to_string().into()),
    ];
    let told = settings.told.iter().filter(|(_, value)| !value.is_empty());
    facts.extend(told.map(|(name, value)| {
        (format!("profiling.agent.config.{name}").into(), Arc::<str>::from(value.as_str()))
    }));
    if !settings.tags.is_empty() {
        facts.push(("profiling.host.tags".into(), settings.tags.join(";").into()));
    }
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(proxy) = variable("HTTPS_PROXY").or_else(|| variable("https_proxy")) {
        // Without the user and password that it may hold.
        let proxy = proxy.rsplit_once('@').map_or(proxy.as_str(), |(_, address)| address);
        facts.push(("profiling.agent.env_https_proxy".into(), proxy.into()));
    }
    if let Some(node) = variable("KUBERNETES_NODE_NAME").or_else(|| variable("NODE_NAME")) {
        facts.push(("k8s.node.name".into(), node.into()));
    }
    facts
}

/// Attributes that every resource of this host carries besides those with a place of their own.
pub(super) fn others(settings: &Settings, host: &Host) -> Vec<(Arc<str>, Arc<str>)> {
    let mut others: Vec<(Arc<str>, Arc<str>)> = vec![
        ("host.arch".into(), Arc::clone(&host.arch)),
        ("os.type".into(), "linux".into()),
        ("os.version".into(), Arc::clone(&host.kernel)),
        ("profiling.project.id".into(), settings.project_id.to_string().into()),
    ];
    if !settings.tags.is_empty() {
        others.push(("tags".into(), settings.tags.join(";").into()));
    }
    // Every resource says that only a share of the intervals was sampled: the period within them is the true one.
    if let Some((threshold, interval)) = settings.probabilistic {
        let name = |name: &str| format!("profiling.agent.config.probabilistic_{name}").into();
        others.push((name("threshold"), threshold.to_string().into()));
        others.push((name("interval"), format!("{}s", interval.as_secs()).into()));
    }
    others
}
