//! What is said when the certificate of Elasticsearch is wrong, over real handshakes.

use std::sync::Arc;

use everflame::config::{ClientTls, ElasticsearchOutput, PemSource, Verification};
use everflame::store::elastic::{CallError, Client};
use http::Method;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nX-elastic-product: Elasticsearch\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";

/// An authority with the PEM of its certificate.
fn authority(name: &str) -> (Issuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

/// A server with a certificate for `name`; its port.
async fn server(issuer: &Issuer<'static, KeyPair>, name: &str, expired: bool) -> u16 {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    if expired {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    }
    let certificate = params.signed_by(&key, issuer).unwrap().pem();
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Handshakes that fail are what this is about.
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(ANSWER).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    port
}

async fn ask(port: u16, authority: &str, mode: Verification) -> Result<(), CallError> {
    let tls = ClientTls {
        verification_mode: mode,
        certificate_authorities: vec![PemSource::new(authority)],
        ..ClientTls::default()
    };
    let output = ElasticsearchOutput {
        hosts: vec![format!("https://localhost:{port}")],
        tls,
        ..ElasticsearchOutput::default()
    };
    let client = Client::new(&output).unwrap();
    client.json(Method::GET, "/", None).await.map(drop)
}

#[tokio::test]
async fn each_wrong_certificate_has_its_own_sentence_and_cure() {
    let (ours, pem) = authority("ours");
    let (_, theirs) = authority("theirs");
    let good = server(&ours, "localhost", false).await;
    let expired = server(&ours, "localhost", true).await;
    let renamed = server(&ours, "elsewhere.example", false).await;
    ask(good, &pem, Verification::Full).await.unwrap();
    for (port, authority, sentence, cure) in [
        (expired, &pem, "has expired", "renew"),
        (good, &theirs, "not trusted", "certificate_authorities"),
        (renamed, &pem, "not for localhost", "verification_mode"),
    ] {
        let error = ask(port, authority, Verification::Full).await.unwrap_err();
        let hint = error.hint().unwrap_or_default();
        assert!(matches!(error, CallError::Tls { .. }), "{error}");
        assert!(error.to_string().contains(sentence), "{sentence}: {error}");
        assert!(hint.contains(cure), "{cure}: {hint}");
        assert!(error.is_retryable());
    }
    ask(renamed, &pem, Verification::Certificate).await.unwrap();
    for port in [expired, renamed] {
        ask(port, &theirs, Verification::None).await.unwrap();
    }
}

#[tokio::test]
async fn a_server_without_tls_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let error = ask(port, &authority("ours").1, Verification::Full).await.unwrap_err();
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
}
