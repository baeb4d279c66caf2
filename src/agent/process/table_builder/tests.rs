//! Real files through real workers; the kernel side only takes notes.

use std::time::{Duration, Instant};

use super::*;
use crate::agent::process::executable::{FileKey, Origin, Stamp};
use crate::agent::process::kernel_side::ProcessMapping;
use crate::model::ElfAddr;
use crate::symbols::mapped::ImageFile;
use crate::unwind::{Rule, UnwindTable};

/// Remembers what it was told, and has room for `room` tables.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) room: usize,
    pub(crate) tables: Vec<(TableId, usize)>,
    pub(crate) processes: HashMap<u32, Vec<ProcessMapping>>,
    pub(crate) retired: Vec<TableId>,
    next: u32,
}

impl Notes {
    pub(crate) fn with_room(room: usize) -> Self {
        Self { room, ..Self::default() }
    }
}

impl KernelSide for Notes {
    fn publish(&mut self, table: &UnwindTable) -> Result<TableId, KernelSideError> {
        self.publish_image(&TableImage::new(table))
    }

    fn publish_image(&mut self, image: &TableImage) -> Result<TableId, KernelSideError> {
        if self.tables.len() >= self.room {
            return Err(KernelSideError::PoolFull {
                used_bytes: self.room as u64,
                budget_bytes: self.room as u64,
            });
        }
        self.next += 1;
        self.tables.push((TableId(self.next), image.source_rows() as usize));
        Ok(TableId(self.next))
    }

    fn retire(&mut self, table: TableId) {
        self.retired.push(table);
        self.tables.retain(|(id, _)| *id != table);
    }

    fn rule(&self, _table: TableId, _address: ElfAddr) -> Rule {
        Rule::Unknown
    }

    fn set_process(&mut self, pid: u32, mappings: &[ProcessMapping]) -> Result<(), KernelSideError> {
        self.processes.insert(pid, mappings.to_vec());
        Ok(())
    }

    fn remove_process(&mut self, pid: u32) {
        self.processes.remove(&pid);
    }
}

fn executable(path: &str) -> Arc<Executable> {
    use std::os::unix::fs::MetadataExt;
    let file = std::fs::File::open(path).unwrap();
    let metadata = file.metadata().unwrap();
    let origin = Origin {
        path: std::fs::canonicalize(path).unwrap(),
        pid: std::process::id(),
        key: FileKey {
            device: (libc::major(metadata.dev()), libc::minor(metadata.dev())),
            inode: metadata.ino(),
        },
        stamp: Stamp { size: metadata.size(), changed: (metadata.mtime(), metadata.mtime_nsec()) },
        is_stand_in: false,
    };
    Arc::new(Executable::read(ImageFile::open(file).unwrap(), origin).unwrap())
}

fn builder() -> TableBuilder {
    TableBuilder::start(&Arc::new(Executables::default()), 1, None).unwrap()
}

/// Publishes until nothing is pending.
fn settle(builder: &mut TableBuilder, notes: &mut Notes, is_mapped: impl Fn(FileId) -> bool) -> Vec<FileId> {
    let deadline = Instant::now() + Duration::from_mins(1);
    let mut published = Vec::new();
    while builder.pending() > 0 {
        assert!(Instant::now() < deadline, "tables were not finished");
        published.extend(builder.publish(notes, &is_mapped));
        std::thread::sleep(Duration::from_millis(1));
    }
    published
}

#[test]
fn tables_are_built_once_and_published() {
    let (mut builder, mut notes) = (builder(), Notes::with_room(10));
    let (sh, ls) = (executable("/bin/sh"), executable("/bin/ls"));
    for _ in 0..3 {
        builder.ask(&sh, 0);
        builder.ask(&ls, 5);
    }
    let published = settle(&mut builder, &mut notes, |_| true);
    assert_eq!(published.len(), 2);
    assert!(builder.table(&sh).id().is_some() && builder.table(&ls).id().is_some());
    assert!(notes.tables.iter().all(|(_, rows)| *rows > 100));
    builder.ask(&sh, 100);
    assert_eq!(builder.pending(), 0);
    assert_eq!(builder.counts(), TableCounts { published: 2, ..TableCounts::default() });
}

#[test]
fn tables_that_nobody_maps_make_room() {
    let (mut builder, mut notes) = (builder(), Notes::with_room(1));
    let (sh, ls) = (executable("/bin/sh"), executable("/bin/ls"));
    builder.ask(&sh, 0);
    settle(&mut builder, &mut notes, |_| true);
    builder.ask(&ls, 0);
    let ls_id = ls.file_id;
    settle(&mut builder, &mut notes, |file_id| file_id == ls_id);
    assert!(builder.table(&sh) == TableState::None && builder.table(&ls).id().is_some());
    assert_eq!(builder.counts().retired, 1);
    // Both mapped: refused, counted, not tried for ever.
    builder.ask(&sh, 0);
    settle(&mut builder, &mut notes, |_| true);
    assert_eq!(builder.table(&sh), TableState::None);
    assert_eq!(builder.counts().refused, 1);
}

#[test]
fn vanished_and_broken_files_have_no_table() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gone");
    std::fs::copy("/bin/sleep", &path).unwrap();
    let gone = executable(path.to_str().unwrap());
    std::fs::remove_file(&path).unwrap();
    let (mut builder, mut notes) = (builder(), Notes::with_room(10));
    builder.ask(&gone, 0);
    assert_eq!(settle(&mut builder, &mut notes, |_| true), [gone.file_id]);
    assert_eq!(builder.counts().without, 1);
    assert_eq!(builder.table(&gone), TableState::None);
    builder.forget(&[gone.file_id], &mut notes);
    assert!(notes.retired.is_empty());
}

#[test]
fn hottest_comes_first_and_heat_may_rise() {
    let mut queue = Queue::default();
    let (sh, ls, sleep) = (executable("/bin/sh"), executable("/bin/ls"), executable("/bin/sleep"));
    for (number, (executable, heat)) in [(&sh, 1), (&ls, 5), (&sleep, 1)].into_iter().enumerate() {
        queue.place.insert(executable.file_id, (-heat, number as u64));
        queue.waiting.insert((-heat, number as u64), Arc::clone(executable));
    }
    let order: Vec<_> =
        std::iter::from_fn(|| queue.take()).map(|executable| executable.name.to_string()).collect();
    assert_eq!(order, [&*ls.name, &*sh.name, &*sleep.name]);
    assert_eq!(queue.in_work, 3);
}

#[test]
fn the_least_sampled_table_goes_for_one_that_is_sampled_more() {
    let (mut builder, mut notes) = (builder(), Notes::with_room(2));
    let [sh, ls, sleep] = ["/bin/sh", "/bin/ls", "/bin/sleep"].map(executable);
    builder.ask(&sh, 0);
    builder.ask(&ls, 0);
    settle(&mut builder, &mut notes, |_| true);
    (0..3).for_each(|_| ls.heat.touch());
    // Not sampled itself: nobody goes for it.
    builder.ask(&sleep, 1);
    assert_eq!(settle(&mut builder, &mut notes, |_| true), [sleep.file_id]);
    assert_eq!((builder.counts().refused, builder.counts().evicted), (1, 0));

    (0..10).for_each(|_| sleep.heat.touch());
    let refused = builder.states.insert(sleep.file_id, State::Refused(Instant::now()));
    assert!(matches!(refused, Some(State::Refused(_))));
    builder.ask(&sleep, 1);
    // Its processes are told at once, the newcomer comes when there is room.
    assert_eq!(settle(&mut builder, &mut notes, |_| true), [sh.file_id, sleep.file_id]);
    assert!(
        builder.table(&sh).id().is_none()
            && builder.table(&ls).id().is_some()
            && builder.table(&sleep).id().is_none()
    );
    builder.states.insert(sleep.file_id, State::Refused(Instant::now()));
    builder.ask(&sleep, 1);
    assert_eq!(settle(&mut builder, &mut notes, |_| true), [sleep.file_id]);
    assert!(builder.table(&sleep).id().is_some());
    assert_eq!((builder.counts().published, builder.counts().evicted), (2, 1));
}

#[test]
fn kept_tables_are_not_built_again() {
    let directory = tempfile::tempdir().unwrap();
    let executables = Arc::new(Executables::default());
    let start = || {
        let cache = TableCache::open(directory.path()).unwrap();
        TableBuilder::start(&executables, 1, Some(cache)).unwrap()
    };
    let sh = executable("/bin/sh");
    let mut rows = Vec::new();
    for cached in [0, 1] {
        let (mut builder, mut notes) = (start(), Notes::with_room(1));
        builder.ask(&sh, 0);
        settle(&mut builder, &mut notes, |_| true);
        assert_eq!(builder.counts(), TableCounts { published: 1, cached, ..TableCounts::default() });
        rows.push(notes.tables[0].1);
    }
    assert_eq!(rows[0], rows[1]);
}
