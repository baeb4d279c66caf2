//! Index build per file and look-ups per second.
//!
//! `cargo bench --bench symbols`. Files of this machine: the C library (`.dynsym`), this program (`.symtab`, Rust), the
//! Go compiler (Go tables with inlined calls) when it is installed.

use std::fs::File;
use std::hint::black_box;
use std::path::{Path, PathBuf};

use criterion::{Criterion, Throughput};
use everflame::model::ElfAddr;
use everflame::symbols::{SymbolIndex, elf::Elf, file_id, mapped::ImageFile};

fn open(path: &Path) -> Option<Elf> {
    Elf::open(ImageFile::open(File::open(path).ok()?).ok()?).ok()
}

fn candidates() -> Vec<(&'static str, PathBuf)> {
    let own = std::env::current_exe().unwrap_or_default();
    vec![
        ("libc", "/lib/x86_64-linux-gnu/libc.so.6".into()),
        ("libstdc++", "/usr/lib/x86_64-linux-gnu/libstdc++.so.6".into()),
        ("libLLVM", "/lib/x86_64-linux-gnu/libLLVM-14.so.1".into()),
        ("this program", own),
        ("go link", "/usr/local/go/pkg/tool/linux_amd64/link".into()),
    ]
}

/// Addresses spread over the code, those without a name left out.
fn addresses(elf: &Elf, index: &SymbolIndex) -> Vec<ElfAddr> {
    let Some(text) = elf.sections().ok().and_then(|sections| sections.by_name(".text").copied()) else {
        return Vec::new();
    };
    let step = (text.bytes / 20_000).max(1) as usize;
    let all = (text.address.0..text.end().0).step_by(step).map(ElfAddr);
    let mut named: Vec<ElfAddr> = all.filter(|address| index.lookup(*address).is_ok()).collect();
    // Neighbours in memory must not be neighbours in time.
    let half = named.len() / 2;
    for at in 0..half {
        named.swap(at, (at * 7919) % (half * 2));
    }
    named
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for (name, path) in candidates() {
        let Some(elf) = open(&path) else { continue };
        let Ok(index) = SymbolIndex::build(&elf, None) else { continue };
        let mut group = criterion.benchmark_group(name);
        group.sample_size(20);
        group.throughput(Throughput::Bytes(elf.image().size()));
        group.bench_function("build", |b| b.iter(|| SymbolIndex::build(black_box(&elf), None)));
        group.bench_function("file ID", |b| b.iter(|| file_id::of_file(black_box(elf.image()))));
        let addresses = addresses(&elf, &index);
        group.throughput(Throughput::Elements(addresses.len() as u64));
        group.bench_function("look-up, warm", |b| {
            b.iter(|| addresses.iter().filter(|address| index.lookup(**address).is_ok()).count());
        });
        group.finish();
    }
    criterion.final_summary();
}
