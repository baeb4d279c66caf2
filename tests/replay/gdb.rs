//! The oracle: one gdb for one process, commanded line by line. `gdb_side.py` is its other half.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use everflame::unwind::Architecture;
use serde_json::{Value, json};

use super::registers::{Registers, names};

/// gdb reads symbols of large programs before it answers.
const DEADLINE: Duration = Duration::from_mins(3);

/// A frame as gdb sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GdbFrame {
    pub(crate) pc: u64,
    pub(crate) name: String,
    /// The trampoline that a signal handler returns to: the frame behind it was interrupted, it made no call.
    pub(crate) is_signal: bool,
}

/// A thread as gdb sees it.
#[derive(Clone, Debug)]
pub(crate) struct GdbThread {
    pub(crate) tid: u32,
    pub(crate) registers: Registers,
    /// Leaf first, without inlined ones.
    pub(crate) frames: Vec<GdbFrame>,
    /// gdb's words for why there is no further frame.
    pub(crate) stopped_by: String,
}

/// A running gdb.
pub(crate) struct Gdb {
    child: Child,
    stream: BufReader<UnixStream>,
    architecture: Architecture,
    _folder: tempfile::TempDir,
}

impl Gdb {
    /// Starts gdb with these arguments: `-p PID`, or a file whose process is reached later. Says what is missing.
    pub(crate) fn start(architecture: Architecture, arguments: &[&str]) -> Result<Self, String> {
        // Debian keeps other architectures apart; elsewhere one gdb knows all.
        let apart = architecture != Architecture::HOST && Path::new("/usr/bin/gdb-multiarch").exists();
        let program = if apart { "gdb-multiarch" } else { "gdb" };
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let socket = folder.path().join("gdb");
        let listener = UnixListener::bind(&socket).map_err(|error| error.to_string())?;
        listener.set_nonblocking(true).map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args([
            "-batch",
            "-nx",
            "-q",
            "-iex",
            "set auto-load no",
            "-iex",
            "set debuginfod enabled off",
        ]);
        command.arg("-x");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/replay/gdb_side.py"));
        command.args(arguments);
        command.env("EVERFLAME_GDB_SOCKET", &socket).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
        let deadline = Instant::now() + DEADLINE;
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error.to_string()),
                Err(_) => {}
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!("{program} ended before it was ready: {status}"));
            }
            if Instant::now() > deadline {
                return Err(format!("{program} is not ready after {DEADLINE:?}"));
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        stream.set_nonblocking(false).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(DEADLINE)).map_err(|error| error.to_string())?;
        Ok(Self { child, stream: BufReader::new(stream), architecture, _folder: folder })
    }

    /// All threads, at most so many.
    pub(crate) fn threads(&mut self, most: usize) -> Result<Vec<GdbThread>, String> {
        let answer = self.ask(&json!({"do": "threads", "most": most}))?;
        self.decode(&answer)
    }

    /// The thread that was stopped.
    pub(crate) fn current(&mut self) -> Result<GdbThread, String> {
        let answer = self.ask(&json!({"do": "current"}))?;
        self.decode(&answer)?.pop().ok_or_else(|| "gdb knows no thread".to_owned())
    }

    /// A gdb command that ends at once. Whether the process lives, and what gdb printed.
    pub(crate) fn run(&mut self, text: &str) -> Result<(bool, String), String> {
        self.begin(text)?;
        self.finish()
    }

    /// Begins a command that ends when the process stands.
    pub(crate) fn begin(&mut self, text: &str) -> Result<(), String> {
        self.send(&json!({"do": "run", "text": text}))
    }

    /// Waits for its end.
    pub(crate) fn finish(&mut self) -> Result<(bool, String), String> {
        let answer = self.receive()?;
        let text = answer["text"].as_str().unwrap_or_default().to_owned();
        Ok((answer["alive"] == Value::Bool(true), text))
    }

    /// Memory from `start` on, as much as can be read.
    pub(crate) fn memory(&mut self, start: u64, bytes: u64) -> Result<Vec<u8>, String> {
        let answer = self.ask(&json!({"do": "memory", "start": start, "bytes": bytes}))?;
        let hex = answer["hex"].as_str().unwrap_or_default().as_bytes();
        let digit = |byte: u8| (byte as char).to_digit(16).map_or(0, |digit| digit as u8);
        Ok(hex.chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect())
    }

    fn ask(&mut self, command: &Value) -> Result<Value, String> {
        self.send(command)?;
        self.receive()
    }

    fn send(&mut self, command: &Value) -> Result<(), String> {
        let line = format!("{command}\n");
        self.stream.get_mut().write_all(line.as_bytes()).map_err(|error| format!("gdb is gone: {error}"))
    }

    fn receive(&mut self) -> Result<Value, String> {
        let mut line = String::new();
        self.stream.read_line(&mut line).map_err(|error| format!("gdb does not answer: {error}"))?;
        let answer: Value = serde_json::from_str(&line).map_err(|_| "gdb ended".to_owned())?;
        match answer["error"].as_str() {
            Some(error) => Err(format!("gdb: {error}")),
            None => Ok(answer),
        }
    }

    fn decode(&self, answer: &Value) -> Result<Vec<GdbThread>, String> {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let mut threads = Vec::new();
        // A thread that is just ending has neither registers nor a stack.
        for thread in list(&answer["threads"]).iter().filter(|thread| thread["error"].is_null()) {
            let mut registers = Registers::new(self.architecture);
            for name in names(self.architecture) {
                if let Some(value) = thread["registers"][&name].as_u64() {
                    registers.set(&name, value);
                }
            }
            let frame = |frame: &Value| GdbFrame {
                pc: frame[0].as_u64().unwrap_or(0),
                name: frame[1].as_str().unwrap_or_default().to_owned(),
                is_signal: frame[2] == Value::Bool(true),
            };
            threads.push(GdbThread {
                tid: thread["tid"].as_u64().ok_or("gdb knows no thread number")? as u32,
                registers,
                frames: list(&thread["frames"]).iter().map(frame).collect(),
                stopped_by: thread["stopped_by"].as_str().unwrap_or_default().to_owned(),
            });
        }
        Ok(threads)
    }
}

impl Drop for Gdb {
    fn drop(&mut self) {
        // Left to itself it detaches, and the process goes on.
        let _ = self.send(&json!({"do": "quit"}));
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
