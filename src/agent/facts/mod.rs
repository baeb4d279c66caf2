//! What is told about this host besides its samples: kernel, CPUs, addresses, settings, the cloud's own words.
//!
//! Collected on a thread of its own, for names and clouds may keep one waiting: the agent starts without, and each batch
//! carries what is known by then. The network is asked only where the firmware says that the machine belongs to a cloud
//! whose metadata service answers on the machine's own link.

mod cloud;
mod http;
mod local;

use std::sync::Arc;

use parking_lot::Mutex;

use super::host::Environment;
pub(crate) use local::Sources;

/// Attributes: name and value. Names are those of OpenTelemetry where it has one, else those of the hosts index.
pub(crate) type Attributes = Vec<(Arc<str>, Arc<str>)>;

/// Facts about this host, growing as they become known.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostFacts(Arc<Mutex<Attributes>>);

impl HostFacts {
    /// Begins to collect. `collector` is `host:port` of whoever is reported to, `configured` what the agent was told.
    pub(crate) fn collect(
        environment: Environment,
        collector: Option<String>,
        configured: Attributes,
    ) -> Self {
        let facts = Self(Arc::new(Mutex::new(configured)));
        let shared = facts.clone();
        let thread = std::thread::Builder::new().name("agent-facts".into());
        let spawned = thread.spawn(move || {
            let own = Sources::default().read();
            if own.iter().any(|(name, value)| &**name == "profiling.host.sysctl.net.core.bpf_jit_enable" && &**value == "0") {
                tracing::warn!("net.core.bpf_jit_enable is 0: kernel programs are interpreted, each sample costs ten times as much");
            }
            shared.add(own);
            if let Some(address) = local::source_address(collector.as_deref()) {
                let address: Arc<str> = address.to_string().into();
                shared.add(["host.ip", "profiling.host.ip"].map(|name| (name.into(), Arc::clone(&address))).into());
            }
            match cloud::read(environment, cloud::Endpoint::default()) {
                Ok(found) => shared.add(found),
                Err(error) => tracing::warn!("facts of the cloud are missing: {error}"),
            }
        });
        if let Err(error) = spawned {
            tracing::warn!("facts of the host are missing: {error}");
        }
        facts
    }

    /// What is known now.
    pub(crate) fn known(&self) -> Attributes {
        self.0.lock().clone()
    }

    fn add(&self, new: Attributes) {
        self.0.lock().extend(new.into_iter().filter(|(_, value)| !value.is_empty()));
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn facts_grow_without_anybody_waiting() {
        let configured: Attributes = vec![("profiling.agent.version".into(), "1".into())];
        let facts = HostFacts::collect(Environment::Hardware, None, configured);
        assert_eq!(&*facts.known()[0].0, "profiling.agent.version");
        let deadline = Instant::now() + Duration::from_mins(1);
        while !facts.known().iter().any(|(name, _)| &**name == "profiling.host.kernel_version") {
            assert!(Instant::now() < deadline, "{facts:?}");
            std::thread::yield_now();
        }
    }
}
