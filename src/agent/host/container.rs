//! Container of a process, from the text of `/proc/PID/cgroup`. Pure.

/// Container identity in a cgroup file of version 1 or 2: the last path component that looks like one.
///
/// Understood: `…/docker/ID`, `docker-ID.scope`, `cri-containerd-ID.scope`, `crio-ID.scope`, `libpod-ID.scope`,
/// `…/kubepods/…/podUID/ID`, `…/buildkit/ID`, `lxc/NAME`, `lxc.payload.NAME`, and Fargate's `32HEX-DIGITS`.
#[must_use]
pub fn container_id(cgroup: &str) -> Option<&str> {
    cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2)).find_map(id_in_path)
}

/// Whether the cgroup belongs to a Kubernetes pod.
#[must_use]
pub fn is_kubernetes(cgroup: &str) -> bool {
    cgroup.contains("kubepods")
}

/// Container identity in one path of a cgroup.
pub(crate) fn id_in_path(path: &str) -> Option<&str> {
    path.rsplit('/').find_map(id_in_component).or_else(|| lxc_name(path))
}

fn id_in_component(component: &str) -> Option<&str> {
    let name = component.strip_suffix(".scope").unwrap_or(component);
    // Runtime prefixes end in a dash or (cri-o in some versions) a colon: `docker-ID`, `kubepods-…:cri-containerd:ID`.
    let name = name.rsplit([':']).next().unwrap_or(name);
    let tail = match name.rfind('-') {
        Some(_) if is_fargate(name) => name,
        Some(dash) => &name[dash + 1..],
        None => name,
    };
    (is_hex(tail, 64) || is_hex(tail, 32) || is_fargate(tail)).then_some(tail)
}

/// 32 hex digits, a dash, decimal digits (ECS on Fargate).
fn is_fargate(text: &str) -> bool {
    text.split_once('-').is_some_and(|(hex, number)| {
        is_hex(hex, 32)
            && !number.is_empty()
            && number.len() <= 20
            && number.bytes().all(|b| b.is_ascii_digit())
    })
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// LXC and LXD name their containers instead of numbering them.
fn lxc_name(path: &str) -> Option<&str> {
    let rest = path
        .split_once("/lxc.payload.")
        .or_else(|| path.split_once("/lxc.payload/"))
        .or_else(|| path.split_once("/lxc/"))?
        .1;
    rest.split('/').next().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn check(line: &str, expected: Option<&str>) {
        let text = line.replace("ID", ID);
        assert_eq!(container_id(&text), expected.map(|e| if e == "ID" { ID } else { e }), "{text}");
    }

    #[test]
    fn known_runtimes_are_recognised() {
        check("0::/system.slice/docker-ID.scope", Some("ID"));
        check("12:cpu:/docker/ID\n11:memory:/docker/ID", Some("ID"));
        check("0::/kubepods.slice/kubepods-pod1_2.slice/cri-containerd-ID.scope", Some("ID"));
        check("0::/kubepods/besteffort/pod3f1c/ID", Some("ID"));
        check("0::/machine.slice/libpod-ID.scope/container", Some("ID"));
        check(
            "1:name=systemd:/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:ID",
            Some("ID"),
        );
        check("0::/system.slice/crio-ID.scope", Some("ID"));
        check("0::/docker/buildkit/abcdefghijklmnopqrstuvwxy", None);
        check("0::/docker/buildkit/ID", Some("ID"));
        check("0::/lxc.payload.web1/init.scope", Some("web1"));
        check("3:cpu:/lxc/web2", Some("web2"));
        check(
            "9:cpu:/ecs/0123456789abcdef0123456789abcdef/0123456789abcdef0123456789abcdef-1234567890",
            Some("0123456789abcdef0123456789abcdef-1234567890"),
        );
    }

    #[test]
    fn ordinary_processes_have_none() {
        check("0::/", None);
        check("0::/user.slice/user-1000.slice/session-2.scope", None);
        check("0::/system.slice/ssh.service", None);
        check("", None);
        check("no colon at all", None);
    }
}
