//! Whether Elasticsearch takes documents: told once when that changes, and asked before work is done in vain.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::trouble::Trouble;

/// Pause before the first new attempt after a failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Elasticsearch is asked again at least this often while it fails.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A failure that was not looked into for so long counts no more.
const FORGIVE_AFTER: Duration = Duration::from_secs(30);

/// What is known of the other side.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failure: Option<Failure>,
    refused: u64,
}

#[derive(Debug)]
struct Failure {
    trouble: Trouble,
    since: Instant,
    failures: u32,
    /// Nothing is tried before.
    until: Instant,
    /// One caller is finding out.
    asked_again: bool,
}

impl Health {
    /// Why a batch is refused before anything is tried. The first caller after a pause may try.
    pub(super) fn refusal(&self, now: Instant) -> Option<Trouble> {
        let mut state = self.0.lock();
        let failure = state.failure.as_mut()?;
        if now >= failure.until {
            // Others wait for what this one finds.
            failure.until = now + pause(failure.failures);
            failure.asked_again = true;
            return None;
        }
        let trouble = failure.trouble.clone();
        state.refused += 1;
        Some(trouble)
    }

    /// Forgets a failure that nobody has looked into for a while, so that somebody tries: a collector that is not ready
    /// may get no work that would show that it is.
    pub(super) fn forgive(&self, now: Instant) -> bool {
        let mut state = self.0.lock();
        let forgiven = state.failure.as_ref().is_some_and(|failure| now >= failure.until + FORGIVE_AFTER);
        if forgiven {
            state.failure = None;
        }
        forgiven
    }

    /// Nothing of a request was written.
    pub(super) fn failed(&self, trouble: &Trouble, now: Instant, queued: bool) {
        let mut state = self.0.lock();
        let known = state.failure.as_ref().is_some_and(|failure| failure.trouble.is_like(trouble));
        if !known {
            let what = if queued {
                "what arrives waits in the disk queue"
            } else {
                "senders are asked to try again"
            };
            let hint = trouble.hint();
            tracing::warn!(hint, "Elasticsearch does not take documents, {what}: {trouble}");
        }
        match &mut state.failure {
            Some(failure) => {
                // Requests that were on their way together fail together.
                if failure.asked_again || now >= failure.until {
                    failure.failures = failure.failures.saturating_add(1);
                    failure.until = now + pause(failure.failures);
                    failure.asked_again = false;
                }
                failure.trouble = trouble.clone();
            }
            none => {
                let until = now + pause(1);
                let trouble = trouble.clone();
                *none = Some(Failure { trouble, since: now, failures: 1, until, asked_again: false });
            }
        }
    }

    /// Something was written.
    pub(super) fn works(&self, now: Instant) {
        let mut state = self.0.lock();
        if let Some(failure) = state.failure.take() {
            let seconds = now.saturating_duration_since(failure.since).as_secs();
            tracing::info!(
                seconds,
                batches_refused = std::mem::take(&mut state.refused),
                "Elasticsearch takes documents again"
            );
        }
    }

    /// What is wrong now.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.0.lock().failure.as_ref().map(|failure| failure.trouble.clone())
    }
}

fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::elastic::CallError;

    fn away() -> Trouble {
        Trouble::Call(CallError::Unreachable(Vec::new()))
    }

    #[test]
    fn after_a_failure_one_caller_at_a_time_finds_out() {
        let (health, now) = (Health::default(), Instant::now());
        assert!(health.refusal(now).is_none());
        health.failed(&away(), now, false);
        assert!(health.refusal(now).is_some());
        let later = now + FIRST_PAUSE;
        assert!(health.refusal(later).is_none());
        assert!(health.refusal(later).is_some());
        health.failed(&away(), later, false);
        assert!(health.refusal(later + FIRST_PAUSE).is_some(), "the second pause is longer");
        health.works(later);
        assert!(health.refusal(later).is_none());
        assert!(health.trouble().is_none());
    }

    #[test]
    fn pauses_grow_to_a_few_seconds() {
        let (health, mut now) = (Health::default(), Instant::now());
        for expected in [500, 1000, 2000, 4000, 5000, 5000] {
            health.failed(&away(), now, false);
            let until = health.0.lock().failure.as_ref().unwrap().until;
            assert_eq!((until - now).as_millis(), expected);
            now = until;
        }
    }
}
