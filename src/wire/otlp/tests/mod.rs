//! The reader against real captures, against itself, against other revisions and against hostile bytes.

mod hostile;
mod revisions;
mod round_trip;

use std::path::{Path, PathBuf};

use crate::model::{Batch, Executable, Frame, ProfileInfo, Resource, UnixNanos};

/// All captured requests, smallest first.
fn captures() -> Vec<(PathBuf, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/otlp");
    let folders =
        std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let mut found: Vec<(PathBuf, Vec<u8>)> = folders
        .flat_map(|folder| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "pb"))
        .map(|path| {
            let bytes = std::fs::read(&path).unwrap();
            (path, bytes)
        })
        .collect();
    found.sort_by_key(|(_, bytes)| bytes.len());
    assert!(found.len() > 8);
    found
}

/// One sample with everything it refers to.
#[derive(Debug, PartialEq)]
struct Spelled {
    resource: Resource,
    profile: ProfileInfo,
    thread: (String, u32),
    executable: Option<String>,
    frames: Vec<(Frame, Option<Executable>)>,
    times: Vec<(UnixNanos, u32)>,
}

/// A batch without tables, in an order that does not depend on them.
fn spelled(batch: &Batch) -> Vec<Spelled> {
    let mut all: Vec<Spelled> = batch
        .samples
        .iter()
        .map(|sample| {
            let profile = batch.profiles[sample.profile as usize];
            let mut resource = batch.resources[profile.resource as usize].clone();
            resource.others.sort();
            let frame = |at: &u32| {
                let frame = batch.frames[*at as usize].clone();
                let executable = frame.executable.map(|at| batch.executables[at as usize].clone());
                (Frame { executable: None, ..frame }, executable)
            };
            let values = sample.values.iter().copied().chain(std::iter::repeat(1));
            Spelled {
                resource,
                profile: ProfileInfo { resource: 0, ..profile },
                thread: (sample.thread_name.to_string(), sample.tid),
                executable: sample.executable_name.as_deref().map(str::to_owned),
                frames: batch.stack(sample.stack).iter().map(frame).collect(),
                times: batch.times_of(sample).iter().copied().zip(values).collect(),
            }
        })
        .collect();
    all.sort_by_cached_key(|sample| format!("{sample:?}"));
    all
}
