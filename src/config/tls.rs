//! TLS sections: what was said about certificates. Nothing is opened here.

use super::{Secret, Settings};

/// `ssl` of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerTls {
    /// Serve TLS.
    pub enabled: bool,
    /// Certificate chain: path or inline PEM.
    pub certificate: Option<String>,
    /// Private key: path or inline PEM.
    pub key: Option<String>,
    /// Passphrase of the key.
    pub key_passphrase: Option<Secret>,
    /// Protocol versions, `TLSv1.0` to `TLSv1.3`.
    pub supported_protocols: Vec<String>,
    /// Cipher suites by their configured names; empty = the library's choice.
    pub cipher_suites: Vec<String>,
    /// Key exchange curves; empty = the library's choice.
    pub curve_types: Vec<String>,
}

const PROTOCOLS: [&str; 5] = ["TLSv1", "TLSv1.0", "TLSv1.1", "TLSv1.2", "TLSv1.3"];
const CURVES: [&str; 4] = ["P-256", "P-384", "P-521", "X25519"];

impl ServerTls {
    /// Reads the section at `at` (for example `pf-elastic-collector.ssl`).
    pub(super) fn read(settings: &Settings, at: &str, protocols: &[&str]) -> Self {
        let key = |name: &str| format!("{at}.{name}");
        let tls = Self {
            enabled: settings.bool(&key("enabled"), false),
            certificate: settings.optional_text(&key("certificate")),
            key: settings.optional_text(&key("key")),
            key_passphrase: settings.secret(&key("key_passphrase")),
            supported_protocols: choices(settings, &key("supported_protocols"), protocols, &PROTOCOLS),
            cipher_suites: settings.list(&key("cipher_suites"), &[]),
            curve_types: choices(settings, &key("curve_types"), &[], &CURVES),
        };
        if tls.enabled || tls.certificate.is_some() || tls.key.is_some() {
            pair(settings, at, tls.certificate.is_some(), tls.key.is_some(), tls.enabled);
        }
        tls
    }
}

/// How far a server's certificate is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verification {
    /// Chain and name.
    #[default]
    Full,
    /// As full, and a certificate without alternative names is refused.
    Strict,
    /// Chain only.
    Certificate,
    /// Nothing.
    None,
}

/// `ssl` of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Whether the section's settings count; `None` when not said.
    pub enabled: bool,
    /// How far the server's certificate is checked.
    pub verification_mode: Verification,
    /// Trusted roots: paths or inline PEM; empty = the system's.
    pub certificate_authorities: Vec<String>,
    /// Client certificate.
    pub certificate: Option<String>,
    /// Client key.
    pub key: Option<String>,
    /// Passphrase of the key.
    pub key_passphrase: Option<Secret>,
    /// Protocol versions.
    pub supported_protocols: Vec<String>,
    /// Cipher suites.
    pub cipher_suites: Vec<String>,
    /// Curves.
    pub curve_types: Vec<String>,
    /// `never`, `once` or `freely`.
    pub renegotiation: String,
}

impl ClientTls {
    pub(super) fn read(settings: &Settings, at: &str) -> Self {
        let key = |name: &str| format!("{at}.{name}");
        let tls = Self {
            enabled: settings.bool(&key("enabled"), true),
            verification_mode: settings.word(
                &key("verification_mode"),
                Verification::Full,
                &[
                    ("full", Verification::Full),
                    ("strict", Verification::Strict),
                    ("certificate", Verification::Certificate),
                    ("none", Verification::None),
                ],
            ),
            certificate_authorities: settings.list(&key("certificate_authorities"), &[]),
            certificate: settings.optional_text(&key("certificate")),
            key: settings.optional_text(&key("key")),
            key_passphrase: settings.secret(&key("key_passphrase")),
            supported_protocols: choices(
                settings,
                &key("supported_protocols"),
                &["TLSv1.2", "TLSv1.3"],
                &PROTOCOLS,
            ),
            cipher_suites: settings.list(&key("cipher_suites"), &[]),
            curve_types: choices(settings, &key("curve_types"), &[], &CURVES),
            renegotiation: settings
                .word(
                    &key("renegotiation"),
                    "never",
                    &[("never", "never"), ("once", "once"), ("freely", "freely")],
                )
                .to_owned(),
        };
        if tls.certificate.is_some() || tls.key.is_some() {
            pair(settings, at, tls.certificate.is_some(), tls.key.is_some(), false);
        }
        tls
    }
}

/// Certificate and key come together or not at all.
fn pair(settings: &Settings, at: &str, certificate: bool, key: bool, needed: bool) {
    if !certificate && (key || needed) {
        settings.problem(&format!("{at}.certificate"), "certificate file not configured".into(), None);
    }
    if !key && (certificate || needed) {
        settings.problem(&format!("{at}.key"), "key file not configured".into(), None);
    }
}

fn choices(settings: &Settings, key: &str, default: &[&str], allowed: &[&str]) -> Vec<String> {
    let chosen = settings.list(key, default);
    for choice in &chosen {
        if !allowed.contains(&choice.as_str()) {
            settings.problem(key, format!("expected {}, found \"{choice}\"", allowed.join(", ")), None);
        }
    }
    chosen
}
