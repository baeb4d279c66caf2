//! TLS sections: what was said about certificates and protocols. Nothing is opened here.

mod pem;
mod words;

pub use pem::PemSource;
pub use words::{Curve, Offer, Protocol};

use super::fields::text;
use super::settings::Expected;
use super::{Secret, Settings};

/// A certificate with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPair {
    /// Chain, own certificate first.
    pub certificate: PemSource,
    /// Private key.
    pub key: PemSource,
    /// Passphrase of the key.
    pub passphrase: Option<Secret>,
    /// File that holds the passphrase.
    pub passphrase_path: Option<String>,
}

/// What was said of certificate and key, before it is known whether they are needed.
struct Said {
    certificate: Option<PemSource>,
    key: Option<PemSource>,
    passphrase: Option<Secret>,
    passphrase_path: Option<String>,
}

impl Said {
    fn read(settings: &Settings, at: &str) -> Self {
        let key = |name: &str| format!("{at}.{name}");
        let passphrase = settings.secret(&key("key_passphrase"));
        let passphrase_path = settings.optional_text(&key("key_passphrase_path"));
        if passphrase.is_some() && passphrase_path.is_some() {
            let message = "cannot set both key_passphrase and key_passphrase_path".into();
            settings.problem(&key("key_passphrase_path"), message, None);
        }
        Self {
            certificate: pem::one(settings, &key("certificate")),
            key: pem::one(settings, &key("key")),
            passphrase,
            passphrase_path,
        }
    }

    /// Certificate and key come together or not at all.
    fn pair(self, settings: &Settings, at: &str, needed: bool) -> Option<KeyPair> {
        if self.certificate.is_none() && (self.key.is_some() || needed) {
            settings.problem(&format!("{at}.certificate"), "certificate file not configured".into(), None);
        }
        if self.key.is_none() && (self.certificate.is_some() || needed) {
            settings.problem(&format!("{at}.key"), "key file not configured".into(), None);
        }
        Some(KeyPair {
            certificate: self.certificate?,
            key: self.key?,
            passphrase: self.passphrase,
            passphrase_path: self.passphrase_path,
        })
    }
}

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// They are not asked.
    #[default]
    None,
    /// They may; one that cannot be trusted is refused.
    Optional,
    /// They must.
    Required,
}

/// `ssl` of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerTls {
    /// Serve TLS. When nothing is said, whether there is a certificate or a key.
    pub enabled: bool,
    /// Who the server is.
    pub identity: Option<KeyPair>,
    /// Protocols, suites and curves.
    pub offer: Offer,
    /// Who may sign certificates of clients.
    pub certificate_authorities: Vec<PemSource>,
    /// Whether clients show a certificate.
    pub client_authentication: ClientAuthentication,
}

impl ServerTls {
    /// Reads the section at `at` (for example `pf-elastic-collector.ssl`).
    pub(super) fn read(settings: &Settings, at: &str, protocols: &[&str]) -> Self {
        let key = |name: &str| format!("{at}.{name}");
        let said = Said::read(settings, at);
        let enabled = settings.bool(&key("enabled"), said.certificate.is_some() || said.key.is_some());
        let certificate_authorities = pem::many(settings, &key("certificate_authorities"));
        let client_authentication = documented_word(
            settings,
            &key("client_authentication"),
            if certificate_authorities.is_empty() {
                ClientAuthentication::None
            } else {
                ClientAuthentication::Required
            },
            &[
                ("none", ClientAuthentication::None),
                ("optional", ClientAuthentication::Optional),
                ("required", ClientAuthentication::Required),
            ],
            |word| format!("unknown client authentication mode '{word}'"),
        );
        if enabled
            && client_authentication != ClientAuthentication::None
            && certificate_authorities.is_empty()
        {
            let message = "expected at least one authority that signs certificates of clients, found none";
            settings.problem(&key("certificate_authorities"), message.into(), None);
        }
        Self {
            enabled,
            identity: said.pair(settings, at, enabled),
            offer: Offer::read(settings, at, protocols, enabled),
            certificate_authorities,
            client_authentication,
        }
    }
}

/// How far a server's certificate is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verification {
    /// Chain and name. A certificate without alternative names may carry the name as its common name.
    #[default]
    Full,
    /// As full, and a certificate without alternative names is refused.
    Strict,
    /// Chain only.
    Certificate,
    /// Nothing.
    None,
}

/// `ssl` of a client. The default checks everything against the authorities of the system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// How far the server's certificate is checked.
    pub verification_mode: Verification,
    /// Trusted authorities; empty = the system's.
    pub certificate_authorities: Vec<PemSource>,
    /// Who the client is, for servers that ask.
    pub identity: Option<KeyPair>,
    /// Protocols, suites and curves.
    pub offer: Offer,
}

impl ClientTls {
    /// Reads the section at `at`. `enabled: false` leaves everything at its default.
    pub(super) fn read(settings: &Settings, at: &str) -> Self {
        let key = |name: &str| format!("{at}.{name}");
        let enabled = settings.bool(&key("enabled"), true);
        let verification_mode = documented_word(
            settings,
            &key("verification_mode"),
            Verification::Full,
            &[
                ("full", Verification::Full),
                ("strict", Verification::Strict),
                ("certificate", Verification::Certificate),
                ("none", Verification::None),
            ],
            |word| format!("unknown verification mode '{word}'"),
        );
        let renegotiates = documented_word(
            settings,
            &key("renegotiation"),
            false,
            &[("never", false), ("once", true), ("freely", true)],
            |word| format!("invalid tls renegotiation type '{word}'"),
        );
        if enabled && renegotiates {
            let message =
                "not done: a server that asks to renegotiate is told no, and may end the connection";
            settings.warn(&key("renegotiation"), message, None);
        }
        if enabled && verification_mode == Verification::None {
            let message =
                "the server's certificate is not checked: anybody in between can read and change everything";
            settings.warn(
                &key("verification_mode"),
                message,
                Some("set it to full and name certificate_authorities"),
            );
        }
        let tls = Self {
            verification_mode,
            certificate_authorities: pem::many(settings, &key("certificate_authorities")),
            identity: Said::read(settings, at).pair(settings, at, false),
            offer: Offer::read(settings, at, &["TLSv1.2", "TLSv1.3"], enabled),
        };
        if enabled { tls } else { Self::default() }
    }
}

/// One of a few words, refused in the words of the documentation.
fn documented_word<T: Copy + PartialEq>(
    settings: &Settings,
    key: &str,
    default: T,
    words: &[(&'static str, T)],
    unknown: impl Fn(&str) -> String,
) -> T {
    let show = |v: &T| words.iter().find(|(_, t)| t == v).map_or("", |(word, _)| *word).to_owned();
    settings.field(key, default, show, |value| {
        let text = text(value).unwrap_or_default();
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, meaning)) => Ok(*meaning),
            None => Err(Expected::whole(unknown(&text))),
        }
    })
}
