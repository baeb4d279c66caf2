//! The sampler: loads the fitting object, attaches it to every CPU, drains it, counts.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd};
use std::path::PathBuf;

use libbpf_rs::{Link, Map, MapCore, MapFlags, MapType, ObjectBuilder, OpenObject, PrintLevel};
use parking_lot::Mutex;

use super::abi::{self, COUNTERS, CounterClass};
use super::choice::{Choice, FilterSettings};
use super::features::{Features, Missing};
use super::maps::KernelMaps;
use super::per_cpu_buffers::PerCpuBuffers;
use super::records::Malformed;
use super::restrictions::Restrictions;
use super::ring::Ring;
use super::statistics::{self, RunStatistics};
use super::{RawTrace, perf, pointer_signature};

/// Bytes of an object, aligned as ELF headers want to be.
#[repr(C, align(8))]
struct Aligned<B: ?Sized>(B);

static MODERN: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/modern.bpf.o")));
static LEGACY: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/legacy.bpf.o")));

/// Which of the two objects made from the same C.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Object {
    /// The modern one where the kernel takes it, else the legacy one.
    #[default]
    Auto,
    /// `bpf_loop` and `bpf_task_pt_regs`.
    Modern,
    /// One frame as a global function in a bounded loop; registers by arithmetic.
    Legacy,
}

impl Object {
    /// Name for people and for the status page.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Modern => "modern",
            Self::Legacy => "legacy",
        }
    }
}

/// How samples come to user space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Buffers {
    /// One ring where the kernel has one (5.8), else a buffer of each CPU.
    #[default]
    Auto,
    /// One ring for all CPUs.
    Shared,
    /// A perf buffer of each CPU.
    PerCpu,
}

/// How to sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SamplerSettings {
    /// Ticks per second and CPU, 1 to 10,000.
    pub frequency_hz: u32,
    /// Which object.
    pub object: Object,
    /// How samples come to user space.
    pub buffers: Buffers,
    /// Ring buffer, bytes; rounded up to a power of two, at least 64 KiB, at most 1 GiB. Buffers of each CPU share as
    /// much, each at least 128 KiB.
    pub ring_bytes: u32,
    /// Processes that can be known at the same time.
    pub max_processes: u32,
    /// Only this process, for tests; `None` = all.
    pub only_pid: Option<u32>,
    /// Only these CPUs; `None` = all.
    pub cpus: Option<Vec<u32>>,
    /// Who is sampled.
    pub filter: FilterSettings,
    /// What the kernel tells while it checks the programs: 0 nothing, 1 a summary, 2 each instruction.
    pub log_level: u32,
    /// Type information of the running kernel, where it carries none itself.
    pub kernel_types: Option<PathBuf>,
}

impl Default for SamplerSettings {
    fn default() -> Self {
        Self {
            frequency_hz: 20,
            object: Object::Auto,
            buffers: Buffers::Auto,
            // 2 s of 128 CPUs at 20 Hz and 800 bytes a sample: 4 MiB.
            ring_bytes: 4 << 20,
            max_processes: 8192,
            only_pid: None,
            cpus: None,
            filter: FilterSettings::default(),
            log_level: 0,
            kernel_types: None,
        }
    }
}

/// Why sampling cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting out of range.
    #[error("{name}: expected {expected}, found {found}")]
    Setting {
        /// Name of the setting.
        name: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it was.
        found: u64,
    },
    /// The kernel refused the object for a known reason.
    #[error("{missing} ({message})")]
    Missing {
        /// The reason.
        missing: Missing,
        /// What the library said first, or the error.
        message: String,
    },
    /// The kernel refused the object.
    #[error("kernel refused the {} object: {message}", object.name())]
    Load {
        /// Which object.
        object: Object,
        /// What the library said last, or the error.
        message: String,
        /// What is missing, as far as it is known.
        hint: Option<&'static str>,
    },
    /// A part that the embedded object must have was not found or not usable.
    #[error("{object} object: {part}: {source}", object = object.name())]
    Part {
        /// Which object.
        object: Object,
        /// Map or program.
        part: &'static str,
        /// What went wrong.
        source: io::Error,
    },
    /// The clock of a CPU could not be opened.
    #[error("CPU {cpu}: cannot open its clock: {source}")]
    Clock {
        /// CPU number.
        cpu: u32,
        /// What the system said.
        source: io::Error,
    },
    /// The program could not be attached to the clock of a CPU.
    #[error("CPU {cpu}: cannot attach the sampling program: {message}")]
    Attach {
        /// CPU number.
        cpu: u32,
        /// What the library said.
        message: String,
    },
    /// A choice could not be stored.
    #[error("cannot choose {choice}: {message}")]
    Choice {
        /// Which.
        choice: Choice,
        /// What the system said.
        message: String,
    },
    /// The list of CPUs could not be read.
    #[error("/sys/devices/system/cpu/online: {0}")]
    Cpus(#[source] io::Error),
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Missing { missing, .. } => Some(missing.cure),
            Self::Load { hint, .. } => *hint,
            Self::Clock { source, .. }
                if matches!(source.raw_os_error(), Some(libc::EACCES | libc::EPERM)) =>
            {
                Some(if Restrictions::read().seccomp {
                    "run as root or with CAP_PERFMON, in a container also with a seccomp profile that allows \
                     perf_event_open"
                } else {
                    "run as root or with CAP_PERFMON, or lower kernel.perf_event_paranoid"
                })
            }
            _ => None,
        }
    }
}

/// Where samples come out.
#[derive(Debug)]
enum Output {
    Shared(Ring),
    PerCpu(PerCpuBuffers),
}

/// Samples all CPUs as long as it lives.
#[derive(Debug)]
pub struct Sampler {
    // Dropped in this order: first the ticking ends, then the ring, then the object.
    links: BTreeMap<u32, Link>,
    output: Output,
    loaded: libbpf_rs::Object,
    object: Object,
    features: Features,
    period_ns: u64,
    only_cpus: Option<Vec<u32>>,
    max_processes: u32,
    malformed: u64,
}

impl Sampler {
    /// Chooses and loads the object; nothing ticks yet.
    pub fn load(settings: &SamplerSettings) -> Result<Self, Error> {
        if !(1..=10_000).contains(&settings.frequency_hz) {
            let found = u64::from(settings.frequency_hz);
            return Err(Error::Setting { name: "frequency_hz", expected: "1 to 10000", found });
        }
        let features = Features::probe();
        let settings = &SamplerSettings { buffers: settings.buffers.chosen(&features), ..settings.clone() };
        let (object, loaded) = match settings.object {
            Object::Auto if features.allows_modern() => match load_object(Object::Modern, settings) {
                Ok(loaded) => (Object::Modern, loaded),
                Err(refused) => {
                    tracing::warn!(error = %refused, "falling back to the legacy object");
                    (Object::Legacy, load_object(Object::Legacy, settings)?)
                }
            },
            Object::Auto => (Object::Legacy, load_object(Object::Legacy, settings)?),
            forced => (forced, load_object(forced, settings)?),
        };
        let part = |part| move |source| Error::Part { object, part, source };
        let events = find_map(&loaded, "events").map_err(part("map events"))?;
        let output = if settings.buffers == Buffers::PerCpu {
            PerCpuBuffers::new(ring_bytes(settings) as usize, page_bytes()).map(Output::PerCpu)
        } else {
            Ring::new(events.as_fd(), events.max_entries() as usize, page_bytes()).map(Output::Shared)
        };
        let output = output.map_err(part("map events"))?;
        Ok(Self {
            links: BTreeMap::new(),
            output,
            loaded,
            object,
            features,
            period_ns: period_ns(settings.frequency_hz),
            only_cpus: settings.cpus.clone(),
            max_processes: settings.max_processes,
            malformed: 0,
        })
    }

    /// The maps that `agent::tables` fills.
    pub fn maps(&self) -> Result<KernelMaps, Error> {
        let part = |part| move |source| Error::Part { object: self.object, part, source };
        let parts = find_map(&self.loaded, "parts").map_err(part("map parts"))?;
        let rules = find_map(&self.loaded, "rules").map_err(part("map rules"))?;
        let processes = find_map(&self.loaded, "processes").map_err(part("map processes"))?;
        KernelMaps::new(parts.as_fd(), rules.as_fd(), processes.as_fd(), self.max_processes)
            .map_err(part("memory maps"))
    }

    /// Makes every CPU tick that is online and does not yet, and forgets those that went away. Call it at the start
    /// and now and then afterwards. Returns how many tick.
    pub fn follow_cpus(&mut self) -> Result<usize, Error> {
        let mut online = perf::online_cpus().map_err(Error::Cpus)?;
        if let Some(only) = &self.only_cpus {
            online.retain(|cpu| only.contains(cpu));
        }
        // The clock of a CPU that goes away is dead for good, also when the CPU comes back.
        self.links.retain(|cpu, _| online.contains(cpu));
        for cpu in online {
            if self.links.contains_key(&cpu) {
                continue;
            }
            let clock = match perf::open_cpu_clock(cpu, self.period_ns) {
                Ok(clock) => clock,
                // Went away between the two lines.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => continue,
                Err(source) => return Err(Error::Clock { cpu, source }),
            };
            if let Output::PerCpu(buffers) = &mut self.output {
                let part = |source| Error::Part { object: self.object, part: "map events", source };
                let events = find_map(&self.loaded, "events").map_err(part)?;
                match buffers.open(cpu, &events) {
                    Err(error) if error.raw_os_error() == Some(libc::ENODEV) => continue,
                    opened => opened.map_err(part)?,
                }
            }
            let program = self.program()?;
            let link = program
                .attach_perf_event(clock.as_raw_fd())
                .map_err(|error| Error::Attach { cpu, message: format!("{error:#}") })?;
            // From here on the link closes it.
            let _ = clock.into_raw_fd();
            self.links.insert(cpu, link);
        }
        Ok(self.links.len())
    }

    /// Ends the ticking; what was stored can still be drained. [`Sampler::follow_cpus`] starts it again.
    pub fn stop(&mut self) {
        self.links.clear();
    }

    /// Ticks at another rate from the next [`Sampler::follow_cpus`] on; until then not at all.
    pub fn set_frequency(&mut self, frequency_hz: u32) {
        self.period_ns = period_ns(frequency_hz);
        self.links.clear();
    }

    /// Adds to what is sampled, or takes away from it. Has an effect only with [`FilterSettings::choose`].
    pub fn choose(&self, choice: Choice, wanted: bool) -> Result<(), Error> {
        let part = |source| Error::Part { object: self.object, part: "map chosen", source };
        let map = find_map(&self.loaded, "chosen").map_err(part)?;
        let key = choice.key();
        let done = if wanted {
            map.update(&key, &1_u32.to_ne_bytes(), MapFlags::ANY)
        } else {
            match map.delete(&key) {
                Err(error) if error.kind() == libbpf_rs::ErrorKind::NotFound => Ok(()),
                done => done,
            }
        };
        done.map_err(|error| Error::Choice { choice, message: format!("{error:#}") })
    }

    /// Hands over what was sampled since the last call, oldest first within a CPU. Returns the number of samples. Never waits: the
    /// caller comes by timer, often enough for the ring.
    pub fn drain(&mut self, mut take: impl FnMut(RawTrace<'_>)) -> u64 {
        let malformed = &mut self.malformed;
        let mut taken = 0;
        let count = |record: Result<RawTrace<'_>, Malformed>| match record {
            Ok(trace) => {
                taken += 1;
                take(trace);
            }
            Err(error) => {
                *malformed += 1;
                tracing::debug!(%error, "malformed record");
            }
        };
        match &mut self.output {
            Output::Shared(ring) => ring.drain(count),
            Output::PerCpu(buffers) => buffers.drain(count),
        }
        taken
    }

    /// Bytes that wait in the ring buffer.
    #[must_use]
    pub fn waiting_bytes(&self) -> u64 {
        match &self.output {
            Output::Shared(ring) => ring.fill_bytes(),
            Output::PerCpu(buffers) => buffers.fill_bytes(),
        }
    }

    /// Counters summed over all CPUs. The sum of [`CounterClass::Part`] equals that of [`CounterClass::Whole`] at any
    /// moment without a tick in flight.
    #[must_use]
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        self.classed_counters().into_iter().map(|(_, name, value)| (name, value)).collect()
    }

    /// One of them; 0 for a name that there is none of.
    #[must_use]
    pub fn counter(&self, name: &str) -> u64 {
        self.counters().into_iter().find(|(found, _)| *found == name).map_or(0, |(_, value)| value)
    }

    /// Counters with what each is for.
    #[must_use]
    pub fn classed_counters(&self) -> Vec<(CounterClass, &'static str, u64)> {
        let per_cpu = find_map(&self.loaded, "counters")
            .ok()
            .and_then(|map| map.lookup_percpu(&0_u32.to_ne_bytes(), MapFlags::ANY).ok().flatten())
            .unwrap_or_default();
        let sum = |index: usize| -> u64 {
            let value = |cpu: &Vec<u8>| {
                let bytes = cpu.get(index * 8..index * 8 + 8)?;
                Some(u64::from_ne_bytes(bytes.try_into().ok()?))
            };
            per_cpu.iter().filter_map(value).sum()
        };
        let mut counters: Vec<_> =
            COUNTERS.iter().enumerate().map(|(i, (class, name))| (*class, *name, sum(i))).collect();
        // Of those stored, these could not be read.
        counters.push((CounterClass::Detail, "dropped.malformed", self.malformed));
        counters
    }

    /// What the kernel can do.
    #[must_use]
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// Which object was loaded.
    #[must_use]
    pub fn object(&self) -> Object {
        self.object
    }

    /// CPUs that tick.
    #[must_use]
    pub fn cpus(&self) -> usize {
        self.links.len()
    }

    /// What the kernel measured of the program; times only while a [`super::StatisticsSwitch`] lives.
    pub fn run_statistics(&self) -> Result<RunStatistics, Error> {
        let part = |source| Error::Part { object: self.object, part: "program sample", source };
        statistics::of_program(self.program()?.as_fd()).map_err(part)
    }

    fn program(&self) -> Result<libbpf_rs::ProgramMut<'_>, Error> {
        self.loaded.progs_mut().find(|program| program.name() == "sample").ok_or_else(|| Error::Part {
            object: self.object,
            part: "program sample",
            source: io::ErrorKind::NotFound.into(),
        })
    }
}

impl Buffers {
    fn chosen(self, features: &Features) -> Self {
        match self {
            Self::Auto if features.ring_buffer => Self::Shared,
            Self::Auto => Self::PerCpu,
            forced => forced,
        }
    }
}

/// What libbpf said last, for the error that follows. It only speaks through a global function.
static LAST_WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn hear_verifier(level: PrintLevel, text: String) {
    if level == PrintLevel::Debug && text.contains("PROG LOAD LOG") {
        tracing::info!(target: "everflame::verifier", "{}", text.trim_end());
    } else if level != PrintLevel::Debug {
        hear_libbpf(level, text);
    }
}

fn hear_libbpf(level: PrintLevel, text: String) {
    tracing::debug!(target: "everflame::libbpf", "{}", text.trim_end());
    if level == PrintLevel::Warn {
        let mut warnings = LAST_WARNINGS.lock();
        // The first ones name the cause; a verifier log can be long.
        if warnings.len() < 8 {
            warnings.push(text);
        }
    }
}

/// Opens, sizes and loads one object.
fn load_object(object: Object, settings: &SamplerSettings) -> Result<libbpf_rs::Object, Error> {
    load_open(object, open_object(object, settings)?)
}

/// Opens an object and brings the settings into it.
pub(super) fn open_object(object: Object, settings: &SamplerSettings) -> Result<OpenObject, Error> {
    let hear = if settings.log_level > 0 {
        (PrintLevel::Debug, hear_verifier as fn(PrintLevel, String))
    } else {
        (PrintLevel::Info, hear_libbpf as fn(PrintLevel, String))
    };
    libbpf_rs::set_print(Some(hear));
    LAST_WARNINGS.lock().clear();
    let refused = |error| refused(object, &error);
    let image = if object == Object::Legacy { LEGACY } else { MODERN };
    let mut builder = ObjectBuilder::default();
    builder.name("everflame").map_err(refused)?;
    if let Some(path) = &settings.kernel_types {
        builder.btf_custom_path(path).map_err(refused)?;
    }
    let mut open = builder.open_memory(&image.0).map_err(refused)?;
    size_maps(&mut open, settings).map_err(refused)?;
    if settings.log_level > 0 {
        for mut program in open.progs_mut() {
            program.set_log_level(settings.log_level);
        }
    }
    Ok(open)
}

/// Hands an object to the kernel.
pub(super) fn load_open(object: Object, open: OpenObject) -> Result<libbpf_rs::Object, Error> {
    open.load().map_err(|error| refused(object, &error))
}

/// The error of a refused object: what is known to be missing, or else what the library said first.
fn refused(object: Object, error: &libbpf_rs::Error) -> Error {
    let warnings = LAST_WARNINGS.lock();
    let first = warnings.iter().map(|text| text.trim_start_matches("libbpf:").trim()).next();
    let message = first.map_or_else(|| format!("{error:#}"), |first| format!("{error:#}: {first}"));
    drop(warnings);
    let missing = Features::probe().missing();
    match missing.into_iter().next() {
        Some(missing) if missing.fatal => Error::Missing { missing, message },
        missing => Error::Load { object, message, hint: missing.map(|missing| missing.cure) },
    }
}

/// Brings the settings into the object before it is loaded.
fn size_maps(open: &mut OpenObject, settings: &SamplerSettings) -> libbpf_rs::Result<()> {
    let frozen = abi::Settings {
        only_pid: settings.only_pid.unwrap_or(0),
        kernel_stack_bytes: abi::KERNEL_STACK_BYTES,
        pac_mask: pointer_signature::mask(),
        per_cpu_buffers: u32::from(settings.buffers == Buffers::PerCpu),
        reserved: 0,
    };
    for mut map in open.maps_mut() {
        match map.name().to_str() {
            Some("events") if settings.buffers == Buffers::PerCpu => {
                map.set_type(MapType::PerfEventArray)?;
                map.set_key_size(4)?;
                map.set_value_size(4)?;
                // As many as there can be CPUs.
                map.set_max_entries(0)?;
            }
            Some("events") => map.set_max_entries(ring_bytes(settings))?,
            Some("processes") => map.set_max_entries(settings.max_processes.max(1))?,
            Some(".rodata.filter") => map.set_initial_value(&settings.filter.abi().bytes())?,
            Some(".rodata.settings") => map.set_initial_value(&frozen.bytes())?,
            _ => {}
        }
    }
    Ok(())
}

/// As the kernel wants it.
fn ring_bytes(settings: &SamplerSettings) -> u32 {
    settings.ring_bytes.clamp(64 << 10, 1 << 30).next_power_of_two()
}

fn period_ns(frequency_hz: u32) -> u64 {
    1_000_000_000 / u64::from(frequency_hz.max(1))
}

fn find_map<'o>(object: &'o libbpf_rs::Object, name: &str) -> io::Result<Map<'o>> {
    object.maps().find(|map| map.name() == name).ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn page_bytes() -> usize {
    // SAFETY: takes a number, returns a number.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4096)
}
