//! Documents that Elasticsearch will never take: counted by kind and reason, told once per reason and then as totals.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::super::Kind;
use super::counters::word;

/// Pairs of kind and reason that are told apart; all others count as `other`.
const MANY: usize = 64;

/// Counts of rejected documents.
#[derive(Debug, Default)]
pub(super) struct Rejects(Mutex<BTreeMap<(&'static str, String), Count>>);

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    documents: u64,
    told: u64,
}

impl Rejects {
    /// Counts one document; tells of the first of its kind and reason.
    pub(super) fn add(&self, kind: Kind, error: &str, reason: &str) {
        let mut counts = self.0.lock();
        let mut key = (word(kind), error.to_owned());
        if counts.len() >= MANY && !counts.contains_key(&key) {
            key.1 = "other".into();
        }
        let count = counts.entry(key).or_default();
        count.documents += 1;
        let first = count.documents == 1;
        if first {
            count.told = 1;
        }
        drop(counts);
        if first {
            tracing::error!(
                kind = word(kind),
                error,
                reason,
                "a document was rejected by Elasticsearch and is lost; others of this kind and error are counted"
            );
        }
    }

    /// Tells how many there are by now, where that has changed since it was told.
    pub(super) fn tell(&self) {
        for ((kind, error), count) in
            self.0.lock().iter_mut().filter(|(_, count)| count.told < count.documents)
        {
            tracing::error!(
                kind,
                error = error.as_str(),
                documents = count.documents,
                "documents rejected by Elasticsearch so far"
            );
            count.told = count.documents;
        }
    }

    /// Rejected documents by kind and error.
    pub(super) fn list(&self) -> Vec<(&'static str, String, u64)> {
        self.0.lock().iter().map(|((kind, error), count)| (*kind, error.clone(), count.documents)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_apart_up_to_a_bound() {
        let rejects = Rejects::default();
        for _ in 0..3 {
            rejects.add(Kind::Event, "document_parsing_exception", "x");
        }
        for number in 0..100 {
            rejects.add(Kind::Host, &format!("e{number}"), "x");
        }
        let list = rejects.list();
        assert!(list.len() <= MANY + 1);
        assert_eq!(list.iter().map(|(.., count)| count).sum::<u64>(), 103);
        assert!(list.contains(&("event", "document_parsing_exception".into(), 3)));
    }
}
