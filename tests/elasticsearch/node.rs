//! One Elasticsearch process on loopback: started by `server/run.sh`, stopped when dropped or when this process ends, however
//! that happens, because the script stops it at the end of its standard input.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::cannot_run::cannot_run;

/// What a cluster is started as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Basic licence (sources are stored as written), no security.
    Basic,
    /// Trial licence (synthetic sources come back nested), no security.
    Trial,
    /// Basic licence, user and API keys asked for.
    Secured,
}

impl Kind {
    /// Password of the user `elastic`, where security is on.
    pub(crate) const fn password(self) -> Option<&'static str> {
        match self {
            Self::Secured => Some("everflame-test"),
            Self::Basic | Self::Trial => None,
        }
    }

    const fn licence(self) -> &'static str {
        match self {
            Self::Trial => "trial",
            Self::Basic | Self::Secured => "basic",
        }
    }
}

/// Heap of a test server: 0.7 GB resident.
const HEAP: &str = "512m";

/// A running server.
pub(crate) struct Node {
    child: Child,
    /// Port of the HTTP interface on 127.0.0.1.
    pub(crate) port: u16,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/elasticsearch/server/run.sh")
}

/// Whether a server can be had here; fetches it once. Says why not.
pub(crate) fn available(test: &str) -> bool {
    static PROBLEM: OnceLock<Option<String>> = OnceLock::new();
    let problem = PROBLEM.get_or_init(|| {
        if !cfg!(target_os = "linux") {
            return Some("the test server is started on Linux only".into());
        }
        // Fetching tells its progress on standard error, past the test's capture: it can take minutes.
        match Command::new(script()).arg("--fetch").stdin(Stdio::null()).status() {
            Ok(status) if status.success() => None,
            Ok(_) => Some("the server cannot be fetched (see above; deploy/install-packages test)".into()),
            Err(error) => Some(format!("bash cannot be run: {error}")),
        }
    });
    if let Some(problem) = problem {
        cannot_run(test, problem);
    }
    problem.is_none()
}

/// A port that is free now.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

impl Node {
    /// Starts a server and waits until it answers. With a folder its data stay there for the next start, without one they
    /// are removed at its end.
    pub(crate) fn start(kind: Kind, port: u16, folder: Option<&Path>) -> Self {
        eprintln!("starting Elasticsearch ({kind:?}) on port {port}, 12 to 65 seconds");
        let mut command = Command::new(script());
        command
            .arg(port.to_string())
            .args(folder)
            .env("ES_LICENSE", kind.licence())
            .env("ES_HEAP", HEAP)
            .env("ES_FOLLOW_STDIN", "1")
            .env("ES_KEEP_DATA", if folder.is_some() { "1" } else { "0" })
            .env_remove("ES_PASSWORD")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(password) = kind.password() {
            command.env("ES_PASSWORD", password);
        }
        let mut child = command.spawn().expect("bash runs");
        let output = child.stdout.take().expect("piped");
        let ready =
            BufReader::new(output).lines().map_while(Result::ok).any(|line| line.starts_with("READY "));
        assert!(ready, "Elasticsearch did not start; its log is above");
        Self { child, port }
    }

    /// Stops the server as an operator would and waits for its end.
    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}
