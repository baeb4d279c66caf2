//! Beside the writing: finds out what the cluster is, looks after one that is away, tells totals now and then.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::Shape;
use super::super::generation::{Purpose, examine};
use super::ElasticWriter;
use super::courier::Courier;
use super::trouble::Trouble;

/// Pause between two looks at the cluster.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// First pause while the cluster has not answered yet.
const FIRST_LOOK: Duration = Duration::from_millis(250);
/// Totals of rejected documents are told once in so many looks: every minute.
const TELL_EVERY: u32 = 12;

/// Runs until the writer is gone or the process stops.
pub(super) async fn run(writer: Weak<ElasticWriter>, courier: Arc<Courier>) {
    let mut pause = FIRST_LOOK;
    loop {
        let Some(writer) = writer.upgrade() else { return };
        match find(&writer).await {
            Ok(shape) => {
                writer.set_shape(shape);
                courier.health.works(Instant::now());
                break;
            }
            Err(trouble) => courier.health.failed(&trouble, Instant::now(), courier.queued),
        }
        drop(writer);
        sleep(pause).await;
        pause = (pause * 2).min(LOOK_EVERY);
    }
    for look in 1_u32.. {
        sleep(LOOK_EVERY).await;
        if writer.strong_count() == 0 {
            return;
        }
        if look.is_multiple_of(TELL_EVERY) {
            courier.rejects.tell();
        }
        if courier.health.trouble().is_some() {
            // Whoever is not ready gets no work that would show that it is.
            courier.health.forgive(Instant::now());
        }
    }
}

/// Asks the cluster what documents have to look like.
async fn find(writer: &ElasticWriter) -> Result<Shape, Trouble> {
    let cluster = examine(&writer.courier.client, Purpose::Write, writer.forced).await?;
    tracing::info!(
        cluster = cluster.about.name,
        version = %cluster.about.version,
        generation = ?cluster.shape.generation,
        lookup_streams = cluster.shape.lookup_streams,
        "writing to Elasticsearch"
    );
    Ok(cluster.shape)
}
