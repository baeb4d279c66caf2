//! Names of containers and pods, from what their runtimes leave on the host's disk. Asks no daemon and no API.
//!
//! Kubernetes: the kubelet links each container's log as `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log` and keeps a
//! directory `/var/log/pods/NAMESPACE_POD_UID`. Docker and podman: the container's own settings. A container has its
//! files before its first process runs, so they are looked for once, and again only for containers not seen before.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most entries of one directory; a node has a hundred pods or two.
const MAX_ENTRIES: usize = 20_000;
/// Largest file of settings that is read.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// Shortest time between two readings of the same directories.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// Longest name that Kubernetes gives, in bytes.
const MAX_NAME_BYTES: usize = 253;

/// What a container is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) container: Arc<str>,
    pub(super) pod: Arc<str>,
    pub(super) namespace: Arc<str>,
}

/// Names found so far.
#[derive(Debug)]
pub(super) struct ContainerNames {
    /// The host's file system; from inside a container it is that of process 1, when that can be seen.
    root: PathBuf,
    by_container: HashMap<Box<str>, Names>,
    by_pod: HashMap<Box<str>, Names>,
    read_at: Option<Instant>,
}

impl Default for ContainerNames {
    fn default() -> Self {
        let host = Path::new("/proc/1/root");
        let root = if fs::read_dir(host).is_ok() { host } else { Path::new("/") };
        Self::in_root(root.to_owned())
    }
}

impl ContainerNames {
    fn in_root(root: PathBuf) -> Self {
        Self { root, by_container: HashMap::new(), by_pod: HashMap::new(), read_at: None }
    }

    /// Names of a container of Kubernetes, from its own ID or that of its pod, which its cgroup tells.
    pub(super) fn of_kubernetes(&mut self, id: &str, cgroup: &str) -> Option<Names> {
        let uid = pod_uid(cgroup);
        if !self.by_container.contains_key(id) {
            self.read_again();
        }
        let pod = || self.by_pod.get(uid.as_deref()?);
        self.by_container.get(id).or_else(pod).cloned()
    }

    /// Name of a container of Docker or podman.
    pub(super) fn of_engine(&self, id: &str) -> Option<Arc<str>> {
        // The ID comes from a cgroup's name and becomes part of a path.
        if !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        self.docker(id).or_else(|| self.podman(id)).filter(|name| is_name(name)).map(Into::into)
    }

    fn docker(&self, id: &str) -> Option<String> {
        let path = self.root.join("var/lib/docker/containers").join(id).join("config.v2.json");
        let settings: serde_json::Value = serde_json::from_slice(&read(&path)?).ok()?;
        Some(settings["Name"].as_str()?.trim_start_matches('/').to_owned())
    }

    fn podman(&self, id: &str) -> Option<String> {
        let path = self.root.join("var/lib/containers/storage/overlay-containers/containers.json");
        let list: serde_json::Value = serde_json::from_slice(&read(&path)?).ok()?;
        let container = list.as_array()?.iter().find(|container| container["id"].as_str() == Some(id))?;
        Some(container["names"][0].as_str()?.to_owned())
    }

    fn read_again(&mut self) {
        let now = Instant::now();
        if self.read_at.is_some_and(|before| now.duration_since(before) < READ_AGAIN) {
            return;
        }
        self.read_at = Some(now);
        self.by_container =
            entries(&self.root.join("var/log/containers")).filter_map(|n| log_name(&n)).collect();
        self.by_pod = entries(&self.root.join("var/log/pods")).filter_map(|n| pod_directory(&n)).collect();
    }
}

fn entries(path: &Path) -> impl Iterator<Item = String> {
    let found = fs::read_dir(path).into_iter().flatten().take(MAX_ENTRIES);
    found.filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(MAX_FILE_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// `POD_NAMESPACE_CONTAINER-ID.log`
fn log_name(name: &str) -> Option<(Box<str>, Names)> {
    let (names, id) = name.strip_suffix(".log")?.rsplit_once('-')?;
    let mut parts = names.split('_');
    let (pod, namespace, container) = (parts.next()?, parts.next()?, parts.next()?);
    let sound = parts.next().is_none() && [pod, namespace, container].into_iter().all(is_name);
    let names = Names { container: container.into(), pod: pod.into(), namespace: namespace.into() };
    sound.then(|| (id.into(), names))
}

/// `NAMESPACE_POD_UID`
fn pod_directory(name: &str) -> Option<(Box<str>, Names)> {
    let mut parts = name.split('_');
    let (namespace, pod, uid) = (parts.next()?, parts.next()?, parts.next()?);
    let sound = parts.next().is_none() && [namespace, pod].into_iter().all(is_name);
    let names = Names { container: "".into(), pod: pod.into(), namespace: namespace.into() };
    sound.then(|| (uid.into(), names))
}

/// Pod in `…/kubepods/burstable/podUID/…` or `kubepods-burstable-podUID.slice`, where dashes have become underscores.
fn pod_uid(cgroup: &str) -> Option<String> {
    cgroup.split(['/', '\n', ':']).find_map(|component| {
        let component = component.strip_suffix(".slice").unwrap_or(component);
        let uid = match component.strip_prefix("pod") {
            Some(uid) => uid,
            None => component.strip_prefix("kubepods-")?.rsplit_once("pod").map(|(_, uid)| uid)?,
        };
        let sound = uid.len() >= 32 && uid.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b'-' | b'_'));
        sound.then(|| uid.replace('_', "-"))
    })
}

/// Deployment of a pod, from the way in which names of its pods are made: `NAME-TEMPLATEHASH-XXXXX`, where both ends are
/// of letters and digits that Kubernetes draws. `None` for pods of anything else.
pub(super) fn deployment(pod: &str) -> Option<&str> {
    let drawn = |text: &str| text.bytes().all(|byte| b"bcdfghjklmnpqrstvwxz2456789".contains(&byte));
    let (rest, end) = pod.rsplit_once('-')?;
    let (name, hash) = rest.rsplit_once('-')?;
    let sound =
        end.len() == 5 && drawn(end) && (6..=10).contains(&hash.len()) && drawn(hash) && !name.is_empty();
    sound.then_some(name)
}

/// Whether a stranger's text can be a name of Kubernetes, Docker or podman.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_NAME_BYTES
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "3f1c2e64-0b7a-4a52-9d6e-6f1f0a5a7d11";

    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, ContainerNames) {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let names = ContainerNames::in_root(folder.path().to_owned());
        (folder, names)
    }

    #[test]
    fn kubelet_links_name_pod_namespace_and_container() {
        let log = format!("var/log/containers/web-7d4b9c8f6d-x2x5z_shop_app-{ID}.log");
        let directory = format!("var/log/pods/shop_web-7d4b9c8f6d-x2x5z_{UID}/app/0.log");
        let (_folder, mut names) = host(&[(&log, ""), (&directory, "")]);
        let cgroup = format!("0::/kubepods/burstable/pod{UID}/{ID}\n");
        let expected =
            Names { container: "app".into(), pod: "web-7d4b9c8f6d-x2x5z".into(), namespace: "shop".into() };
        assert_eq!(names.of_kubernetes(ID, &cgroup), Some(expected.clone()));
        // The pod's own container has no log.
        let pause = ID.replace('0', "f");
        let underscores = UID.replace('-', "_");
        let cgroup = format!(
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{underscores}.slice/cri-containerd-{pause}.scope"
        );
        assert_eq!(names.of_kubernetes(&pause, &cgroup), Some(Names { container: "".into(), ..expected }));
        assert_eq!(names.of_kubernetes(&ID.replace('1', "e"), "0::/kubepods/x"), None);
    }

    #[test]
    fn engines_name_their_containers_in_their_own_files() {
        let docker = format!("var/lib/docker/containers/{ID}/config.v2.json");
        let podman = format!(r#"[{{"id": "{}", "names": ["cache"]}}]"#, ID.replace('0', "f"));
        let (_folder, names) = host(&[
            (&docker, r#"{"ID": "x", "Name": "/web-1"}"#),
            ("var/lib/containers/storage/overlay-containers/containers.json", &podman),
        ]);
        assert_eq!(names.of_engine(ID).as_deref(), Some("web-1"));
        assert_eq!(names.of_engine(&ID.replace('0', "f")).as_deref(), Some("cache"));
        assert_eq!(names.of_engine(&ID.replace('1', "f")), None);
        assert_eq!(names.of_engine("../../etc"), None);
    }

    #[test]
    fn strangers_names_are_checked() {
        for name in ["a_b_c.log", "a_b_c-1.txt", "a_b-1.log", "a_b_c_d-1.log", "_b_c-1.log", "é_b_c-1.log"] {
            assert_eq!(log_name(name), None, "{name}");
        }
        assert!(is_name("web-7d4b9c-x2x") && is_name("web_1"));
        assert!(!is_name("") && !is_name("a b") && !is_name("a\n") && !is_name(&"a".repeat(254)));
        assert_eq!(pod_uid("0::/kubepods/podless/x"), None);
    }

    #[test]
    fn deployments_are_told_from_other_owners() {
        assert_eq!(deployment("web-7d4b9c8f6d-x2x5z"), Some("web"));
        assert_eq!(deployment("shop-web-5bcf6d7-x2x5z"), Some("shop-web"));
        for pod in [
            "web-0",
            "fluentd-x2x5z",
            "web-7d4b9c8f6d-x2x5a",
            "web-7a4b9c8f6d-x2x5z",
            "-7d4b9c8f6d-x2x5z",
            "",
        ] {
            assert_eq!(deployment(pod), None, "{pod}");
        }
    }
}
