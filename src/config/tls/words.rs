//! Words of TLS options, as they are documented for the original programs, and which of them this program can do.
//!
//! What cannot be done is said by name: a warning while something is left of a list, a mistake when nothing is.

use super::super::Settings;

/// A protocol version that a configuration may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// RFC 2246; not spoken.
    Tls10,
    /// RFC 4346; not spoken.
    Tls11,
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

impl Protocol {
    const NAMES: [(&'static str, Self); 5] = [
        ("TLSv1", Self::Tls10),
        ("TLSv1.0", Self::Tls10),
        ("TLSv1.1", Self::Tls11),
        ("TLSv1.2", Self::Tls12),
        ("TLSv1.3", Self::Tls13),
    ];

    fn is_spoken(self) -> bool {
        self >= Self::Tls12
    }
}

/// A group of the key exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// secp256r1.
    P256,
    /// secp384r1.
    P384,
    /// Curve25519.
    X25519,
}

/// Names of curves; `None` = known, not offered.
const CURVES: [(&str, Option<Curve>); 4] = [
    ("P-256", Some(Curve::P256)),
    ("P-384", Some(Curve::P384)),
    ("P-521", None),
    ("X25519", Some(Curve::X25519)),
];

/// A cipher suite that a configuration may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suite {
    /// Offered in TLS 1.2 under this name of the IANA registry.
    Tls12(&'static str),
    /// One of TLS 1.3, where suites are not configurable.
    Tls13,
    /// Without authenticated encryption or without an ephemeral key: not offered.
    Weak,
}

/// Documented names. `POLY1205` is how the original spells one of them.
const SUITES: [(&str, Suite); 27] = [
    ("ECDHE-ECDSA-AES-128-CBC-SHA", Suite::Weak),
    ("ECDHE-ECDSA-AES-128-CBC-SHA256", Suite::Weak),
    ("ECDHE-ECDSA-AES-128-GCM-SHA256", Suite::Tls12("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")),
    ("ECDHE-ECDSA-AES-256-CBC-SHA", Suite::Weak),
    ("ECDHE-ECDSA-AES-256-GCM-SHA384", Suite::Tls12("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384")),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", Suite::Tls12("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256")),
    ("ECDHE-ECDSA-RC4-128-SHA", Suite::Weak),
    ("ECDHE-RSA-3DES-CBC3-SHA", Suite::Weak),
    ("ECDHE-RSA-AES-128-CBC-SHA", Suite::Weak),
    ("ECDHE-RSA-AES-128-CBC-SHA256", Suite::Weak),
    ("ECDHE-RSA-AES-128-GCM-SHA256", Suite::Tls12("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256")),
    ("ECDHE-RSA-AES-256-CBC-SHA", Suite::Weak),
    ("ECDHE-RSA-AES-256-GCM-SHA384", Suite::Tls12("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384")),
    ("ECDHE-RSA-CHACHA20-POLY1205", Suite::Tls12("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256")),
    ("ECDHE-RSA-CHACHA20-POLY1305", Suite::Tls12("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256")),
    ("ECDHE-RSA-RC4-128-SHA", Suite::Weak),
    ("RSA-3DES-CBC3-SHA", Suite::Weak),
    ("RSA-AES-128-CBC-SHA", Suite::Weak),
    ("RSA-AES-128-CBC-SHA256", Suite::Weak),
    ("RSA-AES-128-GCM-SHA256", Suite::Weak),
    ("RSA-AES-256-CBC-SHA", Suite::Weak),
    ("RSA-AES-256-GCM-SHA384", Suite::Weak),
    ("RSA-RC4-128-SHA", Suite::Weak),
    ("TLS-AES-128-GCM-SHA256", Suite::Tls13),
    ("TLS-AES-256-GCM-SHA384", Suite::Tls13),
    ("TLS-CHACHA20-POLY1305-SHA256", Suite::Tls13),
    // Go names the suite of TLS 1.3 without its hash in some versions.
    ("TLS-CHACHA20-POLY1305", Suite::Tls13),
];

/// What of protocols, suites and curves both sides may agree on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Versions spoken; empty = all that this program has.
    pub protocols: Vec<Protocol>,
    /// Suites of TLS 1.2 by their names in the IANA registry; `None` = all that this program has.
    pub suites: Option<Vec<&'static str>>,
    /// Groups of the key exchange, preferred first; empty = all that this program has.
    pub curves: Vec<Curve>,
}

impl Offer {
    /// Reads the three lists below `at`. With `used` false only unknown words are told.
    pub(super) fn read(settings: &Settings, at: &str, default_protocols: &[&str], used: bool) -> Self {
        let protocols = protocols(settings, &format!("{at}.supported_protocols"), default_protocols, used);
        let (protocols, suites) = suites(settings, &format!("{at}.cipher_suites"), protocols, used);
        Self { protocols, suites, curves: curves(settings, &format!("{at}.curve_types"), used) }
    }
}

/// Everything from the lowest to the highest version named, of what is spoken.
fn protocols(settings: &Settings, key: &str, default: &[&str], used: bool) -> Vec<Protocol> {
    let names = settings.list(key, default);
    let mut named = Vec::new();
    for name in &names {
        let Some((_, protocol)) = Protocol::NAMES.iter().find(|(known, _)| known == name) else {
            let known: Vec<_> = Protocol::NAMES.iter().map(|(known, _)| *known).collect();
            settings.problem(key, format!("expected {}, found \"{name}\"", known.join(", ")), None);
            return Vec::new();
        };
        named.push(*protocol);
    }
    let (Some(lowest), Some(highest)) = (named.iter().min(), named.iter().max()) else { return Vec::new() };
    let spoken: Vec<_> =
        [Protocol::Tls12, Protocol::Tls13].into_iter().filter(|p| (lowest..=highest).contains(&p)).collect();
    let silent: Vec<&str> = names
        .iter()
        .zip(&named)
        .filter(|(_, protocol)| !protocol.is_spoken())
        .map(|(name, _)| name.as_str())
        .collect();
    if used && spoken.is_empty() {
        let message = format!("expected TLSv1.2 or TLSv1.3 among them, found only {}", silent.join(", "));
        settings.problem(key, message, Some("older versions are broken and not spoken (RFC 8996)".into()));
    } else if used && settings.has(key) && !silent.is_empty() {
        settings.warn(key, &format!("not spoken: {}", silent.join(", ")), None);
    }
    spoken
}

fn suites(
    settings: &Settings,
    key: &str,
    protocols: Vec<Protocol>,
    used: bool,
) -> (Vec<Protocol>, Option<Vec<&'static str>>) {
    let names = settings.list(key, &[]);
    if names.is_empty() {
        return (protocols, None);
    }
    let (mut offered, mut fixed, mut weak) = (Vec::new(), Vec::new(), Vec::new());
    for name in &names {
        match SUITES.iter().find(|(known, _)| known == name).map(|(_, suite)| *suite) {
            Some(Suite::Tls12(suite)) => offered.push(suite),
            Some(Suite::Tls13) => fixed.push(name.as_str()),
            Some(Suite::Weak) => weak.push(name.as_str()),
            None => {
                settings.problem(key, format!("invalid tls cipher suite '{name}'"), None);
                return (protocols, None);
            }
        }
    }
    if !used {
        return (protocols, None);
    }
    if !protocols.is_empty() && !protocols.contains(&Protocol::Tls12) {
        settings.warn(key, "has no effect: cipher suites are not configurable for TLS 1.3", None);
        return (protocols, None);
    }
    if offered.is_empty() && (fixed.is_empty() || protocols == [Protocol::Tls12]) {
        let message =
            format!("expected a suite that can be offered in TLS 1.2, found only {}", names.join(", "));
        let hint = "name one with ECDHE and GCM or CHACHA20, such as ECDHE-RSA-AES-256-GCM-SHA384";
        settings.problem(key, message, Some(hint.into()));
        return (protocols, None);
    }
    if !weak.is_empty() {
        let why = "only suites with ephemeral keys and authenticated encryption are";
        settings.warn(key, &format!("not offered: {} ({why})", weak.join(", ")), None);
    }
    if offered.is_empty() {
        settings.warn(key, "no suite of TLS 1.2 is named, so only TLS 1.3 is spoken", None);
        return (vec![Protocol::Tls13], None);
    }
    (protocols, Some(offered))
}

fn curves(settings: &Settings, key: &str, used: bool) -> Vec<Curve> {
    let names = settings.list(key, &[]);
    let (mut offered, mut missing) = (Vec::new(), Vec::new());
    for name in &names {
        match CURVES.iter().find(|(known, _)| known == name) {
            Some((_, Some(curve))) => offered.push(*curve),
            Some((_, None)) => missing.push(name.as_str()),
            None => {
                settings.problem(key, format!("invalid tls curve type '{name}'"), None);
                return Vec::new();
            }
        }
    }
    if used && offered.is_empty() && !missing.is_empty() {
        let message =
            format!("expected P-256, P-384 or X25519 among them, found only {}", missing.join(", "));
        settings.problem(key, message, None);
    } else if used && !missing.is_empty() {
        settings.warn(key, &format!("not offered: {}", missing.join(", ")), None);
    }
    offered
}
