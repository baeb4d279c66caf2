//! What the kernel side had been told of a process, and when: a change of its mappings gets there some milliseconds late,
//! and a walk of that time through what was replaced followed rules of other code. Pure.

use std::collections::VecDeque;

/// Most publications that are remembered: at the pace of a restless process more than a third of a second, longer than a
/// sample waits in the ring.
const MAX_REMEMBERED: usize = 64;

/// Publications of one image, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// When, and up to which time the mappings were known; `u64::MAX` where the kernel side was made to forget it.
    publications: VecDeque<(u64, u64)>,
}

impl Told {
    /// From `at_ns` on the kernel side has the mappings as they were at `known_ns`.
    pub(crate) fn published(&mut self, at_ns: u64, known_ns: u64) {
        if self.publications.len() == MAX_REMEMBERED {
            self.publications.pop_front();
        }
        self.publications.push_back((at_ns, known_ns));
    }

    /// From `at_ns` on it has none, and its samples come with stack copies.
    pub(crate) fn removed(&mut self, at_ns: u64) {
        if self.publications.back().is_some_and(|(_, known_ns)| *known_ns != u64::MAX) {
            self.published(at_ns, u64::MAX);
        }
    }

    /// A sample of `time_ns` was walked with the mappings up to this time; `u64::MAX` where nothing can be said against it.
    pub(crate) fn known_at(&self, time_ns: u64) -> u64 {
        let later = self.publications.partition_point(|(at_ns, _)| *at_ns <= time_ns);
        later.checked_sub(1).map_or(u64::MAX, |last| self.publications[last].1)
    }

    /// Forgets all but the last publication before `time_ns`.
    pub(crate) fn forget_before(&mut self, time_ns: u64) {
        while self.publications.get(1).is_some_and(|(at_ns, _)| *at_ns <= time_ns) {
            self.publications.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sample_has_the_publication_of_its_time() {
        let mut told = Told::default();
        told.removed(5);
        assert_eq!(told.known_at(10), u64::MAX);
        told.published(20, 18);
        told.removed(30);
        told.published(50, 45);
        assert_eq!(
            [19, 20, 29, 30, 49, 50, 99].map(|time_ns| told.known_at(time_ns)),
            [u64::MAX, 18, 18, u64::MAX, u64::MAX, 45, 45]
        );
        told.forget_before(49);
        assert_eq!(told.known_at(30), u64::MAX);
        told.forget_before(60);
        assert_eq!((told.known_at(60), told.publications.len()), (45, 1));
        (100..1000).for_each(|at_ns| told.published(at_ns, at_ns - 1));
        assert_eq!((told.known_at(999), told.publications.len()), (998, MAX_REMEMBERED));
    }
}
