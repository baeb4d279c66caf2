//! One row from its start to its end: runs the program, waits for enough samples, ends everything it started.

use std::collections::HashSet;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::against_gdb;
use crate::chain::Matcher;
use crate::measure::Measured;
use crate::names::Names;
use crate::recorder::{Recorder, Watch, now};
use crate::row::{Load, Oracle, Row};

/// Longest a row may take to give its samples: a machine that is busy with other things gives them slowly.
const DEADLINE: Duration = Duration::from_secs(90);
/// Longest until everything that was sampled has come in.
const REPORTED: Duration = Duration::from_secs(6);

/// A process group; all of it ends when dropped.
struct Group(Child);

impl Group {
    fn start(command: &mut Command) -> std::io::Result<Self> {
        Ok(Self(command.process_group(0).spawn()?))
    }

    fn signal(&self, name: &str) {
        let _ =
            Command::new("sh").args(["-c", &format!("kill -{name} -{} 2>/dev/null", self.0.id())]).status();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal("TERM");
        let start = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) && start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.signal("KILL");
        let _ = self.0.wait();
    }
}

/// Processes that run one of these executables now.
pub(crate) fn processes_of(paths: &HashSet<PathBuf>) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| paths.contains(&exe)))
        .collect()
}

/// A port that nobody listens on now.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap().port()
}

fn command(row: &Row, program: &Path, folder: &Path) -> Command {
    match &row.load {
        Load::Own(arguments) => {
            let mut command = Command::new(program);
            // Ends by itself when nobody is left to end it.
            command.arg((2 * DEADLINE.as_secs()).to_string()).args(*arguments);
            command
        }
        Load::Script(script) => {
            let mut command = Command::new("sh");
            command.args(["-euc", script]).env("P", program).env("D", folder);
            command.env("PORT", free_port().to_string());
            command
        }
    }
}

/// Runs a row until it has `wanted` samples, and gdb has judged `stacks` of it where gdb is the oracle.
pub(crate) fn measure(row: &Row, program: &Path, recorder: &Recorder, wanted: u64, stacks: u64) -> Measured {
    if let Oracle::Stepped(chains, functions) = &row.oracle {
        return match against_gdb::step_by_step(program, functions, &Matcher::new(chains)) {
            Ok(compared) => Measured::by(row, compared),
            Err(why) => Measured::not_run(row, why),
        };
    }
    let folder = tempfile::tempdir().unwrap();
    // Run by the name it has, recognised by what that leads to: some programs look at their name.
    let paths = HashSet::from([program.canonicalize().unwrap_or_else(|_| program.to_owned())]);
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let comm = name.chars().take(15).collect();
    let names = Names::default();
    names.learn_file(program);
    // The loader and the C library, for programs that end before anybody looks.
    names.learn(std::process::id());
    let watch = recorder.watch(Watch { paths: paths.clone(), comm, from: now() });

    let log_path = folder.path().join("log");
    let log = std::fs::File::create(&log_path).unwrap();
    let mut command = command(row, program, folder.path());
    command.current_dir(folder.path()).stdin(Stdio::null());
    command.stdout(log.try_clone().unwrap()).stderr(log);
    let mut group = match Group::start(&mut command) {
        Ok(group) => group,
        Err(error) => return Measured::not_run(row, format!("{}: {error}", program.display())),
    };
    let start = Instant::now();
    let mut ended = None;
    while recorder.samples(watch) < wanted && start.elapsed() < DEADLINE {
        std::thread::sleep(Duration::from_millis(100));
        for pid in processes_of(&paths) {
            names.learn(pid);
        }
        if let Ok(Some(status)) = group.0.try_wait() {
            ended = Some(status);
            break;
        }
    }
    let recorded = recorder.take(watch, REPORTED);
    // Only now: a stopped program has no samples, and gdb takes the CPU from it.
    let compared = matches!(row.oracle, Oracle::Gdb).then(|| against_gdb::at_random(&paths, stacks));
    drop(group);
    if let Some(status) = ended {
        let log = std::fs::read_to_string(log_path).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(5).collect();
        return Measured::not_run(
            row,
            format!("ended with {status} before it was sampled enough: {}", last.join(" | ")),
        );
    }
    let mut measured = Measured::new(row, &recorded, &names);
    if let Some(compared) = compared {
        measured.judged_by(compared);
    }
    measured
}
