//! Bytes that Elasticsearch keeps for each document: the figures of `docs/elasticsearch.md`. A measurement, no test.

use everflame::store::elastic::{Generation, Shape};

use crate::accepted::write;
use crate::elasticsearch::{Cluster, Kind};
use crate::program::setup;

/// Name, documents and bytes on disk of every stream and table, merged to one segment as old data is.
fn sizes(cluster: &Cluster) -> Vec<(String, u64, u64)> {
    cluster.refresh();
    cluster.must(
        "POST",
        "/profiling-*,.profiling-*/_forcemerge?max_num_segments=1&expand_wildcards=all&flush=true",
        None,
    );
    let stats = cluster.get("/profiling-*,.profiling-*/_stats/docs,store?expand_wildcards=all");
    let mut sizes = Vec::new();
    for (name, index) in stats["indices"].as_object().unwrap() {
        let primaries = &index["primaries"];
        let number = |value: &serde_json::Value| value.as_u64().unwrap_or(0);
        let documents = number(&primaries["docs"]["count"]);
        if documents > 0 {
            sizes.push((name.clone(), documents, number(&primaries["store"]["size_in_bytes"])));
        }
    }
    sizes
}

#[test]
#[ignore = "a measurement of minutes: cargo test --test elastic -- --ignored --nocapture bytes_of_each_document"]
fn bytes_of_each_document() {
    let events: u64 =
        std::env::var("EVERFLAME_SIZING_EVENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    for kind in [Kind::Basic, Kind::Trial] {
        for (whose, flag) in [("ours", Some("classic")), ("Elastic's", None), ("ours, otel", Some("otel"))] {
            let Some(cluster) = Cluster::take("sizes", kind) else { return };
            let generation = if flag == Some("otel") { Generation::Otel } else { Generation::Classic };
            match flag {
                Some(flag) => drop(setup(&cluster.url(), &["--generation", flag], &[]).ended(0)),
                None => cluster.set_up_by_elastic(),
            }
            write(&cluster, Shape::of(generation), 10, events);
            let sizes = sizes(&cluster);
            let all: u64 = sizes.iter().map(|(.., bytes)| bytes).sum();
            println!(
                "{kind:?}, templates {whose}: {all} bytes in all, {:.1} an event",
                all as f64 / events as f64
            );
            for (name, documents, bytes) in sizes {
                println!(
                    "  {name:<55} {documents:>8} documents {:>8.1} bytes each",
                    bytes as f64 / documents as f64
                );
            }
        }
    }
}
