//! The client against servers that answer as told, byte by byte.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::config::Secret;

/// What a server does with a request.
#[derive(Clone, Copy)]
enum Does {
    /// Sends these bytes.
    Answers(&'static str),
    /// Closes the connection without a word.
    Cuts,
    /// Never answers.
    Hangs,
}

/// A server of one behaviour, and the requests it has read.
struct Scripted {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

#[derive(Clone, Debug)]
struct Request {
    head: String,
    body: Vec<u8>,
}

const FINE: &str = "HTTP/1.1 200 OK\r\nX-elastic-product: Elasticsearch\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{\"ok\":true}";

async fn server(does: Does) -> Scripted {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = requests.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let seen = seen.clone();
            tokio::spawn(async move {
                while let Some(request) = read(&mut stream).await {
                    seen.lock().push(request);
                    match does {
                        Does::Answers(bytes) => stream.write_all(bytes.as_bytes()).await.unwrap(),
                        Does::Cuts => return,
                        Does::Hangs => std::future::pending().await,
                    }
                }
            });
        }
    });
    Scripted { address, requests }
}

/// One request with a length, or nothing when the other side has closed.
async fn read(stream: &mut tokio::net::TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&buffer[..read]);
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).to_ascii_lowercase();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = bytes.split_off(head_end);
    let have = body.len();
    body.resize(length, 0);
    stream.read_exact(&mut body[have.min(length)..]).await.ok()?;
    Some(Request { head, body })
}

fn settings(hosts: &[&str]) -> ElasticsearchOutput {
    ElasticsearchOutput {
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        timeout: Duration::from_secs(10),
        ..ElasticsearchOutput::default()
    }
}

fn client(hosts: &[&str]) -> Client {
    Client::new(&settings(hosts)).unwrap()
}

async fn get(client: &Client) -> Result<Value, CallError> {
    client.json(Method::GET, "_cluster/health", None).await
}

#[tokio::test]
async fn hosts_take_turns_and_a_dead_one_is_left_out() {
    let (first, second) = (server(Does::Answers(FINE)).await, server(Does::Answers(FINE)).await);
    let dead = "127.0.0.1:1";
    let client = client(&[&first.address, dead, &second.address]);
    for _ in 0..12 {
        assert_eq!(get(&client).await.unwrap()["ok"], true);
    }
    let counts = [first.requests.lock().len(), second.requests.lock().len()];
    assert_eq!(counts.iter().sum::<usize>(), 12);
    assert!(counts.iter().all(|count| *count >= 4), "{counts:?}");
}

#[tokio::test]
async fn when_nobody_answers_each_host_is_named() {
    let error = get(&client(&["127.0.0.1:1", "127.0.0.1:2"])).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("127.0.0.1:1: ") && text.contains("127.0.0.1:2: "), "{text}");
    assert!(text.contains("refused") && error.is_retryable() && error.hint().is_some(), "{text}");
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_given_up() {
    let silent = server(Does::Hangs).await;
    let output = ElasticsearchOutput { timeout: Duration::from_millis(300), ..settings(&[&silent.address]) };
    let error = get(&Client::new(&output).unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("no answer in time"), "{error}");
}

#[tokio::test]
async fn only_calls_that_may_run_twice_are_repeated_elsewhere() {
    for (path, repeated) in [("_bulk", true), ("x/_search?size=1", true), ("_security/api_key", false)] {
        let (cut, fine) = (server(Does::Cuts).await, server(Does::Answers(FINE)).await);
        let client = client(&[&cut.address, &fine.address]);
        // Whichever is asked first: two calls reach both.
        let calls = [
            client.send(Method::POST, path, "application/json", "{}".as_bytes()).await.is_ok(),
            client.send(Method::POST, path, "application/json", "{}".as_bytes()).await.is_ok(),
        ];
        assert_eq!(calls.iter().all(|fine| *fine), repeated, "{path}: {calls:?}");
    }
}

#[tokio::test]
async fn others_are_not_taken_for_elasticsearch() {
    let nginx = "HTTP/1.1 200 OK\r\nserver: nginx\r\ncontent-length: 5\r\n\r\nhello";
    let error = get(&client(&[&server(Does::Answers(nginx)).await.address])).await.unwrap_err();
    assert!(
        matches!(&error, CallError::NotElasticsearch { found, .. } if found.contains("nginx")),
        "{error}"
    );
    let redirect = "HTTP/1.1 301 Moved\r\nlocation: /login\r\ncontent-length: 0\r\n\r\n";
    let error = get(&client(&[&server(Does::Answers(redirect)).await.address])).await.unwrap_err();
    assert!(matches!(error, CallError::NotElasticsearch { .. }), "{error}");
    let error =
        get(&client(&[&server(Does::Answers("SSH-2.0-OpenSSH_9\r\n")).await.address])).await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable(_)), "{error}");
}

#[tokio::test]
async fn an_old_elasticsearch_is_told_by_its_version() {
    let old = "HTTP/1.1 200 OK\r\ncontent-length: 89\r\n\r\n{\"cluster_name\":\"c\",\"version\":{\"number\":\"6.8.23\"},\"tagline\":\"You Know, for Search\"}       ";
    let error = get(&client(&[&server(Does::Answers(old)).await.address])).await.unwrap_err();
    assert!(matches!(&error, CallError::TooOld { found, .. } if found == "6.8.23"), "{error}");
}

#[tokio::test]
async fn an_error_says_type_reason_and_pause() {
    let busy = "HTTP/1.1 429 Too Many Requests\r\nX-elastic-product: Elasticsearch\r\nretry-after: 7\r\ncontent-length: 76\r\n\r\n{\"error\":{\"type\":\"circuit_breaking_exception\",\"reason\":\"full\"},\"status\":429}";
    let error = get(&client(&[&server(Does::Answers(busy)).await.address])).await.unwrap_err();
    let CallError::Refused { status, kind, reason, retry_after, .. } = &error else { panic!("{error}") };
    assert_eq!((*status, kind.as_str(), reason.as_str()), (429, "circuit_breaking_exception", "full"));
    assert_eq!(*retry_after, Some(Duration::from_secs(7)));
    assert_eq!(error.cause(), Some(Cause::Busy));
    // A load balancer in front answers in its own way.
    let away = "HTTP/1.1 503 Service Unavailable\r\nserver: nginx\r\ncontent-length: 4\r\n\r\noops";
    let error = get(&client(&[&server(Does::Answers(away)).await.address])).await.unwrap_err();
    assert_eq!(error.cause(), Some(Cause::Busy), "{error}");
}

#[tokio::test]
async fn requests_carry_key_headers_path_and_packed_bodies() {
    let fine = server(Does::Answers(FINE)).await;
    let body = "{\"create\":{}}\n".repeat(20_000);
    for (key, sent) in [("id:key", "apikey awq6a2v5"), ("ZW5jb2RlZA==", "apikey zw5jb2rlza==")] {
        let output = ElasticsearchOutput {
            api_key: Some(Secret::new(key.into())),
            headers: [("X-Team".to_owned(), Secret::new("blue".into()))].into(),
            path: Some("/below".into()),
            compression_level: 5,
            ..settings(&[&fine.address])
        };
        let client = Client::new(&output).unwrap();
        client.send(Method::POST, "_bulk", "application/x-ndjson", body.clone()).await.unwrap();
        let request = fine.requests.lock().pop().unwrap();
        for line in [
            "post /below/_bulk http/1.1",
            "content-type: application/x-ndjson",
            "content-encoding: gzip",
            "x-team: blue",
            sent,
        ] {
            assert!(request.head.contains(line), "{line} in {}", request.head);
        }
        assert!(request.body.len() < body.len() / 10);
        let mut unpacked = String::new();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&request.body[..]), &mut unpacked)
            .unwrap();
        assert_eq!(unpacked, body);
        assert!(!format!("{client:?}").to_ascii_lowercase().contains(sent), "the key was printed");
    }
}

#[tokio::test]
async fn a_proxy_is_asked_instead_of_the_host() {
    let proxy = server(Does::Answers(FINE)).await;
    let output = ElasticsearchOutput {
        // Without a scheme, as documented.
        proxy_url: Some(Secret::new(proxy.address.clone())),
        ..settings(&["es.invalid:9200"])
    };
    get(&Client::new(&output).unwrap()).await.unwrap();
    let head = proxy.requests.lock()[0].head.clone();
    assert!(head.starts_with("get http://es.invalid:9200/_cluster/health http/1.1"), "{head}");
    let disabled = ElasticsearchOutput { proxy_disable: true, ..output };
    let error = get(&Client::new(&disabled).unwrap()).await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable(_)), "{error}");
    assert_eq!(proxy.requests.lock().len(), 1);
}

#[test]
fn settings_that_cannot_be_used_are_told() {
    let fails = |output: ElasticsearchOutput| Client::new(&output).unwrap_err().to_string();
    let hosts = settings(&["http://"]);
    assert!(fails(hosts).starts_with("output.elasticsearch.hosts: "));
    let key = ElasticsearchOutput { api_key: Some(Secret::new("a\nb".into())), ..settings(&["es"]) };
    assert_eq!(fails(key), "output.elasticsearch.api_key: found a character that HTTP headers cannot hold");
    let proxy = ElasticsearchOutput { proxy_url: Some(Secret::new("http://[".into())), ..settings(&["es"]) };
    assert!(fails(proxy).starts_with("output.elasticsearch.proxy_url: "));
}
