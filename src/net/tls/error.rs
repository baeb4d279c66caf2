//! What can go wrong when certificates and keys are read. Failed handshakes are told by `net::handshake`.

use std::io;

use crate::config::PemSource;

/// Why a TLS section cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{key}: cannot read {path}: {source}")]
    Read {
        /// Path of the key in the configuration.
        key: String,
        /// File.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// What was read is not what it should be.
    #[error("{key}: {}{problem}", from.as_ref().map(|from| format!("{from}: ")).unwrap_or_default())]
    Content {
        /// Path of the key in the configuration.
        key: String,
        /// File, or `PEM REDACTED`.
        from: Option<String>,
        /// What was expected and what was found.
        problem: String,
        /// What to do.
        hint: Option<&'static str>,
    },
    /// The library refused.
    #[error("{section}: {source}")]
    Library {
        /// Section of the configuration.
        section: String,
        /// What the library said.
        source: rustls::Error,
    },
    /// No root certificates.
    #[error("{section}.certificate_authorities: found no certificate of this system: {problem}")]
    NoRoots {
        /// Section of the configuration.
        section: String,
        /// What looking for them gave.
        problem: String,
    },
}

impl TlsError {
    pub(super) fn content(
        section: &str,
        name: &str,
        from: Option<&PemSource>,
        problem: impl Into<String>,
    ) -> Self {
        Self::Content {
            key: format!("{section}.{name}"),
            from: from.map(ToString::to_string),
            problem: problem.into(),
            hint: None,
        }
    }

    pub(super) fn with_hint(mut self, cure: &'static str) -> Self {
        if let Self::Content { hint, .. } = &mut self {
            *hint = Some(cure);
        }
        self
    }

    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Content { hint, .. } => *hint,
            Self::NoRoots { .. } => Some("install the package ca-certificates, or name the authority's file"),
            Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("let the user of this process read the file")
            }
            Self::Read { .. } | Self::Library { .. } => None,
        }
    }
}

/// A chain and a key that do not go together, or that the library cannot use.
pub(super) fn identity(section: &str, source: rustls::Error) -> TlsError {
    match source {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::content(section, "key", None, "does not belong to the certificate")
        }
        rustls::Error::General(problem) => {
            // The library's words name kinds of keys, never their bytes.
            TlsError::content(section, "key", None, format!("cannot be used: {problem}"))
                .with_hint("use a key of RSA (2048 to 8192 bits), ECDSA (P-256 or P-384) or Ed25519")
        }
        source => TlsError::Library { section: section.to_owned(), source },
    }
}
