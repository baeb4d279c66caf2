//! Everything that the three reductions look at: events scaled up, their stacks frame by frame, their costs.

use std::collections::HashMap;
use std::sync::Arc;

use super::cost::{Annual, Prices, Rates};
use super::identity;
use super::resample::{self, Resampled};
use crate::model::{FrameKind, StackId};
use crate::query::{Cancel, Result};
use crate::store::document::encode;
use crate::store::{EventKey, EventQuestion, EventSet, FrameDetail, HostFacts, Reader};

/// A question of the profiling interface.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Which events.
    pub events: EventQuestion,
    /// Seconds in which the events happened; `None` = from the first to the last of them.
    pub duration_s: Option<f64>,
    /// Prices and factors.
    pub prices: Prices,
}

/// One function at one place, or a place without a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Function, empty when unknown.
    pub function: Arc<str>,
    /// Source file, empty when unknown.
    pub file: Arc<str>,
    /// Line in the file, 0 when unknown.
    pub number: u32,
    /// Identity among the nodes of one parent and among all functions.
    pub id: i32,
}

/// A frame as the interface shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Text of the frame's identity.
    pub id: String,
    /// Text of the file's identity.
    pub file_id: String,
    /// Runtime.
    pub kind: FrameKind,
    /// The low 32 bits of the address, signed.
    pub address_or_line: i32,
    /// Base name of the executable; empty for interpreted code and when unknown.
    pub executable: Arc<str>,
    /// Functions, outermost first; one without a name when nothing is known.
    pub lines: Vec<Line>,
    /// Whether a document told the names.
    pub is_named: bool,
}

/// Events of one key with one stack.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Index in [`Scene::keys`].
    pub key: usize,
    /// Identity of the stack.
    pub stack: StackId,
    /// Indices in [`Scene::frames`], root first.
    pub frames: Vec<u32>,
    /// Events that happened.
    pub events: u64,
    /// What they cost a year.
    pub annual: Annual,
}

/// What was found for a question.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    /// What tells events apart.
    pub keys: Vec<EventKey>,
    /// Frames of all stacks.
    pub frames: Vec<Frame>,
    /// Events, in an order that depends on their content only. Events whose stack is not known are left out.
    pub samples: Vec<Sample>,
    /// Part of the events that the counts stand on.
    pub sampling_rate: f64,
    /// Events in all, those without a known stack included.
    pub total: u64,
}

impl Scene {
    /// Asks the store: events, then names and hosts.
    pub async fn read(reader: &dyn Reader, question: &Question, cancel: &Cancel) -> Result<Self> {
        let events = EventQuestion { with_extent: question.duration_s.is_none(), ..question.events.clone() };
        let set = reader.events(&events).await?;
        cancel.check()?;
        let ids: Vec<_> = set.trie.frames.iter().map(|(id, _)| *id).collect();
        let range = match (set.extent, &events.filter) {
            (Some(extent), _) => extent,
            (None, crate::store::EventFilter::Selection(selection)) => selection.range,
            (None, crate::store::EventFilter::QueryDsl(_)) => crate::model::TimeRange {
                from: crate::model::UnixNanos(0),
                to: crate::model::UnixNanos(u64::MAX),
            },
        };
        let mut hosts: Vec<Arc<str>> = set.keys.iter().map(|key| key.host_id.clone()).collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts.retain(|id| !id.is_empty());
        let details = reader.frames(&ids).await?;
        let hosts = reader.hosts(&hosts, range).await?;
        let resampled = resample::resample(&set, events.sample_size, events.seed);
        let duration_s =
            question.duration_s.unwrap_or_else(|| set.extent.map_or(0.0, |e| e.nanos() as f64 / 1e9));
        let rates = Rates { prices: question.prices, duration_s, frequency_hz: resampled.frequency_hz };
        Ok(Self::new(&set, &resampled, &details, &hosts, rates))
    }

    /// Joins what was found.
    #[must_use]
    pub fn new(
        set: &EventSet,
        resampled: &Resampled,
        details: &[FrameDetail],
        hosts: &[HostFacts],
        rates: Rates,
    ) -> Self {
        let hosts: HashMap<&str, &HostFacts> = hosts.iter().map(|host| (&*host.id, host)).collect();
        let unknown = FrameDetail::default();
        let frames = set.trie.frames.iter().enumerate();
        let frames =
            frames.map(|(i, (id, kind))| frame(*id, *kind, details.get(i).unwrap_or(&unknown))).collect();
        let mut samples = Vec::with_capacity(set.counts.len());
        for (count, events) in set.counts.iter().zip(&resampled.events) {
            let (stack, leaf) = set.stacks[count.stack as usize];
            if *events == 0 || leaf == 0 {
                continue;
            }
            let key = &set.keys[count.key as usize];
            samples.push(Sample {
                key: count.key as usize,
                stack,
                frames: path(set, leaf),
                events: *events,
                annual: rates.annual(hosts.get(&*key.host_id).copied(), *events),
            });
        }
        // Stores number keys and stacks in an order of their own; what is shown must not depend on it.
        let order = |sample: &Sample| {
            let key = &set.keys[sample.key];
            (sample.stack, &key.executable, &key.thread, &key.host_id, key.frequency_hz, &key.fields)
        };
        samples.sort_unstable_by(|a, b| order(a).cmp(&order(b)));
        Self {
            keys: set.keys.clone(),
            frames,
            samples,
            sampling_rate: resampled.sampling_rate,
            total: resampled.total,
        }
    }
}

/// Frames from the root to a node.
fn path(set: &EventSet, leaf: u32) -> Vec<u32> {
    let mut path = Vec::new();
    let mut node = leaf as usize;
    while node != 0 {
        path.push(set.trie.frame[node]);
        node = set.trie.parent[node] as usize;
    }
    path.reverse();
    path
}

fn frame(id: crate::model::FrameId, kind: FrameKind, detail: &FrameDetail) -> Frame {
    let file_id = encode::file_id(id.file);
    let address_or_line = id.address_or_line as u32 as i32;
    let has_executable = matches!(kind, FrameKind::NATIVE | FrameKind::KERNEL);
    let executable: Arc<str> = if has_executable { detail.library.clone() } else { "".into() };
    let identity = |function: &str, file: &str| {
        identity::function(&file_id, address_or_line, &executable, file, function)
    };
    let mut lines: Vec<Line> = detail
        .lines
        .iter()
        .map(|line| Line {
            function: line.function.clone(),
            file: line.file.clone(),
            number: line.line,
            id: identity(&line.function, &line.file),
        })
        .collect();
    let is_named = !lines.is_empty();
    if !is_named {
        lines.push(Line { id: identity("", ""), ..Line::default() });
    }
    Frame { id: encode::frame_id(id), file_id, kind, address_or_line, executable, lines, is_named }
}
