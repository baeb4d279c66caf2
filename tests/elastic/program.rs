//! The program as a person runs it.

use std::io::Read as _;
use std::process::{Command, Stdio};

/// An end of the program.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    /// Lines of the output that begin with this word.
    pub(crate) fn lines(&self, word: &str) -> Vec<&str> {
        self.out.lines().filter(|line| line.split('\t').next() == Some(word)).collect()
    }

    /// Fails with the whole scene unless the program ended with this code.
    pub(crate) fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        self
    }

    /// Fails with the whole scene unless the text was printed.
    pub(crate) fn told(&self, text: &str) -> &Self {
        assert!(self.out.contains(text) || self.err.contains(text), "{text} in {}\n{}", self.out, self.err);
        self
    }
}

/// Runs `everflame setup` against a URL. Nothing of the environment of the tests has a say.
pub(crate) fn setup(url: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Run {
    let hosts = format!("output.elasticsearch.hosts={url}");
    let mut child = Command::new(env!("CARGO_BIN_EXE_everflame"))
        .args(["setup", "-c", "/dev/null", "-E", &hosts])
        .args(arguments)
        .env_remove("ELASTIC_PASSWORD")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("everflame starts");
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().expect("piped").read_to_string(&mut out).expect("text");
    child.stderr.take().expect("piped").read_to_string(&mut err).expect("text");
    Run { code: child.wait().expect("an end").code(), out, err }
}
