//! `all-in-one`: every role in one process on the embedded store.

use std::path::{Path, PathBuf};

use super::collector::CollectorSection;
use super::output::EmbeddedOutput;
use super::{
    AgentSection, Environment, HostPort, OutputSection, Section, Settings, StoreSection, WebSection,
};

/// Settings of all roles in one process.
#[derive(Clone, Debug, PartialEq)]
pub struct AllInOneSection {
    /// The store.
    pub store: StoreSection,
    /// Page and query API.
    pub web: WebSection,
    /// OTLP from other agents.
    pub collector: CollectorSection,
    /// The agent of this machine.
    pub agent: AgentSection,
    /// Whether the agent runs at all.
    pub run_agent: bool,
}

impl AllInOneSection {
    /// Where data goes when nobody says: the system's place for root, the user's own otherwise.
    #[must_use]
    pub fn default_data_dir(environment: &Environment, is_root: bool) -> PathBuf {
        if is_root {
            return PathBuf::from("/var/lib/everflame");
        }
        let base = environment.get("XDG_DATA_HOME").filter(|dir| Path::new(dir).is_absolute()).cloned();
        let base = base.or_else(|| environment.get("HOME").map(|home| format!("{home}/.local/share")));
        base.map_or_else(|| std::env::temp_dir().join("everflame"), |base| Path::new(&base).join("everflame"))
    }
}

impl Section for AllInOneSection {
    fn read(settings: &Settings) -> Self {
        let store = StoreSection::read_at(settings, "store", Path::new("/var/lib/everflame"));
        let output = OutputSection::Embedded(EmbeddedOutput { store: store.clone() });
        Self {
            web: WebSection::read(settings),
            collector: CollectorSection::read_with_host(settings, HostPort::new("127.0.0.1", 8260), output),
            agent: AgentSection::read(settings),
            run_agent: settings.bool("all-in-one.agent", true),
            store,
        }
    }
}
