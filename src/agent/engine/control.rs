//! What is decided now and then: which CPUs tick and how fast, who is sampled, what the ceilings ask for.

use super::Engine;
use crate::agent::bpf;
use crate::agent::ceiling::{Changes, Cost, CpuLevel, MemoryLevel};
use crate::agent::config::Settings;
use crate::agent::host::{clock::monotonic_ns, cpu, release_freed_memory};
use crate::agent::lottery::Lottery;
use crate::agent::process::GivenUp;
use crate::agent::reporter::random;
use crate::agent::status::TickShare;

/// Known stacks are this many times fewer while memory is short.
const SMALL_CACHE_DIVISOR: usize = 16;

impl Engine {
    /// The seldom work.
    pub(super) fn look_around(&mut self) {
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
    pub(super) fn is_ticking(&self) -> bool {
        self.lottery.as_ref().is_none_or(Lottery::is_sampling)
    }

    /// Makes every CPU tick that should.
    pub(super) fn tick(&mut self) -> Result<(), bpf::Error> {
        if self.is_ticking() {
            self.sampler.follow_cpus()?;
        }
        Ok(())
    }

    /// Probabilistic mode: decides about the next interval when it is time to.
    pub(super) fn draw(&mut self) {
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
        let cost = Cost {
            cpu_ns: self.own_cpu.now_ns() + self.sampler.counter("kernel_ns"),
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
        if changes != Changes::default() {
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
    pub(super) fn choose(&mut self) {
        for (choice, wanted) in self.chooser.refresh() {
            match self.sampler.choose(choice, wanted) {
                Ok(()) => tracing::debug!(%choice, wanted, "choice"),
                Err(error) => tracing::warn!("{error}"),
            }
        }
    }

    /// Begins to compare ticks with busy time, where every busy CPU ticks all the time.
    pub(super) fn compare_ticks(&mut self) {
        let Settings { cpus, filter, probabilistic, frequency_hz, .. } = &self.settings;
        let comparable = cpus.is_none() && !filter.idle && probabilistic.is_none();
        let ticks = self.busy_ticks();
        let start = cpu::cpu_time().filter(|_| comparable);
        self.tick_share = start.map(|start| TickShare::new(*frequency_hz, start, ticks));
    }

    /// Ticks that hit a busy CPU, wanted or not.
    pub(super) fn busy_ticks(&self) -> u64 {
        self.sampler.counter("ticks").saturating_sub(self.sampler.counter("idle"))
    }
}
