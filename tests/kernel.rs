//! The sampling program in the running kernel: true stacks of programs with a known call chain.
//!
//! Needs root (or `CAP_BPF` and `CAP_PERFMON`) and a C compiler; where one is missing each test says so and ends.
//! Both objects are tested; nothing here waits for a time, only for samples, with a deadline.

#![cfg(feature = "agent")]
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout)]

#[path = "kernel/buffers.rs"]
mod buffers;
#[path = "kernel/filter.rs"]
mod filter;
#[path = "kernel/refusal.rs"]
mod refusal;
#[path = "kernel/scene.rs"]
#[allow(dead_code)]
mod scene;
#[path = "kernel/verifier.rs"]
mod verifier;
#[path = "kernel/young.rs"]
mod young;

use std::fs;

use everflame::agent::bpf::{EndReason, FilterSettings, Hierarchy, Object, SamplerSettings, verifier_work};
use everflame::agent::process::{KernelSide, ProcessMapping};
use everflame::model::RuntimeAddr;
use everflame::unwind;
use scene::{
    Frames, Program, Scene, at_the_leaf, check_chain, check_names, expected_chain, is_step, loop_of_32_bits,
    mappings, names, objects, spins, turn,
};

#[test]
fn whole_chain_at_every_depth() {
    let Some(_turn) = turn() else { return };
    for object in objects() {
        for depth in [1, 5, 30, 100, 500] {
            let program = Program::start(Frames::Omitted, &["user", &depth.to_string()]);
            let mut scene = Scene::load(object, Some(program.pid()));
            scene.know(program.pid(), |_| true);
            let all = scene.collect(200, |sample| sample.pid == program.pid());
            let at_leaf: Vec<_> = all.iter().filter(|sample| at_the_leaf(&program, sample)).collect();
            assert!(at_leaf.len() * 100 >= all.len() * 95, "{} of {}", at_leaf.len(), all.len());
            for sample in at_leaf {
                check_chain(&program, sample, depth, "main");
                assert_eq!((sample.comm.as_str(), sample.tid), ("omitted", program.pid()));
            }
            scene.check_counters();
        }
    }
}

#[test]
fn whole_chain_inside_system_calls() {
    let Some(_turn) = turn() else { return };
    for object in objects() {
        let program = Program::start(Frames::Omitted, &["syscall", "40"]);
        let mut scene = Scene::load(object, Some(program.pid()));
        scene.know(program.pid(), |_| true);
        let samples = scene.collect(300, |sample| at_the_leaf(&program, sample));
        for sample in &samples {
            check_chain(&program, sample, 40, "main");
        }
        let in_kernel = samples.iter().filter(|sample| sample.kernel > 0).count();
        assert!(in_kernel > 20, "{in_kernel} of 300 samples in the kernel");
    }
}

#[test]
fn whole_chain_through_a_signal_frame() {
    let Some(_turn) = turn() else { return };
    for object in objects() {
        let program = Program::start(Frames::Omitted, &["signal", "25"]);
        let mut scene = Scene::load(object, Some(program.pid()));
        scene.know(program.pid(), |_| true);
        for sample in scene.collect(200, |sample| names(&program, sample).contains(&"handler")) {
            check_chain(&program, &sample, 25, "main");
        }
    }
}

#[test]
fn whole_chain_in_the_vdso() {
    let Some(_turn) = turn() else { return };
    let program = Program::start(Frames::Omitted, &["vdso", "10"]);
    let mut scene = Scene::load(Object::Auto, Some(program.pid()));
    scene.know(program.pid(), |_| true);
    for sample in scene.collect(200, |sample| at_the_leaf(&program, sample)) {
        // That of arm64 describes its signal trampoline only: the rest is read off its code, which marks the caller.
        if cfg!(target_arch = "aarch64") {
            check_names(&program, &sample, 10, "main");
        } else {
            check_chain(&program, &sample, 10, "main");
        }
    }
}

#[test]
fn whole_chain_of_every_thread() {
    let Some(_turn) = turn() else { return };
    for object in objects() {
        let program = Program::start(Frames::Omitted, &["user", "60", "3"]);
        let mut scene = Scene::load(object, Some(program.pid()));
        scene.know(program.pid(), |_| true);
        let samples = scene.collect(300, |sample| at_the_leaf(&program, sample));
        let mut threads: Vec<u32> = samples.iter().map(|sample| sample.tid).collect();
        for sample in &samples {
            // `run` has become part of the function that pthread_create started, or stands for itself.
            check_chain(&program, sample, 60, "run");
        }
        threads.sort_unstable();
        threads.dedup();
        assert_eq!(threads.len(), 3);
        assert!(!threads.contains(&program.pid()));
    }
}

#[test]
fn both_ends_of_a_deep_stack() {
    let Some(_turn) = turn() else { return };
    for object in objects() {
        let depth = 3000;
        let program = Program::start(Frames::Omitted, &["user", &depth.to_string()]);
        let mut scene = Scene::load(object, Some(program.pid()));
        scene.know(program.pid(), |_| true);
        for sample in scene.collect(100, |sample| at_the_leaf(&program, sample)) {
            let names = names(&program, &sample);
            assert_eq!((sample.end, sample.gap_at), (EndReason::Complete, 256), "{names:?}");
            assert_eq!(names.len(), 512);
            let chain = expected_chain(depth);
            let inner = names[..256].iter().position(|name| is_step(name)).unwrap();
            assert_eq!(names[inner..256], chain[..256 - inner]);
            let outer = names.iter().rposition(|name| is_step(name)).unwrap() + 1;
            assert_eq!(names[256..outer], chain[depth - (outer - 256)..]);
            assert_eq!(names[outer], "main");
        }
        scene.check_counters();
    }
}

#[test]
fn too_deep_a_stack_says_so() {
    let Some(_turn) = turn() else { return };
    for object in objects() {
        let program = Program::start(Frames::Omitted, &["user", "6000"]);
        let mut scene = Scene::load(object, Some(program.pid()));
        scene.know(program.pid(), |_| true);
        for sample in scene.collect(50, |sample| at_the_leaf(&program, sample)) {
            assert_eq!((sample.end, sample.gap_at, sample.user.len()), (EndReason::TooDeep, 256, 512));
        }
    }
}

#[test]
fn unknown_process_is_followed_by_frame_pointers() {
    let Some(_turn) = turn() else { return };
    for object in objects() {
        let program = Program::start(Frames::Kept, &["user", "20"]);
        let mut scene = Scene::load(object, Some(program.pid()));
        for sample in scene.collect(100, |sample| spins(&program, sample)) {
            let names = names(&program, &sample);
            assert_eq!(sample.end, EndReason::UnknownProcess, "{names:?}");
            let steps: Vec<&str> = names.iter().copied().filter(|name| is_step(name)).collect();
            assert_eq!(steps, expected_chain(20), "{names:?}");
            assert!(sample.user[1..].iter().all(|frame| frame.is_approximate()));
        }
    }
}

#[test]
fn file_without_a_table_is_followed_by_frame_pointers_up_to_the_next_table() {
    let Some(_turn) = turn() else { return };
    for object in objects() {
        let program = Program::start(Frames::Kept, &["user", "20"]);
        let mut scene = Scene::load(object, Some(program.pid()));
        scene.know(program.pid(), |path| !path.ends_with("/kept"));
        for sample in scene.collect(100, |sample| spins(&program, sample)) {
            let names = names(&program, &sample);
            let steps: Vec<&str> = names.iter().copied().filter(|name| is_step(name)).collect();
            assert_eq!(steps, expected_chain(20), "{names:?}");
            // `_start` has no frame pointer and here no table: the walk ends there, in sight of the root.
            assert_eq!(sample.end, EndReason::NoTable, "{sample:x?}");
            assert_eq!(*names.last().unwrap(), "_start", "{names:?}");
        }
    }
}

#[test]
fn without_table_and_frame_pointer_the_reason_is_told() {
    let Some(_turn) = turn() else { return };
    let program = Program::start(Frames::Omitted, &["user", "20"]);
    let mut scene = Scene::load(Object::Auto, Some(program.pid()));
    scene.know(program.pid(), |path| !path.ends_with("/omitted"));
    for sample in scene.collect(50, |sample| sample.pid == program.pid()) {
        assert_eq!(sample.end, EndReason::NoTable, "{sample:x?}");
    }
    // The same without any mapping.
    scene.tables.set_process(program.pid(), &[]).unwrap();
    let found = scene.collect(20, |sample| sample.end == EndReason::NoMapping);
    assert!(found.iter().all(|sample| sample.user.len() == 1));
}

#[test]
fn table_that_comes_later_is_used_at_once_and_one_that_goes_is_not() {
    let Some(_turn) = turn() else { return };
    for object in objects() {
        let program = Program::start(Frames::Omitted, &["user", "50"]);
        let mut scene = Scene::load(object, Some(program.pid()));
        for round in 0..5 {
            scene.know(program.pid(), |path| !path.ends_with("/omitted"));
            // What was sampled before the change, and the one tick that may have been at work during it.
            scene.sampler.drain(|_| ());
            scene.collect(1, |_| true);
            for sample in scene.collect(20, |_| true) {
                assert_eq!(sample.end, EndReason::NoTable, "round {round}: {sample:x?}");
            }
            scene.know(program.pid(), |_| true);
            scene.sampler.drain(|_| ());
            for sample in scene.collect(20, |sample| at_the_leaf(&program, sample)) {
                check_chain(&program, &sample, 50, "main");
            }
        }
    }
}

#[test]
fn many_mappings_use_the_second_level() {
    let Some(_turn) = turn() else { return };
    let program = Program::start(Frames::Omitted, &["user", "30"]);
    let mut scene = Scene::load(Object::Auto, Some(program.pid()));
    let table = |path: &str| unwind::from_elf(&fs::read(path).unwrap()).unwrap();
    let mut known: Vec<ProcessMapping> = Vec::new();
    // Decoys below and above, a page apart so that they are not joined.
    for base in [0x1000_0000_u64, 0x7fff_8000_0000] {
        let decoy = |n: u64| ProcessMapping {
            start: RuntimeAddr(base + n * 0x2000),
            len: 0x1000,
            bias: 0,
            table: None,
            pending: false,
        };
        known.extend((0..400).map(decoy));
    }
    for mapping in mappings(program.pid()).iter().filter(|mapping| mapping.path.starts_with('/')) {
        let id = scene.tables.publish(&table(&mapping.path)).unwrap();
        known.push(ProcessMapping {
            start: RuntimeAddr(mapping.start),
            len: mapping.end - mapping.start,
            bias: mapping.bias(&fs::read(&mapping.path).unwrap()),
            table: Some(id),
            pending: false,
        });
    }
    known.sort_by_key(|mapping| mapping.start);
    scene.tables.set_process(program.pid(), &known).unwrap();
    for sample in scene.collect(100, |sample| at_the_leaf(&program, sample)) {
        check_chain(&program, &sample, 30, "main");
    }
}

#[test]
fn every_tick_of_the_machine_is_accounted_for() {
    let Some(_turn) = turn() else { return };
    for object in objects() {
        let program = Program::start(Frames::Omitted, &["syscall", "3", "4"]);
        let mut scene = Scene::load(object, None);
        scene.know(program.pid(), |_| true);
        let mut stored = scene.collect(1500, |_| true).len() as u64;
        scene.sampler.stop();
        stored += scene.sampler.drain(|_| ());
        let counters = scene.check_counters();
        assert_eq!(counters["stored"], stored, "{counters:?}");
        assert_eq!(counters["filtered"], 0);
        assert_eq!(counters["dropped.malformed"], 0);
    }
}

#[test]
fn verifier_has_little_to_walk() {
    let Some(_turn) = turn() else { return };
    // Settings are constants for the verifier: what they switch off costs it nothing, what they switch on does.
    let plain = SamplerSettings::default();
    let filter = FilterSettings {
        min_age_ns: 1,
        choose: true,
        hierarchy: Some(Hierarchy::Memory),
        ..FilterSettings::default()
    };
    let filtering = SamplerSettings { filter, ..SamplerSettings::default() };
    for object in objects() {
        for (variant, settings) in [("plain", &plain), ("filtering", &filtering)] {
            let work = verifier_work(object, settings).unwrap();
            assert!(!work.is_empty());
            for work in work {
                verifier::check(object, variant, &work);
            }
        }
    }
}

#[test]
fn process_of_32_bits_says_so() {
    let Some(_turn) = turn() else { return };
    let directory = tempfile::tempdir().unwrap();
    let Some(program) = loop_of_32_bits(directory.path()).and_then(|path| Program::other(&path)) else {
        scene::cannot_run("32-bit programs", "the compiler or the kernel has none");
        return;
    };
    for object in objects() {
        let mut scene = Scene::load(object, Some(program.pid()));
        // In its first moments it may still be the 64-bit process it came from.
        let samples = scene.collect(50, |sample| sample.comm == "loop");
        let compat = samples.iter().filter(|sample| sample.end == EndReason::Compat).count();
        assert!(compat >= 48, "{samples:x?}");
        scene.check_counters();
    }
}

#[test]
fn workers_of_io_uring_have_no_user_stack() {
    let Some(_turn) = turn() else { return };
    let directory = tempfile::tempdir().unwrap();
    let Some(program) = scene::ring_with_a_poller(directory.path()).and_then(|path| Program::other(&path))
    else {
        scene::cannot_run(
            "workers of io_uring",
            "no compiler, or a kernel without or with forbidden io_uring",
        );
        return;
    };
    if !scene::polls_as_its_own_thread(&program) {
        eprintln!("before Linux 5.12 the poller of a ring is a kernel thread like others");
        return;
    }
    for object in objects() {
        let mut scene = Scene::load(object, Some(program.pid()));
        for sample in scene.collect(100, |sample| sample.comm.starts_with("iou-sqp-")) {
            assert_eq!(sample.end, EndReason::UserWorker, "{sample:x?}");
            assert!(
                sample.user.is_empty() && sample.kernel > 0 && sample.stack_copy.is_none(),
                "{sample:x?}"
            );
        }
        scene.check_counters();
    }
}

#[test]
fn kernel_threads_have_no_user_stack() {
    let Some(_turn) = turn() else { return };
    let directory = tempfile::tempdir().unwrap();
    for object in objects() {
        let mut scene = Scene::load(object, None);
        // Written pages give the kernel's own threads work.
        let path = directory.path().join("written");
        let writer = std::thread::spawn(move || {
            for _ in 0..20 {
                fs::write(&path, vec![1; 8 << 20]).unwrap();
                fs::File::open(&path).unwrap().sync_all().unwrap();
            }
        });
        for sample in scene.collect(3, |sample| sample.end == EndReason::KernelThread) {
            assert!(sample.user.is_empty() && sample.kernel > 0, "{sample:x?}");
        }
        writer.join().unwrap();
    }
}
