//! Cost of a question over a tree of a million nodes: weighing, naming, drawing, listing, and the whole way to bytes.
//!
//! The tree is made by chance with a fixed seed: 1 M nodes, 60,000 frames of 20,000 functions, depth about 40, every
//! sixth frame with inlined functions. The store is memory, so what is measured is ours.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use criterion::{Criterion, criterion_group, criterion_main};
use everflame::model::{Dimension, FileId, FrameId, FrameKind, Selection, SourceLine, TimeRange, UnixNanos};
use everflame::net::HostGuard;
use everflame::query::{Cancel, FunctionNames, Weights, flamegraph, functions};
use everflame::store::{
    EventQuestion, EventSet, FrameDetail, GroupCount, GroupedCount, HostFacts, Reader, Result, StackSet,
    StackTrie, StoreStatus, TimeGrid, Timeline,
};
use everflame::web::{PageOnly, Parts, WebState, router};
use http::Request;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

const NODES: u32 = 1_000_000;
const FRAMES: u64 = 60_000;
const GROUPS: u32 = 40;

/// xorshift64*: the same numbers on every machine.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }
}

fn scene() -> (StackSet, Vec<FrameDetail>) {
    let mut chance = Chance(0x5eed);
    let mut trie = StackTrie { parent: vec![0], frame: vec![0], frames: Vec::new() };
    let mut counts = Vec::new();
    while (trie.parent.len() as u32) < NODES {
        // A new stack leaves a known one somewhere, most often near its end, and goes on for some frames.
        let known = trie.parent.len() as u64;
        let mut at = (known - 1 - chance.below(known.min(2_000))) as u32;
        for _ in 0..chance.below(8) {
            at = trie.parent[at as usize];
        }
        for _ in 0..=chance.below(6) {
            // A function calls one of a few others.
            let caller = u64::from(trie.frame[at as usize]);
            let callee = (caller.wrapping_mul(31) + chance.below(24) * 7919) % FRAMES;
            trie.parent.push(at);
            trie.frame.push(callee as u32);
            at = trie.parent.len() as u32 - 1;
        }
        let samples = 1 + chance.below(40) * chance.below(2);
        counts.push(GroupedCount { group: at % GROUPS, node: at, samples });
    }
    trie.frames = (0..FRAMES)
        .map(|i| {
            let file = FileId::from_words(i % 300, 7);
            (FrameId { file, address_or_line: i * 16 }, FrameKind::NATIVE)
        })
        .collect();
    let details = (0..FRAMES)
        .map(|i| {
            let line = |n: u64| SourceLine {
                function: format!("namespace::module_{}::function_{}", n % 90, n / 3).into(),
                file: format!("/src/module_{}/file_{}.cc", n % 90, n % 900).into(),
                line: (n % 2000) as u32,
                column: 0,
            };
            let inlined = if i % 6 == 0 { i % 3 + 1 } else { 0 };
            FrameDetail {
                library: format!("lib_{}.so.1", i % 300).into(),
                lines: (0..=inlined).map(|n| line(i + n * 3)).collect(),
                reason: None,
            }
        })
        .collect();
    let groups = (0..GROUPS).map(|i| format!("process-{i}").into()).collect();
    let set = StackSet { trie: Arc::new(trie), groups, counts, ..StackSet::default() };
    (set, details)
}

/// A store that has everything at hand.
struct InMemory {
    set: StackSet,
    details: HashMap<FrameId, FrameDetail>,
}

#[async_trait]
impl Reader for InMemory {
    async fn status(&self) -> Result<StoreStatus> {
        Ok(StoreStatus::default())
    }
    async fn stacks(&self, _: &Selection, group_by: Option<Dimension>) -> Result<StackSet> {
        let mut set = self.set.clone();
        if group_by.is_none() {
            set.groups.truncate(1);
            set.counts.iter_mut().for_each(|count| count.group = 0);
        }
        Ok(set)
    }
    async fn timeline(&self, _: &Selection, _: TimeGrid, _: Option<Dimension>, _: usize) -> Result<Timeline> {
        Ok(Timeline::default())
    }
    async fn frames(&self, ids: &[FrameId]) -> Result<Vec<FrameDetail>> {
        Ok(ids.iter().map(|id| self.details[id].clone()).collect())
    }
    async fn values(&self, _: Dimension, _: &str, _: TimeRange, _: usize) -> Result<Vec<GroupCount>> {
        Ok(Vec::new())
    }
    async fn events(&self, _: &EventQuestion) -> Result<EventSet> {
        Ok(EventSet::default())
    }
    async fn hosts(&self, _: &[Arc<str>], _: TimeRange) -> Result<Vec<HostFacts>> {
        Ok(Vec::new())
    }
}

fn steps(criterion: &mut Criterion) {
    let (set, details) = scene();
    let cancel = Cancel::default();
    let weights = Weights::new(&set, &cancel).expect("the scene is a tree");
    let frames = weights.frames(&set);
    let asked: Vec<FrameDetail> = frames.iter().map(|frame| details[*frame as usize].clone()).collect();
    let names = FunctionNames::new(&set.trie, &frames, &asked);
    let mut group = criterion.benchmark_group("query, 1 M nodes");
    group.sample_size(10);
    group.bench_function("weigh", |b| b.iter(|| Weights::new(black_box(&set), &cancel)));
    group.bench_function("name", |b| b.iter(|| FunctionNames::new(&set.trie, &frames, &asked)));
    for (label, max_nodes) in [("draw all", usize::MAX), ("draw 200,000", 200_000)] {
        group.bench_function(label, |b| {
            b.iter(|| flamegraph::draw(&set, &weights, &mut names.clone(), true, max_nodes, &cancel));
        });
    }
    group.bench_function("count functions", |b| b.iter(|| functions::count(&set, &weights, &names, &cancel)));
    group.finish();
}

fn routes(criterion: &mut Criterion) {
    let (set, details) = scene();
    let details = set.trie.frames.iter().map(|(id, _)| *id).zip(details).collect();
    let app = router(WebState::new(Parts {
        reader: Arc::new(InMemory { set, details }),
        roles: Arc::new(PageOnly),
        clock: Arc::new(|| UnixNanos::from_millis(1_763_734_000_000)),
        guard: HostGuard::default(),
        token: None,
        max_queries: 2,
    }));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be built");
    let mut group = criterion.benchmark_group("route, 1 M nodes");
    group.sample_size(10);
    for (label, uri, encoding) in [
        ("flamegraph", "/api/v1/flamegraph", "identity"),
        ("flamegraph gzip", "/api/v1/flamegraph", "gzip"),
        ("flamegraph of all nodes", "/api/v1/flamegraph?max_nodes=2000000", "identity"),
        ("flamegraph of all nodes gzip", "/api/v1/flamegraph?max_nodes=2000000", "gzip"),
        ("functions", "/api/v1/functions", "identity"),
    ] {
        let ask = || async {
            let request = Request::get(uri)
                .header(http::header::HOST, "localhost")
                .header(http::header::ACCEPT_ENCODING, encoding)
                .body(Body::empty())
                .expect("the address is well formed");
            let answer = app.clone().oneshot(request).await.expect("routes do not fail");
            assert_eq!(answer.status(), http::StatusCode::OK);
            answer.into_body().collect().await.expect("the body is in memory").to_bytes().len()
        };
        let bytes = runtime.block_on(ask());
        group.bench_function(format!("{label}, {} kB", bytes / 1000), |b| b.iter(|| runtime.block_on(ask())));
    }
    group.finish();
}

criterion_group!(benches, steps, routes);
criterion_main!(benches);
