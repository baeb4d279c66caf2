//! What is written is read back.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::{decode, encode, encode_within};
use super::{captures, spelled};
use crate::model::{
    Batch, Executable, FileId, Frame, FrameKind, ProfileInfo, Resource, Sample, SampleKind, SourceLine,
    UnixNanos,
};

fn check(batch: &Batch, limit: usize) -> usize {
    let encoded = encode_within(batch, limit);
    assert_eq!(encoded.too_large, 0);
    let mut found = Vec::new();
    for message in &encoded.messages {
        assert!(message.len() <= limit);
        let decoded = decode(message).unwrap();
        assert_eq!((decoded.revision, decoded.left_out.profiles()), ("1.11", 0));
        assert!(decoded.batch.check());
        found.extend(spelled(&decoded.batch));
    }
    found.sort_by_cached_key(|sample| format!("{sample:?}"));
    let expected = spelled(batch);
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    encoded.messages.len()
}

#[test]
fn captures_come_back_whole_and_in_parts() {
    for (path, bytes) in captures() {
        let batch = decode(&bytes).unwrap().batch;
        assert_eq!(check(&batch, usize::MAX), 1, "{}", path.display());
        assert!(check(&batch, bytes.len() / 3) > 3, "{}", path.display());
    }
}

#[test]
fn a_written_capture_is_no_larger_than_the_original() {
    for (path, bytes) in captures() {
        let batch = decode(&bytes).unwrap().batch;
        let written = encode(&batch).messages.remove(0).len();
        // Mappings without their address ranges are shorter, thread IDs and CPU numbers are not all kept.
        assert!(written <= bytes.len() * 11 / 10, "{}: {written} of {}", path.display(), bytes.len());
    }
}

#[test]
fn a_sample_beyond_the_limit_is_counted_and_the_others_are_sent() {
    let mut batch = decode(&captures()[0].1).unwrap().batch;
    batch.samples[0].thread_name = "x".repeat(4000).into();
    let encoded = encode_within(&batch, 3000);
    assert_eq!(encoded.too_large, 1);
    let samples: usize = encoded.messages.iter().map(|m| decode(m).unwrap().batch.samples.len()).sum();
    assert_eq!(samples, batch.samples.len() - 1);
}

#[test]
fn an_empty_batch_needs_no_message() {
    assert!(encode(&Batch::default()).messages.is_empty());
}

fn text() -> impl Strategy<Value = Arc<str>> {
    prop_oneof![Just(""), Just("a"), Just("main"), Just("libc.so.6"), Just("ünïcode"), Just("<init>")]
        .prop_map(Into::into)
}

fn resource() -> impl Strategy<Value = Resource> {
    (vec(text(), 9), any::<u32>(), vec(text(), 0..3)).prop_map(|(texts, pid, others)| {
        let mut texts = texts.into_iter();
        let mut next = || texts.next().unwrap();
        Resource {
            host_id: next(),
            host_name: next(),
            pid,
            executable_name: next(),
            executable_path: next(),
            container_id: next(),
            container_name: next(),
            pod_name: next(),
            namespace_name: next(),
            service_name: next(),
            others: others
                .into_iter()
                .enumerate()
                .map(|(at, value)| (format!("process.environment_variable.{at}").into(), value))
                .collect(),
        }
    })
}

fn executable() -> impl Strategy<Value = Executable> {
    (option::of(1..u128::MAX), text(), text()).prop_map(|(id, name, build)| Executable {
        file_id: id.map(|id| FileId(id.to_be_bytes())),
        // An executable of which nothing is known is none.
        name: if name.is_empty() { "x".into() } else { name },
        gnu_build_id: build,
    })
}

fn frame(executables: usize) -> impl Strategy<Value = Frame> {
    let kinds = [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 0x80];
    let line = (text(), text(), any::<u32>(), any::<u32>())
        .prop_map(|(function, file, line, column)| SourceLine { function, file, line, column });
    (
        proptest::sample::select(kinds.to_vec()),
        option::of(0..executables as u32),
        any::<u64>(),
        vec(line, 0..4),
    )
        .prop_map(|(kind, executable, address, lines)| Frame {
            kind: FrameKind(kind),
            executable,
            address,
            lines,
        })
}

const EXECUTABLES: usize = 3;

prop_compose! {
    fn batch()(
        resources in vec(resource(), 1..4),
        executables in vec(executable(), EXECUTABLES),
        profiles in vec((any::<Index>(), 0..=i64::MAX as u64, any::<u32>(), any::<u64>()), 1..5),
        frames in vec(frame(EXECUTABLES), 1..8),
        stacks in vec(vec(any::<Index>(), 0..10), 1..6),
        samples in vec(
            (any::<Index>(), any::<Index>(), text(), any::<u32>(), option::of(text()),
             vec((u64::from(u32::MAX) + 1.., any::<u32>()), 0..5), any::<bool>()),
            0..30,
        ),
    ) -> Batch {
        let mut batch = Batch { resources, executables, frames, ..Batch::default() };
        for (resource, period_ns, start, duration_ns) in profiles {
            let resource = resource.index(batch.resources.len()) as u32;
            // Whole seconds up to 2106 would be read as seconds.
            let start = UnixNanos(u64::from(start) * 1_000_000_000);
            batch.profiles.push(ProfileInfo { resource, kind: SampleKind::OnCpu, period_ns, start, duration_ns });
        }
        for stack in stacks {
            let first = batch.stack_frames.len() as u32;
            batch.stack_frames.extend(stack.iter().map(|frame| frame.index(batch.frames.len()) as u32));
            batch.stacks.push(first..batch.stack_frames.len() as u32);
        }
        for (profile, stack, thread_name, tid, executable_name, times, counted) in samples {
            let first = batch.times.len() as u32;
            batch.times.extend(times.iter().map(|(time, _)| UnixNanos(*time)));
            batch.samples.push(Sample {
                profile: profile.index(batch.profiles.len()) as u32,
                stack: stack.index(batch.stacks.len()) as u32,
                thread_name,
                tid,
                executable_name,
                times: first..batch.times.len() as u32,
                values: if counted { times.iter().map(|(_, value)| *value).collect() } else { Vec::new() },
            });
        }
        batch
    }
}

proptest! {
    #[test]
    fn any_batch_comes_back(batch in batch()) {
        prop_assert!(batch.check());
        check(&batch, usize::MAX);
        check(&batch, 20_000);
    }
}
