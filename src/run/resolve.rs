//! From arguments to resolved sections: which layers each role reads.

use std::path::{Path, PathBuf};

use crate::cli::{AgentArgs, AllInOneArgs, ServerArgs, SetupArgs, WebArgs};
use crate::config::{
    AgentSection, AllInOneSection, CollectorSection, Environment, Layers, PageSection, Problem, Problems,
    Section, Settings, SetupSection, SymbolizerSection, resolve,
};

use super::Failure;

/// Sections that a file shared by several roles may hold.
const SECTIONS: [&str; 8] = [
    CollectorSection::NAME,
    SymbolizerSection::NAME,
    AgentSection::NAME,
    "output",
    "queue",
    "store",
    "web",
    "all-in-one",
];

/// The environment of this process, as data.
pub(super) fn environment() -> Environment {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect()
}

/// What resolving led to.
pub(super) enum Outcome<S> {
    /// Run with these settings, and tell these warnings once logging has begun.
    Run(S, Warnings),
    /// `--check` was asked for and printed.
    Checked,
}

/// Keys that are unknown or have no effect.
pub(super) struct Warnings(Vec<Problem>);

impl Warnings {
    /// Logs them.
    pub(super) fn tell(self) {
        for problem in self.0 {
            tracing::warn!(hint = problem.hint, "{problem}");
        }
    }
}

/// Layers of the roles that have a store and a page: defaults, file, `-E`, the flags for both.
fn store_and_page(server: &ServerArgs, data_dir: Option<&Path>, web: Option<&str>, is_root: bool) -> Layers {
    let environment = environment();
    let default_dir = AllInOneSection::default_data_dir(&environment, is_root);
    let mut layers = Layers::new(environment).flag("default", "store.data_dir", Some(default_dir.display()));
    if let Some(file) = &server.config {
        layers = layers.yaml_file(file);
    }
    layers
        .overrides(server.overrides.iter().map(String::as_str))
        .flag("--data-dir", "store.data_dir", data_dir.map(Path::display))
        .flag("--web", "web.host", web)
}

/// Settings of all-in-one.
pub(super) fn all_in_one(args: &AllInOneArgs, is_root: bool) -> Result<Outcome<AllInOneSection>, Failure> {
    let settings = store_and_page(&args.server, args.data_dir.as_deref(), args.web.as_deref(), is_root)
        .flag("--collector", "pf-elastic-collector.host", args.collector.as_deref())
        .flag("--samples-per-second", "pf-host-agent.samples-per-second", args.samples_per_second.as_deref())
        .flag("--max-cpu-percent", "pf-host-agent.max-cpu-percent", args.max_cpu_percent.as_deref())
        .flag("--max-memory", "pf-host-agent.max-memory", args.max_memory.as_deref())
        .flag("--retention", "store.retention", args.retention.as_deref())
        .flag("--no-agent", "all-in-one.agent", args.no_agent.then_some("false"))
        .flag("--verbose", "pf-host-agent.verbose", args.verbose.then_some("true"))
        .settings();
    finish(&settings, args.server.check)
}

/// Settings of the web role with the store that it shows.
pub(super) fn web(args: &WebArgs, is_root: bool) -> Result<Outcome<PageSection>, Failure> {
    let settings = store_and_page(&args.server, args.data_dir.as_deref(), args.web.as_deref(), is_root)
        .flag("--elasticsearch", "output.elasticsearch.hosts", args.elasticsearch.as_deref())
        .settings();
    finish(&settings, args.server.check)
}

/// Settings of a server role from its file.
pub(super) fn server<S: Section>(args: &ServerArgs, default_file: &str) -> Result<Outcome<S>, Failure> {
    let mut layers = Layers::new(environment());
    match &args.config {
        Some(file) => layers = layers.yaml_file(file),
        None if Path::new(default_file).exists() => layers = layers.yaml_file(Path::new(default_file)),
        None => {}
    }
    finish(&layers.overrides(args.overrides.iter().map(String::as_str)).settings(), args.check)
}

/// Settings of a set-up: those of the collector's file, and another login.
pub(super) fn setup(args: &SetupArgs) -> Result<Outcome<SetupSection>, Failure> {
    let environment = environment();
    let password = args.username.as_ref().and_then(|_| environment.get("ELASTIC_PASSWORD").cloned());
    let mut layers = Layers::new(environment);
    let default_file = Path::new(CollectorSection::DEFAULT_FILE);
    if let Some(file) = args.config.as_deref().or_else(|| default_file.exists().then_some(default_file)) {
        layers = layers.yaml_file(file);
    }
    let output = |key: &str| format!("output.elasticsearch.{key}");
    let settings = layers
        .overrides(args.overrides.iter().map(String::as_str))
        // A user and a key exclude each other; an empty key is none.
        .flag("--username", &output("api_key"), args.username.as_ref().map(|_| ""))
        .flag("--username", &output("username"), args.username.as_deref())
        .flag("environment variable ELASTIC_PASSWORD", &output("password"), password)
        .settings();
    finish(&settings, false)
}

/// Settings of the agent.
pub(super) fn agent(args: &AgentArgs) -> Result<Outcome<AgentSection>, Failure> {
    let name = AgentSection::NAME;
    let environment = environment();
    let variable = |prefix: &str| environment.get(&format!("{prefix}_CONFIG")).map(PathBuf::from);
    let file = args.config.clone().or_else(|| AgentSection::VARIABLES.into_iter().rev().find_map(variable));
    let path = file.as_deref().unwrap_or(Path::new(AgentSection::DEFAULT_FILE));
    let layers = Layers::new(environment).plain_file(path, name, file.is_some());
    let layers =
        AgentSection::VARIABLES.into_iter().fold(layers, |layers, prefix| layers.variables(prefix, name));
    let settings = args
        .options()
        .fold(layers, |layers, (option, value)| {
            layers.flag(&format!("-{option}"), &format!("{name}.{option}"), Some(value))
        })
        .settings();
    finish(&settings, args.check)
}

fn finish<S: Section>(settings: &Settings, check: bool) -> Result<Outcome<S>, Failure> {
    let resolved = resolve::<S>(settings);
    let foreign: Vec<&str> = SECTIONS.into_iter().filter(|section| !reads(settings, section)).collect();
    let unknown = settings.unknown_keys(&foreign);
    if check {
        let mut problems = resolved.err().map(|problems| problems.0).unwrap_or_default();
        problems.extend(unknown);
        if !problems.is_empty() {
            return Err(Problems(problems).into());
        }
        print(&settings.to_string());
        return Ok(Outcome::Checked);
    }
    let mut warnings = settings.warnings();
    warnings.extend(unknown);
    Ok(Outcome::Run(resolved?, Warnings(warnings)))
}

/// Whether the role read any key of this section.
fn reads(settings: &Settings, section: &str) -> bool {
    settings.resolved().keys().any(|key| key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.')))
}

/// Results that were asked for go to standard output.
#[allow(clippy::print_stdout, reason = "--check prints its result")]
fn print(text: &str) {
    print!("{text}");
}
