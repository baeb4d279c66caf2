//! Empties the disk queue into Elasticsearch, in order, for as long as it takes.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::super::queue::{DiskQueue, Load};
use super::courier::{Courier, Fate, Patience};
use super::gather::IN_FLIGHT;

/// Senders have their answer already, so bodies may gather into larger requests.
const LINGER: Duration = Duration::from_millis(50);

/// Runs until the process stops. What is on its way then is finished or sent again after the next start.
pub(super) async fn run(courier: Arc<Courier>, queue: Arc<DiskQueue>) {
    let mut sending = JoinSet::new();
    while !courier.shutdown.is_cancelled() {
        if sending.len() >= IN_FLIGHT {
            tokio::select! {
                _ = sending.join_next() => {}
                () = courier.shutdown.cancelled() => break,
            }
            continue;
        }
        let Some(load) = queue.take(courier.flush_bytes()).await else {
            tokio::select! {
                () = queue.grown() => {}
                () = courier.shutdown.cancelled() => break,
            }
            tokio::time::sleep(LINGER).await;
            continue;
        };
        sending.spawn(deliver(courier.clone(), queue.clone(), load));
    }
    while sending.join_next().await.is_some() {}
}

async fn deliver(courier: Arc<Courier>, queue: Arc<DiskQueue>, load: Load) {
    let Load { id, body } = load;
    let delivered = courier.deliver(body.bytes.into(), &body.items, Patience::Forever).await;
    if !delivered.fates.contains(&Fate::Open) {
        queue.done(id);
    }
}
