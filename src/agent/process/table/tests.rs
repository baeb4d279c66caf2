//! Events in, answers out: every way in which processes begin, change and end.

use super::*;

/// Names mappings after their paths.
#[derive(Default)]
struct ByPath {
    runs: bool,
}

impl Resolver for ByPath {
    fn resolve(&mut self, _pid: u32, range: &MappedRange) -> Content {
        Content::Nameless(range.path.to_string_lossy().into())
    }

    fn still_runs(&self, _pid: u32) -> bool {
        self.runs
    }
}

#[derive(Default)]
struct Scene {
    table: ProcessTable,
    changes: Changes,
    resolver: ByPath,
}

impl Scene {
    fn apply(&mut self, time_ns: u64, kind: EventKind) {
        self.table.apply(Event { time_ns, kind }, &mut self.resolver, &mut self.changes);
    }

    fn fork(&mut self, time_ns: u64, parent_pid: u32, pid: u32) {
        self.apply(time_ns, EventKind::Fork { pid, parent_pid });
    }

    fn exec(&mut self, time_ns: u64, pid: u32, program: &str) {
        self.apply(time_ns, EventKind::Comm { pid, tid: pid, name: comm(program), exec: true });
        self.map(time_ns, pid, 100, program);
    }

    fn map(&mut self, time_ns: u64, pid: u32, start: u64, path: &str) {
        self.apply(time_ns, EventKind::Map { pid, range: range(start, path) });
    }

    fn exit(&mut self, time_ns: u64, pid: u32, tid: u32) {
        self.apply(time_ns, EventKind::Exit { pid, tid });
    }

    fn scan(&mut self, time_ns: u64, since_ns: u64, pid: u32, program: &str, ranges: Vec<MappedRange>) {
        let stat = Stat {
            comm: comm(program),
            state: b'S',
            kernel_thread: false,
            cpu_ticks: 0,
            threads: 1,
            start_ticks: 1,
        };
        let maps = Maps { ranges, skipped: 0 };
        let scan = Scan { time_ns, since_ns, stat, executable_path: Some(program.into()), maps };
        self.table.scanned(pid, scan, &mut self.resolver, &mut self.changes);
    }

    /// `program:mapping at address` of a process at a time.
    fn at(&mut self, pid: u32, time_ns: u64, address: u64) -> String {
        let Some(image) = self.table.at(pid, time_ns) else { return "-".into() };
        let mapping = image.space.find(address, time_ns).map_or("-", |mapping| mapping.name());
        format!("{}:{mapping}", image.executable_path)
    }
}

fn comm(name: &str) -> [u8; 16] {
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name.as_bytes());
    comm
}

fn range(start: u64, path: &str) -> MappedRange {
    let inode = path.bytes().map(u64::from).sum();
    MappedRange {
        start,
        end: start + 50,
        file_offset: 0,
        device: (1, 1),
        inode,
        path: std::path::Path::new(path).into(),
    }
}

#[test]
fn shell_runs_a_program() {
    let mut scene = Scene::default();
    scene.scan(10, 0, 1, "sh", vec![range(100, "sh"), range(200, "libc")]);
    scene.fork(20, 1, 2);
    scene.exec(30, 2, "ls");
    scene.map(31, 2, 200, "libc2");
    scene.exit(40, 2, 2);
    assert_eq!(scene.at(2, 25, 210), "sh:libc");
    assert_eq!(scene.at(2, 30, 110), "ls:ls");
    assert_eq!(scene.at(2, 35, 210), "ls:libc2");
    assert_eq!(scene.at(2, 45, 210), "ls:libc2", "a process runs a little behind its exit record");
    assert_eq!(scene.at(1, 45, 210), "sh:libc");
    assert_eq!(scene.changes.changed, HashSet::from([1]));
    assert_eq!(scene.changes.gone, HashSet::from([2]));
    scene.table.forget_before(30);
    assert_eq!(scene.at(2, 35, 210), "ls:libc2");
    scene.table.forget_before(41);
    assert_eq!(scene.at(2, 35, 210), "-");
    assert_eq!(scene.table.len(), 1);
}

#[test]
fn number_is_used_again_at_once() {
    let mut scene = Scene::default();
    scene.scan(10, 0, 1, "sh", vec![range(100, "sh")]);
    for round in 0..3u64 {
        let start = 100 * (round + 1);
        scene.fork(start, 1, 2);
        scene.exec(start + 10, 2, ["a", "b", "c"][round as usize]);
        scene.exit(start + 20, 2, 2);
    }
    let seen = [115, 205, 215, 225, 315].map(|time_ns| scene.at(2, time_ns, 110));
    assert_eq!(seen, ["a:a", "sh:sh", "b:b", "b:b", "c:c"]);
    let serials: HashSet<u64> =
        [115, 205, 215, 315].map(|time| scene.table.at(2, time).unwrap().serial).into();
    assert_eq!(serials.len(), 4);
    // And without the exit record, which was lost.
    scene.fork(500, 1, 3);
    scene.exec(510, 3, "old");
    scene.fork(600, 1, 3);
    scene.exec(610, 3, "new");
    assert_eq!(
        (scene.at(3, 599, 110), scene.at(3, 605, 110), scene.at(3, 620, 110)),
        ("old:old".into(), "sh:sh".into(), "new:new".into())
    );
}

#[test]
fn threads_do_not_end_a_process() {
    let mut scene = Scene::default();
    scene.fork(10, 1, 5);
    scene.exec(11, 5, "java");
    scene.fork(12, 5, 5);
    scene.fork(13, 5, 5);
    scene.exit(20, 5, 6);
    assert!(scene.table.live(5).is_some());
    // The first thread ends while another runs on.
    scene.resolver.runs = true;
    scene.exit(30, 5, 5);
    assert!(scene.table.live(5).is_some());
    scene.resolver.runs = false;
    scene.exit(40, 5, 7);
    scene.exit(50, 5, 5);
    assert!(scene.table.live(5).is_none());
}

#[test]
fn another_thread_calls_exec() {
    let mut scene = Scene::default();
    scene.fork(10, 1, 5);
    scene.exec(11, 5, "a");
    scene.fork(12, 5, 5);
    scene.resolver.runs = true;
    scene.exit(20, 5, 5);
    scene.exec(21, 5, "b");
    assert_eq!((scene.at(5, 15, 110), scene.at(5, 25, 110)), ("a:a".into(), "b:b".into()));
    scene.resolver.runs = false;
    scene.exit(30, 5, 5);
    assert!(scene.table.live(5).is_none());
}

#[test]
fn library_comes_goes_and_another_takes_its_place() {
    let mut scene = Scene::default();
    scene.scan(10, 0, 1, "app", vec![range(100, "app")]);
    scene.map(20, 1, 300, "first");
    scene.map(30, 1, 320, "second");
    assert_eq!(
        [15, 25, 35].map(|time| scene.at(1, time, 330)),
        ["app:first", "app:first", "app:second"].map(String::from)
    );
    assert_eq!(scene.at(1, 35, 310), "app:first");
}

#[test]
fn scan_wins_over_events_before_it() {
    let mut scene = Scene::default();
    scene.scan(100, 0, 1, "app", vec![range(100, "app"), range(300, "now")]);
    scene.map(90, 1, 300, "before");
    scene.exec(91, 1, "older");
    scene.exit(92, 1, 1);
    assert_eq!(scene.at(1, 200, 310), "app:now");
    scene.map(110, 1, 300, "after");
    assert_eq!(scene.at(1, 200, 310), "app:after");
}

#[test]
fn lost_records_are_made_good_by_a_scan() {
    let mut scene = Scene::default();
    scene.scan(10, 0, 1, "app", vec![range(100, "app"), range(300, "closed")]);
    scene.scan(10, 0, 2, "gone", vec![range(100, "gone")]);
    scene.apply(50, EventKind::Lost { count: 7 });
    assert_eq!(scene.changes.lost, 7);
    // Meanwhile: a library closed, another opened, a process gone, one new, one that runs another program.
    scene.scan(60, 40, 1, "app", vec![range(100, "app"), range(400, "opened")]);
    scene.scan(60, 40, 3, "new", vec![range(100, "new")]);
    scene.table.end_missing(60, &mut scene.changes, |pid| pid != 2);
    assert_eq!((scene.at(1, 30, 310), scene.at(1, 70, 310)), ("app:closed".into(), "app:-".into()));
    assert_eq!(scene.at(1, 45, 410), "app:opened");
    assert!(scene.table.live(2).is_none() && scene.table.live(3).is_some());
    assert_eq!(scene.at(2, 30, 110), "gone:gone");
    scene.scan(80, 60, 3, "other", vec![range(100, "other")]);
    assert_eq!((scene.at(3, 50, 110), scene.at(3, 90, 110)), ("new:new".into(), "other:other".into()));
}

#[test]
fn events_of_unknown_processes_do_no_harm() {
    let mut scene = Scene::default();
    scene.exit(10, 77, 77);
    scene.fork(10, 77, 77);
    scene.apply(10, EventKind::Comm { pid: 77, tid: 77, name: comm("x"), exec: false });
    assert!(scene.table.live(77).is_none());
    scene.map(20, 78, 100, "lib");
    assert_eq!(scene.at(78, 30, 110), "lib:lib");
    scene.fork(30, 79, 80);
    assert_eq!(scene.at(80, 40, 110), ":-");
}

#[test]
fn kernel_half_of_the_address_space_is_left_out() {
    let mut scene = Scene::default();
    scene.map(10, 1, 0xffff_ffff_ff60_0000, "[vsyscall]");
    assert!(scene.table.live(1).unwrap().space.live().is_empty());
}

#[test]
fn number_of_processes_is_bounded() {
    let mut scene = Scene::default();
    for pid in 1..=MAX_IMAGES as u32 + 5 {
        scene.fork(10, 0, pid);
    }
    assert_eq!(scene.table.len(), MAX_IMAGES);
    assert_eq!(scene.table.over_limit(), 5);
}
