//! Prepares a cluster for profiles, or checks one: what has to be there, what is there, what is to be done.
//!
//! [`Plan::make`] only looks. [`Plan::apply`] makes what is missing and renews what an older everflame made; it changes nothing
//! that Elastic's plugin or a person made, and deletes nothing. A second run finds nothing to do. Called by the role `setup`.

mod compare;
mod found;
mod judge;
pub mod keys;
mod parts;

use std::fmt;

use http::Method;

pub use compare::Difference;
pub use judge::{Owner, State};
pub use parts::{CLASSIC_VERSION, Call, Layout, Lifecycle, OTEL_VERSION, Part, PartKind, parts};

use super::generation::{self, About, FIRST_OTEL, Problem, Version};
use super::{CallError, Client, Generation};
use found::Found;

/// First release whose mappings can hold documents of the second generation.
const OTEL_MAPPINGS: Version = Version { major: 8, minor: 17, patch: 0 };

/// Why a set-up ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster cannot be set up at all.
    #[error(transparent)]
    Cluster(#[from] Problem),
    /// A question was not answered.
    #[error("cannot read what the cluster holds: {0}")]
    Read(#[source] CallError),
    /// A part could not be made.
    #[error("{kind} {name}: {source}")]
    Part {
        /// Kind of the part.
        kind: PartKind,
        /// Its name.
        name: String,
        /// What the cluster said.
        source: CallError,
    },
    /// The second generation on a release that does not know its field types.
    #[error("documents of OpenTelemetry's shape need Elasticsearch {OTEL_MAPPINGS} or newer, found {0}")]
    NoOtel(Version),
}

impl Error {
    /// What a person can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Cluster(Problem::NoPrivileges(_)) => {
                Some(format!("a set-up needs more than the key of a collector: {}", keys::SETUP_PRIVILEGES))
            }
            Self::Cluster(problem) => problem.hint(),
            Self::Read(error) | Self::Part { source: error, .. } => match error {
                CallError::Refused { status: 401 | 403, .. } => Some(format!(
                    "a set-up needs more than the key of a collector: {}",
                    keys::SETUP_PRIVILEGES
                )),
                other => other.hint(),
            },
            Self::NoOtel(_) => Some("leave the generation to everflame, or upgrade the cluster".into()),
        }
    }
}

/// What a person asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Layout of documents; otherwise what readers of the release ask for.
    pub generation: Option<Generation>,
    /// Who deletes old data; otherwise ILM where there is one.
    pub lifecycle: Option<Lifecycle>,
}

/// One part with its state.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The part.
    pub part: Part,
    /// How it was found.
    pub state: State,
}

impl Step {
    /// The call that mends it, if one is needed.
    #[must_use]
    pub fn call(&self) -> Option<Call> {
        let part = &self.part;
        match (&self.state, part.kind, &part.target) {
            (State::Missing, ..) => Some(part.call(false)),
            (State::Outdated, PartKind::Stream | PartKind::Index, Some(target)) => {
                Some(Call { method: Method::POST, path: format!("/{target}/_rollover"), body: None })
            }
            (State::Outdated, ..) => Some(part.call(true)),
            _ => None,
        }
    }
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was as it should be, or was left alone.
    Kept,
    /// It was made.
    Created,
    /// It was renewed.
    Renewed,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kept => "kept",
            Self::Created => "created",
            Self::Renewed => "renewed",
        })
    }
}

/// What is to be done on a cluster.
#[derive(Debug)]
pub struct Plan {
    /// What the cluster says of itself.
    pub about: About,
    /// Its licence, empty when unknown.
    pub licence: String,
    /// What decided how the parts look.
    pub layout: Layout,
    /// Elastic's plugin is switched on and makes the first generation by itself.
    pub plugin_on: bool,
    /// All parts in the order of making.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Looks at a cluster and decides.
    ///
    /// # Errors
    /// When it does not answer, refuses, or cannot be used.
    pub async fn make(client: &Client, options: Options) -> Result<Self, Error> {
        let about = generation::about(client).await?;
        let newest = if about.version >= FIRST_OTEL { Generation::Otel } else { Generation::Classic };
        let generation = options.generation.unwrap_or(newest);
        if generation == Generation::Otel && about.version < OTEL_MAPPINGS {
            return Err(Error::NoOtel(about.version));
        }
        let found = Found::ask(client).await.map_err(Error::Read)?;
        let available = if found.policies.is_some() { Lifecycle::Policy } else { Lifecycle::DataStream };
        let lifecycle = options.lifecycle.unwrap_or(available);
        let layout = Layout { generation, version: about.version, lifecycle };
        let all = parts(&layout);
        let states: Vec<State> = all.iter().map(|part| judge::judge(part, &all, &found)).collect();
        let steps = all.into_iter().zip(states).map(|(part, state)| Step { part, state }).collect();
        let licence = generation::licence(client).await?;
        Ok(Self { about, licence, layout, plugin_on: found.plugin_on, steps })
    }

    /// Steps that change something.
    pub fn changes(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| step.state.needs_change())
    }

    /// Steps without which the cluster cannot be used.
    pub fn lacking(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| step.state.is_lacking())
    }

    /// Carries the plan out, step by step, and tells each.
    ///
    /// # Errors
    /// At the first part that cannot be made; what was made stays, and a second run goes on from there.
    pub async fn apply(&self, client: &Client, mut tell: impl FnMut(&Step, Outcome)) -> Result<(), Error> {
        if self.changes().next().is_some() {
            // Asked before the first change: half a set-up helps nobody.
            keys::may_set_up(client, self.layout.lifecycle).await?;
        }
        for step in &self.steps {
            let Some(call) = step.call() else {
                tell(step, Outcome::Kept);
                continue;
            };
            let outcome = if step.state == State::Missing { Outcome::Created } else { Outcome::Renewed };
            match client.json(call.method, &call.path, call.body.as_ref()).await {
                Ok(_) => tell(step, outcome),
                // Somebody else was faster with the same.
                Err(CallError::Refused { status: 400, reason, .. }) if reason.contains("already exists") => {
                    tell(step, Outcome::Kept);
                }
                Err(source) => {
                    return Err(Error::Part { kind: step.part.kind, name: step.part.name.clone(), source });
                }
            }
        }
        Ok(())
    }
}
