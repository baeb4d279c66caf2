//! Certificates and keys from files and from text.

use std::fs::File;
use std::io::{self, Read as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pkcs8::EncryptedPrivateKeyInfoRef;
use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::TlsError;
use crate::config::{KeyPair, PemSource};

/// A bundle of all public authorities is 250 KiB.
const MOST_BYTES: u64 = 8 << 20;
const BEGIN: &str = "-----BEGIN ";
const BEGIN_ENCRYPTED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
const END_ENCRYPTED: &str = "-----END ENCRYPTED PRIVATE KEY-----";
const CONVERT: &str = "convert it: openssl pkcs8 -topk8 -v2 aes-256-cbc -in OLD.pem -out NEW.pem";

/// Chain and key of one side.
pub(super) fn identity(
    pair: &KeyPair,
    section: &str,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let chain = certificates(&pair.certificate, section, "certificate")?;
    let passphrase = match (&pair.passphrase, &pair.passphrase_path) {
        (Some(passphrase), _) => Some(passphrase.reveal().clone()),
        (None, Some(path)) => {
            let text = read_file(path, section, "key_passphrase_path")?;
            // Editors end the line; a passphrase does not hold one.
            Some(text.trim_end_matches(['\r', '\n']).to_owned())
        }
        (None, None) => None,
    };
    Ok((chain, private_key(&pair.key, passphrase.as_deref(), section)?))
}

/// Trusted authorities, and each of their certificates as it is.
pub(super) fn roots(
    sources: &[PemSource],
    section: &str,
) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), TlsError> {
    const NAME: &str = "certificate_authorities";
    let (mut store, mut all) = (RootCertStore::empty(), Vec::new());
    if sources.is_empty() {
        let found = rustls_native_certs::load_native_certs();
        let (added, _) = store.add_parsable_certificates(found.certs);
        if added == 0 {
            let problem =
                found.errors.first().map_or_else(|| "none is installed".into(), ToString::to_string);
            return Err(TlsError::NoRoots { section: section.to_owned(), problem });
        }
    }
    for source in sources {
        for certificate in certificates(source, section, NAME)? {
            store.add(certificate.clone()).map_err(|error| {
                TlsError::content(section, NAME, Some(source), format!("file is not a certificate: {error}"))
            })?;
            all.push(certificate);
        }
    }
    Ok((store, all))
}

fn certificates(
    source: &PemSource,
    section: &str,
    name: &str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let content = |problem: &str| TlsError::content(section, name, Some(source), problem);
    let text = read(source, section, name)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match found {
        Err(error) => Err(content(broken(&error))),
        Ok(found) if found.is_empty() && !text.contains(BEGIN) => Err(content("no PEM blocks")),
        Ok(found) if found.is_empty() => Err(content("file is not a certificate")),
        Ok(found) => Ok(found),
    }
}

fn private_key(
    source: &PemSource,
    passphrase: Option<&str>,
    section: &str,
) -> Result<PrivateKeyDer<'static>, TlsError> {
    let content = |problem: &str| TlsError::content(section, "key", Some(source), problem);
    let text = read(source, section, "key")?;
    if let Some(body) = text.split_once(BEGIN_ENCRYPTED).map(|(_, rest)| rest) {
        let body = body.split_once(END_ENCRYPTED).ok_or_else(|| content("the PEM block has no end"))?.0;
        let Some(passphrase) = passphrase else {
            return Err(content("the key is encrypted and no passphrase is set")
                .with_hint("set key_passphrase or key_passphrase_path"));
        };
        return decrypt(body, passphrase).map_err(|(problem, hint)| {
            let error = content(problem);
            if let Some(hint) = hint { error.with_hint(hint) } else { error }
        });
    }
    if text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(content(
            "the key is encrypted in the old PEM way, which derives its key from one round of MD5",
        )
        .with_hint(CONVERT));
    }
    match PrivateKeyDer::from_pem_slice(text.as_bytes()) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) if !text.contains(BEGIN) => Err(content("no PEM blocks")),
        Err(pem::Error::NoItemsFound) => Err(content("expected a private key, found other PEM blocks only")),
        Err(error) => Err(content(broken(&error))),
    }
}

/// PKCS#8 with a passphrase: PBES2, as OpenSSL has written it by default since 1.1.
fn decrypt(
    body: &str,
    passphrase: &str,
) -> Result<PrivateKeyDer<'static>, (&'static str, Option<&'static str>)> {
    let base64: String = body.split_whitespace().collect();
    let der = STANDARD.decode(base64).map_err(|_| ("the PEM block is not base64", None))?;
    let info = EncryptedPrivateKeyInfoRef::try_from(&der[..])
        .map_err(|_| ("the encryption of the key is not supported", Some(CONVERT)))?;
    match info.decrypt(passphrase) {
        Ok(key) => Ok(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into()),
        Err(pkcs8::Error::EncryptedPrivateKey(
            pkcs8::pkcs5::Error::UnsupportedAlgorithm { .. }
            | pkcs8::pkcs5::Error::NoPbes1CryptSupport
            | pkcs8::pkcs5::Error::AlgorithmParametersInvalid { .. },
        )) => Err(("the encryption of the key is not supported", Some(CONVERT))),
        // Nonsense that happens to be padded well fails later than the rest of wrong passphrases.
        Err(_) => Err(("the passphrase does not open the key", None)),
    }
}

fn read(source: &PemSource, section: &str, name: &str) -> Result<String, TlsError> {
    match source {
        PemSource::Inline(text) => Ok(text.reveal().clone()),
        PemSource::File(path) => read_file(&path.display().to_string(), section, name),
    }
}

fn read_file(path: &str, section: &str, name: &str) -> Result<String, TlsError> {
    let failed = |source| TlsError::Read { key: format!("{section}.{name}"), path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(failed(io::Error::other(format!("expected at most {MOST_BYTES} bytes, found more"))));
    }
    // Text around the blocks may be in any encoding; the blocks are ASCII.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The library's errors quote what they found, which may be a part of a key.
fn broken(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a PEM block has no end",
        pem::Error::IllegalSectionStart { .. } => "a PEM block begins with a broken line",
        pem::Error::SectionTooLarge => "a PEM block is too large",
        _ => "a PEM block is not base64",
    }
}
