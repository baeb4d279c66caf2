//! Configuration: layers in, typed sections out; every value knows where it came from.
//!
//! Order for servers: defaults, file (`-c`), `-E full.path=value`, named flags. For the agent: defaults, file,
//! environment, flags. Files are parsed first, then `${VAR}` is expanded in string values of the tree, so a variable
//! can never inject structure. All mistakes are collected and reported together.
//!
//! Must not touch sockets or keys: resolving reads the configuration file and the environment it is given, nothing else.

mod agent;
mod all_in_one;
mod collector;
mod expand;
mod fields;
mod layers;
mod output;
mod overrides;
mod plain;
mod problem;
mod secret;
mod settings;
mod setup;
mod store;
mod symbolizer;
mod tls;
mod web;

#[cfg(test)]
mod tests;

pub use agent::{AgentSection, FilterSection, KernelBuffers, KernelObject};
pub use all_in_one::AllInOneSection;
pub use collector::{CollectorSection, MetricsAddress, MetricsSection};
pub use fields::{ByteSize, HostPort};
pub use layers::{Environment, Layers};
pub use output::{DiskQueue, ElasticsearchOutput, EmbeddedOutput, GenerationChoice, OutputSection};
pub use problem::{Problem, Problems};
pub use secret::Secret;
pub use settings::{Resolved, Settings};
pub use setup::SetupSection;
pub use store::StoreSection;
pub use symbolizer::SymbolizerSection;
pub use tls::{
    ClientAuthentication, ClientTls, Curve, KeyPair, Offer, PemSource, Protocol, ServerTls, Verification,
};
pub use web::{PageSection, PageStore, WebSection};

use overrides::Override;

/// A section that can be read from settings.
pub trait Section: Sized {
    /// Reads every key of the section; mistakes are noted in `settings`, and a default stands in.
    fn read(settings: &Settings) -> Self;
}

/// Reads a section and ends with all mistakes at once.
///
/// # Errors
/// Every mistake found, in the order of the keys.
pub fn resolve<S: Section>(settings: &Settings) -> Result<S, Problems> {
    let section = S::read(settings);
    settings.finish()?;
    Ok(section)
}
