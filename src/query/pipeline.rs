//! The way of a question: read counts, weigh them, fetch the names that are needed, reduce.
//!
//! Two reads per question, each one batch. Weighing and reducing run on the blocking pool; when the caller goes away,
//! the guard of each step raises the [`Cancel`] flag and the work stops within some milliseconds.

use std::sync::Arc;

use crate::model::{Dimension, FrameId, Selection};
use crate::store::{Precision, Reader, StackSet};

use super::flamegraph::Flamegraph;
use super::functions::{FunctionRow, Sort};
use super::sandwich::Sandwich;
use super::{Cancel, Error, FunctionKey, FunctionNames, Result, Weights, flamegraph, functions, sandwich};

/// Nodes weighed per node drawn before names are known. Nodes of one function at several addresses merge later, so
/// more than the budget must be kept to draw the right ones.
const WEIGHED_PER_DRAWN: usize = 4;
/// Nodes that are always kept before names are known: below this, pruning early saves nothing worth an error.
const ALWAYS_WEIGHED: usize = 1_000_000;

/// What every answer says about its selection.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// Samples.
    pub samples: u64,
    /// CPU time in nanoseconds.
    pub cpu_ns: u64,
    /// Samples whose stack is complete.
    pub complete: u64,
    /// How far to trust the counts.
    pub precision: Precision,
}

/// A reduction together with the functions that it points to.
#[derive(Clone, Debug)]
pub struct Answer<T> {
    /// About the whole selection.
    pub summary: Summary,
    /// The reduction.
    pub content: T,
    /// Names of its functions.
    pub names: FunctionNames,
}

/// A list of functions.
#[derive(Clone, Debug, Default)]
pub struct FunctionList {
    /// The asked number of functions in the asked order.
    pub rows: Vec<FunctionRow>,
    /// Functions in the selection.
    pub in_range: u64,
}

/// Flame graph of a selection, its first level by `by`.
pub async fn flamegraph(
    reader: &dyn Reader,
    selection: &Selection,
    by: Option<Dimension>,
    max_nodes: usize,
    cancel: &Cancel,
) -> Result<Answer<Flamegraph>> {
    let early = max_nodes.saturating_mul(WEIGHED_PER_DRAWN).max(ALWAYS_WEIGHED);
    let scene = Scene::read(reader, selection, by, Some(early), cancel).await?;
    scene
        .reduce(cancel, move |scene, names, cancel| {
            flamegraph::draw(&scene.set, &scene.weights, names, by.is_some(), max_nodes, cancel)
        })
        .await
}

/// Callers and callees of the function with `key`.
pub async fn sandwich(
    reader: &dyn Reader,
    selection: &Selection,
    by: Option<Dimension>,
    key: FunctionKey,
    max_nodes: usize,
    cancel: &Cancel,
) -> Result<Answer<Sandwich>> {
    let scene = Scene::read(reader, selection, by, None, cancel).await?;
    scene
        .reduce(cancel, move |scene, names, cancel| {
            let focus = names.find(key).ok_or_else(|| Error::NoSuchFunction { key: key.to_string() })?;
            sandwich::split(&scene.set, &scene.weights, names, focus, by.is_some(), max_nodes, cancel)
        })
        .await
}

/// The first `limit` functions of a selection.
pub async fn functions(
    reader: &dyn Reader,
    selection: &Selection,
    sort: Sort,
    limit: usize,
    cancel: &Cancel,
) -> Result<Answer<FunctionList>> {
    let scene = Scene::read(reader, selection, None, None, cancel).await?;
    scene
        .reduce(cancel, move |scene, names, cancel| {
            let mut rows = functions::count(&scene.set, &scene.weights, names, cancel)?;
            let in_range = rows.len() as u64;
            functions::top(&mut rows, names, sort, limit);
            Ok(FunctionList { rows, in_range })
        })
        .await
}

/// Counts, weights and names of a selection.
struct Scene {
    set: Arc<StackSet>,
    weights: Weights,
    names: FunctionNames,
    summary: Summary,
}

impl Scene {
    async fn read(
        reader: &dyn Reader,
        selection: &Selection,
        by: Option<Dimension>,
        budget: Option<usize>,
        cancel: &Cancel,
    ) -> Result<Self> {
        let set = Arc::new(reader.stacks(selection, by).await?);
        let to_weigh = Arc::clone(&set);
        let (weights, summary, frames) = blocking(cancel, move |cancel| {
            let set = &*to_weigh;
            let weights = Weights::new(set, cancel)?;
            let summary = Summary {
                samples: weights.samples(),
                cpu_ns: set.cpu_ns,
                complete: weights.complete(set),
                precision: set.precision,
            };
            let weights = match budget {
                Some(budget) => weights.prune(set, budget),
                None => weights,
            };
            let frames = weights.frames(set);
            Ok((weights, summary, frames))
        })
        .await?;
        let ids: Vec<FrameId> = frames.iter().map(|frame| set.trie.frames[*frame as usize].0).collect();
        let details = reader.frames(&ids).await?;
        let named = Arc::clone(&set);
        let names = blocking(cancel, move |_| Ok(FunctionNames::new(&named.trie, &frames, &details))).await?;
        Ok(Self { set, weights, names, summary })
    }

    async fn reduce<T: Send + 'static>(
        self,
        cancel: &Cancel,
        work: impl FnOnce(&Self, &mut FunctionNames, &Cancel) -> Result<T> + Send + 'static,
    ) -> Result<Answer<T>> {
        blocking(cancel, move |cancel| {
            let mut scene = self;
            let mut names = std::mem::take(&mut scene.names);
            let content = work(&scene, &mut names, cancel)?;
            Ok(Answer { summary: scene.summary, content, names })
        })
        .await
    }
}

/// Runs `work` on the blocking pool and stops it when the caller is dropped while waiting.
pub async fn blocking<T: Send + 'static>(
    cancel: &Cancel,
    work: impl FnOnce(&Cancel) -> Result<T> + Send + 'static,
) -> Result<T> {
    let flag = cancel.clone();
    let guard = cancel.on_drop();
    let result = tokio::task::spawn_blocking(move || work(&flag)).await;
    guard.disarm();
    match result {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Error::Cancelled),
    }
}
