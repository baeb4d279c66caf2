//! Failed TLS handshakes in words: what is wrong with the other side's certificate, and what to do about it.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError, InvalidMessage};

/// Why a handshake failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeProblem {
    /// What is wrong.
    pub message: String,
    /// What a person can do about it.
    pub hint: &'static str,
}

/// Looks for a failed handshake among the causes of an error of any HTTP library.
#[must_use]
pub fn handshake_problem(error: &(dyn Error + 'static)) -> Option<HandshakeProblem> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Some(describe(error));
        }
        // An I/O error gives the cause of what it wraps, not what it wraps.
        if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            let inner: &(dyn Error + 'static) = inner;
            if let Some(problem) = handshake_problem(inner) {
                return Some(problem);
            }
        }
        next = error.source();
    }
    None
}

const CLOCKS: &str = "renew the certificate of the server, and check the clocks of both machines";
const AUTHORITY: &str = "name the certificate of its authority in ssl.certificate_authorities";

fn describe(error: &rustls::Error) -> HandshakeProblem {
    use rustls::Error as Tls;
    let (message, hint) = match error {
        Tls::InvalidCertificate(problem) => match problem {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                ("the certificate has expired".to_owned(), CLOCKS)
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                ("the certificate is not valid yet".to_owned(), CLOCKS)
            }
            CertificateError::UnknownIssuer => {
                ("the certificate is signed by an authority that is not trusted here".to_owned(), AUTHORITY)
            }
            CertificateError::NotValidForName => (
                "the certificate is for another name".to_owned(),
                "use the name that the certificate holds, or set ssl.verification_mode to certificate",
            ),
            CertificateError::NotValidForNameContext { expected, presented } => (
                format!(
                    "the certificate is for {}, not for {}",
                    if presented.is_empty() { "no name".to_owned() } else { presented.join(", ") },
                    expected.to_str()
                ),
                "use the name that the certificate holds, or set ssl.verification_mode to certificate",
            ),
            CertificateError::Revoked => ("the certificate was revoked".to_owned(), CLOCKS),
            other => (format!("the certificate cannot be used: {other}"), AUTHORITY),
        },
        Tls::InvalidMessage(InvalidMessage::InvalidContentType) => (
            "the server does not speak TLS".to_owned(),
            "write http instead of https (the setting protocol, or the scheme of the host)",
        ),
        Tls::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::AccessDenied => (
                format!("the server does not accept the client certificate ({alert:?})"),
                "set ssl.certificate and ssl.key to a pair that the server trusts",
            ),
            AlertDescription::ProtocolVersion => (
                "the server takes none of the TLS versions allowed here".to_owned(),
                "check ssl.supported_protocols; 1.2 and 1.3 are supported",
            ),
            AlertDescription::HandshakeFailure => (
                "the server takes none of the cipher suites or curves allowed here".to_owned(),
                "check ssl.cipher_suites and ssl.curve_types",
            ),
            other => (format!("the server ended the TLS handshake: {other:?}"), "see the log of the server"),
        },
        Tls::PeerIncompatible(problem) => (
            format!("no common TLS settings with the server: {problem:?}"),
            "check ssl.supported_protocols, ssl.cipher_suites and ssl.curve_types",
        ),
        other => (format!("TLS handshake: {other}"), "see the log of the server"),
    };
    HandshakeProblem { message, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(error: rustls::Error) -> io::Error {
        // As the HTTP libraries do: an error in an I/O error in an I/O error.
        io::Error::other(io::Error::new(io::ErrorKind::InvalidData, error))
    }

    #[test]
    fn the_cause_is_found_below_layers_of_io() {
        let error = wrapped(rustls::Error::InvalidCertificate(CertificateError::Expired));
        let problem = handshake_problem(&error).unwrap();
        assert_eq!(problem.message, "the certificate has expired");
        assert!(problem.hint.contains("renew"));
        assert_eq!(handshake_problem(&io::Error::other("no TLS here")), None);
    }

    #[test]
    fn each_failure_has_its_own_sentence_and_cure() {
        let certificate = rustls::Error::InvalidCertificate;
        let problems: Vec<_> = [
            certificate(CertificateError::Expired),
            certificate(CertificateError::NotValidYet),
            certificate(CertificateError::UnknownIssuer),
            certificate(CertificateError::NotValidForName),
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType),
            rustls::Error::AlertReceived(AlertDescription::CertificateRequired),
            rustls::Error::AlertReceived(AlertDescription::ProtocolVersion),
            rustls::Error::AlertReceived(AlertDescription::HandshakeFailure),
        ]
        .into_iter()
        .map(|error| handshake_problem(&wrapped(error)).unwrap().message)
        .collect();
        for (index, problem) in problems.iter().enumerate() {
            assert!(!problems[..index].contains(problem), "{problem}");
        }
    }
}
