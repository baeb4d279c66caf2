//! One everflame process with its own store and ports.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a condition may take before the scene fails.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// A running everflame with its folder. Killed when dropped; on a panic the log is printed.
pub(crate) struct Scene {
    child: Option<Child>,
    /// Folder of the scene: `data`, `log`.
    pub(crate) folder: TempDir,
    /// Address of the page, `127.0.0.1:port`.
    pub(crate) web: String,
    /// Address for OTLP.
    pub(crate) collector: String,
}

/// Path of the program under test.
pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_everflame"))
}

/// Whether this process may load BPF. Says why not, and fails in CI, where everything has to run.
pub(crate) fn may_profile(test: &str) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capabilities = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let (bpf, perfmon, ptrace) = (1 << 39, 1 << 38, 1 << 19);
    let allowed = capabilities & (bpf | perfmon | ptrace) == bpf | perfmon | ptrace;
    if !allowed {
        crate::cannot_run::cannot_run(test, "needs CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE (run as root)");
    }
    allowed
}

/// A port that is free now.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

impl Scene {
    /// Starts all-in-one with further arguments and waits until it is ready.
    pub(crate) fn all_in_one(arguments: &[&str]) -> Self {
        let mut scene = Self {
            child: None,
            folder: TempDir::new().expect("a temporary folder"),
            web: format!("127.0.0.1:{}", free_port()),
            collector: format!("127.0.0.1:{}", free_port()),
        };
        scene.start(arguments);
        scene
    }

    /// Starts the process again on the same folder and ports.
    pub(crate) fn start(&mut self, arguments: &[&str]) {
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a log file");
        let child = Command::new(program())
            .args(["all-in-one", "--data-dir"])
            .arg(self.data_dir())
            .args(["--web", &self.web, "--collector", &self.collector])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("everflame starts");
        self.child = Some(child);
        let web = self.web.clone();
        self.wait("the page to be ready", || {
            crate::http::get(&web, "/ready").is_ok_and(|answer| answer.status == 200)
        });
    }

    /// Folder of the store.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Everything the process printed so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Waits until `condition` holds; fails with the whole scene.
    pub(crate) fn wait(&mut self, what: &str, mut condition: impl FnMut() -> bool) {
        let start = Instant::now();
        while !condition() {
            if let Some(status) =
                self.child.as_mut().and_then(|child| child.try_wait().expect("the child's state"))
            {
                panic!("everflame ended with {status} while waiting for {what}\n{}", self.log());
            }
            assert!(start.elapsed() < DEADLINE, "{what} took longer than {DEADLINE:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// As [`Scene::wait`], for conditions that ask the scene itself.
    pub(crate) fn wait_with(&mut self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            assert!(start.elapsed() < DEADLINE, "{what} took longer than {DEADLINE:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("a running process");
        signal(child.id(), "TERM");
        let start = Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("the child's state") {
                return status;
            }
            if start.elapsed() > DEADLINE {
                let _ = child.kill();
                panic!("everflame did not stop within {DEADLINE:?}\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Process number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running process").id()
    }

    /// JSON answer of the query API; fails with the whole scene.
    pub(crate) fn api(&self, path: &str) -> serde_json::Value {
        let answer =
            crate::http::get(&self.web, path).unwrap_or_else(|e| panic!("{path}: {e}\n{}", self.log()));
        assert_eq!(answer.status, 200, "{path}: {}\n{}", answer.body, self.log());
        serde_json::from_str(&answer.body).unwrap_or_else(|e| panic!("{path}: {e}: {}", answer.body))
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            println!("--- log of the scene ---\n{}", self.log());
        }
    }
}

/// Sends a signal by name.
pub(crate) fn signal(pid: u32, name: &str) {
    // The shell has kill built in; a small system may lack the program.
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().expect("sh runs");
    assert!(status.success(), "kill -{name} {pid}: {status}");
}

/// A process of another role; killed when dropped.
pub(crate) struct Beside(Child);

impl Beside {
    /// Starts the program with these arguments.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let child =
            Command::new(program()).args(arguments).stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
        Self(child.expect("everflame starts"))
    }

    /// Sends SIGTERM and waits for the end; gives the exit code and what it logged.
    pub(crate) fn stop(mut self) -> (Option<i32>, String) {
        signal(self.0.id(), "TERM");
        let mut log = String::new();
        self.0.stderr.take().expect("piped").read_to_string(&mut log).expect("text");
        (self.0.wait().expect("an end").code(), log)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the program with arguments to its end.
pub(crate) fn run(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut child = Command::new(program())
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("everflame starts");
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().expect("piped").read_to_string(&mut out).expect("text");
    child.stderr.take().expect("piped").read_to_string(&mut err).expect("text");
    (child.wait().expect("an end").code(), out, err)
}
