//! Why a role ended without success.

use std::fmt;

use crate::cli::Role;
use crate::config::Problems;

/// A failure with its exit code, printed once by `cli`.
#[derive(Debug)]
pub enum Failure {
    /// Wrong usage or configuration: exit code 2. The text is complete, hints included.
    Usage(String),
    /// Something broke: exit code 1.
    Failed {
        /// The chain of causes.
        error: anyhow::Error,
        /// What a person can do.
        hint: Option<String>,
    },
}

impl Failure {
    /// A role that a later version brings.
    #[must_use]
    pub fn not_built_yet(role: Role) -> Self {
        let hint = "everflame all-in-one profiles this machine and names native frames by itself";
        Self::Usage(format!("error: the role {} is not built yet\nhint: {hint}", role.name()))
    }

    /// A failure with a cure.
    pub fn with_hint(error: impl Into<anyhow::Error>, hint: Option<String>) -> Self {
        Self::Failed { error: error.into(), hint }
    }

    /// Whether the person's input was wrong.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Usage(_))
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::Usage(problems.to_string())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed { error, hint: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) => f.write_str(text),
            Self::Failed { error, hint } => {
                write!(f, "error: {error:#}")?;
                if let Some(hint) = hint {
                    write!(f, "\nhint: {hint}")?;
                }
                Ok(())
            }
        }
    }
}
