//! Listening over real sockets: patience, room, orderly ends, and TLS.

use super::*;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tower::service_fn;

fn quick() -> Limits {
    Limits {
        connections: 2,
        header_time: Duration::from_millis(200),
        drain_time: Duration::from_millis(500),
        ..Limits::default()
    }
}

async fn start(limits: Limits) -> (String, Shutdown, tokio::task::JoinHandle<()>) {
    serve(Listener::bind("127.0.0.1:0", limits).await.unwrap())
}

fn serve(listener: Listener) -> (String, Shutdown, tokio::task::JoinHandle<()>) {
    let (address, shutdown) = (listener.address().to_string(), Shutdown::new());
    let service = service_fn(|request: Request<Incoming>| async move {
        if request.uri().path() == "/slow" {
            sleep(Duration::from_millis(150)).await;
        } else if request.uri().path() == "/never" {
            std::future::pending::<()>().await;
        }
        let version = format!("{:?}", request.version());
        let _ = request.into_body().collect().await;
        Ok(Response::new(Full::new(Bytes::from(version))))
    });
    let serving = tokio::spawn(listener.serve(service, shutdown.clone()));
    (address, shutdown, serving)
}

async fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

async fn get_owned(address: String, path: &'static str) -> String {
    get(&address, path).await
}

#[tokio::test]
async fn serves_http1_and_stops() {
    let (address, shutdown, serving) = start(quick()).await;
    assert!(get(&address, "/").await.ends_with("HTTP/1.1"));
    shutdown.cancel();
    serving.await.unwrap();
    assert!(TcpStream::connect(&address).await.is_err());
}

#[tokio::test]
async fn a_silent_connection_is_closed_and_makes_room() {
    let (address, _shutdown, _serving) = start(quick()).await;
    let mut silent =
        [TcpStream::connect(&address).await.unwrap(), TcpStream::connect(&address).await.unwrap()];
    // Half of an HTTP/2 preface is silence too.
    silent[1].write_all(b"PRI * HT").await.unwrap();
    assert!(get(&address, "/").await.ends_with("HTTP/1.1"), "no room was made");
    for stream in &mut silent {
        assert_eq!(stream.read(&mut [0; 64]).await.unwrap_or(0), 0);
    }
}

#[tokio::test]
async fn a_running_request_is_finished_after_shutdown() {
    let (address, shutdown, serving) = start(quick()).await;
    let request = tokio::spawn(get_owned(address.clone(), "/slow"));
    sleep(Duration::from_millis(50)).await;
    shutdown.cancel();
    assert!(request.await.unwrap().ends_with("HTTP/1.1"));
    serving.await.unwrap();
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_at_the_deadline() {
    let (address, shutdown, serving) = start(quick()).await;
    let request = tokio::spawn(get_owned(address.clone(), "/never"));
    sleep(Duration::from_millis(50)).await;
    shutdown.cancel();
    serving.await.unwrap();
    assert_eq!(request.await.unwrap(), "");
}

#[tokio::test]
async fn a_taken_port_is_an_error_with_a_hint() {
    let (address, _shutdown, _serving) = start(quick()).await;
    let error = Listener::bind(&address, quick()).await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot listen on {address}: ")));
    assert!(error.hint().is_some());
}

#[tokio::test]
async fn tls_is_served_and_its_handshake_is_bounded_and_counted() {
    use crate::net::tls::tests::{Authority, server};
    let ours = Authority::new("ours");
    let listener = Listener::bind("127.0.0.1:0", quick()).await.unwrap();
    let listener = listener.with_tls(&server(ours.issue(&["127.0.0.1"])), "ssl").unwrap();
    let metrics = Metrics::new();
    listener.show(&metrics);
    let (address, shutdown, serving) = serve(listener);
    // Silence, and somebody who does not speak TLS: neither keeps its place.
    let mut silent = TcpStream::connect(&address).await.unwrap();
    assert_eq!(get(&address, "/").await.find("HTTP/1.1 200"), None);
    assert_eq!(silent.read(&mut [0; 64]).await.unwrap_or(0), 0);

    let mut connector = crate::net::tls::Connector::http2(&ours.trusting(), "c").unwrap();
    let stream = connector.call(format!("https://{address}").parse().unwrap()).await.unwrap();
    let (mut send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let driving = tokio::spawn(connection);
    let request = Request::get(format!("https://{address}/")).body(Full::<Bytes>::default()).unwrap();
    let answer = send.send_request(request).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(answer.to_bytes(), "HTTP/2.0");
    drop(send);
    driving.await.unwrap().unwrap();
    shutdown.cancel();
    serving.await.unwrap();
    let page = metrics.prometheus();
    for line in
        ["connections_accepted_total 3", "connections_refused_total{reason=\"tls\"} 2", "connections 0"]
    {
        assert!(page.contains(&format!("everflame_{line}\n")), "{line} in\n{page}");
    }
}

#[tokio::test]
async fn a_path_is_served_like_a_port() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let (address, shutdown, serving) = serve(Listener::bind_path(&path, quick()).await.unwrap());
    assert_eq!(address, format!("unix://{}", path.display()));
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("HTTP/1.1"), "{answer}");
    shutdown.cancel();
    serving.await.unwrap();
    assert!(!path.exists());
}

#[test]
fn connections_share_what_they_may_take_together() {
    for bytes in [16 << 20, 125 << 20, 500 << 20, 8 << 30] {
        let limits = Limits::within(bytes);
        let worst = limits.connections as u64 * (u64::from(limits.window) + Limits::CONNECTION_BYTES);
        assert!(worst <= bytes && limits.connections >= 100, "{limits:?} of {bytes}");
    }
    assert_eq!(Limits::within(u64::MAX), Limits::default());
}
