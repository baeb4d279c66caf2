//! Registers and stacks of running programs: by `perf` at any instruction, and by stopping the process.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::walk::Mapping;
use crate::unwind::Registers;

pub(super) struct Sample {
    pub(super) pid: u32,
    pub(super) registers: Registers,
    pub(super) stack: Vec<u8>,
}

#[derive(Default)]
pub(super) struct Recording {
    pub(super) samples: Vec<Sample>,
    pub(super) mappings: Vec<Mapping>,
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Runs a program under perf; `None` when perf cannot.
pub(super) fn record(directory: &Path, program: &Path, arguments: &[&str]) -> Option<Recording> {
    let data = directory.join("perf.data");
    let done = Command::new("perf")
        .args([
            "record",
            "-q",
            "-e",
            "cpu-clock:u",
            "-F",
            "1499",
            "--call-graph",
            "dwarf,16384",
            "-m",
            "16M",
            "-o",
        ])
        .arg(&data)
        .arg("--")
        .arg(program)
        .args(arguments)
        .current_dir(directory)
        .output()
        .ok()?;
    if !done.status.success() {
        crate::cannot_run::cannot_run("perf", &String::from_utf8_lossy(&done.stderr));
        return None;
    }
    Some(parse_perf_data(&std::fs::read(data).unwrap()))
}

/// The layout of `perf.data`, as far as the command above writes it.
fn parse_perf_data(bytes: &[u8]) -> Recording {
    assert_eq!(&bytes[..8], b"PERFILE2");
    let attribute = u64_at(bytes, 24) as usize;
    let sample_type = u64_at(bytes, attribute + 24);
    let register_mask = u64_at(bytes, attribute + 80);
    let (mut at, len) = (u64_at(bytes, 40) as usize, u64_at(bytes, 48) as usize);
    let end = at + len;
    let mut recording = Recording::default();
    while at + 8 <= end {
        let size = usize::from(u16::from_le_bytes([bytes[at + 6], bytes[at + 7]]));
        let body = &bytes[at + 8..at + size];
        match u32_at(bytes, at) {
            9 => recording.samples.extend(parse_sample(body, sample_type, register_mask)),
            kind @ (1 | 10) => recording.mappings.push(Mapping {
                pid: u32_at(body, 0),
                start: u64_at(body, 8),
                len: u64_at(body, 16),
                offset: u64_at(body, 24),
                path: {
                    let name = &body[if kind == 10 { 64 } else { 32 }..];
                    let end = name.iter().position(|&byte| byte == 0).unwrap();
                    PathBuf::from(String::from_utf8_lossy(&name[..end]).into_owned())
                },
            }),
            _ => {}
        }
        at += size;
    }
    recording
}

fn parse_sample(body: &[u8], sample_type: u64, register_mask: u64) -> Option<Sample> {
    let mut at = 0;
    let mut pid = 0;
    for bit in [16, 0, 1, 2, 3, 6, 9, 7, 8] {
        if sample_type & (1 << bit) != 0 {
            if bit == 1 {
                pid = u32_at(body, at);
            }
            at += 8;
        }
    }
    assert_eq!(sample_type & 0xc10, 0, "fields that the command does not ask for");
    if sample_type & 0x20 != 0 {
        at += 8 + 8 * u64_at(body, at) as usize;
    }
    if u64_at(body, at) == 0 {
        return None; // no user registers
    }
    at += 8;
    let mut perf = [0; 64];
    for (number, register) in perf.iter_mut().enumerate() {
        if register_mask & (1 << number) != 0 {
            *register = u64_at(body, at);
            at += 8;
        }
    }
    let size = u64_at(body, at) as usize;
    let used = u64_at(body, at + 8 + size) as usize;
    if used == 0 {
        return None; // the copy failed
    }
    let stack = body[at + 8..at + 8 + used].to_vec();
    let [ax, bx, cx, dx, si, di, bp, sp, ip] = perf[..9] else { unreachable!() };
    let mut all = [0; 32];
    all[..8].copy_from_slice(&[ax, dx, cx, bx, si, di, bp, sp]);
    all[8..16].copy_from_slice(&perf[16..24]);
    let registers = Registers { pc: ip, sp, fp: bp, all: Some(all), is_return_address: false };
    Some(Sample { pid, registers, stack })
}

/// The threads of a process, held still.
pub(super) struct Stopped {
    pid: u32,
    memory: std::fs::File,
}

fn signal(pid: u32, signal: &str) {
    Command::new("kill").args([signal, &pid.to_string()]).status().unwrap();
}

impl Stopped {
    /// Stops all threads; `None` when the process has ended.
    pub(super) fn stop(pid: u32) -> Option<Self> {
        signal(pid, "-STOP");
        let memory = std::fs::File::open(format!("/proc/{pid}/mem")).ok()?;
        let stopped = Self { pid, memory };
        for _ in 0..1000 {
            let is_stopped = |tid: &u32| {
                let stat =
                    std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")).unwrap_or_default();
                stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
            };
            if stopped.threads().iter().all(is_stopped) {
                return Some(stopped);
            }
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        None
    }

    pub(super) fn threads(&self) -> Vec<u32> {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", self.pid)) else { return Vec::new() };
        tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok()).collect()
    }

    /// Program counter and stack pointer; the frame pointer is not to be had and set to an address that cannot be read.
    pub(super) fn registers(&self, tid: u32) -> Option<Registers> {
        let line = std::fs::read_to_string(format!("/proc/{}/task/{tid}/syscall", self.pid)).ok()?;
        let mut fields = line.split_ascii_whitespace().rev();
        let mut hex = || u64::from_str_radix(fields.next()?.strip_prefix("0x")?, 16).ok();
        let (pc, sp) = (hex()?, hex()?);
        Some(Registers { pc, sp, fp: 1, all: None, is_return_address: false })
    }

    pub(super) fn read(&self, address: u64) -> Option<u64> {
        let mut word = [0; 8];
        self.memory.read_exact_at(&mut word, address).ok()?;
        Some(u64::from_le_bytes(word))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal(self.pid, "-CONT");
    }
}
