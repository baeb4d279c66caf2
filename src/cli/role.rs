//! The roles and their spellings.

use std::ffi::OsString;
use std::path::Path;

/// What this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Every role in one process.
    AllInOne,
    /// Samples this host.
    Agent,
    /// Takes OTLP profiles.
    Collector,
    /// Page and query API.
    Web,
    /// Names for native frames.
    Symbolizer,
    /// Extracts and pushes symbols.
    Symbtool,
    /// Pipelines in the manner of the OpenTelemetry Collector.
    Otelcol,
    /// Prepares Elasticsearch.
    Setup,
}

impl Role {
    /// All roles in the order of the help.
    pub const ALL: [Self; 8] = [
        Self::AllInOne,
        Self::Agent,
        Self::Collector,
        Self::Web,
        Self::Symbolizer,
        Self::Symbtool,
        Self::Otelcol,
        Self::Setup,
    ];

    /// Subcommand.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AllInOne => "all-in-one",
            Self::Agent => "agent",
            Self::Collector => "collector",
            Self::Web => "web",
            Self::Symbolizer => "symbolizer",
            Self::Symbtool => "symbtool",
            Self::Otelcol => "otelcol",
            Self::Setup => "setup",
        }
    }

    /// Program name that selects the role by itself.
    #[must_use]
    pub fn program_name(self) -> Option<&'static str> {
        match self {
            Self::Agent => Some("pf-host-agent"),
            Self::Collector => Some("pf-elastic-collector"),
            Self::Symbolizer => Some("pf-elastic-symbolizer"),
            Self::Symbtool => Some("symbtool"),
            Self::Otelcol => Some("otelcol"),
            Self::AllInOne | Self::Web | Self::Setup => None,
        }
    }

    fn by_program_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.program_name() == Some(name))
    }
}

/// Puts the role behind the program's name where the name says it, and gives the agent's single-dash options a
/// second dash (`-project-id 1` is how its documentation writes them).
pub(super) fn with_role(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let program = arguments
        .first()
        .map(|first| Path::new(first).file_name().unwrap_or_default().to_string_lossy().into_owned());
    let mut role = program.as_deref().and_then(Role::by_program_name);
    if let Some(role) = role {
        arguments.insert(1, role.name().into());
    } else if arguments.get(1).is_some_and(|first| first == Role::Agent.name()) {
        role = Some(Role::Agent);
    }
    if role == Some(Role::Agent) {
        for argument in arguments.iter_mut().skip(2) {
            if let Some(text) = argument.to_str()
                && let Some(name) = text.strip_prefix('-')
                && name.split('=').next().is_some_and(|name| name.len() > 1)
                && name.starts_with(|c: char| c.is_ascii_lowercase())
            {
                *argument = format!("--{name}").into();
            }
        }
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(given: &[&str], expected: &[&str]) {
        assert_eq!(
            with_role(given.iter().map(Into::into).collect()),
            expected.iter().map(OsString::from).collect::<Vec<_>>()
        );
    }

    #[test]
    fn the_program_name_chooses_the_role() {
        check(
            &["/usr/bin/pf-elastic-collector", "-c", "f"],
            &["/usr/bin/pf-elastic-collector", "collector", "-c", "f"],
        );
        check(&["everflame", "web"], &["everflame", "web"]);
        check(&["symbtool", "--help"], &["symbtool", "symbtool", "--help"]);
    }

    #[test]
    fn agent_options_take_one_dash_or_two() {
        check(
            &["pf-host-agent", "-project-id=1", "--tags", "a", "-v", "-tags", "b"],
            &["pf-host-agent", "agent", "--project-id=1", "--tags", "a", "-v", "--tags", "b"],
        );
        check(&["everflame", "agent", "-t=all", "-v=false"], &["everflame", "agent", "-t=all", "-v=false"]);
        check(&["everflame", "collector", "-config"], &["everflame", "collector", "-config"]);
    }
}
