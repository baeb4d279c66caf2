//! The agent's thread: follows processes, drains samples, closes windows. No async here, and nothing that waits for
//! anybody but the clock and the side-band.

mod control;
mod drain;
mod pace;
mod show;

use std::sync::Arc;
use std::time::Duration;

use drain::SLOW_DRAIN;
use pace::{CEILING_PAUSE, Pace};
use show::{configured, others};

use super::bpf::{self, KernelMaps, Sampler, SamplerSettings};
use super::ceiling::{CpuLevel, Governor};
use super::config::Settings;
use super::counters::Counters;
use super::facts::HostFacts;
use super::filter::Chooser;
use super::host::{Host, OwnCpu, clock::monotonic_ns, wait::WaitSet};
use super::kernel_symbols::KernelNames;
use super::lottery::Lottery;
use super::process::{Executables, FollowSettings, Follower};
use super::reporter::{Outbox, Window};
use super::status::{SharedStatus, TickShare};
use super::tables::Tables;
use super::trace::{Converter, LateWalker, Pending};
use super::{Error, capabilities::Capabilities};
use crate::net::Shutdown;

/// How long the first samples wait for the tables of the busiest processes.
const FIRST_TABLES: Duration = Duration::from_millis(150);

/// Everything the thread owns.
#[derive(Debug)]
pub(crate) struct Engine {
    settings: Settings,
    sampler: Sampler,
    tables: Tables<KernelMaps>,
    follower: Follower,
    converter: Converter,
    late: LateWalker,
    /// Stacks completed from their copies, and stacks cut where the kernel side followed rules of what was replaced.
    stacks_completed_late: u64,
    stacks_cut: u64,
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
            late: LateWalker::new(bpf::pointer_signature_bits()),
            stacks_completed_late: 0,
            stacks_cut: 0,
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
                    let pause = pace.pause(monotonic_ns(), self.follower.counts().cpu_ns, self.wanted_hz);
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

    /// The last samples, without a tick behind them, and the state after the end.
    fn finish(mut self) {
        self.sampler.stop();
        self.drain(true);
        self.close_window();
        self.show();
        self.status.update(|status| status.running = false);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
