//! Executable mappings of one process through time: what lies where now, and what lay there a moment ago.
//!
//! Pure. Samples reach us later than the events of their time, so a mapping that was replaced is kept until the last
//! sample that could mean it is converted.

use std::sync::Arc;

use super::events::MappedRange;
use super::executable::Executable;
use super::kernel_side::ProcessMapping;
use super::maps::MAX_RANGES;
use super::table_builder::TableState;
use crate::model::RuntimeAddr;

/// Most replaced mappings that are remembered of one process. A program would have to replace one each millisecond to
/// need more; of one that does, the oldest go first and samples of their time get the best guess.
const MAX_PAST: usize = 4096;

/// What lies under a mapping.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// A file with code, and runtime minus ELF address (wrapping).
    Executable(Arc<Executable>, u64),
    /// Code that nobody can read as a file: JIT output, memory of an unknown kind. The name says what it is.
    Nameless(Arc<str>),
}

/// One executable mapping.
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    /// First address.
    pub(crate) start: u64,
    /// First address behind.
    pub(crate) end: u64,
    /// Offset of `start` in the file.
    pub(crate) file_offset: u64,
    /// Device and inode; zeros without a file.
    pub(crate) source: ((u32, u32), u64),
    /// What lies under it.
    pub(crate) content: Content,
    /// Since when (`CLOCK_MONOTONIC`); 0 = before anybody looked.
    pub(crate) from_ns: u64,
}

impl Mapping {
    /// Base name for people: file, `[vdso]`, or what kind of memory it is.
    pub(crate) fn name(&self) -> &Arc<str> {
        match &self.content {
            Content::Executable(executable, _) => &executable.name,
            Content::Nameless(name) => name,
        }
    }

    /// Whether no file says what lies here.
    pub(crate) fn is_nameless(&self) -> bool {
        match &self.content {
            Content::Executable(executable, _) => executable.is_stand_in,
            Content::Nameless(_) => true,
        }
    }

    fn is_same(&self, range: &MappedRange) -> bool {
        self.start <= range.start
            && range.end <= self.end
            && self.source == (range.device, range.inode)
            && (!range.is_file()
                || self.file_offset.wrapping_add(range.start - self.start) == range.file_offset)
    }
}

/// All executable mappings of a process, copied only when it changes after a fork.
#[derive(Clone, Debug, Default)]
pub(crate) struct AddressSpace {
    /// Sorted by start, not overlapping.
    live: Arc<Vec<Mapping>>,
    /// Replaced: (when, mapping). Few and short-lived, at most [`MAX_PAST`] and what one change replaces.
    past: Vec<(u64, Mapping)>,
    /// How often something was replaced.
    replacements: u32,
    /// When that was last.
    replaced_ns: u64,
}

impl AddressSpace {
    /// Mappings that hold now, sorted by start.
    pub(crate) fn live(&self) -> &[Mapping] {
        &self.live
    }

    /// Changes whenever an address may mean something else than before. `None` for times before the last such change:
    /// what is found then must not be remembered.
    pub(crate) fn generation(&self, time_ns: u64) -> Option<u32> {
        (time_ns >= self.replaced_ns).then_some(self.replacements)
    }

    /// When an address last came to mean something else.
    pub(crate) fn replaced_ns(&self) -> u64 {
        self.replaced_ns
    }

    /// What lay at `address` at `time_ns`.
    pub(crate) fn find(&self, address: u64, time_ns: u64) -> Option<&Mapping> {
        let at = self.live.partition_point(|mapping| mapping.end <= address);
        let now = self.live.get(at).filter(|mapping| mapping.start <= address);
        if now.is_some_and(|mapping| mapping.from_ns <= time_ns) || self.past.is_empty() {
            return now;
        }
        let covers = |mapping: &Mapping| mapping.start <= address && address < mapping.end;
        let was = self.past.iter().filter(|(_, mapping)| covers(mapping));
        let then = was.clone().find(|(until_ns, mapping)| mapping.from_ns <= time_ns && time_ns < *until_ns);
        // Code that runs is mapped: if nothing is known of that time, the next to come is the best guess.
        let later = was.map(|(_, mapping)| mapping).chain(now).filter(|mapping| mapping.from_ns > time_ns);
        then.map(|(_, mapping)| mapping).or_else(|| later.min_by_key(|mapping| mapping.from_ns))
    }

    /// Whether a mapping of the same content already covers `range`.
    pub(crate) fn has(&self, range: &MappedRange) -> bool {
        let at = self.live.partition_point(|mapping| mapping.end <= range.start);
        self.live.get(at).is_some_and(|mapping| mapping.is_same(range))
    }

    /// Puts `mapping` over whatever lay there. Says whether there was room.
    pub(crate) fn insert(&mut self, mapping: Mapping) -> bool {
        let first = self.live.partition_point(|old| old.end <= mapping.start);
        let behind = self.live.partition_point(|old| old.start < mapping.end);
        if self.live.len() - (behind - first) + 3 > MAX_RANGES {
            return false;
        }
        if first < behind {
            self.replaced(mapping.from_ns);
        }
        let mut pieces = Vec::with_capacity(3);
        let mut tail = None;
        for old in &self.live[first..behind] {
            self.past.push((mapping.from_ns, old.clone()));
            if old.start < mapping.start {
                pieces.push(Mapping { end: mapping.start, ..old.clone() });
            }
            if old.end > mapping.end {
                let cut = mapping.end - old.start;
                tail = Some(Mapping {
                    start: mapping.end,
                    file_offset: old.file_offset.wrapping_add(cut),
                    ..old.clone()
                });
            }
        }
        pieces.push(mapping);
        pieces.extend(tail);
        Arc::make_mut(&mut self.live).splice(first..behind, pieces);
        true
    }

    /// Drops live mappings that `keep` refuses, as seen by a new look at `/proc` at `time_ns`. Says whether any was.
    pub(crate) fn retain(&mut self, time_ns: u64, mut keep: impl FnMut(&Mapping) -> bool) -> bool {
        if self.live.iter().all(&mut keep) {
            return false;
        }
        self.replaced(time_ns);
        let live = Arc::make_mut(&mut self.live);
        let past = &mut self.past;
        live.retain(|mapping| {
            let kept = keep(mapping);
            if !kept {
                past.push((time_ns, mapping.clone()));
            }
            kept
        });
        true
    }

    /// Whether anything replaced waits to be forgotten.
    pub(crate) fn has_past(&self) -> bool {
        !self.past.is_empty()
    }

    fn replaced(&mut self, time_ns: u64) {
        if self.past.len() >= MAX_PAST {
            self.past.drain(..MAX_PAST / 2);
        }
        self.replacements = self.replacements.wrapping_add(1);
        self.replaced_ns = self.replaced_ns.max(time_ns);
    }

    /// Forgets what was replaced before `time_ns`: all samples of that time are converted.
    pub(crate) fn forget_before(&mut self, time_ns: u64) {
        if !self.past.is_empty() {
            self.past.retain(|(until_ns, _)| *until_ns >= time_ns);
        }
    }

    /// Mappings as the kernel side wants them: neighbours of one file joined.
    pub(crate) fn for_kernel(
        &self,
        table_of: impl Fn(&Executable) -> TableState,
        mappings: &mut Vec<ProcessMapping>,
    ) {
        mappings.clear();
        for mapping in self.live.iter() {
            let (bias, state) = match &mapping.content {
                Content::Executable(executable, bias) => (*bias, table_of(executable)),
                Content::Nameless(_) => (0, TableState::None),
            };
            let (table, pending) = (state.id(), state == TableState::Pending);
            let len = mapping.end - mapping.start;
            match mappings.last_mut() {
                Some(last)
                    if last.start.0 + last.len == mapping.start
                        && last.bias == bias
                        && last.table == table
                        && last.pending == pending =>
                {
                    last.len += len;
                }
                _ => mappings.push(ProcessMapping {
                    start: RuntimeAddr(mapping.start),
                    len,
                    bias,
                    table,
                    pending,
                }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(start: u64, end: u64, name: &str, from_ns: u64) -> Mapping {
        let source = ((0, 0), name.bytes().map(u64::from).sum());
        Mapping { start, end, file_offset: start, source, content: Content::Nameless(name.into()), from_ns }
    }

    fn at(space: &AddressSpace, address: u64, time_ns: u64) -> &str {
        space.find(address, time_ns).map_or("-", |mapping| mapping.name())
    }

    #[test]
    fn each_time_has_its_own_mapping() {
        let mut space = AddressSpace::default();
        space.insert(mapping(10, 20, "a", 0));
        space.insert(mapping(10, 20, "b", 100));
        space.insert(mapping(10, 20, "c", 200));
        assert_eq!(
            [at(&space, 10, 99), at(&space, 10, 100), at(&space, 19, 199), at(&space, 19, 200)],
            ["a", "b", "b", "c"]
        );
        assert_eq!([at(&space, 9, 500), at(&space, 20, 500)], ["-", "-"]);
        space.forget_before(150);
        assert_eq!([at(&space, 10, 150), at(&space, 10, 99), at(&space, 10, 200)], ["b", "b", "c"]);
    }

    #[test]
    fn new_mapping_cuts_old_ones() {
        let mut space = AddressSpace::default();
        space.insert(mapping(10, 40, "old", 0));
        space.insert(mapping(50, 60, "far", 0));
        space.insert(mapping(20, 30, "new", 5));
        let live: Vec<_> =
            space.live().iter().map(|m| (m.start, m.end, m.file_offset, m.name().to_string())).collect();
        assert_eq!(
            live,
            [
                (10, 20, 10, "old".to_owned()),
                (20, 30, 20, "new".to_owned()),
                (30, 40, 30, "old".to_owned()),
                (50, 60, 50, "far".to_owned())
            ]
        );
        space.insert(mapping(0, 100, "all", 9));
        assert_eq!(space.live().len(), 1);
        assert_eq!([at(&space, 25, 8), at(&space, 15, 8), at(&space, 25, 4)], ["new", "old", "old"]);
    }

    #[test]
    fn memory_of_a_restless_process_is_bounded() {
        let mut space = AddressSpace::default();
        for time_ns in 1..20_000 {
            space.insert(mapping(10, 20, if time_ns % 2 == 0 { "even" } else { "odd" }, time_ns));
            assert!(space.past.len() <= MAX_PAST);
        }
        assert_eq!(
            [at(&space, 10, 19_999), at(&space, 10, 19_998), at(&space, 10, 18_000)],
            ["odd", "even", "even"]
        );
        // Beyond memory: the next that is known.
        assert_ne!(at(&space, 10, 5), "-");
        assert!(space.has_past());
        space.forget_before(20_000);
        assert!(!space.has_past());
    }

    #[test]
    fn fork_shares_until_one_side_changes() {
        let mut parent = AddressSpace::default();
        parent.insert(mapping(10, 20, "lib", 0));
        let mut child = parent.clone();
        assert!(Arc::ptr_eq(&parent.live, &child.live));
        child.insert(mapping(30, 40, "own", 5));
        assert_eq!((parent.live().len(), child.live().len()), (1, 2));
    }

    #[test]
    fn closed_library_is_remembered_for_its_time() {
        let mut space = AddressSpace::default();
        space.insert(mapping(10, 20, "lib", 0));
        assert!(!space.retain(50, |_| true));
        assert!(space.retain(50, |_| false));
        assert_eq!([at(&space, 10, 49), at(&space, 10, 50)], ["lib", "-"]);
    }

    #[test]
    fn kernel_side_gets_neighbours_joined() {
        let mut space = AddressSpace::default();
        space.insert(mapping(10, 20, "a", 0));
        space.insert(mapping(20, 30, "b", 0));
        space.insert(mapping(40, 50, "c", 0));
        let mut mappings = Vec::new();
        space.for_kernel(|_| TableState::None, &mut mappings);
        let ranges: Vec<_> = mappings.iter().map(|m| (m.start.0, m.len)).collect();
        assert_eq!(ranges, [(10, 20), (40, 10)]);
    }
}
