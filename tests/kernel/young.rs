//! Processes that user space has not told of: copies of their stacks, rows of their parents.

use everflame::agent::bpf::EndReason;

use crate::scene::{
    Frames, Program, Sample, Scene, at_the_leaf, check_chain, is_step, names, objects, spins, turn,
};

/// Words of the copy from the stack pointer on.
fn words(sample: &Sample) -> impl Iterator<Item = u64> {
    let copy = sample.stack_copy.as_ref().expect("a stack copy");
    (0..).map_while(|n| copy.word(copy.registers.sp + n * 8))
}

#[test]
fn stack_of_an_unknown_process_is_copied() {
    let Some(_turn) = turn() else { return };
    for object in objects() {
        for mode in ["user", "syscall"] {
            let program = Program::start(Frames::Omitted, &[mode, "20"]);
            let mut scene = Scene::load(object, Some(program.pid()));
            // The chain lies in the copy, with nothing to follow but the words themselves: 19 of its 20 functions return
            // into another one. Before the leaf is reached there are fewer.
            let steps = |sample: &Sample| words(sample).filter(|word| is_step(program.name(*word))).count();
            for sample in scene.collect(50, |sample| sample.pid == program.pid() && steps(sample) >= 19) {
                assert_eq!(sample.end, EndReason::UnknownProcess);
                let copy = sample.stack_copy.as_ref().expect("a stack copy");
                assert_eq!(copy.registers.pc, sample.user[0].address());
                assert_eq!(copy.registers.is_return_address, sample.user[0].is_return_address());
            }
            // On a slow machine the ring may be too full for some.
            assert!(scene.check_counters()["stack_copies"] >= 50);
        }
    }
}

#[test]
fn known_stack_is_not_copied() {
    let Some(_turn) = turn() else { return };
    let program = Program::start(Frames::Omitted, &["user", "20"]);
    let mut scene = Scene::load(objects()[0], Some(program.pid()));
    scene.know(program.pid(), |_| true);
    let samples = scene.collect(100, |sample| at_the_leaf(&program, sample));
    assert!(samples.iter().all(|sample| sample.stack_copy.is_none()));
}

#[test]
fn forked_child_is_walked_with_the_row_of_its_parent() {
    let Some(_turn) = turn() else { return };
    for object in objects() {
        let program = Program::start(Frames::Omitted, &["user", "40", "0", "fork"]);
        let mut scene = Scene::load(object, None);
        scene.know(program.pid(), |_| true);
        let is_child = |sample: &Sample| sample.comm == "omitted" && sample.pid != program.pid();
        let at_leaf = |sample: &Sample| names(&program, sample).contains(&"leaf");
        for sample in scene.collect(100, |sample| is_child(sample) && at_leaf(sample)) {
            check_chain(&program, &sample, 40, "main");
        }
        assert!(scene.check_counters()["parent_rows"] >= 100);
    }
}

#[test]
fn row_of_the_program_before_exec_is_not_used() {
    let Some(_turn) = turn() else { return };
    for object in objects() {
        // The child runs the same file as its parent, but after an exec of its own: everything lies elsewhere.
        let program = Program::start(Frames::Omitted, &["user", "40", "0", "exec"]);
        let mut scene = Scene::load(object, None);
        scene.know(program.pid(), |_| true);
        for sample in scene.collect(50, |sample| sample.pid != program.pid() && is_executed(sample)) {
            assert_eq!(sample.end, EndReason::UnknownProcess, "{:?}", names(&program, &sample));
            assert!(sample.stack_copy.is_some());
        }
    }
}

#[test]
fn number_used_again_by_another_program_is_unknown() {
    let Some(_turn) = turn() else { return };
    for object in objects() {
        let first = Program::start(Frames::Omitted, &["user", "10"]);
        let second = Program::start(Frames::Omitted, &["user", "10"]);
        let mut scene = Scene::load(object, Some(second.pid()));
        // What a stale row looks like: mappings of another process, marked by its samples.
        scene.know(second.pid(), |_| true);
        scene.collect(20, |sample| at_the_leaf(&second, sample));
        scene.know_as(first.pid(), second.pid());
        // What was sampled before.
        scene.sampler.drain(|_| ());
        let samples = scene.collect(20, |sample| spins(&second, sample));
        // A fresh row is believed, once; its mappings do not fit, and the copy tells user space.
        assert!(samples.iter().all(|sample| sample.stack_copy.is_some()), "{samples:x?}");
    }
}

fn is_executed(sample: &Sample) -> bool {
    // Started through `/proc/self/exe`: the last part of that path.
    sample.comm == "exe"
}
