//! Checks of a server's certificate in the four documented modes.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};

use super::subject::Names;
use super::{TlsError, material};
use crate::config::{ClientTls, Verification};

/// Checks servers for one client.
#[derive(Debug)]
pub(super) struct ServerCheck {
    mode: Verification,
    roots: RootCertStore,
    /// Certificates that were named by the configuration.
    named: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// A certificate in mode strict that says no names in the place for names.
#[derive(thiserror::Error)]
#[error("no alternative names, which verification_mode strict wants")]
struct NoAlternativeNames;

/// The library shows errors that are not its own by their debug form.
impl std::fmt::Debug for NoAlternativeNames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl ServerCheck {
    /// Reads the authorities, unless nothing is checked.
    pub(super) fn new(tls: &ClientTls, section: &str, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let (roots, named) = if tls.verification_mode == Verification::None {
            (RootCertStore::empty(), Vec::new())
        } else {
            material::roots(&tls.certificate_authorities, section)?
        };
        let algorithms = provider.signature_verification_algorithms;
        Ok(Self { mode: tls.verification_mode, roots, named, algorithms })
    }

    fn check_chain(
        &self,
        own: &CertificateDer<'_>,
        parsed: &ParsedCertificate<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let checked =
            verify_server_cert_signed_by_trust_anchor(parsed, &self.roots, others, now, self.algorithms.all);
        match checked {
            // A self-signed certificate that calls itself an authority, as `openssl req -x509` makes them, and that
            // the configuration names: trusted as it is. Its dates have been checked before.
            Err(Error::InvalidCertificate(CertificateError::Other(_)))
                if self.named.iter().any(|c| c == own) =>
            {
                Ok(())
            }
            checked => checked,
        }
    }
}

impl ServerCertVerifier for ServerCheck {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        server: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.mode == Verification::None {
            return Ok(ServerCertVerified::assertion());
        }
        let parsed = ParsedCertificate::try_from(own)?;
        self.check_chain(own, &parsed, others, now)?;
        if self.mode == Verification::Certificate {
            return Ok(ServerCertVerified::assertion());
        }
        let named = verify_server_name(&parsed, server);
        match Names::read(own) {
            Some(names) if !names.alternative && self.mode == Verification::Strict => {
                let problem = OtherError(Arc::new(NoAlternativeNames));
                return Err(Error::InvalidCertificate(CertificateError::Other(problem)));
            }
            Some(names) if !names.alternative && names.common_is(server) => {}
            _ => named?,
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
