//! Cgroups as directories: where they are mounted, and which there are.
//!
//! A look costs one `stat` for each group: a directory is read again only when its number of links says that groups
//! came or went in it, for reading one costs as much as it has control files.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::agent::bpf::Hierarchy;

/// Most groups that are looked at; a host with 10,000 containers has twice as many.
const MAX_GROUPS: usize = 50_000;

/// The hierarchy to look in: where version 1 has the memory, CPU or process number controller, containers are there.
pub(super) fn mount() -> Option<(Hierarchy, PathBuf)> {
    fs::read_to_string("/proc/self/mounts").ok().and_then(|mounts| choose_mount(&mounts))
}

fn choose_mount(mounts: &str) -> Option<(Hierarchy, PathBuf)> {
    let mut found: Vec<(usize, Hierarchy, &str)> = Vec::new();
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (Some(_), Some(path), Some(kind), Some(options)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let has = |controller: &str| options.split(',').any(|option| option == controller);
        match kind {
            "cgroup" if has("memory") => found.push((0, Hierarchy::Memory, path)),
            "cgroup" if has("cpu") => found.push((1, Hierarchy::Cpu, path)),
            "cgroup" if has("pids") => found.push((2, Hierarchy::Pids, path)),
            "cgroup2" => found.push((3, Hierarchy::Unified, path)),
            _ => {}
        }
    }
    let (_, hierarchy, path) = found.into_iter().min_by_key(|(rank, ..)| *rank)?;
    // Blanks in a mount point are written as octal escapes.
    Some((hierarchy, PathBuf::from(path.replace("\\040", " "))))
}

#[derive(Debug)]
struct Group {
    id: u64,
    links: u64,
    wanted: bool,
}

/// All groups of one hierarchy.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    groups: BTreeMap<PathBuf, Group>,
}

impl Tree {
    /// Nothing seen yet.
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, groups: BTreeMap::new() }
    }

    /// Looks for groups that came and went; `is_wanted` is asked once for each, with its path below the mount. Returns
    /// the numbers of those that are wanted.
    pub(super) fn refresh(&mut self, is_wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = u64> {
        let mut changed = Vec::new();
        self.groups.retain(|path, group| match fs::metadata(path) {
            Ok(now) if now.ino() == group.id => {
                if now.nlink() != group.links {
                    group.links = now.nlink();
                    changed.push(path.clone());
                }
                true
            }
            // One that came in its place leaves the number of links as it was.
            _ => {
                changed.extend(path.parent().map(Path::to_owned));
                false
            }
        });
        if self.groups.is_empty() {
            changed = vec![self.root.clone()];
            let root = self.root.clone();
            self.add(root, &is_wanted);
        }
        while let Some(directory) = changed.pop() {
            for path in directories(&directory) {
                if !self.groups.contains_key(&path) && self.add(path.clone(), &is_wanted) {
                    changed.push(path);
                }
            }
        }
        self.groups.values().filter(|group| group.wanted).map(|group| group.id)
    }

    fn add(&mut self, path: PathBuf, is_wanted: impl Fn(&str) -> bool) -> bool {
        if self.groups.len() >= MAX_GROUPS {
            return false;
        }
        let Ok(found) = fs::metadata(&path) else { return false };
        let below = path.strip_prefix(&self.root).unwrap_or(&path);
        let wanted = is_wanted(&format!("/{}", below.display()));
        self.groups.insert(path, Group { id: found.ino(), links: found.nlink(), wanted });
        true
    }
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let is_directory = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .filter(is_directory)
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_wins_where_it_has_the_controllers() {
        let both = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
                    cgroup /sys/fs/cgroup/cpu cgroup rw,cpu,cpuacct 0 0\n\
                    cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n";
        assert_eq!(choose_mount(both), Some((Hierarchy::Memory, "/sys/fs/cgroup/memory".into())));
        let new = "tmpfs /tmp tmpfs rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        assert_eq!(choose_mount(new), Some((Hierarchy::Unified, "/sys/fs/cgroup".into())));
        assert_eq!(choose_mount("systemd /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n"), None);
        assert_eq!(choose_mount("x"), None);
    }

    /// Ordinary directories count their links like those of cgroups do.
    #[test]
    fn groups_that_come_and_go_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("a/wanted-1")).unwrap();
        if fs::metadata(&root).unwrap().nlink() < 3 {
            // A file system that does not count (btrfs).
            return;
        }
        let id = |path: &str| fs::metadata(root.join(path)).unwrap().ino();
        let mut tree = Tree::new(root.clone());
        let mut look = || {
            let mut ids: Vec<u64> = tree.refresh(|path| path.contains("/wanted")).collect();
            ids.sort_unstable();
            ids
        };
        assert_eq!(look(), [id("a/wanted-1")]);
        fs::create_dir_all(root.join("b/c/wanted-2")).unwrap();
        let mut both = vec![id("a/wanted-1"), id("b/c/wanted-2")];
        both.sort_unstable();
        assert_eq!(look(), both);
        assert_eq!(look(), both);
        // One goes and another comes in the same place between two looks.
        fs::remove_dir(root.join("a/wanted-1")).unwrap();
        fs::create_dir(root.join("a/wanted-3")).unwrap();
        let mut both = vec![id("a/wanted-3"), id("b/c/wanted-2")];
        both.sort_unstable();
        assert_eq!(look(), both);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(look(), [] as [u64; 0]);
    }
}
