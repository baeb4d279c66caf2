//! Functions ranked by the events that end in them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::cost::Annual;
use super::scene::{Frame, Line, Scene};
use crate::query::{Cancel, Result};

/// Events by the values of further fields: first field's values, and below each the second's.
pub type SubGroups = BTreeMap<Arc<str>, SubGroup>;

/// One value of a further field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubGroup {
    /// Events, once per occurrence of the function on a stack.
    pub events: u64,
    /// Values of the next field.
    pub below: SubGroups,
}

/// One function.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// Identity, a signed number.
    pub id: i32,
    /// The frame of its first occurrence: index in [`Scene::frames`] and of the function in it.
    pub frame: (u32, usize),
    /// Events that end in it.
    pub own: u64,
    /// Events with it on their stack, each once.
    pub total: u64,
    /// What they cost a year.
    pub own_annual: Annual,
    /// What they cost a year.
    pub total_annual: Annual,
    /// By further fields.
    pub sub_groups: SubGroups,
}

/// All functions of a scene, and sums over them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Functions {
    /// Most events of their own first; equals by identity, its text descending.
    pub list: Vec<Function>,
    /// Sum of own events.
    pub own: u64,
    /// Sum of total events.
    pub total: u64,
    /// Sum of what own events cost.
    pub own_annual: Annual,
}

impl Function {
    /// Frame and line that describe it.
    #[must_use]
    pub fn place<'s>(&self, scene: &'s Scene) -> (&'s Frame, &'s Line) {
        let frame = &scene.frames[self.frame.0 as usize];
        (frame, &frame.lines[self.frame.1])
    }
}

/// Counts and ranks.
pub fn rank(scene: &Scene, cancel: &Cancel) -> Result<Functions> {
    let mut places: HashMap<i32, usize> = HashMap::new();
    let mut list: Vec<Function> = Vec::new();
    let mut seen = HashSet::new();
    for (i, sample) in scene.samples.iter().enumerate() {
        cancel.check_every(i)?;
        seen.clear();
        let fields = &scene.keys[sample.key].fields;
        let last_frame = sample.frames.len().saturating_sub(1);
        for (depth, number) in sample.frames.iter().enumerate() {
            let frame = &scene.frames[*number as usize];
            for (inlined, line) in frame.lines.iter().enumerate() {
                let place = *places.entry(line.id).or_insert_with(|| {
                    list.push(Function {
                        id: line.id,
                        frame: (*number, inlined),
                        own: 0,
                        total: 0,
                        own_annual: Annual::default(),
                        total_annual: Annual::default(),
                        sub_groups: SubGroups::new(),
                    });
                    list.len() - 1
                });
                let function = &mut list[place];
                if seen.insert(line.id) {
                    function.total += sample.events;
                    function.total_annual += sample.annual;
                }
                if depth == last_frame && inlined + 1 == frame.lines.len() {
                    function.own += sample.events;
                    function.own_annual += sample.annual;
                }
                add(&mut function.sub_groups, fields, sample.events);
            }
        }
    }
    list.sort_by(|a, b| b.own.cmp(&a.own).then_with(|| b.id.to_string().cmp(&a.id.to_string())));
    let mut all = Functions::default();
    for function in &list {
        all.own += function.own;
        all.total += function.total;
        all.own_annual += function.own_annual;
    }
    Ok(Functions { list, ..all })
}

fn add(groups: &mut SubGroups, fields: &[Arc<str>], events: u64) {
    let Some((first, rest)) = fields.split_first() else { return };
    let group = groups.entry(first.clone()).or_default();
    group.events += events;
    add(&mut group.below, rest, events);
}
