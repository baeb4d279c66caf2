//! The only place that knows all roles: resolves, builds, joins and stops them in order.

mod about;
mod adapters;
mod agent_part;
#[cfg(feature = "agent")]
mod agent_role;
mod all_in_one;
#[cfg(feature = "elastic")]
mod elastic_output;
mod failure;
mod lifecycle;
mod metrics_pages;
mod resolve;
mod roles;
#[cfg(feature = "elastic")]
mod setup_role;
mod stack;
mod summary;

pub use failure::Failure;

use crate::cli::{Command, Role};

/// Runs one command to its end.
pub fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::AllInOne(args) => roles::all_in_one(args),
        Command::Agent(args) => roles::agent(args),
        Command::Collector(args) => roles::collector(args),
        Command::Web(args) => roles::web(args),
        Command::Symbolizer(args) => roles::symbolizer(args),
        Command::Symbtool(_) => Err(Failure::not_built_yet(Role::Symbtool)),
        Command::Otelcol(_) => Err(Failure::not_built_yet(Role::Otelcol)),
        #[cfg(feature = "elastic")]
        Command::Setup(args) => setup_role::run(args),
        #[cfg(not(feature = "elastic"))]
        Command::Setup(_) => {
            Err(Failure::Usage("error: this program was built without Elasticsearch".into()))
        }
    }
}
