//! Strangers who want our memory, our connections or our log: what they get, what it is called, what stays bounded.

use std::io::Read as _;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;

use super::*;

/// A collector whose exports may hold `bytes`, and the budget itself.
async fn with_budget(bytes: u64) -> (Running, Budget) {
    let budget = Budget::new(bytes);
    let shared = budget.clone();
    (start_with("", |config| config.budget = shared, Duration::from_secs(30)).await, budget)
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waited = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), waited).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn bombs_are_refused_for_good_when_they_never_fit_and_for_now_when_others_hold_the_memory() {
    let zeros = vec![0; 30 << 20];
    let bombs = [("gzip", gzip(&zeros)), ("zstd", zstd::encode_all(&zeros[..], 19).unwrap())];
    let (running, budget) = with_budget(16 << 20).await;
    for (encoding, bomb) in &bombs {
        let headers = [PROTOBUF, ("content-encoding", encoding)];
        let (status, head, body) = running.http("POST", EXPORT, &headers, bomb).await;
        assert_eq!(status, 413, "{}", String::from_utf8_lossy(&body));
        assert!(!head.contains("retry-after"), "{head}");
        assert!(String::from_utf8_lossy(&body).contains("in 16777216 bytes of memory"));
    }
    let error = running.client("", Compression::Zstd).send(zeros.clone().into()).await.unwrap_err();
    assert!(!error.is_retryable(), "{error}");
    assert_eq!(running.count(Counter::TooLarge), 3);

    // The same bombs in a collector that is busy with other exports.
    let (running, busy) = with_budget(300 << 20).await;
    let others = busy.claim(290 << 20).unwrap();
    for (encoding, bomb) in &bombs {
        let headers = [PROTOBUF, ("content-encoding", encoding)];
        let (status, head, _) = running.http("POST", EXPORT, &headers, bomb).await;
        assert_eq!(status, 429);
        assert!(head.contains("retry-after: 1"), "{head}");
    }
    let error = running.client("", Compression::Zstd).send(zeros.into()).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(running.count(Counter::NoRoom), 3);
    assert_eq!(busy.used(), 290 << 20);
    // When the others are done, an honest export gets through.
    drop(others);
    running.client("", Compression::Gzip).send(capture().into()).await.unwrap();
    assert_eq!((budget.used(), busy.used()), (0, 0));
    let page = running.metrics.prometheus();
    assert!(page.contains("everflame_collector_requests_refused_total{reason=\"memory\"} 3"), "{page}");
    assert!(page.contains("grpc_server_handled_total{grpc_code=\"ResourceExhausted\"} 1"), "{page}");
}

#[tokio::test]
async fn a_dictionary_that_would_explode_when_decoded_is_refused_before_it_does() {
    // Locations of two bytes each: a table entry takes many times that.
    let dictionary = [0x12, 0x00].repeat(2 << 20);
    let mut message = vec![0x12];
    let mut length = dictionary.len();
    while length >= 0x80 {
        message.push(length as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend(dictionary);
    let (running, budget) = with_budget(64 << 20).await;
    let packed = gzip(&message);
    assert!(packed.len() < 32 << 10);
    let headers = [PROTOBUF, ("content-encoding", "gzip")];
    let (status, ..) = running.http("POST", EXPORT, &headers, &packed).await;
    assert_eq!((status, running.count(Counter::TooLarge)), (413, 1));
    assert_eq!(budget.used(), 0);
    // With room enough for the worst, the limits of decoding decide.
    let (running, budget) = with_budget(1 << 30).await;
    let (status, ..) = running.http("POST", EXPORT, &headers, &packed).await;
    assert!([200, 400].contains(&status), "{status}");
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn senders_of_a_byte_at_a_time_are_ended_and_hold_up_nobody() {
    let running = start_with("", |_| {}, Duration::from_millis(1500)).await;
    let slow: Vec<_> = (0..64)
        .map(|_| {
            let address = running.address.clone();
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let head = format!(
                    "POST {EXPORT} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                     content-type: application/x-protobuf\r\ncontent-length: 100000\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                let (mut read, mut write) = stream.into_split();
                let dripping = tokio::spawn(async move {
                    while write.write_all(&[0]).await.is_ok() {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                });
                let mut answer = Vec::new();
                let _ = read.read_to_end(&mut answer).await;
                dripping.abort();
                String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned()
            })
        })
        .collect();
    // While they drip, others are served.
    running.client("", Compression::Gzip).send(capture().into()).await.unwrap();
    assert_eq!(running.count(Counter::Late), 0);
    for slow in slow {
        assert_eq!(slow.await.unwrap(), "HTTP/1.1 408");
    }
    assert_eq!(running.count(Counter::Late), 64);
}

#[tokio::test]
async fn ten_thousand_wrong_tokens_are_refused_unread() {
    let running = start("secret16chars").await;
    let request = format!(
        "POST {EXPORT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer guess\r\n\
         content-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n"
    );
    let senders: Vec<_> = (0..10)
        .map(|_| {
            let (address, request) = (running.address.clone(), request.clone());
            tokio::spawn(async move {
                let stream = TcpStream::connect(address).await.unwrap();
                let (mut read, mut write) = stream.into_split();
                let writing = tokio::spawn(async move {
                    for _ in 0..1000 {
                        write.write_all(request.as_bytes()).await.unwrap();
                    }
                    write
                });
                let mut refused = 0;
                let mut answers = Vec::new();
                while refused < 1000 {
                    let mut part = [0; 8192];
                    let count = read.read(&mut part).await.unwrap();
                    assert!(count > 0, "ended after {refused}");
                    answers.extend_from_slice(&part[..count]);
                    refused = answers.windows(12).filter(|window| window == b"HTTP/1.1 401").count();
                }
                drop(writing.await);
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    assert_eq!((running.count(Counter::Unauthorized), running.count(Counter::BatchesReceived)), (10_000, 0));
    // The one with the token is served as ever.
    running.client("secret16chars", Compression::Gzip).send(capture().into()).await.unwrap();
}

fn open_connections(running: &Running) -> u64 {
    let page: serde_json::Value = serde_json::from_str(&running.metrics.json()).unwrap();
    page["everflame_connections"].as_u64().unwrap()
}

/// How many connections this process may have with both of their ends, after asking for more.
fn most_connections() -> usize {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: before.maximum, maximum: before.maximum };
    let _ = setrlimit(Resource::Nofile, raised);
    let now = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // Other tests of this process need some too.
    (now.saturating_sub(500) / 2) as usize
}

#[tokio::test]
async fn five_thousand_connections_wait_their_turn() {
    let wanted = 5000.min(most_connections());
    if wanted < 5000 {
        println!("scaled down to {wanted} connections: the limit on open files allows no more");
    }
    let room = wanted / 2;
    let limit = |config: &mut Config| {
        config.limits.connections = room;
        config.limits.header_time = Duration::from_secs(2);
    };
    let running = start_with("", limit, Duration::from_secs(30)).await;
    let mut strangers = Vec::new();
    for _ in 0..wanted {
        // The queue of the kernel is shorter than what waits: take them as they get in.
        match tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(&running.address)).await {
            Ok(stream) => strangers.push(stream.unwrap()),
            Err(_) => break,
        }
    }
    assert!(strangers.len() >= room, "{} of {wanted}", strangers.len());
    assert!(open_connections(&running) <= room as u64);
    // The silent ones are closed one after the other, and an honest sender gets its turn among them.
    let options = ClientOptions {
        address: running.address.clone(),
        connect_time: Duration::from_mins(1),
        export_time: Duration::from_mins(1),
        ..ClientOptions::default()
    };
    Client::new(&options).unwrap().send(capture().into()).await.unwrap();
    drop(strangers);
    until("all strangers gone", || open_connections(&running) <= 1).await;
    let page = running.metrics.prometheus();
    assert!(page.contains("everflame_connections_refused_total{reason=\"silent\"}"), "{page}");
}

/// Bytes that our client sends for one small export over gRPC.
async fn bytes_of_an_export() -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let client = Client::new(&ClientOptions {
        address,
        compression: Compression::None,
        export_time: Duration::from_millis(700),
        ..ClientOptions::default()
    });
    let sending = tokio::spawn(async move { client.unwrap().send(Bytes::from(small_export())).await });
    let (mut stream, _) = listener.accept().await.unwrap();
    // The settings frame of a server, and nothing more: enough for the client to send everything.
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    while let Ok(Ok(count @ 1..)) = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut part)).await
    {
        bytes.extend_from_slice(&part[..count]);
    }
    assert!(sending.await.unwrap().is_err());
    bytes
}

/// An export without a profile.
fn small_export() -> Vec<u8> {
    vec![0x0a, 0x00]
}

#[tokio::test]
async fn a_connection_cut_at_each_byte_leaves_nothing_behind() {
    let (running, budget) = with_budget(64 << 20).await;
    let http = {
        let mut request = format!(
            "POST {EXPORT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: 2\r\n\r\n"
        )
        .into_bytes();
        request.extend(small_export());
        request
    };
    let grpc = bytes_of_an_export().await;
    assert!(grpc.starts_with(b"PRI * HTTP/2.0") && grpc.len() > 100, "{} bytes", grpc.len());
    for request in [&http, &grpc] {
        for end in 0..request.len() {
            let mut stream = std::net::TcpStream::connect(&running.address).unwrap();
            std::io::Write::write_all(&mut stream, &request[..end]).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            // Half of them wait for the answer, if there is one; the others are gone at once.
            if end % 2 == 0 {
                let waiting = tokio::task::spawn_blocking(move || {
                    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                    let _ = stream.read_to_end(&mut Vec::new());
                });
                if end % 32 == 0 {
                    waiting.await.unwrap();
                }
            }
        }
    }
    running.client("", Compression::Gzip).send(capture().into()).await.unwrap();
    until("memory is given back", || budget.used() == 0).await;
    // The client above keeps its own.
    until("connections are gone", || open_connections(&running) <= 1).await;
    assert_eq!(running.count(Counter::BatchesMalformed), 0);
    assert!(running.count(Counter::Cut) > 0);
    println!("cut: {}, received: {}", running.count(Counter::Cut), running.count(Counter::BatchesReceived));
}

#[tokio::test]
async fn exports_over_tls_arrive_and_plain_ones_do_not() {
    use crate::net::tls::{Connector, tests};
    let ours = tests::Authority::new("ours");
    let tls = tests::server(ours.issue(&["127.0.0.1"]));
    let running = start_with("secret16chars", |config| config.tls = Some(tls), Duration::from_secs(30)).await;
    let protect = |client: &crate::config::ClientTls| {
        let connect = tower::ServiceBuilder::new()
            .map_response(|stream| Box::pin(stream) as crate::wire::otlp::Protected)
            .map_err(Into::into)
            .service(Connector::http2(client, "c").unwrap());
        crate::wire::otlp::Connect::new(connect)
    };
    let send = async |connect| {
        let (address, token) = (running.address.clone(), "secret16chars".to_owned());
        let options = ClientOptions { address, connect, token, ..ClientOptions::default() };
        Client::new(&options).unwrap().send(capture().into()).await
    };
    send(Some(protect(&ours.trusting()))).await.unwrap();
    assert_eq!(running.count(Counter::BatchesWritten), 1);
    let error = send(Some(protect(&tests::Authority::new("other").trusting()))).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("UnknownIssuer"), "{error}");
    assert!(send(None).await.is_err());
    assert_eq!(running.count(Counter::BatchesReceived), 1);
}
