//! The common name of a certificate without alternative names: what servers of old are known by.
//!
//! Reads only the outline of a certificate that the library has parsed already; anything unexpected is "not known".

use std::net::IpAddr;

use rustls::pki_types::{IpAddr as PkiIpAddr, ServerName};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT: u8 = 0x06;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// 2.5.29.17
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];

/// What a certificate says about names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// Last common name of the subject, when it is text.
    pub(super) common: Option<String>,
    /// Whether it has the extension for alternative names.
    pub(super) alternative: bool,
}

impl Names {
    /// Reads a certificate in DER.
    pub(super) fn read(certificate: &[u8]) -> Option<Self> {
        let mut outer = Der(Der(certificate).expect(SEQUENCE)?);
        let mut tbs = Der(outer.expect(SEQUENCE)?);
        if tbs.next()?.0 == VERSION {
            tbs.next()?;
        }
        // The serial number was just taken; then come signature, issuer and validity.
        for _ in 0..3 {
            tbs.expect(SEQUENCE)?;
        }
        let common = common_name(tbs.expect(SEQUENCE)?);
        let mut alternative = false;
        while let Some((tag, value)) = tbs.next() {
            if tag == EXTENSIONS {
                let mut extensions = Der(Der(value).expect(SEQUENCE)?);
                while let Some((SEQUENCE, extension)) = extensions.next() {
                    alternative |= Der(extension).expect(OBJECT)? == ALTERNATIVE_NAMES;
                }
            }
        }
        Some(Self { common, alternative })
    }

    /// Whether the common name is the server's name or, for host names, a pattern with `*` as its first label.
    pub(super) fn common_is(&self, server: &ServerName<'_>) -> bool {
        let Some(common) = &self.common else { return false };
        match server {
            ServerName::DnsName(name) => {
                let name = name.as_ref();
                let by_pattern = common.strip_prefix("*.").zip(name.split_once('.'));
                common.eq_ignore_ascii_case(name)
                    || by_pattern.is_some_and(|(common, (_, rest))| common.eq_ignore_ascii_case(rest))
            }
            ServerName::IpAddress(address) => {
                let address = match address {
                    PkiIpAddr::V4(v4) => IpAddr::from(*v4.as_ref()),
                    PkiIpAddr::V6(v6) => IpAddr::from(*v6.as_ref()),
                };
                common.parse() == Ok(address)
            }
            _ => false,
        }
    }
}

fn common_name(subject: &[u8]) -> Option<String> {
    let (mut sets, mut found) = (Der(subject), None);
    while let Some((SET, set)) = sets.next() {
        let mut attributes = Der(set);
        while let Some((SEQUENCE, attribute)) = attributes.next() {
            let mut attribute = Der(attribute);
            if attribute.expect(OBJECT)? == COMMON_NAME {
                // UTF8String, PrintableString, TeletexString, IA5String.
                found = match attribute.next()? {
                    (0x0c | 0x13 | 0x14 | 0x16, text) => std::str::from_utf8(text).ok().map(str::to_owned),
                    _ => None,
                };
            }
        }
    }
    found
}

/// Values one behind the other, each with a tag of one byte and a definite length.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let mut length = usize::from(first);
        if first >= 0x80 {
            let digits = usize::from(first & 0x7f);
            let (bytes, after) = rest.split_at_checked(digits)?;
            if digits == 0 || digits > 4 {
                return None;
            }
            length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            rest = after;
        }
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, value))
    }

    fn expect(&mut self, expected: u8) -> Option<&'a [u8]> {
        self.next().filter(|(tag, _)| *tag == expected).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_bytes_are_not_known_and_never_a_panic() {
        let certificate = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap().cert;
        let der = certificate.der();
        assert!(Names::read(der).unwrap().alternative);
        for end in 0..der.len() {
            let _ = Names::read(&der[..end]);
            let mut changed = der.to_vec();
            changed[end] ^= 0xff;
            let _ = Names::read(&changed);
        }
        assert_eq!(Names::read(&[0x30, 0x80]), None);
        assert_eq!(Names::read(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }

    #[test]
    fn common_names_match_as_host_names_do() {
        for (common, server, expected) in [
            ("es.example", "es.example", true),
            ("ES.example", "es.EXAMPLE", true),
            ("*.example", "es.example", true),
            ("*.example", "a.b.example", false),
            ("*", "example", false),
            ("es", "es.example", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("::1", "::1", true),
            ("", "es", false),
        ] {
            let names = Names { common: Some(common.into()), alternative: false };
            assert_eq!(
                names.common_is(&ServerName::try_from(server).unwrap()),
                expected,
                "{common} for {server}"
            );
        }
    }
}
