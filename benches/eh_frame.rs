//! Unwind tables of installed programs: time per row and memory while building.
//!
//! Budget: 100 ns a row all in. Files that a machine does not have are left out. `cargo bench --bench eh_frame`.

#![allow(missing_docs, clippy::print_stdout)]

use std::path::{Path, PathBuf};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use everflame::model::ElfAddr;
use everflame::unwind::from_elf;

fn files() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = [
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/lib/aarch64-linux-gnu/libc.so.6",
        "/lib64/libc.so.6",
        "/usr/bin/python3",
        "/usr/lib/llvm-14/lib/libLLVM-14.so.1",
        "/usr/lib/chromium/chromium",
        "/usr/local/go/bin/go",
    ]
    .iter()
    .map(PathBuf::from)
    .collect();
    let sysroot = std::process::Command::new("rustc").args(["--print", "sysroot"]).output().ok();
    let library = sysroot.and_then(|output| String::from_utf8(output.stdout).ok());
    let library = library.map(|path| Path::new(path.trim()).join("lib"));
    if let Some(entries) = library.and_then(|path| std::fs::read_dir(path).ok()) {
        let is_driver = |path: &PathBuf| path.to_string_lossy().contains("librustc_driver");
        files.extend(entries.flatten().map(|entry| entry.path()).filter(is_driver));
    }
    files.retain(|path| path.exists());
    files
}

/// A field of `/proc/self/status`, in KiB.
fn status(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Largest growth of this process while `work` runs, in KiB. The kernel's high-water mark is reset before it.
fn growth<T>(work: impl FnOnce() -> T) -> (Option<u64>, T) {
    let is_reset = std::fs::write("/proc/self/clear_refs", "5").is_ok();
    let before = status("VmRSS:");
    let result = work();
    let peak = status("VmHWM:").zip(before).map(|(peak, before)| peak.saturating_sub(before));
    (peak.filter(|_| is_reset), result)
}

fn build(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("unwind_table");
    group.sample_size(10);
    for path in files() {
        // Read, not mapped, so that growth is what building allocates.
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let (peak, table) = growth(|| from_elf(&bytes));
        let Ok(table) = table else { continue };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        println!(
            "{name}: {} rows, {} rules, peak {peak:?} KiB, {:?}",
            table.rows.len(),
            table.rules.len(),
            table.skipped
        );
        group.throughput(Throughput::Elements(table.rows.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(&name), &bytes, |bencher, bytes| {
            bencher.iter(|| from_elf(bytes));
        });
    }
}

fn find(criterion: &mut Criterion) {
    let Some(bytes) = files().first().and_then(|path| std::fs::read(path).ok()) else { return };
    let Ok(table) = from_elf(&bytes) else { return };
    let span = u64::from(table.rows.last().map_or(1, |row| row.offset)).max(1);
    let mut at = 0_u64;
    criterion.bench_function("find", |bencher| {
        bencher.iter(|| {
            at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            table.find(ElfAddr(table.base.0 + (at >> 16) % span))
        });
    });
}

criterion_group!(benches, build, find);
criterion_main!(benches);
