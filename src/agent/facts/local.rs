//! Facts that the machine knows itself: `/proc`, `/sys`, the routing table.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;

use super::Attributes;

/// Largest file that is read here; `/proc/cpuinfo` of 512 CPUs has 700 KiB, of which the start is enough.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// Where the files lie.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    proc: PathBuf,
    sys: PathBuf,
}

impl Default for Sources {
    fn default() -> Self {
        Self { proc: "/proc".into(), sys: "/sys".into() }
    }
}

impl Sources {
    /// Everything that can be read; what cannot is left out.
    pub(crate) fn read(&self) -> Attributes {
        let mut facts = Attributes::new();
        let mut add = |name: &str, value: String| {
            if !value.is_empty() {
                facts.push((name.into(), value.into()));
            }
        };
        add("profiling.host.name", self.proc("sys/kernel/hostname"));
        add("profiling.host.kernel_version", self.proc("sys/kernel/osrelease"));
        add("profiling.host.kernel_proc_version", self.proc("version"));
        add("profiling.host.machine", std::env::consts::ARCH.to_owned());
        for (name, path) in [
            ("net.core.bpf_jit_enable", "sys/net/core/bpf_jit_enable"),
            ("kernel.bpf_stats_enabled", "sys/kernel/bpf_stats_enabled"),
            ("kernel.unprivileged_bpf_disabled", "sys/kernel/unprivileged_bpf_disabled"),
        ] {
            add(&format!("profiling.host.sysctl.{name}"), self.proc(path));
        }
        let cpuinfo = self.proc("cpuinfo");
        let field = |names: &[&str]| {
            let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
            lines
                .find(|(name, _)| names.contains(&name.trim()))
                .map_or("", |(_, value)| value.trim())
                .to_owned()
        };
        add("host.cpu.vendor.id", field(&["vendor_id", "CPU implementer"]));
        add("host.cpu.model.name", field(&["model name"]));
        add("host.cpu.family", field(&["cpu family"]));
        add("host.cpu.model.id", field(&["model", "CPU part"]));
        add("host.cpu.stepping", field(&["stepping", "CPU revision"]));
        let topology = self.topology();
        if topology.cpus > 0 {
            add("profiling.agent.config.present_cpu_cores", topology.cpus.to_string());
            add("profiling.host.cpu.cores", topology.cores.to_string());
            add("profiling.host.cpu.sockets", topology.sockets.to_string());
        }
        facts
    }

    /// Present CPUs, the cores that they are threads of, and the sockets of those.
    fn topology(&self) -> Topology {
        let present = self.sys("devices/system/cpu/present");
        let cpus = crate::agent::host::cpu::parse_cpu_list(&present);
        let (mut cores, mut sockets) = (BTreeSet::new(), BTreeSet::new());
        for cpu in &cpus {
            let number = |name: &str| self.sys(&format!("devices/system/cpu/cpu{cpu}/topology/{name}"));
            let socket = number("physical_package_id");
            // A CPU that is switched off has no place.
            if !socket.is_empty() {
                cores.insert((socket.clone(), number("core_id")));
                sockets.insert(socket);
            }
        }
        Topology { cpus: cpus.len(), cores: cores.len(), sockets: sockets.len() }
    }

    fn proc(&self, path: &str) -> String {
        read(self.proc.join(path))
    }

    fn sys(&self, path: &str) -> String {
        read(self.sys.join(path))
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Topology {
    cpus: usize,
    cores: usize,
    sockets: usize,
}

fn read(path: PathBuf) -> String {
    use std::io::Read;
    let mut bytes = Vec::new();
    let whole = fs::File::open(path).and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes));
    if whole.is_ok() { String::from_utf8_lossy(&bytes).trim().to_owned() } else { String::new() }
}

/// Address that packets to the collector would come from; without a collector, those to the rest of the world. Sends
/// nothing, but may ask for the collector's name.
pub(super) fn source_address(collector: Option<&str>) -> Option<IpAddr> {
    let from = |target: std::net::SocketAddr| {
        let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).ok()?;
        // Only looks up the route.
        socket.connect(target).ok()?;
        let address = socket.local_addr().ok()?.ip();
        (!address.is_unspecified()).then_some(address)
    };
    let collector = collector.map(|address| {
        let address = address.rsplit_once("//").map_or(address, |(_, address)| address);
        address.split('/').next().unwrap_or(address)
    });
    if let Some(targets) = collector.and_then(|address| address.to_socket_addrs().ok())
        && let Some(address) = targets.into_iter().find_map(from)
        && !address.is_loopback()
    {
        return Some(address);
    }
    // Addresses for documentation: routed like any other, and nobody's.
    ["192.0.2.1:9", "[2001:db8::1]:9"].into_iter().find_map(|target| from(target.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded() -> (tempfile::TempDir, Sources) {
        let folder = tempfile::tempdir().unwrap();
        let files = [
            ("proc/sys/kernel/hostname", "node-7\n"),
            ("proc/sys/kernel/osrelease", "6.1.0-25-amd64\n"),
            ("proc/version", "Linux version 6.1.0-25-amd64 (debian-kernel@lists.debian.org)\n"),
            ("proc/sys/net/core/bpf_jit_enable", "1\n"),
            (
                "proc/cpuinfo",
                "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC 7763\nstepping\t: 1\n",
            ),
            ("sys/devices/system/cpu/present", "0-3\n"),
            ("sys/devices/system/cpu/cpu0/topology/physical_package_id", "0\n"),
            ("sys/devices/system/cpu/cpu0/topology/core_id", "0\n"),
            ("sys/devices/system/cpu/cpu1/topology/physical_package_id", "0\n"),
            ("sys/devices/system/cpu/cpu1/topology/core_id", "0\n"),
            ("sys/devices/system/cpu/cpu2/topology/physical_package_id", "1\n"),
            ("sys/devices/system/cpu/cpu2/topology/core_id", "0\n"),
        ];
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let sources = Sources { proc: folder.path().join("proc"), sys: folder.path().join("sys") };
        (folder, sources)
    }

    #[test]
    fn recorded_files_give_the_documented_facts() {
        let (_folder, sources) = recorded();
        let facts = sources.read();
        let value = |name: &str| facts.iter().find(|(found, _)| &**found == name).map(|(_, value)| &**value);
        assert_eq!(value("profiling.host.name"), Some("node-7"));
        assert_eq!(value("profiling.host.kernel_version"), Some("6.1.0-25-amd64"));
        assert_eq!(value("profiling.host.sysctl.net.core.bpf_jit_enable"), Some("1"));
        assert_eq!(value("profiling.host.sysctl.kernel.bpf_stats_enabled"), None);
        assert_eq!(value("host.cpu.vendor.id"), Some("AuthenticAMD"));
        assert_eq!(value("host.cpu.model.name"), Some("AMD EPYC 7763"));
        assert_eq!(value("host.cpu.model.id"), Some("1"));
        assert_eq!(value("profiling.agent.config.present_cpu_cores"), Some("4"));
        assert_eq!(sources.topology(), Topology { cpus: 4, cores: 2, sockets: 2 });
    }

    #[test]
    fn nothing_to_read_is_no_fact() {
        let folder = tempfile::tempdir().unwrap();
        let sources = Sources { proc: folder.path().into(), sys: folder.path().into() };
        let names: Vec<_> = sources.read().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["profiling.host.machine".into()] as [std::sync::Arc<str>; 1]);
    }

    #[test]
    fn own_address_is_found_without_sending() {
        // A collector on this host says nothing about the address that others know.
        let by_loopback = source_address(Some("http://127.0.0.1:8260/v1"));
        assert_eq!(by_loopback, source_address(None));
        assert!(by_loopback.is_none_or(|address| !address.is_loopback()));
    }
}
