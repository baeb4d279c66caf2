//! The program itself: the documented file, an agent that samples this machine, a real Elasticsearch behind.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use tempfile::TempDir;

use crate::elasticsearch::{Cluster, DEADLINE, Kind, free_port, http, wait_until};

const TOKEN: &str = "a-token-of-our-choice";

/// A process of ours with its log; killed when dropped.
struct Program {
    child: Child,
    log: std::path::PathBuf,
}

impl Program {
    fn start(folder: &Path, name: &str, arguments: &[&str]) -> Self {
        let link = folder.join(name);
        if !link.exists() {
            symlink(env!("CARGO_BIN_EXE_everflame"), &link).unwrap();
        }
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let child = Command::new(link)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Asks it to stop and gives its exit code.
    fn stop(&mut self) -> Option<i32> {
        let status = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status();
        assert!(status.unwrap().success());
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(start.elapsed() < DEADLINE, "it does not stop\n{}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("--- {} ---\n{}", self.log.display(), self.log());
        }
    }
}

/// The documented file with another host and token, and nothing else.
fn documented_file(folder: &Path, elasticsearch: &str) -> String {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/pf-elastic-collector.yml"))
            .unwrap();
    let changed = text
        .replace("hosts: [\"localhost:9200\"]", &format!("hosts: [\"{elasticsearch}\"]"))
        .replace("secret_token: \"\"", &format!("secret_token: \"{TOKEN}\""));
    assert!(changed.contains(elasticsearch) && changed.contains(TOKEN), "the sample has changed");
    let path = folder.join("pf-elastic-collector.yml");
    std::fs::write(&path, changed).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Whether this process may load BPF.
fn may_profile() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = capabilities.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    let wanted = (1 << 39) | (1 << 38) | (1 << 19);
    let allowed = capabilities & wanted == wanted;
    if !allowed {
        crate::cannot_run::cannot_run(
            "an agent before a collector",
            "needs CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE (run as root)",
        );
    }
    allowed
}

/// The number after ` key=` in the last line that has it.
fn number(log: &str, key: &str) -> Option<u64> {
    let key = format!(" {key}=");
    let (_, rest) = log.rsplit_once(&key)?;
    rest.split(char::is_whitespace).next()?.parse().ok()
}

#[test]
fn samples_of_this_machine_reach_elasticsearch_through_the_documented_file() {
    let Some(cluster) = Cluster::take("agent, collector and Elasticsearch", Kind::Basic) else { return };
    if !may_profile() {
        return;
    }
    cluster.set_up_by_elastic();
    let folder = TempDir::new().unwrap();
    let file = documented_file(folder.path(), &cluster.url());
    let address = format!("127.0.0.1:{}", free_port());
    let host = format!("pf-elastic-collector.host={address}");
    let mut collector = Program::start(folder.path(), "pf-elastic-collector", &["-c", &file, "-E", &host]);
    wait_until("the collector to be ready", || {
        http::get(&address, "/ready").is_ok_and(|answer| answer.status == 200)
    });
    let mut agent = Program::start(
        folder.path(),
        "pf-host-agent",
        &[
            "-config=/dev/null",
            "-disable-tls",
            &format!("-secret-token={TOKEN}"),
            &format!("-collection-agent={address}"),
        ],
    );
    wait_until("events", || cluster.count("profiling-events-all") > 200);
    assert_eq!(agent.stop(), Some(0), "{}", agent.log());
    assert_eq!(collector.stop(), Some(0), "{}", collector.log());
    let stored = number(&agent.log(), "stored").unwrap_or_else(|| panic!("no balance\n{}", agent.log()));
    let counts = ["events-all", "stacktraces", "stackframes", "executables"]
        .map(|name| cluster.count(&format!("profiling-{name}")));
    println!("agent: {stored} samples stored; Elasticsearch: {counts:?}");
    assert_eq!(counts[0], stored, "what the agent was told is stored, and what is stored");
    assert!(counts[1..].iter().all(|count| *count > 0), "{counts:?}");
    assert!(!collector.log().contains("log.level=error"), "{}", collector.log());
}

#[test]
fn a_collector_starts_without_elasticsearch_and_says_so_once() {
    let folder = TempDir::new().unwrap();
    let file = documented_file(folder.path(), "http://127.0.0.1:1");
    let address = format!("127.0.0.1:{}", free_port());
    let host = format!("pf-elastic-collector.host={address}");
    let mut collector = Program::start(folder.path(), "pf-elastic-collector", &["-c", &file, "-E", &host]);
    wait_until("the collector to live", || {
        http::get(&address, "/live").is_ok_and(|answer| answer.status == 200)
    });
    wait_until("the reason", || collector.log().contains("cannot be reached"));
    let answer = http::get(&address, "/ready").unwrap();
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.body.contains("127.0.0.1:1"), "{}", answer.body);
    assert_eq!(collector.stop(), Some(0), "{}", collector.log());
    let told = collector.log().matches("Elasticsearch does not take documents").count();
    assert_eq!(told, 1, "{}", collector.log());
}
