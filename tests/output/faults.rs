//! Bulk requests and their answers cut, refused, delayed, and items that do not fit.

use std::sync::Arc;
use std::time::Duration;

use everflame::store::Written;
use everflame::store::elastic::bulk::Counter;

use crate::elasticsearch::{Cluster, Kind};
use crate::proxy::{Fault, FaultProxy};
use crate::scene::{batch, count, insist, output, writer};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Positions to cut at; all of them by hand with `EVERFLAME_CUTS=2000`.
fn cuts() -> Vec<f64> {
    let count = std::env::var("EVERFLAME_CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(24);
    (0..=count).map(|number| f64::from(number) / f64::from(count)).collect()
}

#[test]
fn wherever_a_connection_is_cut_each_sample_is_stored_once() {
    let Some(cluster) = Cluster::take("cut connections", Kind::Basic) else { return };
    cluster.set_up_by_elastic();
    let proxy = FaultProxy::start(&cluster.address());
    runtime().block_on(async {
        let writer = writer(&output(&proxy.address), None).await;
        let mut number = 0;
        for cut in cuts() {
            for fault in [Fault::CutRequest(cut), Fault::CutAnswer(cut)] {
                number += 1;
                proxy.next([fault]);
                let written = insist(&writer, &batch("cut", number, 100)).await;
                assert_eq!(written, Written::default(), "{fault:?}");
                assert_eq!(proxy.waiting(), 0, "{fault:?} did not happen");
            }
        }
        assert_eq!(count(&cluster.url(), "cut"), number * 100);
        // What was answered for and not heard was found to be there.
        assert!(writer.counters().get(Counter::DocumentsAlreadyThere) > 0);
        writer.close().await;
    });
}

#[test]
fn a_storm_of_refusals_and_slow_answers_loses_nothing() {
    let Some(cluster) = Cluster::take("a storm of refusals", Kind::Basic) else { return };
    cluster.set_up_by_elastic();
    let proxy = FaultProxy::start(&cluster.address());
    runtime().block_on(async {
        let writer = writer(&output(&proxy.address), None).await;
        let storm = (0..60).map(|number| match number % 4 {
            0 => Fault::Delay(Duration::from_millis(200)),
            1 => Fault::Refuse(503),
            _ => Fault::Refuse(429),
        });
        proxy.next(storm);
        let writes: Vec<_> = (0..40)
            .map(|number| {
                let writer = Arc::clone(&writer);
                tokio::spawn(async move { insist(&writer, &batch("storm", number, 50)).await })
            })
            .collect();
        for write in writes {
            assert_eq!(write.await.unwrap(), Written::default());
        }
        assert_eq!(count(&cluster.url(), "storm"), 2000);
        assert!(writer.counters().get(Counter::RequestsFailed) > 0);
        writer.close().await;
    });
}

#[test]
fn one_item_in_a_thousand_that_does_not_fit_costs_one_document() {
    let Some(cluster) = Cluster::take("a mapping conflict", Kind::Basic) else { return };
    cluster.set_up_by_elastic();
    runtime().block_on(async {
        let writer = writer(&output(&cluster.address()), None).await;
        let mut documents = batch("conflict", 1, 999);
        let mut misfit = documents.events[0].clone();
        // A keyword of more bytes than the index takes.
        misfit.thread_name = "x".repeat(40_000).into();
        misfit.times = vec![misfit.times[0]];
        documents.events.insert(0, misfit);
        let written = insist(&writer, &documents).await;
        assert_eq!(written.rejected_samples, 1, "{written:?}");
        assert_eq!(count(&cluster.url(), "conflict"), 999);
        assert_eq!(writer.counters().get(Counter::SamplesRejected), 1);
        let reason = written.reason.unwrap();
        assert!(reason.contains("process.thread.name") && reason.len() < 1000, "{reason}");
        writer.close().await;
    });
}
