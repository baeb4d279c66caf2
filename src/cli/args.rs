//! Options of each role as clap declares them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Whole-system continuous profiling.
///
/// Samples every process of a machine, kernel to user code, without code changes, restarts, frame pointers or debug
/// symbols, and shows where the CPU goes, now and last month.
#[derive(Debug, Parser)]
#[command(name = "everflame", version, propagate_version = true, max_term_width = 110)]
#[command(after_help = "\
Start here:
  sudo everflame all-in-one        profile this machine, page at http://127.0.0.1:8250

The role is also chosen by the program's name: pf-host-agent, pf-elastic-collector, pf-elastic-symbolizer, symbtool, otelcol.
Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.")]
pub struct Cli {
    /// Role to run
    #[command(subcommand)]
    pub command: Command,
}

/// One role with its options.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Everything in one process: agent, collector, store, symbols and page for this machine
    AllInOne(AllInOneArgs),
    /// Sample this host and report to a collector (pf-host-agent)
    #[command(disable_version_flag = true)]
    Agent(Box<AgentArgs>),
    /// Take OTLP profiles from agents, write documents (pf-elastic-collector)
    Collector(ServerArgs),
    /// Serve the query API and the page over a store
    Web(WebArgs),
    /// Find names for native frames (pf-elastic-symbolizer) [not built yet]
    Symbolizer(ServerArgs),
    /// Extract the symbols of an executable and push them [not built yet]
    Symbtool(LaterArgs),
    /// Run OpenTelemetry Collector pipelines for profiles [not built yet]
    Otelcol(LaterArgs),
    /// Create or check what Elasticsearch needs to hold profiles
    Setup(SetupArgs),
}

/// Options of server roles.
#[derive(Debug, Default, Args)]
pub struct ServerArgs {
    /// Configuration file (YAML)
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Override one setting; repeat for more. The path is the full one, section included
    #[arg(short = 'E', value_name = "PATH=VALUE")]
    pub overrides: Vec<String>,
    /// Resolve the configuration, print it with the origin of each value, and exit
    #[arg(long)]
    pub check: bool,
}

/// Options of all-in-one.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[command(after_help = "\
Examples:
  sudo everflame all-in-one
  everflame all-in-one --no-agent --data-dir ./profiles      look at collected data without root
  sudo everflame all-in-one --web 0.0.0.0:8250 -E web.token=SECRET

The agent needs root, or CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH, CAP_CHECKPOINT_RESTORE and CAP_SYSLOG. Without them everything else
still runs, and the start-up summary says what is missing.")]
pub struct AllInOneArgs {
    /// Settings from files and -E
    #[command(flatten)]
    pub server: ServerArgs,
    /// Directory of the store [default: /var/lib/everflame, or ~/.local/share/everflame without root]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address of page and query API [default: 127.0.0.1:8250]
    #[arg(long, value_name = "HOST:PORT")]
    pub web: Option<String>,
    /// Address for other agents (OTLP, gRPC and HTTP) [default: 127.0.0.1:8260]
    #[arg(long, value_name = "HOST:PORT")]
    pub collector: Option<String>,
    /// Samples per second and CPU [default: 20]
    #[arg(long, value_name = "HZ")]
    pub samples_per_second: Option<String>,
    /// Share of the machine that the agent may take, in percent; it gives up what matters least to stay below
    #[arg(long, value_name = "PERCENT")]
    pub max_cpu_percent: Option<String>,
    /// Memory that this process and the agent's tables in the kernel may take together
    #[arg(long, value_name = "SIZE")]
    pub max_memory: Option<String>,
    /// Delete samples older than this [default: 60d]
    #[arg(long, value_name = "TIME")]
    pub retention: Option<String>,
    /// Do not sample this machine
    #[arg(long)]
    pub no_agent: bool,
    /// Set damaged files of the store aside, keep the rest, and exit
    #[arg(long)]
    pub repair: bool,
    /// Log at debug level
    #[arg(short = 'v', long)]
    pub verbose: bool,
}

/// Options of setup.
#[derive(Debug, Default, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[command(after_help = "\
Examples:
  everflame setup -c pf-elastic-collector.yml --dry-run
  ELASTIC_PASSWORD=… everflame setup -c pf-elastic-collector.yml --username elastic --create-keys
  everflame setup -E output.elasticsearch.hosts=es.example:9200 --check

Makes templates, a lifecycle, data streams, indices and aliases with the names of Elastic's Universal Profiling, on any licence.
What Elastic's plugin or a person made is left alone, nothing is deleted, and a second run changes nothing.
Exit codes: 0 everything is there, 1 something is missing (--check) or could not be made, 2 wrong usage or configuration.")]
pub struct SetupArgs {
    /// Configuration file (YAML) with output.elasticsearch, for example the collector's
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Override one setting; repeat for more. The path is the full one, section included
    #[arg(short = 'E', value_name = "PATH=VALUE")]
    pub overrides: Vec<String>,
    /// User to log in as instead of the file's key, which may not do this; password in ELASTIC_PASSWORD
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,
    /// Change nothing; say what is missing or different
    #[arg(long, conflicts_with_all = ["dry_run", "create_keys"])]
    pub check: bool,
    /// Change nothing; show each call that would be made
    #[arg(long)]
    pub dry_run: bool,
    /// Make the API keys of collector and symbolizer, and print them this once
    #[arg(long)]
    pub create_keys: bool,
    /// Shape of documents: classic, otel or auto [default: auto, what readers of the release ask for]
    #[arg(long, value_name = "SHAPE", value_parser = ["auto", "classic", "otel"])]
    pub generation: Option<String>,
    /// Who deletes old data: ilm or data-stream [default: ilm where there is one]
    #[arg(long, value_name = "WHO", value_parser = ["ilm", "data-stream"])]
    pub lifecycle: Option<String>,
}

/// Options of web.
#[derive(Debug, Args)]
pub struct WebArgs {
    /// Settings from files and -E
    #[command(flatten)]
    pub server: ServerArgs,
    /// Directory of an embedded store that no other process uses
    #[arg(long, value_name = "DIR", conflicts_with = "elasticsearch")]
    pub data_dir: Option<PathBuf>,
    /// Show what this Elasticsearch holds; keys and certificates stand in output.elasticsearch of the file
    #[arg(long, value_name = "URL")]
    pub elasticsearch: Option<String>,
    /// Address to serve on [default: 127.0.0.1:8250]
    #[arg(long, value_name = "HOST:PORT")]
    pub web: Option<String>,
}

/// Options of the agent. Each can also stand in the file and in the environment (PRODFILER_PROJECT_ID).
#[derive(Debug, Args)]
#[command(after_help = "\
Options may be written with one dash or two, switches also as -disable-tls=false.
Order: flag, environment (PRODFILER_ or OTEL_PROFILING_AGENT_ and the name in capitals), file.
Needs root, or CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH, CAP_CHECKPOINT_RESTORE and CAP_SYSLOG.")]
pub struct AgentArgs {
    /// Key-value file [default: /etc/Elastic/universal-profiling/pf-host-agent.conf]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Collector to report to
    #[arg(long, help_heading = "Report", value_name = "HOST:PORT")]
    pub collection_agent: Option<String>,
    /// Token that the collector asks for; better in the file or in PRODFILER_SECRET_TOKEN than on the command line
    #[arg(long, help_heading = "Report", value_name = "TOKEN")]
    pub secret_token: Option<String>,
    /// Project, 1 to 4095 [default: 1]
    #[arg(long, help_heading = "Report", value_name = "N")]
    pub project_id: Option<String>,
    /// Labels of this host, separated by ;
    #[arg(long, help_heading = "Report", value_name = "TAGS")]
    pub tags: Option<String>,
    /// Report in plain text instead of TLS
    #[arg(long, help_heading = "Report", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub disable_tls: Option<String>,
    /// Length of a report window [default: 5s]
    #[arg(long, help_heading = "Report", value_name = "TIME", alias = "private-reporter-interval")]
    pub reporter_interval: Option<String>,
    /// Share of the window by which its length varies, 0 to 1 [default: 0.2]
    #[arg(long, help_heading = "Report", value_name = "SHARE")]
    pub reporter_jitter: Option<String>,
    /// Environment variables whose values are reported with the samples of a process, with commas between
    #[arg(long, help_heading = "Report", value_name = "NAMES")]
    pub env_vars: Option<String>,
    /// Say in a frame at its root why a stack is not whole [default: true]
    #[arg(long, help_heading = "Report", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", alias = "private-send-error-frames")]
    pub send_error_frames: Option<String>,
    /// Sample idle CPUs too
    #[arg(long, help_heading = "Report", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub send_idle_frames: Option<String>,
    /// Samples per second and CPU [default: 20]
    #[arg(long, help_heading = "Sampling", value_name = "HZ", alias = "private-samples-per-second")]
    pub samples_per_second: Option<String>,
    /// Chance in percent that an interval is sampled at all, 1 to 99; 100 = always [default: 100]
    #[arg(long, help_heading = "Sampling", value_name = "N")]
    pub probabilistic_threshold: Option<String>,
    /// Length of such an interval, 1m to 5m [default: 1m]
    #[arg(long, help_heading = "Sampling", value_name = "TIME")]
    pub probabilistic_interval: Option<String>,
    /// Interpreters to look into [none is built yet; native code is always sampled]
    #[arg(short = 't', long, help_heading = "Sampling", value_name = "NAMES")]
    pub tracers: Option<String>,
    /// Only these processes, with commas between; with the lists below: those that any of them names
    #[arg(long, help_heading = "Who is sampled", value_name = "PIDS")]
    pub filter_pids: Option<String>,
    /// Only processes of these names, as `ps -o comm` shows them
    #[arg(long, help_heading = "Who is sampled", value_name = "NAMES")]
    pub filter_names: Option<String>,
    /// Only processes in these cgroups and below, as /proc/PID/cgroup shows them
    #[arg(long, help_heading = "Who is sampled", value_name = "PATHS")]
    pub filter_cgroups: Option<String>,
    /// Only these containers, by ID or its beginning, LXC ones by name; also those that start later
    #[arg(long, help_heading = "Who is sampled", value_name = "IDS")]
    pub filter_containers: Option<String>,
    /// Only processes that have lived this long [default: 0]
    #[arg(long, help_heading = "Who is sampled", value_name = "TIME")]
    pub filter_min_process_age: Option<String>,
    /// Only these CPUs, such as 0-15,20,31
    #[arg(long, help_heading = "Who is sampled", value_name = "CPUS")]
    pub pin_cpu_ids: Option<String>,
    /// Share of the machine that the agent may take; it gives up what matters least to stay below
    #[arg(long, help_heading = "Cost", value_name = "PERCENT")]
    pub max_cpu_percent: Option<String>,
    /// Memory that the agent may take, tables in the kernel included
    #[arg(long, help_heading = "Cost", value_name = "SIZE")]
    pub max_memory: Option<String>,
    /// Doublings of the room for tables and processes in the kernel, 0 to 8 [default: 0]
    #[arg(long, help_heading = "Cost", value_name = "N")]
    pub map_scale_factor: Option<String>,
    /// Directory of finished unwind tables [default: /var/cache/everflame with root, none without]
    #[arg(long, help_heading = "Cost", value_name = "DIR")]
    pub cache_directory: Option<String>,
    /// Raw stacks that are remembered, 1024 to 1048576 [default: 32768]
    #[arg(long, help_heading = "Cost", value_name = "N")]
    pub frame_cache_size: Option<String>,
    /// Time between two looks at counters, CPUs, containers and own cost [default: 1s]
    #[arg(long, help_heading = "Cost", value_name = "TIME", alias = "private-monitor-interval")]
    pub monitor_interval: Option<String>,
    /// Time between two comparisons of the clocks; 0 = once at start [default: 250ms]
    #[arg(long, help_heading = "Cost", value_name = "TIME")]
    pub clock_sync_interval: Option<String>,
    /// Run on kernels with known faults
    #[arg(long, help_heading = "Kernel", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub no_kernel_version_check: Option<String>,
    /// What the kernel tells while it checks the programs: 0 nothing, 1 a summary, 2 everything
    #[arg(long, help_heading = "Kernel", value_name = "N")]
    pub bpf_log_level: Option<String>,
    /// Told about in the configuration
    #[arg(long, hide = true)]
    pub off_cpu_threshold: Option<String>,
    /// Told about in the configuration
    #[arg(long, hide = true)]
    pub probe_link: Option<String>,
    /// Told about in the configuration
    #[arg(long, hide = true)]
    pub pprof: Option<String>,
    /// Told about in the configuration
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub enable_pprof: Option<String>,
    /// Told about in the configuration
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub save_cpuprofile: Option<String>,
    /// Told about in the configuration
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub obi_process_ctx: Option<String>,
    /// Told about in the configuration
    #[arg(long, hide = true)]
    pub bpffs_root: Option<String>,
    /// Told about in the configuration
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub elastic: Option<String>,
    /// Told about in the configuration
    #[arg(long, hide = true)]
    pub private_environment_type: Option<String>,
    /// For tests: how long to wait before ending when the collector takes nothing from this agent
    #[arg(long, hide = true, value_name = "TIME")]
    pub private_refused_wait: Option<String>,
    /// Told about in the configuration
    #[arg(long, hide = true)]
    pub bpf_log_size: Option<String>,
    /// Log at debug level
    #[arg(short = 'v', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub verbose: Option<String>,
    /// Resolve the configuration, print it with the origin of each value, and exit
    #[arg(long)]
    pub check: bool,
    /// Print the version and exit
    #[arg(long)]
    pub version: bool,
    /// Print copyright and licences and exit
    #[arg(long)]
    pub copyright: bool,
}

impl AgentArgs {
    /// Options that the file and the environment can hold too, by name, with what the command line says.
    pub fn options(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let options = [
            ("collection-agent", &self.collection_agent),
            ("secret-token", &self.secret_token),
            ("project-id", &self.project_id),
            ("tags", &self.tags),
            ("disable-tls", &self.disable_tls),
            ("reporter-interval", &self.reporter_interval),
            ("reporter-jitter", &self.reporter_jitter),
            ("env-vars", &self.env_vars),
            ("send-error-frames", &self.send_error_frames),
            ("send-idle-frames", &self.send_idle_frames),
            ("samples-per-second", &self.samples_per_second),
            ("probabilistic-threshold", &self.probabilistic_threshold),
            ("probabilistic-interval", &self.probabilistic_interval),
            ("tracers", &self.tracers),
            ("filter-pids", &self.filter_pids),
            ("filter-names", &self.filter_names),
            ("filter-cgroups", &self.filter_cgroups),
            ("filter-containers", &self.filter_containers),
            ("filter-min-process-age", &self.filter_min_process_age),
            ("pin-cpu-ids", &self.pin_cpu_ids),
            ("max-cpu-percent", &self.max_cpu_percent),
            ("max-memory", &self.max_memory),
            ("map-scale-factor", &self.map_scale_factor),
            ("cache-directory", &self.cache_directory),
            ("frame-cache-size", &self.frame_cache_size),
            ("monitor-interval", &self.monitor_interval),
            ("clock-sync-interval", &self.clock_sync_interval),
            ("no-kernel-version-check", &self.no_kernel_version_check),
            ("bpf-log-level", &self.bpf_log_level),
            ("off-cpu-threshold", &self.off_cpu_threshold),
            ("probe-link", &self.probe_link),
            ("pprof", &self.pprof),
            ("enable-pprof", &self.enable_pprof),
            ("save-cpuprofile", &self.save_cpuprofile),
            ("obi-process-ctx", &self.obi_process_ctx),
            ("bpffs-root", &self.bpffs_root),
            ("elastic", &self.elastic),
            ("private-environment-type", &self.private_environment_type),
            ("private-refused-wait", &self.private_refused_wait),
            ("bpf-log-size", &self.bpf_log_size),
            ("verbose", &self.verbose),
        ];
        options.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }
}

/// Roles that a later version brings.
#[derive(Debug, Args)]
pub struct LaterArgs {
    /// Arguments of the role
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub rest: Vec<String>,
}
