//! Unwind tables of a machine: time, bytes and pages for each of the largest files, and for all of them together.
//!
//! `cargo bench --profile profiling --bench tables`. Each large file is measured in a process of its own, so that its
//! high-water mark is its own; `EVERFLAME_TABLES_ROOTS` (folders, colon-separated) is where all files are looked for.

#![cfg(feature = "agent")]
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use everflame::agent::process::{KernelSide, TableMaker};
use everflame::agent::tables::{Memory, Page, TableImage, Tables};

/// Counts what is written; holds nothing.
#[derive(Default)]
struct Counted {
    parts: u32,
}

impl Memory for Counted {
    fn add_part(&mut self) -> Result<(), i32> {
        self.parts += 1;
        Ok(())
    }
    fn write_page(&mut self, _: u32, page: &Page) {
        std::hint::black_box(page);
    }
    fn page_word(&self, _: u32, _: usize) -> u32 {
        u32::MAX
    }
    fn write_word(&mut self, _: u32, word: usize, value: u32) {
        std::hint::black_box((word, value));
    }
    fn write_rule(&mut self, _: u16, rule: [u32; 4]) {
        std::hint::black_box(rule);
    }
    fn set_process(&mut self, _: u32, _: [u32; 4]) -> Result<(), i32> {
        Ok(())
    }
    fn remove_process(&mut self, _: u32) -> Result<(), i32> {
        Ok(())
    }
    fn max_processes(&self) -> u32 {
        1
    }
}

const POOL_BYTES: u64 = 1 << 30;

fn main() {
    // A child measures one file: `--measure CACHE FILE`.
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--measure") {
        return measure(Path::new(&arguments[at + 1]), &arguments[at + 2..]);
    }
    println!(
        "{:<26} {:>9} {:>8} {:>7} {:>6} {:>6} {:>9} {:>9} {:>9}",
        "file", "rows", "ns/row", "B/row", "pages", "rules", "cold", "warm", "peak"
    );
    println!(
        "{:<26} {:>9} {:>8} {:>7} {:>6} {:>6} {:>9} {:>9} {:>9}",
        "budget", "", "< 100", "<= 5", "", "", "", "", ""
    );
    let large = large();
    for file in &large {
        let cache = tempfile::tempdir().unwrap();
        child(cache.path(), std::slice::from_ref(file));
    }
    let cache = tempfile::tempdir().unwrap();
    child(cache.path(), &large);
    if std::env::args().any(|argument| argument == "--bench") {
        everything();
    }
}

/// The largest programs that a machine has.
fn large() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = [
        "/usr/lib/chromium/chromium",
        "/usr/lib/x86_64-linux-gnu/libLLVM-14.so.1",
        "/lib/x86_64-linux-gnu/libc.so.6",
    ]
    .iter()
    .map(PathBuf::from)
    .collect();
    let sysroot = std::process::Command::new("rustc").args(["--print", "sysroot"]).output().ok();
    let library =
        sysroot.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()).join("lib"));
    if let Some(entries) = library.and_then(|path| fs::read_dir(path).ok()) {
        let is_driver = |path: &PathBuf| path.to_string_lossy().contains("librustc_driver");
        files.extend(entries.flatten().map(|entry| entry.path()).filter(is_driver));
    }
    files.retain(|path| path.exists());
    files
}

/// Measures files in a fresh process, which prints its line.
fn child(cache: &Path, files: &[PathBuf]) {
    let own = std::env::current_exe().unwrap();
    let status = std::process::Command::new(own).arg("--measure").arg(cache).args(files).status().unwrap();
    assert!(status.success());
}

fn measure(cache: &Path, files: &[String]) {
    let resident_before = status_kib("VmRSS:");
    // As the agent does it: parts of the file, one budget, two workers where there is more than one file.
    let build = || {
        let maker = TableMaker::new(Some(cache)).unwrap();
        let start = Instant::now();
        let images: Vec<TableImage> = std::thread::scope(|scope| {
            let workers = [0, 1].map(|worker| {
                let (maker, half): (_, Vec<&String>) =
                    (&maker, files.iter().skip(worker).step_by(2).collect());
                scope.spawn(move || {
                    half.into_iter().map(|file| maker.image(Path::new(file)).unwrap()).collect::<Vec<_>>()
                })
            });
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        (start.elapsed(), images, maker.cached())
    };
    let (cold, images, _) = build();
    let peak_kib = status_kib("VmHWM:").saturating_sub(resident_before);
    let mut tables = Tables::new(Counted::default(), POOL_BYTES);
    for image in &images {
        tables.publish_image(image).unwrap();
    }
    drop(images);
    let (warm, images, cached) = build();
    assert_eq!(cached, files.len() as u64, "all kept");
    let rows: u64 = images.iter().map(TableImage::source_rows).sum();
    let usage = tables.usage();
    let name = Path::new(&files[0]).file_name().unwrap().to_string_lossy();
    let name = if files.len() > 1 {
        "all of these at once".into()
    } else {
        name.chars().take(26).collect::<String>()
    };
    println!(
        "{name:<26} {rows:>9} {:>8.0} {:>7.2} {:>6} {:>6} {:>9} {:>9} {:>6} MB",
        cold.as_nanos() as f64 / rows.max(1) as f64,
        usage.used_bytes as f64 / rows.max(1) as f64,
        usage.used_bytes / 4096,
        usage.rules,
        milliseconds(cold),
        milliseconds(warm),
        peak_kib / 1024,
    );
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

/// A field of `/proc/self/status`, in KiB.
fn status_kib(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Every file with code: what one machine's tables take when all are needed, which none ever is.
fn everything() {
    let roots = std::env::var("EVERFLAME_TABLES_ROOTS").unwrap_or_else(|_| "/usr:/opt".into());
    let (mut files, mut seen) = (Vec::new(), HashSet::new());
    roots.split(':').for_each(|root| collect(Path::new(root), &mut files, &mut seen));
    let maker = TableMaker::new(None).unwrap();
    let mut tables = Tables::new(Counted::default(), POOL_BYTES);
    let (mut rows, mut stored, mut with, mut refused) = (0, 0, 0, 0);
    let start = Instant::now();
    for file in &files {
        let Ok(image) = maker.image(file) else { continue };
        if image.is_empty() {
            continue;
        }
        let known = tables.usage().tables;
        match tables.publish_image(&image) {
            // The same content under another name.
            Ok(_) if tables.usage().tables == known => {}
            Ok(_) => {
                with += 1;
                rows += image.source_rows();
                stored += image.stored_rows();
            }
            Err(_) => refused += 1,
        }
    }
    let usage = tables.usage();
    println!(
        "all {with} files of {roots}: {rows} rows, {stored} stored, {} rules of 16384, {} pages, {:.2} B/row, {:.0} ns/row, {refused} refused, {} rules dropped",
        usage.rules,
        usage.used_bytes / 4096,
        usage.used_bytes as f64 / rows.max(1) as f64,
        start.elapsed().as_nanos() as f64 / rows.max(1) as f64,
        usage.dropped_rules,
    );
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>, seen: &mut HashSet<(u64, u64)>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            collect(&path, files, seen);
        } else if metadata.is_file() && seen.insert((metadata.dev(), metadata.ino())) && is_elf(&path) {
            files.push(path);
        }
    }
}

fn is_elf(path: &Path) -> bool {
    use std::io::Read;
    let mut head = [0; 18];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut head));
    // Programs and libraries, no object files.
    read.is_ok() && head.starts_with(b"\x7fELF") && matches!(head[16], 2 | 3)
}
