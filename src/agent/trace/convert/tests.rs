//! Raw samples made of real addresses of this process.

use std::time::{Duration, Instant};

use super::*;
use crate::agent::bpf::UserFrame;
use crate::agent::host::{Environment, clock::monotonic_ns};
use crate::agent::process::{Executables, FollowSettings};
use crate::agent::reporter::{Frame as WindowFrame, Window};
use crate::model::Batch;

struct Scene {
    converter: Converter,
    follower: Follower,
    window: Window,
}

fn scene() -> Option<Scene> {
    let follower = match Follower::start(&Arc::new(Executables::default()), FollowSettings::default()) {
        Ok(follower) => follower,
        Err(error) => {
            eprintln!("not tested: {error}");
            return None;
        }
    };
    let host = Host {
        id: "1".into(),
        name: "h".into(),
        kernel: "k".into(),
        arch: "amd64".into(),
        cpus: 1,
        environment: Environment::Kvm,
    };
    let names = KernelNames::read(monotonic_ns());
    Some(Scene { converter: Converter::new(Vec::new(), host, names), follower, window: Window::default() })
}

impl Scene {
    fn sample(&mut self, raw: &RawTrace<'_>) {
        let sample = self.converter.convert(raw, &mut self.follower, false).unwrap().unwrap();
        assert!(self.window.push(sample));
    }

    fn batch(&mut self) -> Batch {
        let frame = WindowFrame { period_ns: 1, start: UnixNanos(0), end: UnixNanos(1) };
        let batch = self.window.finish(self.converter.interner(), frame);
        assert!(batch.check());
        batch
    }
}

/// One line per frame, leaf first: kind, file, name, address.
fn picture(batch: &Batch, stack: u32) -> Vec<String> {
    let frame = |index: &u32| {
        let frame = &batch.frames[*index as usize];
        let file = frame.executable.map_or("-", |executable| &batch.executables[executable as usize].name);
        let name = frame.lines.first().map_or("", |line| &line.function);
        format!("{} {file} {name}", frame.kind.otlp_name())
    };
    batch.stack(stack).iter().map(frame).collect()
}

fn raw<'r>(kernel: &'r [u64], user: &'r [UserFrame], end: EndReason) -> RawTrace<'r> {
    RawTrace {
        pid: std::process::id(),
        tid: 77,
        cpu: 0,
        time_ns: monotonic_ns(),
        comm: *b"worker\0\0\0\0\0\0\0\0\0\0",
        kernel,
        user,
        gap_at: 0,
        end,
        stack_copy: None,
    }
}

fn here() -> u64 {
    here as *const () as u64
}

fn own_name() -> String {
    std::env::current_exe().unwrap().file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn user_frames_become_file_and_elf_address() {
    let Some(mut scene) = scene() else { return };
    let user = [UserFrame(here()), UserFrame((here() + 5) | UserFrame::RETURN_ADDRESS)];
    scene.sample(&raw(&[], &user, EndReason::Complete));
    let batch = scene.batch();
    assert_eq!(picture(&batch, 0), [format!("native {} ", own_name()), format!("native {} ", own_name())]);
    let addresses: Vec<u64> =
        batch.stack(0).iter().map(|frame| batch.frames[*frame as usize].address).collect();
    assert_eq!(addresses[1] - addresses[0], 4, "the return address is lowered by one");
    // The address is that of the file's own numbering: its symbol table has the function there.
    let elf = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let table = crate::unwind::from_elf(&elf).unwrap();
    assert!(table.find(crate::model::ElfAddr(addresses[0])).is_some());
    let resource = &batch.resources[0];
    assert_eq!((resource.pid, &*resource.executable_name), (std::process::id(), &*own_name()));
    assert_eq!((&*batch.samples[0].thread_name, batch.samples[0].tid), ("worker", 77));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    assert!(batch.times[0].0.abs_diff(now) < 10_000_000_000);
    assert_eq!(batch.executables[0].file_id, Some(crate::symbols::file_id::of_bytes(&elf)));
}

#[test]
fn incomplete_stacks_say_why_at_their_root() {
    let Some(mut scene) = scene() else { return };
    let own = own_name();
    let user = [UserFrame(here())];
    let check = |scene: &mut Scene, end, expected: Option<String>| {
        scene.sample(&raw(&[], &user, end));
        let batch = scene.batch();
        let root = picture(&batch, 0).pop().unwrap();
        assert_eq!(root, expected.unwrap_or(format!("native {own} ")), "{end:?}");
        for (frame, kind) in batch.frames.iter().map(|frame| (frame, frame.kind)) {
            assert!(kind != FrameKind::ABORT || (frame.executable.is_none() && frame.address == 0));
        }
    };
    check(
        &mut scene,
        EndReason::NoTable,
        Some(format!("abort-marker - [truncated: no unwind table for {own}]")),
    );
    check(
        &mut scene,
        EndReason::NoRule,
        Some(format!("abort-marker - [truncated: no unwind rule in {own}]")),
    );
    check(&mut scene, EndReason::Complete, None);
    assert_eq!(scene.converter.truncated, 2);
}

#[test]
fn unknown_addresses_stay_what_they_are() {
    let Some(mut scene) = scene() else { return };
    scene.sample(&raw(&[], &[UserFrame(0x10)], EndReason::NoMapping));
    let batch = scene.batch();
    assert_eq!(
        picture(&batch, 0),
        ["native - ", "abort-marker - [truncated: caller lies in no executable mapping]"]
    );
    assert_eq!(batch.frames[batch.stack(0)[0] as usize].address, 0x10);
}

#[test]
fn deep_stacks_have_a_mark_where_frames_are_left_out() {
    let Some(mut scene) = scene() else { return };
    let user: Vec<UserFrame> = (0..4).map(|n| UserFrame(here() + n)).collect();
    scene.sample(&RawTrace { gap_at: 2, ..raw(&[], &user, EndReason::TooDeep) });
    let batch = scene.batch();
    let own = format!("native {} ", own_name());
    let gap = "abort-marker - [frames left out: stack too deep]".to_owned();
    assert_eq!(picture(&batch, 0), [own.clone(), own.clone(), gap, own.clone(), own]);
}

#[test]
fn kernel_frames_have_names_from_the_running_kernel() {
    let Some(mut scene) = scene() else { return };
    if let Some((problem, _)) = scene.converter.names().problem() {
        eprintln!("not tested: {problem}");
        return;
    }
    let text = std::fs::read_to_string("/proc/kallsyms").unwrap();
    let address = |name: &str| {
        let line = text.lines().find(|line| line.split(' ').nth(2) == Some(name)).unwrap();
        u64::from_str_radix(&line[..16], 16).unwrap()
    };
    let (read, write) = (address("vfs_read"), address("vfs_write"));
    // A return address at the very start of a function belongs to the one before it.
    let kernel = [read, write + 8, write];
    scene.sample(&raw(&kernel, &[UserFrame(here())], EndReason::Complete));
    let batch = scene.batch();
    let frames = picture(&batch, 0);
    assert_eq!(frames[..2], ["kernel vmlinux vfs_read", "kernel vmlinux vfs_write"]);
    assert!(frames[2].starts_with("kernel vmlinux ") && frames[2] != frames[1], "{frames:?}");
    let start = address("_stext");
    assert_eq!(batch.frames[batch.stack(0)[0] as usize].address, read - start);
    assert_eq!(batch.frames[batch.stack(0)[1] as usize].address, write + 7 - start);
    assert!(batch.executables[0].file_id.is_some());
}

#[test]
fn kernel_threads_are_complete_and_named_after_themselves() {
    let Some(mut scene) = scene() else { return };
    let kthreadd = RawTrace {
        pid: 2,
        tid: 2,
        comm: *b"kthreadd\0\0\0\0\0\0\0\0",
        ..raw(&[0xffff_ffff_8100_0000], &[], EndReason::KernelThread)
    };
    scene.sample(&kthreadd);
    let batch = scene.batch();
    assert_eq!(batch.stack(0).len(), 1);
    assert_eq!(
        (&*batch.resources[0].executable_name, &*batch.resources[0].executable_path),
        ("kthreadd", "")
    );
}

#[test]
fn vanished_process_keeps_its_thread_name() {
    let Some(mut scene) = scene() else { return };
    scene.sample(&RawTrace { pid: 4_194_305, ..raw(&[], &[UserFrame(0x1000)], EndReason::UnknownProcess) });
    let batch = scene.batch();
    assert_eq!(&*batch.resources[0].executable_name, "worker");
    assert_eq!(picture(&batch, 0)[1], "abort-marker - [truncated: process or mapping not known yet]");
}

#[test]
fn known_stack_is_converted_from_the_cache() {
    let Some(mut scene) = scene() else { return };
    let user = [UserFrame(here()), UserFrame(here() + 9)];
    for _ in 0..100 {
        scene.sample(&raw(&[0xffff_ffff_8100_1000], &user, EndReason::Complete));
    }
    assert_eq!(scene.converter.hits, 99);
    let batch = scene.batch();
    assert_eq!((batch.stacks.len(), batch.samples.len(), batch.sample_count()), (1, 1, 100));
    // Another end is another stack.
    scene.sample(&raw(&[0xffff_ffff_8100_1000], &user, EndReason::NoTable));
    assert_eq!(scene.converter.hits, 99);
}

#[test]
fn sample_of_a_missing_table_asks_for_it() {
    let Some(mut scene) = scene() else { return };
    let deadline = Instant::now() + Duration::from_mins(1);
    scene.sample(&raw(&[], &[UserFrame(here())], EndReason::NoTable));
    let mut notes = crate::agent::process::tests::Notes::with_room(1000);
    while scene.follower.pending_tables() > 0 {
        scene.follower.follow(&mut notes, scene.converter.names());
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(2));
    }
    scene.follower.follow(&mut notes, scene.converter.names());
    let mappings = &notes.processes[&std::process::id()];
    assert!(mappings.iter().any(|m| m.start.0 <= here() && here() < m.start.0 + m.len && m.table.is_some()));
}
