//! The agent's thread: follows processes, drains samples, closes windows. No async here, and nothing that waits for
//! anybody but the clock and the side-band.

use std::sync::Arc;
use std::time::Duration;

use super::bpf::{self, KernelMaps, RawTrace, Sampler, SamplerSettings};
use super::ceiling::{Cost, CpuLevel, Governor, MemoryLevel};
use super::config::Settings;
use super::counters::{Counter, Counters};
use super::facts::HostFacts;
use super::filter::Chooser;
use super::host::{
    Host, OwnCpu,
    clock::{monotonic_ns, realtime_ns},
    cpu, release_freed_memory,
    wait::WaitSet,
};
use super::kernel_symbols::KernelNames;
use super::lottery::Lottery;
use super::process::{Executables, FollowSettings, Follower, GivenUp};
use super::reporter::{Frame, Outbox, Window, random};
use super::status::{AgentStatus, SharedStatus, TickShare};
use super::tables::Tables;
use super::trace::{Converter, Late, LateWalker, Pending};
use super::{Error, capabilities::Capabilities};
use crate::net::Shutdown;

/// Longest time between two drains of the ring.
const SLOW_DRAIN: Duration = Duration::from_millis(250);
/// Shortest one, when the ring fills fast.
const FAST_DRAIN: Duration = Duration::from_millis(50);
/// Pause after a look at the side-band: what comes meanwhile is taken together. Samples of that time lose nothing, for they
/// come with a copy of the stack; but a file that is gone before it was opened has no names and no table.
const SHORT_PAUSE: Duration = Duration::from_millis(5);
/// Pause while looking costs more than [`FOLLOW_SHARE`]: a fork storm.
const LONG_PAUSE: Duration = Duration::from_millis(25);
/// Pause while looking is given up as far as it can be.
const CEILING_PAUSE: Duration = Duration::from_millis(50);
/// How long a sample waits for an unwind table, in nanoseconds: 1.5 s, less than ended processes are remembered.
const MAX_WAIT_NS: u64 = 1_500_000_000;
/// CPU time that looking may take before pauses become long: 1 % of one CPU, measured over a second.
const FOLLOW_SHARE: u64 = 100;
/// How long the first samples wait for the tables of the busiest processes.
const FIRST_TABLES: Duration = Duration::from_millis(150);

/// Known stacks are this many times fewer while memory is short.
const SMALL_CACHE_DIVISOR: usize = 16;

/// Everything the thread owns.
#[derive(Debug)]
pub(crate) struct Engine {
    settings: Settings,
    sampler: Sampler,
    tables: Tables<KernelMaps>,
    follower: Follower,
    converter: Converter,
    late: LateWalker,
    pending: Pending,
    window: Window,
    window_start_ns: u64,
    drain_every: Duration,
    ring_bytes: u64,
    outbox: Outbox,
    counters: Arc<Counters>,
    status: SharedStatus,
    tick_share: Option<TickShare>,
    chooser: Chooser,
    lottery: Option<Lottery>,
    facts: HostFacts,
    governor: Governor,
    own_cpu: OwnCpu,
    /// Samples per second while nothing is given up.
    wanted_hz: u32,
    next_sync_ns: u64,
    waits: WaitSet,
}

impl Engine {
    /// Loads, scans, and starts the ticking last, so that the first samples find tables.
    pub(crate) fn build(
        settings: Settings,
        executables: &Arc<Executables>,
        outbox: Outbox,
        counters: Arc<Counters>,
        status: SharedStatus,
    ) -> Result<Self, Error> {
        let host = Host::read();
        let host_cpus = host.cpus;
        let chooser = Chooser::new(settings.filter.clone());
        let sampler_settings = SamplerSettings { filter: chooser.settings(), ..settings.sampler(host.cpus) };
        let sampler = Sampler::load(&sampler_settings)?;
        for missing in sampler.features().missing().iter().filter(|missing| !missing.fatal) {
            tracing::warn!("{missing}; {}", missing.cure);
        }
        let tables = Tables::new(sampler.maps()?, settings.table_pool_bytes);
        let how = FollowSettings {
            only_sampled: chooser.chooses(),
            env_vars: settings.env_vars.clone(),
            cache_directory: settings.cache_directory.clone(),
        };
        let follower = Follower::start(executables, how).map_err(Error::SideBand)?;
        status.update(|status| {
            status.frequency_hz = settings.frequency_hz;
            status.kernel = Arc::clone(&host.kernel);
            status.object = sampler.object().name();
        });
        let configured = configured(&settings);
        let facts = HostFacts::collect(host.environment, settings.collector.clone(), configured);
        tracing::info!(
            environment = host.environment.name(),
            machine_id = format!("{:#x}", host.id.parse::<u64>().unwrap_or_default()),
            project_id = settings.project_id,
            "this host"
        );
        let mut converter = Converter::new(others(&settings, &host), host, KernelNames::default());
        converter.set_up(settings.remembered_stacks, settings.mark_truncated);
        let (cpus, wanted_hz, ceilings) = (host_cpus, settings.frequency_hz, settings.ceilings);
        let mut engine = Self {
            governor: Governor::new(ceilings, cpus, wanted_hz),
            own_cpu: OwnCpu::new(ceilings.whole_process),
            wanted_hz,
            ring_bytes: u64::from(sampler_settings.ring_bytes),
            tick_share: None,
            lottery: settings.probabilistic.map(|(threshold, interval)| Lottery::new(threshold, interval)),
            next_sync_ns: 0,
            facts,
            chooser,
            settings,
            sampler,
            tables,
            follower,
            converter,
            late: LateWalker::default(),
            pending: Pending::default(),
            window: Window::default(),
            window_start_ns: monotonic_ns(),
            drain_every: SLOW_DRAIN,
            outbox,
            counters,
            status,
            waits: WaitSet::default(),
        };
        engine.choose();
        engine.first_tables();
        engine.draw();
        engine.tick()?;
        if engine.is_ticking() && engine.sampler.cpus() == 0 {
            return Err(Error::NoCpu(engine.settings.cpus.unwrap_or_default()));
        }
        engine.compare_ticks();
        engine.window_start_ns = monotonic_ns();
        engine.show();
        Ok(engine)
    }

    /// Runs until `shutdown`, then hands over what is left.
    pub(crate) fn run(mut self, shutdown: &Shutdown) {
        if let Err(error) = Capabilities::effective().and_then(Capabilities::drop_unneeded) {
            tracing::warn!("cannot give up privileges that are not needed: {error}");
        }
        let now_ns = monotonic_ns();
        let mut next_drain_ns = now_ns + nanos(self.drain_every);
        let mut next_status_ns = now_ns + nanos(self.settings.monitor_interval);
        let mut window_end_ns = now_ns + self.window_length_ns();
        let mut pace = Pace::default();
        while !shutdown.is_cancelled() {
            let now_ns = monotonic_ns();
            let due_ns =
                self.follower.next_due_ns().map_or(next_drain_ns, |due_ns| due_ns.min(next_drain_ns));
            let wait = Duration::from_nanos(due_ns.saturating_sub(now_ns));
            match self.waits.wait(self.follower.descriptors(), wait) {
                Ok(true) => {
                    self.follower.follow(&mut self.tables, self.converter.names());
                    let pause = pace.pause(monotonic_ns(), self.follower.counts().cpu_ns);
                    let slow = self.governor.cpu_level() >= CpuLevel::SlowLooks;
                    std::thread::sleep(if slow { CEILING_PAUSE } else { pause });
                }
                // A young process has lived long enough to be told of.
                Ok(false) if due_ns < next_drain_ns => {
                    self.follower.follow(&mut self.tables, self.converter.names());
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::error!("cannot wait for processes: {error}");
                    std::thread::sleep(wait);
                }
            }
            let now_ns = monotonic_ns();
            if now_ns >= next_drain_ns {
                self.drain(false);
                next_drain_ns = monotonic_ns() + nanos(self.drain_every);
            }
            if now_ns >= window_end_ns {
                self.close_window();
                window_end_ns = now_ns + self.window_length_ns();
            }
            if now_ns >= next_status_ns {
                self.look_around();
                next_status_ns = now_ns + nanos(self.settings.monitor_interval);
            }
        }
        self.finish();
    }

    /// Gives the tables of the busiest processes a moment before the first tick.
    fn first_tables(&mut self) {
        let deadline = monotonic_ns() + nanos(FIRST_TABLES);
        loop {
            self.follower.follow(&mut self.tables, self.converter.names());
            let now_ns = monotonic_ns();
            if self.follower.pending_tables() == 0 || now_ns >= deadline {
                return;
            }
            let wait = Duration::from_nanos(deadline - now_ns).min(Duration::from_millis(10));
            // Ends early with each finished table; a failure only means a shorter wait.
            let _ = self.waits.wait(self.follower.descriptors(), wait);
        }
    }

    /// Converts everything that waits in the ring. Samples younger than the last look at the side-band are set aside
    /// until the next look, which follows at once: what they ran in may have been mapped in between. Samples that want a
    /// table in the making wait for it, up to [`MAX_WAIT_NS`]; the last ones do not.
    fn drain(&mut self, last: bool) {
        let Self { sampler, tables, follower, converter, late, pending, window, counters, .. } = self;
        let waiting = sampler.waiting_bytes();
        follower.follow(tables, converter.names());
        let sync_every = nanos(self.settings.clock_sync_interval);
        if sync_every > 0 && monotonic_ns() >= self.next_sync_ns {
            self.next_sync_ns = monotonic_ns() + sync_every;
            converter.clock().sync();
        }
        let mut set_aside = std::mem::take(pending);
        let followed_ns = follower.followed_ns();
        let (mut received, mut refused) = (0, 0);
        let mut convert =
            |raw: &RawTrace<'_>, converter: &mut Converter, follower: &mut Follower, tables: &_| {
                let may_wait =
                    !last && pending.has_room() && follower.followed_ns() < raw.time_ns + MAX_WAIT_NS;
                match late.walk(raw, follower, tables, may_wait) {
                    Late::Done(raw) => {
                        let sample = converter.convert(&raw, follower);
                        refused += u64::from(!sample.is_ok_and(|sample| window.push(sample)));
                    }
                    Late::Wait(executable) => {
                        follower.want_table(&executable);
                        pending.push(raw);
                    }
                }
            };
        set_aside.drain(|raw| convert(raw, converter, follower, tables));
        sampler.drain(|raw| {
            received += 1;
            if raw.time_ns <= followed_ns {
                convert(&raw, converter, follower, tables);
            } else {
                set_aside.push(&raw);
            }
        });
        if !set_aside.is_empty() {
            follower.follow(tables, converter.names());
            set_aside.drain(|raw| convert(raw, converter, follower, tables));
        }
        counters.add(Counter::Received, received);
        counters.add(Counter::DroppedWindowFull, refused);
        follower.converted(followed_ns, tables);
        self.drain_every = next_pause(self.drain_every, waiting, self.ring_bytes);
    }

    fn close_window(&mut self) {
        let now_ns = monotonic_ns();
        let clock = self.converter.clock();
        let (start, end) = (clock.wall(self.window_start_ns), clock.wall(now_ns));
        self.window_start_ns = now_ns;
        if self.window.len() > 0 {
            let frame = Frame { period_ns: self.settings.period_ns(), start, end };
            let mut batch = self.window.finish(self.converter.interner(), frame);
            // Once a batch is enough: who takes it in puts facts down by host, not by process.
            if let Some(resource) = batch.resources.first_mut() {
                resource.others.extend(self.facts.known());
            }
            self.outbox.put(batch);
        }
        self.converter.window_ended(self.governor.memory_level() >= MemoryLevel::SmallCaches);
    }

    /// Length of the next window, varied so that a fleet does not report all at once.
    fn window_length_ns(&self) -> u64 {
        let factor = 1.0 + self.settings.report_jitter.clamp(0.0, 1.0) * (2.0 * random() - 1.0);
        nanos(self.settings.report_interval.mul_f64(factor)).max(nanos(FAST_DRAIN))
    }

    fn look_around(&mut self) {
        self.draw();
        self.choose();
        self.keep_ceilings();
        if let Err(error) = self.tick() {
            tracing::warn!("cannot sample a new CPU: {error}");
        }
        self.follower.follow_cpus();
        self.show();
    }

    /// Whether this interval is sampled.
    fn is_ticking(&self) -> bool {
        self.lottery.as_ref().is_none_or(Lottery::is_sampling)
    }

    /// Makes every CPU tick that should.
    fn tick(&mut self) -> Result<(), bpf::Error> {
        if self.is_ticking() {
            self.sampler.follow_cpus()?;
        }
        Ok(())
    }

    /// Probabilistic mode: decides about the next interval when it is time to.
    fn draw(&mut self) {
        let Some(lottery) = &mut self.lottery else { return };
        let Some(sampling) = lottery.draw(monotonic_ns(), random()) else { return };
        tracing::info!(sampling, chance_percent = lottery.threshold(), "probabilistic mode: next interval");
        if !sampling {
            self.sampler.stop();
        }
    }

    /// Measures what the agent costs, and gives up or takes back what the ceilings ask for.
    fn keep_ceilings(&mut self) {
        if !self.governor.is_needed() {
            return;
        }
        let kernel_ns = self.sampler.counters().into_iter().find(|(name, _)| *name == "kernel_ns");
        let cost = Cost {
            cpu_ns: self.own_cpu.now_ns() + kernel_ns.map_or(0, |(_, value)| value),
            memory_bytes: cpu::resident_bytes().unwrap_or(0),
        };
        let changes = self.governor.observe(monotonic_ns(), cost);
        if let Some(level) = changes.cpu {
            let own_percent = self.governor.share().map(|share| format!("{:.3}", share * 100.0));
            tracing::warn!(own_percent, "ceiling of CPU time: {level}");
            self.set_frequency(level.frequency(self.wanted_hz));
        }
        if let Some(level) = changes.memory {
            tracing::warn!(resident_bytes = cost.memory_bytes, "ceiling of memory: {level}");
            let small = level >= MemoryLevel::SmallCaches;
            let stacks = self.settings.remembered_stacks / if small { SMALL_CACHE_DIVISOR } else { 1 };
            self.converter.set_up(stacks, self.settings.mark_truncated);
            self.tables.set_growth(level < MemoryLevel::NoGrowth);
            release_freed_memory();
        }
        if changes != super::ceiling::Changes::default() {
            self.follower.give_up(GivenUp {
                descriptions: self.governor.cpu_level() >= CpuLevel::NoDescriptions,
                tables: self.governor.memory_level() >= MemoryLevel::NoNewTables,
            });
        }
    }

    /// Samples at another rate. The window ends here, so that each batch has one true period.
    fn set_frequency(&mut self, frequency_hz: u32) {
        if frequency_hz == self.settings.frequency_hz {
            return;
        }
        self.sampler.stop();
        self.drain(true);
        self.close_window();
        self.settings.frequency_hz = frequency_hz;
        self.sampler.set_frequency(frequency_hz);
        self.status.update(|status| status.frequency_hz = frequency_hz);
        self.compare_ticks();
    }

    /// Tells the kernel side whom to sample.
    fn choose(&mut self) {
        for (choice, wanted) in self.chooser.refresh() {
            match self.sampler.choose(choice, wanted) {
                Ok(()) => tracing::debug!(%choice, wanted, "choice"),
                Err(error) => tracing::warn!("{error}"),
            }
        }
    }

    /// Begins to compare ticks with busy time, where every busy CPU ticks all the time.
    fn compare_ticks(&mut self) {
        let Settings { cpus, filter, probabilistic, frequency_hz, .. } = &self.settings;
        let comparable = cpus.is_none() && !filter.idle && probabilistic.is_none();
        let ticks = self.busy_ticks();
        let start = cpu::cpu_time().filter(|_| comparable);
        self.tick_share = start.map(|start| TickShare::new(*frequency_hz, start, ticks));
    }

    /// Ticks that hit a busy CPU, wanted or not.
    fn busy_ticks(&self) -> u64 {
        let counters = self.sampler.counters();
        let value =
            |name: &str| counters.iter().find(|(found, _)| *found == name).map_or(0, |(_, value)| *value);
        value("ticks").saturating_sub(value("idle"))
    }

    /// What is different from a plain run now.
    fn notes(&self) -> Vec<String> {
        let lottery = self.lottery.as_ref().map(|lottery| {
            let doing = if lottery.is_sampling() { "sampling" } else { "not sampling" };
            format!("probabilistic mode: {doing} in this interval, the chance is {} %", lottery.threshold())
        });
        lottery.into_iter().chain(self.governor.notes()).collect()
    }

    /// The last samples, without a tick behind them, and the state after the end.
    fn finish(mut self) {
        self.sampler.stop();
        self.drain(true);
        self.close_window();
        self.show();
        self.status.update(|status| status.running = false);
    }

    fn show(&mut self) {
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
            ("stacks_completed_late", self.late.completed),
            ("stacks_cut_at_new_mapping", self.late.cut),
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
fn configured(settings: &Settings) -> Vec<(Arc<str>, Arc<str>)> {
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
fn others(settings: &Settings, host: &Host) -> Vec<(Arc<str>, Arc<str>)> {
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

/// Faster when a quarter of the ring was full, slower again when it was nearly empty.
fn next_pause(pause: Duration, waiting: u64, ring_bytes: u64) -> Duration {
    if waiting > ring_bytes / 4 {
        (pause / 2).max(FAST_DRAIN)
    } else if waiting < ring_bytes / 16 {
        (pause * 2).min(SLOW_DRAIN)
    } else {
        pause
    }
}

/// How often the side-band is looked at.
#[derive(Debug, Default)]
struct Pace {
    since_ns: u64,
    cpu_before_ns: u64,
}

impl Pace {
    /// Pause after a look, given the CPU time that all looks took so far.
    fn pause(&mut self, now_ns: u64, cpu_ns: u64) -> Duration {
        const PERIOD_NS: u64 = 1_000_000_000;
        if now_ns.saturating_sub(self.since_ns) >= PERIOD_NS {
            *self = Self { since_ns: now_ns, cpu_before_ns: cpu_ns };
        }
        let spent_ns = cpu_ns.saturating_sub(self.cpu_before_ns);
        if spent_ns > PERIOD_NS / FOLLOW_SHARE { LONG_PAUSE } else { SHORT_PAUSE }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_has_a_budget() {
        let mut pace = Pace::default();
        let second = 1_000_000_000;
        assert_eq!(pace.pause(second, 50_000_000), SHORT_PAUSE);
        assert_eq!(pace.pause(second + 1, 60_000_000), SHORT_PAUSE);
        assert_eq!(pace.pause(second + 2, 60_000_001), LONG_PAUSE);
        assert_eq!(pace.pause(2 * second, 70_000_000), SHORT_PAUSE);
    }

    #[test]
    fn pause_follows_the_ring() {
        assert_eq!(next_pause(SLOW_DRAIN, 300, 1000), SLOW_DRAIN / 2);
        assert_eq!(next_pause(FAST_DRAIN, 999, 1000), FAST_DRAIN);
        assert_eq!(next_pause(FAST_DRAIN, 100, 1000), FAST_DRAIN);
        assert_eq!(next_pause(SLOW_DRAIN, 0, 1000), SLOW_DRAIN);
    }
}
