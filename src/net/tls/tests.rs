//! Both sides over real sockets: every mode of verification, and every way in which two sides do not fit.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair as Key};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::config::{KeyPair, PemSource, Secret, Verification};
use crate::net::handshake_problem;

/// Signs certificates for one test.
pub(crate) struct Authority {
    issuer: Issuer<'static, Key>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = Key::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub(crate) fn issue(&self, names: &[&str]) -> KeyPair {
        self.issue_with(names, |_| {})
    }

    pub(crate) fn issue_with(&self, names: &[&str], change: impl Fn(&mut CertificateParams)) -> KeyPair {
        let key = Key::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        pair(&certificate.pem(), &key.serialize_pem())
    }

    /// A server that shows `identity`, with this authority for clients.
    fn clients(&self, identity: KeyPair, client_authentication: ClientAuthentication) -> ServerTls {
        let certificate_authorities = vec![PemSource::new(&self.pem)];
        ServerTls { certificate_authorities, client_authentication, ..server(identity) }
    }

    /// A client that trusts this authority only.
    pub(crate) fn trusting(&self) -> ClientTls {
        ClientTls { certificate_authorities: vec![PemSource::new(&self.pem)], ..ClientTls::default() }
    }
}

pub(crate) fn pair(certificate: &str, key: &str) -> KeyPair {
    KeyPair {
        certificate: PemSource::new(certificate),
        key: PemSource::new(key),
        passphrase: None,
        passphrase_path: None,
    }
}

pub(crate) fn server(identity: KeyPair) -> ServerTls {
    ServerTls { enabled: true, identity: Some(identity), ..ServerTls::default() }
}

/// Lets both sides shake hands and exchange a byte each way. What each of them got to say about it.
async fn meet(
    server: &ServerTls,
    client: &ClientTls,
    name: &str,
) -> (Result<(), String>, Result<(), String>) {
    let acceptor = tokio_rustls::TlsAcceptor::from(server_config(server, "s").unwrap());
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client_config(client, "c").unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        let mut stream = acceptor.accept(stream).await?;
        let byte = stream.read_u8().await?;
        stream.write_u8(byte).await?;
        stream.shutdown().await
    });
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connecting = async {
        let stream = TcpStream::connect(address).await?;
        let mut stream = connector.connect(name, stream).await?;
        stream.write_u8(7).await?;
        assert_eq!(stream.read_u8().await?, 7);
        std::io::Result::Ok(())
    };
    let told = connecting.await.map_err(|error| {
        let told =
            handshake_problem(&error).map(|problem| format!(" / {} / {}", problem.message, problem.hint));
        format!("{error}{}", told.unwrap_or_default())
    });
    (told, serving.await.unwrap().map_err(|error| error.to_string()))
}

/// `expected` is empty for success, else a part of what the client is told.
async fn check(server: &ServerTls, client: &ClientTls, name: &str, expected: &str) {
    let (told, _) = meet(server, client, name).await;
    match told {
        Ok(()) => assert_eq!(expected, "", "{name} with {client:?} was let through"),
        Err(told) => {
            assert!(!expected.is_empty() && told.contains(expected), "{told}, expected {expected:?}");
        }
    }
}

const MODES: [Verification; 4] =
    [Verification::Full, Verification::Strict, Verification::Certificate, Verification::None];

#[tokio::test]
async fn each_mode_checks_what_it_says() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let good = ours.issue(&["es.example", "127.0.0.1"]);
    let expired = ours.issue_with(&["es.example"], |p| p.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let early = ours.issue_with(&["es.example"], |p| p.not_before = rcgen::date_time_ymd(2900, 1, 1));
    let nameless = ours.issue_with(&[], |p| p.distinguished_name.push(DnType::CommonName, "es.example"));
    let foreign = other.issue(&["es.example"]);
    let (dates, clock, trust) = ("expired", "not valid yet", "UnknownIssuer");
    let (name, strict) = ("not valid for name", "no alternative names");
    // Outcomes of full, strict, certificate, none.
    for (what, identity, asked, outcomes) in [
        ("good", &good, "es.example", ["", "", "", ""]),
        ("good by address", &good, "127.0.0.1", ["", "", "", ""]),
        ("wrong name", &good, "kibana.example", [name, name, "", ""]),
        ("wrong address", &good, "127.0.0.2", [name, name, "", ""]),
        ("expired", &expired, "es.example", [dates, dates, dates, ""]),
        ("not yet valid", &early, "es.example", [clock, clock, clock, ""]),
        ("other authority", &foreign, "es.example", [trust, trust, trust, ""]),
        ("common name only", &nameless, "es.example", ["", strict, "", ""]),
        ("wrong common name", &nameless, "kibana.example", [name, strict, "", ""]),
    ] {
        for (mode, expected) in MODES.into_iter().zip(outcomes) {
            println!("{what}, {mode:?}");
            let client = ClientTls { verification_mode: mode, ..ours.trusting() };
            check(&server(identity.clone()), &client, asked, expected).await;
        }
    }
}

#[tokio::test]
async fn failures_come_with_a_cure() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let server = server(ours.issue(&["es.example"]));
    check(&server, &other.trusting(), "es.example", "/ name the certificate of its authority").await;
    check(&server, &ours.trusting(), "x.example", "/ use the name that the certificate holds").await;
}

#[tokio::test]
async fn a_self_signed_authority_is_trusted_when_it_is_named() {
    let key = Key::generate().unwrap();
    let mut params = CertificateParams::new(["es.example".to_owned()]).unwrap();
    // What `openssl req -x509` makes.
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let old = params.self_signed(&key).unwrap().pem();
    let trusting =
        |pem: &str| ClientTls { certificate_authorities: vec![PemSource::new(pem)], ..ClientTls::default() };
    let server_with = |pem: &str| server(pair(pem, &key.serialize_pem()));
    check(&server_with(&pem), &trusting(&pem), "es.example", "").await;
    check(&server_with(&pem), &trusting(&pem), "x.example", "not valid for name").await;
    check(&server_with(&old), &trusting(&old), "es.example", "expired").await;
    let unrelated = Authority::new("unrelated").pem;
    assert!(meet(&server_with(&pem), &trusting(&unrelated), "es.example").await.0.is_err());
}

#[tokio::test]
async fn clients_are_asked_for_certificates_as_said() {
    use ClientAuthentication::{None, Optional, Required};
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let server_identity = ours.issue(&["es.example"]);
    let showing = |identity: Option<KeyPair>| ClientTls { identity, ..ours.trusting() };
    for (mode, shown, accepted) in [
        (None, Option::None, true),
        (None, Some(other.issue(&["agent"])), true),
        (Optional, Option::None, true),
        (Optional, Some(ours.issue(&["agent"])), true),
        (Optional, Some(other.issue(&["agent"])), false),
        (Required, Option::None, false),
        (Required, Some(ours.issue(&["agent"])), true),
        (Required, Some(other.issue(&["agent"])), false),
    ] {
        let told = format!("{mode:?}, certificate shown: {}", shown.is_some());
        let server = ours.clients(server_identity.clone(), mode);
        let (client, serving) = meet(&server, &showing(shown), "es.example").await;
        assert_eq!(
            (client.is_ok(), serving.is_ok()),
            (accepted, accepted),
            "{told}: {client:?}, {serving:?}"
        );
        if mode == Required && !accepted && client.as_ref().is_err_and(|e| e.contains("CertificateRequired"))
        {
            assert!(client.unwrap_err().contains("set ssl.certificate and ssl.key"));
        }
    }
}

#[tokio::test]
async fn both_sides_must_share_protocol_suite_and_curve() {
    let ours = Authority::new("ours");
    let identity = ours.issue(&["es.example"]);
    let offer = |protocols: &[Protocol], suites: Option<&'static str>, curves: &[Curve]| Offer {
        protocols: protocols.to_vec(),
        suites: suites.map(|suite| vec![suite]),
        curves: curves.to_vec(),
    };
    let (tls12, tls13) = (&[Protocol::Tls12][..], &[Protocol::Tls13][..]);
    let gcm = Some("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256");
    let chacha = Some("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256");
    let no_share = "check ssl.";
    for (of_server, of_client, expected) in [
        (offer(tls12, None, &[]), offer(tls12, None, &[]), ""),
        (offer(tls13, None, &[]), offer(tls13, None, &[]), ""),
        (offer(tls12, None, &[]), offer(&[], None, &[]), ""),
        (offer(tls12, None, &[]), offer(tls13, None, &[]), no_share),
        (offer(tls13, None, &[]), offer(tls12, None, &[]), no_share),
        (offer(tls12, gcm, &[]), offer(tls12, gcm, &[]), ""),
        (offer(tls12, gcm, &[]), offer(tls12, chacha, &[]), no_share),
        // Suites of TLS 1.3 are not configurable.
        (offer(&[], gcm, &[]), offer(tls13, chacha, &[]), ""),
        (offer(&[], None, &[Curve::P384]), offer(&[], None, &[Curve::P384, Curve::X25519]), ""),
        (offer(&[], None, &[Curve::P384]), offer(&[], None, &[Curve::X25519]), no_share),
        (offer(&[], None, &[Curve::P256]), offer(tls12, None, &[Curve::X25519, Curve::P256]), ""),
    ] {
        println!("{of_server:?} with {of_client:?}");
        let server = ServerTls { offer: of_server, ..server(identity.clone()) };
        let client = ClientTls { offer: of_client, ..ours.trusting() };
        check(&server, &client, "es.example", expected).await;
    }
}

#[tokio::test]
async fn without_authorities_those_of_the_system_count() {
    let ours = Authority::new("ours");
    let server = server(ours.issue(&["es.example"]));
    // Whatever this machine trusts, it is not an authority made a moment ago.
    match client_config(&ClientTls::default(), "c") {
        Ok(_) => check(&server, &ClientTls::default(), "es.example", "UnknownIssuer").await,
        Err(error) => assert!(matches!(error, TlsError::NoRoots { .. }) && error.hint().is_some(), "{error}"),
    }
}

#[tokio::test]
async fn a_side_without_tls_is_named() {
    let ours = Authority::new("ours");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    let mut connector = Connector::http2(&ours.trusting(), "c").unwrap();
    let uri = format!("https://{address}").parse().unwrap();
    let error = tower::Service::call(&mut connector, uri).await.map(|_| ()).unwrap_err();
    let problem = handshake_problem(&error).expect("a failed handshake");
    assert_eq!(problem.message, "the server does not speak TLS");
    serving.await.unwrap();
}

fn data(name: &str) -> String {
    format!("{}/tests/data/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A server with a key of `tests/data/tls`.
fn with_key(name: &str, passphrase: Option<&str>) -> Result<Arc<ServerConfig>, TlsError> {
    let plain = std::fs::read_to_string(data("plain.pem")).unwrap();
    let key = Key::from_pem(&plain).unwrap();
    let certificate = CertificateParams::new(["es.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let mut pair = pair(&certificate.pem(), &data(name));
    pair.passphrase = passphrase.map(|text| Secret::new(text.to_owned()));
    server_config(&server(pair), "ssl")
}

#[test]
fn keys_with_a_passphrase_open_with_it_only() {
    let right = Some("correct horse");
    for name in ["plain.pem", "pbes2.pem", "scrypt.pem"] {
        with_key(name, right).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    with_key("plain.pem", None).unwrap();
    for (name, passphrase, problem, cure) in [
        ("pbes2.pem", None, "the key is encrypted and no passphrase is set", "key_passphrase_path"),
        ("pbes2.pem", Some("wrong"), "the passphrase does not open the key", ""),
        ("scrypt.pem", Some(""), "the passphrase does not open the key", ""),
        ("triple-des.pem", right, "the encryption of the key is not supported", "openssl pkcs8 -topk8"),
        ("legacy.pem", right, "the key is encrypted in the old PEM way", "openssl pkcs8 -topk8"),
        ("README.md", right, "no PEM blocks", ""),
    ] {
        let error = with_key(name, passphrase).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(&format!("ssl.key: {}: {problem}", data(name))), "{text}");
        assert!(error.hint().unwrap_or_default().contains(cure), "{:?}", error.hint());
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passphrase");
    std::fs::write(&path, "correct horse\n").unwrap();
    let plain = std::fs::read_to_string(data("plain.pem")).unwrap();
    let key = Key::from_pem(&plain).unwrap();
    let certificate = CertificateParams::new(["es.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let mut pair = pair(&certificate.pem(), &data("pbes2.pem"));
    pair.passphrase_path = Some(path.display().to_string());
    server_config(&server(pair.clone()), "ssl").unwrap();
    pair.passphrase_path = Some("/nonexistent".into());
    let error = server_config(&server(pair), "ssl").unwrap_err();
    assert!(error.to_string().starts_with("ssl.key_passphrase_path: cannot read /nonexistent: "), "{error}");
}

#[test]
fn what_is_no_certificate_and_no_key_is_said_in_documented_words_without_its_text() {
    let ours = Authority::new("ours");
    let good = ours.issue(&["a"]);
    let other_key = ours.issue(&["a"]).key;
    let PemSource::Inline(key_text) = &good.key else { panic!("inline") };
    let key_text = key_text.reveal().clone();
    let cut = key_text[..key_text.len() / 2].to_owned();
    let broken = key_text.replacen("\nM", "\n*M", 1);
    for (pair, expected) in [
        (pair("-", &key_text), "ssl.certificate: PEM REDACTED: no PEM blocks"),
        (pair(&key_text, &key_text), "ssl.certificate: PEM REDACTED: file is not a certificate"),
        (pair("/nonexistent.pem", &key_text), "ssl.certificate: cannot read /nonexistent.pem: "),
        (
            KeyPair { key: good.certificate.clone(), ..good.clone() },
            "ssl.key: PEM REDACTED: expected a private key",
        ),
        (
            KeyPair { key: PemSource::new(&cut), ..good.clone() },
            "ssl.key: PEM REDACTED: a PEM block has no end",
        ),
        (
            KeyPair { key: PemSource::new(&broken), ..good.clone() },
            "ssl.key: PEM REDACTED: a PEM block is not base64",
        ),
        (KeyPair { key: other_key, ..good.clone() }, "ssl.key: does not belong to the certificate"),
    ] {
        let error = server_config(&server(pair), "ssl").unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.starts_with(expected), "{text}, expected {expected}");
        let secret = key_text.lines().nth(1).unwrap();
        assert!(!text.contains(&secret[..16]), "{text}");
    }
    assert!(!format!("{good:?}").contains("BEGIN"));
    let error = server_config(&ServerTls { identity: None, ..server(good) }, "ssl").unwrap_err();
    assert_eq!(error.to_string(), "ssl.certificate: certificate file not configured");
}

#[test]
fn every_suite_and_curve_that_a_file_may_name_is_one_that_the_library_has() {
    let yaml = "pf-elastic-collector.ssl:\n  enabled: true\n  certificate: c\n  key: k\n  \
                supported_protocols: [TLSv1.2, TLSv1.3]\n  \
                cipher_suites: [ECDHE-ECDSA-AES-128-GCM-SHA256, ECDHE-ECDSA-AES-256-GCM-SHA384, \
                ECDHE-ECDSA-CHACHA20-POLY1305, ECDHE-RSA-AES-128-GCM-SHA256, ECDHE-RSA-AES-256-GCM-SHA384, \
                ECDHE-RSA-CHACHA20-POLY1205]\n  curve_types: [X25519, P-384, P-256]\n";
    let settings =
        crate::config::Layers::new(crate::config::Environment::default()).yaml("a.yml", yaml).settings();
    let tls = crate::config::resolve::<crate::config::CollectorSection>(&settings).unwrap().tls;
    assert_eq!(tls.offer.suites.as_ref().map(Vec::len), Some(6));
    let all = ring::default_provider();
    let chosen = provider(&tls.offer);
    assert_eq!(chosen.cipher_suites, all.cipher_suites);
    assert_eq!(chosen.kx_groups.len(), all.kx_groups.len());
}
