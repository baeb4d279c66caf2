//! Collector path: OTLP bytes to documents, per sample of the captured mix. Budget: 500,000 samples/s per core.

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use everflame::collector::mapping::documents;
use everflame::wire::otlp::{decode, encode};

/// All captured requests: C, Go, Node.js, Python and whatever else ran on the machine.
fn captures() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/otlp");
    let folders = std::fs::read_dir(root).expect("test data").map(|entry| entry.expect("entry").path());
    folders
        .filter(|path| path.is_dir())
        .flat_map(|folder| {
            std::fs::read_dir(folder).expect("folder").map(|entry| entry.expect("entry").path())
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "pb"))
        .map(|path| std::fs::read(path).expect("capture"))
        .collect()
}

fn otlp(criterion: &mut Criterion) {
    let captures = captures();
    let batches: Vec<_> =
        captures.iter().map(|bytes| decode(bytes).expect("a valid capture").batch).collect();
    let samples = batches.iter().map(everflame::model::Batch::sample_count).sum();
    let mut group = criterion.benchmark_group("otlp");
    group.throughput(Throughput::Elements(samples));
    group.bench_function("decode", |bencher| {
        bencher.iter(|| captures.iter().for_each(|bytes| drop(black_box(decode(bytes)))));
    });
    group.bench_function("map", |bencher| {
        bencher.iter(|| batches.iter().for_each(|batch| drop(black_box(documents(batch)))));
    });
    group.bench_function("decode and map", |bencher| {
        bencher.iter(|| {
            for bytes in &captures {
                let decoded = decode(bytes).expect("a valid capture");
                black_box(documents(&decoded.batch));
            }
        });
    });
    group.bench_function("encode", |bencher| {
        bencher.iter(|| batches.iter().for_each(|batch| drop(black_box(encode(batch)))));
    });
    group.finish();
}

criterion_group!(benches, otlp);
criterion_main!(benches);
