//! Where a process runs, as far as `/proc` tells cheaply: container, pod, namespace.
//!
//! Asked once per image, at its first sample: most processes of a busy build host are never sampled at all.

use std::collections::HashMap;
use std::sync::Arc;

use super::container_names::{ContainerNames, deployment, is_name};
use super::procfs;
use crate::agent::host::container;

/// Most containers that are remembered.
const MAX_CONTAINERS: usize = 4096;
/// Where a pod finds the name of its namespace.
const NAMESPACE_FILE: &str = "var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// Longest value of an environment variable that is reported, in bytes.
const MAX_VALUE_BYTES: usize = 512;

/// Where a process runs. Empty = not known or not so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Description {
    /// Container.
    pub(crate) container_id: Arc<str>,
    /// Its name.
    pub(crate) container_name: Arc<str>,
    /// Kubernetes pod.
    pub(crate) pod_name: Arc<str>,
    /// Kubernetes namespace.
    pub(crate) namespace: Arc<str>,
    /// Everything that has no place of its own: deployment, environment variables that are asked for and set.
    pub(crate) attributes: Vec<(Arc<str>, Arc<str>)>,
}

/// Descriptions, one per container; one per process where its environment is asked for.
#[derive(Debug, Default)]
pub(crate) struct Descriptions {
    /// Environment variables that are asked for, and the attributes that hold their values.
    wanted: Vec<(String, Arc<str>)>,
    nowhere: Arc<Description>,
    names: ContainerNames,
    by_container: HashMap<Box<str>, Arc<Description>>,
}

impl Descriptions {
    /// Describes processes also by the values of these environment variables.
    pub(crate) fn set_variables(&mut self, names: &[String]) {
        let attribute = |name: &String| (name.clone(), format!("process.environment_variable.{name}").into());
        self.wanted = names.iter().map(attribute).collect();
    }

    /// Describes a process; `None` when it is gone.
    pub(crate) fn of(&mut self, pid: u32) -> Option<Arc<Description>> {
        let place = self.place(pid)?;
        if self.wanted.is_empty() {
            return Some(place);
        }
        let environment = procfs::environment(pid).unwrap_or_default();
        let value = |(name, attribute): &(String, Arc<str>)| {
            let value = procfs::environment_value(&environment, name)?;
            let end = value.floor_char_boundary(MAX_VALUE_BYTES);
            Some((Arc::clone(attribute), value[..end].into()))
        };
        let variables: Vec<_> = self.wanted.iter().filter_map(value).collect();
        if variables.is_empty() {
            return Some(place);
        }
        let mut description = (*place).clone();
        description.attributes.extend(variables);
        Some(Arc::new(description))
    }

    /// Container and pod of a process.
    fn place(&mut self, pid: u32) -> Option<Arc<Description>> {
        let cgroup = procfs::cgroup(pid)?;
        let Some(id) = container::container_id(&cgroup) else { return Some(Arc::clone(&self.nowhere)) };
        if let Some(known) = self.by_container.get(id) {
            return Some(Arc::clone(known));
        }
        let mut description = Description { container_id: id.into(), ..Description::default() };
        if container::is_kubernetes(&cgroup) {
            let named = self.names.of_kubernetes(id, &cgroup).map(|names| {
                (description.container_name, description.pod_name, description.namespace) =
                    (names.container, names.pod, names.namespace);
            });
            if named.is_none() {
                (description.pod_name, description.namespace) = pod_of(pid);
            }
            let owner = deployment(&description.pod_name).map(Arc::from);
            description.attributes.extend(owner.map(|owner| ("k8s.deployment.name".into(), owner)));
        } else {
            description.container_name = self.names.of_engine(id).unwrap_or_default();
        }
        let description = Arc::new(description);
        if self.by_container.len() >= MAX_CONTAINERS {
            self.by_container.clear();
        }
        self.by_container.insert(id.into(), Arc::clone(&description));
        Some(description)
    }

    /// What is said of a process about which nothing is known.
    pub(crate) fn nowhere(&self) -> Arc<Description> {
        Arc::clone(&self.nowhere)
    }
}

/// Name and namespace of a pod as its processes see them, where the host's files are out of reach: Kubernetes gives each
/// container its pod's name as host name, and tells of itself in the environment. Only these two variables are looked at.
fn pod_of(pid: u32) -> (Arc<str>, Arc<str>) {
    let environment = procfs::environment(pid).unwrap_or_default();
    let name = procfs::environment_value(&environment, "KUBERNETES_SERVICE_HOST")
        .and_then(|_| procfs::environment_value(&environment, "HOSTNAME"))
        .filter(|name| is_name(name))
        .unwrap_or_default();
    let namespace = procfs::root_file(pid, NAMESPACE_FILE).map(|text| text.trim().to_owned());
    (name.into(), namespace.filter(|name| is_name(name)).unwrap_or_default().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_is_described_and_a_vanished_one_is_not() {
        let mut descriptions = Descriptions::default();
        let first = descriptions.of(std::process::id()).unwrap();
        assert_eq!(descriptions.of(std::process::id()).unwrap(), first);
        assert_eq!(descriptions.of(4_194_305), None);
    }

    #[test]
    fn only_the_named_variables_are_read_and_their_values_have_an_end() {
        let mut child = std::process::Command::new("sleep")
            .arg("600")
            .env_clear()
            .envs([("SERVICE", "search"), ("TOKEN", "secret"), ("LONG", &"ä".repeat(1000))])
            .spawn()
            .unwrap();
        let mut descriptions = Descriptions::default();
        descriptions.set_variables(&["SERVICE".into(), "LONG".into(), "ABSENT".into()]);
        // Until the child has called exec it shows this process's environment.
        let description = loop {
            let description = descriptions.of(child.id()).unwrap();
            if !description.attributes.is_empty() {
                break description;
            }
        };
        child.kill().unwrap();
        child.wait().unwrap();
        let [(service, search), (long, cut)] = &description.attributes[..] else { panic!("{description:?}") };
        assert_eq!((&**service, &**search), ("process.environment_variable.SERVICE", "search"));
        assert_eq!((&**long, cut.len()), ("process.environment_variable.LONG", MAX_VALUE_BYTES));
    }
}
