//! The collector as a process of its own: TLS from the agent on, pages of metrics, memory that stays bounded, a log
//! that strangers cannot fill.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;

use crate::http;
use crate::scene::{DEADLINE, may_profile, program, signal};

/// Secret of the scenes.
const TOKEN: &str = "secret16charslong";
const EXPORT: &str = "/v1development/profiles";

/// A collector on the embedded store, with a page of metrics on a socket of its folder. Killed when dropped.
struct Collector {
    child: Option<Child>,
    folder: TempDir,
    address: String,
}

impl Collector {
    fn start(folder: TempDir, arguments: &[&str]) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        drop(listener);
        let at = |name: &str| folder.path().join(name).display().to_string();
        let log = File::create(at("log")).expect("a log");
        let child = Command::new(program())
            .arg("collector")
            .args(["-E", &format!("pf-elastic-collector.host={address}")])
            .args(["-E", &format!("pf-elastic-collector.auth.secret_token={TOKEN}")])
            .args(["-E", &format!("pf-elastic-collector.metrics.expvar_host=unix://{}", at("metrics.sock"))])
            .args(["-E", &format!("output.embedded.data_dir={}", at("data"))])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("everflame starts");
        let mut collector = Self { child: Some(child), folder, address };
        collector.wait("its metrics", |c| c.metrics().is_some());
        collector
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("metrics.sock")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn wait(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            let child = self.child.as_mut().expect("a running process");
            if let Some(status) = child.try_wait().expect("the child's state") {
                panic!("the collector ended with {status} while waiting for {what}\n{}", self.log());
            }
            assert!(start.elapsed() < DEADLINE, "{what} took longer than {DEADLINE:?}\n{}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// The page in JSON, once it is there.
    fn metrics(&self) -> Option<Value> {
        let mut stream = UnixStream::connect(self.socket()).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    fn number(&self, name: &str) -> u64 {
        self.metrics().and_then(|page| page[name].as_u64()).unwrap_or(0)
    }

    fn post(&self, token: &str, encoding: &str, body: &[u8]) -> http::Answer {
        let bearer = format!("Bearer {token}");
        let headers = [
            ("Host", "x"),
            ("Content-Type", "application/x-protobuf"),
            ("Authorization", &*bearer),
            ("Content-Encoding", encoding),
        ];
        http::request(&self.address, "POST", EXPORT, &headers, body).expect("an answer")
    }

    /// Most memory that the process ever had, in bytes.
    fn peak_memory(&self) -> u64 {
        let pid = self.child.as_ref().expect("a running process").id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        line.split_whitespace().next().and_then(|kb| kb.parse::<u64>().ok()).expect("a number") << 10
    }

    fn stop(&mut self) {
        let mut child = self.child.take().expect("a running process");
        signal(child.id(), "TERM");
        let status = child.wait().expect("an end");
        assert!(status.success(), "the collector ended with {status}\n{}", self.log());
        assert!(!self.socket().exists(), "the socket of the metrics is still there");
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            println!("--- log of the collector ---\n{}", self.log());
        }
    }
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).and_then(|()| encoder.finish()).expect("memory")
}

/// A dictionary of `count` empty locations: two bytes each on the wire, many in memory.
fn dictionary(count: usize) -> Vec<u8> {
    let mut length = 2 * count;
    let mut message = vec![0x12];
    while length >= 0x80 {
        message.push(length as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend([0x12, 0x00].repeat(count));
    message
}

#[test]
fn memory_and_log_stay_bounded_whatever_is_sent() {
    const LIMIT: u64 = 320 << 20;
    let limit = format!("pf-elastic-collector.memory_limit={}M", LIMIT >> 20);
    let folder = TempDir::new().expect("a temporary folder");
    // Left behind by a collector that was killed.
    drop(std::os::unix::net::UnixListener::bind(folder.path().join("metrics.sock")).expect("a stale socket"));
    let mut collector = Collector::start(folder, &["-E", &limit]);
    println!("at rest: {} MiB", collector.peak_memory() >> 20);

    for _ in 0..10_000 / 20 {
        // Twenty at a time over fresh connections, as a fleet with an old token would.
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| assert_eq!(collector.post("old", "identity", b"").status, 401));
            }
        });
    }
    assert_eq!(collector.number("everflame_collector_requests_refused_total.token"), 10_000);
    let told = collector.log().lines().filter(|line| line.contains("authentication failed")).count();
    assert!((1..=5).contains(&told), "{told} lines for 10,000 wrong tokens\n{}", collector.log());

    let zeros = vec![0; 31 << 20];
    let bombs = [
        ("gzip", gzip(&zeros)),
        ("zstd", zstd::encode_all(&zeros[..], 3).expect("packed")),
        ("gzip", gzip(&dictionary(1 << 20))),
        ("zstd", zstd::encode_all(&dictionary(12 << 20)[..], 3).expect("packed")),
    ];
    drop(zeros);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/otlp/c/request-001.otlp.pb");
    let honest = std::fs::read(path).expect("a captured request");
    let (mut accepted, mut busy) = (0, 0);
    for round in 0..10 {
        let statuses = std::thread::scope(|scope| {
            let sending: Vec<_> = (0..24)
                .map(|number| {
                    let (bombs, honest, collector) = (&bombs, &honest, &collector);
                    scope.spawn(move || match number % 6 {
                        at @ 0..4 => (false, collector.post(TOKEN, bombs[at].0, &bombs[at].1).status),
                        _ => (true, collector.post(TOKEN, "identity", honest).status),
                    })
                })
                .collect();
            sending.into_iter().map(|sender| sender.join().expect("an answer")).collect::<Vec<_>>()
        });
        for (is_honest, status) in statuses {
            match (is_honest, status) {
                (true, 200) => accepted += 1,
                // The memory is held by bombs; the sender comes back after the pause it is told.
                (_, 429) => busy += 1,
                (true, _) => panic!("round {round}: an honest export got {status}\n{}", collector.log()),
                // A whole, if senseless, dictionary is an export without samples.
                (false, status) => assert!([200, 400, 413].contains(&status), "{status}"),
            }
        }
    }
    let peak = collector.peak_memory();
    println!(
        "at most {} of {} MiB; {accepted} honest exports taken, {busy} asked to come back",
        peak >> 20,
        LIMIT >> 20
    );
    assert!(peak <= LIMIT, "{peak} bytes, allowed are {LIMIT}\n{}", collector.log());
    assert_eq!(collector.post(TOKEN, "identity", &honest).status, 200);
    collector.wait("the memory to be given back", |c| c.number("everflame_memory_used_bytes") == 0);
    assert!(collector.log().lines().count() < 60, "a long log\n{}", collector.log());
    collector.stop();
}

#[test]
fn an_agent_reports_over_tls_that_an_override_switched_on() {
    if !may_profile("an_agent_reports_over_tls_that_an_override_switched_on") {
        return;
    }
    let folder = TempDir::new().expect("a temporary folder");
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let certificate = write("cert.pem", &own.cert.pem());
    let key = write("key.pem", &own.signing_key.serialize_pem());
    let file = write(
        "pf-elastic-collector.yml",
        &format!(
            "pf-elastic-collector:\n  ssl:\n    enabled: false\n    certificate: '{certificate}'\n    key: '{key}'\n"
        ),
    );
    let switch = "pf-elastic-collector.ssl.enabled=true";
    let mut collector = Collector::start(folder, &["-c", &file, "-E", switch]);
    // In plain text, nobody answers.
    let plain = http::get(&collector.address, "/live");
    assert!(plain.is_err() || plain.is_ok_and(|answer| answer.status != 200));

    let address = collector.address.clone();
    let agent = |trusted: Option<&str>| {
        let mut command = Command::new(program());
        command.args(["agent", "-config", "/dev/null", "-collection-agent", &address]);
        command.args(["-secret-token", TOKEN, "-reporter-interval", "1s"]);
        if let Some(path) = trusted {
            command.env("SSL_CERT_FILE", path);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("everflame starts")
    };
    let mut stranger = agent(None);
    collector.wait("a handshake that fails", |c| c.number("everflame_connections_refused_total.tls") > 1);
    signal(stranger.id(), "TERM");
    let mut told = String::new();
    stranger.stderr.take().expect("piped").read_to_string(&mut told).expect("text");
    stranger.wait().expect("an end");
    assert_eq!(collector.number("everflame_collector_samples_written_total"), 0);
    assert!(told.contains("not trusted") && told.contains("SSL_CERT_FILE"), "{told}");

    let mut friend = agent(Some(&certificate));
    collector.wait("samples", |c| c.number("everflame_collector_samples_written_total") > 0);
    signal(friend.id(), "TERM");
    let mut told = String::new();
    friend.stderr.take().expect("piped").read_to_string(&mut told).expect("text");
    assert!(friend.wait().expect("an end").success(), "{told}");
    let page = collector.metrics().expect("a page");
    assert!(page["grpc_server_handled_total.OK"].as_u64() > Some(0), "{page:#}");
    assert!(page["grpc_server_handling_seconds.count"].as_u64() > Some(0), "{page:#}");
    collector.stop();
}
