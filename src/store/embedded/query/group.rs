//! What samples are grouped by, as numbers while counting and as text at the end.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::dictionary::Dictionaries;
use super::super::segment::{Batch, Fields};
use super::filter::resource_value;
use crate::model::Dimension;

/// How a row finds its group.
#[derive(Clone, Debug)]
pub(super) enum Grouping {
    /// By its resource: group number per resource.
    Resource(Arc<[u32]>),
    /// By its thread name: the group is the number of the name.
    Thread,
    /// By its process: the group is the pid.
    Pid,
    /// By its thread: the group is the tid.
    Tid,
    /// By resource and thread name: resource × number of thread names + number of the name.
    ResourceAndThread(u32),
}

/// A grouping and the texts of its groups.
#[derive(Clone, Debug)]
pub(super) struct Groups {
    /// How a row finds its group.
    pub(super) grouping: Grouping,
    names: Arc<[Arc<str>]>,
}

impl Groups {
    /// Prepares to group by `dimension`; `None` puts everything into one group without a name.
    pub(super) fn new(dimension: Option<Dimension>, d: &Dictionaries) -> Self {
        match dimension {
            None => Self {
                grouping: Grouping::Resource(vec![0; d.resources.len()].into()),
                names: [Arc::from("")].into(),
            },
            Some(Dimension::ThreadName) => {
                Self { grouping: Grouping::Thread, names: d.threads.values().into() }
            }
            Some(Dimension::Pid) => Self { grouping: Grouping::Pid, names: Arc::new([]) },
            Some(Dimension::Tid) => Self { grouping: Grouping::Tid, names: Arc::new([]) },
            Some(dimension) => {
                let mut numbers: HashMap<Arc<str>, u32> = HashMap::new();
                let mut names = Vec::new();
                let mut groups = Vec::with_capacity(d.resources.len());
                for resource in d.resources.values() {
                    let value = resource_value(resource, dimension).cloned().unwrap_or_else(|| "".into());
                    groups.push(*numbers.entry(value).or_insert_with_key(|value| {
                        names.push(Arc::clone(value));
                        names.len() as u32 - 1
                    }));
                }
                Self { grouping: Grouping::Resource(groups.into()), names: names.into() }
            }
        }
    }

    /// Prepares to tell resources and thread names apart; `None` when there are more pairs than numbers.
    pub(super) fn resources_and_threads(d: &Dictionaries) -> Option<Self> {
        let threads = u32::try_from(d.threads.len().max(1)).ok()?;
        u32::try_from(d.resources.len()).ok()?.checked_mul(threads)?;
        Some(Self { grouping: Grouping::ResourceAndThread(threads), names: Arc::new([]) })
    }

    /// Columns needed beside the resource.
    pub(super) fn fields(&self) -> Fields {
        match self.grouping {
            Grouping::Resource(_) => Fields::default(),
            Grouping::Thread | Grouping::ResourceAndThread(_) => Fields::THREAD,
            Grouping::Pid => Fields::PID,
            Grouping::Tid => Fields::TID,
        }
    }

    /// Text of a group.
    pub(super) fn name(&self, group: u32) -> Arc<str> {
        match self.grouping {
            Grouping::Pid | Grouping::Tid => group.to_string().into(),
            _ => self.names.get(group as usize).cloned().unwrap_or_else(|| "".into()),
        }
    }
}

impl Grouping {
    /// Column that decides between rows of one resource; empty when the resource alone decides.
    pub(super) fn column<'b>(&self, batch: &Batch<'b>) -> &'b [i32] {
        match self {
            Self::Resource(_) => &[],
            Self::Thread | Self::ResourceAndThread(_) => batch.thread,
            Self::Pid => batch.pid,
            Self::Tid => batch.tid,
        }
    }

    /// Group of a row by its resource and the value in [`Grouping::column`].
    pub(super) fn group(&self, resource: i32, value: i32) -> u32 {
        match self {
            Self::Resource(groups) => groups.get(resource as usize).copied().unwrap_or(0),
            Self::ResourceAndThread(threads) => {
                (resource as u32).wrapping_mul(*threads).wrapping_add(value as u32)
            }
            _ => value as u32,
        }
    }
}
