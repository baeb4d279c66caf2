//! TLS as the settings say: rustls configurations for listeners and for clients.
//!
//! Certificates and keys are read here and nowhere else, once, when a configuration is built. Key material is never
//! part of a message. Nothing listens here; [`Connector`] connects for clients that bring no TLS of their own.

mod connector;
mod error;
mod material;
mod subject;
#[cfg(test)]
pub(crate) mod tests;
mod verify;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};

use crate::config::{ClientAuthentication, ClientTls, Curve, Offer, Protocol, ServerTls};

pub use connector::{Connector, Stream};
pub use error::TlsError;
use verify::ServerCheck;

/// Configuration of a client as `section` (its path in the configuration, for messages) says. No ALPN is set: the
/// caller knows what it speaks.
///
/// # Errors
/// When a certificate or a key cannot be read or used.
pub fn client_config(tls: &ClientTls, section: &str) -> Result<ClientConfig, TlsError> {
    let library = |source| TlsError::Library { section: section.to_owned(), source };
    let provider = Arc::new(provider(&tls.offer));
    let check = ServerCheck::new(tls, section, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions(&tls.offer))
        .map_err(library)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(check));
    match &tls.identity {
        None => Ok(builder.with_no_client_auth()),
        Some(pair) => {
            let (chain, key) = material::identity(pair, section)?;
            builder.with_client_auth_cert(chain, key).map_err(|source| error::identity(section, source))
        }
    }
}

/// Configuration of a listener that speaks HTTP/2 and HTTP/1.1, as `section` says.
///
/// # Errors
/// When a certificate or a key is missing, or cannot be read or used.
pub fn server_config(tls: &ServerTls, section: &str) -> Result<Arc<ServerConfig>, TlsError> {
    let library = |source| TlsError::Library { section: section.to_owned(), source };
    let Some(pair) = &tls.identity else {
        return Err(TlsError::content(section, "certificate", None, "certificate file not configured"));
    };
    let provider = Arc::new(provider(&tls.offer));
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions(&tls.offer))
        .map_err(library)?;
    let builder = if tls.client_authentication == ClientAuthentication::None {
        builder.with_no_client_auth()
    } else {
        let roots = Arc::new(material::roots(&tls.certificate_authorities, section)?.0);
        let mut check = WebPkiClientVerifier::builder_with_provider(roots, provider);
        if tls.client_authentication == ClientAuthentication::Optional {
            check = check.allow_unauthenticated();
        }
        let unusable = |error| {
            TlsError::content(section, "certificate_authorities", None, format!("cannot be used: {error}"))
        };
        builder.with_client_cert_verifier(check.build().map_err(unusable)?)
    };
    let (chain, key) = material::identity(pair, section)?;
    let mut config =
        builder.with_single_cert(chain, key).map_err(|source| error::identity(section, source))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Suites and groups that are offered.
fn provider(offer: &Offer) -> CryptoProvider {
    let mut provider = ring::default_provider();
    if let Some(suites) = &offer.suites {
        provider.cipher_suites.retain(|suite| {
            // Those of TLS 1.3 are not configurable.
            suite.tls13().is_some() || suite.suite().as_str().is_some_and(|name| suites.contains(&name))
        });
    }
    if !offer.curves.is_empty() {
        provider.kx_groups = offer.curves.iter().map(|curve| group(*curve)).collect();
    }
    provider
}

fn group(curve: Curve) -> &'static dyn SupportedKxGroup {
    match curve {
        Curve::P256 => ring::kx_group::SECP256R1,
        Curve::P384 => ring::kx_group::SECP384R1,
        Curve::X25519 => ring::kx_group::X25519,
    }
}

fn versions(offer: &Offer) -> Vec<&'static SupportedProtocolVersion> {
    let spoken = |protocol| offer.protocols.is_empty() || offer.protocols.contains(&protocol);
    let mut versions = Vec::new();
    if spoken(Protocol::Tls13) {
        versions.push(&rustls::version::TLS13);
    }
    if spoken(Protocol::Tls12) {
        versions.push(&rustls::version::TLS12);
    }
    versions
}
