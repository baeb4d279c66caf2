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
    Agent(AgentArgs),
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
    /// Create or check what Elasticsearch needs [not built yet]
    Setup(LaterArgs),
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

/// Options of web.
#[derive(Debug, Args)]
pub struct WebArgs {
    /// Settings from files and -E
    #[command(flatten)]
    pub server: ServerArgs,
    /// Directory of an embedded store that no other process uses
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address to serve on [default: 127.0.0.1:8250]
    #[arg(long, value_name = "HOST:PORT")]
    pub web: Option<String>,
}

/// Options of the agent. Each can also stand in the file and in the environment (PRODFILER_PROJECT_ID).
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[command(after_help = "\
Options may be written with one dash or two. Order: flag, environment (PRODFILER_ and the name in capitals), file.
Needs root, or CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH, CAP_CHECKPOINT_RESTORE and CAP_SYSLOG.")]
pub struct AgentArgs {
    /// Key-value file [default: /etc/Elastic/universal-profiling/pf-host-agent.conf]
    #[arg(long, value_name = "FILE", env = "PRODFILER_CONFIG")]
    pub config: Option<PathBuf>,
    /// Collector to report to
    #[arg(long, value_name = "HOST:PORT")]
    pub collection_agent: Option<String>,
    /// Token that the collector asks for; better in the file or in PRODFILER_SECRET_TOKEN than on the command line
    #[arg(long, value_name = "TOKEN")]
    pub secret_token: Option<String>,
    /// Project, 1 to 4095 [default: 1]
    #[arg(long, value_name = "N")]
    pub project_id: Option<String>,
    /// Labels of this host, separated by ;
    #[arg(long, value_name = "TAGS")]
    pub tags: Option<String>,
    /// Report in plain text instead of TLS
    #[arg(long)]
    pub disable_tls: bool,
    /// Samples per second and CPU [default: 20]
    #[arg(long, value_name = "HZ")]
    pub samples_per_second: Option<String>,
    /// Length of a report window [default: 5s]
    #[arg(long, value_name = "TIME")]
    pub reporter_interval: Option<String>,
    /// Run on kernels with known faults
    #[arg(long)]
    pub no_kernel_version_check: bool,
    /// Log at debug level
    #[arg(short = 'v', long)]
    pub verbose: bool,
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

/// Roles that a later version brings.
#[derive(Debug, Args)]
pub struct LaterArgs {
    /// Arguments of the role
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub rest: Vec<String>,
}
