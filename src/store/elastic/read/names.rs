//! Names of frames and executables, remembered: what has a name keeps it for a while, what has none is asked for again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Inner, documents, sampling};
use crate::model::{FileId, FrameId, SourceLine, UnknownReason};
use crate::store::document::encode;
use crate::store::elastic::Generation;
use crate::store::{FrameDetail, Result};

/// How long a name is taken as it was: a symbolizer may replace it by a better one.
const KNOWN_FOR: Duration = Duration::from_mins(10);
/// How long the absence of a name is taken as it was.
const UNKNOWN_FOR: Duration = Duration::from_secs(15);
/// Entries of the younger half of each memory: about 250 bytes each.
const HALF: usize = 100_000;
/// Frames and executables of one request.
const BATCH: usize = 5000;

/// A bounded memory: when the younger half is full it becomes the older one, and the older one is forgotten.
#[derive(Debug)]
struct Memory<K, V> {
    young: HashMap<K, (Instant, V)>,
    old: HashMap<K, (Instant, V)>,
}

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<K: Eq + std::hash::Hash + Copy, V: Clone> Memory<K, V> {
    fn get(&mut self, key: K, now: Instant, lasts: impl Fn(&V) -> Duration) -> Option<V> {
        let is_fresh = |(since, value): &&(Instant, V)| now.duration_since(*since) < lasts(value);
        if let Some((_, value)) = self.young.get(&key).filter(is_fresh) {
            return Some(value.clone());
        }
        let (since, value) = self.old.get(&key).filter(is_fresh)?.clone();
        self.put(key, since, value.clone());
        Some(value)
    }

    fn put(&mut self, key: K, since: Instant, value: V) {
        if self.young.len() >= HALF {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, (since, value));
    }
}

type Lines = Option<Arc<[SourceLine]>>;
type Name = Option<Arc<str>>;

#[allow(clippy::ref_option, reason = "the value of a memory is an option as a whole")]
fn lasts<T>(value: &Option<T>) -> Duration {
    if value.is_some() { KNOWN_FOR } else { UNKNOWN_FOR }
}

/// Names asked for lately, and absences.
#[derive(Debug, Default)]
pub(super) struct NameCache {
    frames: Mutex<Memory<FrameId, Lines>>,
    executables: Mutex<Memory<FileId, Name>>,
}

/// Answers [`crate::store::Reader::frames`].
pub(super) async fn frames(inner: &Inner, ids: &[FrameId]) -> Result<Vec<FrameDetail>> {
    let now = Instant::now();
    let mut lines: HashMap<FrameId, Lines> = HashMap::new();
    let mut names: HashMap<FileId, Name> = HashMap::new();
    {
        let (mut frames, mut executables) = (inner.names.frames.lock(), inner.names.executables.lock());
        for id in ids {
            if let Some(known) = frames.get(*id, now, lasts) {
                lines.insert(*id, known);
            }
            if let Some(known) = executables.get(id.file, now, lasts) {
                names.insert(id.file, known);
            }
        }
    }
    let mut unknown: Vec<FrameId> = ids.iter().copied().filter(|id| !lines.contains_key(id)).collect();
    unknown.sort_unstable();
    unknown.dedup();
    let mut files: Vec<FileId> = ids
        .iter()
        .map(|id| id.file)
        .filter(|file| has_executable(*file) && !names.contains_key(file))
        .collect();
    files.sort_unstable();
    files.dedup();
    for (generation, _) in sampling::generations(inner).await? {
        let (still_unnamed, still_unknown) = (
            unknown.iter().filter(|id| lines.get(id).is_none_or(Option::is_none)).copied().collect(),
            files.iter().filter(|id| names.get(id).is_none_or(Option::is_none)).copied().collect(),
        );
        let (found_lines, found_names) = tokio::try_join!(
            fetch_frames(inner, generation, still_unnamed),
            fetch_names(inner, generation, still_unknown),
        )?;
        lines.extend(found_lines);
        names.extend(found_names);
    }
    {
        let (mut frames, mut executables) = (inner.names.frames.lock(), inner.names.executables.lock());
        for id in &unknown {
            frames.put(*id, now, lines.get(id).cloned().flatten());
        }
        for file in &files {
            executables.put(*file, now, names.get(file).cloned().flatten());
        }
    }
    Ok(ids.iter().map(|id| detail(*id, &lines, &names)).collect())
}

/// Whether a file ID can be that of an executable: those of interpreted code are one 64-bit hash twice, and every line
/// of code has its own.
fn has_executable(file: FileId) -> bool {
    let (high, low) = file.words();
    high != low
}

fn detail(id: FrameId, lines: &HashMap<FrameId, Lines>, names: &HashMap<FileId, Name>) -> FrameDetail {
    let lines: Vec<SourceLine> = lines.get(&id).and_then(Option::as_deref).unwrap_or_default().to_vec();
    let library = names.get(&id.file).cloned().flatten().unwrap_or_default();
    // The documents of Elastic have no place for a reason: the frame waits for a symbolizer.
    let reason = lines.is_empty().then_some(UnknownReason::Pending);
    FrameDetail { library, lines, reason }
}

async fn fetch_frames(
    inner: &Inner,
    generation: Generation,
    ids: Vec<FrameId>,
) -> Result<HashMap<FrameId, Lines>> {
    let mut found = HashMap::new();
    let texts = ids.into_iter().map(encode::frame_id).collect();
    let keep = |id: &str, source: &serde_json::Value| {
        let lines = documents::stack_frame(source);
        if let Some(id) = encode::parse_frame_id(id).filter(|_| !lines.is_empty()) {
            found.insert(id, Some(lines.into()));
        }
    };
    inner.tables.fetch(&inner.ask, generation.names().stackframes, texts, BATCH, keep).await?;
    Ok(found)
}

async fn fetch_names(
    inner: &Inner,
    generation: Generation,
    ids: Vec<FileId>,
) -> Result<HashMap<FileId, Name>> {
    let mut found = HashMap::new();
    let texts = ids.into_iter().map(encode::file_id).collect();
    let keep = |id: &str, source: &serde_json::Value| {
        if let (Some(id), Some(name)) = (documents::file_id(id), documents::executable_name(source)) {
            found.insert(id, Some(name.into()));
        }
    };
    inner.tables.fetch(&inner.ask, generation.names().executables, texts, BATCH, keep).await?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_is_bounded_and_keeps_what_is_used() {
        let mut memory: Memory<u32, Option<u32>> = Memory::default();
        let now = Instant::now();
        for key in 0..(2 * HALF as u32 + 10) {
            memory.put(key, now, Some(key));
            // Asked for all the time, so it survives.
            assert_eq!(memory.get(0, now, lasts), Some(Some(0)), "{key}");
        }
        assert!(memory.young.len() + memory.old.len() <= 2 * HALF);
        assert_eq!(memory.get(1, now, lasts), None);
    }

    #[test]
    fn absences_are_forgotten_sooner_than_names() {
        let mut memory: Memory<u32, Option<u32>> = Memory::default();
        let now = Instant::now();
        memory.put(1, now, Some(1));
        memory.put(2, now, None);
        let later = now + UNKNOWN_FOR;
        assert_eq!(memory.get(1, later, lasts), Some(Some(1)));
        assert_eq!(memory.get(2, later, lasts), None);
        assert_eq!(memory.get(1, now + KNOWN_FOR, lasts), None);
    }

    #[test]
    fn hashes_of_lines_are_no_executables() {
        assert!(!has_executable(FileId::from_words(7, 7)));
        assert!(has_executable(FileId::from_words(7, 8)));
    }
}
