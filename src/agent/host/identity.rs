//! Which machine this is: a 64-bit number that survives restarts, found without asking the network.
//!
//! Top 4 bits: environment. Low 60 bits: hash of the cloud's instance ID where the firmware tells it, else of the
//! machine ID mixed with the hardware address of the default route's interface.

use std::fs;
use std::hash::Hasher;
use std::path::Path;

use twox_hash::XxHash64;

/// Where the machine lives. The numbers are the top 4 bits of the host ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Environment {
    /// No sign of anything else.
    Hardware = 1,
    /// LXC container.
    Lxc = 2,
    /// Virtual machine.
    Kvm = 3,
    /// Docker container.
    Docker = 4,
    /// Google Compute Engine.
    Gcp = 5,
    /// Azure.
    Azure = 6,
    /// Amazon EC2.
    Aws = 7,
}

impl Environment {
    /// Name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hardware => "hardware",
            Self::Lxc => "lxc",
            Self::Kvm => "kvm",
            Self::Docker => "docker",
            Self::Gcp => "gcp",
            Self::Azure => "azure",
            Self::Aws => "aws",
        }
    }
}

/// Where this machine lives, and its ID: environment in the top 4 bits, 60 bits of hash below.
#[must_use]
pub fn identify() -> (Environment, u64) {
    let vendor = read("/sys/class/dmi/id/sys_vendor");
    let environment = environment(&Signs {
        vendor: &vendor,
        init_cgroup: &read("/proc/1/cgroup"),
        docker_marker: Path::new("/.dockerenv").exists(),
        hypervisor: fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains(" hypervisor")),
    });
    (environment, compose(environment, &seed(environment)))
}

/// What gives an environment away.
#[derive(Clone, Copy, Debug, Default)]
struct Signs<'a> {
    vendor: &'a str,
    init_cgroup: &'a str,
    docker_marker: bool,
    hypervisor: bool,
}

fn environment(signs: &Signs<'_>) -> Environment {
    match signs.vendor {
        vendor if vendor.starts_with("Amazon") => Environment::Aws,
        vendor if vendor.starts_with("Google") => Environment::Gcp,
        vendor if vendor.starts_with("Microsoft") => Environment::Azure,
        _ if signs.init_cgroup.contains("docker") || signs.docker_marker => Environment::Docker,
        _ if signs.init_cgroup.contains("lxc") => Environment::Lxc,
        _ if signs.init_cgroup.contains("kvm") || signs.hypervisor => Environment::Kvm,
        _ => Environment::Hardware,
    }
}

/// Bytes that no other machine has.
fn seed(environment: Environment) -> Vec<u8> {
    // EC2 (Nitro) writes the instance ID to the board's asset tag, Azure its own to the product's UUID.
    let instance = match environment {
        Environment::Aws => read("/sys/class/dmi/id/board_asset_tag"),
        Environment::Azure | Environment::Gcp => read("/sys/class/dmi/id/product_uuid"),
        _ => String::new(),
    };
    if !instance.is_empty() && instance != "Not Specified" {
        return instance.into_bytes();
    }
    let mut machine = read("/etc/machine-id");
    if machine.is_empty() {
        machine = read("/var/lib/dbus/machine-id");
    }
    if machine.is_empty() {
        // Last resort: the name. Better the same number after each start than a random one.
        machine = read("/proc/sys/kernel/hostname");
    }
    let mut seed = machine.into_bytes();
    // The host's own network, not that of a container that the agent may run in: its interface would be another one after
    // each start.
    let routes = ["/proc/1/net/route", "/proc/net/route"].map(read).into_iter().find(|text| !text.is_empty());
    let address = default_interface(&routes.unwrap_or_default())
        .map(|name| {
            let path = format!("sys/class/net/{name}/address");
            let host = read(format!("/proc/1/root/{path}"));
            if host.is_empty() { read(format!("/{path}")) } else { host }
        })
        .unwrap_or_default();
    for (byte, other) in seed.iter_mut().zip(address.bytes()) {
        *byte ^= other;
    }
    seed
}

/// Interface of the default route (destination and mask zero) in `/proc/net/route`.
fn default_interface(routes: &str) -> Option<&str> {
    routes.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let name = fields.next()?;
        let is_default = fields.next() == Some("00000000") && fields.nth(5) == Some("00000000");
        (is_default && !name.contains('/')).then_some(name)
    })
}

fn compose(environment: Environment, seed: &[u8]) -> u64 {
    let mut hash = XxHash64::with_seed(0);
    hash.write(seed);
    (environment as u64) << 60 | hash.finish() >> 4
}

/// Content of a small file without surrounding blanks; empty when it cannot be read.
fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_is_told_by_firmware_first() {
        let none = Signs::default();
        assert_eq!(environment(&none), Environment::Hardware);
        assert_eq!(environment(&Signs { hypervisor: true, ..none }), Environment::Kvm);
        assert_eq!(environment(&Signs { init_cgroup: "0::/docker/1", ..none }), Environment::Docker);
        assert_eq!(environment(&Signs { init_cgroup: "0::/lxc/1", ..none }), Environment::Lxc);
        let aws = Signs { vendor: "Amazon EC2", init_cgroup: "0::/docker/1", ..none };
        assert_eq!(environment(&aws), Environment::Aws);
    }

    #[test]
    fn default_route_names_its_interface() {
        let routes = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n\
                      eth1\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\n\
                      eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\n";
        assert_eq!(default_interface(routes), Some("eth0"));
        assert_eq!(default_interface("header\n"), None);
        assert_eq!(default_interface("header\n../x 00000000 0 0 0 0 0 00000000"), None);
    }

    #[test]
    fn host_id_is_stable_and_says_where_it_lives() {
        let (environment, id) = identify();
        assert_eq!(identify(), (environment, id));
        assert_eq!(id >> 60, environment as u64);
        assert_eq!(compose(Environment::Aws, b"i-1") >> 60, 7);
        assert_ne!(compose(Environment::Kvm, b"a"), compose(Environment::Kvm, b"b"));
    }
}
