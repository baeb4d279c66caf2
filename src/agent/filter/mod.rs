//! Whom the agent samples: the lists of the configuration turned into choices of the kernel side, kept up to date as
//! containers and cgroups come and go.
//!
//! Looks at directories and `/proc`, decides nothing about samples: that is done in the kernel, where the rest costs
//! next to nothing. A container that starts is sampled from the next look on, a second later by default.

mod cgroups;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use super::bpf::{Choice, FilterSettings, Hierarchy};
use super::host::container;
use super::process::start_ticks;
use crate::config::FilterSection;
use cgroups::Tree;

/// Whom to sample. A process is when any list names it, or when all are empty; and when it is old enough.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Processes by number.
    pub pids: Vec<u32>,
    /// Processes by the name of their first thread.
    pub names: Vec<String>,
    /// Cgroups by path below the hierarchy's mount, and everything below.
    pub cgroups: Vec<String>,
    /// Containers by the beginning of their ID, LXC ones by name.
    pub containers: Vec<String>,
    /// Age at which a process begins to be sampled.
    pub min_age: Duration,
    /// Sample idle CPUs too.
    pub idle: bool,
}

impl Filter {
    /// As the configuration says.
    #[must_use]
    pub fn from_section(section: &FilterSection, idle: bool) -> Self {
        Self {
            pids: section.pids.clone(),
            names: section.names.clone(),
            cgroups: section.cgroups.clone(),
            containers: section.containers.clone(),
            min_age: section.min_process_age,
            idle,
        }
    }

    /// Whether only some processes are wanted.
    #[must_use]
    pub fn chooses(&self) -> bool {
        !(self.pids.is_empty()
            && self.names.is_empty()
            && self.cgroups.is_empty()
            && self.containers.is_empty())
    }
}

/// Turns a [`Filter`] into choices, again and again.
#[derive(Debug)]
pub(crate) struct Chooser {
    filter: Filter,
    /// Where cgroups are, if any are asked for.
    mount: Option<(Hierarchy, PathBuf)>,
    /// Where containers are looked for.
    tree: Option<Tree>,
    /// Start of each process by number, so that a number's next owner is not taken for it.
    started: BTreeMap<u32, u64>,
    chosen: BTreeSet<Choice>,
}

impl Chooser {
    /// Finds out where cgroups are. Says what cannot be found.
    pub(crate) fn new(filter: Filter) -> Self {
        let wants_groups = !(filter.cgroups.is_empty() && filter.containers.is_empty());
        let mount = wants_groups.then(cgroups::mount).flatten();
        if wants_groups && mount.is_none() {
            tracing::warn!(
                "cgroups and containers cannot be chosen: no cgroup file system with memory, cpu or pids found"
            );
        }
        let started: BTreeMap<u32, u64> =
            filter.pids.iter().filter_map(|pid| Some((*pid, start_ticks(*pid)?))).collect();
        for pid in filter.pids.iter().filter(|pid| !started.contains_key(pid)) {
            tracing::warn!(pid, "filter-pids: there is no such process");
        }
        let tree =
            mount.as_ref().filter(|_| !filter.containers.is_empty()).map(|(_, path)| Tree::new(path.clone()));
        Self { filter, mount, tree, started, chosen: BTreeSet::new() }
    }

    /// What the kernel side must know when it is loaded.
    pub(crate) fn settings(&self) -> FilterSettings {
        FilterSettings {
            min_age_ns: u64::try_from(self.filter.min_age.as_nanos()).unwrap_or(u64::MAX),
            choose: self.filter.chooses(),
            hierarchy: self.mount.as_ref().map(|(hierarchy, _)| *hierarchy),
            idle: self.filter.idle,
        }
    }

    /// Whether only some processes are wanted.
    pub(crate) fn chooses(&self) -> bool {
        self.filter.chooses()
    }

    /// Looks again. Returns what is chosen now (`true`) and what no longer is (`false`) against the last look.
    pub(crate) fn refresh(&mut self) -> Vec<(Choice, bool)> {
        let wanted = self.wanted();
        let new = wanted.difference(&self.chosen).map(|choice| (*choice, true));
        let gone = self.chosen.difference(&wanted).map(|choice| (*choice, false));
        // What is gone first: the map is bounded.
        let changes = gone.chain(new).collect();
        self.chosen = wanted;
        changes
    }

    fn wanted(&mut self) -> BTreeSet<Choice> {
        let mut wanted: BTreeSet<Choice> = self.filter.names.iter().map(|name| Choice::name(name)).collect();
        self.started.retain(|pid, started| start_ticks(*pid) == Some(*started));
        wanted.extend(self.started.keys().map(|pid| Choice::Process(*pid)));
        if let Some((_, mount)) = &self.mount {
            let id = |path: &String| std::fs::metadata(mount.join(path.trim_matches('/'))).ok();
            wanted.extend(self.filter.cgroups.iter().filter_map(id).map(|found| Choice::Cgroup(found.ino())));
        }
        if let Some(tree) = &mut self.tree {
            let names = &self.filter.containers;
            let ids = tree.refresh(|path| is_container(path, names));
            wanted.extend(ids.map(Choice::Cgroup));
        }
        wanted
    }
}

/// Whether a cgroup's own name, not one above it, says that it is one of these containers.
fn is_container(path: &str, wanted: &[String]) -> bool {
    let above = path.rsplit_once('/').map_or("", |(above, _)| above);
    let of = |path| container::id_in_path(path);
    of(path)
        .is_some_and(|id| Some(id) != of(above) && wanted.iter().any(|start| id.starts_with(start.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn containers_are_known_by_the_start_of_their_id_at_their_topmost_group() {
        let wanted = ["0123456789ab".to_owned(), "web1".to_owned()];
        let check = |path: &str, expected| assert_eq!(is_container(path, &wanted), expected, "{path}");
        check(&format!("/docker/{ID}"), true);
        check(&format!("/docker/{ID}/init"), false);
        check(&format!("/system.slice/docker-{ID}.scope"), true);
        check("/lxc.payload.web1", true);
        check("/lxc.payload.web1/init.scope", false);
        check("/lxc.payload.web2", false);
        check("/system.slice", false);
    }

    #[test]
    fn processes_are_chosen_as_long_as_they_live() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let filter = Filter { pids: vec![child.id()], names: vec!["nginx".into()], ..Filter::default() };
        assert!(filter.chooses() && !Filter::default().chooses());
        let mut chooser = Chooser::new(filter);
        let mut first = chooser.refresh();
        first.sort_unstable();
        assert_eq!(first, [(Choice::Process(child.id()), true), (Choice::name("nginx"), true)]);
        assert_eq!(chooser.refresh(), []);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(chooser.refresh(), [(Choice::Process(child.id()), false)]);
    }
}
