//! TLS as the settings say: rustls configurations for listeners and for clients.
//!
//! Certificates and keys are read here and nowhere else. Nothing listens or connects here.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};

use crate::config::ClientTls;

/// Why a TLS section cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
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

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Configuration of a client as `section` (its path in the configuration, for messages) says.
///
/// # Errors
/// When a certificate, a key or an option cannot be used.
pub fn client_config(_tls: &ClientTls, section: &str) -> Result<rustls::ClientConfig, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = rustls::RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let problem = found.errors.first().map_or_else(|| "none is installed".into(), ToString::to_string);
        return Err(TlsError::NoRoots { section: section.into(), problem });
    }
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Library { section: section.into(), source })?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
